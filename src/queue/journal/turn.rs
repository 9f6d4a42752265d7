//! Whether a commit that failed may be there all the same.
//!
//! redb commits in two phases: it writes the new tree and syncs it, turns its header to that tree, and syncs the header. What
//! failed before the header was turned is never seen again. After that it may be: the header is in the page cache, which a
//! killed process leaves, and it may be on the disk. redb's errors do not say which it was, so the storage is watched.

use std::sync::{
    Arc,
    atomic::{AtomicU8, Ordering},
};

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

    /// Something was synced.
    pub(super) fn synced(&self) {
        self.pass(WRITING, SYNCED);
    }

    /// The header is written, or a part of it.
    pub(super) fn turning(&self) {
        self.pass(SYNCED, TURNED);
    }

    fn pass(&self, from: u8, to: u8) {
        let _ = self
            .0
            .compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst);
    }
}
