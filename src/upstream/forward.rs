//! The way of a request to an origin: connectivity, permit, the origins in order, one exchange, one repetition.
//!
//! `Host` and SNI are the authority of the origin that is really asked: when a request falls back from the first origin
//! to another, a `Host` that named the first is replaced; any other (a preserved one) is kept.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, Version, header, request, uri::PathAndQuery};
use tokio::time::Instant;

use super::{
    RequestBody,
    body::ResponseBody,
    client::Protocols,
    error::ForwardError,
    exchange::{Answer, Failure},
    group::{Origin, Upstream},
    interim::OnInterim,
    permits::Permit,
    sending::Patience,
    upload::{Offer, Progress, Upload},
};
use crate::policy::Connectivity;

/// A request with its content in memory, whose fields are made for each attempt to send it: there is hardly ever a second.
pub struct Whole<'a> {
    /// Its method.
    pub method: Method,
    /// Its target, in origin-form.
    pub target: PathAndQuery,
    /// Makes its fields; `Host` is set.
    pub fields: &'a (dyn Fn() -> HeaderMap + Sync),
    /// Its content.
    pub content: Bytes,
    /// Who hears of interim responses.
    pub on_interim: Option<OnInterim>,
}

/// A request that can be sent more than once.
pub(super) struct Outgoing<'a> {
    pub(super) method: Method,
    pub(super) target: PathAndQuery,
    pub(super) fields: Fields<'a>,
    pub(super) body: Offer,
    pub(super) on_interim: Option<OnInterim>,
    pub(super) way: Way,
}

/// The fields of each attempt.
pub(super) enum Fields<'a> {
    /// Copied.
    Kept(HeaderMap),
    /// Made, none of which asks for another protocol.
    Made(&'a (dyn Fn() -> HeaderMap + Sync)),
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
    /// Sends a request whose URI has the path as the first origin knows it, and whose `Host` is set, and returns when the response head is whole.
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
        let (head, body) = request.into_parts();
        let outgoing = Outgoing::of_parts(head, Offer::new(body));
        async move { self.send_outgoing(&outgoing, Patience::Wait).await }
    }

    /// As [`Upstream::send`], for a request whose content is in memory: it is retried with its content.
    ///
    /// # Errors
    /// As [`Upstream::send`].
    #[inline]
    pub fn send_whole<'a>(
        &'a self,
        request: Whole<'a>,
    ) -> impl Future<Output = Result<Response<ResponseBody>, ForwardError>> + Send + 'a {
        let outgoing = Outgoing {
            way: Way::of(&request.method),
            method: request.method,
            target: request.target,
            fields: Fields::Made(request.fields),
            body: Offer::whole(request.content),
            on_interim: request.on_interim,
        };
        async move { self.send_outgoing(&outgoing, Patience::Wait).await }
    }

    pub(super) async fn send_outgoing(
        &self,
        outgoing: &Outgoing<'_>,
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
        outgoing: &Outgoing<'_>,
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

    async fn try_origins(&self, outgoing: &Outgoing<'_>) -> Result<Answer, ForwardError> {
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

    async fn ask(&self, origin: &Origin, outgoing: &Outgoing<'_>) -> Result<Answer, ForwardError> {
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

impl Way {
    fn of(method: &Method) -> Self {
        // Sending it twice does no harm (RFC 9110 section 9.2.1).
        if method.is_safe() {
            Self::Twice
        } else {
            Self::Pooled
        }
    }
}

impl Fields<'_> {
    fn for_attempt(&self) -> HeaderMap {
        match self {
            Self::Kept(fields) => fields.clone(),
            Self::Made(make) => make(),
        }
    }
}

impl Outgoing<'_> {
    pub(super) fn of_parts(mut head: request::Parts, body: Offer) -> Self {
        let target = head.uri.into_parts().path_and_query;
        Self {
            way: Way::of(&head.method),
            method: head.method,
            target: target.unwrap_or_else(|| PathAndQuery::from_static("/")),
            fields: Fields::Kept(head.headers),
            body,
            on_interim: head.extensions.remove(),
        }
    }

    pub(super) fn asks_for_an_upgrade(&self) -> bool {
        match &self.fields {
            Fields::Kept(fields) => fields.contains_key(header::UPGRADE),
            Fields::Made(_) => false,
        }
    }

    /// For one attempt, which begins now.
    pub(super) fn to(
        &self,
        origin: &Origin,
        upstream: &Upstream,
        form: Form,
        now: Instant,
    ) -> (Request<Upload>, Arc<Progress>) {
        let first = upstream.first();
        let (upload, progress) = self.body.upload(now);
        let mut request = Request::new(upload);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = match form {
            Form::Origin => origin.path_and_query(first, &self.target).into(),
            Form::Absolute => origin.target(first, &self.target),
        };
        *request.version_mut() = Version::HTTP_11;
        *request.headers_mut() = self.fields.for_attempt();
        // As a rule it is the same origin; only another one's authority is compared.
        if !std::ptr::eq(origin, first) && origin.authority != first.authority {
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
        let body = ResponseBody::new(body, answer.connection, permit, &self.method, &head);
        Response::from_parts(head, body)
    }
}

fn replace_host(headers: &mut HeaderMap, first: &Origin, origin: &Origin) {
    let named_the_first = headers
        .get(header::HOST)
        .is_some_and(|host| *host == first.host);
    if named_the_first {
        headers.insert(header::HOST, origin.host.clone());
    }
}

/// `Host` says what `:authority` will say (RFC 9113 section 8.3.1). There are no connection options; with them the library
/// would remove the `TE` that they name, which HTTP/2 keeps.
fn fit_for_http2(headers: &mut HeaderMap, origin: &Origin) {
    headers.insert(header::HOST, origin.host.clone());
    headers.remove(header::CONNECTION);
}
