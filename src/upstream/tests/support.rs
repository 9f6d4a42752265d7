//! An origin that does on cue what origins do wrong, and the pieces to talk to it.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty, Full};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::super::{
    Config, ForwardError, RequestBody, ResponseBody, Upstream, UpstreamConfig, Upstreams,
};
use crate::{
    clock::{SharedClock, VirtualClock},
    modes::Modes,
    policy::{Connectivity, Mode, Timestamp},
    telemetry::Metrics,
};

/// What an origin does with one request head.
#[derive(Clone, Debug)]
pub(super) enum Reply {
    /// Writes this and reads the next request.
    Answer(&'static str),
    /// Writes this and closes.
    Close(&'static str),
    /// Closes with a reset.
    Reset,
    /// Writes this and nothing more.
    Silence(&'static str),
    /// Writes the first, and the second after the pause.
    Late(&'static str, Duration, &'static str),
}

pub(super) const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";

/// An origin whose replies follow a script: given the number of the connection and of the request on it, from 0.
pub(super) struct Origin {
    pub(super) address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
    _tasks: JoinSet<()>,
}

impl Origin {
    pub(super) async fn new(
        script: impl Fn(usize, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, script)
    }

    pub(super) async fn always(reply: Reply) -> Self {
        Self::new(move |_, _| reply.clone()).await
    }

    pub(super) fn on(
        listener: TcpListener,
        script: impl Fn(usize, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let address = listener.local_addr().unwrap();
        let accepted = Arc::new(AtomicUsize::new(0));
        let heads = Arc::new(Mutex::new(Vec::new()));
        let mut tasks = JoinSet::new();
        tasks.spawn({
            let (accepted, heads) = (Arc::clone(&accepted), Arc::clone(&heads));
            accept(listener, Arc::new(script), accepted, heads)
        });
        Self {
            address,
            accepted,
            heads,
            _tasks: tasks,
        }
    }

    /// Connections accepted so far.
    pub(super) fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// Request heads (with what else came in the same read) seen so far.
    pub(super) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    pub(super) fn url(&self) -> Uri {
        format!("http://{}", self.address).parse().unwrap()
    }
}

async fn accept(
    listener: TcpListener,
    script: Arc<dyn Fn(usize, usize) -> Reply + Send + Sync>,
    accepted: Arc<AtomicUsize>,
    heads: Arc<Mutex<Vec<String>>>,
) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let connection = accepted.fetch_add(1, Ordering::SeqCst);
        let (script, heads) = (Arc::clone(&script), Arc::clone(&heads));
        connections.spawn(async move {
            serve(stream, |request| script(connection, request), &heads).await;
        });
    }
}

async fn serve(mut stream: TcpStream, script: impl Fn(usize) -> Reply, heads: &Mutex<Vec<String>>) {
    for request in 0.. {
        let Some(head) = read_head(&mut stream).await else {
            return;
        };
        heads.lock().unwrap().push(head);
        match script(request) {
            Reply::Answer(bytes) => stream.write_all(bytes.as_bytes()).await.unwrap(),
            Reply::Close(bytes) => {
                stream.write_all(bytes.as_bytes()).await.unwrap();
                return;
            }
            Reply::Reset => {
                stream.set_zero_linger().unwrap();
                return;
            }
            Reply::Silence(bytes) => {
                stream.write_all(bytes.as_bytes()).await.unwrap();
                std::future::pending().await
            }
            Reply::Late(first, pause, second) => {
                stream.write_all(first.as_bytes()).await.unwrap();
                tokio::time::sleep(pause).await;
                stream.write_all(second.as_bytes()).await.unwrap();
            }
        }
    }
}

/// Reads to the end of a head; what follows it in the same read is included.
pub(super) async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    let mut chunk = [0; 4_096];
    while !head.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let count = stream
            .read(&mut chunk)
            .await
            .ok()
            .filter(|count| *count > 0)?;
        head.extend_from_slice(&chunk[..count]);
    }
    Some(String::from_utf8(head).unwrap())
}

/// Upstreams with what they were built from.
pub(super) struct Bench {
    pub(super) upstreams: Upstreams,
    pub(super) clock: Arc<VirtualClock>,
    pub(super) modes: Arc<Modes>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) tasks: TaskTracker,
    pub(super) shutdown: CancellationToken,
}

impl Bench {
    pub(super) fn new(config: Config) -> Self {
        Self::with_listeners(config, Vec::new())
    }

    pub(super) fn with_listeners(config: Config, own_listeners: Vec<SocketAddr>) -> Self {
        let clock = Arc::new(VirtualClock::new(Timestamp::from_secs(1_000)));
        let metrics = Metrics::new();
        let modes = Arc::new(Modes::new(Mode::Auto, []));
        let tasks = TaskTracker::new();
        let shutdown = CancellationToken::new();
        let upstreams = Upstreams::new(
            config,
            own_listeners,
            clock.clone() as SharedClock,
            Arc::clone(&modes),
            Arc::clone(&metrics),
            tasks.clone(),
            shutdown.clone(),
        );
        Self {
            upstreams,
            clock,
            modes,
            metrics,
            tasks,
            shutdown,
        }
    }

    /// With one configured upstream, `api`.
    pub(super) fn of(urls: Vec<Uri>) -> Self {
        Self::new(config([("api", upstream(urls))]))
    }

    pub(super) fn api(&self) -> Arc<Upstream> {
        self.upstreams.named("api").unwrap()
    }

    /// Sends a GET for this path to `api` and reads the whole answer.
    pub(super) async fn get(&self, path: &str) -> Result<(u16, String), ForwardError> {
        let response = self.api().send(get(&self.api(), path)).await?;
        Ok(read(response).await)
    }
}

pub(super) fn config<const N: usize>(upstreams: [(&str, UpstreamConfig); N]) -> Config {
    Config {
        upstreams: upstreams
            .into_iter()
            .map(|(name, upstream)| (name.to_owned(), upstream))
            .collect(),
        deny_private_networks: true,
        allow_networks: Vec::new(),
        max_in_flight: 256,
        max_waiting: 128,
    }
}

pub(super) fn upstream(urls: Vec<Uri>) -> UpstreamConfig {
    UpstreamConfig {
        urls,
        connect_timeout: Duration::from_secs(2),
        first_byte_timeout: Duration::from_secs(60),
        http2: false,
        probe: None,
        extra_roots: Vec::new(),
    }
}

pub(super) fn request(upstream: &Upstream, method: &str, path: &str) -> http::request::Builder {
    let (scheme, authority, base_path) = upstream.base();
    Request::builder()
        .method(method)
        .uri(format!("{scheme}://{authority}{base_path}{path}"))
        .header("host", authority.as_str())
}

pub(super) fn get(upstream: &Upstream, path: &str) -> Request<RequestBody> {
    request(upstream, "GET", path).body(no_body()).unwrap()
}

pub(super) fn post(upstream: &Upstream, path: &str, body: &'static str) -> Request<RequestBody> {
    request(upstream, "POST", path)
        .body(full_body(body))
        .unwrap()
}

pub(super) fn no_body() -> RequestBody {
    RequestBody::new(Empty::new().map_err(|never| match never {}))
}

pub(super) fn full_body(body: &'static str) -> RequestBody {
    RequestBody::new(Full::new(Bytes::from_static(body.as_bytes())).map_err(|never| match never {}))
}

pub(super) async fn read(response: Response<ResponseBody>) -> (u16, String) {
    let status = response.status().as_u16();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// A port on which nobody listens; keep the socket, so that nobody else gets it.
pub(super) fn refusing() -> (tokio::net::TcpSocket, Uri) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    (socket, url.parse().unwrap())
}

/// Waits for a change of connectivity: a virtual day at most, so that a test fails rather than hangs.
pub(super) async fn change(changes: &mut watch::Receiver<Connectivity>) {
    let day = Duration::from_secs(86_400);
    let changed = tokio::time::timeout(day, changes.changed()).await;
    changed.expect("a change within a day").unwrap();
}
