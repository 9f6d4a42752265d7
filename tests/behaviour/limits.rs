//! A client that asks for too much, or holds on too long, is bounded.

use std::time::Duration;

use tokio::time::Instant;

use crate::support::{Gateway, Origin, Reply, Request, eventually, within};

const ONE_A_SECOND: &str = r#"
    [limits]
    exempt_loopback = false
    per_client = { rate = "1/s", burst = 3, key = "ip" }
"#;

#[tokio::test]
async fn a_client_over_its_rate_is_refused_and_told_when_to_come_back() {
    let (origin, gateway) = (Origin::start().await, Gateway::start(ONE_A_SECOND).await);
    origin.on("/a", Reply::ok("hello").cache_control("max-age=300"));
    let url = origin.url("/a");
    let mut refused = None;
    // Burst and rate together admit at most one more than the burst within a second.
    for _ in 0..10 {
        let answer = gateway.client.get(&url).await;
        if answer.status == 429 {
            refused = Some(answer);
            break;
        }
    }
    let refused = refused.expect("a refusal");
    refused.assert_problem(429, "rate-limited");
    let retry_after: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert_eq!(retry_after, 1);
    assert!(refused.header("ratelimit-policy").is_some());

    let begun = Instant::now();
    eventually("the client is admitted again", || async {
        (gateway.client.get(&url).await.status == 200).then_some(())
    })
    .await;
    // The promise: whoever waits that long is admitted. The slack is for a busy machine.
    let promised = Duration::from_secs(retry_after);
    assert!(
        begun.elapsed() < promised + Duration::from_secs(2),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_refused_connection_stays_usable() {
    let (origin, gateway) = (Origin::start().await, Gateway::start(ONE_A_SECOND).await);
    origin.on("/a", Reply::ok("hello").cache_control("max-age=300"));
    let request = Request::get(&origin.url("/a"));
    let mut connection = gateway.client.connect().await;
    let mut statuses = Vec::new();
    for _ in 0..8 {
        statuses.push(connection.ask(&request).await.status);
    }
    assert!(
        statuses.contains(&200) && statuses.contains(&429),
        "{statuses:?}"
    );
}

#[tokio::test]
async fn loopback_clients_are_exempt_unless_configured() {
    let config = "[limits]\nper_client = { rate = \"1/s\", burst = 1, key = \"ip\" }";
    let (origin, gateway) = (Origin::start().await, Gateway::start(config).await);
    origin.on("/a", Reply::ok("hello").cache_control("max-age=300"));
    for _ in 0..20 {
        assert_eq!(gateway.client.get(&origin.url("/a")).await.status, 200);
    }
}

#[tokio::test]
async fn behind_a_trusted_proxy_each_client_has_its_own_rate() {
    let config = ONE_A_SECOND.to_owned() + "trusted_proxies = [\"127.0.0.0/8\"]";
    let (origin, gateway) = (Origin::start().await, Gateway::start(&config).await);
    origin.on("/a", Reply::ok("hello").cache_control("max-age=300"));
    for client in 1..=20 {
        let request = Request::get(&origin.url("/a")).header(
            "X-Forwarded-For",
            &format!("198.51.100.66, 203.0.113.{client}"),
        );
        assert_eq!(gateway.client.ask(request).await.status, 200);
    }
}

#[tokio::test]
async fn clients_that_stay_silent_or_slow_before_their_head_is_whole_are_cut() {
    let gateway = Gateway::start("").await;
    let mut connections = tokio::task::JoinSet::new();
    for begun in [
        "",
        "G",
        "GET / HTTP/1.1\r\nHost: a",
        "PRI",
        "PRI * HTTP/2.0\r\n\r\n",
    ] {
        let mut connection = gateway.client.connect().await;
        connection.send(begun.as_bytes()).await;
        connections.spawn(async move {
            connection.until_end().await;
        });
    }
    // Ten seconds from accept; the deadline of every wait is above it.
    within("all are cut", connections.join_all()).await;
}

#[tokio::test]
async fn connections_over_the_maximum_wait_or_are_closed_and_do_not_stay_out() {
    let config = "[limits]\nmax_connections = 2";
    let (origin, gateway) = (Origin::start().await, Gateway::start(config).await);
    origin.on("/a", Reply::ok("hello").cache_control("max-age=300"));
    let request = Request::get(&origin.url("/a"));
    let (mut first, mut second) = (
        gateway.client.connect().await,
        gateway.client.connect().await,
    );
    assert_eq!(first.ask(&request).await.status, 200);
    assert_eq!(second.ask(&request).await.status, 200);

    let mut third = gateway.client.connect().await;
    third.send_request(&request).await;
    let early = tokio::time::timeout(Duration::from_millis(300), third.try_head()).await;
    let was_served = matches!(early, Ok(Some(ref answer)) if answer.status == 200);
    assert!(!was_served, "a third connection was served");
    assert_eq!(
        first.ask(&request).await.status,
        200,
        "the others are not disturbed"
    );

    drop((first, second, third));
    eventually("there is room again", || async {
        let mut connection = gateway.client.connect().await;
        connection.send_request(&request).await;
        let answer = connection.try_head().await;
        answer.filter(|answer| answer.status == 200)
    })
    .await;
}
