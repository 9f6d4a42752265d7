//! A captive portal is not an origin.

use std::time::Duration;

use super::{
    Fixture, origin,
    support::{Does, ok, status, with},
    write,
};
use crate::{
    policy::Connectivity::{Connected, Disconnected},
    queue::{Dead, Done, Item, Parked, Proof, Repeat, State, Unverified},
};

fn login_page() -> Does {
    with(200, "content-type", "text/html; charset=utf-8")
}

fn redirect() -> Does {
    with(302, "location", "https://portal.example/login")
}

fn writes() -> Vec<Item> {
    vec![
        write("POST", "a", "/a"),
        write("PUT", "b", "/b"),
        write("DELETE", "c", "/c"),
        Item {
            repeat: Repeat::Keyed,
            ..write("POST", "d", "/d")
        },
    ]
}

#[tokio::test(start_paused = true)]
async fn a_portal_delivers_nothing_kills_nothing_and_spends_nothing() {
    for does in [
        login_page(),
        redirect(),
        status(511),
        with(403, "content-type", "text/html"),
    ] {
        let mut fixture = Fixture::new().await;
        fixture.origins.set_proof(Ok(Proof::Unproven));
        fixture.origins.set_link(&origin("api"), Disconnected);
        fixture.origins.always(does.clone());
        let items = fixture.append_all(writes()).await;
        fixture.origins.set_link(&origin("api"), Connected);
        fixture.pass_secs(24 * 3_600).await;
        assert_eq!(fixture.phase(), Some("captive"), "{does:?}");
        for item in &items {
            let now = fixture.item(item.id).await;
            assert_eq!((now.state, now.attempts), (State::Queued, 0), "{does:?}");
            assert_eq!((&now.last, now.ambiguous_since), (&None, None));
        }
        assert!(fixture.origins.delivered().is_empty());
        let seen = fixture.origins.seen();
        assert_eq!(fixture.attempts("captive"), seen.len() as u64);
        // A doubling pause up to five minutes, not a loop.
        assert!((280..400).contains(&seen.len()), "{} in a day", seen.len());
        let last = &seen[seen.len() - 2..];
        assert!(last[1].at - last[0].at >= Duration::from_secs(225));
        assert_eq!(seen.iter().map(|seen| seen.in_flight).max(), Some(1));

        fixture.origins.always(ok());
        fixture.all_done(&items).await;
        assert_eq!(fixture.phase(), Some("slow-start"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_portal_that_appears_at_full_speed_is_found_out_too() {
    let mut fixture = Fixture::new().await;
    fixture.origins.set_proof(Ok(Proof::Unproven));
    fixture.origins.set_share(1);
    let first = fixture.append(write("POST", "a", "/first")).await;
    fixture.all_done(&[first]).await;
    assert_eq!(fixture.phase(), Some("steady"));
    fixture.origins.always(redirect());
    let items = fixture.append_all(writes()).await;
    fixture.pass_secs(1_000).await;
    assert_eq!(fixture.phase(), Some("captive"));
    fixture.origins.always(login_page());
    fixture.pass_secs(1_000).await;
    fixture.origins.always(ok());
    let parked = fixture.settled(items[0].id).await;
    assert_eq!(parked.state, State::Parked(Parked::Ambiguous));
    fixture.all_done(&items[1..]).await;
    for item in &items[1..] {
        assert_eq!(fixture.item(item.id).await.attempts, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_executed_twice_is_shown_once_to_whoever_answers() {
    for does in [redirect(), login_page()] {
        let mut fixture = Fixture::new().await;
        fixture.origins.set_proof(Ok(Proof::Unproven));
        fixture.origins.always(does);
        let item = fixture.append(write("POST", "a", "/a")).await;
        let parked = fixture.settled(item.id).await;
        assert_eq!(parked.state, State::Parked(Parked::Ambiguous));
        assert!(parked.remark.unwrap().contains("answers_html"));
        assert_eq!(fixture.phase(), Some("captive"));
        fixture.pass_secs(24 * 3_600).await;
        assert_eq!(fixture.origins.seen().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn what_must_not_be_executed_twice_is_not_lost_to_a_portal_that_is_seen() {
    for does in [redirect(), login_page()] {
        let mut fixture = Fixture::new().await;
        fixture.origins.set_proof(Ok(Proof::Unproven));
        let first = fixture.append(write("POST", "a", "/first")).await;
        fixture.all_done(&[first]).await;
        // The network changes between one delivery and the next.
        let portal = Unverified::Portal("it redirected to another host".into());
        fixture.origins.set_proof(Err(portal));
        fixture.origins.always(does);
        let item = fixture.append(write("POST", "a", "/a")).await;
        fixture.pass_secs(10_000).await;
        assert_eq!(fixture.phase(), Some("captive"));
        let now = fixture.item(item.id).await;
        assert_eq!((now.state, now.attempts), (State::Queued, 0));
        assert_eq!(fixture.origins.seen().len(), 2, "then only looked at");
        fixture.origins.set_proof(Ok(Proof::Unproven));
        fixture.origins.always(ok());
        fixture.all_done(&[item]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn where_the_probe_cannot_tell_either_the_write_is_parked() {
    let mut fixture = Fixture::new().await;
    let first = fixture.append(write("POST", "a", "/first")).await;
    fixture.all_done(&[first]).await;
    let failed = Unverified::Failed("the probe was answered with 500".into());
    fixture.origins.set_proof(Err(failed));
    fixture.origins.always(login_page());
    let item = fixture.append(write("POST", "a", "/a")).await;
    let parked = fixture.settled(item.id).await;
    assert_eq!(parked.state, State::Parked(Parked::Ambiguous));
}

#[tokio::test(start_paused = true)]
async fn a_portal_that_refuses_with_a_page_at_full_speed_kills_nothing() {
    let mut fixture = Fixture::new().await;
    fixture.origins.set_proof(Ok(Proof::Unproven));
    fixture.origins.set_share(1);
    let first = fixture.append(write("POST", "a", "/first")).await;
    fixture.all_done(&[first]).await;
    assert_eq!(fixture.phase(), Some("steady"));
    fixture
        .origins
        .always(with(403, "content-type", "text/html"));
    let items = fixture.append_all(writes()).await;
    fixture.pass_secs(10_000).await;
    assert_eq!(fixture.phase(), Some("captive"));
    for item in &items {
        let now = fixture.item(item.id).await;
        assert_eq!((now.state, now.attempts), (State::Queued, 0));
    }
    fixture.origins.always(ok());
    fixture.all_done(&items).await;
}

#[tokio::test(start_paused = true)]
async fn a_page_that_refuses_one_write_of_many_is_the_origins() {
    let mut fixture = Fixture::new().await;
    fixture.origins.set_proof(Ok(Proof::Unproven));
    fixture.origins.set_share(1);
    fixture.origins.do_as(|seen| match seen.path.as_str() {
        "/gone" => with(404, "content-type", "text/html"),
        _ => ok(),
    });
    let first = fixture.append(write("POST", "a", "/first")).await;
    fixture.all_done(&[first]).await;
    let gone = fixture.append(write("PUT", "gone", "/gone")).await;
    let others = fixture.append_all(writes()).await;
    fixture.all_done(&others).await;
    let gone = fixture.settled(gone.id).await;
    assert_eq!(gone.state, State::Dead(Dead::Rejected));
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_fails_keeps_every_write_back() {
    let mut fixture = Fixture::new().await;
    fixture.origins.set_proof(Err(Unverified::Failed(
        "the probe was answered with 302".into(),
    )));
    let items = fixture.append_all(writes()).await;
    fixture.pass_secs(10_000).await;
    assert!(fixture.origins.seen().is_empty());
    let status = fixture.replay.statuses.of(&origin("api")).unwrap();
    assert_eq!(status.phase.as_str(), "captive");
    assert_eq!(
        status.remark.as_deref(),
        Some("the probe was answered with 302")
    );
    fixture.origins.set_proof(Ok(Proof::Proven));
    fixture.all_done(&items).await;
}

#[tokio::test(start_paused = true)]
async fn the_proof_of_an_hour_ago_does_not_vouch_for_a_login_page() {
    let mut fixture = Fixture::new().await;
    let first = fixture.append(write("POST", "a", "/first")).await;
    fixture.all_done(&[first]).await;
    fixture.origins.set_proof(Err(Unverified::Failed(
        "the probe was answered with HTML".into(),
    )));
    fixture.origins.always(login_page());
    let item = fixture.append(write("PUT", "a", "/a")).await;
    fixture.pass_secs(1_000).await;
    assert_eq!(fixture.item(item.id).await.state, State::Queued);
    assert_eq!(
        fixture.origins.seen().len(),
        2,
        "asked once, then probed only"
    );
    fixture.origins.set_proof(Ok(Proof::Proven));
    fixture.origins.always(ok());
    fixture.all_done(&[item]).await;
}

#[tokio::test(start_paused = true)]
async fn a_proven_origin_is_judged_by_the_table_alone() {
    for (does, expected) in [
        (login_page(), State::Done(Done::Answered)),
        (redirect(), State::Dead(Dead::Rejected)),
    ] {
        let mut fixture = Fixture::new().await;
        fixture.origins.always(does);
        let item = fixture.append(write("POST", "a", "/a")).await;
        assert_eq!(fixture.settled(item.id).await.state, expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_honest_answer_is_html_does_not_block_the_others() {
    let mut fixture = Fixture::new().await;
    fixture.origins.set_proof(Ok(Proof::Unproven));
    fixture.origins.do_as(|seen| match seen.path.as_str() {
        "/gone" => with(404, "content-type", "text/html"),
        _ => ok(),
    });
    let gone = fixture.append(write("PUT", "gone", "/gone")).await;
    let others = fixture.append_all(writes()).await;
    fixture.all_done(&others).await;
    assert_eq!(fixture.origins.paths()[..2], ["/gone", "/b"]);
    // A canary was plausible: from here on the table alone counts.
    let gone = fixture.settled(gone.id).await;
    assert_eq!(gone.state, State::Dead(Dead::Rejected));
    assert_eq!(gone.attempts, 1);
}

#[tokio::test(start_paused = true)]
async fn html_is_believed_where_it_is_asked_for() {
    let mut fixture = Fixture::new().await;
    fixture.origins.set_proof(Ok(Proof::Unproven));
    fixture.origins.always(login_page());
    let asking = [("accept", "text/html, */*;q=0.1")];
    let item = fixture.append_with(write("POST", "a", "/a"), &asking).await;
    fixture.all_done(&[item]).await;
}
