//! Pending writes by what they write to: asked by every read while anything waits, and so apart from the rest of the index.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use xxhash_rust::xxh3::xxh3_64;

use crate::queue::ItemId;

/// The hash of the key that what a write changes is stored under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct UrlHash(u64);

/// Pending writes by the hash of the key their target is stored under. Whoever must be sure looks into the items.
#[derive(Debug, Default)]
pub(in crate::queue) struct PendingUrls {
    /// How many URLs there are, for those who only want to know that there are none.
    count: AtomicUsize,
    urls: Mutex<HashMap<UrlHash, Ids>>,
}

/// In order of acceptance. Most URLs have one.
#[derive(Debug)]
enum Ids {
    One(ItemId),
    Many(VecDeque<ItemId>),
}

impl PendingUrls {
    /// Whether nothing is pending. Costs one load.
    pub(in crate::queue) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    /// How many writes to what is stored under a key are pending.
    pub(in crate::queue) fn count(&self, key: &str) -> usize {
        if self.is_empty() {
            return 0;
        }
        self.lock().get(&UrlHash::of(key)).map_or(0, Ids::len)
    }

    /// Which these are, in order of acceptance; `None` where there are more than `limit`.
    pub(in crate::queue) fn ids(&self, key: &str, limit: usize) -> Option<Vec<ItemId>> {
        let urls = self.lock();
        match urls.get(&UrlHash::of(key)) {
            None => Some(Vec::new()),
            Some(ids) if ids.len() > limit => None,
            Some(Ids::One(id)) => Some(vec![*id]),
            Some(Ids::Many(ids)) => Some(ids.iter().copied().collect()),
        }
    }

    pub(super) fn insert(&self, url: UrlHash, id: ItemId) {
        let mut urls = self.lock();
        match urls.entry(url) {
            Entry::Vacant(place) => {
                place.insert(Ids::One(id));
            }
            Entry::Occupied(ids) => ids.into_mut().insert(id),
        }
        self.count.store(urls.len(), Ordering::Relaxed);
    }

    pub(super) fn remove(&self, url: UrlHash, id: ItemId) {
        let mut urls = self.lock();
        if let Entry::Occupied(mut ids) = urls.entry(url)
            && ids.get_mut().remove(id)
        {
            ids.remove();
        }
        self.count.store(urls.len(), Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<UrlHash, Ids>> {
        // Nothing panics between two changes that belong together.
        self.urls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UrlHash {
    pub(super) fn of(key: &str) -> Self {
        Self(xxh3_64(key.as_bytes()))
    }
}

impl Ids {
    fn len(&self) -> usize {
        match self {
            Self::One(_) => 1,
            Self::Many(ids) => ids.len(),
        }
    }

    fn insert(&mut self, id: ItemId) {
        if let Self::One(first) = *self {
            if first == id {
                return;
            }
            *self = Self::Many(VecDeque::from([first]));
        }
        if let Self::Many(ids) = self
            && let Err(at) = ids.binary_search(&id)
        {
            // Almost always the last.
            ids.insert(at, id);
        }
    }

    /// Whether none is left.
    fn remove(&mut self, id: ItemId) -> bool {
        match self {
            Self::One(one) => *one == id,
            Self::Many(ids) => {
                if let Ok(at) = ids.binary_search(&id) {
                    ids.remove(at);
                }
                ids.is_empty()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{ItemId, PendingUrls, UrlHash};

    fn id(number: u8) -> ItemId {
        ItemId::from_bytes([number; 16])
    }

    #[test]
    fn one_that_is_there_is_not_there_twice() {
        let pending = PendingUrls::default();
        for _ in 0..2 {
            pending.insert(UrlHash::of("a"), id(1));
        }
        assert_eq!(pending.count("a"), 1);
        pending.remove(UrlHash::of("a"), id(1));
        assert!(pending.is_empty());
    }

    #[test]
    fn they_come_in_order_of_acceptance_and_go_in_any() {
        let pending = PendingUrls::default();
        let a = UrlHash::of("a");
        assert!(pending.is_empty());
        for number in [2, 3, 1, 3] {
            pending.insert(a, id(number));
        }
        pending.insert(UrlHash::of("b"), id(4));
        assert_eq!(
            (pending.count("a"), pending.count("b"), pending.count("c")),
            (3, 1, 0)
        );
        assert_eq!(pending.ids("a", 3), Some(vec![id(1), id(2), id(3)]));
        assert_eq!(pending.ids("a", 2), None);
        for number in [2, 9, 3, 1] {
            pending.remove(a, id(number));
        }
        assert_eq!(pending.ids("a", 2), Some(Vec::new()));
        pending.remove(UrlHash::of("b"), id(9));
        assert_eq!(pending.ids("b", 1), Some(vec![id(4)]));
        pending.remove(UrlHash::of("b"), id(4));
        assert!(pending.is_empty());
    }
}
