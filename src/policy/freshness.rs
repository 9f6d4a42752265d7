//! Freshness lifetime and age (RFC 9111 section 4.2).
//!
//! What a response's fields say is read once, into [`Terms`]; what the operator says ([`Settings`]) and the time are
//! applied at each decision, in a few additions. Ages are kept in milliseconds so that a lifetime of one second is one.

use std::time::Duration;

use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{AGE, DATE, ETAG, EXPIRES, LAST_MODIFIED},
};
use serde::{Deserialize, Serialize};

use super::{
    CacheKind, Mark, SearchVariation, Settings, StoredHead, Tags, Timestamp,
    date::http_date,
    directives::{CacheFields, ResponseDirectives},
    fields::{DELTA_SECONDS_MAX, all_members, delta_seconds},
};

/// The heuristic lifetime is this part of the time since Last-Modified (RFC 9111 section 4.2.2 names 10 % as typical).
const HEURISTIC_DIVISOR: i64 = 10;

/// No heuristic lifetime is longer: what nobody promised is looked at again after a day.
const HEURISTIC_MAX_SECS: i64 = 24 * 3_600;

/// A shorter lifetime is never refreshed ahead: its end comes before a validation would be back, or soon after.
const REFRESH_AHEAD_LIFETIME_MIN_MILLIS: i64 = 10_000;

/// A clock may run behind by this much before it counts as stepped back: requests that wait for one fill took their time
/// before the response arrived.
const CLOCK_TOLERANCE_MILLIS: i64 = 1_000;

/// What a response's fields say about caching, parsed once when it is stored or freshened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    pub(super) directives: ResponseDirectives,
    /// Lifetime by `Expires`, in seconds: zero where it is invalid, repeated with garbage, or past.
    expires_secs: Option<u32>,
    /// Lifetime by heuristic, in seconds, where one applies.
    heuristic_secs: Option<u32>,
    /// Which of the route's lifetimes may apply.
    fallback: Fallback,
    /// `corrected_initial_age` of RFC 9111 section 4.2.3.
    initial_age_millis: i64,
    /// The value of `Date`, else the time of receipt.
    pub(super) date: Timestamp,
    /// Whether there is an `ETag` or a `Last-Modified` to validate with.
    pub(super) has_validator: bool,
    /// The tags and groups.
    pub tags: Tags,
    /// What of the query does not matter; `None`: everything matters.
    pub search: Option<Box<SearchVariation>>,
}

/// How old a stored response is at a moment, and how long it is fresh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Freshness {
    age_millis: i64,
    lifetime_millis: i64,
    state: State,
}

/// Which lifetime of the route's settings stands in for the origin's word.
///
/// On disk this is one byte, and the first two values are those of the flag that was there before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
enum Fallback {
    /// None.
    #[default]
    None,
    /// `default_ttl`: for a success or a permanent redirect.
    Default,
    /// `negative_ttl`: for an error.
    Negative,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    ByAge,
    /// Marked stale or invalid since it was stored.
    Marked,
    /// The clock stands before the time of receipt, so the true age is unknown.
    SteppedBack,
}

impl Terms {
    /// Bytes on the heap, roughly: of tags, groups and No-Vary-Search.
    pub fn heap_bytes(&self) -> usize {
        let search = self.search.as_ref().map_or(0, |search| search.heap_bytes());
        self.tags.tags.heap_bytes() + self.tags.groups.heap_bytes() + search
    }

    /// Reads the fields of a response with `status` that was asked for and received at these times.
    pub fn parse(
        status: StatusCode,
        headers: &HeaderMap,
        settings: &Settings,
        request_time: Timestamp,
        response_time: Timestamp,
    ) -> Self {
        let fields = CacheFields::parse(headers, &settings.targeted_fields);
        let times = (request_time, response_time);
        Self::from_fields(status, headers, &fields, settings, times)
    }

    pub(super) fn from_fields(
        status: StatusCode,
        headers: &HeaderMap,
        fields: &CacheFields,
        settings: &Settings,
        (request_time, response_time): (Timestamp, Timestamp),
    ) -> Self {
        let date = headers.get(DATE).and_then(http_date);
        let last_modified = headers.get(LAST_MODIFIED).and_then(http_date);
        let date_or_receipt = date.unwrap_or(response_time);
        let expires_secs = match fields.targeted {
            true => None,
            false => expires_lifetime(headers, date_or_receipt),
        };
        let heuristic_allowed = is_heuristically_cacheable(status) || fields.directives.public;
        let heuristic_secs = last_modified
            .filter(|_| heuristic_allowed)
            .map(|modified| heuristic_lifetime(date_or_receipt, modified));
        Self {
            directives: fields.directives,
            expires_secs,
            heuristic_secs,
            fallback: Fallback::of(status),
            initial_age_millis: initial_age_millis(headers, date, request_time, response_time),
            date: date_or_receipt,
            has_validator: headers.contains_key(ETAG) || last_modified.is_some(),
            tags: Tags::parse(headers, &settings.tag_fields),
            search: SearchVariation::parse(headers).map(Box::new),
        }
    }

    /// The freshness lifetime in seconds (RFC 9111 section 4.2.1), with the route's default where nothing else speaks.
    pub fn lifetime_secs(&self, settings: &Settings) -> u64 {
        self.explicit_secs(settings.kind)
            .or(self.heuristic_secs)
            .map_or_else(|| self.default_secs(settings), u64::from)
    }

    /// Whether the origin itself says how long the response is fresh.
    pub(super) fn is_explicit(&self, kind: CacheKind) -> bool {
        self.explicit_secs(kind).is_some()
    }

    /// Neither freshness nor a validator: kept for the time when the origin cannot be had, and for that only.
    pub(super) fn is_bare(&self, settings: &Settings) -> bool {
        !self.has_validator
            && !self.is_explicit(settings.kind)
            && self.heuristic_secs.is_none()
            && self.default_secs(settings) == 0
    }

    /// Whether anybody but its user may have it without the origin being asked: it is fresh for a time, or `public`.
    pub(super) fn is_for_others(&self, settings: &Settings) -> bool {
        self.directives.public || self.lifetime_secs(settings) > 0
    }

    /// The stale-while-revalidate window in force: the origin's, else the route's.
    pub fn stale_while_revalidate(&self, settings: &Settings) -> Duration {
        window(
            self.directives.stale_while_revalidate,
            settings.stale_while_revalidate,
        )
    }

    /// The stale-if-error window in force: the origin's, else the route's.
    pub fn stale_if_error(&self, settings: &Settings) -> Duration {
        window(self.directives.stale_if_error, settings.stale_if_error)
    }

    fn explicit_secs(&self, kind: CacheKind) -> Option<u32> {
        let shared = match kind {
            CacheKind::Shared => self.directives.s_maxage,
            CacheKind::Private => None,
        };
        shared.or(self.directives.max_age).or(self.expires_secs)
    }

    fn default_secs(&self, settings: &Settings) -> u64 {
        match self.fallback {
            Fallback::None => 0,
            Fallback::Default => settings.default_ttl.as_secs(),
            Fallback::Negative => settings.negative_ttl.as_secs(),
        }
    }
}

impl Fallback {
    fn of(status: StatusCode) -> Self {
        match (is_heuristically_cacheable(status), status.as_u16()) {
            (false, _) => Self::None,
            (true, ..400) => Self::Default,
            (true, _) => Self::Negative,
        }
    }
}

impl StoredHead {
    /// Its age and freshness at `now`.
    pub fn freshness(&self, settings: &Settings, now: Timestamp) -> Freshness {
        let lifetime_secs = self.terms.lifetime_secs(settings);
        let lifetime_millis = i64::try_from(lifetime_secs)
            .unwrap_or(i64::MAX)
            .saturating_mul(1_000);
        let resident_millis = now.millis_since(self.response_time);
        let initial_millis = self.terms.initial_age_millis;
        if resident_millis < -CLOCK_TOLERANCE_MILLIS {
            return Freshness {
                age_millis: initial_millis.max(lifetime_millis),
                lifetime_millis,
                state: State::SteppedBack,
            };
        }
        Freshness {
            age_millis: initial_millis.saturating_add(resident_millis.max(0)),
            lifetime_millis,
            state: match self.mark {
                Mark::None => State::ByAge,
                Mark::Stale | Mark::Invalid => State::Marked,
            },
        }
    }
}

impl Freshness {
    /// Whether the response is fresh. Directives such as `no-cache` may forbid its reuse all the same.
    pub fn is_fresh(&self) -> bool {
        self.state == State::ByAge && self.lifetime_millis > self.age_millis
    }

    /// Current age in whole seconds (RFC 9111 section 4.2.3). A clock stepped back counts as stale, never as newborn: the
    /// age is then the lifetime at least.
    pub fn age_secs(&self) -> u64 {
        u64::try_from(self.age_millis / 1_000).unwrap_or(0)
    }

    /// Freshness left in whole seconds; negative or zero when stale. With [`Freshness::age_secs`] it adds up to the
    /// lifetime, so that an answer does not seem to have lost a second on its way.
    pub fn ttl_secs(&self) -> i64 {
        let secs = (self.lifetime_millis / 1_000).saturating_sub(self.age_millis / 1_000);
        match self.state {
            State::ByAge => secs,
            State::Marked | State::SteppedBack => secs.min(0),
        }
    }

    /// Whether it is fresh, with no more than `percent` of its lifetime left, and that lifetime is long enough for a
    /// validation ahead of time.
    pub(super) fn ends_within(&self, percent: u8) -> bool {
        let left_millis = self.lifetime_millis.saturating_sub(self.age_millis);
        // At most 100 times u32::MAX seconds, or saturated on both sides.
        self.is_fresh()
            && self.lifetime_millis >= REFRESH_AHEAD_LIFETIME_MIN_MILLIS
            && left_millis.saturating_mul(100)
                <= self.lifetime_millis.saturating_mul(percent.into())
    }

    /// For how long it has been stale; zero while fresh, and when it was marked stale before its time.
    pub(super) fn stale_for(&self) -> Duration {
        let millis = self.age_millis.saturating_sub(self.lifetime_millis);
        Duration::from_millis(u64::try_from(millis).unwrap_or(0))
    }

    /// Whether the true age is known.
    pub(super) fn age_is_known(&self) -> bool {
        self.state != State::SteppedBack
    }
}

fn window(explicit_secs: Option<u32>, default: Duration) -> Duration {
    explicit_secs.map_or(default, |secs| Duration::from_secs(secs.into()))
}

/// Statuses that may be stored without explicit freshness (RFC 9110 section 15.1).
pub(super) fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501
    )
}

/// The shortest lifetime that any `Expires` line gives. Invalid dates, above all `0`, lie in the past (RFC 9111 section
/// 5.3). A past date means stale from the start, not stale since then: origins send epochs to say so.
fn expires_lifetime(headers: &HeaderMap, date: Timestamp) -> Option<u32> {
    let lifetime = |value: &HeaderValue| {
        let secs = http_date(value)?.as_secs().saturating_sub(date.as_secs());
        u32::try_from(secs.clamp(0, DELTA_SECONDS_MAX.into())).ok()
    };
    headers
        .get_all(EXPIRES)
        .iter()
        .map(|value| lifetime(value).unwrap_or(0))
        .min()
}

fn heuristic_lifetime(date: Timestamp, last_modified: Timestamp) -> u32 {
    let unchanged_secs = date.as_secs().saturating_sub(last_modified.as_secs());
    let secs = (unchanged_secs / HEURISTIC_DIVISOR).clamp(0, HEURISTIC_MAX_SECS);
    u32::try_from(secs).expect("clamped to a day")
}

/// `corrected_initial_age` of RFC 9111 section 4.2.3. The apparent age is taken in whole seconds, which is all that
/// `Date` has, or a response would look up to a second old at birth.
fn initial_age_millis(
    headers: &HeaderMap,
    date: Option<Timestamp>,
    request_time: Timestamp,
    response_time: Timestamp,
) -> i64 {
    let apparent_secs = date.map_or(0, |date| {
        response_time.as_secs().saturating_sub(date.as_secs())
    });
    let delay_millis = response_time.millis_since(request_time).max(0);
    let corrected_millis = (age_value(headers) * 1_000).saturating_add(delay_millis);
    apparent_secs
        .max(0)
        .saturating_mul(1_000)
        .max(corrected_millis)
}

/// The first member of `Age`; 0 where it is no delta-seconds (RFC 9111 section 5.1).
fn age_value(headers: &HeaderMap) -> i64 {
    all_members(headers, &AGE)
        .next()
        .and_then(delta_seconds)
        .map_or(0, i64::from)
}
