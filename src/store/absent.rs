//! Keys of which the disk was found to have nothing, so that a read of what is never stored does not go there each time.

use std::{
    hash::BuildHasher,
    sync::atomic::{AtomicU64, Ordering},
};

use foldhash::fast::RandomState;

/// Half a megabyte. A key that another has pushed out is looked for on disk once more.
const SLOTS: usize = 1 << 16;

/// What stands in a slot is a hash of the key and of its generation in memory when the disk had nothing: whatever is
/// published under the key, or written, changes the generation, and what was noted no longer holds. One hash in 2^64 says
/// so wrongly; the read then goes to the origin instead of to the disk.
pub(super) struct Absent {
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Absent {
    pub(super) fn new() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::default(),
        }
    }

    /// Says that the disk has nothing of `key`, while nobody can publish anything under it.
    pub(super) fn note(&self, key: &str, generation: u64) {
        let (slot, hash) = self.slot(key, generation);
        slot.store(hash, Ordering::Release);
    }

    /// Whether the disk had nothing of `key` in this generation, and so has nothing now.
    pub(super) fn is_noted(&self, key: &str, generation: u64) -> bool {
        let (slot, hash) = self.slot(key, generation);
        slot.load(Ordering::Acquire) == hash
    }

    fn slot(&self, key: &str, generation: u64) -> (&AtomicU64, u64) {
        let of_key = self.hasher.hash_one(key);
        let slot = usize::try_from(of_key % SLOTS as u64).unwrap_or_default();
        (
            &self.slots[slot],
            self.hasher.hash_one((of_key, generation)),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::Absent;

    #[test]
    fn what_was_noted_holds_until_the_generation_changes() {
        let absent = Absent::new();
        assert!(!absent.is_noted("a", 0));
        absent.note("a", 0);
        assert!(absent.is_noted("a", 0));
        assert!(!absent.is_noted("a", 1));
        assert!(!absent.is_noted("b", 0));
    }
}
