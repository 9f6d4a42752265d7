//! Reading a stored body: from memory at once, from its file block by block, each verified before it is handed out.

use std::{fs::File, ops::Range, sync::Arc};

use bytes::Bytes;
use futures_util::{
    Stream, StreamExt,
    stream::{self},
};
use tokio::task::{JoinHandle, spawn_blocking};

use super::{
    Inner, StoreError,
    disk::{BlockError, Bodies, Corrupt},
    id::RecordId,
    resource::{BLOCK_BYTES, BodyFile, StoredBody, StoredResponse},
};
use crate::policy::CacheKey;

/// A body file that is being read, one block ahead of whoever takes them.
struct Reading {
    inner: Arc<Inner>,
    key: CacheKey,
    id: RecordId,
    body: BodyFile,
    // What of the body is still to be handed out.
    range: Range<u64>,
    // The block in which that begins, on its way.
    ahead: JoinHandle<Result<(Arc<File>, Bytes), BlockError>>,
}

/// The blocks of the bytes of `range`, which is cut to the body.
pub(super) fn read(
    inner: &Arc<Inner>,
    key: &CacheKey,
    stored: &StoredResponse,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
    let end = range.end.min(stored.body.len());
    let range = range.start.min(end)..end;
    match &stored.body {
        StoredBody::Memory(bytes) => {
            let bytes = bytes.slice(index(range.start)..index(range.end));
            let bytes = Some(bytes).filter(|bytes| !bytes.is_empty());
            stream::iter(bytes.map(Ok)).left_stream()
        }
        StoredBody::File(body) => {
            let (inner, key, body) = (inner.clone(), key.clone(), body.clone());
            let id = stored.id();
            // Nothing is read before the first block is asked for.
            stream::once(async move { Reading::start(inner, key, id, body, range) })
                .flat_map(|reading| stream::unfold(reading, Reading::step))
                .right_stream()
        }
    }
}

impl Reading {
    fn start(
        inner: Arc<Inner>,
        key: CacheKey,
        id: RecordId,
        body: BodyFile,
        range: Range<u64>,
    ) -> Option<Self> {
        if range.is_empty() {
            return None;
        }
        let (opener, opened, block) = (inner.clone(), body.clone(), block_of(range.start));
        let ahead = spawn_blocking(move || {
            let disk = opener.disk.as_ref().ok_or(BlockError::Corrupt)?;
            let file = Arc::new(disk.bodies().open(opened.id)?);
            let block = Bodies::read_block(&file, &opened, block)?;
            Ok((file, block))
        });
        Some(Self {
            inner,
            key,
            id,
            body,
            range,
            ahead,
        })
    }

    async fn step(this: Option<Self>) -> Option<(Result<Bytes, StoreError>, Option<Self>)> {
        let mut this = this?;
        match (&mut this.ahead).await {
            Ok(Ok((file, block))) => {
                let begin = block_of(this.range.start) as u64 * BLOCK_BYTES as u64;
                let end = this.range.end.min(begin + block.len() as u64);
                let wanted = block.slice(index(this.range.start - begin)..index(end - begin));
                Some((Ok(wanted), this.read_ahead(file, end)))
            }
            Ok(Err(error)) => Some((Err(this.fail(error)), None)),
            Err(_) => Some((Err(StoreError::Unavailable), None)),
        }
    }

    /// Starts on the block that begins at `next`, if anything is wanted of it.
    fn read_ahead(mut self, file: Arc<File>, next: u64) -> Option<Self> {
        self.range.start = next;
        if self.range.is_empty() {
            return None;
        }
        let (body, block) = (self.body.clone(), block_of(next));
        self.ahead = spawn_blocking(move || {
            let block = Bodies::read_block(&file, &body, block)?;
            Ok((file, block))
        });
        Some(self)
    }

    fn fail(self, error: BlockError) -> StoreError {
        match error {
            BlockError::Io(source) => {
                self.inner.count_error("body");
                StoreError::Io {
                    attempt: "read a body file",
                    source,
                }
            }
            BlockError::Corrupt => {
                self.inner
                    .drop_corrupt_body(&self.key, self.id, self.body.id);
                StoreError::Corrupt
            }
        }
    }
}

fn block_of(at: u64) -> usize {
    index(at / BLOCK_BYTES as u64)
}

/// A place in a body that is in memory, or in a block of one.
fn index(at: u64) -> usize {
    usize::try_from(at).expect("what is in memory has an index")
}

impl Inner {
    fn drop_corrupt_body(&self, key: &CacheKey, id: RecordId, file: u64) {
        self.count_error("corrupt");
        tracing::warn!(%key, "A stored body is corrupt; it is dropped.");
        self.forget_body(key, file);
        self.pending.drop_corrupt(Corrupt {
            id,
            body_file: Some(file),
        });
    }

    /// Takes the variants whose body is in this file out of memory.
    pub(super) fn forget_body(&self, key: &CacheKey, file: u64) {
        let changing = self.memory.change(key.as_str());
        changing.update(key, |variant| {
            let is_it = matches!(&variant.body, StoredBody::File(body) if body.id == file);
            (!is_it).then(|| variant.clone())
        });
    }
}
