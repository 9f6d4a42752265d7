//! One connection of a client: find out the protocol under our own timer, then serve it.

use std::{
    convert::Infallible,
    future::Future,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{Request, Response, Version, uri::Authority};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite},
    time::{Instant, timeout},
};
use tokio_util::task::TaskTracker;
use tracing::debug;

use super::{
    Gateway,
    body::Body,
    fast_path::{self, FastPath},
    guarded_io::{GuardedIo, HEAD_TIMEOUT},
    hit, pipeline,
    shared::{Answering, Shared},
};
use crate::protect::ConnectionPermit;

/// The connection a request came on.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// The other end; `None` on a Unix socket.
    pub(crate) address: Option<IpAddr>,
    /// This end.
    pub(crate) local: Option<SocketAddr>,
    /// Inside a tunnel: the authority that the CONNECT named.
    pub(crate) pinned: Option<Authority>,
    /// What socket and service tell each other.
    pub(crate) shared: Arc<Shared>,
    /// Its place among the connections; a tunnel keeps it.
    pub(crate) permit: Arc<ConnectionPermit>,
}

impl Peer {
    /// The other end of a connection that was opened just now.
    pub(crate) fn new(
        address: Option<IpAddr>,
        local: Option<SocketAddr>,
        permit: ConnectionPermit,
    ) -> Self {
        Self {
            address,
            local,
            pinned: None,
            shared: Arc::new(Shared::new(Instant::now())),
            permit: Arc::new(permit),
        }
    }

    /// The same client inside its tunnel to `authority`, which is a connection of its own.
    pub(crate) fn inside(self, authority: Authority) -> Self {
        Self {
            pinned: Some(authority),
            shared: Arc::new(Shared::new(Instant::now())),
            ..self
        }
    }

    /// Whether this authority names the listener the request came in on: then it is no forward request, and not a loop.
    pub(crate) fn is_own_listener(&self, authority: &Authority) -> bool {
        let Some(local) = self.local else {
            return false;
        };
        if authority.port_u16().unwrap_or(80) != local.port() {
            return false;
        }
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']');
        match host.parse::<IpAddr>() {
            Ok(address) => address.to_canonical() == local.ip().to_canonical(),
            Err(_) => {
                host.eq_ignore_ascii_case("localhost") && local.ip().to_canonical().is_loopback()
            }
        }
    }
}

/// The first bytes of an HTTP/2 connection (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Streams of one HTTP/2 connection.
const MAX_STREAMS: u32 = 128;
/// An HTTP/2 connection without streams is closed after this, as an idle HTTP/1 one is.
const HTTP2_IDLE: Duration = Duration::from_secs(60);

/// How long such a connection, told to go away, may stay open without streams until its client closes it.
const HTTP2_LEAVING: Duration = Duration::from_secs(30);

/// Serves a connection, of which `read` was read already, to its end.
pub(crate) async fn serve<I>(gateway: Arc<Gateway>, mut io: I, read: BytesMut, peer: Peer)
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let sniffed = tokio::select! {
        biased;
        sniffed = timeout(HEAD_TIMEOUT, sniff(&mut io, read)) => sniffed,
        // Nothing was asked yet, so nobody is owed an answer.
        () = gateway.draining.cancelled() => return,
    };
    let Ok(Ok((protocol, read))) = sniffed else {
        return;
    };
    let (address, shared) = (peer.address, Arc::clone(&peer.shared));
    let io = GuardedIo::new(io, read, Arc::clone(&shared));
    let service = Service {
        gateway: Arc::clone(&gateway),
        peer,
    };
    let ended = match protocol {
        Protocol::Http1 => {
            let io = FastPath::new(io, Arc::clone(&gateway), service.peer.clone());
            serve_http1(&gateway, TokioIo::new(io), service).await
        }
        Protocol::Http2 => {
            shared.become_http2();
            serve_http2(&gateway, TokioIo::new(io), service, &shared).await
        }
    };
    if let Err(error) = ended {
        debug!(%error, peer = address.map(tracing::field::display), "The connection of a client ended early.");
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

impl Protocol {
    /// What the first bytes say, once they differ from HTTP/2's preface or are it.
    fn of(read: &[u8]) -> Option<Self> {
        if read.starts_with(PREFACE) {
            return Some(Self::Http2);
        }
        (!PREFACE.starts_with(read)).then_some(Self::Http1)
    }
}

/// Room for most heads: one that is read in two pieces costs a read more, and is answered by the HTTP library.
const FIRST_READ_BYTES: usize = 2 * 1024;

/// Reads on until the bytes tell the protocol.
async fn sniff<I>(io: &mut I, mut read: BytesMut) -> std::io::Result<(Protocol, Bytes)>
where
    I: AsyncRead + Unpin,
{
    loop {
        if let Some(protocol) = Protocol::of(&read) {
            return Ok((protocol, read.freeze()));
        }
        read.reserve(FIRST_READ_BYTES);
        if io.read_buf(&mut read).await? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn serve_http1<I>(
    gateway: &Gateway,
    io: TokioIo<FastPath<I>>,
    service: Service,
) -> hyper::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Ours, in the socket, is finer; this one must only never come first.
        .header_read_timeout(None)
        // A little more than ours, so that a head somewhat too large is answered with a problem document.
        .max_header_size(gateway.limits.max_head_bytes.saturating_mul(2))
        .serve_connection(io, service)
        .with_upgrades();
    tokio::pin!(connection);
    tokio::select! {
        // In this order, because every hit comes by and a fair choice costs a random number.
        biased;
        ended = &mut connection => return ended,
        () = gateway.draining.cancelled() => connection.as_mut().graceful_shutdown(),
    }
    connection.await
}

async fn serve_http2<I>(
    gateway: &Gateway,
    io: TokioIo<GuardedIo<I>>,
    service: Service,
    shared: &Arc<Shared>,
) -> hyper::Result<()>
where
    I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let streams = Streams {
        tasks: gateway.tasks.clone(),
        shared: Arc::clone(shared),
    };
    let connection = http2::Builder::new(streams)
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(u32::try_from(gateway.limits.max_head_bytes).unwrap_or(u32::MAX))
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(10))
        .serve_connection(io, service);
    tokio::pin!(connection);
    tokio::select! {
        ended = &mut connection => return ended,
        () = gateway.draining.cancelled() => {}
        () = idle(shared, HTTP2_IDLE) => {}
    }
    connection.as_mut().graceful_shutdown();
    // Streams in flight go on to their ends; a client that then does not close is not waited for.
    tokio::select! {
        ended = &mut connection => ended,
        () = left_alone(shared) => Ok(()),
    }
}

/// Returns when there has been no stream for `limit`.
async fn idle(shared: &Shared, limit: Duration) {
    loop {
        let deadline = shared.answered() + limit;
        if shared.in_flight() == 0 && deadline <= Instant::now() {
            return;
        }
        tokio::time::sleep_until(deadline.max(Instant::now() + Duration::from_secs(1))).await;
    }
}

/// Returns when there has been no stream for [`HTTP2_LEAVING`] from now on.
async fn left_alone(shared: &Shared) {
    tokio::time::sleep(HTTP2_LEAVING).await;
    idle(shared, HTTP2_LEAVING).await;
}

/// Runs hyper's HTTP/2 streams on the tracker, so that a drain waits for them. A stream counts as being answered up to
/// the last byte of its body, or of its tunnel.
#[derive(Clone)]
struct Streams {
    tasks: TaskTracker,
    shared: Arc<Shared>,
}

impl<F> hyper::rt::Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send + 'static,
{
    fn execute(&self, stream: F) {
        let answering = self.shared.answering();
        self.tasks.spawn(async move {
            let _answering = answering;
            stream.await;
        });
    }
}

#[derive(Clone)]
struct Service {
    gateway: Arc<Gateway>,
    peer: Peer,
}

impl hyper::service::Service<Request<Incoming>> for Service {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, request: Request<Incoming>) -> Answer {
        // A stream of HTTP/2 is counted where it runs.
        let is_http1 = request.version() < Version::HTTP_2;
        let answering = is_http1.then(|| self.peer.shared.answering());
        let outcome = hit::answer(&self.gateway, &self.peer, &request);
        self.peer.shared.expect_hit(fast_path::knows(&outcome));
        let way = match outcome {
            hit::Outcome::Answered(response) => Way::Ready(Some(response)),
            hit::Outcome::Further(admitted) => {
                let gateway = Arc::clone(&self.gateway);
                Way::Later(Box::pin(pipeline::answer(
                    gateway,
                    self.peer.clone(),
                    admitted,
                    request,
                )))
            }
        };
        Answer { way, answering }
    }
}

/// An answer on its way; the connection answers until its body has ended.
struct Answer {
    way: Way,
    answering: Option<Answering>,
}

/// A hit is there at once, without a task or a box.
enum Way {
    Ready(Option<Response<Body>>),
    Later(Pin<Box<dyn Future<Output = Response<Body>> + Send>>),
}

impl Future for Answer {
    type Output = Result<Response<Body>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        const ONCE: &str = "polled once after it was ready";
        let this = self.get_mut();
        let response = match &mut this.way {
            Way::Ready(response) => response.take().expect(ONCE),
            Way::Later(answer) => ready!(answer.as_mut().poll(cx)),
        };
        let answering = this.answering.take();
        Poll::Ready(Ok(response.map(|body| body.while_answering(answering))))
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use hyper::rt::Executor as _;
    use tokio::time::{Instant, sleep};
    use tokio_util::task::TaskTracker;

    use super::{Protocol, Shared, Streams, left_alone};

    #[test]
    fn the_first_bytes_tell_the_protocol() {
        let check = |read: &[u8], expected: Option<Protocol>| {
            assert_eq!(Protocol::of(read), expected, "{read:?}");
        };
        check(b"", None);
        check(b"P", None);
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r", None);
        check(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", Some(Protocol::Http2));
        check(
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0",
            Some(Protocol::Http2),
        );
        check(b"PO", Some(Protocol::Http1));
        check(b"G", Some(Protocol::Http1));
        check(b"\x16", Some(Protocol::Http1));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_told_to_go_away_is_closed_once_its_streams_have_ended() {
        let shared = Arc::new(Shared::new(Instant::now()));
        let streams = Streams {
            tasks: TaskTracker::new(),
            shared: Arc::clone(&shared),
        };
        let began = Instant::now();
        left_alone(&shared).await;
        assert_eq!(began.elapsed().as_secs(), 30);

        streams.execute(sleep(Duration::from_secs(300)));
        let began = Instant::now();
        left_alone(&shared).await;
        assert!((330..=331).contains(&began.elapsed().as_secs()));
    }
}
