//! What a response is filed under is what was forwarded: parameters that do not count reach no origin.

use serde_json::json;

use crate::support::{Gateway, Origin, Reply, Request, reverse_to};

const IGNORE: &str = "[cache]\nignore_query = [\"utm_*\"]\n";

/// An origin that writes the target it sees into its answers, as many do into links.
async fn reflecting(targets: &[&str]) -> Origin {
    let origin = Origin::start().await;
    for target in targets {
        origin.on_each(target, |seen, _| {
            Reply::ok(format!("you asked for {}", seen.target)).cache_control("max-age=300")
        });
    }
    origin
}

fn targets(origin: &Origin) -> Vec<String> {
    origin.seen().into_iter().map(|seen| seen.target).collect()
}

#[tokio::test]
async fn an_ignored_parameter_is_neither_forwarded_nor_part_of_the_key() {
    let origin = reflecting(&["/a?b=1"]).await;
    let gateway = Gateway::start(IGNORE).await;
    for (target, says) in [
        ("/a?utm_source=x&b=1", "stored"),
        ("/a?b=1&utm_id=2", "hit"),
        ("/a?%75tm_id=3&b=1", "hit"),
        ("/a?b=1", "hit"),
    ] {
        let answer = gateway.client.get(&origin.url(target)).await;
        answer.assert_says(&[says]);
        assert_eq!(
            (answer.status, answer.text()),
            (200, "you asked for /a?b=1")
        );
    }
    let head = Request::new("HEAD", &origin.url("/a?b=1&utm_id=4"));
    gateway.client.ask(head).await.assert_says(&["hit"]);
    assert_eq!(targets(&origin), ["/a?b=1"]);
}

/// What an origin reflects, the key must hold: or the first client decides what all others read.
#[tokio::test]
async fn an_ignored_parameter_cannot_poison_what_others_get() {
    let origin = reflecting(&["/a", "/a?b=1;utm_source=evil", "/a?b=1"]).await;
    let gateway = Gateway::start(IGNORE).await;
    for attempt in ["/a?utm_source=evil", "/a?b=1;utm_source=evil"] {
        let answer = gateway.client.get(&origin.url(attempt)).await;
        answer.assert_says(&["fwd=uri-miss"]);
    }
    for victim in ["/a", "/a?b=1"] {
        let answer = gateway.client.get(&origin.url(victim)).await;
        assert_eq!(answer.text(), format!("you asked for {victim}"));
    }
}

#[tokio::test]
async fn sorted_queries_share_a_stored_response_and_keep_the_order_of_values() {
    let origin = reflecting(&["/a?a=2&b=3&b=1"]).await;
    let gateway = Gateway::start("[cache]\nsort_query = true").await;
    for (target, says) in [("/a?b=3&a=2&b=1", "stored"), ("/a?a=2&b=3&b=1", "hit")] {
        let answer = gateway.client.get(&origin.url(target)).await;
        answer.assert_says(&[says]);
        assert_eq!(answer.text(), "you asked for /a?a=2&b=3&b=1");
    }
    let other = gateway.client.get(&origin.url("/a?b=1&a=2&b=3")).await;
    assert!(
        !other.says("hit"),
        "another order of the values is another request"
    );
    assert_eq!(targets(&origin), ["/a?a=2&b=3&b=1", "/a?a=2&b=1&b=3"]);
}

#[tokio::test]
async fn without_rules_a_query_is_forwarded_and_filed_as_it_came() {
    let origin = reflecting(&["/a?b=1&a=2&utm_id=3", "/a?a=2&b=1", "/a?"]).await;
    let gateway = Gateway::start("").await;
    for target in ["/a?b=1&a=2&utm_id=3", "/a?a=2&b=1", "/a?"] {
        gateway
            .client
            .get(&origin.url(target))
            .await
            .assert_says(&["stored"]);
    }
    assert_eq!(
        targets(&origin),
        ["/a?b=1&a=2&utm_id=3", "/a?a=2&b=1", "/a?"]
    );
}

#[tokio::test]
async fn a_write_is_forwarded_as_it_came_and_invalidates_what_reads_of_its_target_store() {
    let origin = reflecting(&["/a?a=1&b=2", "/b"]).await;
    origin.on(
        "/a?b=2&utm_id=1&a=1",
        Reply::new(204, "").header("Location", "/b?utm_id=2"),
    );
    let gateway = Gateway::start("[cache]\nignore_query = [\"utm_*\"]\nsort_query = true").await;
    for target in ["/a?a=1&b=2", "/b"] {
        gateway
            .client
            .get(&origin.url(target))
            .await
            .assert_says(&["stored"]);
    }
    let write = Request::new("POST", &origin.url("/a?b=2&utm_id=1&a=1")).body("x");
    assert_eq!(gateway.client.ask(write).await.status, 204);
    assert_eq!(origin.seen_at("/a?b=2&utm_id=1&a=1").len(), 1);
    for target in ["/a?a=1&b=2", "/b"] {
        let answer = gateway.client.get(&origin.url(target)).await;
        assert!(!answer.says("hit"), "{target}");
    }
}

#[tokio::test]
async fn a_route_has_rules_of_its_own_and_an_operator_may_purge_by_what_a_client_wrote() {
    let origin = reflecting(&["/a?b=1"]).await;
    let route = "cache = { ignore_query = [\"utm_*\"] }";
    let gateway = Gateway::start(&format!("{}{route}", reverse_to(origin.address()))).await;
    gateway
        .client
        .get("/a?utm_id=1&b=1")
        .await
        .assert_says(&["stored"]);
    gateway
        .client
        .get("/a?b=1&utm_id=2")
        .await
        .assert_says(&["hit"]);

    let url = format!("http://{}/a?b=1&utm_id=3", gateway.client.address);
    assert_eq!(purged(&gateway, &url).await, 1);
    let answer = gateway.client.get("/a?b=1").await;
    assert!(!answer.says("hit"), "{:?}", answer.cache_status());
}

#[tokio::test]
async fn a_purge_of_a_forwarded_url_knows_what_was_forwarded() {
    let origin = reflecting(&["/a?b=1"]).await;
    let gateway = Gateway::start(IGNORE).await;
    let url = origin.url("/a?utm_id=1&b=1");
    gateway.client.get(&url).await.assert_says(&["stored"]);
    assert_eq!(purged(&gateway, &url).await, 1);
    assert!(!gateway.client.get(&url).await.says("hit"));
}

async fn purged(gateway: &Gateway, url: &str) -> u64 {
    let body = json!({ "url": url }).to_string();
    let request = Request::new("POST", "/api/v1/cache/purge");
    let request = request
        .header("Content-Type", "application/json")
        .body(body);
    let answer = gateway.admin.ask(request).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["count"].as_u64().unwrap()
}
