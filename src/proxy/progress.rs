//! How slowly a client may send a body: not without a byte for long, nor in drops.
//!
//! Only time in which somebody waits for the client counts: while the origin is slow to take the body, the client is
//! not to blame. HTTP/1 bodies are timed on the socket ([`super::guarded_io`]), which hyper reads only when it has
//! room; on HTTP/2 the streams share a socket, so there each body is wrapped in [`InTime`].

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::upstream::BodyError;

/// Between two reads of a body.
const PROGRESS_TIMEOUT: Duration = Duration::from_secs(15);
/// A body's average after [`RATE_GRACE`]; below it a client is a slow-body attack, or as good as gone.
const MIN_BYTES_PER_SEC: u64 = 500;
const RATE_GRACE: Duration = Duration::from_secs(10);

/// The pace of one body.
#[derive(Debug, Default)]
pub(crate) struct Pace {
    bytes: u64,
    waited: Duration,
    waiting_since: Option<Instant>,
}

impl Pace {
    /// Bytes have come: the wait for them is over.
    pub(crate) fn came(&mut self, bytes: usize, now: Instant) {
        self.bytes += bytes as u64;
        if let Some(since) = self.waiting_since.take() {
            self.waited += now - since;
        }
    }

    /// Nothing is there: the wait begins, unless it has. When it will have been too long.
    pub(crate) fn wait(&mut self, now: Instant) -> Instant {
        let since = *self.waiting_since.get_or_insert(now);
        let at_min_rate = Duration::from_secs(self.bytes / MIN_BYTES_PER_SEC);
        let patience = (RATE_GRACE + at_min_rate).saturating_sub(self.waited);
        since + patience.min(PROGRESS_TIMEOUT)
    }
}

/// A request body that fails when its client sends it too slowly.
#[derive(Debug)]
pub(crate) struct InTime<B> {
    body: B,
    pace: Pace,
    timer: Option<Pin<Box<Sleep>>>,
}

/// Why a body was given up.
#[derive(Debug, thiserror::Error)]
#[error("the client took too long to send the request body")]
struct TooSlow;

impl<B> InTime<B> {
    /// Times `body` from its first read on.
    pub(crate) fn new(body: B) -> Self {
        Self {
            body,
            pace: Pace::default(),
            timer: None,
        }
    }

    fn poll_too_slow(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let deadline = self.pace.wait(Instant::now());
        let timer = self
            .timer
            .get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        if timer.deadline() != deadline {
            timer.as_mut().reset(deadline);
        }
        timer.as_mut().poll(cx)
    }
}

impl<B> Body for InTime<B>
where
    B: Body<Data = Bytes, Error: Into<BodyError>> + Unpin,
{
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        match Pin::new(&mut this.body).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Bytes::len);
                this.pace.came(bytes, Instant::now());
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(ended) => Poll::Ready(ended.map(|frame| frame.map_err(Into::into))),
            Poll::Pending => {
                ready!(this.poll_too_slow(cx));
                Poll::Ready(Some(Err(TooSlow.into())))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, time::Duration};

    use bytes::Bytes;
    use futures_util::{Stream, StreamExt, stream};
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::time::{Instant, sleep};

    use super::InTime;

    /// Frames of `bytes` bytes, `pause_secs` apart.
    fn paced(
        bytes: usize,
        pause_secs: u64,
    ) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> {
        stream::unfold((), move |()| async move {
            sleep(Duration::from_secs(pause_secs)).await;
            Some((Ok(Frame::data(vec![0; bytes].into())), ()))
        })
    }

    /// Reads frames, `rest_secs` between two: how many came, and after how many seconds the body failed or ended.
    async fn read(
        frames: impl Stream<Item = Result<Frame<Bytes>, Infallible>>,
        rest_secs: u64,
    ) -> (usize, u64) {
        let mut body = InTime::new(StreamBody::new(Box::pin(frames)));
        let (began, mut count) = (Instant::now(), 0);
        while let Some(Ok(_)) = body.frame().await {
            count += 1;
            sleep(Duration::from_secs(rest_secs)).await;
        }
        (count, began.elapsed().as_secs())
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_never_comes_is_given_up() {
        assert_eq!(read(stream::pending(), 0).await, (0, 10));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stops_is_given_up_after_fifteen_seconds() {
        let stops = paced(100_000, 0).take(1).chain(stream::pending());
        assert_eq!(read(stops, 0).await, (1, 15));
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_in_drops_is_given_up() {
        let (count, after) = read(paced(1, 1), 0).await;
        assert!((9..=10).contains(&count), "{count}");
        assert_eq!(after, 10);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_body_above_the_least_rate_may_take_as_long_as_it_needs() {
        let slow = paced(6_000, 10).take(100);
        assert_eq!(read(slow, 0).await, (100, 1_000));
    }

    #[tokio::test(start_paused = true)]
    async fn time_in_which_nobody_reads_does_not_count() {
        assert_eq!(read(paced(1, 0).take(50), 60).await, (50, 3_000));
    }
}
