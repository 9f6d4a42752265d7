//! Whether a commit that failed may be there all the same.
//!
//! redb commits in two phases: it writes the new tree and syncs it, turns its header to that tree, and syncs the header. What
//! failed before the header was turned is never seen again. After that it may be: the header is in the page cache, which a
//! killed process leaves, and it may be on the disk. redb's errors do not say which it was, so the storage is watched.

use std::{
    io,
    ops::Bound,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use redb::{BackendError, StorageBackend};

/// Nothing of the commit is synced yet.
const WRITING: u8 = 0;
/// The new tree is on the disk, and nothing leads to it.
const SYNCED: u8 = 1;
/// The header was written after that.
const TURNED: u8 = 2;

/// How far the commit that runs has come, or the last one did.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn(Arc<AtomicU8>);

impl Turn {
    /// A transaction begins.
    pub(super) fn begin(&self) {
        self.0.store(WRITING, Ordering::SeqCst);
    }

    /// Whether a start may find what was to be committed, if the commit failed.
    pub(super) fn may_be_committed(&self) -> bool {
        self.0.load(Ordering::SeqCst) == TURNED
    }

    fn pass(&self, from: u8, to: u8) {
        let _ = self
            .0
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
    }
}

/// A storage beneath redb whose commits are watched.
#[derive(Debug)]
pub(super) struct Watched<B> {
    storage: B,
    turn: Turn,
}

impl<B> Watched<B> {
    pub(super) fn new(storage: B, turn: &Turn) -> Self {
        Self {
            storage,
            turn: turn.clone(),
        }
    }
}

impl<B: StorageBackend> StorageBackend for Watched<B> {
    fn len(&self) -> io::Result<u64> {
        self.storage.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.storage.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.storage.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.storage.sync_data()?;
        self.turn.pass(WRITING, SYNCED);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if offset == 0 {
            // Also where it fails: a part may have been written.
            self.turn.pass(SYNCED, TURNED);
        }
        self.storage.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.storage.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.storage.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.storage.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.storage.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.storage.query_lock_range(start, end)
    }
}
