//! Keys whose origin just failed are left alone for a while, so that a failing origin is not hammered: 1 s doubling to
//! 30 s, or as long as its Retry-After says (at most an hour). Bounded: while [`KEYS_MAX`] keys are held no more are.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::policy::{CacheKey, Timestamp};

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(30);
/// A Retry-After beyond this is taken for a mistake: the stale copy would be served long after the origin is well.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(3_600);
const KEYS_MAX: usize = 16_384;

/// The keys held down.
#[derive(Debug, Default)]
pub(crate) struct HoldDown {
    keys: Mutex<HashMap<CacheKey, Hold>>,
}

#[derive(Clone, Copy, Debug)]
struct Hold {
    until: Timestamp,
    length: Duration,
}

impl HoldDown {
    /// Whether `key` is held at `now`.
    pub(crate) fn holds(&self, key: &CacheKey, now: Timestamp) -> bool {
        self.lock().get(key).is_some_and(|hold| hold.lasts(now))
    }

    /// A validation or fill of `key` failed.
    pub(crate) fn failed(&self, key: &CacheKey, now: Timestamp, retry_after: Option<Duration>) {
        let mut keys = self.lock();
        let known = keys.get(key).copied();
        // A burst of requests that fail together is one failure; only a longer Retry-After says more.
        if let Some(hold) = known
            && hold.lasts(now)
            && retry_after.is_none_or(|asked| now.plus(asked) <= hold.until)
        {
            return;
        }
        let length = known.map_or(FIRST, |hold| (hold.length * 2).min(LONGEST));
        let wait = retry_after.map_or(length, |asked| asked.clamp(length, LONGEST_RETRY_AFTER));
        if keys.len() >= KEYS_MAX && !keys.contains_key(key) {
            keys.retain(|_, hold| hold.lasts(now));
        }
        if keys.len() < KEYS_MAX || keys.contains_key(key) {
            keys.insert(
                key.clone(),
                Hold {
                    until: now.plus(wait),
                    length,
                },
            );
        }
    }

    /// The origin answered for `key`.
    pub(crate) fn succeeded(&self, key: &CacheKey) {
        self.lock().remove(key);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CacheKey, Hold>> {
        // Entries are whole, so a panic elsewhere does not spoil the map.
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hold {
    /// A clock that was stepped back does not hold a key for longer than the longest hold.
    fn lasts(&self, now: Timestamp) -> bool {
        now < self.until && self.until <= now.plus(LONGEST_RETRY_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::HoldDown;
    use crate::policy::{CacheKey, Timestamp};

    #[test]
    fn holds_double_and_end() {
        let (holds, key) = (HoldDown::default(), CacheKey::from_text("http://a/"));
        let at = |secs| Timestamp::from_secs(secs);
        assert!(!holds.holds(&key, at(0)));
        holds.failed(&key, at(0), None);
        assert!(holds.holds(&key, at(0)) && !holds.holds(&key, at(1)));
        holds.failed(&key, at(1), None);
        assert!(holds.holds(&key, at(2)) && !holds.holds(&key, at(3)));
        for _ in 0..10 {
            holds.failed(&key, at(3), None);
        }
        assert!(
            holds.holds(&key, at(6)) && !holds.holds(&key, at(7)),
            "a burst is one failure"
        );
        for secs in [10, 100, 200, 300, 400] {
            holds.failed(&key, at(secs), None);
        }
        assert!(holds.holds(&key, at(429)) && !holds.holds(&key, at(430)));
        holds.succeeded(&key);
        assert!(!holds.holds(&key, at(400)));
    }

    #[test]
    fn the_keys_held_are_bounded_and_those_that_ended_make_room() {
        let holds = HoldDown::default();
        let key = |number: usize| CacheKey::from_text(&format!("http://a/{number}"));
        for number in 0..=super::KEYS_MAX {
            holds.failed(&key(number), Timestamp::from_secs(0), None);
        }
        assert!(!holds.holds(&key(super::KEYS_MAX), Timestamp::from_secs(0)));
        holds.failed(&key(super::KEYS_MAX), Timestamp::from_secs(5), None);
        assert!(holds.holds(&key(super::KEYS_MAX), Timestamp::from_secs(5)));
        assert_eq!(holds.lock().len(), 1);
    }

    #[test]
    fn retry_after_is_a_floor() {
        let (holds, key) = (HoldDown::default(), CacheKey::from_text("http://a/"));
        holds.failed(
            &key,
            Timestamp::from_secs(0),
            Some(Duration::from_secs(120)),
        );
        assert!(
            holds.holds(&key, Timestamp::from_secs(119))
                && !holds.holds(&key, Timestamp::from_secs(120))
        );
    }
}
