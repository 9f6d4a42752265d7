//! From an outage to full speed.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Fixture, origin,
    support::{Does, ok, status, with},
    write,
};
use crate::{
    policy::Connectivity::{Connected, Disconnected},
    queue::{Item, ReplayRate, State},
};

/// Writes of as many lanes.
fn lanes(count: usize) -> Vec<Item> {
    let lane = |number| write("PUT", &format!("lane {number}"), &format!("/{number}"));
    (0..count).map(lane).collect()
}

#[tokio::test(start_paused = true)]
async fn while_disconnected_nothing_is_sent_and_no_attempt_is_spent() {
    let mut fixture = Fixture::new().await;
    fixture.origins.set_link(&origin("api"), Disconnected);
    let items = fixture.append_all(lanes(3)).await;
    fixture.pass_secs(200_000).await;
    assert!(fixture.origins.seen().is_empty());
    assert_eq!(fixture.phase(), Some("disconnected"));
    fixture.origins.set_link(&origin("api"), Connected);
    fixture.all_done(&items).await;
    assert_eq!(fixture.item(items[0].id).await.attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn after_an_outage_the_first_delivery_waits_a_random_part_of_the_spread() {
    let spread = Duration::from_secs(10);
    let mut waits = Vec::new();
    for _ in 0..40 {
        let mut fixture = Fixture::with(|config| config.recovery_spread = spread).await;
        fixture.origins.set_link(&origin("api"), Disconnected);
        let items = fixture.append_all(lanes(1)).await;
        fixture.pass_secs(100).await;
        let back = Instant::now();
        fixture.origins.set_link(&origin("api"), Connected);
        fixture.all_done(&items).await;
        waits.push(fixture.origins.seen()[0].at - back);
    }
    assert!(waits.iter().all(|wait| *wait <= spread));
    assert!(waits.iter().any(|wait| *wait < spread / 3), "{waits:?}");
    assert!(waits.iter().any(|wait| *wait > spread * 2 / 3), "{waits:?}");
}

#[tokio::test(start_paused = true)]
async fn what_was_queued_while_connected_is_sent_at_once() {
    let mut fixture =
        Fixture::with(|config| config.recovery_spread = Duration::from_secs(10)).await;
    let begin = Instant::now();
    let items = fixture.append_all(lanes(1)).await;
    fixture.all_done(&items).await;
    assert!(begin.elapsed() < Duration::from_secs(1));
}

#[tokio::test(start_paused = true)]
async fn one_canary_goes_first_and_then_twice_as_many_lanes_each_time() {
    let mut fixture = Fixture::with(|config| config.replay_rate.deliveries = 1_000_000).await;
    fixture.origins.set_latency(Duration::from_secs(1));
    let items = fixture.append_all(lanes(60)).await;
    fixture.all_done(&items).await;
    let seen = fixture.origins.seen();
    let begin = seen[0].at;
    let mut widths: Vec<usize> = Vec::new();
    for seen in &seen {
        let second = usize::try_from((seen.at - begin).as_secs()).unwrap();
        widths.resize(widths.len().max(second + 1), 0);
        widths[second] += 1;
    }
    assert_eq!(widths[..6], [1, 1, 2, 4, 8, 16], "{widths:?}");
    let most = seen.iter().map(|seen| seen.in_flight).max();
    assert_eq!(most, Some(16), "never above the share");
}

#[tokio::test(start_paused = true)]
async fn a_share_of_one_is_one_lane_at_a_time() {
    let mut fixture = Fixture::new().await;
    fixture.origins.set_share(1);
    let items = fixture.append_all(lanes(10)).await;
    fixture.all_done(&items).await;
    let most = fixture
        .origins
        .seen()
        .iter()
        .map(|seen| seen.in_flight)
        .max();
    assert_eq!(most, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_canary_that_fails_keeps_the_others_back() {
    let mut fixture = Fixture::new().await;
    fixture.origins.set_latency(Duration::from_secs(1));
    fixture
        .origins
        .in_turn([status(503), status(503), status(503)]);
    let items = fixture.append_all(lanes(20)).await;
    let seen = fixture.origins.have_seen(4).await;
    for pair in seen.windows(2) {
        assert!(pair[1].at - pair[0].at >= Duration::from_millis(1_700));
        assert_eq!(pair[1].in_flight, 1);
    }
    fixture.all_done(&items).await;
}

#[tokio::test(start_paused = true)]
async fn an_origin_that_fails_for_every_lane_is_asked_less_and_less() {
    let fixture = Fixture::new().await;
    fixture.origins.always(status(503));
    fixture.append_all(lanes(500)).await;
    fixture.pass_secs(3_600).await;
    let seen = fixture.origins.seen().len();
    assert!((10..60).contains(&seen), "{seen} deliveries in an hour");
}

#[tokio::test(start_paused = true)]
async fn one_write_that_always_fails_holds_up_no_other_lane() {
    let mut fixture = Fixture::new().await;
    fixture.origins.do_as(|seen| match seen.path.as_str() {
        "/0" => status(500),
        _ => ok(),
    });
    let items = fixture.append_all(lanes(1)).await;
    fixture.pass_secs(3_600).await;
    let others = fixture.append_all(lanes(10).into_iter().skip(1)).await;
    let begin = Instant::now();
    fixture.all_done(&others).await;
    assert!(
        begin.elapsed() < Duration::from_secs(3),
        "{:?}",
        begin.elapsed()
    );
    assert!(fixture.item(items[0].id).await.state.is_pending());
}

#[tokio::test(start_paused = true)]
async fn a_link_that_is_lost_again_puts_the_canary_back() {
    let mut fixture = Fixture::new().await;
    fixture.origins.set_latency(Duration::from_secs(1));
    let mut count = 0;
    fixture.origins.do_as(move |_| {
        count += 1;
        if count == 4 { Does::Disconnect } else { ok() }
    });
    let items = fixture.append_all(lanes(40)).await;
    fixture.origins.have_seen(4).await;
    fixture.pass_secs(3_000).await;
    assert_eq!(fixture.phase(), Some("disconnected"));
    let before = fixture.origins.seen().len();
    assert!(before <= 5, "{before}");
    let back = Instant::now();
    fixture.origins.set_link(&origin("api"), Connected);
    fixture.all_done(&items).await;
    let after: Vec<_> = fixture.origins.seen().drain(before..).collect();
    let in_first_second = after
        .iter()
        .filter(|seen| seen.at - back < Duration::from_secs(1));
    assert_eq!(in_first_second.count(), 1);
    assert_eq!(
        fixture.origins.verified().len(),
        2,
        "asked who answers, both times"
    );
    let states = fixture.item(items[3].id).await;
    assert!(matches!(states.state, State::Done(_)));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_refused_while_the_link_counts_as_connected_is_not_hammered() {
    let fixture = Fixture::new().await;
    fixture.origins.do_as(|_| Does::Disconnect);
    let item = fixture.append(write("POST", "x", "/a")).await;
    // An operator's word, or a second address: the link is back at once, each time.
    for _ in 0..30 {
        fixture.pass_secs(10).await;
        fixture.origins.set_link(&origin("api"), Connected);
    }
    let seen = fixture.origins.seen().len();
    assert!((2..=32).contains(&seen), "{seen} in five minutes");
    assert_eq!(fixture.item(item.id).await.attempts, 0);
}

#[tokio::test(start_paused = true)]
async fn deliveries_are_never_faster_than_the_rate() {
    let rate = ReplayRate {
        deliveries: 50,
        per: Duration::from_secs(1),
    };
    let mut fixture = Fixture::with(|config| config.replay_rate = rate).await;
    let items = fixture.append_all(lanes(300)).await;
    fixture.all_done(&items).await;
    let seen = fixture.origins.seen();
    for window in seen.windows(51) {
        assert!(window[50].at - window[0].at >= Duration::from_millis(990));
    }
    let whole = seen[299].at - seen[0].at;
    assert!(whole < Duration::from_secs(7), "{whole:?}");
}

#[tokio::test(start_paused = true)]
async fn retry_after_holds_the_whole_origin_for_as_long_as_it_says() {
    for (does, secs) in [
        (with(503, "retry-after", "86400"), 86_400),
        (with(429, "retry-after", "3600"), 3_600),
        (with(200, "retry-after", "600"), 600),
        (with(400, "retry-after", "600"), 600),
        // BEGIN is Mon, 12 Jan 1970 13:46:40 GMT.
        (
            with(503, "retry-after", "Mon, 12 Jan 1970 14:46:40 GMT"),
            3_599,
        ),
    ] {
        let mut fixture = Fixture::new().await;
        fixture.origins.in_turn([does.clone()]);
        let items = fixture.append_all(lanes(5)).await;
        let seen = fixture.origins.have_seen(2).await;
        let gap = seen[1].at - seen[0].at;
        assert!(gap >= Duration::from_secs(secs), "{gap:?} after {does:?}");
        assert!(
            gap < Duration::from_secs(secs + 70),
            "{gap:?} after {does:?}"
        );
        fixture.settled(items[4].id).await;
    }
}

#[tokio::test(start_paused = true)]
async fn retry_after_for_ever_is_for_ever() {
    let fixture = Fixture::new().await;
    fixture
        .origins
        .in_turn([with(503, "retry-after", "18446744073709551615")]);
    fixture.append_all(lanes(2)).await;
    fixture.pass_secs(1_000_000).await;
    assert_eq!(fixture.origins.seen().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_paused_origin_gets_nothing_until_it_is_resumed() {
    for pause in [None, Some(origin("api"))] {
        let mut fixture = Fixture::new().await;
        fixture.pause(vec![pause]).await;
        let items = fixture.append_all(lanes(3)).await;
        fixture.pass_secs(10_000).await;
        assert!(fixture.origins.seen().is_empty());
        fixture.pause(Vec::new()).await;
        fixture.all_done(&items).await;
    }
    let mut fixture = Fixture::new().await;
    fixture.pause(vec![Some(origin("other"))]).await;
    let items = fixture.append_all(lanes(3)).await;
    fixture.all_done(&items).await;
}

#[tokio::test(start_paused = true)]
async fn an_origin_without_work_leaves_no_task_and_is_taken_up_again() {
    let mut fixture = Fixture::new().await;
    let items = fixture.append_all(lanes(3)).await;
    fixture.all_done(&items).await;
    assert!(fixture.phase().is_some());
    fixture.pass_secs(200).await;
    assert_eq!(fixture.phase(), None);
    let items = fixture.append_all(lanes(3)).await;
    fixture.all_done(&items).await;
}

#[tokio::test(start_paused = true)]
async fn live_traffic_that_takes_every_permit_delays_by_seconds_only() {
    let mut fixture = Fixture::new().await;
    let begin = Instant::now();
    let busy = Duration::from_secs(600);
    fixture.origins.do_as(move |seen| {
        if seen.at - begin < busy {
            Does::Busy
        } else {
            ok()
        }
    });
    let items = fixture.append_all(lanes(1)).await;
    fixture.all_done(&items).await;
    assert!(begin.elapsed() < busy + Duration::from_secs(3));
    assert!(fixture.origins.seen().len() < 500);
}
