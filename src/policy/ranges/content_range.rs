//! The `Content-Range` of a response, read strictly: what is placed wrongly would be joined wrongly.

use std::{fmt::Write as _, ops::Range};

use http::{HeaderValue, header::CONTENT_RANGE};

use crate::policy::fields::{FieldLines, has_media_type};

/// Where the bytes of a 206 lie (RFC 9110 section 14.4).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::policy) struct ContentRange {
    /// Their positions; never empty.
    pub(super) bytes: Range<u64>,
    /// The length of the complete representation, where the origin says it.
    pub(super) complete: Option<u64>,
}

impl ContentRange {
    /// The one valid `Content-Range` of these fields; `None` where there is none, or more than one, or where the content is
    /// several parts: each has a place of its own then, and the whole must not claim one (RFC 9110 section 15.3.7.2).
    pub(in crate::policy) fn of(fields: &impl FieldLines) -> Option<Self> {
        if has_media_type(fields, b"multipart/byteranges") {
            return None;
        }
        let mut lines = fields.lines(&CONTENT_RANGE);
        let line = lines.next().filter(|_| lines.next().is_none())?;
        Self::parse(str::from_utf8(line).ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let (unit, rest) = text.trim_ascii().split_once(' ')?;
        let (range, complete) = rest.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let (first, last) = (number(first)?, number(last)?);
        let complete = match complete {
            "*" => None,
            length => Some(number(length)?),
        };
        let end = last.checked_add(1)?;
        let is_valid = unit.eq_ignore_ascii_case("bytes")
            && first <= last
            && complete.is_none_or(|complete| end <= complete);
        is_valid.then_some(Self {
            bytes: first..end,
            complete,
        })
    }

    /// The field. `bytes` must not be empty.
    pub(super) fn to_value(bytes: &Range<u64>, complete: Option<u64>) -> HeaderValue {
        let mut text = format!("bytes {}-{}/", bytes.start, bytes.end.saturating_sub(1));
        // Writing to a string cannot fail.
        let _ = match complete {
            Some(length) => write!(text, "{length}"),
            None => write!(text, "*"),
        };
        HeaderValue::try_from(text).expect("digits and punctuation")
    }
}

/// Digits and nothing else; a number that does not fit is none.
fn number(text: &str) -> Option<u64> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::ContentRange;
    use crate::policy::tests::headers;

    #[test]
    fn only_what_is_valid_places_bytes() {
        for (text, expected) in [
            ("bytes 0-4/10", Some((0..5, Some(10)))),
            ("Bytes 4-9/10", Some((4..10, Some(10)))),
            ("bytes 4-9/*", Some((4..10, None))),
            ("bytes 0-0/1", Some((0..1, Some(1)))),
            ("bytes 4-9/9", None),
            ("bytes 4-3/10", None),
            ("bytes */10", None),
            ("bytes 0-4", None),
            ("bytes=0-4/10", None),
            ("bytes  0-4/10", None),
            ("bytes 0 - 4/10", None),
            ("bytes -4/10", None),
            ("bytes +0-4/10", None),
            ("bytes 0-4/", None),
            ("bytes 0-4/10, bytes 5-9/10", None),
            ("bytes 0-18446744073709551615/*", None),
            ("bytes 0-99999999999999999999/*", None),
            ("lines 0-4/10", None),
            ("", None),
        ] {
            let found = ContentRange::of(&headers(&format!("Content-Range: {text}")));
            let found = found.map(|found| (found.bytes, found.complete));
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(
            ContentRange::of(&headers(
                "Content-Range: bytes 0-4/10 | Content-Range: bytes 0-4/10"
            )),
            None
        );
        assert_eq!(ContentRange::of(&headers("")), None);
        for (media_type, expected) in [
            ("multipart/byteranges; boundary=x", false),
            ("Multipart/ByteRanges ;boundary=x", false),
            ("multipart/form-data; boundary=x", true),
            ("text/plain; x=multipart/byteranges", true),
        ] {
            let fields = format!("Content-Range: bytes 0-4/10 | Content-Type: {media_type}");
            let found = ContentRange::of(&headers(&fields));
            assert_eq!(found.is_some(), expected, "{media_type}");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for (bytes, complete) in [(0..5, Some(10)), (7..8, None)] {
            let value = ContentRange::to_value(&bytes, complete);
            let found = ContentRange::parse(value.to_str().unwrap());
            assert_eq!(found, Some(ContentRange { bytes, complete }));
        }
    }
}
