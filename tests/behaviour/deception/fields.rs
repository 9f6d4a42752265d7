//! What an attacker writes into the head of a request.

use super::{
    Next::{self, OriginsWord, Unharmed},
    Stage, get,
};
use crate::support::{Reply, Seen};

/// How an origin refuses a head.
type Refusal = fn() -> Reply;

pub(super) async fn unkeyed_fields(stage: &mut Stage) {
    stage.section(
        "Fields that are not in the key",
        "An attacker asks first, with a field that some origins let change their answer.",
    );
    for field in [
        "Host: evil.example",
        "Host: 127.0.0.1:666",
        "X-Forwarded-Host: evil.example",
        "X-Forwarded-Proto: evil",
        "X-Forwarded-Scheme: evil",
        "X-Forwarded-Port: evil",
        "X-Forwarded-Prefix: /evil",
        "X-Forwarded-Server: evil.example",
        "Forwarded: host=evil.example",
        "X-Host: evil.example",
        "X-Original-Host: evil.example",
        "X-HTTP-Host-Override: evil.example",
        "X-Original-URL: /evil",
        "X-Rewrite-URL: /evil",
        "X-HTTP-Method-Override: evil",
        "X-HTTP-Method: evil",
        "X-Method-Override: evil",
        "X-URL-Scheme: evil",
        "X-Forwarded: host=evil.example",
        "X-Proxy-Host: evil.example",
        "X_Forwarded_Host: evil.example",
        "X_Original_URL: /evil",
        "X-HTTP_Method-Override: evil",
    ] {
        let path = stage.gullible();
        let (name, value) = field.split_once(": ").unwrap();
        let attack = get(&path).header(name, value);
        stage
            .row(
                &format!("`{field}`"),
                &attack,
                &get(&path),
                Unharmed("page"),
            )
            .await;
    }
    let path = stage.gullible();
    let url = stage.origin.url(&path);
    let attack = get(&url).header("X-Forwarded-Host", "evil.example");
    stage
        .row(
            "the same through the forward proxy",
            &attack,
            &get(&url),
            Unharmed("page"),
        )
        .await;
    let path = stage.gullible();
    let url = stage.origin.url(&path);
    let attack = get(&url).header("Host", "evil.example");
    stage
        .row(
            "absolute-form, `Host: evil.example`",
            &attack,
            &get(&url),
            Unharmed("page"),
        )
        .await;
    let path = stage.gullible();
    let message = format!("GET {path} HTTP/1.1\r\nHost: {{origin}}\r\nHost: evil.example\r\n\r\n");
    stage
        .raw("two `Host` fields", &message, &get(&path), Unharmed("page"))
        .await;

    let path = stage.path();
    stage.origin.on_each(&path, |seen, _| {
        let host = seen.header("x-forwarded-host").or(seen.header("host"));
        let is_evil = host.is_some_and(|host| host.contains("evil"));
        let location = if is_evil {
            "http://evil.example/"
        } else {
            "/home"
        };
        Reply::new(301, location).header("Location", location)
    });
    let attack = get(&path)
        .header("Host", "evil.example")
        .header("X-Forwarded-Host", "evil.example");
    stage
        .row(
            "both, where the origin redirects to its host",
            &attack,
            &get(&path),
            Unharmed("/home"),
        )
        .await;

    let path = stage.gullible();
    let attack = get(&path).header("X-Theme", "evil");
    stage
        .row(
            "`X-Theme: evil`, a field of the origin's own, and no `Vary`",
            &attack,
            &get(&path),
            OriginsWord("evil"),
        )
        .await;
    let path = stage.path();
    stage.origin.on_each(&path, |seen, _| {
        let theme = seen.header("x-theme").unwrap_or("page").to_owned();
        Reply::ok(theme)
            .cache_control("max-age=300")
            .header("Vary", "X-Theme")
    });
    let attack = get(&path).header("X-Theme", "evil");
    stage
        .row(
            "the same with `Vary: X-Theme`",
            &attack,
            &get(&path),
            Unharmed("page"),
        )
        .await;
}

pub(super) async fn hop_by_hop(stage: &mut Stage) {
    stage.section(
        "Fields that `Connection` names",
        "An attacker has a field taken off on the way, so that the origin answers as if it had not been there. The next \
         client sends it in earnest.",
    );
    for (name, protected) in [
        ("X-Tenant", false),
        ("Accept-Language", false),
        ("Cookie", true),
        ("Authorization", true),
    ] {
        let path = stage.path();
        stage.origin.on_each(&path, move |seen, _| {
            let tenant = seen.header(name).unwrap_or("nobody").to_owned();
            Reply::ok(format!("page of {tenant}"))
                .cache_control("public, max-age=300")
                .header("Vary", name)
        });
        let attack = get(&path).header(name, "ann").header("Connection", name);
        let victim = get(&path).header(name, "ann");
        let tried = match protected {
            true => format!("`Connection: {name}`, which stays"),
            false => format!("`Connection: {name}`"),
        };
        stage
            .row(&tried, &attack, &victim, Unharmed("page of ann"))
            .await;
    }
    let path = stage.gullible();
    let attack = get(&path)
        .header("Cache-Control", "no-store")
        .header("Connection", "Cache-Control, Host, close");
    stage
        .row(
            "`Connection: Cache-Control, Host`",
            &attack,
            &get(&path),
            Unharmed("page"),
        )
        .await;
    let path = stage.path();
    stage.origin.on_each(&path, |seen, _| {
        let client = seen
            .header("x-forwarded-for")
            .unwrap_or("nobody")
            .to_owned();
        Reply::ok(client)
            .cache_control("max-age=300")
            .header("Vary", "X-Forwarded-For")
    });
    let attack = get(&path).header("X-Forwarded-For", "192.0.2.66");
    stage
        .row(
            "`X-Forwarded-For`, and the origin answers by it with `Vary`",
            &attack,
            &get(&path),
            Unharmed("127.0.0.1"),
        )
        .await;
}

pub(super) async fn heads(stage: &mut Stage) {
    stage.section(
        "Heads that are too large, or carry what they should not",
        "An attacker makes a server refuse a head, in the hope that the refusal is stored as the page.",
    );
    let refusing = |reply: fn() -> Reply| {
        move |seen: &Seen, _: usize| {
            let size: usize = seen
                .headers
                .iter()
                .map(|(name, value)| name.len() + value.len())
                .sum();
            if size > 8 << 10 {
                reply()
            } else {
                Reply::ok("page").cache_control("max-age=300")
            }
        }
    };
    let path = stage.gullible();
    let attack = get(&path).header("X", &"a".repeat(33 << 10));
    stage
        .row(
            "33 KiB, more than the gateway takes",
            &attack,
            &get(&path),
            Unharmed("page"),
        )
        .await;
    let path = stage.gullible();
    let mut attack = get(&path);
    for index in 0..120 {
        attack = attack.header(&format!("X-{index}"), "a");
    }
    stage
        .row("120 fields", &attack, &get(&path), Unharmed("page"))
        .await;
    let large = "a".repeat(20 << 10);
    let cases: [(&str, Refusal, Next); 4] = [
        (
            "20 KiB, more than the origin takes: 400",
            || Reply::new(400, "too large"),
            Unharmed("page"),
        ),
        (
            "the same: 431 with max-age=300",
            || Reply::new(431, "too large").cache_control("max-age=300"),
            Unharmed("page"),
        ),
        (
            "the same: 503",
            || Reply::new(503, "too large"),
            Unharmed("page"),
        ),
        (
            "the same: 400 with max-age=300, and nothing stored",
            || Reply::new(400, "too large").cache_control("max-age=300"),
            OriginsWord("too large"),
        ),
    ];
    for (tried, reply, next) in cases {
        let path = stage.path();
        stage.origin.on_each(&path, refusing(reply));
        stage
            .row(tried, &get(&path).header("X", &large), &get(&path), next)
            .await;
    }
    let path = stage.path();
    stage.origin.on_each(
        &path,
        refusing(|| Reply::new(400, "too large").cache_control("max-age=300")),
    );
    stage.gateway.client.get(&path).await;
    stage.gateway.clock.step_secs(301);
    let attack = get(&path).header("X", &large);
    stage
        .row(
            "the same, and the page is stored and stale",
            &attack,
            &get(&path),
            Unharmed("page"),
        )
        .await;
    for (shown, value) in [
        ("`\\x01`", "a\u{1}evil"),
        ("`\\x7f`", "a\u{7f}evil"),
        ("NUL", "a\0evil"),
        ("a bare CR", "a\revil"),
    ] {
        let path = stage.gullible();
        let message = format!("GET {path} HTTP/1.1\r\nHost: a\r\nX: {value}\r\n\r\n");
        stage
            .raw(
                &format!("{shown} in a value"),
                &message,
                &get(&path),
                Unharmed("page"),
            )
            .await;
    }
    let path = stage.path();
    stage.origin.on_each(&path, |_, nth| match nth {
        0 => Reply::ok("page")
            .cache_control("max-age=300")
            .header("X", &"a".repeat(100 << 10)),
        _ => Reply::ok("page").cache_control("max-age=300"),
    });
    stage
        .row(
            "the origin answers with a head of 100 KiB",
            &get(&path),
            &get(&path),
            Unharmed("page"),
        )
        .await;
}
