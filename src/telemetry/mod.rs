//! The tracing subscriber, the metrics and their names, and the names of log fields.
//!
//! Metric labels come from configuration or closed enums only, so that their number is bounded. Every implicit upstream
//! (one per forward-proxied authority) counts under the label `forward`.

mod json;
mod lines;
mod stamp;

use std::{io::IsTerminal, num::NonZeroU32, sync::Arc};

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};
use tracing_subscriber::{EnvFilter, util::SubscriberInitExt};

pub use self::lines::{Logging, before_parking};
use self::{json::JsonLines, lines::StandardError};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// Pretty on a terminal, JSON otherwise.
    #[default]
    Auto,
    /// For people.
    Pretty,
    /// One JSON object a line.
    Json,
}

/// Which share of access events is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sampling {
    /// None.
    None,
    /// One in this many (1: all).
    OneIn(NonZeroU32),
}

/// The `[telemetry]` table, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Look of log lines.
    pub log_format: LogFormat,
    /// An `EnvFilter` directive string (`info`, `hardtack=debug,warn`).
    pub log_level: String,
    /// Access events of hits.
    pub access_hits: Sampling,
    /// Access events of everything else.
    pub access_other: Sampling,
}

/// Starts logging to standard error. Call once, from `main`, whose runtime calls [`before_parking`].
///
/// # Errors
/// When the level is not a filter, or a subscriber is already set.
pub fn start_logging(config: &Config) -> Result<Logging, Box<dyn std::error::Error + Send + Sync>> {
    let filter = EnvFilter::try_new(&config.log_level)?;
    let terminal = std::io::stderr().is_terminal();
    let pretty = match config.log_format {
        LogFormat::Auto => terminal,
        LogFormat::Pretty => true,
        LogFormat::Json => false,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(StandardError);
    if pretty {
        let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        builder
            .with_ansi(colour)
            .with_target(false)
            .compact()
            .finish()
            .try_init()?;
    } else {
        builder.event_format(JsonLines).finish().try_init()?;
    }
    Ok(Logging::started())
}

macro_rules! labels {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty),+ })+) => {
        $($(#[$doc])*
        #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
        #[expect(missing_docs, reason = "a label's name is its documentation")]
        pub struct $name { $(pub $field: $type),+ })+
    };
}

/// A label value: an interned configured name.
pub type Name = Arc<str>;

labels! {
    /// One served request.
    RequestLabels { route: String, method: &'static str, code: u16, cache: &'static str }
    /// One served request, without what multiplies histograms.
    DurationLabels { route: String, cache: &'static str }
    /// A route.
    RouteLabels { route: String }
    /// A cache decision.
    DecisionLabels { route: String, reason: &'static str }
    /// A tier of the store.
    TierLabels { tier: &'static str }
    /// An eviction.
    EvictionLabels { tier: &'static str, reason: &'static str }
    /// An upstream.
    UpstreamLabels { upstream: String }
    /// What a request to an upstream, or a validation, came to.
    OutcomeLabels { upstream: String, outcome: &'static str }
    /// A storage operation.
    OperationLabels { op: &'static str }
    /// A limiter.
    LimiterLabels { limiter: &'static str }
    /// A state of queued writes.
    QueueStateLabels { state: &'static str }
    /// Why a write was not queued.
    RefusalLabels { reason: &'static str }
    /// What an attempt to deliver a queued write came to.
    AttemptLabels { outcome: &'static str }
}

type HistogramFamily<L> = Family<L, Histogram, fn() -> Histogram>;

/// Every metric of the process, behind one registry. Names and labels are the contract of the interface document.
pub struct Metrics {
    registry: Registry,
    /// Requests answered, by what the cache did (`hit`, `stale`, `miss`, `bypass`, `none`).
    pub requests: Family<RequestLabels, Counter>,
    /// Time to the end of the response head, in seconds.
    pub request_duration: HistogramFamily<DurationLabels>,
    /// How far past its freshness what was served stale is, in seconds.
    pub stale_age: HistogramFamily<RouteLabels>,
    /// Decisions, by reason.
    pub cache_decisions: Family<DecisionLabels, Counter>,
    /// Stored responses per tier; set when scraped.
    pub cache_entries: Family<TierLabels, Gauge>,
    /// Bytes per tier; set when scraped.
    pub cache_bytes: Family<TierLabels, Gauge>,
    /// Budget per tier in bytes.
    pub cache_capacity_bytes: Family<TierLabels, Gauge>,
    /// Evictions per tier, by reason (`size`, `expired`, `corrupt`).
    pub cache_evictions: Family<EvictionLabels, Counter>,
    /// Validations, by outcome (`not_modified`, `replaced`, `error`).
    pub revalidations: Family<OutcomeLabels, Counter>,
    /// Requests that shared another's fill.
    pub collapsed_requests: Family<RouteLabels, Counter>,
    /// 1 while connected; set when scraped.
    pub upstream_connected: Family<UpstreamLabels, Gauge>,
    /// Whole seconds spent disconnected.
    pub upstream_disconnected_seconds: Family<UpstreamLabels, Counter>,
    /// Requests to upstreams, by outcome (`2xx` to `5xx`, `connect`, `timeout`, `broken`, `denied`, `overloaded`).
    pub upstream_requests: Family<OutcomeLabels, Counter>,
    /// Time to the first byte of upstreams' answers, in seconds.
    pub upstream_request_duration: HistogramFamily<UpstreamLabels>,
    /// Requests to the admin API with a wrong token, or none.
    pub admin_authentication_failures: Counter,
    /// Refused by a rate limit.
    pub rate_limited: Family<LimiterLabels, Counter>,
    /// Storage errors, by operation (`open`, `read`, `write`, `commit`, `body`, `corrupt`, `skipped`).
    pub storage_errors: Family<OperationLabels, Counter>,
    /// Free bytes of the data directory's filesystem.
    pub storage_free_bytes: Gauge,
    /// Queued writes that have not come to their end, by state; set when scraped.
    pub queue_items: Family<QueueStateLabels, Gauge>,
    /// What they weigh; set when scraped.
    pub queue_bytes: Gauge,
    /// What they may weigh.
    pub queue_capacity_bytes: Gauge,
    /// Age of the oldest, in whole seconds; 0 when there is none; set when scraped.
    pub queue_oldest_item_age: Gauge,
    /// Writes answered with 202.
    pub queue_accepted: Counter,
    /// Writes that were not queued although they should have been, by the reason the client was told.
    pub queue_refused: Family<RefusalLabels, Counter>,
    /// Attempts to deliver, by what they came to.
    pub queue_attempts: Family<AttemptLabels, Counter>,
    /// From the acceptance of a write to its delivery, in seconds.
    pub queue_delivery_delay: Histogram,
}

impl Metrics {
    /// All metrics, registered, at zero.
    pub fn new() -> Arc<Self> {
        let mut metrics = Self {
            registry: Registry::with_prefix("hardtack"),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(request_buckets),
            stale_age: Family::new_with_constructor(stale_buckets),
            cache_decisions: Family::default(),
            cache_entries: Family::default(),
            cache_bytes: Family::default(),
            cache_capacity_bytes: Family::default(),
            cache_evictions: Family::default(),
            revalidations: Family::default(),
            collapsed_requests: Family::default(),
            upstream_connected: Family::default(),
            upstream_disconnected_seconds: Family::default(),
            upstream_requests: Family::default(),
            upstream_request_duration: Family::new_with_constructor(request_buckets),
            admin_authentication_failures: Counter::default(),
            rate_limited: Family::default(),
            storage_errors: Family::default(),
            storage_free_bytes: Gauge::default(),
            queue_items: Family::default(),
            queue_bytes: Gauge::default(),
            queue_capacity_bytes: Gauge::default(),
            queue_oldest_item_age: Gauge::default(),
            queue_accepted: Counter::default(),
            queue_refused: Family::default(),
            queue_attempts: Family::default(),
            queue_delivery_delay: delay_buckets(),
        };
        metrics.register();
        Arc::new(metrics)
    }

    /// The text exposition of every metric (OpenMetrics 1.0).
    pub fn encode(&self) -> String {
        let mut text = String::new();
        encode(&mut text, &self.registry).expect("a String takes everything written to it");
        text
    }

    fn register(&mut self) {
        let r = &mut self.registry;
        r.register("requests", "Requests answered", self.requests.clone());
        r.register_with_unit(
            "request_duration",
            "Time to the response head",
            Unit::Seconds,
            self.request_duration.clone(),
        );
        r.register_with_unit(
            "stale_age",
            "Age past freshness of stale answers",
            Unit::Seconds,
            self.stale_age.clone(),
        );
        r.register(
            "cache_decisions",
            "Cache decisions by reason",
            self.cache_decisions.clone(),
        );
        r.register(
            "cache_entries",
            "Stored responses",
            self.cache_entries.clone(),
        );
        r.register_with_unit(
            "cache",
            "Stored bytes",
            Unit::Bytes,
            self.cache_bytes.clone(),
        );
        r.register_with_unit(
            "cache_capacity",
            "Budget of a tier",
            Unit::Bytes,
            self.cache_capacity_bytes.clone(),
        );
        r.register(
            "cache_evictions",
            "Evicted stored responses",
            self.cache_evictions.clone(),
        );
        r.register(
            "revalidations",
            "Validations by outcome",
            self.revalidations.clone(),
        );
        r.register(
            "collapsed_requests",
            "Requests that shared a fill",
            self.collapsed_requests.clone(),
        );
        r.register(
            "upstream_connected",
            "1 while connected",
            self.upstream_connected.clone(),
        );
        r.register_with_unit(
            "upstream_disconnected",
            "Time spent disconnected",
            Unit::Seconds,
            self.upstream_disconnected_seconds.clone(),
        );
        r.register(
            "upstream_requests",
            "Requests to upstreams by outcome",
            self.upstream_requests.clone(),
        );
        r.register_with_unit(
            "upstream_request_duration",
            "Time to an upstream's first byte",
            Unit::Seconds,
            self.upstream_request_duration.clone(),
        );
        r.register(
            "admin_authentication_failures",
            "Requests to the admin API without a valid token",
            self.admin_authentication_failures.clone(),
        );
        r.register(
            "rate_limited",
            "Requests refused by a rate limit",
            self.rate_limited.clone(),
        );
        r.register(
            "storage_errors",
            "Storage errors by operation",
            self.storage_errors.clone(),
        );
        r.register_with_unit(
            "storage_free",
            "Free space of the data directory",
            Unit::Bytes,
            self.storage_free_bytes.clone(),
        );
        self.register_queue();
        let r = &mut self.registry;
        r.register(
            "build",
            "Build information",
            Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
        );
    }

    fn register_queue(&mut self) {
        let r = &mut self.registry;
        r.register(
            "queue_items",
            "Queued writes by state",
            self.queue_items.clone(),
        );
        r.register_with_unit(
            "queue",
            "Weight of queued writes",
            Unit::Bytes,
            self.queue_bytes.clone(),
        );
        r.register_with_unit(
            "queue_capacity",
            "What queued writes may weigh",
            Unit::Bytes,
            self.queue_capacity_bytes.clone(),
        );
        r.register_with_unit(
            "queue_oldest_item_age",
            "Age of the oldest queued write",
            Unit::Seconds,
            self.queue_oldest_item_age.clone(),
        );
        r.register(
            "queue_accepted",
            "Writes answered with 202",
            self.queue_accepted.clone(),
        );
        r.register(
            "queue_refused",
            "Writes that were not queued, by reason",
            self.queue_refused.clone(),
        );
        r.register(
            "queue_attempts",
            "Attempts to deliver queued writes, by outcome",
            self.queue_attempts.clone(),
        );
        r.register_with_unit(
            "queue_delivery_delay",
            "From acceptance to delivery",
            Unit::Seconds,
            self.queue_delivery_delay.clone(),
        );
    }
}

fn request_buckets() -> Histogram {
    // From a memory hit to a request that waited for every timer there is.
    Histogram::new([
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        60.0,
    ])
}

fn stale_buckets() -> Histogram {
    Histogram::new([
        1.0, 10.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0,
    ])
}

fn delay_buckets() -> Histogram {
    // From a write that found its origin back at once to one that waited out `queue.max_age`.
    Histogram::new([
        0.1, 1.0, 10.0, 60.0, 300.0, 1_800.0, 3_600.0, 21_600.0, 86_400.0, 259_200.0,
    ])
}
