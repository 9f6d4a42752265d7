//! The body of a write while it is read: whole before anything is sent, so that it can be sent again, and so that an upload that
//! breaks off reaches no origin.
//!
//! Bounds: up to 64 KiB in memory; beyond in a file of the spool, of at most `queue.max_item`. All of these together with what is
//! queued take at most `queue.max_bytes`; but a quarter of that they may always take, so that a full queue refuses nothing that
//! can be passed on. While the disk is nearly full no file grows. Invariant: what a file takes of that room it gives back when it
//! is gone, or when its write is appended and counts itself ([`SpoolRoom`]).

use std::{
    io,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::{Bytes, BytesMut};
use tracing::warn;

use super::{
    Config, INLINE_BODY_MAX_BYTES, NewBody, Queue, Refused, SpoolFile, Unavailable,
    index::{Full, Index, Room},
    item::Origin,
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

/// What `queue.max_bytes` is spent on: what is queued, and what is gathered.
#[derive(Clone, Debug)]
pub(super) struct Budget {
    index: Arc<Mutex<Index>>,
    /// Only raised with the index locked, so that both sides are looked at together.
    gathered_bytes: Arc<AtomicU64>,
    max_bytes: u64,
    /// What may be gathered although the queue is full.
    own_bytes: u64,
}

impl Budget {
    pub(super) fn new(index: &Arc<Mutex<Index>>, config: &Config) -> Self {
        Self {
            index: Arc::clone(index),
            gathered_bytes: Arc::default(),
            max_bytes: config.max_bytes,
            own_bytes: (config.max_bytes / 4).max(config.max_item_bytes),
        }
    }

    /// Promises room for a write that is about to be appended. What its body took while it was gathered is part of it.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn reserve(
        &self,
        origin: &Origin,
        room: Room,
        body: &mut NewBody,
    ) -> Result<(), Full> {
        let mut index = self.index();
        if let NewBody::Spooled(file) = body {
            file.give_back_room();
        }
        if self.used_bytes(&index).saturating_add(room.weight_bytes) > self.max_bytes {
            return Err(Full::Bytes);
        }
        index.reserve(origin, room)
    }

    fn gather(&self, bytes: u64) -> Result<(), Full> {
        let index = self.index();
        let gathered_bytes = self.gathered_bytes.load(Ordering::Relaxed);
        let is_own = gathered_bytes.saturating_add(bytes) <= self.own_bytes;
        if !is_own && self.used_bytes(&index).saturating_add(bytes) > self.max_bytes {
            return Err(Full::Bytes);
        }
        self.gathered_bytes.fetch_add(bytes, Ordering::Relaxed);
        Ok(())
    }

    fn used_bytes(&self, index: &Index) -> u64 {
        let gathered_bytes = self.gathered_bytes.load(Ordering::Relaxed);
        index.usage().bytes.saturating_add(gathered_bytes)
    }

    fn index(&self) -> MutexGuard<'_, Index> {
        self.index.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The part of `queue.max_bytes` that a body takes while it is gathered, and passed on. Given back when it is dropped.
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
    use std::sync::{Arc, Mutex};

    use super::{Budget, SpoolRoom};
    use crate::queue::{
        Config, NewBody,
        index::{Full, Index, Room},
        tests::{config, item},
    };

    fn budget() -> Budget {
        let config = Config {
            max_bytes: 1_000,
            max_item_bytes: 300,
            ..config()
        };
        let index = Arc::new(Mutex::new(Index::new(&config)));
        Budget::new(&index, &config)
    }

    fn room(budget: &Budget) -> SpoolRoom {
        SpoolRoom {
            budget: budget.clone(),
            bytes: 0,
        }
    }

    fn reserve(budget: &Budget, weight_bytes: u64) -> Result<(), Full> {
        let item = crate::queue::Item {
            weight_bytes,
            ..item()
        };
        let mut body = NewBody::Inline(bytes::Bytes::new());
        budget.reserve(&item.origin, Room::of(&item), &mut body)
    }

    #[test]
    fn what_is_gathered_and_what_is_queued_share_one_room() {
        let budget = budget();
        let (mut first, mut second) = (room(&budget), room(&budget));
        first.take(300).unwrap();
        second.take(300).unwrap();
        reserve(&budget, 300).unwrap();
        assert_eq!(second.take(101), Err(Full::Bytes));
        assert_eq!(reserve(&budget, 101), Err(Full::Bytes));
        drop(first);
        second.take(400).unwrap();
        drop(second);
        reserve(&budget, 700).unwrap();
    }

    #[test]
    fn a_full_queue_leaves_room_for_what_may_be_passed_on() {
        let budget = budget();
        reserve(&budget, 1_000).unwrap();
        let mut passing = room(&budget);
        passing.take(200).unwrap();
        passing.take(100).unwrap();
        assert_eq!(room(&budget).take(1), Err(Full::Bytes));
        drop(passing);
        room(&budget).take(300).unwrap();
    }
}
