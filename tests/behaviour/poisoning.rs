//! Nothing that one client sends changes what another client gets from the store.

use crate::support::{Cue, Gateway, Origin, Reply, Request, eventually, reverse_to};

fn route(origin: &Origin, path: &str, more: &str) -> String {
    let address = origin.address();
    format!(
        r#"
        [upstreams.origin]
        url = "http://{address}"
        [[routes]]
        name = "all"
        match = {{ path = "{path}" }}
        upstream = "origin"
        {more}
        "#
    )
}

fn from_host(path: &str, host: &str) -> Request {
    Request::get(path).header("Host", host)
}

#[tokio::test]
async fn a_preserved_host_is_part_of_the_key() {
    let origin = Origin::start().await;
    origin.on_each("/a", |seen, _| {
        let host = seen.header("host").unwrap_or_default().to_owned();
        Reply::ok(host).cache_control("max-age=300")
    });
    let gateway = Gateway::start(&route(&origin, "/**", "preserve_host = true")).await;
    for host in ["a.example", "b.example", "a.example"] {
        let answer = gateway.client.ask(from_host("/a", host)).await;
        assert_eq!(answer.text(), host);
    }
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn an_origin_that_is_read_for_everybody_does_not_learn_which_host_one_client_asked_for() {
    let origin = Origin::start().await;
    origin.on("/a", Reply::ok("a").cache_control("max-age=300"));
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    gateway.client.ask(from_host("/a", "evil.example")).await;
    let seen = &origin.seen()[0];
    assert!(
        !seen
            .headers
            .iter()
            .any(|(_, value)| value.contains("evil.example")),
        "{:?}",
        seen.headers
    );
}

#[tokio::test]
async fn a_cookie_is_a_credential_of_a_private_cache() {
    let origin = Origin::start().await;
    origin.on_each("/a", |seen, _| {
        let user = seen.header("cookie").unwrap_or("nobody").to_owned();
        Reply::ok(user).cache_control("private, max-age=300")
    });
    let gateway = Gateway::start("[cache]\nkind = \"private\"").await;
    let url = origin.url("/a");
    for user in ["sid=alice", "sid=bob", "sid=alice"] {
        let answer = gateway
            .client
            .ask(Request::get(&url).header("Cookie", user))
            .await;
        assert_eq!(answer.text(), user);
    }
    assert_eq!(gateway.client.get(&url).await.text(), "nobody");
    assert_eq!(origin.seen().len(), 3);
}

#[tokio::test]
async fn a_304_to_one_clients_own_conditions_does_not_freshen_what_is_stored() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on_each("/a", |seen, nth| {
        match (nth, seen.header("if-none-match")) {
            (0, _) => Reply::ok("one").etag("1").cache_control("max-age=60"),
            (_, Some("\"2\"")) => Reply::new(304, ""),
            _ => Reply::ok("two").etag("2").cache_control("max-age=60"),
        }
    });
    let url = origin.url("/a");
    gateway.client.get(&url).await;
    gateway.clock.step_secs(61);
    let own = Request::get(&url)
        .header("Range", "bytes=0-1")
        .header("If-None-Match", "\"2\"");
    assert_eq!(gateway.client.ask(own).await.status, 304);
    assert_eq!(gateway.client.get(&url).await.text(), "two");
}

#[tokio::test]
async fn an_offer_of_http_2_is_no_way_past_the_store() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on("/a", Reply::ok("a").cache_control("max-age=300"));
    let url = origin.url("/a");
    gateway.client.get(&url).await;
    origin.kill().await;
    let offer = Request::get(&url)
        .header("Connection", "Upgrade, HTTP2-Settings")
        .header("Upgrade", "h2c")
        .header("HTTP2-Settings", "AAMAAABkAAQCAAAAAAIAAAAA");
    gateway.client.ask(offer).await.assert_says(&["hit"]);
}

#[tokio::test]
async fn who_comes_after_the_head_shares_only_what_may_be_reused() {
    for (terms, requests) in [("max-age=300", 1), ("no-cache", 2), ("max-age=0", 2)] {
        let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
        let cue = Cue::new();
        let held = cue.clone();
        let terms = terms.to_owned();
        origin.on_each("/a", move |_, nth| {
            let reply = Reply::ok("hello").etag("1").cache_control(&terms);
            if nth == 0 {
                reply.dripped(2, &held)
            } else {
                reply
            }
        });
        let url = origin.url("/a");
        let mut early = gateway.client.connect().await;
        early.send_request(&Request::get(&url)).await;
        let head = early.head().await;
        let mut late = tokio::task::JoinSet::new();
        late.spawn({
            let (client, url) = (gateway.client.clone(), url.clone());
            async move { client.get(&url).await }
        });
        if requests == 2 {
            origin.sees("/a", 2).await;
        }
        cue.open();
        assert_eq!(late.join_next().await.unwrap().unwrap().text(), "hello");
        early.rest_of(head, "GET").await;
        assert_eq!(origin.seen().len(), requests);
    }
}

#[tokio::test]
async fn each_variant_has_one_fill() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let cue = Cue::new();
    let held = cue.clone();
    origin.on_each("/a", move |seen, _| {
        let language = seen
            .header("accept-language")
            .unwrap_or_default()
            .to_owned();
        Reply::ok(language)
            .header("Vary", "Accept-Language")
            .cache_control("max-age=300")
            .held(&held)
    });
    let url = origin.url("/a");
    let mut clients = tokio::task::JoinSet::new();
    for language in ["en", "de"].repeat(20) {
        let (client, url) = (gateway.client.clone(), url.clone());
        clients.spawn(async move {
            let answer = client
                .ask(Request::get(&url).header("Accept-Language", language))
                .await;
            assert_eq!(answer.text(), language);
        });
    }
    origin.sees("/a", 1).await;
    cue.open();
    while let Some(done) = clients.join_next().await {
        done.unwrap();
    }
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn a_write_of_unknown_outcome_makes_what_is_stored_stale() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let cue = Cue::new();
    let held = cue.clone();
    origin.on_each("/a", move |seen, nth| match seen.method.as_str() {
        "POST" => Reply::ok("done").held(&held),
        _ => Reply::ok(format!("v{nth}")).cache_control("max-age=300"),
    });
    let url = origin.url("/a");
    gateway.client.get(&url).await;
    gateway.client.get(&url).await.assert_says(&["hit"]);
    let mut writer = gateway.client.connect().await;
    writer
        .send_request(&Request::new("POST", &url).body("x"))
        .await;
    origin.sees("/a", 2).await;
    drop(writer);
    eventually("what is stored is not taken for fresh", || async {
        (!gateway.client.get(&url).await.says("hit")).then_some(())
    })
    .await;
    cue.open();
}

#[tokio::test]
async fn no_spelling_of_a_path_leads_out_of_what_a_route_serves() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&route(&origin, "/files/**", "")).await;
    for path in [
        "/files/../admin",
        "/files/%2e%2e/admin",
        "/files/.%2E/admin",
        "/files/..;x/admin",
        "/files/./a",
    ] {
        let answer = gateway.client.get(path).await;
        answer.assert_problem(400, "bad-request");
    }
    assert!(origin.seen().is_empty());
}
