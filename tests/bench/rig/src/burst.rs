//! Many requests for one URL in the same moment, each on a connection of its own that is open before.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Builder,
    sync::Barrier,
    task::JoinSet,
    time::timeout,
};

const ANSWER_WITHIN: Duration = Duration::from_secs(60);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Whom to ask.
    #[arg(long)]
    to: SocketAddr,
    /// Path and query.
    #[arg(long)]
    path: String,
    /// How many at once.
    #[arg(long, default_value_t = 200)]
    clients: usize,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let mut took = runtime.block_on(all(arguments))?;
    took.sort_unstable();
    let millis = |duration: &Duration| duration.as_secs_f64() * 1e3;
    let found = json!({
        "answered": took.len(),
        "median_ms": took.get(took.len() / 2).map(millis),
        "slowest_ms": took.last().map(millis),
    });
    println!("{found}");
    Ok(())
}

async fn all(arguments: &Arguments) -> anyhow::Result<Vec<Duration>> {
    let start = Arc::new(Barrier::new(arguments.clients));
    let mut clients = JoinSet::new();
    for _ in 0..arguments.clients {
        let stream = TcpStream::connect(arguments.to).await?;
        stream.set_nodelay(true)?;
        let request = format!(
            "GET {} HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\r\n",
            arguments.path, arguments.to
        );
        clients.spawn(one(stream, request, Arc::clone(&start)));
    }
    let mut took = Vec::with_capacity(arguments.clients);
    while let Some(client) = clients.join_next().await {
        took.push(client??);
    }
    Ok(took)
}

async fn one(mut stream: TcpStream, request: String, start: Arc<Barrier>) -> anyhow::Result<Duration> {
    start.wait().await;
    let began = Instant::now();
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::with_capacity(2_048);
    timeout(ANSWER_WITHIN, stream.read_to_end(&mut answer))
        .await
        .context("no answer in time")??;
    let took = began.elapsed();
    let is_good = answer.starts_with(b"HTTP/1.1 200 ");
    anyhow::ensure!(is_good, "answered: {}", answer.escape_ascii());
    Ok(took)
}
