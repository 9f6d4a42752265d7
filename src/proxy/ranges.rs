//! One byte range of a complete stored response (RFC 9110 section 14). Anything else a `Range` may ask for is answered
//! with the whole representation, which the RFC allows.

use std::ops::Range;

use http::{HeaderValue, Method, Response, StatusCode, header};

use super::body::Body;
use crate::policy::{RequestHead, StoredHead};

/// What a request's `Range` asks of a representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// These bytes.
    Bytes(Range<u64>),
    /// Bytes past the end: 416.
    Unsatisfiable,
}

/// The single range a request asks for, or `None` when the whole representation is the answer.
pub(crate) fn requested(request: &RequestHead<'_>, head: &StoredHead, length: u64) -> Option<Part> {
    if request.method != Method::GET || head.status != StatusCode::OK {
        return None;
    }
    let mut fields = request.headers.get_all(header::RANGE).iter();
    let field = fields.next()?.to_str().ok()?;
    if fields.next().is_some() || !if_range_holds(request, head) {
        return None;
    }
    parse(field, length)
}

fn if_range_holds(request: &RequestHead<'_>, head: &StoredHead) -> bool {
    let Some(condition) = request.headers.get(header::IF_RANGE) else {
        return true;
    };
    if condition.as_bytes().starts_with(b"W/") {
        return false;
    }
    if condition.as_bytes().starts_with(b"\"") {
        return head.headers.get(header::ETAG) == Some(condition);
    }
    head.headers.get(header::LAST_MODIFIED) == Some(condition)
}

fn parse(field: &str, length: u64) -> Option<Part> {
    let (unit, spec) = field.split_once('=')?;
    if !unit.trim().eq_ignore_ascii_case("bytes") || spec.contains(',') {
        return None;
    }
    let (first, last) = spec.trim().split_once('-')?;
    let number = |text: &str| {
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()))
            .then(|| text.parse().unwrap_or(u64::MAX))
    };
    if first.is_empty() {
        let suffix = number(last)?;
        return Some(if suffix == 0 || length == 0 {
            Part::Unsatisfiable
        } else {
            Part::Bytes(length.saturating_sub(suffix)..length)
        });
    }
    let first = number(first)?;
    let last = if last.is_empty() {
        u64::MAX
    } else {
        number(last)?
    };
    if last < first {
        return None;
    }
    if first >= length {
        return Some(Part::Unsatisfiable);
    }
    Some(Part::Bytes(first..last.saturating_add(1).min(length)))
}

/// The 206, or the 416. `body` gives the bytes of a range of the representation, which has `length` bytes.
pub(crate) fn respond(
    head: &StoredHead,
    length: u64,
    part: Part,
    body: impl FnOnce(Range<u64>) -> Body,
) -> Response<Body> {
    let mut headers = head.headers.clone();
    let (status, body, bytes, content_range) = match part {
        Part::Bytes(range) => {
            let content_range = format!("bytes {}-{}/{length}", range.start, range.end - 1);
            let bytes = range.end - range.start;
            (
                StatusCode::PARTIAL_CONTENT,
                body(range),
                bytes,
                content_range,
            )
        }
        Part::Unsatisfiable => {
            headers.remove(header::CONTENT_TYPE);
            (
                StatusCode::RANGE_NOT_SATISFIABLE,
                Body::empty(),
                0,
                format!("bytes */{length}"),
            )
        }
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(bytes));
    let content_range = HeaderValue::try_from(content_range).expect("digits and punctuation");
    headers.insert(header::CONTENT_RANGE, content_range);
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

#[cfg(test)]
mod tests {
    use super::{Part, parse};

    #[test]
    fn ranges_of_ten_bytes() {
        for (field, expected) in [
            ("bytes=0-3", Some(Part::Bytes(0..4))),
            ("bytes=4-", Some(Part::Bytes(4..10))),
            ("bytes=-3", Some(Part::Bytes(7..10))),
            ("bytes=-30", Some(Part::Bytes(0..10))),
            ("bytes=5-99999999999999999999999", Some(Part::Bytes(5..10))),
            ("bytes=10-", Some(Part::Unsatisfiable)),
            ("bytes=-0", Some(Part::Unsatisfiable)),
            ("bytes=3-1", None),
            ("bytes=0-1,3-4", None),
            ("bytes=a-", None),
            ("lines=0-1", None),
        ] {
            assert_eq!(parse(field, 10), expected, "{field}");
        }
    }
}
