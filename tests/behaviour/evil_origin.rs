//! An origin that misbehaves costs its own request, and nothing else.

use bytes::Bytes;

use crate::support::{Cue, Gateway, Origin, Reply, Request, Step, reverse_to};

#[tokio::test]
async fn an_answer_without_a_whole_head_is_an_upstream_error() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    for (path, reply) in [
        ("/close", Reply::raw("")),
        ("/reset", Reply::script([Step::Reset])),
        ("/half-head", Reply::raw("HTTP/1.1 200 OK\r\nContent-Le")),
        ("/garbage", Reply::raw("SSH-2.0-OpenSSH_9.2p1\r\n\r\n")),
        ("/no-status", Reply::raw("HTTP/1.1 OK\r\n\r\n")),
        (
            "/two-lengths",
            Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
        ),
        (
            "/unasked-switch",
            Reply::raw(
                "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
            ),
        ),
    ] {
        origin.on(path, reply);
        let answer = gateway.client.get(&origin.url(path)).await;
        assert_eq!(answer.status, 502, "{path}");
        answer.assert_problem(502, "upstream-error");
    }
    origin.on("/fine", Reply::ok("fine"));
    assert_eq!(
        gateway.client.get(&origin.url("/fine")).await.text(),
        "fine"
    );
}

#[tokio::test]
async fn no_answer_in_time_is_an_upstream_timeout() {
    let origin = Origin::start().await;
    let config = reverse_to(origin.address())
        .replace("[[routes]]", "first_byte_timeout = \"200ms\"\n[[routes]]");
    let gateway = Gateway::start(&config).await;
    origin.on("/a", Reply::ok("late").held(&Cue::new()));
    gateway
        .client
        .get("/a")
        .await
        .assert_problem(504, "upstream-timeout");
}

#[tokio::test]
async fn a_body_that_ends_early_does_not_look_whole_and_is_not_stored() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    for (path, end) in [("/close", Step::Close), ("/reset", Step::Reset)] {
        let short = Reply::ok("0123456789").cache_control("max-age=300");
        origin.on(path, short.ends_early(end));
        for _ in 0..2 {
            let answer = gateway.client.get(&origin.url(path)).await;
            assert!(!answer.is_complete, "{path}");
        }
        assert_eq!(origin.seen_at(path).len(), 2, "{path}");
    }
}

#[tokio::test]
async fn a_body_that_only_the_close_delimits_passes_and_is_not_stored() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    // A crash in mid-body cannot be told from its end.
    let old = "HTTP/1.0 200 OK\r\nCache-Control: max-age=300\r\n\r\nhello";
    let coded = "HTTP/1.1 200 OK\r\nETag: \"a\"\r\nTransfer-Encoding: abcdef\r\n\r\nhello";
    for (path, reply) in [
        ("/http-1.0", Reply::raw(old)),
        ("/coded", Reply::raw(coded)),
        (
            "/fresh",
            Reply::ok("hello")
                .cache_control("max-age=300")
                .until_close(),
        ),
        ("/bare", Reply::ok("hello").until_close()),
        ("/etag", Reply::ok("hello").etag("\"a\"").until_close()),
    ] {
        origin.on(path, reply);
        for _ in 0..2 {
            let answer = gateway.client.get(&origin.url(path)).await;
            assert_eq!((answer.is_complete, answer.text()), (true, "hello"));
            answer.assert_says(&["fwd=uri-miss", "detail=close-delimited"]);
        }
    }
}

/// Under a coding that says nothing of an end, which the origin closes after; for five minutes.
fn coded(tag: &str, body: &str) -> Bytes {
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: abcdef\r\nContent-Length: 2\r\n";
    let fields = format!("Cache-Control: max-age=300, stale-if-error=600\r\nETag: {tag}\r\n");
    format!("{head}{fields}\r\n{body}").into()
}

#[tokio::test]
async fn a_body_under_an_unknown_coding_is_stored_where_the_origin_promises_freshness() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on("/a", Reply::raw(coded("\"a\"", "hello")));
    let url = origin.url("/a");
    let first = gateway.client.get(&url).await;
    assert_eq!((first.is_complete, first.text()), (true, "hello"));
    first.assert_says(&["fwd=uri-miss", "stored"]);
    let hit = gateway.client.get(&url).await;
    assert_eq!((hit.is_complete, hit.text()), (true, "hello"));
    assert_eq!(hit.header("content-length"), Some("5"));
    assert_eq!(hit.header("transfer-encoding"), None);
    hit.assert_says(&["hit"]);
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn a_reset_or_an_empty_body_is_no_end_that_may_be_stored() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let reset = [Step::Send(coded("\"a\"", "01234")), Step::Reset];
    origin.on("/reset", Reply::script(reset));
    origin.on("/empty", Reply::raw(coded("\"a\"", "")));
    for (path, is_complete) in [("/reset", false), ("/empty", true)] {
        for _ in 0..2 {
            let answer = gateway.client.get(&origin.url(path)).await;
            assert_eq!(answer.is_complete, is_complete, "{path}");
        }
        assert_eq!(origin.seen_at(path).len(), 2, "{path}");
    }
}

#[tokio::test]
async fn a_shorter_body_with_the_same_strong_validator_does_not_replace_the_stored_one() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    for (path, tag, is_the_same) in [("/strong", "\"a\"", true), ("/weak", "W/\"a\"", false)] {
        // It ignores conditions, so it answers validations with a whole body.
        origin.on_each(path, move |_, nth| {
            Reply::raw(coded(tag, if nth == 1 { "hell" } else { "hello" }))
        });
        let url = origin.url(path);
        gateway.client.get(&url).await;
        gateway.clock.step_secs(400);
        let short = gateway.client.get(&url).await;
        assert_eq!(
            (short.text(), short.is_complete),
            ("hell", !is_the_same),
            "{path}"
        );
        let next = gateway.client.get(&url).await;
        assert_eq!(
            next.text(),
            if is_the_same { "hello" } else { "hell" },
            "{path}"
        );
    }
}

#[tokio::test]
async fn bytes_after_an_answer_are_never_taken_for_another() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let poisoned = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: max-age=300\r\n\r\nevil";
    origin.on("/a", Reply::script([Step::Send(poisoned.into())]));
    origin.on("/b", Reply::ok("fine"));
    for _ in 0..5 {
        assert_eq!(gateway.client.get(&origin.url("/a")).await.text(), "ok");
        assert_eq!(gateway.client.get(&origin.url("/b")).await.text(), "fine");
    }
}

#[tokio::test]
async fn interim_answers_before_the_final_one_do_no_harm() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let interim = "HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n".repeat(20);
    let message = interim + "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    origin.on("/a", Reply::script([Step::Send(message.into())]));
    let answer = gateway.client.get(&origin.url("/a")).await;
    assert_eq!((answer.status, answer.text()), (200, "hello"));
}

#[tokio::test]
async fn an_origin_that_closes_after_each_answer_is_asked_again_without_an_error() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    // No `Connection: close`: the gateway pools the connection and finds it dead.
    origin.on(
        "/a",
        Reply::raw("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nCache-Control: no-store\r\n\r\nok"),
    );
    for _ in 0..50 {
        let answer = gateway.client.get(&origin.url("/a")).await;
        assert_eq!((answer.status, answer.text()), (200, "ok"));
    }
}

#[tokio::test]
async fn a_write_on_a_connection_that_dies_is_sent_once() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on("/a", Reply::script([Step::Reset]));
    let write = Request::new("POST", &origin.url("/a")).body("pay");
    let answer = gateway.client.ask(write).await;
    assert_eq!(answer.status, 502);
    assert_eq!(origin.seen().len(), 1);
}
