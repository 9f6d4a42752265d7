//! Where a request goes: the authority decides first, then the routes.

use std::net::IpAddr;

use http::{
    HeaderMap, Method, Request, Version, header,
    uri::{Authority, Scheme},
};
use http_body::Body;
use tokio::time::Instant;

use super::{
    Gateway, RouteConfig,
    access::RequestId,
    connection::Peer,
    effective::{self, Effective},
    forward_access,
    interim::Interim,
    problem::Problem,
    refuse,
    routes::{Asked, host_matches, names_literally},
};
use crate::policy::{FieldSet, Reason, Settings};

/// Paths that belong to the gateway, whatever the host.
pub(crate) const OWN_PATHS: &str = "/.well-known/hardtack/";

/// A request that was let in, and where it goes.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// Its id.
    pub(crate) id: RequestId,
    /// When it came.
    pub(crate) began: Instant,
    /// Who is behind the peer.
    pub(crate) client: Option<IpAddr>,
    /// The peer itself: the last hop.
    pub(crate) peer: Option<IpAddr>,
    /// Whether the peer is a trusted proxy, whose word about other hops is passed on.
    pub(crate) peer_is_trusted: bool,
    /// The protocol it came with.
    pub(crate) version: Version,
    /// Position of the route that gives the policy; `None`: the defaults.
    pub(crate) route: Option<usize>,
    /// Where it goes.
    pub(crate) destination: Destination,
    /// Takes what the origin says before it answers; `None`: nobody waits for that.
    pub(crate) interim: Option<Interim>,
}

/// Where a request goes.
#[derive(Clone, Debug)]
pub(crate) enum Destination {
    /// To a handler of the gateway itself.
    Own,
    /// Through a tunnel to this authority.
    Tunnel(Authority),
    /// To an upstream.
    Upstream(Effective),
}

impl Arrival {
    /// The settings in force.
    pub(crate) fn settings<'a>(&self, gateway: &'a Gateway) -> &'a Settings {
        let route = self.route.and_then(|index| gateway.routes.get(index));
        route.map_or(&gateway.settings, |route| &route.cache)
    }

    /// The name of the route, for logs and metrics.
    pub(crate) fn route_name<'a>(&self, gateway: &'a Gateway) -> &'a str {
        let route = self.route.and_then(|index| gateway.routes.get(index));
        match (route, &self.destination) {
            (Some(route), _) => &route.name,
            (None, Destination::Own) => "gateway",
            (None, Destination::Tunnel(_)) => "tunnel",
            (None, Destination::Upstream(_)) => "forward",
        }
    }

    /// The effective request, if the request goes upstream.
    pub(crate) const fn effective(&self) -> Option<&Effective> {
        match &self.destination {
            Destination::Upstream(effective) => Some(effective),
            _ => None,
        }
    }
}

/// Lets a request with these `fields` in and finds out where it goes, or says why not.
pub(crate) fn arrive<B: Body>(
    gateway: &Gateway,
    peer: &Peer,
    request: &Request<B>,
    fields: FieldSet,
) -> Result<Destined, Problem> {
    refuse::check(
        request,
        fields,
        gateway.limits.max_head_bytes,
        peer.shared.saw_ambiguity(),
    )?;
    if fields.has(FieldSet::VIA) && gateway.identity.has_seen(request.headers()) {
        return Err(Problem::new(
            Reason::LoopDetected,
            "Via names this gateway already",
        ));
    }
    // OPTIONS * asks about the server itself (RFC 9110 section 9.3.7), and that is the gateway.
    let own = request.uri().path().starts_with(OWN_PATHS) || request.uri().path() == "*";
    if own && *request.method() != Method::CONNECT {
        return Ok((None, Destination::Own));
    }
    if *request.method() == Method::CONNECT {
        return tunnel(gateway, peer, request);
    }
    match addressed(peer, request) {
        Addressed::Reverse(authority) => reverse(gateway, request, authority),
        Addressed::Forward(scheme, authority) => forward(gateway, peer, request, scheme, authority),
    }
}

/// The route that gives the policy, and where the request goes.
pub(crate) type Destined = (Option<usize>, Destination);

enum Addressed<'a> {
    Reverse(&'a str),
    Forward(Scheme, Authority),
}

fn addressed<'a, B>(peer: &Peer, request: &'a Request<B>) -> Addressed<'a> {
    // Inside a tunnel, origin-form is meant for the authority that the CONNECT named.
    if let Some(pinned) = &peer.pinned {
        return Addressed::Forward(Scheme::HTTP, pinned.clone());
    }
    let host = || {
        request
            .headers()
            .get(header::HOST)
            .and_then(|host| host.to_str().ok())
            .unwrap_or_default()
    };
    match (request.uri().scheme(), request.uri().authority()) {
        // In HTTP/2 every request has an authority; it says no more than Host does.
        (_, Some(authority)) if request.version() == Version::HTTP_2 => {
            Addressed::Reverse(authority.as_str())
        }
        (Some(scheme), Some(authority)) if !peer.is_own_listener(authority) => {
            Addressed::Forward(scheme.clone(), authority.clone())
        }
        (_, Some(authority)) => Addressed::Reverse(authority.as_str()),
        (_, None) => Addressed::Reverse(host()),
    }
}

fn reverse<B>(
    gateway: &Gateway,
    request: &Request<B>,
    authority: &str,
) -> Result<Destined, Problem> {
    let asked = Asked {
        authority,
        path: request.uri().path(),
        method: request.method(),
    };
    let Some(index) = gateway.routes.reverse(&asked) else {
        let hint = "no route matches; this listener is a forward proxy too: absolute-form requests need no route";
        return Err(Problem::new(Reason::NoRoute, hint));
    };
    let route = gateway.routes.get(index).expect("just found");
    let effective = by_route(gateway, route, request, authority)?;
    Ok((Some(index), Destination::Upstream(effective)))
}

/// What a route with an upstream makes of a request, however that was addressed.
fn by_route<B>(
    gateway: &Gateway,
    route: &RouteConfig,
    request: &Request<B>,
    authority: &str,
) -> Result<Effective, Problem> {
    if refuse::has_dot_segments(request.uri().path())
        && !effective::takes_every_path(gateway, route)
    {
        let detail = "`.` and `..` in the path could lead out of what the route serves";
        return Err(Problem::closing(Reason::BadRequest, detail));
    }
    Effective::of_route(gateway, route, request, authority)
}

fn forward<B>(
    gateway: &Gateway,
    peer: &Peer,
    request: &Request<B>,
    scheme: Scheme,
    authority: Authority,
) -> Result<Destined, Problem> {
    forward_access::check(gateway, peer, request.headers(), &authority)?;
    let asked = Asked {
        authority: authority.as_str(),
        path: request.uri().path(),
        method: request.method(),
    };
    let index = gateway.routes.forward(&asked);
    let route = index.and_then(|index| gateway.routes.get(index));
    let settings = route.map_or(&gateway.settings, |route| &route.cache);
    if let Some(route) = route
        && route.upstream.is_some()
        && names_literally(route, &scheme, authority.as_str())
    {
        let effective = by_route(gateway, route, request, authority.as_str())?;
        return Ok((index, Destination::Upstream(effective)));
    }
    let (scheme, authority) = upgraded(gateway, scheme, authority);
    let effective = Effective::of_forward(gateway, scheme, authority, request, settings);
    Ok((index, Destination::Upstream(effective)))
}

/// `http://` to `https://` where the operator asked for it, so that what was only tunnelled can be cached.
fn upgraded(gateway: &Gateway, scheme: Scheme, authority: Authority) -> (Scheme, Authority) {
    let listed = gateway
        .forward
        .upgrade_to_https
        .iter()
        .any(|pattern| host_matches(pattern, authority.as_str()));
    if scheme == Scheme::HTTPS || !listed {
        return (scheme, authority);
    }
    match authority.port_u16() {
        None | Some(80) => {
            let host = authority.host().parse().unwrap_or(authority);
            (Scheme::HTTPS, host)
        }
        Some(_) => (Scheme::HTTPS, authority),
    }
}

fn tunnel<B>(gateway: &Gateway, peer: &Peer, request: &Request<B>) -> Result<Destined, Problem> {
    let authority =
        request.uri().authority().cloned().ok_or_else(|| {
            Problem::closing(Reason::BadRequest, "CONNECT needs a host and a port")
        })?;
    if peer.pinned.is_some() {
        return Err(Problem::closing(
            Reason::MethodNotAllowed,
            "no tunnel inside a tunnel",
        ));
    }
    forward_access::check(gateway, peer, request.headers(), &authority)?;
    Ok((None, Destination::Tunnel(authority)))
}

/// Who is behind a peer.
pub(crate) fn client_behind(gateway: &Gateway, peer: &Peer, headers: &HeaderMap) -> Option<IpAddr> {
    peer.address
        .map(|address| gateway.admission.client(address, headers))
}
