//! A response says what of the query does not matter (No-Vary-Search): then it answers other URIs too, and is forwarded,
//! stored, validated and invalidated under its own.

use serde_json::json;

use crate::support::{Cue, Gateway, Origin, Reply, Request, eventually};

const FIELD: &str = r#"params=("utm")"#;

/// An origin that has stored the answer to `/a?id=1&utm=x`, with this freshness.
async fn with_one_stored(gateway: &Gateway, cache_control: &str) -> Origin {
    let origin = Origin::start().await;
    for utm in ["x", "y", "z"] {
        for id in [1, 2] {
            let reply = Reply::ok(format!("{id} by {utm}")).etag(&format!("\"{utm}\""));
            let reply = reply
                .cache_control(cache_control)
                .header("No-Vary-Search", FIELD);
            origin.on(&format!("/a?id={id}&utm={utm}"), reply);
        }
    }
    let first = gateway.client.get(&origin.url("/a?id=1&utm=x")).await;
    assert_eq!(first.text(), "1 by x");
    origin
}

#[tokio::test]
async fn a_query_that_differs_in_nothing_that_matters_is_answered_from_what_is_stored() {
    let gateway = Gateway::start("").await;
    let origin = with_one_stored(&gateway, "max-age=300").await;
    for (target, expected) in [
        ("/a?id=1&utm=y", "1 by x"),
        ("/a?utm=z&utm=y&id=%31", "1 by x"),
        ("/a?id=1", "1 by x"),
        ("/a?id=2&utm=x", "2 by x"),
    ] {
        let answer = gateway.client.get(&origin.url(target)).await;
        assert_eq!(answer.text(), expected, "{target}");
        assert_eq!(answer.says("hit"), expected == "1 by x", "{target}");
    }
    assert_eq!(
        origin.seen().len(),
        2,
        "and asked for as it is where it matters"
    );
    let head = Request::new("HEAD", &origin.url("/a?id=1&utm=y"));
    gateway.client.ask(head).await.assert_says(&["hit"]);
}

#[tokio::test]
async fn it_does_not_matter_to_other_paths_and_origins() {
    let gateway = Gateway::start("").await;
    let (one, other) = (
        with_one_stored(&gateway, "max-age=300").await,
        Origin::start().await,
    );
    other.on("/a?id=1&utm=y", Reply::ok("other"));
    one.on("/b?id=1&utm=y", Reply::ok("other"));
    for url in [other.url("/a?id=1&utm=y"), one.url("/b?id=1&utm=y")] {
        assert_eq!(gateway.client.get(&url).await.text(), "other", "{url}");
    }
}

#[tokio::test]
async fn no_partition_is_answered_from_another() {
    let gateway = Gateway::start("[cache]\nkind = \"private\"").await;
    let origin = Origin::start().await;
    for utm in ["x", "y"] {
        origin.on_each(&format!("/a?utm={utm}"), |seen, _| {
            let user = seen.header("authorization").unwrap_or("nobody").to_owned();
            Reply::ok(user)
                .cache_control("max-age=300")
                .header("No-Vary-Search", FIELD)
        });
    }
    let ask = async |user: &str, utm: &str| {
        let url = origin.url(&format!("/a?utm={utm}"));
        let request = Request::get(&url).header("Authorization", user);
        gateway.client.ask(request).await
    };
    ask("ann", "x").await;
    let bob = ask("bob", "y").await;
    assert_eq!(bob.text(), "bob");
    assert!(!bob.says("hit"));
    let ann = ask("ann", "y").await;
    assert_eq!(ann.text(), "ann");
    ann.assert_says(&["hit"]);
}

#[tokio::test]
async fn a_variant_that_is_not_for_the_request_does_not_answer_it() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    for utm in ["x", "y"] {
        origin.on_each(&format!("/a?utm={utm}"), |seen, _| {
            let language = seen.header("accept-language").unwrap_or("none").to_owned();
            let reply = Reply::ok(language).cache_control("max-age=300");
            reply
                .header("Vary", "Accept-Language")
                .header("No-Vary-Search", FIELD)
        });
    }
    let ask = async |utm: &str, language: &str| {
        let url = origin.url(&format!("/a?utm={utm}"));
        let request = Request::get(&url).header("Accept-Language", language);
        gateway.client.ask(request).await
    };
    ask("x", "de").await;
    assert_eq!(ask("y", "fr").await.text(), "fr");
    let again = ask("y", "de").await;
    assert_eq!(again.text(), "de");
    again.assert_says(&["hit"]);
}

#[tokio::test]
async fn it_answers_during_an_outage_and_after_a_restart() {
    let gateway = Gateway::start("").await;
    let origin = with_one_stored(&gateway, "max-age=60").await;
    origin.kill().await;
    gateway.clock.step_secs(100);
    let url = origin.url("/a?id=1&utm=y");
    let discovery = gateway.client.get(&url).await;
    assert_eq!(discovery.text(), "1 by x");
    discovery.assert_says(&["fwd=uri-miss", "detail=disconnected"]);
    gateway
        .client
        .get(&url)
        .await
        .assert_says(&["hit", "detail=disconnected"]);
    let gateway = gateway.restart("").await;
    let restarted = gateway.client.get(&url).await;
    assert_eq!(restarted.text(), "1 by x");
    let other = gateway.client.get(&origin.url("/a?id=2&utm=y")).await;
    other.assert_problem(504, "offline-miss");
}

#[tokio::test]
async fn it_stands_in_for_an_error_but_not_for_an_answer() {
    let gateway = Gateway::start("").await;
    let origin = with_one_stored(&gateway, "max-age=60").await;
    gateway.clock.step_secs(100);
    origin.on("/a?id=1&utm=y", Reply::new(503, "broken"));
    let stale = gateway.client.get(&origin.url("/a?id=1&utm=y")).await;
    assert_eq!((stale.status, stale.text()), (200, "1 by x"));
    stale.assert_says(&["fwd=uri-miss", "fwd-status=503", "detail=stale-if-error"]);
    // Forwarded as it was asked for, without the other's validators, and stored under its own key.
    let forwarded = gateway.client.get(&origin.url("/a?id=1&utm=z")).await;
    assert_eq!(forwarded.text(), "1 by z");
    forwarded.assert_says(&["fwd=uri-miss", "fwd-status=200", "stored"]);
    let seen = origin.seen_at("/a?id=1&utm=z");
    assert_eq!(seen[0].header("if-none-match"), None);
    gateway
        .client
        .get(&origin.url("/a?id=1&utm=z"))
        .await
        .assert_says(&["hit"]);
}

#[tokio::test]
async fn a_validation_behind_it_asks_for_what_is_stored() {
    let gateway = Gateway::start("").await;
    let origin = with_one_stored(&gateway, "max-age=60, stale-while-revalidate=600").await;
    gateway.clock.step_secs(100);
    let url = origin.url("/a?id=1&utm=y");
    let stale = gateway.client.get(&url).await;
    stale.assert_says(&["hit", "detail=stale-while-revalidate"]);
    origin.sees("/a?id=1&utm=x", 2).await;
    let validation = &origin.seen_at("/a?id=1&utm=x")[1];
    assert_eq!(validation.header("if-none-match"), Some("\"x\""));
    eventually("it is fresh again", || async {
        gateway.client.get(&url).await.says("ttl=60").then_some(())
    })
    .await;
    assert!(origin.seen_at("/a?id=1&utm=y").is_empty());
}

#[tokio::test]
async fn a_write_to_either_uri_makes_it_unusable_for_both() {
    for written in ["/a?id=1&utm=x", "/a?id=1&utm=y"] {
        let gateway = Gateway::start("").await;
        let origin = with_one_stored(&gateway, "max-age=300").await;
        let url = origin.url("/a?id=1&utm=y");
        gateway.client.get(&url).await.assert_says(&["hit"]);
        let request = Request::new("PUT", &origin.url(written)).body("x");
        gateway.client.ask(request).await;
        let next = gateway.client.get(&url).await;
        assert!(!next.says("hit"), "{written}: {:?}", next.cache_status());
    }
}

/// It once said that nothing was stored under the URL, and left it to answer.
#[tokio::test]
async fn a_purge_of_either_url_makes_it_unusable_for_both() {
    for (purged, soft) in [("x", true), ("y", true), ("x", false), ("y", false)] {
        let gateway = Gateway::start("").await;
        let origin = with_one_stored(&gateway, "max-age=300").await;
        let url = origin.url("/a?id=1&utm=y");
        gateway.client.get(&url).await.assert_says(&["hit"]);
        let wanted = json!({"url": origin.url(&format!("/a?id=1&utm={purged}")), "soft": soft});
        let request = Request::new("POST", "/api/v1/cache/purge")
            .header("Content-Type", "application/json")
            .body(wanted.to_string());
        let answer = gateway.admin.ask(request).await.json();
        assert_eq!(answer["count"], 1, "{purged} {soft}");
        let next = gateway.client.get(&url).await;
        assert!(
            !next.says("hit"),
            "{purged} {soft}: {:?}",
            next.cache_status()
        );
    }
}

/// It once left the URI fresh from the other, whichever was written.
#[tokio::test]
async fn a_write_whose_answer_is_lost_leaves_it_fresh_for_neither() {
    for written in ["/a?id=1&utm=x", "/a?id=1&utm=y"] {
        let gateway = Gateway::start("").await;
        let origin = with_one_stored(&gateway, "max-age=300").await;
        let before = origin.seen_at(written).len();
        let cue = Cue::new();
        origin.on(written, Reply::ok("written").held(&cue));
        let mut leaving = gateway.client.connect().await;
        let write = Request::new("PUT", &origin.url(written)).body("x");
        leaving.send_request(&write).await;
        origin.sees(written, before + 1).await;
        drop(leaving);
        let url = origin.url("/a?id=1&utm=z");
        eventually("neither is fresh", || async {
            (!gateway.client.get(&url).await.says("hit")).then_some(())
        })
        .await;
    }
}

/// A write once reached eight of the URIs between which no difference matters.
#[tokio::test]
async fn a_write_makes_every_uri_unusable_that_differs_in_nothing_that_matters() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let urls: Vec<_> = (0..20).map(|utm| format!("/a?utm={utm}")).collect();
    for target in &urls {
        origin.on_each(target, |seen, nth| match seen.method.as_str() {
            "GET" => Reply::ok(format!("v{nth}"))
                .cache_control("max-age=300")
                .header("No-Vary-Search", FIELD),
            _ => Reply::new(204, ""),
        });
        let request = Request::get(&origin.url(target)).header("Cache-Control", "no-cache");
        gateway.client.ask(request).await.assert_says(&["stored"]);
    }
    let write = Request::new("PUT", &origin.url(&urls[3])).body("x");
    assert_eq!(gateway.client.ask(write).await.status, 204);
    for target in &urls {
        // Only from the store, so that none is fetched again for the next.
        let request = Request::get(&origin.url(target)).header("Cache-Control", "only-if-cached");
        let answer = gateway.client.ask(request).await;
        assert_eq!(answer.status, 504, "{target}: {:?}", answer.cache_status());
    }
}

#[tokio::test]
async fn a_client_that_insists_is_not_answered_from_another_uri() {
    let gateway = Gateway::start("").await;
    let origin = with_one_stored(&gateway, "max-age=300").await;
    let request = Request::get(&origin.url("/a?id=1&utm=y")).header("Cache-Control", "no-cache");
    assert_eq!(gateway.client.ask(request).await.text(), "1 by y");
}

/// Once what stood in for want of a response of its own was taken for one: its bytes were joined with those of the other
/// URI, which are under another key because they may be others.
#[tokio::test]
async fn what_stands_in_is_never_joined_with_what_comes() {
    let gateway = Gateway::start("").await;
    let origin = Origin::start().await;
    for (utm, body) in [("x", "XXXXXXXXXX"), ("y", "yyyyyyyyyy")] {
        origin.on_each(&format!("/a?utm={utm}"), move |seen, _| {
            let (place, body) = match seen.header("range") {
                Some("bytes=0-4") => ("bytes 0-4/10", &body[..5]),
                Some(_) => ("bytes 5-9/10", &body[5..]),
                None => ("", body),
            };
            let status = if place.is_empty() { 200 } else { 206 };
            let reply = Reply::new(status, body).etag("\"v\"");
            let reply = reply
                .cache_control("max-age=60")
                .header("No-Vary-Search", FIELD);
            if place.is_empty() {
                reply
            } else {
                reply.header("Content-Range", place)
            }
        });
    }
    let ask = async |utm: &str, range: &str| {
        let request = Request::get(&origin.url(&format!("/a?utm={utm}")));
        let request = request.header("Cache-Control", "no-cache");
        gateway.client.ask(request.header("Range", range)).await
    };
    for range in ["bytes=0-4", "bytes=5-9"] {
        for (utm, expected) in [("x", "XXXXX"), ("y", "yyyyy")] {
            assert_eq!(ask(utm, range).await.text(), expected, "{utm} {range}");
        }
    }
    for (utm, expected) in [("y", "yyyyyyyyyy"), ("x", "XXXXXXXXXX")] {
        let url = origin.url(&format!("/a?utm={utm}"));
        assert_eq!(gateway.client.get(&url).await.text(), expected);
    }
}
