//! Pages of one user, which an attacker wants to have served to itself.

use super::{
    Next::{Nothing, OriginsWord, Unharmed},
    Stage, connect, get, told,
};
use crate::support::{Cue, Reply, eventually};

/// What the origin says of an answer.
type Terms = fn(Reply) -> Reply;

pub(super) async fn deception(stage: &mut Stage) {
    stage.section(
        "Web cache deception",
        "A user, `sid=ann`, is lured to a spelling of her account that looks like a file; the origin answers with her \
         account. The next client is the attacker, without a cookie.",
    );
    for path in [
        "/account/x.css",
        "/account;x.css",
        "/account%2fx.css",
        "/account%3bx.css",
        "/account%00x.css",
        "/account%23x.css",
        "/account?x.css",
        "/account.css",
        "/static/../account/x.css",
        "/static/%2e%2e/account/x.css",
        "//account/x.css",
    ] {
        stage.account(path, |reply| reply);
        let user = get(path).header("Cookie", "sid=ann");
        let tried = format!("`{path}`, of which the origin says nothing");
        stage
            .row(&tried, &user, &get(path), Unharmed("account of nobody"))
            .await;
    }
    let says: [(&str, Terms); 6] = [
        ("private, max-age=300", |reply| {
            reply.cache_control("private, max-age=300")
        }),
        ("no-store, max-age=300", |reply| {
            reply.cache_control("no-store, max-age=300")
        }),
        ("no-cache, and an `ETag`", |reply| {
            reply.cache_control("no-cache").header("ETag", "\"a\"")
        }),
        ("max-age=300, and `Set-Cookie`", |reply| {
            reply
                .cache_control("max-age=300")
                .header("Set-Cookie", "sid=ann")
        }),
        ("max-age=300, `Vary: Cookie`", |reply| {
            reply.cache_control("max-age=300").header("Vary", "Cookie")
        }),
        ("nothing but `Last-Modified`, now", |reply| {
            reply.header("Last-Modified", "Fri, 31 Dec 9999 23:59:59 GMT")
        }),
    ];
    for (index, (terms, answer)) in says.into_iter().enumerate() {
        let path = format!("/account/{index}.css");
        stage.account(&path, answer);
        let user = get(&path).header("Cookie", "sid=ann");
        let tried = format!("the origin says: {terms}");
        stage
            .row(&tried, &user, &get(&path), Unharmed("account of nobody"))
            .await;
    }
    let path = "/account/authorized.css";
    stage.account(path, |reply| reply.cache_control("max-age=300"));
    let user = get(path).header("Authorization", "ann");
    stage
        .row(
            "max-age=300, to a request with `Authorization`",
            &user,
            &get(path),
            Unharmed("account of nobody"),
        )
        .await;
    let path = "/account/guessed.css";
    stage.account(path, |reply| {
        reply.header("Last-Modified", "Thu, 01 Jan 2004 00:00:00 GMT")
    });
    let user = get(path).header("Cookie", "sid=ann");
    stage
        .row(
            "the origin says: nothing but `Last-Modified`, long ago",
            &user,
            &get(path),
            OriginsWord("account of sid=ann"),
        )
        .await;
    let path = "/account/everybody.css";
    stage.account(path, |reply| reply.cache_control("max-age=300"));
    let user = get(path).header("Cookie", "sid=ann");
    stage
        .row(
            "max-age=300, to a request with a cookie",
            &user,
            &get(path),
            OriginsWord("account of sid=ann"),
        )
        .await;

    together(stage, "nothing", |reply| reply).await;
    together(stage, "no-cache", |reply| {
        reply.cache_control("no-cache").header("ETag", "\"a\"")
    })
    .await;
    together(stage, "no-cache, max-age=300", |reply| {
        let reply = reply.cache_control("no-cache, max-age=300");
        reply.header("ETag", "\"a\"")
    })
    .await;
    while_the_origin_is_gone(stage).await;
}

/// Both ask at the same time, and the attacker's request waits for the user's answer.
async fn together(stage: &mut Stage, terms: &str, answer: fn(Reply) -> Reply) {
    let (path, cue) = (stage.path(), Cue::new());
    let held = cue.clone();
    stage.origin.on("/settle", Reply::ok(""));
    stage.origin.on_each(&path, move |seen, nth| {
        let user = seen.header("cookie").unwrap_or("nobody");
        let reply = answer(Reply::ok(format!("account of {user}")));
        if nth == 0 { reply.held(&held) } else { reply }
    });
    let (mut user, mut attacker) = (connect(stage).await, connect(stage).await);
    user.send_request(&get(&path).header("Cookie", "sid=ann"))
        .await;
    stage.origin.sees(&path, 1).await;
    attacker.send_request(&get(&path)).await;
    // Round trips on the one thread that everybody here shares: by then the attacker's request waits, too.
    for _ in 0..10 {
        stage.gateway.client.get("/settle").await;
    }
    cue.open();
    let (user, attacker) = (user.answer("GET").await, attacker.answer("GET").await);
    assert_eq!(user.text(), "account of sid=ann");
    assert_eq!(attacker.text(), "account of nobody", "{terms}");
    let seen = stage.origin.seen_at(&path).len();
    let tried = format!("both at the same time; the origin says: {terms}");
    stage.note(&[
        &tried,
        &told(&user),
        &told(&attacker),
        &format!("{seen} requests"),
        "unharmed",
    ]);
}

async fn while_the_origin_is_gone(stage: &mut Stage) {
    let cases: [(&str, Terms); 3] = [
        ("nothing", |reply| reply),
        ("nothing but an `ETag`", |reply| {
            reply.header("ETag", "\"a\"")
        }),
        ("max-age=0", |reply| {
            reply.cache_control("max-age=0").header("ETag", "\"a\"")
        }),
    ];
    let mut first = Vec::new();
    for (index, (_, answer)) in cases.iter().enumerate() {
        let path = format!("/account/gone{index}.css");
        stage.account(&path, *answer);
        first.push(
            stage
                .gateway
                .client
                .ask(get(&path).header("Cookie", "sid=ann"))
                .await,
        );
    }
    stage.origin.kill().await;
    for (index, (terms, _)) in cases.iter().enumerate() {
        let path = format!("/account/gone{index}.css");
        let again = stage
            .gateway
            .client
            .ask(get(&path).header("Cookie", "sid=ann"))
            .await;
        assert_eq!(
            again.text(),
            "account of sid=ann",
            "the user herself has it: {terms}"
        );
        let before = stage.origin.seen().len();
        let tried = format!("the origin says: {terms}; then it is gone");
        stage
            .judge(&tried, &first[index], &get(&path), Nothing, before)
            .await;
    }
    stage.origin.revive();
    let probe = stage.gullible();
    let client = stage.gateway.client.clone();
    eventually("the origin is back", || async {
        (client.get(&probe).await.status == 200).then_some(())
    })
    .await;
}
