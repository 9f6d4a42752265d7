//! The toy origin: it bakes biscuits, and keeps one note for every path.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet};

use super::MAX_AGE;

/// What the origin has: it outlives its crashes.
#[derive(Debug, Default)]
pub(super) struct Bakery {
    served: AtomicU64,
    baked: AtomicU64,
    notes: Mutex<HashMap<String, Bytes>>,
}

/// The toy origin. Dropping it closes its port and every connection, as a crash would.
pub(super) struct Origin {
    _tasks: JoinSet<()>,
}

impl Bakery {
    /// How many requests it has served.
    pub(super) fn served(&self) -> u64 {
        self.served.load(Ordering::Relaxed)
    }

    async fn answer(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<Full<Bytes>>, Infallible> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        if path.starts_with("/.well-known/") {
            // The gateway looks who is there before it delivers; that is no order for a biscuit.
            return Ok(empty(StatusCode::NOT_FOUND));
        }
        self.served.fetch_add(1, Ordering::Relaxed);
        if head.method == Method::PUT {
            let note = body.collect().await;
            let note = note
                .map(http_body_util::Collected::to_bytes)
                .unwrap_or_default();
            self.notes().insert(path, note);
            return Ok(empty(StatusCode::NO_CONTENT));
        }
        let note = self.notes().get(&path).cloned();
        let text = note.unwrap_or_else(|| {
            let number = self.baked.fetch_add(1, Ordering::Relaxed) + 1;
            format!("biscuit number {number}, baked for {path}\n").into()
        });
        let response = Response::builder()
            .header(
                header::CACHE_CONTROL,
                format!("max-age={}", MAX_AGE.as_secs()),
            )
            .header(header::CONTENT_TYPE, "text/plain")
            .body(Full::new(text));
        Ok(response.expect("the fields are valid"))
    }

    fn notes(&self) -> std::sync::MutexGuard<'_, HashMap<String, Bytes>> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Origin {
    /// Serves until it is dropped.
    pub(super) fn serve(listener: TcpListener, bakery: Arc<Bakery>) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let bakery = Arc::clone(&bakery);
                let service = service_fn(move |request: Request<Incoming>| {
                    let bakery = Arc::clone(&bakery);
                    async move { bakery.answer(request).await }
                });
                connections.spawn(async move {
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Self { _tasks: tasks }
    }
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}
