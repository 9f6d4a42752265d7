//! What the API says, as types: handlers write them, the command line reads them, OpenAPI describes them.

pub mod queue;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A page of a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Give this as `cursor` to get the next page; null on the last one.
    #[schema(required)]
    pub next_cursor: Option<String>,
}

/// The answer of `/livez` and `/readyz`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// `alive`; or `starting`, `ready`, `draining`.
    pub status: String,
    /// What is limited although the gateway serves: `upstream-disconnected`, `storage-suspended`,
    /// `queue-suspended` (the disk is full), `queue-closed` (no write is accepted or delivered before a restart).
    #[serde(default)]
    pub degraded: Vec<String>,
}

/// The answer of `status`.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Status {
    /// Version of the gateway.
    pub version: String,
    /// `starting`, `ready` or `draining`.
    pub state: String,
    /// As in `/readyz`.
    pub degraded: Vec<String>,
    /// Seconds since the start.
    pub uptime_secs: u64,
    /// The time of the gateway's clock (RFC 3339).
    pub now: String,
    /// The mode in force, and overrides.
    pub mode: Modes,
    /// Connectivity of every upstream, at most 100; `upstreams` has all.
    pub upstreams: Vec<Connectivity>,
    /// What is stored.
    pub cache: Cache,
    /// Writes that wait for their origins.
    pub queue: queue::Queue,
    /// Storing on disk.
    pub storage: Storage,
    /// Where the configuration came from.
    pub config: Configuration,
    /// Requests to this API with a wrong token, or none, since the start.
    pub authentication_failures: u64,
}

/// Connectivity of one upstream.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Connectivity {
    /// Its name; of implicit ones the scheme and authority.
    pub name: String,
    /// `connected` or `disconnected`, with the override applied.
    pub connectivity: String,
    /// Since when (RFC 3339).
    pub since: String,
    /// Whether an operator's override is in force.
    pub overridden: bool,
}

/// What is stored, and what it was good for.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Cache {
    /// In memory.
    pub memory: TierUse,
    /// On disk.
    pub disk: TierUse,
    /// Requests answered since the start, by what the cache did: `hit`, `stale`, `miss`, `bypass`, `none`.
    pub requests: BTreeMap<String, u64>,
}

/// How full a tier is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct TierUse {
    /// Stored responses.
    pub entries: u64,
    /// Bytes.
    pub bytes: u64,
    /// Budget in bytes.
    pub capacity_bytes: u64,
}

/// Storing on disk.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Storage {
    /// The data directory.
    pub dir: String,
    /// Whether storing on disk is suspended: too little free space, or an error.
    pub suspended: bool,
}

/// Where the configuration came from.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Configuration {
    /// The file, if one was named.
    #[schema(required)]
    pub file: Option<String>,
}

/// The modes in force.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Modes {
    /// Where no route says otherwise: `auto`, `online`, `prefer-cache` or `offline`.
    pub mode: String,
    /// The mode in force of every route.
    pub routes: Vec<RouteMode>,
    /// Overrides in force.
    pub overrides: Vec<ModeOverride>,
}

/// The mode in force of a route.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct RouteMode {
    /// Its name.
    pub route: String,
    /// Its mode.
    pub mode: String,
}

/// An override of a mode.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct ModeOverride {
    /// The route; null: everywhere.
    #[schema(required)]
    pub route: Option<String>,
    /// The mode in force instead.
    pub mode: String,
    /// Until when (RFC 3339); null: until it is taken back.
    #[schema(required)]
    pub until: Option<String>,
    /// Why, for the record.
    #[schema(required)]
    pub reason: Option<String>,
}

/// What is known of an upstream.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Upstream {
    /// Its name; of implicit ones the scheme and authority.
    pub name: String,
    /// Its origins.
    pub urls: Vec<String>,
    /// Whether it is configured, or implicit.
    pub configured: bool,
    /// `connected` or `disconnected`, with the override applied.
    pub connectivity: String,
    /// Since when (RFC 3339).
    pub since: String,
    /// The override in force.
    #[schema(required)]
    pub r#override: Option<UpstreamOverride>,
    /// Requests in flight.
    pub in_flight: u64,
    /// Forwards that got a response head, since the start.
    pub succeeded: u64,
    /// Forwards that failed, since the start.
    pub failed: u64,
    /// Median time to the first byte, in milliseconds.
    #[schema(required)]
    pub latency_p50_ms: Option<f64>,
    /// 99th percentile of the time to the first byte, in milliseconds.
    #[schema(required)]
    pub latency_p99_ms: Option<f64>,
    /// The last error.
    #[schema(required)]
    pub last_error: Option<Event>,
    /// The last probe.
    #[schema(required)]
    pub last_probe: Option<Event>,
}

/// An operator's word on an upstream.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct UpstreamOverride {
    /// `online` or `offline`.
    pub mode: String,
    /// Until when (RFC 3339); null: until it is taken back.
    #[schema(required)]
    pub until: Option<String>,
    /// Why, for the record.
    #[schema(required)]
    pub reason: Option<String>,
}

/// Something that happened to an upstream.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Event {
    /// When (RFC 3339).
    pub at: String,
    /// What.
    pub what: String,
}

/// Whether a stored response is within its freshness lifetime.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Reused without asking.
    Fresh,
    /// Validated, or reused where stale reuse is allowed.
    Stale,
}

/// Where a stored response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Tier {
    /// In memory (and, as a rule, on disk too).
    Memory,
    /// On disk only.
    Disk,
}

/// A stored response in a list.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Entry {
    /// Its id: 32 hexadecimal digits.
    pub id: String,
    /// What it answers: `GET`, which stands for HEAD too, or `QUERY`.
    pub method: String,
    /// The effective upstream URI.
    pub url: String,
    /// The partition it belongs to: `query-` and a digest of the content of a QUERY; `host-` and the Host where a route
    /// preserves it; `forward`, what the forward proxy stored of an upstream's origin; 32 hexadecimal digits, what a
    /// private cache stored for a credential; or several of these, joined by `+` in this order.
    #[schema(required)]
    pub partition: Option<String>,
    /// Its status.
    pub status: u16,
    /// Its content type.
    #[schema(required)]
    pub content_type: Option<String>,
    /// Whether it is fresh.
    pub state: State,
    /// Its current age in seconds (RFC 9111 section 4.2.3).
    pub age_secs: u64,
    /// Seconds of freshness left; zero or negative when stale.
    pub ttl_secs: i64,
    /// Where it is.
    pub tier: Tier,
    /// Bytes of its body.
    pub size_bytes: u64,
    /// How often it was reused.
    pub hits: u64,
    /// When its head, or the last 304 that freshened it, came (RFC 3339).
    pub stored_at: String,
}

/// A stored response with everything that is known of it.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct EntryDetail {
    /// What a list says of it.
    #[serde(flatten)]
    pub entry: Entry,
    /// What was said about it since it was stored: `none`, `stale` (soft purge) or `invalid`.
    pub mark: String,
    /// Whether the request that led to it carried credentials.
    pub authorized: bool,
    /// Its validators.
    pub validators: Validators,
    /// How long past its freshness it may be reused.
    pub windows: Windows,
    /// Its tags, in the order of their fields; `*` alone where there are more than are kept, so that it counts as tagged
    /// with every one.
    pub tags: Vec<String>,
    /// Its cache groups (RFC 9875), in the same manner.
    pub groups: Vec<String>,
    /// Its fields as stored, except that cookies are hidden.
    pub headers: Vec<Field>,
    /// Every variant of the same key, this one first.
    pub variants: Vec<Entry>,
}

/// The validators of a stored response.
#[derive(Clone, Debug, Default, Serialize, Deserialize, ToSchema)]
pub struct Validators {
    /// `ETag`.
    #[schema(required)]
    pub etag: Option<String>,
    /// `Last-Modified`.
    #[schema(required)]
    pub last_modified: Option<String>,
}

/// How long past its freshness a response may be reused, in seconds.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, ToSchema)]
pub struct Windows {
    /// While a validation runs behind.
    pub stale_while_revalidate_secs: u64,
    /// When the origin fails.
    pub stale_if_error_secs: u64,
    /// While the upstream is disconnected.
    pub stale_offline_secs: u64,
}

/// A field of a stored response.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Field {
    /// Its name.
    pub name: String,
    /// Its value; bytes that are not UTF-8 are replaced.
    pub value: String,
}

/// What a purge found.
#[derive(Clone, Debug, Serialize, Deserialize, ToSchema)]
pub struct Purged {
    /// Stored responses selected, variants counted one by one.
    pub count: u64,
    /// Some of their URLs, at most 20.
    pub sample: Vec<String>,
}
