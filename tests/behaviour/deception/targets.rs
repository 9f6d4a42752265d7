//! What an attacker asks for: spellings of a path, methods, bodies, parts and conditions.

use super::{
    Next::{OriginsWord, Unharmed},
    Stage, connect, get,
};
use crate::support::{Reply, Request};

pub(super) async fn spellings(stage: &mut Stage) {
    stage.section(
        "Spellings of a path",
        "An attacker asks for another spelling of `/k` first. The key is what is forwarded, byte for byte, so the origin \
         alone decides what is the same.",
    );
    let spelled = [
        "/k/",
        "//k",
        "/./k",
        "/x/../k",
        "/x/%2e%2e/k",
        "/%6b",
        "/k%2f",
        "/k%00",
        "/K",
        "/k.",
        "/k?",
        "/k;x",
        "/k%3fx",
        "/k%23x",
        "/%2fk",
        "/k/..;/k",
    ];
    for (index, spelled) in spelled.into_iter().enumerate() {
        // The same spelling of a path of its own, so that every row begins with nothing stored.
        let own = |path: &str| {
            path.replace('k', &format!("k{index}"))
                .replace("6b", &format!("6b{index}"))
        };
        let (target, plain) = (own(spelled), own("/k"));
        for path in [&target, &plain] {
            let kind = if *path == plain { "plain" } else { "other" };
            stage
                .origin
                .on(path, Reply::ok(kind).cache_control("max-age=300"));
        }
        stage
            .row(
                &format!("`{spelled}`"),
                &get(&target),
                &get(&plain),
                Unharmed("plain"),
            )
            .await;
    }
    let path = stage.gullible();
    let message = format!("GET {path}#evil HTTP/1.1\r\nHost: a\r\n\r\n");
    stage
        .raw("`/k#x`", &message, &get(&path), Unharmed("page"))
        .await;
    for (shown, byte) in [("NUL", "\0"), ("a space", " "), ("a line feed", "\n")] {
        let path = stage.gullible();
        let message = format!("GET {path}{byte}x HTTP/1.1\r\nHost: a\r\n\r\n");
        stage
            .raw(
                &format!("`/k`, {shown}, `x`"),
                &message,
                &get(&path),
                Unharmed("page"),
            )
            .await;
    }
}

pub(super) async fn methods_and_bodies(stage: &mut Stage) {
    stage.section(
        "Methods and bodies",
        "An attacker asks first, with a method or a body that changes what the origin answers.",
    );
    for (tried, method, body) in [
        ("GET with a body", "GET", "evil"),
        ("HEAD with a body", "HEAD", "evil"),
        ("POST", "POST", "evil"),
        ("PUT", "PUT", "evil"),
        ("QUERY", "QUERY", "evil"),
        ("an unknown method", "EVIL", ""),
        ("`get`, in lower case", "get", ""),
        ("OPTIONS", "OPTIONS", ""),
        ("TRACE", "TRACE", ""),
    ] {
        let path = stage.gullible();
        let mut attack = Request::new(method, &path);
        if !body.is_empty() {
            attack = attack.body(body);
        }
        if method == "HEAD" {
            // There is no body in the answer, whatever its length says.
            let before = stage.origin.seen().len();
            let mut connection = connect(stage).await;
            let first = connection.ask(&attack).await;
            stage
                .judge(tried, &first, &get(&path), Unharmed("page"), before)
                .await;
        } else {
            stage
                .row(tried, &attack, &get(&path), Unharmed("page"))
                .await;
        }
    }
    let path = stage.path();
    stage
        .origin
        .on_each(&path, |seen, _| match seen.method.as_str() {
            "HEAD" => Reply::ok("")
                .cache_control("max-age=300")
                .header("X-Page", "evil"),
            _ => Reply::ok("page").cache_control("max-age=300"),
        });
    let before = stage.origin.seen().len();
    let first = connect(stage).await.ask(&Request::new("HEAD", &path)).await;
    stage
        .judge(
            "HEAD, answered as if the page were empty",
            &first,
            &get(&path),
            Unharmed("page"),
            before,
        )
        .await;
    let path = stage.path();
    stage
        .origin
        .on_each(&path, |seen, _| match seen.method.as_str() {
            "POST" => Reply::ok("evil")
                .cache_control("max-age=300")
                .header("Content-Location", "/elsewhere"),
            _ => Reply::ok("page").cache_control("max-age=300"),
        });
    let attack = Request::new("POST", &path).body("evil");
    stage
        .row(
            "POST, whose answer claims another location",
            &attack,
            &get(&path),
            Unharmed("page"),
        )
        .await;
    posts_that_describe_the_page(stage).await;
    let path = stage.path();
    stage.origin.on_each(&path, |seen, _| {
        Reply::ok(seen.body.clone()).cache_control("max-age=300")
    });
    let query = |content: &str| {
        let request = Request::new("QUERY", &path).header("Content-Type", "text/plain");
        request.body(content.to_owned())
    };
    stage
        .row(
            "QUERY, and then another with other content",
            &query("evil"),
            &query("good"),
            Unharmed("good"),
        )
        .await;
}

/// The answer to a POST is stored for reads where it says that it is the page, unless it may be made of what no read tells.
async fn posts_that_describe_the_page(stage: &mut Stage) {
    for (tried, field, through_forward_proxy, next) in [
        (
            "POST, whose answer says that it is the page from now on",
            None,
            true,
            OriginsWord("evil"),
        ),
        (
            "the same with `X-Original-URL: /evil`",
            Some(("X-Original-URL", "/evil")),
            true,
            Unharmed("page"),
        ),
        (
            "the same with `X_HTTP_Method_Override: evil`",
            Some(("X_HTTP_Method_Override", "evil")),
            true,
            Unharmed("page"),
        ),
        (
            "the same with `Host: evil.example`, which a route for every host tells",
            Some(("Host", "evil.example")),
            false,
            Unharmed("page"),
        ),
    ] {
        let path = stage.path();
        stage
            .origin
            .on_each(&path, |seen, _| match seen.method.as_str() {
                "POST" => Reply::ok(seen.body.clone())
                    .cache_control("max-age=300")
                    .header("Content-Location", &seen.target),
                _ => Reply::ok("page").cache_control("max-age=300"),
            });
        let target = match through_forward_proxy {
            true => stage.origin.url(&path),
            false => path,
        };
        let mut attack = Request::new("POST", &target).body("evil");
        if let Some((name, value)) = field {
            attack = attack.header(name, value);
        }
        stage.row(tried, &attack, &get(&target), next).await;
    }
}

pub(super) async fn ranges_and_conditions(stage: &mut Stage) {
    stage.section(
        "Ranges and conditions",
        "An attacker asks for a part, or under a condition of its own; every answer of the origin claims to be good for five \
         minutes.",
    );
    for (field, status) in [
        ("Range: bytes=0-0", 206),
        ("Range: bytes=9-", 416),
        ("If-Match: \"evil\"", 412),
        ("If-Unmodified-Since: Thu, 01 Jan 1970 00:00:00 GMT", 412),
        ("If-None-Match: \"evil\"", 304),
        ("If-None-Match: *", 304),
        ("If-Modified-Since: Fri, 31 Dec 9999 23:59:59 GMT", 304),
        ("Expect: evil", 417),
    ] {
        let (name, value) = field.split_once(": ").unwrap();
        let path = stage.path();
        let asked = name.to_owned();
        stage.origin.on_each(&path, move |seen, _| {
            let reply = match seen.header(&asked) {
                Some(_) if status == 206 => {
                    Reply::new(206, "p").header("Content-Range", "bytes 0-0/4")
                }
                Some(_) if status == 304 => Reply::new(304, ""),
                Some(_) => Reply::new(status, "no"),
                None => Reply::ok("page"),
            };
            reply.header("ETag", "\"1\"").cache_control("max-age=300")
        });
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
}
