//! One upstream: its origins in order of preference, and everything that is shared by the requests to it.

use std::{
    fmt,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{
    HeaderValue, Uri,
    uri::{Authority, PathAndQuery, Scheme},
};
use smallvec::SmallVec;
use tokio::{
    sync::{broadcast, watch},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use super::{
    ProbeConfig,
    client::Clients,
    connectivity::{ConnectivityOverride, Link, Lost, Transition},
    error::ForwardError,
    idle::Idle,
    permits::Permits,
    probe,
    stats::{Stats, UpstreamStatus},
};
use crate::{clock::SharedClock, modes::Modes, policy::Connectivity};

// A dead origin is tried last for this long, so that not every request waits for its connect timeout. A breaker will
// take this place.
const HOLD_DOWN: Duration = Duration::from_secs(5);

/// One upstream.
pub struct Upstream {
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) origins: Vec<Origin>,
    pub(super) clients: Clients,
    pub(super) first_byte_timeout: Duration,
    pub(super) permits: Permits,
    pub(super) link: Link,
    pub(super) stats: Stats,
    pub(super) common: Common,
    pub(super) last_asked: Moment,
    pub(super) me: Weak<Self>,
}

impl fmt::Debug for Upstream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Upstream").field(&self.name).finish()
    }
}

/// Who named the origins.
#[derive(Debug)]
pub(super) enum Kind {
    /// The operator.
    Configured { probe: Option<ProbeConfig> },
    /// A client, by a forward-proxied request.
    Implicit,
}

/// What every upstream needs of the process.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) clock: SharedClock,
    pub(super) modes: Arc<Modes>,
    pub(super) tasks: TaskTracker,
    pub(super) shutdown: CancellationToken,
    pub(super) start: Instant,
    pub(super) transitions: broadcast::Sender<Transition>,
}

/// One origin of an upstream.
#[derive(Debug)]
pub(super) struct Origin {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    /// The authority as a field has it.
    pub(super) host: HeaderValue,
    /// Without a trailing slash; empty for none.
    pub(super) base_path: String,
    held_until: Moment,
    /// Connections to it, where it speaks HTTP/1.1 only.
    pub(super) idle: Arc<Idle>,
}

/// A monotonic moment that can be set without a lock: milliseconds since the process's start.
#[derive(Debug, Default)]
pub(super) struct Moment(AtomicU64);

impl Upstream {
    /// Its name; for implicit ones the scheme and authority.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Scheme and authority of the effective URI (the first origin's), and its base path without a trailing slash.
    pub fn base(&self) -> (&Scheme, &Authority, &str) {
        let first = self.first();
        (&first.scheme, &first.authority, &first.base_path)
    }

    /// `Host` of requests to the first origin.
    pub fn host(&self) -> &HeaderValue {
        &self.first().host
    }

    /// Effective connectivity: the override's, else what was measured.
    pub fn connectivity(&self) -> Connectivity {
        self.link.effective()
    }

    /// Whether forgetting it would forget an operator's word, requests in flight, or somebody who waits for it.
    pub(super) fn is_in_use(&self) -> bool {
        self.link.override_in_force().is_some()
            || self.permits.in_flight() > 0
            || self.link.is_awaited()
    }

    /// Changes of [`Self::connectivity`]. An override that runs out is seen at the next change or read.
    pub fn subscribe(&self) -> watch::Receiver<Connectivity> {
        self.link.subscribe()
    }

    /// Returns once [`Self::connectivity`] is connected. Whoever waits here asks for the upstream all the while: its prober
    /// goes on.
    pub async fn connected(&self) {
        self.touch();
        self.link.connected().await;
        self.touch();
    }

    /// How many requests may be in flight at a time.
    pub fn max_in_flight(&self) -> usize {
        self.permits.max_in_flight()
    }

    pub(super) fn first(&self) -> &Origin {
        self.origins
            .first()
            .expect("an upstream is built with an origin")
    }

    /// The origins in the order in which they are tried: the preferred first, the held down last.
    pub(super) fn in_order(&self) -> SmallVec<[&Origin; 4]> {
        let mut origins: SmallVec<[&Origin; 4]> = self.origins.iter().collect();
        if origins.len() > 1 {
            let now = self.common.now_millis();
            origins.sort_by_key(|origin| origin.held_until.millis() > now);
        }
        origins
    }

    pub(super) fn hold_down(&self, origin: &Origin) {
        let hold_down_millis = u64::try_from(HOLD_DOWN.as_millis()).unwrap_or(u64::MAX);
        origin
            .held_until
            .set(self.common.now_millis().saturating_add(hold_down_millis));
    }

    /// Notes that a request asked for this upstream.
    pub(super) fn touch(&self) {
        self.last_asked.set(self.common.now_millis());
    }

    /// How long no request has asked for this upstream.
    pub(super) fn unasked_for(&self) -> Duration {
        let now = self.common.now_millis();
        Duration::from_millis(now.saturating_sub(self.last_asked.millis()))
    }

    /// Notes that no origin can be connected to, and sees to it that the prober runs.
    pub(super) fn lost(&self, error: &str) {
        let lost = self.link.lose();
        if lost == Lost::Known {
            return;
        }
        self.announce();
        match self.kind {
            Kind::Configured { .. } => {
                warn!(upstream = %self.name, error, "Upstream disconnected.");
            }
            // Chosen by clients: a mistyped host is nothing to warn an operator of.
            Kind::Implicit => info!(upstream = %self.name, error, "Upstream disconnected."),
        }
        if lost == Lost::NowWithoutProber {
            self.spawn_prober();
        }
    }

    /// Notes that an origin answered.
    pub(super) fn reached(&self) {
        if self.link.measured() == Connectivity::Connected {
            return;
        }
        self.count_disconnected();
        let Some(outage) = self.link.recover() else {
            return;
        };
        self.announce();
        let outage_secs = outage.as_secs_f64();
        match self.kind {
            Kind::Configured { .. } => {
                warn!(upstream = %self.name, outage_secs, "Upstream connected again.");
            }
            Kind::Implicit => {
                info!(upstream = %self.name, outage_secs, "Upstream connected again.");
            }
        }
    }

    pub(super) fn count_disconnected(&self) {
        let seconds = self.link.uncounted_secs();
        self.stats.series.disconnected_seconds.inc_by(seconds);
    }

    pub(super) fn failed(&self, error: &ForwardError) {
        let text = || super::error::chain(error);
        self.stats.failed(error, text, self.common.clock.now());
    }

    pub(super) fn spawn_prober(&self) {
        let prober = probe::run(Weak::clone(&self.me), self.common.shutdown.clone());
        self.common.tasks.spawn(prober);
    }

    pub(super) fn set_override(&self, word: Option<ConnectivityOverride>) {
        self.link.set_override(word);
        self.announce();
    }

    /// Tells whoever listens, and does not wait for them.
    fn announce(&self) {
        // An error says that nobody listens.
        let _ = self.common.transitions.send(Transition {
            upstream: self.name.clone(),
            connectivity: self.connectivity(),
            overridden: self.link.override_in_force().is_some(),
        });
    }

    pub(super) fn status(&self) -> UpstreamStatus {
        let mut status = UpstreamStatus {
            name: self.name.clone(),
            urls: self.origins.iter().map(Origin::url).collect(),
            configured: matches!(self.kind, Kind::Configured { .. }),
            connectivity: self.connectivity(),
            since: self.link.since(),
            r#override: self.link.override_in_force(),
            in_flight: self.permits.in_flight(),
            succeeded: 0,
            failed: 0,
            latency_p50_ms: None,
            latency_p99_ms: None,
            last_error: None,
            last_probe: None,
        };
        self.stats.fill(&mut status);
        status
    }
}

impl Common {
    pub(super) fn now_millis(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

impl Origin {
    /// From an absolute URI; `None` when it has no scheme or authority.
    pub(super) fn new(url: &Uri) -> Option<Self> {
        let mut origin = Self::bare(url.scheme()?.clone(), url.authority()?.clone());
        url.path()
            .trim_end_matches('/')
            .clone_into(&mut origin.base_path);
        Some(origin)
    }

    /// Without a base path.
    pub(super) fn bare(scheme: Scheme, authority: Authority) -> Self {
        let host = HeaderValue::from_str(authority.as_str())
            .expect("an authority is made of visible ASCII");
        Self {
            scheme,
            authority,
            host,
            base_path: String::new(),
            held_until: Moment::default(),
            idle: Arc::default(),
        }
    }

    /// The target on this origin of a request for `asked` of `effective`.
    pub(super) fn target(&self, effective: &Self, asked: &PathAndQuery) -> Uri {
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.authority.clone());
        parts.path_and_query = Some(self.path_and_query(effective, asked));
        Uri::from_parts(parts).expect("scheme, authority and path are all there")
    }

    /// The same path and query, byte for byte, below this origin's base path.
    pub(super) fn path_and_query(&self, effective: &Self, asked: &PathAndQuery) -> PathAndQuery {
        if self.base_path == effective.base_path {
            return asked.clone();
        }
        let path = asked.as_str();
        let rest = path.strip_prefix(&effective.base_path).unwrap_or(path);
        let path = format!("{}{rest}", self.base_path).parse();
        path.unwrap_or_else(|_| PathAndQuery::from_static("/"))
    }

    fn url(&self) -> String {
        format!("{}://{}{}", self.scheme, self.authority, self.base_path)
    }
}

impl Moment {
    pub(super) fn millis(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn set(&self, millis: u64) {
        self.0.store(millis, Ordering::Relaxed);
    }
}

/// Builds an upstream that knows itself, so that it can start its own prober.
pub(super) fn build(make: impl FnOnce(Weak<Upstream>) -> Upstream) -> Arc<Upstream> {
    Arc::new_cyclic(|me| make(Weak::clone(me)))
}

#[cfg(test)]
mod tests {
    use http::Uri;

    use super::Origin;

    #[test]
    fn a_target_keeps_its_bytes_on_every_origin() {
        let check = |first: &str, other: &str, uri: &str, expected: &str| {
            let first = Origin::new(&first.parse().unwrap()).unwrap();
            let other = Origin::new(&other.parse().unwrap()).unwrap();
            let uri: Uri = uri.parse().unwrap();
            let target = other.target(&first, uri.path_and_query().unwrap());
            assert_eq!(target.to_string(), expected);
        };
        check(
            "http://a",
            "http://a",
            "http://a/x/%2e%2e/y'?q=%41",
            "http://a/x/%2e%2e/y'?q=%41",
        );
        check(
            "http://a",
            "https://b:8443",
            "http://a/x?y",
            "https://b:8443/x?y",
        );
        check(
            "http://a/v1/",
            "http://b/v2",
            "http://a/v1/x",
            "http://b/v2/x",
        );
        check("http://a/v1", "http://b", "http://a/v1/x", "http://b/x");
        check("http://a/v1", "http://b", "http://a/v1?x", "http://b/?x");
        check("http://a", "http://b/v2", "http://a/x", "http://b/v2/x");
        check("http://a", "http://a", "http://a", "http://a/");
    }
}
