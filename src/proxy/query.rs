//! The content of a QUERY (RFC 10008), which is part of its key, and so must be here before anything can be decided.
//!
//! Bounds: [`CONTENT_MAX_BYTES`] of one request, and of all together what the bodies in flight leave
//! (`Gateway::in_flight_bytes`). Beyond either the request is forwarded as it comes, and its answer not stored. A body that
//! breaks off is an error of the client's, and no origin sees any of it. Trailers are not part of the content, and go.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::upstream::{BodyError, RequestBody};

/// Queries are written by people and programs, and seldom have more than some kilobytes.
const CONTENT_MAX_BYTES: usize = 64 * 1024;

/// The whole content of a request; empty for one without. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct QueryContent {
    bytes: Bytes,
    /// Its share of the budget for bodies in flight, for as long as anybody has it.
    _share: Option<Arc<OwnedSemaphorePermit>>,
}

/// What came of reading a body.
pub(crate) enum Gathered {
    /// All of it.
    Whole(QueryContent),
    /// More than is kept: what was read, with the rest behind it.
    TooLarge(RequestBody),
}

impl QueryContent {
    /// Reads `body` to its end, or as far as is kept.
    ///
    /// # Errors
    /// When the body breaks off.
    pub(crate) async fn gather(
        mut body: RequestBody,
        budget: &Arc<Semaphore>,
    ) -> Result<Gathered, BodyError> {
        let mut read = BytesMut::new();
        let mut share: Option<OwnedSemaphorePermit> = None;
        if body.size_hint().lower() > CONTENT_MAX_BYTES as u64 {
            return Ok(Gathered::TooLarge(body));
        }
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            let more = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let fits = read.len() + data.len() <= CONTENT_MAX_BYTES;
            let taken = Arc::clone(budget).try_acquire_many_owned(more);
            read.extend_from_slice(&data);
            match (fits, taken, &mut share) {
                (true, Ok(taken), Some(share)) => share.merge(taken),
                (true, Ok(taken), none) => *none = Some(taken),
                _ => return Ok(Gathered::TooLarge(resumed(read.freeze(), body))),
            }
        }
        Ok(Gathered::Whole(Self {
            bytes: read.freeze(),
            _share: share.map(Arc::new),
        }))
    }

    /// The bytes.
    pub(crate) fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// As a body to send.
    pub(crate) fn to_body(&self) -> RequestBody {
        Full::new(self.bytes.clone())
            .map_err(|never| match never {})
            .boxed_unsync()
    }
}

/// A body of which the beginning was read.
fn resumed(read: Bytes, rest: RequestBody) -> RequestBody {
    let read = stream::iter([Ok(Frame::data(read))]);
    StreamBody::new(read.chain(BodyStream::new(rest))).boxed_unsync()
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, sync::Arc};

    use bytes::Bytes;
    use futures_util::stream;
    use http::HeaderMap;
    use http_body::Frame;
    use http_body_util::{BodyExt, StreamBody};
    use tokio::sync::Semaphore;

    use super::{CONTENT_MAX_BYTES, Gathered, QueryContent};
    use crate::upstream::{BodyError, RequestBody};

    fn chunks(sizes: &[usize]) -> Vec<Frame<Bytes>> {
        let chunk = |size: &usize| Frame::data(Bytes::from(vec![7; *size]));
        sizes.iter().map(chunk).collect()
    }

    fn body(frames: Vec<Frame<Bytes>>) -> RequestBody {
        let frames = frames.into_iter().map(Ok::<_, Infallible>);
        StreamBody::new(stream::iter(frames))
            .map_err(|never| match never {})
            .boxed_unsync()
    }

    /// The bytes, and whether they were gathered whole, with a budget of so many.
    async fn gather(sizes: &[usize], budget: usize) -> (usize, bool) {
        let budget = Arc::new(Semaphore::new(budget));
        match QueryContent::gather(body(chunks(sizes)), &budget)
            .await
            .unwrap()
        {
            Gathered::Whole(content) => (content.bytes().len(), true),
            Gathered::TooLarge(body) => (body.collect().await.unwrap().to_bytes().len(), false),
        }
    }

    #[tokio::test]
    async fn content_is_whole_or_passed_on_whole() {
        let max = CONTENT_MAX_BYTES;
        for (sizes, budget, expected) in [
            (&[][..], 0, (0, true)),
            (&[3, 4], 7, (7, true)),
            (&[max - 1, 1], max, (max, true)),
            (&[max, 1, 5], 2 * max, (max + 6, false)),
            (&[3, 4, 5], 6, (12, false)),
        ] {
            assert_eq!(gather(sizes, budget).await, expected, "{sizes:?} {budget}");
        }
    }

    #[tokio::test]
    async fn the_budget_is_given_back_with_the_last_clone() {
        let budget = Arc::new(Semaphore::new(10));
        let mut frames = chunks(&[4]);
        frames.push(Frame::trailers(HeaderMap::new()));
        let Gathered::Whole(content) = QueryContent::gather(body(frames), &budget).await.unwrap()
        else {
            panic!("it fits");
        };
        let clone = content.clone();
        drop(content);
        assert_eq!(budget.available_permits(), 6);
        drop(clone);
        assert_eq!(budget.available_permits(), 10);
    }

    #[tokio::test]
    async fn content_that_breaks_off_is_an_error() {
        let broken = [
            Ok(Frame::data(Bytes::from_static(b"half"))),
            Err(BodyError::from("gone")),
        ];
        let body = StreamBody::new(stream::iter(broken)).boxed_unsync();
        let budget = Arc::new(Semaphore::new(10));
        assert!(QueryContent::gather(body, &budget).await.is_err());
        assert_eq!(budget.available_permits(), 10);
    }
}
