//! What a stored head is after a 304 or the answer to a HEAD, and how validation is asked for.

use http::HeaderMap;

use super::{
    super::{
        Answer, HeadEffect, Lookup, Mark, Settings, answer_conditionally, freshen::freshen,
        head_effect, updated_fields, validation_headers,
    },
    Circumstances, Judgement, Request, Response, StoredHead, after, describe, headers, judge,
    response_headers, stored, stored_for,
};

fn freshened(stored: &StoredHead, response: &str, secs: i64) -> StoredHead {
    let judgement = judge(
        &Request::new("").head(),
        &Response::at(response, secs).head(),
        Some(stored),
        &Settings::default(),
    );
    match judgement {
        Judgement::Freshen(head) => *head,
        other => panic!("{response}: {other:?}"),
    }
}

fn values<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a str> {
    let values = headers.get_all(name).iter();
    values.map(|value| value.to_str().unwrap()).collect()
}

#[test]
fn a_304_updates_every_field_but_those_of_the_body() {
    for (name, old, new, expected) in [
        ("Test-Header", "a", "b", "b"),
        ("X-Content-Foo", "a", "b", "b"),
        ("Content-Location", "/foo", "/bar", "/bar"),
        (
            "Content-Type",
            "text/plain",
            "text/plain;charset=utf-8",
            "text/plain;charset=utf-8",
        ),
        (
            "Content-Security-Policy",
            "default-src 'self'",
            "default-src *",
            "default-src *",
        ),
        (
            "Expires",
            "Fri, 01 Jan 2038 01:01:01 GMT",
            "Mon, 11 Jan 2038 11:11:11 GMT",
            "Mon, 11 Jan 2038 11:11:11 GMT",
        ),
        ("Content-Length", "36", "10", "36"),
        ("Content-Encoding", "gzip", "br", "gzip"),
        ("Content-Range", "bytes 0-1/2", "bytes 1-1/2", "bytes 0-1/2"),
    ] {
        let head = stored(&format!(
            "ETag: \"e\" | Cache-Control: max-age=1 | {name}: {old}"
        ));
        let head = freshened(&head, &format!("304 ETag: \"e\" | {name}: {new}"), 5);
        assert_eq!(values(&head.headers.to_map(), name), [expected], "{name}");
    }
}

#[test]
fn a_304_keeps_what_it_omits_and_every_line_of_what_it_repeats() {
    let head =
        stored("ETag: \"e\" | Link: </a> | Link: </b> | Kept: 1 | Kept: 2 | Vary: Foo | Vary: Bar");
    let head = freshened(&head, "304 Link: </c> | Link: </d> | Link: </e>", 5);
    assert_eq!(
        values(&head.headers.to_map(), "link"),
        ["</c>", "</d>", "</e>"]
    );
    assert_eq!(values(&head.headers.to_map(), "kept"), ["1", "2"]);
    assert_eq!(values(&head.headers.to_map(), "vary"), ["Foo", "Bar"]);
}

#[test]
fn a_freshened_response_is_as_young_as_its_304() {
    let settings = Settings::default();
    let head = stored("ETag: \"e\" | Cache-Control: max-age=60 | Age: 50");
    // The 304 has neither Age nor Date: those of the old response must not age the new one.
    let head = freshened(&head, "304 Date: none", 1_000);
    let freshness = head.freshness(&settings, after(1_010));
    assert_eq!((freshness.age_secs(), freshness.is_fresh()), (10, true));
    assert_eq!(values(&head.headers.to_map(), "age"), [""; 0]);
    let head = freshened(&head, "304 Date: @1990 | Age: 30", 2_000);
    assert_eq!(head.freshness(&settings, after(2_000)).age_secs(), 30);
}

#[test]
fn a_304_lifts_a_mark_and_what_it_forbids_is_kept_for_one_answer_only() {
    for (response, expected) in [
        ("304 ETag: \"e\"", Mark::None),
        ("304 ETag: \"e\" | Cache-Control: no-store", Mark::Invalid),
        ("304 ETag: \"e\" | Cache-Control: private", Mark::Invalid),
        ("304 ETag: \"e\" | Vary: *", Mark::Invalid),
        ("304 ETag: \"e\" | Set-Cookie: a=b", Mark::None),
    ] {
        let head = StoredHead {
            mark: Mark::Invalid,
            ..stored("ETag: \"e\" | Cache-Control: max-age=60")
        };
        let head = freshened(&head, response, 5);
        assert_eq!(head.mark, expected, "{response}");
        assert!(!head.headers.contains_key("set-cookie"), "{response}");
    }
}

#[test]
fn a_304_leaves_the_variant_as_it_is() {
    let settings = Settings::default();
    let head = stored_for(
        "Accept-Language: en, de",
        "ETag: \"e\" | Vary: Accept-Language",
        &settings,
    );
    // Whoever validates it came with other words for the same variant, or none.
    assert_eq!(freshened(&head, "304 ETag: \"e\"", 5).variant, head.variant);
    assert_ne!(
        freshened(&head, "304 ETag: \"e\" | Vary: Foo", 5).variant,
        head.variant
    );
}

#[test]
fn fields_that_are_never_stored_are_left_out() {
    for name in [
        "Connection",
        "Keep-Alive",
        "Proxy-Authenticate",
        "Proxy-Authentication-Info",
        "Proxy-Authorization",
        "Proxy-Connection",
        "TE",
        "Transfer-Encoding",
        "Upgrade",
    ] {
        let head = stored(&format!(
            "Cache-Control: max-age=60 | ETag: \"e\" | {name}: x"
        ));
        assert!(!head.headers.contains_key(name), "{name}");
        let head = freshened(&head, &format!("304 {name}: x"), 5);
        assert!(!head.headers.contains_key(name), "{name} by a 304");
    }
    let head = stored(
        "Cache-Control: max-age=60, no-cache=\"a, b\", private=\"c\" | A: 1 | B: 2 | C: 3 | D: 4",
    );
    assert_eq!(head.headers.len(), 3, "Date, Cache-Control and D");
    assert_eq!(values(&head.headers.to_map(), "d"), ["4"]);
    let head = stored("Date: none | Cache-Control: max-age=60");
    assert_eq!(
        head.headers.get("date").unwrap(),
        super::super::date::format_http_date(after(0)).as_bytes()
    );
}

#[test]
fn the_answer_to_a_head_freshens_or_marks_stale() {
    for (old, new, expected) in [
        (
            "Cache-Control: max-age=2 | Content-Length: 3",
            "Cache-Control: max-age=1000 | Content-Length: 3 | A: 2",
            "freshen",
        ),
        (
            "Cache-Control: max-age=2 | Content-Length: 3",
            "Cache-Control: max-age=1000",
            "freshen",
        ),
        (
            "Cache-Control: max-age=2 | ETag: \"a\"",
            "ETag: \"a\"",
            "freshen",
        ),
        (
            "Cache-Control: max-age=2 | ETag: \"a\"",
            "ETag: \"b\"",
            "stale",
        ),
        ("Cache-Control: max-age=2", "ETag: \"b\"", "stale"),
        (
            "Cache-Control: max-age=2 | Last-Modified: @-9",
            "Last-Modified: @-8",
            "stale",
        ),
        (
            "Cache-Control: max-age=2 | ETag: \"a\" | Last-Modified: @-9",
            "ETag: \"a\" | Last-Modified: @-8",
            "stale",
        ),
        (
            "Cache-Control: max-age=2 | Content-Length: 3",
            "Content-Length: 4",
            "stale",
        ),
        ("404 Cache-Control: max-age=2", "", "stale"),
        (
            "Cache-Control: max-age=2",
            "410 Cache-Control: max-age=1000",
            "nothing",
        ),
        (
            "Cache-Control: max-age=2",
            "503 Content-Length: 9",
            "nothing",
        ),
    ] {
        let head = stored(old);
        let effect = head_effect(
            &Request::new("HEAD").head(),
            &Response::at(new, 5).head(),
            &head,
            &Settings::default(),
        );
        let found = match effect {
            HeadEffect::Freshen(head) => {
                assert_eq!(head.response_time, after(5));
                "freshen"
            }
            HeadEffect::MarkStale => "stale",
            HeadEffect::Nothing => "nothing",
        };
        assert_eq!(found, expected, "{old} then {new}");
    }
}

/// A part is never a 200, and its length is not that of the whole: each HEAD once made it stale.
#[test]
fn the_answer_to_a_head_that_agrees_with_a_part_says_nothing_about_it() {
    const PART: &str = "206 Cache-Control: max-age=2 | Content-Range: bytes 0-1/9 | Content-Length: 2 | ETag: \"a\"";
    let stored = stored_for("Range: bytes=0-1", PART, &Settings::default());
    for (new, agrees) in [
        ("ETag: \"a\" | Content-Length: 9", true),
        ("Content-Length: 9", true),
        ("ETag: \"b\" | Content-Length: 9", false),
    ] {
        let effect = head_effect(
            &Request::new("HEAD").head(),
            &Response::at(new, 5).head(),
            &stored,
            &Settings::default(),
        );
        match effect {
            HeadEffect::Nothing => assert!(agrees, "{new}"),
            HeadEffect::MarkStale => assert!(!agrees, "{new}"),
            HeadEffect::Freshen(_) => panic!("{new}"),
        }
    }
}

#[test]
fn our_validators_replace_the_clients_conditions() {
    const CLIENT: &str = "If-None-Match: \"mine\" | If-Modified-Since: @-9 | If-Match: \"x\" | If-Unmodified-Since: @0 | If-Range: \"r\" | Foo: 1";
    for (response, expected) in [
        (
            "ETag: \"a\" | Last-Modified: @-5",
            "If-None-Match: \"a\" | If-Modified-Since: @-5 | If-Range: \"r\" | Foo: 1",
        ),
        (
            "ETag: W/\"a\"",
            "If-None-Match: W/\"a\" | If-Range: \"r\" | Foo: 1",
        ),
        (
            "Last-Modified: @-5",
            "If-Modified-Since: @-5 | If-Range: \"r\" | Foo: 1",
        ),
        (
            "ETag: \"a\" | Last-Modified: yesterday",
            "If-None-Match: \"a\" | If-Range: \"r\" | Foo: 1",
        ),
    ] {
        let mut outgoing = headers(CLIENT);
        validation_headers(&mut outgoing, &stored(response));
        assert_eq!(outgoing, headers(expected), "{response}");
    }
}

#[test]
fn the_clients_conditions_are_evaluated_in_the_order_of_the_rfc() {
    const BOTH: &str = "ETag: \"a\" | Last-Modified: @-50";
    for (response, request, expected) in [
        (BOTH, "", Answer::Full),
        (BOTH, "If-None-Match: \"a\"", Answer::NotModified),
        (BOTH, "HEAD: If-None-Match: W/\"a\"", Answer::NotModified),
        (BOTH, "If-None-Match: *", Answer::NotModified),
        (BOTH, "If-None-Match: \"b\", \"c\"", Answer::Full),
        (
            BOTH,
            "If-None-Match: \"b\" | If-None-Match: \"a\"",
            Answer::NotModified,
        ),
        (
            BOTH,
            "If-None-Match: \"b\" | If-Modified-Since: @0",
            Answer::Full,
        ),
        (BOTH, "If-Modified-Since: @-50", Answer::NotModified),
        (BOTH, "If-Modified-Since: @-51", Answer::Full),
        (BOTH, "If-Modified-Since: garbage", Answer::Full),
        (BOTH, "If-Match: \"a\"", Answer::Full),
        (BOTH, "If-Match: *", Answer::Full),
        (BOTH, "If-Match: \"b\"", Answer::PreconditionFailed),
        (BOTH, "If-Match: W/\"a\"", Answer::PreconditionFailed),
        (
            BOTH,
            "If-Match: \"a\" | If-None-Match: \"a\"",
            Answer::NotModified,
        ),
        (
            BOTH,
            "If-Match: \"b\" | If-None-Match: \"a\"",
            Answer::PreconditionFailed,
        ),
        (BOTH, "If-Unmodified-Since: @-50", Answer::Full),
        (
            BOTH,
            "If-Unmodified-Since: @-51",
            Answer::PreconditionFailed,
        ),
        (
            BOTH,
            "If-Match: \"a\" | If-Unmodified-Since: @-51",
            Answer::Full,
        ),
        ("", "If-Modified-Since: @0", Answer::NotModified),
        ("", "If-Modified-Since: @-1", Answer::Full),
        ("", "If-None-Match: \"a\"", Answer::Full),
        (
            "ETag: \"a\\\"",
            "If-None-Match: \"a\\\", \"b\"",
            Answer::NotModified,
        ),
        ("404 ETag: \"a\"", "If-None-Match: \"a\"", Answer::Full),
        ("404 ETag: \"a\"", "If-Match: \"b\"", Answer::Full),
    ] {
        let answer = answer_conditionally(&Request::new(request).head(), &stored(response));
        assert_eq!(answer, expected, "{response} for {request}");
    }
}

#[test]
fn cookies_are_stored_and_shared_as_the_operator_says() {
    for (words, response, stored, not_modified, updated) in [
        (
            "cookie=strip",
            "Set-Cookie: a=b",
            None,
            "Set-Cookie: c=d",
            None,
        ),
        (
            "cookie=store",
            "Set-Cookie: a=b",
            Some("a=b"),
            "-",
            Some("a=b"),
        ),
        (
            "cookie=store",
            "Set-Cookie: a=b",
            Some("a=b"),
            "Set-Cookie: c=d",
            Some("c=d"),
        ),
        ("-", "-", None, "Set-Cookie: c=d", None),
    ] {
        let settings = Circumstances::new(words.trim_matches('-')).settings;
        let head = stored_for("", &format!("ETag: \"e\" | {response}"), &settings);
        let cookie = |head: &StoredHead| {
            assert_eq!(head.sets_cookie, head.headers.contains_key("set-cookie"));
            let value = head.headers.get("set-cookie")?;
            Some(str::from_utf8(value).unwrap().to_owned())
        };
        assert_eq!(cookie(&head).as_deref(), stored, "{words} {response}");
        let answer = Response::at(&format!("304 {not_modified}"), 5);
        let request = Request::new("");
        let head = freshen(&request.head(), &answer.head(), &head, &settings);
        assert_eq!(cookie(&head).as_deref(), updated, "{words} {not_modified}");
    }
}

#[test]
fn a_cookie_stored_under_other_settings_is_not_handed_out() {
    let store = Circumstances::new("cookie=store");
    let head = store.stored("", "Cache-Control: max-age=60 | Set-Cookie: a=b");
    let decided = |words| {
        let decision = Circumstances::new(words).decide("", Lookup::Stored(&head), 1);
        describe(&decision)
    };
    assert_eq!(decided("cookie=store"), "hit");
    assert_eq!(decided("private cookie=store"), "hit");
    for words in ["", "cookie=strip", "private"] {
        assert_eq!(decided(words), "fwd vary-miss collapse", "{words}");
    }
}

#[test]
fn the_client_that_led_to_a_304_gets_what_others_do_not() {
    let head = stored("ETag: \"e\" | X-Kept: 1 | Age: 3");
    let new = response_headers(
        "Set-Cookie: a=b | Set-Cookie: c=d | X-Me: 1 | Cache-Control: no-cache=\"x-me\"",
    );
    let fields = updated_fields(&head, &new);
    let values = |name: &str| fields.get_all(name).iter().count();
    for (name, count) in [("set-cookie", 2), ("x-me", 1), ("x-kept", 1), ("age", 0)] {
        assert_eq!(values(name), count, "{name}");
    }
}
