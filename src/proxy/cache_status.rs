//! The `Cache-Status` member of this gateway (RFC 9211).

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use sfv::{Integer, KeyRef, ListSerializer, TokenRef};

use crate::policy::{ForwardReason, Reason};

/// The field.
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// What the cache did with a request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CacheStatus {
    /// Why it went forward; `None`: a hit.
    pub(crate) forward: Option<ForwardReason>,
    /// The status the origin answered with.
    pub(crate) forward_status: Option<StatusCode>,
    /// Whether the answer is (being) stored.
    pub(crate) stored: bool,
    /// Whether the answer came from another request's fill.
    pub(crate) collapsed: bool,
    /// Freshness left in seconds.
    pub(crate) ttl_secs: Option<i64>,
    /// Why.
    pub(crate) detail: Option<Reason>,
}

impl CacheStatus {
    /// Appends the member after any the origin sent.
    pub(crate) fn append_to(&self, headers: &mut HeaderMap) {
        headers.append(CACHE_STATUS, self.to_value());
    }

    fn to_value(self) -> HeaderValue {
        let mut list = ListSerializer::new();
        let item = list.bare_item(TokenRef::constant("hardtack"));
        let item = match self.forward {
            None => item.parameter(KeyRef::constant("hit"), true),
            Some(forward) => item.parameter(KeyRef::constant("fwd"), token(forward.as_str())),
        };
        let item = match self.forward_status {
            Some(status) => item.parameter(
                KeyRef::constant("fwd-status"),
                Integer::from(status.as_u16()),
            ),
            None => item,
        };
        let item = if self.stored {
            item.parameter(KeyRef::constant("stored"), true)
        } else {
            item
        };
        let item = if self.collapsed {
            item.parameter(KeyRef::constant("collapsed"), true)
        } else {
            item
        };
        let item = match self.ttl_secs {
            Some(ttl) => item.parameter(KeyRef::constant("ttl"), integer(ttl)),
            None => item,
        };
        if let Some(detail) = self.detail {
            let _ = item.parameter(KeyRef::constant("detail"), token(detail.as_str()));
        }
        // There are tokens and integers only, so every semicolon begins a parameter, and a space after it is allowed and
        // easier to read (RFC 9651 section 4.2.3.2).
        let text = list.finish().unwrap_or_default().replace(';', "; ");
        HeaderValue::try_from(text).expect("structured fields are ASCII without controls")
    }
}

fn token(text: &'static str) -> &'static TokenRef {
    TokenRef::from_str(text).expect("the reasons are tokens")
}

/// Structured fields hold 15 digits (RFC 9651 section 3.3.1).
fn integer(value: i64) -> Integer {
    const LIMIT: i64 = 999_999_999_999_999;
    Integer::try_from(value.clamp(-LIMIT, LIMIT)).expect("clamped to what an integer holds")
}

#[cfg(test)]
mod tests {
    use super::CacheStatus;
    use crate::policy::{ForwardReason, Reason};
    use http::StatusCode;

    #[test]
    fn the_member_says_what_happened() {
        let base = CacheStatus::default();
        let miss = CacheStatus {
            forward: Some(ForwardReason::UriMiss),
            ..base
        };
        let stale = CacheStatus {
            forward: Some(ForwardReason::Stale),
            ..base
        };
        for (status, expected) in [
            (
                CacheStatus {
                    ttl_secs: Some(212),
                    ..base
                },
                "hardtack; hit; ttl=212",
            ),
            (
                CacheStatus {
                    ttl_secs: Some(-38),
                    detail: Some(Reason::StaleWhileRevalidate),
                    ..base
                },
                "hardtack; hit; ttl=-38; detail=stale-while-revalidate",
            ),
            (
                CacheStatus {
                    detail: Some(Reason::Disconnected),
                    ..stale
                },
                "hardtack; fwd=stale; detail=disconnected",
            ),
            (
                CacheStatus {
                    forward_status: Some(StatusCode::OK),
                    stored: true,
                    ttl_secs: Some(300),
                    ..miss
                },
                "hardtack; fwd=uri-miss; fwd-status=200; stored; ttl=300",
            ),
            (
                CacheStatus {
                    collapsed: true,
                    ..miss
                },
                "hardtack; fwd=uri-miss; collapsed",
            ),
        ] {
            assert_eq!(status.to_value().to_str().unwrap(), expected);
        }
    }
}
