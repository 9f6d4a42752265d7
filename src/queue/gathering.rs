//! The body of a write while it is read: whole before anything is sent, so that it can be sent again, and so that an upload that
//! breaks off reaches no origin.
//!
//! Bounds: up to 64 KiB in memory; beyond in a file of the spool, of at most `queue.max_item`. All of these together take at most
//! a quarter of `queue.max_bytes`, besides what is queued: a full queue refuses nothing that can be passed on, and uploads that
//! stall refuse no small write. While the disk is nearly full no file grows. Invariant: what a file takes of that room it gives
//! back when it is gone, or when its write is appended and counts itself ([`SpoolRoom`]).

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use tracing::warn;

use super::{
    Config, INLINE_BODY_MAX_BYTES, NewBody, Queue, Refused, SpoolFile, Unavailable, index::Full,
};

/// The free room of the disk is looked at again after so much of a body: asking costs a system call.
const LOOK_EVERY_BYTES: u64 = 256 * 1024;

/// A body on its way into memory or into the spool. Dropped, it leaves nothing behind.
pub struct Gathering<'a> {
    queue: &'a Queue,
    memory: BytesMut,
    file: Option<SpoolFile>,
    read_bytes: u64,
    /// How much had been read when the disk was last looked at.
    looked_at_bytes: u64,
}

impl Queue {
    /// Begins to gather a body of at least so many bytes.
    ///
    /// # Errors
    /// [`Refused::TooLarge`].
    pub fn gather(&self, least_bytes: u64) -> Result<Gathering<'_>, Refused> {
        self.check_length(least_bytes)?;
        Ok(Gathering {
            queue: self,
            memory: BytesMut::new(),
            file: None,
            read_bytes: 0,
            looked_at_bytes: 0,
        })
    }

    fn check_length(&self, bytes: u64) -> Result<(), Refused> {
        let max_bytes = self.config().max_item_bytes;
        if bytes > max_bytes {
            return Err(self.counted(Refused::TooLarge { max_bytes }));
        }
        Ok(())
    }

    /// A file of the spool, with room for so much.
    async fn spool_with_room(&self, bytes: u64) -> Result<SpoolFile, Refused> {
        let mut room = SpoolRoom {
            budget: self.inner.budget.clone(),
            bytes: 0,
        };
        room.take(bytes)?;
        let mut file = self.spool().await.map_err(unwritable)?;
        file.hold(room);
        Ok(file)
    }
}

impl Gathering<'_> {
    /// Adds a piece.
    ///
    /// # Errors
    /// When the body is too large, or there is no room for it. The rest need not be read.
    pub async fn add(&mut self, piece: Bytes) -> Result<(), Refused> {
        self.read_bytes += piece.len() as u64;
        self.queue.check_length(self.read_bytes)?;
        if self.file.is_none() && self.memory.len() + piece.len() <= INLINE_BODY_MAX_BYTES {
            self.memory.extend_from_slice(&piece);
            return Ok(());
        }
        let spooled = self.spool(piece).await;
        spooled.map_err(|refused| self.queue.counted(refused))
    }

    /// The whole body. It is on disk as far as the system likes: appending it makes it durable.
    pub fn finish(self) -> NewBody {
        match self.file {
            None => NewBody::Inline(self.memory.freeze()),
            Some(mut file) => {
                file.finish();
                NewBody::Spooled(file)
            }
        }
    }

    async fn spool(&mut self, piece: Bytes) -> Result<(), Refused> {
        let mut file = match self.file.take() {
            Some(mut file) => {
                file.take_room(piece.len() as u64)?;
                self.look_at_the_disk().await?;
                file
            }
            // Whoever makes a file looks at the disk.
            None => {
                let mut file = self.queue.spool_with_room(self.read_bytes).await?;
                self.looked_at_bytes = self.read_bytes;
                let read = std::mem::take(&mut self.memory).freeze();
                file.write(read).await.map_err(unwritable)?;
                file
            }
        };
        file.write(piece).await.map_err(unwritable)?;
        self.file = Some(file);
        Ok(())
    }

    async fn look_at_the_disk(&mut self) -> Result<(), Refused> {
        if self.read_bytes - self.looked_at_bytes < LOOK_EVERY_BYTES {
            return Ok(());
        }
        self.looked_at_bytes = self.read_bytes;
        match self.queue.inner.journal.has_space().await {
            true => Ok(()),
            false => Err(Refused::Unavailable(Unavailable::NoSpace)),
        }
    }
}

fn unwritable(error: io::Error) -> Refused {
    let why = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Unavailable::NoSpace,
        _ => Unavailable::Failing,
    };
    warn!(%error, "A body cannot be spooled; the write is refused.");
    Refused::Unavailable(why)
}

/// What bodies may take while they are gathered.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    gathered_bytes: Arc<AtomicU64>,
    max_bytes: u64,
}

impl Budget {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            gathered_bytes: Arc::default(),
            max_bytes: (config.max_bytes / 4).max(config.max_item_bytes),
        }
    }

    fn gather(&self, bytes: u64) -> Result<(), Full> {
        let more = |gathered: u64| {
            let gathered = gathered.checked_add(bytes)?;
            (gathered <= self.max_bytes).then_some(gathered)
        };
        let gathered = &self.gathered_bytes;
        gathered
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more)
            .map_err(|_| Full::Bytes)?;
        Ok(())
    }
}

/// The part of the budget that a body takes while it is gathered, and passed on. Given back when it is dropped.
#[derive(Debug)]
pub(super) struct SpoolRoom {
    budget: Budget,
    bytes: u64,
}

impl SpoolRoom {
    /// Takes so much more.
    ///
    /// # Errors
    /// When there is not so much left.
    pub(super) fn take(&mut self, bytes: u64) -> Result<(), Full> {
        self.budget.gather(bytes)?;
        self.bytes += bytes;
        Ok(())
    }
}

impl Drop for SpoolRoom {
    fn drop(&mut self) {
        let gathered_bytes = &self.budget.gathered_bytes;
        gathered_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::{Budget, SpoolRoom};
    use crate::queue::{Config, index::Full, tests::config};

    fn room(budget: &Budget) -> SpoolRoom {
        SpoolRoom {
            budget: budget.clone(),
            bytes: 0,
        }
    }

    #[test]
    fn a_quarter_of_the_queues_bytes_may_be_gathered() {
        let config = Config {
            max_bytes: 1_000,
            max_item_bytes: 100,
            ..config()
        };
        let budget = Budget::new(&config);
        let (mut first, mut second) = (room(&budget), room(&budget));
        first.take(150).unwrap();
        second.take(100).unwrap();
        assert_eq!(second.take(1), Err(Full::Bytes));
        assert_eq!(second.take(u64::MAX), Err(Full::Bytes));
        drop(first);
        second.take(150).unwrap();
        drop(second);
        room(&budget).take(250).unwrap();
    }

    #[test]
    fn one_body_may_always_be() {
        let config = Config {
            max_bytes: 1_000,
            max_item_bytes: 300,
            ..config()
        };
        room(&Budget::new(&config)).take(300).unwrap();
    }
}
