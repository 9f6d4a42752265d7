//! The `Cache-Status` member of this gateway (RFC 9211).

use bytes::{BufMut, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use crate::policy::{ForwardReason, Reason};

/// The field.
pub(crate) const CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Room for what most answers say.
const TYPICAL_BYTES: usize = 64;

/// Structured fields hold 15 digits (RFC 9651 section 3.3.1).
const INTEGER_MAX: i64 = 999_999_999_999_999;

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
        let mut text = BytesMut::with_capacity(TYPICAL_BYTES);
        self.write(&mut text);
        HeaderValue::from_maybe_shared(text.freeze()).expect("tokens and digits make a field value")
    }

    /// Writes the member, by hand: every hit has one. Tokens and integers need no quoting; the space after a semicolon is
    /// allowed and easier to read (RFC 9651 section 4.2.3.2).
    pub(crate) fn write(self, text: &mut impl BufMut) {
        text.put_slice(b"hardtack");
        match self.forward {
            None => text.put_slice(b"; hit"),
            Some(forward) => parameter(text, "fwd", forward.as_str()),
        }
        if let Some(status) = self.forward_status {
            parameter(text, "fwd-status", status.as_str());
        }
        if self.stored {
            text.put_slice(b"; stored");
        }
        if self.collapsed {
            text.put_slice(b"; collapsed");
        }
        if let Some(ttl) = self.ttl_secs {
            let ttl = ttl.clamp(-INTEGER_MAX, INTEGER_MAX);
            parameter(text, "ttl", itoa::Buffer::new().format(ttl));
        }
        if let Some(detail) = self.detail {
            parameter(text, "detail", detail.as_str());
        }
    }
}

fn parameter(text: &mut impl BufMut, name: &str, value: &str) {
    text.put_slice(b"; ");
    text.put_slice(name.as_bytes());
    text.put_u8(b'=');
    text.put_slice(value.as_bytes());
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

    #[test]
    fn whatever_it_says_is_a_structured_field() {
        for ttl_secs in [None, Some(0), Some(i64::MIN), Some(i64::MAX)] {
            for forward in [None, Some(ForwardReason::UriMiss)] {
                let status = CacheStatus {
                    forward,
                    forward_status: forward.map(|_| StatusCode::NOT_FOUND),
                    stored: true,
                    collapsed: true,
                    ttl_secs,
                    detail: Some(Reason::StaleIfError),
                };
                let value = status.to_value();
                let list = sfv::Parser::new(value.as_bytes()).parse::<sfv::List>();
                let list = list.unwrap_or_else(|error| panic!("{value:?}: {error}"));
                let [sfv::ListEntry::Item(member)] = &*list else {
                    panic!("{list:?}");
                };
                let ttl = member
                    .params
                    .get("ttl")
                    .map(|ttl| ttl.as_integer().unwrap());
                let limit = 999_999_999_999_999;
                let expected = ttl_secs.map(|ttl: i64| ttl.clamp(-limit, limit));
                assert_eq!(ttl.map(i64::from), expected);
            }
        }
    }
}
