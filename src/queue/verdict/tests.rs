//! The table "Answer on replay", line by line, and who is believed to have answered.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};

use super::{
    Effect, Judged, Suspicion, Trial, Unsent,
    Verdict::{self, Captive, Park, Refresh, Rejected, Retry, Suspect},
    judge, obstacle,
};
use crate::{
    policy::Timestamp,
    queue::{
        Answer, Dead, Done, Item, Parked, Proof, Received,
        Repeat::{self, Conditional, Doubtful, Harmless, Keyed},
        SendError, State,
        tests::{config, item},
    },
};

const DONE: Verdict = Verdict::Done(Done::Answered);
const ASSUMED: Verdict = Verdict::Done(Done::Assumed);
const AGAIN: Verdict = Retry(Effect::None);
const DOUBTED: Verdict = Retry(Effect::Possible);
const ASK: Verdict = Park(Parked::Ambiguous, None);
const CONFLICT: Verdict = Park(Parked::Conflict, None);
const AUTH: Verdict = Park(Parked::Auth, None);

type Fields = &'static [(&'static str, &'static str)];
const NONE: Fields = &[];
const LATER: Fields = &[("retry-after", "5")];
const HTML: Fields = &[("content-type", "Text/HTML; charset=utf-8")];
const XHTML: Fields = &[("content-type", "application/xhtml+xml")];

fn write(method: &str, repeat: Repeat) -> Item {
    Item {
        method: method.to_owned(),
        repeat,
        ..item()
    }
}

fn ambiguous(method: &str, repeat: Repeat) -> Item {
    Item {
        ambiguous_since: Some(Timestamp::from_secs(1)),
        ..write(method, repeat)
    }
}

fn received(status: u16, fields: Fields, body: &'static str) -> Received {
    let field = |(name, value): &(&'static str, &'static str)| {
        let name = HeaderName::from_static(name);
        (name, HeaderValue::from_static(value))
    };
    Received {
        answer: Answer {
            status,
            fields: Vec::new(),
            body: Bytes::from_static(body.as_bytes()),
            is_truncated: false,
        },
        headers: fields.iter().map(field).collect(),
    }
}

fn judged(item: &Item, trial: Trial, proof: Proof) -> Judged<'_> {
    Judged {
        item,
        accepts_html: false,
        has_credential_source: false,
        trial,
        proof,
    }
}

#[track_caller]
fn check(item: Item, status: u16, fields: Fields, body: &'static str, expected: Verdict) {
    let by = judged(&item, Trial::Passed, Proof::Proven);
    let received = received(status, fields, body);
    let what = format!("{status} to {} ({:?})", item.method, item.repeat);
    assert_eq!(judge(Ok(&received), &by), expected, "{what}");
}

#[test]
fn an_answer_means_the_same_to_every_write() {
    let kinds = [
        ("PUT", Harmless),
        ("POST", Keyed),
        ("PATCH", Conditional),
        ("POST", Doubtful),
    ];
    for (method, repeat) in kinds {
        let check = |status, expected| {
            check(write(method, repeat), status, NONE, "", expected);
        };
        for status in [200, 201, 202, 204, 299] {
            check(status, DONE);
        }
        for status in [408, 421, 425, 429] {
            check(status, AGAIN);
        }
        for status in [
            300, 301, 302, 304, 307, 308, 400, 402, 403, 404, 405, 406, 410,
        ] {
            check(status, Rejected);
        }
        for status in [
            411, 413, 415, 417, 418, 422, 423, 424, 426, 428, 431, 451, 499,
        ] {
            check(status, Rejected);
        }
        check(501, Rejected);
        check(505, Rejected);
        check(401, AUTH);
        check(409, CONFLICT);
        check(412, CONFLICT);
    }
}

#[test]
fn a_failure_of_the_origin_is_retried_where_a_second_execution_does_no_harm() {
    for (method, repeat) in [
        ("PUT", Harmless),
        ("DELETE", Harmless),
        ("POST", Keyed),
        ("PATCH", Conditional),
    ] {
        let check = |status, expected| {
            check(write(method, repeat), status, NONE, "", expected);
        };
        for status in [500, 502, 504, 506, 507, 508, 510, 511, 599, 999] {
            check(status, DOUBTED);
        }
        check(503, AGAIN);
    }
    for status in [500, 502, 503, 504, 506, 507, 511, 599, 999] {
        check(write("POST", Doubtful), status, NONE, "", ASK);
    }
    for status in [500, 502, 504] {
        check(write("POST", Doubtful), status, LATER, "", ASK);
    }
    check(write("POST", Doubtful), 503, LATER, "", AGAIN);
    let trusting = Item {
        trust_503: true,
        ..write("PATCH", Doubtful)
    };
    check(trusting.clone(), 503, NONE, "", AGAIN);
    check(trusting, 500, NONE, "", ASK);
}

#[test]
fn what_an_ambiguous_attempt_may_have_done_is_taken_into_account() {
    check(ambiguous("DELETE", Harmless), 404, NONE, "", ASSUMED);
    check(ambiguous("DELETE", Harmless), 410, NONE, "", ASSUMED);
    check(ambiguous("PUT", Harmless), 404, NONE, "", Rejected);
    check(write("DELETE", Harmless), 404, NONE, "", Rejected);
    check(write("DELETE", Harmless), 410, NONE, "", Rejected);
    let item = ambiguous("PUT", Conditional);
    let by = judged(&item, Trial::Passed, Proof::Proven);
    let verdict = judge(Ok(&received(412, NONE, "")), &by);
    assert!(
        matches!(&verdict, Park(Parked::Conflict, Some(remark)) if remark.contains("our own")),
        "{verdict:?}"
    );
}

#[test]
fn a_409_that_says_outstanding_is_retried_with_an_honoured_key() {
    let with_key = |method, repeat, is_key_honoured| Item {
        idempotency_key: Some("k-1".to_owned()),
        is_key_honoured,
        ..write(method, repeat)
    };
    let kinds = [
        ("POST", Keyed),
        ("PUT", Harmless),
        ("DELETE", Harmless),
        ("PUT", Conditional),
        ("PATCH", Conditional),
    ];
    for problem in [
        r#"{"type":"https://api.example/errors/Outstanding-request"}"#,
        r#"{"title":"A request is outstanding for this Idempotency-Key"}"#,
        r#"{"detail":"Still OUTSTANDING."}"#,
    ] {
        for (method, repeat) in kinds {
            check(with_key(method, repeat, true), 409, NONE, problem, AGAIN);
            check(
                with_key(method, repeat, false),
                409,
                NONE,
                problem,
                CONFLICT,
            );
            check(write(method, repeat), 409, NONE, problem, CONFLICT);
        }
    }
    for problem in [r#"{"title":"The order is closed"}"#, "outstanding", "{", ""] {
        for (method, repeat) in kinds {
            check(with_key(method, repeat, true), 409, NONE, problem, CONFLICT);
        }
    }
}

#[test]
fn a_credential_that_is_refused_is_read_again_where_it_has_a_source() {
    let item = write("POST", Doubtful);
    let by = Judged {
        has_credential_source: true,
        ..judged(&item, Trial::Passed, Proof::Proven)
    };
    assert_eq!(judge(Ok(&received(401, NONE, "")), &by), Refresh);
    assert_eq!(judge(Ok(&received(403, NONE, "")), &by), Rejected);
}

#[test]
fn no_answer_is_an_attempt_only_when_something_may_have_been_sent() {
    let why = || "why".to_owned();
    let cases = [
        (
            SendError::Disconnected(why()),
            Verdict::Unsent(Unsent::Disconnected),
        ),
        (SendError::Busy, Verdict::Unsent(Unsent::Busy)),
        (
            SendError::NotSent(why()),
            Verdict::Unsent(Unsent::HandedBack),
        ),
        (
            SendError::Impossible(why()),
            Park(Parked::Operator, Some(why())),
        ),
    ];
    for repeat in [Harmless, Keyed, Conditional, Doubtful] {
        let item = write("POST", repeat);
        let by = judged(&item, Trial::Canary, Proof::Unproven);
        for (error, expected) in &cases {
            assert_eq!(judge(Err(error), &by), *expected, "{error} ({repeat:?})");
        }
        let expected = if repeat == Doubtful { ASK } else { DOUBTED };
        let unknown = SendError::Unknown(why());
        assert_eq!(judge(Err(&unknown), &by), expected, "{repeat:?}");
    }
}

#[track_caller]
fn check_portal(trial: Trial, status: u16, fields: Fields, expected: Option<Suspicion>) {
    let item = write("POST", Doubtful);
    let received = received(status, fields, "<html>");
    let verdict = judge(Ok(&received), &judged(&item, trial, Proof::Unproven));
    let found = match verdict {
        // What may have been executed is not sent again.
        Suspect(suspicion) if status < 400 => Some(suspicion),
        Captive(suspicion) if status >= 400 => Some(suspicion),
        _ => None,
    };
    assert_eq!(found, expected, "{status} {fields:?} ({trial:?})");
    for repeat in [Harmless, Keyed, Conditional] {
        let item = write("POST", repeat);
        let verdict = judge(Ok(&received), &judged(&item, trial, Proof::Unproven));
        assert_eq!(
            verdict == Captive(expected.unwrap_or(Suspicion::Html)),
            expected.is_some()
        );
    }
    let proven = judge(Ok(&received), &judged(&item, trial, Proof::Proven));
    assert!(
        !matches!(proven, Captive(_) | Suspect(_)),
        "{status} {fields:?} of a proven origin"
    );
}

#[test]
fn a_captive_portal_is_told_from_the_origin() {
    use Suspicion::{Html, NetworkAuthentication, RedirectElsewhere};
    for trial in [Trial::Canary, Trial::Passed, Trial::Cleared] {
        check_portal(trial, 511, NONE, Some(NetworkAuthentication));
        for status in [200, 201, 202] {
            check_portal(trial, status, HTML, Some(Html));
            check_portal(trial, status, XHTML, Some(Html));
            check_portal(trial, status, NONE, None);
            check_portal(trial, status, &[("content-type", "application/json")], None);
            check_portal(trial, status, &[("content-type", "text/html5")], None);
        }
        for elsewhere in [
            "https://api.example/orders",
            "http://portal.example/",
            "//portal.example/login",
            "http://user@portal.example:80/",
            "http://[::1]/",
            "http://api.example@portal.example/",
            "http://api.example.portal/",
            "mailto:desk@hotel.example",
        ] {
            let fields: Fields = Box::leak(Box::new([("location", elsewhere)]));
            for status in [301, 302, 303, 307, 308] {
                check_portal(trial, status, fields, Some(RedirectElsewhere));
            }
            check_portal(trial, 300, fields, None);
            check_portal(trial, 201, fields, None);
        }
        for here in [
            "/login",
            "orders/1",
            "?a=http://b/",
            "#x:y",
            "http://api.example/login",
            "HTTP://API.EXAMPLE:8080/",
            "//api.example/",
            "",
        ] {
            let fields: Fields = Box::leak(Box::new([("location", here)]));
            check_portal(trial, 302, fields, None);
        }
        check_portal(trial, 302, NONE, None);
        check_portal(trial, 503, HTML, None);
    }
    for status in [400, 403, 404, 409, 429] {
        check_portal(Trial::Canary, status, HTML, Some(Html));
        check_portal(Trial::Passed, status, HTML, Some(Html));
        check_portal(Trial::Cleared, status, HTML, None);
    }
}

#[test]
fn html_is_no_portal_where_it_is_asked_for() {
    let received = received(200, HTML, "");
    let item = write("POST", Doubtful);
    let asking = Judged {
        accepts_html: true,
        ..judged(&item, Trial::Canary, Proof::Unproven)
    };
    assert_eq!(judge(Ok(&received), &asking), DONE);
    let item = Item {
        answers_html: true,
        ..item.clone()
    };
    let by = judged(&item, Trial::Canary, Proof::Unproven);
    assert_eq!(judge(Ok(&received), &by), DONE);
}

#[test]
fn before_each_sending_it_is_asked_whether_it_may_still_be_sent() {
    let hour = Duration::from_secs(3_600);
    let mut config = config();
    config.max_attempts = 3;
    let at = |secs| Timestamp::from_secs(secs);
    let found = |item: &Item, secs| {
        let expires_by = at(secs - 36_000);
        obstacle(item, &config, at(secs), expires_by).map(|(state, _)| state)
    };
    let expired = Some(State::Dead(Dead::Expired));
    let asked = Some(State::Parked(Parked::Ambiguous));

    let young = write("POST", Doubtful);
    assert_eq!(found(&young, 0), None);
    assert_eq!(found(&young, -5), None);
    assert_eq!(found(&young, 35_999), None);
    assert_eq!(found(&young, 36_000), expired);
    let tried = |attempts| Item {
        attempts,
        ..write("PUT", Harmless)
    };
    assert_eq!(found(&tried(2), 0), None);
    assert_eq!(found(&tried(3), 0), Some(State::Dead(Dead::Attempts)));

    assert_eq!(found(&ambiguous("POST", Doubtful), 2), asked);
    assert_eq!(found(&ambiguous("PUT", Harmless), 30_000), None);
    assert_eq!(found(&ambiguous("PATCH", Conditional), 30_000), None);
    let keyed = Item {
        idempotency_ttl: hour,
        ..ambiguous("POST", Keyed)
    };
    assert_eq!(found(&keyed, 3_600), None);
    assert_eq!(found(&keyed, 3_601), asked);
    // A clock that was set back does not say how long ago it was.
    assert_eq!(found(&keyed, -58), None);
    assert_eq!(found(&keyed, -60), asked);
}
