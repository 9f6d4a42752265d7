//! What one client may see, another does not.

use crate::support::{Answer, Gateway, Origin, Reply, Request};

#[tokio::test]
async fn responses_for_one_client_are_not_reused_for_another() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    for (path, terms, cookie, detail) in [
        ("/cookie", "max-age=300", true, "detail=set-cookie"),
        ("/private", "private, max-age=300", false, "detail=private"),
        (
            "/no-store",
            "NO-STORE, max-age=300",
            false,
            "detail=no-store",
        ),
    ] {
        origin.on_each(path, move |_, nth| {
            let reply = Reply::ok(format!("for client {nth}")).cache_control(terms);
            if cookie {
                reply.header("Set-Cookie", "id=1")
            } else {
                reply
            }
        });
        for nth in 0..2 {
            let answer = gateway.client.get(&origin.url(path)).await;
            assert_eq!(answer.text(), format!("for client {nth}"));
            answer.assert_says(&["fwd=uri-miss", "fwd-status=200", detail]);
            assert!(!answer.says("stored"));
        }
    }

    origin.kill().await;
    for path in ["/cookie", "/private", "/no-store"] {
        let answer = gateway.client.get(&origin.url(path)).await;
        answer.assert_problem(504, "offline-miss");
    }
}

#[tokio::test]
async fn an_authorized_response_is_shared_only_when_it_says_so() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    for (number, (terms, is_shared)) in [
        ("max-age=300", false),
        ("max-age=300, public", true),
        ("s-maxage=300", true),
        ("max-age=300, must-revalidate", true),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/{number}");
        origin.on_each(&path, move |_, nth| {
            Reply::ok(format!("v{nth}")).cache_control(terms)
        });
        let first = get_as(&gateway, &origin.url(&path), "Bearer ann").await;
        assert_eq!(first.says("stored"), is_shared, "{terms}");
        let second = get_as(&gateway, &origin.url(&path), "Bearer bob").await;
        assert_eq!(second.says("hit"), is_shared, "{terms}");
        assert_eq!(second.text(), if is_shared { "v0" } else { "v1" });
    }
}

#[tokio::test]
async fn a_response_that_says_nothing_is_reused_only_without_the_origin() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on_each("/a", |_, nth| Reply::ok(format!("v{nth}")));
    let url = origin.url("/a");
    for nth in 0..3 {
        let answer = gateway.client.get(&url).await;
        assert_eq!(answer.text(), format!("v{nth}"));
        assert!(!answer.says("hit"), "{:?}", answer.cache_status());
    }
    origin.kill().await;
    for _ in 0..2 {
        let answer = gateway.client.get(&url).await;
        assert_eq!((answer.status, answer.text()), (200, "v2"));
        answer.assert_says(&["detail=disconnected"]);
    }
}

#[tokio::test]
async fn two_users_of_a_private_cache_never_see_each_others_responses() {
    let origin = Origin::start().await;
    let gateway = Gateway::start("[cache]\nkind = \"private\"").await;
    origin.on_each("/a", |seen, _| {
        let user = seen.header("authorization").unwrap_or("nobody").to_owned();
        Reply::ok(user).cache_control("private, max-age=300")
    });
    let url = origin.url("/a");
    for user in ["Bearer ann", "Bearer bob"] {
        let first = get_as(&gateway, &url, user).await;
        first.assert_says(&["fwd=uri-miss", "stored"]);
        assert_eq!(first.text(), user);
    }
    for user in ["Bearer ann", "Bearer bob"] {
        let second = get_as(&gateway, &url, user).await;
        second.assert_says(&["hit"]);
        assert_eq!(second.text(), user);
    }
    assert_eq!(origin.seen().len(), 2);

    origin.kill().await;
    gateway.clock.step_secs(1_000);
    let known = get_as(&gateway, &url, "Bearer bob").await;
    assert_eq!(known.text(), "Bearer bob");
    let stranger = get_as(&gateway, &url, "Bearer eve").await;
    stranger.assert_problem(504, "offline-miss");
    let nobody = gateway.client.get(&url).await;
    nobody.assert_problem(504, "offline-miss");
}

#[tokio::test]
async fn a_private_cache_keeps_its_partitions_over_a_restart_and_no_credential_on_disk() {
    let origin = Origin::start().await;
    let config = "[cache]\nkind = \"private\"";
    let gateway = Gateway::start(config).await;
    origin.on(
        "/a",
        Reply::ok("for ann").cache_control("private, max-age=300"),
    );
    let url = origin.url("/a");
    get_as(&gateway, &url, "Bearer correct-horse-battery").await;
    let gateway = gateway.restart(config).await;
    let again = get_as(&gateway, &url, "Bearer correct-horse-battery").await;
    again.assert_says(&["hit"]);
    assert!(!gateway.has_on_disk(b"correct-horse-battery"));
    assert!(
        gateway.has_on_disk(b"for ann"),
        "the search looks in the right place"
    );
}

async fn get_as(gateway: &Gateway, url: &str, authorization: &str) -> Answer {
    let request = Request::get(url).header("Authorization", authorization);
    gateway.client.ask(request).await
}
