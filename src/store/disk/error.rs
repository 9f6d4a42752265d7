//! What can go wrong in the disk tier, and what to do about it.

use std::io;

/// Why the disk tier did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum DiskError {
    #[error("the cache database failed")]
    Database(#[source] Box<redb::Error>),
    #[error("the cache database panicked; it is corrupt")]
    Panicked,
    #[error("the cache database is closed after an earlier error")]
    Closed,
    #[error("cannot write a body file")]
    Body(#[source] io::Error),
}

/// How to go on after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Recovery {
    /// Close and open again: one failed write poisons the handle.
    Reopen,
    /// What is in the file cannot be trusted: set it aside.
    StartCold,
}

impl DiskError {
    pub(super) fn recovery(&self) -> Recovery {
        match self {
            Self::Panicked => Recovery::StartCold,
            Self::Closed | Self::Body(_) => Recovery::Reopen,
            Self::Database(error) => match error.as_ref() {
                redb::Error::Io(error) if !is_garbage(error) => Recovery::Reopen,
                redb::Error::PreviousIo
                | redb::Error::DatabaseClosed
                | redb::Error::LockPoisoned(_) => Recovery::Reopen,
                _ => Recovery::StartCold,
            },
        }
    }

    pub(in crate::store) fn into_io(self) -> io::Error {
        match self {
            Self::Body(error) => error,
            Self::Database(error) => match *error {
                redb::Error::Io(error) => error,
                other => io::Error::other(other),
            },
            other => io::Error::other(other),
        }
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
    redb::DatabaseError
);
