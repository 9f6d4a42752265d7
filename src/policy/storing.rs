//! What may be stored (RFC 9111 section 3), and the head that is.
//!
//! Storing is wider than reuse: a response with neither freshness nor validator is stored as already stale where its
//! status is heuristically cacheable, so that there is something to serve when the origin is gone.

use http::{
    HeaderMap, HeaderName, Method, StatusCode,
    header::{
        CONNECTION, CONTENT_LOCATION, DATE, ETAG, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION,
        SET_COOKIE, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
    },
};
use serde::{Deserialize, Serialize};

use super::{
    CacheKey, CacheKind, CookiePolicy, FieldSet, Overridable, Reason, RequestHead, ResponseHead,
    Settings, StoredFields, Terms, Timestamp, VariantKey,
    date::format_http_date,
    directives::{CacheFields, RequestDirectives, ResponseDirectives},
    entity_tag::EntityTag,
    fields::has_media_type,
    freshness::is_heuristically_cacheable,
    invalidation::same_origin_target,
    ranges::ContentRange,
    stale::forbids_stale_reuse,
};

/// Fields that are never stored (RFC 9111 section 3.1), besides the ones a `Connection` field names. `Trailer` is one,
/// because trailers are not stored either.
const NEVER_STORED: [HeaderName; 10] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    HeaderName::from_static("proxy-authentication-info"),
    PROXY_AUTHORIZATION,
    HeaderName::from_static("proxy-connection"),
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// What an operator or an unsafe method said about a stored response since it was stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Mark {
    /// Nothing.
    #[default]
    None,
    /// Soft purge: stale from now on; stale reuse is allowed as for any stale response.
    Stale,
    /// Invalidated (RFC 9111 section 4.4): never reused without successful validation.
    Invalid,
}

/// The head of a stored response: immutable, shared, with its cache terms parsed once.
#[derive(Clone, Debug)]
pub struct StoredHead {
    /// The final status.
    pub status: StatusCode,
    /// The fields as stored: hop-by-hop and Connection-named fields removed.
    pub headers: StoredFields,
    /// When the request that led to it (or to its last validation) was sent.
    pub request_time: Timestamp,
    /// When its head (or the 304 that freshened it) was received.
    pub response_time: Timestamp,
    /// The values of the request fields that `Vary` nominates.
    pub variant: VariantKey,
    /// Whether the request carried `Authorization` (RFC 9111 section 3.5).
    pub authorized: bool,
    /// Whether `Set-Cookie` is among the fields: known without looking, because every hit asks.
    pub sets_cookie: bool,
    /// What has been said about it since.
    pub mark: Mark,
    /// What the fields mean for caching.
    pub terms: Terms,
}

/// Whether a response may be stored.
#[derive(Clone, Debug)]
pub(super) enum Storing {
    /// Under this head.
    Yes(Box<StoredHead>),
    /// No, and why.
    No(Reason),
}

/// Decides whether the response to a GET or a QUERY is stored.
pub(super) fn may_store(
    request: &RequestHead<'_>,
    response: &ResponseHead<'_>,
    settings: &Settings,
) -> Storing {
    if request.method != Method::GET && request.method != Method::QUERY {
        return Storing::No(Reason::Method);
    }
    if request.has_body {
        return Storing::No(Reason::RequestBody);
    }
    if let Some(reason) = answers_less_than_a_get(request, response) {
        return Storing::No(reason);
    }
    if is_about_the_request(response.status) {
        return Storing::No(Reason::Status);
    }
    judge_fields(request, response, settings)
}

/// The head under which the answer to a POST is stored for later GETs of the same target: only with explicit freshness
/// and a `Content-Location` that is the target (RFC 9110 section 9.3.3).
pub fn store_post_answer(
    request: &RequestHead<'_>,
    target: &CacheKey,
    response: &ResponseHead<'_>,
    settings: &Settings,
) -> Option<Box<StoredHead>> {
    let location = response.headers.get(CONTENT_LOCATION)?;
    let describes_target =
        same_origin_target(target, location, &settings.query).as_ref() == Some(target);
    let is_whole = response.status.is_success() && response.status != StatusCode::PARTIAL_CONTENT;
    if request.method != Method::POST || !describes_target || !is_whole {
        return None;
    }
    match judge_fields(request, response, settings) {
        Storing::Yes(head) if head.terms.is_explicit(settings.kind) => Some(head),
        _ => None,
    }
}

/// Why an answer that is right for this request only, with its range and conditions, is not stored. A 206 of one range
/// is stored as a part; one that nobody asked for, or of several ranges, is not.
fn answers_less_than_a_get(
    request: &RequestHead<'_>,
    response: &ResponseHead<'_>,
) -> Option<Reason> {
    // Ranges are defined for GET (RFC 9110 section 14.2), so a part of an answer to a QUERY is nobody else's.
    let is_part = || {
        request.method == Method::GET
            && request.has(FieldSet::RANGE)
            && ContentRange::of(response.headers).is_some()
    };
    match response.status {
        StatusCode::PARTIAL_CONTENT if !is_part() => Some(Reason::Partial),
        StatusCode::RANGE_NOT_SATISFIABLE if request.has(FieldSet::RANGE) => Some(Reason::Partial),
        StatusCode::PRECONDITION_FAILED if request.has(FieldSet::ORIGIN_CONDITIONS) => {
            Some(Reason::Status)
        }
        _ => None,
    }
}

/// Statuses that speak of this request and not of its target, so that nobody else may be answered with them, whatever
/// freshness they claim: of fields that `Vary` seldom names (412, 416, 417), of the connection (421), and those that must
/// not be stored (RFC 6585 sections 3 to 6).
fn is_about_the_request(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        412 | 416 | 417 | 421 | 428 | 429 | 431 | 511
    )
}

/// Decides by directives, fields and status alone.
pub(super) fn judge_fields(
    request: &RequestHead<'_>,
    response: &ResponseHead<'_>,
    settings: &Settings,
) -> Storing {
    if RequestDirectives::in_force(request, settings).no_store {
        return Storing::No(Reason::NoStore);
    }
    if has_media_type(response.headers, b"text/event-stream") {
        return Storing::No(Reason::EventStream);
    }
    let fields = CacheFields::parse(response.headers, &settings.targeted_fields);
    let authorized = request.has(FieldSet::AUTHORIZATION);
    if let Some(reason) = forbidden(response.status, authorized, &fields.directives, settings) {
        return Storing::No(reason);
    }
    let head = StoredHead::from_fields(request, response, &fields, settings);
    if head.sets_cookie && settings.set_cookie != CookiePolicy::Store {
        return Storing::No(Reason::SetCookie);
    }
    if head.variant.never_matches() {
        return Storing::No(Reason::VaryStar);
    }
    if !is_cacheable(response.status, &head.terms, settings.kind) {
        return Storing::No(Reason::Status);
    }
    if can_never_be_reused(&head, settings) {
        return Storing::No(Reason::Unusable);
    }
    Storing::Yes(Box::new(head))
}

/// What the directives forbid, whatever the response is.
pub(super) fn forbidden(
    status: StatusCode,
    authorized: bool,
    directives: &ResponseDirectives,
    settings: &Settings,
) -> Option<Reason> {
    let overridden = |directive| settings.overrides.contains(directive);
    if directives.must_understand && !is_understood(status) {
        return Some(Reason::Status);
    }
    // With must-understand, no-store is for caches that do not know the status (RFC 9111 section 5.2.2.3).
    if directives.no_store && !directives.must_understand && !overridden(Overridable::NoStore) {
        return Some(Reason::NoStore);
    }
    if settings.kind == CacheKind::Private {
        return None;
    }
    if directives.private && !overridden(Overridable::Private) {
        return Some(Reason::Private);
    }
    if authorized && !allows_sharing_authorized(directives) {
        return Some(Reason::Authorization);
    }
    None
}

/// RFC 9111 section 3.5.
fn allows_sharing_authorized(directives: &ResponseDirectives) -> bool {
    directives.public || directives.must_revalidate || directives.s_maxage.is_some()
}

/// The last two conditions of RFC 9111 section 3: freshness, `public`, or a heuristically cacheable status. A status above
/// 599 needs explicit freshness, as nobody knows what it means.
fn is_cacheable(status: StatusCode, terms: &Terms, kind: CacheKind) -> bool {
    if terms.is_explicit(kind) {
        return true;
    }
    let allowed = match kind {
        CacheKind::Shared => terms.directives.public,
        CacheKind::Private => terms.directives.public || terms.directives.private,
    };
    status.as_u16() <= 599 && (allowed || is_heuristically_cacheable(status))
}

/// Stale from the start, nothing to validate with, and stale reuse forbidden: storing it would be for nothing.
fn can_never_be_reused(head: &StoredHead, settings: &Settings) -> bool {
    let fresh_at_first = head.freshness(settings, head.response_time).is_fresh();
    let needs_validation = !fresh_at_first || head.terms.directives.no_cache;
    needs_validation && !head.terms.has_validator && forbids_stale_reuse(head, settings)
}

/// Statuses whose meaning for caches this gateway knows, for `must-understand`: the final ones of RFC 9110, but for 304,
/// which is never stored.
fn is_understood(status: StatusCode) -> bool {
    matches!(
        status.as_u16(),
        200..=206 | 300..=303 | 305..=308 | 400..=417 | 421 | 422 | 426 | 500..=505
    )
}

impl StoredHead {
    /// The head under which `response` is stored: without what is never stored, without fields that its directives
    /// withhold, and with a `Date` (RFC 9110 section 6.6.1).
    pub fn new(
        request: &RequestHead<'_>,
        response: &ResponseHead<'_>,
        settings: &Settings,
    ) -> Self {
        let fields = CacheFields::parse(response.headers, &settings.targeted_fields);
        Self::from_fields(request, response, &fields, settings)
    }

    fn from_fields(
        request: &RequestHead<'_>,
        response: &ResponseHead<'_>,
        fields: &CacheFields,
        settings: &Settings,
    ) -> Self {
        let mut headers = response.headers.clone();
        clean(&mut headers, fields, response.response_time, settings);
        let terms = Terms::from_fields(
            response.status,
            &headers,
            fields,
            settings,
            (response.request_time, response.response_time),
        );
        Self {
            status: response.status,
            request_time: response.request_time,
            response_time: response.response_time,
            variant: variant(request.headers, &headers, &terms, settings),
            authorized: request.has(FieldSet::AUTHORIZATION),
            sets_cookie: headers.contains_key(SET_COOKIE),
            mark: Mark::None,
            headers: StoredFields::from(&headers),
            terms,
        }
    }

    /// This head with other fields, for the one client that gets more than is stored.
    #[must_use]
    pub fn with_headers(&self, headers: &HeaderMap) -> Self {
        Self {
            variant: self.variant.clone(),
            terms: self.terms.clone(),
            headers: headers.into(),
            ..*self
        }
    }

    /// Whether the origin itself says how long it is fresh.
    pub fn has_explicit_freshness(&self, settings: &Settings) -> bool {
        self.terms.is_explicit(settings.kind)
    }

    /// Whether both have the same strong entity tag: then their bodies are the same, byte for byte (RFC 9110 section
    /// 8.8.1).
    pub fn has_strong_tag_of(&self, other: &Self) -> bool {
        let (own, others) = (self.headers.get(ETAG), other.headers.get(ETAG));
        own.map(EntityTag::of)
            .zip(others.map(EntityTag::of))
            .is_some_and(|(one, other)| one.matches_strongly(other))
    }

    /// Whether a request handled under these settings may be answered from it at all: a shared cache never hands out what
    /// was stored for one user, nor a cookie that the operator does not want reused, even if the settings changed since.
    pub(super) fn may_be_shared(&self, settings: &Settings) -> bool {
        let directives = &self.terms.directives;
        if self.sets_cookie && settings.set_cookie != CookiePolicy::Store {
            return false;
        }
        settings.kind == CacheKind::Private
            || ((!directives.private || settings.overrides.contains(Overridable::Private))
                && (!self.authorized || allows_sharing_authorized(directives)))
    }
}

/// The variant that a response with these fields and terms to a request with those fields is. What a shared cache stores
/// without anybody's leave to reuse it, for the time when the origin is gone, is filed under the request's cookie too:
/// much of it is one user's page, from an origin that never thought of caches.
pub(super) fn variant(
    request: &HeaderMap,
    response: &HeaderMap,
    terms: &Terms,
    settings: &Settings,
) -> VariantKey {
    let variant = VariantKey::new(request, response);
    if settings.kind == CacheKind::Shared && !terms.is_for_others(settings) {
        variant.of_one_user(request)
    } else {
        variant
    }
}

/// Removes what is never stored and what the directives or the operator withhold, and adds a missing `Date`.
pub(super) fn clean(
    headers: &mut HeaderMap,
    fields: &CacheFields,
    response_time: Timestamp,
    settings: &Settings,
) {
    for name in &NEVER_STORED {
        headers.remove(name);
    }
    for name in &fields.unvalidated {
        headers.remove(name);
    }
    if settings.kind == CacheKind::Shared {
        for name in &fields.private {
            headers.remove(name);
        }
    }
    if settings.set_cookie == CookiePolicy::Strip {
        headers.remove(SET_COOKIE);
    }
    if !headers.contains_key(DATE) {
        headers.insert(DATE, format_http_date(response_time));
    }
}

/// Whether a field is left out of every stored response.
pub(super) fn is_never_stored(name: &HeaderName) -> bool {
    NEVER_STORED.contains(name)
}
