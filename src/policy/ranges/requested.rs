//! What a request's `Range` asks for (RFC 9110 section 14.2), and whether its `If-Range` lets it.

use http::{
    HeaderMap, Method, StatusCode,
    header::{IF_RANGE, RANGE},
};
use smallvec::SmallVec;

use crate::policy::{
    FieldSet, RequestHead, StoredHead,
    fields::members,
    validation::{is_current_date, is_current_tag},
};

/// More ranges than this in one request are no sensible use of them; the answer is then the whole.
const RANGES_MAX: usize = 16;

/// One range of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RangeSpec {
    /// From the first to the last position, both included; `u64::MAX` stands for the end.
    From(u64, u64),
    /// So many of the last bytes.
    Last(u64),
}

/// The ranges of a request, in its order; at least one.
pub(super) type RangeSet = SmallVec<[RangeSpec; 1]>;

/// The ranges a request wants of a stored response; `None` where `Range` is absent, malformed or does not apply, and the
/// whole is wanted.
pub(super) fn requested(request: &RequestHead<'_>, stored: &StoredHead) -> Option<RangeSet> {
    let has_ranges = matches!(stored.status, StatusCode::OK | StatusCode::PARTIAL_CONTENT);
    if !request.has(FieldSet::RANGE) || request.method != Method::GET || !has_ranges {
        return None;
    }
    let mut lines = request.headers.get_all(RANGE).iter();
    let line = lines.next()?;
    if lines.next().is_some() || !if_range_holds(request.headers, stored) {
        return None;
    }
    parse(line.as_bytes())
}

/// Whether `If-Range` lets the ranges be answered: it is absent, or its validator is strong and that of the stored
/// response (RFC 9110 section 13.1.5).
pub(super) fn if_range_holds(request: &HeaderMap, stored: &StoredHead) -> bool {
    let mut lines = request.get_all(IF_RANGE).iter();
    match (lines.next(), lines.next()) {
        (None, _) => true,
        (Some(condition), None) => {
            is_current_tag(condition, &stored.headers)
                || is_current_date(condition, &stored.headers)
        }
        (Some(_), Some(_)) => false,
    }
}

fn parse(line: &[u8]) -> Option<RangeSet> {
    let equals = line.iter().position(|byte| *byte == b'=')?;
    let (unit, set) = (line[..equals].trim_ascii(), &line[equals + 1..]);
    if !unit.eq_ignore_ascii_case(b"bytes") {
        return None;
    }
    let mut ranges = RangeSet::new();
    for member in members(set) {
        if ranges.len() == RANGES_MAX {
            return None;
        }
        ranges.push(parse_spec(member)?);
    }
    (!ranges.is_empty()).then_some(ranges)
}

fn parse_spec(spec: &[u8]) -> Option<RangeSpec> {
    let dash = spec.iter().position(|byte| *byte == b'-')?;
    match (&spec[..dash], &spec[dash + 1..]) {
        (b"", suffix) => number(suffix).map(RangeSpec::Last),
        (first, b"") => number(first).map(|first| RangeSpec::From(first, u64::MAX)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(RangeSpec::From(first, last))
        }
    }
}

/// Digits and nothing else. A number that does not fit lies beyond every end, so the largest one stands for it.
fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0_u64, |number, byte| {
        let digit = char::from(*byte).to_digit(10)?;
        Some(number.saturating_mul(10).saturating_add(digit.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::{
        RangeSpec::{From, Last},
        parse, requested,
    };
    use crate::policy::tests::{Request, cases, stored};

    #[test]
    fn ranges_are_read_or_ignored_as_a_whole() {
        const END: u64 = u64::MAX;
        for (field, expected) in [
            ("bytes=0-3", Some(vec![From(0, 3)])),
            ("Bytes = 0-3", Some(vec![From(0, 3)])),
            ("bytes=4-", Some(vec![From(4, END)])),
            ("bytes=-3", Some(vec![Last(3)])),
            ("bytes=-0", Some(vec![Last(0)])),
            ("bytes=5-99999999999999999999999", Some(vec![From(5, END)])),
            (
                "bytes= 8-9 ,,0-1, -1",
                Some(vec![From(8, 9), From(0, 1), Last(1)]),
            ),
            ("bytes=3-1", None),
            ("bytes=0-1, 3-1", None),
            ("bytes=a-", None),
            ("bytes=-", None),
            ("bytes=1", None),
            ("bytes=0x1-2", None),
            ("bytes=+1-2", None),
            ("bytes=1 -2", None),
            ("bytes=--1", None),
            ("bytes=", None),
            ("bytes=,", None),
            ("bytes", None),
            ("lines=0-1", None),
        ] {
            let found = parse(field.as_bytes()).map(|ranges| ranges.to_vec());
            assert_eq!(found, expected, "{field}");
        }
    }

    #[test]
    fn a_flood_of_ranges_is_ignored() {
        let ranges = |count: usize| {
            let specs: Vec<String> = (0..count).map(|at| format!("{at}-{at}")).collect();
            parse(format!("bytes={}", specs.join(",")).as_bytes())
        };
        assert_eq!(ranges(16).map(|ranges| ranges.len()), Some(16));
        assert_eq!(ranges(17), None);
        assert_eq!(ranges(100_000), None);
    }

    /// `stored :: request => yes or no`: whether the ranges count.
    fn check(table: &str) {
        for case in cases(table) {
            let (question, expected) = case.split_once(" => ").unwrap();
            let (response, request) = question.split_once(" :: ").unwrap();
            let request = Request::new(request);
            let found = requested(&request.head(), &stored(response)).is_some();
            assert_eq!(found, expected == "yes", "{case}");
        }
    }

    #[test]
    fn ranges_count_for_a_get_whose_if_range_holds() {
        check(
            r#"
            - :: Range: bytes=0-1 => yes
            - :: HEAD: Range: bytes=0-1 => no
            - :: Range: bytes=0-1 | Range: bytes=0-1 => no
            404 - :: Range: bytes=0-1 => no
            ETag: "a" :: Range: bytes=0-1 | If-Range: "a" => yes
            ETag: "a" :: Range: bytes=0-1 | If-Range: "b" => no
            ETag: "a" :: Range: bytes=0-1 | If-Range: W/"a" => no
            ETag: W/"a" :: Range: bytes=0-1 | If-Range: "a" => no
            ETag: W/"a" :: Range: bytes=0-1 | If-Range: W/"a" => no
            ETag: a :: Range: bytes=0-1 | If-Range: a => no
            ETag: "a" :: Range: bytes=0-1 | If-Range: "a", "b" => no
            ETag: "a" :: Range: bytes=0-1 | If-Range: "a" | If-Range: "a" => no
            ETag: "a" :: Range: bytes=0-1 | If-Range: * => no
            - :: Range: bytes=0-1 | If-Range: "a" => no
            Last-Modified: @-60 :: Range: bytes=0-1 | If-Range: @-60 => yes
            ETag: "a" | Last-Modified: @-60 :: Range: bytes=0-1 | If-Range: @-60 => yes
            // A date is a strong validator only when it was a while ago then.
            Last-Modified: @-59 :: Range: bytes=0-1 | If-Range: @-59 => no
            Last-Modified: @-60 :: Range: bytes=0-1 | If-Range: @-61 => no
            Last-Modified: @-60 :: Range: bytes=0-1 | If-Range: @-59 => no
            Last-Modified: @-60 :: Range: bytes=0-1 | If-Range: yesterday => no
            - :: Range: bytes=0-1 | If-Range: @-60 => no
            "#,
        );
    }
}
