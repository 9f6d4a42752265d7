//! Idempotency keys: a client's own, and those the gateway makes.

use futures_util::future::join_all;

use super::{Site, location, write};
use crate::support::{Answer, Reply, Request, Step};

const PASS: &str = r#"mode = "always", idempotency = "pass""#;

fn keyed(key: &str, body: &'static str) -> Request {
    let request = Request::new("POST", "/a").header("Idempotency-Key", key);
    request.body(body)
}

#[tokio::test]
async fn a_key_that_was_used_gets_the_same_receipt_before_and_after_the_delivery() {
    let site = Site::start(PASS).await;
    site.origin.on("/a", Reply::new(201, "made"));
    site.lose_origin().await;
    let first = site.ask(keyed("\"k\"", "x")).await;
    assert_eq!(first.header("idempotency-key"), Some("\"k\""));
    let receipt = location(&first);
    // Quotes are syntax, not part of the key.
    for key in ["\"k\"", "k"] {
        let again = site.ask(keyed(key, "x")).await;
        assert_eq!(location(&again), receipt);
        // As this client writes it.
        assert_eq!(again.header("idempotency-key"), Some(key));
    }
    site.origin.revive();
    site.until(&receipt, "done").await;

    let later = site.ask(keyed("\"k\"", "x")).await;
    assert_eq!(location(&later), receipt);
    assert_eq!(later.json()["state"], "done");
    let waiting = keyed("\"k\"", "x").header("Prefer", "wait=5");
    let answer = site.ask(waiting).await;
    assert_eq!((answer.status, answer.text()), (201, "made"));
    site.let_deliveries_pass().await;
    assert_eq!(site.count("/a"), 1);
    assert_eq!(
        site.origin.seen_at("/a")[0].header("idempotency-key"),
        Some("\"k\"")
    );
}

#[tokio::test]
async fn a_key_that_was_used_with_another_body_is_refused() {
    let site = Site::start(PASS).await;
    site.origin.on("/a", Reply::new(201, "made"));
    site.lose_origin().await;
    let receipt = site.queue(keyed("k", "x")).await;
    let refuses = async |site: &Site| {
        let answer: Answer = site.ask(keyed("k", "y")).await;
        answer.assert_problem(422, "idempotency-mismatch");
    };
    refuses(&site).await;
    site.origin.revive();
    site.until(&receipt, "done").await;
    refuses(&site).await;
    site.let_deliveries_pass().await;
    assert_eq!(site.count("/a"), 1);
}

#[tokio::test]
async fn what_differs_in_method_url_or_key_is_another_write() {
    let site = Site::start(PASS).await;
    site.lose_origin().await;
    let mut receipts = vec![
        site.queue(keyed("k", "x")).await,
        site.queue(keyed("l", "x")).await,
        site.queue(
            Request::new("PATCH", "/a")
                .header("Idempotency-Key", "k")
                .body("x"),
        )
        .await,
        site.queue(
            Request::new("POST", "/b")
                .header("Idempotency-Key", "k")
                .body("x"),
        )
        .await,
        site.queue(Request::new("POST", "/a").body("x")).await,
        site.queue(Request::new("POST", "/a").body("x")).await,
    ];
    receipts.sort();
    receipts.dedup();
    assert_eq!(receipts.len(), 6);
}

#[tokio::test]
async fn a_key_is_known_after_a_restart() {
    let site = Site::start(PASS).await;
    site.lose_origin().await;
    let receipt = site.queue(keyed("k", "x")).await;
    let site = site.restart(PASS, "").await;
    assert_eq!(site.queue(keyed("k", "x")).await, receipt);
    site.ask(keyed("k", "y"))
        .await
        .assert_problem(422, "idempotency-mismatch");
}

#[tokio::test]
async fn what_is_no_key_is_refused() {
    let site = Site::start(PASS).await;
    for key in ["", "\"\"", &"k".repeat(300), "k\u{e9}"] {
        let answer = site.ask(keyed(key, "x")).await;
        answer.assert_problem(400, "bad-request");
    }
    let twice = keyed("k", "x").header("Idempotency-Key", "l");
    site.ask(twice).await.assert_problem(400, "bad-request");
    assert_eq!(site.count("/a"), 0);
}

/// With the first two attempts failing: the key as the client and as the origin see it.
async fn made_key(format: &str, name: &str) -> (String, Vec<String>) {
    let settings = format!(
        "mode = \"on-failure\", idempotency = \"inject\", honoured = true, \
         idempotency_format = \"{format}\", idempotency_header = \"{name}\""
    );
    let site = Site::start(&settings).await;
    site.origin.on_each("/a", |_, nth| match nth {
        0 => Reply::script([Step::Close]),
        1 => Reply::new(503, "busy"),
        _ => Reply::ok("made"),
    });
    let answer = site.ask(write("POST", "/a")).await;
    site.until(&location(&answer), "done").await;
    let seen = site.origin.seen_at("/a").into_iter();
    let seen = seen.map(|seen| seen.header(name).expect("a key").to_owned());
    (
        answer.header(name).expect("a key").to_owned(),
        seen.collect(),
    )
}

#[tokio::test]
async fn a_made_key_is_on_the_first_attempt_and_the_same_on_every_later_one() {
    let (told, seen) = made_key("structured", "idempotency-key").await;
    assert_eq!(seen, vec![told.clone(); 3]);
    assert!(
        told.starts_with('"') && told.ends_with('"') && told.len() > 30,
        "{told}"
    );

    let (told, seen) = made_key("raw", "x-request-key").await;
    assert_eq!(seen, vec![told.clone(); 3]);
    assert!(!told.contains('"') && told.len() > 30, "{told}");
}

#[tokio::test]
async fn every_write_gets_a_key_of_its_own_and_a_clients_own_stays() {
    let settings = r#"mode = "on-failure", idempotency = "inject", honoured = true"#;
    let site = Site::start(settings).await;
    site.origin.on("/a", Reply::ok("made"));
    for _ in 0..2 {
        assert_eq!(site.ask(write("POST", "/a")).await.status, 200);
    }
    assert_eq!(site.ask(keyed("\"mine\"", "x")).await.status, 200);
    let seen = site.origin.seen_at("/a");
    let keys: Vec<_> = seen
        .iter()
        .map(|seen| seen.all("idempotency-key"))
        .collect();
    assert!(keys.iter().all(|keys| keys.len() == 1), "{keys:?}");
    assert_ne!(keys[0], keys[1]);
    assert_eq!(keys[2], ["\"mine\""]);
}

#[tokio::test]
async fn a_key_the_origin_does_not_honour_makes_no_write_safe_to_repeat() {
    let site = Site::start(r#"mode = "on-failure", idempotency = "inject""#).await;
    site.origin.on("/a", Reply::script([Step::Close]));
    let answer = site.ask(write("POST", "/a")).await;
    answer.assert_problem(502, "outcome-unknown");
    let answer = site.ask(keyed("\"mine\"", "x")).await;
    answer.assert_problem(502, "outcome-unknown");
    site.let_deliveries_pass().await;
    assert_eq!(site.count("/a"), 2);
}

#[tokio::test]
async fn of_many_at_once_with_one_key_one_is_queued() {
    let site = Site::start(PASS).await;
    site.origin.on("/a", Reply::new(201, "made"));
    site.lose_origin().await;
    let answers = join_all((0..16).map(|_| site.ask(keyed("k", "x")))).await;
    let receipt = location(&answers[0]);
    for answer in &answers {
        assert_eq!(location(answer), receipt);
    }
    site.origin.revive();
    site.until(&receipt, "done").await;
    site.let_deliveries_pass().await;
    assert_eq!(site.count("/a"), 1);
}

#[tokio::test]
async fn what_was_taken_back_leaves_its_key_to_the_next() {
    let site = Site::start(PASS).await;
    site.origin.on("/a", Reply::new(201, "made"));
    site.lose_origin().await;
    let mut receipts = vec![site.queue(keyed("k", "x")).await];
    for body in ["x", "y"] {
        let taken_back = Request::new("DELETE", receipts.last().unwrap());
        assert_eq!(site.ask(taken_back).await.status, 200);
        let answer = site.ask(keyed("k", body)).await;
        assert_eq!(answer.json()["state"], "queued");
        receipts.push(location(&answer));
        assert_eq!(
            site.queue(keyed("k", body)).await,
            receipts[receipts.len() - 1]
        );
    }
    site.origin.revive();
    site.until(&receipts[2], "done").await;
    site.let_deliveries_pass().await;
    let seen = site.origin.seen_at("/a");
    assert_eq!((seen.len(), seen[0].body.as_slice()), (1, &b"y"[..]));
    for receipt in &receipts[..2] {
        assert_eq!(site.receipt(receipt).await["state"], "cancelled");
    }
}
