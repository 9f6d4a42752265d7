//! The limiter's state per client, bounded.
//!
//! A bucket that has refilled is no different from none, so it can be given up at any time. Bounds: 65,536 clients. When
//! all places are taken by clients that are spending, a further client shares the overflow bucket with its like; a
//! tracked client never loses its place while its bucket is not full.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use governor::{clock::Clock, nanos::Nanos, state::StateStore};

use super::{client::ClientKey, rate::MonotonicClock};

const MAX_CLIENTS: usize = 65_536;

// Enough that cores seldom meet at a lock that is held for some 50 ns.
const SHARDS: usize = 64;

// A sweep of a full shard costs microseconds: not for each request of a flood.
const SWEEP_PAUSE: Duration = Duration::from_millis(100);

/// The buckets of all clients.
#[derive(Debug)]
pub(super) struct Buckets {
    shards: Vec<Mutex<Shard>>,
    // Random, so that nobody can choose addresses that meet in one shard.
    hasher: RandomState,
    tracked: AtomicUsize,
    max_clients: usize,
    overflow: Mutex<Option<Nanos>>,
    clock: MonotonicClock,
}

#[derive(Debug, Default)]
struct Shard {
    /// When each client's bucket will be full again, from the limiter's start (GCRA's theoretical arrival time).
    full_at: HashMap<ClientKey, Nanos>,
    sweep_after: Duration,
}

impl Buckets {
    pub(super) fn new(clock: MonotonicClock) -> Self {
        Self::sized(MAX_CLIENTS, SHARDS, clock)
    }

    fn sized(max_clients: usize, shards: usize, clock: MonotonicClock) -> Self {
        Self {
            shards: (0..shards).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            tracked: AtomicUsize::new(0),
            max_clients,
            overflow: Mutex::default(),
            clock,
        }
    }

    fn shard(&self, client: &ClientKey) -> &Mutex<Shard> {
        #[expect(
            clippy::cast_possible_truncation,
            reason = "any bits of a hash choose a shard as well as others"
        )]
        let position = self.hasher.hash_one(client) as usize % self.shards.len();
        &self.shards[position]
    }

    /// Takes a place for one more client, if need be one that a shard can give up.
    fn take_place(&self, shard: &mut Shard) -> bool {
        let take = |tracked| (tracked < self.max_clients).then_some(tracked + 1);
        let try_take = || {
            self.tracked
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
                .is_ok()
        };
        if try_take() {
            return true;
        }
        let freed = shard.sweep(self.clock.now());
        self.tracked.fetch_sub(freed, Ordering::Relaxed);
        try_take()
    }
}

impl StateStore for Buckets {
    type Key = ClientKey;

    fn measure_and_replace<T, F, E>(&self, client: &ClientKey, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut shard = self
            .shard(client)
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(full_at) = shard.full_at.get_mut(client) {
            let (outcome, next) = decide(Some(*full_at))?;
            *full_at = next;
            return Ok(outcome);
        }
        if self.take_place(&mut shard) {
            let (outcome, next) = decide(None)?;
            shard.full_at.insert(*client, next);
            return Ok(outcome);
        }
        drop(shard);
        let mut overflow = self.overflow.lock().unwrap_or_else(PoisonError::into_inner);
        let (outcome, next) = decide(*overflow)?;
        *overflow = Some(next);
        Ok(outcome)
    }
}

impl Shard {
    /// Gives up the buckets that are full again; returns how many.
    fn sweep(&mut self, now: Duration) -> usize {
        if now < self.sweep_after {
            return 0;
        }
        self.sweep_after = now + SWEEP_PAUSE;
        let before = self.full_at.len();
        let now = Nanos::from(now);
        self.full_at.retain(|_, full_at| *full_at > now);
        before - self.full_at.len()
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, num::NonZeroU32, time::Duration};

    use governor::{Quota, RateLimiter, middleware::NoOpMiddleware};

    use super::{super::rate::MonotonicClock, Buckets, ClientKey};

    type Limiter = RateLimiter<ClientKey, Buckets, MonotonicClock, NoOpMiddleware<Duration>>;

    // One request a second, two at once, and room for 100 clients.
    fn limiter(shards: usize) -> Limiter {
        let clock = MonotonicClock::start();
        let quota = Quota::per_second(NonZeroU32::MIN).allow_burst(NonZeroU32::new(2).unwrap());
        RateLimiter::new(quota, Buckets::sized(100, shards, clock), clock)
    }

    fn client(n: u32) -> ClientKey {
        ClientKey::of(IpAddr::from(n.to_be_bytes()))
    }

    fn passed(limiter: &Limiter, clients: impl IntoIterator<Item = u32>) -> usize {
        let check = |n| limiter.check_key(&client(n)).is_ok();
        clients.into_iter().filter(|n| check(*n)).count()
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_tracked_clients_the_others_share_one_bucket() {
        let limiter = limiter(8);
        assert_eq!(passed(&limiter, 0..100), 100);
        assert_eq!(
            passed(&limiter, 100..200),
            2,
            "one burst for all the others"
        );
        assert_eq!(
            passed(&limiter, 0..100),
            100,
            "a tracked client keeps its own"
        );
        assert_eq!(passed(&limiter, 0..100), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn clients_whose_buckets_are_full_again_make_room() {
        // Room is found in a client's own shard.
        let limiter = limiter(1);
        assert_eq!(passed(&limiter, (0..100).chain(0..50)), 150);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(
            passed(&limiter, 100..150),
            50,
            "places of the 50 that spent one"
        );
        assert_eq!(
            passed(&limiter, 150..200),
            2,
            "the other 50 still need theirs"
        );
        assert_eq!(passed(&limiter, 0..50), 50);
        assert_eq!(passed(&limiter, 0..50), 0);
    }
}
