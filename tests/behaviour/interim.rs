//! What an origin says before it answers reaches the client that waits, at once, and nobody else.

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};

use crate::support::{
    Connection, Cue, Gateway, Origin, Reply, Request, Step, eventually, reverse_to, within,
};

const EARLY_HINTS: &str = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n";
const PROCESSING: &str = "HTTP/1.1 102 Processing\r\n\r\n";
const ANSWER: &str =
    "HTTP/1.1 200 OK\r\nCache-Control: max-age=300\r\nContent-Length: 5\r\n\r\nhello";

fn send(text: impl Into<String>) -> Step {
    Step::Send(text.into().into())
}

/// Interim responses at once, the answer on cue.
fn hinted(interim: &str, cue: &Cue) -> Reply {
    Reply::script([send(interim), Step::Await(cue.clone()), send(ANSWER)])
}

/// The status of the next head, interim or not.
async fn next_status(connection: &mut Connection) -> Option<u16> {
    connection.try_head().await.map(|head| head.status)
}

#[tokio::test]
async fn interim_responses_arrive_while_the_origin_still_holds_its_answer() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let cue = Cue::new();
    let hop = "HTTP/1.1 103 Early Hints\r\nLink: </b.css>\r\nConnection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\r\n";
    let interim = [PROCESSING, EARLY_HINTS, hop].concat();
    origin.on("/a", hinted(&interim, &cue));
    let request = Request::get(&origin.url("/a"));
    let mut connection = gateway.client.connect().await;
    connection.send_request(&request).await;

    assert_eq!(next_status(&mut connection).await, Some(102));
    let hints = connection.try_head().await.unwrap();
    assert_eq!(hints.status, 103);
    assert_eq!(hints.header("link"), Some("</a.css>; rel=preload"));
    let hints = connection.try_head().await.unwrap();
    assert_eq!(hints.header("link"), Some("</b.css>"));
    for name in ["connection", "x-hop", "keep-alive"] {
        assert_eq!(hints.header(name), None, "{name}");
    }

    cue.open();
    let answer = connection.answer("GET").await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    assert_eq!(answer.header("link"), None);
    // The connection goes on, and a hit has none of it.
    connection.send_request(&request).await;
    let head = connection.try_head().await.unwrap();
    assert_eq!((head.status, head.header("link")), (200, None));
    let hit = connection.rest_of(head, "GET").await;
    assert_eq!(hit.text(), "hello");
    hit.assert_says(&["hit"]);
}

#[tokio::test]
async fn what_comes_together_with_the_answer_stands_before_it() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let whole = [EARLY_HINTS, PROCESSING, ANSWER].concat();
    origin.on("/a", Reply::script([send(whole)]));
    origin.on(
        "/post",
        Reply::script([send([EARLY_HINTS, ANSWER].concat())]),
    );
    let mut connection = gateway.client.connect().await;
    connection
        .send_request(&Request::get(&origin.url("/a")))
        .await;
    assert_eq!(next_status(&mut connection).await, Some(103));
    assert_eq!(next_status(&mut connection).await, Some(102));
    assert_eq!(connection.answer("GET").await.text(), "hello");

    let post = Request::new("POST", &origin.url("/post")).body("x");
    connection.send_request(&post).await;
    assert_eq!(next_status(&mut connection).await, Some(103));
    assert_eq!(connection.answer("POST").await.text(), "hello");
}

#[tokio::test]
async fn an_http_1_0_client_gets_none() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on("/a", Reply::script([send([EARLY_HINTS, ANSWER].concat())]));
    let mut connection = gateway.client.connect().await;
    let request = format!("GET {} HTTP/1.0\r\nHost: x\r\n\r\n", origin.url("/a"))
        .replace("Host: x", &format!("Host: {}", origin.address()));
    connection.send(request.as_bytes()).await;
    let all = String::from_utf8(connection.until_end().await).unwrap();
    assert!(
        all.starts_with("HTTP/1.0 200 ") && all.ends_with("hello"),
        "{all}"
    );
    assert!(!all.contains("103"), "{all}");
}

#[tokio::test]
async fn an_http_2_client_gets_its_answer_without_them() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    origin.on("/a", Reply::script([send([EARLY_HINTS, ANSWER].concat())]));
    let stream = gateway.client.connect().await.into_stream();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let request = http::Request::get(format!("http://{}/a", gateway.client.address))
        .body(Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = within("an answer over h2", sender.send_request(request))
        .await
        .unwrap();
    assert!(!response.headers().contains_key("link"));
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "hello");
}

#[tokio::test]
async fn a_100_is_the_gateways_own_and_comes_once() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".to_owned() + EARLY_HINTS;
    origin.on("/a", Reply::script([send(interim + ANSWER)]));
    let mut connection = gateway.client.connect().await;
    let head = format!(
        "POST {} HTTP/1.1\r\nHost: {}\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n",
        origin.url("/a"),
        origin.address()
    );
    connection.send(head.as_bytes()).await;
    assert_eq!(next_status(&mut connection).await, Some(100));
    connection.send(b"body").await;
    assert_eq!(next_status(&mut connection).await, Some(103));
    assert_eq!(next_status(&mut connection).await, Some(200));
    assert_eq!(origin.seen()[0].body, b"body");
}

#[tokio::test]
async fn a_flood_is_cut_to_a_few_and_the_answer_comes() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let large = format!(
        "HTTP/1.1 103 Early Hints\r\nLink: {}\r\n\r\n",
        "a".repeat(7_000)
    );
    for (path, interim, expected) in [("/many", PROCESSING, 16), ("/large", &large, 2)] {
        let flood = interim.repeat(100) + ANSWER;
        origin.on(path, Reply::script([send(flood)]));
        let mut connection = gateway.client.connect().await;
        let request = Request::get(&origin.url(path));
        connection.send_request(&request).await;
        let mut count = 0;
        let head = loop {
            let head = connection.try_head().await.unwrap();
            if head.status >= 200 {
                break head;
            }
            count += 1;
        };
        assert_eq!(count, expected, "{path}");
        assert_eq!(connection.rest_of(head, "GET").await.text(), "hello");
        connection.ask(&request).await.assert_says(&["hit"]);
    }
}

#[tokio::test]
async fn an_origin_that_only_ever_sends_interim_responses_is_given_up() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let endless = send(PROCESSING.repeat(2_000));
    origin.on("/a", Reply::script([endless, Step::Await(Cue::new())]));
    let answer = gateway.client.get(&origin.url("/a")).await;
    answer.assert_problem(502, "upstream-error");
    // At once, and not when the time for a first byte is over: also of a write, and where the library's connections are used.
    let post = Request::new("POST", &origin.url("/a")).body("content");
    let upgrade = Request::get(&origin.url("/a"))
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket");
    for request in [post, upgrade] {
        let answer = within("it is given up", gateway.client.ask(request)).await;
        answer.assert_problem(502, "upstream-error");
    }
}

#[tokio::test]
async fn pipelined_requests_each_get_their_own() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let cue = Cue::new();
    origin.on("/a", hinted(EARLY_HINTS, &cue));
    origin.on("/b", Reply::script([send([PROCESSING, ANSWER].concat())]));
    let mut connection = gateway.client.connect().await;
    let ask = |path| {
        format!(
            "GET {} HTTP/1.1\r\nHost: {}\r\n\r\n",
            origin.url(path),
            origin.address()
        )
    };
    connection
        .send([ask("/a"), ask("/b"), ask("/a")].concat().as_bytes())
        .await;
    assert_eq!(next_status(&mut connection).await, Some(103));
    cue.open();
    assert_eq!(connection.answer("GET").await.text(), "hello");
    assert_eq!(next_status(&mut connection).await, Some(102));
    assert_eq!(connection.answer("GET").await.text(), "hello");
    let head = connection.try_head().await.unwrap();
    let hit = connection.rest_of(head, "GET").await;
    assert_eq!((hit.status, hit.text()), (200, "hello"));
    hit.assert_says(&["hit"]);
}

#[tokio::test]
async fn hints_reach_a_client_in_the_middle_of_its_upload() {
    let gateway = Gateway::start("").await;
    // An origin that speaks before it has the whole request.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (half, whole) = (vec![b'a'; 1 << 20], 2 << 20);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut read = Vec::new();
        while !read.windows(4).any(|w| w == b"\r\n\r\n") {
            stream.read_buf(&mut read).await.unwrap();
        }
        stream.write_all(EARLY_HINTS.as_bytes()).await.unwrap();
        while read.len() < whole {
            stream.read_buf(&mut read).await.unwrap();
        }
        stream.write_all(PROCESSING.as_bytes()).await.unwrap();
        stream.write_all(ANSWER.as_bytes()).await.unwrap();
        stream
    });
    let mut connection = gateway.client.connect().await;
    let head = format!(
        "POST http://{address}/ HTTP/1.1\r\nHost: {address}\r\nContent-Length: {whole}\r\n\r\n"
    );
    connection.send(head.as_bytes()).await;
    connection.send(&half).await;
    assert_eq!(next_status(&mut connection).await, Some(103));
    connection.send(&half).await;
    assert_eq!(next_status(&mut connection).await, Some(102));
    assert_eq!(connection.answer("POST").await.text(), "hello");
}

#[tokio::test]
async fn whoever_follows_a_fill_gets_none_of_its_starters() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let (hold, cue) = (Cue::new(), Cue::new());
    let steps = [
        Step::Await(hold.clone()),
        send(EARLY_HINTS),
        Step::Await(cue.clone()),
        send(ANSWER),
    ];
    origin.on("/a", Reply::script(steps));
    origin.on("/settle", Reply::ok(""));
    let request = Request::get(&origin.url("/a"));
    let mut starter = gateway.client.connect().await;
    starter.send_request(&request).await;
    origin.sees("/a", 1).await;
    let mut follower = gateway.client.connect().await;
    follower.send_request(&request).await;
    // Time for the follower to join, in round trips of the same thread.
    for _ in 0..10 {
        gateway.client.get(&origin.url("/settle")).await;
    }
    hold.open();
    assert_eq!(next_status(&mut starter).await, Some(103));
    cue.open();
    assert_eq!(starter.answer("GET").await.text(), "hello");
    let head = follower.try_head().await.unwrap();
    let answer = follower.rest_of(head, "GET").await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    answer.assert_says(&["collapsed"]);
    assert_eq!(origin.seen_at("/a").len(), 1);
}

#[tokio::test]
async fn what_comes_after_a_request_was_answered_otherwise_reaches_nobody() {
    let origin = Origin::start().await;
    let gateway = Gateway::start("[cache]\nfresh_timeout = \"50ms\"").await;
    let (late, cue) = (Cue::new(), Cue::new());
    let steps = [
        Step::Await(late.clone()),
        send(EARLY_HINTS),
        Step::Await(cue.clone()),
        send(ANSWER),
    ];
    origin.on_each("/a", move |_, nth| match nth {
        0 => Reply::ok("old")
            .cache_control("max-age=60")
            .header("Age", "60"),
        _ => Reply::script(steps.clone()),
    });
    origin.on("/b", Reply::ok("b"));
    let request = Request::get(&origin.url("/a"));
    let mut connection = gateway.client.connect().await;
    connection.ask(&request).await;
    gateway.clock.step_secs(1);
    let stale = connection.ask(&request).await;
    assert_eq!(stale.text(), "old");
    stale.assert_says(&["detail=fresh-timeout"]);

    // The fill goes on, and its hints come while another request is answered on the same connection.
    late.open();
    connection
        .send_request(&Request::get(&origin.url("/b")))
        .await;
    assert_eq!(next_status(&mut connection).await, Some(200));
    cue.open();
    eventually("the fill ends", || async {
        (gateway.client.get(&origin.url("/a")).await.text() == "hello").then_some(())
    })
    .await;
}

#[tokio::test]
async fn a_client_that_has_gone_leaves_no_trace_in_the_fill() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let (hold, cue) = (Cue::new(), Cue::new());
    let steps = [
        Step::Await(hold.clone()),
        send(EARLY_HINTS.repeat(20)),
        Step::Await(cue.clone()),
        send(ANSWER),
    ];
    origin.on("/a", Reply::script(steps));
    let mut gone = gateway.client.connect().await;
    gone.send_request(&Request::get(&origin.url("/a"))).await;
    origin.sees("/a", 1).await;
    drop(gone);
    hold.open();
    cue.open();
    eventually("the fill is stored", || async {
        gateway
            .client
            .get(&origin.url("/a"))
            .await
            .says("hit")
            .then_some(())
    })
    .await;
    assert_eq!(origin.seen().len(), 1);
}
