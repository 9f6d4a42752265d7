//! Who shows which token, and what a wrong one costs. One for the whole process: wherever a token is taken, guessing is as slow at
//! all these places together as at one.
//!
//! Where clients ask with credentials of their own (receipts), one that is not ours is no guess by itself: a client whose
//! token was renewed shows what no write of it was sent with. What tells it from a guesser is how many it shows: the same one
//! again and again ([`strangers`](super::strangers)). At the admin listener nobody has another credential to show.
//!
//! Bound: at most [`DELAYED_REFUSALS`] refusals wait at once; more are refused without waiting, so that guessing stays
//! slow and costs no connection its place.

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, header::AUTHORIZATION};
use tokio::sync::Semaphore;
use tracing::warn;

use super::{
    strangers::Strangers,
    tokens::{Access, Tokens},
};
use crate::telemetry::Metrics;

// Slow enough that guessing is hopeless even for a short configured token, fast enough for a person's typing error.
const REFUSAL_DELAY: Duration = Duration::from_millis(250);
// 16 in 250 ms: at most 64 guesses a second. Connections that wait here are a sixteenth of those allowed.
pub(super) const DELAYED_REFUSALS: usize = 16;

/// The tokens, and those who wait because theirs was wrong.
pub struct Authentication {
    tokens: Tokens,
    delayed: Semaphore,
    strangers: Strangers,
    metrics: Arc<Metrics>,
}

/// Why a request has no access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unauthenticated {
    /// It shows no token. Nothing was guessed.
    NoToken,
    /// It shows a client's own, as far as can be told. Nothing was guessed.
    ClientsToken,
    /// It shows a wrong one. It has waited for that.
    WrongToken,
    /// It shows a wrong one, and so many others do that it may not even wait.
    TooManyGuesses,
}

impl Authentication {
    /// By these tokens.
    pub fn new(tokens: Tokens, metrics: Arc<Metrics>) -> Self {
        Self {
            tokens,
            delayed: Semaphore::new(DELAYED_REFUSALS),
            strangers: Strangers::default(),
            metrics,
        }
    }

    /// What the token that a request shows allows.
    pub(super) async fn access(&self, headers: &HeaderMap) -> Result<Access, Unauthenticated> {
        let Some(presented) = bearer_token(headers) else {
            self.metrics.admin_authentication_failures.inc();
            return Err(Unauthenticated::NoToken);
        };
        match self.tokens.access(presented) {
            Some(access) => Ok(access),
            None => Err(self.slow_down().await),
        }
    }

    /// Whether a request that need not show any token of ours shows the one that may do everything; any other, the read token
    /// as well, is a wrong one, unless it may be its client's own.
    ///
    /// # Errors
    /// See [`Unauthenticated`].
    pub async fn admin(&self, headers: &HeaderMap) -> Result<(), Unauthenticated> {
        let presented = bearer_token(headers).ok_or(Unauthenticated::NoToken)?;
        match self.tokens.access(presented) {
            Some(Access::Admin) => Ok(()),
            None if self.strangers.tolerate(presented) => Err(Unauthenticated::ClientsToken),
            Some(Access::Read) | None => Err(self.slow_down().await),
        }
    }

    /// Counts a wrong token, and makes whoever guessed wait.
    async fn slow_down(&self) -> Unauthenticated {
        self.metrics.admin_authentication_failures.inc();
        warn!("A request carried a wrong token.");
        let Ok(_permit) = self.delayed.try_acquire() else {
            return Unauthenticated::TooManyGuesses;
        };
        tokio::time::sleep(REFUSAL_DELAY).await;
        Unauthenticated::WrongToken
    }
}

/// The token of the one `Authorization` field, if its scheme is Bearer.
fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let mut fields = headers.get_all(AUTHORIZATION).iter();
    let (Some(field), None) = (fields.next(), fields.next()) else {
        return None;
    };
    let (scheme, token) = field.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, time::Duration};

    use http::{HeaderMap, HeaderValue, header::AUTHORIZATION};
    use tokio::time::Instant;

    use super::{Authentication, DELAYED_REFUSALS, Unauthenticated};
    use crate::{
        admin::{strangers::TOLERATED, tokens::Tokens},
        telemetry::Metrics,
    };

    fn showing(value: &str) -> HeaderMap {
        [(AUTHORIZATION, HeaderValue::try_from(value).unwrap())]
            .into_iter()
            .collect()
    }

    fn authentication(metrics: &Arc<Metrics>) -> Authentication {
        let tokens = Tokens::for_test("admin-admin-admin", "read-read-read-read");
        Authentication::new(tokens, Arc::clone(metrics))
    }

    #[tokio::test(start_paused = true)]
    async fn a_wrong_token_waits_wherever_it_is_shown_and_only_so_many_at_once() {
        let metrics = Metrics::new();
        let authentication = authentication(&metrics);
        for nth in 0..TOLERATED {
            let shown = showing(&format!("Bearer one of a client's, number {nth}"));
            let tolerated = authentication.admin(&shown).await;
            assert_eq!(tolerated, Err(Unauthenticated::ClientsToken));
        }
        let guesses = [
            showing("Bearer wrong"),
            showing("Bearer read-read-read-read"),
        ];
        let mut waiting = Vec::new();
        for nth in 0..DELAYED_REFUSALS {
            let mut refused = Box::pin(authentication.admin(&guesses[nth % 2]));
            assert!(futures_util::poll!(&mut refused).is_pending());
            waiting.push(refused);
        }
        let too_many = Err(Unauthenticated::TooManyGuesses);
        assert_eq!(authentication.admin(&guesses[1]).await, too_many);
        let at_the_api = authentication.access(&guesses[0]).await;
        assert_eq!(at_the_api, Err(Unauthenticated::TooManyGuesses));
        // Neither waits behind them.
        let right = showing("bearer admin-admin-admin");
        assert_eq!(authentication.admin(&right).await, Ok(()));
        let none = authentication.admin(&showing("Basic abc")).await;
        assert_eq!(none, Err(Unauthenticated::NoToken));
        for refused in waiting {
            assert_eq!(refused.await, Err(Unauthenticated::WrongToken));
        }
        let guessed = DELAYED_REFUSALS as u64 + 2;
        assert_eq!(metrics.admin_authentication_failures.get(), guessed);
    }

    #[tokio::test(start_paused = true)]
    async fn the_token_of_a_client_is_no_guess_however_often_it_is_shown() {
        let metrics = Metrics::new();
        let authentication = authentication(&metrics);
        let began = Instant::now();
        let renewed = showing("Bearer a client's own");
        for _ in 0..1_000 {
            let found = authentication.admin(&renewed).await;
            assert_eq!(found, Err(Unauthenticated::ClientsToken));
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert_eq!(metrics.admin_authentication_failures.get(), 0);
        // At the admin listener there are no clients.
        let refused = authentication.access(&renewed).await;
        assert_eq!(refused, Err(Unauthenticated::WrongToken));
        assert_eq!(metrics.admin_authentication_failures.get(), 1);
    }
}
