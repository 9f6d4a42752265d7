//! The pooled client: our connector below hyper-util's client, which sends targets verbatim.
//!
//! Every connection knows whether it has carried a response, so that a failure on a reused connection can be told from one
//! on a fresh connection.
//!
//! HTTP/1.1, and HTTP/2 where the operator says so: over TLS it is offered and the origin chooses, in the clear it is
//! taken for granted (RFC 9113 section 3.3). What HTTP/2 cannot carry, an upgrade, goes over HTTP/1.1 all the same.
//! Bounds over HTTP/2: one connection per origin in the pool; each response may send 256 KiB ahead of its reader, and as
//! many as there are permits at once, so that one slow reader never holds up another; an origin that answers no ping
//! within 5 s, while anything is under way, is given up.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{
    Uri,
    uri::{Authority, Scheme},
};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::{
    client::legacy::{
        Client,
        connect::{CaptureConnection, Connected, Connection},
    },
    rt::{TokioIo, TokioTimer},
};
use rustls::ClientConfig;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    runtime::Handle,
};
use tower_service::Service;

use super::{
    dial::{self, Dialer},
    error::DialError,
    frames::{Streams, Watched},
    idle::POOL_IDLE,
    tls,
    upload::Upload,
};

// Bounds the head of a response and the read buffer of a connection.
pub(super) const MAX_BUFFER_BYTES: usize = 128 * 1024;

// What a response over HTTP/2 may send ahead: a quarter of a second's worth at 8 Mbit/s.
const STREAM_WINDOW_BYTES: u32 = 256 * 1024;

// Of a request over HTTP/2, waiting for the origin to take it.
const SEND_BUFFER_BYTES: usize = 64 * 1024;

const PING_INTERVAL: Duration = Duration::from_secs(5);

const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// How requests are sent over one connector.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    pub(super) any: Pair,
    /// For what only HTTP/1.1 can carry.
    pub(super) http1: Pair,
    pub(super) connector: Connector,
}

/// The two ways to send a request.
#[derive(Clone, Debug)]
pub(super) struct Pair {
    /// Reuses idle connections.
    pub(super) pooled: HttpClient,
    /// Always connects: for the repetition of a request whose pooled connection turned out dead, for what must not share
    /// one, and for probes.
    pub(super) fresh: HttpClient,
}

/// What is spoken with an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocols {
    Http1,
    /// Over TLS if the origin chooses it, in the clear always.
    Http2,
}

pub(super) type HttpClient = Client<Connector, Upload>;

/// Connects to origins: dial, then TLS for `https`.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) dialer: Dialer,
    pub(super) tls: Arc<ClientConfig>,
    pub(super) protocols: Protocols,
}

/// A connection to an origin.
pub(super) struct OriginStream {
    io: TokioIo<Box<dyn Transport>>,
    history: ConnectionHistory,
}

/// What is known of a connection. Shared by everything that refers to it.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionHistory {
    /// Whether it has carried a response before.
    was_used: Arc<AtomicBool>,
    /// If it speaks HTTP/2.
    streams: Option<Arc<Streams>>,
}

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

impl Clients {
    pub(super) fn new(connector: Connector, max_in_flight: usize) -> Self {
        let any = Pair::new(&connector, max_in_flight);
        let http1 = match connector.protocols {
            Protocols::Http1 => any.clone(),
            Protocols::Http2 => Pair::new(&connector.without_http2(), max_in_flight),
        };
        Self {
            any,
            http1,
            connector,
        }
    }
}

impl Pair {
    fn new(connector: &Connector, max_in_flight: usize) -> Self {
        let window_bytes = u32::try_from(max_in_flight)
            .unwrap_or(u32::MAX)
            .saturating_mul(STREAM_WINDOW_BYTES)
            // RFC 9113 section 6.9.1.
            .min((1 << 31) - 1);
        let build = |max_idle| {
            Client::builder(ConnectionTasks)
                .timer(TokioTimer::new())
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(POOL_IDLE)
                .pool_max_idle_per_host(max_idle)
                .http1_max_buf_size(MAX_BUFFER_BYTES)
                .http2_max_header_list_size(MAX_BUFFER_BYTES as u32)
                .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
                .http2_initial_connection_window_size(window_bytes)
                .http2_max_send_buf_size(SEND_BUFFER_BYTES)
                .http2_keep_alive_interval(PING_INTERVAL)
                .http2_keep_alive_timeout(PING_TIMEOUT)
                .set_host(false)
                .build(connector.clone())
        };
        Self {
            pooled: build(max_in_flight),
            fresh: build(0),
        }
    }
}

impl Connector {
    /// For the same origins, which are not told of any protocol: one that knows HTTP/2 only would otherwise refuse the
    /// handshake, which would look like an origin that is gone.
    fn without_http2(&self) -> Self {
        let mut tls = ClientConfig::clone(&self.tls);
        tls.alpn_protocols.clear();
        Self {
            dialer: self.dialer.clone(),
            tls: Arc::new(tls),
            protocols: Protocols::Http1,
        }
    }

    /// A connection that is ready for requests.
    pub(super) async fn connect(
        &self,
        scheme: &Scheme,
        authority: &Authority,
    ) -> Result<OriginStream, DialError> {
        let host = authority.host();
        let port = dial::port(scheme, authority)?;
        let stream = self.dialer.dial(host, port).await?;
        if *scheme == Scheme::HTTPS {
            let stream = tls::handshake(Arc::clone(&self.tls), host, stream).await?;
            // Only what was offered can have been chosen.
            let chosen = tls::chosen(&stream);
            Ok(OriginStream::new(Box::new(stream), chosen))
        } else {
            Ok(OriginStream::new(Box::new(stream), self.protocols))
        }
    }
}

impl OriginStream {
    fn new(io: Box<dyn Transport>, spoken: Protocols) -> Self {
        let mut history = ConnectionHistory::default();
        let io = match spoken {
            Protocols::Http1 => io,
            Protocols::Http2 => {
                let streams = history.streams.insert(Arc::default());
                Box::new(Watched::new(io, Arc::clone(streams)))
            }
        };
        Self {
            io: TokioIo::new(io),
            history,
        }
    }
}

impl ConnectionHistory {
    /// The history of the connection that a request was given, once it has one.
    pub(super) fn of(captured: &CaptureConnection) -> Option<Self> {
        let mut extras = http::Extensions::new();
        captured
            .connection_metadata()
            .as_ref()?
            .get_extras(&mut extras);
        extras.remove()
    }

    pub(super) fn was_used(&self) -> bool {
        self.was_used.load(Ordering::Relaxed)
    }

    pub(super) fn mark_used(&self) {
        self.was_used.store(true, Ordering::Relaxed);
    }

    /// Whether the origin has said that it took no notice of streams that were opened.
    pub(super) fn some_are_disowned(&self) -> bool {
        let streams = self.streams.as_ref();
        streams.is_some_and(|streams| streams.some_are_disowned())
    }
}

impl Service<Uri> for Connector {
    type Response = OriginStream;
    type Error = DialError;
    type Future = Pin<Box<dyn Future<Output = Result<OriginStream, DialError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), DialError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, target: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move {
            let scheme = target.scheme().unwrap_or(&Scheme::HTTP);
            let authority = target
                .authority()
                .expect("the client connects to absolute targets only");
            connector.connect(scheme, authority).await
        })
    }
}

impl Connection for OriginStream {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(self.history.clone());
        if self.history.streams.is_some() {
            connected.negotiated_h2()
        } else {
            connected
        }
    }
}

impl Read for OriginStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(cx, buffer)
    }
}

impl Write for OriginStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, slices)
    }
}

/// Runs the tasks of connections. They are not on the application's tracker: each ends with the body it feeds or with the
/// pool, and a drain waits for bodies, never for idle connections.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionTasks;

impl ConnectionTasks {
    /// Outside a runtime, where a body may be dropped, there is nothing left to do.
    pub(super) fn run(task: impl Future<Output = ()> + Send + 'static) {
        if let Ok(runtime) = Handle::try_current() {
            drop(runtime.spawn(task));
        }
    }
}

impl<F> hyper::rt::Executor<F> for ConnectionTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        Self::run(task);
    }
}
