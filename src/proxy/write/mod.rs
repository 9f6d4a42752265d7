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
//!
//! In reading order: `body` gathers it, `key` and `lane` say which write it is and what it comes after, `attempt` passes it
//! on, `append` queues it, `receipt` answers; `refusal` is every other answer.

mod append;
mod attempt;
mod body;
mod key;
mod lane;
mod outlet;
mod overlay;
mod prefer;
mod receipt;
mod receipts;
mod refusal;
mod unstorable;

use std::{net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderName, Method, Request, header, request};

pub use self::outlet::HttpOutlet;
use self::{
    attempt::FirstAttempt,
    key::Key,
    lane::Lane,
    prefer::Preferences,
    refusal::{refused, ungathered},
};
pub(crate) use self::{
    overlay::{has_overlay, mark, overlay},
    receipts::router,
};
use super::{
    Gateway, RouteConfig,
    arrival::Arrival,
    connection::Peer,
    direct::requested_upgrade,
    effective::{Effective, Via},
    outgoing::remove_named,
    problem::Problem,
    respond::Reply,
};
use crate::{
    policy::{self, Connectivity, Mode, Reason},
    queue::{self, Idempotency, Item, NewBody, OrderBy, Origin, Repeat, WriteMode, WriteSettings},
    upstream::RequestBody,
};

/// The number of a delivery, which only deliveries have.
const HARDTACK_ATTEMPT: HeaderName = HeaderName::from_static("hardtack-attempt");

/// `never`: the caller must know whether the origin took the write.
const HARDTACK_QUEUE: HeaderName = HeaderName::from_static("hardtack-queue");

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
    /// Of its upstream's URL.
    base_path: String,
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
            Via::Upstream(upstream) => Origin::Upstream(upstream.name().to_owned()),
            Via::Forward => Origin::Forward {
                scheme: effective.scheme.to_string(),
                authority: effective.authority.to_string(),
            },
        };
        let base_path = effective.base_path();
        let path = effective.path_and_query.path();
        let is_secret = match &settings.order_by {
            OrderBy::Header(name) => gateway.queue.is_sensitive(name),
            _ => false,
        };
        let lane = lane::of(
            &settings.order_by,
            &origin,
            &route.name,
            queue::below(base_path, path).unwrap_or(path),
            &head.headers,
            is_secret,
            &gateway.identity,
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
            base_path: base_path.to_owned(),
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
        let is_connected = upstream.connectivity() == Connectivity::Connected;
        self.route.write.mode == WriteMode::Always
            || self.preferences.respond_async
            || mode == Mode::Offline
            || !is_connected
            || !gateway.queue.is_clear(self.lane.id)
            || gateway.queue.is_captive(&self.origin)
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
