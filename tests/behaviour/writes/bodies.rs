//! Bodies of queued writes: they arrive as they were sent, whatever their size.

use super::{Site, config, location, write};
use crate::support::{Gateway, Origin, Reply, Request, Step, digest, eventually, noise};

const ALWAYS: &str = r#"mode = "always""#;

/// What is kept in the database, what needs a file, and what arrives in many pieces.
const SIZES: [usize; 5] = [0, 1, 64 * 1024, 64 * 1024 + 1, 3 * 1024 * 1024 + 7];

#[tokio::test]
async fn a_body_survives_a_restart_and_arrives_byte_for_byte() {
    let site = Site::start(ALWAYS).await;
    site.lose_origin().await;
    let path = |size: &usize| format!("/{size}");
    let mut receipts = Vec::new();
    for size in &SIZES {
        site.origin.on(&path(size), Reply::ok("made"));
        let request = Request::new("POST", &path(size)).header("Content-Type", "text/x-noise");
        receipts.push(site.queue(request.body(noise(*size))).await);
    }
    let site = site.restart(ALWAYS, "").await;
    site.origin.revive();
    for (size, receipt) in SIZES.iter().zip(&receipts) {
        site.until(receipt, "done").await;
        let seen = site.origin.seen_at(&path(size));
        assert_eq!(seen.len(), 1);
        assert_eq!(digest(&seen[0].body), digest(&noise(*size)));
        assert_eq!(
            seen[0].header("content-length"),
            Some(size.to_string().as_str())
        );
        assert_eq!(seen[0].header("content-type"), Some("text/x-noise"));
        assert_eq!(seen[0].header("transfer-encoding"), None);
    }
    // What was delivered takes no room any more.
    let large = noise(SIZES[4]);
    eventually("the file is gone", || {
        let is_gone = !site.gateway.has_on_disk(&large[..32]);
        async move { is_gone.then_some(()) }
    })
    .await;
}

#[tokio::test]
async fn a_large_body_is_sent_again_from_its_beginning() {
    let site = Site::start(r#"mode = "on-failure""#).await;
    site.origin.on_each("/a", |_, nth| match nth {
        0 => Reply::new(503, "busy"),
        1 => Reply::script([Step::Reset]),
        _ => Reply::ok("made"),
    });
    let body = noise(1_000_000);
    let receipt = site
        .queue(Request::new("PUT", "/a").body(body.clone()))
        .await;
    site.until(&receipt, "done").await;
    let seen = site.origin.seen_at("/a");
    assert_eq!(seen.len(), 3);
    for seen in seen {
        assert_eq!(digest(&seen.body), digest(&body));
    }
}

#[tokio::test]
async fn a_chunked_body_arrives_whole_and_its_trailers_do_not() {
    let site = Site::start(ALWAYS).await;
    site.origin.on("/a", Reply::ok("made"));
    let mut connection = site.gateway.client.connect().await;
    let request = Request::new("PUT", "/a")
        .header("Transfer-Encoding", "chunked")
        .header("Trailer", "X-Late");
    connection.send_request(&request).await;
    connection
        .send(b"5\r\nhello\r\n6\r\n world\r\n0\r\nX-Late: yes\r\n\r\n")
        .await;
    let receipt = location(&connection.answer("PUT").await);
    site.until(&receipt, "done").await;
    let seen = &site.origin.seen_at("/a")[0];
    assert_eq!(seen.body, b"hello world");
    assert_eq!(seen.header("x-late"), None);
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it() {
    let site = Site::start(ALWAYS).await;
    site.origin.on("/a", Reply::ok("made"));
    let mut connection = site.gateway.client.connect().await;
    let head = Request::new("PUT", "/a")
        .header("Content-Length", "5")
        .header("Expect", "100-continue");
    connection.send_request(&head).await;
    let interim = connection.try_head().await.expect("an interim response");
    assert_eq!(interim.status, 100);
    connection.send(b"hello").await;
    let receipt = location(&connection.answer("PUT").await);
    site.until(&receipt, "done").await;
    let seen = &site.origin.seen_at("/a")[0];
    assert_eq!(
        (seen.body.as_slice(), seen.header("expect")),
        (&b"hello"[..], None)
    );
}

#[tokio::test]
async fn what_concerns_the_clients_connection_is_not_kept() {
    let site = Site::start(ALWAYS).await;
    site.origin.on("/a", Reply::ok("made"));
    let request = write("POST", "/a")
        .header("Connection", "X-Hop")
        .header("X-Hop", "1")
        .header("TE", "trailers")
        .header("Keep-Alive", "timeout=5")
        .header("Hardtack-Queue", "please")
        .header("X-End", "2");
    site.until(&site.queue(request).await, "done").await;
    let seen = &site.origin.seen_at("/a")[0];
    for name in ["x-hop", "te", "keep-alive", "hardtack-queue"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("x-end"), Some("2"));
    assert_eq!(seen.header("hardtack-attempt"), Some("1"));
    let via = seen.all("via").join(", ");
    assert_eq!(via.matches("hardtack").count(), 1, "{via}");
    assert_eq!(
        seen.header("host"),
        Some(site.origin.address().to_string().as_str())
    );
}

#[tokio::test]
async fn a_delivery_to_an_upstream_that_has_moved_names_where_it_is_now() {
    for (preserve_host, expected) in [(false, None), (true, Some("shop.example"))] {
        let route = format!("preserve_host = {preserve_host}");
        let config = |origin: &Origin| {
            let route = format!("[[routes]]\nname = \"all\"\nupstream = \"origin\"\n{route}");
            let route = format!("{route}\nwrite = {{ mode = \"always\" }}");
            config(origin.address(), ALWAYS, &route)
        };
        let before = Origin::start().await;
        let gateway = Gateway::start(&config(&before)).await;
        before.kill().await;
        gateway.client.get("/discovery").await;
        let request = write("POST", "/a").header("Host", "shop.example");
        let receipt = location(&gateway.client.ask(request).await);
        let now = Origin::start().await;
        now.on("/a", Reply::ok("made"));
        let gateway = gateway.restart(&config(&now)).await;
        let site = Site::of(now, gateway);
        site.until(&receipt, "done").await;
        let here = site.origin.address().to_string();
        let host = site.origin.seen_at("/a")[0]
            .header("host")
            .map(str::to_owned);
        assert_eq!(host.as_deref(), expected.or(Some(here.as_str())));
    }
}

#[tokio::test]
async fn a_delivery_is_the_request_that_the_client_made() {
    let site = Site::start(r#"mode = "on-failure""#).await;
    site.origin.on_each("/a?b=%41&c", |_, nth| match nth {
        0 => Reply::new(429, "not now"),
        _ => Reply::ok("made"),
    });
    let request = write("PUT", "/a?b=%41&c")
        .header("X-Twice", "1")
        .header("X-Twice", "2")
        .header("X-Latin", "caf\u{e9}")
        .header("If-Match", "\"1\"")
        .header("Accept", "*/*");
    site.until(&site.queue(request).await, "done").await;
    let seen = site.origin.seen_at("/a?b=%41&c");
    let fields = |nth: usize| {
        let mut fields = seen[nth].headers.clone();
        fields.retain(|(name, _)| !name.eq_ignore_ascii_case("hardtack-attempt"));
        fields.sort();
        fields
    };
    assert_eq!(fields(0), fields(1));
    assert_eq!(seen[1].all("x-twice"), ["1", "2"]);
    assert_eq!((&seen[0].body, seen.len()), (&seen[1].body, 2));
}

#[tokio::test]
async fn a_large_body_that_is_passed_on_is_left_nowhere() {
    let site = Site::start(r#"mode = "on-failure""#).await;
    site.origin.on("/a", Reply::ok("made"));
    let body = noise(500_000);
    let answer = site.ask(Request::new("PUT", "/a").body(body.clone())).await;
    assert_eq!(answer.status, 200);
    assert_eq!(digest(&site.origin.seen_at("/a")[0].body), digest(&body));
    eventually("the file is gone", || {
        let is_gone = !site.gateway.has_on_disk(&body[..32]);
        async move { is_gone.then_some(()) }
    })
    .await;
}
