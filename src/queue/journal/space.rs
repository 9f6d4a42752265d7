//! Room on the disk: when to refuse before the 202, and a reserve for what must be recorded nevertheless.
//!
//! While less than a minimum is free nothing is appended. The reserve, `queue.reserve`, is a file of real blocks; it is given up
//! when a change of a write that was accepted already cannot be recorded for want of room, and taken again when there is enough.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::fs::{FallocateFlags, fallocate, statvfs};

/// With less than this free nothing is appended: some batches at their largest, which the database writes beside what they
/// replace.
const FREE_MIN_BYTES: u64 = 16 * 1024 * 1024;

/// The results of many thousand deliveries; on a small filesystem a sixteenth of it.
const RESERVE_BYTES: u64 = 4 * 1024 * 1024;

/// The room of the queue's filesystem.
#[derive(Debug)]
pub(super) struct Space {
    dir: PathBuf,
    is_reserve_held: AtomicBool,
    is_low: AtomicBool,
}

/// What the filesystem says of itself.
#[derive(Clone, Copy, Debug)]
struct Filesystem {
    bytes: u64,
    free_bytes: u64,
}

impl Space {
    pub(super) fn new(dir: &Path) -> Self {
        let space = Self {
            dir: dir.to_owned(),
            is_reserve_held: AtomicBool::new(false),
            is_low: AtomicBool::new(false),
        };
        let is_there = fs::metadata(space.reserve()).is_ok_and(|file| file.len() > 0);
        space.is_reserve_held.store(is_there, Ordering::Relaxed);
        space
    }

    /// Whether there was too little room when it was last looked at.
    pub(super) fn is_low(&self) -> bool {
        self.is_low.load(Ordering::Relaxed)
    }

    /// Whether there is too little room to append. Takes the reserve where it can be taken.
    pub(super) fn check(&self) -> bool {
        let Some(filesystem) = self.filesystem() else {
            return false;
        };
        let reserve_bytes = RESERVE_BYTES.min(filesystem.bytes / 16);
        let min_bytes = FREE_MIN_BYTES.min(filesystem.bytes / 8);
        let is_held = self.is_reserve_held.load(Ordering::Relaxed);
        let needed_bytes = if is_held {
            min_bytes
        } else {
            min_bytes + reserve_bytes
        };
        let has_room =
            filesystem.free_bytes >= needed_bytes && (is_held || self.take_reserve(reserve_bytes));
        self.note_low(!has_room, filesystem.free_bytes);
        !has_room
    }

    /// Frees the reserve; whether there was one.
    pub(super) fn give_up_reserve(&self) -> bool {
        self.is_reserve_held.store(false, Ordering::Relaxed);
        let was_there = fs::remove_file(self.reserve()).is_ok();
        if was_there {
            tracing::warn!("The disk is full; the queue's reserve is given up to record results.");
        }
        was_there
    }

    fn take_reserve(&self, bytes: u64) -> bool {
        let taken = self.allocate(bytes);
        if let Err(error) = &taken {
            tracing::warn!(%error, "Cannot take the queue's reserve.");
            let _ = fs::remove_file(self.reserve());
        }
        self.is_reserve_held.store(taken.is_ok(), Ordering::Relaxed);
        taken.is_ok()
    }

    fn allocate(&self, bytes: u64) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.reserve())?;
        match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Ok(()) => file.set_len(bytes)?,
            Err(rustix::io::Errno::OPNOTSUPP) => {
                // Zeros are as good where the filesystem does not compress them.
                file.write_all(&vec![0; usize::try_from(bytes).unwrap_or_default()])?;
            }
            Err(error) => return Err(error.into()),
        }
        file.sync_all()
    }

    fn note_low(&self, is_low: bool, free_bytes: u64) {
        let was_low = self.is_low.swap(is_low, Ordering::Relaxed);
        if is_low && !was_low {
            tracing::warn!(free_bytes, "The disk is nearly full; no write is queued.");
        } else if was_low && !is_low {
            tracing::warn!(
                free_bytes,
                "There is room on the disk again; writes are queued."
            );
        }
    }

    fn filesystem(&self) -> Option<Filesystem> {
        let stat = statvfs(&self.dir).ok()?;
        Some(Filesystem {
            bytes: stat.f_blocks.saturating_mul(stat.f_frsize),
            free_bytes: stat.f_bavail.saturating_mul(stat.f_frsize),
        })
    }

    fn reserve(&self) -> PathBuf {
        self.dir.join("queue.reserve")
    }
}
