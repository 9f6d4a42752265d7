//! What an unsafe request that succeeded makes unusable until it is validated: its target, the same-origin locations of
//! the answer, the groups that the answer names, and the paths that the route names.

use http::{HeaderMap, Method, StatusCode};
use tracing::warn;

use super::{
    Gateway, RouteConfig,
    arrival::Arrival,
    effective::{Effective, Via},
};
use crate::{
    policy::{self, CacheKey, Mark, QueryRules},
    store::{Paths, StoreError, Ticket},
    upstream::Upstreams,
};

/// An answer to a request, as far as it decides what is invalidated.
pub(crate) struct Invalidation<'a> {
    pub(crate) method: &'a Method,
    /// What was current when the request was sent.
    pub(crate) ticket: Ticket,
    pub(crate) status: StatusCode,
    pub(crate) headers: &'a HeaderMap,
    /// What of a query counts.
    pub(crate) rules: &'a QueryRules,
}

impl Invalidation<'_> {
    /// Marks what the request may have changed; nothing after a safe one or a failure. The answer itself may be stored in
    /// place of its target under the ticket returned, unless something else was purged since the request's.
    pub(crate) async fn carry_out(
        &self,
        gateway: &Gateway,
        arrival: &Arrival,
        effective: &Effective,
        key: &CacheKey,
    ) -> Option<Ticket> {
        let (status, headers) = (self.status, self.headers);
        let mut renewed = None;
        let named = policy::invalidates(self.method, key, status, headers, self.rules);
        for named in &named {
            // Else they would answer in its stead. Before the ticket is renewed: what comes may be filed with them.
            let marked = gateway.store.mark_equivalents(named, Mark::Invalid).await;
            warn_unless_marked(named, Mark::Invalid, marked);
        }
        for named in named {
            if named == *key {
                let (ticket, marked) = gateway.store.supersede(self.ticket, key).await;
                renewed = ticket;
                warn_unless_marked(key, Mark::Invalid, marked);
            } else {
                mark_target(gateway, &named, Mark::Invalid).await;
            }
        }
        let groups = policy::invalidates_groups(self.method, self.status, self.headers);
        if !groups.is_empty()
            && let Err(error) = gateway.store.invalidate_groups(key, &groups).await
        {
            warn!(%key, %error, "Stored responses of a group could not be marked on disk.");
        }
        if policy::may_have_changed(self.method, self.status) {
            self.mark_paths(gateway, arrival, effective).await;
        }
        renewed
    }

    /// A forward request, which a route gives its policy only, changes nothing of the route's upstream.
    async fn mark_paths(&self, gateway: &Gateway, arrival: &Arrival, effective: &Effective) {
        let route = arrival.route.and_then(|index| gateway.routes.get(index));
        let Some(route) = route.filter(|route| !route.invalidates.is_empty()) else {
            return;
        };
        let Via::Upstream(name) = &effective.via else {
            return;
        };
        let paths = paths_of(route, name, &gateway.upstreams);
        if let Err(error) = gateway.store.mark_paths(&paths, Mark::Invalid).await {
            warn!(route = route.name, %error, "Stored responses could not be marked on disk.");
        }
    }
}

/// Every path that a route may invalidate, for the store to watch.
pub(crate) fn watched(routes: &[RouteConfig], upstreams: &Upstreams) -> Vec<Paths> {
    let paths = routes.iter().filter_map(|route| {
        let name = route.upstream.as_deref()?;
        Some(paths_of(route, name, upstreams))
    });
    paths.flatten().collect()
}

fn paths_of(route: &RouteConfig, upstream: &str, upstreams: &Upstreams) -> Vec<Paths> {
    let Some(upstream) = upstreams.named(upstream) else {
        return Vec::new();
    };
    let (scheme, authority, base_path) = upstream.base();
    let paths = |pattern: &String| {
        let (scheme, authority) = (scheme.as_str(), authority.as_str());
        Paths::new(scheme, authority, &format!("{base_path}{pattern}"))
    };
    route.invalidates.iter().map(paths).collect()
}

/// Marks what is stored under a key, and for queries to the same URI.
pub(crate) async fn mark_target(gateway: &Gateway, key: &CacheKey, mark: Mark) {
    let marked = gateway.store.mark_target(key, mark).await;
    warn_unless_marked(key, mark, marked);
}

/// Says what could not be done on disk.
pub(crate) fn warn_unless_marked(key: &CacheKey, mark: Mark, marked: Result<(), StoreError>) {
    if let Err(error) = marked {
        warn!(%key, %error, ?mark, "A stored response could not be marked on disk.");
    }
}
