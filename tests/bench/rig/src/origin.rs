//! An origin that is faster than whatever stands in front of it.
//!
//! - `/size/{1k,10k,100k,1m}`: may be stored for an hour.
//! - `/object/N`: 1 KiB, another for each N, may be stored for an hour.
//! - `/mixed/N`: 1 to 100 KiB, small ones as often as ten times larger ones; of twenty one is `no-store`, of five one is
//!   fresh for ten seconds only.
//! - `/unstorable/{1k,…}`: `no-store`.
//! - `/slow/KEY`, `/slow-unstorable/KEY`: 1 KiB after 20 ms.
//! - `/second/KEY`: 1 KiB, fresh for a second, `stale-while-revalidate`; after 20 ms.
//! - `/count`: how many requests came, but for this one.
//!
//! A body of a request is read to its end and answered with 204.

use std::{
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, time::sleep};

use crate::{Listen, listen};

const SLOW: Duration = Duration::from_millis(20);
const OBJECT_BYTES: usize = 1_024;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    listen: Listen,
}

/// The bodies of the named sizes.
#[derive(Clone)]
pub(crate) struct Bodies([(&'static str, Bytes); 4]);

impl Bodies {
    pub(crate) fn new() -> Self {
        Self(
            [
                ("1k", 1_024),
                ("10k", 10_240),
                ("100k", 102_400),
                ("1m", 1_048_576),
            ]
            .map(|(name, bytes)| (name, noise(bytes))),
        )
    }

    pub(crate) fn named(&self, name: &str) -> Option<Bytes> {
        let found = self.0.iter().find(|(known, _)| *known == name);
        found.map(|(_, body)| body.clone())
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, Bytes)> {
        self.0.iter().map(|(name, body)| (*name, body.clone()))
    }
}

/// Printable bytes that do not compress to nothing (xorshift, Marsaglia 2003).
fn noise(bytes: usize) -> Bytes {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        b'a' + u8::try_from(state % 26).unwrap_or(0)
    };
    (0..bytes).map(|_| next()).collect()
}

struct Origin {
    bodies: Bodies,
    requests: AtomicU64,
}

pub(crate) fn run(arguments: Arguments) -> anyhow::Result<()> {
    let origin = Arc::new(Origin {
        bodies: Bodies::new(),
        requests: AtomicU64::new(0),
    });
    listen::serve_on_each_core(&arguments.listen, move |stream| {
        serve(stream, Arc::clone(&origin))
    })
}

async fn serve(stream: TcpStream, origin: Arc<Origin>) {
    let service = service_fn(|request| {
        let origin = Arc::clone(&origin);
        async move { Ok::<_, Infallible>(origin.answer(request).await) }
    });
    // Whoever is measured may close whenever it likes.
    let _ = http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

impl Origin {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.uri().path() == "/count" {
            let requests = self.requests.load(Ordering::Relaxed);
            return Response::new(requests.to_string().into());
        }
        self.requests.fetch_add(1, Ordering::Relaxed);
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            return drain(request.into_body()).await;
        }
        let path = request.uri().path();
        let (kind, name) = path[1..].split_once('/').unwrap_or_default();
        if matches!(kind, "slow" | "slow-unstorable" | "second") {
            sleep(SLOW).await;
        }
        let body = match kind {
            "size" | "unstorable" => self.bodies.named(name),
            "object" | "slow" | "slow-unstorable" | "second" => {
                Some(self.object(path, OBJECT_BYTES))
            }
            "mixed" => Some(self.object(path, mixed_bytes(number(name)))),
            _ => None,
        };
        let kind = match (kind, number(name)) {
            ("mixed", number) if number % 20 == 7 => "unstorable",
            ("mixed", number) if number % 5 == 3 => "soon-stale",
            (kind, _) => kind,
        };
        match body {
            Some(body) => whole(body, path, kind),
            None => empty(StatusCode::NOT_FOUND),
        }
    }

    /// A body that begins with the path.
    fn object(&self, path: &str, bytes: usize) -> Bytes {
        let mut body = Vec::with_capacity(bytes + path.len());
        body.extend_from_slice(path.as_bytes());
        body.extend_from_slice(&self.bodies.0[3].1[..bytes]);
        body.truncate(bytes);
        body.into()
    }
}

fn number(name: &str) -> u64 {
    name.parse().unwrap_or(0)
}

/// 1 to 100 KiB, evenly over the logarithm; the same for the same number, whatever its popularity.
fn mixed_bytes(number: u64) -> usize {
    let scattered = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32;
    let share = scattered as f64 / f64::from(u32::MAX);
    (1_024.0 * 100_f64.powf(share)) as usize
}

async fn drain(mut body: Incoming) -> Response<Full<Bytes>> {
    while let Some(Ok(_)) = body.frame().await {}
    empty(StatusCode::NO_CONTENT)
}

fn empty(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn whole(body: Bytes, path: &str, kind: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/octet-stream"),
    );
    headers.insert(header::CACHE_CONTROL, cache_control(kind));
    headers.insert(
        header::LAST_MODIFIED,
        HeaderValue::from_static("Sat, 01 Nov 2025 00:00:00 GMT"),
    );
    if let Ok(tag) = HeaderValue::from_str(&format!("\"{}\"", path.replace('/', "-"))) {
        headers.insert(header::ETAG, tag);
    }
    response
}

fn cache_control(kind: &str) -> HeaderValue {
    HeaderValue::from_static(match kind {
        "unstorable" | "slow-unstorable" => "no-store",
        "soon-stale" => "max-age=10",
        "second" => "max-age=1, stale-while-revalidate=3600",
        _ => "public, max-age=3600",
    })
}
