//! A gateway in this process, on the test's own runtime, with a clock that the test moves.

use std::{net::SocketAddr, path::Path, sync::Arc};

use hardtack::{
    app::{self, Running},
    clock::{Clock, SystemClock, VirtualClock},
    config::{self, Config, Flags, ListenAddress, Sources},
};
use tempfile::TempDir;

use super::{Client, files_below, within};

/// A gateway that serves until it is stopped or the test's runtime ends.
pub(crate) struct Gateway {
    /// Speaks to the proxy listener.
    pub(crate) client: Client,
    /// Speaks to the admin listener, with the admin token.
    pub(crate) admin: Client,
    /// The gateway's wall clock: it stands still until it is moved.
    pub(crate) clock: Arc<VirtualClock>,
    running: Running,
    data: Arc<TempDir>,
}

impl Gateway {
    /// With this TOML laid over [`base_config`].
    pub(crate) async fn start(config: &str) -> Self {
        let (data, clock) = fresh();
        let config = load(config, &data, Flags::default());
        Self::start_in(data, clock, config).await
    }

    /// As [`Gateway::start`], with `--upstream` on the command line.
    pub(crate) async fn start_with_upstream(config: &str, upstream: &str) -> Self {
        let (data, clock) = fresh();
        let flags = Flags {
            upstream: Some(upstream.to_owned()),
            ..Flags::default()
        };
        let config = load(config, &data, flags);
        Self::start_in(data, clock, config).await
    }

    /// Stops it and starts another one on the same data directory and clock.
    pub(crate) async fn restart(self, config: &str) -> Self {
        let (data, clock) = (Arc::clone(&self.data), Arc::clone(&self.clock));
        self.stop().await;
        let config = load(config, &data, Flags::default());
        Self::start_in(data, clock, config).await
    }

    pub(crate) async fn stop(self) {
        within("the gateway drains", self.running.shutdown()).await;
    }

    /// Whether any file of the data directory contains these bytes.
    pub(crate) fn has_on_disk(&self, needle: &[u8]) -> bool {
        let contains = |file| {
            let bytes = std::fs::read(file).unwrap_or_default();
            bytes.windows(needle.len()).any(|w| w == needle)
        };
        files_below(self.data.path()).into_iter().any(contains)
    }

    /// The bytes of the queue's bodies that are in files, whole or not.
    pub(crate) fn spooled_bytes(&self) -> u64 {
        let files = files_below(&self.data.path().join("spool")).into_iter();
        let lengths = files.map(|file| std::fs::metadata(file).map_or(0, |file| file.len()));
        lengths.sum()
    }

    async fn start_in(data: Arc<TempDir>, clock: Arc<VirtualClock>, config: Config) -> Self {
        let running = within("the gateway starts", app::start(config, clock.clone()))
            .await
            .unwrap();
        let token = std::fs::read_to_string(data.path().join("admin.token")).unwrap();
        Self {
            client: Client::new(proxy_address(&running)),
            admin: Client::new(running.admin_listener).with_bearer(token.trim().to_owned()),
            clock,
            running,
            data,
        }
    }
}

/// What every gateway under test has, unless the test says otherwise: ports of its own, loopback origins allowed, and
/// no demands on the disk of the machine.
pub(crate) fn base_config(data: &Path) -> String {
    format!(
        r#"
        [listen]
        proxy = "127.0.0.1:0"
        admin = "127.0.0.1:0"
        shutdown_grace = "5s"
        [storage]
        dir = "{}"
        disk_free_min = "1KiB"
        [forward]
        allow_networks = ["127.0.0.0/8"]
        "#,
        data.display()
    )
}

/// `config` laid over [`base_config`], table by table.
pub(crate) fn merged(data: &Path, config: &str) -> String {
    let mut whole: toml::Table = base_config(data).parse().unwrap();
    lay_over(&mut whole, config.parse().unwrap());
    toml::to_string(&whole).unwrap()
}

/// One TOML text laid over another, table by table.
pub(crate) fn laid_over(below: &str, above: &str) -> String {
    let mut whole: toml::Table = below.parse().unwrap();
    lay_over(&mut whole, above.parse().unwrap());
    toml::to_string(&whole).unwrap()
}

fn lay_over(below: &mut toml::Table, above: toml::Table) {
    for (key, value) in above {
        match (below.get_mut(&key), value) {
            (Some(toml::Value::Table(below)), toml::Value::Table(above)) => lay_over(below, above),
            (_, value) => {
                below.insert(key, value);
            }
        }
    }
}

fn fresh() -> (Arc<TempDir>, Arc<VirtualClock>) {
    let clock = VirtualClock::new(SystemClock.now());
    (Arc::new(tempfile::tempdir().unwrap()), Arc::new(clock))
}

fn load(config: &str, data: &TempDir, flags: Flags) -> Config {
    let data = data.path();
    let sources = Sources {
        file: Some((data.join("test.toml"), merged(data, config))),
        flags,
        ..Sources::default()
    };
    config::load(&sources).unwrap_or_else(|errors| panic!("{errors}"))
}

fn proxy_address(running: &Running) -> SocketAddr {
    let tcp = running.proxy_listeners.iter().find_map(|listener| {
        let ListenAddress::Tcp(address) = listener else {
            return None;
        };
        Some(*address)
    });
    tcp.expect("a TCP listener")
}
