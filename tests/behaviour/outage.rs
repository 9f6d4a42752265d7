//! The origin is gone: what is stored still answers, what is not is refused at once.

use std::time::Duration;

use tokio::{
    net::{TcpSocket, TcpStream},
    time::Instant,
};

use crate::support::{Gateway, Origin, Reply, Step, eventually, reverse_to, within};

#[tokio::test]
async fn fresh_then_stale_answers_outlive_the_origin() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on("/a", Reply::ok("hello").cache_control("max-age=300"));
    let url = origin.url("/a");
    gateway.client.get(&url).await;
    origin.kill().await;

    gateway
        .client
        .get(&url)
        .await
        .assert_says(&["hit", "ttl=300"]);

    gateway.clock.step_secs(1_000);
    let discovery = gateway.client.get(&url).await;
    assert_eq!((discovery.status, discovery.text()), (200, "hello"));
    discovery.assert_says(&["fwd=stale", "detail=disconnected"]);

    for _ in 0..3 {
        let known = gateway.client.get(&url).await;
        assert_eq!((known.status, known.text()), (200, "hello"));
        known.assert_says(&["hit", "ttl=-700", "detail=disconnected"]);
        assert_eq!(known.header("age"), Some("1000"));
    }
}

#[tokio::test]
async fn an_unknown_url_is_refused_as_an_offline_miss() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.kill().await;
    for path in ["/first", "/second", "/first"] {
        let answer = gateway.client.get(&origin.url(path)).await;
        answer.assert_problem(504, "offline-miss");
    }
}

#[tokio::test]
async fn requests_do_not_wait_for_connects_while_disconnected() {
    let black_hole = BlackHole::open().await;
    let config = reverse_to(black_hole.socket.local_addr().unwrap())
        .replace("[[routes]]", "connect_timeout = \"500ms\"\n[[routes]]");
    let gateway = Gateway::start(&config).await;
    let discovery = gateway.client.get("/0").await;
    discovery.assert_problem(504, "offline-miss");

    let begun = Instant::now();
    for number in 1..=40 {
        let answer = gateway.client.get(&format!("/{number}")).await;
        answer.assert_problem(504, "offline-miss");
    }
    // With a connect attempt each this takes 20 s; 5 s leaves room for a busy machine.
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_returned_origin_is_found_by_the_prober_and_asked_again() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on_each("/a", |_, nth| {
        Reply::ok(format!("v{nth}")).cache_control("max-age=300")
    });
    let url = origin.url("/a");
    gateway.client.get(&url).await;
    origin.kill().await;
    gateway.clock.step_secs(1_000);
    gateway
        .client
        .get(&url)
        .await
        .assert_says(&["detail=disconnected"]);

    origin.revive();
    let recovered = eventually("the origin is asked again", || async {
        // The key is held down after its failure, by the clock that stands still otherwise.
        gateway.clock.step_secs(1);
        let answer = gateway.client.get(&url).await;
        answer.says("fwd-status=200").then_some(answer)
    })
    .await;
    assert_eq!(recovered.text(), "v1");
    recovered.assert_says(&["fwd=stale", "fwd-status=200", "stored"]);
    gateway
        .client
        .get(&url)
        .await
        .assert_says(&["hit", "ttl=300"]);
}

#[tokio::test]
async fn what_must_be_validated_is_not_served_without_the_origin() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let forbidden = [
        "max-age=300, must-revalidate",
        "max-age=300, proxy-revalidate",
        "max-age=300, no-cache",
        "s-maxage=300",
    ];
    for (number, terms) in forbidden.iter().enumerate() {
        let path = format!("/{number}");
        origin.on(&path, Reply::ok("x").cache_control(terms).etag("\"1\""));
        assert_eq!(gateway.client.get(&origin.url(&path)).await.status, 200);
    }
    origin.kill().await;
    gateway.clock.step_secs(1_000);
    for (number, terms) in forbidden.iter().enumerate() {
        let answer = gateway.client.get(&origin.url(&format!("/{number}"))).await;
        assert_eq!(answer.status, 504, "{terms}");
        answer.assert_problem(504, "offline-miss");
    }
}

#[tokio::test]
async fn an_error_answer_gives_way_to_the_stored_response() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    for status in [500, 502, 503, 504] {
        let path = format!("/{status}");
        origin.on_each(&path, move |_, nth| match nth {
            0 => Reply::ok("good").cache_control("max-age=300"),
            _ => Reply::new(status, "bad"),
        });
        let url = origin.url(&path);
        gateway.client.get(&url).await;
        gateway.clock.step_secs(301);
        let answer = gateway.client.get(&url).await;
        assert_eq!((answer.status, answer.text()), (200, "good"));
        let fwd_status = format!("fwd-status={status}");
        answer.assert_says(&["fwd=stale", &fwd_status, "detail=stale-if-error"]);
    }
}

#[tokio::test]
async fn an_error_answer_is_passed_on_past_the_window_and_never_replaces_a_response() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on_each("/a", |_, nth| match nth {
        0 => Reply::ok("good").cache_control("max-age=300, stale-if-error=60"),
        _ => Reply::new(503, "bad"),
    });
    let url = origin.url("/a");
    gateway.client.get(&url).await;
    gateway.clock.step_secs(361);
    let past_the_window = gateway.client.get(&url).await;
    assert_eq!(
        (past_the_window.status, past_the_window.text()),
        (503, "bad")
    );

    origin.kill().await;
    let disconnected = gateway.client.get(&url).await;
    assert_eq!((disconnected.status, disconnected.text()), (200, "good"));
    disconnected.assert_says(&["detail=disconnected"]);
}

#[tokio::test]
async fn a_broken_answer_is_an_error_of_that_request_and_no_outage() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on_each("/a", |_, nth| match nth {
        0 => Reply::ok("good").cache_control("max-age=300"),
        _ => Reply::script([Step::Reset]),
    });
    origin.on("/b", Reply::ok("fine"));
    let url = origin.url("/a");
    gateway.client.get(&url).await;
    gateway.clock.step_secs(301);

    let stale = gateway.client.get(&url).await;
    assert_eq!((stale.status, stale.text()), (200, "good"));
    stale.assert_says(&["fwd=stale", "detail=stale-if-error"]);

    let other = gateway.client.get(&origin.url("/b")).await;
    assert_eq!((other.status, other.text()), (200, "fine"));
}

/// A listener whose backlog is full: connects neither succeed nor fail, as towards a host that drops packets.
struct BlackHole {
    socket: tokio::net::TcpListener,
    _filling: Vec<TcpStream>,
}

impl BlackHole {
    async fn open() -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, 1], 0).into()).unwrap();
        let socket = socket.listen(1).unwrap();
        let address = socket.local_addr().unwrap();
        let mut filling = Vec::new();
        // Full once a connect hangs; on loopback one that succeeds takes microseconds.
        let hangs = Duration::from_millis(200);
        within("the backlog fills", async {
            while let Ok(stream) = tokio::time::timeout(hangs, TcpStream::connect(address)).await {
                filling.push(stream.unwrap());
            }
        })
        .await;
        Self {
            socket,
            _filling: filling,
        }
    }
}
