//! A response body on its way from an origin. It holds the upstream's permit until it ends or is dropped, and fails when
//! the origin stands still in mid-body. Dropped early, it closes its connection.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Version, header, response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep, sleep};

use super::{
    connection::InUse,
    error::{BodyError, StalledBody},
    permits::Permit,
};

// As long as a first byte may take by default: an origin that is silent longer will hardly go on.
const BETWEEN_BYTES: Duration = Duration::from_secs(60);

/// A body from an origin. It holds the permit until it is dropped, and fails when the origin stalls.
#[derive(Debug)]
pub struct ResponseBody {
    inner: Option<Incoming>,
    connection: Option<InUse>,
    permit: Option<Permit>,
    stall: Option<StallTimer>,
    close_delimited: bool,
    transfer_coded: bool,
}

/// Runs only while the reader waits: a slow reader is not the origin's fault.
#[derive(Debug)]
struct StallTimer {
    limit: Duration,
    sleep: Option<Pin<Box<Sleep>>>,
    waiting: bool,
}

impl ResponseBody {
    pub(super) fn new(
        inner: Incoming,
        connection: Option<InUse>,
        permit: Permit,
        method: &Method,
        head: &response::Parts,
    ) -> Self {
        let headers = &head.headers;
        let has_body = *method != Method::HEAD && may_have_body(head.status);
        // HTTP/2 marks the end of every body, and what the library counts down to has an end.
        let is_delimited = head.version == Version::HTTP_2
            || inner.size_hint().exact().is_some()
            || is_delimited(headers);
        let is_ended = inner.is_end_stream();
        let mut body = Self {
            close_delimited: has_body && !is_delimited,
            transfer_coded: headers.contains_key(header::TRANSFER_ENCODING),
            stall: (!is_event_stream(headers)).then(StallTimer::new),
            inner: Some(inner),
            connection,
            permit: Some(permit),
        };
        if is_ended {
            body.end();
        }
        body
    }

    /// Whether the end of this body is marked by the close of the connection only.
    pub fn is_close_delimited(&self) -> bool {
        self.close_delimited
    }

    /// Whether its head names a transfer coding.
    pub fn is_transfer_coded(&self) -> bool {
        self.transfer_coded
    }

    fn end(&mut self) {
        if let Some(connection) = self.connection.take() {
            connection.end();
        }
        // Whoever waits for it finds the connection.
        self.permit = None;
    }

    fn close(&mut self) {
        self.inner = None;
        self.connection = None;
        self.permit = None;
    }
}

/// Of an answer that nobody reads to its end, what is here already is passed over, and the connection is good for another.
impl Drop for ResponseBody {
    fn drop(&mut self) {
        self.inner = None;
        self.end();
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        let mut read = |cx: &mut Context<'_>| Pin::new(&mut *inner).poll_frame(cx);
        let polled = match &mut this.connection {
            Some(connection) => connection.poll_rest(cx, read),
            None => read(cx),
        };
        if polled.is_pending() {
            let Some(stall) = &mut this.stall else {
                return Poll::Pending;
            };
            let limit = ready!(stall.poll_elapsed(cx));
            this.close();
            return Poll::Ready(Some(Err(StalledBody { limit }.into())));
        }
        if let Some(stall) = &mut this.stall {
            stall.waiting = false;
        }
        match ready!(polled) {
            Some(Ok(frame)) => {
                if this.is_end_stream() || frame.is_trailers() {
                    this.end();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.close();
                Poll::Ready(Some(Err(error.into())))
            }
            None => {
                this.inner = None;
                this.end();
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner
            .as_ref()
            .map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

impl StallTimer {
    fn new() -> Self {
        Self {
            limit: BETWEEN_BYTES,
            sleep: None,
            waiting: false,
        }
    }

    fn poll_elapsed(&mut self, cx: &mut Context<'_>) -> Poll<Duration> {
        let limit = self.limit;
        let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep(limit)));
        if !self.waiting {
            self.waiting = true;
            sleep.as_mut().reset(Instant::now() + limit);
        }
        sleep.as_mut().poll(cx).map(|()| limit)
    }
}

/// RFC 9110 section 6.4.1.
fn may_have_body(status: StatusCode) -> bool {
    !status.is_informational()
        && status != StatusCode::NO_CONTENT
        && status != StatusCode::NOT_MODIFIED
}

/// Whether the head says where the body ends (RFC 9112 section 6.3).
fn is_delimited(headers: &HeaderMap) -> bool {
    let codings = headers
        .get_all(header::TRANSFER_ENCODING)
        .iter()
        .next_back();
    match codings {
        Some(codings) => codings
            .as_bytes()
            .rsplit(|byte| *byte == b',')
            .next()
            .is_some_and(|last| last.trim_ascii().eq_ignore_ascii_case(b"chunked")),
        None => headers.contains_key(header::CONTENT_LENGTH),
    }
}

fn is_event_stream(headers: &HeaderMap) -> bool {
    const EVENT_STREAM: &[u8] = b"text/event-stream";
    headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.as_bytes().get(..EVENT_STREAM.len()))
        .is_some_and(|kind| kind.eq_ignore_ascii_case(EVENT_STREAM))
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::{is_delimited, is_event_stream};

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn only_a_length_or_a_final_chunked_delimits_a_body() {
        let check = |expected: bool, lines: &[(&'static str, &'static str)]| {
            assert_eq!(is_delimited(&headers(lines)), expected, "{lines:?}");
        };
        check(true, &[("content-length", "3")]);
        check(true, &[("transfer-encoding", "chunked")]);
        check(true, &[("transfer-encoding", "gzip, Chunked ")]);
        check(
            true,
            &[
                ("transfer-encoding", "gzip"),
                ("transfer-encoding", "chunked"),
            ],
        );
        check(false, &[]);
        check(false, &[("transfer-encoding", "gzip")]);
        check(false, &[("transfer-encoding", "chunked, gzip")]);
        check(
            false,
            &[("transfer-encoding", "gzip"), ("content-length", "3")],
        );
    }

    #[test]
    fn event_streams_are_told_by_their_type() {
        let check = |expected: bool, kind: &'static str| {
            assert_eq!(
                is_event_stream(&headers(&[("content-type", kind)])),
                expected
            );
        };
        check(true, "text/event-stream");
        check(true, "Text/Event-Stream; charset=utf-8");
        check(false, "text/event");
        check(false, "text/html");
    }
}
