//! The write queue: a write answered with 202 is delivered, or shown to an operator as parked or dead; never dropped, never
//! silently sent twice, never silently out of order within its lane.
//!
//! Delivery is at-least-once for what may be repeated ([`Repeat`]), at-most-once-then-ask for the rest. It survives kill -9, a
//! full disk and a restart; it does not survive the loss of the disk.
//!
//! In reading order: [`item`](Item) says what a queued write is, `gathering` where its body is until then, `lane` what order it
//! keeps, `outcome` which first attempts are queued, `admission` how a write is taken or refused, `receipt` what is known of it
//! then, `journal` how it is kept on disk, `index` what is known of it in memory, `replay` how it is delivered and `verdict`
//! what the answer means, `timeline` how long something waited, `places` where upstreams have moved, [`Outlet`] the seam to the
//! origins, `operate` what operators do.
//! Deliberately absent: HTTP (the proxy's), connectivity and permits (upstream's), stored responses (the store's).

mod admission;
mod changed;
mod credential;
mod gathering;
mod index;
mod item;
mod journal;
mod lane;
mod operate;
mod outcome;
mod outlet;
mod overlay;
mod places;
mod receipt;
mod replay;
mod seal;
mod settings;
mod timeline;
mod verdict;

#[cfg(test)]
mod tests;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use http::{HeaderName, header};
use tokio::sync::{Notify, Semaphore, broadcast};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    admission::Refused,
    changed::Changed,
    credential::read_credential,
    gathering::Gathering,
    item::{
        Answer, Attempt, Content, Dead, Done, Item, ItemId, OnStuck, Origin, Parked, PendingReads,
        Repeat, Revival, Sealed, State, StoredBody,
    },
    journal::{
        Appended, Field, JournalError, KeyHash, NewBody, NewWrite, OpenError, SpoolFile,
        Unavailable,
    },
    lane::LaneId,
    operate::{
        Audit, Edit, EditedBody, EditedKey, Filter, Import, ImportError, Imported, Inspected,
        LaneListed, LanePlace, Listed, NoLanePlace, OperateError, Operation, OperationState, Page,
        PauseListed, Record, Shown, Summary,
    },
    outcome::{Observation, Outcome, outcome},
    outlet::{Delivery, DeliveryBody, Occasion, Outlet, Proof, Received, SendError, Unverified},
    overlay::{Overlay, PATCHED_MAX_BYTES, Representation},
    places::{Places, below},
    receipt::{CancelError, Place},
    replay::{OriginStatus, PhaseName},
    seal::check_key_file,
    settings::{
        Config, Idempotency, KeyFormat, OrderBy, ReplayRate, ResponseTemplate, WriteMode,
        WriteSettings,
    },
};
use self::{
    admission::weight_bytes,
    changed::Changes,
    gathering::Budget,
    index::{Index, PendingUrls},
    journal::Journal,
    operate::Redrives,
    replay::{Replay, Statuses},
};
use crate::{clock::SharedClock, telemetry::Metrics};

/// Bodies up to this are kept in the database, and in memory while they are gathered.
pub const INLINE_BODY_MAX_BYTES: usize = journal::INLINE_BODY_MAX_BYTES as usize;

/// The write queue. Cheap to clone.
#[derive(Clone)]
pub struct Queue {
    inner: Arc<Inner>,
}

struct Inner {
    config: Config,
    clock: SharedClock,
    journal: Journal,
    index: Arc<Mutex<Index>>,
    pending: Arc<PendingUrls>,
    places: Arc<Places>,
    budget: Budget,
    changes: Arc<Changes>,
    /// Something was appended, or changed by an operator: there may be something to deliver.
    wake: Arc<Notify>,
    statuses: Arc<Statuses>,
    metrics: Arc<Metrics>,
    redrives: Redrives,
    /// Held by whoever changes what is paused: it is read, changed and recorded as a whole.
    pausing: Semaphore,
    /// Held by the import under way.
    importing: Semaphore,
}

impl Queue {
    /// Opens the journal and finds out what is in it, for upstreams at these places. Nothing is delivered before
    /// [`Queue::deliver`].
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        config: Config,
        places: Places,
        clock: SharedClock,
        metrics: Arc<Metrics>,
        tasks: &TaskTracker,
    ) -> Result<Self, OpenError> {
        let places = Arc::new(places);
        let index = Index::new(&config).at(Arc::clone(&places));
        let pending = index.pending();
        let index = Arc::new(Mutex::new(index));
        let journal = Journal::open(
            &config,
            Arc::clone(&clock),
            Arc::clone(&metrics),
            Arc::clone(&index),
            tasks,
        )
        .await?;
        Ok(Self {
            inner: Arc::new(Inner {
                changes: Changes::new(),
                wake: Arc::default(),
                statuses: Arc::new(Statuses::new(Arc::clone(&clock))),
                budget: Budget::new(&config),
                config,
                clock,
                journal,
                index,
                pending,
                places,
                metrics,
                redrives: Redrives::default(),
                pausing: Semaphore::new(1),
                importing: Semaphore::new(1),
            }),
        })
    }

    /// Delivers what is in the queue until `shutdown`, and then for as long as `grace` what is in flight.
    pub async fn deliver(self, outlet: impl Outlet, shutdown: CancellationToken, grace: Duration) {
        let inner = &self.inner;
        let replay = Replay {
            outlet,
            journal: inner.journal.clone(),
            index: Arc::clone(&inner.index),
            places: Arc::clone(&inner.places),
            config: inner.config.clone(),
            clock: Arc::clone(&inner.clock),
            metrics: Arc::clone(&inner.metrics),
            changes: Arc::clone(&inner.changes),
            wake: Arc::clone(&inner.wake),
            statuses: Arc::clone(&inner.statuses),
        };
        replay::run(Arc::new(replay), shutdown, grace).await;
    }

    /// Commits what is on its way and closes the journal.
    pub async fn close(&self) {
        self.inner.journal.close().await;
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.inner.config
    }

    /// A file for a body that is too large for the database.
    ///
    /// # Errors
    /// When it cannot be made.
    async fn spool(&self) -> std::io::Result<SpoolFile> {
        self.inner.journal.spool().await
    }

    /// Whether somebody else than the origin seems to answer in its place.
    pub fn is_captive(&self, origin: &Origin) -> bool {
        let status = self.inner.statuses.of(origin);
        status.is_some_and(|status| status.phase == PhaseName::Captive)
    }

    /// Changes of writes, as they are recorded.
    pub fn subscribe(&self) -> broadcast::Receiver<Changed> {
        self.inner.changes.subscribe()
    }

    /// How many writes to what is stored under a key are pending. Costs one load where there are none at all.
    pub fn pending_writes(&self, key: &str) -> usize {
        self.inner.pending.count(key)
    }

    /// Whether no URL has pending writes.
    pub fn has_no_pending(&self) -> bool {
        self.inner.pending.is_empty()
    }

    /// How far the deliveries to each origin are.
    pub fn statuses(&self) -> Vec<OriginStatus> {
        self.inner.statuses.list()
    }

    /// Whether values of this field are sealed, and never shown.
    pub fn is_sensitive(&self, name: &HeaderName) -> bool {
        [
            header::AUTHORIZATION,
            header::COOKIE,
            header::PROXY_AUTHORIZATION,
        ]
        .contains(name)
            || self.inner.config.sensitive_headers.contains(name)
    }

    /// Tells whoever watches, and the deliveries.
    fn changed(&self, item: &Item) {
        self.inner.changes.tell(item);
        self.inner.wake.notify_one();
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.inner
            .index
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// The claim on a write, given back when it is dropped before anything was recorded.
struct Claim<'a> {
    queue: &'a Queue,
    id: ItemId,
}

impl Claim<'_> {
    /// What was recorded has given the claim back.
    fn settle(self) {
        std::mem::forget(self);
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        self.queue.index().release(self.id);
    }
}

/// Whether the value of an `If-Match` names a state of its target that a first execution ends: any entity tag does, `*` does not
/// (RFC 9110 section 13.1.1).
pub fn names_a_state(if_match: &[u8]) -> bool {
    if_match.contains(&b'"')
}

/// Whom a write counts for, as a number.
pub fn client_hash(text: &str) -> u64 {
    xxhash_rust::xxh3::xxh3_64(text.as_bytes())
}
