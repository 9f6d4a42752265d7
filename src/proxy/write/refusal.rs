//! Why a write is neither passed on nor queued, as its client is told.

use std::{ops::RangeInclusive, time::Duration};

use http::Response;

use super::body::GatherError;
use crate::{
    policy::Reason,
    proxy::{
        failure::Failed,
        problem::{Close, Problem},
    },
    queue::Refused,
    upstream::ResponseBody,
};

/// Whoever is refused for want of room comes back after so many seconds, more or less.
const RETRY_AFTER_SECS: RangeInclusive<u64> = 2..=10;

pub(super) fn ungathered(error: &GatherError) -> Problem {
    let problem = match error {
        GatherError::BrokenOff(_) => Problem::new(Reason::BadRequest, error.to_string()),
        GatherError::Refused(error) => *refused(error),
    };
    // What is left of the body is not read.
    Problem {
        close: Close::Close,
        ..problem
    }
}

pub(super) fn refused(refused: &Refused) -> Box<Problem> {
    let detail = refused.to_string();
    Box::new(match refused {
        Refused::TooLarge { .. } => Problem::new(Reason::BodyTooLarge, detail),
        Refused::KeyMismatch(_) => Problem::new(Reason::IdempotencyMismatch, detail),
        Refused::CredentialNotStorable => {
            let detail = format!("{detail}; name a file of keys: queue.key_file");
            Problem::new(Reason::CredentialNotStorable, detail)
        }
        // Not as one that may come back: that would be a second write.
        Refused::Unknown => Problem::new(Reason::OutcomeUnknown, detail),
        _ => full(detail),
    })
}

/// 502 or 504, as the failure would have it.
pub(super) fn unknown(sent: &Result<Response<ResponseBody>, Failed>) -> Problem {
    let (status, what) = match sent {
        Ok(response) => {
            let status = response.status();
            (status, format!("the origin's gateway answered {status}"))
        }
        Err(failed) => {
            let failure = failed.to_problem(None);
            (failure.status(), failure.detail)
        }
    };
    let detail = format!(
        "{what}; the origin may have executed the write, which is not sent again by itself"
    );
    Problem {
        status: Some(status),
        ..Problem::new(Reason::OutcomeUnknown, detail)
    }
}

fn full(detail: String) -> Problem {
    Problem {
        // Spread, so that those who were turned away together do not come back together.
        retry_after: Some(Duration::from_secs(fastrand::u64(RETRY_AFTER_SECS))),
        ..Problem::new(Reason::QueueFull, detail)
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::{Reason, Refused, refused};
    use crate::queue::Unavailable;

    /// A client that was told to come back sent the same order twice.
    #[test]
    fn only_what_is_surely_not_queued_is_asked_to_come_back() {
        let unknown = refused(&Refused::Unknown);
        assert_eq!(unknown.reason, Reason::OutcomeUnknown);
        assert_eq!(unknown.status(), StatusCode::BAD_GATEWAY);
        assert_eq!(unknown.retry_after, None);
        assert!(unknown.detail.contains("may be queued"));
        let closed = refused(&Refused::Unavailable(Unavailable::Closed));
        assert_eq!(closed.reason, Reason::QueueFull);
        assert!(closed.retry_after.is_some());
    }
}
