//! The write queue: a write answered with 202 is delivered, or shown to an operator as parked or dead; never dropped, never
//! silently sent twice, never silently out of order within its lane.
//!
//! Delivery is at-least-once for what may be repeated ([`Repeat`]), at-most-once-then-ask for the rest. It survives kill -9, a
//! full disk and a restart; it does not survive the loss of the disk.
//!
//! In reading order: [`item`](Item) says what a queued write is, `gathering` where its body is until then, `lane` what order it keeps, `outcome` which first attempts are
//! queued, `journal` how a write is kept on disk, `index` what is known of it in memory, `replay` how it is delivered and
//! `verdict` what the answer means, `timeline` how long something waited, `places` where upstreams have moved, [`Outlet`] the seam to the origins, `operate` what operators do.
//! Deliberately absent: HTTP (the proxy's), connectivity and permits (upstream's), stored responses (the store's).

mod changed;
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
use tokio::{
    sync::{Notify, Semaphore, broadcast},
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    changed::Changed,
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
        LaneListed, Listed, OperateError, Operation, OperationState, Page, PauseListed, Record,
        Shown, Summary,
    },
    outcome::{Observation, Outcome, outcome},
    outlet::{Delivery, DeliveryBody, Occasion, Outlet, Proof, Received, SendError, Unverified},
    overlay::{Overlay, PATCHED_MAX_BYTES, Representation},
    places::Places,
    replay::{OriginStatus, PhaseName},
    seal::check_key_file,
    settings::{
        Config, Idempotency, KeyFormat, OrderBy, ReplayRate, ResponseTemplate, WriteMode,
        WriteSettings,
    },
};
use self::{
    changed::Changes,
    gathering::Budget,
    index::{Full, Index, PendingUrls, Room, Unclaimable},
    journal::{AppendError, Change, Journal},
    operate::Redrives,
    replay::{Replay, Statuses},
};
use crate::{
    clock::SharedClock,
    telemetry::{Metrics, RefusalLabels},
};

/// Bodies up to this are kept in the database, and in memory while they are gathered.
pub const INLINE_BODY_MAX_BYTES: usize = journal::INLINE_BODY_MAX_BYTES as usize;

/// What a record weighs beside its body and its fields.
const RECORD_BYTES: u64 = 512;

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

/// Why a write was not queued. Nothing of it is kept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Refused {
    /// Its body is larger than `queue.max_item`.
    #[error("the body is larger than queue.max_item, {max_bytes} bytes")]
    TooLarge {
        /// How large it may be.
        max_bytes: u64,
    },
    /// There is no room.
    #[error("{0}")]
    Full(String),
    /// It could not be made durable.
    #[error("{0}")]
    Unavailable(Unavailable),
    /// It has credentials, and there is no key to seal them with.
    #[error("the gateway has no key to seal credentials with")]
    CredentialNotStorable,
    /// Its idempotency key was used with another body.
    #[error("the idempotency key was used with another body, by {}", .0.id)]
    KeyMismatch(Box<Item>),
}

/// Where a write is in its lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// So many are before it; `None` when it is in none.
    pub position: Option<usize>,
    /// The head, if that is another.
    pub blocked_by: Option<ItemId>,
}

/// Why a write cannot be taken back.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CancelError {
    /// There is no such write.
    #[error("there is no such write")]
    Unknown,
    /// It is on its way, was on it, or has come to its end.
    #[error("it is {}, and cannot be taken back", .0.as_str())]
    TooLate(State),
    /// It could not be recorded.
    #[error(transparent)]
    Journal(#[from] JournalError),
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

    /// Whether nothing waits in this lane, so that a write may go past the queue.
    pub fn is_clear(&self, lane: LaneId) -> bool {
        self.index().lane_len(lane) == 0
    }

    /// Whether somebody else than the origin seems to answer in its place.
    pub fn is_captive(&self, origin: &Origin) -> bool {
        let status = self.inner.statuses.of(origin);
        status.is_some_and(|status| status.phase == PhaseName::Captive)
    }

    /// What a write was that had this idempotency key.
    ///
    /// # Errors
    /// [`Refused::KeyMismatch`] when it had another body.
    pub async fn known(&self, write: &NewWrite) -> Result<Option<Item>, Refused> {
        let Some(key) = write.key else {
            return Ok(None);
        };
        let known = self.inner.journal.known(key, write.item.body_sha256).await;
        known.map_err(Refused::from)
    }

    /// Appends a write; returns once it is on disk. A write that has been appended before, by its idempotency key, is not
    /// appended again.
    ///
    /// # Errors
    /// See [`Refused`]; nothing of the write is kept then.
    pub async fn append(&self, mut write: NewWrite) -> Result<Appended, Refused> {
        write.item.weight_bytes = weight_bytes(&write.item, &write.fields, write.body.bytes());
        let (origin, room) = (write.item.origin.clone(), Room::of(&write.item));
        let reserved = self.index().reserve(&origin, room);
        reserved.map_err(|full| self.counted(full.into()))?;
        if let NewBody::Spooled(file) = &mut write.body {
            file.give_back_room();
        }
        let appended = self.inner.journal.append(write).await;
        if !matches!(appended, Ok(Appended::New(_))) {
            self.index().release_reservation(room);
        }
        let appended = appended.map_err(|error| self.counted(error.into()))?;
        if let Appended::New(item) = &appended {
            self.inner.metrics.queue_accepted.inc();
            self.changed(item);
        }
        Ok(appended)
    }

    /// A write by its id, ended ones included as long as their receipts are kept.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn item(&self, id: ItemId) -> Result<Option<Item>, JournalError> {
        // Before the record, which may be newer then, but never a mixture of what was and what is.
        let is_sending = self.index().state(id) == Some(State::Sending);
        let item = self.inner.journal.item(id).await?;
        let item = item.map(|item| self.inner.places.follow(item));
        Ok(item.map(|item| match item.state.is_pending() {
            // It is so in memory before, or without, being so on disk.
            true if is_sending => Item {
                state: State::Sending,
                ..item
            },
            _ => item,
        }))
    }

    /// The origin's answer to a write that was answered.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn answer(&self, id: ItemId) -> Result<Option<Answer>, JournalError> {
        self.inner.journal.answer(id).await
    }

    /// Where a write is in its lane.
    pub fn place(&self, id: ItemId) -> Place {
        let index = self.index();
        Place {
            position: index.position(id),
            blocked_by: index.blocked_by(id),
        }
    }

    /// The head of the lane of a write, if that is another.
    pub fn blocked_by(&self, id: ItemId) -> Option<ItemId> {
        self.index().blocked_by(id)
    }

    /// Takes back what has not been sent.
    ///
    /// # Errors
    /// See [`CancelError`].
    pub async fn cancel(&self, id: ItemId) -> Result<Item, CancelError> {
        // What was tried may have been executed: that it was taken back would not be true.
        let claimed = self.index().claim(id, |state| state == State::Queued);
        match claimed {
            Ok(_) => {}
            Err(Unclaimable::Claimed) => return Err(CancelError::TooLate(State::Sending)),
            Err(Unclaimable::NotAllowed(state)) => return Err(CancelError::TooLate(state)),
            Err(Unclaimable::Unknown) => {
                let ended = self.inner.journal.item(id).await?;
                return Err(ended.map_or(CancelError::Unknown, |item| {
                    CancelError::TooLate(item.state)
                }));
            }
        }
        let claim = Claim { queue: self, id };
        let item = self.inner.journal.item(id).await?;
        let item = item.ok_or(CancelError::Unknown)?;
        let item = Item {
            state: State::Cancelled,
            ended_at: Some(self.inner.clock.now()),
            ..self.inner.places.follow(item)
        };
        let change = Change::End {
            item: item.clone(),
            answer: None,
        };
        self.inner.journal.record(change).await?;
        claim.settle();
        self.changed(&item);
        Ok(item)
    }

    /// Waits until a write is answered, ended, or stuck, at most so long; what it is then.
    ///
    /// # Errors
    /// When the journal cannot be read.
    pub async fn until_settled(
        &self,
        id: ItemId,
        limit: Duration,
    ) -> Result<Option<Item>, JournalError> {
        let deadline = Instant::now() + limit;
        // Beyond the bound nobody waits: the client asks again.
        let Some(waiter) = self.inner.changes.wait_for(id) else {
            return self.item(id).await;
        };
        loop {
            // Before the look, so that no change is missed.
            let changed = waiter.next();
            let item = self.item(id).await?;
            let is_settled = |item: &Item| item.state.is_ended() || item.state.is_stuck();
            if item.as_ref().is_none_or(is_settled) {
                return Ok(item);
            }
            if timeout_at(deadline, changed).await.is_err() {
                return Ok(item);
            }
        }
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

    /// A refusal that was counted.
    fn counted(&self, refused: Refused) -> Refused {
        let reason = refused.reason();
        let labels = RefusalLabels { reason };
        self.inner
            .metrics
            .queue_refused
            .get_or_create(&labels)
            .inc();
        refused
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

impl Refused {
    /// The label of the metric.
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::TooLarge { .. } => "too-large",
            Self::Full(_) => "full",
            Self::Unavailable(_) => "unavailable",
            Self::CredentialNotStorable => "credential-not-storable",
            Self::KeyMismatch(_) => "idempotency-mismatch",
        }
    }
}

impl From<Full> for Refused {
    fn from(full: Full) -> Self {
        Self::Full(full.to_string())
    }
}

impl From<AppendError> for Refused {
    fn from(error: AppendError) -> Self {
        match error {
            AppendError::KeyMismatch(item) => Self::KeyMismatch(item),
            AppendError::CredentialNotStorable => Self::CredentialNotStorable,
            AppendError::Unavailable(why) => Self::Unavailable(why),
        }
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

fn weight_bytes(item: &Item, fields: &[Field], body_bytes: u64) -> u64 {
    let fields = fields.iter();
    let fields: usize = fields.map(|(name, value)| name.len() + value.len()).sum();
    let texts = 2 * item.url.len() + item.lane.len();
    RECORD_BYTES + (fields + texts) as u64 + body_bytes
}
