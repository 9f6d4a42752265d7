//! Age, and clocks that are set.

use std::time::Duration;

use super::{Fixture, origin, support::status, write};
use crate::{
    clock::Clock,
    policy::Connectivity::Disconnected,
    queue::{Dead, Done, Item, State, journal::Change},
};

const DAY_SECS: i64 = 24 * 3_600;

#[tokio::test(start_paused = true)]
async fn what_waits_for_too_long_is_dead_though_its_turn_never_came() {
    let mut fixture = Fixture::with(|config| config.max_age = Duration::from_secs(3_600)).await;
    fixture.origins.set_link(&origin("api"), Disconnected);
    let writes = ["/a", "/b", "/c"].map(|path| write("POST", "x", path));
    let items = fixture.append_all(writes).await;
    fixture.pass_secs(1_800).await;
    let young = fixture.append(write("POST", "x", "/d")).await;
    for item in &items {
        let dead = fixture.settled(item.id).await;
        assert_eq!((dead.state, dead.attempts), (State::Dead(Dead::Expired), 0));
    }
    let waited = fixture
        .replay
        .clock
        .now()
        .millis_since(items[0].accepted_at);
    assert!((3_600_000..3_720_000).contains(&waited), "{waited} ms");
    assert_eq!(fixture.item(young.id).await.state, State::Queued);
    assert!(fixture.origins.seen().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_great_many_that_waited_for_too_long_are_dead_in_one_sweep() {
    let mut fixture = Fixture::with(|config| config.max_age = Duration::from_secs(3_600)).await;
    fixture.origins.set_link(&origin("api"), Disconnected);
    let writes = (0..900).map(|number| write("POST", &(number % 7).to_string(), "/"));
    let items = fixture.append_all(writes).await;
    for item in &items {
        fixture.settled(item.id).await;
    }
    let waited = fixture
        .replay
        .clock
        .now()
        .millis_since(items[0].accepted_at);
    assert!(waited < 3_720_000, "{waited} ms");
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_back_stalls_nothing() {
    for secs in [-3_600, -DAY_SECS * 400] {
        let mut fixture = Fixture::new().await;
        fixture.origins.in_turn([status(503), status(503)]);
        let item = fixture.append(write("PUT", "x", "/a")).await;
        fixture.origins.have_seen(1).await;
        fixture.wall.step_secs(secs);
        let begin = tokio::time::Instant::now();
        let done = fixture.settled(item.id).await;
        assert_eq!(done.state, State::Done(Done::Answered));
        assert!(begin.elapsed() < Duration::from_secs(700));
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_forward_hammers_nothing() {
    let mut fixture =
        Fixture::with(|config| config.max_age = Duration::from_secs(u64::MAX / 2_000)).await;
    fixture
        .origins
        .always(super::support::with(503, "retry-after", "600"));
    let item = fixture.append(write("PUT", "x", "/a")).await;
    fixture.origins.have_seen(1).await;
    for _ in 0..100 {
        fixture.wall.step_secs(DAY_SECS);
        fixture.replay.wake.notify_one();
        fixture.pass_secs(1).await;
    }
    assert_eq!(fixture.origins.seen().len(), 1);
    fixture.origins.always(status(200));
    fixture.all_done(&[item]).await;
}

/// Everything in the queue of a box that began in 1970 was dead when it was told the time.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_forward_makes_nothing_older() {
    let mut fixture = Fixture::with(|config| config.max_age = Duration::from_secs(3_600)).await;
    fixture.origins.set_link(&origin("api"), Disconnected);
    let item = fixture.append(write("POST", "x", "/a")).await;
    fixture.pass_secs(600).await;
    fixture.wall.step_secs(DAY_SECS * 365 * 56);
    fixture.pass_secs(600).await;
    assert_eq!(fixture.item(item.id).await.state, State::Queued);
    // Nor does the next process take it for half a century.
    fixture.stop().await;
    fixture.close().await;
    let mut fixture = fixture.start().await;
    fixture.pass_secs(2_000).await;
    assert_eq!(fixture.item(item.id).await.state, State::Queued);
    fixture.pass_secs(600).await;
    let dead = fixture.settled(item.id).await;
    assert_eq!(dead.state, State::Dead(Dead::Expired));
}

#[tokio::test(start_paused = true)]
async fn a_wish_kept_from_before_a_clock_was_wrong_ends_when_it_is_right() {
    let mut fixture = Fixture::new().await;
    fixture
        .origins
        .in_turn([super::support::with(503, "retry-after", "5")]);
    let item = fixture.append(write("PUT", "x", "/a")).await;
    fixture
        .until(item.id, |item| item.floor_until.is_some())
        .await;
    fixture.stop().await;
    fixture.close().await;
    fixture.wall.step_secs(-900_000);
    let mut fixture = fixture.start().await;
    fixture.pass_secs(60).await;
    assert_eq!(fixture.origins.seen().len(), 1);
    fixture.wall.step_secs(900_000);
    fixture.pass_secs(120).await;
    fixture.all_done(&[item]).await;
}

#[tokio::test(start_paused = true)]
async fn an_operator_lifts_the_origins_wish() {
    let mut fixture = Fixture::new().await;
    fixture
        .origins
        .in_turn([super::support::with(503, "retry-after", "36000")]);
    let item = fixture.append(write("PUT", "x", "/a")).await;
    let waiting = fixture
        .until(item.id, |item| item.floor_until.is_some())
        .await;
    fixture.pass_secs(100).await;
    fixture
        .replay
        .index()
        .claim(item.id, State::is_pending)
        .unwrap();
    let now = fixture.wall.now();
    let retried = Item {
        floor_until: None,
        next_at: now,
        ..waiting
    };
    fixture
        .journal
        .record(Change::Update(retried))
        .await
        .unwrap();
    fixture.replay.wake.notify_one();
    fixture.all_done(&[item]).await;
    assert!(fixture.wall.now().millis_since(now) < 5_000);
}
