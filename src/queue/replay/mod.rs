//! How queued writes are delivered: one task that sees to it that each origin with something due has a task of its own, whose
//! deliveries go out lane by lane.
//!
//! Origins share nothing but the journal, so that one that is dead, slow or hanging holds up no other. Time that is stored is
//! the clock's; waiting is tokio's, looked at again every minute, so that a clock that is set neither stalls nor hammers.
//! At shutdown nothing new is sent; what is in flight may come to its end for as long as the grace lasts. What is cut then is
//! `sending` on disk, and is recovered at the next start.
//!
//! In reading order: `origin` is an origin's phases, `delivery` one attempt, `settle` what a write becomes by a verdict, `pace`
//! rates and pauses, `sweep` what waited for too long.

mod claim;
mod delivery;
mod origin;
mod pace;
mod settle;
mod status;
mod sweep;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Notify,
    task::{self, JoinError, JoinSet},
    time::{MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

use self::origin::OriginReplay;
pub(super) use self::status::Statuses;
pub use self::status::{OriginStatus, PhaseName};
use super::{
    Config, Item, Origin, Outlet, State,
    changed::Changes,
    index::Index,
    journal::Journal,
    places::Places,
    verdict::{self, Verdict},
};
use crate::{
    clock::SharedClock,
    policy::Timestamp,
    telemetry::{AttemptLabels, Metrics},
};

/// How often everything is looked at without a reason.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What deliveries work with.
pub(super) struct Replay<O> {
    pub(super) outlet: O,
    pub(super) journal: Journal,
    pub(super) index: Arc<Mutex<Index>>,
    pub(super) places: Arc<Places>,
    pub(super) config: Config,
    pub(super) clock: SharedClock,
    pub(super) metrics: Arc<Metrics>,
    /// Told of every write that changes.
    pub(super) changes: Arc<Changes>,
    /// Something was appended, or changed by an operator.
    pub(super) wake: Arc<Notify>,
    pub(super) statuses: Arc<Statuses>,
}

/// The tasks of the origins.
struct Tasks<O> {
    replay: Arc<Replay<O>>,
    shutdown: CancellationToken,
    origins: HashMap<Origin, Arc<Notify>>,
    running: JoinSet<Origin>,
    names: HashMap<task::Id, Origin>,
    /// Those whose task panicked: not begun again before the next look, so that they do not panic in a circle.
    broken: Vec<Origin>,
}

/// Delivers until shutdown, and then as long as `grace` what is in flight.
pub(super) async fn run<O: Outlet>(
    replay: Arc<Replay<O>>,
    shutdown: CancellationToken,
    grace: Duration,
) {
    let sweeping = sweep::run(&replay);
    let mut tasks = Tasks {
        replay: Arc::clone(&replay),
        shutdown,
        origins: HashMap::new(),
        running: JoinSet::new(),
        names: HashMap::new(),
        broken: Vec::new(),
    };
    tokio::select! {
        () = tasks.run() => {}
        () = sweeping => {}
    }
    if timeout(grace, tasks.finish()).await.is_err() {
        warn!("Deliveries were cut at shutdown; they are taken up at the next start.");
    }
}

impl<O: Outlet> Tasks<O> {
    async fn run(&mut self) {
        let mut looks = interval(LOOK_EVERY);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            // Every branch is cancel-safe: what is not taken stays.
            tokio::select! {
                biased;
                () = self.shutdown.cancelled() => return,
                Some(ended) = self.running.join_next_with_id() => self.forget(ended),
                _ = looks.tick() => {
                    for origin in std::mem::take(&mut self.broken) {
                        self.origins.remove(&origin);
                    }
                }
                () = self.replay.wake.notified() => {}
            }
            self.look();
        }
    }

    /// Gives each origin with something due a task, or wakes the one it has.
    fn look(&mut self) {
        let due: Vec<Origin> = {
            let index = self.replay.index();
            let mut origins = index.origins();
            origins.retain(|origin| index.next_due_at(origin).is_some());
            origins
        };
        for origin in due {
            if let Some(wake) = self.origins.get(&origin) {
                wake.notify_one();
                continue;
            }
            let wake = Arc::new(Notify::new());
            let task = OriginReplay::new(
                Arc::clone(&self.replay),
                origin.clone(),
                Arc::clone(&wake),
                self.shutdown.clone(),
            );
            let id = self.running.spawn(task.run()).id();
            self.names.insert(id, origin.clone());
            self.origins.insert(origin, wake);
        }
    }

    fn forget(&mut self, ended: Result<(task::Id, Origin), JoinError>) {
        match ended {
            Ok((id, origin)) => {
                self.names.remove(&id);
                self.origins.remove(&origin);
            }
            Err(error) => {
                let origin = self.names.remove(&error.id());
                error!(origin = origin.as_ref().map(tracing::field::display), %error, "The deliveries to an origin panicked.");
                self.broken.extend(origin);
            }
        }
    }

    async fn finish(&mut self) {
        while self.running.join_next().await.is_some() {}
    }
}

impl<O> Replay<O> {
    fn index(&self) -> MutexGuard<'_, Index> {
        // Its methods do not panic between two changes that belong together.
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Why a write must not be sent now, and what becomes of it.
    fn obstacle(&self, item: &Item, now: Timestamp) -> Option<(State, String)> {
        let expires_by = self.journal.ago(self.config.max_age);
        verdict::obstacle(item, &self.config, now, expires_by)
    }

    fn is_paused(&self, origin: &Origin) -> bool {
        let pauses = self.journal.pauses();
        pauses
            .iter()
            .any(|pause| pause.origin.as_ref().is_none_or(|paused| paused == origin))
    }

    /// Tells who watches that a write has changed.
    fn announce(&self, item: &Item) {
        self.changes.tell(item);
    }

    fn count(&self, verdict: &Verdict) {
        let outcome = verdict.as_str();
        let attempts = &self.metrics.queue_attempts;
        attempts.get_or_create(&AttemptLabels { outcome }).inc();
    }

    /// Counts how long a write that is done took since it was accepted. A clock that was set back counts as no time.
    fn count_delay(&self, item: &Item) {
        let ended_at = item.ended_at.unwrap_or(item.accepted_at);
        let millis = u64::try_from(ended_at.millis_since(item.accepted_at)).unwrap_or(0);
        let delay = Duration::from_millis(millis);
        self.metrics
            .queue_delivery_delay
            .observe(delay.as_secs_f64());
    }
}
