//! Which bytes of a representation a stored response has, and which of them answer a request.

use std::ops::Range;

use http::{HeaderValue, StatusCode};

use super::{
    content_range::ContentRange,
    requested::{RangeSet, RangeSpec, requested},
};
use crate::policy::{RequestHead, StoredHead};

/// What a part of a multipart answer costs besides its bytes, roughly: boundary and fields. A gap that is no larger is
/// sent rather than left out (RFC 9110 section 15.3.7.2).
const PART_OVERHEAD_BYTES: u64 = 128;

/// The bytes that a stored response has.
///
/// What the origin claims and what came are told apart. A body that is shorter than its `Content-Range` claims is good
/// for an answer to the same question, which is all that a client without a cache would have got, so the claim says what
/// it covers and the body what is sent. It is never joined to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub(super) first: u64,
    /// One past the last position, as claimed.
    pub(super) end: u64,
    pub(super) complete: Option<u64>,
    /// Bytes that are there, counted from the first position: at most as many as are claimed.
    pub(super) held: u64,
}

/// Bytes of a stored body, and where they lie in the representation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Where in the stored body.
    pub body: Range<u64>,
    first: u64,
    complete: Option<u64>,
}

/// What of a stored response answers a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// All of it: the request asks for no range that counts.
    Whole,
    /// One range.
    One(Stretch),
    /// Several, which neither overlap nor lie close together.
    Several(Vec<Stretch>),
    /// Nothing: every range lies past the end of a representation of this length.
    Unsatisfiable(u64),
    /// It has not got what the request asks for.
    Missing,
}

/// What of a stored response with a body of `body_bytes` answers the request.
pub fn select_bytes(request: &RequestHead<'_>, stored: &StoredHead, body_bytes: u64) -> Selection {
    match (requested(request, stored), stored.is_part()) {
        (None, false) => Selection::Whole,
        (None, true) => Selection::Missing,
        (Some(ranges), _) => Extent::of(stored, body_bytes)
            .map_or(Selection::Missing, |extent| extent.select(&ranges)),
    }
}

impl StoredHead {
    /// Whether it is the head of a part.
    pub fn is_part(&self) -> bool {
        self.status == StatusCode::PARTIAL_CONTENT
    }
}

impl Extent {
    /// What a stored response with a body of `body_bytes` has; `None` for a part without a valid place, or with more
    /// bytes than it claims.
    pub fn of(stored: &StoredHead, body_bytes: u64) -> Option<Self> {
        if !stored.is_part() {
            return Some(Self {
                first: 0,
                end: body_bytes,
                complete: Some(body_bytes),
                held: body_bytes,
            });
        }
        let ContentRange { bytes, complete } = ContentRange::of(&stored.headers)?;
        (body_bytes <= bytes.end - bytes.start).then_some(Self {
            first: bytes.start,
            end: bytes.end,
            complete,
            held: body_bytes,
        })
    }

    /// The length of the complete representation, where it is known.
    pub fn complete_bytes(&self) -> Option<u64> {
        self.complete
    }

    /// Whether the bytes that are there are the ones that are claimed.
    pub(super) fn is_exact(&self) -> bool {
        self.held == self.claimed_bytes()
    }

    pub(super) fn claimed_bytes(&self) -> u64 {
        self.end - self.first
    }

    /// Whether it has the whole representation.
    pub(super) fn is_whole(&self) -> bool {
        self.is_exact() && self.first == 0 && self.complete == Some(self.end)
    }

    /// The extent of exactly these positions.
    pub(super) fn exactly(bytes: Range<u64>, complete: Option<u64>) -> Self {
        Self {
            first: bytes.start,
            end: bytes.end,
            complete,
            held: bytes.end - bytes.start,
        }
    }

    fn select(&self, ranges: &RangeSet) -> Selection {
        let mut found = Vec::with_capacity(ranges.len());
        for range in ranges {
            match self.locate(*range) {
                Located::At(positions) => found.push(positions),
                Located::PastTheEnd => {}
                Located::Missing => return Selection::Missing,
            }
        }
        let found = apart(found);
        let total_bytes: u64 = found.iter().map(|range| range.end - range.start).sum();
        let overhead_bytes = PART_OVERHEAD_BYTES * found.len() as u64;
        match (&found[..], self.complete) {
            ([], Some(complete)) => Selection::Unsatisfiable(complete),
            ([], None) => Selection::Missing,
            ([positions], _) => Selection::One(self.stretch(positions)),
            _ if self.is_whole() && total_bytes + overhead_bytes >= self.held => Selection::Whole,
            _ => Selection::Several(found.iter().map(|range| self.stretch(range)).collect()),
        }
    }

    /// The positions of the bytes that are there for a range.
    fn locate(&self, range: RangeSpec) -> Located {
        let there = self.first..self.first + self.held;
        let positions = match range {
            RangeSpec::Last(0) => return Located::PastTheEnd,
            RangeSpec::Last(count) => {
                let Some(complete) = self.complete else {
                    return Located::Missing;
                };
                if complete == 0 {
                    return Located::PastTheEnd;
                }
                if complete != self.end || complete.saturating_sub(count) < self.first {
                    return Located::Missing;
                }
                there.end.saturating_sub(count).max(there.start)..there.end
            }
            RangeSpec::From(first, last) => {
                if self.complete.is_some_and(|complete| first >= complete) {
                    return Located::PastTheEnd;
                }
                let end = last.saturating_add(1);
                let end = self.complete.map_or(end, |complete| end.min(complete));
                if first < self.first || end > self.end {
                    return Located::Missing;
                }
                first..end.min(there.end)
            }
        };
        if positions.is_empty() {
            return Located::Missing;
        }
        Located::At(positions)
    }

    fn stretch(&self, positions: &Range<u64>) -> Stretch {
        Stretch {
            body: positions.start - self.first..positions.end - self.first,
            first: positions.start,
            complete: self.complete,
        }
    }
}

enum Located {
    At(Range<u64>),
    PastTheEnd,
    Missing,
}

/// The ranges in the order in which they were asked for, if all lie well apart; otherwise in ascending order, with those
/// that overlap or nearly touch made one. Either way no byte is sent twice.
fn apart(ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    let mut sorted = ranges.clone();
    sorted.sort_unstable_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(sorted.len());
    for range in sorted {
        match joined.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(PART_OVERHEAD_BYTES) => {
                last.end = last.end.max(range.end);
            }
            _ => joined.push(range),
        }
    }
    if joined.len() == ranges.len() {
        ranges
    } else {
        joined
    }
}

impl Stretch {
    /// How many bytes.
    pub fn bytes(&self) -> u64 {
        self.body.end - self.body.start
    }

    /// The `Content-Range` of an answer with these bytes.
    pub fn content_range(&self) -> HeaderValue {
        let positions = self.first..self.first + self.bytes();
        ContentRange::to_value(&positions, self.complete)
    }
}

#[cfg(test)]
mod tests {
    use super::{Selection, select_bytes};
    use crate::policy::tests::{Request, Response, cases};
    use crate::policy::{Settings, StoredHead};

    fn describe(selection: &Selection) -> String {
        let one = |stretch: &super::Stretch| {
            let range = stretch.content_range();
            let range = range
                .to_str()
                .unwrap()
                .trim_start_matches("bytes ")
                .to_owned();
            format!("{range} [{}..{}]", stretch.body.start, stretch.body.end)
        };
        match selection {
            Selection::Whole => "whole".to_owned(),
            Selection::One(stretch) => one(stretch),
            Selection::Several(several) => several.iter().map(one).collect::<Vec<_>>().join(", "),
            Selection::Unsatisfiable(length) => format!("416 {length}"),
            Selection::Missing => "missing".to_owned(),
        }
    }

    /// `place, body bytes :: ranges => selection`; the place `whole` is that of a 200.
    fn check(table: &str) {
        for case in cases(table) {
            let (question, expected) = case.split_once(" => ").unwrap();
            let (stored, ranges) = question.split_once(" :: ").unwrap();
            let (place, body_bytes) = stored.split_once(", ").unwrap();
            let response = match place {
                "whole" => "200 -".to_owned(),
                place => format!("206 Content-Range: bytes {place}"),
            };
            let asked = Request::new(&match ranges {
                "-" => String::new(),
                ranges => format!("Range: bytes={ranges}"),
            });
            let head = StoredHead::new(
                &asked.head(),
                &Response::new(&response).head(),
                &Settings::default(),
            );
            let selection = select_bytes(&asked.head(), &head, body_bytes.parse().unwrap());
            assert_eq!(describe(&selection), expected, "{case}");
        }
    }

    #[test]
    fn a_complete_response_answers_every_range() {
        check(
            r"
            whole, 10 :: - => whole
            whole, 10 :: 0-3 => 0-3/10 [0..4]
            whole, 10 :: 4- => 4-9/10 [4..10]
            whole, 10 :: -3 => 7-9/10 [7..10]
            whole, 10 :: -30 => 0-9/10 [0..10]
            whole, 10 :: 5-99999999999999999999999 => 5-9/10 [5..10]
            whole, 10 :: 10- => 416 10
            whole, 10 :: -0 => 416 10
            whole, 10 :: 10-, -0 => 416 10
            whole, 10 :: 3-1 => whole
            whole, 0 :: 0- => 416 0
            whole, 0 :: -1 => 416 0
            ",
        );
    }

    #[test]
    fn several_ranges_are_answered_apart_together_or_whole() {
        check(
            r"
            whole, 9000 :: 0-9, 1000-1009 => 0-9/9000 [0..10], 1000-1009/9000 [1000..1010]
            // The order of the request stays, where nothing has to be joined.
            whole, 9000 :: 1000-1009, -10, 0-9 => 1000-1009/9000 [1000..1010], 8990-8999/9000 [8990..9000], 0-9/9000 [0..10]
            // One of several that can be satisfied is a plain 206.
            whole, 9000 :: 9000-, 0-9 => 0-9/9000 [0..10]
            whole, 9000 :: 0-9, 5-20 => 0-20/9000 [0..21]
            whole, 9000 :: 5-20, 0-9 => 0-20/9000 [0..21]
            whole, 9000 :: 0-9, 10-19 => 0-19/9000 [0..20]
            whole, 9000 :: 0-9, 138-140 => 0-140/9000 [0..141]
            whole, 9000 :: 0-9, 139-140 => 0-9/9000 [0..10], 139-140/9000 [139..141]
            whole, 9000 :: 8000-8001, 0-9, 5-20 => 0-20/9000 [0..21], 8000-8001/9000 [8000..8002]
            // What would be larger in parts is sent whole.
            whole, 9000 :: 0-4499, 4700-8999 => whole
            whole, 9000 :: 0-8999, 0-8999, 0-8999 => 0-8999/9000 [0..9000]
            ",
        );
    }

    #[test]
    fn a_part_answers_what_it_covers() {
        check(
            r"
            2-5/10, 4 :: - => missing
            2-5/10, 4 :: 2-5 => 2-5/10 [0..4]
            2-5/10, 4 :: 3-3 => 3-3/10 [1..2]
            2-5/10, 4 :: 1-3 => missing
            2-5/10, 4 :: 5-6 => missing
            2-5/10, 4 :: 2- => missing
            2-5/10, 4 :: -2 => missing
            2-5/10, 4 :: 10- => 416 10
            2-5/10, 4 :: 2-3, 10- => 2-3/10 [0..2]
            2-5/10, 4 :: 2-3, 8-9 => missing
            2-9/10, 8 :: 7- => 7-9/10 [5..8]
            2-9/10, 8 :: -8 => 2-9/10 [0..8]
            2-9/10, 8 :: -9 => missing
            2-9/10, 8 :: 5-100 => 5-9/10 [3..8]
            // Without the complete length nobody knows where the end is.
            2-5/*, 4 :: 2-5 => 2-5/* [0..4]
            2-5/*, 4 :: 2- => missing
            2-5/*, 4 :: -1 => missing
            2-5/*, 4 :: 2-6 => missing
            2-5/*, 4 :: -0 => missing
            1000-8999/9000, 8000 :: 1000-1009, -10 => 1000-1009/9000 [0..10], 8990-8999/9000 [7990..8000]
            // All of a part is not the whole.
            1000-8999/9000, 8000 :: 1000-4000, 4200-8999 => 1000-4000/9000 [0..3001], 4200-8999/9000 [3200..8000]
            ",
        );
    }

    #[test]
    fn a_body_shorter_than_it_claims_covers_what_it_claims_and_gives_what_is_there() {
        check(
            r"
            4-9/10, 5 :: 6-8 => 6-8/10 [2..5]
            4-9/10, 5 :: 6- => 6-8/10 [2..5]
            4-9/10, 5 :: -1 => 8-8/10 [4..5]
            4-9/10, 5 :: -5 => 4-8/10 [0..5]
            4-9/10, 5 :: -6 => 4-8/10 [0..5]
            4-9/10, 5 :: -7 => missing
            4-9/10, 5 :: 9- => missing
            4-9/10, 0 :: 4- => missing
            4-9/10, 0 :: -1 => missing
            // A longer one claims nothing that could be believed.
            4-9/10, 7 :: 6-8 => missing
            ",
        );
    }
}
