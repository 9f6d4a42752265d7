//! The story of a request that was not answered from memory: gather facts, decide, act, respond.
//!
//! ```text
//! refused ──────────────────────────────────────────────► problem
//! own path ─────────────────────────────────────────────► router
//! CONNECT ──────────────────────────────────────────────► tunnel
//! a write on a route that queues ────────────────────────► write  (append, or direct)
//! no read, a GET with a body, an upgrade ───────────────► direct ─► invalidate (or store, the answer to a POST)
//! a QUERY ─► its content, if it fits, into the key
//! store.lookup, connectivity, mode ─► policy::decide ─┬─► reuse      (and perhaps a fill behind)
//!                                                     ├─► equivalent (another URI's, as No-Vary-Search allows)
//!                                                     ├─► fetch      (collapse, fill, judge, store or stand in)
//!                                                     └─► problem 504
//! ```

use std::{
    future::{Future, ready},
    pin::pin,
    sync::Arc,
};

use futures_util::future::{BoxFuture, Either};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use tower_service::Service as _;
use tracing::warn;

use super::{
    Gateway,
    access::CacheUse,
    arrival::{Arrival, Destination},
    body::Body,
    cache_status::CacheStatus,
    connection::Peer,
    direct::{self, Direct, requested_upgrade},
    effective::Effective,
    equivalent::{self, Equivalent},
    fetch::{self, Fetch},
    hit::{Admitted, may_be_stored},
    interim,
    outgoing::remove_named,
    own_paths::Asker,
    problem::Problem,
    query::{Gathered, QueryContent},
    refresh_ahead,
    respond::{self, Ending, Reply, count_stale},
    tunnel, write,
};
use crate::{
    policy::{self, CacheKey, Decision, ForwardReason, Lookup, Mode, Reason, RequestHead, Reuse},
    store::{Resource, StoredResponse},
    upstream::RequestBody,
};

/// Answers a request. The future is moved to where it stays, so it is made of what it keeps, and of nothing twice.
pub(crate) fn answer(
    gateway: Arc<Gateway>,
    peer: Peer,
    admitted: Admitted,
    request: Request<Incoming>,
) -> impl Future<Output = Response<Body>> + Send {
    let (method, target, version) = (
        request.method().clone(),
        request.uri().clone(),
        request.version(),
    );
    let Admitted { id, began, arrival } = admitted;
    let (interim, heads) = interim::channel(version).unzip();
    let (arrival, problem) = match arrival {
        Ok(arrival) => (Some(Arrival { interim, ..arrival }), None),
        Err(problem) => (None, Some(problem)),
    };
    async move {
        let ending = Ending {
            gateway: &gateway,
            peer: &peer,
            method: &method,
            target: &target,
            version,
            id,
            began,
            arrival: arrival.as_ref(),
        };
        // Dropped with this future when the client hangs up before it is answered; that leaves an access event too.
        let unanswered = ending.unanswered();
        let reply = match (&arrival, problem) {
            (Some(arrival), _) => {
                let going = pin!(go(&gateway, &peer, arrival, request));
                interim::relay(heads, &peer.shared.interim, going).await
            }
            (None, problem) => {
                let internal = || Problem::new(Reason::Internal, "a request without a destination");
                Reply::problem(problem.unwrap_or_else(internal), id)
            }
        };
        unanswered.finish(reply)
    }
}

/// What is not a read is boxed: the future of a read, of which there are the most, would be as large as the largest of all.
fn go<'a>(
    gateway: &'a Arc<Gateway>,
    peer: &'a Peer,
    arrival: &'a Arrival,
    request: Request<Incoming>,
) -> Either<impl Future<Output = Reply> + Send + 'a, BoxFuture<'a, Reply>> {
    if let Destination::Upstream(effective) = &arrival.destination
        && let Some(route) = write::route_of(gateway, arrival, &request)
    {
        let request = request.map(|body| direct::upload(arrival, body));
        let answering = write::answer(gateway, peer, arrival, effective, route, request);
        return Either::Right(Box::pin(answering));
    }
    let is_read = may_be_stored(&request);
    let effective = match &arrival.destination {
        Destination::Own => return Either::Right(Box::pin(own(gateway, arrival, request))),
        _ if !is_read && is_cut_off(gateway, arrival, &request) => {
            return Either::Right(Box::pin(ready(cut_off(arrival))));
        }
        Destination::Tunnel(authority) => {
            let answering = tunnel::answer(gateway, peer, arrival, authority, request);
            return Either::Right(Box::pin(answering));
        }
        Destination::Upstream(effective) => effective,
    };
    let request = request.map(|body| direct::upload(arrival, body));
    if is_read {
        return Either::Left(read(gateway, peer, arrival, effective, request));
    }
    if is_query(&request) {
        return Either::Right(Box::pin(query(gateway, peer, arrival, effective, request)));
    }
    let why = if *request.method() == Method::GET {
        ForwardReason::Bypass
    } else {
        ForwardReason::Method
    };
    Either::Right(Box::pin(unread(
        gateway, peer, arrival, effective, why, request,
    )))
}

/// The gateway's own paths: the one place where a request meets the router.
async fn own(gateway: &Arc<Gateway>, arrival: &Arrival, mut request: Request<Incoming>) -> Reply {
    let asker = Asker {
        address: arrival.client,
        request: arrival.id,
    };
    request.extensions_mut().insert(asker);
    if request.uri().path() == "*" {
        let response = respond::text(StatusCode::NO_CONTENT, String::new());
        return Reply {
            response,
            cache: CacheUse::None,
            reason: None,
        };
    }
    let mut router = gateway.router.clone().with_state(Arc::clone(gateway));
    let response = match router.call(request).await {
        Ok(response) => response.map(Body::axum),
        Err(never) => match never {},
    };
    let reason = response.extensions().get::<Reason>().copied();
    Reply {
        response,
        cache: CacheUse::None,
        reason,
    }
}

/// Whether the mode keeps from the origin a request that is no plain read.
fn is_cut_off(gateway: &Gateway, arrival: &Arrival, request: &Request<Incoming>) -> bool {
    !is_query(request) && is_offline(gateway, arrival)
}

fn is_offline(gateway: &Gateway, arrival: &Arrival) -> bool {
    gateway.modes.effective(arrival.route, gateway.clock.now()) == Mode::Offline
}

fn cut_off(arrival: &Arrival) -> Reply {
    let detail = "the mode is offline: nothing is sent upstream";
    Reply::problem(Problem::new(Reason::OfflineMiss, detail), arrival.id)
}

/// Whether the request is a QUERY whose content can be part of its key.
fn is_query<B>(request: &Request<B>) -> bool {
    *request.method() == Method::QUERY && requested_upgrade(request).is_none()
}

/// A QUERY: a read once its content is here. One that is too large for that goes straight to the origin.
async fn query(
    gateway: &Arc<Gateway>,
    peer: &Peer,
    arrival: &Arrival,
    effective: &Effective,
    request: Request<RequestBody>,
) -> Reply {
    let (head, body) = request.into_parts();
    let content = match QueryContent::gather(body, &gateway.in_flight_bytes).await {
        Ok(Gathered::Whole(content)) => content,
        Ok(Gathered::TooLarge(_)) if is_offline(gateway, arrival) => return cut_off(arrival),
        Ok(Gathered::TooLarge(body)) => {
            let (why, request) = (ForwardReason::Bypass, Request::from_parts(head, body));
            return unread(gateway, peer, arrival, effective, why, request).await;
        }
        Err(error) => {
            let detail = format!("the request body broke off: {error}");
            return Reply::problem(Problem::closing(Reason::BadRequest, detail), arrival.id);
        }
    };
    let digest = gateway
        .identity
        .query_digest(&head.headers, content.bytes());
    let request = Request::from_parts(head, content.to_body());
    let effective = effective.with_content(content, &digest);
    let arrival = Arrival {
        destination: Destination::Upstream(effective.clone()),
        ..arrival.clone()
    };
    read(gateway, peer, &arrival, &effective, request).await
}

/// What the store cannot answer: straight to the origin.
async fn unread(
    gateway: &Arc<Gateway>,
    peer: &Peer,
    arrival: &Arrival,
    effective: &Effective,
    why: ForwardReason,
    request: Request<RequestBody>,
) -> Reply {
    let mode = gateway.modes.effective(arrival.route, gateway.clock.now());
    let settings = arrival.settings(gateway).under(mode);
    let direct = Direct {
        gateway,
        peer,
        arrival,
        effective,
        why,
        settings: settings.as_ref(),
        stored: None,
    };
    direct.answer(request).await
}

/// A read: gather facts, decide, act.
fn read<'a>(
    gateway: &'a Arc<Gateway>,
    peer: &'a Peer,
    arrival: &'a Arrival,
    effective: &'a Effective,
    mut request: Request<RequestBody>,
) -> impl Future<Output = Reply> + Send + 'a {
    // What `Connection` takes off never reaches the origin, so it may not choose a variant either.
    remove_named(request.headers_mut());
    async move {
        if !gateway.queue.has_no_pending() {
            let (method, headers) = (request.method(), request.headers());
            let overlay = write::overlay(gateway, arrival, effective, method, headers);
            // Boxed, because it is rare, and larger than what follows.
            if let Some(reply) = Box::pin(overlay).await {
                return reply;
            }
        }
        let key = effective.cache_key();
        let resource = lookup(gateway, &key).await;
        let selected = resource
            .as_ref()
            .and_then(|resource| select(resource, request.headers()));
        let head = RequestHead::new(request.method(), request.headers(), false);
        let found = match (&resource, &selected) {
            (_, Some(stored)) => Lookup::of(&head, &stored.head, stored.body.len()),
            (Some(_), None) => Lookup::OtherVariants,
            (None, None) => Lookup::Nothing,
        };
        let connectivity = effective.upstream(gateway).connectivity();
        let now = gateway.clock.now();
        let mode = gateway.modes.effective(arrival.route, now);
        // What answers the request, or stands in; and what it can only be completed from.
        let (stored, part) = match found {
            Lookup::Part(_) => (None, selected.as_ref()),
            _ => (selected.as_ref(), None),
        };
        let decide = |found| {
            let settings = arrival.settings(gateway);
            policy::decide(&head, found, connectivity, mode, settings, now)
        };
        let decision = decide(found);
        let equivalent = match decision {
            Decision::Reuse(_) => None,
            _ => equivalent::find(gateway, &key, &head).await,
        };
        if let Some(Equivalent { resource, stored }) = &equivalent
            && let Decision::Reuse(reuse) = decide(Lookup::Stored(&stored.head))
        {
            return reuse_stored(gateway, arrival, resource, stored, &request, &reuse, mode);
        }
        match decision {
            Decision::Reuse(reuse) => match (&resource, stored) {
                (Some(resource), Some(stored)) => {
                    reuse_stored(gateway, arrival, resource, stored, &request, &reuse, mode)
                }
                _ => Reply::problem(
                    Problem::new(Reason::Internal, "nothing to reuse"),
                    arrival.id,
                ),
            },
            Decision::Unsatisfiable(reason) => unsatisfiable(arrival, reason, mode),
            Decision::Forward(forward)
                if *request.method() != Method::HEAD && forward.why != ForwardReason::Bypass =>
            {
                let settings = arrival.settings(gateway).under(mode);
                let (stored, stored_key) = match (stored, &equivalent) {
                    (None, Some(other)) => (Some(&other.stored), &other.resource.key),
                    (own, _) => (own, &key),
                };
                let settings = settings.as_ref();
                let fetch = Fetch {
                    gateway,
                    arrival,
                    key: &key,
                    request: head,
                    stored: stored.cloned(),
                    stored_key,
                    part: part.cloned(),
                    forward,
                    mode,
                    settings,
                };
                fetch.answer().await
            }
            Decision::Forward(forward) => {
                let settings = arrival.settings(gateway).under(mode);
                let (why, settings) = (forward.why, settings.as_ref());
                let direct = Direct {
                    gateway,
                    peer,
                    arrival,
                    effective,
                    why,
                    settings,
                    stored: stored.cloned(),
                };
                Box::pin(direct.answer(request)).await
            }
        }
    }
}

fn select(resource: &Resource, headers: &HeaderMap) -> Option<Arc<StoredResponse>> {
    let heads = resource.variants.iter().map(|stored| &stored.head);
    let index = policy::select(headers, heads)?;
    Some(Arc::clone(&resource.variants[index]))
}

fn unsatisfiable(arrival: &Arrival, reason: Reason, mode: Mode) -> Reply {
    let detail = match reason {
        Reason::OnlyIfCached => "the request says only-if-cached",
        _ if mode == Mode::Offline => "the mode is offline and nothing usable is stored",
        _ => {
            "the upstream is disconnected and nothing usable is stored; a prober watches for its return"
        }
    };
    Reply::problem(Problem::new(reason, detail), arrival.id)
}

/// A failing store is a miss, never an error of the client's.
async fn lookup(gateway: &Gateway, key: &CacheKey) -> Option<Arc<Resource>> {
    gateway.store.lookup(key).await.unwrap_or_else(|error| {
        warn!(%key, %error, "Store lookup failed; treating as a miss.");
        None
    })
}

fn reuse_stored(
    gateway: &Arc<Gateway>,
    arrival: &Arrival,
    resource: &Resource,
    stored: &Arc<StoredResponse>,
    request: &Request<impl Sized>,
    reuse: &Reuse,
    mode: Mode,
) -> Reply {
    gateway.store.touch(resource, stored);
    if reuse.validate_behind {
        let admit = || Some(None);
        fetch::behind(
            gateway,
            arrival,
            &resource.key,
            request,
            stored,
            mode,
            admit,
        );
    }
    if reuse.validate_ahead {
        refresh_ahead::consider(gateway, arrival, &resource.key, request, stored, mode);
    }
    let cache = if reuse.ttl_secs < 0 || reuse.detail.is_some() {
        CacheUse::Stale
    } else {
        CacheUse::Hit
    };
    if cache == CacheUse::Stale {
        count_stale(gateway, arrival.route_name(gateway), reuse.ttl_secs);
    }
    let status = CacheStatus {
        ttl_secs: Some(reuse.ttl_secs),
        detail: reuse.detail,
        ..CacheStatus::default()
    };
    let head = RequestHead::new(request.method(), request.headers(), false);
    let response =
        respond::from_store(&gateway.store, &resource.key, &head, stored, reuse, &status);
    Reply {
        response,
        cache,
        reason: reuse.detail,
    }
}
