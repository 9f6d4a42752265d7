//! A body that grows while it is read: one fill writes, any number of readers follow from the first byte, each at its
//! own pace.
//!
//! Two ways of keeping. *Whole*: every byte stays until the end, so that readers may join at any time and the body can
//! be stored; the fill never waits for a reader. *Window*: what every reader has had is dropped, the fill waits for the
//! slowest reader, nobody can join, and the last reader's leaving ends it. A whole body turns into a window when it
//! outgrows what may be stored; never the other way round.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};

use bytes::{Bytes, BytesMut};
use http::HeaderMap;
use http_body::{Body, Frame};
use tokio::sync::OwnedSemaphorePermit;

use crate::upstream::BodyError;

/// Bytes that a window holds for its slowest reader: a few socket buffers.
const WINDOW_BYTES: u64 = 1 << 20;

/// A growing body, shared by its fill and its readers.
#[derive(Debug, Default)]
pub(crate) struct Growing {
    state: Mutex<State>,
}

/// One reader. Dropping it gives its place up.
#[derive(Debug)]
pub(crate) struct Reader {
    growing: Arc<Growing>,
    slot: usize,
    next_chunk: u64,
    had_trailers: bool,
}

/// The body broke off before its end; what was read must not look whole.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the body broke off before its end")]
pub(crate) struct BrokenOff;

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Bytes>,
    // Position, counted in chunks since the start, of the first chunk still kept.
    first_chunk: u64,
    kept_bytes: u64,
    total_bytes: u64,
    // How long it will be, where that is known.
    whole_bytes: Option<u64>,
    window: bool,
    // The share of the budget for bodies in flight; given back as bytes are dropped, the rest with the last reader.
    budget: Option<OwnedSemaphorePermit>,
    end: Option<Result<Option<HeaderMap>, BrokenOff>>,
    readers: Vec<Option<ReaderSlot>>,
    writer: Option<Waker>,
}

#[derive(Debug, Default)]
struct ReaderSlot {
    next_chunk: u64,
    waker: Option<Waker>,
}

impl Growing {
    /// Says how long it will be.
    pub(crate) fn expect(&self, whole_bytes: Option<u64>) {
        self.lock().whole_bytes = whole_bytes;
    }

    /// Whether a reader may have had all of it: the end, or as many bytes as it has. A window is complete with
    /// its end only.
    pub(crate) fn is_complete(&self) -> bool {
        let state = self.lock();
        let has_all = state.whole_bytes == Some(state.total_bytes);
        state.end.is_some() || has_all && !state.window
    }

    /// Whether it has come to its end.
    pub(crate) fn is_finished(&self) -> bool {
        self.lock().end.is_some()
    }

    /// Appends a chunk and wakes the readers.
    pub(crate) fn push(&self, chunk: Bytes) {
        if chunk.is_empty() {
            return;
        }
        let mut state = self.lock();
        state.total_bytes += chunk.len() as u64;
        state.kept_bytes += chunk.len() as u64;
        state.chunks.push_back(chunk);
        state.drop_what_was_read();
        state.wake_readers();
    }

    /// Holds a further share of the budget for bodies in flight, one permit a byte, for as long as its bytes are kept.
    pub(crate) fn hold(&self, share: OwnedSemaphorePermit) {
        match &mut self.lock().budget {
            Some(held) => held.merge(share),
            none => *none = Some(share),
        }
    }

    /// Whether anybody reads.
    pub(crate) fn has_readers(&self) -> bool {
        self.lock().readers.iter().any(Option::is_some)
    }

    /// Marks the end, whole, perhaps with trailers, or broken off. The first end stands.
    pub(crate) fn finish(&self, end: Result<Option<HeaderMap>, BrokenOff>) {
        let mut state = self.lock();
        state.end.get_or_insert(end);
        state.wake_readers();
    }

    /// From now on keep a window only.
    pub(crate) fn become_window(&self) {
        let mut state = self.lock();
        state.window = true;
        state.drop_what_was_read();
    }

    /// Waits until the window has room; at once while the body is kept whole. `false` when nobody reads a window.
    pub(crate) async fn room(&self) -> bool {
        std::future::poll_fn(|cx| {
            let mut state = self.lock();
            if !state.window {
                return Poll::Ready(true);
            }
            if state.readers.iter().all(Option::is_none) {
                return Poll::Ready(false);
            }
            if state.kept_bytes <= WINDOW_BYTES {
                return Poll::Ready(true);
            }
            state.writer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await
    }

    /// A reader from the first byte, or `None` when the beginning is no longer kept.
    pub(crate) fn reader(self: &Arc<Self>) -> Option<Reader> {
        let mut state = self.lock();
        if state.window && (state.first_chunk > 0 || !state.readers.is_empty()) {
            return None;
        }
        let slot = state
            .readers
            .iter()
            .position(Option::is_none)
            .unwrap_or(state.readers.len());
        if slot == state.readers.len() {
            state.readers.push(None);
        }
        state.readers[slot] = Some(ReaderSlot::default());
        Some(Reader {
            growing: Arc::clone(self),
            slot,
            next_chunk: 0,
            had_trailers: false,
        })
    }

    /// The whole body in one buffer of exactly its size, so that no larger read buffer stays alive with it. `None` when
    /// the beginning is no longer kept.
    pub(crate) fn whole(&self) -> Option<Bytes> {
        let (chunks, bytes) = {
            let state = self.lock();
            if state.window {
                return None;
            }
            (state.chunks.clone(), state.total_bytes)
        };
        // Megabytes may be copied here: not under the lock that every reader takes.
        let mut whole = BytesMut::with_capacity(usize::try_from(bytes).ok()?);
        for chunk in &chunks {
            whole.extend_from_slice(chunk);
        }
        Some(whole.freeze())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every section leaves the state consistent, so a panic elsewhere does not spoil it.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn wake_readers(&mut self) {
        for slot in self.readers.iter_mut().flatten() {
            if let Some(waker) = slot.waker.take() {
                waker.wake();
            }
        }
    }

    fn drop_what_was_read(&mut self) {
        if !self.window {
            return;
        }
        let Some(slowest) = self
            .readers
            .iter()
            .flatten()
            .map(|slot| slot.next_chunk)
            .min()
        else {
            return;
        };
        while self.first_chunk < slowest {
            let Some(chunk) = self.chunks.pop_front() else {
                break;
            };
            self.kept_bytes -= chunk.len() as u64;
            self.first_chunk += 1;
            if let Some(budget) = &mut self.budget {
                // What is given back is at most what is held: a window's own bytes are beyond the budget.
                drop(budget.split(chunk.len().min(budget.num_permits())));
            }
        }
        if self.kept_bytes <= WINDOW_BYTES {
            self.wake_writer();
        }
    }

    fn wake_writer(&mut self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

impl Body for Reader {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let mut state = this.growing.lock();
        let index = usize::try_from(this.next_chunk - state.first_chunk)
            .expect("kept chunks fit in memory");
        if let Some(chunk) = state.chunks.get(index).cloned() {
            this.next_chunk += 1;
            if let Some(slot) = &mut state.readers[this.slot] {
                slot.next_chunk = this.next_chunk;
            }
            state.drop_what_was_read();
            return Poll::Ready(Some(Ok(Frame::data(chunk))));
        }
        match &state.end {
            Some(Ok(trailers)) => {
                let trailers = trailers.clone().filter(|_| !this.had_trailers);
                this.had_trailers = true;
                Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))))
            }
            Some(Err(error)) => Poll::Ready(Some(Err((*error).into()))),
            None => {
                if let Some(slot) = &mut state.readers[this.slot] {
                    slot.waker = Some(cx.waker().clone());
                }
                Poll::Pending
            }
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let mut state = self.growing.lock();
        state.readers[self.slot] = None;
        state.drop_what_was_read();
        if state.readers.iter().all(Option::is_none) {
            state.wake_writer();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;
    use http_body_util::BodyExt;
    use tokio::sync::Semaphore;

    use super::{BrokenOff, Growing, WINDOW_BYTES};

    fn block() -> Bytes {
        Bytes::from(vec![7; usize::try_from(WINDOW_BYTES).unwrap()])
    }

    #[tokio::test]
    async fn readers_follow_from_the_first_byte_whenever_they_join() {
        let growing = Arc::new(Growing::default());
        let early = growing.reader().unwrap();
        growing.push(Bytes::from_static(b"one "));
        let late = growing.reader().unwrap();
        growing.push(Bytes::from_static(b"two"));
        growing.finish(Ok(None));
        assert_eq!(early.collect().await.unwrap().to_bytes(), "one two");
        assert_eq!(late.collect().await.unwrap().to_bytes(), "one two");
        assert_eq!(growing.whole().unwrap(), "one two");
    }

    #[tokio::test]
    async fn every_reader_gets_the_trailers_once_and_last() {
        let growing = Arc::new(Growing::default());
        let readers = [growing.reader().unwrap(), growing.reader().unwrap()];
        growing.push(Bytes::from_static(b"body"));
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-sum", "1".parse().unwrap());
        growing.finish(Ok(Some(trailers)));
        for mut reader in readers {
            let data = reader.frame().await.unwrap().unwrap().into_data();
            assert_eq!(data.unwrap(), "body");
            let last = reader.frame().await.unwrap().unwrap().into_trailers();
            assert_eq!(last.unwrap()["x-sum"], "1");
            assert!(reader.frame().await.is_none());
        }
    }

    #[test]
    fn it_is_complete_with_its_last_byte_or_its_end() {
        let growing = Growing::default();
        growing.push(Bytes::from_static(b"four"));
        assert!(!growing.is_complete(), "its length is not known");
        growing.expect(Some(8));
        assert!(!growing.is_complete());
        growing.push(Bytes::from_static(b"more"));
        assert!(growing.is_complete() && !growing.is_finished());
        growing.become_window();
        assert!(!growing.is_complete(), "it may wait for its readers");
        growing.finish(Ok(None));
        assert!(growing.is_complete() && growing.is_finished());
    }

    #[tokio::test]
    async fn a_broken_body_never_looks_whole() {
        let growing = Arc::new(Growing::default());
        let reader = growing.reader().unwrap();
        growing.push(Bytes::from_static(b"half"));
        growing.finish(Err(BrokenOff));
        growing.finish(Ok(None));
        assert!(reader.collect().await.is_err());
    }

    #[tokio::test]
    async fn a_window_waits_for_its_slowest_reader_and_drops_what_was_read() {
        let growing = Arc::new(Growing::default());
        let mut fast = growing.reader().unwrap();
        let mut slow = growing.reader().unwrap();
        growing.become_window();
        growing.push(block());
        growing.push(block());
        fast.frame().await.unwrap().unwrap();
        fast.frame().await.unwrap().unwrap();
        assert!(futures_util::FutureExt::now_or_never(growing.room()).is_none());
        slow.frame().await.unwrap().unwrap();
        assert!(growing.room().await);
        assert!(growing.reader().is_none(), "the beginning is gone");
        assert!(growing.whole().is_none());
    }

    #[tokio::test]
    async fn the_budget_is_held_as_long_as_the_bytes() {
        let budget = Arc::new(Semaphore::new(10));
        let growing = Arc::new(Growing::default());
        let mut reader = growing.reader().unwrap();
        growing.hold(Arc::clone(&budget).try_acquire_many_owned(6).unwrap());
        growing.hold(Arc::clone(&budget).try_acquire_many_owned(4).unwrap());
        growing.push(Bytes::from_static(b"seven.."));
        growing.push(Bytes::from_static(b"3.."));
        assert_eq!(budget.available_permits(), 0);
        growing.become_window();
        reader.frame().await.unwrap().unwrap();
        assert_eq!(budget.available_permits(), 7);
        growing.finish(Ok(None));
        drop((reader, growing));
        assert_eq!(budget.available_permits(), 10);
    }

    #[tokio::test]
    async fn a_window_ends_with_its_last_reader() {
        let growing = Arc::new(Growing::default());
        let reader = growing.reader().unwrap();
        growing.become_window();
        growing.push(block());
        growing.push(block());
        drop(reader);
        assert!(!growing.room().await);
    }
}
