//! Every object of a range once, over some connections: fills a cache, and tells later how much it still has.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::{net::TcpStream, runtime::Builder, task::JoinSet};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Whom to ask.
    #[arg(long)]
    to: SocketAddr,
    /// The first object.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// How many.
    #[arg(long)]
    count: u64,
    /// Connections.
    #[arg(long, default_value_t = 32)]
    connections: usize,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let began = Instant::now();
    let bytes = runtime.block_on(all(arguments))?;
    let seconds = began.elapsed().as_secs_f64();
    println!("{}", json!({ "seconds": seconds, "bytes": bytes }));
    Ok(())
}

async fn all(arguments: &Arguments) -> anyhow::Result<usize> {
    let next = Arc::new(AtomicU64::new(arguments.first));
    let end = arguments.first + arguments.count;
    let mut fetchers = JoinSet::new();
    for _ in 0..arguments.connections {
        fetchers.spawn(fetch(arguments.to, Arc::clone(&next), end));
    }
    let mut bytes = 0;
    while let Some(fetcher) = fetchers.join_next().await {
        bytes += fetcher??;
    }
    Ok(bytes)
}

/// Takes one number after the other until none is left.
async fn fetch(to: SocketAddr, next: Arc<AtomicU64>, end: u64) -> anyhow::Result<usize> {
    let stream = TcpStream::connect(to).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut bytes = 0;
    loop {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= end {
            return Ok(bytes);
        }
        sender.ready().await?;
        let request = Request::get(format!("/object/{number}"))
            .header(header::HOST, to.to_string())
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        let status = response.status();
        anyhow::ensure!(status == StatusCode::OK, "/object/{number}: {status}");
        bytes += response.into_body().collect().await?.to_bytes().len();
    }
}
