//! The first decision, as tables: what is stored, the circumstances, the request, the seconds since, and what happens.

use super::{Circumstances, Lookup, cases, describe};

/// `stored :: circumstances :: request :: seconds => decision`; `-` stands for nothing.
fn check(table: &str) {
    for case in cases(table) {
        let (question, expected) = case.split_once(" => ").expect("a decision");
        let parts: Vec<&str> = question
            .split(" :: ")
            .map(|part| if part == "-" { "" } else { part })
            .collect();
        let [stored, words, request, secs] = parts[..] else {
            panic!("{case}");
        };
        let circumstances = Circumstances::new(words);
        let secs = secs.parse().unwrap();
        let decision = match stored {
            "nothing" => circumstances.decide(request, Lookup::Nothing, secs),
            "others" => circumstances.decide(request, Lookup::OtherVariants, secs),
            response => {
                let head = circumstances.stored("", response);
                circumstances.decide(request, Lookup::Stored(&head), secs)
            }
        };
        assert_eq!(describe(&decision), expected, "{case}");
    }
}

#[test]
fn nothing_stored() {
    check(
        r#"
        nothing :: - :: - :: 0 => fwd uri-miss collapse
        others :: - :: - :: 0 => fwd vary-miss collapse
        nothing :: - :: Cache-Control: only-if-cached :: 0 => 504 only-if-cached
        others :: disconnected :: Cache-Control: only-if-cached :: 0 => 504 only-if-cached
        nothing :: disconnected :: - :: 0 => 504 offline-miss
        others :: disconnected :: - :: 0 => 504 offline-miss
        nothing :: offline :: - :: 0 => 504 offline-miss
        nothing :: online :: - :: 0 => fwd uri-miss collapse
        nothing :: prefer-cache :: - :: 0 => fwd uri-miss collapse
        // Fills that cannot serve others.
        nothing :: - :: HEAD :: 0 => fwd uri-miss
        nothing :: - :: QUERY :: 0 => fwd uri-miss collapse
        nothing :: - :: QUERY: Authorization: x :: 0 => fwd uri-miss
        nothing :: disconnected :: QUERY :: 0 => 504 offline-miss
        nothing :: - :: Range: bytes=0-1 :: 0 => fwd uri-miss
        nothing :: - :: If-None-Match: "a" :: 0 => fwd uri-miss
        nothing :: - :: Authorization: x :: 0 => fwd uri-miss
        nothing :: private :: Authorization: x :: 0 => fwd uri-miss collapse
        nothing :: - :: Cache-Control: no-store :: 0 => fwd uri-miss
        nothing :: - :: Cache-Control: no-cache :: 0 => fwd uri-miss
        "#,
    );
}

#[test]
fn what_the_store_cannot_answer() {
    check(
        r#"
        Cache-Control: max-age=60 :: - :: POST+body :: 0 => fwd method
        Cache-Control: max-age=60 :: - :: DELETE :: 0 => fwd method
        Cache-Control: max-age=60 :: - :: OPTIONS :: 0 => fwd method
        Cache-Control: max-age=60 :: - :: M-SEARCH :: 0 => fwd method
        Cache-Control: max-age=60 :: - :: GET+body :: 0 => fwd bypass
        Cache-Control: max-age=60 :: disconnected :: POST+body :: 0 => 504 offline-miss
        Cache-Control: max-age=60 :: disconnected :: GET+body :: 0 => 504 offline-miss
        Cache-Control: max-age=60 :: offline :: DELETE :: 0 => 504 offline-miss
        Cache-Control: max-age=60 :: - :: HEAD :: 0 => hit
        Cache-Control: max-age=60 :: - :: QUERY :: 0 => hit
        Cache-Control: max-age=60 | ETag: "a" :: - :: QUERY :: 60 => fwd stale validate collapse
        Cache-Control: max-age=60 :: disconnected :: QUERY :: 60 => reuse disconnected
        // With a body that is not in the key.
        Cache-Control: max-age=60 :: - :: QUERY+body :: 0 => fwd bypass
        // Preconditions for the origin go to the origin, with nothing added (RFC 9111 section 4.3.2).
        Cache-Control: max-age=60 | ETag: "a" :: - :: If-Match: "a" :: 0 => fwd request
        Cache-Control: max-age=60 | ETag: "a" :: - :: If-Unmodified-Since: @0 :: 90 => fwd stale
        Cache-Control: max-age=60 | ETag: "a" :: prefer-cache :: If-Match: "a" :: 0 => fwd request
        Cache-Control: max-age=60 | ETag: "a" :: disconnected :: If-Match: "a" :: 0 => reuse disconnected
        "#,
    );
}

#[test]
fn an_operator_may_ignore_what_clients_say() {
    check(
        r#"
        Cache-Control: max-age=60 :: ignore-client :: Cache-Control: no-cache :: 1 => hit
        Cache-Control: max-age=60 :: ignore-client :: Pragma: no-cache :: 1 => hit
        Cache-Control: max-age=60 :: ignore-client :: Cache-Control: max-age=0, min-fresh=99 :: 1 => hit
        Cache-Control: max-age=60 :: ignore-client :: Cache-Control: max-stale :: 61 => fwd stale collapse
        Cache-Control: max-age=60 :: ignore-client :: Cache-Control: only-if-cached :: 61 => fwd stale collapse
        nothing :: ignore-client :: Cache-Control: no-store, only-if-cached :: 0 => fwd uri-miss collapse
        nothing :: ignore-client :: Pragma: no-cache :: 0 => fwd uri-miss collapse
        // Conditions are no directives.
        Cache-Control: max-age=60 | ETag: "a" :: ignore-client :: If-Match: "a" :: 0 => fwd request
        "#,
    );
}

#[test]
fn fresh_and_stale() {
    check(
        r#"
        Cache-Control: max-age=60 :: - :: - :: 59 => hit
        Cache-Control: max-age=60 :: - :: - :: 60 => fwd stale collapse
        Cache-Control: max-age=60 | ETag: "a" :: - :: - :: 60 => fwd stale validate collapse
        Cache-Control: max-age=60 | Last-Modified: @-9 :: - :: - :: 60 => fwd stale validate collapse
        Cache-Control: max-age=60 | Last-Modified: soon :: - :: - :: 60 => fwd stale collapse
        Cache-Control: max-age=60 :: - :: If-None-Match: "b" :: 60 => fwd stale
        Cache-Control: max-age=60 | ETag: "a" :: - :: If-None-Match: "b" :: 60 => fwd stale validate collapse
        Cache-Control: max-age=60 | ETag: "a" :: - :: Range: bytes=0-1 :: 60 => fwd stale validate
        Cache-Control: max-age=60 | ETag: "a" :: - :: HEAD :: 60 => fwd stale validate
        Cache-Control: max-age=60, no-cache | ETag: "a" :: - :: - :: 0 => fwd stale validate collapse
        // Marked by a purge or by an unsafe method.
        Cache-Control: max-age=60 | ETag: "a" :: stale :: - :: 0 => fwd stale validate collapse
        Cache-Control: max-age=60 | ETag: "a" :: invalid :: - :: 0 => fwd stale validate collapse
        Cache-Control: max-age=60 | ETag: "a" :: stale swr=9 :: - :: 0 => reuse stale-while-revalidate behind
        Cache-Control: max-age=60 | ETag: "a" :: invalid swr=9 :: - :: 0 => fwd stale validate collapse
        Cache-Control: max-age=60 :: stale disconnected :: - :: 0 => reuse disconnected
        Cache-Control: max-age=60 :: invalid disconnected :: - :: 0 => 504 offline-miss
        Cache-Control: max-age=60 :: invalid prefer-cache :: - :: 0 => fwd stale collapse
        Cache-Control: max-age=60 :: invalid offline override=must-revalidate,no-cache :: - :: 0 => 504 offline-miss
        // A clock that steps back makes a response stale, never newborn.
        Cache-Control: max-age=60 | ETag: "a" :: - :: - :: -1 => hit
        Cache-Control: max-age=60 | ETag: "a" :: - :: - :: -2 => fwd stale validate collapse
        Cache-Control: max-age=60, stale-while-revalidate=60 | ETag: "a" :: - :: - :: -100 => fwd stale validate collapse
        Cache-Control: max-age=60 :: disconnected :: - :: -100 => reuse disconnected
        // The route's default, where the origin says nothing.
        - :: ttl=60 :: - :: 59 => hit
        - :: ttl=60 :: - :: 60 => fwd stale collapse
        Cache-Control: max-age=0 :: ttl=60 :: - :: 1 => fwd stale collapse
        404 Content-Type: text/plain :: ttl=60 :: - :: 1 => fwd stale collapse
        404 Content-Type: text/plain :: ttl=60 negative=2 :: - :: 1 => hit
        404 Content-Type: text/plain :: ttl=60 negative=2 :: - :: 2 => fwd stale collapse
        "#,
    );
}

#[test]
fn stale_while_revalidate() {
    check(
        r#"
        Cache-Control: max-age=60, stale-while-revalidate=30 :: - :: - :: 89 => reuse stale-while-revalidate behind
        Cache-Control: max-age=60, stale-while-revalidate=30 :: - :: - :: 90 => fwd stale collapse
        // The origin's window wins over the route's.
        Cache-Control: max-age=60 :: swr=30 :: - :: 89 => reuse stale-while-revalidate behind
        Cache-Control: max-age=60, stale-while-revalidate=0 :: swr=30 :: - :: 61 => fwd stale collapse
        Cache-Control: max-age=60, stale-while-revalidate=x :: swr=30 :: - :: 61 => fwd stale collapse
        // An explicit window outranks s-maxage, the route's does not; the other directives outrank both.
        Cache-Control: s-maxage=60, stale-while-revalidate=30 :: - :: - :: 61 => reuse stale-while-revalidate behind
        Cache-Control: s-maxage=60 :: swr=30 :: - :: 61 => fwd stale collapse
        Cache-Control: max-age=60, s-maxage=60 :: swr=30 private :: - :: 61 => reuse stale-while-revalidate behind
        Cache-Control: max-age=60, stale-while-revalidate=30, must-revalidate :: - :: - :: 61 => fwd stale collapse
        Cache-Control: max-age=60, stale-while-revalidate=30, proxy-revalidate :: - :: - :: 61 => fwd stale collapse
        Cache-Control: max-age=60, stale-while-revalidate=30, proxy-revalidate :: private :: - :: 61 => reuse stale-while-revalidate behind
        Cache-Control: max-age=60, stale-while-revalidate=30, no-cache | ETag: "a" :: - :: - :: 61 => fwd stale validate collapse
        Cache-Control: max-age=60, must-revalidate :: swr=30 override=must-revalidate :: - :: 61 => reuse override behind
        // Not against the client's wishes, nor in online mode.
        Cache-Control: max-age=60, stale-while-revalidate=30 :: - :: Cache-Control: max-age=60 :: 61 => fwd stale collapse
        Cache-Control: max-age=60, stale-while-revalidate=30 :: - :: Cache-Control: max-age=70 :: 61 => reuse stale-while-revalidate behind
        Cache-Control: max-age=60, stale-while-revalidate=30 :: - :: Cache-Control: min-fresh=1 :: 61 => fwd stale collapse
        Cache-Control: max-age=60, stale-while-revalidate=30 :: - :: Cache-Control: no-cache :: 61 => fwd stale
        Cache-Control: max-age=60, stale-while-revalidate=30 :: - :: Cache-Control: only-if-cached :: 61 => reuse stale-while-revalidate behind
        Cache-Control: max-age=60, stale-while-revalidate=30 :: online :: - :: 61 => fwd stale collapse
        // Neither freshness nor validator: never while the origin answers. With a validator the route's window holds.
        - :: swr=600 :: - :: 1 => fwd stale collapse
        ETag: "a" :: swr=600 :: - :: 1 => reuse stale-while-revalidate behind
        "#,
    );
}

#[test]
fn requests_that_ask_for_more_or_less() {
    check(
        r#"
        Cache-Control: max-age=60 :: - :: Cache-Control: no-cache :: 1 => fwd request
        Cache-Control: max-age=60 | ETag: "a" :: - :: Cache-Control: No-Cache :: 1 => fwd request validate
        Cache-Control: max-age=60 :: - :: Pragma: no-cache :: 1 => fwd request
        Cache-Control: max-age=60 :: - :: Pragma: no-cache | Cache-Control: max-age=9 :: 1 => hit
        Cache-Control: max-age=60 :: - :: Cache-Control: max-age=0 :: 0 => fwd request collapse
        Cache-Control: max-age=60 :: - :: Cache-Control: max-age=10 :: 10 => hit
        Cache-Control: max-age=60 :: - :: Cache-Control: max-age=10 :: 11 => fwd request collapse
        Cache-Control: max-age=60 :: - :: Cache-Control: max-age=10, max-age=100 :: 11 => fwd request collapse
        Cache-Control: max-age=60 :: - :: Cache-Control: max-age=ten :: 11 => fwd request collapse
        Cache-Control: max-age=60 :: - :: Cache-Control: max-age="100" :: 11 => hit
        Cache-Control: max-age=60 :: - :: Cache-Control: min-fresh=50 :: 10 => hit
        Cache-Control: max-age=60 :: - :: Cache-Control: min-fresh=50 :: 11 => fwd request collapse
        Cache-Control: max-age=60 :: - :: Cache-Control: min-fresh=50, min-fresh=1 :: 11 => fwd request collapse
        Cache-Control: max-age=60 :: - :: Cache-Control: min-fresh=x :: 1 => fwd request collapse
        Cache-Control: max-age=60 :: - :: Cache-Control: only-if-cached :: 1 => hit
        Cache-Control: max-age=60 :: - :: Cache-Control: only-if-cached :: 61 => 504 only-if-cached
        Cache-Control: max-age=60 :: - :: Cache-Control: only-if-cached, no-cache :: 1 => 504 only-if-cached
        Cache-Control: max-age=60 :: - :: Cache-Control: nothing-to-see-here | Pragma: foo :: 1 => hit
        // RFC 8246: a reload need not ask for what cannot change; a forced one does.
        Cache-Control: max-age=60, immutable :: - :: Cache-Control: max-age=0 :: 1 => hit
        Cache-Control: max-age=60, immutable :: - :: Cache-Control: no-cache :: 1 => fwd request
        Cache-Control: max-age=60, immutable :: - :: Cache-Control: max-age=0 :: 61 => fwd stale collapse
        // max-stale
        Cache-Control: max-age=60 :: - :: Cache-Control: max-stale=10 :: 69 => reuse max-stale
        Cache-Control: max-age=60 :: - :: Cache-Control: max-stale=10 :: 70 => fwd stale collapse
        Cache-Control: max-age=60 :: - :: Cache-Control: max-stale :: 100000 => reuse max-stale
        Cache-Control: max-age=60 :: - :: Cache-Control: max-stale=x :: 61 => fwd stale collapse
        Cache-Control: max-age=60, must-revalidate :: - :: Cache-Control: max-stale :: 61 => fwd stale collapse
        Cache-Control: s-maxage=60 :: - :: Cache-Control: max-stale :: 61 => fwd stale collapse
        Cache-Control: max-age=60 :: online :: Cache-Control: max-stale :: 61 => fwd stale collapse
        Cache-Control: max-age=60 :: - :: Cache-Control: max-stale, only-if-cached :: 61 => reuse max-stale
        - :: - :: Cache-Control: max-stale :: 1 => fwd stale collapse
        "#,
    );
}

#[test]
fn disconnected() {
    check(
        r#"
        Cache-Control: max-age=60 :: disconnected :: - :: 1 => hit
        Cache-Control: max-age=60 :: disconnected :: - :: 61 => reuse disconnected
        - :: disconnected :: - :: 1 => reuse disconnected
        Cache-Control: max-age=60 :: disconnected offline=100 :: - :: 159 => reuse disconnected
        Cache-Control: max-age=60 :: disconnected offline=100 :: - :: 160 => 504 offline-miss
        Cache-Control: max-age=60, stale-if-error=200 :: disconnected offline=100 :: - :: 160 => reuse disconnected
        Cache-Control: max-age=60, stale-if-error=1 :: disconnected :: - :: 160 => reuse disconnected
        // There is nobody to ask, so the client's directives do not keep it from a stored response.
        Cache-Control: max-age=60 :: disconnected :: Cache-Control: no-cache :: 1 => reuse disconnected
        Cache-Control: max-age=60 :: disconnected :: Cache-Control: max-age=0 :: 61 => reuse disconnected
        Cache-Control: max-age=60 :: disconnected :: Cache-Control: min-fresh=99 :: 1 => reuse disconnected
        Cache-Control: max-age=60 :: disconnected :: Cache-Control: only-if-cached :: 61 => reuse disconnected
        // Forbidden by the response (RFC 9111 section 4.2.4), unless the operator overrides it.
        Cache-Control: max-age=60, must-revalidate :: disconnected :: - :: 1 => hit
        Cache-Control: max-age=60, must-revalidate :: disconnected :: Cache-Control: no-cache :: 1 => reuse disconnected
        Cache-Control: max-age=60, must-revalidate :: disconnected :: - :: 61 => 504 offline-miss
        Cache-Control: max-age=60, must-revalidate :: disconnected :: Cache-Control: only-if-cached :: 61 => 504 only-if-cached
        Cache-Control: max-age=60, proxy-revalidate :: disconnected :: - :: 61 => 504 offline-miss
        Cache-Control: max-age=60, proxy-revalidate :: disconnected private :: - :: 61 => reuse disconnected
        Cache-Control: s-maxage=60 :: disconnected :: - :: 61 => 504 offline-miss
        Cache-Control: s-maxage=60, stale-if-error=30 :: disconnected :: - :: 61 => reuse disconnected
        Cache-Control: s-maxage=60, stale-if-error=30 :: disconnected :: - :: 91 => 504 offline-miss
        Cache-Control: s-maxage=60, stale-if-error=30, must-revalidate :: disconnected :: - :: 61 => 504 offline-miss
        Cache-Control: no-cache | ETag: "a" :: disconnected :: - :: 1 => 504 offline-miss
        Cache-Control: max-age=60, no-cache | ETag: "a" :: disconnected :: - :: 1 => 504 offline-miss
        Cache-Control: max-age=60, must-revalidate :: disconnected override=must-revalidate :: - :: 61 => reuse override
        Cache-Control: max-age=60, proxy-revalidate :: disconnected override=must-revalidate :: - :: 61 => reuse override
        Cache-Control: s-maxage=60 :: disconnected override=s-maxage :: - :: 61 => reuse override
        Cache-Control: no-cache | ETag: "a" :: disconnected override=no-cache :: - :: 1 => reuse override
        Cache-Control: no-cache, must-revalidate | ETag: "a" :: disconnected override=no-cache :: - :: 1 => 504 offline-miss
        Cache-Control: max-age=60, must-revalidate :: disconnected override=must-revalidate offline=9 :: - :: 70 => 504 offline-miss
        // An override is for stale reuse: while the origin answers it is asked.
        Cache-Control: no-cache | ETag: "a" :: override=no-cache :: - :: 1 => fwd stale validate collapse
        "#,
    );
}

#[test]
fn modes() {
    check(
        r#"
        Cache-Control: max-age=60 :: online :: - :: 1 => hit
        Cache-Control: max-age=60 :: online disconnected :: - :: 61 => 504 offline-miss
        Cache-Control: max-age=60, stale-if-error=9 :: online disconnected :: - :: 61 => reuse disconnected
        Cache-Control: max-age=60 :: online disconnected :: Cache-Control: no-cache :: 1 => reuse disconnected
        Cache-Control: max-age=60 :: offline :: - :: 1 => hit
        Cache-Control: max-age=60 :: offline :: - :: 61 => reuse offline
        - :: offline :: - :: 1 => reuse offline
        Cache-Control: max-age=60 :: offline offline=9 :: - :: 70 => 504 offline-miss
        Cache-Control: max-age=60, must-revalidate :: offline :: - :: 61 => 504 offline-miss
        Cache-Control: max-age=60, must-revalidate :: offline override=must-revalidate :: - :: 61 => reuse override
        Cache-Control: max-age=60 :: prefer-cache :: - :: 1 => hit
        Cache-Control: max-age=60 :: prefer-cache :: - :: 61 => reuse prefer-cache behind
        Cache-Control: max-age=60 :: prefer-cache :: - :: 99999999 => reuse prefer-cache behind
        Cache-Control: max-age=60 :: prefer-cache :: Cache-Control: no-cache :: 1 => reuse prefer-cache behind
        Cache-Control: max-age=60 :: prefer-cache disconnected :: - :: 99999999 => reuse disconnected
        - :: prefer-cache :: - :: 1 => reuse prefer-cache behind
        Cache-Control: max-age=60, must-revalidate :: prefer-cache :: - :: 61 => fwd stale collapse
        Cache-Control: s-maxage=60 :: prefer-cache :: - :: 61 => fwd stale collapse
        Cache-Control: s-maxage=60 :: prefer-cache override=s-maxage :: - :: 61 => reuse override behind
        "#,
    );
}

#[test]
fn what_is_in_demand_is_validated_before_its_freshness_ends() {
    check(
        r#"
        Cache-Control: max-age=100 :: - :: - :: 99 => hit
        Cache-Control: max-age=100 :: ahead=20 :: - :: 0 => hit
        Cache-Control: max-age=100 :: ahead=20 :: - :: 79 => hit
        Cache-Control: max-age=100 :: ahead=20 :: - :: 80 => hit ahead
        Cache-Control: max-age=100 :: ahead=20 :: - :: 99 => hit ahead
        Cache-Control: max-age=100 :: ahead=20 :: - :: 100 => fwd stale collapse
        Cache-Control: max-age=100 | Age: 85 :: ahead=20 :: - :: 0 => hit ahead
        Cache-Control: max-age=100 :: ahead=1 :: - :: 98 => hit
        Cache-Control: max-age=100 :: ahead=1 :: - :: 99 => hit ahead
        Cache-Control: max-age=10 :: ahead=50 :: - :: 5 => hit ahead
        // Too short a life.
        Cache-Control: max-age=9 :: ahead=50 :: - :: 8 => hit
        // What the operator grants has an end, too.
        - :: ahead=20 ttl=100 :: - :: 90 => hit ahead
        // Where nobody may be asked, or need not be.
        Cache-Control: max-age=100 :: ahead=20 online :: - :: 90 => hit ahead
        Cache-Control: max-age=100 :: ahead=20 offline :: - :: 90 => hit
        Cache-Control: max-age=100 :: ahead=20 prefer-cache :: - :: 90 => hit
        Cache-Control: max-age=100 :: ahead=20 disconnected :: - :: 90 => hit
        // A fill for these serves nobody else.
        Cache-Control: max-age=100 :: ahead=20 :: HEAD :: 90 => hit
        Cache-Control: max-age=100 :: ahead=20 :: Range: bytes=0-1 :: 90 => hit
        Cache-Control: max-age=100 :: ahead=20 :: Cache-Control: no-store :: 90 => hit
        Cache-Control: max-age=100, public :: ahead=20 :: Authorization: x :: 90 => hit
        Cache-Control: max-age=100 :: ahead=20 private :: Authorization: x :: 90 => hit ahead
        // Stale answers are validated behind, whatever else.
        Cache-Control: max-age=100, stale-while-revalidate=9 :: ahead=20 :: - :: 101 => reuse stale-while-revalidate behind
        "#,
    );
}

#[test]
fn what_was_stored_for_one_user_is_not_handed_out_when_the_settings_change() {
    let private = Circumstances::new("private");
    let shared = Circumstances::new("disconnected");
    for (request, response) in [
        ("", "Cache-Control: private, max-age=60"),
        ("Authorization: a", "Cache-Control: max-age=60"),
    ] {
        let head = private.stored(request, response);
        let own = private.decide(request, Lookup::Stored(&head), 1);
        assert_eq!(describe(&own), "hit");
        let others = shared.decide(request, Lookup::Stored(&head), 1);
        assert_eq!(describe(&others), "504 offline-miss");
    }
}

#[test]
fn age_and_ttl_are_whole_seconds_and_negative_when_stale() {
    let circumstances = Circumstances::new("disconnected");
    let head = circumstances.stored("", "Cache-Control: max-age=60 | Age: 5");
    for (secs, age, ttl) in [
        (0, 5, 55),
        (54, 59, 1),
        (55, 60, 0),
        (56, 61, -1),
        (655, 660, -600),
    ] {
        let super::Decision::Reuse(reuse) = circumstances.decide("", Lookup::Stored(&head), secs)
        else {
            panic!("not reused after {secs} s");
        };
        assert_eq!((reuse.age_secs, reuse.ttl_secs), (age, ttl), "{secs}");
    }
}
