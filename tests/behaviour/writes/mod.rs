//! The write queue as its clients and its origins see it: what is acknowledged, what is delivered, how often, and in which
//! order.
//!
//! The gateway's wall clock stands still until a test moves it. So a write that waits for its next try waits for
//! [`Site::until`], which lets time pass.

mod answers;
mod bodies;
mod captive;
mod crash;
mod credentials;
mod idempotency;
mod moved;
mod offline;
mod order;
mod outcome;
mod overlay;
mod pending;
mod receipts;
mod refusals;
mod replies;
mod retries;

use std::net::SocketAddr;

use serde_json::Value;
use tempfile::TempDir;

use crate::support::{Answer, Client, Gateway, Origin, Reply, Request, eventually, laid_over};

/// A gateway in front of an origin. `/sentinel` has a lane of its own, everything else the route that the test sets up.
struct Site {
    origin: Origin,
    gateway: Gateway,
    /// Speaks to the proxy listener, with the admin token.
    operator: Client,
}

impl Site {
    /// With this `write` for the route `all`.
    async fn start(write: &str) -> Self {
        Self::start_with(write, "").await
    }

    /// And this TOML laid over the configuration.
    async fn start_with(write: &str, more: &str) -> Self {
        let origin = Origin::start().await;
        origin.on("/sentinel", Reply::ok("seen"));
        let gateway = Gateway::start(&config(origin.address(), write, more)).await;
        Self::of(origin, gateway)
    }

    /// And a key to seal credentials with, in a directory that has to stay.
    async fn start_with_key(write: &str, more: &str) -> (TempDir, Self) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("queue.key");
        std::fs::write(&file, "a key of at least thirty-two characters\n").unwrap();
        let key = format!("[queue]\nkey_file = \"{}\"", file.display());
        let site = Self::start_with(write, &laid_over(&key, more)).await;
        (dir, site)
    }

    /// Ends the gateway and starts another one on the same data.
    async fn restart(self, write: &str, more: &str) -> Self {
        let config = config(self.origin.address(), write, more);
        let gateway = self.gateway.restart(&config).await;
        Self::of(self.origin, gateway)
    }

    fn of(origin: Origin, gateway: Gateway) -> Self {
        let operator = gateway.admin.at(gateway.client.address);
        Self {
            origin,
            gateway,
            operator,
        }
    }

    async fn ask(&self, request: Request) -> Answer {
        self.gateway.client.ask(request).await
    }

    /// Sends a write that must be queued: where its receipt is.
    async fn queue(&self, request: Request) -> String {
        location(&self.ask(request).await)
    }

    /// The receipt as it stands now.
    async fn receipt(&self, location: &str) -> Value {
        let answer = self.operator.get(location).await;
        assert_eq!(answer.status, 200, "{location}: {answer:?}");
        answer.json()
    }

    /// Lets time pass until the write is in this state; its receipt then.
    async fn until(&self, location: &str, state: &str) -> Value {
        eventually(&format!("the write is {state}"), || async {
            let receipt = self.receipt(location).await;
            if receipt["state"] == state {
                return Some(receipt);
            }
            let is_settled = ["parked", "dead", "done", "cancelled"]
                .iter()
                .any(|settled| receipt["state"] == *settled);
            assert!(!is_settled, "{state} expected: {receipt}");
            self.gateway.clock.step_secs(10);
            None
        })
        .await
    }

    /// Waits until the write is in this state, while the clock stands still; its receipt then.
    async fn reaches(&self, location: &str, state: &str) -> Value {
        eventually(&format!("the write is {state}"), || async {
            let receipt = self.receipt(location).await;
            (receipt["state"] == state).then_some(receipt)
        })
        .await
    }

    /// Has so much delivered that several lanes are delivered at once.
    async fn reach_full_speed(&self) {
        for _ in 0..4 {
            let sentinel = self.queue(write("POST", "/sentinel")).await;
            self.until(&sentinel, "done").await;
        }
    }

    /// Has an operator `pause` or `resume` all deliveries.
    async fn hold_deliveries(&self, how: &str) {
        let request = Request::new("POST", &format!("/api/v1/queue/{how}"));
        let request = request.header("Content-Type", "application/json");
        let answer = self.gateway.admin.ask(request.body("{}")).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Takes the origin away, and lets the gateway find out.
    async fn lose_origin(&self) {
        self.origin.kill().await;
        let discovery = self.gateway.client.get("/discovery").await;
        discovery.assert_problem(504, "offline-miss");
    }

    /// Lets an hour pass, and a later write be delivered: what has not been sent by then is not sent by itself.
    async fn let_deliveries_pass(&self) {
        self.gateway.clock.step_secs(3_600);
        let sentinel = self.queue(write("POST", "/sentinel")).await;
        self.until(&sentinel, "done").await;
    }

    /// How many requests for a path the origin has seen.
    fn count(&self, path: &str) -> usize {
        self.origin.seen_at(path).len()
    }

    /// The targets of the writes that the origin has seen, in order.
    fn written(&self) -> Vec<String> {
        let seen = self.origin.seen().into_iter();
        let writes = seen.filter(|seen| seen.method != "GET");
        writes.map(|seen| seen.target).collect()
    }
}

/// Deliveries begin as soon as the origin is back.
fn config(address: SocketAddr, write: &str, more: &str) -> String {
    let config = format!(
        r#"
        [queue]
        recovery_spread = "0s"
        replay_rate = "off"
        [upstreams.origin]
        url = "http://{address}"
        [[routes]]
        name = "sentinel"
        match = {{ path = "/sentinel" }}
        upstream = "origin"
        write = {{ mode = "always" }}
        [[routes]]
        name = "all"
        upstream = "origin"
        write = {{ {write} }}
        "#
    );
    laid_over(&config, more)
}

/// A write with a body that says where it went.
fn write(method: &str, path: &str) -> Request {
    Request::new(method, path).body(format!("to {path}"))
}

/// Where the receipt is that a 202 names.
#[track_caller]
fn location(answer: &Answer) -> String {
    assert_eq!(answer.status, 202, "{answer:?}");
    let location = answer.header("location").expect("a receipt");
    assert!(
        location.starts_with("/.well-known/hardtack/queue/"),
        "{location}"
    );
    location.to_owned()
}
