//! Reads of URLs with pending writes: told how many, and answered anew once these are delivered.

use super::{Site, write};
use crate::support::{Answer, Reply, Request};

const ON_FAILURE: &str = r#"mode = "on-failure""#;

#[track_caller]
fn assert_pending(answer: &Answer, expected: Option<&str>) {
    let found = answer.header("hardtack-pending-writes");
    assert_eq!(found, expected, "{answer:?}");
}

#[tokio::test]
async fn every_read_is_told_how_many_writes_are_pending() {
    let site = Site::start(ON_FAILURE).await;
    let read = Reply::ok("read").cache_control("max-age=60").etag("\"1\"");
    site.origin.on("/a", read.clone());
    site.origin.on("/b", read);
    let client = &site.gateway.client;
    assert_pending(&client.get("/a").await, None);
    assert_pending(&client.get("/b").await, None);
    site.lose_origin().await;
    let mut receipts = vec![site.queue(write("PUT", "/a")).await];
    assert_pending(&client.get("/a").await, Some("1"));
    receipts.push(site.queue(write("POST", "/a")).await);

    let hit = client.get("/a").await;
    hit.assert_says(&["hit"]);
    assert_eq!(hit.text(), "read");
    assert_pending(&hit, Some("2"));
    let head = site.ask(Request::new("HEAD", "/a")).await;
    assert_pending(&head, Some("2"));
    let unchanged = site
        .ask(Request::get("/a").header("If-None-Match", "\"1\""))
        .await;
    assert_eq!(unchanged.status, 304);
    assert_pending(&unchanged, Some("2"));
    let stale = {
        site.gateway.clock.step_secs(100);
        client.get("/a").await
    };
    stale.assert_says(&["hit", "detail=disconnected"]);
    assert_pending(&stale, Some("2"));
    let other = client.get("/b").await;
    assert_eq!(other.status, 200);
    assert_pending(&other, None);

    for reply in ["/a", "/b"] {
        site.origin.on(reply, Reply::ok("written"));
    }
    site.origin.revive();
    for receipt in &receipts {
        site.until(receipt, "done").await;
    }
    assert_pending(&client.get("/a").await, None);
}

#[tokio::test]
async fn a_read_that_asks_the_origin_is_told_too() {
    let site = Site::start(ON_FAILURE).await;
    site.origin
        .on_each("/a", |seen, _| match seen.method.as_str() {
            "PUT" => Reply::new(409, "conflict"),
            _ => Reply::ok("read").cache_control("no-store"),
        });
    let parked = site
        .queue(write("PUT", "/a").header("Prefer", "respond-async"))
        .await;
    site.until(&parked, "parked").await;
    // The parked one waits for an operator, and its lane behind it.
    site.queue(write("PUT", "/a")).await;
    let answer = site.gateway.client.get("/a").await;
    assert_eq!((answer.status, answer.text()), (200, "read"));
    assert!(
        answer.header("hardtack-pending-writes").is_some(),
        "{answer:?}"
    );
}

#[tokio::test]
async fn a_delivery_makes_what_is_stored_unusable() {
    let site = Site::start(ON_FAILURE).await;
    site.origin
        .on_each("/a", |seen, nth| match seen.method.as_str() {
            "GET" => Reply::ok(format!("v{nth}")).cache_control("max-age=86400"),
            _ => Reply::new(204, "").header("Content-Location", "/c"),
        });
    for path in ["/b", "/c"] {
        site.origin.on_each(path, |_, nth| {
            Reply::ok(format!("v{nth}")).cache_control("max-age=86400")
        });
    }
    let client = &site.gateway.client;
    for path in ["/a", "/b", "/c"] {
        assert_eq!(client.get(path).await.text(), "v0");
    }
    site.lose_origin().await;
    let receipt = site.queue(write("PUT", "/a")).await;
    client.get("/a").await.assert_says(&["hit"]);
    site.origin.revive();
    site.until(&receipt, "done").await;
    assert_eq!(client.get("/a").await.text(), "v2");
    assert_eq!(client.get("/c").await.text(), "v1");
    client.get("/b").await.assert_says(&["hit"]);
}

#[tokio::test]
async fn a_delivery_invalidates_what_its_route_says() {
    let more = r#"
        [[routes]]
        name = "all"
        upstream = "origin"
        write = { mode = "always" }
        invalidates = ["/list/**"]"#;
    let site = Site::start_with("", more).await;
    for path in ["/list/1", "/other"] {
        site.origin.on_each(path, |_, nth| {
            Reply::ok(format!("v{nth}")).cache_control("max-age=86400")
        });
        assert_eq!(site.gateway.client.get(path).await.text(), "v0");
    }
    site.origin.on("/a", Reply::new(201, "made"));
    let receipt = site.queue(write("POST", "/a")).await;
    site.until(&receipt, "done").await;
    assert_eq!(site.gateway.client.get("/list/1").await.text(), "v1");
    assert_eq!(site.gateway.client.get("/other").await.text(), "v0");
}

#[tokio::test]
async fn a_refused_delivery_invalidates_nothing() {
    let site = Site::start(r#"mode = "always""#).await;
    site.origin
        .on_each("/a", |seen, nth| match seen.method.as_str() {
            "GET" => Reply::ok(format!("v{nth}")).cache_control("max-age=86400"),
            _ => Reply::new(422, "no"),
        });
    assert_eq!(site.gateway.client.get("/a").await.text(), "v0");
    let receipt = site.queue(write("PUT", "/a")).await;
    site.until(&receipt, "dead").await;
    let answer = site.gateway.client.get("/a").await;
    assert_eq!(answer.text(), "v0");
    answer.assert_says(&["hit"]);
}
