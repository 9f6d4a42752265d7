//! When a write that waits is sent again, and when it is given up.

use std::time::Duration;

use tokio::time::Instant;

use super::{Site, write};
use crate::support::Reply;

const ALWAYS: &str = r#"mode = "always", order_by = "none""#;

#[tokio::test]
async fn each_delivery_says_which_attempt_it_is() {
    let site = Site::start(ALWAYS).await;
    site.origin.on_each("/a", |_, nth| match nth {
        0 => Reply::new(500, ""),
        1 => Reply::new(502, ""),
        2 => Reply::new(429, ""),
        _ => Reply::ok("well"),
    });
    let receipt = site.queue(write("PUT", "/a")).await;
    let receipt = site.until(&receipt, "done").await;
    assert_eq!(
        (&receipt["attempts"], &receipt["last"]["status"]),
        (&4.into(), &200.into())
    );
    let seen = site.origin.seen_at("/a");
    let attempts: Vec<_> = seen
        .iter()
        .map(|seen| seen.header("hardtack-attempt"))
        .collect();
    assert_eq!(attempts, [Some("1"), Some("2"), Some("3"), Some("4")]);
}

#[tokio::test]
async fn no_write_is_sent_again_before_its_time() {
    let site = Site::start(ALWAYS).await;
    site.origin.on_each("/a", |_, nth| match nth {
        0 => Reply::new(429, ""),
        _ => Reply::ok("well"),
    });
    // The clock stands still: its pause never ends, while another write is delivered.
    let receipt = site.queue(write("PUT", "/a")).await;
    site.reaches(&receipt, "waiting").await;
    let sentinel = site.queue(write("POST", "/sentinel")).await;
    site.reaches(&sentinel, "done").await;
    assert_eq!(site.count("/a"), 1);
    site.until(&receipt, "done").await;
    assert_eq!(site.count("/a"), 2);
}

#[tokio::test]
async fn an_origin_that_asks_to_be_left_alone_is_whatever_waits_for_it() {
    let site = Site::start(ALWAYS).await;
    site.origin.on_each("/a", |_, nth| match nth {
        0 => Reply::new(503, "busy").header("Retry-After", "2"),
        _ => Reply::ok("well"),
    });
    site.origin.on("/b", Reply::ok("well"));
    let first = site.queue(write("PUT", "/a")).await;
    site.origin.sees("/a", 1).await;
    let asked_at = Instant::now();
    let second = site.queue(write("PUT", "/b")).await;
    site.gateway.clock.step_secs(3_600);
    site.until(&second, "done").await;
    // Less what the answer took to the gateway.
    assert!(
        asked_at.elapsed() >= Duration::from_millis(1_500),
        "{:?}",
        asked_at.elapsed()
    );
    site.until(&first, "done").await;
    assert_eq!((site.count("/a"), site.count("/b")), (2, 1));
}

#[tokio::test]
async fn a_write_that_waited_too_long_is_a_dead_letter() {
    let site = Site::start_with(ALWAYS, "[queue]\nmax_age = \"1h\"").await;
    site.origin.on("/a", Reply::ok("well"));
    site.lose_origin().await;
    let old = site.queue(write("PUT", "/a")).await;
    site.gateway.clock.step_secs(3_700);
    let young = site.queue(write("POST", "/a")).await;
    site.origin.revive();
    // Long before its age comes into it.
    site.reaches(&young, "done").await;
    let receipt = site.until(&old, "dead").await;
    assert_eq!(receipt["reason"], "expired");
    let seen = site.origin.seen_at("/a");
    assert_eq!((seen.len(), seen[0].method.as_str()), (1, "POST"));
}

#[tokio::test]
async fn a_write_that_was_tried_often_enough_is_a_dead_letter() {
    let site = Site::start_with(ALWAYS, "[queue]\nmax_attempts = 3").await;
    site.origin.on("/a", Reply::new(500, "no"));
    let receipt = site.queue(write("PUT", "/a")).await;
    let receipt = site.until(&receipt, "dead").await;
    assert_eq!(
        (&receipt["reason"], &receipt["attempts"]),
        (&"attempts".into(), &3.into())
    );
    site.let_deliveries_pass().await;
    assert_eq!(site.count("/a"), 3);
}

#[tokio::test]
async fn time_without_a_connection_costs_no_attempts() {
    let site = Site::start_with(ALWAYS, "[queue]\nmax_attempts = 1").await;
    site.origin.on("/a", Reply::ok("well"));
    site.lose_origin().await;
    let receipt = site.queue(write("PUT", "/a")).await;
    for _ in 0..5 {
        site.gateway.clock.step_secs(3_600);
        let answer = site.gateway.client.get("/a").await;
        answer.assert_problem(504, "offline-miss");
    }
    assert_eq!(site.receipt(&receipt).await["attempts"], 0);
    site.origin.revive();
    let receipt = site.until(&receipt, "done").await;
    assert_eq!(receipt["attempts"], 1);
}

#[tokio::test]
async fn an_origin_that_dies_between_two_deliveries_is_waited_for() {
    let site = Site::start(r#"mode = "always", order_by = "route""#).await;
    site.origin.on_each("/a", |_, nth| match nth {
        0 => Reply::new(429, ""),
        _ => Reply::ok("well"),
    });
    let receipts = [
        site.queue(write("POST", "/a")).await,
        site.queue(write("POST", "/a")).await,
    ];
    site.reaches(&receipts[0], "waiting").await;
    site.lose_origin().await;
    site.gateway.clock.step_secs(3_600);
    site.origin.revive();
    for receipt in &receipts {
        site.until(receipt, "done").await;
    }
    assert_eq!(site.count("/a"), 3);
}
