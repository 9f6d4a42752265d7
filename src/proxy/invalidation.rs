//! What an unsafe request that succeeded makes unusable until it is validated: its target with whatever else answers for
//! it, the same-origin locations of the answer, the groups that the answer names, and the paths that the route names.
//!
//! Once it is begun it is carried out to the end, also when the client leaves: it runs on the gateway's tasks.

use std::sync::Arc;

use http::{HeaderMap, Method, StatusCode};
use tracing::warn;

use super::{Gateway, RouteConfig};
use crate::{
    policy::{self, CacheKey, InvalidationTargets, Mark, Names, QueryRules},
    store::{Paths, StoreError, Ticket},
    upstream::Upstreams,
};

/// What is to be marked.
pub(crate) struct Invalidation {
    key: CacheKey,
    mark: Mark,
    /// What was current when the request was sent, where its answer may take the place of its target.
    ticket: Option<Ticket>,
    named: InvalidationTargets,
    groups: Names,
    paths: Vec<Paths>,
}

/// A request on its way, as far as it decides what its answer invalidates.
#[derive(Clone)]
pub(crate) struct Cause<'a> {
    pub(crate) gateway: &'a Arc<Gateway>,
    /// What its response would be filed under.
    pub(crate) key: CacheKey,
    /// The route that took it, with the upstream it goes to. A forward request, which a route gives its policy only,
    /// changes nothing of the route's upstream.
    pub(crate) route: Option<(&'a RouteConfig, &'a str)>,
    pub(crate) method: &'a Method,
    /// What of a query counts.
    pub(crate) rules: &'a QueryRules,
}

impl Cause<'_> {
    /// What an answer says is changed, to be validated in any case; nothing after a safe request or a failure.
    pub(crate) fn answered(
        self,
        ticket: Ticket,
        status: StatusCode,
        headers: &HeaderMap,
    ) -> Option<Invalidation> {
        let invalidation = self.invalidation(status, headers)?;
        Some(Invalidation {
            ticket: Some(ticket),
            ..invalidation
        })
    }

    /// What may be changed although no answer came, and is stale for that; nothing after a safe request.
    pub(crate) fn in_doubt(self) -> Option<Invalidation> {
        let invalidation = self.invalidation(StatusCode::OK, &HeaderMap::new())?;
        Some(Invalidation {
            mark: Mark::Stale,
            ..invalidation
        })
    }

    fn invalidation(&self, status: StatusCode, headers: &HeaderMap) -> Option<Invalidation> {
        if !policy::may_have_changed(self.method, status) {
            return None;
        }
        let key = self.key.clone();
        Some(Invalidation {
            named: policy::invalidates(self.method, &key, status, headers, self.rules),
            groups: policy::invalidates_groups(self.method, status, headers),
            paths: self.paths(),
            key,
            mark: Mark::Invalid,
            ticket: None,
        })
    }

    fn paths(&self) -> Vec<Paths> {
        let of_route = |(route, name)| paths_of(route, name, &self.gateway.upstreams);
        self.route.map(of_route).unwrap_or_default()
    }
}

impl Invalidation {
    /// Marks all of it. The answer itself may be stored in place of its target under the ticket returned, unless something
    /// else was purged since the request's.
    pub(crate) async fn carry_out(self, gateway: &Arc<Gateway>) -> Option<Ticket> {
        let tasks = gateway.tasks.clone();
        let gateway = Arc::clone(gateway);
        let marking = tasks.spawn(async move { self.mark_all(&gateway).await });
        marking.await.ok().flatten()
    }

    /// Has all of it marked, without waiting for that.
    pub(crate) fn begin(self, gateway: &Arc<Gateway>) {
        let tasks = gateway.tasks.clone();
        let gateway = Arc::clone(gateway);
        tasks.spawn(async move { self.mark_all(&gateway).await });
    }

    async fn mark_all(self, gateway: &Gateway) -> Option<Ticket> {
        let (store, key, mark) = (&gateway.store, &self.key, self.mark);
        for named in &self.named {
            // Else they would answer in its stead. Before the ticket is renewed: what comes may be filed with them.
            warn_unless_marked(named, mark, store.mark_equivalents(named, mark).await);
        }
        let mut renewed = None;
        for named in &self.named {
            let marked = match self.ticket.filter(|_| named == key) {
                Some(ticket) => {
                    let (ticket, marked) = store.supersede(ticket, key).await;
                    renewed = ticket;
                    marked
                }
                None => store.mark_target(named, mark).await,
            };
            warn_unless_marked(named, mark, marked);
        }
        if !self.groups.is_empty()
            && let Err(error) = store.invalidate_groups(key, &self.groups).await
        {
            warn!(%key, %error, "Stored responses of a group could not be marked on disk.");
        }
        if !self.paths.is_empty()
            && let Err(error) = store.mark_paths(&self.paths, mark).await
        {
            warn!(%key, %error, "Stored responses that a route names could not be marked on disk.");
        }
        renewed
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

/// Says what could not be done on disk.
pub(crate) fn warn_unless_marked(key: &CacheKey, mark: Mark, marked: Result<(), StoreError>) {
    if let Err(error) = marked {
        warn!(%key, %error, ?mark, "A stored response could not be marked on disk.");
    }
}
