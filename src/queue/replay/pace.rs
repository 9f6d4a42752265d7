//! How fast deliveries follow each other: the rate of an origin, pauses that double, and when failures are the origin's.

use std::{collections::HashSet, time::Duration};

use tokio::time::Instant;

use crate::queue::{LaneId, ReplayRate};

/// The first pause, for items and for origins.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);

/// The longest.
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The longest between two probes of what answers in an origin's place: a probe costs little, and the one that passes ends an
/// outage. As long as the prober's own longest.
pub(super) const LONGEST_LOOK: Duration = Duration::from_secs(30);

/// So much of the rate may come at once: timers are no finer than a millisecond, and must not cost throughput.
const AT_ONCE: Duration = Duration::from_millis(10);

/// So many lanes have to fail, with no success between them, before the origin is taken for the cause.
const FAILING_LANES: usize = 5;

/// The rate of one origin (GCRA): evenly spaced, not a burst at the beginning of each second.
#[derive(Debug)]
pub(super) struct Pace {
    interval: Duration,
    tolerance: Duration,
    /// When the next is due by the rate alone.
    next: Instant,
}

/// Pauses that double from a second to five minutes, each with jitter, so that many gateways do not act in step.
#[derive(Debug)]
pub(super) struct Backoff(Duration);

/// Failures since the last success, by lane: one write that fails again and again says nothing of its origin.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    lanes: HashSet<LaneId>,
    backoff: Backoff,
}

impl Pace {
    pub(super) fn new(rate: ReplayRate) -> Self {
        let interval = (rate.per / rate.deliveries.max(1)).max(Duration::from_nanos(1));
        Self {
            interval,
            tolerance: AT_ONCE.saturating_sub(interval),
            next: Instant::now(),
        }
    }

    /// Not before this is the next delivery to begin.
    pub(super) fn ready_at(&self) -> Instant {
        self.next.checked_sub(self.tolerance).unwrap_or(self.next)
    }

    /// Counts a delivery that begins.
    pub(super) fn take(&mut self, now: Instant) {
        self.next = self.next.max(now) + self.interval;
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self(FIRST_PAUSE)
    }
}

impl Backoff {
    pub(super) fn next(&mut self) -> Duration {
        self.next_up_to(LONGEST_PAUSE)
    }

    pub(super) fn next_up_to(&mut self, longest: Duration) -> Duration {
        let pause = self.0.min(longest);
        self.0 = (pause * 2).min(LONGEST_PAUSE);
        pause.mul_f64(0.75 + fastrand::f64() / 4.0)
    }

    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }
}

impl Trouble {
    /// Counts a failure; how long to leave the origin alone, once it is taken for the cause.
    pub(super) fn failed(&mut self, lane: LaneId) -> Option<Duration> {
        if self.lanes.len() < FAILING_LANES {
            self.lanes.insert(lane);
        }
        (self.lanes.len() >= FAILING_LANES).then(|| self.backoff.next())
    }

    pub(super) fn clear(&mut self) {
        self.lanes.clear();
        self.backoff.reset();
    }
}

/// The pause after so many attempts at one write: anything up to a bound that doubles from a second to five minutes ("full
/// jitter"), so that lanes that failed together do not come back together.
pub(super) fn pause_after(attempts: u32) -> Duration {
    let doublings = attempts.saturating_sub(1).min(16);
    let bound = FIRST_PAUSE
        .saturating_mul(1 << doublings)
        .min(LONGEST_PAUSE);
    bound.mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::{Instant, advance};

    use super::{Backoff, LONGEST_PAUSE, Pace, Trouble, pause_after};
    use crate::queue::{LaneId, ReplayRate};

    const fn per_second(deliveries: u32) -> ReplayRate {
        ReplayRate {
            deliveries,
            per: Duration::from_secs(1),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn deliveries_are_spaced_evenly() {
        for (rate, at_once) in [(1, 1), (50, 1), (1_000, 10)] {
            let mut pace = Pace::new(per_second(rate));
            let start = Instant::now();
            let mut begun = 0;
            while start.elapsed() < Duration::from_secs(10) {
                while pace.ready_at() <= Instant::now() {
                    pace.take(Instant::now());
                    begun += 1;
                }
                advance(Duration::from_millis(1)).await;
            }
            let expected = rate * 10;
            assert!(
                (expected..expected + at_once).contains(&begun),
                "{begun} in 10 s at {rate}/s"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_not_used_is_not_saved_up() {
        let mut pace = Pace::new(per_second(1));
        advance(Duration::from_secs(60)).await;
        pace.take(Instant::now());
        assert_eq!(pace.ready_at() - Instant::now(), Duration::from_secs(1));
    }

    #[test]
    fn pauses_double_from_a_second_to_five_minutes() {
        let mut backoff = Backoff::default();
        let mut expected = Duration::from_secs(1);
        for _ in 0..12 {
            let pause = backoff.next();
            assert!(
                pause <= expected && pause >= expected.mul_f64(0.75),
                "{pause:?}"
            );
            expected = (expected * 2).min(LONGEST_PAUSE);
        }
        backoff.reset();
        assert!(backoff.next() <= Duration::from_secs(1));
    }

    #[test]
    fn the_pause_of_a_write_is_anything_up_to_a_bound_that_doubles() {
        for (attempts, bound_secs) in [(0, 1), (1, 1), (2, 2), (5, 16), (9, 256), (10, 300)] {
            let bound = Duration::from_secs(bound_secs);
            let pauses: Vec<_> = (0..400).map(|_| pause_after(attempts)).collect();
            assert!(pauses.iter().all(|pause| *pause <= bound));
            assert!(pauses.iter().any(|pause| *pause > bound.mul_f64(0.9)));
            assert!(pauses.iter().any(|pause| *pause < bound.mul_f64(0.1)));
        }
        assert!(pause_after(u32::MAX) <= LONGEST_PAUSE);
    }

    #[test]
    fn one_lane_that_fails_again_and_again_is_no_trouble_of_the_origin() {
        let mut trouble = Trouble::default();
        let lanes: Vec<_> = (0..5).map(|_| LaneId::unordered()).collect();
        for _ in 0..100 {
            assert_eq!(trouble.failed(lanes[0]), None);
        }
        for lane in &lanes[1..4] {
            assert_eq!(trouble.failed(*lane), None);
        }
        let first = trouble.failed(lanes[4]).unwrap();
        assert!(first <= Duration::from_secs(1));
        let second = trouble.failed(lanes[4]).unwrap();
        assert!(second > Duration::from_secs(1));
        trouble.clear();
        assert_eq!(trouble.failed(lanes[0]), None);
    }
}
