//! The only place that makes a response: from the store, from a fill, from an origin, or from a refusal. Of hits that the
//! HTTP library does not see, [`super::fast_path`] writes what would be made here.

use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header,
};
use tokio::time::Instant;

use super::{
    Gateway,
    access::{CacheUse, End, Record, RequestId, Url},
    arrival::{Arrival, Destination},
    body::Body,
    cache_status::CacheStatus,
    connection::Peer,
    counters::Answered,
    identity::via_downstream,
    problem::Problem,
    ranges::{self, Source},
    write,
};
use crate::{
    policy::{
        Answer, CacheKey, Reason, RequestHead, Reuse, Selection, StoredHead, answer_conditionally,
        is_read_method, select_bytes,
    },
    store::{Store, StoredResponse},
    telemetry::RouteLabels,
};

/// No answer was written: the client hung up first. Not a registered status; it appears in logs and metrics only.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// Fields that speak of a content, which a 304 has not got.
pub(crate) const OF_CONTENT: [HeaderName; 5] = [
    header::CONTENT_LENGTH,
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_RANGE,
];

/// A response, and what the access event and the metrics say about it.
pub(crate) struct Reply {
    /// The response.
    pub(crate) response: Response<Body>,
    /// How the cache took part.
    pub(crate) cache: CacheUse,
    /// Why, if there is more to say than `cache`.
    pub(crate) reason: Option<Reason>,
}

impl Reply {
    /// A refusal or a failure.
    pub(crate) fn problem(problem: Problem, id: RequestId) -> Self {
        let reason = Some(problem.reason);
        Self {
            response: problem.into_response(id),
            cache: CacheUse::None,
            reason,
        }
    }
}

/// Where the body of an answer comes from.
pub(crate) enum Content<'a> {
    /// A stored response.
    Stored(&'a Store, &'a CacheKey, &'a StoredResponse),
    /// A fill that is under way: its reader, which is dropped when no body is to be sent.
    Growing(super::growing::Reader, Option<u64>),
}

/// Answers from a head that is stored, or is being stored, with what the client's own conditions and range ask for.
pub(crate) fn from_head(
    request: &RequestHead<'_>,
    head: &StoredHead,
    content: Content<'_>,
    age_secs: Option<u64>,
    status: &CacheStatus,
) -> Response<Body> {
    let mut response = match answer_conditionally(request, head) {
        Answer::Full => full(request, head, content),
        Answer::NotModified => not_modified(head),
        Answer::PreconditionFailed => empty(StatusCode::PRECONDITION_FAILED, head.headers.to_map()),
    };
    let headers = response.headers_mut();
    if let Some(age) = age_secs {
        headers.insert(header::AGE, HeaderValue::from(age));
    }
    status.append_to(headers);
    response
}

/// Answers from a stored response.
pub(crate) fn from_store(
    store: &Store,
    key: &CacheKey,
    request: &RequestHead<'_>,
    stored: &StoredResponse,
    reuse: &Reuse,
    status: &CacheStatus,
) -> Response<Body> {
    from_head(
        request,
        &stored.head,
        Content::Stored(store, key, stored),
        Some(reuse.age_secs),
        status,
    )
}

fn full(request: &RequestHead<'_>, head: &StoredHead, content: Content<'_>) -> Response<Body> {
    let (body, length) = match content {
        Content::Stored(store, key, stored) => {
            let source = Source { store, key, stored };
            let length = stored.body.len();
            match select_bytes(request, head, length) {
                // Decisions let no request get here that wants what a part has not got. If one does, it is told truly
                // what it gets.
                Selection::Whole | Selection::Missing => (source.body(0..length), Some(length)),
                Selection::One(stretch) => return ranges::one(head, &stretch, &source),
                Selection::Several(stretches) => {
                    return ranges::several(head, &stretches, &source);
                }
                Selection::Unsatisfiable(complete_bytes) => {
                    return ranges::unsatisfiable(head, complete_bytes);
                }
            }
        }
        Content::Growing(reader, length) => (Body::growing(reader, length), length),
    };
    let mut response = empty(head.status, head.headers.to_map());
    if let Some(length) = length
        && !head.status.is_informational()
        && head.status != StatusCode::NO_CONTENT
    {
        tell_length(response.headers_mut(), length);
    }
    if request.method != Method::HEAD {
        *response.body_mut() = body;
    }
    response
}

/// Says how long the body is, unless the origin said the same.
fn tell_length(headers: &mut HeaderMap, length: u64) {
    let mut told = headers.get_all(header::CONTENT_LENGTH).iter();
    let is_told = match (told.next(), told.next()) {
        (Some(told), None) => told == itoa::Buffer::new().format(length),
        _ => false,
    };
    if !is_told {
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    }
}

/// A 304 with the fields RFC 9110 section 15.4.5 asks for.
fn not_modified(head: &StoredHead) -> Response<Body> {
    let mut headers = head.headers.to_map();
    for name in &OF_CONTENT {
        headers.remove(name);
    }
    empty(StatusCode::NOT_MODIFIED, headers)
}

fn empty(status: StatusCode, headers: HeaderMap) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A small body made by the gateway.
pub(crate) fn text(status: StatusCode, text: String) -> Response<Body> {
    let mut response = empty(status, HeaderMap::new());
    *response.body_mut() = Body::whole(Bytes::from(text));
    response
}

/// What is known of a request when its answer goes out.
pub(crate) struct Ending<'a> {
    pub(crate) gateway: &'a Arc<Gateway>,
    pub(crate) peer: &'a Peer,
    pub(crate) method: &'a Method,
    /// What the client asked for, where nothing better is known.
    pub(crate) target: &'a http::Uri,
    pub(crate) version: http::Version,
    pub(crate) id: RequestId,
    pub(crate) began: Instant,
    /// `None` when the request was refused before it was known where it goes.
    pub(crate) arrival: Option<&'a Arrival>,
}

impl<'a> Ending<'a> {
    /// Of a request that is answered from memory.
    pub(crate) fn of_hit<B>(
        gateway: &'a Arc<Gateway>,
        peer: &'a Peer,
        request: &'a Request<B>,
        arrival: &'a Arrival,
    ) -> Self {
        Self {
            gateway,
            peer,
            method: request.method(),
            target: request.uri(),
            version: request.version(),
            id: arrival.id,
            began: arrival.began,
            arrival: Some(arrival),
        }
    }

    /// The request as it stands until it is answered.
    pub(crate) const fn unanswered(&self) -> Unanswered<'_> {
        Unanswered { ending: Some(self) }
    }

    /// The last touch: Via, metrics, the access record.
    fn finish(&self, reply: Reply) -> Response<Body> {
        let Reply {
            mut response,
            cache,
            reason,
        } = reply;
        // Ours, whatever the origin's is (RFC 9110 section 2.5); the library lowers it for older clients.
        *response.version_mut() = Version::HTTP_11;
        if cache != CacheUse::None {
            response
                .headers_mut()
                .append(header::VIA, via_downstream(self.version));
        }
        self.mark_pending_writes(&mut response);
        let status = response.status();
        if status == StatusCode::SWITCHING_PROTOCOLS
            || (*self.method == Method::CONNECT && status.is_success())
        {
            // What follows on this connection is no HTTP of ours.
            self.peer.shared.become_raw();
        }
        self.count(status, cache, reason);
        let mut record = self.record(status, cache, reason);
        record.queue_id = response.extensions_mut().remove();
        record.written = self.gateway.access.samples(cache);
        response.map(|body| body.with_record(Box::new(record)))
    }

    /// The last touch of a memory hit: counters that were looked up at start, and an event only when it is sampled.
    pub(crate) fn finish_hit(&self, mut response: Response<Body>) -> Response<Body> {
        response
            .headers_mut()
            .append(header::VIA, via_downstream(self.version));
        self.mark_pending_writes(&mut response);
        let sent = http_body::Body::size_hint(response.body()).exact();
        self.note_hit(response.status(), sent.unwrap_or(0));
        response
    }

    /// Counts a memory hit and leaves its access event, if that is sampled.
    pub(crate) fn note_hit(&self, status: StatusCode, sent_bytes: u64) {
        if status == StatusCode::OK && *self.method == Method::GET {
            let route = self.arrival.and_then(|arrival| arrival.route);
            let counters = self.gateway.counters.hits(route);
            counters.count(self.began.elapsed());
        } else {
            self.count(status, CacheUse::Hit, None);
        }
        if self.gateway.access.samples(CacheUse::Hit) {
            let mut record = self.record(status, CacheUse::Hit, None);
            record.sent_bytes = sent_bytes;
        }
    }

    /// Tells a read how many writes to its URL are pending.
    fn mark_pending_writes(&self, response: &mut Response<Body>) {
        if self.gateway.queue.has_no_pending() || !is_read_method(self.method) {
            return;
        }
        if let Some(effective) = self.arrival.and_then(Arrival::effective) {
            write::mark(self.gateway, effective, response.headers_mut());
        }
    }

    fn route(&self) -> &str {
        self.arrival
            .map_or("none", |arrival| arrival.route_name(self.gateway))
    }

    fn record(&self, status: StatusCode, cache: CacheUse, reason: Option<Reason>) -> Record {
        Record {
            id: self.id,
            client: self
                .arrival
                .and_then(|arrival| arrival.client)
                .or(self.peer.address),
            method: self.method.clone(),
            url: self.url(),
            route: self.route().to_owned(),
            status,
            cache,
            reason,
            queue_id: None,
            began: self.began,
            sent_bytes: 0,
            end: End::Open,
            written: true,
        }
    }

    fn url(&self) -> Url {
        match self.arrival.map(|arrival| &arrival.destination) {
            Some(Destination::Upstream(effective)) => Url::Key(effective.cache_key()),
            Some(Destination::Tunnel(authority)) => Url::Text(authority.to_string()),
            _ => Url::Text(without_userinfo(self.target)),
        }
    }

    fn count(&self, status: StatusCode, cache: CacheUse, reason: Option<Reason>) {
        let answered = Answered {
            route: self.route(),
            method: method_label(self.method),
            status,
            cache,
            reason,
        };
        let route = self.arrival.and_then(|arrival| arrival.route);
        let (counters, metrics) = (&self.gateway.counters, &self.gateway.metrics);
        counters.count(metrics, route, &answered, self.began.elapsed());
    }
}

/// A request that has not been answered. Dropped so, because its client hung up, it is counted and logged as 499.
pub(crate) struct Unanswered<'a> {
    ending: Option<&'a Ending<'a>>,
}

impl Unanswered<'_> {
    /// The answer, with its last touch.
    pub(crate) fn finish(mut self, reply: Reply) -> Response<Body> {
        let ending = self
            .ending
            .take()
            .expect("finished once, because it takes itself");
        ending.finish(reply)
    }
}

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        let Some(ending) = self.ending.take() else {
            return;
        };
        let status = StatusCode::from_u16(CLIENT_CLOSED_REQUEST).expect("a status of three digits");
        ending.count(status, CacheUse::None, None);
        if ending.gateway.access.samples(CacheUse::None) {
            drop(ending.record(status, CacheUse::None, None));
        }
    }
}

/// The target of a refused request, without the credentials for which it may have been refused.
fn without_userinfo(target: &Uri) -> String {
    match target.authority().map(|authority| authority.as_str()) {
        Some(authority) if authority.contains('@') => {
            let host = authority.rsplit('@').next().unwrap_or_default();
            let scheme = target.scheme_str().unwrap_or("http");
            format!("{scheme}://{host}{}", target.path())
        }
        _ => target.to_string(),
    }
}

/// Counts how stale a stale answer is.
pub(crate) fn count_stale(gateway: &Gateway, route: &str, ttl_secs: i64) {
    let labels = RouteLabels {
        route: route.to_owned(),
    };
    let past = u32::try_from(ttl_secs.saturating_neg().max(0)).unwrap_or(u32::MAX);
    gateway
        .metrics
        .stale_age
        .get_or_create(&labels)
        .observe(f64::from(past));
}

/// Methods as a bounded label.
fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "OPTIONS" => "OPTIONS",
        "CONNECT" => "CONNECT",
        "QUERY" => "QUERY",
        _ => "other",
    }
}

#[cfg(test)]
mod tests {
    use super::without_userinfo;

    #[test]
    fn credentials_in_a_target_do_not_reach_the_log() {
        for (target, expected) in [
            ("http://bob:secret@a.example/x?y", "http://a.example/x"),
            ("http://a.example/x?y", "http://a.example/x?y"),
            ("/x?y", "/x?y"),
        ] {
            assert_eq!(without_userinfo(&target.parse().unwrap()), expected);
        }
    }
}
