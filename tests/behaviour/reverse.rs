//! Reverse routes: where an origin-form request goes, and what the origin is told.

use crate::support::{Cue, Gateway, Origin, Reply, Request, Step, reverse_to};

#[tokio::test]
async fn a_reverse_route_is_cached_and_outlives_its_origin() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    origin.on("/a?b=c", Reply::ok("hello").cache_control("max-age=300"));

    let first = gateway.client.get("/a?b=c").await;
    first.assert_says(&["fwd=uri-miss", "fwd-status=200", "stored", "ttl=300"]);
    gateway.client.get("/a?b=c").await.assert_says(&["hit"]);
    assert_eq!(origin.seen().len(), 1);

    origin.kill().await;
    gateway.clock.step_secs(1_000);
    let discovery = gateway.client.get("/a?b=c").await;
    discovery.assert_says(&["fwd=stale", "detail=disconnected"]);
    let known = gateway.client.get("/a?b=c").await;
    known.assert_says(&["hit", "detail=disconnected"]);
    gateway
        .client
        .get("/unknown")
        .await
        .assert_problem(504, "offline-miss");
}

#[tokio::test]
async fn a_request_that_no_route_takes_is_refused_and_never_forwarded_by_its_host() {
    let (origin, other) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::start(&format!(
        r#"
        [upstreams.origin]
        url = "http://{}"
        [[routes]]
        name = "v1"
        match = {{ path = "/v1/**", methods = ["GET"] }}
        upstream = "origin"
        "#,
        origin.address()
    ))
    .await;
    origin.on("/v1/a", Reply::ok("hello"));

    assert_eq!(gateway.client.get("/v1/a").await.text(), "hello");
    gateway
        .client
        .get("/v2/a")
        .await
        .assert_problem(404, "no-route");
    let by_host = Request::get("/a").header("Host", &other.address().to_string());
    gateway
        .client
        .ask(by_host)
        .await
        .assert_problem(404, "no-route");
    let method = Request::new("POST", "/v1/a").body("x");
    gateway
        .client
        .ask(method)
        .await
        .assert_problem(404, "no-route");
    assert_eq!((origin.seen().len(), other.connections()), (1, 0));
}

#[tokio::test]
async fn the_first_matching_route_wins_and_the_command_lines_upstream_is_last() {
    let (first, second, last) = (
        Origin::start().await,
        Origin::start().await,
        Origin::start().await,
    );
    let route = |name: &str, path: &str, origin: &Origin| {
        format!(
            r#"
            [upstreams.{name}]
            url = "http://{}"
            [[routes]]
            name = "{name}"
            match = {{ path = "{path}" }}
            upstream = "{name}"
            "#,
            origin.address()
        )
    };
    let config = [
        route("first", "/a/*", &first),
        route("second", "/a/**", &second),
    ]
    .concat();
    let gateway = Gateway::start_with_upstream(&config, &last.url("")).await;
    for (path, origin) in [("/a/1", &first), ("/a/1/2", &second), ("/b", &last)] {
        origin.on(path, Reply::ok("here"));
        assert_eq!(gateway.client.get(path).await.text(), "here", "{path}");
    }
}

#[tokio::test]
async fn the_origin_is_told_its_own_name_and_who_asked() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    let request = Request::new("POST", "/a")
        .header("Host", "shop.example")
        .header("X-Forwarded-For", "203.0.113.7")
        .header("Forwarded", "for=203.0.113.7");
    gateway.client.ask(request).await;

    let seen = &origin.seen()[0];
    assert_eq!(seen.header("host"), Some(&*origin.address().to_string()));
    let told: String = ["forwarded", "x-forwarded-for", "x-forwarded-host"]
        .iter()
        .flat_map(|name| seen.all(name))
        .collect();
    assert!(told.contains("127.0.0.1"), "{:?}", seen.headers);
    assert!(told.contains("shop.example"), "{:?}", seen.headers);
    assert!(
        !told.contains("203.0.113.7"),
        "an untrusted peer's word was passed on"
    );
    assert!(
        seen.header("via")
            .is_some_and(|via| via.starts_with("1.1 hardtack"))
    );
}

#[tokio::test]
async fn forwarded_requests_do_not_say_who_asked() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let request = Request::get(&origin.url("/a")).header("X-Forwarded-For", "203.0.113.7");
    gateway.client.ask(request).await;
    let seen = &origin.seen()[0];
    for name in [
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-proto",
    ] {
        assert_eq!(seen.header(name), None);
    }
}

#[tokio::test]
async fn the_clients_host_is_passed_on_when_the_route_preserves_it() {
    let origin = Origin::start().await;
    let config = reverse_to(origin.address()) + "preserve_host = true";
    let gateway = Gateway::start(&config).await;
    let request = Request::get("/a").header("Host", "shop.example");
    gateway.client.ask(request).await;
    assert_eq!(origin.seen()[0].header("host"), Some("shop.example"));
}

#[tokio::test]
async fn an_absolute_form_that_names_our_own_listener_is_a_reverse_request() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    origin.on("/a", Reply::ok("hello"));
    let own = format!("http://{}/a", gateway.client.address);
    assert_eq!(gateway.client.get(&own).await.text(), "hello");

    let bare = Gateway::start("").await;
    let own = format!("http://{}/a", bare.client.address);
    bare.client.get(&own).await.assert_problem(404, "no-route");
}

#[tokio::test]
async fn a_catch_all_route_takes_no_forwarded_request() {
    let (routed, asked) = (Origin::start().await, Origin::start().await);
    let gateway = Gateway::start(&reverse_to(routed.address())).await;
    asked.on("/a", Reply::ok("asked"));
    assert_eq!(gateway.client.get(&asked.url("/a")).await.text(), "asked");
    assert_eq!(routed.connections(), 0);
}

// A route for a host without port used to take every port of that host to its upstream.
#[tokio::test]
async fn a_route_takes_forwarded_requests_for_the_port_that_it_names_and_no_other() {
    let (routed, asked) = (Origin::start().await, Origin::start().await);
    let named = asked.address();
    for (host, status, seen) in [
        (named.to_string(), 200, (1, 0)),
        (named.ip().to_string(), 203, (0, 1)),
    ] {
        let gateway = Gateway::start(&format!(
            r#"
            [upstreams.origin]
            url = "{}"
            [[routes]]
            name = "named"
            match = {{ host = "{host}", path = "/**" }}
            upstream = "origin"
            "#,
            routed.url("")
        ))
        .await;
        let path = format!("/{status}");
        routed.on(&path, Reply::new(200, "routed"));
        asked.on(&path, Reply::new(203, "asked"));
        let answer = gateway.client.get(&asked.url(&path)).await;
        assert_eq!(answer.status, status, "{host}");
        let reached = (routed.seen_at(&path).len(), asked.seen_at(&path).len());
        assert_eq!(reached, seen, "{host}");
    }
}

#[tokio::test]
async fn no_dots_lead_out_of_a_route_however_it_is_addressed() {
    let origin = Origin::start().await;
    for path in ["/base/public/a", "/base/public/../admin"] {
        origin.on(path, Reply::ok("here"));
    }
    let config = format!(
        r#"
        [upstreams.site]
        url = "http://{}/base"
        [[routes]]
        name = "public"
        match = {{ host = "site.example", path = "/public/**" }}
        upstream = "site"
        "#,
        origin.address()
    );
    let gateway = Gateway::start(&config).await;
    for (base, path, is_inside) in [
        ("", "/public/a", true),
        ("http://site.example", "/public/a", true),
        ("", "/public/../admin", false),
        ("http://site.example", "/public/../admin", false),
        ("http://site.example", "/public/%2e%2E/admin", false),
        ("http://site.example", "/public/..;x/admin", false),
    ] {
        let before = origin.seen().len();
        let request = Request::get(&format!("{base}{path}")).header("Host", "site.example");
        let answer = gateway.client.ask(request).await;
        if is_inside {
            assert_eq!(answer.text(), "here", "{base}{path}");
        } else {
            answer.assert_problem(400, "bad-request");
            assert_eq!(origin.seen().len(), before, "{base}{path}");
        }
    }
}

#[tokio::test]
async fn a_route_gives_policy_to_forwarded_requests() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(
        r#"
        [[routes]]
        name = "policy"
        match = { path = "/v1/**" }
        cache = { default_ttl = "60s" }
        "#,
    )
    .await;
    for path in ["/v1/a", "/v2/a"] {
        origin.on(path, Reply::ok("hello"));
        gateway.client.get(&origin.url(path)).await;
    }
    let with = gateway.client.get(&origin.url("/v1/a")).await;
    with.assert_says(&["hit", "ttl=60"]);
    assert!(!gateway.client.get(&origin.url("/v2/a")).await.says("hit"));
}

#[tokio::test]
async fn a_websocket_upgrade_passes_through() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nwelcome";
    origin.on(
        "/ws",
        Reply::script([Step::Send(switch.into()), Step::Echo]),
    );

    let mut connection = gateway.client.connect().await;
    let upgrade = Request::get("/ws")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket")
        .header("Sec-WebSocket-Version", "13")
        .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==");
    let answer = connection.ask(&upgrade).await;
    assert_eq!(answer.status, 101);
    assert_eq!(answer.header("upgrade"), Some("websocket"));
    assert_eq!(connection.take(7).await, (b"welcome".to_vec(), true));
    for message in [&b"\x81\x05hello"[..], b"\x00\xff\r\n\r\n"] {
        connection.send(message).await;
        assert_eq!(
            connection.take(message.len()).await,
            (message.to_vec(), true)
        );
    }
    let seen = &origin.seen()[0];
    assert_eq!(seen.header("upgrade"), Some("websocket"));
}

#[tokio::test]
async fn an_upgrade_goes_to_the_origin_also_where_an_answer_is_stored() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    origin.on(
        "/ws",
        Reply::ok("page").header("Cache-Control", "max-age=60"),
    );
    gateway.client.get("/ws").await;
    gateway.client.get("/ws").await.assert_says(&["hit"]);
    let switch = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";
    origin.on(
        "/ws",
        Reply::script([Step::Send(switch.into()), Step::Echo]),
    );
    let upgrade = Request::get("/ws")
        .header("Connection", "Upgrade")
        .header("Upgrade", "chat");
    let mut connection = gateway.client.connect().await;
    assert_eq!(connection.ask(&upgrade).await.status, 101);
    assert_eq!(origin.seen().len(), 2);
}

#[tokio::test]
async fn an_answer_has_the_gateways_version_and_not_its_origins() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    let old = "HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok";
    origin.on("/old", Reply::script([Step::Send(old.into())]));
    for (asked, told) in [
        ("GET /old HTTP/1.1", b"HTTP/1.1 "),
        ("OPTIONS /old HTTP/1.1", b"HTTP/1.1 "),
        ("OPTIONS /old HTTP/1.0", b"HTTP/1.0 "),
    ] {
        let mut connection = gateway.client.connect().await;
        let request = format!("{asked}\r\nHost: a.example\r\n\r\n");
        connection.send(request.as_bytes()).await;
        assert_eq!(connection.take(9).await.0, told, "{asked}");
    }
}

#[tokio::test]
async fn an_event_stream_flows_event_by_event_and_is_not_shared_or_stored() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    let cue = Cue::new();
    let events = Reply::ok("data: one\n\ndata: two\n\n").chunked();
    origin.on(
        "/events",
        events
            .header("Content-Type", "text/event-stream")
            .dripped(2, &cue),
    );
    let mut listeners = Vec::new();
    for _ in 0..2 {
        let mut connection = gateway.client.connect().await;
        connection.send_request(&Request::get("/events")).await;
        let head = connection.head().await;
        assert_eq!(head.header("content-type"), Some("text/event-stream"));
        head.assert_says(&["detail=event-stream"]);
        // The second event is held: the first is here because nothing buffers it.
        connection.first_byte().await;
        listeners.push((connection, head));
    }
    assert_eq!(origin.seen().len(), 2);
    cue.open();
    for (mut connection, head) in listeners {
        let answer = connection.rest_of(head, "GET").await;
        assert_eq!(answer.text(), "data: one\n\ndata: two\n\n");
    }
    origin.kill().await;
    gateway
        .client
        .get("/events")
        .await
        .assert_problem(504, "offline-miss");
}

#[tokio::test]
async fn a_request_body_streams_to_the_origin_before_it_ends() {
    let origin = Origin::start().await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    origin.on("/up", Reply::new(201, "thanks"));
    let body = crate::support::noise(3 << 20);
    let answer = gateway
        .client
        .ask(Request::new("PUT", "/up").body(body.clone()))
        .await;
    assert_eq!(answer.status, 201);
    assert!(origin.seen()[0].body == body);
}
