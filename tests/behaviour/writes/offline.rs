//! An operator takes the gateway, or an upstream, offline: writes are queued, and delivered when that is lifted.

use super::{Site, write};
use crate::support::{Reply, Request};

const ON_FAILURE: &str = r#"mode = "on-failure""#;

async fn operate(site: &Site, method: &str, target: &str, body: &str) {
    let request = Request::new(method, &format!("/api/v1/{target}"));
    let request = request
        .header("Content-Type", "application/json")
        .body(body.to_owned());
    let answer = site.gateway.admin.ask(request).await;
    assert!(matches!(answer.status, 200 | 204), "{answer:?}");
}

/// Queued while offline, delivered once `lift` has been done.
async fn check(site: &Site, lift: impl AsyncFnOnce(&Site)) {
    let first = site.queue(write("POST", "/a")).await;
    let second = site.queue(write("PUT", "/b")).await;
    site.gateway.clock.step_secs(3_600);
    // Whatever would be delivered has the time for it.
    for receipt in [&first, &second] {
        let waited = Request::get(receipt).header("Prefer", "wait=1");
        assert_eq!(site.ask(waited).await.json()["state"], "queued");
    }
    assert!(site.written().is_empty());

    lift(site).await;
    site.until(&first, "done").await;
    site.until(&second, "done").await;
    assert_eq!(site.written(), ["/a", "/b"]);
}

async fn site() -> Site {
    let site = Site::start(ON_FAILURE).await;
    site.origin.on("/a", Reply::ok("made"));
    site.origin.on("/b", Reply::ok("made"));
    site
}

#[tokio::test]
async fn while_the_gateway_is_offline_writes_are_queued() {
    let site = site().await;
    operate(&site, "PUT", "mode", r#"{"mode":"offline"}"#).await;
    check(&site, async |site| {
        operate(site, "PUT", "mode", r#"{"mode":"auto"}"#).await
    })
    .await;
    assert_eq!(site.ask(write("POST", "/a")).await.status, 200);
}

#[tokio::test]
async fn what_was_queued_before_waits_too() {
    let site = site().await;
    site.lose_origin().await;
    operate(&site, "PUT", "mode", r#"{"mode":"offline"}"#).await;
    site.origin.revive();
    check(&site, async |site| {
        operate(site, "PUT", "mode", r#"{"mode":"auto"}"#).await
    })
    .await;
}

#[tokio::test]
async fn while_an_upstream_is_offline_its_writes_are_queued() {
    let site = site().await;
    let target = "upstreams/origin/override";
    operate(&site, "PUT", target, r#"{"mode":"offline"}"#).await;
    check(&site, async |site| {
        let answer = site
            .gateway
            .admin
            .ask(Request::new("DELETE", "/api/v1/upstreams/origin/override"));
        assert!(matches!(answer.await.status, 200 | 204));
    })
    .await;
    assert_eq!(site.ask(write("POST", "/a")).await.status, 200);
}
