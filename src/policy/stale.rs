//! When a stored response may be reused although it is stale (RFC 9111 section 4.2.4, RFC 5861).
//!
//! Three questions, always in this order: is there a window, is the response within it, and do its directives forbid it.
//! An explicit window of the response outranks what its `s-maxage` implies; `must-revalidate`, `proxy-revalidate` and
//! `no-cache` outrank every window; the operator's `override` outranks them, and is named in the answer. An invalidated
//! response is never reused without validation.

use std::time::Duration;

use super::{
    CacheKind, Freshness, Mark, Overridable, Reason, Reuse, Settings, StoredHead, Timestamp,
    directives::RequestDirectives,
};

/// For how long past its freshness a response may be reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Window {
    /// What the response itself allows.
    explicit: Option<Duration>,
    /// What the operator or the client allows.
    granted: Option<Duration>,
}

/// What a response's directives say about its reuse without validation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leave {
    Free,
    /// Forbidden, but for the operator's `override`.
    Overridden,
    Forbidden,
}

impl Window {
    /// For any length of time: `prefer-cache`.
    pub(super) const ENDLESS: Self = Self::granted(Duration::MAX);

    /// What somebody other than the origin grants.
    pub(super) const fn granted(duration: Duration) -> Self {
        Self {
            explicit: None,
            granted: Some(duration),
        }
    }

    /// stale-while-revalidate: the origin's word wins over the route's.
    pub(super) fn while_revalidating(head: &StoredHead, settings: &Settings) -> Self {
        let explicit = seconds(head.terms.directives.stale_while_revalidate);
        let default = settings.stale_while_revalidate;
        Self {
            explicit,
            granted: (explicit.is_none() && !head.terms.is_bare(settings)).then_some(default),
        }
    }

    /// stale-if-error: the origin's word wins over the route's; the client's own directive takes the place of the route's,
    /// and can only shorten the origin's.
    pub(super) fn if_error(
        head: &StoredHead,
        client: &RequestDirectives,
        settings: &Settings,
    ) -> Self {
        let wanted = seconds(client.stale_if_error);
        let explicit = seconds(head.terms.directives.stale_if_error);
        Self {
            explicit: explicit.map(|window| wanted.map_or(window, |wanted| window.min(wanted))),
            granted: match explicit {
                Some(_) => None,
                None => Some(wanted.unwrap_or(settings.stale_if_error)),
            },
        }
    }

    /// While the origin cannot be had: `max_stale_offline`, or a longer window of the response's own.
    pub(super) fn offline(head: &StoredHead, settings: &Settings) -> Self {
        let directives = &head.terms.directives;
        let longest = directives
            .stale_while_revalidate
            .max(directives.stale_if_error);
        Self {
            explicit: seconds(longest),
            granted: Some(settings.max_stale_offline),
        }
    }

    /// Only what the response itself allows: `online` mode.
    pub(super) const fn explicit_only(self) -> Self {
        Self {
            granted: None,
            ..self
        }
    }
}

/// The reuse of `head` within `window`, with `why` or the operator's override as its detail; `None` where it is not allowed.
/// A fresh response needs no window. An empty window lets nothing stale through.
pub(super) fn reuse_within(
    window: Window,
    head: &StoredHead,
    freshness: &Freshness,
    settings: &Settings,
    why: Reason,
) -> Option<Reuse> {
    if !head.may_be_shared(settings) {
        return None;
    }
    let covers =
        |window: Option<Duration>| window.is_some_and(|window| freshness.stale_for() < window);
    let explicitly = covers(window.explicit);
    if !freshness.is_fresh() && !explicitly && !covers(window.granted) {
        return None;
    }
    let detail = match leave(head, freshness, settings, explicitly) {
        Leave::Free => why,
        Leave::Overridden => Reason::Override,
        Leave::Forbidden => return None,
    };
    Some(Reuse::of(freshness, Some(detail)))
}

/// The reuse of `head` in place of an error of the origin; `None` where stale-if-error does not allow it.
///
/// A client's `no-cache` or `max-age` does not forbid it: the origin was asked, and this is better than its error.
pub(super) fn reuse_if_error(
    head: &StoredHead,
    client: &RequestDirectives,
    settings: &Settings,
    now: Timestamp,
    why: Reason,
) -> Option<Reuse> {
    if head.status.is_server_error() {
        return None;
    }
    let window = Window::if_error(head, client, settings);
    reuse_within(window, head, &head.freshness(settings, now), settings, why)
}

/// Whether its directives forbid every stale reuse, whatever the window.
pub(super) fn forbids_stale_reuse(head: &StoredHead, settings: &Settings) -> bool {
    let directives = &head.terms.directives;
    let explicit =
        directives.stale_while_revalidate.is_some() || directives.stale_if_error.is_some();
    directives_leave(head, settings, Stale::Yes, explicit) == Leave::Forbidden
}

/// Whether it may not be reused, even fresh, before the origin was asked.
pub(super) fn needs_validation(head: &StoredHead) -> bool {
    head.terms.directives.no_cache
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stale {
    Yes,
    No,
}

fn leave(head: &StoredHead, freshness: &Freshness, settings: &Settings, explicitly: bool) -> Leave {
    if head.mark == Mark::Invalid {
        return Leave::Forbidden;
    }
    let stale = if freshness.is_fresh() {
        Stale::No
    } else {
        Stale::Yes
    };
    directives_leave(head, settings, stale, explicitly)
}

fn directives_leave(
    head: &StoredHead,
    settings: &Settings,
    stale: Stale,
    explicitly: bool,
) -> Leave {
    let directives = &head.terms.directives;
    let shared = settings.kind == CacheKind::Shared;
    let is_stale = stale == Stale::Yes;
    let revalidate = directives.must_revalidate || (shared && directives.proxy_revalidate);
    let implied = shared && directives.s_maxage.is_some() && !explicitly;
    let mut leave = Leave::Free;
    for (applies, directive) in [
        (directives.no_cache, Overridable::NoCache),
        (is_stale && revalidate, Overridable::MustRevalidate),
        (is_stale && implied, Overridable::SMaxage),
    ] {
        if !applies {
            continue;
        }
        if !settings.overrides.contains(directive) {
            return Leave::Forbidden;
        }
        leave = Leave::Overridden;
    }
    leave
}

fn seconds(secs: Option<u32>) -> Option<Duration> {
    secs.map(|secs| Duration::from_secs(secs.into()))
}
