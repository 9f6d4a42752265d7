//! Writes that wait for an upstream whose `url` is another after a restart: they follow it, and so do the reads of their
//! targets.

use super::{Site, location, write};
use crate::support::{Gateway, Origin, Reply, Request, eventually};

const WRITE: &str = r#"mode = "always", order_by = "path", idempotency = "pass", honoured = true"#;

/// A gateway in front of this URL.
fn config(url: &str, pending_reads: &str) -> String {
    format!(
        r#"
        [queue]
        recovery_spread = "0s"
        [upstreams.origin]
        url = "{url}"
        [[routes]]
        name = "all"
        upstream = "origin"
        write = {{ {WRITE}, pending_reads = "{pending_reads}" }}
        "#
    )
}

/// These writes accepted below one path, and the upstream then below another one, elsewhere; nothing is delivered yet.
async fn moved(paths: [&str; 2], pending_reads: &str, writes: Vec<Request>) -> (Site, Vec<String>) {
    let [before, after] = paths;
    let old = Origin::start().await;
    let url = format!("{}{before}", old.url(""));
    let gateway = Gateway::start(&config(&url, pending_reads)).await;
    let site = Site::of(old, gateway);
    site.hold_deliveries("pause").await;
    let mut receipts = Vec::new();
    for write in writes {
        receipts.push(site.queue(write).await);
    }
    let new = Origin::start().await;
    let url = format!("{}{after}", new.url(""));
    let gateway = site.gateway.restart(&config(&url, pending_reads)).await;
    (Site::of(new, gateway), receipts)
}

const MOVES: [[&str; 2]; 4] = [["", ""], ["", "/v2"], ["/v1", ""], ["/v1", "/v2"]];

#[tokio::test]
async fn a_write_follows_its_upstream_and_makes_unusable_what_is_stored_there() {
    for paths in MOVES {
        let (site, receipts) = moved(paths, "mark", vec![write("PUT", "/a?b=%41")]).await;
        let there = format!("{}/a?b=%41", paths[1]);
        site.origin.on_each(&there, |seen, _| match &*seen.method {
            "GET" => Reply::ok("read").cache_control("max-age=86400"),
            _ => Reply::ok("written"),
        });
        let read = site.gateway.client.get("/a?b=%41").await;
        assert_eq!(
            read.header("hardtack-pending-writes"),
            Some("1"),
            "{paths:?}"
        );
        let hit = site.gateway.client.get("/a?b=%41").await;
        hit.assert_says(&["hit"]);
        assert_eq!(
            hit.header("hardtack-pending-writes"),
            Some("1"),
            "{paths:?}"
        );
        let receipt = site.receipt(&receipts[0]).await;
        assert_eq!(receipt["url"], site.origin.url(&there));

        site.hold_deliveries("resume").await;
        site.until(&receipts[0], "done").await;
        let read = site.gateway.client.get("/a?b=%41").await;
        assert_eq!(read.header("hardtack-pending-writes"), None, "{paths:?}");
        let methods = site.origin.seen_at(&there).into_iter();
        let methods: Vec<_> = methods.map(|seen| seen.method).collect();
        assert_eq!(methods, ["GET", "PUT", "GET"], "{paths:?}");
    }
}

#[tokio::test]
async fn a_read_finds_the_write_of_its_client_where_the_upstream_is_now() {
    for paths in MOVES {
        let (site, receipts) = moved(paths, "overlay", vec![write("PUT", "/a")]).await;
        let read = site.gateway.client.get("/a").await;
        assert_eq!((read.status, read.text()), (200, "to /a"), "{paths:?}");
        let id = receipts[0].rsplit('/').next();
        assert_eq!(read.header("hardtack-overlay"), id);
    }
}

#[tokio::test]
async fn a_write_after_the_move_is_behind_those_before_it() {
    for paths in MOVES {
        let (site, mut receipts) = moved(paths, "mark", vec![write("POST", "/a")]).await;
        receipts.push(site.queue(write("PUT", "/a")).await);
        let receipt = site.receipt(&receipts[1]).await;
        let id = receipts[0].rsplit('/').next().unwrap();
        assert_eq!(receipt["blocked_by"], id, "{paths:?}: {receipt}");
    }
}

#[tokio::test]
async fn a_key_that_was_used_before_the_move_is_known() {
    for paths in MOVES {
        let keyed = || write("POST", "/a").header("Idempotency-Key", "\"k-1\"");
        let (site, receipts) = moved(paths, "mark", vec![keyed()]).await;
        let again = site.ask(keyed()).await;
        assert_eq!(location(&again), receipts[0], "{paths:?}");
    }
}

#[tokio::test]
async fn an_operator_edits_the_path_that_is_shown() {
    let (site, receipts) = moved(["", "/v2"], "mark", vec![write("POST", "/a")]).await;
    site.origin.on("/v2/a", Reply::new(422, "no"));
    site.origin.on("/v2/b", Reply::ok("made"));
    site.hold_deliveries("resume").await;
    eventually("it is dead", || async {
        let receipt = site.receipt(&receipts[0]).await;
        (receipt["state"] == "dead").then_some(())
    })
    .await;
    let id = receipts[0].rsplit('/').next().unwrap();
    let edit = Request::new("POST", &format!("/api/v1/queue/items/{id}/edit"));
    let edit = edit.header("Content-Type", "application/json");
    let answer = site
        .gateway
        .admin
        .ask(edit.body(r#"{"path":"/v2/b"}"#))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
    site.until(&receipts[0], "done").await;
    assert_eq!(site.written(), ["/v2/a", "/v2/b"]);
}
