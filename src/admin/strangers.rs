//! Credentials that are not ours, shown where clients show theirs: a few are tolerated, more are guesses.
//!
//! A credential that was tolerated is known, and stays so: who shows it again learns nothing. Another one that nobody has shown
//! before takes one of [`TOLERATED`], of which one comes back every [`ANOTHER_EVERY`]. So a client may ask as often as it likes
//! with its own, and whoever guesses is soon out of them; what guessing gains is nothing beside what the slowed guesses are.
//! Bound: [`KNOWN_MAX`] hashes with a key of the process; the one that came first is forgotten for the next.

use std::{
    collections::{HashSet, VecDeque},
    hash::{BuildHasher, RandomState},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// Clients that renew their tokens together, as after a deployment.
pub(super) const TOLERATED: u32 = 64;

/// A thousand clients whose tokens live for three hours.
const ANOTHER_EVERY: Duration = Duration::from_secs(10);

const KNOWN_MAX: usize = 4_096;

/// Who shows credentials that are not ours.
pub(super) struct Strangers {
    hasher: RandomState,
    known: Mutex<Known>,
}

struct Known {
    hashes: HashSet<u64>,
    /// In the order in which they came.
    order: VecDeque<u64>,
    /// How many that are not known may still come.
    left: u32,
    /// Since when the next one comes back.
    refilled_at: Instant,
}

impl Strangers {
    /// Whether this may be a client's own credential.
    pub(super) fn tolerate(&self, credential: &str) -> bool {
        let hash = self.hasher.hash_one(credential);
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.tolerate(hash, Instant::now())
    }
}

impl Default for Strangers {
    fn default() -> Self {
        Self {
            hasher: RandomState::new(),
            known: Mutex::new(Known {
                hashes: HashSet::new(),
                order: VecDeque::new(),
                left: TOLERATED,
                refilled_at: Instant::now(),
            }),
        }
    }
}

impl Known {
    fn tolerate(&mut self, hash: u64, now: Instant) -> bool {
        if self.hashes.contains(&hash) {
            return true;
        }
        self.refill(now);
        let Some(left) = self.left.checked_sub(1) else {
            return false;
        };
        self.left = left;
        if self.order.len() >= KNOWN_MAX
            && let Some(first) = self.order.pop_front()
        {
            self.hashes.remove(&first);
        }
        self.order.push_back(hash);
        self.hashes.insert(hash);
        true
    }

    fn refill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.refilled_at).as_secs();
        let back = passed / ANOTHER_EVERY.as_secs();
        self.refilled_at += Duration::from_secs(back * ANOTHER_EVERY.as_secs());
        let back = u32::try_from(back).unwrap_or(TOLERATED);
        self.left = self.left.saturating_add(back).min(TOLERATED);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::{ANOTHER_EVERY, KNOWN_MAX, Strangers, TOLERATED};

    #[tokio::test(start_paused = true)]
    async fn so_many_are_tolerated_and_one_more_from_time_to_time() {
        let strangers = Strangers::default();
        let mut shown = (0..).map(|number: u32| number.to_string());
        let mut fresh = || strangers.tolerate(&shown.next().unwrap());
        assert!((0..TOLERATED).all(|_| fresh()));
        assert!(!fresh());
        advance(ANOTHER_EVERY - Duration::from_millis(1)).await;
        assert!(!fresh());
        advance(Duration::from_millis(1)).await;
        assert!(fresh());
        assert!(!fresh());
        // However long nobody came.
        advance(ANOTHER_EVERY * 1_000).await;
        assert!((0..TOLERATED).all(|_| fresh()));
        assert!(!fresh());
        assert!(strangers.tolerate("0"), "it is known");
    }

    #[tokio::test(start_paused = true)]
    async fn who_came_first_is_forgotten_first() {
        let strangers = Strangers::default();
        for number in 0..=KNOWN_MAX {
            assert!(strangers.tolerate(&number.to_string()));
            advance(ANOTHER_EVERY).await;
        }
        {
            let mut known = strangers.known.lock().unwrap();
            let held = (known.order.len(), known.hashes.len());
            assert_eq!(held, (KNOWN_MAX, KNOWN_MAX));
            (known.left, known.refilled_at) = (0, Instant::now());
        }
        assert!(!strangers.tolerate("0"));
        assert!(strangers.tolerate("1"));
    }
}
