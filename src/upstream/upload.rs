//! A request body as the client library sees it, and what we learn from how it is read.
//!
//! The library keeps the body it is given even when no connection comes about. So it gets a handle: the body itself is
//! taken at the first read, and until then it can be given to another attempt. Reads also tell how far the upload is,
//! which is what the first-byte timer counts from.

use std::{
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::time::Instant;

use super::{
    RequestBody,
    content::FileContent,
    error::{BodyError, UploadError},
    timer::Timer,
};

/// A request body that can be offered to one attempt after another, as long as none has read from it, or it is kept whole
/// in memory or in a file.
#[derive(Clone)]
pub(super) struct Offer {
    source: Source,
    size: SizeHint,
    is_empty: bool,
}

#[derive(Clone)]
enum Source {
    /// A stream, until it is taken.
    Once(Arc<Mutex<Option<RequestBody>>>),
    /// For every attempt anew.
    Whole(Bytes),
    /// Likewise, from its file.
    File(Arc<FileContent>),
}

/// The handle that one attempt gets, if there is anything to send. Small, because the library moves it about with its
/// request.
pub(super) struct Upload(Option<Box<Handle>>);

struct Handle {
    offer: Offer,
    taken: Option<RequestBody>,
    progress: Arc<Progress>,
}

/// How an upload fares.
#[derive(Debug)]
pub(super) struct Progress {
    start: Instant,
    last_read_millis: AtomicU64,
    // The client is slower than the origin: not the origin's delay.
    starved: AtomicBool,
    // Why the body broke off.
    fault: Mutex<Option<BodyError>>,
}

impl Offer {
    pub(super) fn new(body: RequestBody) -> Self {
        Self {
            size: body.size_hint(),
            is_empty: body.is_end_stream(),
            source: Source::Once(Arc::new(Mutex::new(Some(body)))),
        }
    }

    pub(super) fn whole(content: Bytes) -> Self {
        Self {
            size: SizeHint::with_exact(content.len() as u64),
            is_empty: content.is_empty(),
            source: Source::Whole(content),
        }
    }

    pub(super) fn file(content: Arc<FileContent>) -> Self {
        Self {
            size: SizeHint::with_exact(content.length_bytes()),
            is_empty: content.length_bytes() == 0,
            source: Source::File(content),
        }
    }

    /// Whether there is nothing to send.
    pub(super) const fn is_empty(&self) -> bool {
        self.is_empty
    }

    /// Whether another attempt would send the same, whatever an earlier one has read.
    pub(super) fn is_repeatable(&self) -> bool {
        self.is_empty || !matches!(self.source, Source::Once(_))
    }

    /// Whether another attempt would send the same, because none has read of it or it is repeatable.
    pub(super) fn is_untouched(&self) -> bool {
        match &self.source {
            Source::Once(slot) => {
                self.is_empty
                    || slot
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .is_some()
            }
            Source::Whole(_) | Source::File(_) => true,
        }
    }

    pub(super) fn upload(&self, now: Instant) -> (Upload, Arc<Progress>) {
        let progress = Arc::new(Progress::new(now));
        let handle = || Handle {
            offer: self.clone(),
            taken: None,
            progress: Arc::clone(&progress),
        };
        let upload = Upload((!self.is_empty).then(|| Box::new(handle())));
        (upload, progress)
    }

    fn take(&self) -> Option<RequestBody> {
        match &self.source {
            Source::Once(slot) => slot.lock().unwrap_or_else(PoisonError::into_inner).take(),
            Source::Whole(content) => {
                let body = Full::new(content.clone()).map_err(|never| match never {});
                Some(RequestBody::new(body))
            }
            Source::File(content) => {
                let frames = Arc::clone(content)
                    .pieces()
                    .map_ok(Frame::data)
                    .map_err(BodyError::from);
                Some(RequestBody::new(StreamBody::new(Box::pin(frames))))
            }
        }
    }
}

impl Upload {
    /// A handle on no body.
    pub(super) const fn empty() -> Self {
        Self(None)
    }
}

impl Body for Upload {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let Some(this) = &mut self.get_mut().0 else {
            return Poll::Ready(None);
        };
        if this.taken.is_none() {
            this.taken = this.offer.take();
        }
        let Some(body) = &mut this.taken else {
            return Poll::Ready(None);
        };
        let polled = Pin::new(body).poll_frame(cx);
        this.progress.note(polled.is_pending());
        let frame = ready!(polled).map(|frame| {
            frame.map_err(|error| {
                this.progress.blame(error);
                UploadError
            })
        });
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        let taken = |this: &Handle| this.taken.as_ref().is_some_and(Body::is_end_stream);
        self.0.as_deref().is_none_or(taken)
    }

    fn size_hint(&self) -> SizeHint {
        match self.0.as_deref() {
            None => SizeHint::with_exact(0),
            Some(Handle {
                taken: Some(body), ..
            }) => body.size_hint(),
            Some(Handle { offer, .. }) => offer.size,
        }
    }
}

impl Progress {
    const fn new(start: Instant) -> Self {
        Self {
            start,
            last_read_millis: AtomicU64::new(0),
            starved: AtomicBool::new(false),
            fault: Mutex::new(None),
        }
    }

    /// Why the body broke off, if it did.
    pub(super) fn take_fault(&self) -> Option<BodyError> {
        self.fault().take()
    }

    fn blame(&self, fault: BodyError) {
        *self.fault() = Some(fault);
    }

    fn fault(&self) -> MutexGuard<'_, Option<BodyError>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the clock anew.
    pub(super) fn restart(&self) {
        self.note(false);
    }

    /// Ready once nothing was read of the body for `limit`, though the client had something to send or had sent all.
    pub(super) fn poll_stalled(
        &self,
        cx: &mut Context<'_>,
        limit: Duration,
        timer: &mut Timer,
    ) -> Poll<()> {
        loop {
            let last_read = if self.starved.load(Ordering::Relaxed) {
                Instant::now()
            } else {
                let millis = self.last_read_millis.load(Ordering::Relaxed);
                self.start + Duration::from_millis(millis)
            };
            let deadline = last_read + limit;
            ready!(timer.poll_at(cx, deadline));
            if Instant::now() >= deadline {
                return Poll::Ready(());
            }
        }
    }

    fn note(&self, starved: bool) {
        let millis = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last_read_millis.store(millis, Ordering::Relaxed);
        self.starved.store(starved, Ordering::Relaxed);
    }
}
