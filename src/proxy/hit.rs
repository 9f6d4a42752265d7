//! The way of a hit that need not be waited for, whole: refuse, limit, find, decide, respond. No lock held, no task, no
//! await. What is on disk is found here where the system has it at hand.
//!
//! Whatever is no fresh response at hand goes on to [`super::pipeline`], with what was found out here.
//! [`super::fast_path`] answers the same from the same parts, beneath the HTTP library.

use std::{net::IpAddr, sync::Arc};

use http::{Method, Request, Response};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    Gateway,
    access::RequestId,
    arrival::{self, Arrival},
    body::Body,
    cache_status::CacheStatus,
    connection::Peer,
    direct::requested_upgrade,
    problem::Problem,
    refresh_ahead, refuse,
    respond::{self, Ending},
    write,
};
use crate::{
    policy::{self, Connectivity, Decision, FieldSet, Lookup, Mode, Reason, RequestHead, Reuse},
    protect::Refused,
    store::{Resource, StoredBody, StoredResponse},
};

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

/// Answers if a fresh response is at hand.
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
    match at_hand(gateway, peer, request, fields, &arrival) {
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
    if let Err(refused) = within_rate(gateway, peer, client) {
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
    place(gateway, peer, request, fields, client, id, began)
}

/// Takes one request out of the client's rate.
pub(crate) fn within_rate(
    gateway: &Gateway,
    peer: &Peer,
    client: Option<IpAddr>,
) -> Result<(), Refused> {
    match (peer.address, client) {
        (Some(peer), Some(client)) => gateway.admission.check(peer, client),
        _ => Ok(()),
    }
}

/// Refuses a request, or finds out where it goes; changes nothing.
pub(crate) fn place<B: http_body::Body>(
    gateway: &Gateway,
    peer: &Peer,
    request: &Request<B>,
    fields: FieldSet,
    client: Option<IpAddr>,
    id: RequestId,
    began: Instant,
) -> Result<Arrival, Problem> {
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

fn at_hand(
    gateway: &Arc<Gateway>,
    peer: &Peer,
    request: &Request<Incoming>,
    fields: FieldSet,
    arrival: &Arrival,
) -> Option<Response<Body>> {
    let found = find(gateway, request, fields, arrival)?;
    let (head, stored) = (found.request_head(request), found.stored());
    found.note_use(gateway, arrival, request);
    let status = found.cache_status();
    let key = &found.resource.key;
    let response = respond::from_store(&gateway.store, key, &head, stored, &found.reuse, &status);
    let ending = Ending::of_hit(gateway, peer, request, arrival);
    Some(ending.finish_hit(response))
}

/// A fresh response that answers a request.
pub(crate) struct Found {
    resource: Arc<Resource>,
    variant: usize,
    fields: FieldSet,
    mode: Mode,
    /// How it is reused.
    pub(crate) reuse: Reuse,
}

/// Finds a fresh response at hand, and counts nothing.
pub(crate) fn find<B: http_body::Body>(
    gateway: &Gateway,
    request: &Request<B>,
    fields: FieldSet,
    arrival: &Arrival,
) -> Option<Found> {
    let effective = arrival.effective()?;
    let changes_protocol = fields.has(FieldSet::UPGRADE) && requested_upgrade(request).is_some();
    if !is_bare_read(request) || changes_protocol {
        return None;
    }
    // Of writes that wait the answer tells, and perhaps shows what they will have made.
    if !gateway.queue.has_no_pending() && write::has_overlay(gateway, effective) {
        return None;
    }
    let resource = gateway.store.at_hand(&effective.key)?;
    let heads = resource.variants.iter().map(|stored| &stored.head);
    let variant = policy::select(request.headers(), heads)?;
    let stored = &resource.variants[variant];
    // How far a body that is read from a file was sent is known at its end only.
    if matches!(stored.body, StoredBody::File(_)) {
        return None;
    }
    let head = RequestHead::of_fields(request.method(), request.headers(), fields);
    let now = gateway.clock.now();
    let mode = gateway.modes.effective(arrival.route, now);
    let decision = policy::decide(
        &head,
        Lookup::of(&head, &stored.head, stored.body.len()),
        Connectivity::Connected,
        mode,
        arrival.settings(gateway),
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
    Some(Found {
        resource,
        variant,
        fields,
        mode,
        reuse,
    })
}

impl Found {
    /// The stored response.
    pub(crate) fn stored(&self) -> &Arc<StoredResponse> {
        &self.resource.variants[self.variant]
    }

    /// The request that it was found for, as far as the policy reads it.
    pub(crate) fn request_head<'a, B>(&self, request: &'a Request<B>) -> RequestHead<'a> {
        RequestHead::of_fields(request.method(), request.headers(), self.fields)
    }

    /// What Cache-Status says of it.
    pub(crate) fn cache_status(&self) -> CacheStatus {
        CacheStatus {
            ttl_secs: Some(self.reuse.ttl_secs),
            ..CacheStatus::default()
        }
    }

    /// It was used: the tiers remember that, and perhaps it is validated before its freshness ends.
    pub(crate) fn note_use<B>(
        &self,
        gateway: &Arc<Gateway>,
        arrival: &Arrival,
        request: &Request<B>,
    ) {
        let (resource, stored) = (&self.resource, self.stored());
        gateway.store.touch(resource, stored);
        if self.reuse.validate_ahead {
            let key = &resource.key;
            refresh_ahead::consider(gateway, arrival, key, request, stored, self.mode);
        }
    }
}

/// Whether the store can have anything to say: a GET or HEAD without body that does not ask for another protocol.
pub(crate) fn may_be_stored<B: http_body::Body>(request: &Request<B>) -> bool {
    is_bare_read(request) && requested_upgrade(request).is_none()
}

fn is_bare_read<B: http_body::Body>(request: &Request<B>) -> bool {
    (*request.method() == Method::GET || *request.method() == Method::HEAD)
        && !refuse::has_body(request)
}
