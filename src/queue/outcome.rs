//! What becomes of a write whose first attempt came to nothing: queued, handed on as it is, or unknown.
//!
//! Only a failure to connect, a request that was handed back unsent, and HTTP/2's own word prove that a write was not
//! executed. A server that closes without reading and one that executed all of it look the same.

use http::StatusCode;

use super::item::Repeat;

/// What was seen of a first attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Observation {
    /// Provably nothing was executed.
    NotSent,
    /// Some of it was written, and no answer came: reset, end of stream, timeout, garbage.
    Unknown,
    /// An answer.
    Answered {
        /// Its status.
        status: StatusCode,
        /// Whether it says when to come back.
        has_retry_after: bool,
    },
}

/// What becomes of the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It is queued; it was not executed.
    Queue,
    /// It is queued; it may have been executed.
    QueueAmbiguous,
    /// The client gets the origin's answer.
    HandOn,
    /// The client is told that nobody knows.
    Unknown,
}

/// The table of what is queueable. `trust_503`: whether a 503 without Retry-After proves that nothing was executed.
pub fn outcome(observation: Observation, repeat: Repeat, trust_503: bool) -> Outcome {
    let (status, has_retry_after) = match observation {
        Observation::NotSent => return Outcome::Queue,
        Observation::Unknown if repeat.is_allowed() => return Outcome::QueueAmbiguous,
        Observation::Unknown => return Outcome::Unknown,
        Observation::Answered {
            status,
            has_retry_after,
        } => (status, has_retry_after),
    };
    match status.as_u16() {
        408 | 421 | 425 | 429 => Outcome::Queue,
        503 if repeat.is_allowed() || has_retry_after || trust_503 => Outcome::Queue,
        // A gateway's word on what it did not hear from the origin behind it.
        502 | 504 if repeat.is_allowed() => Outcome::QueueAmbiguous,
        _ => Outcome::HandOn,
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::{
        Observation::{self, NotSent},
        Outcome::{self, HandOn, Queue, QueueAmbiguous},
        outcome,
    };
    use crate::queue::Repeat::{Conditional, Doubtful, Harmless, Keyed};

    #[test]
    fn what_is_queued_depends_on_what_was_seen_and_on_what_a_second_time_would_do() {
        let answer = |status, has_retry_after| Observation::Answered {
            status: StatusCode::from_u16(status).unwrap(),
            has_retry_after,
        };
        let check = |observation, [harmless, doubtful, guarded]: [Outcome; 3]| {
            assert_eq!(outcome(observation, Harmless, false), harmless);
            assert_eq!(outcome(observation, Doubtful, false), doubtful);
            assert_eq!(outcome(observation, Keyed, false), guarded);
            assert_eq!(outcome(observation, Conditional, false), guarded);
        };
        check(NotSent, [Queue; 3]);
        let unknown = [QueueAmbiguous, Outcome::Unknown, QueueAmbiguous];
        check(Observation::Unknown, unknown);
        for status in [408, 421, 425, 429] {
            check(answer(status, false), [Queue; 3]);
        }
        check(answer(503, false), [Queue, HandOn, Queue]);
        check(answer(503, true), [Queue; 3]);
        for status in [502, 504] {
            let ambiguous = [QueueAmbiguous, HandOn, QueueAmbiguous];
            check(answer(status, false), ambiguous);
            check(answer(status, true), ambiguous);
        }
        for status in [
            200, 201, 302, 400, 404, 409, 412, 422, 500, 501, 505, 507, 511,
        ] {
            check(answer(status, true), [HandOn; 3]);
        }
    }

    #[test]
    fn an_operator_may_vouch_for_503() {
        let unavailable = Observation::Answered {
            status: StatusCode::SERVICE_UNAVAILABLE,
            has_retry_after: false,
        };
        assert_eq!(outcome(unavailable, Doubtful, true), Queue);
    }
}
