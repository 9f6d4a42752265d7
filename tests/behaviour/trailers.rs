//! What stands behind a body reaches whoever follows it and takes it, and is never stored.

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;

use crate::support::{
    Answer, Connection, Cue, Gateway, Origin, Reply, Request, Step, reverse_to, within,
};

/// A chunked answer with trailers, the second half of it on cue. The head promises more than may come.
fn trailed(cache_control: &str, cue: &Cue) -> Reply {
    let head = format!(
        "HTTP/1.1 200 OK\r\nCache-Control: {cache_control}\r\nTrailer: X-Sum, Set-Cookie\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
    );
    let end = "6\r\n world\r\n0\r\nX-Sum: 42\r\nX-Surprise: 1\r\nSet-Cookie: a=b\r\nContent-Length: 3\r\n\r\n";
    Reply::script([
        Step::Send(head.into()),
        Step::Await(cue.clone()),
        Step::Send(end.into()),
    ])
}

fn opened() -> Cue {
    let cue = Cue::new();
    cue.open();
    cue
}

fn asking(method: &str, url: &str) -> Request {
    Request::new(method, url)
        .header("TE", "gzip;q=0.5, trailers")
        .header("Connection", "TE")
}

#[track_caller]
fn assert_trailed(answer: &Answer) {
    assert!(answer.is_complete);
    assert_eq!(answer.text(), "hello world");
    assert_eq!(answer.header("trailer"), Some("x-sum"));
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "42".to_owned())]);
    assert_eq!(answer.header("x-sum"), None);
}

#[track_caller]
fn assert_untrailed(answer: &Answer) {
    assert!(answer.is_complete);
    assert_eq!(answer.text(), "hello world");
    assert!(answer.trailers.is_empty(), "{:?}", answer.trailers);
    for name in ["trailer", "x-sum", "x-surprise", "set-cookie"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
}

#[tokio::test]
async fn a_client_that_takes_trailers_gets_them_and_a_hit_has_none() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on("/a", trailed("max-age=300", &opened()));
    let url = origin.url("/a");
    let mut connection = gateway.client.connect().await;
    assert_trailed(&connection.ask(&asking("GET", &url)).await);
    // On the same connection: nothing of the section is left over.
    let hit = connection.ask(&asking("GET", &url)).await;
    assert_untrailed(&hit);
    hit.assert_says(&["hit"]);

    let seen = &origin.seen()[0];
    assert_eq!(seen.all("te"), ["trailers"]);
    assert_eq!(seen.all("connection"), ["te"]);
}

#[tokio::test]
async fn a_client_that_does_not_take_trailers_gets_a_whole_body_without() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    for (path, terms) in [("/stored", "max-age=300"), ("/passed", "no-store")] {
        origin.on(path, trailed(terms, &opened()));
        let mut connection = gateway.client.connect().await;
        for _ in 0..2 {
            let answer = connection.ask(&Request::get(&origin.url(path))).await;
            assert_untrailed(&answer);
        }
        assert_eq!(origin.seen_at(path)[0].header("te"), None);
    }
}

#[tokio::test]
async fn answers_that_are_not_stored_have_their_trailers_too() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on("/a", trailed("no-store", &opened()));
    let url = origin.url("/a");
    let mut connection = gateway.client.connect().await;
    assert_trailed(&connection.ask(&asking("GET", &url)).await);
    assert_trailed(&connection.ask(&asking("POST", &url).body("x")).await);
    assert_eq!(origin.seen()[1].all("te"), ["trailers"]);
}

#[tokio::test]
async fn a_follower_gets_the_trailers_as_the_starter_does() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let cue = Cue::new();
    origin.on("/a", trailed("max-age=300", &cue));
    let begin = async |request: Request| {
        let mut connection = gateway.client.connect().await;
        connection.send_request(&request).await;
        let head = connection.head().await;
        connection.first_byte().await;
        (connection, head)
    };
    let finish =
        async |(mut connection, head): (Connection, Answer)| connection.rest_of(head, "GET").await;
    let url = origin.url("/a");
    let starter = begin(asking("GET", &url)).await;
    let follower = begin(asking("GET", &url)).await;
    let plain = begin(Request::get(&url)).await;
    cue.open();
    assert_trailed(&finish(starter).await);
    let follower = finish(follower).await;
    assert_trailed(&follower);
    follower.assert_says(&["collapsed"]);
    assert_untrailed(&finish(plain).await);
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn an_http_2_client_gets_them_without_a_promise_and_a_hit_has_none() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    let unpromised = "HTTP/1.1 200 OK\r\nCache-Control: max-age=300\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\ngrpc-status: 0\r\nSet-Cookie: a=b\r\n\r\n";
    origin.on("/a", Reply::script([Step::Send(unpromised.into())]));
    let passed = unpromised.replace("max-age=300", "no-store");
    origin.on("/b", Reply::script([Step::Send(passed.into())]));

    let stream = gateway.client.connect().await.into_stream();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    for (path, expected) in [("/a", true), ("/a", false), ("/b", true)] {
        let request = http::Request::get(format!("http://{}{path}", gateway.client.address))
            .header("te", "trailers")
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        let response = within("an answer over h2", sender.send_request(request))
            .await
            .unwrap();
        let whole = response.into_body().collect().await.unwrap();
        let trailers = whole.trailers().map(|trailers| {
            let fields = trailers.iter();
            fields.map(|(name, _)| name.to_string()).collect::<Vec<_>>()
        });
        let expected = expected.then(|| vec!["grpc-status".to_owned()]);
        assert_eq!(trailers, expected, "{path}");
        assert_eq!(whole.to_bytes(), "hello");
    }
    assert_eq!(origin.seen()[0].all("te"), ["trailers"]);
}

#[tokio::test]
async fn trailers_without_bounds_break_the_body_off() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let endless = format!("x-sum: {}\r\n", "a".repeat(1_000)).repeat(20);
    let message = format!(
        "HTTP/1.1 200 OK\r\nCache-Control: max-age=300\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n{endless}\r\n"
    );
    origin.on("/a", Reply::script([Step::Send(message.into())]));
    for _ in 0..2 {
        let answer = gateway.client.ask(asking("GET", &origin.url("/a"))).await;
        assert!(!answer.is_complete);
    }
    assert_eq!(origin.seen().len(), 2, "it was stored");
}
