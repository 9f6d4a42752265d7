//! Interim responses (1xx, RFC 9110 section 15.2) of an origin, handed to whoever sent the request.
//!
//! A 101 is none of them: here it is a final answer. They do not move the first-byte timer: a 102 a second is no answer.
//! Bounds: an exchange with more than [`INTERIM_MAX`] of them is given up, whether anybody listens or not, because
//! reading them costs time and nothing else holds the origin back. Over HTTP/2 the library passes over them: nobody hears
//! of them, and the first-byte timer alone bounds them.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use futures_util::task::AtomicWaker;
use http::{HeaderMap, Request, StatusCode};

/// What a 102 every second makes in a quarter of an hour, which is longer than anybody waits for a first byte.
const INTERIM_MAX: usize = 1_000;

type Handler = dyn Fn(StatusCode, &HeaderMap) + Send + Sync;

/// Who is told of each interim response to a request, before [`send`](super::Upstream::send) returns: where the origin's
/// bytes are read, so it must not take long. It goes among the extensions of a request.
#[derive(Clone)]
pub struct OnInterim(Arc<Handler>);

impl OnInterim {
    /// Calls `handler`.
    pub fn new(handler: impl Fn(StatusCode, &HeaderMap) + Send + Sync + 'static) -> Self {
        Self(Arc::new(handler))
    }
}

/// The interim responses of one exchange, counted.
#[derive(Debug, Default)]
pub(super) struct Interims {
    count: AtomicUsize,
    waiting: AtomicWaker,
}

impl Interims {
    /// Counts those of the exchange that `attempt` begins, and tells `handler`.
    pub(super) fn of<B>(attempt: &mut Request<B>, handler: Option<OnInterim>) -> Arc<Self> {
        let interims = Arc::new(Self::default());
        let counted = Arc::clone(&interims);
        hyper::ext::on_informational(attempt, move |response| {
            if counted.admit()
                && let Some(OnInterim(handler)) = &handler
            {
                handler(response.status(), response.headers());
            }
        });
        interims
    }

    /// Ready when there have been too many.
    pub(super) fn poll_too_many(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.waiting.register(cx.waker());
        if self.count.load(Ordering::Acquire) > INTERIM_MAX {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn admit(&self) -> bool {
        let before = self.count.fetch_add(1, Ordering::AcqRel);
        if before >= INTERIM_MAX {
            self.waiting.wake();
        }
        before < INTERIM_MAX
    }
}
