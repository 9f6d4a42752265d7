//! The least a cache in memory costs: hyper, a lookup in moka by host and path, a clone of the stored head, Age.

use std::{convert::Infallible, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use moka::sync::Cache;
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::Builder,
};

use crate::{Listen, listen, origin::Bodies};

const OBJECTS_MAX: u64 = 100_000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    listen: Listen,
    /// A runtime and a listener for each core, instead of one runtime that shares the work.
    #[arg(long)]
    per_core: bool,
    /// HTTP/2 without TLS.
    #[arg(long)]
    http2: bool,
}

struct Stored {
    head: HeaderMap,
    body: Bytes,
    at: Instant,
}

struct Floor {
    stored: Cache<String, Arc<Stored>>,
    bodies: Bodies,
    is_http2: bool,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let floor = Arc::new(Floor {
        stored: Cache::new(OBJECTS_MAX),
        bodies: Bodies::new(),
        is_http2: arguments.http2,
    });
    if arguments.per_core {
        return listen::serve_on_each_core(&arguments.listen, move |stream| {
            serve(stream, Arc::clone(&floor))
        });
    }
    let runtime = Builder::new_multi_thread()
        .worker_threads(arguments.listen.threads)
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let listener = TcpListener::from_std(listen::bind(arguments.listen.listen, false)?)?;
        loop {
            if let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true)?;
                tokio::spawn(serve(stream, Arc::clone(&floor)));
            }
        }
    })
}

async fn serve(stream: TcpStream, floor: Arc<Floor>) {
    let service = service_fn(|request: Request<Incoming>| {
        let response = floor.answer(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let stream = TokioIo::new(stream);
    // Whoever measures may close whenever it likes.
    let _ = if floor.is_http2 {
        let builder = http2::Builder::new(TokioExecutor::new());
        builder.serve_connection(stream, service).await
    } else {
        let builder = http1::Builder::new();
        builder.serve_connection(stream, service).await
    };
}

impl Floor {
    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let Some(stored) = self.find(request) else {
            let mut response = Response::new(Full::default());
            *response.status_mut() = StatusCode::NOT_FOUND;
            return response;
        };
        let mut response = Response::new(Full::new(stored.body.clone()));
        *response.headers_mut() = stored.head.clone();
        let age = HeaderValue::from(stored.at.elapsed().as_secs());
        response.headers_mut().insert(header::AGE, age);
        response
    }

    fn find(&self, request: &Request<Incoming>) -> Option<Arc<Stored>> {
        let uri = request.uri();
        let host = request.headers().get(header::HOST);
        let host = host.and_then(|host| host.to_str().ok());
        let host = host.or_else(|| uri.authority().map(|authority| authority.as_str()))?;
        let path = uri.path_and_query()?.as_str();
        let mut key = String::with_capacity(host.len() + path.len());
        key.push_str(host);
        key.push_str(path);
        if let Some(stored) = self.stored.get(&key) {
            return Some(stored);
        }
        let stored = Arc::new(self.make(uri.path())?);
        self.stored.insert(key, Arc::clone(&stored));
        Some(stored)
    }

    /// What an origin would have answered.
    fn make(&self, path: &str) -> Option<Stored> {
        let body = self.bodies.named(path.strip_prefix("/size/")?)?;
        let mut head = HeaderMap::new();
        for (name, value) in [
            (header::CONTENT_TYPE, "application/octet-stream"),
            (header::CACHE_CONTROL, "public, max-age=3600"),
            (header::LAST_MODIFIED, "Sat, 01 Nov 2025 00:00:00 GMT"),
            (header::ETAG, "\"-size-1k\""),
        ] {
            head.insert(name, HeaderValue::from_static(value));
        }
        Some(Stored {
            head,
            body,
            at: Instant::now(),
        })
    }
}
