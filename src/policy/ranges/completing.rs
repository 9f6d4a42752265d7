//! What a stored part lacks of what a request wants, how that is asked for, and what the answer makes of both.

use std::ops::Range;

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{IF_RANGE, RANGE},
};

use super::{
    combining::{for_the_client, head_of, is_same, whole_if_complete},
    content_range::ContentRange,
    extent::Extent,
    requested::{RangeSpec, if_range_holds, requested},
};
use crate::policy::{
    FieldSet, RequestHead, ResponseHead, Settings, StoredHead, Timestamp,
    directives::RequestDirectives,
    stored_fields::as_value,
    storing::{Storing, judge_fields},
    validation::strong_validator,
};

/// How a part is completed to what a request wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Completion {
    /// What the request wants: from the first position to one past the last, which may not be known yet.
    wanted: Span,
    /// What the origin is asked for.
    missing: Span,
    /// Of the part's body, what goes before and after what is asked for; one of them is empty.
    before: Range<u64>,
    after: Range<u64>,
    complete: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Span {
    first: u64,
    /// `None`: the end of the representation.
    end: Option<u64>,
}

/// What the answer to the request for the rest is.
#[derive(Clone, Debug)]
pub enum Answered {
    /// The rest: together with the part this answers the request.
    Rest(Assembly),
    /// A 206 that cannot be combined, or a 416: ask for what the request wants, as if there were no part.
    AskAnew,
    /// An answer to the request as a whole, which is judged as any other.
    Anew,
}

/// An answer put together from a part and the rest.
#[derive(Clone, Debug)]
pub struct Assembly {
    /// Its head: a 206 for a request with a range, else a 200.
    pub head: Box<StoredHead>,
    /// Its fields for the client whose request led to it: with what is withheld from others.
    pub received: HeaderMap,
    /// Its length.
    pub bytes: u64,
    /// Of the part's body, what goes before the rest.
    pub before: Range<u64>,
    /// Bytes that the rest must have, exactly.
    pub rest_bytes: u64,
    /// Of the part's body, what goes after the rest.
    pub after: Range<u64>,
}

/// How `part`, with a body of `body_bytes`, is completed to what the request wants; `None` where asking for that as a
/// whole is as good: the part is in the middle of it, or apart from it, or could not be combined.
///
/// A fresh part without a strong validator is tried for the whole: whoever changed the representation meanwhile, or does
/// not do ranges, answers with all of it at once. A 206 is not combined with it and leads to a second request.
pub fn completion(
    request: &RequestHead<'_>,
    part: &StoredHead,
    body_bytes: u64,
    settings: &Settings,
    now: Timestamp,
) -> Option<Completion> {
    let extent = Extent::of(part, body_bytes).filter(Extent::is_exact)?;
    if request.has(FieldSet::ORIGIN_CONDITIONS)
        || RequestDirectives::in_force(request, settings).no_store
    {
        return None;
    }
    let ranged = request.has(FieldSet::RANGE);
    let combinable = strong_validator(&part.headers).is_some();
    if ranged && (!combinable || request.has(FieldSet::CONDITIONS)) {
        return None;
    }
    if !combinable && !part.freshness(settings, now).is_fresh() {
        return None;
    }
    let wanted = if ranged {
        wanted_range(request, part, &extent)?
    } else {
        Span {
            first: 0,
            end: extent.complete,
        }
    };
    Completion::of(wanted, &extent)
}

/// Whether the range that the request wants is all that `part` lacks, so that both together will be the whole.
pub fn makes_whole(request: &RequestHead<'_>, part: &StoredHead, body_bytes: u64) -> bool {
    let Some(extent) = Extent::of(part, body_bytes).filter(Extent::is_exact) else {
        return false;
    };
    let Some(wanted) = wanted_range(request, part, &extent) else {
        return false;
    };
    let goes_on = extent.first == 0 && wanted.first <= extent.end && wanted.end == extent.complete;
    let leads_up = extent.complete == Some(extent.end)
        && wanted.first == 0
        && wanted.end >= Some(extent.first);
    extent.complete.is_some() && (goes_on || leads_up) && strong_validator(&part.headers).is_some()
}

/// The one range that a request wants, cut to the representation.
fn wanted_range(request: &RequestHead<'_>, part: &StoredHead, extent: &Extent) -> Option<Span> {
    if !if_range_holds(request.headers, part) {
        return None;
    }
    let ranges = requested(request, part)?;
    let [range] = ranges[..] else { return None };
    match range {
        RangeSpec::Last(count) => extent.complete.map(|complete| Span {
            first: complete.saturating_sub(count),
            end: Some(complete),
        }),
        RangeSpec::From(first, u64::MAX) => Some(Span {
            first,
            end: extent.complete,
        }),
        RangeSpec::From(first, last) => Some(Span {
            first,
            end: Some(
                extent
                    .complete
                    .map_or(last + 1, |complete| complete.min(last + 1)),
            ),
        }),
    }
}

impl Completion {
    fn of(wanted: Span, extent: &Extent) -> Option<Self> {
        let body_bytes = extent.claimed_bytes();
        let ends_later = wanted.end.is_none_or(|end| end > extent.end);
        let starts_within = extent.first <= wanted.first && wanted.first < extent.end;
        let ends_within = wanted
            .end
            .is_some_and(|end| extent.first < end && end <= extent.end);
        let (missing, before, after) = if starts_within && ends_later {
            let rest = Span {
                first: extent.end,
                end: wanted.end,
            };
            (rest, wanted.first - extent.first..body_bytes, 0..0)
        } else if ends_within && wanted.first < extent.first {
            let rest = Span {
                first: wanted.first,
                end: Some(extent.first),
            };
            let end = wanted.end.unwrap_or(extent.end);
            (rest, 0..0, 0..end - extent.first)
        } else {
            return None;
        };
        Some(Self {
            wanted,
            missing,
            before,
            after,
            complete: extent.complete,
        })
    }

    /// Bytes of the assembled answer, where they are known before the origin has answered.
    pub fn known_bytes(&self) -> Option<u64> {
        self.wanted.end.map(|end| end - self.wanted.first)
    }

    /// Has the outgoing `headers` ask for what `part` lacks.
    pub fn ask(&self, headers: &mut HeaderMap, part: &StoredHead) {
        let Span { first, end } = self.missing;
        // Where the end of the rest is the end of all, it need not be told.
        let range = match end.filter(|end| Some(*end) != self.complete) {
            Some(end) => format!("bytes={first}-{}", end - 1),
            None => format!("bytes={first}-"),
        };
        let range = HeaderValue::try_from(range).expect("digits and punctuation");
        headers.insert(RANGE, range);
        headers.remove(IF_RANGE);
        if let Some(validator) = strong_validator(&part.headers) {
            headers.insert(IF_RANGE, as_value(validator));
        }
    }

    /// Judges the answer to the request for what `part` lacks.
    pub fn judge(
        &self,
        request: &RequestHead<'_>,
        response: &ResponseHead<'_>,
        part: &StoredHead,
        settings: &Settings,
    ) -> Answered {
        match response.status {
            StatusCode::PARTIAL_CONTENT => self
                .assemble(request, response, part, settings)
                .map_or(Answered::AskAnew, Answered::Rest),
            StatusCode::RANGE_NOT_SATISFIABLE => Answered::AskAnew,
            _ => Answered::Anew,
        }
    }

    fn assemble(
        &self,
        request: &RequestHead<'_>,
        response: &ResponseHead<'_>,
        part: &StoredHead,
        settings: &Settings,
    ) -> Option<Assembly> {
        let place = ContentRange::of(response.headers)?;
        let Storing::Yes(new) = judge_fields(request, response, settings) else {
            return None;
        };
        let complete = self.complete.or(place.complete);
        let lengths_agree = place.complete.is_none() || place.complete == complete;
        // A range may reach beyond an end that only the answer tells.
        let cut = |end: Option<u64>| match (end, complete) {
            (Some(end), Some(complete)) => Some(end.min(complete)),
            (end, complete) => end.or(complete),
        };
        let is_the_rest = place.bytes.start == self.missing.first
            && Some(place.bytes.end) == cut(self.missing.end);
        if !lengths_agree || !is_the_rest || !is_same(part, &new) {
            return None;
        }
        let wanted = self.wanted.first..cut(self.wanted.end)?;
        let bytes = wanted.end - wanted.start;
        let mut head = head_of(part, &new, &Extent::exactly(wanted, complete), settings);
        if !request.has(FieldSet::RANGE) {
            head = whole_if_complete(head, bytes);
        }
        Some(Assembly {
            received: for_the_client(part, response.headers, &head),
            bytes,
            head: Box::new(head),
            before: self.before.clone(),
            rest_bytes: place.bytes.end - place.bytes.start,
            after: self.after.clone(),
        })
    }
}
