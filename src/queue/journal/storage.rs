//! The storage beneath redb: its commits are watched, and the file of a database that is known to be damaged is spared.
//!
//! Opening writes, and repairs by what it reads. What redb writes when it opens a damaged database is kept apart, in memory,
//! where redb finds it again: the file stays as it was found, to be read page by page and set aside. Bound:
//! [`APART_MAX_BYTES`].

use std::{
    collections::BTreeMap,
    io,
    ops::Bound,
    sync::{Mutex, MutexGuard, PoisonError},
};

use redb::{BackendError, StorageBackend};

use super::turn::Turn;

/// What is kept apart is kept in blocks of this.
const BLOCK_BYTES: usize = 4_096;

/// What redb may write apart. To open and close a database of many gigabytes it writes a few megabytes.
const APART_MAX_BYTES: usize = 64 * 1024 * 1024;

/// A storage beneath redb.
#[derive(Debug)]
pub(super) struct Storage<B> {
    inner: B,
    turn: Turn,
    // `None`: what is written goes into the file.
    apart: Option<Mutex<Written>>,
}

/// What was written apart.
#[derive(Debug)]
struct Written {
    len: u64,
    /// Of the file no more is seen than this: redb may have cut it and made it longer again.
    seen: u64,
    /// By their numbers.
    blocks: BTreeMap<u64, Vec<u8>>,
}

impl<B: StorageBackend> Storage<B> {
    /// On this one.
    pub(super) fn new(inner: B, turn: &Turn) -> Self {
        Self {
            inner,
            turn: turn.clone(),
            apart: None,
        }
    }

    /// On this one, into which nothing is written.
    pub(super) fn apart(inner: B) -> io::Result<Self> {
        let len = inner.len()?;
        let nothing = Written {
            len,
            seen: len,
            blocks: BTreeMap::new(),
        };
        Ok(Self {
            inner,
            turn: Turn::default(),
            apart: Some(Mutex::new(nothing)),
        })
    }

    fn written(&self) -> Option<MutexGuard<'_, Written>> {
        let written = self.apart.as_ref()?.lock();
        // Each change is of one piece, so a panic elsewhere does not spoil it.
        Some(written.unwrap_or_else(PoisonError::into_inner))
    }

    /// Reads what the file has of this, and zeros beyond.
    fn read_seen(&self, seen: u64, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let here = usize::try_from(seen.saturating_sub(offset)).unwrap_or(usize::MAX);
        let (seen, beyond) = out.split_at_mut(here.min(out.len()));
        beyond.fill(0);
        match seen {
            [] => Ok(()),
            seen => self.inner.read(offset, seen),
        }
    }

    fn read_apart(&self, written: &Written, offset: u64, out: &mut [u8]) -> io::Result<()> {
        if offset.saturating_add(out.len() as u64) > written.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_seen(written.seen, offset, out)?;
        for (number, within, piece) in pieces(offset, out) {
            if let Some(block) = written.blocks.get(&number) {
                piece.copy_from_slice(&block[within..within + piece.len()]);
            }
        }
        Ok(())
    }

    fn write_apart(&self, written: &mut Written, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut data = data.to_vec();
        for (number, within, piece) in pieces(offset, &mut data) {
            if !written.blocks.contains_key(&number) {
                if written.blocks.len() >= APART_MAX_BYTES / BLOCK_BYTES {
                    return Err(io::ErrorKind::StorageFull.into());
                }
                let mut block = vec![0; BLOCK_BYTES];
                self.read_seen(written.seen, number * BLOCK_BYTES as u64, &mut block)?;
                written.blocks.insert(number, block);
            }
            if let Some(block) = written.blocks.get_mut(&number) {
                block[within..within + piece.len()].copy_from_slice(piece);
            }
        }
        written.len = written.len.max(offset.saturating_add(data.len() as u64));
        Ok(())
    }
}

impl Written {
    fn set_len(&mut self, len: u64) {
        let first_beyond = len.div_ceil(BLOCK_BYTES as u64);
        self.blocks.split_off(&first_beyond);
        if let Some(last) = self.blocks.get_mut(&(len / BLOCK_BYTES as u64)) {
            let within = usize::try_from(len % BLOCK_BYTES as u64).unwrap_or(0);
            last[within..].fill(0);
        }
        self.seen = self.seen.min(len);
        self.len = len;
    }
}

/// `bytes` at `offset` by the blocks they are in: the number of each, where in it they begin, and those bytes.
fn pieces(offset: u64, bytes: &mut [u8]) -> impl Iterator<Item = (u64, usize, &mut [u8])> {
    let mut at = offset;
    let mut left = bytes;
    std::iter::from_fn(move || {
        let within = usize::try_from(at % BLOCK_BYTES as u64).unwrap_or(0);
        let bytes = left.len().min(BLOCK_BYTES - within);
        let number = at / BLOCK_BYTES as u64;
        at += bytes as u64;
        left.split_off_mut(..bytes)
            .filter(|piece| !piece.is_empty())
            .map(|piece| (number, within, piece))
    })
}

impl<B: StorageBackend> StorageBackend for Storage<B> {
    fn len(&self) -> io::Result<u64> {
        match self.written() {
            Some(written) => Ok(written.len),
            None => self.inner.len(),
        }
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        match self.written() {
            Some(written) => self.read_apart(&written, offset, out),
            None => self.inner.read(offset, out),
        }
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        match self.written() {
            Some(mut written) => {
                written.set_len(len);
                Ok(())
            }
            None => self.inner.set_len(len),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.apart.is_some() {
            return Ok(());
        }
        self.inner.sync_data()?;
        self.turn.synced();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        if let Some(mut written) = self.written() {
            return self.write_apart(&mut written, offset, data);
        }
        if offset == 0 {
            // Also where it fails: a part may have been written.
            self.turn.turning();
        }
        self.inner.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.inner.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.try_lock_range(start, end)
    }

    fn try_lock_shared_range(
        &self,
        start: Bound<u64>,
        end: Bound<u64>,
    ) -> Result<bool, BackendError> {
        self.inner.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.inner.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.inner.query_lock_range(start, end)
    }
}

#[cfg(test)]
mod tests {
    use redb::{StorageBackend, backends::InMemoryBackend};

    use super::{BLOCK_BYTES, Storage};

    const LEN: usize = 3 * BLOCK_BYTES;

    /// A storage that is full of sevens, into which nothing is written.
    fn spared() -> Storage<InMemoryBackend> {
        let inner = InMemoryBackend::new();
        inner.set_len(LEN as u64).unwrap();
        inner.write(0, &[7; LEN]).unwrap();
        Storage::apart(inner).unwrap()
    }

    fn all(storage: &impl StorageBackend) -> Vec<u8> {
        let mut all = vec![0; usize::try_from(storage.len().unwrap()).unwrap()];
        storage.read(0, &mut all).unwrap();
        all
    }

    /// The same as a storage of its own would say, whatever is written and cut, and nothing of it in the file.
    #[test]
    fn what_is_written_apart_is_read_again_and_not_in_the_file() {
        let storage = spared();
        let mut expected = vec![7; LEN];
        let mut random = fastrand::Rng::with_seed(5);
        for round in 1..=200_u8 {
            match random.u8(..4) {
                0 => {
                    let len = random.usize(1..2 * LEN);
                    storage.set_len(len as u64).unwrap();
                    expected.resize(len, 0);
                }
                _ => {
                    let start = random.usize(..expected.len());
                    let end = random.usize(start..expected.len().min(start + 2 * BLOCK_BYTES));
                    storage
                        .write(start as u64, &vec![round; end - start])
                        .unwrap();
                    expected[start..end].fill(round);
                }
            }
            assert!(all(&storage) == expected, "round {round}");
        }
        assert!(all(&storage.inner) == vec![7; LEN]);
    }

    #[test]
    fn beyond_the_end_there_is_nothing_and_memory_is_bounded() {
        let storage = spared();
        assert!(storage.read(LEN as u64 - 1, &mut [0; 2]).is_err());
        storage.set_len(1 << 40).unwrap();
        let blocks = (0..u64::MAX).map(|number| storage.write(number * BLOCK_BYTES as u64, b"1"));
        let written = blocks.take_while(Result::is_ok).count();
        assert_eq!(written * BLOCK_BYTES, super::APART_MAX_BYTES);
    }
}
