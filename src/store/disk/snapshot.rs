//! What the last commit left, open for reading.
//!
//! To begin a read transaction and to open its tables takes a third of a short read, so whoever reads first after a commit
//! keeps them for the others. Not longer than to the next commit: the file grows by what is changed while one is open.

use std::sync::{Arc, PoisonError, RwLock, RwLockWriteGuard};

use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase};

use super::{
    DiskError,
    tables::{RECORDS, USAGE},
};
use crate::database::{Damaged, Handle};

/// A database that is open.
pub(super) struct OpenDatabase {
    // Before the database, which is closed once nothing of it is read.
    snapshot: RwLock<Option<Arc<Snapshot>>>,
    database: Handle,
}

/// The tables as a commit left them.
pub(super) struct Snapshot {
    pub(super) transaction: ReadTransaction,
    pub(super) records: ReadOnlyTable<&'static [u8; 24], &'static [u8]>,
    pub(super) usage: ReadOnlyTable<&'static [u8; 24], &'static [u8; 57]>,
}

impl OpenDatabase {
    pub(super) fn new(database: Handle) -> Self {
        let snapshot = RwLock::default();
        Self { snapshot, database }
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// Closes it without a last commit: it is damaged.
    pub(super) fn give_up(self) {
        drop(self.snapshot);
        drop(Damaged::from(self.database));
    }

    /// As of the last commit that [`Self::advance`] followed, or of a later one.
    pub(super) fn snapshot(&self) -> Result<Arc<Snapshot>, DiskError> {
        if let Some(snapshot) = self.opened() {
            return Ok(snapshot);
        }
        let mut snapshot = self.write();
        if let Some(snapshot) = &*snapshot {
            return Ok(snapshot.clone());
        }
        let opened = Snapshot::of(&self.database)?;
        Ok(snapshot.insert(opened).clone())
    }

    /// The same, if somebody has read since that commit.
    pub(super) fn opened(&self) -> Option<Arc<Snapshot>> {
        let snapshot = self.snapshot.read().unwrap_or_else(PoisonError::into_inner);
        snapshot.clone()
    }

    /// Has reads find what was committed.
    pub(super) fn advance(&self) {
        let last = self.write().take();
        // Without the lock: it ends the last transaction, unless that is being read.
        drop(last);
    }

    fn write(&self) -> RwLockWriteGuard<'_, Option<Arc<Snapshot>>> {
        self.snapshot
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Snapshot {
    fn of(database: &Database) -> Result<Arc<Self>, DiskError> {
        let transaction = database.begin_read()?;
        Ok(Arc::new(Self {
            records: transaction.open_table(RECORDS)?,
            usage: transaction.open_table(USAGE)?,
            transaction,
        }))
    }
}
