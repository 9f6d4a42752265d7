//! What the answer to a delivery, or its absence, means for the write. Pure: the clock's time is an argument.
//!
//! Two questions, in this order. Was it the origin that answered ([`Verdict::Captive`])? And what follows from the answer: the
//! table of the write queue's specification, in [`by_status`]. Where the first has no sure answer, what may have been executed
//! and must not be twice is an operator's ([`Verdict::Suspect`]). Invariant: a write is only to be sent again when nothing was
//! executed, or when a second execution does no harm ([`Repeat`](super::Repeat)).

use http::header;

use super::{
    item::{Dead, Done, Item, Parked, Repeat, State},
    outlet::{Proof, Received, SendError},
    settings::Config,
};
use crate::policy::{self, Suspicion, Timestamp};

/// What becomes of a write after one delivery of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is done.
    Done(Done),
    /// It is sent again after a pause.
    Retry(Effect),
    /// It is sent again after a pause, with what its credential is by then.
    Refresh,
    /// An operator has to see to it; and what the operator should know.
    Park(Parked, Option<String>),
    /// The origin refused it for good.
    Rejected,
    /// Nothing was sent: no attempt was made.
    Unsent(Unsent),
    /// Somebody else than the origin answered, and why that is thought. No attempt was made.
    Captive(Suspicion),
    /// As likely as not somebody else answered; but if it was the origin, the write was executed, and must not be twice.
    Suspect(Suspicion),
}

/// Whether an attempt may have had an effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// The answer says that nothing was executed.
    None,
    /// Nobody can tell.
    Possible,
}

/// Why nothing was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unsent {
    /// There is no connection to be had.
    Disconnected,
    /// There was no permit for the origin.
    Busy,
    /// The origin handed the request back.
    HandedBack,
}

/// Whether the origin has given a plausible answer since the last outage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Trial {
    /// Not yet.
    Canary,
    /// Yes.
    Passed,
    /// Yes, and after this very write was refused with HTML: a second refusal is the origin's.
    Cleared,
}

/// What a delivery's answer is judged by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judged<'a> {
    /// The write, as it was before this attempt.
    pub(super) item: &'a Item,
    /// Whether the request asked for HTML by name.
    pub(super) accepts_html: bool,
    /// Whether its credential is read anew for each delivery.
    pub(super) has_credential_source: bool,
    pub(super) trial: Trial,
    pub(super) proof: Proof,
}

/// Why a write is not sent (again): what it becomes instead. Asked before each sending. What waits since `expires_by` or before
/// has waited for too long.
pub(super) fn obstacle(
    item: &Item,
    config: &Config,
    now: Timestamp,
    expires_by: Timestamp,
) -> Option<(State, String)> {
    if item.waits_since() <= expires_by {
        let remark = "it waited longer than queue.max_age".to_owned();
        return Some((State::Dead(Dead::Expired), remark));
    }
    if item.counted_attempts() >= config.max_attempts {
        let remark = "queue.max_attempts were made".to_owned();
        return Some((State::Dead(Dead::Attempts), remark));
    }
    if !item.may_be_repeated(now) {
        let remark = match item.repeat {
            Repeat::Keyed => {
                "it may have been executed, and the origin may have forgotten its key by now"
            }
            _ => "it may have been executed, and a second execution might do harm",
        };
        return Some((State::Parked(Parked::Ambiguous), remark.to_owned()));
    }
    None
}

/// What follows from the answer, or from its absence.
pub(super) fn judge(answer: Result<&Received, &SendError>, by: &Judged<'_>) -> Verdict {
    match answer {
        Ok(received) => match suspicion(received, by) {
            Some(suspicion) if may_be_executed(received, suspicion, by.item) => {
                Verdict::Suspect(suspicion)
            }
            Some(suspicion) => Verdict::Captive(suspicion),
            None => by_status(received, by),
        },
        Err(SendError::Disconnected(_)) => Verdict::Unsent(Unsent::Disconnected),
        Err(SendError::Busy) => Verdict::Unsent(Unsent::Busy),
        // What is put off is put back before it is judged.
        Err(SendError::NotSent(_) | SendError::Deferred(_)) => Verdict::Unsent(Unsent::HandedBack),
        Err(SendError::Unknown(_)) => retry_or_ask(by.item),
        Err(SendError::Impossible(why)) => Verdict::Park(Parked::Operator, Some(why.clone())),
    }
}

/// The table "Answer on replay".
fn by_status(received: &Received, by: &Judged<'_>) -> Verdict {
    let item = by.item;
    let was_ambiguous = item.ambiguous_since.is_some();
    match received.answer.status {
        200..=299 => Verdict::Done(Done::Answered),
        401 if by.has_credential_source => Verdict::Refresh,
        401 => Verdict::Park(Parked::Auth, None),
        404 | 410 if item.method == "DELETE" && was_ambiguous => Verdict::Done(Done::Assumed),
        408 | 421 | 425 | 429 => Verdict::Retry(Effect::None),
        // A PUT or a conditional write has its key besides, and so may be the one that is outstanding.
        409 if item.has_honoured_key() && says_outstanding(received) => {
            Verdict::Retry(Effect::None)
        }
        409 => Verdict::Park(Parked::Conflict, None),
        412 => Verdict::Park(
            Parked::Conflict,
            was_ambiguous.then(|| {
                "an earlier attempt got no answer: it may be our own that succeeded".to_owned()
            }),
        ),
        300..=499 | 501 | 505 => Verdict::Rejected,
        503 if not_executed(received, item) => Verdict::Retry(Effect::None),
        // An unknown 5xx is a 500, and what is no status at all is taken for one (RFC 9110 section 15).
        _ => retry_or_ask(item),
    }
}

/// After an attempt that may have been executed.
fn retry_or_ask(item: &Item) -> Verdict {
    if item.repeat.is_allowed() {
        Verdict::Retry(Effect::Possible)
    } else {
        Verdict::Park(Parked::Ambiguous, None)
    }
}

/// Whether a 503 is taken for "not executed". A write that may be repeated anyway is not made ambiguous by it.
fn not_executed(received: &Received, item: &Item) -> bool {
    item.repeat.is_allowed() || item.trust_503 || received.headers.contains_key(header::RETRY_AFTER)
}

/// Whether a 409 says that an earlier request with this key is still worked on
/// (draft-ietf-httpapi-idempotency-key-header section 2.6).
fn says_outstanding(received: &Received) -> bool {
    let Ok(problem) = serde_json::from_slice::<serde_json::Value>(&received.answer.body) else {
        return false;
    };
    let says = |member: &str| {
        let text = problem.get(member).and_then(|value| value.as_str());
        text.is_some_and(|text| text.to_ascii_lowercase().contains("outstanding"))
    };
    ["type", "title", "detail"].into_iter().any(says)
}

/// Whether a suspicious answer, were it the origin's after all, would mean that what must not be executed twice was. A refusal
/// does not, whoever gave it; 511 is no origin's.
fn may_be_executed(received: &Received, suspicion: Suspicion, item: &Item) -> bool {
    !item.repeat.is_allowed()
        && suspicion != Suspicion::NetworkAuthentication
        && received.answer.status < 400
}

/// Why the answer is not believed to be the origin's.
fn suspicion(received: &Received, by: &Judged<'_>) -> Option<Suspicion> {
    if by.proof == Proof::Proven {
        return None;
    }
    let status = received.answer.status;
    let suspicion = policy::suspicion(status, &received.headers, &by.item.url)?;
    let expects_html = by.accepts_html || by.item.answers_html;
    let is_telling = match by.trial {
        Trial::Canary | Trial::Passed => true,
        Trial::Cleared => status < 400,
    };
    (suspicion != Suspicion::Html || is_telling && !expects_html).then_some(suspicion)
}

impl Verdict {
    /// The name in metrics and logs.
    pub(super) const fn as_str(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Retry(_) => "retry",
            Self::Refresh => "refresh",
            Self::Park(..) => "parked",
            Self::Rejected => "dead",
            Self::Unsent(_) => "unsent",
            Self::Captive(_) | Self::Suspect(_) => "captive",
        }
    }
}

#[cfg(test)]
mod tests {
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
}
