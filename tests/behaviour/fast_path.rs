//! Fresh hits over HTTP/1.1 are answered beneath the HTTP library. No client can tell, and nothing is counted otherwise.

use crate::support::{
    Answer, Connection, Cue, Gateway, Origin, Process, Reply, Request, Step, eventually, noise,
    reverse_to, within,
};

/// Which way an answer came: the length stands behind what is stored where it came by the fast path, and among it, where
/// this origin has put it, where it came by the HTTP library. No promise, but a difference that a test can see.
fn came_fast(answer: &Answer) -> bool {
    let place = |name| {
        let mut names = answer.headers.iter().map(|(name, _)| name.as_str());
        names.position(|known| known.eq_ignore_ascii_case(name))
    };
    place("content-length").unwrap() + 1 == place("age").unwrap()
}

fn reply(body: impl Into<bytes::Bytes>) -> Reply {
    let reply = Reply::ok(body);
    reply.cache_control("max-age=300").etag("\"v1\"")
}

fn raw(head: &str) -> Vec<u8> {
    head.replace('\n', "\r\n").into_bytes()
}

/// Asks so that the HTTP library answers: it skips the empty line, which the fast path does not know.
async fn ask_slowly(connection: &mut Connection, method: &str, head: &str) -> Answer {
    connection.send(&raw(&format!("\n{head}"))).await;
    connection.answer(method).await
}

async fn ask_fast(connection: &mut Connection, method: &str, head: &str) -> Answer {
    connection.send(&raw(head)).await;
    connection.answer(method).await
}

fn sorted(answer: &Answer) -> (u16, Vec<(String, String)>, &[u8]) {
    let mut headers = answer.headers.clone();
    headers.sort();
    (answer.status, headers, &answer.body)
}

#[tokio::test]
async fn both_ways_give_the_same_answers() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    let own = reply("hello").header("Vary", "Accept-Language");
    let own = own
        .header("Cache-Status", "origin; hit")
        .header("Via", "1.1 cdn");
    let own = own.header("Age", "7").header("Content-Type", "text/plain");
    origin.on("/a", own);
    origin.on(
        "/missing",
        Reply::new(404, "none").cache_control("max-age=60"),
    );
    origin.on("/gone", Reply::new(299, "odd").cache_control("max-age=60"));
    origin.on("/empty", Reply::new(204, "").cache_control("max-age=60"));
    let host = origin.address();
    let heads = [
        (
            "GET",
            format!("GET http://{host}/a HTTP/1.1\nHost: {host}\n\n"),
        ),
        ("GET", "GET /a HTTP/1.1\nHost: here.example\n\n".to_owned()),
        (
            "GET",
            "GET /a HTTP/1.1\nHost: here.example\nAccept-Language: de\nConnection: Keep-Alive\n\n"
                .to_owned(),
        ),
        (
            "HEAD",
            "HEAD /a HTTP/1.1\nHost: here.example\n\n".to_owned(),
        ),
        (
            "GET",
            "GET /a HTTP/1.1\nHost: here.example\nIf-None-Match: \"v1\"\n\n".to_owned(),
        ),
        (
            "HEAD",
            "HEAD /a HTTP/1.1\nHost: here.example\nIf-None-Match: \"v1\"\n\n".to_owned(),
        ),
        (
            "GET",
            "GET /a HTTP/1.1\nHost: here.example\nIf-None-Match: \"v0\"\n\n".to_owned(),
        ),
        (
            "GET",
            "GET /a HTTP/1.1\nHost: here.example\nRange: bytes=1-2\n\n".to_owned(),
        ),
        (
            "GET",
            "GET /a HTTP/1.1\nHost: here.example\nCache-Control: only-if-cached\n\n".to_owned(),
        ),
        (
            "GET",
            "GET /a HTTP/1.1\nHost: here.example\nUpgrade: x\nConnection: upgrade\n\n".to_owned(),
        ),
        (
            "GET",
            "GET /missing HTTP/1.1\nHost: here.example\n\n".to_owned(),
        ),
        (
            "GET",
            "GET /gone HTTP/1.1\nHost: here.example\n\n".to_owned(),
        ),
        (
            "GET",
            "GET /empty HTTP/1.1\nHost: here.example\n\n".to_owned(),
        ),
    ];
    for (method, head) in &heads {
        // Stored by a request of its own; a conditional one, or one for a part, would not be.
        let plain: Vec<_> = head
            .split('\n')
            .filter(|line| {
                !["If-", "Range", "HEAD", "Cache-", "Upgrade", "Connection"]
                    .iter()
                    .any(|name| line.starts_with(name))
            })
            .collect();
        if plain[0].starts_with("GET") {
            let mut first = gateway.client.connect().await;
            ask_slowly(&mut first, "GET", &plain.join("\n")).await;
        }
        let mut connection = gateway.client.connect().await;
        let fast = ask_fast(&mut connection, method, head).await;
        let slow = ask_slowly(&mut connection, method, head).await;
        assert_eq!(sorted(&fast), sorted(&slow), "{head}");
        if !head.contains("upgrade") {
            fast.assert_says(&["hit"]);
        }
    }
}

#[tokio::test]
async fn only_what_is_whole_alone_and_a_bare_read_is_answered_so() {
    let origin = Origin::start().await;
    let gateway = Gateway::start("").await;
    origin.on("/a", reply("hello"));
    let target = origin.url("/a");
    gateway.client.get(&target).await;
    let host = origin.address();
    for (expected, fields) in [
        (true, ""),
        (true, "Connection: keep-alive\n"),
        (true, "Accept: */*\nCookie: a=b\nX-Own: 1\n"),
        (false, "Connection: close\n"),
        (false, "Connection: x-own\nX-Own: 1\n"),
        (false, "Content-Length: 0\n"),
        (false, "Expect: 100-continue\n"),
        (false, "Upgrade: h2c\n"),
    ] {
        let mut connection = gateway.client.connect().await;
        let head = format!("GET {target} HTTP/1.1\nHost: {host}\n{fields}\n");
        let answer = ask_fast(&mut connection, "GET", &head).await;
        assert_eq!((answer.status, answer.text()), (200, "hello"), "{fields}");
        assert_eq!(came_fast(&answer), expected, "{fields}");
    }
    // Of what was left to the library nothing is left behind.
    let mut connection = gateway.client.connect().await;
    let head = format!(
        "GET {target} HTTP/1.1\nHost: {host}\nIf-None-Match: \"v1\"\nContent-Length: 0\n\n"
    );
    assert_eq!(ask_fast(&mut connection, "GET", &head).await.status, 304);
    let head = format!("GET {target} HTTP/1.1\nHost: {host}\n\n");
    let answer = ask_fast(&mut connection, "GET", &head).await;
    assert_eq!((answer.status, came_fast(&answer)), (200, true));
    // Two at once, and one in two pieces.
    let head = raw(&format!("GET {target} HTTP/1.1\nHost: {host}\n\n"));
    let mut connection = gateway.client.connect().await;
    connection.send(&[&head[..], &head].concat()).await;
    for _ in 0..2 {
        let answer = connection.answer("GET").await;
        assert_eq!((answer.text(), came_fast(&answer)), ("hello", false));
    }
    connection.send(&head).await;
    assert!(came_fast(&connection.answer("GET").await));
    let (first, second) = head.split_at(head.len() - 3);
    connection.send(first).await;
    tokio::task::yield_now().await;
    connection.send(second).await;
    assert_eq!(connection.answer("GET").await.text(), "hello");
    connection.send(&head).await;
    assert!(came_fast(&connection.answer("GET").await));
}

#[tokio::test]
async fn a_connection_changes_between_the_ways_as_often_as_it_must() {
    let origin = Origin::start().await;
    let gateway = Gateway::start("").await;
    origin.on("/a", reply("hello"));
    origin.on("/no", Reply::ok("passed").cache_control("no-store"));
    gateway.client.get(&origin.url("/a")).await;
    let get = |path| Request::get(&origin.url(path));
    let post = Request::new("POST", &origin.url("/no")).body("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let mut connection = gateway.client.connect().await;
    for _ in 0..3 {
        // The first hit after a miss is the HTTP library's.
        for expected in [true, true] {
            assert_eq!(came_fast(&connection.ask(&get("/a")).await), expected);
        }
        assert_eq!(connection.ask(&get("/no")).await.text(), "passed");
        assert_eq!(connection.ask(&post).await.text(), "passed");
        assert!(!came_fast(&connection.ask(&get("/a")).await));
    }
    assert_eq!(origin.seen_at("/no").len(), 6);
}

#[tokio::test]
async fn a_body_that_a_client_takes_late_comes_whole_and_before_the_next_answer() {
    let origin = Origin::start().await;
    let gateway = Gateway::start("").await;
    let body = noise(8 << 20);
    origin.on("/large", reply(body.clone()));
    origin.on("/a", reply("hello"));
    let get = |path| Request::get(&origin.url(path));
    for path in ["/large", "/a"] {
        gateway.client.get(&origin.url(path)).await;
    }
    let mut connection = gateway.client.connect().await;
    // More than the sockets hold, so the second request comes while the first is still being answered.
    connection.send_request(&get("/large")).await;
    connection.first_byte().await;
    connection.send_request(&get("/a")).await;
    let large = connection.answer("GET").await;
    assert!(came_fast(&large) && large.is_complete);
    assert!(large.body == body, "another body");
    let small = connection.answer("GET").await;
    assert_eq!((small.text(), came_fast(&small)), ("hello", true));
}

#[tokio::test]
async fn each_answer_counts_once_against_the_rate_and_in_the_metrics() {
    let origin = Origin::start().await;
    let limits =
        "[limits]\nper_client.rate = \"1/s\"\nper_client.burst = 5\nexempt_loopback = false\n";
    let gateway = Gateway::start(limits).await;
    origin.on("/a", reply("hello"));
    let get = Request::get(&origin.url("/a"));
    let mut connection = gateway.client.connect().await;
    let mut ways = Vec::new();
    for _ in 0..5 {
        let answer = connection.ask(&get).await;
        assert_eq!(answer.status, 200);
        ways.push(came_fast_or_stored(&answer));
    }
    assert_eq!(ways, [false, false, true, true, true]);
    connection
        .ask(&get)
        .await
        .assert_problem(429, "rate-limited");
    let metrics = gateway.admin.get("/metrics").await;
    let counted = |cache: &str| {
        let series = format!("cache=\"{cache}\"}} ");
        let mut lines = metrics
            .text()
            .lines()
            .filter(|line| line.starts_with("hardtack_requests_total{"));
        let line = lines.find_map(|line| line.split_once(series.as_str()));
        line.map(|(_, count)| count.to_owned())
    };
    assert_eq!(counted("miss").as_deref(), Some("1"));
    assert_eq!(counted("hit").as_deref(), Some("4"));
}

fn came_fast_or_stored(answer: &Answer) -> bool {
    answer.says("hit") && came_fast(answer)
}

#[tokio::test]
async fn an_idle_connection_does_not_hold_up_the_end() {
    let (origin, gateway) = (Origin::start().await, Process::start("").await);
    origin.on("/a", reply("hello"));
    let get = Request::get(&origin.url("/a"));
    gateway.client.get(&origin.url("/a")).await;
    let mut connection = gateway.client.connect().await;
    for _ in 0..3 {
        assert!(came_fast(&connection.ask(&get).await));
    }
    gateway.terminate();
    assert!(
        within("the connection ends", connection.try_head())
            .await
            .is_none()
    );
    let (code, _home) = gateway.ended().await;
    assert_eq!(code, Some(0));
}

#[tokio::test]
async fn what_a_connection_carries_after_an_upgrade_is_not_answered() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let echo = Reply::script([Step::Send(switch.into()), Step::Echo]);
    origin.on("/up", echo).on("/a", reply("hello"));
    gateway.client.get("/a").await;

    let mut connection = gateway.client.connect().await;
    let head = "GET /a HTTP/1.1\nHost: here.example\n\n";
    assert!(came_fast(&ask_fast(&mut connection, "GET", head).await));
    let upgrade = Request::get("/up").header("Connection", "Upgrade");
    let answer = connection.ask(&upgrade.header("Upgrade", "x")).await;
    assert_eq!(answer.status, 101);
    for _ in 0..2 {
        let sent = raw(head);
        connection.send(&sent).await;
        assert_eq!(connection.take(sent.len()).await, (sent, true));
    }
}

#[tokio::test]
async fn an_answer_that_is_under_way_keeps_the_next_request_waiting() {
    let origin = Origin::start().await;
    let gateway = Gateway::start("").await;
    let cue = Cue::new();
    origin.on("/a", reply("hello"));
    origin.on(
        "/held",
        Reply::ok("first half, second half")
            .cache_control("no-store")
            .dripped(2, &cue),
    );
    gateway.client.get(&origin.url("/a")).await;
    let get = |path| Request::get(&origin.url(path));
    let mut connection = gateway.client.connect().await;
    assert!(came_fast(&connection.ask(&get("/a")).await));
    connection.send_request(&get("/held")).await;
    let head = connection.head().await;
    connection.first_byte().await;
    connection.send_request(&get("/a")).await;
    eventually(
        "the second request has been read, or could have been",
        || async {
            let metrics = gateway.admin.get("/metrics").await;
            (metrics.status == 200).then_some(())
        },
    )
    .await;
    cue.open();
    let held = connection.rest_of(head, "GET").await;
    assert_eq!(held.text(), "first half, second half");
    assert_eq!(connection.answer("GET").await.text(), "hello");
}
