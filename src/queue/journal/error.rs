//! What can go wrong with the journal, and what to do about it.

use std::{io, path::PathBuf};

use super::super::{item::Item, seal::KeyFileError};

/// Why the journal cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another process", path.display())]
    InUse {
        /// The database.
        path: PathBuf,
    },
    /// Another version wrote it.
    #[error("{} has format {found}, which this version does not know", path.display())]
    Format {
        /// The database.
        path: PathBuf,
        /// The format's number.
        found: u32,
    },
    /// The keys that seal credentials cannot be read.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// Files cannot be read or written.
    #[error("cannot {attempt} {}", path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// It is damaged, and what could be read of it cannot be written.
    #[error("cannot recover {}", path.display())]
    Damaged {
        /// The database.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Why a write was not appended. Nothing of it is kept, but for what is of unknown outcome.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AppendError {
    /// Its idempotency key was used with another body, by this write.
    #[error("the idempotency key was used with another body")]
    KeyMismatch(Box<Item>),
    /// It has fields that must be sealed, and there is no key to seal them with.
    #[error("there is no key to seal its credentials with")]
    CredentialNotStorable,
    /// It could not be recorded.
    #[error("cannot append: {0}")]
    Unavailable(Unavailable),
    /// It may be on disk: its commit failed at the very end, or the journal's writer was lost with it. The next start, or the
    /// next commit, finds out. It keeps its room, and its place in its lane, until then.
    #[error("the queue failed while the write was recorded; it may be queued")]
    Unknown,
}

/// Why nothing can be appended now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unavailable {
    /// The disk is full, or nearly.
    #[error("the disk is full")]
    NoSpace,
    /// The database cannot be written.
    #[error("the queue's database failed")]
    Failing,
    /// The write that has this idempotency key cannot be read.
    #[error("the record of its idempotency key is damaged")]
    Damaged,
    /// The gateway shuts down.
    #[error("the queue is closed")]
    Closed,
}

/// Why something was not recorded, or not read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// The gateway shuts down.
    #[error("the queue is closed")]
    Closed,
    /// It has fields that must be sealed, and there is no key to seal them with.
    #[error("there is no key to seal its credentials with")]
    CredentialNotStorable,
    /// The journal's writer was lost with the change, perhaps after it was recorded.
    #[error("the queue failed while the change was recorded; it may be recorded")]
    Unknown,
    /// There is a record of the write already: nothing was imported.
    #[error("there is a record of the write already")]
    Exists,
    /// The database cannot be read now.
    #[error("cannot read the queue's database")]
    Unavailable(#[source] io::Error),
}

/// Why the database did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum DiskError {
    #[error("the queue's database failed")]
    Database(#[source] Box<redb::Error>),
    #[error("the queue's database panicked; it is damaged")]
    Panicked,
    #[error("the queue's database is damaged: {0}")]
    Damaged(&'static str),
    #[error("the queue's database has format {0}")]
    Format(u32),
    #[error("the queue's database is closed after an earlier error")]
    Closed,
    #[error("cannot write beside the queue's database")]
    File(#[source] io::Error),
}

/// How to go on after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    /// Close and open again: one failed write poisons the handle.
    Reopen,
    /// What is in the file cannot be trusted: save what can be read.
    Salvage,
    /// Leave it as it is.
    None,
}

impl DiskError {
    pub(super) fn recovery(&self) -> Recovery {
        match self {
            Self::Panicked | Self::Damaged(_) => Recovery::Salvage,
            Self::Closed | Self::File(_) => Recovery::Reopen,
            Self::Format(_) => Recovery::None,
            Self::Database(error) => match error.as_ref() {
                redb::Error::Io(error) if !is_garbage(error) => Recovery::Reopen,
                redb::Error::PreviousIo
                | redb::Error::DatabaseClosed
                | redb::Error::LockPoisoned(_) => Recovery::Reopen,
                redb::Error::DatabaseAlreadyOpen => Recovery::None,
                _ => Recovery::Salvage,
            },
        }
    }

    pub(super) fn is_in_use(&self) -> bool {
        matches!(self, Self::Database(error) if matches!(**error, redb::Error::DatabaseAlreadyOpen))
    }

    /// Whether the disk has no room.
    pub(super) fn is_no_space(&self) -> bool {
        let error = match self {
            Self::File(error) => error,
            Self::Database(error) => match error.as_ref() {
                redb::Error::Io(error) => error,
                _ => return false,
            },
            _ => return false,
        };
        matches!(
            error.kind(),
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
        )
    }

    pub(super) fn into_io(self) -> io::Error {
        match self {
            Self::File(error) => error,
            Self::Database(error) => match *error {
                redb::Error::Io(error) => error,
                other => io::Error::other(other),
            },
            other => io::Error::other(other),
        }
    }
}

impl From<DiskError> for JournalError {
    fn from(error: DiskError) -> Self {
        Self::Unavailable(error.into_io())
    }
}

/// redb says so of a file that is not a database, or ends too early.
pub(super) fn is_garbage(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof
    )
}

macro_rules! from_redb {
    ($($error:ty),+) => {
        $(impl From<$error> for DiskError {
            fn from(error: $error) -> Self {
                Self::Database(Box::new(error.into()))
            }
        })+
    };
}

from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError,
    redb::SetDurabilityError
);
