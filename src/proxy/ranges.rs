//! Answers with ranges of a stored body: a 206 with one, a `multipart/byteranges` with several (RFC 9110 section 14.6),
//! or the 416. Which bytes they are is the policy's to say.

use std::ops::Range;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};

use super::body::Body;
use crate::{
    policy::{CacheKey, StoredHead, Stretch},
    store::{Store, StoredBody, StoredResponse},
};

/// Fields of the stored response that say something about all of its bytes, and would be wrong about some of them.
const OF_ALL_BYTES: [HeaderName; 2] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
];

/// Where the bytes of a stored body come from.
pub(crate) struct Source<'a> {
    pub(crate) store: &'a Store,
    pub(crate) key: &'a CacheKey,
    pub(crate) stored: &'a StoredResponse,
}

impl Source<'_> {
    /// These bytes: a slice of what is in memory, or blocks read from the disk tier.
    pub(crate) fn body(&self, range: Range<u64>) -> Body {
        match &self.stored.body {
            StoredBody::Memory(bytes) => {
                let at = |position| usize::try_from(position).expect("within a body in memory");
                Body::whole(bytes.slice(at(range.start)..at(range.end)))
            }
            StoredBody::File(_) => {
                let length = range.end - range.start;
                let blocks = self.store.read_body_range(self.key, self.stored, range);
                Body::blocks(blocks, length)
            }
        }
    }
}

/// The 206 with one range.
pub(crate) fn one(head: &StoredHead, stretch: &Stretch, source: &Source<'_>) -> Response<Body> {
    let mut headers = fields(head);
    headers.insert(header::CONTENT_RANGE, stretch.content_range());
    partial(headers, stretch.bytes(), source.body(stretch.body.clone()))
}

/// The 206 with several ranges, each in a part of its own.
pub(crate) fn several(
    head: &StoredHead,
    stretches: &[Stretch],
    source: &Source<'_>,
) -> Response<Body> {
    let boundary = boundary();
    let parts = stretches.iter().enumerate().map(|(nth, stretch)| {
        let opening = opening(nth, &boundary, head, stretch);
        (opening, stretch.body.clone())
    });
    let parts: Vec<(Bytes, Range<u64>)> = parts.collect();
    let closing = Bytes::from(format!("\r\n--{boundary}--\r\n"));
    let bytes =
        |(opening, range): &(Bytes, Range<u64>)| opening.len() as u64 + (range.end - range.start);
    let length = parts.iter().map(bytes).sum::<u64>() + closing.len() as u64;

    let blocks: Vec<_> = parts
        .into_iter()
        .map(|(opening, range)| {
            let (store, key, stored) = (source.store, source.key, source.stored);
            stream::iter([Ok(opening)]).chain(store.read_body_range(key, stored, range))
        })
        .collect();
    let blocks = stream::iter(blocks)
        .flatten()
        .chain(stream::iter([Ok(closing)]));

    let mut headers = fields(head);
    headers.remove(header::CONTENT_RANGE);
    let media_type = format!("multipart/byteranges; boundary={boundary}");
    let media_type = HeaderValue::try_from(media_type).expect("a token");
    headers.insert(header::CONTENT_TYPE, media_type);
    partial(headers, length, Body::blocks(blocks, length))
}

/// The 416 for a representation of `complete_bytes`.
pub(crate) fn unsatisfiable(head: &StoredHead, complete_bytes: u64) -> Response<Body> {
    let mut headers = fields(head);
    headers.remove(header::CONTENT_TYPE);
    let content_range = HeaderValue::try_from(format!("bytes */{complete_bytes}"));
    headers.insert(
        header::CONTENT_RANGE,
        content_range.expect("digits and punctuation"),
    );
    let mut response = partial(headers, 0, Body::empty());
    *response.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
    response
}

fn fields(head: &StoredHead) -> HeaderMap {
    let mut headers = head.headers.to_map();
    for name in &OF_ALL_BYTES {
        headers.remove(name);
    }
    headers
}

fn partial(mut headers: HeaderMap, length: u64, body: Body) -> Response<Body> {
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    *response.headers_mut() = headers;
    response
}

/// What stands before the bytes of a part.
fn opening(nth: usize, boundary: &str, head: &StoredHead, stretch: &Stretch) -> Bytes {
    let mut text = Vec::new();
    if nth > 0 {
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
    if let Some(media_type) = head.headers.get(header::CONTENT_TYPE) {
        text.extend_from_slice(b"Content-Type: ");
        text.extend_from_slice(media_type);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"Content-Range: ");
    text.extend_from_slice(stretch.content_range().as_bytes());
    text.extend_from_slice(b"\r\n\r\n");
    text.into()
}

/// 128 random bits: whoever wrote the stored bytes cannot have known them, and by chance they do not occur there.
fn boundary() -> String {
    format!("{:032x}", fastrand::u128(..))
}
