//! The least a proxy costs: hyper on both sides, and nothing in between. A request drives the connection that it uses.

use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, ready},
};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{Either, Empty};
use hyper::{
    body::{Body, Frame, Incoming, SizeHint},
    client::conn::http1 as client,
    server::conn::http1 as server,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
};

use crate::{Listen, listen};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    listen: Listen,
    /// Where everything goes.
    #[arg(long)]
    origin: SocketAddr,
}

struct Proxy {
    origin: SocketAddr,
    idle: Mutex<Vec<Connection>>,
}

struct Connection {
    requests: client::SendRequest<Empty<Bytes>>,
    work: Pin<Box<client::Connection<TokioIo<TcpStream>, Empty<Bytes>>>>,
}

/// A body that drives its connection, and gives it back at its end.
struct Passed {
    body: Incoming,
    connection: Option<Connection>,
    proxy: Arc<Proxy>,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let proxy = Arc::new(Proxy {
        origin: arguments.origin,
        idle: Mutex::default(),
    });
    let runtime = Builder::new_multi_thread()
        .worker_threads(arguments.listen.threads)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listen::bind(arguments.listen.listen, false)?)?;
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true)?;
                tokio::spawn(serve(stream, Arc::clone(&proxy)));
            }
        }
    })
}

async fn serve(stream: TcpStream, proxy: Arc<Proxy>) {
    let service = service_fn(|request| {
        let proxy = Arc::clone(&proxy);
        async move {
            Ok::<_, Infallible>(match proxy.pass(request).await {
                Ok(response) => response.map(Either::Left),
                Err(error) => bad_gateway(&error),
            })
        }
    });
    // Whoever measures may close whenever it likes.
    let _ = server::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

fn bad_gateway<B>(error: &anyhow::Error) -> Response<Either<B, Empty<Bytes>>> {
    eprintln!("{error:#}");
    let mut response = Response::new(Either::Right(Empty::new()));
    *response.status_mut() = StatusCode::BAD_GATEWAY;
    response
}

impl Proxy {
    /// Passes a request on, without its body.
    async fn pass(self: Arc<Self>, request: Request<Incoming>) -> anyhow::Result<Response<Passed>> {
        let request = request.map(|_| Empty::new());
        let mut connection = self.connection().await?;
        let mut answer = pin!(connection.requests.send_request(request));
        let response = poll_fn(|cx| {
            let _ = connection.work.as_mut().poll(cx);
            answer.as_mut().poll(cx)
        });
        let response = response.await.context("no answer from the origin")?;
        Ok(response.map(|body| Passed {
            body,
            connection: Some(connection),
            proxy: self,
        }))
    }

    async fn connection(&self) -> anyhow::Result<Connection> {
        let idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        if let Some(idle) = idle {
            return Ok(idle);
        }
        let stream = TcpStream::connect(self.origin).await?;
        stream.set_nodelay(true)?;
        let (requests, work) = client::handshake(TokioIo::new(stream)).await?;
        Ok(Connection {
            requests,
            work: Box::pin(work),
        })
    }

    fn put(&self, mut connection: Connection, cx: &mut Context<'_>) {
        let _ = connection.work.as_mut().poll(cx);
        if connection.requests.is_ready() {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.push(connection);
        }
    }
}

impl Body for Passed {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let this = self.get_mut();
        let mut polled = Pin::new(&mut this.body).poll_frame(cx);
        if polled.is_pending()
            && let Some(connection) = &mut this.connection
        {
            let _ = connection.work.as_mut().poll(cx);
            polled = Pin::new(&mut this.body).poll_frame(cx);
        }
        let frame = ready!(polled);
        let has_ended = frame.is_none() || this.body.is_end_stream();
        if let Some(connection) = this.connection.take_if(|_| has_ended) {
            this.proxy.put(connection, cx);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
