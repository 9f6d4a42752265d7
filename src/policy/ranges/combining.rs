//! Two stored responses as one (RFC 9111 section 3.4, RFC 9110 section 15.3.7.3).

use std::ops::Range;

use http::{
    HeaderMap, HeaderName, HeaderValue, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, SET_COOKIE},
};

use super::{content_range::ContentRange, extent::Extent};
use crate::policy::{
    CookiePolicy, Settings, StoredFields, StoredHead, Terms,
    directives::CacheFields,
    freshen::updated_fields,
    stored_fields::as_value,
    storing::clean,
    validation::{same_strong_validator, validators_agree},
};

/// Fields that describe the bytes of one answer. They say nothing about more or fewer bytes.
const OF_ONE_ANSWER: [HeaderName; 2] = [
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
];

/// A part that is not the whole yet grows by this share of itself at least, or not at all: joining copies all of it, so a
/// client that asks for one byte after another would have it copied, and written, for every byte.
const GROWTH_MIN: u64 = 8;

/// What a stored response and a newer one are together.
#[derive(Clone, Debug)]
pub enum Combined {
    /// Nothing: the newer one takes the older one's place.
    Apart,
    /// The stored bytes stand, under this head: the new ones are among them, or too few to matter.
    Stands(Box<StoredHead>),
    /// One run of bytes under this head: the stored ones of `before`, the new ones, the stored ones of `after`.
    Joined {
        /// Its head: a 200 where the whole is there.
        head: Box<StoredHead>,
        /// Of the stored body, what goes before the new one.
        before: Range<u64>,
        /// Of the stored body, what goes after it.
        after: Range<u64>,
    },
}

/// Combines a stored response, complete or a part, with a newer part; each with the length of its body.
///
/// Only one run of bytes is kept, so of two that do not touch the longer one is worth more, and a few bytes more are not
/// worth the copy of many. Being of the same representation the stored ones are as new as the newer ones.
pub fn combine(
    (stored, stored_bytes): (&StoredHead, u64),
    (new, new_bytes): (&StoredHead, u64),
    settings: &Settings,
) -> Combined {
    let (Some(old), Some(extent)) = (Extent::of(stored, stored_bytes), Extent::of(new, new_bytes))
    else {
        return Combined::Apart;
    };
    let lengths_agree =
        old.complete.is_none() || extent.complete.is_none() || old.complete == extent.complete;
    if !old.is_exact() || !extent.is_exact() || !lengths_agree || !is_same(stored, new) {
        return Combined::Apart;
    }
    let complete = old.complete.or(extent.complete);
    let covers = old.first <= extent.first && extent.end <= old.end;
    let touches = old.first <= extent.end && extent.first <= old.end;
    let both = old.first.min(extent.first)..old.end.max(extent.end);
    let is_worth_it = if touches {
        let adds_bytes = (both.end - both.start) - old.claimed_bytes();
        Extent::exactly(both.clone(), complete).is_whole()
            || adds_bytes >= old.claimed_bytes() / GROWTH_MIN
    } else {
        extent.claimed_bytes() >= old.claimed_bytes()
    };
    if covers || !is_worth_it {
        let head = head_of(stored, new, &Extent { complete, ..old }, settings);
        return Combined::Stands(Box::new(whole_if_complete(head, stored_bytes)));
    }
    if !touches {
        return Combined::Apart;
    }
    let both_bytes = both.end - both.start;
    let head = head_of(stored, new, &Extent::exactly(both, complete), settings);
    Combined::Joined {
        head: Box::new(whole_if_complete(head, both_bytes)),
        before: 0..extent.first.saturating_sub(old.first),
        after: stored_bytes - old.end.saturating_sub(extent.end)..stored_bytes,
    }
}

/// Whether a part says that a complete response with a body of `complete_bytes` is not what the origin has now: another
/// validator, or another length.
pub fn contradicts(complete: &StoredHead, complete_bytes: u64, part: &StoredHead) -> bool {
    let length = ContentRange::of(&part.headers).and_then(|place| place.complete);
    !validators_agree(&part.headers, &complete.headers)
        || length.is_some_and(|length| length != complete_bytes)
}

/// Whether the bytes of both are of one representation, as far as anybody can promise.
pub(super) fn is_same(stored: &StoredHead, new: &StoredHead) -> bool {
    let (old, new) = (&stored.headers, &new.headers);
    let same_codings = old
        .get_all(CONTENT_ENCODING)
        .eq(new.get_all(CONTENT_ENCODING));
    same_strong_validator(old, new) && same_codings
}

/// The head of a part with the bytes of `extent`: the stored fields, with the new ones in place of their own.
pub(super) fn head_of(
    stored: &StoredHead,
    new: &StoredHead,
    extent: &Extent,
    settings: &Settings,
) -> StoredHead {
    let mut headers = updated_fields(stored, &new.headers.to_map());
    if settings.set_cookie != CookiePolicy::Store {
        headers.remove(SET_COOKIE);
    }
    for name in &OF_ONE_ANSWER {
        headers.remove(name);
    }
    let place = ContentRange::to_value(&(extent.first..extent.end), extent.complete);
    headers.insert(CONTENT_RANGE, place);
    headers.insert(CONTENT_LENGTH, HeaderValue::from(extent.claimed_bytes()));
    let fields = CacheFields::parse(&headers, &settings.targeted_fields);
    clean(&mut headers, &fields, new.response_time, settings);
    let terms = Terms::from_fields(
        StatusCode::PARTIAL_CONTENT,
        &headers,
        &fields,
        settings,
        (new.request_time, new.response_time),
    );
    StoredHead {
        status: StatusCode::PARTIAL_CONTENT,
        terms,
        sets_cookie: headers.contains_key(SET_COOKIE),
        headers: StoredFields::from(&headers),
        authorized: stored.authorized || new.authorized,
        ..new.clone()
    }
}

/// The fields of `head`, which was made of a part and this response, for the client whose request led to the response:
/// with what is withheld from others.
pub(super) fn for_the_client(
    part: &StoredHead,
    response: &HeaderMap,
    head: &StoredHead,
) -> HeaderMap {
    let mut headers = updated_fields(part, response);
    for name in OF_ONE_ANSWER.iter().chain(&[CONTENT_LENGTH, CONTENT_RANGE]) {
        headers.remove(name);
        if let Some(value) = head.headers.get(name) {
            headers.insert(name, as_value(value));
        }
    }
    headers
}

/// The head of a part that turns out to be the whole, as that of a complete response; any other as it is.
pub fn whole_if_complete(mut head: StoredHead, body_bytes: u64) -> StoredHead {
    let extent = Extent::of(&head, body_bytes);
    if head.is_part() && extent.is_some_and(|extent| extent.is_whole()) {
        // Its terms stay: heuristics and the route's default treat both statuses alike.
        head.status = StatusCode::OK;
        head.headers = head.headers.without(&CONTENT_RANGE);
    }
    head
}
