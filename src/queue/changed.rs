//! What is told when a queued write changes: to those who wait for its end, and to operators who watch.
//!
//! Who waits for one write hears of that one only. Bounds: [`WAITERS_MAX`] wait; a watcher of all may be [`CHANGES_KEPT`]
//! behind, then it misses some and is told so.

use std::{
    collections::{HashMap, hash_map::Entry},
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::{Notify, broadcast};

use super::{
    item::{Item, ItemId, Origin, State},
    lane::LaneId,
};

/// So many may wait at once. Each is a client's request, which costs more than its place here.
const WAITERS_MAX: usize = 4_096;

/// Changes that a slow watcher may be behind.
const CHANGES_KEPT: usize = 1_024;

/// A queued write came to another state. Told after the journal has recorded it, but for `sending`, which a harmless repetition
/// need not record.
#[derive(Clone, Debug, PartialEq)]
pub struct Changed {
    /// Which.
    pub id: ItemId,
    /// Its running number.
    pub seq: u64,
    /// Its state now.
    pub state: State,
    /// Where it goes.
    pub origin: Origin,
    /// The route that took it.
    pub route: String,
    /// Its lane.
    pub lane_id: LaneId,
    /// Attempts until now.
    pub attempts: u32,
}

/// Where changes are told.
#[derive(Debug)]
pub(super) struct Changes {
    all: broadcast::Sender<Changed>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_id: HashMap<ItemId, Arc<Notify>>,
    waiters: usize,
}

/// A place among those who wait for a write.
#[derive(Debug)]
pub(super) struct Waiter {
    changes: Weak<Changes>,
    id: ItemId,
    changed: Arc<Notify>,
}

impl Changes {
    pub(super) fn new() -> Arc<Self> {
        Self::keeping(CHANGES_KEPT)
    }

    /// With another bound for watchers.
    pub(super) fn keeping(changes: usize) -> Arc<Self> {
        Arc::new(Self {
            all: broadcast::Sender::new(changes),
            waiting: Mutex::default(),
        })
    }

    /// Tells whoever watches or waits.
    pub(super) fn tell(&self, item: &Item) {
        if self.all.receiver_count() > 0 {
            // Whoever watched has gone meanwhile.
            let _ = self.all.send(item.into());
        }
        if let Some(changed) = self.waiting().by_id.get(&item.id) {
            changed.notify_waiters();
        }
    }

    /// Every change from now on.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Changed> {
        self.all.subscribe()
    }

    /// A place among those who wait for a write; `None` when all are taken.
    pub(super) fn wait_for(self: &Arc<Self>, id: ItemId) -> Option<Waiter> {
        let mut waiting = self.waiting();
        if waiting.waiters >= WAITERS_MAX {
            return None;
        }
        waiting.waiters += 1;
        let changed = Arc::clone(waiting.by_id.entry(id).or_default());
        Some(Waiter {
            changes: Arc::downgrade(self),
            id,
            changed,
        })
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Nothing panics between two changes that belong together.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiter {
    /// What changes from this call on ends the wait.
    pub(super) fn next(&self) -> impl Future<Output = ()> {
        self.changed.notified()
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        let Some(changes) = self.changes.upgrade() else {
            return;
        };
        let mut waiting = changes.waiting();
        waiting.waiters -= 1;
        // One is the map's, one is ours.
        if let Entry::Occupied(entry) = waiting.by_id.entry(self.id)
            && Arc::strong_count(entry.get()) == 2
        {
            entry.remove();
        }
    }
}

impl From<&Item> for Changed {
    fn from(item: &Item) -> Self {
        Self {
            id: item.id,
            seq: item.seq,
            state: item.state,
            origin: item.origin.clone(),
            route: item.route.clone(),
            lane_id: item.lane_id,
            attempts: item.attempts,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures_util::FutureExt;

    use super::{Changes, WAITERS_MAX};
    use crate::queue::{Item, ItemId, tests::item};

    fn write(number: u8) -> Item {
        Item {
            id: ItemId::from_bytes([number; 16]),
            ..item()
        }
    }

    #[test]
    fn who_waits_hears_of_its_write_only() {
        let changes = Changes::new();
        let waiters = [1, 1, 2].map(|number| changes.wait_for(write(number).id).unwrap());
        let mut heard = waiters.each_ref().map(|waiter| Box::pin(waiter.next()));
        changes.tell(&write(1));
        let heard = heard.each_mut().map(|next| next.now_or_never().is_some());
        assert_eq!(heard, [true, true, false]);
    }

    /// What was told before a wait began is not waited for: whoever waits looks after that.
    #[test]
    fn a_wait_begins_when_it_is_asked_for() {
        let changes = Changes::new();
        let waiter = changes.wait_for(write(1).id).unwrap();
        let next = waiter.next();
        changes.tell(&write(1));
        assert!(next.now_or_never().is_some(), "though it was not polled");
        assert!(waiter.next().now_or_never().is_none());
    }

    #[test]
    fn places_are_bounded_and_given_back() {
        let changes = Changes::new();
        let take = |changes: &Arc<Changes>| {
            let numbers = 0..WAITERS_MAX;
            let ids = numbers.map(|number| write(u8::try_from(number % 7).unwrap()).id);
            ids.map(|id| changes.wait_for(id).unwrap())
                .collect::<Vec<_>>()
        };
        let waiters = take(&changes);
        assert!(changes.wait_for(write(9).id).is_none());
        drop(waiters);
        assert!(changes.waiting().by_id.is_empty());
        drop(take(&changes));
    }
}
