//! The disk tier: records in `cache.redb`, large bodies in files, both disposable.
//!
//! Layout: `cache.redb` ([`tables`]) and `bodies/ab/<id>` ([`bodies`]). Invariants: one writer (the store's writer task)
//! changes anything; a read transaction lives no longer than to the next commit ([`snapshot`]), because an open one makes the
//! file grow; nothing here is trusted before its checksum is. After a failed write the database is closed and opened again; what
//! cannot be trusted is set aside, and the tier starts cold. Deliberately absent: the order of publishing (the overlay
//! of what waits is [`super::pending`]'s).

pub(super) mod at_hand;
mod batch;
mod bodies;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod open;
mod reader;
mod select;
mod snapshot;
mod sweep;
mod tables;
mod transaction;

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

pub(super) use self::{
    batch::{Batch, GivenUp, KeyChange, Written},
    bodies::{BlockError, Bodies},
    error::DiskError,
    open::Backing,
    reader::{Corrupt, Found, Labelled, Row},
    select::{Selected, Selecting},
    sweep::Sweep,
    tables::{Usage, parse_uri_row, uri_row},
};
use self::{
    error::Recovery,
    snapshot::{OpenDatabase, Snapshot},
    tables::State,
};
use super::id::Namer;

/// The disk tier of one data directory.
pub(super) struct Disk {
    backing: Backing,
    budget: u64,
    free_min: u64,
    // `None` while it is closed: after the end, or between a failure and the next try to open.
    database: RwLock<Option<OpenDatabase>>,
    bodies: Bodies,
    namer: Namer,
    // As of the last commit.
    entries: AtomicU64,
    bytes: AtomicU64,
    turn: AtomicU64,
    low_on_space: AtomicBool,
    failed: AtomicBool,
    // Raised when a database was set aside: what memory knows of body files is then void.
    started_cold: AtomicBool,
}

impl Disk {
    pub(super) fn namer(&self) -> Namer {
        self.namer
    }

    pub(super) fn bodies(&self) -> &Bodies {
        &self.bodies
    }

    /// Stored responses on disk, as of the last commit.
    pub(super) fn entries(&self) -> u64 {
        self.entries.load(Ordering::Relaxed)
    }

    /// Bytes of records and body files, as of the last commit.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The largest body that is worth writing.
    pub(super) fn largest_body(&self) -> u64 {
        self.budget
    }

    /// Whether nothing is stored for now: too little free space, or an error.
    pub(super) fn is_suspended(&self) -> bool {
        self.is_low_on_space() || self.has_failed()
    }

    pub(super) fn is_low_on_space(&self) -> bool {
        self.low_on_space.load(Ordering::Relaxed)
    }

    /// Whether the last transaction failed, or the database is not open.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    pub(super) fn has_started_cold(&self) -> bool {
        self.started_cold.load(Ordering::Acquire)
    }

    /// Whether the tier started cold since the last call.
    pub(super) fn take_started_cold(&self) -> bool {
        self.started_cold.swap(false, Ordering::AcqRel)
    }

    /// Free bytes of the filesystem, where it says so.
    pub(super) fn free_bytes(&self) -> Option<u64> {
        let stat = rustix::fs::statvfs(self.backing.dir()).ok()?;
        Some(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    /// Compares the free space with its minimum; says what is free.
    pub(super) fn check_space(&self) -> Option<u64> {
        let free = self.free_bytes();
        let low = free.is_some_and(|free| free < self.free_min);
        let was_low = self.low_on_space.swap(low, Ordering::Relaxed);
        if low && !was_low {
            tracing::warn!(
                free,
                minimum = self.free_min,
                "The disk is nearly full; nothing more is stored on it."
            );
        } else if was_low && !low {
            tracing::warn!(free, "There is room on the disk again; storing goes on.");
        }
        free
    }

    /// Lets go of the database and its locks. Nothing is written or found afterwards.
    pub(super) fn close(&self) {
        let database = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        drop(database);
    }

    /// One short read. It holds off nothing but closing.
    fn read<T>(
        &self,
        read: impl FnOnce(&Snapshot) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        self.with_database(|database| read(&*database.snapshot()?))
    }

    /// The same without waiting, neither for the disk nor for whoever opens it. `None`: that cannot be, or it failed.
    fn read_at_hand<T>(&self, read: impl FnOnce(&Snapshot) -> Result<T, DiskError>) -> Option<T> {
        let guard = self.database.try_read().ok()?;
        let snapshot = guard.as_ref()?.opened()?;
        at_hand::at_hand(|| read(&snapshot))?.ok()
    }

    /// Turns a panic of redb, which trusts what it reads, into an error.
    fn with_database<T>(
        &self,
        work: impl FnOnce(&OpenDatabase) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let guard = self.database.read().unwrap_or_else(PoisonError::into_inner);
        let database = guard.as_ref().ok_or(DiskError::Closed)?;
        catch_unwind(AssertUnwindSafe(|| work(database))).unwrap_or(Err(DiskError::Panicked))
    }

    /// Gets the database back into a usable state after `error`; `false` when that must be tried again later.
    fn recover(&self, error: &DiskError) -> bool {
        let recovery = error.recovery();
        if recovery == Recovery::Reopen && !self.backing.is_writable() {
            // The handle still reads. Opening writes, so a closed one might stay closed.
            return false;
        }
        let mut guard = self
            .database
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        // Closed before it is opened again: redb locks the file.
        let closed = guard.take();
        let opened = match recovery {
            Recovery::Reopen => {
                drop(closed);
                open::open_or_start_cold(&self.backing, Some(self.namer.seed))
            }
            Recovery::StartCold => {
                if let Some(damaged) = closed {
                    damaged.give_up();
                }
                open::start_cold(&self.backing, self.namer.seed)
            }
        };
        let recovered = opened.is_ok();
        match opened {
            Ok(opened) => {
                self.started_cold.fetch_or(opened.is_cold, Ordering::AcqRel);
                self.set_totals(opened.entries, opened.state);
                *guard = Some(opened.database);
            }
            Err(error) => {
                tracing::error!(%error, "Cannot open the cache database; serving from memory.");
            }
        }
        recovered
    }

    /// Has the writer pause before it tries the disk again.
    pub(super) fn suspend(&self) {
        self.set_failed(true);
    }

    fn set_failed(&self, failed: bool) {
        self.failed.store(failed, Ordering::Relaxed);
    }

    fn set_totals(&self, entries: u64, state: State) {
        self.entries.store(entries, Ordering::Relaxed);
        self.bytes.store(state.bytes, Ordering::Relaxed);
        self.turn.store(state.turn, Ordering::Relaxed);
    }
}
