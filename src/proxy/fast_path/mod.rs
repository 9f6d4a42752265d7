//! Fresh hits over HTTP/1.1 beneath the HTTP library, which is asked only where there is more to do than to read a head,
//! look it up and write one.
//!
//! ```text
//! socket ─ GuardedIo ─ FastPath ─ hyper ─ service (hit, pipeline)
//!                         └─ read: one whole head, and nothing before or behind it; a fresh response is in memory
//! ```
//!
//! Whatever is not answered here is handed on as it was read, and nobody can tell: the policy is asked by the same
//! functions, with the same request, and nothing is counted before it is certain that the answer is given here
//! (`tests/behaviour/fast_path.rs` compares the two ways). What makes it sound: bytes are taken away from hyper, and
//! written beside it, only while hyper has nothing to do. Every head that was read was answered, the bodies of its answers
//! have ended, and what it wrote has gone out: hyper flushes all that it has before it waits for the next head.
//!
//! A connection whose last request was no hit is left alone until hyper has answered one that was, so that whoever mostly
//! misses does not have every head read twice.
//!
//! Bounds: one answer at a time; its head is kept, its body shared with the store. While a client does not take it nothing
//! more is read. Deliberately absent: HTTP/1.0, pipelining, bodies of requests, ranges, bodies on disk, HTTP/2.

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
    Gateway, access::RequestId, arrival, connection::Peer, guarded_io::GuardedIo, hit,
    respond::Ending,
};
use crate::{
    policy::{Answer, FieldSet},
    store::StoredBody,
};

/// Room that a connection keeps for heads of answers; a longer one takes more for as long as it is sent.
const KEPT_HEAD_BYTES: usize = 2 * 1024;

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
        self.is_flushed
            && shared.last_was_hit()
            && shared.in_flight() == 0
            && self.io.heads_between() == Some(answered)
    }

    /// Whether these bytes are a request that is answered here.
    fn answer(&mut self, read: &[u8]) -> bool {
        let began = Instant::now();
        let is_bare_read = parse::request(read, &mut self.request).is_some();
        let is_answered = is_bare_read && self.respond(began);
        parse::clear(&mut self.request);
        if is_answered {
            self.answered += 1;
            self.io.note_head(began);
        } else if is_bare_read {
            self.peer.shared.note_hit(false);
        }
        is_answered
    }

    fn respond(&mut self, began: Instant) -> bool {
        let (gateway, peer, request) = (&self.gateway, &self.peer, &self.request);
        let id = RequestId::next();
        let fields = FieldSet::of(request.headers());
        let client = arrival::client_behind(gateway, peer, request.headers());
        let Ok(arrival) = hit::place(gateway, peer, request, fields, client, id, began) else {
            return false;
        };
        let Some(found) = hit::find(gateway, request, fields, &arrival) else {
            return false;
        };
        let (head, stored) = (found.request_head(request), found.stored());
        let answer = wire::answer(&head, &stored.head);
        let (Some(answer), StoredBody::Memory(body)) = (answer, &stored.body) else {
            return false;
        };
        // An answer tells of writes that wait, and of a rate that is used up: in words that are not ours.
        if !gateway.queue.has_no_pending() || hit::within_rate(gateway, peer, client).is_err() {
            return false;
        }
        found.note_use(gateway, &arrival, request);
        let (out, body_bytes) = (&mut self.unsent.head, stored.body.len());
        let cache_status = found.cache_status();
        wire::write_head(
            out,
            answer,
            &stored.head,
            body_bytes,
            &found.reuse,
            &cache_status,
        );
        let status = match answer {
            Answer::Full => stored.head.status,
            _ => StatusCode::NOT_MODIFIED,
        };
        if answer == Answer::Full && *request.method() != Method::HEAD {
            self.unsent.body = body.clone();
        }
        let ending = Ending::of_hit(gateway, peer, request, &arrival);
        ending.note_hit(status, self.unsent.body.len() as u64);
        true
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
