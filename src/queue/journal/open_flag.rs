//! Whether the last process closed its database: `queue.open` is there for as long as one has it open.
//!
//! A power cut may leave pages that are not what was written. And over damage redb may end the process, where one panic meets
//! another on its way out; it would do so at each start. So after an end that was none the database is verified, which reads
//! all of it, before anything is written: about 1.5 s a gigabyte.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::{backing::private_file, spool::sync_directory};

/// A database is open. Whoever closes it says so, and nobody else: an opening that failed closed nothing.
#[derive(Debug)]
pub(super) struct OpenFlag(PathBuf);

/// How the last process that had the database open ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LastEnd {
    /// It closed the database, or there was none.
    Orderly,
    /// It was killed, or the machine stopped.
    Unclean,
}

impl OpenFlag {
    /// Raised in this directory; how it was found.
    pub(super) fn raise(dir: &Path) -> (Self, LastEnd) {
        let path = dir.join("queue.open");
        let last_end = match path.exists() {
            true => LastEnd::Unclean,
            false => LastEnd::Orderly,
        };
        // A power cut must not take it along.
        if let Err(error) = private_file(&path).and_then(|_| sync_directory(dir)) {
            tracing::debug!(%error, "Cannot note that the queue's database is open.");
        }
        (Self(path), last_end)
    }

    /// The database is closed.
    pub(super) fn lower(&self) {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                // The next start takes longer.
                tracing::debug!(%error, "Cannot note that the queue's database is closed.");
            }
            _ => {}
        }
    }
}
