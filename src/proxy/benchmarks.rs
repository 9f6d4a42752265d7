//! Answers from the store, for the micro-benchmarks; see [`crate::benchmarks`].

use super::{cache_status::CacheStatus, respond};
use crate::{
    policy::{CacheKey, RequestHead, Reuse},
    store::{Store, StoredResponse},
};

pub(crate) fn respond(
    store: &Store,
    key: &CacheKey,
    request: &RequestHead<'_>,
    stored: &StoredResponse,
    reuse: &Reuse,
) -> impl Sized + use<> {
    let status = CacheStatus {
        forward: None,
        forward_status: None,
        stored: false,
        collapsed: false,
        ttl_secs: Some(reuse.ttl_secs),
        detail: reuse.detail,
    };
    respond::from_store(store, key, request, stored, reuse, &status)
}
