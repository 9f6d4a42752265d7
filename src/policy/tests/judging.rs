//! The second decision, as tables: what came back, or nothing, and what it means.

use super::{
    super::{CacheKey, Failure, OnFailure, on_failure, store_post_answer, while_held_down},
    Circumstances, Judgement, Request, Response, after, cases, judge, stored,
};

fn parts(case: &str) -> (Vec<&str>, &str) {
    let (question, expected) = case.split_once(" => ").expect("an outcome");
    let parts = question
        .split(" :: ")
        .map(|part| if part == "-" { "" } else { part })
        .collect();
    (parts, expected)
}

fn describe(judgement: &Judgement) -> String {
    match judgement {
        Judgement::Store(_) => "store".to_owned(),
        Judgement::Pass(reason) => format!("pass {reason}"),
        Judgement::Freshen(_) => "freshen".to_owned(),
        Judgement::AskUnconditionally => "ask again".to_owned(),
        Judgement::ServeStale(reuse) => {
            format!("serve {}", reuse.detail.expect("a stale answer says why"))
        }
    }
}

/// `request :: circumstances :: response => judgement`
fn check_storing(table: &str) {
    for case in cases(table) {
        let (parts, expected) = parts(case);
        let [request, words, response] = parts[..] else {
            panic!("{case}");
        };
        let settings = Circumstances::new(words).settings;
        let judgement = judge(
            &Request::new(request).head(),
            &Response::new(response).head(),
            None,
            &settings,
        );
        assert_eq!(describe(&judgement), expected, "{case}");
    }
}

/// `stored :: circumstances :: request :: seconds :: response => judgement`
fn check_with_stored(table: &str) {
    for case in cases(table) {
        let (parts, expected) = parts(case);
        let [stored, words, request, secs, response] = parts[..] else {
            panic!("{case}");
        };
        let circumstances = Circumstances::new(words);
        let stored = circumstances.stored("", stored);
        let judgement = judge(
            &Request::new(request).head(),
            &Response::at(response, secs.parse().unwrap()).head(),
            Some(&stored),
            &circumstances.settings.under(circumstances.mode),
        );
        assert_eq!(describe(&judgement), expected, "{case}");
    }
}

#[test]
fn what_is_stored_and_why_not() {
    check_storing(
        r#"
        - :: - :: Cache-Control: max-age=60 => store
        - :: - :: - => store
        - :: - :: 404 - => store
        - :: - :: Cache-Control: max-age=0 => store
        - :: - :: Expires: 0 => store
        HEAD :: - :: Cache-Control: max-age=60 => pass method
        QUERY :: - :: Cache-Control: max-age=60 => store
        QUERY+body :: - :: Cache-Control: max-age=60 => pass request-body
        QUERY :: - :: 206 Cache-Control: max-age=60 => pass partial
        POST+body :: - :: Cache-Control: max-age=60 => pass method
        M-SEARCH :: - :: Cache-Control: max-age=60 => pass method
        GET+body :: - :: Cache-Control: max-age=60 => pass request-body
        - :: - :: 206 Cache-Control: max-age=60 => pass partial
        - :: - :: 206 Cache-Control: max-age=60 | Content-Range: bytes 0-1/9 => pass partial
        Range: bytes=0-1 :: - :: 206 Cache-Control: max-age=60 | Content-Range: bytes 0-1/9 => store
        Range: bytes=0-1 :: - :: 206 Content-Range: bytes 0-1/9 => store
        QUERY: Range: bytes=0-1 :: - :: 206 Cache-Control: max-age=60 | Content-Range: bytes 0-1/9 => pass partial
        Range: bytes=0-1 :: - :: 206 Cache-Control: max-age=60, must-understand, no-store | Content-Range: bytes 0-1/9 => store
        Range: bytes=0-1 :: - :: 206 Cache-Control: no-store | Content-Range: bytes 0-1/9 => pass no-store
        Range: bytes=0-1 :: - :: 206 Cache-Control: max-age=60 | Content-Range: bytes 0-1/1 => pass partial
        Range: bytes=0-1 :: - :: 206 Cache-Control: max-age=60 | Content-Type: multipart/byteranges; boundary=x => pass partial
        Range: bytes=0-1 :: - :: 206 Cache-Control: max-age=60 | Content-Range: bytes 0-1/9 | Content-Type: multipart/byteranges; boundary=x => pass partial
        Range: bytes=0-1 :: - :: 206 Cache-Control: max-age=60 | Content-Range: bytes 0-1/9 | Content-Range: bytes 0-1/9 => pass partial
        Range: bytes=0-1 :: - :: Cache-Control: max-age=60 => store
        // Right for this request, and wrong for the next.
        Range: bytes=9- :: - :: 416 Cache-Control: max-age=60 | Content-Range: bytes */9 => pass partial
        If-Match: "a" :: - :: 412 Cache-Control: max-age=60 => pass status
        - :: - :: Cache-Control: max-age=60, no-store => pass no-store
        - :: - :: Cache-Control: NO-STORE => pass no-store
        - :: - :: Cache-Control: x="a, b=\"c", no-store => pass no-store
        - :: - :: Cache-Control: x="unterminated, no-store => pass no-store
        - :: - :: Cache-Control: max-age=60 | Cache-Control: no-store => pass no-store
        - :: override=no-store :: Cache-Control: no-store => store
        Cache-Control: no-store :: - :: Cache-Control: max-age=60 => pass no-store
        Cache-Control: no-store :: ignore-client :: Cache-Control: max-age=60 => store
        - :: - :: Cache-Control: max-age=60, private => pass private
        - :: - :: Cache-Control: private, public, max-age=60 => pass private
        - :: - :: Cache-Control: private=1, max-age=60 => pass private
        - :: private :: Cache-Control: max-age=60, private => store
        - :: override=private :: Cache-Control: max-age=60, private => store
        - :: - :: Cache-Control: max-age=60, private="x-user" | X-User: me => store
        - :: - :: Cache-Control: max-age=60 | Set-Cookie: a=b => pass set-cookie
        - :: private :: Cache-Control: max-age=60 | Set-Cookie: a=b => pass set-cookie
        - :: cookie=strip :: Cache-Control: max-age=60 | Set-Cookie: a=b => store
        - :: cookie=store :: Cache-Control: max-age=60 | Set-Cookie: a=b => store
        - :: private cookie=store :: Cache-Control: max-age=60 | Set-Cookie: a=b => store
        - :: - :: Cache-Control: max-age=60, no-cache="Set-Cookie" | Set-Cookie: a=b => store
        - :: - :: Cache-Control: max-age=60, private="set-cookie" | Set-Cookie: a=b => store
        - :: private :: Cache-Control: max-age=60, private="set-cookie" | Set-Cookie: a=b => pass set-cookie
        Authorization: a :: - :: Cache-Control: max-age=60 => pass authorization
        Authorization: a :: - :: - => pass authorization
        Authorization: a :: - :: Cache-Control: max-age=60, public => store
        Authorization: a :: - :: Cache-Control: s-maxage=60 => store
        Authorization: a :: - :: Cache-Control: max-age=60, must-revalidate => store
        Authorization: a :: - :: Cache-Control: max-age=60, proxy-revalidate => pass authorization
        Authorization: a :: private :: Cache-Control: max-age=60 => store
        - :: - :: Cache-Control: max-age=60 | Vary: * => pass vary-star
        - :: - :: Content-Type: text/event-stream; charset=utf-8 | Cache-Control: max-age=60 => pass event-stream
        - :: - :: 201 - => pass status
        - :: - :: 403 ETag: "a" => pass status
        - :: - :: 500 - => pass status
        - :: - :: 403 Cache-Control: max-age=60 => store
        - :: - :: 400 Cache-Control: max-age=60 => store
        // About the request, not about its target.
        - :: - :: 412 Cache-Control: max-age=60 => pass status
        - :: - :: 416 Cache-Control: public, max-age=60 => pass status
        - :: - :: 417 Cache-Control: max-age=60 => pass status
        - :: - :: 421 Cache-Control: max-age=60 => pass status
        - :: private :: 428 Cache-Control: max-age=60 => pass status
        - :: - :: 429 Cache-Control: max-age=60 => pass status
        - :: - :: 431 Cache-Control: max-age=60 => pass status
        - :: - :: 511 Cache-Control: max-age=60 => pass status
        - :: - :: 403 Cache-Control: public => store
        - :: private :: 403 Cache-Control: private => store
        - :: - :: 999 Cache-Control: max-age=60 => store
        - :: - :: 999 Cache-Control: public | Last-Modified: @-999 => pass status
        - :: - :: 999 - => pass status
        - :: - :: 304 - => pass status
        - :: - :: 599 Cache-Control: max-age=60, must-understand => pass status
        - :: - :: 200 Cache-Control: max-age=60, must-understand, no-store => store
        // Nothing could ever be made of these.
        - :: - :: Cache-Control: no-cache => pass unusable
        - :: - :: Cache-Control: max-age=0, must-revalidate => pass unusable
        - :: - :: Cache-Control: s-maxage=0 => pass unusable
        - :: - :: Cache-Control: s-maxage=0, stale-if-error=9 => store
        - :: - :: Cache-Control: no-cache | ETag: "a" => store
        - :: override=no-cache :: Cache-Control: no-cache => store
        - :: - :: Pragma: no-cache => pass unusable
        "#,
    );
}

#[test]
fn errors_and_what_stands_in_for_them() {
    check_with_stored(
        r#"
        Cache-Control: max-age=60 :: - :: - :: 61 :: 503 - => serve stale-if-error
        Cache-Control: max-age=60 :: - :: - :: 61 :: 500 Cache-Control: max-age=60 => serve stale-if-error
        Cache-Control: max-age=60 :: - :: HEAD :: 61 :: 504 - => serve stale-if-error
        Cache-Control: max-age=60 :: - :: Cache-Control: no-cache :: 1 :: 502 - => serve stale-if-error
        - :: - :: - :: 61 :: 503 - => serve stale-if-error
        Cache-Control: max-age=60 :: sie=10 :: - :: 69 :: 503 - => serve stale-if-error
        Cache-Control: max-age=60 :: sie=10 :: - :: 70 :: 503 - => pass status
        Cache-Control: max-age=60 :: sie=0 :: - :: 61 :: 503 - => pass status
        // The origin's window wins over the route's, the client's over the route's, the shorter over the longer.
        Cache-Control: max-age=60, stale-if-error=10 :: - :: - :: 70 :: 503 - => pass status
        Cache-Control: max-age=60, stale-if-error=10 :: sie=0 :: - :: 69 :: 503 - => serve stale-if-error
        Cache-Control: max-age=60 :: sie=0 :: Cache-Control: stale-if-error=9 :: 61 :: 503 - => serve stale-if-error
        Cache-Control: max-age=60 :: - :: Cache-Control: stale-if-error=0 :: 61 :: 503 - => pass status
        Cache-Control: max-age=60, stale-if-error=100 :: - :: Cache-Control: stale-if-error=9 :: 70 :: 503 - => pass status
        // Directives that forbid it.
        Cache-Control: max-age=60, must-revalidate :: - :: - :: 61 :: 503 - => pass status
        Cache-Control: max-age=60, proxy-revalidate :: - :: - :: 61 :: 503 - => pass status
        Cache-Control: max-age=60, stale-if-error=9, must-revalidate :: - :: - :: 61 :: 503 - => pass status
        Cache-Control: max-age=60, no-cache | ETag: "a" :: - :: - :: 61 :: 503 - => pass status
        Cache-Control: s-maxage=60 :: - :: - :: 61 :: 503 - => pass status
        Cache-Control: s-maxage=60, stale-if-error=9 :: - :: - :: 61 :: 503 - => serve stale-if-error
        Cache-Control: max-age=60, must-revalidate :: override=must-revalidate :: - :: 61 :: 503 - => serve override
        Cache-Control: max-age=60 :: invalid :: - :: 1 :: 503 - => pass status
        Cache-Control: max-age=60 :: stale :: - :: 1 :: 503 - => serve stale-if-error
        // In online mode only the origin's own word.
        Cache-Control: max-age=60 :: online :: - :: 61 :: 503 - => pass status
        Cache-Control: max-age=60, stale-if-error=9 :: online :: - :: 61 :: 503 - => serve stale-if-error
        // An error never replaces a usable response.
        Cache-Control: max-age=60, must-revalidate :: - :: - :: 61 :: 503 Cache-Control: max-age=60 => pass status
        Cache-Control: max-age=60 :: - :: - :: 61 :: 599 Cache-Control: max-age=60 => pass status
        Cache-Control: max-age=60 :: invalid :: - :: 61 :: 503 Cache-Control: max-age=60 => store
        503 Cache-Control: max-age=60 :: - :: - :: 61 :: 503 - => pass status
        503 Cache-Control: max-age=60 :: - :: - :: 61 :: 503 Cache-Control: max-age=60 => store
        // Not errors in this sense.
        Cache-Control: max-age=60 :: - :: - :: 61 :: 404 - => store
        Cache-Control: max-age=60 :: - :: - :: 61 :: 501 - => pass status
        Cache-Control: max-age=60 :: - :: - :: 61 :: 429 - => pass status
        Cache-Control: max-age=60 :: - :: - :: 61 :: 400 Cache-Control: max-age=60 => pass status
        400 Cache-Control: max-age=60 :: - :: - :: 61 :: 400 Cache-Control: max-age=60 => store
        Cache-Control: max-age=60 :: - :: - :: 61 :: Cache-Control: max-age=60 => store
        Cache-Control: max-age=60 :: - :: POST+body :: 61 :: 503 - => pass method
        "#,
    );
}

#[test]
fn answers_to_validation() {
    check_with_stored(
        r#"
        ETag: "a" :: - :: - :: 61 :: 304 ETag: "a" => freshen
        ETag: "a" :: - :: - :: 61 :: 304 - => freshen
        ETag: "a" :: - :: HEAD :: 61 :: 304 ETag: "a" => freshen
        ETag: "a" :: - :: If-None-Match: "b" :: 61 :: 304 ETag: "a" => freshen
        ETag: "a" :: - :: - :: 61 :: 304 ETag: "b" => ask again
        ETag: W/"a" :: - :: - :: 61 :: 304 ETag: W/"a" => freshen
        ETag: "a" :: - :: - :: 61 :: 304 ETag: W/"a" => freshen
        ETag: W/"a" :: - :: - :: 61 :: 304 ETag: "a" => ask again
        ETag: "a" | Last-Modified: @-9 :: - :: - :: 61 :: 304 ETag: "a" | Last-Modified: @-5 => freshen
        ETag: "a" | Last-Modified: @-9 :: - :: - :: 61 :: 304 Last-Modified: @-9 => freshen
        Last-Modified: @-9 :: - :: - :: 61 :: 304 Last-Modified: @-9 => freshen
        Last-Modified: Thu, 18 Aug 2022 02:01:18 GMT :: - :: - :: 61 :: 304 Last-Modified: Thursday, 18-Aug-22 02:01:18 GMT => freshen
        Last-Modified: @-9 :: - :: - :: 61 :: 304 Last-Modified: @-5 => ask again
        Last-Modified: @-9 :: - :: - :: 61 :: 304 ETag: "a" => ask again
        // The client's own conditions, because we had none to send.
        Cache-Control: max-age=9 :: - :: If-None-Match: "b" :: 61 :: 304 ETag: "b" => pass status
        ETag: "a" :: - :: If-Match: "a" :: 61 :: 304 ETag: "a" => pass status
        // Good for this answer, though no longer to be stored: freshened, and marked below.
        ETag: "a" :: - :: - :: 61 :: 304 ETag: "a" | Cache-Control: no-store => freshen
        "#,
    );
}

#[test]
fn a_client_gets_the_304_it_asked_for_when_nothing_is_stored() {
    let judgement = super::judged(
        "If-None-Match: \"a\"",
        "304 ETag: \"a\"",
        &Circumstances::default().settings,
    );
    assert_eq!(describe(&judgement), "pass status");
}

/// `stored :: circumstances :: request :: seconds :: failure => outcome`
fn check_failures(table: &str) {
    for case in cases(table) {
        let (parts, expected) = parts(case);
        let [stored, words, request, secs, failure] = parts[..] else {
            panic!("{case}");
        };
        let failure = match failure {
            "disconnected" => Failure::Disconnected,
            "broken" => Failure::Broken,
            "timed-out" => Failure::TimedOut,
            "fresh-timeout" => Failure::FreshTimeout,
            "overloaded" => Failure::Overloaded,
            _ => panic!("{case}"),
        };
        let circumstances = Circumstances::new(words);
        let stored = (stored != "nothing").then(|| circumstances.stored("", stored));
        let outcome = on_failure(
            &Request::new(request).head(),
            failure,
            stored.as_ref(),
            &circumstances.settings.under(circumstances.mode),
            after(secs.parse().unwrap()),
        );
        let outcome = match outcome {
            OnFailure::ServeStale(reuse) => format!("serve {}", reuse.detail.unwrap()),
            OnFailure::Problem(reason) => format!("problem {reason}"),
        };
        assert_eq!(outcome, expected, "{case}");
    }
}

#[test]
fn failures_and_what_stands_in_for_them() {
    check_failures(
        r#"
        nothing :: - :: - :: 0 :: disconnected => problem offline-miss
        nothing :: - :: - :: 0 :: broken => problem upstream-error
        nothing :: - :: - :: 0 :: timed-out => problem upstream-timeout
        nothing :: - :: - :: 0 :: fresh-timeout => problem upstream-timeout
        nothing :: - :: - :: 0 :: overloaded => problem overloaded
        Cache-Control: max-age=60 :: - :: - :: 61 :: disconnected => serve disconnected
        Cache-Control: max-age=60 :: - :: - :: 61 :: broken => serve stale-if-error
        Cache-Control: max-age=60 :: - :: - :: 61 :: timed-out => serve stale-if-error
        Cache-Control: max-age=60 :: - :: - :: 61 :: overloaded => serve stale-if-error
        Cache-Control: max-age=60 :: - :: - :: 61 :: fresh-timeout => serve fresh-timeout
        // A disconnection has its own window, which is longer.
        Cache-Control: max-age=60 :: - :: - :: 7200 :: broken => problem upstream-error
        Cache-Control: max-age=60 :: - :: - :: 7200 :: disconnected => serve disconnected
        Cache-Control: max-age=60 :: offline=9 :: - :: 70 :: disconnected => problem offline-miss
        // The request that finds the disconnection out is answered as disconnected, whatever it asked for.
        Cache-Control: max-age=60 :: - :: Cache-Control: no-cache :: 1 :: disconnected => serve disconnected
        - :: - :: - :: 1 :: disconnected => serve disconnected
        Cache-Control: max-age=60, must-revalidate :: - :: - :: 61 :: disconnected => problem offline-miss
        Cache-Control: max-age=60, must-revalidate :: - :: - :: 61 :: broken => problem upstream-error
        Cache-Control: max-age=60, must-revalidate :: - :: - :: 61 :: fresh-timeout => problem upstream-timeout
        Cache-Control: max-age=60, must-revalidate :: override=must-revalidate :: - :: 61 :: disconnected => serve override
        Cache-Control: s-maxage=60 :: - :: - :: 61 :: disconnected => problem offline-miss
        Cache-Control: max-age=60 :: invalid :: - :: 1 :: disconnected => problem offline-miss
        Cache-Control: max-age=60 :: online :: - :: 61 :: disconnected => problem offline-miss
        Cache-Control: max-age=60 :: online :: - :: 61 :: broken => problem upstream-error
        Cache-Control: max-age=60, stale-if-error=9 :: online :: - :: 61 :: disconnected => serve disconnected
        // A write is never answered from the store.
        Cache-Control: max-age=60 :: - :: POST+body :: 1 :: disconnected => problem offline-miss
        // A stored error does not stand in for another.
        503 Cache-Control: max-age=60 :: - :: - :: 61 :: broken => problem upstream-error
        "#,
    );
}

#[test]
fn a_held_down_key_is_served_within_its_error_window() {
    let settings = Circumstances::default().settings;
    let head = stored("Cache-Control: max-age=60, stale-if-error=10");
    let get = Request::new("");
    let at = |secs| while_held_down(&get.head(), &head, &settings, after(secs));
    assert_eq!(at(69).unwrap().detail, Some(super::super::Reason::HeldDown));
    assert!(at(70).is_none());
}

#[test]
fn the_answer_to_a_post_is_stored_only_for_its_own_target_with_explicit_freshness() {
    let target = CacheKey::from_text("http://a.example/x?y");
    let settings = Circumstances::default().settings;
    for (request, response, expected) in [
        (
            "POST+body",
            "Cache-Control: max-age=60 | Content-Location: /x?y",
            true,
        ),
        (
            "POST+body",
            "Cache-Control: max-age=60 | Content-Location: http://A.example:80/x?y",
            true,
        ),
        (
            "POST+body",
            "Cache-Control: max-age=60 | Content-Location: /x",
            false,
        ),
        (
            "POST+body",
            "Cache-Control: max-age=60 | Content-Location: http://b.example/x?y",
            false,
        ),
        ("POST+body", "Cache-Control: max-age=60", false),
        ("POST+body", "Content-Location: /x?y", false),
        (
            "POST+body",
            "Last-Modified: @-999 | Content-Location: /x?y",
            false,
        ),
        (
            "POST+body",
            "500 Cache-Control: max-age=60 | Content-Location: /x?y",
            false,
        ),
        (
            "POST+body",
            "Cache-Control: max-age=60, no-store | Content-Location: /x?y",
            false,
        ),
        (
            "PUT+body",
            "Cache-Control: max-age=60 | Content-Location: /x?y",
            false,
        ),
    ] {
        let stored = store_post_answer(
            &Request::new(request).head(),
            &target,
            &Response::new(response).head(),
            &settings,
        );
        assert_eq!(stored.is_some(), expected, "{request} {response}");
    }
}
