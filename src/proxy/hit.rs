//! The way of a memory hit, whole: refuse, limit, find, decide, respond. No lock held, no task, no await.
//!
//! Whatever is not a fresh response in memory goes on to [`super::pipeline`], with what was found out here.

use std::sync::Arc;

use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    Gateway,
    access::{CacheUse, RequestId},
    arrival::{self, Arrival},
    body::Body,
    cache_status::CacheStatus,
    connection::Peer,
    direct::requested_upgrade,
    problem::Problem,
    refresh_ahead, refuse,
    respond::{self, Ending, Reply},
    write,
};
use crate::policy::{self, Connectivity, Decision, FieldSet, Lookup, Reason, RequestHead, Reuse};

/// What came of looking for a hit.
pub(crate) enum Outcome {
    /// The answer.
    Answered(Response<Body>),
    /// The request goes on.
    Further(Admitted),
}

/// A request after the first look.
pub(crate) struct Admitted {
    /// Its id.
    pub(crate) id: RequestId,
    /// When it came.
    pub(crate) began: Instant,
    /// Where it goes, or why it is refused.
    pub(crate) arrival: Result<Arrival, Problem>,
}

/// Answers from memory if a fresh response is there.
pub(crate) fn answer(gateway: &Arc<Gateway>, peer: &Peer, request: &Request<Incoming>) -> Outcome {
    let (id, began) = (RequestId::next(), Instant::now());
    let fields = FieldSet::of(request.headers());
    let arrival = match admit(gateway, peer, request, fields, id, began) {
        Ok(arrival) => arrival,
        Err(problem) => {
            return Outcome::Further(Admitted {
                id,
                began,
                arrival: Err(problem),
            });
        }
    };
    match from_memory(gateway, peer, request, fields, &arrival) {
        Some(response) => Outcome::Answered(response),
        None => Outcome::Further(Admitted {
            id,
            began,
            arrival: Ok(arrival),
        }),
    }
}

fn admit(
    gateway: &Gateway,
    peer: &Peer,
    request: &Request<Incoming>,
    fields: FieldSet,
    id: RequestId,
    began: Instant,
) -> Result<Arrival, Problem> {
    let client = arrival::client_behind(gateway, peer, request.headers());
    if let (Some(peer), Some(client)) = (peer.address, client)
        && let Err(refused) = gateway.admission.check(peer, client)
    {
        gateway.count_rate_limited();
        let detail = format!(
            "at most {} requests a second, {} at once",
            refused.per_second, refused.burst
        );
        let (retry_after, refused) = (Some(refused.retry_after), Some(refused));
        return Err(Problem {
            retry_after,
            refused,
            ..Problem::new(Reason::RateLimited, detail)
        });
    }
    let (route, destination) = arrival::arrive(gateway, peer, request, fields)?;
    let peer_is_trusted = peer
        .address
        .is_some_and(|peer| gateway.admission.is_trusted(peer));
    Ok(Arrival {
        id,
        began,
        client,
        peer: peer.address,
        peer_is_trusted,
        version: request.version(),
        route,
        destination,
        interim: None,
    })
}

fn from_memory(
    gateway: &Arc<Gateway>,
    peer: &Peer,
    request: &Request<Incoming>,
    fields: FieldSet,
    arrival: &Arrival,
) -> Option<Response<Body>> {
    let effective = arrival.effective()?;
    let changes_protocol = fields.has(FieldSet::UPGRADE) && requested_upgrade(request).is_some();
    if !is_bare_read(request) || changes_protocol {
        return None;
    }
    if !gateway.queue.has_no_pending() && write::has_overlay(gateway, effective) {
        return None;
    }
    let resource = gateway.store.peek(&effective.key)?;
    let index = policy::select(
        request.headers(),
        resource.variants.iter().map(|stored| &stored.head),
    )?;
    let stored = &resource.variants[index];
    let head = RequestHead::of_fields(request.method(), request.headers(), fields);
    let now = gateway.clock.now();
    let mode = gateway.modes.effective(arrival.route, now);
    let settings = arrival.settings(gateway);
    let decision = policy::decide(
        &head,
        Lookup::of(&head, &stored.head, stored.body.len()),
        Connectivity::Connected,
        mode,
        settings,
        now,
    );
    let Decision::Reuse(
        reuse @ Reuse {
            detail: None,
            validate_behind: false,
            ..
        },
    ) = decision
    else {
        return None;
    };
    gateway.store.touch(&resource, stored);
    if reuse.validate_ahead {
        refresh_ahead::consider(gateway, arrival, &resource.key, request, stored, mode);
    }
    let status = CacheStatus {
        ttl_secs: Some(reuse.ttl_secs),
        ..CacheStatus::default()
    };
    let response = respond::from_store(
        &gateway.store,
        &resource.key,
        &head,
        stored,
        &reuse,
        &status,
    );
    let ending = Ending {
        gateway,
        peer,
        method: request.method(),
        target: request.uri(),
        version: request.version(),
        id: arrival.id,
        began: arrival.began,
        arrival: Some(arrival),
    };
    Some(ending.finish_hit(Reply {
        response,
        cache: CacheUse::Hit,
        reason: None,
    }))
}

/// Whether the store can have anything to say: a GET or HEAD without body that does not ask for another protocol.
pub(crate) fn may_be_stored<B: http_body::Body>(request: &Request<B>) -> bool {
    is_bare_read(request) && requested_upgrade(request).is_none()
}

fn is_bare_read<B: http_body::Body>(request: &Request<B>) -> bool {
    (*request.method() == Method::GET || *request.method() == Method::HEAD)
        && !refuse::has_body(request)
}
