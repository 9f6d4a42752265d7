//! The QUERY responses of each URI: an unsafe method names the URI alone, and invalidates all of them (RFC 9111 section
//! 4.4), whatever content they answered.
//!
//! Invariant: a stored response to a QUERY is known here, or has a row on disk, or is marked invalid. A fill that is under
//! way shares the slot of its URI in the purge log, so an invalidation wins over it too. Bounds: [`KNOWN_MAX`] keys are
//! known; beyond, the one known for longest is invalidated, and fetched again when it is asked for.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{
    Inner, StoreError, Ticket,
    disk::{Disk, DiskError},
    labels::labels_of,
    matcher::RowRange,
};
use crate::policy::{CacheKey, Mark};

/// Half of what may wait for the disk at a time, so that one write marks them all without having everything distrusted.
const KNOWN_MAX: usize = 8 * 1_024;

/// Rows looked at in one read of the disk.
const CHUNK_ROWS: usize = 1_024;

/// The QUERY keys that were stored or promoted since the start.
#[derive(Debug, Default)]
pub(super) struct Queries {
    known: Mutex<Known>,
    // Without any, here or on disk, an unsafe method costs nothing more.
    pub(super) may_exist: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    // By the key of their target.
    of: HashMap<CacheKey, HashSet<CacheKey>>,
    // In the order in which they became known; some may be forgotten already.
    order: VecDeque<CacheKey>,
}

impl Queries {
    /// `may_exist`: whether the disk may have some of an earlier run.
    pub(super) fn new(may_exist: bool) -> Self {
        Self {
            known: Mutex::default(),
            may_exist: AtomicBool::new(may_exist),
        }
    }

    /// Takes note of a stored response, if it is one to a QUERY. A key that had to be forgotten for it is returned: its
    /// responses must be invalidated.
    pub(super) fn know(&self, key: &CacheKey) -> Option<CacheKey> {
        let target = key.query_target()?;
        self.may_exist.store(true, Ordering::Release);
        let mut known = self.lock();
        if known.of.entry(target).or_default().insert(key.clone()) {
            known.order.push_back(key.clone());
        }
        if known.order.len() <= KNOWN_MAX {
            return None;
        }
        let oldest = known.order.pop_front()?;
        known.forget(&oldest).then_some(oldest)
    }

    /// The keys known for a target. They are known no longer when they are about to be invalidated.
    fn of(&self, target: &CacheKey, mark: Mark) -> HashSet<CacheKey> {
        let mut known = self.lock();
        let found = match mark {
            Mark::Invalid => known.of.remove(target),
            Mark::Stale | Mark::None => known.of.get(target).cloned(),
        };
        found.unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Known {
    /// Whether it was known.
    fn forget(&mut self, key: &CacheKey) -> bool {
        let Some(target) = key.query_target() else {
            return false;
        };
        let Some(keys) = self.of.get_mut(&target) else {
            return false;
        };
        let was_known = keys.remove(key);
        if keys.is_empty() {
            self.of.remove(&target);
        }
        was_known
    }
}

impl Inner {
    /// Marks what is stored under `key`, and what is stored for QUERY requests to the same URI in the same partition.
    pub(super) async fn mark_target(
        self: &Arc<Self>,
        key: &CacheKey,
        mark: Mark,
    ) -> Result<(), StoreError> {
        // From here on every fill that is under way is refused, of the key and of its queries.
        self.purges.invalidate(key);
        self.mark_stored_target(key, mark).await
    }

    /// Invalidates the same for the sake of a response that takes its place: where nothing else was purged since `ticket`,
    /// that may be published under the ticket returned.
    pub(super) async fn supersede(
        self: &Arc<Self>,
        ticket: Ticket,
        key: &CacheKey,
    ) -> (Option<Ticket>, Result<(), StoreError>) {
        // Nobody knows yet what the answer is filed under.
        let labels = labels_of(key, None);
        let renewed = self.purges.renew(ticket, key, &labels);
        (renewed, self.mark_stored_target(key, Mark::Invalid).await)
    }

    async fn mark_stored_target(
        self: &Arc<Self>,
        key: &CacheKey,
        mark: Mark,
    ) -> Result<(), StoreError> {
        let mut marked = self.mark_stored(key, mark).await;
        if !self.queries.may_exist.load(Ordering::Acquire) {
            return marked;
        }
        let mut queries = self.queries.of(key, mark);
        match self.queries_on_disk(key).await {
            Ok(found) => queries.extend(found),
            // A tier that is closed is not read any more.
            Err(DiskError::Closed) => {}
            Err(error) => {
                marked = marked.and(Err(self.read_error(error)));
                self.distrust_disk(mark);
            }
        }
        for query in queries {
            marked = self.mark_stored(&query, mark).await.and(marked);
        }
        marked
    }

    /// The keys of the queries to `target` that the disk has and nobody has invalidated.
    async fn queries_on_disk(
        self: &Arc<Self>,
        target: &CacheKey,
    ) -> Result<Vec<CacheKey>, DiskError> {
        if self.disk.is_none() {
            return Ok(Vec::new());
        }
        let target = target.clone();
        self.on_disk(move |disk| find_queries(disk, &target)).await
    }

    /// Invalidates what is known no longer, or the next unsafe method would miss it. Not under a lock of the store.
    pub(super) fn invalidate_forgotten(&self, key: &CacheKey) {
        if !self.mark_at_once(key, Mark::Invalid) {
            self.distrust_disk(Mark::Invalid);
        }
    }
}

fn find_queries(disk: &Disk, target: &CacheKey) -> Result<Vec<CacheKey>, DiskError> {
    let range = RowRange::of_queries(target.uri());
    let is_wanted = |key: &CacheKey| key.query_target().as_ref() == Some(target);
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let rows = disk.rows(&range, after.as_deref(), CHUNK_ROWS, is_wanted)?;
        let valid = rows
            .rows
            .into_iter()
            .filter(|row| row.usage.mark != Mark::Invalid);
        found.extend(valid.map(|row| row.key));
        if rows.resume_after.is_none() {
            return Ok(found);
        }
        after = rows.resume_after;
    }
}

#[cfg(test)]
mod tests {
    use super::{KNOWN_MAX, Queries};
    use crate::policy::{CacheKey, Mark};

    fn target(number: usize) -> CacheKey {
        CacheKey::from_text(&format!("http://a.example/{number}"))
    }

    #[test]
    fn the_queries_of_a_target_are_known_until_they_are_invalidated() {
        let queries = Queries::new(false);
        let (one, other) = (target(1), target(2));
        assert_eq!(queries.know(&one), None, "not a query");
        for (key, digest) in [(&one, "a"), (&one, "b"), (&one, "a"), (&other, "a")] {
            queries.know(&key.with_query(digest));
        }
        assert_eq!(queries.of(&one, Mark::Stale).len(), 2);
        assert_eq!(queries.of(&one, Mark::Invalid).len(), 2);
        assert_eq!(queries.of(&one, Mark::Invalid).len(), 0);
        assert_eq!(queries.of(&other, Mark::Invalid).len(), 1);
    }

    #[test]
    fn beyond_the_bound_the_oldest_is_handed_back_to_be_invalidated() {
        let queries = Queries::new(false);
        for number in 0..KNOWN_MAX {
            assert_eq!(queries.know(&target(number).with_query("a")), None);
        }
        // What was invalidated is forgotten already.
        queries.of(&target(0), Mark::Invalid);
        assert_eq!(queries.know(&target(KNOWN_MAX).with_query("a")), None);
        let oldest = queries.know(&target(KNOWN_MAX + 1).with_query("a"));
        assert_eq!(oldest, Some(target(1).with_query("a")));
        assert_eq!(queries.lock().order.len(), KNOWN_MAX);
    }
}
