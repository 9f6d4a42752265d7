//! One fill per key, followed by everyone who asks meanwhile.

use tokio::{sync::Barrier, task::JoinSet};

use crate::support::{
    Answer, Client, Connection, Cue, Gateway, Origin, Reply, Request, Step, digest, eventually,
    noise,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_hundred_clients_on_a_cold_body_share_one_fill() {
    const CLIENTS: usize = 200;
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let (cue, body) = (Cue::new(), noise(5 << 20));
    let reply = Reply::ok(body.clone()).cache_control("max-age=300");
    origin.on("/a", reply.dripped(20, &cue));

    let everyone_has_a_first_byte = std::sync::Arc::new(Barrier::new(CLIENTS + 1));
    let mut clients = JoinSet::new();
    for _ in 0..CLIENTS {
        let (client, url) = (gateway.client.clone(), origin.url("/a"));
        let barrier = std::sync::Arc::clone(&everyone_has_a_first_byte);
        clients.spawn(async move {
            let mut connection = client.connect().await;
            let head = begin(&mut connection, &url).await;
            barrier.wait().await;
            let answer = connection.rest_of(head, "GET").await;
            (answer.is_complete, digest(&answer.body))
        });
    }
    // The origin has sent a twentieth and holds the rest: nobody waits for the end, or for the store.
    crate::support::within("first bytes", everyone_has_a_first_byte.wait()).await;
    cue.open();

    let expected = digest(&body);
    for (is_complete, digest) in clients.join_all().await {
        assert!(is_complete);
        assert_eq!(digest, expected);
    }
    assert_eq!(origin.seen().len(), 1);
    gateway
        .client
        .get(&origin.url("/a"))
        .await
        .assert_says(&["hit"]);
}

#[tokio::test]
async fn followers_say_that_they_were_collapsed() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let cue = Cue::new();
    let reply = Reply::ok("hello").cache_control("max-age=300");
    origin.on("/a", reply.dripped(2, &cue));
    let url = origin.url("/a");
    let (mut starter, starter_head) = begun(&gateway.client, &url).await;
    let (mut follower, follower_head) = begun(&gateway.client, &url).await;
    cue.open();

    let starter = starter.rest_of(starter_head, "GET").await;
    let follower = follower.rest_of(follower_head, "GET").await;
    assert_eq!((starter.text(), follower.text()), ("hello", "hello"));
    starter.assert_says(&["fwd=uri-miss", "stored"]);
    follower.assert_says(&["fwd=uri-miss", "collapsed"]);
}

#[tokio::test]
async fn nothing_changes_for_the_rest_when_the_starter_hangs_up() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let (cue, body) = (Cue::new(), noise(1 << 20));
    let reply = Reply::ok(body.clone()).cache_control("max-age=300");
    origin.on("/a", reply.dripped(2, &cue));
    let url = origin.url("/a");
    let (starter, _) = begun(&gateway.client, &url).await;
    let (mut follower, head) = begun(&gateway.client, &url).await;
    drop(starter);
    cue.open();

    let answer = follower.rest_of(head, "GET").await;
    assert!(answer.is_complete);
    assert_eq!(digest(&answer.body), digest(&body));
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn a_fill_survives_when_every_client_hangs_up() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let cue = Cue::new();
    let reply = Reply::ok(noise(1 << 20)).cache_control("max-age=300");
    origin.on("/a", reply.dripped(2, &cue));
    let url = origin.url("/a");
    drop(begun(&gateway.client, &url).await);
    cue.open();

    eventually("the fill is stored", || async {
        gateway.client.get(&url).await.says("hit").then_some(())
    })
    .await;
    assert_eq!(origin.seen().len(), 1);
}

/// A client that knows the length sees the end with the last byte, before the store has it. To bring a large body there takes
/// longer than to ask again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_after_the_last_byte_gets_a_hit() {
    const CLIENTS: usize = 8;
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    for (number, bytes) in [5, 5, 5, 16 << 20, 16 << 20].into_iter().enumerate() {
        let (path, cue) = (format!("/{number}"), Cue::new());
        let body = bytes::Bytes::from(noise(bytes));
        let head = format!("content-length: {bytes}\r\ncache-control: max-age=300\r\n\r\n");
        let script = [
            Step::Send(format!("HTTP/1.1 200 OK\r\n{head}").into()),
            Step::Send(body.slice(..bytes - 1)),
            Step::Await(cue.clone()),
            Step::Send(body.slice(bytes - 1..)),
        ];
        origin.on(&path, Reply::script(script));
        let url = origin.url(&path);
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let mut connection = gateway.client.connect().await;
            begin(&mut connection, &url).await;
            connection.take(bytes - 1).await;
            let url = url.clone();
            clients.spawn(async move {
                connection.take(1).await;
                connection.ask(&Request::get(&url)).await
            });
        }
        cue.open();
        for again in clients.join_all().await {
            again.assert_says(&["hit"]);
            assert_eq!(digest(&again.body), digest(&body));
        }
    }
}

#[tokio::test]
async fn followers_of_an_unstorable_answer_go_their_own_way_in_parallel() {
    const FOLLOWERS: usize = 20;
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on("/settle", Reply::ok(""));
    for terms in ["no-store", "private, max-age=60"] {
        let (first, rest) = (Cue::new(), Cue::new());
        let (hold_first, hold_rest) = (first.clone(), rest.clone());
        let path = format!("/{}", &terms[..7]);
        origin.on_each(&path, move |_, nth| {
            let hold = if nth == 0 { &hold_first } else { &hold_rest };
            Reply::ok(format!("{nth}")).cache_control(terms).held(hold)
        });
        let url = origin.url(&path);
        let ask = || {
            let (client, url) = (gateway.client.clone(), url.clone());
            async move { client.get(&url).await }
        };
        let mut clients = JoinSet::new();
        clients.spawn(ask());
        origin.sees(&path, 1).await;
        (0..FOLLOWERS).for_each(|_| drop(clients.spawn(ask())));
        settle(&gateway, &origin).await;

        // The origin holds every further answer until half of them have asked: one after the other would never get
        // there. Not all of them, because whoever was late follows a later fill, which is held too.
        first.open();
        origin.sees(&path, 1 + FOLLOWERS / 2).await;
        rest.open();
        let mut bodies: Vec<_> = clients
            .join_all()
            .await
            .into_iter()
            .map(|a| a.body)
            .collect();
        bodies.sort();
        bodies.dedup();
        assert_eq!(
            bodies.len(),
            1 + FOLLOWERS,
            "{terms}: someone got another's answer"
        );
        assert_eq!(origin.seen_at(&path).len(), 1 + FOLLOWERS, "{terms}");
    }
}

/// Nobody waits for an answer that will be another's, once that is known of the URL.
#[tokio::test]
async fn a_url_whose_answers_are_not_shared_is_asked_for_by_each_at_once_until_one_is() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let cue = Cue::new();
    let hold = cue.clone();
    origin.on_each("/a", move |_, nth| match nth {
        0 => Reply::ok("0").cache_control("no-store"),
        1..=5 => Reply::ok(format!("{nth}"))
            .cache_control("no-store")
            .held(&hold),
        _ => Reply::ok("shared").cache_control("max-age=300"),
    });
    let url = origin.url("/a");
    gateway.client.get(&url).await;
    let mut clients = JoinSet::new();
    for _ in 0..5 {
        let (client, url) = (gateway.client.clone(), url.clone());
        clients.spawn(async move { client.get(&url).await });
    }
    // All of them, while none is answered.
    origin.sees("/a", 6).await;
    cue.open();
    for answer in clients.join_all().await {
        answer.assert_says(&["fwd=uri-miss", "fwd-status=200", "detail=no-store"]);
    }
    let answer = gateway.client.get(&url).await;
    answer.assert_says(&["fwd=uri-miss", "fwd-status=200", "stored"]);
    assert_eq!(answer.body, b"shared");
    gateway.client.get(&url).await.assert_says(&["hit"]);
}

/// What one client may not share says nothing of what the others may.
#[tokio::test]
async fn a_request_that_can_be_shared_with_nobody_leaves_the_others_waiting_for_one_answer() {
    for (name, value) in [
        ("cache-control", "no-store"),
        ("authorization", "Bearer a"),
        ("cookie", "a=1"),
        ("range", "bytes=0-0,2-2"),
    ] {
        let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
        let cue = Cue::new();
        let hold = cue.clone();
        origin.on_each("/a", move |_, nth| match nth {
            0 => Reply::ok("own").cache_control("private"),
            _ => Reply::ok("shared").cache_control("max-age=300").held(&hold),
        });
        let url = origin.url("/a");
        let asked = Request::get(&url).header(name, value);
        let own = gateway.client.ask(asked).await;
        assert_eq!(own.body, b"own", "{name}");
        let mut clients = JoinSet::new();
        for _ in 0..5 {
            let (client, url) = (gateway.client.clone(), url.clone());
            clients.spawn(async move { client.get(&url).await });
        }
        origin.sees("/a", 2).await;
        cue.open();
        for answer in clients.join_all().await {
            assert_eq!(answer.body, b"shared", "{name}");
        }
        assert_eq!(origin.seen_at("/a").len(), 2, "{name}");
    }
}

#[tokio::test]
async fn different_variants_do_not_share_a_body() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let cue = Cue::new();
    let hold = cue.clone();
    origin.on_each("/a", move |seen, nth| {
        let reply = Reply::ok(seen.header("accept-language").unwrap_or("none").to_owned())
            .cache_control("max-age=300")
            .header("Vary", "Accept-Language");
        if nth == 0 { reply.held(&hold) } else { reply }
    });
    origin.on("/settle", Reply::ok(""));
    let mut clients = JoinSet::new();
    for language in ["de", "en", "de", "en", "fr"] {
        let request = Request::get(&origin.url("/a")).header("Accept-Language", language);
        let client = gateway.client.clone();
        clients.spawn(async move { (language, client.ask(request).await) });
    }
    origin.sees("/a", 1).await;
    settle(&gateway, &origin).await;
    cue.open();
    for (language, answer) in clients.join_all().await {
        assert_eq!(answer.text(), language);
    }
}

#[tokio::test]
async fn who_waits_shares_an_answer_that_may_not_be_reused_only_where_no_cookie_is_in_play() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    origin.on("/settle", Reply::ok(""));
    for (number, (starter, follower)) in [
        (Some("ann"), Some("bob")),
        (Some("ann"), None),
        (None, Some("bob")),
        (None, None),
    ]
    .into_iter()
    .enumerate()
    {
        let (path, cue) = (format!("/{number}"), Cue::new());
        let hold = cue.clone();
        origin.on_each(&path, move |seen, nth| {
            let user = seen.header("cookie").unwrap_or("nobody").to_owned();
            // Fresh for a time, so not filed under the cookie, and yet for nobody without a word to the origin.
            let tag = format!("\"{user}\"");
            let reply = Reply::ok(user).cache_control("no-cache, max-age=300");
            let reply = reply.header("ETag", &tag);
            if nth == 0 { reply.held(&hold) } else { reply }
        });
        let ask = |user: Option<&'static str>| {
            let request = Request::get(&origin.url(&path));
            let request = match user {
                Some(user) => request.header("Cookie", user),
                None => request,
            };
            let client = gateway.client.clone();
            async move { (user.unwrap_or("nobody"), client.ask(request).await) }
        };
        let mut clients = JoinSet::new();
        clients.spawn(ask(starter));
        origin.sees(&path, 1).await;
        clients.spawn(ask(follower));
        settle(&gateway, &origin).await;
        cue.open();
        for (user, answer) in clients.join_all().await {
            assert_eq!(answer.text(), user, "{starter:?} {follower:?}");
        }
        let is_shared = starter.is_none() && follower.is_none();
        assert_eq!(origin.seen_at(&path).len(), if is_shared { 1 } else { 2 });
    }
}

#[tokio::test]
async fn when_the_fill_dies_no_follower_takes_its_part_for_the_whole() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    for (path, chunked, end) in [
        ("/length-reset", false, Step::Reset),
        ("/length-close", false, Step::Close),
        ("/chunked-reset", true, Step::Reset),
        ("/chunked-close", true, Step::Close),
        ("/bad-chunk", true, Step::Send("zz\r\n".into())),
    ] {
        let cue = Cue::new();
        let reply = Reply::ok(noise(100_000)).cache_control("max-age=300");
        let reply = reply.dripped(2, &cue).ends_early(end);
        origin.on(path, if chunked { reply.chunked() } else { reply });
        let url = origin.url(path);

        let mut connections = Vec::new();
        for _ in 0..10 {
            connections.push(begun(&gateway.client, &url).await);
        }
        assert_eq!(origin.seen_at(path).len(), 1);
        cue.open();
        for (mut connection, head) in connections {
            let answer = connection.rest_of(head, "GET").await;
            assert!(!answer.is_complete, "{path}");
        }

        origin.on(path, Reply::ok("whole"));
        let next = gateway.client.get(&url).await;
        assert_eq!(next.text(), "whole", "{path}: the part was stored");
    }
}

/// A connection on which the first body byte of `url` is here, and the head.
async fn begun(client: &Client, url: &str) -> (Connection, Answer) {
    let mut connection = client.connect().await;
    let head = begin(&mut connection, url).await;
    (connection, head)
}

async fn begin(connection: &mut Connection, url: &str) -> Answer {
    connection.send_request(&Request::get(url)).await;
    let head = connection.head().await;
    connection.first_byte().await;
    head
}

/// A variant was filled twice: by name for those who had waited for another's fill, and without for who came after it.
#[tokio::test]
async fn who_comes_after_another_variant_was_stored_joins_the_fill_of_its_own() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let (en, de) = (Cue::new(), Cue::new());
    let (hold_en, hold_de) = (en.clone(), de.clone());
    origin.on_each("/a", move |seen, _| {
        let language = seen.header("accept-language").unwrap_or_default();
        let hold = if language == "en" { &hold_en } else { &hold_de };
        Reply::ok(language.to_owned())
            .cache_control("max-age=300")
            .header("Vary", "Accept-Language")
            .held(hold)
    });
    origin.on("/settle", Reply::ok(""));
    let url = origin.url("/a");
    let mut clients = JoinSet::new();
    let mut ask = |language: &'static str| {
        let (client, url) = (gateway.client.clone(), url.clone());
        let request = Request::get(&url).header("Accept-Language", language);
        clients.spawn(async move { (language, client.ask(request).await) });
    };
    ask("en");
    origin.sees("/a", 1).await;
    ask("de");
    settle(&gateway, &origin).await;
    en.open();
    origin.sees("/a", 2).await;
    ask("de");
    settle(&gateway, &origin).await;
    de.open();
    for (language, answer) in clients.join_all().await {
        assert_eq!(answer.text(), language);
    }
    assert_eq!(origin.seen_at("/a").len(), 2);
}

/// Gives the gateway time to get to whatever was sent before, measured in round trips of its own: client, gateway and
/// origin share one thread that runs its tasks in turn. Nothing announces that a request waits for another's fill.
async fn settle(gateway: &Gateway, origin: &Origin) {
    for _ in 0..10 {
        gateway.client.get(&origin.url("/settle")).await;
    }
}

/// Once the fill that ended last decided, and an old version came back for as long as it was fresh.
#[tokio::test]
async fn an_older_answer_that_ends_later_does_not_replace_a_newer_one() {
    let (origin, gateway) = (Origin::start().await, Gateway::start("").await);
    let cue = Cue::new();
    let hold = cue.clone();
    origin.on_each("/a", move |_, nth| {
        let reply = Reply::ok(format!("version {nth}")).cache_control("max-age=300");
        if nth == 0 {
            reply.dripped(2, &hold)
        } else {
            reply
        }
    });
    let url = origin.url("/a");
    let anew = || Request::get(&url).header("Cache-Control", "no-cache");
    let mut slow = gateway.client.connect().await;
    slow.send_request(&anew()).await;
    let head = slow.head().await;
    gateway.clock.step_secs(5);
    assert_eq!(gateway.client.ask(anew()).await.text(), "version 1");
    cue.open();
    assert_eq!(slow.rest_of(head, "GET").await.text(), "version 0");
    let answer = gateway.client.get(&url).await;
    assert_eq!(answer.text(), "version 1");
    answer.assert_says(&["hit"]);
}
