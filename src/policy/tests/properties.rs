//! What holds for every input.

use http::{HeaderMap, HeaderValue, StatusCode};
use proptest::prelude::*;

use super::{
    super::{
        Answer, Failure, OnFailure, ParameterPattern, QueryRules, Terms, VariantKey,
        answer_conditionally,
        directives::{CacheFields, RequestDirectives},
        invalidates, on_failure, validation_headers,
    },
    Circumstances, Connectivity, Decision, Judgement, Lookup, Request, Response, START, after,
    judge, select, stored,
};

/// Field values as hostile as `http` lets through, often made of the pieces that parsers look for.
fn value() -> impl Strategy<Value = HeaderValue> {
    let piece = prop_oneof![
        Just("max-age=".to_owned()),
        Just("no-cache".to_owned()),
        Just("private=\"".to_owned()),
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just(",".to_owned()),
        Just(" ".to_owned()),
        Just(";q=0.5".to_owned()),
        Just("W/".to_owned()),
        Just("*".to_owned()),
        "[0-9]{1,25}",
        "[a-z-]{1,8}",
        "[ -~]{0,6}",
    ];
    let pieces =
        proptest::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().into_bytes());
    let bytes = proptest::collection::vec(0x20_u8..=0xfe, 0..30);
    prop_oneof![4 => pieces, 1 => bytes].prop_filter_map("a field value", |bytes| {
        HeaderValue::from_bytes(&bytes).ok()
    })
}

fn header_map(names: &'static [&'static str]) -> impl Strategy<Value = HeaderMap> {
    let line = (proptest::sample::select(names), value());
    proptest::collection::vec(line, 0..8).prop_map(|lines| {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name, value);
        }
        headers
    })
}

const REQUEST_FIELDS: &[&str] = &[
    "cache-control",
    "pragma",
    "if-none-match",
    "if-modified-since",
    "if-match",
    "if-unmodified-since",
    "accept-encoding",
    "accept-language",
    "accept",
    "authorization",
    "cookie",
    "foo",
    "range",
];

const RESPONSE_FIELDS: &[&str] = &[
    "cache-control",
    "cdn-cache-control",
    "pragma",
    "expires",
    "age",
    "date",
    "last-modified",
    "etag",
    "vary",
    "set-cookie",
    "content-length",
    "location",
    "content-location",
    "content-encoding",
    "content-language",
    "content-type",
];

/// A number of seconds as a directive might carry it, and the most restrictive reading of it.
fn seconds() -> impl Strategy<Value = (String, u32)> {
    prop_oneof![
        (0_u32..100_000).prop_map(|secs| (secs.to_string(), secs)),
        (0_u32..100_000).prop_map(|secs| (format!("\"{secs}\""), secs)),
        "[a-z.-]{1,4}".prop_map(|garbage| (garbage, 0)),
    ]
}

proptest! {
    /// Whoever asks with what was forwarded asks for the same again.
    #[test]
    fn a_query_under_rules_is_a_target_that_the_rules_leave_alone(
        target in "/[a-c]{0,3}(\\?[a-cA-C%1-2=&;+?*_]{0,40})?",
        names in prop::collection::vec("[a-c_ ]{0,2}\\*?[a-c]{0,2}", 0..3),
        sorted: bool,
    ) {
        let ignored = names.iter().filter_map(|name| ParameterPattern::parse(name).ok());
        let rules = QueryRules { ignored: ignored.collect(), sorted };
        if let Some(ruled) = rules.apply(&target) {
            prop_assert!(ruled.len() <= target.len());
            prop_assert!(http::uri::PathAndQuery::try_from(ruled.as_str()).is_ok());
            prop_assert_eq!(rules.apply(&ruled), None);
        }
    }

    #[test]
    fn no_head_makes_a_decision_panic(
        first in header_map(REQUEST_FIELDS),
        second in header_map(REQUEST_FIELDS),
        answer in header_map(RESPONSE_FIELDS),
        next in header_map(RESPONSE_FIELDS),
        status in 200_u16..=999,
        next_status in prop_oneof![Just(304_u16), Just(200), Just(503), 200_u16..=999],
        secs in -1_000_000_i64..1_000_000_000,
        words in prop_oneof![Just(""), Just("disconnected"), Just("private"), Just("prefer-cache swr=60")],
    ) {
        let circumstances = Circumstances::new(words);
        let request = |headers: &HeaderMap| Request { headers: headers.clone(), ..Request::new("") };
        let response = |status, headers: &HeaderMap, at| Response {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.clone(),
            at,
        };
        let (first, second) = (request(&first), request(&second));
        let answer = response(status, &answer, START);
        let target = super::super::CacheKey::from_text("http://a.example/x/y?z");
        let rules = QueryRules::default();
        invalidates(&"POST".parse().unwrap(), &target, StatusCode::OK, &answer.headers, &rules);
        if let Judgement::Store(head) = judge(&first.head(), &answer.head(), None, &circumstances.settings) {
            // Whoever was answered would be answered so again.
            prop_assert_eq!(select(&first.headers, [head.as_ref()].into_iter()), Some(0));
            let next = response(next_status, &next, after(secs));
            judge(&second.head(), &next.head(), Some(&head), &circumstances.settings);
            let _: Answer = answer_conditionally(&second.head(), &head);
            validation_headers(&mut second.headers.clone(), &head);
            super::decide(
                &second.head(), Lookup::Stored(&head), circumstances.connectivity,
                circumstances.mode, &circumstances.settings, after(secs),
            );
        }
    }

    #[test]
    fn of_repeated_directives_the_most_restrictive_counts(
        ages in proptest::collection::vec(seconds(), 1..5),
        one_line in any::<bool>(),
    ) {
        let mut headers = HeaderMap::new();
        let directives: Vec<String> = ages.iter().map(|(text, _)| format!("max-age={text}")).collect();
        let lines = if one_line { vec![directives.join(", ")] } else { directives };
        for line in lines {
            headers.append("cache-control", line.parse().unwrap());
        }
        let smallest = ages.iter().map(|(_, secs)| *secs).min();
        prop_assert_eq!(CacheFields::parse(&headers, &[]).directives.max_age, smallest);
        prop_assert_eq!(RequestDirectives::parse(&headers).max_age, smallest);
    }

    #[test]
    fn no_other_directive_hides_no_store(before in value(), after in value()) {
        // A quoted string may well contain the word; one that does not end must not.
        let unquoted = |value: &HeaderValue| !value.as_bytes().contains(&b'"');
        prop_assume!(unquoted(&before) || unquoted(&after));
        let text = [before.as_bytes(), b", No-Store ,", after.as_bytes()].concat();
        let mut headers = HeaderMap::new();
        headers.insert("cache-control", HeaderValue::from_bytes(&text).unwrap());
        prop_assert!(CacheFields::parse(&headers, &[]).directives.no_store);
    }

    #[test]
    fn age_grows_with_time_and_freshness_never_comes_back(
        max_age in 0_u32..1_000,
        age in 0_u32..1_000,
        earlier in 0_i64..2_000,
        later in 0_i64..2_000,
    ) {
        let (earlier, later) = (earlier.min(later), earlier.max(later));
        let settings = Circumstances::default().settings;
        let head = stored(&format!("ETag: \"a\" | Cache-Control: max-age={max_age} | Age: {age}"));
        let (old, new) = (head.freshness(&settings, after(earlier)), head.freshness(&settings, after(later)));
        prop_assert_eq!(new.age_secs() - old.age_secs(), u64::try_from(later - earlier).unwrap());
        prop_assert!(old.is_fresh() || !new.is_fresh());
        prop_assert_eq!(new.is_fresh(), new.ttl_secs() > 0);
        // However far the clock steps back, it is never newborn.
        let back = head.freshness(&settings, after(-2 - later));
        prop_assert!(!back.is_fresh() && back.age_secs() >= u64::from(max_age));
    }

    #[test]
    fn what_may_be_served_stale_may_be_served_earlier(
        directives in proptest::sample::subsequence(
            vec!["max-age=60", "s-maxage=60", "must-revalidate", "no-cache", "stale-if-error=90", "stale-while-revalidate=30"], 0..=6,
        ),
        earlier in 0_i64..400,
        later in 0_i64..400,
        connectivity in prop_oneof![Just(Connectivity::Connected), Just(Connectivity::Disconnected)],
    ) {
        let (earlier, later) = (earlier.min(later), earlier.max(later));
        let circumstances = Circumstances { connectivity, ..Circumstances::new("offline=200 sie=50 swr=20") };
        let head = stored(&format!("ETag: \"a\" | Cache-Control: x, {}", directives.join(", ")));
        let reused = |secs| matches!(circumstances.decide("", Lookup::Stored(&head), secs), Decision::Reuse(_));
        prop_assert!(reused(earlier) || !reused(later));
        let stands_in = |secs| matches!(
            on_failure(&Request::new("").head(), Failure::Broken, Some(&head), &circumstances.settings, after(secs)),
            OnFailure::ServeStale(_)
        );
        prop_assert!(stands_in(earlier) || !stands_in(later));
        // Nothing stale is served against these, whatever the windows.
        let forbidden = directives.iter().any(|name| matches!(*name, "must-revalidate" | "no-cache"));
        prop_assert!(!(forbidden && later >= 60 && (reused(later) || stands_in(later))));
    }

    #[test]
    fn terms_do_not_depend_on_the_order_of_directives(
        directives in Just(vec!["max-age=60", "s-maxage=9", "private", "public", "no-cache=\"a\"", "stale-if-error=3", "x=\"y, z\""]).prop_shuffle(),
    ) {
        let settings = Circumstances::default().settings;
        let terms = |text: &str| {
            let headers = super::response_headers(&format!("Cache-Control: {text}"));
            Terms::parse(StatusCode::OK, &headers, &settings, START, START)
        };
        let mut sorted = directives.clone();
        sorted.sort_unstable();
        prop_assert_eq!(terms(&directives.join(", ")), terms(&sorted.join(",")));
    }

    #[test]
    fn a_secret_is_not_in_its_variant_key(secret in "[a-zA-Z0-9]{12,40}", name in prop_oneof![Just("authorization"), Just("cookie")]) {
        let request = super::headers(&format!("{name}: {secret}"));
        let response = super::headers(&format!("Vary: {name}"));
        let key = VariantKey::new(&request, &response);
        let bytes = postcard::to_stdvec(&key).unwrap();
        prop_assert!(!bytes.windows(4).any(|part| part == &secret.as_bytes()[..4]));
        prop_assert!(key.matches(&request, &response));
        let other = super::headers(&format!("{name}: {secret}x"));
        prop_assert!(!key.matches(&other, &response));
    }
}
