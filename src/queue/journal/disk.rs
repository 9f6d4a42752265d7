//! The database: one handle that is closed and opened again when it fails, and whose panics are errors.
//!
//! A read transaction lives only as long as one short read, because an open one makes the file grow. Damage that a read meets is
//! seen to by the writer, which may otherwise never come upon it.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
};

use redb::{Database, Durability, ReadTransaction, ReadableDatabase};
use tokio::sync::Notify;

use super::{
    super::item::ItemId,
    Inner,
    backing::Backing,
    change::Pause,
    codec::Codec,
    damage::Damage,
    error::{DiskError, Recovery},
    marker::{Marker, Noted},
    open_flag::OpenFlag,
    salvage::{self, Occasion},
    tables::{Counters, META, meta},
    transaction::{Tables, read_meta},
};
use crate::{
    database::{Damaged, Guarded, Handle},
    policy::Timestamp,
};

/// Salvages after the start. A database that needs more is not saved by yet another copy of it.
const SALVAGES_MAX: u32 = 3;

/// Ids of appends that may be in the database without anybody's having been told so: a commit that failed may be there all the
/// same once the database is opened again. In order.
#[derive(Clone, Debug)]
pub(super) struct Unconfirmed(Arc<[ItemId]>);

impl Unconfirmed {
    pub(super) fn contains(&self, id: ItemId) -> bool {
        self.0.binary_search(&id).is_ok()
    }
}

/// How the database was got back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovered {
    /// As it was.
    Reopened,
    /// What could be read of it.
    Salvaged,
}

/// The open database of one queue.
pub(super) struct Disk {
    pub(super) backing: Backing,
    pub(super) damage: Damage,
    /// Of every record of the database.
    pub(super) codec: Codec,
    marker: Marker,
    // `None` while it is closed: after the end, or between a failure and the next try to open.
    database: RwLock<Option<Handle>>,
    unconfirmed: Mutex<Unconfirmed>,
    salvages: AtomicU32,
    // Until it is salvaged. The file is then neither closed by a commit nor opened to be written.
    is_damaged: AtomicBool,
    // Until it is opened again.
    has_read_failed: AtomicBool,
    read_failed: Notify,
    is_marker_failing: AtomicBool,
    open_flag: OpenFlag,
}

impl Disk {
    pub(super) fn new(
        backing: Backing,
        marker: Marker,
        damage: Damage,
        codec: Codec,
        database: Handle,
        open_flag: OpenFlag,
    ) -> Self {
        Self {
            backing,
            damage,
            codec,
            marker,
            database: RwLock::new(Some(database)),
            unconfirmed: Mutex::new(Unconfirmed([].into())),
            salvages: AtomicU32::new(0),
            is_damaged: AtomicBool::new(false),
            has_read_failed: AtomicBool::new(false),
            read_failed: Notify::new(),
            is_marker_failing: AtomicBool::new(false),
            open_flag,
        }
    }

    /// One short read. It holds off nothing but closing.
    pub(super) fn read<T>(
        &self,
        read: impl FnOnce(&ReadTransaction) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        self.reading(|database| read(&database.begin_read()?))
    }

    /// The same for who must not be shown what may yet be taken back, with the ids of that.
    pub(super) fn read_confirmed<T>(
        &self,
        read: impl FnOnce(&ReadTransaction, &Unconfirmed) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        self.reading(|database| {
            let (transaction, unconfirmed) = {
                // Both of one moment.
                let unconfirmed = self
                    .unconfirmed
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner);
                (database.begin_read()?, unconfirmed.clone())
            };
            read(&transaction, &unconfirmed)
        })
    }

    /// From here on these appends are not shown, and no others. In order; before their first commit is tried.
    pub(super) fn is_unconfirmed(&self, id: ItemId) -> bool {
        let unconfirmed = self.unconfirmed.lock();
        unconfirmed
            .unwrap_or_else(PoisonError::into_inner)
            .contains(id)
    }

    pub(super) fn set_unconfirmed(&self, ids: impl Iterator<Item = ItemId>) {
        let unconfirmed = Unconfirmed(ids.collect());
        *self
            .unconfirmed
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = unconfirmed;
    }

    /// Waits until a read fails for what the writer can help.
    pub(super) async fn read_failed(&self) {
        self.read_failed.notified().await;
    }

    /// Begins a write.
    ///
    /// # Errors
    /// When the database must be recovered before anything is written: for what a read met, or because it was not before.
    pub(super) fn begin(&self) -> Result<(), DiskError> {
        self.backing.turn().begin();
        if self.is_damaged() {
            return Err(DiskError::Damaged("it is to be salvaged"));
        }
        match self.has_read_failed() {
            true => Err(DiskError::Closed),
            false => Ok(()),
        }
    }

    fn has_read_failed(&self) -> bool {
        self.has_read_failed.load(Ordering::Relaxed)
    }

    fn is_damaged(&self) -> bool {
        self.is_damaged.load(Ordering::Relaxed)
    }

    fn is_salvaged_too_often(&self) -> bool {
        self.salvages.load(Ordering::Relaxed) >= SALVAGES_MAX
    }

    /// Runs `work` in one durable transaction. When it fails, the database is in need of [`Disk::recover`].
    pub(super) fn transact<T>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let (result, counters) =
            self.with_database(|database| transact(database, &self.damage, self.codec, work))?;
        self.note(&counters);
        Ok(result)
    }

    /// Notes in the marker how far the database has come.
    pub(super) fn note(&self, counters: &Counters) {
        if let Err(error) = self.marker.note(counters) {
            // It is then behind, which says nothing wrong.
            tracing::debug!(%error, "Cannot write the queue's marker.");
        }
        self.save_marker();
    }

    /// Notes the seed beside the database, which alone tells what is proven on its pages where it cannot be opened.
    pub(super) fn note_seed(&self) {
        self.marker.note_seed(self.codec);
        self.save_marker();
    }

    /// What is noted beside the database.
    pub(super) fn noted(&self) -> Noted {
        self.marker.noted()
    }

    /// Notes beside the database what is paused.
    pub(super) fn note_pauses(&self, pauses: &[Pause]) {
        self.marker.note_pauses(pauses);
        self.save_marker();
    }

    /// Tried again after each commit, and said once.
    fn save_marker(&self) {
        match self.marker.save() {
            Ok(()) => self.is_marker_failing.store(false, Ordering::Relaxed),
            Err(error) if !self.is_marker_failing.swap(true, Ordering::Relaxed) => {
                tracing::warn!(%error, "Cannot note beside the queue's database what is paused, or the seed of its records.");
            }
            Err(_) => {}
        }
    }

    /// Whether a database with these running numbers has everything that was noted to be in it.
    ///
    /// # Errors
    /// [`DiskError::Damaged`] where it went back: commits are missing whose changes were told to be recorded.
    pub(super) fn check_progress(&self, counters: &Counters) -> Result<(), DiskError> {
        match self.marker.noted().counters {
            Some(noted) if noted.revision > counters.revision => {
                Err(DiskError::Damaged("the last changes are missing"))
            }
            _ => Ok(()),
        }
    }

    /// Closes the database, saves what can be read of it, and opens what was saved.
    pub(super) fn salvage(&self, occasion: Occasion<'_>, now: Timestamp) -> Result<(), DiskError> {
        let mut guard = self.lock();
        drop(guard.take().map(Damaged::from));
        let noted = self.marker.noted();
        let damage = &self.damage;
        salvage::salvage(&self.backing, self.codec, &noted, occasion, damage, now)?;
        self.put(&mut guard, self.backing.open()?);
        Ok(())
    }

    /// From here on this is the database: what was read of another says nothing of it.
    fn put(&self, place: &mut Option<Handle>, database: Handle) {
        *place = Some(database);
        self.is_damaged.store(false, Ordering::Relaxed);
        self.has_read_failed.store(false, Ordering::Relaxed);
    }

    /// Gets the database of this journal back into a usable state after `error`.
    pub(super) fn recover(
        &self,
        error: &DiskError,
        inner: &Inner,
        now: Timestamp,
    ) -> Result<Recovered, DiskError> {
        match error.recovery() {
            Recovery::None => return Err(DiskError::Closed),
            Recovery::Salvage => self.is_damaged.store(true, Ordering::Relaxed),
            Recovery::Reopen => {}
        }
        // The handle still reads. Opening writes, so a closed one might stay closed.
        self.backing.probe().map_err(DiskError::File)?;
        let mut guard = self.lock();
        // Asked under the lock: whoever was still reading may have met damage.
        if !self.is_damaged() {
            // Closed before it is opened again: redb locks the file.
            drop(guard.take());
            match self.reopened() {
                Ok(database) => {
                    self.put(&mut guard, database);
                    return Ok(Recovered::Reopened);
                }
                Err(error) if error.recovery() != Recovery::Salvage => return Err(error),
                Err(error) => {
                    tracing::error!(%error, "The queue's database cannot be opened again.");
                    self.is_damaged.store(true, Ordering::Relaxed);
                }
            }
        }
        drop(guard);
        if self.is_salvaged_too_often() {
            return Err(DiskError::Damaged("it was salvaged too often"));
        }
        self.salvage(Occasion::Running(inner), now)?;
        // One that failed, for want of room perhaps, is tried again.
        self.salvages.fetch_add(1, Ordering::Relaxed);
        Ok(Recovered::Salvaged)
    }

    /// The database, opened once more, if everything is in it that was told to be recorded.
    fn reopened(&self) -> Result<Handle, DiskError> {
        let database = self.backing.open()?;
        let check = || {
            let transaction = database.begin_read()?;
            let meta = transaction.open_table(META)?;
            let counters = read_meta(&meta, self.codec, meta::COUNTERS)?;
            let counters = counters.ok_or(DiskError::Damaged("its running numbers are lost"))?;
            self.check_progress(&counters)
        };
        match caught(check) {
            Ok(()) => Ok(database),
            Err(error) => {
                drop(Damaged::from(database));
                Err(error)
            }
        }
    }

    /// Lets go of the database and its lock. Nothing is written or read afterwards.
    pub(super) fn close(&self) {
        let mut guard = self.lock();
        match guard.take() {
            // The next start verifies it.
            damaged if self.is_damaged() => drop(damaged.map(Damaged::from)),
            Some(database) if !self.has_read_failed() => {
                drop(database);
                self.open_flag.lower();
            }
            failed => drop(failed),
        }
        drop(guard);
        if let Err(error) = self.marker.sync() {
            tracing::debug!(%error, "Cannot sync the queue's marker.");
        }
    }

    fn lock(&self) -> RwLockWriteGuard<'_, Option<Handle>> {
        self.database
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// A read that fails has the writer recover the database, as far as it can.
    fn reading<T>(
        &self,
        read: impl FnOnce(&Database) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let read = match guard.as_ref() {
            Some(database) => caught(|| read(database)),
            None => Err(DiskError::Closed),
        };
        // While this is the database that was read.
        if let Err(error) = &read {
            self.note_failed_read(error);
        }
        read
    }

    fn note_failed_read(&self, error: &DiskError) {
        match error.recovery() {
            // It is of no use to say so.
            Recovery::Salvage if self.is_salvaged_too_often() => return,
            Recovery::Salvage => self.is_damaged.store(true, Ordering::Relaxed),
            Recovery::Reopen => self.has_read_failed.store(true, Ordering::Relaxed),
            Recovery::None => return,
        }
        self.read_failed.notify_one();
    }

    fn with_database<T>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or(DiskError::Closed)?;
        caught(|| work(database))
    }
}

/// Turns a panic of redb, which trusts what it reads, into an error.
fn caught<T>(work: impl FnOnce() -> Result<T, DiskError>) -> Result<T, DiskError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or(Err(DiskError::Panicked))
}

/// Runs `work` in one durable transaction; also the counters as they are then.
pub(super) fn transact<T>(
    database: &Database,
    damage: &Damage,
    codec: Codec,
    work: impl FnOnce(&mut Tables<'_>) -> Result<T, DiskError>,
) -> Result<(T, Counters), DiskError> {
    let mut transaction = Guarded::from(database.begin_write()?);
    transaction.set_durability(Durability::Immediate)?;
    // A commit whose second sync failed is never taken for one that is whole.
    transaction.set_two_phase_commit(true);
    // Opening after a crash takes 0.6 ms with it, 2.5 s a gigabyte without.
    transaction.set_quick_repair(true);
    let done = {
        let mut tables = Tables::open(&transaction, damage, codec)?;
        let result = work(&mut tables)?;
        (result, tables.finish()?)
    };
    transaction.into_inner().commit()?;
    Ok(done)
}
