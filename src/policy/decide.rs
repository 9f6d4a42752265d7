//! The one decision before the origin is asked: reuse, forward, or refuse.

use std::time::Duration;

use http::{HeaderMap, Method};

use super::{
    CacheKind, FieldSet, Freshness, Mode, Reason, Settings, StoredHead, Timestamp,
    directives::RequestDirectives,
    ranges::{Selection, select_bytes},
    stale::{Window, needs_validation, reuse_within},
    validation::sends_validators,
};

/// The request, as far as the policy reads it.
#[derive(Clone, Copy, Debug)]
pub struct RequestHead<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its fields.
    pub headers: &'a HeaderMap,
    /// Whether it has a body that is not part of its key, as the content of a QUERY is (a GET with one is neither answered
    /// from nor put into the store).
    pub has_body: bool,
    fields: FieldSet,
}

impl<'a> RequestHead<'a> {
    /// From its parts; `has_body` is for a body that is not part of the key.
    pub fn new(method: &'a Method, headers: &'a HeaderMap, has_body: bool) -> Self {
        Self {
            method,
            headers,
            has_body,
            fields: FieldSet::of(headers),
        }
    }

    /// Without a body; `fields` are those of `headers`, which were looked through before.
    pub const fn of_fields(method: &'a Method, headers: &'a HeaderMap, fields: FieldSet) -> Self {
        Self {
            method,
            headers,
            has_body: false,
            fields,
        }
    }

    /// Whether it has any of these fields.
    pub const fn has(&self, fields: FieldSet) -> bool {
        self.fields.has(fields)
    }
}

/// What the store has for the key.
#[derive(Clone, Copy, Debug)]
pub enum Lookup<'a> {
    /// Nothing.
    Nothing,
    /// Stored responses, none of which matches the request's fields.
    OtherVariants,
    /// The response that matches.
    Stored(&'a StoredHead),
    /// A part that matches, but has not got what the request asks for.
    Part(&'a StoredHead),
}

impl<'a> Lookup<'a> {
    /// What a stored response that matches, with a body of `body_bytes`, is to the request.
    pub fn of(request: &RequestHead<'_>, head: &'a StoredHead, body_bytes: u64) -> Self {
        if head.is_part() && select_bytes(request, head, body_bytes) == Selection::Missing {
            Self::Part(head)
        } else {
            Self::Stored(head)
        }
    }
}

/// Whether an origin can be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connectivity {
    /// As far as known, yes.
    Connected,
    /// No: every connect failed, and the prober has not succeeded since.
    Disconnected,
}

/// What to do with a request.
#[derive(Clone, Debug)]
pub enum Decision {
    /// Answer from the store.
    Reuse(Reuse),
    /// Ask the origin.
    Forward(Forward),
    /// 504 with this reason: `only-if-cached` or `offline-miss`.
    Unsatisfiable(Reason),
}

/// How a stored response is reused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reuse {
    /// Current age in whole seconds (RFC 9111 section 4.2.3), for the `Age` field.
    pub age_secs: u64,
    /// Freshness left in whole seconds; negative when stale. For Cache-Status.
    pub ttl_secs: i64,
    /// Why a stale response is reused; `None` when it is fresh.
    pub detail: Option<Reason>,
    /// Whether a validation has to run behind the answer.
    pub validate_behind: bool,
    /// Whether it is fresh, but so near to its end that a validation behind the answer is worth it for a response in
    /// demand (`refresh_ahead`).
    pub validate_ahead: bool,
}

/// Why the request goes to the origin (RFC 9211 section 2.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardReason {
    /// The gateway was told not to handle this request in its cache.
    Bypass,
    /// The method's semantics require it.
    Method,
    /// Nothing stored under this key.
    UriMiss,
    /// Stored responses, but no variant for this request.
    VaryMiss,
    /// Stored and fresh, but the request's directives ask for more.
    Request,
    /// Stored, stale.
    Stale,
    /// A stored part does not cover the request.
    Partial,
}

impl ForwardReason {
    /// The token of Cache-Status `fwd`.
    pub const fn as_str(self) -> &'static str {
        match self {
            ForwardReason::Bypass => "bypass",
            ForwardReason::Method => "method",
            ForwardReason::UriMiss => "uri-miss",
            ForwardReason::VaryMiss => "vary-miss",
            ForwardReason::Request => "request",
            ForwardReason::Stale => "stale",
            ForwardReason::Partial => "partial",
        }
    }
}

/// How a request is forwarded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Why.
    pub why: ForwardReason,
    /// Whether the stored response's validators are attached.
    pub validate: bool,
    /// Whether the request may share one fill with others of the same key and variant.
    pub collapse: bool,
    /// Whether a fill of the whole may run behind: the request wants a range that the stored part has not got, and will
    /// not be the last one.
    pub fill_behind: bool,
}

/// Decides what to do with a request: the heart of the gateway, and the code that `explain` runs. It allocates nothing.
///
/// While the origin cannot be had, a client's `no-cache`, `max-age` or `min-fresh` does not keep a stored response from
/// it: there is nobody to ask, and the answer says so in its detail. In `prefer-cache` mode it is answered at once all the
/// same, and the validation runs behind.
pub fn decide(
    request: &RequestHead<'_>,
    lookup: Lookup<'_>,
    connectivity: Connectivity,
    mode: Mode,
    settings: &Settings,
    now: Timestamp,
) -> Decision {
    let question = Question {
        request,
        client: RequestDirectives::in_force(request, settings),
        out_of_reach: out_of_reach(connectivity, mode),
        mode,
        settings,
    };
    if !is_read_method(request.method) {
        return question.without_stored(ForwardReason::Method);
    }
    if request.has_body {
        return question.without_stored(ForwardReason::Bypass);
    }
    match lookup {
        Lookup::Nothing => question.without_stored(ForwardReason::UriMiss),
        Lookup::Stored(head) if head.may_be_shared(settings) => question.with_stored(head, now),
        Lookup::Part(head) if head.may_be_shared(settings) => {
            question.without_stored(ForwardReason::Partial)
        }
        Lookup::Stored(_) | Lookup::Part(_) | Lookup::OtherVariants => {
            question.without_stored(ForwardReason::VaryMiss)
        }
    }
}

/// Whether a stored response may answer the request at all: GET, HEAD or QUERY, with nothing that is not in the key.
pub(super) fn is_read(request: &RequestHead<'_>) -> bool {
    is_read_method(request.method) && !request.has_body
}

/// Whether what is stored can be of use to a request with this method.
pub fn is_read_method(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD || method == Method::QUERY
}

/// Why the origin cannot be had; `None` when it can.
fn out_of_reach(connectivity: Connectivity, mode: Mode) -> Option<Reason> {
    match (mode, connectivity) {
        (Mode::Offline, _) => Some(Reason::Offline),
        (_, Connectivity::Disconnected) => Some(Reason::Disconnected),
        (_, Connectivity::Connected) => None,
    }
}

/// Everything a decision depends on, but the stored response and the time.
struct Question<'a> {
    request: &'a RequestHead<'a>,
    client: RequestDirectives,
    out_of_reach: Option<Reason>,
    mode: Mode,
    settings: &'a Settings,
}

impl Question<'_> {
    fn without_stored(&self, why: ForwardReason) -> Decision {
        if self.client.only_if_cached {
            return Decision::Unsatisfiable(Reason::OnlyIfCached);
        }
        if self.out_of_reach.is_some() {
            return Decision::Unsatisfiable(Reason::OfflineMiss);
        }
        Decision::Forward(Forward {
            why,
            validate: false,
            collapse: is_read(self.request)
                && self.may_share_a_fill()
                && !self.request.has(FieldSet::CONDITIONS),
            fill_behind: why == ForwardReason::Partial && self.may_fill_behind(),
        })
    }

    fn with_stored(&self, head: &StoredHead, now: Timestamp) -> Decision {
        let freshness = head.freshness(self.settings, now);
        let reuse = self
            .fresh(head, &freshness)
            .or_else(|| self.stale(head, &freshness));
        match (reuse, self.out_of_reach) {
            (Some(reuse), _) => Decision::Reuse(reuse),
            _ if self.client.only_if_cached => Decision::Unsatisfiable(Reason::OnlyIfCached),
            (None, Some(_)) => Decision::Unsatisfiable(Reason::OfflineMiss),
            (None, None) => self.ask(head, &freshness),
        }
    }

    /// The stored response, if it is fresh and the client asks for no more.
    fn fresh(&self, head: &StoredHead, freshness: &Freshness) -> Option<Reuse> {
        let allowed = freshness.is_fresh()
            && !needs_validation(head)
            && !self.request.has(FieldSet::ORIGIN_CONDITIONS)
            && self.is_satisfied(head, freshness);
        allowed.then(|| Reuse {
            validate_ahead: self.is_worth_refreshing(freshness),
            ..Reuse::of(freshness, None)
        })
    }

    /// Whether a response that can be reused as it is should be validated before its freshness ends: where the operator
    /// wants it, the origin may be asked, and a fill for this request can serve others.
    fn is_worth_refreshing(&self, freshness: &Freshness) -> bool {
        let percent = self.settings.refresh_ahead_percent;
        percent != 0
            && freshness.ends_within(percent)
            && matches!(self.mode, Mode::Auto | Mode::Online)
            && self.out_of_reach.is_none()
            && self.may_share_a_fill()
    }

    /// The stored response, although it is stale or the client asked for more.
    fn stale(&self, head: &StoredHead, freshness: &Freshness) -> Option<Reuse> {
        if let Some(why) = self.out_of_reach {
            return self.instead_of_the_origin(head, freshness, why);
        }
        if self.request.has(FieldSet::ORIGIN_CONDITIONS) {
            return None;
        }
        match self.mode {
            // In `offline` mode the origin is out of reach.
            Mode::Online | Mode::Offline => None,
            Mode::PreferCache => self.within(Window::ENDLESS, head, freshness, Reason::PreferCache),
            Mode::Auto => self
                .while_revalidating(head, freshness)
                .or_else(|| self.as_the_client_allows(head, freshness)),
        }
        .map(|reuse| Reuse {
            validate_behind: reuse.detail != Some(Reason::MaxStale),
            ..reuse
        })
    }

    fn instead_of_the_origin(
        &self,
        head: &StoredHead,
        freshness: &Freshness,
        why: Reason,
    ) -> Option<Reuse> {
        let window = match self.mode {
            Mode::Auto | Mode::Offline => Window::offline(head, self.settings),
            Mode::Online => Window::offline(head, self.settings).explicit_only(),
            Mode::PreferCache => Window::ENDLESS,
        };
        self.within(window, head, freshness, why)
    }

    fn while_revalidating(&self, head: &StoredHead, freshness: &Freshness) -> Option<Reuse> {
        // How stale it is must be known for a window that counts while the origin can be asked.
        let willing = freshness.age_is_known()
            && !freshness.is_fresh()
            && self.client.min_fresh.is_none()
            && !self.wants_newer(head, freshness);
        let window = Window::while_revalidating(head, self.settings);
        willing
            .then(|| self.within(window, head, freshness, Reason::StaleWhileRevalidate))
            .flatten()
    }

    fn as_the_client_allows(&self, head: &StoredHead, freshness: &Freshness) -> Option<Reuse> {
        let limit = Duration::from_secs(self.client.max_stale?.into());
        let willing = freshness.age_is_known()
            && !freshness.is_fresh()
            && !self.wants_newer(head, freshness)
            && !head.terms.is_bare(self.settings);
        willing
            .then(|| self.within(Window::granted(limit), head, freshness, Reason::MaxStale))
            .flatten()
    }

    fn within(
        &self,
        window: Window,
        head: &StoredHead,
        freshness: &Freshness,
        why: Reason,
    ) -> Option<Reuse> {
        reuse_within(window, head, freshness, self.settings, why)
    }

    fn ask(&self, head: &StoredHead, freshness: &Freshness) -> Decision {
        let validate = sends_validators(self.request, head);
        let own_conditions = !validate && self.request.has(FieldSet::CONDITIONS);
        Decision::Forward(Forward {
            why: if freshness.is_fresh() && !needs_validation(head) {
                ForwardReason::Request
            } else {
                ForwardReason::Stale
            },
            validate,
            collapse: self.may_share_a_fill() && !own_conditions,
            fill_behind: false,
        })
    }

    /// Whether the client's directives are content with a fresh response.
    fn is_satisfied(&self, head: &StoredHead, freshness: &Freshness) -> bool {
        let left = u64::try_from(freshness.ttl_secs()).unwrap_or(0);
        let fresh_enough = self
            .client
            .min_fresh
            .is_none_or(|wanted| left >= u64::from(wanted));
        fresh_enough && !self.wants_newer(head, freshness)
    }

    /// Whether the client asks for a validation, or for a smaller age. A fresh immutable response is as new as can be
    /// (RFC 8246 section 2), which a client that reloads with `max-age=0` does not know; `no-cache` insists. `max-age=0`
    /// asks for a validation even within the second in which the response arrived.
    fn wants_newer(&self, head: &StoredHead, freshness: &Freshness) -> bool {
        let immutable = freshness.is_fresh() && head.terms.directives.immutable;
        let too_old = self
            .client
            .max_age
            .is_some_and(|limit| limit == 0 || freshness.age_secs() > u64::from(limit));
        self.client.no_cache || (too_old && !immutable)
    }

    /// Whether the whole may be fetched for a request that wants a range of it. A metered link is left alone.
    fn may_fill_behind(&self) -> bool {
        self.request.has(FieldSet::RANGE)
            && self.may_share_the_whole()
            && matches!(self.mode, Mode::Auto | Mode::Online)
    }

    /// Whether a fill for this request can serve others: it wants the whole, and may share it.
    fn may_share_a_fill(&self) -> bool {
        !self.request.has(FieldSet::RANGE) && self.may_share_the_whole()
    }

    /// Whether the whole, fetched for this request, can serve others: nobody asked to have it validated anew, and in a
    /// shared cache it is not for a credential, which as a rule turns out not to be shareable.
    fn may_share_the_whole(&self) -> bool {
        let personal =
            self.settings.kind == CacheKind::Shared && self.request.has(FieldSet::AUTHORIZATION);
        self.request.method != Method::HEAD
            && !self.client.no_cache
            && !self.client.no_store
            && !personal
    }
}

impl Reuse {
    /// The reuse of a response with this freshness; no validation behind it, nor ahead of its end.
    pub(super) fn of(freshness: &Freshness, detail: Option<Reason>) -> Self {
        Self {
            age_secs: freshness.age_secs(),
            ttl_secs: freshness.ttl_secs(),
            detail,
            validate_behind: false,
            validate_ahead: false,
        }
    }
}
