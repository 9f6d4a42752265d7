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
mod tests;
