//! `[cache]`, and the `cache` of a route.

use std::time::Duration;

use http::HeaderName;

use crate::{
    config::{
        reader::options,
        units::Rate,
        value::{Integer, TextValue, choices},
    },
    policy::{
        CacheKind, ClientCacheControl, CookiePolicy, Overridable, Overrides, ParameterPattern,
        QueryRules, Settings,
    },
    protect::RateConfig,
};

options! {
    /// What may be stored and reused, for every route; a route's own `cache` wins.
    struct Cache {
        /// "shared"; or "private": one application behind this gateway, partitioned by Authorization and Cookie.
        kind: CacheKind = "shared",
        /// Freshness lifetime only where the origin says nothing and no heuristic applies.
        default_ttl: Duration = "0s",
        /// The same for errors that may be cached without a word from the origin: 404, 405, 410, 414 and 501.
        negative_ttl: Duration = "0s",
        /// Window where the origin gives none; the origin's directive wins.
        stale_while_revalidate: Duration = "0s",
        /// On 5xx, reset, end of stream or timeout; never against must-revalidate and its kin.
        stale_if_error: Duration = "1h",
        /// Above zero: with a stale copy in hand, wait this long for the origin, then serve the copy.
        fresh_timeout: Duration = "0s",
        /// How far past its freshness a response is served while disconnected.
        max_stale_offline: Duration = "7d",
        /// Percent of the freshness lifetime, at most 50. With no more than that left, a hit has the response validated
        /// behind it, so that what is in demand never goes stale. 0: off.
        refresh_ahead: Integer<0, 50> = 0,
        /// Hits a stored response must have had for that.
        refresh_ahead_hits: Integer<1, 1_000_000> = 10,
        /// Validations ahead of time, all routes together; "off": no limit. Not an option of a route.
        refresh_ahead_rate: Rate = "10/s",
        /// Directives of the origin that do not count, such as "must-revalidate" or "no-store": the operator's own
        /// contract with the origin, shown in Cache-Status.
        r#override: Vec<Overridable> = [],
        /// Parameters of a query that do not count, such as "utm_*": they are neither forwarded nor part of the key of a
        /// read.
        ignore_query: Vec<ParameterPattern> = [],
        /// Whether the other parameters of a read are sorted by name before it is forwarded; those of one name stay in
        /// their order.
        sort_query: bool = false,
        /// Responses that set a cookie: "bypass", not stored; "strip", stored without it, so that only the client whose
        /// request led to them gets it; "store", stored as they are.
        set_cookie: CookiePolicy = "bypass",
        /// What requests say about caching, in Cache-Control and Pragma: "honor", or "ignore".
        client_cache_control: ClientCacheControl = "honor",
        /// Targeted cache-control fields (RFC 9213), most specific first.
        targeted_fields: Vec<HeaderName> = ["cdn-cache-control"],
        /// Fields in which origins tag their responses, for purges by tag. White space separates the tags of Surrogate-Key
        /// and xkey, commas those of any other field.
        tags_header: Vec<HeaderName> = ["surrogate-key", "cache-tag"],
    }
}

choices! { CacheKind, r#""shared" or "private""#, [
    "shared" => CacheKind::Shared,
    "private" => CacheKind::Private,
]}

choices! { ClientCacheControl, r#""honor" or "ignore""#, [
    "honor" => ClientCacheControl::Honor,
    "ignore" => ClientCacheControl::Ignore,
]}

choices! { CookiePolicy, r#""bypass", "strip" or "store""#, [
    "bypass" => CookiePolicy::Bypass,
    "strip" => CookiePolicy::Strip,
    "store" => CookiePolicy::Store,
]}

choices! {
    Overridable,
    r#""must-revalidate", "no-cache", "no-store", "private" or "s-maxage""#,
    [
        "must-revalidate" => Overridable::MustRevalidate,
        "no-cache" => Overridable::NoCache,
        "no-store" => Overridable::NoStore,
        "private" => Overridable::Private,
        "s-maxage" => Overridable::SMaxage,
    ]
}

impl TextValue for ParameterPattern {
    const EXPECTED: &'static str =
        r#"the name of a query parameter, with at most one `*`, such as "utm_*""#;

    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl Cache {
    pub(in crate::config) fn settings(&self) -> Settings {
        let overrides = self.r#override.iter();
        Settings {
            kind: self.kind.value,
            default_ttl: self.default_ttl.value,
            negative_ttl: self.negative_ttl.value,
            stale_while_revalidate: self.stale_while_revalidate.value,
            stale_if_error: self.stale_if_error.value,
            fresh_timeout: self.fresh_timeout.value,
            max_stale_offline: self.max_stale_offline.value,
            refresh_ahead_percent: self.refresh_ahead.get(),
            refresh_ahead_hits: self.refresh_ahead_hits.get(),
            overrides: overrides.fold(Overrides::default(), |all, one| all.with(*one)),
            query: QueryRules {
                ignored: self.ignore_query.value.clone(),
                sorted: self.sort_query.value,
            },
            client_cache_control: self.client_cache_control.value,
            set_cookie: self.set_cookie.value,
            targeted_fields: self.targeted_fields.value.clone(),
            tag_fields: self.tags_header.value.clone(),
        }
    }

    /// The budget of all routes: a second's worth at once.
    pub(in crate::config) fn refresh_ahead_rate(&self) -> Option<RateConfig> {
        self.refresh_ahead_rate.0.map(|per_second| RateConfig {
            per_second,
            burst: per_second,
        })
    }
}
