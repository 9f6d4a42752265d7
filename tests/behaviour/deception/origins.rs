//! What an attacker has the origin answer, or makes of the bytes between the two.

use super::{Next::Unharmed, Stage, get};
use crate::support::{Reply, Request, Step};

pub(super) async fn errors(stage: &mut Stage) {
    stage.section(
        "Errors in place of a page",
        "The page is stored and stale; the attacker's request makes the origin answer with an error that claims to be good \
         for five minutes.",
    );
    for status in [
        400, 412, 416, 417, 421, 428, 429, 431, 500, 501, 502, 503, 504, 511,
    ] {
        let path = stage.path();
        stage
            .origin
            .on_each(&path, move |seen, _| match seen.header("x-break") {
                Some(_) => Reply::new(status, "broken").cache_control("max-age=300"),
                None => Reply::ok("page").cache_control("max-age=300"),
            });
        stage.gateway.client.get(&path).await;
        stage.gateway.clock.step_secs(301);
        let attack = get(&path).header("X-Break", "evil");
        stage
            .row(&format!("{status}"), &attack, &get(&path), Unharmed("page"))
            .await;
    }
    let path = stage.path();
    stage
        .origin
        .on_each(&path, |seen, _| match seen.header("x-break") {
            Some(_) => Reply::ok("page")
                .cache_control("max-age=300")
                .ends_early(Step::Close),
            None => Reply::ok("page").cache_control("max-age=300"),
        });
    let before = stage.origin.seen().len();
    let first = stage
        .gateway
        .client
        .ask(get(&path).header("X-Break", "evil"))
        .await;
    assert!(!first.is_complete);
    stage
        .judge(
            "a body that ends early, and nothing stored",
            &first,
            &get(&path),
            Unharmed("page"),
            before,
        )
        .await;
}

pub(super) async fn framing(stage: &mut Stage) {
    stage.section(
        "Smuggling and splitting",
        "An attacker tries to have two messages taken for one, or one for two; the smuggled one asks for or claims to be \
         something else.",
    );
    let smuggled = "GET /evil HTTP/1.1\r\nHost: {origin}\r\nX: evil\r\n\r\n";
    let chunked = format!("0\r\n\r\n{smuggled}");
    let padded = format!(
        "Content-Length:{}5\r\nTransfer-Encoding: chunked",
        " ".repeat(300)
    );
    for (tried, fields, body) in [
        (
            "Content-Length, then Transfer-Encoding",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            &chunked,
        ),
        (
            "Transfer-Encoding, then Content-Length",
            "Transfer-Encoding: chunked\r\nContent-Length: 5",
            &chunked,
        ),
        (
            "a length behind 300 spaces, and Transfer-Encoding",
            padded.as_str(),
            &chunked,
        ),
        (
            "two lengths",
            "Content-Length: 0\r\nContent-Length: 5",
            &chunked,
        ),
        ("a length with a sign", "Content-Length: +5", &chunked),
        (
            "Transfer-Encoding twice",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity",
            &chunked,
        ),
        ("an unknown coding", "Transfer-Encoding: xchunked", &chunked),
        (
            "a folded field",
            "X: a\r\n Transfer-Encoding: chunked",
            &chunked,
        ),
        (
            "a space before the colon",
            "Transfer-Encoding : chunked",
            &chunked,
        ),
    ] {
        let path = stage.gullible();
        let message = format!("POST {path} HTTP/1.1\r\nHost: {{origin}}\r\n{fields}\r\n\r\n{body}");
        stage
            .raw(tried, &message, &get(&path), Unharmed("page"))
            .await;
    }
    let path = stage.path();
    stage
        .origin
        .on(&path, Reply::ok("page").cache_control("max-age=300"));
    let body = smuggled.replace("{origin}", "a");
    let attack = Request::new("POST", &path).body(body);
    stage
        .row(
            "a request as the body of another, properly framed",
            &attack,
            &get(&path),
            Unharmed("page"),
        )
        .await;

    let page = Reply::ok("page").cache_control("max-age=300");
    for (tried, head) in [
        (
            "the origin answers twice",
            "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        ),
        (
            "it answers 304 with a body",
            "HTTP/1.1 304 Not Modified\r\n\r\n",
        ),
        (
            "it answers 204 with a body",
            "HTTP/1.1 204 No Content\r\n\r\n",
        ),
    ] {
        let (path, other) = (stage.path(), stage.path());
        let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: max-age=300\r\n\r\nevil";
        let split = Step::Send(format!("{head}{evil}").into());
        stage.origin.on(&path, Reply::script([split]));
        stage.origin.on(&other, page.clone());
        stage
            .row(tried, &get(&path), &get(&other), Unharmed("page"))
            .await;
    }
    for (tried, message) in [
        (
            "it answers with two lengths",
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\nContent-Length: 9\r\n\r\nevil",
        ),
        (
            "it answers with a bare CR in a field",
            "HTTP/1.1 200 OK\r\nX: a\rContent-Length: 4\r\n\r\nevil",
        ),
    ] {
        let path = stage.path();
        let page = page.clone();
        stage.origin.on_each(&path, move |_, nth| match nth {
            0 => Reply::raw(message),
            _ => page.clone(),
        });
        stage
            .row(tried, &get(&path), &get(&path), Unharmed("page"))
            .await;
    }
    let path = stage.path();
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </evil.css>\r\nCache-Control: max-age=300\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\nCache-Control: max-age=300\r\n\r\npage";
    stage
        .origin
        .on(&path, Reply::script([Step::Send(hints.into())]));
    let before = stage.origin.seen().len();
    let first = stage.gateway.client.get(&path).await;
    let second = stage.gateway.client.get(&path).await;
    assert!(second.says("hit") && second.header("link").is_none());
    stage
        .judge(
            "it hints before it answers: hints are not stored",
            &first,
            &get(&path),
            Unharmed("page"),
            before,
        )
        .await;
}
