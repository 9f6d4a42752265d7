//! What the last commit left, open for reading.
//!
//! To begin a read transaction and to open its tables takes a third of a short read, so they are kept from one commit to the
//! next. Not longer: the file grows by what is changed while one is open.

use std::sync::{Arc, PoisonError, RwLock};

use redb::{Database, ReadOnlyTable, ReadTransaction, ReadableDatabase};

use super::{
    DiskError,
    tables::{RECORDS, USAGE},
};

/// A database that is open.
pub(super) struct OpenDatabase {
    // Before the database, which is closed once nothing of it is read.
    snapshot: RwLock<Arc<Snapshot>>,
    database: Database,
}

/// The tables as a commit left them.
pub(super) struct Snapshot {
    pub(super) transaction: ReadTransaction,
    pub(super) records: ReadOnlyTable<&'static [u8; 24], &'static [u8]>,
    pub(super) usage: ReadOnlyTable<&'static [u8; 24], &'static [u8; 57]>,
}

impl OpenDatabase {
    pub(super) fn new(database: Database) -> Result<Self, DiskError> {
        let snapshot = RwLock::new(Snapshot::of(&database)?);
        Ok(Self { snapshot, database })
    }

    pub(super) fn database(&self) -> &Database {
        &self.database
    }

    /// As of the last commit that [`Self::advance`] followed.
    pub(super) fn snapshot(&self) -> Arc<Snapshot> {
        let snapshot = self.snapshot.read();
        Arc::clone(&snapshot.unwrap_or_else(PoisonError::into_inner))
    }

    /// Has reads find what was committed.
    pub(super) fn advance(&self) -> Result<(), DiskError> {
        let next = Snapshot::of(&self.database)?;
        let mut snapshot = self
            .snapshot
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        let last = std::mem::replace(&mut *snapshot, next);
        drop(snapshot);
        // Without the lock: it ends the last transaction, unless that is being read.
        drop(last);
        Ok(())
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
