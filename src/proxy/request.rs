//! The head of a request on its way upstream.

use http::{HeaderMap, HeaderValue, Method, header, uri::Authority};

use super::{
    Gateway, RouteConfig,
    arrival::Arrival,
    connection::Peer,
    effective::{Effective, Via},
    outgoing::{
        has_overrides, join_cookies, remove_forwarded, remove_hop_by_hop, remove_overrides,
        set_forwarded,
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
    let host = headers.remove(header::HOST);
    remove_hop_by_hop(&mut headers);
    if trailers::are_asked_for(received) {
        // Said anew for this hop, and to this hop only (RFC 9110 section 10.1.4).
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        headers.insert(header::CONNECTION, HeaderValue::from_static("te"));
    }
    if conditions == Conditions::Drop {
        for name in [
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_UNMODIFIED_SINCE,
            header::IF_RANGE,
            header::RANGE,
        ] {
            headers.remove(name);
        }
    }
    join_cookies(&mut headers);
    if !arrival.peer_is_trusted {
        remove_forwarded(&mut headers);
        if policy::is_read_method(method) {
            remove_overrides(&mut headers);
        }
    }
    // Who asked, and for which host, is told to one's own origins only.
    if let Via::Upstream(_) = effective.via {
        let route = arrival.route.and_then(|index| gateway.routes.get(index));
        let told = host.as_ref().filter(|_| may_tell_host(route, method));
        set_forwarded(&mut headers, arrival.peer, told);
    }
    let own_host = || effective.authority.as_str().parse().ok();
    if let Some(host) = effective.host.clone().or_else(own_host) {
        headers.insert(header::HOST, host);
    }
    headers.append(header::VIA, gateway.identity.via_upstream(arrival.version));
    headers
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
