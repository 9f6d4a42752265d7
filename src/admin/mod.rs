//! The operators' listener: health, metrics, and the API under `/api/v1`.
//!
//! Invariants: everything under `/api` needs a bearer token, and says 401 before it says whether a path exists; a GET
//! changes nothing; a `Host` that is not ours is answered only where a probe or a scraper asks. Bounds: connections,
//! time for a head, bytes and time of a body, delayed refusals. Deliberately absent: any way to edit configuration;
//! there are only overrides with an expiry, and they are listed.

mod audit;
mod authentication;
mod entries;
mod event_stream;
mod events;
mod expiry;
mod extract;
mod facts;
mod guard;
mod health;
mod mode;
mod operations;
mod operator;
mod overview;
mod problem;
mod purge;
mod queue;
mod queue_changes;
mod queue_transfer;
mod routes;
mod server;
mod stall;
mod strangers;
mod text;
mod tokens;
mod upstreams;
pub mod view;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use axum::Router;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub(crate) use self::tokens::read_token;
pub use self::{
    authentication::{Authentication, Unauthenticated},
    event_stream::EventStreams,
    events::Events,
    problem::Document as ProblemDocument,
    server::serve,
    tokens::{ADMIN_TOKEN_FILE, READ_TOKEN_FILE, TokenError, Tokens},
};
use crate::{
    clock::SharedClock, modes::Modes, policy::Settings, queue::Queue, store, telemetry::Metrics,
    upstream::Upstreams,
};

/// The `[admin]` table and `listen.admin`, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// File with the token of operators alone in it; `None`: `admin.token` in the data directory, made on first start.
    pub token_file: Option<PathBuf>,
    /// File with the token that may only read; `None`: `read.token` in the data directory, made on first start.
    pub read_token_file: Option<PathBuf>,
    /// Values of `Host` (without port) that are answered.
    pub allowed_hosts: Vec<String>,
}

/// Everything the admin listener shows and changes.
pub struct Api {
    /// What is stored.
    pub store: store::Store,
    /// The budgets and the data directory of `store`.
    pub storage: store::Config,
    /// Where requests are forwarded to.
    pub upstreams: Upstreams,
    /// Writes that wait for their origins.
    pub queue: Queue,
    /// What happens, for those who watch.
    pub events: Arc<Events>,
    /// Places of those who watch.
    pub streams: EventStreams,
    /// Modes and their overrides.
    pub modes: Arc<Modes>,
    /// Names of the routes, in the order of `modes`.
    pub routes: Vec<String>,
    /// Caching settings outside any route, for what is said about stored responses.
    pub settings: Settings,
    /// Metrics, and the counts in `status`.
    pub metrics: Arc<Metrics>,
    /// Wall-clock time.
    pub clock: SharedClock,
    /// When the gateway started.
    pub started: Instant,
    /// Whether the gateway serves, as `readyz` tells it.
    pub readiness: Arc<Readiness>,
    /// Who may ask.
    pub authentication: Arc<Authentication>,
    /// Values of `Host` (without port) that are answered.
    pub allowed_hosts: Vec<String>,
    /// The configuration file, if there is one.
    pub config_file: Option<PathBuf>,
    /// How a client's URL becomes the effective upstream URI.
    pub map_url: UrlMap,
    /// Connections, and operations that go on behind an answer.
    pub tasks: TaskTracker,
    /// Cancelled when the gateway is done with what was in flight.
    pub shutdown: CancellationToken,
}

/// Maps a client's URL to the effective upstream URI; `None` where no reverse route takes it.
pub type UrlMap = Arc<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// Whether the gateway takes requests.
#[derive(Debug, Default)]
pub struct Readiness(AtomicU8);

/// A phase of the gateway's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Stores are being opened, listeners bound.
    Starting,
    /// Serving.
    Ready,
    /// Finishing what is in flight.
    Draining,
}

impl Api {
    /// The routes, behind the checks of host, token and origin.
    pub fn router(self) -> Router {
        let guard = guard::Guard::new(Arc::clone(&self.authentication), self.allowed_hosts.clone());
        let routes = routes::router().with_state(Arc::new(self));
        guard::protect(routes, guard)
    }
}

impl Readiness {
    /// In the first phase.
    pub const fn starting() -> Self {
        Self(AtomicU8::new(0))
    }

    /// Moves on to `phase`. A gateway that drains stays so.
    pub fn enter(&self, phase: Phase) {
        self.0.fetch_max(phase as u8, Ordering::Release);
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        match self.0.load(Ordering::Acquire) {
            0 => Phase::Starting,
            1 => Phase::Ready,
            _ => Phase::Draining,
        }
    }
}

impl Phase {
    /// The name in health answers and `status`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Starting => "starting",
            Phase::Ready => "ready",
            Phase::Draining => "draining",
        }
    }
}
