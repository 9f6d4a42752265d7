//! Requests that only the origin can answer: every method but GET and QUERY, a GET with a body, a QUERY too large to be
//! filed, what bypasses the cache, and changes of protocol. Streams both ways, buffers nothing, and sees to the
//! invalidation of what an unsafe method changed.

use std::sync::Arc;

use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;

use super::{
    Gateway,
    access::CacheUse,
    arrival::Arrival,
    body::Body,
    cache_status::CacheStatus,
    connection::Peer,
    effective::{Effective, Via},
    failure::Failed,
    invalidation::{Cause, Invalidation, warn_unless_marked},
    outgoing::remove_hop_by_hop,
    post::{self, Kept},
    problem::Problem,
    progress::InTime,
    refuse::has_body,
    request::{self, Conditions},
    respond::{self, Reply},
    trailers, tunnel,
};
use crate::{
    policy::{
        self, CacheKey, ForwardReason, HeadEffect, Mark, OnFailure, Reason, RequestHead,
        ResponseHead, Settings, Timestamp,
    },
    store::{StoredResponse, Ticket},
    upstream::{RequestBody, ResponseBody},
};

/// A request on its way to the origin, as it is.
pub(crate) struct Direct<'a> {
    pub(crate) gateway: &'a Arc<Gateway>,
    pub(crate) peer: &'a Peer,
    pub(crate) arrival: &'a Arrival,
    pub(crate) effective: &'a Effective,
    pub(crate) why: ForwardReason,
    /// The settings as they hold under the mode.
    pub(crate) settings: &'a Settings,
    /// For a HEAD: the stored response to GET that it tells something about, and that may stand in.
    pub(crate) stored: Option<Arc<StoredResponse>>,
}

impl<'a> Direct<'a> {
    /// Forwards the request and hands the answer on.
    pub(crate) async fn answer(self, mut request: Request<RequestBody>) -> Reply {
        let upgrade = requested_upgrade(&request);
        let client_side = upgrade.is_some().then(|| hyper::upgrade::on(&mut request));
        let (method, headers) = (request.method().clone(), request.headers().clone());
        let asked = RequestHead::new(&method, &headers, has_body(&request));
        let attempt = self.begin(&method);
        let Direct {
            gateway,
            peer,
            arrival,
            effective,
            ..
        } = attempt.direct;
        let sent = send(gateway, arrival, effective, request, upgrade.as_ref()).await;
        match (sent, client_side) {
            (Ok(response), Some(client_side))
                if response.status() == StatusCode::SWITCHING_PROTOCOLS =>
            {
                switch(gateway, peer, response, client_side)
            }
            (sent, _) => attempt.end(&asked, sent).await,
        }
    }

    /// Notes what is current before the request is sent, for whoever sends it.
    pub(crate) fn begin(self, method: &Method) -> Attempt<'a> {
        Attempt {
            request_time: self.gateway.clock.now(),
            // From before the request: what is invalidated while the answer is under way stays so.
            ticket: self.gateway.store.ticket(),
            doubt: Doubt::about(self.cause(method)),
            direct: self,
        }
    }

    async fn hand_on(
        self,
        asked: &RequestHead<'_>,
        ticket: Ticket,
        request_time: Timestamp,
        mut response: Response<ResponseBody>,
    ) -> Reply {
        remove_hop_by_hop(response.headers_mut());
        let key = self.effective.cache_key();
        let cause = self.cause(asked.method);
        let invalidation = cause.answered(ticket, response.status(), response.headers());
        let renewed = match invalidation {
            Some(invalidation) => invalidation.carry_out(self.gateway).await,
            None => None,
        };
        if let Some(stored) = &self.stored {
            let (status, headers) = (response.status(), response.headers());
            let head = ResponseHead {
                status,
                headers,
                request_time,
                response_time: self.gateway.clock.now(),
            };
            self.learn(asked, ticket, &key, stored, &head).await;
        }
        let status = CacheStatus {
            forward: Some(self.why),
            forward_status: Some(response.status()),
            detail: (self.why == ForwardReason::Bypass && asked.has_body)
                .then_some(Reason::RequestBody),
            ..CacheStatus::default()
        };
        let promised = trailers::promised(response.headers());
        let kept =
            renewed.and_then(|ticket| self.kept(asked, key, ticket, request_time, &response));
        let (mut response, status) = match kept {
            Some(kept) => {
                let freshness = kept.head.freshness(self.settings, kept.head.response_time);
                let status = CacheStatus {
                    stored: true,
                    ttl_secs: Some(freshness.ttl_secs()),
                    ..status
                };
                (post::keep(self.gateway, kept, response), status)
            }
            None => (response.map(Body::upstream), status),
        };
        trailers::promise(&mut response, promised, self.arrival.version, asked.headers);
        status.append_to(response.headers_mut());
        Reply {
            response,
            cache: CacheUse::Bypass,
            reason: None,
        }
    }

    fn cause<'b>(&'b self, method: &'b Method) -> Cause<'b> {
        let route = self.arrival.route;
        let route = route.and_then(|index| self.gateway.routes.get(index));
        Cause {
            gateway: self.gateway,
            key: self.effective.cache_key(),
            route: match &self.effective.via {
                Via::Upstream(upstream) => route.map(|route| (route, upstream.name())),
                Via::Forward => None,
            },
            method,
            rules: &self.settings.query,
        }
    }

    /// What is to be stored of the answer to a POST, if anything.
    fn kept(
        &self,
        asked: &RequestHead<'_>,
        key: CacheKey,
        ticket: Ticket,
        request_time: Timestamp,
        response: &Response<ResponseBody>,
    ) -> Option<Kept> {
        let (gateway, peer) = (self.gateway, self.peer);
        let (arrival, effective) = (self.arrival, self.effective);
        // What was forwarded and is not in the key, a parameter or a field, would be a way to choose what others get.
        if !effective.is_filed_as_forwarded()
            || request::tells_more_than_a_read(gateway, peer, arrival, effective, asked.headers)
            || !post::may_be_kept(gateway, response.body())
        {
            return None;
        }
        let answer = ResponseHead {
            status: response.status(),
            headers: response.headers(),
            request_time,
            response_time: self.gateway.clock.now(),
        };
        let head = policy::store_post_answer(asked, &key, &answer, self.settings)?;
        Some(Kept { key, head, ticket })
    }

    /// What the answer to a HEAD tells about the stored response to GET (RFC 9111 section 4.3.5).
    async fn learn(
        &self,
        asked: &RequestHead<'_>,
        ticket: Ticket,
        key: &CacheKey,
        stored: &Arc<StoredResponse>,
        head: &ResponseHead<'_>,
    ) {
        match policy::head_effect(asked, head, &stored.head, self.settings) {
            HeadEffect::Nothing => {}
            HeadEffect::Freshen(head) => {
                self.gateway.store.freshen(ticket, key, stored, *head);
            }
            HeadEffect::MarkStale => {
                let marked = self.gateway.store.mark(key, Mark::Stale).await;
                warn_unless_marked(key, Mark::Stale, marked);
            }
        }
    }

    fn failed(&self, asked: &RequestHead<'_>, failed: &Failed) -> Reply {
        let id = self.arrival.id;
        let (Some(stored), Some(failure)) = (&self.stored, failed.failure()) else {
            return Reply::problem(failed.to_problem(None), id);
        };
        let now = self.gateway.clock.now();
        match policy::on_failure(asked, failure, Some(&stored.head), self.settings, now) {
            OnFailure::Problem(reason) => Reply::problem(failed.to_problem(Some(reason)), id),
            OnFailure::ServeStale(reuse) => {
                let status = CacheStatus {
                    forward: Some(self.why),
                    detail: reuse.detail,
                    ..CacheStatus::default()
                };
                let key = self.effective.cache_key();
                let response =
                    respond::from_store(&self.gateway.store, &key, asked, stored, &reuse, &status);
                Reply {
                    response,
                    cache: CacheUse::Stale,
                    reason: reuse.detail,
                }
            }
        }
    }
}

/// A request that is being sent. Dropped before its end, whatever it may have changed is stale.
pub(crate) struct Attempt<'a> {
    direct: Direct<'a>,
    request_time: Timestamp,
    ticket: Ticket,
    doubt: Doubt,
}

impl Attempt<'_> {
    /// Hands on what came of it.
    pub(crate) async fn end(
        mut self,
        asked: &RequestHead<'_>,
        sent: Result<Response<ResponseBody>, Failed>,
    ) -> Reply {
        match sent {
            Ok(response) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
                let detail = "the origin changed the protocol without being asked";
                let problem = Problem::new(Reason::UpstreamError, detail);
                Reply::problem(problem, self.direct.arrival.id)
            }
            Ok(response) => {
                let (ticket, request_time) = (self.ticket, self.request_time);
                let reply = self.direct.hand_on(asked, ticket, request_time, response);
                let reply = reply.await;
                self.doubt.settle();
                reply
            }
            Err(failed) => {
                if failed.is_never_sent() {
                    self.doubt.settle();
                }
                self.direct.failed(asked, &failed)
            }
        }
    }

    /// Nothing was changed by it.
    pub(crate) fn was_not_executed(mut self) {
        self.doubt.settle();
    }
}

/// The body of a request as it comes from its client, which may not take its time.
pub(crate) fn upload(arrival: &Arrival, body: Incoming) -> RequestBody {
    match arrival.version {
        Version::HTTP_2 => InTime::new(body).boxed_unsync(),
        _ => body.map_err(Into::into).boxed_unsync(),
    }
}

async fn send(
    gateway: &Gateway,
    arrival: &Arrival,
    effective: &Effective,
    request: Request<RequestBody>,
    upgrade: Option<&HeaderValue>,
) -> Result<Response<ResponseBody>, Failed> {
    let upstream = effective.upstream(gateway);
    let (head, body) = request.into_parts();
    let mut headers = request::outgoing(
        gateway,
        arrival,
        effective,
        &head.headers,
        Conditions::Keep,
        &head.method,
    );
    if let Some(protocol) = upgrade {
        headers.remove(header::TE);
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, protocol.clone());
    }
    let mut outgoing = Request::new(body);
    *outgoing.method_mut() = head.method;
    *outgoing.uri_mut() = effective.path_and_query.clone().into();
    *outgoing.headers_mut() = headers;
    if let Some(interim) = &arrival.interim {
        interim.listen(&mut outgoing);
    }
    upstream.send(outgoing).await.map_err(Failed::from)
}

/// The protocol a request asks to change to, if it asks properly (RFC 9110 section 7.8). h2c is not one: the upstream
/// connection is ours to choose.
pub(crate) fn requested_upgrade<B>(request: &Request<B>) -> Option<HeaderValue> {
    let protocol = request.headers().get(header::UPGRADE)?;
    let asked = request
        .headers()
        .get_all(header::CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .any(|option| option.trim_ascii().eq_ignore_ascii_case(b"upgrade"));
    let usable = request.version() == http::Version::HTTP_11
        && !protocol.as_bytes().eq_ignore_ascii_case(b"h2c");
    (asked && usable).then(|| protocol.clone())
}

/// Answers 101 and joins both sides once they have changed the protocol.
fn switch(
    gateway: &Arc<Gateway>,
    peer: &Peer,
    mut response: Response<ResponseBody>,
    client_side: hyper::upgrade::OnUpgrade,
) -> Reply {
    let origin_side = hyper::upgrade::on(&mut response);
    let protocol = response.headers().get(header::UPGRADE).cloned();
    remove_hop_by_hop(response.headers_mut());
    response
        .headers_mut()
        .insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
    if let Some(protocol) = protocol {
        response.headers_mut().insert(header::UPGRADE, protocol);
    }
    let (head, _) = response.into_parts();
    let place = Arc::clone(&peer.permit);
    let draining = gateway.draining.clone();
    gateway.tasks.spawn(async move {
        // Each holds the place of its client's connection; the upstream's permit was given back with the head.
        let _place = place;
        if let (Ok(client), Ok(origin)) = tokio::join!(client_side, origin_side) {
            tunnel::join(TokioIo::new(client), TokioIo::new(origin), &draining).await;
        }
    });
    Reply {
        response: Response::from_parts(head, Body::empty()),
        cache: CacheUse::Bypass,
        reason: Some(Reason::Upgrade),
    }
}

/// The doubt whether an unsafe request was executed. As long as it is not settled (no answer came, or the client left
/// first), dropping it makes stale what a success would have invalidated, as far as that is known without an answer, so
/// that the origin is asked again.
struct Doubt {
    gateway: Arc<Gateway>,
    about: Option<Invalidation>,
}

impl Doubt {
    fn about(cause: Cause<'_>) -> Self {
        Self {
            gateway: Arc::clone(cause.gateway),
            about: cause.in_doubt(),
        }
    }

    fn settle(&mut self) {
        self.about = None;
    }
}

impl Drop for Doubt {
    fn drop(&mut self) {
        if let Some(about) = self.about.take() {
            about.begin(&self.gateway);
        }
    }
}
