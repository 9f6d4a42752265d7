//! The accept loop of the admin listener. Its connections are its own: a flood on the proxy takes none of them.
//!
//! Bounds: connections at once, time for a head (also the keep-alive idle time), time without progress of a client that
//! does not read, time for the graceful end. axum's own `serve` has none of these.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::{debug, warn};

use super::{Api, events, operator::Peer, stall::StallLimit};

const MAX_CONNECTIONS: usize = 256;
const HEAD_TIME: Duration = Duration::from_secs(10);
// More than any answer of this API takes; the gateway's own drain goes on beside it.
const END_TIME: Duration = Duration::from_secs(5);
// When accepting fails (no file descriptors left), trying at once would only burn the processor.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the admin API until `shutdown`, then lets answers that are under way end, each for at most 5 s. Connections
/// beyond 256 wait in the listener's backlog.
pub async fn serve(listener: TcpListener, api: Api) {
    let (tasks, shutdown) = (api.tasks.clone(), api.shutdown.clone());
    tasks.spawn(events::collect(
        Arc::clone(&api.events),
        api.upstreams.transitions(),
        api.queue.subscribe(),
        shutdown.clone(),
    ));
    serve_router(listener, api.router(), tasks, shutdown).await;
}

async fn serve_router(
    listener: TcpListener,
    router: Router,
    tasks: TaskTracker,
    shutdown: CancellationToken,
) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        // Both branches are cancel-safe: a connection that was not accepted stays in the backlog.
        let (stream, peer, place) = tokio::select! {
            () = shutdown.cancelled() => return,
            accepted = accept(&listener, &places) => accepted,
        };
        let router = router.clone().layer(Extension(Peer(peer.ip())));
        tasks.spawn(connection(stream, place, router, shutdown.clone()));
    }
}

async fn accept(
    listener: &TcpListener,
    places: &Arc<Semaphore>,
) -> (TcpStream, SocketAddr, OwnedSemaphorePermit) {
    let place = places
        .clone()
        .acquire_owned()
        .await
        .expect("the semaphore is never closed");
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => return (stream, peer, place),
            Err(error) => {
                warn!(%error, "Cannot accept a connection to the admin API.");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn connection(
    stream: TcpStream,
    _place: OwnedSemaphorePermit,
    router: Router,
    shutdown: CancellationToken,
) {
    let service = TowerToHyperService::new(router);
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME)
        .serve_connection(TokioIo::new(StallLimit::new(stream)), service);
    let mut served = std::pin::pin!(served);
    let ended = tokio::select! {
        ended = &mut served => ended,
        () = shutdown.cancelled() => {
            served.as_mut().graceful_shutdown();
            tokio::time::timeout(END_TIME, served).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        debug!(%error, "A connection to the admin API ended early.");
    }
}

#[cfg(test)]
mod tests {
    use std::{net::SocketAddr, sync::Arc, time::Duration};

    use axum::{Router, routing::get};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::{TcpListener, TcpStream},
        sync::Notify,
        time::Instant,
    };
    use tokio_util::{sync::CancellationToken, task::TaskTracker};

    use super::{END_TIME, HEAD_TIME, MAX_CONNECTIONS, serve_router};
    use crate::admin::stall::STALL_TIME;

    // More than the kernel's buffers take.
    const LARGE_BYTES: usize = 64 << 20;
    const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";

    struct Server {
        address: SocketAddr,
        tasks: TaskTracker,
        shutdown: CancellationToken,
    }

    impl Server {
        async fn start(router: Router) -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let (tasks, shutdown) = (TaskTracker::new(), CancellationToken::new());
            tasks.spawn(serve_router(
                listener,
                router,
                tasks.clone(),
                shutdown.clone(),
            ));
            Self {
                address,
                tasks,
                shutdown,
            }
        }

        async fn send(&self, bytes: &[u8]) -> TcpStream {
            let mut stream = TcpStream::connect(self.address).await.unwrap();
            stream.write_all(bytes).await.unwrap();
            stream
        }
    }

    /// Everything up to the end of the connection, in order or by reset.
    async fn rest(mut stream: TcpStream) -> Vec<u8> {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes).await;
        bytes
    }

    fn alive() -> Router {
        Router::new().route("/", get(async || "alive"))
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_is_given_up() {
        let server = Server::start(alive()).await;
        for half in ["", "GET / HT", "GET / HTTP/1.1\r\nHost: localhost\r\n"] {
            let start = Instant::now();
            rest(server.send(half.as_bytes()).await).await;
            assert!(start.elapsed() >= HEAD_TIME, "{half}");
            assert!(start.elapsed() < 2 * HEAD_TIME, "{half}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn connections_beyond_the_limit_wait_for_a_place() {
        let server = Server::start(alive()).await;
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS {
            silent.push(server.send(b"").await);
        }
        let start = Instant::now();
        let answer = rest(server.send(GET).await).await;
        assert!(answer.ends_with(b"alive"));
        assert!(
            start.elapsed() >= HEAD_TIME - Duration::from_secs(1),
            "it did not wait"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_read_is_cut() {
        let large = Router::new().route("/", get(async || vec![0_u8; LARGE_BYTES]));
        let server = Server::start(large).await;
        let stream = server.send(GET).await;
        server.tasks.close();
        // The connection's task ends although the client never reads.
        tokio::time::sleep(STALL_TIME + Duration::from_secs(1)).await;
        assert_eq!(server.tasks.len(), 1, "only the accept loop is left");
        assert!(rest(stream).await.len() < LARGE_BYTES);
    }

    #[tokio::test(start_paused = true)]
    async fn at_the_end_answers_under_way_are_finished() {
        let (asked, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (tell, wait) = (asked.clone(), go_on.clone());
        let slow = get(async move || {
            tell.notify_one();
            wait.notified().await;
            "done"
        });
        let server = Server::start(Router::new().route("/", slow)).await;
        let stream = server.send(GET).await;
        asked.notified().await;
        server.shutdown.cancel();
        go_on.notify_one();
        assert!(rest(stream).await.ends_with(b"done"));
        server.tasks.close();
        server.tasks.wait().await;
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_waits_only_so_long() {
        let asked = Arc::new(Notify::new());
        let tell = asked.clone();
        let endless = get(async move || {
            tell.notify_one();
            std::future::pending::<()>().await;
        });
        let server = Server::start(Router::new().route("/", endless)).await;
        let _stream = server.send(GET).await;
        asked.notified().await;
        let start = Instant::now();
        server.shutdown.cancel();
        server.tasks.close();
        server.tasks.wait().await;
        assert!(start.elapsed() >= END_TIME);
        assert!(start.elapsed() < 2 * END_TIME);
    }
}
