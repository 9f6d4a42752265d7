//! QUERY (RFC 10008): safe, idempotent, with content, and stored by that content.

use serde_json::json;

use crate::support::{Answer, Cue, Gateway, Origin, Reply, Request, Step, eventually};

/// An origin whose `/q` answers each QUERY with what it was asked and how often before, and each GET likewise.
async fn answering() -> Origin {
    let origin = Origin::start().await;
    origin.on_each("/q", |seen, nth| match seen.method.as_str() {
        "QUERY" | "GET" => {
            let content = String::from_utf8_lossy(&seen.body).into_owned();
            let reply = Reply::ok(format!("{} {content} v{nth}", seen.method));
            reply.cache_control("max-age=300")
        }
        _ => Reply::new(204, ""),
    });
    origin
}

fn query(url: &str, content: &str) -> Request {
    let request = Request::new("QUERY", url).header("Content-Type", "text/plain");
    request.body(content.to_owned())
}

async fn ask(gateway: &Gateway, origin: &Origin, content: &str) -> Answer {
    gateway.client.ask(query(&origin.url("/q"), content)).await
}

#[tokio::test]
async fn the_same_content_twice_costs_the_origin_one_request() {
    let (origin, gateway) = (answering().await, Gateway::start("").await);
    let first = ask(&gateway, &origin, "a").await;
    first.assert_says(&["fwd=uri-miss", "fwd-status=200", "stored", "ttl=300"]);
    let second = ask(&gateway, &origin, "a").await;
    second.assert_says(&["hit", "ttl=300"]);
    for answer in [first, second] {
        assert_eq!((answer.status, answer.text()), (200, "QUERY a v0"));
    }
    let seen = origin.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        (seen[0].method.as_str(), seen[0].body.as_slice()),
        ("QUERY", &b"a"[..])
    );
    assert_eq!(seen[0].header("content-type"), Some("text/plain"));
    assert_eq!(seen[0].header("content-length"), Some("1"));
}

#[tokio::test]
async fn other_content_or_another_reading_of_it_is_another_request() {
    let (origin, gateway) = (answering().await, Gateway::start("").await);
    let url = origin.url("/q");
    let typed = |kind: &str| {
        Request::new("QUERY", &url)
            .header("Content-Type", kind)
            .body("a")
    };
    for (nth, request) in [
        query(&url, "a"),
        query(&url, "b"),
        query(&url, ""),
        typed("application/json"),
        typed("text/plain").header("Content-Language", "de"),
        typed("text/plain").header("Content-Encoding", "identity"),
        Request::get(&url),
    ]
    .into_iter()
    .enumerate()
    {
        let first = gateway.client.ask(request.clone()).await;
        first.assert_says(&["fwd=uri-miss", "stored"]);
        assert!(
            first.text().ends_with(&format!(" v{nth}")),
            "{}",
            first.text()
        );
        let again = gateway.client.ask(request).await;
        again.assert_says(&["hit"]);
        assert_eq!(again.text(), first.text());
    }
    // A HEAD is answered by what a GET stored, never by a QUERY.
    let head = gateway.client.ask(Request::new("HEAD", &url)).await;
    head.assert_says(&["hit"]);
    assert_eq!(head.header("content-length"), Some("7"));
    assert_eq!(origin.seen().len(), 7);
}

#[tokio::test]
async fn content_that_comes_in_chunks_is_the_same_content() {
    let (origin, gateway) = (answering().await, Gateway::start("").await);
    ask(&gateway, &origin, "ab").await.assert_says(&["stored"]);
    let mut connection = gateway.client.connect().await;
    let head = format!(
        "QUERY {} HTTP/1.1\r\nHost: {}\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n",
        origin.url("/q"),
        origin.address()
    );
    connection.send(head.as_bytes()).await;
    connection.send(b"1\r\na\r\n1\r\nb\r\n0\r\n\r\n").await;
    let answer = connection.answer("QUERY").await;
    answer.assert_says(&["hit"]);
    assert_eq!(answer.text(), "QUERY ab v0");
}

#[tokio::test]
async fn queries_of_one_content_are_collapsed() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let cue = Cue::new();
    let hold = cue.clone();
    origin.on_each("/q", move |seen, _| {
        let reply = Reply::ok(seen.body.clone()).cache_control("max-age=300");
        reply.dripped(2, &hold)
    });
    let mut answers = Vec::new();
    for (content, says) in [
        ("aa", "stored"),
        ("aa", "collapsed"),
        ("bb", "stored"),
        ("bb", "collapsed"),
        ("aa", "collapsed"),
    ] {
        let mut connection = gateway.client.connect().await;
        connection
            .send_request(&query(&origin.url("/q"), content))
            .await;
        let head = connection.head().await;
        head.assert_says(&["fwd=uri-miss", says]);
        answers.push((content, connection, head));
    }
    cue.open();
    for (content, mut connection, head) in answers {
        assert_eq!(connection.rest_of(head, "QUERY").await.text(), content);
    }
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn a_stale_query_is_validated_with_its_content() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on(
        "/q",
        Reply::ok("found")
            .cache_control("max-age=60, stale-while-revalidate=600")
            .etag("\"e\""),
    );
    ask(&gateway, &origin, "a").await.assert_says(&["stored"]);

    gateway.clock.step_secs(1_000);
    let validated = ask(&gateway, &origin, "a").await;
    validated.assert_says(&["fwd=stale", "fwd-status=304", "stored"]);
    assert_eq!(validated.text(), "found");

    gateway.clock.step_secs(100);
    let stale = ask(&gateway, &origin, "a").await;
    stale.assert_says(&["hit", "detail=stale-while-revalidate"]);
    origin.sees("/q", 3).await;
    eventually("the validation behind is stored", || async {
        let answer = ask(&gateway, &origin, "a").await;
        (answer.says("ttl=60")).then_some(())
    })
    .await;
    for seen in &origin.seen()[1..] {
        assert_eq!(seen.method, "QUERY");
        assert_eq!(seen.header("if-none-match"), Some("\"e\""));
        assert_eq!(seen.body, b"a");
    }

    // The client's own condition is answered from the store.
    let known = query(&origin.url("/q"), "a").header("If-None-Match", "\"e\"");
    assert_eq!(gateway.client.ask(known).await.status, 304);
    assert_eq!(origin.seen().len(), 3);
}

#[tokio::test]
async fn a_query_varies_by_the_fields_that_the_response_names() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on_each("/q", |seen, _| {
        let language = seen.header("accept-language").unwrap_or("none").to_owned();
        Reply::ok(language)
            .cache_control("max-age=300")
            .header("Vary", "Accept-Language")
    });
    let ask = |language| query(&origin.url("/q"), "a").header("Accept-Language", language);
    for says in ["stored", "hit"] {
        for language in ["de", "en"] {
            let answer = gateway.client.ask(ask(language)).await;
            answer.assert_says(&[says]);
            assert_eq!(answer.text(), language);
        }
    }
}

#[tokio::test]
async fn a_range_of_a_query_is_not_a_thing() {
    let (origin, gateway) = (answering().await, Gateway::start("").await);
    ask(&gateway, &origin, "a").await;
    let part = query(&origin.url("/q"), "a").header("Range", "bytes=0-1");
    let answer = gateway.client.ask(part).await;
    answer.assert_says(&["hit"]);
    assert_eq!((answer.status, answer.text()), (200, "QUERY a v0"));
}

#[tokio::test]
async fn without_the_origin_a_known_query_is_answered_and_another_is_not() {
    let (origin, gateway) = (answering().await, Gateway::start("").await);
    ask(&gateway, &origin, "a").await;
    origin.kill().await;
    gateway.clock.step_secs(1_000);
    let found_out = ask(&gateway, &origin, "a").await;
    found_out.assert_says(&["fwd=stale", "detail=disconnected"]);
    let known = ask(&gateway, &origin, "a").await;
    known.assert_says(&["hit", "detail=disconnected"]);
    assert_eq!((known.status, known.text()), (200, "QUERY a v0"));
    ask(&gateway, &origin, "b")
        .await
        .assert_problem(504, "offline-miss");
}

#[tokio::test]
async fn in_offline_mode_nothing_of_a_query_is_sent() {
    let (origin, gateway) = (
        answering().await,
        Gateway::start("mode = \"offline\"").await,
    );
    ask(&gateway, &origin, "a")
        .await
        .assert_problem(504, "offline-miss");
    let large = "x".repeat(70_000);
    ask(&gateway, &origin, &large)
        .await
        .assert_problem(504, "offline-miss");
    assert!(origin.seen().is_empty());
}

#[tokio::test]
async fn a_query_of_more_than_64_kib_is_forwarded_whole_and_not_stored() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on_each("/q", |seen, _| {
        Reply::ok(seen.body.len().to_string()).cache_control("max-age=300")
    });
    for (length, is_stored) in [(65_536, true), (65_537, false), (300_000, false)] {
        let content = "x".repeat(length);
        for nth in 0..2 {
            let answer = ask(&gateway, &origin, &content).await;
            assert_eq!(
                (answer.status, answer.text()),
                (200, length.to_string().as_str())
            );
            match (is_stored, nth) {
                (true, 0) => answer.assert_says(&["stored"]),
                (true, _) => answer.assert_says(&["hit"]),
                (false, _) => answer.assert_says(&["fwd=bypass", "detail=request-body"]),
            }
        }
    }
    let seen: Vec<usize> = origin.seen().iter().map(|seen| seen.body.len()).collect();
    assert_eq!(seen, [65_536, 65_537, 65_537, 300_000, 300_000]);

    // Also where its length is not known beforehand.
    let mut connection = gateway.client.connect().await;
    let head = format!(
        "QUERY {} HTTP/1.1\r\nHost: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        origin.url("/q"),
        origin.address()
    );
    connection.send(head.as_bytes()).await;
    let chunk = format!("8000\r\n{}\r\n", "y".repeat(0x8000));
    connection.send(chunk.repeat(3).as_bytes()).await;
    connection.send(b"0\r\n\r\n").await;
    let answer = connection.answer("QUERY").await;
    answer.assert_says(&["fwd=bypass"]);
    assert_eq!(answer.text(), (3 * 0x8000).to_string());
}

#[tokio::test]
async fn a_query_that_breaks_off_reaches_no_origin() {
    let (origin, gateway) = (answering().await, Gateway::start("").await);
    let mut connection = gateway.client.connect().await;
    let head = format!(
        "QUERY {} HTTP/1.1\r\nHost: {}\r\nContent-Length: 10\r\n\r\nhalf",
        origin.url("/q"),
        origin.address()
    );
    connection.send(head.as_bytes()).await;
    drop(connection);
    // Whoever comes later is not confused with it.
    ask(&gateway, &origin, "half")
        .await
        .assert_says(&["fwd=uri-miss", "stored"]);
    assert_eq!(origin.seen().len(), 1);
    assert_eq!(origin.connections(), 1);
}

#[tokio::test]
async fn a_query_is_repeated_when_its_pooled_connection_turns_out_dead() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on_each("/q", |seen, nth| {
        let content = String::from_utf8_lossy(&seen.body).into_owned();
        match nth {
            // The second comes on the first one's connection.
            1 => Reply::script([Step::Reset]),
            _ => Reply::ok(content).cache_control("max-age=300"),
        }
    });
    ask(&gateway, &origin, "a").await.assert_says(&["stored"]);
    let answer = ask(&gateway, &origin, "b").await;
    assert_eq!((answer.status, answer.text()), (200, "b"));
    let bodies: Vec<Vec<u8>> = origin.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [b"a", b"b", b"b"]);
}

#[tokio::test]
async fn an_unsafe_method_invalidates_every_query_of_its_target_and_no_others() {
    for method in ["POST", "PUT", "DELETE"] {
        let (origin, gateway) = (answering().await, Gateway::start("").await);
        origin.on("/other", Reply::ok("other").cache_control("max-age=300"));
        let other = || query(&origin.url("/other"), "a");
        gateway.client.ask(other()).await.assert_says(&["stored"]);
        for content in ["a", "b"] {
            ask(&gateway, &origin, content)
                .await
                .assert_says(&["stored"]);
        }
        let write = Request::new(method, &origin.url("/q")).body("x");
        assert_eq!(gateway.client.ask(write).await.status, 204);
        for content in ["a", "b"] {
            let answer = ask(&gateway, &origin, content).await;
            assert!(!answer.says("hit"), "{method} {content}");
        }
        gateway.client.ask(other()).await.assert_says(&["hit"]);
    }
}

#[tokio::test]
async fn a_query_itself_invalidates_nothing() {
    let (origin, gateway) = (answering().await, Gateway::start("").await);
    let url = origin.url("/q");
    gateway.client.get(&url).await.assert_says(&["stored"]);
    ask(&gateway, &origin, "a").await;
    ask(&gateway, &origin, "b").await;
    gateway.client.get(&url).await.assert_says(&["hit"]);
    ask(&gateway, &origin, "a").await.assert_says(&["hit"]);
}

#[tokio::test]
async fn a_write_during_the_fill_of_a_query_wins_over_it() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let cue = Cue::new();
    let hold = cue.clone();
    origin.on_each("/q", move |seen, nth| match (seen.method.as_str(), nth) {
        ("QUERY", 0) => Reply::ok("before")
            .cache_control("max-age=300")
            .dripped(2, &hold),
        ("QUERY", _) => Reply::ok("after").cache_control("max-age=300"),
        _ => Reply::new(204, ""),
    });
    let url = origin.url("/q");
    let mut connection = gateway.client.connect().await;
    connection.send_request(&query(&url, "a")).await;
    let head = connection.head().await;
    connection.first_byte().await;
    gateway
        .client
        .ask(Request::new("PUT", &url).body("x"))
        .await;
    cue.open();
    assert_eq!(connection.rest_of(head, "QUERY").await.text(), "before");
    let next = ask(&gateway, &origin, "a").await;
    assert_eq!(next.text(), "after", "{:?}", next.cache_status());
}

#[tokio::test]
async fn a_query_survives_a_restart_and_is_invalidated_after_it() {
    let (origin, gateway) = (answering().await, Gateway::start("").await);
    for content in ["a", "b"] {
        ask(&gateway, &origin, content)
            .await
            .assert_says(&["stored"]);
    }
    let gateway = gateway.restart("").await;
    ask(&gateway, &origin, "a").await.assert_says(&["hit"]);
    // One is in memory again, the other on disk alone.
    let write = Request::new("POST", &origin.url("/q")).body("x");
    assert_eq!(gateway.client.ask(write).await.status, 204);
    let gateway = gateway.restart("").await;
    for content in ["a", "b"] {
        let answer = ask(&gateway, &origin, content).await;
        assert!(
            !answer.says("hit"),
            "{content}: {:?}",
            answer.cache_status()
        );
    }
}

#[tokio::test]
async fn an_operator_purges_every_query_of_a_url_and_sees_no_content() {
    let (origin, gateway) = (answering().await, Gateway::start("").await);
    let url = origin.url("/q");
    for content in ["secret-a", "secret-b"] {
        ask(&gateway, &origin, content)
            .await
            .assert_says(&["stored"]);
    }
    gateway.client.get(&url).await.assert_says(&["stored"]);
    let listed = gateway.admin.get("/api/v1/cache/entries").await;
    assert_eq!(listed.json()["items"].as_array().unwrap().len(), 3);
    assert!(!listed.text().contains("secret"));

    let body = json!({ "url": url, "soft": false }).to_string();
    let purge = Request::new("POST", "/api/v1/cache/purge");
    let purge = purge.header("Content-Type", "application/json").body(body);
    let purged = gateway.admin.ask(purge).await;
    assert_eq!(purged.json()["count"], 3, "{}", purged.text());
    origin.kill().await;
    for content in ["secret-a", "secret-b"] {
        ask(&gateway, &origin, content)
            .await
            .assert_problem(504, "offline-miss");
    }
}

#[tokio::test]
async fn queries_of_two_users_of_a_private_cache_stay_apart() {
    let origin = Origin::start().await;
    let gateway = Gateway::start("[cache]\nkind = \"private\"").await;
    origin.on_each("/q", |seen, _| {
        let user = seen.header("authorization").unwrap_or("nobody").to_owned();
        Reply::ok(user).cache_control("private, max-age=300")
    });
    let ask = |user| query(&origin.url("/q"), "a").header("Authorization", user);
    for says in ["stored", "hit"] {
        for user in ["Bearer ann", "Bearer bob"] {
            let answer = gateway.client.ask(ask(user)).await;
            answer.assert_says(&[says]);
            assert_eq!(answer.text(), user);
        }
    }
    let write = Request::new("POST", &origin.url("/q")).header("Authorization", "Bearer ann");
    gateway.client.ask(write.body("x")).await;
    assert!(!gateway.client.ask(ask("Bearer ann")).await.says("hit"));
}

#[tokio::test]
async fn a_get_with_a_body_is_no_query() {
    let (origin, gateway) = (answering().await, Gateway::start("").await);
    let url = origin.url("/q");
    for nth in 0..2 {
        let answer = gateway.client.ask(Request::get(&url).body("a")).await;
        answer.assert_says(&["fwd=bypass", "detail=request-body"]);
        assert_eq!(answer.text(), format!("GET a v{nth}"));
    }
}
