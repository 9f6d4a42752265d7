//! Fresh hits over HTTP/1.1 beneath the HTTP library, which is asked only where there is more to do than to read a head,
//! look it up and write one.
//!
//! ```text
//! socket ─ GuardedIo ─ FastPath ─ hyper ─ service (hit, pipeline)
//!                         └─ read: one whole head, and nothing before or behind it; a fresh response is at hand
//! ```
//!
//! Whatever is not answered here is handed on as it was read, and nobody can tell: the policy is asked by the same
//! functions, with the same request, and nothing is counted before it is certain that the answer is given here
//! (`tests/behaviour/fast_path.rs` compares the two ways). What makes it sound: bytes are taken away from hyper, and
//! written beside it, only while hyper has nothing to do. Every head that was read was answered, the bodies of its answers
//! have ended, and what it wrote has gone out: hyper flushes all that it has before it waits for the next head.
//!
//! Once anything is handed on, the connection is left alone until hyper has answered a hit. So hyper is in step, and whoever
//! mostly misses does not have every head read twice.
//!
//! The rate of a client is looked at last and the rest before, but for a client beyond its rate that happens once.
//!
//! Bounds: one answer at a time; the room for its head and for fields of requests is kept, its body shared with the store.
//! While a client does not take it nothing more is read. Deliberately absent: HTTP/1.0, pipelining, bodies of requests,
//! ranges, bodies in files, HTTP/2.

mod parse;
mod wire;

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{Method, Request, StatusCode};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::Instant,
};

use self::parse::NoBody;
use super::{
    Gateway,
    access::RequestId,
    arrival,
    connection::Peer,
    guarded_io::GuardedIo,
    hit::{self, Outcome},
    respond::Ending,
};
use crate::{
    policy::{Answer, FieldSet},
    store::StoredBody,
};

/// Room that a connection keeps for heads of answers; a longer one takes more for as long as it is sent.
const KEPT_HEAD_BYTES: usize = 2 * 1024;

/// Statuses of hits that are not answered here.
const OTHER_WAY: [StatusCode; 4] = [
    StatusCode::NO_CONTENT,
    StatusCode::PARTIAL_CONTENT,
    StatusCode::PRECONDITION_FAILED,
    StatusCode::RANGE_NOT_SATISFIABLE,
];

/// The socket of a client, with the hits answered.
pub(crate) struct FastPath<I> {
    io: GuardedIo<I>,
    gateway: Arc<Gateway>,
    peer: Peer,
    /// Requests that were answered here.
    answered: u64,
    /// Whether all that hyper wrote has gone out.
    is_flushed: bool,
    request: Request<NoBody>,
    unsent: Unsent,
}

/// What of an answer is still to be sent.
#[derive(Default)]
struct Unsent {
    head: Vec<u8>,
    sent_of_head: usize,
    body: Bytes,
}

/// Whether what came of a request that the library read would have been known here as well.
pub(crate) fn knows(outcome: &Outcome) -> bool {
    let Outcome::Answered(response) = outcome else {
        return false;
    };
    response.body().is_at_hand() && !OTHER_WAY.contains(&response.status())
}

impl<I> FastPath<I> {
    /// Answers hits on `io`, which is the connection of `peer`.
    pub(crate) fn new(io: GuardedIo<I>, gateway: Arc<Gateway>, peer: Peer) -> Self {
        Self {
            io,
            gateway,
            peer,
            answered: 0,
            is_flushed: true,
            request: Request::new(NoBody::new()),
            unsent: Unsent::default(),
        }
    }

    /// Whether what is read next is the beginning of a head, and hyper does not expect to be alone on the connection.
    fn may_answer(&self) -> bool {
        let shared = &self.peer.shared;
        let answered = self.answered + shared.asked();
        shared.expects_hit()
            && self.is_flushed
            && shared.in_flight() == 0
            && self.io.heads_between() == Some(answered)
    }

    /// Whether these bytes are a request that is answered here.
    fn answer(&mut self, read: &[u8]) -> bool {
        let began = Instant::now();
        let is_answered =
            parse::request(read, &mut self.request).is_some() && self.respond(began).is_some();
        parse::clear(&mut self.request);
        if is_answered {
            self.answered += 1;
            self.io.note_head(began);
        }
        is_answered
    }

    /// Prepares the answer, if it is given here.
    fn respond(&mut self, began: Instant) -> Option<()> {
        let (gateway, peer, request) = (&self.gateway, &self.peer, &self.request);
        let fields = FieldSet::of(request.headers());
        if fields.has(FieldSet::RANGE) || fields.has(FieldSet::ORIGIN_CONDITIONS) {
            return None;
        }
        let id = RequestId::next();
        let client = arrival::client_behind(gateway, peer, request.headers());
        let arrival = hit::place(gateway, peer, request, fields, client, id, began).ok()?;
        let found = hit::find(gateway, request, fields, &arrival)?;
        let head = found.request_head(request);
        let StoredBody::Memory(body) = &found.stored().body else {
            return None;
        };
        let answer = wire::answer(&head, &found.stored().head)?;
        // Last, so that what the library is to answer is counted there only.
        hit::within_rate(gateway, peer, client).ok()?;

        found.note_use(gateway, &arrival, request);
        let status = wire::write_head(&mut self.unsent.head, answer, &found, body.len());
        if answer == Answer::Full && *request.method() != Method::HEAD {
            self.unsent.body = body.clone();
        }
        let ending = Ending::of_hit(gateway, peer, request, &arrival);
        ending.note_hit(status, self.unsent.body.len() as u64);
        Some(())
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> FastPath<I> {
    /// Sends what of an answer is left.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.unsent.head.is_empty() {
            return Poll::Ready(Ok(()));
        }
        while !self.unsent.is_sent() {
            let slices = self.unsent.slices();
            let sent = ready!(Pin::new(&mut self.io).poll_write_vectored(cx, &slices))?;
            if sent == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.unsent.advance(sent);
        }
        ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        self.unsent.clear();
        Poll::Ready(Ok(()))
    }
}

impl Unsent {
    fn is_sent(&self) -> bool {
        self.sent_of_head == self.head.len() && self.body.is_empty()
    }

    fn slices(&self) -> [IoSlice<'_>; 2] {
        let head = &self.head[self.sent_of_head..];
        [IoSlice::new(head), IoSlice::new(&self.body)]
    }

    fn advance(&mut self, sent: usize) {
        let of_head = sent.min(self.head.len() - self.sent_of_head);
        self.sent_of_head += of_head;
        self.body.advance(sent - of_head);
    }

    fn clear(&mut self) {
        self.head.clear();
        self.head.shrink_to(KEPT_HEAD_BYTES);
        self.sent_of_head = 0;
        self.body = Bytes::new();
    }
}

impl<I: AsyncRead + AsyncWrite + Unpin> AsyncRead for FastPath<I> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            ready!(this.poll_send(cx))?;
            let before = buf.filled().len();
            let may_answer = this.may_answer();
            ready!(this.io.poll_read_unnoted(cx, buf))?;
            let read = &buf.filled()[before..];
            if !may_answer || !this.answer(read) {
                // The library has to be in step again before anything is answered beside it.
                this.peer.shared.expect_hit(false);
                this.io.note_read(read);
                return Poll::Ready(Ok(()));
            }
            buf.set_filled(before);
        }
    }
}

/// hyper's own bytes; an answer that was begun here goes out before them.
impl<I: AsyncRead + AsyncWrite + Unpin> AsyncWrite for FastPath<I> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        this.is_flushed = false;
        Pin::new(&mut this.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        this.is_flushed = false;
        Pin::new(&mut this.io).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        ready!(Pin::new(&mut this.io).poll_flush(cx))?;
        this.is_flushed = true;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_send(cx))?;
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}
