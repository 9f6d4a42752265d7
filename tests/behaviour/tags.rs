//! What is tagged or grouped by its origin is purged or invalidated together: in every partition, and of nobody else.

use serde_json::{Value, json};

use crate::support::{Cue, Gateway, Origin, Reply, Request};

async fn purge(gateway: &Gateway, wanted: Value) -> Value {
    let request = Request::new("POST", "/api/v1/cache/purge")
        .header("Content-Type", "application/json")
        .body(wanted.to_string());
    let answer = gateway.admin.ask(request).await;
    assert_eq!(answer.status, 200, "{wanted}: {answer:?}");
    answer.json()
}

fn grouped(body: String, groups: &str) -> Reply {
    Reply::ok(body)
        .cache_control("max-age=300")
        .header("Cache-Groups", groups)
}

/// Has `path` of an origin stored, in these groups, and answer a POST to `/write` with this invalidation.
async fn with_group(gateway: &Gateway, groups: &'static str, invalidation: &str) -> Origin {
    let origin = Origin::start().await;
    for path in ["/a", "/b"] {
        origin.on_each(path, move |_, nth| grouped(format!("v{nth}"), groups));
        gateway
            .client
            .get(&origin.url(path))
            .await
            .assert_says(&["stored"]);
    }
    let written = Reply::new(204, "").header("Cache-Group-Invalidation", invalidation);
    origin.on("/write", written);
    origin
}

async fn write(gateway: &Gateway, origin: &Origin, method: &str) {
    let request = Request::new(method, &origin.url("/write")).body("x");
    gateway.client.ask(request).await;
}

async fn is_reused(gateway: &Gateway, origin: &Origin, path: &str) -> bool {
    gateway.client.get(&origin.url(path)).await.says("hit")
}

#[tokio::test]
async fn a_purge_by_tag_reaches_every_origin_and_is_soft_unless_told_otherwise() {
    let gateway = Gateway::start("").await;
    let (one, other) = (Origin::start().await, Origin::start().await);
    for origin in [&one, &other] {
        for (path, field, tags) in [
            ("/a", "Surrogate-Key", "news front"),
            ("/b", "Cache-Tag", "sport, news"),
            ("/c", "Cache-Tag", "News"),
        ] {
            let reply = Reply::ok("v").cache_control("max-age=300").etag("\"v\"");
            origin.on(path, reply.header(field, tags));
            gateway.client.get(&origin.url(path)).await;
        }
    }
    let dry_run = purge(&gateway, json!({"tag": "news", "dry_run": true})).await;
    assert_eq!(dry_run["count"], 4);
    assert!(is_reused(&gateway, &one, "/a").await);
    assert_eq!(purge(&gateway, json!({"tag": "news"})).await["count"], 4);
    // Only one that was not asked for since is still marked.
    one.kill().await;
    let stale = gateway.client.get(&one.url("/a")).await;
    stale.assert_says(&["fwd=stale", "detail=disconnected"]);
    assert!(!is_reused(&gateway, &other, "/a").await);
    assert!(is_reused(&gateway, &other, "/c").await, "case matters");
    let hard = purge(&gateway, json!({"tag": "news", "soft": false})).await;
    assert_eq!(hard["count"], 4);
    gateway
        .client
        .get(&one.url("/a"))
        .await
        .assert_problem(504, "offline-miss");
    gateway
        .client
        .get(&one.url("/c"))
        .await
        .assert_says(&["hit"]);
}

#[tokio::test]
async fn a_purge_by_tag_holds_after_a_restart() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    for path in ["/a", "/b"] {
        let reply = Reply::ok("v").cache_control("max-age=300");
        origin.on(path, reply.header("Surrogate-Key", path));
        gateway.client.get(&origin.url(path)).await;
    }
    let gateway = gateway.restart("").await;
    let purged = purge(&gateway, json!({"tag": "/a", "soft": false})).await;
    assert_eq!(purged["count"], 1, "tags survive a restart");
    let gateway = gateway.restart("").await;
    origin.kill().await;
    gateway
        .client
        .get(&origin.url("/a"))
        .await
        .assert_problem(504, "offline-miss");
    gateway
        .client
        .get(&origin.url("/b"))
        .await
        .assert_says(&["hit"]);
}

#[tokio::test]
async fn a_purge_by_tag_wins_over_a_fill_that_turns_out_to_have_it() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let cue = Cue::new();
    let hold = cue.clone();
    origin.on_each("/a", move |_, nth| {
        let reply = Reply::ok(format!("v{nth}")).cache_control("max-age=300");
        let reply = reply.header("Surrogate-Key", "news");
        if nth == 0 { reply.held(&hold) } else { reply }
    });
    let url = origin.url("/a");
    let mut early = gateway.client.connect().await;
    early.send_request(&Request::get(&url)).await;
    origin.sees("/a", 1).await;
    // Nothing has the tag yet.
    assert_eq!(purge(&gateway, json!({"tag": "news"})).await["count"], 0);
    assert_eq!(
        gateway.client.get(&url).await.text(),
        "v1",
        "it is not joined"
    );
    cue.open();
    assert_eq!(early.answer("GET").await.text(), "v0");
    let next = gateway.client.get(&url).await;
    assert_eq!(next.text(), "v1", "{:?}", next.cache_status());
    next.assert_says(&["hit"]);
}

#[tokio::test]
async fn the_fields_that_carry_tags_are_the_operators_choice() {
    let config = "[cache]\ntags_header = [\"x-tags\"]";
    let (origin, gateway) = (Origin::start().await, Gateway::start(config).await);
    let reply = Reply::ok("v").cache_control("max-age=300");
    origin.on("/a", reply.header("X-Tags", "a").header("Cache-Tag", "b"));
    gateway.client.get(&origin.url("/a")).await;
    for (tag, count) in [("a", 1), ("b", 0)] {
        let found = purge(&gateway, json!({"tag": tag, "dry_run": true})).await;
        assert_eq!(found["count"], count, "{tag}");
    }
}

#[tokio::test]
async fn a_successful_write_invalidates_the_groups_that_its_answer_names() {
    for (groups, invalidation, expected) in [
        (r#""a", "b""#, r#""b";x=1"#, true),
        (r#""a", "b""#, r#""c", "a""#, true),
        (r#""a""#, r#""A""#, false),
        (r#""a""#, r#"a"#, false),
        (r#"a"#, r#""a""#, false),
        (r#""a""#, r#""a", 1"#, false),
        (r#""a", 1"#, r#""a""#, false),
    ] {
        let gateway = Gateway::start("").await;
        let origin = with_group(&gateway, groups, invalidation).await;
        write(&gateway, &origin, "POST").await;
        for path in ["/a", "/b"] {
            let is_reused = is_reused(&gateway, &origin, path).await;
            assert_eq!(is_reused, !expected, "{groups} {invalidation} {path}");
        }
    }
}

#[tokio::test]
async fn what_is_in_an_invalidated_group_is_not_served_stale_and_stays_so_after_a_restart() {
    let gateway = Gateway::start("").await;
    let origin = with_group(&gateway, r#""g""#, r#""g""#).await;
    write(&gateway, &origin, "DELETE").await;
    let gateway = gateway.restart("").await;
    origin.kill().await;
    gateway
        .client
        .get(&origin.url("/a"))
        .await
        .assert_problem(504, "offline-miss");
}

#[tokio::test]
async fn a_group_means_something_within_its_origin_only() {
    let gateway = Gateway::start("").await;
    let victim = with_group(&gateway, r#""g""#, r#""g""#).await;
    let attacker = with_group(&gateway, r#""g""#, r#""g""#).await;
    write(&gateway, &attacker, "POST").await;
    assert!(!is_reused(&gateway, &attacker, "/a").await);
    assert!(is_reused(&gateway, &victim, "/a").await);
    write(&gateway, &victim, "POST").await;
    assert!(is_reused(&gateway, &attacker, "/a").await);
    assert!(!is_reused(&gateway, &victim, "/a").await);
}

#[tokio::test]
async fn a_safe_or_failed_request_invalidates_no_group() {
    for (method, status) in [("GET", 200), ("OPTIONS", 200), ("POST", 404), ("POST", 503)] {
        let gateway = Gateway::start("").await;
        let origin = with_group(&gateway, r#""g""#, r#""g""#).await;
        let reply = Reply::new(status, "").header("Cache-Group-Invalidation", r#""g""#);
        origin.on("/write", reply);
        let request = Request::new(method, &origin.url("/write"));
        gateway.client.ask(request).await;
        assert!(
            is_reused(&gateway, &origin, "/a").await,
            "{method} {status}"
        );
    }
}

#[tokio::test]
async fn a_group_is_invalidated_in_every_partition() {
    let config = "[cache]\nkind = \"private\"";
    let (origin, gateway) = (Origin::start().await, Gateway::start(config).await);
    origin.on_each("/a", |_, nth| grouped(format!("v{nth}"), r#""g""#));
    let written = Reply::new(204, "").header("Cache-Group-Invalidation", r#""g""#);
    origin.on("/write", written);
    let ask = async |user: &str| {
        let request = Request::get(&origin.url("/a")).header("Authorization", user);
        gateway.client.ask(request).await
    };
    for user in ["ann", "bob"] {
        ask(user).await;
        ask(user).await.assert_says(&["hit"]);
    }
    let request = Request::new("POST", &origin.url("/write")).header("Authorization", "ann");
    gateway.client.ask(request.body("x")).await;
    for user in ["ann", "bob"] {
        assert!(!ask(user).await.says("hit"), "{user}");
    }
}

#[tokio::test]
async fn an_invalidation_does_not_cascade() {
    let gateway = Gateway::start("").await;
    let origin = Origin::start().await;
    for (path, groups) in [("/a", r#""g", "h""#), ("/b", r#""h""#)] {
        origin.on_each(path, move |_, nth| grouped(format!("v{nth}"), groups));
        gateway.client.get(&origin.url(path)).await;
    }
    origin.on(
        "/write",
        Reply::new(204, "").header("Cache-Group-Invalidation", r#""g""#),
    );
    write(&gateway, &origin, "POST").await;
    assert!(is_reused(&gateway, &origin, "/b").await);
    assert!(!is_reused(&gateway, &origin, "/a").await);
}
