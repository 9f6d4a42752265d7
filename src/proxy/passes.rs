//! Keys whose answer could not be shared a moment ago. Whoever asks for one of them goes to the origin for himself and at
//! once, instead of waiting for an answer that will be another's: what would be served one after the other is served side by
//! side. An answer that can be shared after all is stored as any other, and ends it.

use std::{
    hash::BuildHasher,
    sync::atomic::{AtomicU64, Ordering},
};

use foldhash::fast::RandomState;
use http::{HeaderMap, header};

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
    /// An answer for `key` could not be shared, though the request would have let it be.
    pub(crate) fn note(&self, key: &CacheKey, headers: &HeaderMap, now: Timestamp) {
        let (slot, hash) = self.slot(key, headers);
        slot.store(
            hash | (seconds(now) + HOLDS_SECS) & UNTIL_MASK,
            Ordering::Relaxed,
        );
    }

    /// An answer for `key` could be shared.
    pub(crate) fn forget(&self, key: &CacheKey, headers: &HeaderMap) {
        let (slot, hash) = self.slot(key, headers);
        if slot.load(Ordering::Relaxed) & !UNTIL_MASK == hash {
            slot.store(0, Ordering::Relaxed);
        }
    }

    /// Whether the last answer for `key` could not be shared, and that was not long ago.
    pub(crate) fn holds(&self, key: &CacheKey, headers: &HeaderMap, now: Timestamp) -> bool {
        let (slot, hash) = self.slot(key, headers);
        let noted = slot.load(Ordering::Relaxed);
        let left = (noted & UNTIL_MASK).wrapping_sub(seconds(now)) & UNTIL_MASK;
        // A clock that was set back holds nothing for longer.
        noted & !UNTIL_MASK == hash && (1..=HOLDS_SECS).contains(&left)
    }

    /// Who sends a cookie has a slot of his own: an answer to him may be his, and the others' one for all.
    fn slot(&self, key: &CacheKey, headers: &HeaderMap) -> (&AtomicU64, u64) {
        let has_cookie = headers.contains_key(header::COOKIE);
        let hash = self.hasher.hash_one((key.as_str(), has_cookie));
        let slot = usize::try_from(hash % SLOTS as u64).unwrap_or_default();
        (&self.slots[slot], hash & !UNTIL_MASK)
    }
}

fn seconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_millis() / 1_000).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header};

    use super::Passes;
    use crate::policy::{CacheKey, Timestamp};

    #[test]
    fn a_key_is_passed_for_a_while_and_until_its_answer_can_be_shared() {
        let passes = Passes::default();
        let [one, other] = ["http://a/1", "http://a/2"].map(CacheKey::from_text);
        let at = |secs: i64| Timestamp::from_secs(1_700_000_000 + secs);
        let (none, mut cookie) = (HeaderMap::new(), HeaderMap::new());
        cookie.insert(header::COOKIE, HeaderValue::from_static("a=1"));
        let holds = |key, secs| passes.holds(key, &none, at(secs));
        assert!(!holds(&one, 0));
        passes.note(&one, &none, at(0));
        assert!(holds(&one, 0) && holds(&one, 119));
        assert!(!holds(&one, 120) && !holds(&one, -1));
        assert!(!holds(&other, 0) && !passes.holds(&one, &cookie, at(0)));
        passes.note(&one, &none, at(100));
        assert!(holds(&one, 219));
        passes.forget(&other, &none);
        passes.forget(&one, &cookie);
        assert!(holds(&one, 100));
        passes.forget(&one, &none);
        assert!(!holds(&one, 100));
    }
}
