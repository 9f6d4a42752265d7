//! A read that was answered once is answered again from the store.

use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::support::{Gateway, Origin, Reply, Request, noise, within};

async fn origin_and_gateway() -> (Origin, Gateway) {
    (Origin::start().await, Gateway::start("").await)
}

#[tokio::test]
async fn a_first_read_is_stored_and_the_second_is_a_hit() {
    let (origin, gateway) = origin_and_gateway().await;
    origin.on("/a", Reply::ok("hello").cache_control("max-age=300"));

    let first = gateway.client.get(&origin.url("/a")).await;
    assert_eq!((first.status, first.text()), (200, "hello"));
    first.assert_says(&["fwd=uri-miss", "fwd-status=200", "stored", "ttl=300"]);
    assert!(!first.says("hit"), "hit and fwd are exclusive");

    gateway.clock.step_secs(10);
    let second = gateway.client.get(&origin.url("/a")).await;
    assert_eq!((second.status, second.text()), (200, "hello"));
    second.assert_says(&["hit", "ttl=290"]);
    assert_eq!(second.header("age"), Some("10"));
    assert_eq!(second.header("via"), first.header("via"));
    assert!(second.header("via").unwrap().starts_with("1.1 hardtack"));
    assert!(second.header("x-cache").is_none() && second.header("warning").is_none());

    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn requests_follow_each_other_on_one_connection() {
    let (origin, gateway) = origin_and_gateway().await;
    origin.on("/a", Reply::ok("hello").cache_control("max-age=300"));
    origin.on("/chunked", Reply::ok("pieces").chunked());

    let mut connection = gateway.client.connect().await;
    for path in ["/a", "/a", "/chunked", "/missing", "/a"] {
        let answer = connection.ask(&Request::get(&origin.url(path))).await;
        assert_eq!(answer.status, if path == "/missing" { 404 } else { 200 });
        assert!(answer.is_complete);
    }
}

#[tokio::test]
async fn head_is_answered_from_a_stored_get() {
    let (origin, gateway) = origin_and_gateway().await;
    origin.on("/a", Reply::ok("hello").cache_control("max-age=300"));
    gateway.client.get(&origin.url("/a")).await;

    let head = Request::new("HEAD", &origin.url("/a"));
    let answer = gateway.client.ask(head).await;
    answer.assert_says(&["hit"]);
    assert_eq!(answer.header("content-length"), Some("5"));
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn the_clients_own_condition_is_answered_from_the_store() {
    let (origin, gateway) = origin_and_gateway().await;
    let reply = Reply::ok("hello").cache_control("max-age=300");
    origin.on("/a", reply.etag("\"v1\""));
    gateway.client.get(&origin.url("/a")).await;

    let conditional = |etag| Request::get(&origin.url("/a")).header("If-None-Match", etag);
    let same = gateway.client.ask(conditional("\"v1\"")).await;
    let other = gateway.client.ask(conditional("\"v0\"")).await;
    assert_eq!((same.status, other.status), (304, 200));
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn a_stale_response_is_validated_and_freshened_by_a_304() {
    let (origin, gateway) = origin_and_gateway().await;
    let reply = Reply::ok("hello").cache_control("max-age=300");
    origin.on("/a", reply.etag("\"v1\""));
    gateway.client.get(&origin.url("/a")).await;

    gateway.clock.step_secs(301);
    let validated = gateway.client.get(&origin.url("/a")).await;
    assert_eq!((validated.status, validated.text()), (200, "hello"));
    validated.assert_says(&["fwd=stale", "fwd-status=304", "stored", "ttl=300"]);
    assert_eq!(origin.seen()[1].header("if-none-match"), Some("\"v1\""));

    let fresh = gateway.client.get(&origin.url("/a")).await;
    fresh.assert_says(&["hit", "ttl=300"]);
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn every_variant_is_kept() {
    let (origin, gateway) = origin_and_gateway().await;
    origin.on_each("/a", |seen, _| {
        Reply::ok(seen.header("accept-language").unwrap_or("none").to_owned())
            .cache_control("max-age=300")
            .header("Vary", "Accept-Language")
    });
    let ask = |language| Request::get(&origin.url("/a")).header("Accept-Language", language);
    for language in ["de", "en"] {
        let answer = gateway.client.ask(ask(language)).await;
        assert_eq!(answer.text(), language);
    }
    for language in ["de", "en"] {
        let answer = gateway.client.ask(ask(language)).await;
        answer.assert_says(&["hit"]);
        assert_eq!(answer.text(), language);
    }
    let third = gateway.client.ask(ask("fr")).await;
    third.assert_says(&["fwd=vary-miss"]);
    assert_eq!(origin.seen().len(), 3);
}

#[tokio::test]
async fn a_get_with_a_body_neither_reads_nor_writes_the_store() {
    let (origin, gateway) = origin_and_gateway().await;
    origin.on("/a", Reply::ok("hello").cache_control("max-age=300"));
    let with_body = || Request::get(&origin.url("/a")).body("question");

    gateway.client.ask(with_body()).await;
    let plain = gateway.client.get(&origin.url("/a")).await;
    plain.assert_says(&["fwd=uri-miss"]);
    gateway.client.ask(with_body()).await;

    let bodies: Vec<_> = origin.seen().into_iter().map(|seen| seen.body).collect();
    assert_eq!(bodies, [b"question".to_vec(), vec![], b"question".to_vec()]);
}

#[tokio::test]
async fn a_body_over_max_object_streams_through_and_is_not_stored() {
    let origin = Origin::start().await;
    let gateway = Gateway::start("[storage]\nmax_object = \"64KiB\"").await;
    let body = crate::support::noise(200_000);
    for (path, reply) in [
        ("/length", Reply::ok(body.clone())),
        ("/chunked", Reply::ok(body.clone()).chunked()),
    ] {
        origin.on(path, reply.cache_control("max-age=300"));
        for _ in 0..2 {
            let answer = gateway.client.get(&origin.url(path)).await;
            assert!(answer.is_complete && answer.body == body, "{path}");
            assert!(!answer.says("hit"), "{path} {:?}", answer.cache_status());
        }
    }
    assert_eq!(origin.seen().len(), 4);
}

#[tokio::test]
async fn writes_unknown_methods_and_odd_statuses_pass_through() {
    let (origin, gateway) = origin_and_gateway().await;
    for (method, status) in [
        ("POST", 201),
        ("PUT", 204),
        ("PATCH", 499),
        ("M-SEARCH", 599),
        ("DELETE", 999),
    ] {
        let path = format!("/{status}");
        origin.on(&path, Reply::new(status, ""));
        let request = Request::new(method, &origin.url(&path)).body("text");
        let answer = gateway.client.ask(request).await;
        assert_eq!(answer.status, status, "{method}");
        let seen = &origin.seen_at(&path)[0];
        assert_eq!((seen.method.as_str(), &*seen.body), (method, &b"text"[..]));
    }
}

#[tokio::test]
async fn the_target_reaches_the_origin_byte_for_byte() {
    let (origin, gateway) = origin_and_gateway().await;
    for path in [
        "/a/%2e%2e/b",
        "/it's",
        "/A%2fb?x=%41&y='",
        "/a//b/./c",
        "/?",
        "/a;b?c|d",
    ] {
        gateway.client.get(&origin.url(path)).await;
        let last = origin.seen().pop().map(|seen| seen.target);
        assert_eq!(last.as_deref(), Some(path));
    }
}

#[tokio::test]
async fn http_2_with_prior_knowledge_is_served_on_the_same_listener() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&crate::support::reverse_to(origin.address())).await;
    origin.on("/a", Reply::ok("hello").cache_control("max-age=300"));

    let stream = gateway.client.connect().await.into_stream();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    tasks.spawn(connection);
    for expected in ["fwd=uri-miss", "hit"] {
        let request = http::Request::get(format!("http://{}/a", gateway.client.address))
            .body(Empty::<bytes::Bytes>::new())
            .unwrap();
        let response = within("an answer over h2", sender.send_request(request))
            .await
            .unwrap();
        let status = response.headers()["cache-status"].to_str().unwrap();
        assert!(status.contains(expected), "{status}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(body, "hello");
    }
}

#[tokio::test]
async fn one_range_is_served_from_memory_and_from_a_body_file() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    // More than is promoted to memory when it is found on disk.
    let body = noise(2 << 20);
    origin.on("/a", Reply::ok(body.clone()).cache_control("max-age=300"));
    let url = origin.url("/a");
    gateway.client.get(&url).await;
    let ranged = |range: &str| Request::get(&url).header("Range", range);
    let from_memory = gateway.client.ask(ranged("bytes=1000000-1000009")).await;
    origin.kill().await;
    let gateway = gateway.restart("").await;
    let from_disk = gateway.client.ask(ranged("bytes=1000000-1000009")).await;
    for answer in [from_memory, from_disk] {
        assert_eq!(answer.status, 206);
        assert_eq!(
            answer.header("content-range"),
            Some("bytes 1000000-1000009/2097152")
        );
        assert_eq!(&answer.body[..], &body[1_000_000..1_000_010]);
        answer.assert_says(&["hit"]);
    }
    let past = gateway.client.ask(ranged("bytes=2097152-")).await;
    assert_eq!(
        (past.status, past.header("content-range")),
        (416, Some("bytes */2097152"))
    );
    assert_eq!(origin.seen().len(), 1);
}
