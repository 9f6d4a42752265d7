//! Every upstream: the configured ones by name, and the implicit ones of forward-proxied requests.
//!
//! Bounds: 4,096 implicit upstreams besides those in use (requests in flight, an override, somebody who waits for them to
//! be connected); when a further one comes, the sixteenth that nobody asked for the longest is forgotten, with its
//! probers.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use http::uri::{Authority, Scheme};
use rustls::RootCertStore;
use tokio::{sync::broadcast, time::Instant};

use super::{
    Config, UpstreamConfig,
    client::{Clients, Connector, Protocols},
    connectivity::{ConnectivityOverride, Link, Transition},
    dial::{self, Dialer},
    dialled::Dialled,
    error::{ForwardError, from_dial},
    filter::{AddressFilter, Networks, StrictRules},
    group::{self, Common, Kind, Moment, Origin, Upstream},
    permits::Permits,
    resolve::Resolver,
    stats::{FORWARD, Series, Stats, UpstreamStatus},
    tls,
};
use crate::{clock::SharedClock, modes::Modes, policy::Connectivity, telemetry::Metrics};

const MAX_IMPLICIT: usize = 4_096;
// Whoever listens and is further behind is told how many it missed.
const MAX_TRANSITIONS: usize = 256;

// The defaults of a configured upstream: a forward-proxied one has no table to say otherwise.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
const FIRST_BYTE_TIMEOUT: Duration = Duration::from_secs(60);

/// Every upstream: the configured ones, and the implicit ones of forward-proxied requests (at most 4,096).
#[derive(Clone)]
pub struct Upstreams {
    inner: Arc<Inner>,
}

struct Inner {
    configured: BTreeMap<String, Arc<Upstream>>,
    implicit: RwLock<HashMap<(Scheme, Authority), Arc<Upstream>>>,
    // One client for all of them: its pool is never used for a configured upstream.
    implicit_clients: Clients,
    implicit_series: Arc<Series>,
    max_in_flight: usize,
    max_waiting: usize,
    common: Common,
}

impl Upstreams {
    /// Builds clients and upstreams, and starts the configured probes: call it on the runtime. `own_listeners` are never
    /// dialled for a forward-proxied request. While the mode in `modes` is `offline` nothing is probed.
    pub fn new(
        config: Config,
        own_listeners: Vec<SocketAddr>,
        clock: SharedClock,
        modes: Arc<Modes>,
        metrics: Arc<Metrics>,
        tasks: tokio_util::task::TaskTracker,
        shutdown: tokio_util::sync::CancellationToken,
    ) -> Self {
        let common = Common {
            clock,
            modes,
            tasks,
            shutdown,
            start: Instant::now(),
            transitions: broadcast::Sender::new(MAX_TRANSITIONS),
        };
        let max_in_flight = config.max_in_flight.max(1);
        let resolver = Arc::new(Resolver::new());
        let roots = tls::roots();
        let implicit_clients = Clients::new(
            Connector {
                dialer: Dialer {
                    resolver: Arc::clone(&resolver),
                    filter: Arc::new(strict_filter(&config, own_listeners)),
                    connect_timeout: CONNECT_TIMEOUT,
                },
                tls: tls::client_config(roots.clone(), &[], Protocols::Http1),
                protocols: Protocols::Http1,
            },
            max_in_flight,
        );
        let inner = Inner {
            configured: BTreeMap::new(),
            implicit: RwLock::default(),
            implicit_clients,
            implicit_series: Series::new(&metrics, FORWARD),
            max_in_flight,
            max_waiting: config.max_waiting,
            common,
        };
        let configured = config.upstreams.iter().map(|(name, upstream)| {
            let clients = inner.configured_clients(upstream, &resolver, &roots);
            let series = Series::new(&metrics, name);
            (
                name.clone(),
                inner.configure(name, upstream, clients, series),
            )
        });
        let configured = configured.collect();
        Self {
            inner: Arc::new(Inner {
                configured,
                ..inner
            }),
        }
    }

    /// A configured upstream.
    pub fn named(&self, name: &str) -> Option<Arc<Upstream>> {
        self.inner.configured.get(name).cloned()
    }

    /// Whether an origin of a configured upstream has this authority.
    pub fn is_configured_origin(&self, authority: &Authority) -> bool {
        let asked = [Scheme::HTTP, Scheme::HTTPS].map(|scheme| dial::port(&scheme, authority).ok());
        let mut origins = self
            .inner
            .configured
            .values()
            .flat_map(|upstream| &upstream.origins);
        // `host` and `host:80` are one place, written in two ways.
        origins.any(|origin| {
            origin
                .authority
                .host()
                .eq_ignore_ascii_case(authority.host())
                && asked.contains(&dial::port(&origin.scheme, &origin.authority).ok())
        })
    }

    /// The implicit upstream of a forward-proxied scheme and authority.
    pub fn implicit(&self, scheme: &Scheme, authority: &Authority) -> Arc<Upstream> {
        let key = (scheme.clone(), authority.clone());
        let known = self.read().get(&key).cloned();
        let upstream = known.unwrap_or_else(|| self.add_implicit(key));
        upstream.touch();
        upstream
    }

    /// Dials for a CONNECT tunnel, with the address filter and timeouts of forward-proxied requests. No permit.
    ///
    /// # Errors
    /// [`ForwardError::Denied`] and [`ForwardError::Connect`].
    pub async fn dial(&self, authority: &Authority) -> Result<tokio::net::TcpStream, ForwardError> {
        let dialer = &self.inner.implicit_clients.connector.dialer;
        let dialled = match dial::port(&Scheme::HTTPS, authority) {
            Ok(port) => dialer.dial(authority.host(), port).await,
            Err(error) => Err(error),
        };
        dialled
            .map(Dialled::into_stream)
            .map_err(|error| from_dial(error, authority))
    }

    /// Whether a forward-proxied request may dial this authority: resolves and filters, and dials nothing.
    ///
    /// # Errors
    /// [`ForwardError::Denied`], and [`ForwardError::Connect`] when the name does not resolve.
    pub async fn check(&self, authority: &Authority) -> Result<(), ForwardError> {
        let dialer = &self.inner.implicit_clients.connector.dialer;
        let checked = match dial::port(&Scheme::HTTP, authority) {
            Ok(port) => dialer.check(authority.host(), port).await,
            Err(error) => Err(error),
        };
        checked.map_err(|error| from_dial(error, authority))
    }

    /// The configured upstreams and their connectivity: cheap, for those who ask often.
    pub fn configured(&self) -> impl Iterator<Item = (&str, Connectivity)> {
        let configured = self.inner.configured.iter();
        configured.map(|(name, upstream)| (name.as_str(), upstream.connectivity()))
    }

    /// What is known of every upstream, configured ones first.
    pub fn status(&self) -> Vec<UpstreamStatus> {
        let mut implicit: Vec<_> = self.read().values().cloned().collect();
        implicit.sort_by(|one, other| one.name().cmp(other.name()));
        self.inner
            .configured
            .values()
            .chain(&implicit)
            .map(|upstream| upstream.status())
            .collect()
    }

    /// Every upstream that is lost or comes back from now on. A listener that is more than 256 behind misses the oldest.
    pub fn transitions(&self) -> broadcast::Receiver<Transition> {
        self.inner.common.transitions.subscribe()
    }

    /// Puts an override on, or takes it off. `false` when there is no upstream of that name.
    pub fn set_override(&self, name: &str, r#override: Option<ConnectivityOverride>) -> bool {
        let upstream = self.named(name).or_else(|| {
            let implicit = self.read();
            implicit
                .values()
                .find(|upstream| upstream.name() == name)
                .cloned()
        });
        let Some(upstream) = upstream else {
            return false;
        };
        upstream.set_override(r#override);
        true
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, HashMap<(Scheme, Authority), Arc<Upstream>>> {
        self.inner
            .implicit
            .read()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn add_implicit(&self, key: (Scheme, Authority)) -> Arc<Upstream> {
        let mut implicit = self
            .inner
            .implicit
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        if !implicit.contains_key(&key) && implicit.len() >= MAX_IMPLICIT {
            make_room(&mut implicit);
        }
        let (scheme, authority) = key.clone();
        let make = || self.inner.imply(scheme, authority);
        Arc::clone(implicit.entry(key).or_insert_with(make))
    }
}

impl Inner {
    fn configured_clients(
        &self,
        config: &UpstreamConfig,
        resolver: &Arc<Resolver>,
        roots: &RootCertStore,
    ) -> Clients {
        let protocols = if config.http2 {
            Protocols::Http2
        } else {
            Protocols::Http1
        };
        let connector = Connector {
            dialer: Dialer {
                resolver: Arc::clone(resolver),
                filter: Arc::new(AddressFilter::Configured),
                connect_timeout: config.connect_timeout,
            },
            tls: tls::client_config(roots.clone(), &config.extra_roots, protocols),
            protocols,
        };
        Clients::new(connector, self.max_in_flight)
    }

    fn configure(
        &self,
        name: &str,
        config: &UpstreamConfig,
        clients: Clients,
        series: Arc<Series>,
    ) -> Arc<Upstream> {
        let origins: Vec<_> = config.urls.iter().filter_map(Origin::new).collect();
        let kind = Kind::Configured {
            probe: config.probe.clone(),
        };
        let first_byte_timeout = config.first_byte_timeout;
        let upstream = self.build(
            name.to_owned(),
            kind,
            origins,
            clients,
            first_byte_timeout,
            series,
        );
        if config.probe.is_some() {
            upstream.link.claim_prober();
            upstream.spawn_prober();
        }
        upstream
    }

    fn imply(&self, scheme: Scheme, authority: Authority) -> Arc<Upstream> {
        let name = format!("{scheme}://{authority}");
        self.build(
            name,
            Kind::Implicit,
            vec![Origin::bare(scheme, authority)],
            self.implicit_clients.clone(),
            FIRST_BYTE_TIMEOUT,
            Arc::clone(&self.implicit_series),
        )
    }

    fn build(
        &self,
        name: String,
        kind: Kind,
        origins: Vec<Origin>,
        clients: Clients,
        first_byte_timeout: Duration,
        series: Arc<Series>,
    ) -> Arc<Upstream> {
        group::build(|me| Upstream {
            name,
            kind,
            origins,
            clients,
            first_byte_timeout,
            permits: Permits::new(self.max_in_flight, self.max_waiting),
            link: Link::new(Arc::clone(&self.common.clock)),
            stats: Stats::new(series),
            common: self.common.clone(),
            last_asked: Moment::default(),
            me,
        })
    }
}

fn strict_filter(config: &Config, own_listeners: Vec<SocketAddr>) -> AddressFilter {
    AddressFilter::Strict(StrictRules {
        networks: if config.deny_private_networks {
            Networks::Public
        } else {
            Networks::Any
        },
        allow: config.allow_networks.clone(),
        own_listeners,
    })
}

// A sixteenth at a time, so that a flood of new authorities pays for the scan only now and then.
fn make_room(implicit: &mut HashMap<(Scheme, Authority), Arc<Upstream>>) {
    let mut asked: Vec<u64> = implicit
        .values()
        .map(|upstream| upstream.last_asked.millis())
        .collect();
    let (_, newest_to_go, _) = asked.select_nth_unstable(MAX_IMPLICIT / 16);
    let newest_to_go = *newest_to_go;
    // An operator's word stays, and so does whoever has requests in flight or is waited for: their permits bound what is
    // sent there, and one prober is enough.
    implicit
        .retain(|_, upstream| upstream.last_asked.millis() > newest_to_go || upstream.is_in_use());
}
