//! Interim responses (RFC 9110 section 15.2), such as 103 Early Hints (RFC 8297), on their way from an origin to the
//! client that waits for it. They are never stored.
//!
//! ```text
//! the exchange with the origin ─ Interim ─► relay, in the request's own future ─► Outbox ─► socket, at its next flush
//! ```
//!
//! hyper's server cannot send them, so they go out beside it. What makes that sound: hyper polls a request's future and
//! the socket's flush in one task, one request at a time, and flushes the socket only when it has no bytes of its own
//! left. So what is written at a flush, for a request that is not answered yet, stands between two responses, and before
//! its own. [`relay`] keeps the answer back until everything is written. Whatever comes later, or for a client that has
//! gone, has nobody who would read it, and is dropped.
//!
//! Who gets them: the request for which the origin was asked, and nobody who only follows its fill. Until the final head
//! has come nobody knows whether the answer may be shared at all, and hints for one user are not for another.
//!
//! Which: 102 to 199. hyper's server sends 100 itself, as soon as it reads a body that a client holds back; a 101 is no
//! interim response. Fields for one hop are removed, as from every message.
//!
//! Bounds: [`HEADS_MAX`] and [`BYTES_MAX`] for one request; the rest is dropped. Deliberately absent: clients that speak
//! HTTP/1.0, which know none, and HTTP/2, where hyper's server (1.12) offers no way to send them.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, BufMut, Bytes, BytesMut};
use futures_util::task::AtomicWaker;
use http::{HeaderMap, Request, StatusCode, Version, header};
use tokio::io::AsyncWrite;

use super::{identity::via_downstream, outgoing::remove_hop_by_hop};
use crate::upstream::OnInterim;

/// Interim responses that one request gets. Pages send a few hints; a server that works long sends a 102 now and then.
const HEADS_MAX: usize = 16;
/// Bytes of them: half of what a response head has at most, as a rule.
const BYTES_MAX: usize = 16 * 1024;

/// Takes the interim responses of the exchanges that are made for one request.
#[derive(Clone, Debug)]
pub(crate) struct Interim(Arc<Passing>);

#[derive(Debug, Default)]
struct Passing {
    // Looked at for every request, of which few have any: no lock for that.
    has_any: AtomicBool,
    waiting: Mutex<Passed>,
    relay: AtomicWaker,
}

#[derive(Debug, Default)]
struct Passed {
    heads: Vec<Bytes>,
    /// How many there have been, and their bytes.
    heads_count: usize,
    bytes: usize,
    /// Nobody waits for them any more.
    is_over: bool,
}

/// Heads on their way to the request's future.
#[derive(Debug)]
pub(crate) struct Heads(Arc<Passing>);

/// Both ends, for a request that came by this version; `None` where it cannot have interim responses.
pub(crate) fn channel(version: Version) -> Option<(Interim, Heads)> {
    if version != Version::HTTP_11 {
        return None;
    }
    let passing = Arc::new(Passing::default());
    Some((Interim(Arc::clone(&passing)), Heads(passing)))
}

impl Interim {
    /// Takes what the origin sends before it answers a request.
    pub(crate) fn listener(&self) -> OnInterim {
        let Self(passing) = self.clone();
        OnInterim::new(move |status, headers| passing.take(status, headers))
    }

    /// Takes what the origin sends before it answers `request`.
    pub(crate) fn listen<B>(&self, request: &mut Request<B>) {
        request.extensions_mut().insert(self.listener());
    }
}

impl Passing {
    fn take(&self, status: StatusCode, headers: &HeaderMap) {
        let passes = matches!(status.as_u16(), 102..=199);
        let mut waiting = lock(&self.waiting);
        if !passes || waiting.heads_count == HEADS_MAX || waiting.is_over {
            return;
        }
        let head = render(status, headers);
        let bytes = waiting.bytes + head.len();
        if bytes > BYTES_MAX {
            return;
        }
        waiting.heads_count += 1;
        waiting.bytes = bytes;
        waiting.heads.push(head);
        drop(waiting);
        self.has_any.store(true, Ordering::Release);
        self.relay.wake();
    }
}

impl Heads {
    /// What has come since the last time.
    fn take(&self) -> Vec<Bytes> {
        if !self.0.has_any.swap(false, Ordering::AcqRel) {
            return Vec::new();
        }
        std::mem::take(&mut lock(&self.0.waiting).heads)
    }
}

impl Drop for Heads {
    fn drop(&mut self) {
        lock(&self.0.waiting).is_over = true;
    }
}

/// As it goes to an HTTP/1.1 client. The types of names and values leave no room for a line break.
fn render(status: StatusCode, headers: &HeaderMap) -> Bytes {
    let mut headers = headers.clone();
    remove_hop_by_hop(&mut headers);
    // There is no content that they could describe (RFC 9110 sections 8.6 and 15.2).
    for name in [header::CONTENT_LENGTH, header::TRAILER] {
        headers.remove(name);
    }
    headers.append(header::VIA, via_downstream(Version::HTTP_11));
    let mut head = BytesMut::new();
    head.put_slice(b"HTTP/1.1 ");
    head.put_slice(status.as_str().as_bytes());
    head.put_u8(b' ');
    head.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    head.put_slice(b"\r\n");
    for (name, value) in &headers {
        head.put_slice(name.as_str().as_bytes());
        head.put_slice(b": ");
        head.put_slice(value.as_bytes());
        head.put_slice(b"\r\n");
    }
    head.put_slice(b"\r\n");
    head.freeze()
}

/// Does `work`, which answers a request; passes on meanwhile what comes for it, and returns when that is written.
pub(crate) async fn relay<T>(
    heads: Option<Heads>,
    outbox: &Outbox,
    mut work: Pin<&mut impl Future<Output = T>>,
) -> T {
    let Some(heads) = heads else {
        return work.await;
    };
    let answer = std::future::poll_fn(|cx| {
        heads.0.relay.register(cx.waker());
        let answer = work.as_mut().poll(cx);
        // What came while it was polled, too: before the answer, or for the flush that follows.
        for head in heads.take() {
            outbox.push(&head);
        }
        answer
    })
    .await;
    outbox.written().await;
    answer
}

/// Interim responses for the socket of one connection: what the request's future puts in, the next flush writes.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    // Looked at by every flush, also of a hit: no lock for that.
    waits: AtomicBool,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: BytesMut,
    answer: Option<Waker>,
}

impl Outbox {
    fn push(&self, head: &[u8]) {
        lock(&self.waiting).bytes.extend_from_slice(head);
        self.waits.store(true, Ordering::Release);
    }

    /// Whether there is anything to write.
    pub(crate) fn waits(&self) -> bool {
        self.waits.load(Ordering::Acquire)
    }

    /// Writes as much as `io` takes at once.
    pub(crate) fn poll_write<I: AsyncWrite + Unpin>(
        &self,
        io: &mut I,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        let mut waiting = lock(&self.waiting);
        let count = ready!(Pin::new(io).poll_write(cx, &waiting.bytes))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        waiting.bytes.advance(count);
        if waiting.bytes.is_empty() {
            *waiting = Waiting {
                bytes: BytesMut::new(),
                answer: waiting.answer.take(),
            };
            self.waits.store(false, Ordering::Release);
            if let Some(answer) = waiting.answer.take() {
                answer.wake();
            }
        }
        Poll::Ready(Ok(count))
    }

    /// Returns when nothing is left to write; a connection that breaks off drops whoever waits here.
    async fn written(&self) {
        std::future::poll_fn(|cx| {
            if !self.waits() {
                return Poll::Ready(());
            }
            let mut waiting = lock(&self.waiting);
            if waiting.bytes.is_empty() {
                return Poll::Ready(());
            }
            waiting.answer = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every section leaves what is inside consistent, so a panic elsewhere does not spoil it.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::{future::poll_fn, pin::pin, task::Poll};

    use futures_util::FutureExt;
    use http::{HeaderMap, HeaderValue, StatusCode, Version};
    use tokio::io::{AsyncReadExt, duplex};

    use super::{BYTES_MAX, HEADS_MAX, Outbox, channel, relay, render};

    fn fields(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn what_concerns_one_hop_or_a_body_is_not_passed_on() {
        let headers = fields(&[
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("transfer-encoding", "chunked"),
            ("content-length", "5"),
            ("trailer", "etag"),
            ("link", "</a.css>; rel=preload"),
            ("link", "</b.css>; rel=preload"),
        ]);
        assert_eq!(
            render(StatusCode::from_u16(103).unwrap(), &headers),
            "HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\nlink: </b.css>; rel=preload\r\nvia: 1.1 hardtack\r\n\r\n"
        );
        let unknown = render(StatusCode::from_u16(150).unwrap(), &HeaderMap::new());
        assert_eq!(unknown, "HTTP/1.1 150 \r\nvia: 1.1 hardtack\r\n\r\n");
    }

    #[test]
    fn only_interim_statuses_pass_that_hyper_does_not_send_itself() {
        let (interim, heads) = channel(Version::HTTP_11).unwrap();
        for status in [100, 101, 102, 103, 104, 199, 200] {
            interim
                .0
                .take(StatusCode::from_u16(status).unwrap(), &HeaderMap::new());
        }
        let passed: Vec<u16> = heads
            .take()
            .iter()
            .map(|head| std::str::from_utf8(&head[9..12]).unwrap().parse().unwrap())
            .collect();
        assert_eq!(passed, [102, 103, 104, 199]);
    }

    #[test]
    fn a_flood_is_bounded_in_number_and_in_bytes() {
        let check = |headers: &HeaderMap, heads_max: usize| {
            let (interim, heads) = channel(Version::HTTP_11).unwrap();
            for _ in 0..10_000 {
                interim.0.take(StatusCode::from_u16(103).unwrap(), headers);
            }
            let passed = heads.take();
            assert_eq!(passed.len(), heads_max);
            assert!(passed.iter().map(bytes::Bytes::len).sum::<usize>() <= BYTES_MAX);
        };
        check(&fields(&[("link", "</a.css>")]), HEADS_MAX);
        let mut large = HeaderMap::new();
        large.insert("link", HeaderValue::from_bytes(&[b'a'; 6_000]).unwrap());
        check(&large, 2);
        large.insert("link", HeaderValue::from_bytes(&[b'a'; 60_000]).unwrap());
        check(&large, 0);
    }

    #[test]
    fn only_http_1_1_clients_get_any() {
        assert!(channel(Version::HTTP_10).is_none());
        assert!(channel(Version::HTTP_2).is_none());
    }

    #[tokio::test]
    async fn an_answer_waits_until_what_came_before_it_is_written() {
        let (interim, heads) = channel(Version::HTTP_11).unwrap();
        let early_hints = StatusCode::from_u16(103).unwrap();
        let outbox = Outbox::default();
        let work = pin!(async {
            // In the same moment as the answer.
            interim.0.take(early_hints, &HeaderMap::new());
            "answer"
        });
        let mut answer = Box::pin(relay(Some(heads), &outbox, work));
        assert!((&mut answer).now_or_never().is_none());
        assert!(outbox.waits());

        // A socket that takes a few bytes at a time.
        let (mut client, mut socket) = duplex(7);
        let expected = render(early_hints, &HeaderMap::new());
        let mut read = vec![0; expected.len()];
        let writing = poll_fn(|cx| {
            while outbox.waits() {
                if outbox.poll_write(&mut socket, cx)?.is_pending() {
                    return Poll::Pending;
                }
            }
            Poll::Ready(Ok::<_, std::io::Error>(()))
        });
        let (written, _) = tokio::try_join!(writing, client.read_exact(&mut read)).unwrap();
        assert_eq!(((), read), (written, expected.to_vec()));
        assert_eq!(answer.now_or_never(), Some("answer"));
    }

    #[tokio::test]
    async fn what_comes_after_the_answer_is_dropped() {
        let (interim, heads) = channel(Version::HTTP_11).unwrap();
        let outbox = Outbox::default();
        relay(Some(heads), &outbox, pin!(async {})).await;
        interim
            .0
            .take(StatusCode::from_u16(103).unwrap(), &HeaderMap::new());
        assert!(!outbox.waits());
    }
}
