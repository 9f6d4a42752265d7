//! What an origin says to one client stays with that client, whether or not the rest is stored.

use crate::support::{Answer, Cue, Gateway, Origin, Reply, Request};

/// An origin whose `/a` greets each client with a cookie of its own.
async fn greeting() -> Origin {
    let origin = Origin::start().await;
    origin.on_each("/a", |_, nth| {
        let reply = Reply::ok("hello")
            .cache_control("max-age=300")
            .etag("\"e\"");
        reply.header("Set-Cookie", &format!("id={nth}"))
    });
    origin
}

fn cookie(answer: &Answer) -> Option<&str> {
    answer.header("set-cookie")
}

#[tokio::test]
async fn a_stripped_cookie_goes_to_the_client_it_was_meant_for_and_to_nobody_else() {
    let origin = greeting().await;
    let gateway = Gateway::start("[cache]\nset_cookie = \"strip\"").await;
    let url = origin.url("/a");
    let first = gateway.client.get(&url).await;
    first.assert_says(&["fwd=uri-miss", "stored"]);
    assert_eq!((first.text(), cookie(&first)), ("hello", Some("id=0")));

    let second = gateway.client.get(&url).await;
    second.assert_says(&["hit"]);
    assert_eq!((second.text(), cookie(&second)), ("hello", None));
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn who_follows_a_fill_does_not_get_the_cookie_of_who_started_it() {
    let origin = Origin::start().await;
    let gateway = Gateway::start("[cache]\nset_cookie = \"strip\"").await;
    let cue = Cue::new();
    let hold = cue.clone();
    origin.on_each("/a", move |_, _| {
        let reply = Reply::ok("hello")
            .cache_control("max-age=300")
            .header("Set-Cookie", "id=1");
        reply.dripped(2, &hold)
    });
    let url = origin.url("/a");
    let mut starter = gateway.client.connect().await;
    starter.send_request(&Request::get(&url)).await;
    let started = starter.head().await;
    let mut follower = gateway.client.connect().await;
    follower.send_request(&Request::get(&url)).await;
    let followed = follower.head().await;
    followed.assert_says(&["fwd=uri-miss", "collapsed"]);
    assert_eq!((cookie(&started), cookie(&followed)), (Some("id=1"), None));

    cue.open();
    assert_eq!(starter.rest_of(started, "GET").await.text(), "hello");
    assert_eq!(follower.rest_of(followed, "GET").await.text(), "hello");
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn the_cookie_of_a_304_goes_to_the_client_that_led_to_it() {
    for policy in ["bypass", "strip"] {
        let origin = Origin::start().await;
        let gateway = Gateway::start(&format!("[cache]\nset_cookie = \"{policy}\"")).await;
        origin.on_each("/a", |_, nth| {
            let reply = Reply::ok("hello")
                .cache_control("max-age=300")
                .etag("\"e\"");
            match nth {
                0 => reply,
                _ => reply.header("Set-Cookie", &format!("id={nth}")),
            }
        });
        let url = origin.url("/a");
        gateway.client.get(&url).await;
        gateway.clock.step_secs(1_000);
        let validated = gateway.client.get(&url).await;
        validated.assert_says(&["fwd=stale", "fwd-status=304", "stored"]);
        assert_eq!(
            (validated.text(), cookie(&validated)),
            ("hello", Some("id=1")),
            "{policy}"
        );
        let next = gateway.client.get(&url).await;
        next.assert_says(&["hit"]);
        assert_eq!((next.text(), cookie(&next)), ("hello", None), "{policy}");
    }
}

/// Once the client that started a fill was answered from the stored head, which lacks what the directives withhold.
#[tokio::test]
async fn fields_withheld_from_the_store_still_reach_the_client_they_came_for() {
    for terms in ["no-cache=\"X-User\"", "private=\"x-user\""] {
        let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
        let terms = format!("max-age=300, {terms}");
        origin.on_each("/a", move |_, nth| {
            let reply = Reply::ok("hello").cache_control(&terms).etag("\"e\"");
            reply
                .header("X-User", &format!("client {nth}"))
                .header("X-All", "1")
        });
        let url = origin.url("/a");
        let first = gateway.client.get(&url).await;
        first.assert_says(&["fwd=uri-miss", "stored"]);
        assert_eq!(first.header("x-user"), Some("client 0"));
        let second = gateway.client.get(&url).await;
        second.assert_says(&["hit"]);
        assert_eq!(
            (second.header("x-user"), second.header("x-all")),
            (None, Some("1"))
        );

        gateway.clock.step_secs(1_000);
        let validated = gateway.client.get(&url).await;
        validated.assert_says(&["fwd-status=304"]);
        assert_eq!(validated.header("x-user"), Some("client 1"));
        let last = gateway.client.get(&url).await;
        last.assert_says(&["hit"]);
        assert_eq!((last.header("x-user"), last.text()), (None, "hello"));
    }
}

#[tokio::test]
async fn a_stored_cookie_is_reused_and_survives_only_as_long_as_the_operator_wants_it() {
    let origin = greeting().await;
    let gateway = Gateway::start("[cache]\nset_cookie = \"store\"").await;
    let url = origin.url("/a");
    gateway.client.get(&url).await.assert_says(&["stored"]);
    let hit = gateway.client.get(&url).await;
    hit.assert_says(&["hit"]);
    assert_eq!(cookie(&hit), Some("id=0"));

    // Under the default a cookie that is stored already is for nobody: not after a restart, not without the origin.
    let gateway = gateway.restart("").await;
    let asked = gateway.client.get(&url).await;
    assert!(!asked.says("hit"), "{:?}", asked.cache_status());
    assert_eq!(cookie(&asked), Some("id=1"));
    origin.kill().await;
    gateway
        .client
        .get(&url)
        .await
        .assert_problem(504, "offline-miss");
}

#[tokio::test]
async fn a_stored_cookie_stays_in_its_private_partition() {
    let origin = greeting().await;
    let gateway = Gateway::start("[cache]\nkind = \"private\"\nset_cookie = \"store\"").await;
    let url = origin.url("/a");
    let get_as = |user| {
        gateway
            .client
            .ask(Request::get(&url).header("Authorization", user))
    };
    for (user, id) in [("Bearer ann", "id=0"), ("Bearer bob", "id=1")] {
        get_as(user).await.assert_says(&["stored"]);
        let hit = get_as(user).await;
        hit.assert_says(&["hit"]);
        assert_eq!(cookie(&hit), Some(id));
    }
    assert_eq!(origin.seen().len(), 2);
}
