//! Whether the last process survived its database.
//!
//! redb panics over damage, and where one panic meets another on its way out the process ends, at each start anew. So there is
//! a file, `queue.opening`, from the opening of the database to its first commit. Who finds it there has the database verified
//! before anything is written: the last process ended in between, for that or for whatever other reason.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use super::backing::private_file;

/// A database that has been opened and has not proven itself yet. Dropped, it is over.
#[derive(Debug)]
pub(super) struct Trial {
    path: PathBuf,
    is_over: AtomicBool,
}

/// How the last trial ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastTrial {
    /// With a commit, or in order.
    Passed,
    /// With its process.
    CutShort,
}

impl Trial {
    /// Begins, in this directory.
    pub(super) fn begin(dir: &Path) -> (Self, LastTrial) {
        let path = dir.join("queue.opening");
        let last = match path.exists() {
            true => LastTrial::CutShort,
            false => LastTrial::Passed,
        };
        if let Err(error) = private_file(&path) {
            tracing::debug!(%error, "Cannot note that the queue's database is being opened.");
        }
        let is_over = AtomicBool::new(false);
        (Self { path, is_over }, last)
    }

    /// There was a commit.
    pub(super) fn pass(&self) {
        if self.is_over.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Err(error) = fs::remove_file(&self.path) {
            // The next start takes longer.
            tracing::debug!(%error, "Cannot note that the queue's database was opened.");
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        self.pass();
    }
}
