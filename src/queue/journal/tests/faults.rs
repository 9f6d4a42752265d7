//! Storage that fails on demand, and that forgets what was not synced.

use std::{
    fs::{self, File},
    io::{self, Write},
    ops::Range,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use redb::StorageBackend;

/// Bytes in memory that outlive the database which has them open.
#[derive(Clone, Debug, Default)]
pub(in crate::queue) struct FaultyStorage {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    content: Mutex<Content>,
    full: AtomicBool,
    /// Operations that are let through before everything fails; `u64::MAX`: all.
    fails_after: AtomicU64,
    is_armed: AtomicBool,
    syncs_failing: AtomicU64,
    /// Bit by bit, the lowest first, whether the next syncs fail.
    failing_syncs_mask: AtomicU64,
    /// What becomes of the bytes when a sync fails.
    failing_sync_destroys: Mutex<Option<Range<usize>>>,
    operations: AtomicU64,
    epoch: AtomicU64,
}

#[derive(Debug, Default)]
struct Content {
    /// As the process sees it.
    current: Vec<u8>,
    /// As it is after a loss of power.
    synced: Vec<u8>,
}

impl FaultyStorage {
    /// A way in for one database. It ends with the next crash.
    pub(in crate::queue) fn open(&self) -> Handle {
        Handle {
            epoch: self.shared.epoch.load(Ordering::SeqCst),
            shared: self.shared.clone(),
        }
    }

    /// Whether writes fail from now on, as on a disk without room.
    pub(in crate::queue) fn set_full(&self, full: bool) {
        self.shared.full.store(full, Ordering::SeqCst);
    }

    /// So many syncs fail from now on.
    pub(in crate::queue) fn fail_syncs(&self, syncs: u64) {
        self.shared.syncs_failing.store(syncs, Ordering::SeqCst);
    }

    /// Of the next syncs those fail whose bit is set, the lowest bit first; what they were to sync stays as the process sees it.
    pub(in crate::queue) fn fail_syncs_of(&self, mask: u64) {
        self.shared.failing_syncs_mask.store(mask, Ordering::SeqCst);
    }

    /// The next sync that fails leaves no sense in these bytes.
    pub(in crate::queue::journal) fn destroy_at_failing_sync(&self, bytes: Range<usize>) {
        *self.shared.destroyed() = Some(bytes);
    }

    /// Changes the bytes behind the back of whoever has them open.
    pub(in crate::queue::journal) fn change(&self, change: impl FnOnce(&mut Vec<u8>)) {
        let mut content = self.shared.content();
        change(&mut content.current);
        content.synced = content.current.clone();
    }

    /// The bytes as they are now.
    pub(in crate::queue::journal) fn snapshot(&self) -> Vec<u8> {
        self.shared.content().current.clone()
    }

    /// The bytes as they are now, in a file.
    pub(in crate::queue::journal) fn pages(&self) -> io::Result<File> {
        let mut file = tempfile::tempfile()?;
        file.write_all(&self.snapshot())?;
        Ok(file)
    }

    /// Has the bytes of this file from now on.
    pub(in crate::queue::journal) fn replace(&self, file: &Path) -> io::Result<()> {
        let bytes = fs::read(file)?;
        self.change(|content| *content = bytes);
        fs::remove_file(file)
    }

    /// After so many more writes and syncs everything fails, until [`FaultyStorage::heal`].
    pub(in crate::queue) fn fail_after(&self, operations: u64) {
        self.shared.fails_after.store(operations, Ordering::SeqCst);
        self.shared.is_armed.store(true, Ordering::SeqCst);
    }

    pub(in crate::queue) fn heal(&self) {
        self.shared.is_armed.store(false, Ordering::SeqCst);
    }

    /// The power is lost: of what was not synced, what `keeps` says is there all the same. Whoever has it open writes nothing
    /// any more.
    pub(in crate::queue) fn crash(&self, keeps: Keeps) {
        let mut content = self.shared.content();
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        match keeps {
            Keeps::Nothing => content.current = content.synced.clone(),
            Keeps::Everything => content.synced = content.current.clone(),
            Keeps::SomePages(seed) => {
                let mut random = fastrand::Rng::with_seed(seed);
                let mut merged = content.current.clone();
                for at in (0..merged.len()).step_by(4_096) {
                    let end = (at + 4_096).min(merged.len());
                    if random.bool() && end <= content.synced.len() {
                        merged[at..end].copy_from_slice(&content.synced[at..end]);
                    }
                }
                content.current = merged.clone();
                content.synced = merged;
            }
        }
        self.heal();
    }

    pub(in crate::queue::journal) fn check(&self) -> io::Result<()> {
        self.shared.check()
    }

    pub(in crate::queue) fn bytes(&self) -> u64 {
        self.shared.content().current.len() as u64
    }
}

/// What a loss of power leaves of what was not synced.
#[derive(Clone, Copy, Debug)]
pub(in crate::queue) enum Keeps {
    Nothing,
    Everything,
    SomePages(u64),
}

impl Shared {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn destroyed(&self) -> MutexGuard<'_, Option<Range<usize>>> {
        let destroyed = self.failing_sync_destroys.lock();
        destroyed.unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self) -> io::Result<()> {
        if self.full.load(Ordering::SeqCst) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let is_armed = self.is_armed.load(Ordering::SeqCst);
        if is_armed && self.fails_after.load(Ordering::SeqCst) == 0 {
            return Err(io::Error::other("EIO"));
        }
        Ok(())
    }

    fn operate(&self) -> io::Result<()> {
        self.check()?;
        self.operations.fetch_add(1, Ordering::SeqCst);
        if self.is_armed.load(Ordering::SeqCst) {
            self.fails_after.fetch_sub(1, Ordering::SeqCst);
        }
        Ok(())
    }
}

/// What a database has open.
#[derive(Debug)]
pub(in crate::queue) struct Handle {
    shared: Arc<Shared>,
    epoch: u64,
}

impl Handle {
    fn operate(&self) -> io::Result<()> {
        if self.epoch != self.shared.epoch.load(Ordering::SeqCst) {
            return Err(io::Error::other("the power is lost"));
        }
        self.shared.operate()
    }
}

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.shared.content().current.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let content = self.shared.content();
        let from = usize::try_from(offset).unwrap();
        let found = content.current.get(from..from + out.len());
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.operate()?;
        let len = usize::try_from(len).unwrap();
        self.shared.content().current.resize(len, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.operate()?;
        let failing = &self.shared.syncs_failing;
        let fails = failing.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
            left.checked_sub(1)
        });
        let mask = &self.shared.failing_syncs_mask;
        let mask = mask.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |mask| Some(mask >> 1));
        if fails.is_ok() || mask.is_ok_and(|mask| mask & 1 == 1) {
            if let Some(bytes) = self.shared.destroyed().take() {
                self.shared.content().current[bytes].fill(0xa5);
            }
            return Err(io::Error::other("EIO"));
        }
        let mut content = self.shared.content();
        content.synced = content.current.clone();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.operate()?;
        let mut content = self.shared.content();
        let from = usize::try_from(offset).unwrap();
        content.current[from..from + data.len()].copy_from_slice(data);
        Ok(())
    }
}
