//! How an operator weighs the origin against the store: modes, overrides and windows.

use crate::support::{Answer, Cue, Gateway, Origin, Reply, Request, eventually};

/// A gateway with this configuration, an origin that counts its answers, and `/a` stored and 1,000 s old.
async fn with_a_stale_response(config: &str, terms: &'static str) -> (Origin, Gateway, String) {
    let (origin, gateway) = (Origin::start().await, Gateway::start(config).await);
    origin.on_each("/a", move |_, nth| {
        Reply::ok(format!("v{nth}"))
            .cache_control(terms)
            .etag(&format!("\"{nth}\""))
    });
    let url = origin.url("/a");
    gateway.client.get(&url).await;
    gateway.clock.step_secs(1_000);
    (origin, gateway, url)
}

async fn set_mode(gateway: &Gateway, mode: &str) -> Answer {
    let body = format!("{{\"mode\":\"{mode}\"}}");
    let request = Request::new("PUT", "/api/v1/mode").header("Content-Type", "application/json");
    gateway.admin.ask(request.body(body)).await
}

const MODE: &str = "[[routes]]\nname = \"all\"\nmatch = { path = \"/**\" }\nmode = ";

#[tokio::test]
async fn prefer_cache_answers_at_once_and_fills_behind() {
    let config = format!("{MODE}\"prefer-cache\"");
    let (origin, gateway, url) = with_a_stale_response(&config, "max-age=60").await;
    let answer = gateway.client.get(&url).await;
    assert_eq!(answer.text(), "v0");
    answer.assert_says(&["hit", "ttl=-940", "detail=prefer-cache"]);
    origin.sees("/a", 2).await;
    eventually("the fill is stored", || async {
        let answer = gateway.client.get(&url).await;
        (answer.text() == "v1" && answer.says("hit")).then_some(())
    })
    .await;
}

#[tokio::test]
async fn offline_asks_nobody() {
    let (origin, gateway, url) = with_a_stale_response("", "max-age=60").await;
    assert_eq!(set_mode(&gateway, "offline").await.status, 200);
    let connections = origin.connections();

    let stored = gateway.client.get(&url).await;
    assert_eq!(stored.text(), "v0");
    stored.assert_says(&["hit", "ttl=-940", "detail=offline"]);
    let unknown = gateway.client.get(&origin.url("/b")).await;
    unknown.assert_problem(504, "offline-miss");
    let write = Request::new("POST", &origin.url("/a")).body("x");
    gateway
        .client
        .ask(write)
        .await
        .assert_problem(504, "offline-miss");
    assert_eq!(
        (origin.seen().len(), origin.connections()),
        (1, connections)
    );
}

#[tokio::test]
async fn online_validates_whatever_is_stale() {
    let config = format!("{MODE}\"online\"");
    let terms = "max-age=60, stale-while-revalidate=86400";
    let (origin, gateway, url) = with_a_stale_response(&config, terms).await;
    let answer = gateway.client.get(&url).await;
    assert_eq!(answer.text(), "v1");
    answer.assert_says(&["fwd=stale", "fwd-status=200", "stored"]);
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn online_makes_up_no_stale_answer_when_the_origin_is_gone() {
    let config = format!("{MODE}\"online\"");
    let (origin, gateway, url) = with_a_stale_response(&config, "max-age=2000").await;
    origin.kill().await;
    gateway
        .client
        .get(&url)
        .await
        .assert_says(&["hit", "ttl=1000"]);
    gateway.clock.step_secs(1_001);
    gateway
        .client
        .get(&url)
        .await
        .assert_problem(504, "offline-miss");
}

#[tokio::test]
async fn a_mode_set_at_run_time_is_taken_back_at_run_time() {
    let (origin, gateway, url) = with_a_stale_response("", "max-age=60").await;
    assert_eq!(set_mode(&gateway, "offline").await.status, 200);
    gateway
        .client
        .get(&url)
        .await
        .assert_says(&["detail=offline"]);
    assert_eq!(set_mode(&gateway, "auto").await.status, 200);
    gateway
        .client
        .get(&url)
        .await
        .assert_says(&["fwd=stale", "fwd-status=200"]);
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn an_override_lifts_what_the_response_forbids_and_says_so() {
    for (directive, terms) in [
        ("must-revalidate", "max-age=60, must-revalidate"),
        ("must-revalidate", "max-age=60, proxy-revalidate"),
        ("no-cache", "max-age=60, no-cache"),
        ("s-maxage", "s-maxage=60"),
    ] {
        let config = format!("[cache]\noverride = [\"{directive}\"]");
        let (origin, gateway, url) = with_a_stale_response(&config, terms).await;
        origin.kill().await;
        for _ in 0..2 {
            let answer = gateway.client.get(&url).await;
            assert_eq!((answer.status, answer.text()), (200, "v0"), "{terms}");
            answer.assert_says(&["detail=override"]);
        }
    }
}

#[tokio::test]
async fn an_override_of_no_store_stores() {
    let config = "[cache]\noverride = [\"no-store\"]";
    let (origin, gateway, url) = with_a_stale_response(config, "no-store").await;
    origin.kill().await;
    assert_eq!(gateway.client.get(&url).await.text(), "v0");
}

#[tokio::test]
async fn a_slow_origin_is_not_waited_for_longer_than_fresh_timeout() {
    let origin = Origin::start().await;
    let gateway = Gateway::start("[cache]\nfresh_timeout = \"100ms\"").await;
    let cue = Cue::new();
    let hold = cue.clone();
    origin.on_each("/a", move |_, nth| {
        let reply = Reply::ok(format!("v{nth}")).cache_control("max-age=60");
        if nth == 0 { reply } else { reply.held(&hold) }
    });
    let url = origin.url("/a");
    gateway.client.get(&url).await;
    gateway.clock.step_secs(100);

    let stale = gateway.client.get(&url).await;
    assert_eq!(stale.text(), "v0");
    stale.assert_says(&["fwd=stale", "detail=fresh-timeout"]);

    cue.open();
    let fresh = eventually("the fill finishes behind", || async {
        let answer = gateway.client.get(&url).await;
        (answer.text() == "v1").then_some(answer)
    })
    .await;
    fresh.assert_says(&["hit", "ttl=60"]);
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn past_max_stale_offline_nothing_stale_is_served() {
    let config = "[cache]\nmax_stale_offline = \"1h\"";
    let (origin, gateway, url) = with_a_stale_response(config, "max-age=60").await;
    origin.kill().await;
    gateway
        .client
        .get(&url)
        .await
        .assert_says(&["detail=disconnected"]);
    gateway.clock.step_secs(3_600);
    gateway
        .client
        .get(&url)
        .await
        .assert_problem(504, "offline-miss");
}

#[tokio::test]
async fn a_clock_that_steps_back_makes_a_response_stale_not_newborn() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on_each("/a", |_, nth| {
        Reply::ok(format!("v{nth}")).cache_control("max-age=60")
    });
    let url = origin.url("/a");
    gateway.client.get(&url).await;
    gateway.clock.step_secs(-86_400);
    let answer = gateway.client.get(&url).await;
    assert_eq!(answer.text(), "v1");
    answer.assert_says(&["fwd=stale"]);
}

#[tokio::test]
async fn only_if_cached_never_asks_the_origin() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on("/a", Reply::ok("hello").cache_control("max-age=60"));
    let ask = || Request::get(&origin.url("/a")).header("Cache-Control", "only-if-cached");
    gateway
        .client
        .ask(ask())
        .await
        .assert_problem(504, "only-if-cached");
    assert_eq!(origin.connections(), 0);
    gateway.client.get(&origin.url("/a")).await;
    gateway.client.ask(ask()).await.assert_says(&["hit"]);
}
