//! `hardtack demo`: a gateway, a toy origin and an outage, on loopback, in under a minute. Every request is real, and so
//! is every `Cache-Status` line.

#![expect(clippy::print_stdout, reason = "the story is the data of this command")]

use std::{
    convert::Infallible,
    io::IsTerminal as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, task::JoinSet, time::Instant};

use crate::{
    app,
    clock::SystemClock,
    config::{self, ListenAddress, Sources},
};

/// Freshness of the toy origin's answers: short, so that an outage outlives it while somebody watches.
const MAX_AGE: Duration = Duration::from_secs(3);
/// The prober tries after half a second, then ever more seldom; this is far beyond what it takes here.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);

/// The demo could not be given.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DemoError {
    /// A socket or a file.
    #[error("cannot {attempt}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// The gateway did not start.
    #[error("the gateway did not start")]
    Start(#[from] app::StartError),
    /// A request got no answer at all.
    #[error("a request to the gateway failed")]
    Request(#[from] reqwest::Error),
    /// The gateway answered otherwise than the story says.
    #[error("the gateway answered `{got}` where the story says `{expected}`")]
    Otherwise {
        /// What was expected in Cache-Status, or as status.
        expected: &'static str,
        /// What came.
        got: String,
    },
}

/// Tells the story.
///
/// # Errors
/// See [`DemoError`]; an answer that is not what the story says is one.
pub async fn run() -> Result<(), DemoError> {
    let dir = Directory::make()?;
    let io = |attempt| move |source| DemoError::Io { attempt, source };
    let served = Arc::new(AtomicU64::new(0));
    let listener = TcpListener::bind(("127.0.0.1", 0))
        .await
        .map_err(io("open a port for the toy origin"))?;
    let address = listener
        .local_addr()
        .map_err(io("read the toy origin's address"))?;
    let origin = Origin::serve(listener, Arc::clone(&served));
    let gateway = start(&dir, address).await?;
    let told = Story::new(&gateway, address)?.tell(origin, &served).await;
    gateway.shutdown().await;
    told
}

async fn start(dir: &Directory, origin: SocketAddr) -> Result<app::Running, DemoError> {
    let text = format!(
        r#"
        [listen]
        proxy = "127.0.0.1:0"
        admin = "127.0.0.1:0"
        shutdown_grace = "2s"
        [storage]
        dir = "{}"
        disk_free_min = "1MiB"
        [upstreams.bakery]
        url = "http://{origin}"
        [[routes]]
        name = "bakery"
        match = {{ path = "/**" }}
        upstream = "bakery"
        "#,
        dir.0.display()
    );
    let sources = Sources {
        file: Some(("demo.toml".into(), text)),
        ..Sources::default()
    };
    let config = config::load(&sources).expect("the demo's configuration is valid");
    Ok(app::start(config, Arc::new(SystemClock)).await?)
}

struct Story {
    client: reqwest::Client,
    base: String,
    origin: SocketAddr,
    colour: bool,
}

impl Story {
    fn new(gateway: &app::Running, origin: SocketAddr) -> Result<Self, DemoError> {
        let base = gateway
            .proxy_listeners
            .iter()
            .find_map(|address| match address {
                ListenAddress::Tcp(address) => Some(format!("http://{address}")),
                ListenAddress::Unix(_) => None,
            });
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
        let client = reqwest::Client::builder()
            .no_proxy()
            .tls_backend_preconfigured(super::client::tls())
            .timeout(Duration::from_secs(10))
            .build()?;
        Ok(Self {
            client,
            base: base.unwrap_or_default(),
            origin,
            colour,
        })
    }

    async fn tell(&self, origin: Origin, served: &Arc<AtomicU64>) -> Result<(), DemoError> {
        println!(
            "A toy origin bakes biscuits at http://{}; each answer is fresh for {MAX_AGE:?}.",
            self.origin
        );
        println!("The gateway stands before it at {}.", self.base);

        self.chapter("1. A miss: the origin is asked, the answer is stored");
        self.get("/biscuit", "fwd=uri-miss").await?;
        self.chapter("2. A hit: the same from memory; the origin is not asked");
        self.get("/biscuit", "hit").await?;
        println!(
            "   The origin has served {} request.",
            served.load(Ordering::Relaxed)
        );

        self.chapter(
            "3. Outage: the origin is gone. What is fresh goes on as if nothing had happened",
        );
        drop(origin);
        self.get("/biscuit", "hit").await?;

        self.chapter(
            "4. Still gone, and the copy is stale now. It is served all the same, and says so",
        );
        tokio::time::sleep(MAX_AGE).await;
        self.get("/biscuit", "detail=disconnected").await?;
        println!("   That request found it out. From now on nobody waits for a dead origin:");
        self.get("/biscuit", "detail=disconnected").await?;
        println!("   What was never stored cannot be served; the answer says so at once:");
        self.get("/never-asked-for", "504").await?;

        self.chapter("5. Recovery: the origin is back, the gateway's prober notices, and the copy is refreshed");
        let listener = TcpListener::bind(self.origin)
            .await
            .map_err(|source| DemoError::Io {
                attempt: "bring the toy origin back",
                source,
            })?;
        let _origin = Origin::serve(listener, Arc::clone(served));
        self.wait_for_recovery().await?;
        self.get("/biscuit", "hit").await?;
        println!(
            "\nThat is hardtack. Next: `hardtack run --upstream https://your.api` and point a client at it."
        );
        Ok(())
    }

    async fn wait_for_recovery(&self) -> Result<(), DemoError> {
        let began = Instant::now();
        loop {
            let (_, cache_status, body) = self.ask("/biscuit").await?;
            if !cache_status.contains("disconnected") {
                self.show("/biscuit", StatusCode::OK, &cache_status, &body);
                return Ok(());
            }
            if began.elapsed() > RECOVERY_LIMIT {
                return Err(DemoError::Otherwise {
                    expected: "recovery",
                    got: cache_status,
                });
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn get(&self, path: &str, expected: &'static str) -> Result<(), DemoError> {
        let (status, cache_status, body) = self.ask(path).await?;
        self.show(path, status, &cache_status, &body);
        if cache_status.contains(expected) || status.as_str() == expected {
            return Ok(());
        }
        Err(DemoError::Otherwise {
            expected,
            got: format!("{status} {cache_status}"),
        })
    }

    async fn ask(&self, path: &str) -> Result<(StatusCode, String, String), DemoError> {
        let answer = self
            .client
            .get(format!("{}{path}", self.base))
            .send()
            .await?;
        let status = answer.status();
        let cache_status = answer
            .headers()
            .get("cache-status")
            .and_then(|value| value.to_str().ok());
        let cache_status = cache_status.unwrap_or_default().to_owned();
        Ok((status, cache_status, answer.text().await?))
    }

    fn chapter(&self, title: &str) {
        let (bold, plain) = if self.colour {
            ("\x1b[1m", "\x1b[0m")
        } else {
            ("", "")
        };
        println!("\n{bold}{title}{plain}");
    }

    fn show(&self, path: &str, status: StatusCode, cache_status: &str, body: &str) {
        let (dim, plain) = if self.colour {
            ("\x1b[36m", "\x1b[0m")
        } else {
            ("", "")
        };
        println!("   GET {path} -> {status}");
        if !cache_status.is_empty() {
            println!("   {dim}Cache-Status: {cache_status}{plain}");
        }
        println!("   {}", body.trim_end());
    }
}

/// The toy origin. Dropping it closes its port and every connection, as a crash would.
struct Origin {
    _tasks: JoinSet<()>,
}

impl Origin {
    fn serve(listener: TcpListener, served: Arc<AtomicU64>) -> Self {
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let served = Arc::clone(&served);
                let service = service_fn(move |request: Request<Incoming>| {
                    bake(request, Arc::clone(&served))
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

async fn bake(
    request: Request<Incoming>,
    served: Arc<AtomicU64>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let number = served.fetch_add(1, Ordering::Relaxed) + 1;
    let text = format!(
        "biscuit number {number}, baked for {}\n",
        request.uri().path()
    );
    let max_age = format!("max-age={}", MAX_AGE.as_secs());
    let response = Response::builder()
        .header(header::CACHE_CONTROL, max_age)
        .header(header::CONTENT_TYPE, "text/plain")
        .body(Full::new(Bytes::from(text)));
    Ok(response.expect("the fields are valid"))
}

/// A directory of the demo's own, removed when it is over.
struct Directory(std::path::PathBuf);

impl Directory {
    fn make() -> Result<Self, DemoError> {
        let path = std::env::temp_dir().join(format!("hardtack-demo-{:016x}", fastrand::u64(..)));
        std::fs::create_dir(&path).map_err(|source| DemoError::Io {
            attempt: "make a temporary directory",
            source,
        })?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
