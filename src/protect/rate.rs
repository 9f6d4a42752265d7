//! A rate per client: governor's GCRA over our own bounded store, on tokio's clock; and a rate of all together.

use std::time::Duration;

use governor::{
    Quota, RateLimiter, clock,
    middleware::NoOpMiddleware,
    state::{InMemoryState, NotKeyed},
};
use tokio::time::Instant;

use super::{RateConfig, Refused, buckets::Buckets, client::ClientKey};

/// One rate, for each client by itself.
pub(super) struct RateLimit {
    limiter: RateLimiter<ClientKey, Buckets, MonotonicClock, NoOpMiddleware<Duration>>,
    config: RateConfig,
}

/// One rate for everybody: a budget for what the gateway does of its own accord.
pub struct Budget {
    limiter: RateLimiter<NotKeyed, InMemoryState, MonotonicClock, NoOpMiddleware<Duration>>,
    config: RateConfig,
}

/// Tokio's clock as the time since its creation.
#[derive(Clone, Copy, Debug)]
pub(super) struct MonotonicClock {
    start: Instant,
}

impl RateLimit {
    pub(super) fn new(config: RateConfig) -> Self {
        let clock = MonotonicClock::start();
        let quota = Quota::per_second(config.per_second).allow_burst(config.burst);
        Self {
            limiter: RateLimiter::new(quota, Buckets::new(clock), clock),
            config,
        }
    }

    pub(super) fn check(&self, client: ClientKey) -> Result<(), Refused> {
        self.limiter.check_key(&client).map_err(|not_until| {
            let wait = not_until.wait_time_from(clock::Clock::now(self.limiter.clock()));
            Refused {
                retry_after: whole_seconds(wait),
                per_second: self.config.per_second.get(),
                burst: self.config.burst.get(),
            }
        })
    }
}

impl Budget {
    /// A budget that is full.
    pub fn new(config: RateConfig) -> Self {
        let quota = Quota::per_second(config.per_second).allow_burst(config.burst);
        Self {
            limiter: RateLimiter::direct_with_clock(quota, MonotonicClock::start()),
            config,
        }
    }

    /// Takes one; `false` when nothing is left for now.
    pub fn take(&self) -> bool {
        self.limiter.check().is_ok()
    }
}

impl MonotonicClock {
    pub(super) fn start() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl clock::Clock for MonotonicClock {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.start.elapsed()
    }
}

impl std::fmt::Debug for RateLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("RateLimit").field(&self.config).finish()
    }
}

impl std::fmt::Debug for Budget {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Budget").field(&self.config).finish()
    }
}

/// Rounded up, and at least one: `Retry-After: 0` would be an invitation.
fn whole_seconds(wait: Duration) -> Duration {
    let started = u64::from(wait.subsec_nanos() > 0);
    Duration::from_secs((wait.as_secs() + started).max(1))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::whole_seconds;

    #[test]
    fn a_wait_is_rounded_up_to_whole_seconds() {
        let check = |millis: u64, expected: u64| {
            let wait = Duration::from_millis(millis);
            assert_eq!(
                whole_seconds(wait),
                Duration::from_secs(expected),
                "{millis} ms"
            );
        };
        check(0, 1);
        check(1, 1);
        check(1_000, 1);
        check(1_001, 2);
        check(59_999, 60);
    }
}
