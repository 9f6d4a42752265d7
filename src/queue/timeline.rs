//! How long ago something was, although the clock was set meanwhile: an edge box without a battery begins in 1970, accepts
//! writes, and is told the time an hour later. Those writes have waited an hour, not half a century.
//!
//! A clock that was set forward is noticed because the time that passes by it and the time that passes anyway drift apart; what
//! it skipped counts for nobody. A clock that was set back makes everything look younger, and is left at that: what waits for
//! too long is given up a little later then. Bounds: [`STEPS_MAX`] steps are remembered.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::policy::Timestamp;

/// Less than this is how clocks are kept right, and makes no difference to what is measured here: hours and days.
const STEP_MIN_MILLIS: i64 = 60_000;

/// Of more the shortest is forgotten. A clock that is set right is set once a boot.
const STEPS_MAX: usize = 16;

/// The first version is of this year: whatever clock shows an earlier one is wrong.
const BIRTH: Timestamp = Timestamp::from_secs(1_767_225_600);

/// A clock was set forward, from one moment to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ClockStep {
    pub(super) before: Timestamp,
    pub(super) after: Timestamp,
}

/// What has passed, and what was skipped.
#[derive(Debug, Default)]
pub(super) struct Timeline {
    /// In the order in which they happened.
    steps: Vec<ClockStep>,
    /// The wall's clock and the steady one when they were last looked at.
    seen: Option<(Timestamp, Duration)>,
    is_unsaved: bool,
}

impl Timeline {
    /// With what was noticed before this process began. `newest` of what waits that is stamped before [`BIRTH`]: from there on
    /// nobody knows how long it was, whatever is known of an earlier step; so its age counts from now.
    pub(super) fn resume(
        steps: Vec<ClockStep>,
        now: Timestamp,
        newest: impl Fn(Timestamp) -> Option<Timestamp>,
    ) -> Self {
        let mut timeline = Self {
            steps,
            ..Self::default()
        };
        if now >= BIRTH
            && let Some(before) = newest(BIRTH)
        {
            timeline.note(ClockStep { before, after: now });
        }
        timeline
    }

    /// Looks at both clocks: the wall's, and one that cannot be set.
    pub(super) fn look(&mut self, now: Timestamp, steady: Duration) {
        let last = self.seen.replace((now, steady));
        let Some((then, since)) = last else {
            return;
        };
        let expected = then.plus(steady.saturating_sub(since));
        if now.millis_since(expected) >= STEP_MIN_MILLIS {
            self.note(ClockStep {
                before: expected,
                after: now,
            });
        }
    }

    /// The moment that was so long ago.
    pub(super) fn ago(&self, now: Timestamp, age: Duration) -> Timestamp {
        let mut left = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let mut until = now;
        for step in self.steps.iter().rev() {
            let since = until.millis_since(step.after);
            // A step that lies ahead is of a clock that was set back since.
            if since < 0 {
                continue;
            }
            if since >= left {
                break;
            }
            left -= since;
            until = step.before;
        }
        Timestamp::from_millis(until.as_millis().saturating_sub(left))
    }

    /// What is to be put on disk.
    pub(super) fn unsaved(&self) -> Option<&[ClockStep]> {
        self.is_unsaved.then_some(&self.steps)
    }

    /// Says that these steps are on disk.
    pub(super) fn saved(&mut self, steps: &[ClockStep]) {
        self.is_unsaved = self.steps != steps;
    }

    /// Says that it is not known what is on disk.
    pub(super) fn lost(&mut self) {
        self.is_unsaved = !self.steps.is_empty();
    }

    fn note(&mut self, step: ClockStep) {
        tracing::warn!(
            before = step.before.rfc3339(),
            after = step.after.rfc3339(),
            "The clock was set forward; what waits in the queue is not older for it."
        );
        if self.steps.len() >= STEPS_MAX {
            let skipped = |step: &ClockStep| step.after.millis_since(step.before);
            let shortest = (0..self.steps.len()).min_by_key(|at| skipped(&self.steps[*at]));
            shortest.map(|at| self.steps.remove(at));
        }
        self.steps.push(step);
        self.is_unsaved = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const NOW: Timestamp = Timestamp::from_secs(1_800_000_000);

    fn at(secs: i64) -> Timestamp {
        Timestamp::from_secs(secs)
    }

    #[test]
    fn without_a_step_an_hour_ago_was_an_hour_ago() {
        let mut timeline = Timeline::default();
        for minute in 0..10 {
            timeline.look(
                at(60 * minute),
                Duration::from_secs(60 * minute.unsigned_abs()),
            );
        }
        assert_eq!(timeline.ago(NOW, HOUR), at(1_800_000_000 - 3_600));
        assert_eq!(timeline.unsaved(), None);
        assert_eq!(
            timeline.ago(at(0), Duration::MAX),
            Timestamp::from_millis(-i64::MAX)
        );
    }

    /// Everything in the queue died at once.
    #[test]
    fn what_a_clock_skipped_makes_nothing_older() {
        let mut timeline = Timeline::default();
        timeline.look(at(100), Duration::from_secs(0));
        timeline.look(NOW, Duration::from_secs(50));
        assert_eq!(timeline.ago(NOW, Duration::from_secs(0)), NOW);
        assert_eq!(timeline.ago(NOW.plus(HOUR), HOUR / 2), NOW.plus(HOUR / 2));
        // It was 150 s when the clock was set; 3,550 s of this hour have passed since.
        let later = NOW.plus(Duration::from_secs(3_550));
        assert_eq!(timeline.ago(later, HOUR), at(100));
    }

    #[test]
    fn several_steps_add_up() {
        let mut timeline = Timeline::default();
        timeline.look(at(1_000), Duration::from_secs(0));
        timeline.look(at(10_100), Duration::from_secs(100));
        timeline.look(at(20_200), Duration::from_secs(200));
        assert_eq!(
            timeline.ago(at(20_250), Duration::from_secs(50)),
            at(20_200)
        );
        assert_eq!(
            timeline.ago(at(20_250), Duration::from_secs(60)),
            at(10_190)
        );
        assert_eq!(
            timeline.ago(at(20_250), Duration::from_secs(200)),
            at(1_050)
        );
    }

    #[test]
    fn a_clock_that_is_set_back_is_left_at_that() {
        let mut timeline = Timeline::default();
        timeline.look(NOW, Duration::from_secs(0));
        timeline.look(at(1_000), Duration::from_secs(10));
        assert_eq!(timeline.unsaved(), None);
        timeline.look(at(90_000), Duration::from_secs(20));
        timeline.look(at(2_000), Duration::from_secs(30));
        // The step to 90,000 lies ahead.
        assert_eq!(timeline.ago(at(2_000), Duration::from_secs(500)), at(1_500));
    }

    #[test]
    fn of_too_many_the_shortest_is_forgotten() {
        let mut timeline = Timeline::default();
        let mut now = 0;
        for length in 1..=STEPS_MAX + 1 {
            timeline.look(at(now), Duration::ZERO);
            now += 100 * i64::try_from(length).unwrap();
        }
        timeline.look(at(now), Duration::ZERO);
        let steps = timeline.unsaved().unwrap();
        assert_eq!(steps.len(), STEPS_MAX);
        assert_eq!(steps[0].after.millis_since(steps[0].before), 200_000);
    }

    #[test]
    fn a_stamp_of_before_there_was_a_hardtack_says_nothing() {
        let newest = |before: Timestamp| (before == BIRTH).then_some(at(500));
        let timeline = Timeline::resume(Vec::new(), NOW, newest);
        assert_eq!(timeline.ago(NOW.plus(HOUR), 2 * HOUR), at(500 - 3_600));
        // A step is known, but what is stamped so may be of after it: the box was told the time, and begins in 1970 again.
        let known = ClockStep {
            before: at(100),
            after: NOW,
        };
        let timeline = Timeline::resume(vec![known], NOW.plus(100 * HOUR), newest);
        assert_eq!(
            timeline.ago(NOW.plus(101 * HOUR), 2 * HOUR),
            at(500 - 3_600)
        );
        let timeline = Timeline::resume(Vec::new(), at(600), newest);
        assert_eq!(timeline.unsaved(), None, "the clock is still wrong");
        let timeline = Timeline::resume(Vec::new(), NOW, |_| None);
        assert_eq!(timeline.unsaved(), None, "there is none");
    }

    #[test]
    fn what_is_noticed_while_it_is_saved_is_saved_next() {
        let mut timeline = Timeline::default();
        timeline.look(at(0), Duration::ZERO);
        timeline.look(at(100), Duration::ZERO);
        let saved = timeline.unsaved().unwrap().to_vec();
        timeline.look(at(300), Duration::ZERO);
        timeline.saved(&saved);
        let saved = timeline.unsaved().unwrap().to_vec();
        assert_eq!(saved.len(), 2);
        timeline.saved(&saved);
        assert_eq!(timeline.unsaved(), None);
        timeline.lost();
        assert_eq!(timeline.unsaved(), Some(&saved[..]));
    }
}
