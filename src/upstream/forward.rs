//! The way of a request to an origin: connectivity, permit, the origins in order, one exchange, one repetition.
//!
//! `Host` and SNI are the authority of the origin that is really asked: when a request falls back from the first origin
//! to another, a `Host` that named the first is replaced; any other (a preserved one) is kept.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Version, header, request};
use tokio::time::Instant;

use super::{
    RequestBody,
    body::ResponseBody,
    client::Protocols,
    error::ForwardError,
    exchange::{Answer, Failure},
    group::{Origin, Upstream},
    permits::Permit,
    sending::Patience,
    upload::{Offer, Progress, Upload},
};
use crate::policy::Connectivity;

/// A request that can be sent more than once.
pub(super) struct Outgoing {
    pub(super) head: request::Parts,
    pub(super) body: Offer,
    pub(super) way: Way,
}

/// On which connections a request goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// On a pooled one; once more on a fresh one only when it was provably not sent.
    Pooled,
    /// On a pooled one, and once more on a fresh one when that turns out dead.
    Twice,
    /// On a fresh one.
    Fresh,
}

/// How the target is written (RFC 9112 section 3.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// As it is sent to an origin.
    Origin,
    /// As the client library takes it.
    Absolute,
}

impl Upstream {
    /// Sends a request whose URI is absolute and whose `Host` is set, and returns when the response head is whole.
    /// Tries every origin when a connect fails; retries a safe request without a body once when a pooled connection turns
    /// out dead, and any request that was provably not sent as long as nothing of its body is gone. A 101 keeps hyper's
    /// upgrade in the extensions.
    ///
    /// # Errors
    /// See [`ForwardError`]; a failure to connect to every origin makes the upstream disconnected and starts the prober.
    #[inline]
    pub fn send(
        &self,
        request: Request<RequestBody>,
    ) -> impl Future<Output = Result<Response<ResponseBody>, ForwardError>> + Send {
        // Outside, so that the future does not hold the request as well.
        let outgoing = Outgoing::new(request, Offer::new);
        async move { self.send_outgoing(&outgoing, Patience::Wait).await }
    }

    /// As [`Upstream::send`], for a request whose content is in memory: it is retried with its content.
    ///
    /// # Errors
    /// As [`Upstream::send`].
    #[inline]
    pub fn send_whole(
        &self,
        request: Request<Bytes>,
    ) -> impl Future<Output = Result<Response<ResponseBody>, ForwardError>> + Send {
        let outgoing = Outgoing::new(request, Offer::whole);
        async move { self.send_outgoing(&outgoing, Patience::Wait).await }
    }

    pub(super) async fn send_outgoing(
        &self,
        outgoing: &Outgoing,
        patience: Patience,
    ) -> Result<Response<ResponseBody>, ForwardError> {
        self.touch();
        let result = self.send_with_permit(outgoing, patience).await;
        match &result {
            // Nobody was turned away: it only was not its turn.
            Err(ForwardError::Overloaded) if patience == Patience::AtOnce => {}
            Err(error) => self.failed(error),
            Ok(_) => {}
        }
        result
    }

    async fn send_with_permit(
        &self,
        outgoing: &Outgoing,
        patience: Patience,
    ) -> Result<Response<ResponseBody>, ForwardError> {
        self.refuse_while_disconnected()?;
        let permit = self.permits.acquire(patience).await?;
        // It may have been lost while we waited.
        self.refuse_while_disconnected()?;

        let start = Instant::now();
        let answer = self.try_origins(outgoing).await?;
        self.reached();
        self.stats
            .answered(answer.response.status(), start.elapsed());
        Ok(outgoing.wrap(answer, permit))
    }

    pub(super) fn refuse_while_disconnected(&self) -> Result<(), ForwardError> {
        match self.connectivity() {
            Connectivity::Connected => Ok(()),
            Connectivity::Disconnected => Err(ForwardError::Disconnected),
        }
    }

    async fn try_origins(&self, outgoing: &Outgoing) -> Result<Answer, ForwardError> {
        let mut failure = None;
        for origin in self.in_order() {
            match self.ask(origin, outgoing).await {
                Err(error @ ForwardError::Connect { .. }) => {
                    self.hold_down(origin);
                    failure = Some(error);
                }
                other => return other,
            }
        }
        let failure = failure.expect("an upstream has an origin");
        self.lost(&super::error::chain(&failure));
        Err(failure)
    }

    async fn ask(&self, origin: &Origin, outgoing: &Outgoing) -> Result<Answer, ForwardError> {
        let way = outgoing.way;
        match self.exchange(origin, outgoing, way == Way::Fresh).await {
            // The origin closed an idle connection just as we took it: nothing wrong with the origin.
            Err(failure) if outgoing.may_be_repeated_after(&failure) => self
                .exchange(origin, outgoing, true)
                .await
                .map_err(|failure| failure.error),
            other => other.map_err(|failure| failure.error),
        }
    }
}

impl Outgoing {
    fn new<B>(request: Request<B>, offer: fn(B) -> Offer) -> Self {
        let (head, body) = request.into_parts();
        // Sending it twice does no harm (RFC 9110 section 9.2.1).
        let way = if head.method.is_safe() {
            Way::Twice
        } else {
            Way::Pooled
        };
        let body = offer(body);
        Self { head, body, way }
    }

    pub(super) fn asks_for_an_upgrade(&self) -> bool {
        self.head.headers.contains_key(header::UPGRADE)
    }

    /// For one attempt.
    pub(super) fn to(
        &self,
        origin: &Origin,
        upstream: &Upstream,
        form: Form,
    ) -> (Request<Upload>, Arc<Progress>) {
        let first = upstream.first();
        let (upload, progress) = self.body.upload();
        let mut request = Request::new(upload);
        *request.method_mut() = self.head.method.clone();
        *request.uri_mut() = match form {
            Form::Origin => origin.path_and_query(first, &self.head.uri).into(),
            Form::Absolute => origin.target(first, &self.head.uri),
        };
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = self.head.headers.clone();
        if origin.authority != first.authority {
            replace_host(request.headers_mut(), first, origin);
        }
        if upstream.clients.connector.protocols == Protocols::Http2 && !self.asks_for_an_upgrade() {
            fit_for_http2(request.headers_mut(), origin);
        }
        (request, progress)
    }

    fn may_be_repeated_after(&self, failure: &Failure) -> bool {
        let broken = matches!(failure.error, ForwardError::Broken { .. });
        if !broken || self.way == Way::Fresh {
            return false;
        }
        if failure.error.never_sent() {
            return self.body.is_untouched();
        }
        self.way == Way::Twice && failure.reused_connection && self.body.is_repeatable()
    }

    fn wrap(&self, answer: Answer, permit: Permit) -> Response<ResponseBody> {
        let (mut head, body) = answer.response.into_parts();
        // A length beside a Transfer-Encoding says nothing, and is not passed on (RFC 9112 section 6.3).
        if head.headers.contains_key(header::TRANSFER_ENCODING) {
            head.headers.remove(header::CONTENT_LENGTH);
        }
        let body = ResponseBody::new(body, answer.connection, permit, &self.head.method, &head);
        Response::from_parts(head, body)
    }
}

fn replace_host(headers: &mut http::HeaderMap, first: &Origin, origin: &Origin) {
    let named_the_first = headers
        .get(header::HOST)
        .is_some_and(|host| host.as_bytes() == first.authority.as_str().as_bytes());
    if named_the_first {
        set_host(headers, origin);
    }
}

/// `Host` says what `:authority` will say (RFC 9113 section 8.3.1). There are no connection options; with them the library
/// would remove the `TE` that they name, which HTTP/2 keeps.
fn fit_for_http2(headers: &mut http::HeaderMap, origin: &Origin) {
    set_host(headers, origin);
    headers.remove(header::CONNECTION);
}

fn set_host(headers: &mut http::HeaderMap, origin: &Origin) {
    let host = HeaderValue::from_str(origin.authority.as_str())
        .expect("an authority is made of visible ASCII");
    headers.insert(header::HOST, host);
}
