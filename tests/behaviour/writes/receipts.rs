//! Receipts: what clients learn of their queued writes, and how they take one back.

use serde_json::Value;

use super::{Site, location, write};
use crate::support::{Answer, Client, Cue, Reply, Request, eventually, noise};

const ALWAYS: &str = r#"mode = "always""#;

/// More than a few dozen clients with tokens of their own.
const GUESSES: usize = 160;

impl Site {
    /// How many requests were taken for guesses of the admin token.
    async fn guesses_counted(&self) -> usize {
        let metrics = self.gateway.admin.get("/metrics").await;
        let mut lines = metrics.text().lines();
        let name = "hardtack_admin_authentication_failures_total ";
        let count = lines.find_map(|line| line.strip_prefix(name));
        count.expect("it is counted").parse().unwrap()
    }
}

async fn take_back(client: &Client, location: &str) -> Answer {
    client.ask(Request::new("DELETE", location)).await
}

#[tokio::test]
async fn a_receipt_says_what_has_become_of_the_write() {
    let site = Site::start(ALWAYS).await;
    site.origin.on_each("/a", |_, nth| match nth {
        0 => Reply::new(429, "not now"),
        _ => Reply::new(201, "made"),
    });
    site.lose_origin().await;
    let first = site.ask(write("POST", "/a?b=1")).await;
    assert_eq!(first.header("content-type"), Some("application/json"));
    let receipt = location(&first);
    let acknowledged = first.json();
    let behind = site.ask(write("POST", "/a")).await;

    let id = receipt.rsplit('/').next().unwrap();
    assert_eq!(uuid_version(id), '7');
    assert_eq!(acknowledged["id"], id);
    assert_eq!(acknowledged["state"], "queued");
    assert_eq!(acknowledged["lane"], "route:all");
    assert_eq!(acknowledged["position"], 0);
    assert_eq!(behind.json()["position"], 1);
    assert_eq!(acknowledged["links"]["self"], receipt.as_str());
    assert_eq!(
        acknowledged["links"]["response"],
        format!("{receipt}/response")
    );
    let accepted_at = acknowledged["accepted_at"].as_str().unwrap();
    assert!(
        accepted_at.ends_with('Z') && accepted_at.contains('T'),
        "{accepted_at}"
    );
    assert_eq!(site.receipt(&receipt).await, acknowledged);

    site.origin.on("/a?b=1", Reply::new(201, "made"));
    site.origin.revive();
    let done = site.until(&location(&behind), "done").await;
    assert_eq!(done["attempts"], 2);
    assert_eq!(done["last"]["status"], 201);
    assert_eq!(done["position"], Value::Null);
    assert!(done["ended_at"].is_string(), "{done}");
}

fn uuid_version(id: &str) -> char {
    id.chars().nth(14).expect("a UUID")
}

#[tokio::test]
async fn a_receipt_is_found_under_any_host_and_never_at_the_origin() {
    let site = Site::start(ALWAYS).await;
    site.lose_origin().await;
    let receipt = site.queue(write("POST", "/a")).await;
    let client = &site.gateway.client;
    for target in [
        receipt.clone(),
        format!("http://elsewhere.example{receipt}"),
        site.origin.url(&receipt),
    ] {
        let answer = client.get(&target).await;
        assert_eq!(answer.status, 200, "{target}: {answer:?}");
        assert_eq!(answer.json()["state"], "queued");
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    for unknown in [
        "/.well-known/hardtack/queue/",
        "/.well-known/hardtack/queue/7",
        "/.well-known/hardtack/queue/01900000-0000-7000-8000-000000000000",
    ] {
        assert_eq!(client.get(unknown).await.status, 404, "{unknown}");
    }
    for unknown in ["7", "01900000-0000-7000-8000-000000000000"] {
        let unknown = format!("/.well-known/hardtack/queue/{unknown}");
        for path in [unknown.clone(), format!("{unknown}/response")] {
            client.get(&path).await.assert_problem(404, "not-found");
        }
    }
    let response = client.get(&format!("{receipt}/response")).await;
    response.assert_problem(404, "not-found");
    let described = client.get("/.well-known/hardtack/problems/not-found").await;
    assert_eq!(described.status, 200);
    assert!(site.origin.seen().is_empty());
}

#[tokio::test]
async fn guessing_the_admin_token_at_a_receipt_is_as_slow_as_at_the_admin_listener() {
    let site = Site::start(ALWAYS).await;
    site.lose_origin().await;
    let receipt = site.queue(write("POST", "/a")).await;
    let client = &site.gateway.client;
    let guesses = (0..GUESSES).map(|nth| {
        let guess = Request::get(&receipt).header("Authorization", &format!("Bearer {nth}"));
        async move { client.ask(guess).await.status }
    });
    let statuses = futures_util::future::join_all(guesses).await;
    let of = |wanted| statuses.iter().filter(|status| **status == wanted).count();
    assert!(of(429) > 0 && of(404) > 0, "{statuses:?}");
    assert_eq!(of(429) + of(404), GUESSES, "{statuses:?}");
    // The first ones might be clients' own, and while this takes its time some more.
    let counted = site.guesses_counted().await;
    assert!((GUESSES / 2..=GUESSES - 64).contains(&counted), "{counted}");
    // Neither the client nor the operator is held up.
    assert_eq!(client.get(&receipt).await.status, 200);
    assert_eq!(site.operator.get(&receipt).await.status, 200);
}

#[tokio::test]
async fn a_client_whose_token_was_renewed_guesses_nothing() {
    let (_dir, site) = Site::start_with_key(ALWAYS, "").await;
    site.lose_origin().await;
    let with = |request: Request, token: &str| request.header("Authorization", token);
    let receipt = site.queue(with(write("POST", "/a"), "Bearer old")).await;
    let response = format!("{receipt}/response");
    for nth in 0..300 {
        let asked = match nth % 3 {
            0 => Request::get(&receipt),
            1 => Request::get(&response),
            _ => Request::new("DELETE", &receipt),
        };
        let answer = site.ask(with(asked, "Bearer new")).await;
        answer.assert_problem(404, "not-found");
    }
    assert_eq!(site.guesses_counted().await, 0);
    let known = site.ask(with(Request::get(&receipt), "Bearer old")).await;
    assert_eq!(known.json()["state"], "queued");
}

#[tokio::test]
async fn a_forward_proxied_write_has_a_receipt_that_works_through_the_proxy() {
    let site = Site::start_with(
        ALWAYS,
        "[[routes]]\nname = \"all\"\nwrite = { mode = \"always\" }",
    )
    .await;
    site.origin.on("/a", Reply::new(201, "made"));
    let answer = site.ask(write("POST", &site.origin.url("/a"))).await;
    let receipt = location(&answer);
    // A client that resolves it against what it asked.
    let absolute = site.origin.url(&receipt);
    eventually("the write is done", || async {
        let answer = site.gateway.client.get(&absolute).await;
        (answer.json()["state"] == "done").then_some(())
    })
    .await;
    let replayed = site
        .gateway
        .client
        .get(&format!("{absolute}/response"))
        .await;
    assert_eq!((replayed.status, replayed.text()), (201, "made"));
    assert_eq!(site.count("/a"), 1);
}

#[tokio::test]
async fn the_origins_answer_can_be_read_later() {
    let site = Site::start(ALWAYS).await;
    let made = Reply::new(201, "made").header("Location", "/a/1");
    site.origin.on(
        "/a",
        made.header("Content-Type", "text/x-origin")
            .header("X-A", "1"),
    );
    site.lose_origin().await;
    let receipt = site.queue(write("POST", "/a")).await;
    let response = format!("{receipt}/response");
    assert_eq!(site.gateway.client.get(&response).await.status, 404);
    site.origin.revive();
    site.until(&receipt, "done").await;

    for _ in 0..2 {
        let answer = site.gateway.client.get(&response).await;
        assert_eq!((answer.status, answer.text()), (201, "made"));
        assert_eq!(answer.header("location"), Some("/a/1"));
        assert_eq!(answer.header("content-type"), Some("text/x-origin"));
        assert_eq!(answer.header("x-a"), Some("1"));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
    }
    assert_eq!(site.count("/a"), 1);
}

#[tokio::test]
async fn so_can_an_answer_that_left_the_write_undelivered() {
    for (status, state) in [(409, "parked"), (422, "dead")] {
        let site = Site::start(ALWAYS).await;
        site.origin.on("/a", Reply::new(status, "why not"));
        let receipt = site.queue(write("POST", "/a")).await;
        site.until(&receipt, state).await;
        let answer = site
            .gateway
            .client
            .get(&format!("{receipt}/response"))
            .await;
        assert_eq!((answer.status, answer.text()), (status, "why not"));
    }
}

#[tokio::test]
async fn whoever_waits_for_a_receipt_hears_at_once() {
    let site = Site::start(ALWAYS).await;
    let cue = Cue::new();
    site.origin.on("/a", Reply::ok("made").held(&cue));
    let receipt = site.queue(write("POST", "/a")).await;
    site.origin.sees("/a", 1).await;
    let wait = |secs: u32| Request::get(&receipt).header("Prefer", &format!("wait={secs}"));
    let early = site.ask(wait(1)).await;
    assert_eq!(early.json()["state"], "sending");
    assert_eq!(early.header("preference-applied"), Some("wait=1"));

    let mut connection = site.gateway.client.connect().await;
    connection.send_request(&wait(60)).await;
    cue.open();
    // The test's own deadline is below the minute.
    let answer = connection.answer("GET").await;
    assert_eq!(answer.json()["state"], "done");
}

#[tokio::test]
async fn what_is_taken_back_is_never_sent() {
    let site = Site::start(ALWAYS).await;
    site.lose_origin().await;
    let first = site.queue(write("POST", "/a")).await;
    let taken_back = site.queue(write("POST", "/b")).await;
    let last = site.queue(write("POST", "/c")).await;
    let answer = take_back(&site.gateway.client, &taken_back).await;
    assert_eq!(
        (answer.status, &answer.json()["state"]),
        (200, &"cancelled".into())
    );
    assert_eq!(site.receipt(&taken_back).await["state"], "cancelled");
    assert_eq!(site.receipt(&last).await["position"], 1);
    // Once more is too late, not unknown.
    let too_late = take_back(&site.gateway.client, &taken_back).await;
    too_late.assert_problem(409, "not-in-this-state");

    site.origin.on("/a", Reply::ok(""));
    site.origin.on("/c", Reply::ok(""));
    site.origin.revive();
    site.until(&first, "done").await;
    site.until(&last, "done").await;
    site.let_deliveries_pass().await;
    assert_eq!(site.count("/b"), 0);
}

#[tokio::test]
async fn what_is_on_its_way_cannot_be_taken_back() {
    let site = Site::start(ALWAYS).await;
    let cue = Cue::new();
    site.origin.on("/a", Reply::ok("made").held(&cue));
    let receipt = site.queue(write("POST", "/a")).await;
    site.origin.sees("/a", 1).await;
    let client = &site.gateway.client;
    assert_eq!(take_back(client, &receipt).await.status, 409);
    assert_eq!(site.receipt(&receipt).await["state"], "sending");
    cue.open();
    site.until(&receipt, "done").await;
    assert_eq!(take_back(client, &receipt).await.status, 409);
    assert_eq!(site.receipt(&receipt).await["state"], "done");
}

#[tokio::test]
async fn a_receipt_is_its_writers_and_the_operators() {
    let (_dir, site) = Site::start_with_key(ALWAYS, "").await;
    site.origin.on("/a", Reply::ok("secret answer"));
    site.lose_origin().await;
    let mine = ("Authorization", "Bearer mine");
    let receipt = site.queue(write("POST", "/a").header(mine.0, mine.1)).await;
    let response = format!("{receipt}/response");
    let as_client = async |method: &str, target: &str, credential: Option<(&str, &str)>| {
        let request = Request::new(method, target);
        let request = match credential {
            Some((name, value)) => request.header(name, value),
            None => request,
        };
        site.ask(request).await.status
    };
    let strangers = [
        None,
        Some(("Authorization", "Bearer other")),
        Some(("Cookie", "mine")),
    ];
    for stranger in strangers {
        for (method, target) in [("GET", &receipt), ("GET", &response), ("DELETE", &receipt)] {
            assert_eq!(
                as_client(method, target, stranger).await,
                404,
                "{stranger:?}"
            );
        }
    }
    assert_eq!(as_client("GET", &receipt, Some(mine)).await, 200);
    assert_eq!(site.receipt(&receipt).await["state"], "queued");

    site.origin.revive();
    site.until(&receipt, "done").await;
    for stranger in strangers {
        assert_eq!(
            as_client("GET", &response, stranger).await,
            404,
            "{stranger:?}"
        );
    }
    assert_eq!(as_client("GET", &response, Some(mine)).await, 200);
    assert_eq!(site.operator.get(&response).await.text(), "secret answer");
}

#[tokio::test]
async fn a_receipt_is_gone_after_its_time() {
    let site = Site::start_with(ALWAYS, "[queue]\nreceipt_ttl = \"1h\"").await;
    site.origin.on("/a", Reply::ok("made"));
    let receipt = site.queue(write("POST", "/a")).await;
    site.until(&receipt, "done").await;
    site.gateway.clock.step_secs(3_500);
    assert_eq!(site.gateway.client.get(&receipt).await.status, 200);
    site.gateway.clock.step_secs(200);
    eventually("the receipt is gone", || async {
        // Something is written: what is too old goes with it.
        site.queue(write("POST", "/a")).await;
        let answer = site.gateway.client.get(&receipt).await;
        (answer.status == 404).then_some(())
    })
    .await;
    let response = format!("{receipt}/response");
    assert_eq!(site.gateway.client.get(&response).await.status, 404);
}

#[tokio::test]
async fn of_a_large_answer_the_beginning_is_kept_and_nobody_is_told_that_it_is_the_whole() {
    let site = Site::start(ALWAYS).await;
    let body = noise(100_000);
    site.origin.on(
        "/a",
        Reply::ok(body.clone())
            .header("ETag", "\"1\"")
            .header("Content-Digest", "sha-256=:AA==:"),
    );
    let request = write("POST", "/a").header("Prefer", "wait=30");
    let receipt = location(&site.ask(request).await);
    assert_eq!(site.receipt(&receipt).await["state"], "done");
    let response = format!("{receipt}/response");
    let answer = site.gateway.client.get(&response).await;
    assert_eq!((answer.status, answer.body.len()), (200, 64 * 1024));
    assert!(body.starts_with(&answer.body));
    assert_eq!(answer.header("hardtack-truncated"), Some("?1"));
    assert_eq!(answer.header("content-digest"), None);
    assert_eq!(answer.header("etag"), Some("\"1\""));
    let receipt = site.receipt(&receipt).await;
    assert_eq!(receipt["response"]["truncated"], true);
}
