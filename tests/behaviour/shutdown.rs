//! Ending: what is in flight is finished, what is stored stays.

use std::time::Duration;

use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::support::{
    Answer, Connection, Cue, Origin, Process, Reply, Request, digest, eventually, noise, within,
};

/// A gateway with an answer in flight whose second half the origin holds.
async fn with_an_answer_in_flight(cue: &Cue, body: &[u8]) -> (Origin, Process, Connection, Answer) {
    let (origin, gateway) = (Origin::start().await, Process::start("").await);
    let reply = Reply::ok(body.to_vec()).cache_control("max-age=3600");
    origin.on("/a", reply.dripped(2, cue));
    let mut connection = gateway.client.connect().await;
    connection
        .send_request(&Request::get(&origin.url("/a")))
        .await;
    let head = connection.head().await;
    connection.first_byte().await;
    (origin, gateway, connection, head)
}

async fn no_longer_accepts(gateway: &Process) {
    eventually("the listener is closed", || async {
        TcpStream::connect(gateway.client.address)
            .await
            .is_err()
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn sigterm_finishes_what_is_in_flight_and_keeps_what_is_stored() {
    let (cue, body) = (Cue::new(), noise(1 << 20));
    let (origin, gateway, mut connection, head) = with_an_answer_in_flight(&cue, &body).await;
    origin.on("/b", Reply::ok("hello").cache_control("max-age=3600"));
    gateway.client.get(&origin.url("/b")).await;

    gateway.terminate();
    no_longer_accepts(&gateway).await;
    cue.open();
    let answer = connection.rest_of(head, "GET").await;
    assert!(answer.is_complete);
    assert_eq!(digest(&answer.body), digest(&body));
    drop(connection);
    let (code, home) = gateway.ended().await;
    assert_eq!(code, Some(0));

    let url = |path| origin.url(path);
    origin.kill().await;
    let gateway = home.start().await;
    for (path, expected) in [("/a", digest(&body)), ("/b", digest(b"hello"))] {
        let answer = gateway.client.get(&url(path)).await;
        answer.assert_says(&["hit"]);
        assert_eq!(digest(&answer.body), expected);
    }
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let (origin, gateway) = (Origin::start().await, Process::start("").await);
    origin.on("/a", Reply::ok("hello"));
    let mut connection = gateway.client.connect().await;
    connection.ask(&Request::get(&origin.url("/a"))).await;
    ends_before_the_grace_is_over(gateway).await;
}

#[tokio::test]
async fn a_connection_that_has_not_said_anything_does_not_hold_up_the_end() {
    let gateway = Process::start("").await;
    let _silent = gateway.client.connect().await;
    let (_inside, answer) = gateway.client.connect_through("127.0.0.1:8").await;
    assert_eq!(
        answer.status, 200,
        "silent inside a tunnel, and accepted after the silent one"
    );
    ends_before_the_grace_is_over(gateway).await;
}

#[tokio::test]
async fn a_tunnel_whose_client_does_not_read_does_not_hold_up_the_end() {
    let (listener, gateway) = listener_behind_a_tunnel_port().await;
    let (mut tasks, (full, is_full)) = (JoinSet::<()>::new(), oneshot::channel());
    let authority = listener.local_addr().unwrap().to_string();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        // Speaks first, and until no buffer on the way takes any more.
        let more = [b'x'; 64 * 1024];
        while let Ok(sent) = timeout(Duration::from_millis(500), stream.write_all(&more)).await {
            sent.unwrap();
        }
        let _ = full.send(());
        std::future::pending().await
    });
    let (mut connection, _) = gateway.client.connect_through(&authority).await;
    connection.first_byte().await;
    within("every buffer is full", is_full).await.unwrap();
    ends_before_the_grace_is_over(gateway).await;
}

#[tokio::test]
async fn a_tunnel_in_use_goes_on_while_the_gateway_drains() {
    let (listener, gateway) = listener_behind_a_tunnel_port().await;
    let mut tasks = JoinSet::new();
    let authority = listener.local_addr().unwrap().to_string();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let (mut read, mut write) = stream.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
    });
    let (mut connection, _) = gateway.client.connect_through(&authority).await;
    connection.send(b"0").await;
    assert_eq!(connection.take(1).await, (b"0".to_vec(), true));
    gateway.terminate();
    no_longer_accepts(&gateway).await;
    let draining_since = Instant::now();
    // Longer than the pause that ends a tunnel, so that it is the bytes that keep it open.
    while draining_since.elapsed() < Duration::from_millis(1_500) {
        connection.send(b"0").await;
        assert_eq!(connection.take(1).await, (b"0".to_vec(), true));
    }
    assert_eq!(gateway.ended().await.0, Some(0));
}

async fn listener_behind_a_tunnel_port() -> (TcpListener, Process) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let config = format!("[forward]\nconnect_ports = [{port}]");
    (listener, Process::start(&config).await)
}

async fn ends_before_the_grace_is_over(gateway: Process) {
    let begun = Instant::now();
    gateway.terminate();
    assert_eq!(gateway.ended().await.0, Some(0));
    // The base configuration grants answers in flight five seconds.
    assert!(
        begun.elapsed() < Duration::from_secs(4),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn a_drain_ends_at_its_deadline_whatever_is_in_flight() {
    let (origin, gateway) = (
        Origin::start().await,
        Process::start("[listen]\nshutdown_grace = \"500ms\"").await,
    );
    origin.on("/a", Reply::ok("late").held(&Cue::new()));
    let mut connection = gateway.client.connect().await;
    connection
        .send_request(&Request::get(&origin.url("/a")))
        .await;
    origin.sees("/a", 1).await;
    gateway.terminate();
    assert_eq!(gateway.ended().await.0, Some(0));
}

#[tokio::test]
async fn a_second_sigterm_ends_at_once() {
    let cue = Cue::new();
    let (_origin, gateway, _connection, _) = with_an_answer_in_flight(&cue, b"held back").await;
    gateway.terminate();
    no_longer_accepts(&gateway).await;
    let begun = Instant::now();
    gateway.terminate();
    gateway.ended().await;
    assert!(
        begun.elapsed() < Duration::from_secs(3),
        "{:?}",
        begun.elapsed()
    );
}
