//! What behaviour tests share: a programmable origin, a gateway in this process or as a process of its own, a raw
//! client, and the one way of waiting.
//!
//! Invariants: traffic stays on loopback; every wait is for something observable and has a deadline; no test sleeps.

mod client;
mod gateway;
mod origin;
mod process;

use std::{
    future::Future,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::net::TcpSocket;

pub(crate) use client::{Answer, Client, Connection, Request};
pub(crate) use gateway::{Gateway, laid_over};
pub(crate) use origin::{Cue, Origin, Reply, Seen, Step};
pub(crate) use process::{Process, run_to_exit};

/// How long anything that must happen may take. Far above what it takes on a busy machine with two cores: reaching it
/// means that it does not happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Waits for `future`, and fails the test with `what` when the deadline passes.
pub(crate) async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(DEADLINE, future).await {
        Ok(value) => value,
        Err(_) => panic!("not within {DEADLINE:?}: {what}"),
    }
}

/// Waits until `probe` finds something, and fails the test with `what` when the deadline passes.
///
/// The only poll of the tests, for facts that nothing announces: a process that has ended, a metric, a recovered
/// upstream. Everything else waits on the socket or the log where the event shows.
pub(crate) async fn eventually<T, F>(what: &str, mut probe: impl FnMut() -> F) -> T
where
    F: Future<Output = Option<T>>,
{
    let mut ticks = tokio::time::interval(Duration::from_millis(10));
    within(what, async {
        loop {
            ticks.tick().await;
            if let Some(found) = probe().await {
                return found;
            }
        }
    })
    .await
}

/// A loopback address that stays ours: bound, but not listened on, so that connects to it are refused and nobody else
/// is given its port, while whoever sets `SO_REUSEADDR` may listen there (all Rust listeners on Unix do).
pub(crate) struct Reserved {
    _socket: TcpSocket,
    pub(crate) address: SocketAddr,
}

impl Reserved {
    pub(crate) fn new() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let address = socket.local_addr().unwrap();
        Self {
            _socket: socket,
            address,
        }
    }
}

/// `len` bytes that do not compress or repeat, the same for the same `len`.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    fastrand::Rng::with_seed(len as u64).fill(&mut bytes);
    bytes
}

/// A digest, so that a failed comparison of large bodies does not print them.
pub(crate) fn digest(bytes: &[u8]) -> String {
    format!(
        "{:032x} of {} bytes",
        xxhash_rust::xxh3::xxh3_128(bytes),
        bytes.len()
    )
}

/// Every file in a directory and the directories in it.
pub(crate) fn files_below(directory: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.extend(files_below(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// Configuration of one upstream, `origin`, and a route that sends everything there.
pub(crate) fn reverse_to(address: SocketAddr) -> String {
    format!(
        r#"
        [upstreams.origin]
        url = "http://{address}"
        [[routes]]
        name = "all"
        match = {{ path = "/**" }}
        upstream = "origin"
        "#
    )
}
