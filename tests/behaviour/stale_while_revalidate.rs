//! Within the window everyone is answered at once, and one validation runs behind.

use tokio::task::JoinSet;

use crate::support::{Cue, Gateway, Origin, Reply, eventually};

const CLIENTS: usize = 50;

#[tokio::test]
async fn concurrent_clients_on_a_stale_key_cost_the_origin_one_request() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let cue = Cue::new();
    let hold = cue.clone();
    origin.on_each("/a", move |_, nth| {
        let reply =
            Reply::ok(format!("v{nth}")).cache_control("max-age=60, stale-while-revalidate=600");
        if nth == 0 { reply } else { reply.held(&hold) }
    });
    let url = origin.url("/a");
    gateway.client.get(&url).await;
    gateway.clock.step_secs(100);

    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, url) = (gateway.client.clone(), url.clone());
        clients.spawn(async move { client.get(&url).await });
    }
    // The origin holds its answer, so whoever is answered now did not wait for it.
    for answer in clients.join_all().await {
        assert_eq!(answer.text(), "v0");
        answer.assert_says(&["hit", "ttl=-40", "detail=stale-while-revalidate"]);
    }
    origin.sees("/a", 2).await;

    cue.open();
    let fresh = eventually("the validation is stored", || async {
        let answer = gateway.client.get(&url).await;
        (answer.text() == "v1").then_some(answer)
    })
    .await;
    fresh.assert_says(&["hit", "ttl=60"]);
    assert_eq!(origin.seen_at("/a").len(), 2);
}

#[tokio::test]
async fn past_the_window_the_client_waits_for_the_origin() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on_each("/a", |_, nth| {
        Reply::ok(format!("v{nth}")).cache_control("max-age=60, stale-while-revalidate=600")
    });
    let url = origin.url("/a");
    gateway.client.get(&url).await;
    gateway.clock.step_secs(661);
    let answer = gateway.client.get(&url).await;
    assert_eq!(answer.text(), "v1");
    answer.assert_says(&["fwd=stale", "fwd-status=200", "stored"]);
}

#[tokio::test]
async fn a_failed_validation_keeps_the_stored_response_and_does_not_hammer_the_origin() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on_each("/a", |_, nth| match nth {
        0 => Reply::ok("good").cache_control("max-age=60, stale-while-revalidate=600"),
        _ => Reply::new(503, "bad"),
    });
    let url = origin.url("/a");
    gateway.client.get(&url).await;
    gateway.clock.step_secs(100);
    gateway.client.get(&url).await;
    origin.sees("/a", 2).await;
    // Held down by the gateway's wall clock, which stands still.
    for _ in 0..20 {
        assert_eq!(gateway.client.get(&url).await.text(), "good");
    }
    assert!(origin.seen_at("/a").len() <= 3, "{}", origin.seen().len());
}
