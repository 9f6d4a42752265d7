//! Keys whose answer could not be shared a moment ago. Whoever asks for one of them goes to the origin for himself and at
//! once, instead of waiting for an answer that will be another's: what would be served one after the other is served side by
//! side. An answer that can be shared after all is stored as any other, and ends it.

use std::{
    hash::BuildHasher,
    sync::atomic::{AtomicU64, Ordering},
};

use foldhash::fast::RandomState;

use crate::policy::{CacheKey, Timestamp};

/// How long it holds without being seen again.
const HOLDS_SECS: u64 = 120;

/// Half a megabyte. A key that another has pushed out is filled once more as if nothing were known of it.
const SLOTS: usize = 1 << 16;

/// Of a slot, what says until when; the rest says of which key.
const UNTIL_MASK: u64 = 0xffff_ffff;

/// The keys, by their hashes. Two that look alike harm nothing but the sharing of the wait for one answer.
#[derive(Debug)]
pub(crate) struct Passes {
    slots: Box<[AtomicU64]>,
    hasher: RandomState,
}

impl Default for Passes {
    fn default() -> Self {
        Self {
            slots: (0..SLOTS).map(|_| AtomicU64::new(0)).collect(),
            hasher: RandomState::default(),
        }
    }
}

impl Passes {
    /// An answer for `key` could not be shared.
    pub(crate) fn note(&self, key: &CacheKey, now: Timestamp) {
        let (slot, hash) = self.slot(key);
        slot.store(
            hash | (seconds(now) + HOLDS_SECS) & UNTIL_MASK,
            Ordering::Relaxed,
        );
    }

    /// An answer for `key` could be shared.
    pub(crate) fn forget(&self, key: &CacheKey) {
        let (slot, hash) = self.slot(key);
        if slot.load(Ordering::Relaxed) & !UNTIL_MASK == hash {
            slot.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the last answer for `key` could not be shared, and that was not long ago.
    pub(crate) fn holds(&self, key: &CacheKey, now: Timestamp) -> bool {
        let (slot, hash) = self.slot(key);
        let noted = slot.load(Ordering::Relaxed);
        let left = (noted & UNTIL_MASK).wrapping_sub(seconds(now)) & UNTIL_MASK;
        // A clock that was set back holds nothing for longer.
        noted & !UNTIL_MASK == hash && (1..=HOLDS_SECS).contains(&left)
    }

    fn slot(&self, key: &CacheKey) -> (&AtomicU64, u64) {
        let hash = self.hasher.hash_one(key.as_str());
        let slot = usize::try_from(hash % SLOTS as u64).unwrap_or_default();
        (&self.slots[slot], hash & !UNTIL_MASK)
    }
}

fn seconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_millis() / 1_000).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::Passes;
    use crate::policy::{CacheKey, Timestamp};

    #[test]
    fn a_key_is_passed_for_a_while_and_until_its_answer_can_be_shared() {
        let passes = Passes::default();
        let [one, other] = ["http://a/1", "http://a/2"].map(CacheKey::from_text);
        let at = |secs: i64| Timestamp::from_secs(1_700_000_000 + secs);
        assert!(!passes.holds(&one, at(0)));
        passes.note(&one, at(0));
        assert!(passes.holds(&one, at(0)) && passes.holds(&one, at(119)));
        assert!(!passes.holds(&one, at(120)) && !passes.holds(&one, at(-1)));
        assert!(!passes.holds(&other, at(0)));
        passes.note(&one, at(100));
        assert!(passes.holds(&one, at(219)));
        passes.forget(&other);
        assert!(passes.holds(&one, at(100)));
        passes.forget(&one);
        assert!(!passes.holds(&one, at(100)));
    }
}
