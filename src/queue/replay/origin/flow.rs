//! What happens while a phase delivers or waits: what is due is begun, what has ended is heard of, and whoever asked to be left
//! alone is.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use tokio::{
    task::JoinError,
    time::{Instant, sleep},
};
use tracing::error;

use super::{Event, OriginReplay};
use crate::{
    policy::Connectivity,
    queue::{
        ItemId, Outlet, Proof,
        replay::{
            delivery::{Finished, Sign, Standing, deliver},
            pace::LONGEST_PAUSE,
        },
        verdict::Trial,
    },
};

/// How long a wait may be before it is looked at again: a clock that was set must not stall the queue.
const RECHECK: Duration = Duration::from_secs(60);

/// A task that had nothing to deliver for so long ends.
const IDLE: Duration = Duration::from_secs(60);

/// Longer than any process lives, and still a moment that can be computed with.
const FAR: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// So many refused writes are remembered; one that is forgotten is refused once more.
const MAX_DOUBTED: usize = 1_000;

impl<O: Outlet> OriginReplay<O> {
    /// The next thing that happens while deliveries go out, so many at once.
    pub(super) async fn next(&mut self, width: usize, trial: Trial) -> Event {
        loop {
            if self.shutdown.is_cancelled() {
                return Event::End;
            }
            if self.replay.outlet.connectivity(&self.origin) == Connectivity::Disconnected {
                return Event::Lost;
            }
            let wait = self.fill(width, trial);
            if self.is_idle() {
                return Event::End;
            }
            // Every branch is cancel-safe: a finished delivery and a wake-up that are not taken stay.
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return Event::End,
                Some(joined) = self.deliveries.join_next() => return Event::Sign(self.note(joined)),
                () = self.wake.notified() => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// Waits, while deliveries that are in flight come to their end. `None`: shutdown, or there is nothing to wait for.
    pub(super) async fn meanwhile<T>(&mut self, waited_for: impl Future<Output = T>) -> Option<T> {
        let mut waited_for = pin!(waited_for);
        loop {
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return None,
                out = &mut waited_for => return Some(out),
                Some(joined) = self.deliveries.join_next() => {
                    self.note(joined);
                }
                () = self.wake.notified() => {
                    if self.has_nothing() {
                        return None;
                    }
                }
            }
        }
    }

    /// Begins deliveries, up to so many at once; how long until there may be more to begin.
    fn fill(&mut self, width: usize, trial: Trial) -> Duration {
        while self.deliveries.len() < width {
            let now = Instant::now();
            if self.replay.is_paused(&self.origin) {
                return RECHECK;
            }
            let kept_floor = self.kept_floor(now);
            let not_before = self
                .floor
                .max(kept_floor)
                .max(self.hold)
                .max(self.pace.ready_at());
            if not_before > now {
                return (not_before - now).min(RECHECK);
            }
            match self.take_due(trial) {
                Ok(id) => {
                    let is_cleared = trial == Trial::Passed && self.doubted.remove(&id);
                    let trial = if is_cleared { Trial::Cleared } else { trial };
                    self.pace.take(now);
                    let standing = Standing {
                        trial,
                        proof: self.proof,
                    };
                    let delivery = deliver(Arc::clone(&self.replay), id, standing);
                    self.deliveries.spawn(delivery);
                }
                Err(wait) => return wait,
            }
        }
        RECHECK
    }

    /// Claims what is due; how long to wait if nothing is.
    fn take_due(&self, trial: Trial) -> Result<ItemId, Duration> {
        let now = self.replay.clock.now();
        let mut index = self.replay.index();
        let due = index.next_due_at(&self.origin).ok_or(RECHECK)?;
        let wait = u64::try_from(due.millis_since(now)).unwrap_or(0);
        let wait = Duration::from_millis(wait);
        // No pause is so long: the clock was set back since.
        let as_of = if wait > LONGEST_PAUSE { due } else { now };
        // What must not be executed twice is the last to be shown to somebody who may be anybody.
        let is_wary = trial == Trial::Canary && self.proof == Proof::Unproven;
        let harmless = is_wary
            .then(|| index.take_due_repeatable(&self.origin, as_of))
            .flatten();
        let taken = harmless.or_else(|| index.take_due(&self.origin, as_of));
        // At least a millisecond: an answer that nothing is due must not be asked for again at once.
        taken.ok_or_else(|| wait.clamp(Duration::from_millis(1), RECHECK))
    }

    /// Until when what writes keep of the origin's wish is to be granted: from before the start, or from elsewhere. It ends by
    /// whichever clock is there first: the wall's may be set. When writes keep less than before, an operator has lifted it.
    fn kept_floor(&mut self, now: Instant) -> Instant {
        let kept = self.replay.index().floor_until(&self.origin);
        let noted = self.kept_floor.map(|(until, _)| until);
        if kept < noted {
            self.floor = now;
        }
        let Some(until) = kept else {
            self.kept_floor = None;
            return now;
        };
        let wait = u64::try_from(until.millis_since(self.replay.clock.now())).unwrap_or(0);
        let by_wall = after(now, Duration::from_millis(wait));
        let by_tokio = match self.kept_floor {
            Some((noted, ends)) if noted == until => ends,
            _ => by_wall,
        };
        self.kept_floor = Some((until, by_tokio));
        by_wall.min(by_tokio)
    }

    /// What a delivery that ended says of the origin.
    pub(super) fn note(&mut self, joined: Result<Finished, JoinError>) -> Sign {
        self.worked_at = Instant::now();
        let finished = match joined {
            Ok(finished) => finished,
            Err(error) => {
                error!(origin = %self.origin, %error, "A delivery panicked.");
                return Sign::Stalled;
            }
        };
        if let Some(asked) = finished.floor {
            self.floor = self.floor.max(after(Instant::now(), asked));
        }
        if let Sign::Doubted(id, _) = finished.sign {
            if self.doubted.len() >= MAX_DOUBTED {
                self.doubted.clear();
            }
            self.doubted.insert(id);
        }
        if matches!(finished.sign, Sign::Well | Sign::Failing(_)) {
            self.unsent.reset();
        }
        finished.sign
    }

    pub(super) fn hold_for(&mut self, pause: Duration) {
        self.hold = Instant::now() + pause;
    }

    pub(super) fn share(&self) -> usize {
        self.replay.outlet.share(&self.origin).get()
    }

    fn has_nothing(&self) -> bool {
        self.deliveries.is_empty() && self.replay.index().next_due_at(&self.origin).is_none()
    }

    fn is_idle(&mut self) -> bool {
        if !self.has_nothing() {
            self.worked_at = Instant::now();
        }
        let now = Instant::now();
        now - self.worked_at >= IDLE && self.floor <= now
    }
}

fn after(now: Instant, wait: Duration) -> Instant {
    now.checked_add(wait).unwrap_or(now + FAR)
}
