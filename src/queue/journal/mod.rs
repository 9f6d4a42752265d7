//! How queued writes are kept on disk: `queue.redb`, `spool/` for large bodies, and what guards them.
//!
//! Invariants: a write is appended when [`Journal::append`] returns it, and not before: its records are synced, its body file
//! before them; ids increase in order of the commits. A change is recorded when [`Journal::record`] returns. What was refused
//! is never shown, and is not on disk once anything else is appended. Nothing that is damaged is served, or forgotten: it is made
//! again as far as it goes and shown as parked or dead. No credential is on disk in the clear: of writes they are sealed, of answers left out.
//! Bounds: [`writer::BATCH_MAX`] for what waits; receipts as many as `queue.max_items`,
//! a quarter of `queue.max_bytes`, for `queue.receipt_ttl`; 4 KiB of the body of an answer to a write that is parked or dead.
//!
//! Beside `queue.redb` ([`tables`]): `spool/` ([`spool`]), `queue.reserve` ([`space`]), `queue.marker` and `queue.pauses`
//! ([`marker`]), while it is open `queue.open` ([`open_flag`]), and after damage `queue.redb.bad-<n>` and `spool.bad/`
//! ([`salvage`]). Deliberately absent: what becomes of a write (replay's), and how many there may be (the index's).

mod backing;
mod batch;
mod change;
mod codec;
mod commit;
mod damage;
mod disk;
mod error;
mod ids;
mod inner;
mod load;
mod marker;
mod open;
mod open_flag;
mod reader;
mod rebuild;
mod salvage;
mod space;
mod spool;
mod storage;
mod tables;
#[cfg(test)]
mod tests;
mod transaction;
mod turn;
mod writer;

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
    time::timeout,
};
use tokio_util::task::TaskTracker;

#[cfg(test)]
pub(super) use self::tests::faults;
use self::{
    batch::{Append, Transition},
    error::DiskError,
    inner::Inner,
};
pub use self::{
    change::{Appended, Field, KeyHash, NewBody, NewWrite},
    error::{JournalError, OpenError, Unavailable},
    spool::SpoolFile,
};
pub(super) use self::{
    change::{AuditEntry, Change, Pause},
    error::AppendError,
    reader::{ContentError, Opened},
};
use super::{
    Config,
    index::Index,
    item::{Answer, Content, Item, ItemId, StoredBody},
    outlet::DeliveryBody,
    seal::OpenSealedError,
};
use crate::{clock::SharedClock, policy::Timestamp, telemetry::Metrics};

/// Bodies up to this are in the database; files are faster beyond it.
pub(super) const INLINE_BODY_MAX_BYTES: u64 = 64 * 1024;

/// How long the end waits for the last transaction. A slow disk takes a few seconds; service managers kill after 90.
const CLOSE_MAX: Duration = Duration::from_secs(30);

/// The journal of one queue. Cheap to clone.
#[derive(Clone)]
pub(super) struct Journal {
    inner: Arc<Inner>,
    appends: mpsc::Sender<Append>,
    transitions: mpsc::Sender<Transition>,
}

impl Journal {
    /// Opens the journal, fills the index with what it holds, and decides what was on its way when the last process ended.
    ///
    /// # Errors
    /// See [`OpenError`]. What is damaged is none: it is salvaged.
    pub(super) async fn open(
        config: &Config,
        clock: SharedClock,
        metrics: Arc<Metrics>,
        index: Arc<Mutex<Index>>,
        tasks: &TaskTracker,
    ) -> Result<Self, OpenError> {
        let backing = backing::Backing::directory(config.dir.clone());
        open::open_on(backing, config, clock, metrics, index, tasks).await
    }

    /// Opens the journal on storage that fails on demand; other files are in the data directory.
    ///
    /// # Errors
    /// As [`Journal::open`].
    #[cfg(test)]
    pub(super) async fn open_on(
        storage: faults::FaultyStorage,
        config: &Config,
        clock: SharedClock,
        metrics: Arc<Metrics>,
        index: Arc<Mutex<Index>>,
        tasks: &TaskTracker,
    ) -> Result<Self, OpenError> {
        let backing = backing::Backing::faulty(config.dir.clone(), storage);
        open::open_on(backing, config, clock, metrics, index, tasks).await
    }

    /// Appends a write. Once this returns it, it is on disk and in the index.
    ///
    /// Dropping the future does not take the write back.
    ///
    /// # Errors
    /// See [`AppendError`]. Nothing is then kept, but for [`AppendError::Unknown`].
    pub(super) async fn append(&self, mut write: NewWrite) -> Result<Appended, AppendError> {
        if !self.inner.is_storable(&write.fields) {
            return Err(AppendError::CredentialNotStorable);
        }
        if let Err(error) = self.inner.sync(&mut write.body).await {
            return Err(AppendError::Unavailable(unavailable(&error)));
        }
        let (reply, answer) = oneshot::channel();
        let append = Append { write, reply };
        if self.appends.send(append).await.is_err() {
            return Err(AppendError::Unavailable(Unavailable::Closed));
        }
        // Only a panic of the writer leaves it without an answer, perhaps after the commit.
        answer.await.unwrap_or(Err(AppendError::Unknown))
    }

    /// Records a change, and returns once it is on disk and in the index, however long that takes. The claim on the write is
    /// then given back.
    ///
    /// Dropping the future does not take the change back.
    ///
    /// # Errors
    /// Only when the journal is closed, when new fields cannot be sealed, or when an import exists already.
    pub(super) async fn record(&self, change: Change) -> Result<(), JournalError> {
        self.send(change, None).await
    }

    /// The same with an audit entry, in the same transaction.
    ///
    /// # Errors
    /// As [`Journal::record`].
    pub(super) async fn record_audited(
        &self,
        change: Change,
        audit: AuditEntry,
    ) -> Result<(), JournalError> {
        self.send(change, Some(audit)).await
    }

    async fn send(
        &self,
        mut change: Change,
        audit: Option<AuditEntry>,
    ) -> Result<(), JournalError> {
        if let Change::Replace { fields, .. } | Change::Import { fields, .. } = &change
            && !self.inner.is_storable(fields)
        {
            return Err(JournalError::CredentialNotStorable);
        }
        if let Change::Replace {
            body: Some(body), ..
        }
        | Change::Import { body, .. } = &mut change
        {
            let synced = self.inner.sync(body).await;
            synced.map_err(JournalError::Unavailable)?;
        }
        let (reply, answer) = oneshot::channel();
        let transition = Transition {
            change: change.prepared(|name| self.inner.is_secret_answer(name)),
            audit,
            reply,
        };
        if self.transitions.send(transition).await.is_err() {
            return Err(JournalError::Closed);
        }
        answer.await.unwrap_or(Err(JournalError::Unknown))
    }

    /// The write of this id, ended ones included as long as there is a receipt.
    ///
    /// One whose record is damaged comes back as it was made again, parked or dead; whoever has claimed it records that.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(super) async fn item(&self, id: ItemId) -> Result<Option<Item>, JournalError> {
        self.read(move |inner| inner.item(id)).await
    }

    /// The same of a write that the caller has claimed.
    ///
    /// # Errors
    /// When the database cannot be read, and when there is no record of the write in it: what can be read is then salvaged,
    /// and there is one again.
    pub(super) async fn claimed(&self, id: ItemId) -> Result<Item, JournalError> {
        self.read(move |inner| inner.claimed(id)).await
    }

    /// What is to be sent of this write: every field, and the body, whose checksum was verified.
    ///
    /// # Errors
    /// See [`ContentError`].
    pub(super) async fn content(&self, id: ItemId) -> Result<Opened, ContentError> {
        let inner = self.inner.clone();
        spawn_blocking(move || inner.content(id))
            .await
            .unwrap_or_else(|error| Err(JournalError::Unavailable(io::Error::other(error)).into()))
    }

    /// The content as it is stored, sealed fields sealed. `None`: it is damaged, or the write has ended.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(super) async fn stored_content(&self, id: ItemId) -> Result<Option<Content>, JournalError> {
        self.read(move |inner| inner.stored_content(id)).await
    }

    /// The write that was appended under this idempotency key, if it is still known.
    ///
    /// # Errors
    /// [`AppendError::KeyMismatch`] when it had another body.
    pub(super) async fn known(
        &self,
        key: KeyHash,
        body_sha256: [u8; 32],
    ) -> Result<Option<Item>, AppendError> {
        let known = self.read(move |inner| inner.known(key)).await;
        let known = known.map_err(|_| AppendError::Unavailable(Unavailable::Failing))?;
        match known {
            // Not with the write's own, which an operator's edit changes.
            Some((row, item)) if row.body_sha256 != body_sha256 => {
                Err(AppendError::KeyMismatch(Box::new(item)))
            }
            known => Ok(known.map(|(_, item)| item)),
        }
    }

    /// Every field of a stored content, the sealed ones opened.
    ///
    /// # Errors
    /// See [`OpenSealedError`].
    pub(super) fn opened(
        &self,
        id: ItemId,
        stored: &Content,
    ) -> Result<Vec<Field>, OpenSealedError> {
        let mut fields = stored.fields.clone();
        if let Some(sealed) = &stored.sealed {
            fields.extend(self.inner.keyring.open(id, sealed)?);
        }
        Ok(fields)
    }

    /// The body of a stored content of this write, verified.
    ///
    /// # Errors
    /// See [`ContentError`].
    pub(super) async fn body(
        &self,
        id: ItemId,
        stored: StoredBody,
    ) -> Result<DeliveryBody, ContentError> {
        let inner = self.inner.clone();
        spawn_blocking(move || inner.body(id, stored))
            .await
            .unwrap_or_else(|error| Err(JournalError::Unavailable(io::Error::other(error)).into()))
    }

    /// The origin's answer to a write that has ended, or is parked or dead for it.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(super) async fn answer(&self, id: ItemId) -> Result<Option<Answer>, JournalError> {
        self.read(move |inner| inner.answer(id)).await
    }

    /// At most `limit` writes after this one, in order of acceptance, ended ones included.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(super) async fn page(
        &self,
        after: Option<ItemId>,
        limit: usize,
    ) -> Result<Vec<Item>, JournalError> {
        self.read(move |inner| inner.page(after, limit)).await
    }

    /// At most `limit` audit entries before this number, the latest first, each with its number.
    ///
    /// # Errors
    /// When the database cannot be read.
    pub(super) async fn audit(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, AuditEntry)>, JournalError> {
        self.read(move |inner| inner.audit(before, limit)).await
    }

    /// What is paused.
    pub(super) fn pauses(&self) -> Vec<Pause> {
        let pauses = self.inner.pauses.lock();
        pauses.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The moment that was so long ago, however the clock was set since.
    pub(super) fn ago(&self, age: Duration) -> Timestamp {
        self.inner.ago(age)
    }

    /// A new file for a body that is too large for the database.
    ///
    /// # Errors
    /// When it cannot be made, or when the disk is full.
    pub(super) async fn spool(&self) -> io::Result<SpoolFile> {
        let inner = self.inner.clone();
        let created = spawn_blocking(move || match inner.space.check() {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => inner.spool.create(),
        });
        created.await.map_err(io::Error::other)?
    }

    /// Whether there is room on the disk for more than what must be recorded.
    pub(super) async fn has_space(&self) -> bool {
        let inner = self.inner.clone();
        let is_low = spawn_blocking(move || inner.space.check());
        is_low.await.is_ok_and(|is_low| !is_low)
    }

    /// Whether there is a key to seal credentials with.
    pub(super) fn can_seal(&self) -> bool {
        !self.inner.keyring.is_empty()
    }

    /// Records that were lost or damaged, as far as was found since the start.
    pub(super) fn damage(&self) -> u64 {
        self.inner.disk.damage.count()
    }

    /// Whether nothing can be appended because the disk is full, or nearly.
    pub(super) fn is_low_on_space(&self) -> bool {
        self.inner.space.is_low()
    }

    /// Whether nothing is taken any more: it was closed, or its writer is gone after a panic. The last batch is then of
    /// unknown outcome, and only opening the journal again finds out what of it is on disk.
    pub(super) fn is_closed(&self) -> bool {
        self.appends.is_closed()
    }

    /// Records what waits, and lets go of the files. Appends and changes are refused from here on.
    ///
    /// Waits for [`CLOSE_MAX`] at most, on a disk that does not answer.
    pub(super) async fn close(&self) {
        self.inner.closing.cancel();
        if timeout(CLOSE_MAX, self.inner.ended.cancelled())
            .await
            .is_err()
        {
            tracing::error!(limit = ?CLOSE_MAX, "The queue's database does not close; going on without it.");
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Inner) -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, JournalError> {
        let inner = self.inner.clone();
        let result = spawn_blocking(move || {
            read(&inner).inspect_err(|error| {
                inner.count_error("read");
                tracing::error!(%error, "Cannot read the queue's database.");
            })
        });
        let result = result
            .await
            .map_err(|error| JournalError::Unavailable(io::Error::other(error)))?;
        Ok(result?)
    }
}

fn unavailable(error: &io::Error) -> Unavailable {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Unavailable::NoSpace,
        _ => Unavailable::Failing,
    }
}
