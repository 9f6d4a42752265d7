//! What is in demand is validated before its freshness ends: once, within a budget, and only where that is wanted.

use tokio::{task::JoinSet, time::Instant};

use crate::support::{Cue, Gateway, Origin, Reply, Request, Step, eventually};

const ON: &str = "[cache]\nrefresh_ahead = 20\nrefresh_ahead_hits = 3";

/// Stores `path` and hits it so many times.
async fn warm(gateway: &Gateway, url: &str, hits: usize) {
    gateway.client.get(url).await;
    for _ in 0..hits {
        gateway.client.get(url).await.assert_says(&["hit"]);
    }
}

/// Time for whatever runs behind an answer to reach the origin, in round trips of the same thread.
async fn settle(gateway: &Gateway, origin: &Origin) {
    origin.on("/settle", Reply::ok("").cache_control("no-store"));
    for _ in 0..10 {
        gateway.client.get(&origin.url("/settle")).await;
    }
}

#[tokio::test]
async fn a_hot_key_is_refreshed_once_and_never_served_stale() {
    let (origin, gateway) = (Origin::start().await, Gateway::start(ON).await);
    origin.on(
        "/a",
        Reply::ok("hello")
            .cache_control("max-age=100")
            .etag("\"a\""),
    );
    let url = origin.url("/a");
    warm(&gateway, &url, 3).await;
    for round in 1..=3 {
        gateway.clock.step_secs(85);
        gateway
            .client
            .get(&url)
            .await
            .assert_says(&["hit", "ttl=15"]);
        let refreshed = eventually("the validation is stored", || async {
            let answer = gateway.client.get(&url).await;
            answer.assert_says(&["hit"]);
            answer.says("ttl=100").then_some(answer)
        })
        .await;
        assert_eq!(refreshed.text(), "hello");
        let seen = origin.seen_at("/a");
        assert_eq!(seen.len(), 1 + round);
        assert_eq!(seen[round].header("if-none-match"), Some("\"a\""));
    }
    let metrics = gateway.admin.get("/metrics").await;
    let counted = "hardtack_revalidations_total{upstream=\"forward\",outcome=\"not_modified\"} 3";
    assert!(metrics.text().contains(counted), "{}", metrics.text());
}

#[tokio::test]
async fn a_changed_representation_takes_the_place_of_the_fresh_one() {
    let (origin, gateway) = (Origin::start().await, Gateway::start(ON).await);
    origin.on_each("/a", |_, nth| {
        Reply::ok(format!("v{nth}")).cache_control("max-age=100")
    });
    let url = origin.url("/a");
    warm(&gateway, &url, 3).await;
    gateway.clock.step_secs(99);
    assert_eq!(gateway.client.get(&url).await.text(), "v0");
    eventually("the new one is stored", || async {
        let answer = gateway.client.get(&url).await;
        answer.assert_says(&["hit"]);
        (answer.text() == "v1").then_some(())
    })
    .await;
    assert_eq!(origin.seen_at("/a").len(), 2);
}

#[tokio::test]
async fn many_hits_near_the_end_cost_the_origin_one_request() {
    let (origin, gateway) = (Origin::start().await, Gateway::start(ON).await);
    let cue = Cue::new();
    let hold = cue.clone();
    origin.on_each("/a", move |_, nth| {
        let reply = Reply::ok("hello").cache_control("max-age=100");
        if nth == 0 { reply } else { reply.held(&hold) }
    });
    let url = origin.url("/a");
    warm(&gateway, &url, 3).await;
    gateway.clock.step_secs(90);
    let mut clients = JoinSet::new();
    for _ in 0..50 {
        let (client, url) = (gateway.client.clone(), url.clone());
        clients.spawn(async move { client.get(&url).await });
    }
    // The origin holds its answer: nobody waits for it.
    for answer in clients.join_all().await {
        answer.assert_says(&["hit", "ttl=10"]);
    }
    origin.sees("/a", 2).await;
    settle(&gateway, &origin).await;
    assert_eq!(origin.seen_at("/a").len(), 2);
    cue.open();
}

#[tokio::test]
async fn a_cold_key_and_one_far_from_its_end_are_left_alone() {
    let (origin, gateway) = (Origin::start().await, Gateway::start(ON).await);
    for (path, hits, age_secs) in [("/cold", 1, 90), ("/young", 20, 79)] {
        origin.on(path, Reply::ok("hello").cache_control("max-age=100"));
        warm(&gateway, &origin.url(path), hits).await;
        gateway.clock.step_secs(age_secs);
        gateway
            .client
            .get(&origin.url(path))
            .await
            .assert_says(&["hit"]);
        settle(&gateway, &origin).await;
        assert_eq!(origin.seen_at(path).len(), 1, "{path}");
    }
}

#[tokio::test]
async fn it_is_off_unless_asked_for_and_in_modes_that_do_not_ask() {
    for config in ["", "mode = \"prefer-cache\"\n[cache]\nrefresh_ahead = 50"] {
        let (origin, gateway) = (Origin::start().await, Gateway::start(config).await);
        origin.on("/a", Reply::ok("hello").cache_control("max-age=100"));
        let url = origin.url("/a");
        warm(&gateway, &url, 20).await;
        gateway.clock.step_secs(99);
        warm(&gateway, &url, 20).await;
        settle(&gateway, &origin).await;
        assert_eq!(origin.seen_at("/a").len(), 1, "{config}");
    }
}

#[tokio::test]
async fn the_budget_holds_for_all_keys_together() {
    const KEYS: usize = 40;
    let config = format!("{ON}\nrefresh_ahead_rate = \"1/s\"");
    let (origin, gateway) = (Origin::start().await, Gateway::start(&config).await);
    let path = |number| format!("/{number}");
    for number in 0..KEYS {
        origin.on(
            &path(number),
            Reply::ok("hello").cache_control("max-age=100"),
        );
        warm(&gateway, &origin.url(&path(number)), 3).await;
    }
    gateway.clock.step_secs(90);
    let began = Instant::now();
    for number in 0..KEYS {
        gateway.client.get(&origin.url(&path(number))).await;
    }
    let affordable = 2 + usize::try_from(began.elapsed().as_secs()).unwrap();
    settle(&gateway, &origin).await;
    let refreshed = (0..KEYS)
        .filter(|number| origin.seen_at(&path(*number)).len() > 1)
        .count();
    assert!(
        (1..=affordable).contains(&refreshed),
        "{refreshed} of {affordable}"
    );
}

/// A fill of the same key may bring another variant: then the chance of this one is still there, and it cost nothing.
#[tokio::test]
async fn a_fill_under_way_costs_neither_the_budget_nor_the_chance() {
    const BUSY: usize = 8;
    let config = format!("{ON}\nrefresh_ahead_rate = \"1/s\"");
    let (origin, gateway) = (Origin::start().await, Gateway::start(&config).await);
    let cue = Cue::new();
    let busy: Vec<String> = (0..BUSY).map(|number| format!("/{number}")).collect();
    for path in busy.iter().map(String::as_str).chain(["/free"]) {
        let hold = cue.clone();
        origin.on_each(path, move |seen, _| {
            let reply = Reply::ok("hello").cache_control("max-age=100");
            let reply = reply.header("Vary", "X-Theme");
            match seen.header("x-theme") {
                Some(_) => reply.held(&hold),
                None => reply,
            }
        });
        warm(&gateway, &origin.url(path), 3).await;
    }
    gateway.clock.step_secs(90);
    let mut others = Vec::new();
    for path in &busy {
        let mut other = gateway.client.connect().await;
        let request = Request::get(&origin.url(path)).header("X-Theme", "dark");
        other.send_request(&request).await;
        origin.sees(path, 2).await;
        others.push(other);
        let hit = gateway.client.get(&origin.url(path)).await;
        hit.assert_says(&["hit", "ttl=10"]);
    }
    gateway.client.get(&origin.url("/free")).await;
    origin.sees("/free", 2).await;
    assert!(busy.iter().all(|path| origin.seen_at(path).len() == 2));

    cue.open();
    others[0].answer("GET").await.assert_says(&["stored"]);
    eventually("it is refreshed after all", || async {
        let answer = gateway.client.get(&origin.url("/0")).await;
        answer.says("ttl=100").then_some(())
    })
    .await;
    assert_eq!(origin.seen_at("/0").len(), 3);
}

#[tokio::test]
async fn a_failed_refresh_leaves_the_fresh_copy_and_is_not_repeated() {
    let (origin, gateway) = (Origin::start().await, Gateway::start(ON).await);
    for (path, failure) in [
        ("/error", Reply::new(503, "bad")),
        ("/reset", Reply::script([Step::Reset])),
        (
            "/unstorable",
            Reply::new(403, "no").cache_control("no-store"),
        ),
    ] {
        origin.on_each(path, move |_, nth| match nth {
            0 => Reply::ok("hello").cache_control("max-age=100"),
            _ => failure.clone(),
        });
        let url = origin.url(path);
        warm(&gateway, &url, 3).await;
        gateway.clock.step_secs(85);
        gateway.client.get(&url).await;
        origin.sees(path, 2).await;
        settle(&gateway, &origin).await;
        // A reset on a pooled connection is repeated once by the upstream's own rule.
        let asked = origin.seen_at(path).len();
        for secs in [0, 2, 2, 2] {
            settle(&gateway, &origin).await;
            gateway.clock.step_secs(secs);
            let answer = gateway.client.get(&url).await;
            assert_eq!(answer.text(), "hello", "{path}");
            answer.assert_says(&["hit"]);
        }
        settle(&gateway, &origin).await;
        assert_eq!(origin.seen_at(path).len(), asked, "{path}");
    }
}

#[tokio::test]
async fn a_disconnected_upstream_is_not_asked() {
    let (origin, gateway) = (Origin::start().await, Gateway::start(ON).await);
    origin.on(
        "/a",
        Reply::ok("hello")
            .cache_control("max-age=100")
            .etag("\"a\""),
    );
    let url = origin.url("/a");
    warm(&gateway, &url, 3).await;
    gateway.clock.step_secs(90);
    origin.kill().await;
    // Whoever finds out is told; from then on only the prober asks.
    gateway
        .client
        .get(&origin.url("/other"))
        .await
        .assert_problem(504, "offline-miss");
    for _ in 0..5 {
        gateway
            .client
            .get(&url)
            .await
            .assert_says(&["hit", "ttl=10"]);
    }
    origin.revive();
    let refreshed = eventually("it is refreshed when the upstream is back", || async {
        let answer = gateway.client.get(&url).await;
        answer.says("ttl=100").then_some(answer)
    })
    .await;
    refreshed.assert_says(&["hit"]);
    assert_eq!(origin.seen_at("/a").len(), 2);
}
