//! A successful write makes what it may have changed unusable until the origin has been asked.

use crate::support::{Cue, Gateway, Origin, Reply, Request, Step, eventually};

/// An origin whose `/a` and `/b` are stored by a gateway, and count their answers.
async fn with_two_stored() -> (Origin, Gateway) {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    for path in ["/a", "/b"] {
        origin.on_each(path, |seen, nth| match seen.method.as_str() {
            "GET" => Reply::ok(format!("v{nth}")).cache_control("max-age=300"),
            _ => Reply::new(204, ""),
        });
        gateway
            .client
            .get(&origin.url(path))
            .await
            .assert_says(&["stored"]);
    }
    (origin, gateway)
}

async fn write(origin: &Origin, gateway: &Gateway, method: &str, path: &str) -> u16 {
    let request = Request::new(method, &origin.url(path)).body("x");
    gateway.client.ask(request).await.status
}

async fn is_reused(origin: &Origin, gateway: &Gateway, path: &str) -> bool {
    gateway.client.get(&origin.url(path)).await.says("hit")
}

#[tokio::test]
async fn a_successful_unsafe_method_invalidates_its_target_only() {
    for method in ["POST", "PUT", "PATCH", "DELETE", "M-SEARCH"] {
        let (origin, gateway) = with_two_stored().await;
        assert_eq!(write(&origin, &gateway, method, "/a").await, 204);
        assert!(!is_reused(&origin, &gateway, "/a").await, "{method}");
        assert!(is_reused(&origin, &gateway, "/b").await, "{method}");
    }
}

#[tokio::test]
async fn location_and_content_location_on_the_same_origin_are_invalidated_too() {
    for field in ["Location", "Content-Location"] {
        let (origin, gateway) = with_two_stored().await;
        origin.on("/write", Reply::new(201, "").header(field, "/a"));
        write(&origin, &gateway, "POST", "/write").await;
        assert!(!is_reused(&origin, &gateway, "/a").await, "{field}");
        assert!(is_reused(&origin, &gateway, "/b").await, "{field}");
    }
}

#[tokio::test]
async fn an_origin_cannot_invalidate_for_another() {
    let (victim, gateway) = with_two_stored().await;
    let other = Origin::start().await;
    other.on(
        "/write",
        Reply::new(201, "").header("Location", &victim.url("/a")),
    );
    let request = Request::new("POST", &other.url("/write")).body("x");
    gateway.client.ask(request).await;
    assert!(is_reused(&victim, &gateway, "/a").await);
}

#[tokio::test]
async fn a_failed_write_invalidates_nothing() {
    for status in [400, 404, 500, 503] {
        let (origin, gateway) = with_two_stored().await;
        origin.on("/a", Reply::new(status, ""));
        write(&origin, &gateway, "PUT", "/a").await;
        assert!(is_reused(&origin, &gateway, "/a").await, "{status}");
    }
}

#[tokio::test]
async fn every_variant_is_invalidated() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on_each("/a", |_, nth| {
        let reply = Reply::ok(format!("v{nth}")).cache_control("max-age=300");
        reply.header("Vary", "Accept-Language")
    });
    let ask = |language| Request::get(&origin.url("/a")).header("Accept-Language", language);
    for language in ["de", "en"] {
        gateway.client.ask(ask(language)).await;
    }
    write(&origin, &gateway, "DELETE", "/a").await;
    for language in ["de", "en"] {
        assert!(
            !gateway.client.ask(ask(language)).await.says("hit"),
            "{language}"
        );
    }
}

#[tokio::test]
async fn what_was_invalidated_is_not_served_stale_either() {
    let (origin, gateway) = with_two_stored().await;
    write(&origin, &gateway, "PUT", "/a").await;
    origin.kill().await;
    let invalidated = gateway.client.get(&origin.url("/a")).await;
    invalidated.assert_problem(504, "offline-miss");
    assert!(is_reused(&origin, &gateway, "/b").await);
}

#[tokio::test]
async fn a_write_during_a_fill_wins_over_it() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let cue = Cue::new();
    let hold = cue.clone();
    origin.on_each("/a", move |seen, nth| match (seen.method.as_str(), nth) {
        ("GET", 0) => Reply::ok("before")
            .cache_control("max-age=300")
            .dripped(2, &hold),
        ("GET", _) => Reply::ok("after").cache_control("max-age=300"),
        _ => Reply::new(204, ""),
    });
    let url = origin.url("/a");
    let mut connection = gateway.client.connect().await;
    connection.send_request(&Request::get(&url)).await;
    let head = connection.head().await;
    connection.first_byte().await;
    assert_eq!(write(&origin, &gateway, "PUT", "/a").await, 204);
    cue.open();
    assert_eq!(connection.rest_of(head, "GET").await.text(), "before");

    let next = gateway.client.get(&url).await;
    assert_eq!(next.text(), "after", "{:?}", next.cache_status());
}

#[tokio::test]
async fn who_comes_after_a_write_does_not_join_a_fill_that_began_before_it() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let cue = Cue::new();
    let held = cue.clone();
    origin.on_each("/a", move |seen, nth| match (seen.method.as_str(), nth) {
        ("GET", 0) => Reply::ok("before")
            .cache_control("max-age=300")
            .dripped(2, &held),
        ("GET", _) => Reply::ok("after").cache_control("max-age=300"),
        _ => Reply::ok("written"),
    });
    let url = origin.url("/a");
    let mut early = gateway.client.connect().await;
    early.send_request(&Request::get(&url)).await;
    let head = early.head().await;
    gateway.client.ask(Request::new("POST", &url)).await;
    // Neither joined by who comes later, nor stored when it ends.
    assert_eq!(gateway.client.get(&url).await.text(), "after");
    cue.open();
    assert_eq!(early.rest_of(head, "GET").await.text(), "before");
    let later = gateway.client.get(&url).await;
    assert_eq!(later.text(), "after");
    later.assert_says(&["hit"]);
}

/// A gateway with `/v1` and what a route's writes change there.
async fn with_route(invalidates: &str) -> (Origin, Gateway) {
    let origin = Origin::start().await;
    let config = format!(
        r#"
        [upstreams.shop]
        url = "http://{}/base"
        [[routes]]
        name = "write"
        match = {{ path = "/v1/orders/**", methods = ["POST"] }}
        upstream = "shop"
        invalidates = {invalidates}
        [[routes]]
        name = "read"
        upstream = "shop"
        "#,
        origin.address()
    );
    let gateway = Gateway::start(&config).await;
    for path in [
        "/v1/orders",
        "/v1/orders/1?full",
        "/v1/totals",
        "/v2/orders/1",
    ] {
        origin.on_each(&format!("/base{path}"), |_, nth| {
            Reply::ok(format!("v{nth}")).cache_control("max-age=300")
        });
        gateway.client.get(path).await.assert_says(&["stored"]);
    }
    origin.on("/base/v1/orders/new", Reply::new(201, ""));
    (origin, gateway)
}

async fn is_hit(gateway: &Gateway, path: &str) -> bool {
    gateway.client.get(path).await.says("hit")
}

#[tokio::test]
async fn a_route_names_what_its_writes_change() {
    let (_origin, gateway) = with_route(r#"["/v1/orders/**", "/v1/totals"]"#).await;
    gateway.client.get("/v1/orders/new").await;
    assert!(
        is_hit(&gateway, "/v1/orders").await,
        "a read changes nothing"
    );
    let written = gateway
        .client
        .ask(Request::new("POST", "/v1/orders/new"))
        .await;
    assert_eq!(written.status, 201);
    for (path, expected) in [
        ("/v1/orders", false),
        ("/v1/orders/1?full", false),
        ("/v1/totals", false),
        ("/v2/orders/1", true),
    ] {
        assert_eq!(is_hit(&gateway, path).await, expected, "{path}");
        assert!(is_hit(&gateway, path).await, "{path} is stored again");
    }
}

#[tokio::test]
async fn what_a_route_invalidated_is_so_on_disk_too() {
    const ROUTE: &str = r#"["/v1/*"]"#;
    let (origin, gateway) = with_route(ROUTE).await;
    gateway
        .client
        .ask(Request::new("POST", "/v1/orders/new"))
        .await;
    let config = format!(
        "[upstreams.shop]\nurl = \"http://{}/base\"\n[[routes]]\nname = \"read\"\nupstream = \"shop\"",
        origin.address()
    );
    let gateway = gateway.restart(&config).await;
    assert!(!is_hit(&gateway, "/v1/totals").await);
    assert!(
        is_hit(&gateway, "/v1/orders/1?full").await,
        "a star stays within a segment"
    );
}

#[tokio::test]
async fn a_write_that_fails_or_goes_by_another_route_changes_nothing_of_it() {
    let (origin, gateway) = with_route(r#"["/**"]"#).await;
    origin.on("/base/v1/orders/new", Reply::new(422, ""));
    gateway
        .client
        .ask(Request::new("POST", "/v1/orders/new"))
        .await;
    origin.on("/base/v1/other", Reply::new(204, ""));
    gateway.client.ask(Request::new("POST", "/v1/other")).await;
    assert!(is_hit(&gateway, "/v1/totals").await);
}

/// Sends a write whose client leaves before there is an answer.
async fn write_and_leave(origin: &Origin, gateway: &Gateway, target: &str, path: &str) {
    let cue = Cue::new();
    origin.on(path, Reply::new(201, "").held(&cue));
    let mut leaving = gateway.client.connect().await;
    let request = Request::new("POST", target).body("x");
    leaving.send_request(&request).await;
    origin.sees(path, 1).await;
    drop(leaving);
}

async fn becomes_stale(gateway: &Gateway, target: &str) {
    eventually(&format!("{target} is stale"), || async {
        (!is_hit(gateway, target).await).then_some(())
    })
    .await;
}

/// It once left what the route names fresh for its whole lifetime.
#[tokio::test]
async fn a_write_whose_answer_is_lost_leaves_nothing_fresh_that_its_route_names() {
    for leaves in [true, false] {
        let (origin, gateway) = with_route(r#"["/v1/orders/**", "/v1/totals"]"#).await;
        if leaves {
            write_and_leave(&origin, &gateway, "/v1/orders/new", "/base/v1/orders/new").await;
        } else {
            // Perhaps after it was executed.
            origin.on("/base/v1/orders/new", Reply::script([Step::Reset]));
            let request = Request::new("POST", "/v1/orders/new").body("x");
            assert_eq!(gateway.client.ask(request).await.status, 502);
        }
        for path in ["/v1/totals", "/v1/orders/1?full", "/v1/orders"] {
            becomes_stale(&gateway, path).await;
        }
        assert!(is_hit(&gateway, "/v2/orders/1").await);
    }
}

#[tokio::test]
async fn what_a_lost_answer_leaves_in_doubt_is_served_while_the_origin_is_gone() {
    let (origin, gateway) = with_route(r#"["/v1/totals"]"#).await;
    write_and_leave(&origin, &gateway, "/v1/orders/new", "/base/v1/orders/new").await;
    origin.kill().await;
    eventually("it is served stale", || async {
        let answer = gateway.client.get("/v1/totals").await;
        assert_eq!(answer.status, 200, "{:?}", answer.cache_status());
        answer.says("detail=disconnected").then_some(())
    })
    .await;
}

/// What was never sent changed nothing.
#[tokio::test]
async fn a_write_that_reaches_no_origin_leaves_everything_fresh() {
    let (origin, gateway) = with_route(r#"["/v1/totals"]"#).await;
    origin.kill().await;
    let request = Request::new("POST", "/v1/orders/new").body("x");
    assert_eq!(gateway.client.ask(request).await.status, 504);
    assert!(is_hit(&gateway, "/v1/totals").await);
}
