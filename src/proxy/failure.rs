//! What a failed forward means: for the policy a [`Failure`], for a client without a stand-in a problem.

use std::{error::Error as _, sync::Arc, time::Duration};

use super::problem::Problem;
use crate::{
    policy::{Failure, Reason},
    upstream::ForwardError,
};

/// Who meets this first is a developer with an origin on the same machine.
const DENIED_HELP: &str = "; if the forward proxy is meant to reach it, list its network in forward.allow_networks, or \
                           serve it by a reverse route (--upstream URL)";

/// A failed forward, in a form that everyone who waited for it can have.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{detail}")]
pub(crate) struct Failed {
    kind: Kind,
    is_never_sent: bool,
    detail: Arc<str>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Forward(Failure),
    Denied,
    RequestBody,
    Internal,
}

impl Failed {
    /// A fault of our own.
    pub(crate) fn internal() -> Self {
        Self {
            kind: Kind::Internal,
            is_never_sent: true,
            detail: Arc::from("the gateway could not forward the request"),
        }
    }

    /// The failure in the policy's terms; `None` where no stored response may stand in.
    pub(crate) const fn failure(&self) -> Option<Failure> {
        match self.kind {
            Kind::Forward(failure) => Some(failure),
            Kind::Denied | Kind::RequestBody | Kind::Internal => None,
        }
    }

    /// Whether the origin has provably not executed the request.
    pub(crate) const fn is_never_sent(&self) -> bool {
        self.is_never_sent
    }

    /// Whether it is no failure of the origin or of the way there: trying again would come to the same.
    pub(crate) const fn is_final(&self) -> bool {
        !matches!(self.kind, Kind::Forward(_))
    }

    /// The problem for a client; `reason` as the policy gave it, where it was asked.
    pub(crate) fn to_problem(&self, reason: Option<Reason>) -> Problem {
        let own = match self.kind {
            Kind::Forward(Failure::Disconnected) => Reason::OfflineMiss,
            Kind::Forward(Failure::TimedOut | Failure::FreshTimeout) => Reason::UpstreamTimeout,
            Kind::Forward(Failure::Broken) => Reason::UpstreamError,
            Kind::Forward(Failure::Overloaded) => Reason::Overloaded,
            Kind::Denied => Reason::ForwardDenied,
            Kind::RequestBody => Reason::BadRequest,
            Kind::Internal => Reason::Internal,
        };
        let mut problem = Problem::new(reason.unwrap_or(own), &*self.detail);
        if problem.reason == Reason::Overloaded {
            // Spread, so that those who were turned away together do not come back together.
            problem.retry_after = Some(Duration::from_secs(fastrand::u64(1..=3)));
        }
        problem
    }
}

impl From<ForwardError> for Failed {
    fn from(error: ForwardError) -> Self {
        if matches!(error, ForwardError::Content { .. }) {
            // Its causes name a file of ours.
            return Self {
                is_never_sent: error.never_sent(),
                ..Self::internal()
            };
        }
        let is_never_sent = error.never_sent();
        let kind = match &error {
            ForwardError::Disconnected | ForwardError::Connect { .. } => {
                Kind::Forward(Failure::Disconnected)
            }
            ForwardError::TimedOut { .. } => Kind::Forward(Failure::TimedOut),
            ForwardError::Overloaded => Kind::Forward(Failure::Overloaded),
            ForwardError::Denied { .. } => Kind::Denied,
            ForwardError::RequestBody { .. } => Kind::RequestBody,
            _ => Kind::Forward(Failure::Broken),
        };
        // The whole chain: "cannot connect to a:1: connection refused" is what an operator needs.
        let mut detail = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let text = cause.to_string();
            if !detail.contains(&text) {
                detail.push_str(": ");
                detail.push_str(&text);
            }
            source = cause.source();
        }
        if matches!(kind, Kind::Denied) {
            detail.push_str(DENIED_HELP);
        }
        Self {
            kind,
            is_never_sent,
            detail: Arc::from(detail),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Failed;
    use crate::{policy::Reason, upstream::ForwardError};

    #[test]
    fn a_denied_address_comes_with_what_would_allow_it() {
        let address = "127.0.0.1:3000".parse().unwrap();
        let problem = Failed::from(ForwardError::Denied { address }).to_problem(None);
        assert_eq!(problem.reason, Reason::ForwardDenied);
        for part in ["127.0.0.1:3000", "forward.allow_networks", "--upstream"] {
            assert!(problem.detail.contains(part), "{}", problem.detail);
        }
    }
}
