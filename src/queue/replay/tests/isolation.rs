//! One origin's trouble is no other's.

use std::time::Duration;

use tokio::time::Instant;

use super::{
    Fixture, origin,
    support::{Does, ok},
    write_to,
};
use crate::policy::Connectivity::Disconnected;

#[tokio::test(start_paused = true)]
async fn a_dead_and_a_hanging_origin_hold_up_no_other() {
    let mut fixture = Fixture::new().await;
    fixture.origins.set_link(&origin("dead"), Disconnected);
    fixture.origins.do_as(|seen| match seen.path.as_str() {
        "/hanging" => Does::Hang,
        _ => ok(),
    });
    for lane in 0..100 {
        let lane = lane.to_string();
        fixture
            .append(write_to("dead", "PUT", &lane, "/dead"))
            .await;
        fixture
            .append(write_to("hanging", "PUT", &lane, "/hanging"))
            .await;
    }
    fixture.pass_secs(3_600).await;
    for _ in 0..100 {
        let begin = Instant::now();
        let item = fixture.append(write_to("well", "PUT", "x", "/well")).await;
        fixture.all_done(&[item]).await;
        assert!(begin.elapsed() < Duration::from_millis(100));
    }
    let seen = fixture.origins.paths();
    assert!(!seen.contains(&"/dead".to_owned()));
    assert_eq!(seen.iter().filter(|path| *path == "/hanging").count(), 1);
}

#[tokio::test(start_paused = true)]
async fn many_dead_origins_wait_without_a_timer_of_their_own() {
    let fixture = Fixture::new().await;
    for number in 0..500 {
        let name = format!("dead{number}");
        fixture.origins.set_link(&origin(&name), Disconnected);
        fixture.append(write_to(&name, "PUT", "x", "/")).await;
    }
    fixture.pass_secs(10_000).await;
    assert!(fixture.origins.seen().is_empty() && fixture.origins.verified().is_empty());
}
