//! Permits to have a request in flight to an upstream. Answers from memory and disk hold none, so they never queue
//! behind a slow origin.
//!
//! Bounds: so many in flight, so many more waiting, each at most 1 s. An adaptive limit would live here.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use super::{error::ForwardError, sending::Patience};

// A client that would wait longer is better served stale, or told to come back.
const MAX_WAIT: Duration = Duration::from_secs(1);

/// The permits of one upstream.
#[derive(Debug)]
pub(super) struct Permits {
    in_flight: Arc<Semaphore>,
    waiting: Semaphore,
    max_in_flight: usize,
}

/// Leave to have one request in flight, given back when dropped.
#[derive(Debug)]
pub(super) struct Permit {
    _held: OwnedSemaphorePermit,
}

impl Permits {
    pub(super) fn new(max_in_flight: usize, max_waiting: usize) -> Self {
        Self {
            in_flight: Arc::new(Semaphore::new(max_in_flight)),
            waiting: Semaphore::new(max_waiting),
            max_in_flight,
        }
    }

    /// A permit, at once or after a short wait. Whoever waits is served first: a permit that comes back is theirs before
    /// anybody else can see it.
    ///
    /// # Errors
    /// [`ForwardError::Overloaded`] when none is free and one is not to wait, too many wait already, or the wait was in
    /// vain.
    pub(super) async fn acquire(&self, patience: Patience) -> Result<Permit, ForwardError> {
        if let Ok(held) = Arc::clone(&self.in_flight).try_acquire_owned() {
            return Ok(Permit { _held: held });
        }
        if patience == Patience::AtOnce {
            return Err(ForwardError::Overloaded);
        }
        let _place = self
            .waiting
            .try_acquire()
            .map_err(|_| ForwardError::Overloaded)?;
        match timeout(MAX_WAIT, Arc::clone(&self.in_flight).acquire_owned()).await {
            Ok(Ok(held)) => Ok(Permit { _held: held }),
            _ => Err(ForwardError::Overloaded),
        }
    }

    pub(super) fn max_in_flight(&self) -> usize {
        self.max_in_flight
    }

    pub(super) fn in_flight(&self) -> usize {
        self.max_in_flight - self.in_flight.available_permits()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::Instant;

    use super::{
        Patience::{AtOnce, Wait},
        Permits,
    };

    #[tokio::test(start_paused = true)]
    async fn a_wait_for_a_permit_ends_after_a_second() {
        let permits = Permits::new(1, 1);
        let held = permits.acquire(Wait).await.unwrap();
        let start = Instant::now();
        assert!(permits.acquire(Wait).await.is_err());
        assert_eq!(start.elapsed(), Duration::from_secs(1));
        assert_eq!(permits.in_flight(), 1);
        drop(held);
        assert!(permits.acquire(Wait).await.is_ok());
        assert_eq!(permits.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn beyond_the_waiting_places_one_is_refused_at_once() {
        let permits = Permits::new(1, 1);
        let held = permits.acquire(Wait).await.unwrap();
        let start = Instant::now();
        let (first, second) = tokio::join!(permits.acquire(Wait), async {
            let refused = permits.acquire(Wait).await;
            assert_eq!(start.elapsed(), Duration::ZERO);
            drop(held);
            refused
        });
        assert!(first.is_ok());
        assert!(second.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn who_does_not_wait_gets_no_permit_before_who_does() {
        let permits = Permits::new(1, 1);
        let held = permits.acquire(AtOnce).await.unwrap();
        assert!(permits.acquire(AtOnce).await.is_err());
        let (waited, ()) = tokio::join!(permits.acquire(Wait), async {
            drop(held);
            assert!(permits.acquire(AtOnce).await.is_err());
        });
        drop(waited.unwrap());
        assert!(permits.acquire(AtOnce).await.is_ok());
    }
}
