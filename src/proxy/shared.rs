//! What the socket of a client and the service above it tell each other.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::time::Instant;

use super::interim::Outbox;

/// What the socket and the service above it tell each other.
#[derive(Debug)]
pub(crate) struct Shared {
    opened: Instant,
    answered_millis: AtomicU64,
    asked: AtomicU64,
    expects_hit: AtomicBool,
    in_flight: AtomicUsize,
    ambiguous: AtomicBool,
    became: OnceLock<Became>,
    /// Interim responses to the request being answered.
    pub(crate) interim: Outbox,
}

/// What a connection carries instead of HTTP/1 messages, from some point on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Became {
    Http2,
    Tunnel,
}

impl Shared {
    /// For a connection accepted at `opened`.
    pub(crate) fn new(opened: Instant) -> Self {
        Self {
            opened,
            answered_millis: AtomicU64::new(0),
            asked: AtomicU64::new(0),
            expects_hit: AtomicBool::new(true),
            in_flight: AtomicUsize::new(0),
            ambiguous: AtomicBool::new(false),
            became: OnceLock::new(),
            interim: Outbox::default(),
        }
    }

    /// When the connection was accepted.
    pub(super) const fn opened(&self) -> Instant {
        self.opened
    }

    /// When the last answer ended (when the connection was opened, if there was none).
    pub(crate) fn answered(&self) -> Instant {
        self.opened + Duration::from_millis(self.answered_millis.load(Ordering::Relaxed))
    }

    /// Whether a message on this connection had two framings (Content-Length and Transfer-Encoding).
    pub(crate) fn saw_ambiguity(&self) -> bool {
        self.ambiguous.load(Ordering::Relaxed)
    }

    /// A message had.
    pub(super) fn note_ambiguity(&self) {
        self.ambiguous.store(true, Ordering::Relaxed);
    }

    /// The connection carries HTTP/2 frames: no framing, no timers of reads.
    pub(crate) fn become_http2(&self) {
        let _ = self.became.set(Became::Http2);
    }

    /// The connection carries another protocol from here on, after a 101 or a 2xx to CONNECT: no framing, no timers. On
    /// HTTP/2 it changes nothing: there a stream has become a tunnel, and the connection is what it was.
    pub(crate) fn become_raw(&self) {
        let _ = self.became.set(Became::Tunnel);
    }

    /// Whether it carries HTTP/1 messages, as at first.
    pub(crate) fn carries_http1(&self) -> bool {
        self.became().is_none()
    }

    /// What it carries instead, if it does.
    pub(super) fn became(&self) -> Option<Became> {
        self.became.get().copied()
    }

    /// A request has been answered: the time to the next one begins.
    pub(crate) fn answered_at(&self, now: Instant) {
        let since = now.saturating_duration_since(self.opened);
        let millis = since.as_secs() * 1_000 + u64::from(since.subsec_millis());
        self.answered_millis.store(millis, Ordering::Relaxed);
    }

    /// Requests that the HTTP library has handed to the service.
    pub(crate) fn asked(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }

    /// Whether the next request may be a hit for the fast path: nothing was asked yet, or what came last was one.
    pub(crate) fn expects_hit(&self) -> bool {
        self.expects_hit.load(Ordering::Relaxed)
    }

    /// Says so, or that the next one is the HTTP library's whatever it is.
    pub(crate) fn expect_hit(&self, is_expected: bool) {
        self.expects_hit.store(is_expected, Ordering::Relaxed);
    }

    /// Requests being answered.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a request as being answered until the guard is dropped.
    pub(crate) fn answering(self: &Arc<Self>) -> Answering {
        self.asked.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        Answering(Arc::clone(self))
    }
}

/// A request is being answered while this lives.
#[derive(Debug)]
pub(crate) struct Answering(Arc<Shared>);

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.answered_at(Instant::now());
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
