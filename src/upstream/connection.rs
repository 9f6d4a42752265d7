//! One HTTP/1.1 connection to an origin, driven by the request that uses it.
//!
//! A request without content polls the connection's own work in its own task, while it waits for the head and then
//! whenever somebody reads the body: no task of the connection's, no channel that wakes another thread, and back-pressure
//! by not reading. A request with content hands that work to a task, so that neither direction waits for the other: a
//! client may be slow to read an answer that comes before it has sent everything.
//!
//! ```text
//! Idle::take ─ or dial ─► Connection::send ─► head ─► InUse, in the body ─► the body's end ─► Idle::put
//! ```

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    client::conn::{
        TrySendError,
        http1::{self, SendRequest},
    },
};
use tokio::time::timeout;

use super::{
    client::{ConnectionTasks, MAX_BUFFER_BYTES, OriginStream},
    idle::{Idle, POOL_IDLE},
    timer::Timer,
    upload::Upload,
};

/// A connection that speaks HTTP/1.1.
pub(super) struct Connection {
    requests: SendRequest<Upload>,
    work: Work,
    was_used: bool,
    /// Whether the last look was in vain, so that whoever looks now was woken.
    is_awaited: bool,
    /// Of whoever waits for an answer.
    pub(super) timer: Timer,
}

/// What the library says of a request.
pub(super) type Answered = Result<Response<Incoming>, TrySendError<Request<Upload>>>;

/// Who moves the bytes.
enum Work {
    /// Whoever uses the connection.
    Own(Pin<Box<http1::Connection<OriginStream, Upload>>>),
    /// A task.
    Task,
    /// Nobody: it has ended.
    Ended,
}

/// A connection with an answer on it that has not ended. Dropped, it is closed.
pub(super) struct InUse {
    connection: Connection,
    /// Where it goes afterwards; `None`: it is closed.
    home: Option<Arc<Idle>>,
}

/// An exchange without an answer.
#[derive(Debug)]
pub(super) struct Unanswered {
    pub(super) error: hyper::Error,
    /// Not a byte of the request was written.
    pub(super) is_unsent: bool,
}

impl Connection {
    /// A connection for which `stream` was opened just now.
    pub(super) async fn new(stream: OriginStream) -> hyper::Result<Self> {
        let (requests, work) = http1::Builder::new()
            .max_buf_size(MAX_BUFFER_BYTES)
            .handshake(stream)
            .await?;
        Ok(Self {
            requests,
            work: Work::Own(Box::pin(work)),
            was_used: false,
            is_awaited: false,
            timer: Timer::default(),
        })
    }

    /// Whether it has carried a response before.
    pub(super) const fn was_used(&self) -> bool {
        self.was_used
    }

    /// Whether it can take a request now. Looks at the socket as far as that is known to have news.
    pub(super) fn is_ready(&mut self) -> bool {
        self.poll_work(&mut Context::from_waker(Waker::noop()));
        self.requests.is_ready()
    }

    /// Sends a request in origin-form, to be followed by [`Self::poll_answer`]. `has_content`: see the module.
    pub(super) fn send(
        &mut self,
        request: Request<Upload>,
        has_content: bool,
    ) -> impl Future<Output = Answered> + use<> {
        if has_content {
            self.hand_over();
        }
        self.requests.try_send_request(request)
    }

    /// The head of the answer for which `answer` waits.
    pub(super) fn poll_answer(
        &mut self,
        cx: &mut Context<'_>,
        mut answer: Pin<&mut impl Future<Output = Answered>>,
    ) -> Poll<Result<Response<Incoming>, Unanswered>> {
        match ready!(self.poll_news(cx, |cx| answer.as_mut().poll(cx))) {
            Ok(response) => {
                self.was_used = true;
                Poll::Ready(Ok(response))
            }
            Err(mut failed) => Poll::Ready(Err(Unanswered {
                is_unsent: failed.take_message().is_some() || failed.error().is_canceled(),
                error: failed.into_error(),
            })),
        }
    }

    fn hand_over(&mut self) {
        if let Work::Own(work) = std::mem::replace(&mut self.work, Work::Task) {
            // What ends the connection ends the exchange too, which says why.
            ConnectionTasks::run(async { drop(work.await) });
        }
    }

    /// Does what there is to do, and has `look` see what came of it.
    ///
    /// The library wakes whoever waits for what it hands over, and whoever hands it over once it is taken. Here that is one
    /// and the same task, which looks anyway: it would be polled once more, for nothing. So `look` wakes nobody, and neither
    /// does the work as long as something probably comes of it.
    fn poll_news<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut look: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if let Work::Task = self.work {
            return look(cx);
        }
        let mut quiet = Context::from_waker(Waker::noop());
        if std::mem::take(&mut self.is_awaited) {
            self.poll_work(&mut quiet);
            if let Poll::Ready(news) = look(&mut quiet) {
                return Poll::Ready(news);
            }
        }
        self.poll_work(cx);
        let looked = look(&mut quiet);
        self.is_awaited = looked.is_pending();
        looked
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) {
        if let Work::Own(work) = &mut self.work
            && work.as_mut().poll(cx).is_ready()
        {
            self.work = Work::Ended;
        }
    }

    /// Returns when it can take another request, or never can.
    async fn settled(&mut self) {
        poll_fn(|cx| {
            self.poll_work(cx);
            self.requests.poll_ready(cx).map(drop)
        })
        .await;
    }
}

impl InUse {
    pub(super) const fn new(connection: Connection, home: Option<Arc<Idle>>) -> Self {
        Self { connection, home }
    }

    /// What `look` finds of the answer, at once or after the connection has done what it has to do before that.
    pub(super) fn poll_rest<T>(
        &mut self,
        cx: &mut Context<'_>,
        mut look: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        if let Work::Own(_) = self.connection.work
            && let Poll::Ready(rest) = look(&mut Context::from_waker(Waker::noop()))
        {
            return Poll::Ready(rest);
        }
        self.connection.poll_news(cx, look)
    }

    /// The answer has ended: the connection waits for another request, or is closed.
    pub(super) fn end(self) {
        let Self {
            mut connection,
            home: Some(home),
        } = self
        else {
            return;
        };
        // As a rule it is known to be ready by now, and whoever takes it looks at the socket.
        if connection.requests.is_ready() || connection.is_ready() {
            home.put(connection);
        } else if !connection.requests.is_closed() {
            // The rest of a chunked answer's end, or of the request, is still under way.
            ConnectionTasks::run(async move {
                if timeout(POOL_IDLE, connection.settled()).await.is_ok() && connection.is_ready() {
                    home.put(connection);
                }
            });
        }
    }
}

impl fmt::Debug for InUse {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InUse")
            .field("is_pooled", &self.home.is_some())
            .finish_non_exhaustive()
    }
}
