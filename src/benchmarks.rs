//! What the micro-benchmarks of `benches/` measure and is not public, as functions.

use std::time::Duration;

use crate::{
    policy::{CacheKey, RequestHead, Reuse, StoredHead},
    store::{Store, StoredResponse},
};

/// A record as it is written to disk.
pub fn encode(key: &CacheKey, head: &StoredHead, body: &[u8]) -> Vec<u8> {
    crate::store::benchmarks::encode(key, head, body)
}

/// Reads a record that [`encode`] has made.
pub fn decode(record: &[u8]) -> impl Sized + use<> {
    crate::store::benchmarks::decode(record)
}

/// The answer made of a stored response that may be reused.
pub fn respond(
    store: &Store,
    key: &CacheKey,
    request: &RequestHead<'_>,
    stored: &StoredResponse,
    reuse: &Reuse,
) -> impl Sized + use<> {
    crate::proxy::benchmarks::respond(store, key, request, stored, reuse)
}

/// The counters of answered requests.
pub struct Counting(crate::proxy::benchmarks::Counting);

impl Counting {
    /// Those of a gateway with one route.
    #[expect(
        clippy::new_without_default,
        reason = "there is nothing default about it"
    )]
    pub fn new() -> Self {
        Self(crate::proxy::benchmarks::Counting::new())
    }

    /// Counts a hit that took so long.
    pub fn count_hit(&self, took: Duration) {
        self.0.count_hit(took);
    }
}
