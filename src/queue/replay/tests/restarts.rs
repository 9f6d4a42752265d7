//! What a restart, a crash and a full disk change about deliveries: nothing that was promised.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Fixture, origin,
    support::{Does, ok, status, with},
    write,
};
use crate::queue::{Done, Item, Parked, Repeat, State, journal::faults::Keeps};

#[tokio::test(start_paused = true)]
async fn retry_after_holds_the_origin_across_a_restart() {
    for is_crash in [false, true] {
        let mut fixture = Fixture::new().await;
        fixture.origins.in_turn([with(503, "retry-after", "7200")]);
        let begin = Instant::now();
        let writes = [write("PUT", "x", "/a"), write("PUT", "y", "/b")];
        let items = fixture.append_all(writes).await;
        fixture
            .until(items[0].id, |item| item.floor_until.is_some())
            .await;
        fixture.pass_secs(600).await;
        let mut fixture = match is_crash {
            true => fixture.crash(Keeps::Nothing).await,
            false => fixture.restart().await,
        };
        fixture.all_done(&items).await;
        let second = &fixture.origins.seen()[1];
        let waited = second.at - begin;
        assert!(waited >= Duration::from_secs(7_200), "{waited:?}");
        assert!(waited < Duration::from_secs(7_300), "{waited:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_in_mid_send_it_is_asked_or_sent_again() {
    let keyed = Item {
        repeat: Repeat::Keyed,
        ..write("POST", "x", "/a")
    };
    for (item, expected) in [
        (write("POST", "x", "/a"), State::Parked(Parked::Ambiguous)),
        (write("PUT", "x", "/a"), State::Done(Done::Answered)),
        (write("DELETE", "x", "/a"), State::Done(Done::Assumed)),
        (keyed, State::Done(Done::Answered)),
    ] {
        let fixture = Fixture::new().await;
        fixture.origins.always(Does::Hang);
        let what = (item.method.clone(), item.repeat);
        let item = fixture.append(item).await;
        fixture.origins.have_seen(1).await;
        let mut fixture = fixture.crash(Keeps::Nothing).await;
        match item.method.as_str() {
            "DELETE" => fixture.origins.always(status(404)),
            _ => fixture.origins.always(ok()),
        }
        let settled = fixture.settled(item.id).await;
        assert_eq!(settled.state, expected, "{what:?}");
        let sent = if item.repeat == Repeat::Doubtful {
            1
        } else {
            2
        };
        assert_eq!(fixture.origins.seen().len(), sent, "{what:?}");
        // A PUT is not noted before it is sent: a second one is like the first.
        let attempts = if item.method == "PUT" { 1 } else { sent };
        assert_eq!(settled.attempts as usize, attempts, "{what:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_cut_at_shutdown_is_taken_up_at_the_next_start() {
    let mut fixture = Fixture::new().await;
    fixture.origins.always(Does::Hang);
    let items = [write("DELETE", "x", "/a"), write("POST", "y", "/b")];
    let items = fixture.append_all(items).await;
    fixture.origins.have_seen(1).await;
    fixture.stop().await;
    fixture.origins.always(ok());
    let mut fixture = fixture.restart().await;
    fixture.all_done(&items).await;
    assert_eq!(fixture.origins.paths(), ["/a", "/a", "/b"]);
}

#[tokio::test(start_paused = true)]
async fn a_pause_outlives_a_restart() {
    let fixture = Fixture::new().await;
    fixture.pause(vec![Some(origin("api"))]).await;
    let item = fixture.append(write("PUT", "x", "/a")).await;
    let mut fixture = fixture.restart().await;
    fixture.pass_secs(10_000).await;
    assert!(fixture.origins.seen().is_empty());
    fixture.pause(Vec::new()).await;
    fixture.all_done(&[item]).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_cannot_be_recorded_is_kept_and_nothing_is_sent_twice() {
    let mut fixture = Fixture::new().await;
    fixture.origins.set_latency(Duration::from_secs(10));
    let writes = [write("POST", "x", "/a"), write("POST", "x", "/b")];
    let items = fixture.append_all(writes).await;
    fixture.origins.have_seen(1).await;
    fixture.storage.fail_after(0);
    fixture.pass_secs(1_000).await;
    assert_eq!(fixture.origins.paths(), ["/a"]);
    fixture.storage.heal();
    fixture.all_done(&items).await;
    assert_eq!(fixture.origins.paths(), ["/a", "/b"]);
}

#[tokio::test(start_paused = true)]
async fn nothing_that_must_not_be_forgotten_is_sent_before_it_is_on_disk() {
    let mut fixture = Fixture::new().await;
    fixture.pause(vec![None]).await;
    let item = fixture.append(write("POST", "x", "/a")).await;
    fixture.pause(Vec::new()).await;
    fixture.storage.fail_after(0);
    fixture.pass_secs(1_000).await;
    assert!(fixture.origins.seen().is_empty());
    fixture.storage.heal();
    fixture.all_done(&[item]).await;
    assert_eq!(fixture.origins.seen().len(), 1);
}
