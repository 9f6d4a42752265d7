//! Storage that fails on demand, beneath the database.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use redb::{StorageBackend, backends::InMemoryBackend};

use crate::store::disk::at_hand;

/// Bytes in memory that outlive the database which has them open.
#[derive(Clone, Debug, Default)]
pub(in crate::store) struct FaultyStorage {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    bytes: InMemoryBackend,
    full: AtomicBool,
    unreadable: AtomicBool,
    breaking: AtomicBool,
    uncached: AtomicBool,
    far: AtomicBool,
    reads: AtomicU64,
}

impl FaultyStorage {
    /// Whether writes fail from now on, as on a disk without room.
    pub(in crate::store) fn set_full(&self, full: bool) {
        self.shared.full.store(full, Ordering::SeqCst);
    }

    /// Whether anything panics from now on, also what is no part of the database.
    pub(in crate::store) fn set_breaking(&self, breaking: bool) {
        self.shared.breaking.store(breaking, Ordering::SeqCst);
    }

    /// Whether databases opened from now on keep no pages in memory: every read then comes here.
    pub(in crate::store) fn set_uncached(&self, uncached: bool) {
        self.shared.uncached.store(uncached, Ordering::SeqCst);
    }

    pub(in crate::store) fn is_uncached(&self) -> bool {
        self.shared.uncached.load(Ordering::SeqCst)
    }

    /// Whether reads have to wait from now on, as for what is in no page cache.
    pub(in crate::store) fn set_far(&self, far: bool) {
        self.shared.far.store(far, Ordering::SeqCst);
    }

    fn breaks(&self) -> bool {
        self.shared.breaking.load(Ordering::SeqCst)
    }

    /// Whether reads fail from now on.
    pub(in crate::store) fn set_unreadable(&self, unreadable: bool) {
        self.shared.unreadable.store(unreadable, Ordering::SeqCst);
    }

    /// Bytes read so far.
    pub(in crate::store) fn reads(&self) -> u64 {
        self.shared.reads.load(Ordering::SeqCst)
    }

    pub(in crate::store) fn is_full(&self) -> bool {
        self.shared.full.load(Ordering::SeqCst)
    }

    pub(in crate::store) fn bytes(&self) -> u64 {
        self.shared.bytes.len().unwrap_or_default()
    }

    pub(in crate::store) fn clear(&self) {
        assert!(!self.breaks(), "broken on demand");
        self.shared.bytes.set_len(0).unwrap();
    }

    fn check(&self) -> io::Result<()> {
        assert!(!self.breaks(), "broken on demand");
        if self.is_full() {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl StorageBackend for FaultyStorage {
    fn len(&self) -> io::Result<u64> {
        self.shared.bytes.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.shared
            .reads
            .fetch_add(out.len() as u64, Ordering::SeqCst);
        let is_far = self.shared.far.load(Ordering::SeqCst);
        let is_unreadable = self.shared.unreadable.load(Ordering::SeqCst);
        if (is_far || is_unreadable) && !at_hand::may_wait() {
            at_hand::give_up();
        }
        if is_unreadable {
            return Err(io::Error::other("EIO"));
        }
        self.shared.bytes.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check()?;
        self.shared.bytes.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.check()?;
        self.shared.bytes.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.check()?;
        self.shared.bytes.write(offset, data)
    }
}
