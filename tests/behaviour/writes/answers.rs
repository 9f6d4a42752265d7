//! What the client of a write gets, by the route's mode and by what it prefers.

use serde_json::Value;

use super::{Site, config, location, write};
use crate::support::{Cue, Process, Reply, Request, Step, eventually, within};

const ON_FAILURE: &str = r#"mode = "on-failure""#;
const ALWAYS: &str = r#"mode = "always""#;

#[tokio::test]
async fn without_a_mode_nothing_changes() {
    let site = Site::start("").await;
    site.origin.on("/a", Reply::new(201, "made"));
    site.origin.on("/broken", Reply::script([Step::Close]));
    let request = || {
        let request = write("POST", "/a").header("Prefer", "respond-async, wait=5");
        request.header("Idempotency-Key", "\"k\"")
    };
    let answer = site.ask(request()).await;
    assert_eq!((answer.status, answer.text()), (201, "made"));
    for name in ["location", "preference-applied", "idempotency-key"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    site.ask(write("PUT", "/broken"))
        .await
        .assert_problem(502, "upstream-error");
    site.lose_origin().await;
    site.ask(request())
        .await
        .assert_problem(504, "offline-miss");
    assert!(!site.gateway.has_on_disk(b"to /a"));

    site.origin.revive();
    site.let_deliveries_pass().await;
    assert_eq!((site.count("/a"), site.count("/broken")), (1, 1));
}

#[tokio::test]
async fn as_long_as_all_is_well_the_answer_is_the_origins() {
    let site = Site::start(ON_FAILURE).await;
    let made = Reply::new(201, "made")
        .header("Location", "/a/1")
        .header("ETag", "\"1\"");
    site.origin.on("/a", made);
    let answer = site.ask(write("POST", "/a")).await;
    assert_eq!((answer.status, answer.text()), (201, "made"));
    assert_eq!(answer.header("location"), Some("/a/1"));
    assert_eq!(answer.header("etag"), Some("\"1\""));
    assert!(answer.says("fwd=method"), "{answer:?}");

    let seen = site.origin.seen_at("/a");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].header("hardtack-attempt"), None);
    assert_eq!(seen[0].header("idempotency-key"), None);
    assert!(!site.gateway.has_on_disk(b"to /a"));
}

#[tokio::test]
async fn the_access_event_of_a_queued_write_names_it() {
    let config = format!(
        "{}\n[telemetry]\nlog = {{ format = \"json\" }}",
        config("127.0.0.1:9".parse().unwrap(), ALWAYS, "")
    );
    let process = Process::start(&config).await;
    let receipt = location(&process.client.ask(write("POST", "/a")).await);
    assert_eq!(process.client.get(&receipt).await.status, 200);
    let missing = process.client.get(&format!("{receipt}/response")).await;
    missing.assert_problem(404, "not-found");
    let id = receipt.rsplit('/').next().unwrap();
    let events = eventually("every request has an event", || {
        let log = process.log();
        let lines = log.lines();
        let events: Vec<Value> = lines
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(|event: &Value| event.to_string().contains("\"Answered.\""))
            .map(|event| event.get("fields").cloned().unwrap_or(event))
            .filter(|event| {
                event["url"]
                    .as_str()
                    .is_some_and(|url| !url.contains("livez"))
            })
            .collect();
        async move { (events.len() >= 3).then_some(events) }
    })
    .await;
    let said: Vec<_> = events
        .iter()
        .map(|event| {
            (
                event["status"].as_u64(),
                event["queue_id"].as_str(),
                event["reason"].as_str(),
            )
        })
        .collect();
    let expected = [
        (Some(202), Some(id), Some("queued")),
        (Some(200), Some(id), None),
        (Some(404), None, Some("not-found")),
    ];
    assert_eq!(said, expected, "{events:?}");
}

#[tokio::test]
async fn reads_are_no_writes() {
    let site = Site::start(ALWAYS).await;
    site.origin
        .on("/a", Reply::ok("read").cache_control("max-age=60"));
    let answer = site.gateway.client.get("/a").await;
    assert_eq!((answer.status, answer.text()), (200, "read"));
    let answer = site.ask(write("OPTIONS", "/a")).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_write_is_acknowledged_before_its_origin_answers_where_it_always_is() {
    let site = Site::start(ALWAYS).await;
    let cue = Cue::new();
    site.origin.on("/a", Reply::new(201, "made").held(&cue));
    let answer = site.ask(write("POST", "/a")).await;
    let receipt = location(&answer);
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(answer.header("cache-status"), None);
    let retry_after = answer.header("retry-after").expect("when to ask again");
    assert!((1..=60).contains(&retry_after.parse::<u64>().unwrap()));
    assert!(
        site.gateway.has_on_disk(b"to /a"),
        "acknowledged is on disk"
    );

    site.origin.sees("/a", 1).await;
    assert_eq!(site.receipt(&receipt).await["state"], "sending");
    cue.open();
    site.until(&receipt, "done").await;
    assert_eq!(site.count("/a"), 1);
}

#[tokio::test]
async fn a_client_may_prefer_a_receipt() {
    let site = Site::start(ON_FAILURE).await;
    site.origin.on("/a", Reply::ok("made"));
    let answer = site
        .ask(write("POST", "/a").header("Prefer", "respond-async"))
        .await;
    assert_eq!(answer.header("preference-applied"), Some("respond-async"));
    site.until(&location(&answer), "done").await;
    assert_eq!(site.count("/a"), 1);
}

#[tokio::test]
async fn a_client_that_waits_gets_the_origins_answer_if_it_comes_in_time() {
    let site = Site::start(ALWAYS).await;
    let made = Reply::new(201, "made").header("ETag", "\"1\"");
    site.origin.on("/a", made);
    let waiting = || write("POST", "/a").header("Prefer", "wait=30");
    let answer = within("the origin's answer", site.ask(waiting())).await;
    assert_eq!((answer.status, answer.text()), (201, "made"));
    assert_eq!(answer.header("etag"), Some("\"1\""));
    assert_eq!(answer.header("preference-applied"), Some("wait=30"));
    assert_eq!(site.count("/a"), 1);

    // Its own Location is the origin's to say.
    site.origin
        .on("/a", Reply::new(201, "").header("Location", "/a/7"));
    let answer = site.ask(waiting()).await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (201, Some("/a/7"))
    );

    // Also an answer that leaves the write with an operator: where that is seen, it says.
    site.origin.on("/a", Reply::new(409, "conflict"));
    let answer = site.ask(waiting()).await;
    assert_eq!((answer.status, answer.text()), (409, "conflict"));
    let receipt = answer.header("content-location").expect("the receipt");
    let receipt = site.receipt(receipt).await;
    let found = (&receipt["state"], &receipt["reason"]);
    assert_eq!(found, (&"parked".into(), &"conflict".into()));
}

#[tokio::test]
async fn a_client_that_has_waited_long_enough_gets_the_receipt() {
    let site = Site::start(ALWAYS).await;
    let cue = Cue::new();
    site.origin.on("/a", Reply::new(201, "made").held(&cue));
    let request = write("POST", "/a").header("Prefer", "respond-async, wait=1");
    let answer = site.ask(request).await;
    let receipt = location(&answer);
    let applied = answer.header("preference-applied");
    assert_eq!(applied, Some("respond-async, wait=1"));
    assert_eq!(answer.json()["state"], "sending");
    cue.open();
    site.until(&receipt, "done").await;
}

#[tokio::test]
async fn what_may_not_be_stored_is_passed_on_whatever_the_mode() {
    for mode in [ON_FAILURE, ALWAYS] {
        for (name, value) in [("Cache-Control", "no-store"), ("Hardtack-Queue", "never")] {
            let site = Site::start(mode).await;
            site.origin.on("/a", Reply::new(201, "made"));
            let request = || write("PUT", "/a").header(name, value);
            let answer = site.ask(request()).await;
            assert_eq!(
                (answer.status, answer.text()),
                (201, "made"),
                "{mode} {name}"
            );
            site.origin.on("/a", Reply::new(503, "busy"));
            let answer = site.ask(request()).await;
            assert_eq!(
                (answer.status, answer.text()),
                (503, "busy"),
                "{mode} {name}"
            );

            site.lose_origin().await;
            let answer = site.ask(request()).await;
            answer.assert_problem(504, "offline-miss");
            assert!(!site.gateway.has_on_disk(b"to /a"), "{mode} {name}");
            site.origin.revive();
            site.let_deliveries_pass().await;
            assert_eq!(site.count("/a"), 2, "{mode} {name}");
        }
    }
}

#[tokio::test]
async fn a_route_answers_in_its_own_words() {
    let template = concat!(
        r#"mode = "always", response = { status = 200, body = "queued as {id} in {lane}", "#,
        r#"headers = ["X-Receipt: {location}", "Content-Type: text/plain", "Retry-After: 77"] }"#,
    );
    let site = Site::start(template).await;
    site.lose_origin().await;
    let answer = site.ask(write("POST", "/a")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let receipt = answer.header("x-receipt").expect("filled in").to_owned();
    let id = receipt.rsplit('/').next().unwrap();
    assert_eq!(answer.text(), format!("queued as {id} in route:all"));
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.list("retry-after"), "77");
    assert_eq!(site.receipt(&receipt).await["state"], "queued");
}

#[tokio::test]
async fn a_client_that_hangs_up_takes_no_acknowledged_write_along() {
    let site = Site::start(ALWAYS).await;
    let cue = Cue::new();
    site.origin.on("/a", Reply::ok("made").held(&cue));
    let mut connection = site.gateway.client.connect().await;
    let request = write("POST", "/a").header("Prefer", "wait=60");
    connection.send_request(&request).await;
    site.origin.sees("/a", 1).await;
    drop(connection);
    cue.open();
    site.let_deliveries_pass().await;
    eventually("the write is delivered", || async {
        let read = site.gateway.client.get("/a").await;
        read.header("hardtack-pending-writes")
            .is_none()
            .then_some(())
    })
    .await;
    let seen = site.origin.seen_at("/a");
    let posts = seen.iter().filter(|seen| seen.method == "POST");
    assert_eq!(posts.count(), 1);
}

#[tokio::test]
async fn what_is_for_the_gateway_or_changes_the_protocol_is_never_queued() {
    let site = Site::start(ALWAYS).await;
    let own = "/.well-known/hardtack/queue/01900000-0000-7000-8000-000000000000";
    for method in ["POST", "PUT", "PATCH"] {
        let answer = site.ask(write(method, own)).await;
        assert!(matches!(answer.status, 404 | 405), "{method}: {answer:?}");
    }
    site.origin.on("/a", Reply::new(426, "no other protocol"));
    let upgrade = Request::new("POST", "/a")
        .header("Connection", "Upgrade")
        .header("Upgrade", "chat");
    let answer = site.ask(upgrade).await;
    assert_eq!((answer.status, answer.text()), (426, "no other protocol"));
    site.let_deliveries_pass().await;
    assert_eq!(site.written(), ["/a", "/sentinel"]);
}

#[tokio::test]
async fn only_the_gateway_numbers_attempts() {
    let site = Site::start(ON_FAILURE).await;
    site.origin.on_each("/a", |_, nth| match nth {
        0 => Reply::new(429, "not now"),
        _ => Reply::ok("made"),
    });
    let request = write("POST", "/a").header("Hardtack-Attempt", "99");
    site.until(&site.queue(request).await, "done").await;
    let seen = site.origin.seen_at("/a");
    let attempts: Vec<_> = seen
        .iter()
        .map(|seen| seen.all("hardtack-attempt"))
        .collect();
    assert_eq!(attempts, [vec![], vec!["2"]]);
}
