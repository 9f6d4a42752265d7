//! Read-your-writes: a client's reads find what its own pending writes will leave behind.

use super::{Site, write};
use crate::support::{Reply, Request, noise};

const OVERLAY: &str = r#"mode = "on-failure", pending_reads = "overlay""#;

fn put(path: &str, content_type: &str, body: &'static str) -> Request {
    let request = Request::new("PUT", path).header("Content-Type", content_type);
    request.body(body)
}

fn merge_patch(path: &str, patch: &'static str) -> Request {
    let request = Request::new("PATCH", path);
    request
        .header("Content-Type", "application/merge-patch+json")
        .body(patch)
}

fn id_of(receipt: &str) -> Option<&str> {
    receipt.rsplit('/').next()
}

/// `/a` and `/b` stored, and the origin gone.
async fn site() -> Site {
    let site = Site::start(OVERLAY).await;
    let document = Reply::ok(r#"{"name":"old","size":1}"#);
    let document = document.header("Content-Type", "application/json");
    let document = document.cache_control("max-age=86400").etag("\"1\"");
    for path in ["/a", "/b"] {
        site.origin.on(path, document.clone());
        assert_eq!(site.gateway.client.get(path).await.status, 200);
    }
    site.lose_origin().await;
    site
}

#[tokio::test]
async fn a_read_finds_what_a_pending_put_leaves_behind() {
    let site = site().await;
    let client = &site.gateway.client;
    for path in ["/a", "/new"] {
        let receipt = site.queue(put(path, "text/x-mine", "mine")).await;
        let answer = client.get(path).await;
        assert_eq!((answer.status, answer.text()), (200, "mine"), "{path}");
        assert_eq!(answer.header("content-type"), Some("text/x-mine"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        assert_eq!(answer.header("hardtack-overlay"), id_of(&receipt));
        assert_eq!(answer.header("etag"), None);
        assert_eq!(answer.header("cache-status"), None);

        let head = site.ask(Request::new("HEAD", path)).await;
        assert_eq!(
            (head.status, head.header("content-length")),
            (200, Some("4"))
        );
        assert_eq!(head.header("hardtack-overlay"), id_of(&receipt));
    }
    // The last one counts.
    let last = site.queue(put("/a", "text/plain", "later")).await;
    let answer = client.get("/a").await;
    assert_eq!(answer.text(), "later");
    assert_eq!(answer.header("hardtack-overlay"), id_of(&last));
    client.get("/b").await.assert_says(&["hit"]);
}

#[tokio::test]
async fn a_large_pending_put_is_read_from_its_file() {
    let site = site().await;
    let body = noise(300_000);
    site.queue(Request::new("PUT", "/a").body(body.clone()))
        .await;
    let answer = site.gateway.client.get("/a").await;
    assert!(answer.body == body, "{} bytes", answer.body.len());
}

#[tokio::test]
async fn a_large_pending_put_is_whole_for_who_reads_it_while_it_is_delivered() {
    let site = site().await;
    let body = noise(7_000_000);
    let receipt = site
        .queue(Request::new("PUT", "/a").body(body.clone()))
        .await;
    let mut connection = site.gateway.client.connect().await;
    connection.send_request(&Request::get("/a")).await;
    let head = connection.head().await;
    assert_eq!(head.header("content-length"), Some("7000000"));
    assert_eq!(head.header("hardtack-overlay"), id_of(&receipt));
    site.origin.on("/a", Reply::ok("made"));
    site.origin.revive();
    site.until(&receipt, "done").await;
    let answer = connection.rest_of(head, "GET").await;
    assert!(answer.body == body, "{} bytes", answer.body.len());
}

#[tokio::test]
async fn what_is_too_large_to_be_patched_is_only_marked() {
    let site = site().await;
    let large = format!(r#"{{"text":"{}"}}"#, "x".repeat(1_100_000));
    let json = Request::new("PUT", "/a").header("Content-Type", "application/json");
    site.queue(json.body(large)).await;
    site.queue(merge_patch("/a", r#"{"tag":1}"#)).await;
    let answer = site.gateway.client.get("/a").await;
    answer.assert_says(&["hit"]);
    assert_eq!(answer.header("hardtack-overlay"), None);
    assert_eq!(answer.header("hardtack-pending-writes"), Some("2"));
}

#[tokio::test]
async fn after_a_pending_delete_there_is_nothing() {
    let site = site().await;
    let client = &site.gateway.client;
    let receipt = site.queue(Request::new("DELETE", "/a")).await;
    let answer = client.get("/a").await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("hardtack-overlay"), id_of(&receipt));
    site.queue(put("/a", "text/plain", "again")).await;
    assert_eq!(client.get("/a").await.text(), "again");
}

#[tokio::test]
async fn a_merge_patch_is_applied_to_what_is_known() {
    let site = site().await;
    let client = &site.gateway.client;
    let receipt = site
        .queue(merge_patch(
            "/a",
            r#"{"name":"new","size":null,"tag":{"x":1}}"#,
        ))
        .await;
    let answer = client.get("/a").await;
    let expected = serde_json::json!({"name": "new", "tag": {"x": 1}});
    assert_eq!((answer.status, answer.json()), (200, expected));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("hardtack-overlay"), id_of(&receipt));
    assert_eq!(answer.header("etag"), None);

    site.queue(merge_patch("/a", r#"{"tag":{"y":2}}"#)).await;
    let expected = serde_json::json!({"name": "new", "tag": {"x": 1, "y": 2}});
    assert_eq!(client.get("/a").await.json(), expected);

    site.queue(put("/new", "application/json", r#"{"a":1}"#))
        .await;
    site.queue(merge_patch("/new", r#"{"b":2}"#)).await;
    assert_eq!(
        client.get("/new").await.json(),
        serde_json::json!({"a": 1, "b": 2})
    );
}

#[tokio::test]
async fn what_only_the_origin_can_know_is_no_overlay() {
    let site = site().await;
    let client = &site.gateway.client;
    // Nothing is stored that the patch could be applied to.
    site.queue(merge_patch("/unknown", r#"{"a":1}"#)).await;
    client
        .get("/unknown")
        .await
        .assert_problem(504, "offline-miss");

    site.queue(put("/a", "application/json", "{}")).await;
    site.queue(write("POST", "/a")).await;
    let answer = client.get("/a").await;
    answer.assert_says(&["hit"]);
    assert_eq!(answer.header("hardtack-overlay"), None);
    assert_eq!(answer.header("hardtack-pending-writes"), Some("2"));

    let other_patch =
        Request::new("PATCH", "/b").header("Content-Type", "application/json-patch+json");
    site.queue(other_patch.body("[]")).await;
    let answer = client.get("/b").await;
    answer.assert_says(&["hit"]);
    assert_eq!(answer.header("hardtack-overlay"), None);
}

#[tokio::test]
async fn nobody_else_finds_it() {
    let site = site().await;
    site.queue(put("/a", "text/plain", "mine")).await;
    for (name, value) in [("Authorization", "Bearer other"), ("Cookie", "other=1")] {
        let request = Request::get("/a").header(name, value);
        let answer = site.ask(request).await;
        assert_ne!(answer.text(), "mine");
        assert_eq!(answer.header("hardtack-overlay"), None);
    }
}

#[tokio::test]
async fn it_is_gone_once_the_write_has_come_to_its_end() {
    let site = site().await;
    let client = &site.gateway.client;
    let receipt = site.queue(put("/a", "text/plain", "mine")).await;
    assert_eq!(client.get("/a").await.text(), "mine");
    site.origin
        .on("/a", Reply::ok("the origin's").cache_control("max-age=60"));
    site.origin.revive();
    site.until(&receipt, "done").await;
    let answer = client.get("/a").await;
    assert_eq!(answer.text(), "the origin's");
    assert_eq!(answer.header("hardtack-overlay"), None);
}

#[tokio::test]
async fn what_is_taken_back_is_no_longer_found() {
    let site = site().await;
    let client = &site.gateway.client;
    let first = site.queue(put("/a", "text/plain", "first")).await;
    let second = site.queue(put("/a", "text/plain", "second")).await;
    for (receipt, expected) in [(&second, "first"), (&first, r#"{"name":"old","size":1}"#)] {
        let answer = client.ask(Request::new("DELETE", receipt)).await;
        assert_eq!(answer.status, 200);
        assert_eq!(client.get("/a").await.text(), expected);
    }
}

#[tokio::test]
async fn it_survives_a_restart() {
    let site = site().await;
    site.queue(put("/a", "text/plain", "mine")).await;
    let site = site.restart(OVERLAY, "").await;
    assert_eq!(site.gateway.client.get("/a").await.text(), "mine");
}

#[tokio::test]
async fn where_reads_are_only_marked_nothing_is_laid_over() {
    let site = Site::start(r#"mode = "on-failure""#).await;
    site.lose_origin().await;
    site.queue(put("/a", "text/plain", "mine")).await;
    let answer = site.gateway.client.get("/a").await;
    answer.assert_problem(504, "offline-miss");
    assert_eq!(answer.header("hardtack-overlay"), None);
}

#[tokio::test]
async fn it_goes_by_the_credential() {
    let (_dir, site) = Site::start_with_key(OVERLAY, "").await;
    site.lose_origin().await;
    let by = |request: Request, user: &str| request.header("Authorization", user);
    site.queue(by(put("/a", "text/plain", "one's"), "Bearer one"))
        .await;
    site.queue(by(put("/a", "text/plain", "another's"), "Bearer another"))
        .await;
    for (user, expected) in [("Bearer one", "one's"), ("Bearer another", "another's")] {
        let answer = site.ask(by(Request::get("/a"), user)).await;
        assert_eq!(answer.text(), expected);
    }
    let stranger = site.gateway.client.get("/a").await;
    stranger.assert_problem(504, "offline-miss");
}
