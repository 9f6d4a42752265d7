//! The admin API over its own listener, before a real gateway and a real origin.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "support/mod.rs"]
#[expect(dead_code, unused_imports, reason = "each test binary uses its part")]
mod support;

#[path = "admin/queue.rs"]
mod queue;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use support::{Answer, Client, Gateway, Origin, Reply, Request, noise, reverse_to};

async fn get(gateway: &Gateway, target: &str) -> Value {
    let answer = gateway.admin.get(&format!("/api/v1/{target}")).await;
    assert_eq!(answer.status, 200, "{target}: {answer:?}");
    answer.json()
}

async fn send(gateway: &Gateway, method: &str, target: &str, body: &Value) -> Answer {
    let request = Request::new(method, &format!("/api/v1/{target}"))
        .header("Content-Type", "application/json")
        .body(body.to_string());
    gateway.admin.ask(request).await
}

async fn delete(gateway: &Gateway, target: &str) -> Answer {
    let request = Request::new("DELETE", &format!("/api/v1/{target}"));
    gateway.admin.ask(request).await
}

async fn purge(gateway: &Gateway, wanted: Value) -> Value {
    let answer = send(gateway, "POST", "cache/purge", &wanted).await;
    assert_eq!(answer.status, 200, "{wanted}: {answer:?}");
    answer.json()
}

fn urls(page: &Value) -> Vec<&str> {
    let items = page["items"].as_array().unwrap();
    items
        .iter()
        .map(|item| item["url"].as_str().unwrap())
        .collect()
}

async fn listed(gateway: &Gateway, query: &str) -> BTreeSet<String> {
    let page = get(gateway, &format!("cache/entries?{query}")).await;
    urls(&page).into_iter().map(str::to_owned).collect()
}

/// A gateway that has stored `/item/0` to `/item/5` (each larger than the one before; the even ones fresh for a
/// minute, the odd ones for an hour), ten minutes ago.
async fn with_six_stored() -> (Origin, Gateway) {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    for number in 0..6 {
        let max_age = if number % 2 == 0 {
            "max-age=60"
        } else {
            "max-age=3600"
        };
        let path = format!("/item/{number}");
        let reply = Reply::ok(noise(100 * (number + 1)));
        origin.on(&path, reply.cache_control(max_age).etag("\"1\""));
        gateway.client.get(&origin.url(&path)).await;
    }
    gateway.clock.step_secs(600);
    (origin, gateway)
}

#[tokio::test]
async fn pages_of_every_order_and_size_join_to_what_is_stored() {
    let (origin, gateway) = with_six_stored().await;
    let expected: BTreeSet<String> = (0..6).map(|n| origin.url(&format!("/item/{n}"))).collect();
    for order in [
        "",
        "&sort=-hits",
        "&sort=age",
        "&sort=size",
        "&state=fresh,stale",
    ] {
        for limit in [1, 2, 5, 6, 100] {
            let (mut all, mut cursor) = (Vec::new(), String::new());
            loop {
                let target = format!("cache/entries?limit={limit}{order}{cursor}");
                let page = get(&gateway, &target).await;
                assert!(urls(&page).len() <= limit, "{target}");
                all.extend(urls(&page).into_iter().map(str::to_owned));
                match page["next_cursor"].as_str() {
                    Some(next) => cursor = format!("&cursor={next}"),
                    None => break,
                }
            }
            assert_eq!(all.len(), 6, "nothing twice: {order} {limit}");
            assert_eq!(
                all.into_iter().collect::<BTreeSet<_>>(),
                expected,
                "{order} {limit}"
            );
        }
    }
    let largest = get(&gateway, "cache/entries?sort=size&limit=1").await;
    assert_eq!(urls(&largest), [origin.url("/item/5")]);
}

#[tokio::test]
async fn filters_select_and_must_all_hold() {
    let (origin, gateway) = with_six_stored().await;
    let url = |number: usize| origin.url(&format!("/item/{number}"));
    let of = |numbers: &[usize]| numbers.iter().map(|n| url(*n)).collect::<BTreeSet<_>>();
    let address = origin.address();
    for (query, expected) in [
        ("state=fresh".to_owned(), of(&[1, 3, 5])),
        ("state=stale".to_owned(), of(&[0, 2, 4])),
        ("state=stale&limit=2".to_owned(), of(&[0, 2])),
        ("path_prefix=/item/3".to_owned(), of(&[3])),
        ("path_prefix=/other".to_owned(), of(&[])),
        ("q=tem/4".to_owned(), of(&[4])),
        ("host=127.0.0.1".to_owned(), of(&[0, 1, 2, 3, 4, 5])),
        (format!("host={address}"), of(&[0, 1, 2, 3, 4, 5])),
        ("host=127.0.0.1:1".to_owned(), of(&[])),
        ("tier=memory,disk&state=fresh&q=item/5".to_owned(), of(&[5])),
        ("state=fresh&path_prefix=/item/4".to_owned(), of(&[])),
    ] {
        assert_eq!(listed(&gateway, &query).await, expected, "{query}");
    }
    for wrong in [
        "limit=0",
        "limit=1001",
        "limit=x",
        "state=old",
        "tier=tape",
        "sort=hits",
        "cursor=!",
        "colour=red",
    ] {
        let answer = gateway
            .admin
            .get(&format!("/api/v1/cache/entries?{wrong}"))
            .await;
        assert_eq!(answer.status, 400, "{wrong}");
        answer.assert_problem(400, "bad-request");
    }
}

async fn only_entry(gateway: &Gateway) -> Value {
    let page = get(gateway, "cache/entries").await;
    assert_eq!(urls(&page).len(), 1, "{page}");
    page["items"][0].clone()
}

#[tokio::test]
async fn what_a_shared_cache_stored_is_shown_with_the_lifetime_for_shared_caches() {
    for (config, partition, ttl_secs) in [
        ("preserve_host = true", Some("host-shop.example"), 1_000),
        ("cache.kind = \"private\"", None, 10),
    ] {
        let origin = Origin::start().await;
        let gateway = Gateway::start(&(reverse_to(origin.address()) + config)).await;
        let reply = Reply::ok("hello").cache_control("max-age=10, s-maxage=1000");
        origin.on("/a", reply);
        let request = Request::get("/a").header("Host", "shop.example");
        gateway.client.ask(request).await;
        let entry = only_entry(&gateway).await;
        assert_eq!(entry["ttl_secs"], ttl_secs, "{entry}");
        if let Some(partition) = partition {
            assert_eq!(entry["partition"], partition);
        }
    }
}

#[tokio::test]
async fn an_entry_tells_what_is_known_of_it() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let body = noise(5_000);
    let reply = Reply::ok(body.clone())
        .cache_control("max-age=60, stale-while-revalidate=30")
        .etag("\"v1\"")
        .header("Content-Type", "application/x-noise");
    origin.on("/a", reply);
    gateway.client.get(&origin.url("/a")).await;
    gateway.client.get(&origin.url("/a")).await;
    gateway.clock.step_secs(100);

    let id = only_entry(&gateway).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(id.len(), 32);
    let entry = get(&gateway, &format!("cache/entries/{id}")).await;
    for (member, expected) in [
        ("url", json!(origin.url("/a"))),
        ("status", json!(200)),
        ("state", json!("stale")),
        ("age_secs", json!(100)),
        ("ttl_secs", json!(-40)),
        ("tier", json!("memory")),
        ("size_bytes", json!(5_000)),
        ("hits", json!(1)),
        ("mark", json!("none")),
        ("method", json!("GET")),
        ("partition", json!(null)),
        ("content_type", json!("application/x-noise")),
    ] {
        assert_eq!(entry[member], expected, "{member} of {entry}");
    }
    assert_eq!(entry["validators"]["etag"], "\"v1\"");
    assert_eq!(entry["windows"]["stale_while_revalidate_secs"], 30);
    assert_eq!(entry["windows"]["stale_offline_secs"], 7 * 86_400);
    let headers = entry["headers"].as_array().unwrap();
    assert!(
        headers.contains(&json!({"name": "etag", "value": "\"v1\""})),
        "{entry}"
    );

    let stored = gateway
        .admin
        .get(&format!("/api/v1/cache/entries/{id}/body"))
        .await;
    assert!(stored.body == body && stored.is_complete);
    assert_eq!(
        stored.header("content-type"),
        Some("application/octet-stream")
    );
    assert_eq!(stored.header("content-disposition"), Some("attachment"));
}

#[tokio::test]
async fn the_body_of_a_large_entry_is_read_from_disk_after_a_restart() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let body = noise(1 << 20);
    origin.on("/a", Reply::ok(body.clone()).cache_control("max-age=60"));
    gateway.client.get(&origin.url("/a")).await;
    let before = only_entry(&gateway).await;
    let gateway = gateway.restart("").await;
    let after = only_entry(&gateway).await;
    assert_eq!(after["tier"], "disk");
    assert_eq!(after["id"], before["id"], "an id is stable");
    let id = after["id"].as_str().unwrap();
    let stored = gateway
        .admin
        .get(&format!("/api/v1/cache/entries/{id}/body"))
        .await;
    assert!(stored.body == body && stored.is_complete);
}

#[tokio::test]
async fn variants_are_listed_and_removed_one_by_one() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on_each("/a", |seen, _| {
        let language = seen.header("accept-language").unwrap_or("none").to_owned();
        Reply::ok(language)
            .cache_control("max-age=60")
            .header("Vary", "Accept-Language")
    });
    let url = origin.url("/a");
    let ask = async |language| {
        let request = Request::get(&url).header("Accept-Language", language);
        gateway.client.ask(request).await
    };
    for language in ["de", "fr"] {
        ask(language).await;
    }
    let page = get(&gateway, "cache/entries").await;
    assert_eq!(urls(&page), [&url, &url]);
    let id = page["items"][0]["id"].as_str().unwrap();
    let entry = get(&gateway, &format!("cache/entries/{id}")).await;
    assert_eq!(entry["variants"].as_array().unwrap().len(), 2);
    assert_eq!(entry["variants"][0]["id"], id, "this one comes first");
    let body = gateway
        .admin
        .get(&format!("/api/v1/cache/entries/{id}/body"))
        .await;
    let (removed, kept) = if body.text() == "de" {
        ("de", "fr")
    } else {
        ("fr", "de")
    };

    let answer = delete(&gateway, &format!("cache/entries/{id}")).await;
    assert_eq!(
        (answer.status, &answer.json()["sample"]),
        (200, &json!([url]))
    );
    for target in [
        format!("cache/entries/{id}"),
        format!("cache/entries/{id}/body"),
    ] {
        gateway
            .admin
            .get(&format!("/api/v1/{target}"))
            .await
            .assert_problem(404, "not-found");
    }
    delete(&gateway, &format!("cache/entries/{id}"))
        .await
        .assert_problem(404, "not-found");
    ask(kept).await.assert_says(&["hit"]);
    assert!(!ask(removed).await.says("hit"));
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing() {
    let (origin, gateway) = with_six_stored().await;
    let seen = origin.seen().len();
    let wanted = json!({"prefix": origin.url("/item/"), "soft": false, "dry_run": true});
    let found = purge(&gateway, wanted).await;
    assert_eq!(found["count"], 6);
    assert_eq!(found["sample"].as_array().unwrap().len(), 6);
    assert_eq!(listed(&gateway, "state=fresh").await.len(), 3);
    gateway
        .client
        .get(&origin.url("/item/1"))
        .await
        .assert_says(&["hit"]);
    assert_eq!(origin.seen().len(), seen);
}

#[tokio::test]
async fn a_soft_purge_marks_stale_and_still_serves_an_outage() {
    let (origin, gateway) = with_six_stored().await;
    let url = origin.url("/item/1");
    assert_eq!(purge(&gateway, json!({"url": url})).await["count"], 1);
    let entries = get(&gateway, "cache/entries?q=item/1").await;
    assert_eq!(entries["items"][0]["state"], "stale");
    let id = entries["items"][0]["id"].as_str().unwrap();
    assert_eq!(
        get(&gateway, &format!("cache/entries/{id}")).await["mark"],
        "stale"
    );
    origin.kill().await;
    let answer = gateway.client.get(&url).await;
    assert_eq!(answer.status, 200);
    answer.assert_says(&["fwd=stale", "detail=disconnected"]);
}

#[tokio::test]
async fn entries_are_found_purged_and_shown_by_tag() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    for (path, tags) in [("/a", "news front"), ("/b", "news"), ("/c", "sport")] {
        let reply = Reply::ok("v")
            .cache_control("max-age=60")
            .header("Surrogate-Key", tags);
        origin.on(path, reply.header("Cache-Groups", "\"g\", \"h\""));
        gateway.client.get(&origin.url(path)).await;
    }
    let expected: BTreeSet<_> = ["/a", "/b"].map(|path| origin.url(path)).into();
    assert_eq!(listed(&gateway, "tag=news").await, expected);
    assert_eq!(
        listed(&gateway, "tag=news&path_prefix=/b&tier=memory")
            .await
            .len(),
        1
    );
    assert_eq!(listed(&gateway, "tag=News").await.len(), 0);
    let page = get(&gateway, "cache/entries?tag=front").await;
    let id = page["items"][0]["id"].as_str().unwrap();
    let entry = get(&gateway, &format!("cache/entries/{id}")).await;
    assert_eq!(entry["tags"], json!(["news", "front"]));
    assert_eq!(entry["groups"], json!(["g", "h"]));

    let dry_run = purge(&gateway, json!({"tag": "news", "dry_run": true})).await;
    assert_eq!(
        (
            dry_run["count"].as_u64(),
            dry_run["sample"].as_array().unwrap().len()
        ),
        (Some(2), 2)
    );
    assert_eq!(purge(&gateway, json!({"tag": "news"})).await["count"], 2);
    assert_eq!(listed(&gateway, "state=stale").await, expected);
    assert_eq!(
        purge(&gateway, json!({"tag": "news", "soft": false})).await["count"],
        2
    );
    assert_eq!(listed(&gateway, "").await.len(), 1);
    let both = json!({"tag": "news", "url": origin.url("/a")});
    send(&gateway, "POST", "cache/purge", &both)
        .await
        .assert_problem(400, "bad-request");
}

#[tokio::test]
async fn a_hard_purge_leaves_nothing_to_serve() {
    let (origin, gateway) = with_six_stored().await;
    let purged = purge(
        &gateway,
        json!({"prefix": origin.url("/item/1"), "soft": false}),
    )
    .await;
    assert_eq!(purged["count"], 1);
    let host = json!({"host": origin.address().to_string(), "soft": false, "dry_run": true});
    assert_eq!(purge(&gateway, host).await["count"], 5);
    let host = json!({"host": "127.0.0.1", "soft": false});
    assert_eq!(purge(&gateway, host).await["count"], 5);
    assert!(listed(&gateway, "").await.is_empty());
    origin.kill().await;
    let answer = gateway.client.get(&origin.url("/item/3")).await;
    answer.assert_problem(504, "offline-miss");
}

#[tokio::test]
async fn a_purge_takes_the_url_of_the_client_and_of_the_origin() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    origin.on("/a", Reply::ok("a").cache_control("max-age=60"));
    gateway.client.get("/a").await;
    let of_client = format!("http://{}/a", gateway.client.address);
    for url in [of_client, origin.url("/a")] {
        let found = purge(&gateway, json!({"url": url, "dry_run": true})).await;
        assert_eq!(
            (&found["count"], &found["sample"]),
            (&json!(1), &json!([origin.url("/a")])),
            "{url}"
        );
    }
}

#[tokio::test]
async fn a_wrong_body_changes_nothing_and_says_why() {
    let (origin, gateway) = with_six_stored().await;
    let wrong = [
        json!({}),
        json!({"url": origin.url("/item/1"), "host": "127.0.0.1"}),
        json!({"host": "127.0.0.1", "softly": true}),
        json!({"prefix": ""}),
        json!(["127.0.0.1"]),
    ];
    for body in wrong {
        send(&gateway, "POST", "cache/purge", &body)
            .await
            .assert_problem(400, "bad-request");
    }
    let purge = || Request::new("POST", "/api/v1/cache/purge");
    let json = r#"{"host":"127.0.0.1","soft":false}"#;
    let untyped = gateway.admin.ask(purge().body(json)).await;
    untyped.assert_problem(415, "not-json");
    let form = purge().header("Content-Type", "application/x-www-form-urlencoded");
    gateway
        .admin
        .ask(form.body("host=127.0.0.1"))
        .await
        .assert_problem(415, "not-json");
    let large = purge().header("Content-Type", "application/json");
    let large = gateway
        .admin
        .ask(large.body(vec![b' '; 64 * 1024 + 1]))
        .await;
    large.assert_problem(413, "body-too-large");
    assert_eq!(listed(&gateway, "state=fresh").await.len(), 3);
}

const TWO_ROUTES: &str = r#"
    [[routes]]
    name = "first"
    match = { path = "/first/**" }
    [[routes]]
    name = "second"
    match = { path = "/second/**" }
    mode = "online"
"#;

#[tokio::test]
async fn a_mode_is_overridden_until_its_time_is_over_or_it_is_taken_back() {
    let gateway = Gateway::start(TWO_ROUTES).await;
    let modes = async || {
        let view = get(&gateway, "mode").await;
        let routes = view["routes"].as_array().unwrap();
        let routes = routes
            .iter()
            .map(|route| route["mode"].as_str().unwrap().to_owned());
        let all: Vec<_> = [view["mode"].as_str().unwrap().to_owned()]
            .into_iter()
            .chain(routes)
            .collect();
        all.join(" ")
    };
    assert_eq!(modes().await, "auto auto online");
    let body = json!({"mode": "offline", "for": "30m", "reason": "drill"});
    let answer = send(&gateway, "PUT", "mode", &body).await;
    assert_eq!(answer.status, 200);
    let overrides = &answer.json()["overrides"];
    assert_eq!(overrides[0]["mode"], "offline");
    assert_eq!(overrides[0]["reason"], "drill");
    assert!(overrides[0]["until"].as_str().unwrap().ends_with('Z'));
    assert_eq!(modes().await, "offline offline offline");
    send(
        &gateway,
        "PUT",
        "mode",
        &json!({"mode": "prefer-cache", "route": "first"}),
    )
    .await;
    assert_eq!(modes().await, "offline prefer-cache offline");
    gateway.clock.step_secs(1_801);
    assert_eq!(
        modes().await,
        "auto prefer-cache online",
        "30 minutes are over"
    );
    assert_eq!(delete(&gateway, "mode?route=first").await.status, 200);
    assert_eq!(modes().await, "auto auto online");

    for wrong in [
        json!({"mode": "sometimes"}),
        json!({"for": "30m"}),
        json!({"mode": "offline", "for": "30"}),
        json!({"mode": "offline", "until": "2001-01-01T00:00:00Z"}),
        json!({"mode": "offline", "for": "30m", "until": "2999-01-01T00:00:00Z"}),
    ] {
        send(&gateway, "PUT", "mode", &wrong)
            .await
            .assert_problem(400, "bad-request");
    }
    let nobody = json!({"mode": "offline", "route": "third"});
    send(&gateway, "PUT", "mode", &nobody)
        .await
        .assert_problem(404, "not-found");
    delete(&gateway, "mode?route=third")
        .await
        .assert_problem(404, "not-found");
    assert_eq!(modes().await, "auto auto online");
}

#[tokio::test]
async fn an_upstream_is_offline_when_the_operator_says_so() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    origin.on("/a", Reply::ok("a").cache_control("max-age=60"));
    gateway.client.get("/a").await;
    gateway.clock.step_secs(100);

    let body = json!({"mode": "offline", "for": "1h", "reason": "maintenance"});
    let answer = send(&gateway, "PUT", "upstreams/origin/override", &body).await;
    assert_eq!(
        (answer.status, &answer.json()["connectivity"]),
        (200, &json!("disconnected"))
    );
    gateway
        .client
        .get("/a")
        .await
        .assert_says(&["hit", "detail=disconnected"]);
    gateway
        .client
        .get("/b")
        .await
        .assert_problem(504, "offline-miss");
    assert_eq!(origin.seen().len(), 1);

    let ready = Client::new(gateway.admin.address).get("/readyz").await;
    assert_eq!(
        (ready.status, ready.json()),
        (
            200,
            json!({"status": "ready", "degraded": ["upstream-disconnected"]})
        )
    );
    let status = get(&gateway, "status").await;
    assert_eq!(status["upstreams"][0]["overridden"], true);
    let metrics = Client::new(gateway.admin.address).get("/metrics").await;
    assert!(
        metrics
            .text()
            .contains("hardtack_upstream_connected{upstream=\"origin\"} 0")
    );

    let answer = delete(&gateway, "upstreams/origin/override").await;
    assert_eq!(
        (answer.status, &answer.json()["override"]),
        (200, &json!(null))
    );
    assert_eq!(gateway.client.get("/a").await.text(), "a");
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn an_implicit_upstream_is_named_by_its_encoded_authority() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on("/a", Reply::ok("a").cache_control("max-age=60"));
    gateway.client.get(&origin.url("/a")).await;
    let page = get(&gateway, "upstreams").await;
    let name = page["items"][0]["name"].as_str().unwrap();
    assert_eq!(page["items"][0]["configured"], false);
    assert_eq!(page["next_cursor"], json!(null));

    let encoded = name.replace(':', "%3A").replace('/', "%2F");
    let body = json!({"connectivity": "offline"});
    let answer = send(
        &gateway,
        "PUT",
        &format!("upstreams/{encoded}/override"),
        &body,
    )
    .await;
    assert_eq!(answer.json()["override"]["mode"], "offline");
    gateway
        .client
        .get(&origin.url("/b"))
        .await
        .assert_problem(504, "offline-miss");
    let answer = send(&gateway, "PUT", "upstreams/nobody/override", &body).await;
    answer.assert_problem(404, "not-found");
    let wrong = send(
        &gateway,
        "PUT",
        &format!("upstreams/{encoded}/override"),
        &json!({"mode": "auto"}),
    )
    .await;
    wrong.assert_problem(400, "bad-request");
}

#[tokio::test]
async fn status_and_metrics_tell_what_happened() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on("/a", Reply::ok(noise(1_000)).cache_control("max-age=60"));
    for _ in 0..3 {
        gateway.client.get(&origin.url("/a")).await;
    }
    let status = get(&gateway, "status").await;
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["state"], "ready");
    assert_eq!(status["degraded"], json!([]));
    assert_eq!(status["mode"]["mode"], "auto");
    assert_eq!(status["upstreams"][0]["connectivity"], "connected");
    assert_eq!(status["cache"]["memory"]["entries"], 1);
    assert!(status["cache"]["memory"]["bytes"].as_u64().unwrap() > 1_000);
    assert_eq!(status["cache"]["requests"]["hit"], 2);
    assert_eq!(status["cache"]["requests"]["miss"], 1);
    assert!(
        status["config"]["file"]
            .as_str()
            .unwrap()
            .ends_with("test.toml")
    );

    let metrics = Client::new(gateway.admin.address).get("/metrics").await;
    assert!(
        metrics
            .header("content-type")
            .unwrap()
            .starts_with("application/openmetrics-text")
    );
    for line in [
        "hardtack_cache_entries{tier=\"memory\"} 1\n",
        "hardtack_cache_capacity_bytes{tier=\"memory\"} 268435456\n",
        "# EOF\n",
    ] {
        assert!(
            metrics.text().contains(line),
            "{line} in {}",
            metrics.text()
        );
    }
}

#[tokio::test]
async fn who_has_no_token_learns_nothing_and_changes_nothing() {
    let (_origin, gateway) = with_six_stored().await;
    let anybody = Client::new(gateway.admin.address);
    for target in [
        "status",
        "cache/entries",
        "mode",
        "openapi.json",
        "no/such/path",
        "",
    ] {
        let answer = anybody.get(&format!("/api/v1/{target}")).await;
        answer.assert_problem(401, "unauthorized");
        assert!(
            answer
                .header("www-authenticate")
                .unwrap()
                .starts_with("Bearer")
        );
    }
    let put = || Request::new("PUT", "/api/v1/mode").header("Content-Type", "application/json");
    let offline = r#"{"mode":"offline"}"#;
    anybody
        .ask(put().body(offline))
        .await
        .assert_problem(401, "unauthorized");
    let guess = anybody.clone().with_bearer("0".repeat(64));
    guess
        .ask(put().body(offline))
        .await
        .assert_problem(401, "unauthorized");
    let status = get(&gateway, "status").await;
    assert_eq!(
        (&status["mode"]["mode"], &status["authentication_failures"]),
        (&json!("auto"), &json!(8))
    );
    assert_eq!(
        anybody.get("/livez").await.json(),
        json!({"status": "alive", "degraded": []})
    );
}

#[tokio::test]
async fn a_host_that_is_not_ours_is_misdirected() {
    let gateway = Gateway::start("").await;
    let ask = async |target: &str| {
        // An absolute-form target, from which the client takes its Host.
        gateway
            .admin
            .get(&format!("http://evil.example{target}"))
            .await
    };
    ask("/api/v1/status")
        .await
        .assert_problem(421, "host-not-allowed");
    ask("/").await.assert_problem(421, "host-not-allowed");
    for probe in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(ask(probe).await.status, 200, "{probe}");
    }
}

#[tokio::test]
async fn the_openapi_document_describes_what_answers() {
    let gateway = Gateway::start("").await;
    let document = get(&gateway, "openapi.json").await;
    assert!(document["openapi"].as_str().unwrap().starts_with("3."));
    let paths = document["paths"].as_object().unwrap();
    for (path, methods) in paths {
        let mut target = path.replace("{id}", "00").replace("{name}", "nobody");
        if path.ends_with("/events") {
            // A stream that is asked for properly does not end.
            target.push_str("?types=none");
        }
        for method in methods.as_object().unwrap().keys() {
            let request = Request::new(&method.to_uppercase(), &target);
            let answer = gateway.admin.ask(request).await;
            // What the path asks for may be missing (404 by the handler), but not the path or the method.
            assert_ne!(answer.status, 405, "{method} {path}");
            assert!(
                !answer.text().contains("nothing at this path"),
                "{method} {path}"
            );
        }
        let answer = gateway.admin.ask(Request::new("PATCH", &target)).await;
        answer.assert_problem(405, "method-not-allowed");
        let allowed = answer.header("allow").unwrap().to_lowercase();
        for method in methods.as_object().unwrap().keys() {
            assert!(allowed.contains(method.as_str()), "{path} allows {allowed}");
        }
    }
    gateway
        .admin
        .get("/api/v1/nothing")
        .await
        .assert_problem(404, "not-found");
    gateway
        .admin
        .get("/")
        .await
        .assert_problem(404, "not-found");
}
