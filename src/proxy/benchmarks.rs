//! Answers from the store, for the micro-benchmarks; see [`crate::benchmarks`].

use std::time::Duration;

use super::{cache_status::CacheStatus, counters::Counters, respond};
use crate::{
    policy::{CacheKey, RequestHead, Reuse},
    store::{Store, StoredResponse},
    telemetry::Metrics,
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

pub(crate) struct Counting(Counters);

impl Counting {
    pub(crate) fn new() -> Self {
        Self(Counters::new(&Metrics::new(), ["api"].into_iter()))
    }

    pub(crate) fn count_hit(&self, took: Duration) {
        self.0.hits(Some(0)).count(took);
    }
}
