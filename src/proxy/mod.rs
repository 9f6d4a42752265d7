//! The way of a request: accept, refuse, limit, key, decide, reuse or forward, respond.
//!
//! In reading order: [`server`] accepts, `connection` finds out the protocol and serves, `fast_path` and `hit` answer what
//! is at hand, `pipeline` tells the story of everything else, `respond` makes every answer. Invariants: a request is answered
//! exactly once and leaves one access event; what waits for an origin holds a permit of its upstream, what is answered
//! from the store holds none; a fill belongs to the store, not to the client that started it. Deliberately absent:
//! what may be stored or reused (policy's), where bytes are kept (store's), what may be dialled (upstream's).

mod access;
mod arrival;
#[cfg(feature = "benchmarks")]
pub(crate) mod benchmarks;
mod body;
mod cache_status;
mod collapse;
mod connection;
mod counters;
mod direct;
mod effective;
mod equivalent;
mod failure;
mod fast_path;
mod fetch;
mod fill;
mod forward_access;
mod framing;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod growing;
mod guarded_io;
mod hit;
mod hold_down;
mod identity;
mod interim;
mod invalidation;
mod keeping;
mod outgoing;
mod own_paths;
mod parts;
mod passes;
mod pipeline;
mod post;
mod problem;
mod progress;
mod query;
mod question;
mod ranges;
mod refresh_ahead;
mod refuse;
mod request;
mod respond;
mod routes;
mod server;
mod shared;
mod trailers;
mod tunnel;
mod write;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use http::{HeaderMap, Method};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    access::AccessLog, collapse::Fills, counters::Counters, hold_down::HoldDown, passes::Passes,
    refresh_ahead::RefreshAhead, routes::Routes,
};
pub use self::{
    identity::Identity,
    server::{Listener, bind_tcp, bind_unix, run},
    write::HttpOutlet,
};
use crate::{
    clock::SharedClock,
    modes::Modes,
    policy::{Mode, Settings},
    protect::{self, Admission},
    queue::{Queue, WriteSettings},
    store::Store,
    telemetry::{self, LimiterLabels, Metrics},
    upstream::Upstreams,
};

/// One `[[routes]]` table, checked, with the `[cache]` defaults already merged in.
#[derive(Clone, Debug)]
pub struct RouteConfig {
    /// Its name: log field, metrics label.
    pub name: String,
    /// Host pattern: `*`, or a literal `host` or `host:port`, or `*.suffix`.
    pub host: String,
    /// Path pattern: literal, `*` within a segment, `**` across segments.
    pub path: String,
    /// Methods; empty: all.
    pub methods: Vec<Method>,
    /// Name of the upstream; `None`: policy for forward requests only.
    pub upstream: Option<String>,
    /// Mode, if the route has its own.
    pub mode: Option<Mode>,
    /// Caching settings.
    pub cache: Settings,
    /// Whether the client's Host is passed on instead of the upstream's authority.
    pub preserve_host: bool,
    /// Path patterns, as `path` has them, of what a successful unsafe request invalidates on the upstream.
    pub invalidates: Vec<String>,
    /// What becomes of writes.
    pub write: WriteSettings,
}

/// The `[forward]` table, checked (the address rules are [`crate::upstream::Config`]'s).
#[derive(Clone, Debug)]
pub struct ForwardConfig {
    /// Whether absolute-form and CONNECT are served at all.
    pub enabled: bool,
    /// Clients that may use it, by CIDR.
    pub allow_clients: Vec<ipnet::IpNet>,
    /// `user:password` pairs accepted in `Proxy-Authorization: Basic`.
    pub credentials: Vec<String>,
    /// Hosts a client may reach: `*`, literals, `*.suffix`.
    pub allow: Vec<String>,
    /// Ports of CONNECT that are tunnelled.
    pub connect_ports: Vec<u16>,
    /// Hosts asked for with `http://` that are fetched with `https://`.
    pub upgrade_to_https: Vec<String>,
}

/// Whether a request shows the admin token. Whoever shows a wrong one is told late, and not faster here than elsewhere.
pub type IsOperator = Arc<dyn Fn(HeaderMap) -> BoxFuture<'static, Shown> + Send + Sync>;

/// What a request shows of the admin token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// The token.
    Token,
    /// Another, or none.
    NotIt,
    /// Another, as too many do at once.
    TooManyGuesses,
}

/// What a gateway is made of.
pub struct Parts {
    /// The store.
    pub store: Store,
    /// The upstreams.
    pub upstreams: Upstreams,
    /// The write queue.
    pub queue: Queue,
    /// Whether a request shows the admin token, which opens every receipt.
    pub is_operator: IsOperator,
    /// Modes, configured and overridden.
    pub modes: Arc<Modes>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Wall-clock time.
    pub clock: SharedClock,
    /// Who this gateway is.
    pub identity: Identity,
    /// Routes, in order.
    pub routes: Vec<RouteConfig>,
    /// Caching where no route matches.
    pub settings: Settings,
    /// Validations ahead of time, of all routes together; `None`: as many as there are places.
    pub refresh_ahead_rate: Option<protect::RateConfig>,
    /// The forward proxy.
    pub forward: ForwardConfig,
    /// Limits on clients.
    pub limits: protect::Config,
    /// The largest body that is stored, in bytes.
    pub max_object_bytes: u64,
    /// Bodies in flight that fills may hold together, in bytes.
    pub in_flight_bytes: usize,
    /// Which access events are written.
    pub telemetry: telemetry::Config,
    /// Fills, connections and tunnels run on it.
    pub tasks: TaskTracker,
    /// Cancelled when the gateway begins to drain.
    pub draining: CancellationToken,
}

/// A gateway: everything a request needs on its way.
pub struct Gateway {
    store: Store,
    queue: Queue,
    is_operator: IsOperator,
    upstreams: Upstreams,
    modes: Arc<Modes>,
    metrics: Arc<Metrics>,
    clock: SharedClock,
    identity: Identity,
    routes: Routes,
    settings: Settings,
    forward: ForwardConfig,
    limits: protect::Config,
    admission: Admission,
    fills: Fills,
    hold_down: HoldDown,
    passes: Passes,
    refresh_ahead: RefreshAhead,
    max_object_bytes: u64,
    in_flight_bytes: Arc<Semaphore>,
    // Places for fills that nobody asked for.
    unasked_fills: Arc<Semaphore>,
    access: AccessLog,
    counters: Counters,
    router: axum::Router<Arc<Gateway>>,
    tasks: TaskTracker,
    draining: CancellationToken,
}

impl Gateway {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Arc<Self> {
        let names = parts.routes.iter().map(|route| route.name.as_str());
        let counters = Counters::new(&parts.metrics, names);
        parts
            .store
            .watch(invalidation::watched(&parts.routes, &parts.upstreams));
        Arc::new(Self {
            store: parts.store,
            queue: parts.queue,
            is_operator: parts.is_operator,
            upstreams: parts.upstreams,
            modes: parts.modes,
            metrics: parts.metrics,
            clock: parts.clock,
            identity: parts.identity,
            routes: Routes::new(parts.routes),
            settings: parts.settings,
            forward: parts.forward,
            admission: Admission::new(parts.limits.clone()),
            limits: parts.limits,
            fills: Fills::default(),
            hold_down: HoldDown::default(),
            passes: Passes::default(),
            refresh_ahead: RefreshAhead::new(parts.refresh_ahead_rate),
            max_object_bytes: parts.max_object_bytes,
            in_flight_bytes: Arc::new(Semaphore::new(
                parts.in_flight_bytes.min(Semaphore::MAX_PERMITS),
            )),
            unasked_fills: Arc::new(Semaphore::new(parts::UNASKED_FILLS_MAX)),
            access: AccessLog::new(parts.telemetry.access_hits, parts.telemetry.access_other),
            counters,
            router: own_paths::router(),
            tasks: parts.tasks,
            draining: parts.draining,
        })
    }

    /// The effective upstream URI of a URL as a client writes it; `None` where that is no other.
    pub fn effective_url(&self, url: &str) -> Option<String> {
        effective::effective_url(self, url)
    }

    fn count_rate_limited(&self) {
        self.metrics
            .rate_limited
            .get_or_create(&LimiterLabels { limiter: "client" })
            .inc();
    }
}
