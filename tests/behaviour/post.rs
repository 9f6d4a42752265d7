//! The answer to a POST that is a representation of its target, and says so (RFC 9110 section 9.3.3).

use bytes::Bytes;

use crate::support::{
    Answer, Cue, Gateway, Origin, Reply, Request, Step, digest, eventually, noise, reverse_to,
};

fn describing(path: &str, body: impl Into<Bytes>) -> Reply {
    let reply = Reply::ok(body).cache_control("max-age=300");
    reply.header("Content-Location", path)
}

async fn post(gateway: &Gateway, url: &str) -> Answer {
    gateway
        .client
        .ask(Request::new("POST", url).body("x"))
        .await
}

/// An origin whose `/a` answers a POST so, and a GET with "from a GET".
async fn answering(reply: Reply) -> Origin {
    let origin = Origin::start().await;
    origin.on_each("/a", move |seen, _| match seen.method.as_str() {
        "POST" => reply.clone(),
        _ => Reply::ok("from a GET").cache_control("max-age=300"),
    });
    origin
}

#[tokio::test]
async fn an_answer_that_describes_its_target_answers_later_reads() {
    let (origin, gateway) = (
        answering(describing("/a", "posted")).await,
        Gateway::start("").await,
    );
    let url = origin.url("/a");
    assert_eq!(gateway.client.get(&url).await.text(), "from a GET");
    let answer = post(&gateway, &url).await;
    answer.assert_says(&["fwd=method", "fwd-status=200", "stored", "ttl=300"]);
    assert_eq!((answer.status, answer.text()), (200, "posted"));
    let read = gateway.client.get(&url).await;
    read.assert_says(&["hit"]);
    assert_eq!((read.status, read.text()), (200, "posted"));
    let head = gateway.client.ask(Request::new("HEAD", &url)).await;
    head.assert_says(&["hit"]);
    assert_eq!(head.header("content-length"), Some("6"));
    // A POST itself is never answered from it.
    post(&gateway, &url).await.assert_says(&["fwd=method"]);
    assert_eq!(origin.seen().len(), 3);

    let gateway = gateway.restart("").await;
    gateway.client.get(&url).await.assert_says(&["hit"]);
}

#[tokio::test]
async fn whatever_does_not_say_so_is_not_stored() {
    let fresh = |reply: Reply| reply.cache_control("max-age=300");
    for reply in [
        fresh(Reply::ok("posted")),
        fresh(Reply::ok("posted")).header("Content-Location", "/b"),
        fresh(Reply::ok("posted")).header("Content-Location", "http://other.example/a"),
        Reply::ok("posted").header("Content-Location", "/a"),
        describing("/a", "posted").header("Set-Cookie", "a=b"),
        describing("/a", "posted").header("Cache-Control", "no-store"),
        describing("/a", "posted").until_close(),
        fresh(Reply::new(404, "posted")).header("Content-Location", "/a"),
    ] {
        let (origin, gateway) = (answering(reply).await, Gateway::start("").await);
        let url = origin.url("/a");
        let answer = post(&gateway, &url).await;
        assert!(!answer.says("stored"), "{:?}", answer.headers);
        assert_eq!(gateway.client.get(&url).await.text(), "from a GET");
    }
}

#[tokio::test]
async fn the_body_streams_to_the_client_while_it_is_kept_and_is_kept_without_the_client() {
    let body = noise(200_000);
    let cue = Cue::new();
    let reply = describing("/a", body.clone()).dripped(4, &cue);
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on_each("/a", move |seen, _| match seen.method.as_str() {
        "POST" => reply.clone(),
        _ => Reply::ok("from a GET").cache_control("no-store"),
    });
    let url = origin.url("/a");
    let mut connection = gateway.client.connect().await;
    connection
        .send_request(&Request::new("POST", &url).body("x"))
        .await;
    connection.head().await.assert_says(&["stored"]);
    connection.first_byte().await;
    drop(connection);
    cue.open();
    let read = eventually("the answer is stored", || async {
        let read = gateway.client.get(&url).await;
        (read.body != b"from a GET").then_some(read)
    });
    let read = read.await;
    assert_eq!(digest(&read.body), digest(&body));
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_stored() {
    let reply = describing("/a", "posted in two parts").ends_early(Step::Reset);
    let (origin, gateway) = (answering(reply).await, Gateway::start("").await);
    let url = origin.url("/a");
    let answer = post(&gateway, &url).await;
    assert!(!answer.is_complete);
    assert_eq!(gateway.client.get(&url).await.text(), "from a GET");
}

#[tokio::test]
async fn a_write_or_a_purge_during_the_answer_wins_over_it() {
    for purge in [false, true] {
        let cue = Cue::new();
        let hold = cue.clone();
        let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
        origin.on_each("/a", move |seen, _| match seen.method.as_str() {
            "POST" => describing("/a", "posted in parts").dripped(2, &hold),
            "PUT" => Reply::new(204, ""),
            _ => Reply::ok("from a GET").cache_control("max-age=300"),
        });
        let url = origin.url("/a");
        let mut connection = gateway.client.connect().await;
        connection
            .send_request(&Request::new("POST", &url).body("x"))
            .await;
        let head = connection.head().await;
        connection.first_byte().await;
        if purge {
            let body = serde_json::json!({ "url": url }).to_string();
            let request = Request::new("POST", "/api/v1/cache/purge");
            let request = request
                .header("Content-Type", "application/json")
                .body(body);
            assert_eq!(gateway.admin.ask(request).await.status, 200);
        } else {
            gateway
                .client
                .ask(Request::new("PUT", &url).body("x"))
                .await;
        }
        cue.open();
        assert_eq!(
            connection.rest_of(head, "POST").await.text(),
            "posted in parts"
        );
        assert_eq!(gateway.client.get(&url).await.text(), "from a GET");
    }
}

#[tokio::test]
async fn an_answer_larger_than_what_is_stored_passes_whole() {
    let body = noise(200_000);
    for chunked in [false, true] {
        let reply = describing("/a", body.clone());
        let reply = if chunked { reply.chunked() } else { reply };
        let origin = answering(reply).await;
        let gateway = Gateway::start("[storage]\nmax_object = \"100KiB\"").await;
        let url = origin.url("/a");
        let answer = post(&gateway, &url).await;
        assert_eq!(digest(&answer.body), digest(&body));
        assert_eq!(gateway.client.get(&url).await.text(), "from a GET");
    }
}

/// What is forwarded with a POST and not in the key would let its sender choose what others read.
#[tokio::test]
async fn an_ignored_parameter_of_a_post_cannot_poison_what_others_get() {
    let origin = Origin::start().await;
    let gateway = Gateway::start("[cache]\nignore_query = [\"utm_*\"]").await;
    let reflected = "/a?utm_source=evil";
    origin.on(reflected, describing(reflected, "evil"));
    origin.on("/a", Reply::ok("good").cache_control("max-age=300"));
    let answer = post(&gateway, &origin.url(reflected)).await;
    assert!(!answer.says("stored"), "{:?}", answer.cache_status());
    assert_eq!(gateway.client.get(&origin.url("/a")).await.text(), "good");
}

/// A route for every host tells the origin with a POST which host the client asked for, and with a read it does not.
#[tokio::test]
async fn an_answer_to_what_no_read_says_is_not_stored() {
    let named = "match = { host = \"shop.example\" }\n";
    let trusting = "[limits]\ntrusted_proxies = [\"127.0.0.0/8\"]\n";
    let overriding = Some(("X-Original-URL", "/evil"));
    for (limits, route, field, expected) in [
        ("", "", None, false),
        ("", "match = { host = \"*.example\" }\n", None, false),
        ("", "preserve_host = true\n", None, true),
        ("", named, None, true),
        ("", named, overriding, false),
        ("", named, Some(("X_Rewrite_URL", "/evil")), false),
        // What a trusted proxy says it says with reads too.
        (trusting, named, overriding, true),
    ] {
        let origin = answering(describing("/a", "posted")).await;
        let upstream = format!("[upstreams.shop]\nurl = \"http://{}\"\n", origin.address());
        let routes = format!("[[routes]]\nname = \"all\"\nupstream = \"shop\"\n{route}");
        let gateway = Gateway::start(&format!("{limits}{upstream}{routes}")).await;
        let mut request = Request::new("POST", "/a").header("Host", "shop.example");
        if let Some((name, value)) = field {
            request = request.header(name, value);
        }
        let answer = gateway.client.ask(request.body("x")).await;
        let case = format!("{limits}{route}{field:?}: {:?}", answer.cache_status());
        assert_eq!((answer.status, answer.text()), (200, "posted"), "{case}");
        assert_eq!(answer.says("stored"), expected, "{case}");
        let read = Request::get("/a").header("Host", "shop.example");
        let read = gateway.client.ask(read).await;
        assert_eq!(read.text() == "posted", expected, "{case}");
    }
}

#[tokio::test]
async fn the_address_that_a_request_came_to_leads_nobody_elsewhere() {
    let origin = answering(describing("/a", "posted")).await;
    let gateway = Gateway::start(&reverse_to(origin.address())).await;
    let port = gateway.client.address.port();
    for (host, expected) in [
        (format!("127.0.0.1:{port}"), true),
        (format!("127.0.0.1:{}", port ^ 1), false),
        (format!("127.0.0.1.example:{port}"), false),
        (format!("evil.example:{port}"), false),
    ] {
        let request = Request::new("POST", "/a").header("Host", &host).body("x");
        let answer = gateway.client.ask(request).await;
        assert_eq!(answer.says("stored"), expected, "{host}");
    }
}
