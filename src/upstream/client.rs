//! The pooled HTTP/1.1 client: our connector below hyper-util's client, which sends targets verbatim.
//!
//! Every connection counts the responses it has carried, so that a failure on a reused connection can be told from one
//! on a fresh connection.

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
use tokio::io::{AsyncRead, AsyncWrite};
use tower_service::Service;

use super::{
    dial::{self, Dialer},
    error::DialError,
    tls,
    upload::Upload,
};

// Servers close idle connections after 5 s and more (Node's default); reuse of a closing one fails.
const POOL_IDLE: Duration = Duration::from_secs(4);

// Bounds the head of a response and the read buffer of a connection.
const MAX_BUFFER_BYTES: usize = 128 * 1024;

/// The two ways to send a request over one connector.
#[derive(Clone, Debug)]
pub(super) struct Clients {
    /// Reuses idle connections.
    pub(super) pooled: HttpClient,
    /// Always connects: for the repetition of a request whose pooled connection turned out dead, and for probes.
    pub(super) fresh: HttpClient,
    pub(super) connector: Connector,
}

pub(super) type HttpClient = Client<Connector, Upload>;

/// Connects to origins: dial, then TLS for `https`.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    pub(super) dialer: Dialer,
    pub(super) tls: Arc<ClientConfig>,
}

/// A connection to an origin.
pub(super) struct OriginStream {
    io: TokioIo<Box<dyn Transport>>,
    history: ConnectionHistory,
}

/// Whether a connection has carried a response before. Shared by everything that refers to one connection.
#[derive(Clone, Debug, Default)]
pub(super) struct ConnectionHistory(Arc<AtomicBool>);

trait Transport: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Transport for T {}

impl Clients {
    pub(super) fn new(connector: Connector, max_idle: usize) -> Self {
        let build = |max_idle| {
            Client::builder(ConnectionTasks)
                .pool_timer(TokioTimer::new())
                .pool_idle_timeout(POOL_IDLE)
                .pool_max_idle_per_host(max_idle)
                .http1_max_buf_size(MAX_BUFFER_BYTES)
                .set_host(false)
                .build(connector.clone())
        };
        Self {
            pooled: build(max_idle),
            fresh: build(0),
            connector,
        }
    }
}

impl Connector {
    /// A connection that is ready for HTTP/1.1.
    pub(super) async fn connect(
        &self,
        scheme: &Scheme,
        authority: &Authority,
    ) -> Result<OriginStream, DialError> {
        let host = authority.host();
        let port = dial::port(scheme, authority)?;
        let stream = self.dialer.dial(host, port).await?;
        let io: Box<dyn Transport> = if *scheme == Scheme::HTTPS {
            Box::new(tls::handshake(Arc::clone(&self.tls), host, stream).await?)
        } else {
            Box::new(stream)
        };
        Ok(OriginStream {
            io: TokioIo::new(io),
            history: ConnectionHistory::default(),
        })
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
        self.0.load(Ordering::Relaxed)
    }

    pub(super) fn mark_used(&self) {
        self.0.store(true, Ordering::Relaxed);
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
        Connected::new().extra(self.history.clone())
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

/// Runs the client's connection tasks. They are not on the application's tracker: each ends with the body it feeds or
/// with the pool, and a drain waits for bodies, never for idle connections.
#[derive(Clone, Copy, Debug)]
struct ConnectionTasks;

impl<F> hyper::rt::Executor<F> for ConnectionTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "see ConnectionTasks")]
    fn execute(&self, task: F) {
        tokio::spawn(task);
    }
}
