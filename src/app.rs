//! Wiring, bottom-up: open, bind, spawn, and drain in order.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    sync::Arc,
    time::Duration,
};

use futures_util::FutureExt;
use serde_json::json;
use tokio::{net::TcpListener, time::Instant};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{info, warn};

use crate::{
    admin::{self, Authentication, Unauthenticated},
    clock::SharedClock,
    config::{Config, ListenAddress},
    modes::Modes,
    proxy::{self, Gateway, HttpOutlet, Identity, IsOperator, Listener, Parts, Shown},
    queue::{self, Places, Queue},
    store::{Store, StoreError},
    telemetry::Metrics,
    upstream::Upstreams,
};

/// Bodies in flight may hold this much at least, whatever the memory tier's budget is.
const IN_FLIGHT_BYTES_MIN: u64 = 128 * 1024 * 1024;

/// How long background tasks may take to end.
const BACKGROUND_GRACE: Duration = Duration::from_secs(5);

/// How long deliveries in flight may take to end; what is cut is taken up at the next start. Less than [`BACKGROUND_GRACE`].
const REPLAY_GRACE: Duration = Duration::from_secs(4);

/// Where a running gateway says how to reach it, in its data directory.
pub const GATEWAY_FILE: &str = "gateway.json";

/// A gateway that serves.
pub struct Running {
    /// Where the proxy really listens (a port 0 is resolved).
    pub proxy_listeners: Vec<ListenAddress>,
    /// Where the admin API really listens.
    pub admin_listener: SocketAddr,
    /// The store, for the banner.
    pub store: Store,
    /// The write queue, for the banner.
    pub queue: Queue,
    config: Config,
    readiness: Arc<admin::Readiness>,
    stages: Stages,
}

/// What drains, in this order.
struct Stages {
    /// Cancelled first: accepting ends, connections finish what is in flight.
    draining: CancellationToken,
    /// Connections, tunnels, fills.
    requests: TaskTracker,
    /// Cancelled when those are done or their time is up: probers, the admin API.
    background: CancellationToken,
    background_tasks: TaskTracker,
    store_tasks: TaskTracker,
}

/// Why a gateway did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// An address is taken, or may not be bound.
    #[error("cannot listen on {address}")]
    Bind {
        /// The address.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The write queue did not open.
    #[error(transparent)]
    Queue(#[from] queue::OpenError),
    /// The store did not open.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A file of the data directory could not be read or written.
    #[error("cannot {attempt} in the data directory")]
    DataDirectory {
        /// What was attempted.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// A token file is missing or unusable.
    #[error(transparent)]
    Tokens(#[from] admin::TokenError),
}

/// Opens the stores, binds the listeners, spawns the background tasks. Writes `gateway.json`
/// (`{"pid", "proxy": [..], "admin": ".."}`) into the data directory, for the command line and for tests.
///
/// # Errors
/// See [`StartError`]; nothing is left running after one.
pub async fn start(config: Config, clock: SharedClock) -> Result<Running, StartError> {
    let stages = Stages::new();
    let metrics = Metrics::new();
    let store = Store::open(
        config.storage.clone(),
        Arc::clone(&clock),
        Arc::clone(&metrics),
        &stages.store_tasks,
    )
    .await?;
    let opened = Queue::open(
        config.queue.clone(),
        places(&config),
        Arc::clone(&clock),
        Arc::clone(&metrics),
        &stages.store_tasks,
    );
    let started = match opened.await {
        Ok(queue) => {
            let started = serve(
                config,
                clock,
                metrics,
                (store.clone(), queue.clone()),
                stages,
            );
            let started = started.await;
            if started.is_err() {
                queue.close().await;
            }
            started
        }
        Err(error) => Err(error.into()),
    };
    match started {
        Ok(running) => Ok(running),
        Err(error) => {
            // The lock of the data directory is given back, so that the next start is not told it is taken.
            if let Err(error) = store.close().await {
                warn!(%error, "Cannot close the store after a failed start.");
            }
            Err(error)
        }
    }
}

async fn serve(
    config: Config,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    (store, queue): (Store, Queue),
    stages: Stages,
) -> Result<Running, StartError> {
    let directory = |attempt| move |source| StartError::DataDirectory { attempt, source };
    let dir = config.storage.dir.as_path();
    let identity = Identity::load_or_create(dir).map_err(directory("make the file `identity`"))?;
    let tokens = admin::Tokens::load(&config.admin, dir)?;
    let authentication = Arc::new(Authentication::new(tokens, Arc::clone(&metrics)));
    let (listeners, proxy_listeners) = bind_all(&config.proxy_listeners).await?;
    let admin_socket = bind_admin(config.admin_listener).await?;
    let admin_listener = admin_socket
        .local_addr()
        .map_err(directory("read the admin listener's address"))?;

    // Before anything is spawned: from here on nothing fails.
    announce(dir, &proxy_listeners, admin_listener).map_err(directory("write gateway.json"))?;

    let own = own_addresses(&proxy_listeners, admin_listener);
    let routes = config
        .routes
        .iter()
        .map(|route| (route.name.clone(), route.mode));
    let modes = Arc::new(Modes::new(config.mode, routes));
    let upstreams = Upstreams::new(
        config.upstream.clone(),
        own,
        Arc::clone(&clock),
        Arc::clone(&modes),
        Arc::clone(&metrics),
        stages.background_tasks.clone(),
        stages.background.clone(),
    );
    let gateway = Gateway::new(Parts {
        store: store.clone(),
        queue: queue.clone(),
        is_operator: is_operator(&authentication),
        upstreams: upstreams.clone(),
        modes: Arc::clone(&modes),
        metrics: Arc::clone(&metrics),
        clock: Arc::clone(&clock),
        identity,
        routes: config.routes.clone(),
        settings: config.cache.clone(),
        refresh_ahead_rate: config.refresh_ahead_rate,
        forward: config.forward.clone(),
        limits: config.limits.clone(),
        max_object_bytes: config.storage.max_object_bytes,
        in_flight_bytes: in_flight_bytes(&config),
        telemetry: config.telemetry.clone(),
        tasks: stages.requests.clone(),
        draining: stages.draining.clone(),
    });

    let readiness = Arc::new(admin::Readiness::starting());
    let mapping = Arc::clone(&gateway);
    let api = admin::Api {
        store: store.clone(),
        storage: config.storage.clone(),
        upstreams,
        queue: queue.clone(),
        events: admin::Events::new(Arc::clone(&clock)),
        streams: admin::EventStreams::default(),
        modes,
        routes: config
            .routes
            .iter()
            .map(|route| route.name.clone())
            .collect(),
        settings: config.cache.clone(),
        metrics,
        clock,
        started: Instant::now(),
        readiness: Arc::clone(&readiness),
        authentication,
        allowed_hosts: config.admin.allowed_hosts.clone(),
        config_file: config.file.clone(),
        map_url: Arc::new(move |url| mapping.effective_url(url)),
        tasks: stages.background_tasks.clone(),
        shutdown: stages.background.clone(),
    };
    stages
        .background_tasks
        .spawn(admin::serve(admin_socket, api));
    let (deliveries, outlet) = (queue.clone(), HttpOutlet::new(&gateway));
    stages.background_tasks.spawn(deliveries.deliver(
        outlet,
        stages.background.clone(),
        REPLAY_GRACE,
    ));
    for listener in listeners {
        stages
            .requests
            .spawn(proxy::run(Arc::clone(&gateway), listener));
    }
    readiness.enter(admin::Phase::Ready);
    Ok(Running {
        proxy_listeners,
        admin_listener,
        store,
        queue,
        config,
        readiness,
        stages,
    })
}

impl Stages {
    fn new() -> Self {
        Self {
            draining: CancellationToken::new(),
            requests: TaskTracker::new(),
            background: CancellationToken::new(),
            background_tasks: TaskTracker::new(),
            store_tasks: TaskTracker::new(),
        }
    }
}

impl Running {
    /// The configuration it runs with.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Drains: not ready, stop accepting, in flight up to the grace, fills, commit, close. What is in flight after the
    /// grace is cut; what the store has acknowledged is on disk in any case.
    pub async fn shutdown(self) {
        let Self {
            store,
            queue,
            config,
            readiness,
            stages,
            ..
        } = self;
        info!(grace = ?config.shutdown_grace, "Draining.");
        readiness.enter(admin::Phase::Draining);
        stages.draining.cancel();
        stages.requests.close();
        if tokio::time::timeout(config.shutdown_grace, stages.requests.wait())
            .await
            .is_err()
        {
            warn!(
                left = stages.requests.len(),
                "The grace is over; what is still in flight is cut."
            );
        }
        stages.background.cancel();
        stages.background_tasks.close();
        // The admin API lets answers end by itself; this bound is for the unforeseen.
        let _ = tokio::time::timeout(BACKGROUND_GRACE, stages.background_tasks.wait()).await;
        // Before the lock of the directory is given back: afterwards the file may be the next process's.
        let _ = std::fs::remove_file(config.storage.dir.join(GATEWAY_FILE));
        queue.close().await;
        if let Err(error) = store.close().await {
            warn!(%error, "The store did not close cleanly; it recovers at the next start.");
        }
        stages.store_tasks.close();
        let _ = tokio::time::timeout(BACKGROUND_GRACE, stages.store_tasks.wait()).await;
        info!("Stopped.");
    }
}

async fn bind_all(
    addresses: &[ListenAddress],
) -> Result<(Vec<Listener>, Vec<ListenAddress>), StartError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    let mut bound = Vec::with_capacity(addresses.len());
    for address in addresses {
        let failed = |source| StartError::Bind {
            address: address.to_string(),
            source,
        };
        let listener = match address {
            ListenAddress::Tcp(address) => proxy::bind_tcp(*address).await,
            ListenAddress::Unix(path) => proxy::bind_unix(path).await,
        }
        .map_err(failed)?;
        bound.push(match &listener {
            Listener::Tcp(listener) => ListenAddress::Tcp(listener.local_addr().map_err(failed)?),
            Listener::Unix(_) => address.clone(),
        });
        listeners.push(listener);
    }
    Ok((listeners, bound))
}

async fn bind_admin(address: SocketAddr) -> Result<TcpListener, StartError> {
    let failed = |source| StartError::Bind {
        address: address.to_string(),
        source,
    };
    TcpListener::bind(address).await.map_err(failed)
}

fn is_operator(authentication: &Arc<Authentication>) -> IsOperator {
    let authentication = Arc::clone(authentication);
    Arc::new(move |headers| {
        let authentication = Arc::clone(&authentication);
        async move {
            match authentication.admin(&headers).await {
                Ok(()) => Shown::Token,
                Err(
                    Unauthenticated::NoToken
                    | Unauthenticated::ClientsToken
                    | Unauthenticated::WrongToken,
                ) => Shown::NotIt,
                Err(Unauthenticated::TooManyGuesses) => Shown::TooManyGuesses,
            }
        }
        .boxed()
    })
}

fn own_addresses(proxy: &[ListenAddress], admin: SocketAddr) -> Vec<SocketAddr> {
    let proxy = proxy.iter().filter_map(|address| match address {
        ListenAddress::Tcp(address) => Some(*address),
        ListenAddress::Unix(_) => None,
    });
    proxy.chain([admin]).collect()
}

/// Where queued writes go to.
fn places(config: &Config) -> Places {
    let upstreams = config.upstream.upstreams.iter();
    Places::new(upstreams.filter_map(|(name, upstream)| {
        let first = upstream.urls.first()?;
        Some((name.clone(), first.clone()))
    }))
}

/// Half of the memory tier's budget, but enough for a few of the largest bodies.
fn in_flight_bytes(config: &Config) -> usize {
    let bytes = (config.storage.memory_bytes / 2)
        .max(IN_FLIGHT_BYTES_MIN)
        .max(config.storage.max_object_bytes * 2);
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

fn announce(dir: &Path, proxy: &[ListenAddress], admin: SocketAddr) -> io::Result<()> {
    let proxy: Vec<String> = proxy.iter().map(ToString::to_string).collect();
    let text = json!({ "pid": std::process::id(), "proxy": proxy, "admin": admin.to_string() })
        .to_string();
    let temporary = dir.join("gateway.json.new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(text.as_bytes())?;
    std::fs::rename(temporary, dir.join(GATEWAY_FILE))
}
