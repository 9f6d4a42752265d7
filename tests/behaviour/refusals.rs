//! Messages that are ambiguous, oversized or going in circles are refused, and none of them reaches the origin.

use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::support::{Gateway, Origin, Reply, Request, Reserved, reverse_to, within};

/// What a refusal looks like.
#[derive(Clone, Copy)]
enum Refusal {
    /// A problem document with this status and reason.
    Problem(u16, &'static str),
    /// This status. The parser may refuse the message before there is a request to describe a problem of.
    Status(u16),
}

/// Whether the connection has to end: nothing after the message can be trusted.
#[derive(Clone, Copy, PartialEq)]
enum Connection {
    Closes,
    MayStay,
}

use Connection::{Closes, MayStay};
use Refusal::{Problem, Status};

/// Sends `message`, with `{origin}` standing for the origin's authority, and checks what comes back.
async fn check(message: &str, refusal: Refusal, connection: Connection) {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    let message = message.replace("{origin}", &origin.address().to_string());
    let shown = &message[..message.len().min(120)];

    let mut client = gateway.client.connect().await;
    client.send(message.as_bytes()).await;
    let answer = client.answer("GET").await;
    match refusal {
        Problem(status, reason) => {
            assert_eq!(answer.status, status, "{shown:?}");
            answer.assert_problem(status, reason);
        }
        Status(status) => assert_eq!(answer.status, status, "{shown:?}"),
    }
    if connection == Closes {
        let rest = client.until_end().await;
        assert!(rest.is_empty(), "{shown:?}: answered again: {rest:?}");
    }
    assert!(origin.seen().is_empty(), "{shown:?}: reached the origin");
}

const BAD_REQUEST: Refusal = Problem(400, "bad-request");

#[tokio::test]
async fn a_body_of_two_lengths_is_refused() {
    for fields in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 5",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked, chunked",
    ] {
        for target in ["http://{origin}/a", "/a"] {
            let smuggled = "0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: {origin}\r\n\r\n";
            let message =
                format!("POST {target} HTTP/1.1\r\nHost: {{origin}}\r\n{fields}\r\n\r\n{smuggled}");
            check(&message, BAD_REQUEST, Closes).await;
        }
    }
}

#[tokio::test]
async fn a_length_that_is_no_number_or_several_is_refused() {
    for fields in [
        "Content-Length: 3\r\nContent-Length: 4",
        "Content-Length: 3, 4",
        "Content-Length: -1",
        "Content-Length: +3",
        "Content-Length: 0x3",
        "Content-Length: 99999999999999999999",
    ] {
        let message = format!(
            "POST http://{{origin}}/a HTTP/1.1\r\nHost: {{origin}}\r\n{fields}\r\n\r\nabcd"
        );
        check(&message, Status(400), Closes).await;
    }
}

#[tokio::test]
async fn a_transfer_coding_that_we_do_not_have_is_refused() {
    for (coding, refusal) in [
        ("chunked, gzip", Status(400)),
        ("gzip, chunked", Problem(501, "not-implemented")),
        ("xchunked, chunked", Problem(501, "not-implemented")),
    ] {
        let message = format!(
            "POST http://{{origin}}/a HTTP/1.1\r\nHost: {{origin}}\r\nTransfer-Encoding: {coding}\r\n\r\n0\r\n\r\n"
        );
        check(&message, refusal, Closes).await;
    }
}

#[tokio::test]
async fn a_host_that_is_missing_doubled_or_decorated_is_refused() {
    for head in [
        "GET /a HTTP/1.1\r\n",
        "GET http://{origin}/a HTTP/1.1\r\n",
        "GET /a HTTP/1.1\r\nHost: {origin}\r\nHost: {origin}\r\n",
        "GET http://{origin}/a HTTP/1.1\r\nHost: {origin}\r\nHost: other.example\r\n",
        "GET /a HTTP/1.1\r\nHost: user@{origin}\r\n",
        "GET /a HTTP/1.1\r\nHost: {origin}/path\r\n",
        "GET /a HTTP/1.1\r\nHost: a b\r\n",
    ] {
        check(&format!("{head}\r\n"), BAD_REQUEST, Closes).await;
    }
}

#[tokio::test]
async fn a_host_that_differs_from_the_authority_is_refused_in_http_2() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    origin.on("/a", Reply::ok("hello"));
    let stream = gateway.client.connect().await.into_stream();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    for (host, status, reached) in [
        ("other.example", 400, 0),
        ("\"shop.example\"", 400, 0),
        ("Shop.Example", 200, 1),
    ] {
        let request = http::Request::get("http://shop.example/a")
            .header("host", host)
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        let response = within("an answer over h2", sender.send_request(request))
            .await
            .unwrap();
        assert_eq!(response.status(), status, "{host}");
        assert_eq!(origin.seen().len(), reached, "{host}");
    }
}

#[tokio::test]
async fn a_target_that_is_decorated_or_of_the_wrong_form_is_refused() {
    for head in [
        "GET http://user@{origin}/a HTTP/1.1\r\nHost: {origin}\r\n",
        "GET http://user:password@{origin}/a HTTP/1.1\r\nHost: {origin}\r\n",
        "GET {origin} HTTP/1.1\r\nHost: {origin}\r\n",
        "GET foo HTTP/1.1\r\nHost: {origin}\r\n",
    ] {
        check(&format!("{head}\r\n"), BAD_REQUEST, MayStay).await;
    }
}

#[tokio::test]
async fn control_characters_and_folds_in_a_field_are_refused() {
    for field in ["X: a\0b", "X: a\rb", "X : a", "X: a\r\n folded", "X\0: a"] {
        let message =
            format!("GET http://{{origin}}/a HTTP/1.1\r\nHost: {{origin}}\r\n{field}\r\n\r\n");
        check(&message, Status(400), Closes).await;
    }
}

#[tokio::test]
async fn trace_is_refused() {
    let message = "TRACE http://{origin}/a HTTP/1.1\r\nHost: {origin}\r\n\r\n";
    check(message, Problem(405, "method-not-allowed"), MayStay).await;
}

#[tokio::test]
async fn what_is_too_large_is_refused_and_the_client_can_read_why() {
    let long_target = format!(
        "GET http://{{origin}}/{} HTTP/1.1\r\nHost: {{origin}}\r\n\r\n",
        "a".repeat(9 << 10)
    );
    check(&long_target, Problem(414, "target-too-long"), Closes).await;

    let large_field = format!(
        "GET http://{{origin}}/a HTTP/1.1\r\nHost: {{origin}}\r\nX: {}\r\n\r\n",
        "a".repeat(40 << 10)
    );
    check(&large_field, Status(431), Closes).await;

    let many_fields = format!(
        "GET http://{{origin}}/a HTTP/1.1\r\nHost: {{origin}}\r\n{}\r\n",
        "X: a\r\n".repeat(150)
    );
    check(&many_fields, Status(431), Closes).await;
}

#[tokio::test]
async fn a_refused_client_can_read_the_answer_while_it_still_sends() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let mut client = gateway.client.connect().await;
    let authority = origin.address();
    let head = format!(
        "POST http://{authority}/a HTTP/1.1\r\nHost: {authority}\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n"
    );
    client.send(head.as_bytes()).await;
    client.send(&vec![b'x'; 48 << 10]).await;
    client
        .answer("POST")
        .await
        .assert_problem(400, "bad-request");
    client.until_end().await;
}

#[tokio::test]
async fn a_target_that_differs_from_host_wins_and_replaces_it() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on("/a", Reply::ok("hello"));
    let request = Request::get(&origin.url("/a")).header("Host", "other.example");
    assert_eq!(gateway.client.ask(request).await.text(), "hello");
    let seen = &origin.seen()[0];
    assert_eq!(seen.all("host"), [origin.address().to_string()]);
}

#[tokio::test]
async fn a_fragment_never_reaches_the_origin() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    gateway.client.get(&origin.url("/a#b")).await;
    assert!(origin.seen().iter().all(|seen| !seen.target.contains('#')));
}

#[tokio::test]
async fn hop_by_hop_fields_end_here_and_others_pass_untouched() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let reply = Reply::ok("hello").cache_control("max-age=300");
    origin.on(
        "/a",
        reply
            .header("Connection", "x-hop")
            .header("X-Hop", "1")
            .header("Keep-Alive", "timeout=5")
            .header("Proxy-Authenticate", "Basic")
            .header("X-Twice", "1")
            .header("X-Twice", "2"),
    );
    let request = || {
        Request::get(&origin.url("/a"))
            .header("Connection", "close, x-secret, authorization, cookie")
            .header("X-Secret", "1")
            .header("Keep-Alive", "timeout=5")
            .header("TE", "gzip")
            .header("Proxy-Connection", "keep-alive")
            .header("Proxy-Authorization", "Basic YTpi")
            .header("Authorization", "Bearer x")
            .header("Cookie", "a=b")
            .header("X-Twice", "1")
            .header("X-Twice", "2")
    };
    let answer = gateway.client.ask(request()).await;
    let seen = &origin.seen()[0];
    for name in [
        "x-secret",
        "keep-alive",
        "te",
        "proxy-connection",
        "proxy-authorization",
    ] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    // Removing these on a client's word would let it change what the origin and the store see.
    assert_eq!(seen.header("authorization"), Some("Bearer x"));
    assert_eq!(seen.header("cookie"), Some("a=b"));
    assert_eq!(seen.all("x-twice"), ["1", "2"]);

    for name in ["x-hop", "keep-alive", "proxy-authenticate"] {
        assert_eq!(answer.header(name), None, "{name}");
    }
    let twice = answer
        .headers
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("x-twice"));
    assert_eq!(twice.count(), 2);
}

#[tokio::test]
async fn eight_bit_field_values_pass_opaque() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let authority = origin.address();
    let mut message =
        format!("GET http://{authority}/a HTTP/1.1\r\nHost: {authority}\r\nX: ").into_bytes();
    message.extend([0xe9, 0xff, 0x80]);
    message.extend(b"\r\n\r\n");
    let mut client = gateway.client.connect().await;
    client.send(&message).await;
    client.answer("GET").await;
    assert_eq!(origin.seen()[0].header("x"), Some("\u{e9}\u{ff}\u{80}"));
}

#[tokio::test]
async fn a_request_whose_body_breaks_off_does_not_look_whole_to_the_origin() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let authority = origin.address();
    let mut client = gateway.client.connect().await;
    let message = format!(
        "POST http://{authority}/a HTTP/1.1\r\nHost: {authority}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n"
    );
    client.send(message.as_bytes()).await;
    origin.sees_a_broken_request().await;
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn a_request_that_comes_round_again_is_refused() {
    let own = Reserved::new();
    let config = format!(
        "[listen]\nproxy = \"{}\"\n{}",
        own.address,
        reverse_to(own.address)
    );
    let gateway = Gateway::start(&config).await;
    // The second pass refuses, and the first passes that on as its upstream's answer.
    let answer = gateway.client.get("/a").await;
    assert_eq!(answer.status, 508);
    assert_eq!(answer.json()["reason"], "loop-detected");
}

#[tokio::test]
async fn two_gateways_in_a_chain_are_no_loop() {
    let origin = Origin::start().await;
    let inner = Gateway::start(&reverse_to(origin.address())).await;
    let outer = Gateway::start(&reverse_to(inner.client.address)).await;
    origin.on("/a", Reply::ok("hello").cache_control("max-age=300"));

    let answer = outer.client.get("/a").await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
    answer.assert_says(&["fwd=uri-miss", "stored"]);
    let members = answer.list("cache-status");
    assert_eq!(members.matches("hardtack;").count(), 2, "{members}");
    let seen = origin.seen();
    let via = seen[0].all("via").join(", ");
    assert_eq!(via.matches("1.1 hardtack").count(), 2, "{via}");
}
