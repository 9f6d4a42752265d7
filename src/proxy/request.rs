//! The head of a request on its way upstream.

use http::{HeaderMap, HeaderValue, Method, header, uri::Authority};

use super::{
    Gateway, RouteConfig,
    arrival::Arrival,
    connection::Peer,
    effective::{Effective, Via},
    outgoing::{
        has_overrides, is_claim, is_hop_by_hop, is_override, join_cookies, remove_all,
        remove_named, set_forwarded,
    },
    trailers,
};
use crate::policy;

/// What becomes of the client's own conditions and range.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Conditions {
    /// They stay: the origin answers them.
    Keep,
    /// They go: the whole representation is wanted, and the gateway answers them from it.
    Drop,
}

/// Fields that a request has on its way upstream and had not before: `Forwarded` and three older ones, `Via`, and perhaps two
/// about trailers.
const ADDED: usize = 7;

/// The fields sent upstream for a request with these fields.
pub(crate) fn outgoing(
    gateway: &Gateway,
    arrival: &Arrival,
    effective: &Effective,
    received: &HeaderMap,
    conditions: Conditions,
    method: &Method,
) -> HeaderMap {
    let mut headers = received.clone();
    remove_named(&mut headers);
    let (is_trusted, is_read) = (arrival.peer_is_trusted, policy::is_read_method(method));
    remove_all(&mut headers, |name| {
        is_hop_by_hop(name)
            || (conditions == Conditions::Drop && is_condition(name))
            || (!is_trusted && (is_claim(name) || (is_read && is_override(name))))
    });
    // At once, instead of one after the other.
    headers.reserve(ADDED);
    if trailers::are_asked_for(received) {
        // Said anew for this hop, and to this hop only (RFC 9110 section 10.1.4).
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    join_cookies(&mut headers);
    // Who asked, and for which host, is told to one's own origins only.
    if let Via::Upstream(_) = effective.via {
        let route = arrival.route.and_then(|index| gateway.routes.get(index));
        let told = received.get(header::HOST);
        let told = told.filter(|_| may_tell_host(route, method));
        set_forwarded(&mut headers, arrival.peer, told);
    }
    let own_host = || match &effective.via {
        Via::Upstream(upstream) => Some(upstream.host().clone()),
        Via::Forward => effective.authority.as_str().parse().ok(),
    };
    match effective.host.clone().or_else(own_host) {
        Some(host) => headers.insert(header::HOST, host),
        None => headers.remove(header::HOST),
    };
    headers.append(header::VIA, gateway.identity.via_upstream(arrival.version));
    headers
}

/// Whether a field makes the answer depend on what the client has, or wants a part of it (RFC 9110 sections 13.1 and 14.2).
fn is_condition(name: &str) -> bool {
    matches!(
        name,
        "if-match"
            | "if-none-match"
            | "if-modified-since"
            | "if-unmodified-since"
            | "if-range"
            | "range"
    )
}

/// Whether the origin of a request was told what it is not told with a read: the host, or that the request is another one
/// than it says. Its answer may be made of that, and is not for reads. The address of the listener that the request came to
/// counts as no host: whoever follows it comes here.
pub(crate) fn tells_more_than_a_read(
    gateway: &Gateway,
    peer: &Peer,
    arrival: &Arrival,
    effective: &Effective,
    received: &HeaderMap,
) -> bool {
    let route = arrival.route.and_then(|index| gateway.routes.get(index));
    let is_told = matches!(effective.via, Via::Upstream(_)) && !may_tell_host(route, &Method::GET);
    let leads_elsewhere = |host: &HeaderValue| {
        let authority = Authority::try_from(host.as_bytes());
        !authority.is_ok_and(|authority| peer.is_own_listener(&authority))
    };
    let tells_host = is_told && received.get(header::HOST).is_some_and(leads_elsewhere);
    tells_host || (!arrival.peer_is_trusted && has_overrides(received))
}

/// Whether the origin may be told which host the client asked for. What is stored is filed without it, so an origin that
/// writes it into its answers must not see it on a read, unless it is always the same, or is part of the key.
fn may_tell_host(route: Option<&RouteConfig>, method: &Method) -> bool {
    !policy::is_read_method(method)
        || route.is_some_and(|route| route.preserve_host || !route.host.contains('*'))
}
