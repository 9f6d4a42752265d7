//! What clients say about caching, where the operator does not want to hear it; and how long an error is kept.

use crate::support::{Gateway, Origin, Reply, Request, reverse_to};

#[tokio::test]
async fn no_client_has_the_origin_asked_where_request_directives_are_ignored() {
    let origin = Origin::start().await;
    origin.on_each("/a", |_, nth| {
        Reply::ok(format!("v{nth}")).cache_control("max-age=300")
    });
    let route = "cache = { client_cache_control = \"ignore\" }";
    let gateway = Gateway::start(&format!("{}{route}", reverse_to(origin.address()))).await;
    let asking = |name, value| Request::get("/a").header(name, value);

    let first = gateway
        .client
        .ask(asking("Cache-Control", "no-store, only-if-cached"))
        .await;
    first.assert_says(&["fwd=uri-miss", "stored"]);
    for (name, value) in [
        ("Cache-Control", "no-cache"),
        ("Cache-Control", "max-age=0"),
        ("Cache-Control", "min-fresh=1000"),
        ("Pragma", "no-cache"),
    ] {
        let answer = gateway.client.ask(asking(name, value)).await;
        answer.assert_says(&["hit"]);
        assert_eq!((answer.status, answer.text()), (200, "v0"));
    }
    // What is ignored is forwarded all the same.
    let seen = origin.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(
        seen[0].header("cache-control"),
        Some("no-store, only-if-cached")
    );
}

#[tokio::test]
async fn an_error_about_which_the_origin_says_nothing_is_kept_for_its_own_time() {
    let origin = Origin::start().await;
    let gateway = Gateway::start("[cache]\ndefault_ttl = \"1h\"\nnegative_ttl = \"10s\"").await;
    let missing = Reply::new(404, "no such thing");
    origin.on("/a", missing.clone());
    origin.on("/b", missing.cache_control("max-age=60"));
    origin.on("/c", Reply::new(503, "later"));
    for (path, status, ttl) in [
        ("/a", 404, Some("ttl=10")),
        ("/b", 404, Some("ttl=60")),
        ("/c", 503, None),
    ] {
        let url = origin.url(path);
        let first = gateway.client.get(&url).await;
        let second = gateway.client.get(&url).await;
        assert_eq!((first.status, second.status), (status, status));
        match ttl {
            Some(ttl) => second.assert_says(&["hit", ttl]),
            None => assert!(!second.says("hit")),
        }
    }
    gateway.clock.step_secs(11);
    let later = gateway.client.get(&origin.url("/a")).await;
    later.assert_says(&["fwd=stale", "fwd-status=404"]);
    assert_eq!(origin.seen_at("/a").len(), 2);
}
