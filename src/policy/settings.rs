//! What an operator may set about caching, for every route or for one: the `[cache]` table, checked.

use std::{borrow::Cow, time::Duration};

use http::HeaderName;

use super::{Mode, QueryRules};

/// Whether one cache serves every client, or each credential has its own partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheKind {
    /// A shared cache (RFC 9111 section 1).
    #[default]
    Shared,
    /// Partitioned by an HMAC of the credential; `private` and authorized responses are stored in their partition.
    Private,
}

/// Whether the directives of requests count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCacheControl {
    /// As RFC 9111 says.
    #[default]
    Honor,
    /// None does, neither of `Cache-Control` nor of `Pragma`: no client has the origin asked, or anything left unstored.
    /// They are forwarded all the same.
    Ignore,
}

/// What becomes of a response that sets a cookie, in a shared cache and in a private partition alike.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CookiePolicy {
    /// It is not stored.
    #[default]
    Bypass,
    /// It is stored without its `Set-Cookie`, which only the client whose request led to it gets.
    Strip,
    /// It is stored as it is: whoever it is reused for gets the cookie too.
    Store,
}

/// A directive that an operator may override for stale reuse or storing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overridable {
    /// `must-revalidate`, also `proxy-revalidate`.
    MustRevalidate,
    /// `no-cache`.
    NoCache,
    /// `no-store`.
    NoStore,
    /// `private`.
    Private,
    /// What s-maxage implies about stale reuse.
    SMaxage,
}

impl Overridable {
    /// Every directive that can be overridden.
    pub const ALL: [Overridable; 5] = [
        Overridable::MustRevalidate,
        Overridable::NoCache,
        Overridable::NoStore,
        Overridable::Private,
        Overridable::SMaxage,
    ];

    /// The name in configuration.
    pub const fn as_str(self) -> &'static str {
        match self {
            Overridable::MustRevalidate => "must-revalidate",
            Overridable::NoCache => "no-cache",
            Overridable::NoStore => "no-store",
            Overridable::Private => "private",
            Overridable::SMaxage => "s-maxage",
        }
    }
}

/// The set of directives the operator overrides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Overrides(u8);

impl Overrides {
    /// This set with `directive` in it.
    #[must_use]
    pub const fn with(self, directive: Overridable) -> Self {
        Self(self.0 | 1 << directive as u8)
    }

    /// Whether the operator overrides `directive`.
    pub const fn contains(self, directive: Overridable) -> bool {
        self.0 & (1 << directive as u8) != 0
    }
}

/// The caching settings of a route (the `[cache]` table and the route's own `cache`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Shared, or partitioned by credential.
    pub kind: CacheKind,
    /// Freshness lifetime where the origin says nothing and no heuristic applies.
    pub default_ttl: Duration,
    /// The same for heuristically cacheable errors (4xx and 501, RFC 9110 section 15.1), to which `default_ttl` never
    /// applies.
    pub negative_ttl: Duration,
    /// Window where the origin gives none; the origin's directive wins.
    pub stale_while_revalidate: Duration,
    /// Window where the origin gives none; the origin's directive wins.
    pub stale_if_error: Duration,
    /// With a stale copy in hand, how long to wait for the origin before the copy is served. Zero: off.
    pub fresh_timeout: Duration,
    /// How far past its freshness a response may be served while disconnected.
    pub max_stale_offline: Duration,
    /// With this much of its freshness lifetime left, in percent, a stored response is validated ahead of time. 0: never.
    pub refresh_ahead_percent: u8,
    /// Hits a stored response must have had for that.
    pub refresh_ahead_hits: u32,
    /// Directives the operator overrides.
    pub overrides: Overrides,
    /// Which parameters of a query count.
    pub query: QueryRules,
    /// What becomes of `Set-Cookie`.
    pub set_cookie: CookiePolicy,
    /// Whether what requests say about caching counts.
    pub client_cache_control: ClientCacheControl,
    /// Targeted cache-control fields (RFC 9213), most specific first.
    pub targeted_fields: Vec<HeaderName>,
    /// Fields in which origins tag their responses.
    pub tag_fields: Vec<HeaderName>,
}

impl Settings {
    /// These settings as they hold under `mode`: in `online` mode the gateway grants no stale reuse of its own, so only
    /// the windows a response itself names are left. For [`judge`](super::judge) and
    /// [`on_failure`](super::on_failure), which know no mode; [`decide`](super::decide) knows it.
    pub fn under(&self, mode: Mode) -> Cow<'_, Self> {
        match mode {
            Mode::Auto | Mode::PreferCache | Mode::Offline => Cow::Borrowed(self),
            Mode::Online => Cow::Owned(Self {
                stale_while_revalidate: Duration::ZERO,
                stale_if_error: Duration::ZERO,
                fresh_timeout: Duration::ZERO,
                max_stale_offline: Duration::ZERO,
                ..self.clone()
            }),
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            kind: CacheKind::Shared,
            default_ttl: Duration::ZERO,
            negative_ttl: Duration::ZERO,
            stale_while_revalidate: Duration::ZERO,
            // An outage mostly looks like a 503 from a load balancer.
            stale_if_error: Duration::from_secs(3_600),
            fresh_timeout: Duration::ZERO,
            max_stale_offline: Duration::from_secs(7 * 24 * 3_600),
            refresh_ahead_percent: 0,
            refresh_ahead_hits: 10,
            overrides: Overrides::default(),
            query: QueryRules::default(),
            set_cookie: CookiePolicy::Bypass,
            client_cache_control: ClientCacheControl::Honor,
            targeted_fields: vec![HeaderName::from_static("cdn-cache-control")],
            tag_fields: vec![
                HeaderName::from_static("surrogate-key"),
                HeaderName::from_static("cache-tag"),
            ],
        }
    }
}
