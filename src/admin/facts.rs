//! What the policy says about a stored response, for people.

use http::Method;

use super::view::{State, Windows};
use crate::policy::{CacheKey, CacheKind, Freshness, Settings, StoredHead, Timestamp};

/// Its age and freshness. Settings of routes are not known here: a route's own `default_ttl` does not count.
pub(super) fn freshness(
    key: &CacheKey,
    head: &StoredHead,
    settings: &Settings,
    now: Timestamp,
) -> Freshness {
    head.freshness(&settings_of(key, settings), now)
}

/// The method of the requests that it answers, besides HEAD.
pub(super) fn method(key: &CacheKey) -> Method {
    if key.query_target().is_some() {
        Method::QUERY
    } else {
        Method::GET
    }
}

pub(super) fn state(freshness: Freshness) -> State {
    if freshness.is_fresh() {
        State::Fresh
    } else {
        State::Stale
    }
}

/// How long past its freshness it may be reused.
pub(super) fn windows(key: &CacheKey, head: &StoredHead, settings: &Settings) -> Windows {
    let settings = settings_of(key, settings);
    Windows {
        stale_while_revalidate_secs: head.terms.stale_while_revalidate(&settings).as_secs(),
        stale_if_error_secs: head.terms.stale_if_error(&settings).as_secs(),
        stale_offline_secs: settings.max_stale_offline.as_secs(),
    }
}

/// What belongs to a credential was stored by a private cache, where s-maxage means nothing. No other partition makes one.
fn settings_of(key: &CacheKey, settings: &Settings) -> Settings {
    let kind = if key.is_of_credential() {
        CacheKind::Private
    } else {
        settings.kind
    };
    Settings {
        kind,
        ..settings.clone()
    }
}
