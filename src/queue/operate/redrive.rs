//! Many writes on their way again, in two steps: a plan freezes which, and running it tells how far it is.
//!
//! Bounds: four plans and running operations at once; a plan that is not run, and what is known of one that ended, is forgotten
//! after 10 min; 64 writes at a time, those of different lanes side by side, so that they share commits. A plan has no limit of its own: a million ids are 16 MB.
//! Plans are in memory only: at the end of the process one that runs stops between two writes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::Instant;

use super::{
    super::{ItemId, Queue, State},
    OperateError,
    view::Filter,
};

const MAX_PLANS: usize = 4;
const KEPT: Duration = Duration::from_secs(10 * 60);
// As many as one commit easily takes.
const AT_ONCE: usize = 64;
/// Writes shown of a plan, and failures of an operation.
const SAMPLE: usize = 20;

/// The plans there are.
#[derive(Default)]
pub(in crate::queue) struct Redrives {
    plans: Mutex<Vec<Arc<Plan>>>,
}

/// How far an operation is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationState {
    /// Frozen, not begun.
    Planned,
    /// Under way.
    Running,
    /// Every write was seen to.
    Ended,
}

/// A plan, or what became of it.
#[derive(Clone, Debug)]
pub struct Operation {
    /// Its id.
    pub id: String,
    /// How far it is.
    pub state: OperationState,
    /// How many writes it is about.
    pub total: usize,
    /// How many are on their way again.
    pub done: usize,
    /// How many were not: they had left, or were being delivered.
    pub failed: usize,
    /// Some of the writes, at most 20.
    pub sample: Vec<ItemId>,
    /// Why some were not, at most 20.
    pub failures: Vec<(ItemId, String)>,
}

struct Plan {
    id: String,
    ids: Vec<ItemId>,
    done: AtomicUsize,
    progress: Mutex<Progress>,
}

struct Progress {
    state: OperationState,
    since: Instant,
    failed: usize,
    failures: Vec<(ItemId, String)>,
}

impl Queue {
    /// Freezes which writes are to be tried again: those that match; stuck ones where no state is asked for.
    ///
    /// # Errors
    /// See [`OperateError`].
    pub async fn redrive_plan(&self, mut filter: Filter) -> Result<Operation, OperateError> {
        let stuck = ["parked", "dead"];
        let states = filter.states.get_or_insert_with(|| stuck.to_vec());
        let is_retriable = |name: &&str| stuck.contains(name) || *name == State::Waiting.as_str();
        if !states.iter().all(is_retriable) {
            let allowed = "only writes that are waiting, parked or dead can be redriven";
            return Err(OperateError::Invalid(allowed.to_owned()));
        }
        let redrives = &self.inner.redrives;
        redrives.check_room()?;
        let mut ids = Vec::new();
        let mut after = None;
        loop {
            let page = self.list(&filter, after, usize::MAX).await?;
            ids.extend(page.items.iter().map(|shown| shown.item.id));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        redrives.add(ids)
    }

    /// Marks a plan as begun. Whoever gets it runs it with [`Queue::redrive_run`].
    ///
    /// # Errors
    /// When there is no such plan, or it was begun before.
    pub fn redrive_begin(&self, id: &str, by: &str) -> Result<Operation, OperateError> {
        let plan = self.plan(id)?;
        {
            let mut progress = plan.progress();
            if progress.state != OperationState::Planned {
                let begun = "this plan has been run already".to_owned();
                return Err(OperateError::Invalid(begun));
            }
            progress.enter(OperationState::Running);
        }
        tracing::info!(
            operator = by,
            count = plan.ids.len(),
            "An operator redrives queued writes."
        );
        Ok(plan.operation())
    }

    /// Sets the writes of a plan that was begun on their way again, and accounts for it at the beginning and at the end.
    pub async fn redrive_run(&self, id: &str, by: &str) {
        let Ok(plan) = self.plan(id) else {
            return;
        };
        let count = plan.ids.len();
        self.account(by, format!("{id}: begins with {count} writes"))
            .await;
        for ids in plan.ids.chunks(AT_ONCE) {
            join_all(
                self.by_lane(ids)
                    .into_iter()
                    .map(|ids| self.revive_in_order(&plan, ids)),
            )
            .await;
        }
        plan.progress().enter(OperationState::Ended);
        let Operation { done, failed, .. } = plan.operation();
        self.account(by, format!("{id}: {done} on their way again, {failed} not"))
            .await;
    }

    /// Parts that may be seen to side by side: within a lane, what was accepted first is on its way first.
    fn by_lane(&self, ids: &[ItemId]) -> Vec<Vec<ItemId>> {
        let index = self.index();
        let mut parts: HashMap<_, Vec<ItemId>> = HashMap::new();
        for id in ids {
            parts.entry(index.lane_of(*id)).or_default().push(*id);
        }
        parts.into_values().collect()
    }

    async fn revive_in_order(&self, plan: &Plan, ids: Vec<ItemId>) {
        for id in ids {
            match self.revive(id, None).await {
                Ok(_) => {
                    plan.done.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) => plan.progress().fail(id, error.to_string()),
            }
        }
    }

    /// How far a plan is.
    ///
    /// # Errors
    /// When there is none of this id.
    pub fn operation(&self, id: &str) -> Result<Operation, OperateError> {
        self.plan(id).map(|plan| plan.operation())
    }

    fn plan(&self, id: &str) -> Result<Arc<Plan>, OperateError> {
        let mut plans = self.inner.redrives.plans();
        // What is forgotten is not run either: it may be about what was so yesterday.
        plans.retain(|plan| !plan.is_forgotten());
        let found = plans.iter().find(|plan| plan.id == id).cloned();
        found.ok_or_else(|| OperateError::Unknown { id: id.to_owned() })
    }

    async fn account(&self, by: &str, detail: String) {
        if let Err(error) = self.note(by, "redrive", detail).await {
            tracing::warn!(%error, "Cannot write down that an operator redrives.");
        }
    }
}

impl Redrives {
    fn check_room(&self) -> Result<(), OperateError> {
        Self::make_room(&mut self.plans())
    }

    fn make_room(plans: &mut Vec<Arc<Plan>>) -> Result<(), OperateError> {
        plans.retain(|plan| !plan.is_forgotten());
        if plans.len() < MAX_PLANS {
            return Ok(());
        }
        Err(OperateError::TooManyPlans { limit: MAX_PLANS })
    }

    fn add(&self, ids: Vec<ItemId>) -> Result<Operation, OperateError> {
        let plan = Arc::new(Plan {
            id: format!("redrive-{:016x}", fastrand::u64(..)),
            ids,
            done: AtomicUsize::new(0),
            progress: Mutex::new(Progress {
                state: OperationState::Planned,
                since: Instant::now(),
                failed: 0,
                failures: Vec::new(),
            }),
        });
        let mut plans = self.plans();
        // Others may have planned meanwhile.
        Self::make_room(&mut plans)?;
        plans.push(Arc::clone(&plan));
        Ok(plan.operation())
    }

    fn plans(&self) -> MutexGuard<'_, Vec<Arc<Plan>>> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Plan {
    fn is_forgotten(&self) -> bool {
        let progress = self.progress();
        progress.state != OperationState::Running && progress.since.elapsed() >= KEPT
    }

    fn operation(&self) -> Operation {
        let progress = self.progress();
        Operation {
            id: self.id.clone(),
            state: progress.state,
            total: self.ids.len(),
            done: self.done.load(Ordering::Relaxed),
            failed: progress.failed,
            sample: self.ids.iter().take(SAMPLE).copied().collect(),
            failures: progress.failures.clone(),
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Progress {
    fn enter(&mut self, state: OperationState) {
        self.state = state;
        self.since = Instant::now();
    }

    fn fail(&mut self, id: ItemId, why: String) {
        self.failed += 1;
        if self.failures.len() < SAMPLE {
            self.failures.push((id, why));
        }
    }
}

impl OperationState {
    /// The name in the API and the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Running => "running",
            Self::Ended => "ended",
        }
    }
}
