//! Refusals and failures of the admin listener as problem documents (RFC 9457): the one place that writes them.

use std::borrow::Cow;

use axum::response::{IntoResponse, Response};
use http::{
    HeaderValue, StatusCode,
    header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE},
};
use serde::{Deserialize, Serialize};
use tracing::{debug, error};
use utoipa::ToSchema;

use crate::{queue::OperateError, store::StoreError};

/// What went wrong. Where the proxy has the same reason, the token is the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    BadRequest,
    /// No token.
    Unauthorized,
    /// A token that is not ours.
    WrongToken,
    /// The read token, for a change.
    ReadOnlyToken,
    CrossOrigin,
    NotFound,
    MethodNotAllowed,
    BodyTimeout,
    BodyTooLarge,
    NotJson,
    HostNotAllowed,
    /// Too many failures of authentication at once.
    RateLimited,
    Internal,
    /// The disk tier is closed, or does not keep up.
    StorageUnavailable,
    /// It is not in a state in which this can be done.
    NotInThisState,
    /// It is being delivered, or somebody else changes it.
    InUse,
    /// Too much of this kind is under way.
    Overloaded,
    /// The queue's database does not answer.
    QueueUnavailable,
    /// There is no key to seal what must not be stored in the clear.
    CredentialNotStorable,
}

/// A problem, on its way to become a response.
#[derive(Debug)]
pub(super) struct Problem {
    kind: Kind,
    detail: Cow<'static, str>,
}

/// A problem document (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub struct Document {
    /// A URN that names the kind of problem.
    #[schema(example = "urn:hardtack:problem:not-found")]
    pub r#type: String,
    /// The kind in words.
    pub title: String,
    /// The status of the response.
    pub status: u16,
    /// What went wrong this time.
    pub detail: String,
    /// The kind as one stable token.
    pub reason: String,
    /// The id of the request, also in the log.
    pub instance: String,
}

impl Kind {
    const fn status(self) -> StatusCode {
        match self {
            Kind::BadRequest => StatusCode::BAD_REQUEST,
            Kind::Unauthorized | Kind::WrongToken => StatusCode::UNAUTHORIZED,
            Kind::ReadOnlyToken | Kind::CrossOrigin => StatusCode::FORBIDDEN,
            Kind::NotFound => StatusCode::NOT_FOUND,
            Kind::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Kind::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Kind::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Kind::NotJson => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Kind::HostNotAllowed => StatusCode::MISDIRECTED_REQUEST,
            Kind::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Kind::NotInThisState | Kind::InUse => StatusCode::CONFLICT,
            Kind::StorageUnavailable
            | Kind::Overloaded
            | Kind::QueueUnavailable
            | Kind::CredentialNotStorable => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    const fn reason(self) -> &'static str {
        match self {
            Kind::BadRequest => "bad-request",
            Kind::Unauthorized | Kind::WrongToken => "unauthorized",
            Kind::ReadOnlyToken => "read-only-token",
            Kind::CrossOrigin => "cross-origin",
            Kind::NotFound => "not-found",
            Kind::MethodNotAllowed => "method-not-allowed",
            Kind::BodyTimeout => "body-timeout",
            Kind::BodyTooLarge => "body-too-large",
            Kind::NotJson => "not-json",
            Kind::HostNotAllowed => "host-not-allowed",
            Kind::RateLimited => "rate-limited",
            Kind::Internal => "internal",
            Kind::StorageUnavailable => "storage-unavailable",
            Kind::NotInThisState => "not-in-this-state",
            Kind::InUse => "in-use",
            Kind::Overloaded => "overloaded",
            Kind::QueueUnavailable => "queue-unavailable",
            Kind::CredentialNotStorable => "credential-not-storable",
        }
    }

    const fn title(self) -> &'static str {
        match self {
            Kind::BadRequest => "The request cannot be understood",
            Kind::Unauthorized | Kind::WrongToken => "A valid token is needed",
            Kind::ReadOnlyToken => "This token may only read",
            Kind::CrossOrigin => "Requests of other sites are refused",
            Kind::NotFound => "Not found",
            Kind::MethodNotAllowed => "The method is not for this resource",
            Kind::BodyTimeout => "The request body did not come in time",
            Kind::BodyTooLarge => "The request body is too large",
            Kind::NotJson => "The request body has to be JSON",
            Kind::HostNotAllowed => "This host name is not served",
            Kind::RateLimited => "Too many failed attempts",
            Kind::Internal => "The gateway failed",
            Kind::StorageUnavailable => "The disk tier is not available",
            Kind::NotInThisState => "The queued write is not in a state for this",
            Kind::InUse => "The queued write is being worked on",
            Kind::Overloaded => "Too much of this is under way",
            Kind::QueueUnavailable => "The queue is not available",
            Kind::CredentialNotStorable => "The credential cannot be stored",
        }
    }

    /// Fields that this kind of problem has to carry.
    fn field(self) -> Option<(http::HeaderName, &'static str)> {
        match self {
            Kind::Unauthorized => Some((WWW_AUTHENTICATE, r#"Bearer realm="hardtack""#)),
            Kind::WrongToken => Some((
                WWW_AUTHENTICATE,
                r#"Bearer realm="hardtack", error="invalid_token""#,
            )),
            Kind::RateLimited | Kind::InUse => Some((RETRY_AFTER, "1")),
            _ => None,
        }
    }
}

impl Problem {
    pub(super) fn new(kind: Kind, detail: impl Into<Cow<'static, str>>) -> Self {
        Self {
            kind,
            detail: detail.into(),
        }
    }

    pub(super) fn bad_request(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::BadRequest, detail)
    }

    pub(super) fn not_found(detail: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Kind::NotFound, detail)
    }

    /// With what was done before.
    pub(super) fn after(self, done: &str) -> Self {
        let detail = format!("{}; before that: {done}", self.detail);
        Self::new(self.kind, detail)
    }
    fn document(&self) -> Document {
        Document {
            r#type: format!("urn:hardtack:problem:{}", self.kind.reason()),
            title: self.kind.title().to_owned(),
            status: self.kind.status().as_u16(),
            detail: self.detail.clone().into_owned(),
            reason: self.kind.reason().to_owned(),
            instance: format!("{:016x}", fastrand::u64(..)),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        let kind = match error {
            StoreError::Cursor => Kind::BadRequest,
            StoreError::Unavailable => Kind::StorageUnavailable,
            _ => Kind::Internal,
        };
        if kind == Kind::Internal {
            error!(%error, "The store failed an operator's request.");
        }
        Self::new(kind, error.to_string())
    }
}

impl From<OperateError> for Problem {
    fn from(error: OperateError) -> Self {
        let kind = match error {
            OperateError::Unknown { .. } => Kind::NotFound,
            OperateError::NotAllowed { .. } => Kind::NotInThisState,
            OperateError::InUse => Kind::InUse,
            OperateError::Invalid(_) => Kind::BadRequest,
            OperateError::TooManyPlans { .. } => Kind::Overloaded,
            OperateError::TooLarge { .. } => Kind::BodyTooLarge,
            OperateError::CredentialNotStorable => Kind::CredentialNotStorable,
            OperateError::Unavailable(_) => Kind::QueueUnavailable,
        };
        Self::new(kind, error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let document = self.document();
        debug!(
            request_id = document.instance,
            reason = document.reason,
            "Refused an operator's request."
        );
        let body = serde_json::to_vec(&document).expect("strings and numbers are JSON");
        let mut response = (self.kind.status(), body).into_response();
        let fields = response.headers_mut();
        fields.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some((name, value)) = self.kind.field() {
            fields.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}
