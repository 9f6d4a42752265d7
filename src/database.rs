//! A redb database that may be damaged, whoever has it open.
//!
//! redb trusts what it reads, and panics where that makes no sense. So does closing, which reads and writes.

use std::{
    fmt,
    ops::Deref,
    panic::{AssertUnwindSafe, catch_unwind},
};

use redb::Database;

/// An open database, which is closed without a panic.
pub(crate) struct Handle(Option<Database>);

impl Deref for Handle {
    type Target = Database;

    fn deref(&self) -> &Database {
        self.0.as_ref().expect("it is closed by its drop only")
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // The panic was logged. Opening it again finds out what can be done.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(self.0.take())));
    }
}

impl From<Database> for Handle {
    fn from(database: Database) -> Self {
        Self(Some(database))
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
        },
    };

    use redb::{Builder, StorageBackend, TableDefinition, backends::InMemoryBackend};

    use super::Handle;

    /// Memory that redb panics over, on demand.
    #[derive(Debug, Default)]
    struct Damaged {
        memory: InMemoryBackend,
        is_met: Arc<AtomicBool>,
    }

    impl Damaged {
        fn meet(&self) {
            assert!(!self.is_met.load(Ordering::SeqCst), "damaged");
        }
    }

    impl StorageBackend for Damaged {
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

    fn damaged() -> Handle {
        let backend = Damaged::default();
        let is_met = Arc::clone(&backend.is_met);
        let database = Builder::new().create_with_backend(backend).unwrap();
        let transaction = database.begin_write().unwrap();
        let table = TableDefinition::<u32, u32>::new("table");
        transaction.open_table(table).unwrap();
        transaction.commit().unwrap();
        is_met.store(true, Ordering::SeqCst);
        database.into()
    }

    #[test]
    fn closing_a_damaged_database_is_no_panic() {
        drop(damaged());
    }
}
