//! The story of a write on a route that queues: pass it on if it can be, queue it if it must be, and say which.
//!
//! ```text
//! the body, whole ─ its key known already ────────────────────────────────────► the same receipt
//! mode `always`, `Prefer: respond-async` ─┐
//! lane not empty, disconnected, captive ──┼─► append ─► 202 (or the origin's answer, within `Prefer: wait`)
//! sent: `queue::outcome` says queue ──────┘
//! sent: answered otherwise ───────────────────────────────────────────────────► invalidate, answer as is
//! sent: nobody knows, and a second time might do harm ────────────────────────► 502 or 504 outcome-unknown
//! ```
//!
//! What the caller forbids to store (`Hardtack-Queue: never`, `Cache-Control: no-store`) takes no part in this: it is passed
//! on, out of any order, and its failure is the caller's to see.

mod body;
mod key;
mod lane;
mod outlet;
mod overlay;
mod prefer;
mod receipt;
mod receipts;
mod unstorable;

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, Method, Request, Response, header, request};
use tracing::warn;

pub use self::outlet::HttpOutlet;
use self::{body::GatherError, key::Key, lane::Lane, prefer::Preferences};
pub(crate) use self::{
    overlay::{has_overlay, mark, overlay},
    receipts::router,
};
use super::{
    Gateway, RouteConfig,
    arrival::Arrival,
    connection::Peer,
    direct::{Direct, requested_upgrade},
    effective::{Effective, Via},
    failure::Failed,
    outgoing::remove_named,
    problem::Problem,
    request::{self as outgoing, Conditions},
    respond::Reply,
};
use crate::{
    policy::{self, Connectivity, ForwardReason, Mode, Reason, RequestHead, Timestamp},
    queue::{
        self, Appended, Idempotency, Item, ItemId, KeyHash, NewBody, NewWrite, Observation,
        OrderBy, Origin, Outcome, Refused, Repeat, State, WriteMode, WriteSettings, outcome,
    },
    upstream::{Patience, RequestBody, ResponseBody, Sending, Upstream},
};

/// The number of a delivery, which only deliveries have.
const HARDTACK_ATTEMPT: HeaderName = HeaderName::from_static("hardtack-attempt");

/// `never`: the caller must know whether the origin took the write.
const HARDTACK_QUEUE: HeaderName = HeaderName::from_static("hardtack-queue");

/// Whoever is refused for want of room comes back after so many seconds, more or less.
const RETRY_AFTER_SECS: std::ops::RangeInclusive<u64> = 2..=10;

/// The route by whose settings a request is a write that may be queued.
pub(crate) fn route_of<'a, B>(
    gateway: &'a Gateway,
    arrival: &Arrival,
    request: &Request<B>,
) -> Option<&'a RouteConfig> {
    let route = gateway.routes.get(arrival.route?)?;
    let is_write =
        [Method::POST, Method::PUT, Method::PATCH, Method::DELETE].contains(request.method());
    let takes = route.write.mode != WriteMode::Off && is_write && !is_forbidden(request.headers());
    (takes && requested_upgrade(request).is_none()).then_some(route)
}

/// Whether the caller forbids to store the write.
fn is_forbidden(headers: &HeaderMap) -> bool {
    let never = headers.get_all(HARDTACK_QUEUE).iter();
    let mut never = never.map(|value| value.as_bytes().trim_ascii());
    never.any(|value| value.eq_ignore_ascii_case(b"never")) || policy::forbids_storing(headers)
}

/// A write on its way.
struct Write<'a> {
    gateway: &'a Arc<Gateway>,
    peer: &'a Peer,
    arrival: &'a Arrival,
    effective: &'a Effective,
    route: &'a RouteConfig,
    /// As it came, with the idempotency key.
    head: request::Parts,
    preferences: Preferences,
    origin: Origin,
    lane: Lane,
    key: Option<Key>,
    repeat: Repeat,
}

/// Answers a write.
pub(crate) async fn answer(
    gateway: &Arc<Gateway>,
    peer: &Peer,
    arrival: &Arrival,
    effective: &Effective,
    route: &RouteConfig,
    request: Request<RequestBody>,
) -> Reply {
    let id = arrival.id;
    let (head, body) = request.into_parts();
    let write = match Write::new(gateway, peer, arrival, effective, route, head) {
        Ok(write) => write,
        Err(problem) => return Reply::problem(problem, id),
    };
    let body = match body::gather(&gateway.queue, body).await {
        Ok(body) => body,
        Err(error) => return Reply::problem(ungathered(&error), id),
    };
    write
        .go(body)
        .await
        .unwrap_or_else(|problem| Reply::problem(*problem, id))
}

type Answered = Result<Reply, Box<Problem>>;

impl<'a> Write<'a> {
    fn new(
        gateway: &'a Arc<Gateway>,
        peer: &'a Peer,
        arrival: &'a Arrival,
        effective: &'a Effective,
        route: &'a RouteConfig,
        mut head: request::Parts,
    ) -> Result<Self, Problem> {
        // Before anything is made of it: what `Connection` takes off never reaches the origin.
        remove_named(&mut head.headers);
        let settings = &route.write;
        let preferences = Preferences::of(&head.headers);
        let key = key::take(&mut head.headers, settings).map_err(|error| {
            let detail = format!("`{}`: {error}", settings.idempotency_header);
            Problem::closing(Reason::BadRequest, detail)
        })?;
        let origin = match &effective.via {
            Via::Upstream(name) => Origin::Upstream(name.clone()),
            Via::Forward => Origin::Forward {
                scheme: effective.scheme.to_string(),
                authority: effective.authority.to_string(),
            },
        };
        let is_secret = match &settings.order_by {
            OrderBy::Header(name) => gateway.queue.is_sensitive(name),
            _ => false,
        };
        let lane = lane::of(
            &settings.order_by,
            &origin,
            &route.name,
            effective.path_and_query.path(),
            &head.headers,
            is_secret,
        );
        Ok(Self {
            repeat: repeat_of(&head, key.is_some(), settings),
            gateway,
            peer,
            arrival,
            effective,
            route,
            head,
            preferences,
            origin,
            lane,
            key,
        })
    }

    async fn go(self, body: NewBody) -> Answered {
        let new = self.to_append(body);
        let known = self.gateway.queue.known(&new).await;
        if let Some(item) = known.map_err(|error| refused(&error))? {
            return self.answer_queued(item).await;
        }
        if self.must_wait() {
            return self.append(new, &FirstAttempt::default()).await;
        }
        self.attempt(new).await
    }

    /// Whether it may not be tried at once.
    fn must_wait(&self) -> bool {
        let gateway = self.gateway;
        let mode = gateway
            .modes
            .effective(self.arrival.route, gateway.clock.now());
        let upstream = self.effective.upstream(gateway);
        let is_connected =
            upstream.is_some_and(|upstream| upstream.connectivity() == Connectivity::Connected);
        self.route.write.mode == WriteMode::Always
            || self.preferences.respond_async
            || mode == Mode::Offline
            || !is_connected
            || !gateway.queue.is_clear(self.lane.id)
            || gateway.queue.is_captive(&self.origin)
    }

    async fn attempt(self, new: NewWrite) -> Answered {
        let mode = self
            .gateway
            .modes
            .effective(self.arrival.route, self.gateway.clock.now());
        let settings = self.route.cache.under(mode);
        let direct = Direct {
            gateway: self.gateway,
            peer: self.peer,
            arrival: self.arrival,
            effective: self.effective,
            why: ForwardReason::Method,
            settings: settings.as_ref(),
            stored: None,
        };
        let attempt = direct.begin(&self.head.method);
        let began = self.gateway.clock.now();
        let sent = self.send(&new.body).await;
        let outcome = match observed(&sent) {
            Some(observed) => outcome(observed, self.repeat, self.route.write.trust_503),
            None => Outcome::HandOn,
        };
        let now = self.gateway.clock.now();
        match outcome {
            Outcome::HandOn => {
                let asked = RequestHead {
                    method: &self.head.method,
                    headers: &self.head.headers,
                    has_body: new.body.bytes() > 0,
                };
                Ok(attempt.end(&asked, sent).await)
            }
            // Dropped, the attempt makes stale what it may have changed.
            Outcome::Unknown => Err(Box::new(unknown(&sent))),
            Outcome::Queue => {
                attempt.was_not_executed();
                let first = FirstAttempt::of(&sent, began, now, Ambiguity::None);
                self.append(new, &first).await
            }
            Outcome::QueueAmbiguous => {
                drop(attempt);
                let first = FirstAttempt::of(&sent, began, now, Ambiguity::Perhaps);
                // That it was not taken would be heard as that it was not executed.
                let appended = self.append(new, &first).await;
                appended.map_err(|_| Box::new(unknown(&sent)))
            }
        }
    }

    async fn send(&self, body: &NewBody) -> Result<Response<ResponseBody>, Failed> {
        let upstream = self.effective.upstream(self.gateway);
        let upstream: Arc<Upstream> = upstream.ok_or_else(Failed::internal)?;
        let mut outgoing = Request::new(body::to_send(body));
        *outgoing.method_mut() = self.head.method.clone();
        *outgoing.uri_mut() = self.effective.uri().map_err(|_| Failed::internal())?;
        *outgoing.headers_mut() = self.outgoing_headers();
        let repeat = if self.repeat.is_allowed() {
            crate::upstream::Repeat::Once
        } else {
            crate::upstream::Repeat::Never
        };
        let sending = Sending {
            repeat,
            patience: Patience::Wait,
        };
        upstream
            .send_write(outgoing, sending)
            .await
            .map_err(Failed::from)
    }

    /// What the origin sees, of this attempt as of every later one.
    fn outgoing_headers(&self) -> HeaderMap {
        let mut headers = outgoing::outgoing(
            self.gateway,
            self.arrival,
            self.effective,
            &self.head.headers,
            Conditions::Keep,
            &self.head.method,
        );
        // They concern this message on this connection; the next one has its own.
        for name in [
            header::EXPECT,
            header::TE,
            header::CONNECTION,
            header::CONTENT_LENGTH,
        ] {
            headers.remove(name);
        }
        headers.remove(HARDTACK_QUEUE);
        headers.remove(HARDTACK_ATTEMPT);
        headers
    }

    async fn append(&self, mut new: NewWrite, first: &FirstAttempt) -> Answered {
        let queue = &self.gateway.queue;
        if self.route.write.credential_file.is_some() {
            new.fields
                .retain(|(name, _)| name != header::AUTHORIZATION.as_str());
        }
        if let Some(what) = unstorable::signature(&new.fields) {
            let detail =
                format!("{what}: it would not be valid any more when the write is delivered");
            return Err(Box::new(Problem::new(
                Reason::CredentialNotStorable,
                detail,
            )));
        }
        first.put_into(&mut new.item);
        let queue = queue.clone();
        // To its end, whatever the client does: what is on disk must be in the index.
        let appending = self
            .gateway
            .tasks
            .spawn(async move { queue.append(new).await });
        let appended = appending
            .await
            .map_err(|_| Box::new(Problem::new(Reason::Internal, "the write was not appended")))?;
        match appended {
            Ok(Appended::New(item) | Appended::Known(item)) => self.answer_queued(item).await,
            Err(error) => Err(refused(&error)),
        }
    }

    /// The receipt, or the origin's answer if the client waits for it and it comes in time.
    async fn answer_queued(&self, item: Item) -> Answered {
        let queue = &self.gateway.queue;
        let Some(wait) = self.preferences.wait else {
            return Ok(receipt::accepted(
                self.gateway,
                &item,
                self.preferences,
                &self.route.write,
            ));
        };
        let item = settled(self.gateway, item, wait).await;
        let answer = queue.answer(item.id).await.ok().flatten();
        match answer.filter(|answer| !answer.is_truncated) {
            Some(answer) => Ok(receipt::answered(&item, &answer, self.preferences)),
            None => Ok(receipt::accepted(
                self.gateway,
                &item,
                self.preferences,
                &self.route.write,
            )),
        }
    }

    fn to_append(&self, body: NewBody) -> NewWrite {
        let (gateway, settings) = (self.gateway, &self.route.write);
        let now = gateway.clock.now();
        let key = self.effective.cache_key();
        let method = self.head.method.to_string();
        let url = self
            .effective
            .uri()
            .map_or_else(|_| key.uri().to_owned(), |uri| uri.to_string());
        let principal = principal(gateway, &self.head.headers, self.arrival.client);
        let known_by = self.key.as_ref().filter(|key| key.is_clients);
        let item = Item {
            id: ItemId::from_bytes([0; 16]),
            seq: 0,
            state: State::Queued,
            origin: self.origin.clone(),
            route: self.route.name.clone(),
            lane: self.lane.name.clone(),
            lane_id: self.lane.id,
            on_stuck: settings.on_stuck,
            body_bytes: body.bytes(),
            body_sha256: body::sha256(&body),
            weight_bytes: 0,
            repeat: self.repeat,
            idempotency_key: self.key.as_ref().map(|key| key.text.clone()),
            is_client_key: known_by.is_some(),
            idempotency_ttl: settings.idempotency_ttl,
            trust_503: settings.trust_503,
            answers_html: settings.answers_html,
            pending_reads: settings.pending_reads,
            accepted_at: now,
            attempts: 0,
            ambiguous_since: None,
            next_at: now,
            floor_until: None,
            last: None,
            remark: None,
            ended_at: None,
            revived: None,
            client: self.client(&principal),
            stored_under: key.as_str().to_owned(),
            principal,
            method,
            url,
        };
        // The partition tells one virtual host from another.
        let target = format!("{} {}", key.partition().unwrap_or_default(), item.url);
        let known_by =
            known_by.map(|key| KeyHash::new(&item.principal, &item.method, &target, &key.text));
        let headers = self.outgoing_headers();
        let fields = headers.iter();
        let fields =
            fields.map(|(name, value)| (name.as_str().to_owned(), value.as_bytes().to_vec()));
        NewWrite {
            item,
            fields: fields.collect(),
            body,
            key: known_by,
        }
    }

    /// Whom the write counts for: its credential, or who sent it without one.
    fn client(&self, principal: &str) -> u64 {
        let headers = &self.head.headers;
        let has_credential =
            headers.contains_key(header::AUTHORIZATION) || headers.contains_key(header::COOKIE);
        match (has_credential, self.arrival.client) {
            (false, Some(address)) => queue::client_hash(&address.to_string()),
            _ => queue::client_hash(principal),
        }
    }
}

/// Who sends a request, to whom its writes belong.
fn principal(gateway: &Gateway, headers: &HeaderMap, address: Option<IpAddr>) -> String {
    let known = [
        header::AUTHORIZATION,
        header::COOKIE,
        header::PROXY_AUTHORIZATION,
    ];
    let credentials = known
        .iter()
        .chain(&gateway.queue.config().sensitive_headers);
    gateway.identity.principal(headers, credentials, address)
}

/// A write once it is settled, or as it is when nobody may wait for it any longer.
async fn settled(gateway: &Gateway, item: Item, wait: Duration) -> Item {
    let settled = tokio::select! {
        settled = gateway.queue.until_settled(item.id, wait) => settled,
        () = gateway.draining.cancelled() => gateway.queue.item(item.id).await,
    };
    settled.ok().flatten().unwrap_or(item)
}

/// What is known of the first attempt of a write that is queued after it.
#[derive(Debug, Default)]
struct FirstAttempt {
    last: Option<queue::Attempt>,
    attempts: u32,
    ambiguous_since: Option<Timestamp>,
    floor_until: Option<Timestamp>,
}

/// Whether an attempt may have been executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ambiguity {
    None,
    Perhaps,
}

impl FirstAttempt {
    fn of(
        sent: &Result<Response<ResponseBody>, Failed>,
        began: Timestamp,
        now: Timestamp,
        ambiguity: Ambiguity,
    ) -> Self {
        let took_millis = u64::try_from(now.millis_since(began)).unwrap_or(0);
        let attempt = |status, error| queue::Attempt {
            at: began,
            took_millis,
            status,
            error,
        };
        let ambiguous_since = (ambiguity == Ambiguity::Perhaps).then_some(began);
        match sent {
            Ok(response) => Self {
                last: Some(attempt(Some(response.status().as_u16()), None)),
                attempts: 1,
                ambiguous_since,
                floor_until: policy::retry_after(response.headers(), now)
                    .map(|after| now.plus(after)),
            },
            Err(failed) => Self {
                last: Some(attempt(None, Some(failed.to_string()))),
                // What never reached the origin cost no attempt.
                attempts: u32::from(!failed.is_never_sent()),
                ambiguous_since,
                floor_until: None,
            },
        }
    }

    fn put_into(&self, item: &mut Item) {
        item.attempts = self.attempts;
        item.last.clone_from(&self.last);
        item.ambiguous_since = self.ambiguous_since;
        item.floor_until = self.floor_until;
        item.next_at = self.floor_until.unwrap_or(item.next_at).max(item.next_at);
        if self.attempts > 0 {
            item.state = State::Waiting;
        }
    }
}

/// What a second sending may do.
fn repeat_of(head: &request::Parts, has_key: bool, settings: &WriteSettings) -> Repeat {
    let mut conditions = head.headers.get_all(header::IF_MATCH).iter();
    let is_conditional = conditions.any(|value| queue::names_a_state(value.as_bytes()));
    let is_idempotent = head.method == Method::PUT || head.method == Method::DELETE;
    if is_conditional {
        Repeat::Conditional
    } else if is_idempotent {
        Repeat::Harmless
    } else if has_key && settings.honoured && settings.idempotency != Idempotency::Off {
        Repeat::Keyed
    } else {
        Repeat::Doubtful
    }
}

fn observed(sent: &Result<Response<ResponseBody>, Failed>) -> Option<Observation> {
    match sent {
        Ok(response) => Some(Observation::Answered {
            status: response.status(),
            has_retry_after: response.headers().contains_key(header::RETRY_AFTER),
        }),
        Err(failed) if failed.is_final() => None,
        Err(failed) if failed.is_never_sent() => Some(Observation::NotSent),
        Err(_) => Some(Observation::Unknown),
    }
}

/// 502 or 504, as the failure would have it.
fn unknown(sent: &Result<Response<ResponseBody>, Failed>) -> Problem {
    let (status, what) = match sent {
        Ok(response) => {
            let status = response.status();
            (status, format!("the origin's gateway answered {status}"))
        }
        Err(failed) => {
            let failure = failed.to_problem(None);
            (failure.status(), failure.detail)
        }
    };
    let detail = format!(
        "{what}; the origin may have executed the write, which is not sent again by itself"
    );
    Problem {
        status: Some(status),
        ..Problem::new(Reason::OutcomeUnknown, detail)
    }
}

fn ungathered(error: &GatherError) -> Problem {
    match error {
        GatherError::TooLarge { .. } => Problem::closing(Reason::BodyTooLarge, error.to_string()),
        GatherError::BrokenOff(_) => Problem::closing(Reason::BadRequest, error.to_string()),
        GatherError::Spool(source) => {
            warn!(error = %source, "A body cannot be spooled; the write is refused.");
            full(error.to_string())
        }
    }
}

fn refused(refused: &Refused) -> Box<Problem> {
    let detail = refused.to_string();
    Box::new(match refused {
        Refused::KeyMismatch(_) => Problem::new(Reason::IdempotencyMismatch, detail),
        Refused::CredentialNotStorable => {
            let detail = format!("{detail}; name a file of keys: queue.key_file");
            Problem::new(Reason::CredentialNotStorable, detail)
        }
        _ => full(detail),
    })
}

fn full(detail: String) -> Problem {
    Problem {
        // Spread, so that those who were turned away together do not come back together.
        retry_after: Some(Duration::from_secs(fastrand::u64(RETRY_AFTER_SECS))),
        ..Problem::new(Reason::QueueFull, detail)
    }
}
