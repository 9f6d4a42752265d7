//! Load over HTTP/2 without TLS: some connections, each with some requests in flight.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::json;
use tokio::{net::TcpStream, runtime::Builder, task::JoinSet};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Whom to ask.
    #[arg(long)]
    to: SocketAddr,
    /// Path and query.
    #[arg(long)]
    path: String,
    /// Connections.
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// Requests in flight on each.
    #[arg(long, default_value_t = 8)]
    in_flight: usize,
    /// How long.
    #[arg(long)]
    seconds: f64,
}

/// What was answered.
#[derive(Default)]
struct Taken {
    /// Microseconds that each answer took.
    micros: Vec<u64>,
    /// Of the bodies.
    bytes: usize,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let began = Instant::now();
    let Taken { mut micros, bytes } = runtime.block_on(all(arguments, began))?;
    let took = began.elapsed().as_secs_f64();
    micros.sort_unstable();
    anyhow::ensure!(!micros.is_empty(), "nothing was answered");
    let percentile = |percent: usize| micros[(micros.len() - 1) * percent / 100];
    let found = json!({
        "requests": micros.len(), "seconds": took, "bytes": bytes, "bad": 0, "errors": 0,
        "p50_us": percentile(50), "p99_us": percentile(99), "max_us": percentile(100),
    });
    println!("{found}");
    Ok(())
}

async fn all(arguments: &Arguments, began: Instant) -> anyhow::Result<Taken> {
    let end = began + Duration::from_secs_f64(arguments.seconds);
    let mut askers = JoinSet::new();
    for _ in 0..arguments.connections {
        let stream = TcpStream::connect(arguments.to).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        for _ in 0..arguments.in_flight {
            let url = format!("http://{}{}", arguments.to, arguments.path);
            askers.spawn(ask(sender.clone(), url, end));
        }
    }
    let mut all = Taken::default();
    while let Some(asker) = askers.join_next().await {
        let taken = asker??;
        all.micros.extend(taken.micros);
        all.bytes += taken.bytes;
    }
    Ok(all)
}

/// Asks one time after the other.
async fn ask(
    mut sender: SendRequest<Empty<Bytes>>,
    url: String,
    end: Instant,
) -> anyhow::Result<Taken> {
    let mut taken = Taken::default();
    loop {
        let began = Instant::now();
        if began >= end {
            return Ok(taken);
        }
        sender.ready().await?;
        let request = Request::get(&url).body(Empty::new())?;
        let response = sender.send_request(request).await?;
        anyhow::ensure!(response.status() == StatusCode::OK, "{}", response.status());
        taken.bytes += response.into_body().collect().await?.to_bytes().len();
        let took = began.elapsed().as_micros();
        taken
            .micros
            .push(u64::try_from(took).context("took too long")?);
    }
}
