//! Lifetimes and windows under settings, where the conformance tables do not reach.

use std::time::Duration;

use http::{HeaderName, StatusCode};

use super::{
    super::Terms, CacheKind, Circumstances, START, Settings, after, cases, response_headers,
    stored, stored_for,
};

fn terms(response: &str, settings: &Settings) -> Terms {
    let headers = response_headers(response);
    Terms::parse(StatusCode::OK, &headers, settings, START, START)
}

#[test]
fn the_lifetime_comes_from_the_first_that_speaks() {
    for case in cases(
        r#"
        - :: Cache-Control: s-maxage=1, max-age=2 | Expires: @3 | Last-Modified: @-40 => 1
        private :: Cache-Control: s-maxage=1, max-age=2 | Expires: @3 | Last-Modified: @-40 => 2
        - :: Expires: @3 | Last-Modified: @-40 => 3
        - :: Last-Modified: @-40 => 4
        ttl=5 :: Last-Modified: @-40 => 4
        ttl=5 :: - => 5
        ttl=5 :: ETag: "a" => 5
        ttl=5 :: Cache-Control: max-age=0 => 0
        // No heuristic is longer than a day, and none is negative.
        - :: Last-Modified: @-1000000000 => 86400
        - :: Last-Modified: @100 => 0
        // The earliest of several, the past for what is invalid.
        - :: Expires: @9 | Expires: @3 => 3
        - :: Expires: @9 | Expires: never => 0
        - :: Date: nonsense | Expires: @9 => 9
        // 2^31 seconds stand for anything more.
        - :: Cache-Control: max-age=123456789012345678901234567890 => 2147483648
        "#,
    ) {
        let (case_text, expected) = case.split_once(" => ").unwrap();
        let (words, response) = case_text.split_once(" :: ").unwrap();
        let words = if words == "-" { "" } else { words };
        let settings = Circumstances::new(words).settings;
        let lifetime = terms(response, &settings).lifetime_secs(&settings);
        assert_eq!(lifetime.to_string(), expected, "{case}");
    }
}

/// `circumstances :: status response => lifetime in seconds`
#[test]
fn an_error_has_a_lifetime_of_its_own_where_the_origin_says_nothing() {
    for case in cases(
        r#"
        ttl=5 negative=7 :: 200 - => 5
        ttl=5 negative=7 :: 301 - => 5
        ttl=5 negative=7 :: 404 - => 7
        ttl=5 negative=7 :: 405 - => 7
        ttl=5 negative=7 :: 410 - => 7
        ttl=5 negative=7 :: 414 - => 7
        ttl=5 negative=7 :: 501 - => 7
        ttl=5 :: 404 - => 0
        negative=7 :: 200 - => 0
        negative=7 :: 404 Cache-Control: max-age=1 => 1
        negative=7 :: 404 Cache-Control: max-age=0 => 0
        negative=7 :: 404 Expires: 0 => 0
        negative=7 :: 404 Last-Modified: @-40 => 4
        // Not cacheable without a word from the origin, so no default makes them.
        negative=7 :: 403 Cache-Control: public => 0
        negative=7 :: 500 Cache-Control: public => 0
        "#,
    ) {
        let (question, expected) = case.split_once(" => ").unwrap();
        let (words, response) = question.split_once(" :: ").unwrap();
        let settings = Circumstances::new(words).settings;
        let head = stored_for("", response, &settings);
        let lifetime = head.terms.lifetime_secs(&settings);
        assert_eq!(lifetime.to_string(), expected, "{case}");
        let is_fresh = head.freshness(&settings, after(3)).is_fresh();
        assert_eq!(is_fresh, lifetime > 3, "{case}");
    }
}

#[test]
fn targeted_fields_speak_in_the_configured_order_and_only_when_valid() {
    let settings = Settings {
        targeted_fields: vec![
            HeaderName::from_static("hardtack-cache-control"),
            HeaderName::from_static("cdn-cache-control"),
        ],
        ..Settings::default()
    };
    for case in cases(
        r#"
        Cache-Control: max-age=1 => 1
        Cache-Control: max-age=1 | CDN-Cache-Control: max-age=2 => 2
        Cache-Control: max-age=1 | CDN-Cache-Control: max-age=2 | Hardtack-Cache-Control: max-age=3 => 3
        Cache-Control: max-age=1 | CDN-Cache-Control: max-age=2 | Hardtack-Cache-Control: max-age => 2
        Cache-Control: max-age=1 | CDN-Cache-Control: max-age=2 | Hardtack-Cache-Control: => 2
        Cache-Control: max-age=1 | CDN-Cache-Control: max-age=2.5 => 1
        Cache-Control: max-age=1 | CDN-Cache-Control: max-age="2" => 1
        Cache-Control: max-age=1 | CDN-Cache-Control: max-age=(2) => 1
        Cache-Control: max-age=1 | CDN-Cache-Control: max-age=2, no-cache=1 => 1
        Cache-Control: max-age=1 | CDN-Cache-Control: max-age=2, no-cache="a b" => 1
        Cache-Control: max-age=1 | CDN-Cache-Control: max-age=2;x=y, unknown=(1 2) => 2
        Cache-Control: max-age=1 | CDN-Cache-Control: public | CDN-Cache-Control: max-age=2 => 2
        Cache-Control: max-age=1 | CDN-Cache-Control: max-age=-2 => 0
        // A dictionary's last member of a name counts (RFC 9651 section 3.2).
        CDN-Cache-Control: max-age=9, max-age=2 => 2
        // One that says nothing of freshness still silences the others.
        Cache-Control: max-age=1 | Expires: @9 | CDN-Cache-Control: public => 0
        "#,
    ) {
        let (response, expected) = case.split_once(" => ").unwrap();
        let lifetime = terms(response, &settings).lifetime_secs(&settings);
        assert_eq!(lifetime.to_string(), expected, "{case}");
    }
}

#[test]
fn the_origins_window_wins_over_the_routes() {
    let settings = Circumstances::new("swr=10 sie=20").settings;
    let windows = |response| {
        let terms = terms(response, &settings);
        (
            terms.stale_while_revalidate(&settings).as_secs(),
            terms.stale_if_error(&settings).as_secs(),
        )
    };
    assert_eq!(windows(""), (10, 20));
    assert_eq!(
        windows("Cache-Control: stale-while-revalidate=0, stale-if-error=5"),
        (0, 5)
    );
    assert_eq!(
        windows("Cache-Control: stale-if-error=7, stale-if-error=5"),
        (10, 5)
    );
}

#[test]
fn online_mode_grants_no_stale_reuse_of_its_own() {
    let settings = Circumstances::new("swr=10 private").settings;
    let online = settings.under(super::Mode::Online);
    assert_eq!(online.stale_while_revalidate, Duration::ZERO);
    assert_eq!(online.stale_if_error, Duration::ZERO);
    assert_eq!(online.max_stale_offline, Duration::ZERO);
    assert_eq!(online.kind, CacheKind::Private);
    assert_eq!(*settings.under(super::Mode::Auto), settings);
}

#[test]
fn the_time_the_answer_took_counts_as_age() {
    let settings = Settings::default();
    let headers = response_headers("Date: @10 | Cache-Control: max-age=60 | Age: 3");
    let mut head = stored("Cache-Control: max-age=60");
    head.response_time = after(10);
    head.terms = Terms::parse(StatusCode::OK, &headers, &settings, START, after(10));
    assert_eq!(head.freshness(&settings, after(10)).age_secs(), 13);
    assert_eq!(head.freshness(&settings, after(56)).ttl_secs(), 1);
    assert!(!head.freshness(&settings, after(57)).is_fresh());
}
