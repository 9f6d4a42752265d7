//! Reading the database without waiting for the disk, where that is asked.
//!
//! What the system has in its page cache is read sooner than another thread is woken. Whether it has a page is known only by
//! asking for it (`RWF_NOWAIT`), in the middle of redb, for which an error of its storage is the end of the storage. So a read
//! that would have to wait is left by unwinding instead. In redb 4.5 a read of a committed page holds no lock while it asks
//! its storage, and changes its cache and its counts only afterwards; the tests of the store leave many and go on.

use std::{
    cell::Cell,
    fs::File,
    io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::atomic::{AtomicBool, Ordering},
};

use redb::{BackendError, DatabaseError, StorageBackend, backends::FileBackend};

thread_local! {
    /// Whether reads on this thread may wait for the disk.
    static MAY_WAIT: Cell<bool> = const { Cell::new(true) };
}

/// Whether the filesystem says if a read would wait; not every one does. One for the process: it has one data directory.
static TELLS: AtomicBool = AtomicBool::new(true);

/// What unwinds a read that would have had to wait.
struct WouldWait;

/// Has reads wait again, also after a panic.
struct NoWaiting;

impl Drop for NoWaiting {
    fn drop(&mut self) {
        MAY_WAIT.set(true);
    }
}

/// What `read` comes to, if nothing in it had to wait for the disk.
pub(super) fn at_hand<T>(read: impl FnOnce() -> T) -> Option<T> {
    if !TELLS.load(Ordering::Relaxed) {
        return None;
    }
    MAY_WAIT.set(false);
    let _waits_again = NoWaiting;
    // A panic of redb's own comes again where the read may wait, and is told of there.
    catch_unwind(AssertUnwindSafe(read)).ok()
}

/// Whether a read of the database that is under way may wait.
pub(in crate::store) fn may_wait() -> bool {
    MAY_WAIT.get()
}

/// Leaves a read that may not wait and would have to.
pub(in crate::store) fn give_up() -> ! {
    resume_unwind(Box::new(WouldWait))
}

/// The file of a database.
#[derive(Debug)]
pub(super) struct DatabaseFile {
    storage: FileBackend,
    /// The same file, for reads.
    file: File,
}

impl DatabaseFile {
    pub(super) fn new(file: File) -> Result<Self, DatabaseError> {
        Ok(Self {
            file: file.try_clone().map_err(redb::StorageError::from)?,
            storage: FileBackend::new(file)?,
        })
    }

    /// Whether all of `out` was there.
    fn is_read_at_once(&self, offset: u64, out: &mut [u8]) -> bool {
        match read_at_once(&self.file, offset, out) {
            Ok(len) => len == out.len(),
            Err(io::ErrorKind::Unsupported) => {
                TELLS.store(false, Ordering::Relaxed);
                false
            }
            // Who waits is told of an error too.
            Err(_) => false,
        }
    }
}

#[cfg(target_os = "linux")]
fn read_at_once(file: &File, offset: u64, out: &mut [u8]) -> Result<usize, io::ErrorKind> {
    use rustix::io::{ReadWriteFlags, preadv2};
    let mut slices = [io::IoSliceMut::new(out)];
    preadv2(file, &mut slices, offset, ReadWriteFlags::NOWAIT)
        .map_err(|error| io::Error::from(error).kind())
}

#[cfg(not(target_os = "linux"))]
fn read_at_once(_: &File, _: u64, _: &mut [u8]) -> Result<usize, io::ErrorKind> {
    Err(io::ErrorKind::Unsupported)
}

impl StorageBackend for DatabaseFile {
    fn len(&self) -> io::Result<u64> {
        self.storage.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if may_wait() {
            return self.storage.read(offset, out);
        }
        if !self.is_read_at_once(offset, out) {
            give_up();
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.storage.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.storage.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use redb::StorageBackend;

    use super::{DatabaseFile, at_hand, give_up, may_wait};

    #[test]
    fn a_read_that_is_given_up_leaves_nothing_behind() {
        assert_eq!(at_hand(|| 1), Some(1));
        assert_eq!(at_hand::<u8>(|| give_up()), None);
        assert!(may_wait());
        assert_eq!(at_hand(may_wait), Some(false));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_filesystem_that_does_not_tell_is_known_by_its_error() {
        let error = std::io::Error::from(rustix::io::Errno::OPNOTSUPP);
        assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
    }

    #[test]
    fn what_is_not_in_the_file_is_not_at_hand_and_an_error_for_who_waits() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        fs::write(&path, b"content").unwrap();
        let file = DatabaseFile::new(fs::File::open(&path).unwrap()).unwrap();
        let mut out = [0; 4];
        assert!(file.read(5, &mut out).is_err());
        assert!(at_hand(|| file.read(5, &mut out)).is_none());
        assert!(file.read(3, &mut out).is_ok());
        assert_eq!(&out, b"tent");
    }
}
