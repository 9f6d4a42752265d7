//! What becomes of a write by the origin's answer, and what the origin sees of it.

use std::time::Duration;

use super::{
    Fixture, GRACE,
    support::{Does, ok, status, with},
    write,
};
use crate::queue::{Dead, Done, Item, OnStuck, Parked, Repeat, State};

#[tokio::test(start_paused = true)]
async fn a_write_is_delivered_with_its_fields_and_invalidates() {
    let mut fixture = Fixture::new().await;
    let fields = [("content-type", "application/json"), ("x-shop", "a=1")];
    let item = fixture
        .append_with(write("POST", "x", "/orders"), &fields)
        .await;
    let done = fixture.settled(item.id).await;
    assert_eq!(done.state, State::Done(Done::Answered));
    assert_eq!((done.attempts, done.ambiguous_since), (1, None));
    assert_eq!(done.last.unwrap().status, Some(200));
    assert!(done.ended_at.is_some());
    let seen = &fixture.origins.seen()[0];
    assert_eq!(seen.path, "/orders");
    assert_eq!(seen.headers["hardtack-attempt"], "1");
    assert_eq!(seen.headers["x-shop"], "a=1");
    assert_eq!(fixture.origins.delivered(), [item.id]);
    assert_eq!(fixture.attempts("done"), 1);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_may_be_repeated_is_until_it_succeeds() {
    let mut fixture = Fixture::new().await;
    fixture
        .origins
        .in_turn([Does::Lose, status(500), status(429), status(503)]);
    let item = fixture.append(write("PUT", "x", "/a")).await;
    let waiting = fixture
        .until(item.id, |item| item.state == State::Waiting)
        .await;
    let since = waiting.ambiguous_since;
    assert!(since.is_some());
    let done = fixture.settled(item.id).await;
    assert_eq!(
        (done.state, done.attempts),
        (State::Done(Done::Answered), 5)
    );
    assert_eq!(done.ambiguous_since, since, "from the first");
    let seen = fixture.origins.seen();
    let numbers: Vec<_> = seen
        .iter()
        .map(|seen| seen.headers["hardtack-attempt"].to_str().unwrap())
        .collect();
    assert_eq!(numbers, ["1", "2", "3", "4", "5"]);
    assert_eq!(fixture.attempts("retry"), 4);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_must_not_be_repeated_is_parked_when_its_answer_is_lost() {
    for does in [
        Does::Lose,
        Does::Panic,
        status(500),
        status(502),
        status(503),
        status(504),
    ] {
        let mut fixture = Fixture::new().await;
        fixture.origins.in_turn([does.clone()]);
        let item = fixture.append(write("POST", "x", "/a")).await;
        let parked = fixture.settled(item.id).await;
        assert_eq!(parked.state, State::Parked(Parked::Ambiguous), "{does:?}");
        assert!(parked.ambiguous_since.is_some() && parked.attempts == 1);
        fixture.pass_secs(100_000).await;
        assert_eq!(fixture.origins.seen().len(), 1, "{does:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_while_sending_loses_neither_claim_nor_write() {
    let mut fixture = Fixture::new().await;
    fixture.origins.in_turn([Does::Panic]);
    let items = [write("PUT", "x", "/a"), write("PUT", "x", "/b")];
    let items = fixture.append_all(items).await;
    fixture.all_done(&items).await;
    assert_eq!(fixture.origins.paths(), ["/a", "/a", "/b"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_costs_no_attempt() {
    for does in [Does::HandBack, Does::Busy] {
        let mut fixture = Fixture::new().await;
        fixture
            .origins
            .in_turn([does.clone(), does.clone(), does.clone()]);
        let item = fixture.append(write("POST", "x", "/a")).await;
        let done = fixture.settled(item.id).await;
        assert_eq!(done.state, State::Done(Done::Answered));
        assert_eq!((done.attempts, done.ambiguous_since), (1, None));
        assert_eq!(fixture.origins.seen()[3].headers["hardtack-attempt"], "1");
        assert_eq!(fixture.attempts("unsent"), 3);
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_is_asked_where_no_answer_helps() {
    let conflict = State::Parked(Parked::Conflict);
    for (does, expected) in [
        (status(401), State::Parked(Parked::Auth)),
        (status(409), conflict),
        (status(412), conflict),
        (status(400), State::Dead(Dead::Rejected)),
        (status(302), State::Dead(Dead::Rejected)),
        (status(501), State::Dead(Dead::Rejected)),
        (Does::Refuse, State::Parked(Parked::Operator)),
    ] {
        let mut fixture = Fixture::new().await;
        fixture.origins.in_turn([does.clone()]);
        let item = fixture.append(write("PUT", "x", "/a")).await;
        let stuck = fixture.settled(item.id).await;
        assert_eq!(stuck.state, expected, "{does:?}");
        assert!(fixture.origins.delivered().is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_credential_is_read_again_where_it_has_a_source() {
    let mut fixture = Fixture::new().await;
    fixture.origins.set_credential_source();
    fixture.origins.in_turn([status(401), status(401)]);
    let item = fixture.append(write("POST", "x", "/a")).await;
    let done = fixture.settled(item.id).await;
    assert_eq!(
        (done.state, done.attempts),
        (State::Done(Done::Answered), 3)
    );
    assert_eq!((done.remark, done.ambiguous_since), (None, None));
    assert_eq!(fixture.attempts("refresh"), 2);
}

#[tokio::test(start_paused = true)]
async fn a_delete_that_may_have_been_executed_is_done_when_there_is_nothing_left() {
    let mut fixture = Fixture::new().await;
    fixture.origins.in_turn([Does::Lose, status(404)]);
    let item = fixture.append(write("DELETE", "x", "/a")).await;
    let done = fixture.settled(item.id).await;
    assert_eq!(done.state, State::Done(Done::Assumed));
    assert_eq!(fixture.origins.delivered(), [item.id], "it invalidates");
}

#[tokio::test(start_paused = true)]
async fn a_stuck_head_halts_its_lane_or_leaves_it() {
    for (on_stuck, expected) in [
        (OnStuck::Halt, vec!["/a"]),
        (OnStuck::Continue, vec!["/a", "/b", "/c"]),
    ] {
        let fixture = Fixture::new().await;
        fixture.origins.in_turn([status(400)]);
        let writes = ["/a", "/b", "/c"].map(|path| Item {
            on_stuck,
            ..write("PUT", "x", path)
        });
        fixture.append_all(writes).await;
        fixture.pass_secs(1_000).await;
        assert_eq!(fixture.origins.paths(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lane_is_delivered_in_order_whatever_fails() {
    let mut fixture = Fixture::new().await;
    let mut calls = 0;
    fixture.origins.do_as(move |_| {
        calls += 1;
        match calls % 3 {
            0 => ok(),
            1 => status(503),
            _ => Does::HandBack,
        }
    });
    let paths: Vec<_> = (0..30).map(|number| format!("/{number}")).collect();
    let items = paths.iter().map(|path| write("PUT", "x", path));
    let items = fixture.append_all(items).await;
    fixture.all_done(&items).await;
    let mut seen = fixture.origins.paths();
    seen.dedup();
    assert_eq!(seen, paths);
    let most = fixture
        .origins
        .seen()
        .iter()
        .map(|seen| seen.in_flight)
        .max();
    assert_eq!(most, Some(1));
}

#[tokio::test(start_paused = true)]
async fn after_so_many_attempts_a_write_is_dead() {
    let mut fixture = Fixture::with(|config| config.max_attempts = 4).await;
    fixture.origins.always(status(503));
    let item = fixture.append(write("PUT", "x", "/a")).await;
    let dead = fixture.settled(item.id).await;
    assert_eq!(dead.state, State::Dead(Dead::Attempts));
    assert_eq!((dead.attempts, fixture.origins.seen().len()), (4, 4));
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_key_may_be_forgotten_is_parked_not_sent() {
    let mut fixture = Fixture::new().await;
    fixture
        .origins
        .in_turn([Does::Lose, with(503, "retry-after", "7200")]);
    let item = fixture
        .append(Item {
            repeat: Repeat::Keyed,
            idempotency_ttl: Duration::from_secs(3_600),
            ..write("POST", "x", "/a")
        })
        .await;
    let parked = fixture.settled(item.id).await;
    assert_eq!(parked.state, State::Parked(Parked::Ambiguous));
    assert!(parked.remark.unwrap().contains("key"));
    assert_eq!((parked.attempts, fixture.origins.seen().len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_at_shutdown_comes_to_its_end_and_nothing_else_begins() {
    let mut fixture = Fixture::new().await;
    fixture.origins.set_latency(GRACE / 2);
    let items = [write("POST", "x", "/a"), write("POST", "x", "/b")];
    let items = fixture.append_all(items).await;
    fixture.origins.have_seen(1).await;
    fixture.stop().await;
    let first = fixture.item(items[0].id).await;
    assert_eq!(first.state, State::Done(Done::Answered));
    assert_eq!(fixture.item(items[1].id).await.state, State::Queued);
    assert_eq!(fixture.origins.paths(), ["/a"]);
}

#[tokio::test(start_paused = true)]
async fn what_outlasts_the_grace_is_cut_and_stays_sending() {
    let mut fixture = Fixture::new().await;
    fixture.origins.always(Does::Hang);
    let item = fixture.append(write("POST", "x", "/a")).await;
    fixture.origins.have_seen(1).await;
    let before = tokio::time::Instant::now();
    fixture.stop().await;
    assert_eq!(before.elapsed(), GRACE);
    assert_eq!(fixture.item(item.id).await.state, State::Sending);
}
