//! The body of an answer, whatever it comes from.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, TryStreamExt};
use http_body::{Frame, SizeHint};

use super::{access::Record, growing, shared::Answering, trailers};
use crate::{upstream, upstream::BodyError};

/// The body of an answer; it carries the access record, which is written when the body ends or is dropped.
pub(crate) struct Body {
    source: Source,
    /// The connection answers as long as this is there; dropped before the record is written.
    answering: Option<Answering>,
    record: Option<Box<Record>>,
    /// Why it broke off, until that is told.
    broken: Option<BodyError>,
}

type Blocks = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

enum Source {
    Empty,
    Whole(Bytes),
    Growing {
        reader: growing::Reader,
        length: Option<u64>,
    },
    Blocks {
        blocks: Blocks,
        remaining: u64,
    },
    Upstream(Box<upstream::ResponseBody>),
    Axum(axum::body::Body),
}

impl Body {
    /// No body.
    pub(crate) const fn empty() -> Self {
        Self {
            source: Source::Empty,
            answering: None,
            record: None,
            broken: None,
        }
    }

    /// A body that is in memory.
    pub(crate) const fn whole(bytes: Bytes) -> Self {
        Self {
            source: Source::Whole(bytes),
            answering: None,
            record: None,
            broken: None,
        }
    }

    /// A body that a fill writes, of `length` bytes where the origin said so.
    pub(crate) const fn growing(reader: growing::Reader, length: Option<u64>) -> Self {
        Self {
            source: Source::Growing { reader, length },
            answering: None,
            record: None,
            broken: None,
        }
    }

    /// A body of `length` bytes read from the disk.
    pub(crate) fn blocks<E: Into<BodyError> + 'static>(
        blocks: impl Stream<Item = Result<Bytes, E>> + Send + 'static,
        length: u64,
    ) -> Self {
        Self {
            source: Source::Blocks {
                blocks: Box::pin(blocks.map_err(Into::into)),
                remaining: length,
            },
            answering: None,
            record: None,
            broken: None,
        }
    }

    /// A body passed through from an origin.
    pub(crate) fn upstream(body: upstream::ResponseBody) -> Self {
        Self {
            source: Source::Upstream(Box::new(body)),
            answering: None,
            record: None,
            broken: None,
        }
    }

    /// A body made by a handler of the router.
    pub(crate) const fn axum(body: axum::body::Body) -> Self {
        Self {
            source: Source::Axum(body),
            answering: None,
            record: None,
            broken: None,
        }
    }

    /// Whether nothing of it is still to come.
    pub(crate) const fn is_at_hand(&self) -> bool {
        matches!(self.source, Source::Empty | Source::Whole(_))
    }

    /// Attaches what says that the connection answers.
    pub(crate) fn while_answering(mut self, answering: Option<Answering>) -> Self {
        self.answering = answering;
        self
    }

    /// Attaches the access record.
    pub(crate) fn with_record(mut self, record: Box<Record>) -> Self {
        self.record = Some(record);
        self
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.broken.take() {
            return Poll::Ready(Some(Err(error)));
        }
        let polled = match &mut self.source {
            Source::Empty => Poll::Ready(None),
            Source::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Source::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Source::Growing { reader, .. } => Pin::new(reader).poll_frame(cx),
            Source::Blocks { blocks, remaining } => blocks.as_mut().poll_next(cx).map(|next| {
                let block = next?;
                if let Ok(block) = &block {
                    *remaining = remaining.saturating_sub(block.len() as u64);
                }
                Some(block.map(Frame::data))
            }),
            Source::Upstream(body) => {
                Pin::new(body.as_mut())
                    .poll_frame(cx)
                    .map(|frame| match frame? {
                        Ok(frame) => trailers::pass(frame).map(Ok),
                        Err(error) => Some(Err(error)),
                    })
            }
            Source::Axum(body) => Pin::new(body).poll_frame(cx).map_err(Into::into),
        };
        if let (Poll::Ready(frame), Some(record)) = (&polled, &mut self.record) {
            record.saw(frame.as_ref());
        }
        match polled {
            // A body that fails has hyper drop what it has not written yet, perhaps even the head: that goes out first, as
            // far as the client takes it at once.
            Poll::Ready(Some(Err(error))) => {
                self.broken = Some(error);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            polled => polled,
        }
    }

    fn is_end_stream(&self) -> bool {
        if self.broken.is_some() {
            return false;
        }
        match &self.source {
            Source::Empty => true,
            Source::Whole(bytes) => bytes.is_empty(),
            Source::Growing { length, .. } => *length == Some(0),
            Source::Blocks { remaining, .. } => *remaining == 0,
            Source::Upstream(body) => body.is_end_stream(),
            Source::Axum(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Empty => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Source::Growing { length, .. } => {
                length.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Source::Blocks { remaining, .. } => SizeHint::with_exact(*remaining),
            Source::Upstream(body) => body.size_hint(),
            Source::Axum(body) => body.size_hint(),
        }
    }
}
