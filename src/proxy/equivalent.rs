//! A stored response of another URI that answers a request too, because it says that the difference between the queries
//! does not matter (No-Vary-Search).
//!
//! It is for reuse only. What goes to the origin goes under its own key, as if nothing had been found; a validation behind
//! the answer is one of the stored key, by its own URI.

use std::sync::Arc;

use http::uri::PathAndQuery;
use tracing::warn;

use super::{
    Gateway,
    arrival::{Arrival, Destination},
};
use crate::{
    policy::{self, CacheKey, Lookup, RequestHead},
    store::{Resource, StoredResponse},
};

/// What was found.
pub(crate) struct Equivalent {
    pub(crate) resource: Arc<Resource>,
    pub(crate) stored: Arc<StoredResponse>,
}

/// The one to reuse for a request for `key`, if there is any that has all it asks for.
pub(crate) async fn find(
    gateway: &Gateway,
    key: &CacheKey,
    request: &RequestHead<'_>,
) -> Option<Equivalent> {
    let mut candidates = all(gateway, key).await;
    candidates.retain(|Equivalent { stored, .. }| {
        let found = Lookup::of(request, &stored.head, stored.body.len());
        matches!(found, Lookup::Stored(_))
    });
    let heads = candidates.iter().map(|candidate| &candidate.stored.head);
    let index = policy::select(request.headers, heads)?;
    candidates.into_iter().nth(index)
}

/// Every stored response of another key that would answer a request for `key`, whatever its fields.
async fn all(gateway: &Gateway, key: &CacheKey) -> Vec<Equivalent> {
    if !gateway.store.may_have_equivalents(key) {
        return Vec::new();
    }
    // Boxed, because it is rare, and larger than what else a read needs.
    let resources = Box::pin(gateway.store.equivalents(key)).await;
    let resources = resources.unwrap_or_else(|error| {
        warn!(%key, %error, "Equivalent responses could not be looked up; treating as none.");
        Vec::new()
    });
    let mut found = Vec::new();
    for resource in &resources {
        let answering = resource.variants.iter().filter(|stored| {
            let search = &stored.head.terms.search;
            search
                .as_ref()
                .is_some_and(|search| search.answers(&resource.key, key))
        });
        found.extend(answering.map(|stored| Equivalent {
            resource: Arc::clone(resource),
            stored: Arc::clone(stored),
        }));
    }
    found
}

/// The arrival of a request for `key`, which differs from what was asked for in its query only.
pub(crate) fn arrival_for(arrival: &Arrival, key: &CacheKey) -> Arrival {
    let mut arrival = arrival.clone();
    // The content of a QUERY is in its key, but not in its target.
    let key = key.query_target().unwrap_or_else(|| key.clone());
    if let Destination::Upstream(effective) = &mut arrival.destination
        && effective.key != key.as_str()
        && let Ok(target) = PathAndQuery::try_from(key.path_and_query())
    {
        effective.path_and_query = target;
        key.as_str().clone_into(&mut effective.key);
    }
    arrival
}
