//! Fresh hits over HTTP/1.1 are answered beneath the HTTP library. No client can tell, and nothing is counted otherwise.

use crate::support::{
    Answer, Connection, Gateway, Origin, Process, Reply, Request, Step, noise, reverse_to, within,
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
    let with = |method: &str, path: &str, fields: &str| {
        format!("{method} {path} HTTP/1.1\nHost: here.example\n{fields}\n")
    };
    let absolute = format!("http://{}/a", origin.address());
    // Whether it comes by the fast path; where nothing tells, as there is no length, that is not asked.
    for (way, method, path, fields) in [
        (Some(true), "GET", "/a", ""),
        (Some(true), "GET", &*absolute, ""),
        (
            Some(true),
            "GET",
            "/a",
            "Accept-Language: de\nConnection: Keep-Alive\n",
        ),
        (Some(true), "HEAD", "/a", ""),
        (None, "GET", "/a", "If-None-Match: \"v1\"\n"),
        (None, "HEAD", "/a", "If-None-Match: \"v1\"\n"),
        (Some(true), "GET", "/a", "If-None-Match: \"v0\"\n"),
        (Some(false), "GET", "/a", "Range: bytes=1-2\n"),
        (Some(true), "GET", "/a", "Cache-Control: only-if-cached\n"),
        (Some(true), "GET", "/missing", ""),
        (Some(true), "GET", "/gone", ""),
        (None, "GET", "/empty", ""),
    ] {
        // Stored by a request of its own, of the same variant.
        let language = fields
            .lines()
            .find(|line| line.starts_with("Accept-Language"));
        let language = language.map_or(String::new(), |line| format!("{line}\n"));
        let mut first = gateway.client.connect().await;
        ask_slowly(&mut first, "GET", &with("GET", path, &language)).await;

        let mut connection = gateway.client.connect().await;
        let head = with(method, path, fields);
        let fast = ask_fast(&mut connection, method, &head).await;
        let slow = ask_slowly(&mut connection, method, &head).await;
        assert_eq!(sorted(&fast), sorted(&slow), "{head}");
        fast.assert_says(&["hit"]);
        if let Some(way) = way {
            assert_eq!((came_fast(&fast), came_fast(&slow)), (way, false), "{head}");
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
        // The first hit after anything else is the HTTP library's.
        for _ in 0..2 {
            assert!(came_fast(&connection.ask(&get("/a")).await));
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
        ways.push(answer.says("hit") && came_fast(&answer));
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
    let limited = "hardtack_rate_limited_total{limiter=\"client\"} 1\n";
    assert!(metrics.text().contains(limited), "{}", metrics.text());
    assert_eq!(counted("miss").as_deref(), Some("1"));
    assert_eq!(counted("hit").as_deref(), Some("4"));
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

/// A hit on a connection of its own, as which what follows is one that may be answered beneath the library.
async fn after_a_hit(gateway: &Gateway, get: &Request) -> Connection {
    let mut connection = gateway.client.connect().await;
    assert!(came_fast(&connection.ask(get).await));
    connection
}

#[tokio::test]
async fn a_body_that_is_a_head_is_a_body() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    origin
        .on("/a", reply("hello"))
        .on("/no", Reply::ok("passed"));
    let get = Request::get("/a");
    gateway.client.get("/a").await;
    let body = raw("GET /a HTTP/1.1\nHost: here.example\n\n");
    let sized = format!("Content-Length: {}\n", body.len());
    for (framing, body) in [
        (&*sized, body.clone()),
        (
            "Transfer-Encoding: chunked\n",
            [
                format!("{:x}\r\n", body.len()).as_bytes(),
                &body,
                b"\r\n0\r\n\r\n",
            ]
            .concat(),
        ),
    ] {
        let mut connection = after_a_hit(&gateway, &get).await;
        let head =
            format!("POST /no HTTP/1.1\nHost: here.example\nExpect: 100-continue\n{framing}\n");
        connection.send(&raw(&head)).await;
        // In a read of its own: once the library asks for it.
        connection.first_byte().await;
        connection.send(&body).await;
        assert_eq!(connection.answer("POST").await.text(), "passed");
        assert_eq!(connection.ask(&get).await.text(), "hello");
    }
    for seen in origin.seen_at("/no") {
        assert_eq!(seen.body, body);
    }
}

#[tokio::test]
async fn the_rest_of_a_head_that_looks_like_another_is_the_rest() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    origin.on("/a", reply("hello")).on("/b", reply("other"));
    for path in ["/a", "/b"] {
        gateway.client.get(path).await;
    }
    let mut connection = gateway.client.connect().await;
    let begun = "GET /a HTTP/1.1\nHost: a\n\nGET /a HTTP/1.1\nHost: a\nX-Own: ";
    connection.send(&raw(begun)).await;
    assert_eq!(connection.answer("GET").await.text(), "hello");
    // The library has answered a hit, and holds the beginning of the next head.
    connection.send(&raw("GET /b HTTP/1.1\nHost: a\n\n")).await;
    let two_hosts = connection.answer("GET").await;
    assert_eq!(two_hosts.status, 400, "{:?}", two_hosts.headers);
}

#[tokio::test]
async fn an_end_of_trailers_that_is_none_for_the_library_lets_nothing_through() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    origin.on("/a", reply("hello"));
    gateway.client.get("/a").await;
    let mut connection = after_a_hit(&gateway, &Request::get("/a")).await;
    // Answered without the body, whose end is a line without CR: the library goes on reading trailers.
    let head = "POST /.well-known/hardtack/none HTTP/1.1\nHost: here.example\nTransfer-Encoding: chunked\n\n0\n";
    connection.send(&[&raw(head)[..], b"\n"].concat()).await;
    let refused = connection.answer("POST").await;
    assert!(refused.status >= 400, "{}", refused.status);
    connection
        .send(&raw("GET /a HTTP/1.1\nHost: here.example\n\n"))
        .await;
    assert!(
        connection.try_head().await.is_none(),
        "one answer to one request"
    );
}

#[tokio::test]
async fn what_the_library_still_has_to_send_comes_before_the_next_answer() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    let body = noise(8 << 20);
    origin
        .on("/large", reply(body.clone()))
        .on("/a", reply("hello"));
    for path in ["/large", "/a"] {
        gateway.client.get(path).await;
    }
    let mut connection = gateway.client.connect().await;
    // By the library, which is then in step: only that not everything is sent keeps the next one back.
    connection
        .send(&raw("\nGET /large HTTP/1.1\nHost: here.example\n\n"))
        .await;
    connection.first_byte().await;
    connection.send_request(&Request::get("/a")).await;
    let large = connection.answer("GET").await;
    assert!(!came_fast(&large) && large.is_complete);
    assert!(large.body == body, "another body");
    assert_eq!(connection.answer("GET").await.text(), "hello");
    assert!(came_fast(&connection.ask(&Request::get("/a")).await));
}

#[tokio::test]
async fn a_hit_while_a_write_waits_tells_of_it() {
    let origin = Origin::start().await;
    let config = reverse_to(origin.address()) + "write = { mode = \"on-failure\" }\n";
    let gateway = Gateway::start(&config).await;
    origin.on("/a", reply("hello")).on("/b", reply("other"));
    let get = Request::get("/a");
    for path in ["/a", "/b"] {
        gateway.client.get(path).await;
    }
    let mut connection = after_a_hit(&gateway, &get).await;
    origin.kill().await;
    // No PUT, which would be laid over what is stored.
    let write = Request::new("POST", "/a").body("new");
    assert_eq!(gateway.client.ask(write).await.status, 202);
    let other = connection.ask(&Request::get("/b")).await;
    assert!(came_fast(&other) && other.header("hardtack-pending-writes").is_none());
    let marked = connection.ask(&get).await;
    assert_eq!(
        marked.header("hardtack-pending-writes"),
        Some("1"),
        "{:?}",
        marked.headers
    );
}

/// Whatever stands on a connection, in whatever pieces it comes, is answered in its order, each with its own.
#[tokio::test]
async fn any_requests_in_any_pieces_are_answered_in_their_order() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    origin.on("/a", reply("hello")).on("/b", reply("other"));
    origin.on("/no", Reply::ok("passed").cache_control("no-store"));
    for path in ["/a", "/b"] {
        gateway.client.get(path).await;
    }
    let inner = "GET /b HTTP/1.1\r\nHost: a\r\n\r\n";
    let chunk = format!("{:x}\r\n{inner}\r\n0\r\n\r\n", inner.len());
    let sized = format!("Content-Length: {}\n", inner.len());
    let head = |method: &str, path: &str, fields: &str| {
        String::from_utf8(raw(&format!(
            "{method} {path} HTTP/1.1\nHost: a\n{fields}\n"
        )))
        .unwrap()
    };
    let kinds = [
        ("GET", head("GET", "/a", ""), 200, "hello"),
        (
            "GET",
            head("GET", "/b", "Connection: keep-alive\n"),
            200,
            "other",
        ),
        ("HEAD", head("HEAD", "/a", ""), 200, ""),
        ("GET", head("GET", "/a", "If-None-Match: \"v1\"\n"), 304, ""),
        ("GET", head("GET", "/a", "Range: bytes=1-2\n"), 206, "el"),
        ("GET", head("GET", "/no", ""), 200, "passed"),
        ("POST", head("POST", "/no", &sized) + inner, 200, "passed"),
        (
            "POST",
            head("POST", "/no", "Transfer-Encoding: chunked\n") + &chunk,
            200,
            "passed",
        ),
        (
            "GET",
            format!("\r\n{}", head("GET", "/b", "")),
            200,
            "other",
        ),
    ];
    for seed in 0..100 {
        let mut random = fastrand::Rng::with_seed(seed);
        // Half of them plain hits, which are answered beside the library where that may be.
        let mut one = || match random.bool() {
            true => &kinds[random.usize(0..2)],
            false => &kinds[random.usize(0..kinds.len())],
        };
        let asked: Vec<_> = (0..12).map(|_| one()).collect();
        let bytes: Vec<u8> = asked.iter().flat_map(|kind| kind.1.bytes()).collect();
        // Between requests, as most clients write, or anywhere.
        let mut cuts: Vec<usize> = match random.bool() {
            true => {
                let ends = asked.iter().scan(0, |end, kind| {
                    *end += kind.1.len();
                    Some(*end)
                });
                ends.collect()
            }
            false => (0..random.usize(0..8))
                .map(|_| random.usize(0..bytes.len()))
                .collect(),
        };
        cuts.push(bytes.len());
        cuts.sort_unstable();
        let mut connection = gateway.client.connect().await;
        let mut sent = 0;
        for cut in cuts {
            connection.send(&bytes[sent..cut]).await;
            sent = cut;
            // Time to read it, as a rule; whether it is read in this piece makes no difference to what is expected.
            for _ in 0..random.usize(0..6) {
                tokio::task::yield_now().await;
            }
        }
        for (number, (method, _, status, text)) in asked.iter().enumerate() {
            let answer = connection.answer(method).await;
            assert_eq!(
                (answer.status, answer.text()),
                (*status, *text),
                "{number} of seed {seed}"
            );
        }
    }
}
