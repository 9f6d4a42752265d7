//! Conditional requests, outwards and inwards (RFC 9110 section 13, RFC 9111 section 4.3).
//!
//! `If-Match` and `If-Unmodified-Since` are for the origin (RFC 9111 section 4.3.2): while it can be had, [`decide`] sends
//! such requests on. Only when the store stands in for it are they evaluated here.
//!
//! [`decide`]: super::decide

use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{
        DATE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_UNMODIFIED_SINCE, LAST_MODIFIED,
    },
};

use super::{
    FieldSet, RequestHead, ResponseHead, StoredFields, StoredHead, Timestamp,
    date::http_date,
    decide::is_read_method,
    entity_tag::{EntityTag, any_matches},
    fields::FieldLines,
    stored_fields::as_value,
};

/// How a conditional request is answered from a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// With the whole representation.
    Full,
    /// With 304: the client's validator matches.
    NotModified,
    /// With 412: a precondition failed.
    PreconditionFailed,
}

/// Evaluates the client's own conditions against a stored response (RFC 9110 section 13.2.2). Conditions count only for
/// a success: what would be answered with another status is answered with that (section 13.2.1).
pub fn answer_conditionally(request: &RequestHead<'_>, stored: &StoredHead) -> Answer {
    // Few requests have any, and every hit asks.
    if !stored.status.is_success() || !request.has(FieldSet::CONDITIONS) {
        return Answer::Full;
    }
    if !matches_origin_conditions(request.headers, stored) {
        return Answer::PreconditionFailed;
    }
    let reads = is_read_method(request.method);
    match (is_known_to_client(request.headers, stored), reads) {
        (false, _) => Answer::Full,
        (true, true) => Answer::NotModified,
        (true, false) => Answer::PreconditionFailed,
    }
}

/// Replaces the client's conditions in the outgoing `headers` by those that validate `stored`. `If-Range` stays: it is
/// evaluated after ours, and keeps a changed representation from being patched with a part of the new one.
pub fn validation_headers(headers: &mut HeaderMap, stored: &StoredHead) {
    for name in [
        IF_MATCH,
        IF_NONE_MATCH,
        IF_MODIFIED_SINCE,
        IF_UNMODIFIED_SINCE,
    ] {
        headers.remove(name);
    }
    if let Some(tag) = stored.headers.get(ETAG) {
        headers.insert(IF_NONE_MATCH, as_value(tag));
    }
    if let Some(date) = stored.headers.get(LAST_MODIFIED)
        && http_date(date).is_some()
    {
        headers.insert(IF_MODIFIED_SINCE, as_value(date));
    }
}

/// Whether a forward of this request carries the validators of `stored` in place of the client's conditions.
pub(super) fn sends_validators(request: &RequestHead<'_>, stored: &StoredHead) -> bool {
    stored.terms.has_validator && !request.has(FieldSet::ORIGIN_CONDITIONS)
}

/// Whether a 304 speaks of `stored`, whose validators were sent (RFC 9111 section 4.3.4). One without any validator does:
/// only one response was asked about.
pub(super) fn identifies(response: &ResponseHead<'_>, stored: &StoredHead) -> bool {
    let same = |name: &HeaderName, equal: fn(&[u8], &[u8]) -> bool| {
        let new = response.headers.get(name)?.as_bytes();
        Some(stored.headers.get(name).is_some_and(|old| equal(old, new)))
    };
    same(&ETAG, same_tag)
        .or_else(|| same(&LAST_MODIFIED, same_date))
        .unwrap_or(true)
}

/// Whether every validator that `new` carries has the same value in `stored`.
pub(super) fn validators_agree(new: &impl FieldLines, stored: &impl FieldLines) -> bool {
    let agree = |name: &HeaderName, equal: fn(&[u8], &[u8]) -> bool| {
        let (new, old) = (new.lines(name).next(), stored.lines(name).next());
        new.is_none_or(|new| old.is_some_and(|old| equal(old, new)))
    };
    agree(&ETAG, same_tag) && agree(&LAST_MODIFIED, same_date)
}

/// The validator that promises the same bytes: a strong entity tag, or where there is no tag at all a date that is strong
/// (RFC 9110 section 8.8.2.2).
pub(super) fn strong_validator(fields: &impl FieldLines) -> Option<&[u8]> {
    let mut tags = fields.lines(&ETAG);
    match (tags.next(), tags.next()) {
        (Some(tag), None) => EntityTag::of(tag).is_strong().then_some(tag),
        (Some(_), Some(_)) => None,
        (None, _) => strong_date(fields).and(fields.lines(&LAST_MODIFIED).next()),
    }
}

/// Whether both have a strong validator, and the same.
pub(super) fn same_strong_validator(one: &StoredFields, other: &StoredFields) -> bool {
    let (Some(first), Some(second)) = (strong_validator(one), strong_validator(other)) else {
        return false;
    };
    match (one.contains_key(ETAG), other.contains_key(ETAG)) {
        (true, true) => EntityTag::of(first).matches_strongly(EntityTag::of(second)),
        (false, false) => same_date(first, second),
        _ => false,
    }
}

/// Whether a condition is the entity tag of these fields, compared strongly.
pub(super) fn is_current_tag(condition: &HeaderValue, headers: &StoredFields) -> bool {
    headers
        .get(ETAG)
        .is_some_and(|tag| EntityTag::of(condition).matches_strongly(EntityTag::of(tag)))
}

/// Whether a condition is the date of last modification of these fields, and that is strong.
pub(super) fn is_current_date(condition: &HeaderValue, headers: &StoredFields) -> bool {
    strong_date(headers).is_some_and(|date| http_date(condition) == Some(date))
}

/// `Last-Modified` where nothing can have changed within the second it names: the response was made so much later that
/// not even a difference between the clocks that set the two dates matters.
fn strong_date(fields: &impl FieldLines) -> Option<Timestamp> {
    const STRONG_AFTER_SECS: i64 = 60;
    let date = |name: &HeaderName| fields.lines(name).next().and_then(http_date);
    let (modified, made) = (date(&LAST_MODIFIED)?, date(&DATE)?);
    let is_strong = made.as_secs().saturating_sub(modified.as_secs()) >= STRONG_AFTER_SECS;
    is_strong.then_some(modified)
}

/// A strong tag in the new response must be in the stored one; a weak one need only match weakly.
fn same_tag(old: &[u8], new: &[u8]) -> bool {
    let (old, new) = (EntityTag::of(old), EntityTag::of(new));
    if new.is_strong() {
        new.matches_strongly(old)
    } else {
        new.matches_weakly(old)
    }
}

fn same_date(old: &[u8], new: &[u8]) -> bool {
    old == new || matches!((http_date(old), http_date(new)), (Some(old), Some(new)) if old == new)
}

/// Steps 1 and 2 of RFC 9110 section 13.2.2.
fn matches_origin_conditions(headers: &HeaderMap, stored: &StoredHead) -> bool {
    if headers.contains_key(IF_MATCH) {
        let tag = stored.headers.get(ETAG).map(EntityTag::of);
        return any_matches(headers, &IF_MATCH, |wanted| {
            tag.is_some_and(|tag| wanted.matches_strongly(tag))
        });
    }
    let unmodified_since = headers.get(IF_UNMODIFIED_SINCE).and_then(http_date);
    match (unmodified_since, last_modified(stored)) {
        (Some(limit), Some(modified)) => modified <= limit,
        _ => true,
    }
}

/// Steps 3 and 4 of RFC 9110 section 13.2.2: whether the client has this representation already.
fn is_known_to_client(headers: &HeaderMap, stored: &StoredHead) -> bool {
    if headers.contains_key(IF_NONE_MATCH) {
        let tag = stored.headers.get(ETAG).map(EntityTag::of);
        return any_matches(headers, &IF_NONE_MATCH, |known| {
            tag.is_some_and(|tag| known.matches_weakly(tag))
        });
    }
    let since = headers.get(IF_MODIFIED_SINCE).and_then(http_date);
    since.is_some_and(|since| modified_or_made(stored) <= since)
}

fn last_modified(stored: &StoredHead) -> Option<Timestamp> {
    stored.headers.get(LAST_MODIFIED).and_then(http_date)
}

/// Without `Last-Modified` the `Date` stands in for it, else the time of receipt (RFC 9111 section 4.3.2).
fn modified_or_made(stored: &StoredHead) -> Timestamp {
    last_modified(stored)
        .or_else(|| stored.headers.get(DATE).and_then(http_date))
        .unwrap_or(stored.response_time)
}
