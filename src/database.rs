//! redb over a file that may be damaged, whoever has it open.
//!
//! redb trusts what it reads, and panics where that makes no sense. So does closing, which reads and commits; and a panic that
//! came while redb held a lock of its own makes the drop of whatever is open panic too. One that leaves a drop while another
//! is on its way out ends the process.

use std::{
    fmt,
    ops::{Deref, DerefMut},
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
};

use redb::Database;

/// An open database.
pub(crate) type Handle = Guarded<Database>;

/// An open database that is known to be damaged. It is closed without the commit that closing otherwise is: redb trusts what it
/// reads for that, and may cut the file down to nothing.
#[derive(Debug)]
pub(crate) struct Damaged(Option<Handle>);

impl From<Handle> for Damaged {
    fn from(database: Handle) -> Self {
        Self(Some(database))
    }
}

impl Deref for Damaged {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.0.as_ref().expect(IS_THERE)
    }
}

impl DerefMut for Damaged {
    fn deref_mut(&mut self) -> &mut Database {
        self.0.as_mut().expect(IS_THERE)
    }
}

impl Drop for Damaged {
    fn drop(&mut self) {
        let database = self.0.take();
        // redb commits nothing while a panic is on its way. No hook hears of this one.
        let _ = catch_unwind(AssertUnwindSafe(move || {
            let _closed_on_the_way = database;
            resume_unwind(Box::new(()));
        }));
    }
}

/// Something open of redb, whose drop is without a panic: a database, a write transaction, a table of one.
pub(crate) struct Guarded<T>(Option<T>);

impl<T> Guarded<T> {
    /// What it is, for what consumes it.
    pub(crate) fn into_inner(mut self) -> T {
        self.0.take().expect(IS_THERE)
    }
}

const IS_THERE: &str = "it goes with its guard only";

impl<T> From<T> for Guarded<T> {
    fn from(open: T) -> Self {
        Self(Some(open))
    }
}

impl<T> Deref for Guarded<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.0.as_ref().expect(IS_THERE)
    }
}

impl<T> DerefMut for Guarded<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.as_mut().expect(IS_THERE)
    }
}

impl<T> Drop for Guarded<T> {
    fn drop(&mut self) {
        // The panic was logged. Opening the database again finds out what can be done.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self.0.take())));
    }
}

impl<T> fmt::Debug for Guarded<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Guarded").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        panic::{AssertUnwindSafe, catch_unwind},
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use redb::{Builder, StorageBackend, TableDefinition, backends::InMemoryBackend};

    use super::{Damaged, Guarded, Handle};

    /// Memory that redb panics over, on demand.
    #[derive(Debug, Default)]
    struct Fragile {
        memory: InMemoryBackend,
        is_met: Arc<AtomicBool>,
    }

    impl Fragile {
        fn meet(&self) {
            assert!(!self.is_met.load(Ordering::SeqCst), "damaged");
        }
    }

    impl StorageBackend for Fragile {
        fn len(&self) -> io::Result<u64> {
            self.memory.len()
        }

        fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
            self.meet();
            self.memory.read(offset, out)
        }

        fn set_len(&self, len: u64) -> io::Result<()> {
            self.memory.set_len(len)
        }

        fn sync_data(&self) -> io::Result<()> {
            self.meet();
            self.memory.sync_data()
        }

        fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.meet();
            self.memory.write(offset, data)
        }
    }

    const TABLES: [TableDefinition<'_, u32, u32>; 2] =
        [TableDefinition::new("one"), TableDefinition::new("another")];

    /// A database of two tables, and what has its damage met.
    fn damaged() -> (Handle, Arc<AtomicBool>) {
        let backend = Fragile::default();
        let is_met = Arc::clone(&backend.is_met);
        // Without a cache, so that what was written is read.
        let mut builder = Builder::new();
        let database = builder.set_cache_size(0).create_with_backend(backend);
        let database = database.unwrap();
        let transaction = database.begin_write().unwrap();
        for table in TABLES {
            transaction.open_table(table).unwrap();
        }
        transaction.commit().unwrap();
        (database.into(), is_met)
    }

    #[test]
    fn closing_a_damaged_database_is_no_panic() {
        let (database, is_met) = damaged();
        is_met.store(true, Ordering::SeqCst);
        drop(database);
        let (database, is_met) = damaged();
        is_met.store(true, Ordering::SeqCst);
        drop(Damaged::from(database));
    }

    /// Without the guards this ends the process.
    #[test]
    fn a_table_that_cannot_be_opened_leaves_the_others_to_close() {
        let (database, is_met) = damaged();
        let opening = catch_unwind(AssertUnwindSafe(|| {
            let transaction = Guarded::from(database.begin_write().unwrap());
            let _open = Guarded::from(transaction.open_table(TABLES[0]).unwrap());
            is_met.store(true, Ordering::SeqCst);
            drop(transaction.open_table(TABLES[1]));
        }));
        assert!(opening.is_err(), "the damage was not met");
        drop(database);
    }
}
