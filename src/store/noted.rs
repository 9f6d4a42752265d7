//! What is known of many things for a while and may be forgotten, in half a megabyte whatever there is.

use std::{
    hash::{BuildHasher, Hash},
    sync::atomic::{AtomicU64, Ordering},
};

use foldhash::fast::RandomState;

/// Half a megabyte. What another has pushed out is found out once more.
const SLOTS: usize = 1 << 16;

/// Things that were noted, each in a generation: in another one it no longer holds.
///
/// What stands in a slot is a hash of both. One hash in 2^64 says wrongly that something was noted.
pub(super) struct Noted {
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Noted {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::default(),
        }
    }

    pub(super) fn note(&self, what: &(impl Hash + ?Sized), generation: u64) {
        let (slot, hash) = self.slot(what, generation);
        slot.store(hash, Ordering::Release);
    }

    /// Whether it was noted in this generation.
    pub(super) fn has(&self, what: &(impl Hash + ?Sized), generation: u64) -> bool {
        let (slot, hash) = self.slot(what, generation);
        slot.load(Ordering::Acquire) == hash
    }

    fn slot(&self, what: &(impl Hash + ?Sized), generation: u64) -> (&AtomicU64, u64) {
        let of_it = self.hasher.hash_one(what);
        let slot = usize::try_from(of_it % SLOTS as u64).unwrap_or_default();
        (&self.slots[slot], self.hasher.hash_one((of_it, generation)))
    }
}

#[cfg(test)]
mod tests {
    use super::Noted;

    #[test]
    fn what_was_noted_holds_until_the_generation_changes() {
        let noted = Noted::new();
        assert!(!noted.has("a", 0));
        noted.note("a", 0);
        assert!(noted.has("a", 0));
        assert!(!noted.has("a", 1));
        assert!(!noted.has("b", 0));
    }
}
