//! `hardtack demo`: a gateway, a toy origin and an outage, on loopback, in under a minute. Every request is real, and so
//! is every `Cache-Status` line.

#![expect(clippy::print_stdout, reason = "the story is the data of this command")]

mod origin;

use std::{io::IsTerminal as _, net::SocketAddr, sync::Arc, time::Duration};

use http::StatusCode;
use tokio::{net::TcpListener, time::Instant};

use self::origin::{Bakery, Origin};

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
    let bakery = Arc::new(Bakery::default());
    let listener = TcpListener::bind(("127.0.0.1", 0))
        .await
        .map_err(io("open a port for the toy origin"))?;
    let address = listener
        .local_addr()
        .map_err(io("read the toy origin's address"))?;
    let origin = Origin::serve(listener, Arc::clone(&bakery));
    let gateway = start(&dir, address).await?;
    let told = Story::new(&gateway, address)?.tell(origin, &bakery).await;
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
        write = {{ mode = "on-failure", order_by = "path", pending_reads = "overlay" }}
        [queue]
        recovery_spread = "0s"
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

    async fn tell(&self, origin: Origin, bakery: &Arc<Bakery>) -> Result<(), DemoError> {
        println!(
            "A toy origin bakes biscuits at http://{}; each answer is fresh for {MAX_AGE:?}.",
            self.origin
        );
        println!("The gateway stands before it at {}.", self.base);

        self.chapter("1. A miss: the origin is asked, the answer is stored");
        self.get("/biscuit", "fwd=uri-miss").await?;
        self.chapter("2. A hit: the same from memory; the origin is not asked");
        self.get("/biscuit", "hit").await?;
        println!("   The origin has served {} request.", bakery.served());

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

        self.chapter(
            "5. A write: it is on the disk before it is acknowledged, and the origin is still gone",
        );
        let receipt = self.put("/note", "more butter\n").await?;
        self.chapter("6. Whoever wrote it reads it, as if it were delivered already");
        self.read_own_write("/note", "more butter").await?;

        self.chapter("7. Recovery: the origin is back, the gateway's prober notices, and the copy is refreshed");
        let listener = TcpListener::bind(self.origin)
            .await
            .map_err(|source| DemoError::Io {
                attempt: "bring the toy origin back",
                source,
            })?;
        let _origin = Origin::serve(listener, Arc::clone(bakery));
        self.wait_for_recovery().await?;
        self.get("/biscuit", "hit").await?;

        self.chapter("8. Delivery: the write has reached the origin, and the receipt says so");
        self.wait_for_delivery(&receipt).await?;
        self.get("/note", "fwd=uri-miss").await?;
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

    /// Writes, and returns the path of the receipt.
    async fn put(&self, path: &str, note: &'static str) -> Result<String, DemoError> {
        let request = self.client.put(format!("{}{path}", self.base)).body(note);
        let answer = request.send().await?;
        let (status, receipt) = (answer.status(), field(&answer, "location"));
        println!("   PUT {path} -> {status}");
        self.aside(&format!("Location: {receipt}"));
        expect("202", status == StatusCode::ACCEPTED, || status.to_string())?;
        Ok(receipt)
    }

    async fn read_own_write(&self, path: &str, note: &'static str) -> Result<(), DemoError> {
        let answer = self
            .client
            .get(format!("{}{path}", self.base))
            .send()
            .await?;
        let (status, overlay) = (answer.status(), field(&answer, "hardtack-overlay"));
        let body = answer.text().await?;
        println!("   GET {path} -> {status}");
        self.aside(&format!("Hardtack-Overlay: {overlay}"));
        println!("   {}", body.trim_end());
        expect(note, body.contains(note), || format!("{status} {body}"))
    }

    async fn wait_for_delivery(&self, receipt: &str) -> Result<(), DemoError> {
        let request = self.client.get(format!("{}{receipt}", self.base));
        // A little less than the client's own limit.
        let answer = request.header("prefer", "wait=8").send().await?;
        let text = answer.text().await?;
        let found: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        let state = found["state"].as_str().unwrap_or_default();
        println!("   GET {receipt}");
        println!("   state: {state}, attempts: {}", found["attempts"]);
        expect("done", state == "done", || text.clone())
    }

    fn aside(&self, line: &str) {
        let (dim, plain) = self.dim();
        println!("   {dim}{line}{plain}");
    }

    fn dim(&self) -> (&'static str, &'static str) {
        if self.colour {
            ("\x1b[36m", "\x1b[0m")
        } else {
            ("", "")
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
        println!("   GET {path} -> {status}");
        if !cache_status.is_empty() {
            self.aside(&format!("Cache-Status: {cache_status}"));
        }
        println!("   {}", body.trim_end());
    }
}

fn field(answer: &reqwest::Response, name: &str) -> String {
    let value = answer.headers().get(name);
    let value = value.and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}

fn expect(
    expected: &'static str,
    is_so: bool,
    got: impl FnOnce() -> String,
) -> Result<(), DemoError> {
    if is_so {
        return Ok(());
    }
    let got = got();
    Err(DemoError::Otherwise { expected, got })
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
