//! Answers the gateway makes itself: problem documents (RFC 9457), one per [`Reason`] that is a problem. The one place
//! where errors become responses.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Response, StatusCode, header};
use serde_json::json;

use super::{access::RequestId, body::Body};
use crate::{policy::Reason, protect::Refused};

/// Where the descriptions of the problem types are served, by the gateway itself and so also offline.
pub(crate) const TYPE_PREFIX: &str = "/.well-known/hardtack/problems/";

/// A refusal or a failure, before it is a response.
#[derive(Debug)]
pub(crate) struct Problem {
    /// Why.
    pub(crate) reason: Reason,
    /// One sentence about this occurrence, without secrets.
    pub(crate) detail: String,
    /// When to come back.
    pub(crate) retry_after: Option<Duration>,
    /// The rate limit that was exceeded.
    pub(crate) refused: Option<Refused>,
    /// Status, where the reason's own is not the one.
    pub(crate) status: Option<StatusCode>,
    /// Whether the connection is closed afterwards: what follows on it is not to be trusted.
    pub(crate) close: Close,
}

/// What becomes of the connection after a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Close {
    /// It stays.
    Keep,
    /// It is closed.
    Close,
}

impl Problem {
    /// A problem with the status of its reason.
    pub(crate) fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            retry_after: None,
            refused: None,
            status: None,
            close: Close::Keep,
        }
    }

    /// The same, and the connection is closed after it.
    pub(crate) fn closing(reason: Reason, detail: impl Into<String>) -> Self {
        Self {
            close: Close::Close,
            ..Self::new(reason, detail)
        }
    }

    /// Its status.
    pub(crate) fn status(&self) -> StatusCode {
        self.status.unwrap_or_else(|| describe(self.reason).0)
    }

    /// The response.
    pub(crate) fn into_response(self, id: RequestId) -> Response<Body> {
        let (status, title) = (self.status(), describe(self.reason).1);
        let document = json!({
            "type": format!("{TYPE_PREFIX}{}", self.reason),
            "title": title,
            "status": status.as_u16(),
            "detail": self.detail,
            "reason": self.reason.as_str(),
            "instance": id.to_string(),
        });
        let mut text = document.to_string();
        text.push('\n');
        let mut response = Response::new(Body::whole(Bytes::from(text)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = self.retry_after {
            let secs = after.as_secs() + u64::from(after.subsec_nanos() > 0);
            headers.insert(header::RETRY_AFTER, HeaderValue::from(secs.max(1)));
        }
        if let Some(refused) = self.refused {
            let (policy, left) = rate_fields(&refused);
            headers.insert(HeaderName::from_static("ratelimit-policy"), policy);
            headers.insert(HeaderName::from_static("ratelimit"), left);
        }
        if self.reason == Reason::ProxyAuthenticationRequired {
            headers.insert(
                header::PROXY_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"hardtack\""),
            );
        }
        if self.close == Close::Close {
            headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers) of a refusal.
fn rate_fields(refused: &Refused) -> (HeaderValue, HeaderValue) {
    let secs = refused.retry_after.as_secs().max(1);
    let policy = format!("\"client\";q={};w=1", refused.per_second);
    let left = format!("\"client\";r=0;t={secs}");
    let value = |text: String| HeaderValue::try_from(text).expect("quotes, digits and punctuation");
    (value(policy), value(left))
}

/// Status and title of a reason that is a problem; 500 for one that is not.
pub(crate) const fn describe(reason: Reason) -> (StatusCode, &'static str) {
    match reason {
        Reason::OfflineMiss => (
            StatusCode::GATEWAY_TIMEOUT,
            "The origin cannot be reached and nothing usable is stored",
        ),
        Reason::OnlyIfCached => (
            StatusCode::GATEWAY_TIMEOUT,
            "Nothing stored that the request allows",
        ),
        Reason::UpstreamTimeout => (
            StatusCode::GATEWAY_TIMEOUT,
            "The origin did not answer in time",
        ),
        Reason::UpstreamError => (
            StatusCode::BAD_GATEWAY,
            "The origin's answer could not be read",
        ),
        Reason::OutcomeUnknown => (
            StatusCode::BAD_GATEWAY,
            "The write may have been executed, and nobody knows",
        ),
        Reason::IdempotencyMismatch => (
            StatusCode::UNPROCESSABLE_ENTITY,
            "The idempotency key was used with another body",
        ),
        Reason::QueueFull => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The queue cannot take the write",
        ),
        Reason::CredentialNotStorable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The write has to wait, and its credentials cannot be stored",
        ),
        Reason::NotFound => (StatusCode::NOT_FOUND, "Not found"),
        Reason::NotInThisState => (
            StatusCode::CONFLICT,
            "The queued write is not in a state for this",
        ),
        Reason::QueueUnavailable => (
            StatusCode::SERVICE_UNAVAILABLE,
            "The queue is not available",
        ),
        Reason::NoRoute => (StatusCode::NOT_FOUND, "No route takes this request"),
        Reason::MethodNotAllowed => (
            StatusCode::METHOD_NOT_ALLOWED,
            "This method is not allowed here",
        ),
        Reason::ProxyAuthenticationRequired => (
            StatusCode::PROXY_AUTHENTICATION_REQUIRED,
            "The forward proxy asks for credentials",
        ),
        Reason::TargetTooLong => (StatusCode::URI_TOO_LONG, "The request target is too long"),
        Reason::HeadTooLarge => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "The request head is too large",
        ),
        Reason::Overloaded => (StatusCode::SERVICE_UNAVAILABLE, "Too much at once"),
        Reason::RateLimited => (StatusCode::TOO_MANY_REQUESTS, "Too many requests"),
        Reason::ForwardDenied => (StatusCode::FORBIDDEN, "The forward proxy may not do this"),
        Reason::LoopDetected => (
            StatusCode::LOOP_DETECTED,
            "The request came back to this gateway",
        ),
        Reason::BadRequest => (
            StatusCode::BAD_REQUEST,
            "The request cannot be understood without doubt",
        ),
        Reason::BodyTooLarge => (
            StatusCode::PAYLOAD_TOO_LARGE,
            "The request body is too large",
        ),
        Reason::NotImplemented => (
            StatusCode::NOT_IMPLEMENTED,
            "The gateway does not have this",
        ),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, "A fault of the gateway"),
    }
}
