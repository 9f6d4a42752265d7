//! Refresh ahead: a stored response in demand is validated behind a hit shortly before its freshness ends, so that its
//! clients neither wait for the origin nor get it stale.
//!
//! Whether its end is near is the policy's word ([`Reuse::validate_ahead`](crate::policy::Reuse::validate_ahead)). The
//! rest is decided here: enough hits, an upstream that is connected, a key that is not held down. Each stored response is
//! worth one such validation: a 304 or a new response takes its place, and a failure leaves it as it is, holds the key
//! down, and leaves the next word to the validation that comes when it is stale. One that stays on disk is another copy each
//! time it is read: those are bounded by the rest.
//!
//! Bounds: `refresh_ahead_rate` of all keys together, [`IN_FLIGHT_MAX`] at a time, one fill per key. What is beyond them
//! is not done, and looked at again by the next hit; so is what a fill under way may do without.

use std::sync::Arc;

use http::Request;
use tokio::sync::Semaphore;

use super::{
    Gateway,
    arrival::Arrival,
    fetch::{self, Place},
};
use crate::{
    policy::{CacheKey, Connectivity, Mode},
    protect::{Budget, RateConfig},
    store::StoredResponse,
};

/// An eighth of the permits that an upstream has by default: clients that wait for it come first.
const IN_FLIGHT_MAX: usize = 32;

/// What validations ahead of time may cost, all together.
#[derive(Debug)]
pub(crate) struct RefreshAhead {
    budget: Option<Budget>,
    places: Arc<Semaphore>,
}

impl RefreshAhead {
    /// With this rate, or none to keep.
    pub(crate) fn new(rate: Option<RateConfig>) -> Self {
        Self {
            budget: rate.map(Budget::new),
            places: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
        }
    }

    /// A place for one more, to be held until it has ended.
    fn admit(&self) -> Option<Place> {
        let place = Arc::clone(&self.places).try_acquire_owned().ok()?;
        let affordable = self.budget.as_ref().is_none_or(Budget::take);
        affordable.then_some(place)
    }
}

/// Validates `stored`, whose freshness ends soon, if it is in demand and the origin can be asked.
pub(crate) fn consider(
    gateway: &Arc<Gateway>,
    arrival: &Arrival,
    key: &CacheKey,
    request: &Request<impl Sized>,
    stored: &Arc<StoredResponse>,
    mode: Mode,
) {
    let hits_min = arrival.settings(gateway).refresh_ahead_hits;
    if stored.hits() < hits_min.into() || stored.is_validated_ahead() {
        return;
    }
    let is_connected = arrival.effective().is_some_and(|effective| {
        effective.upstream(gateway).connectivity() == Connectivity::Connected
    });
    if !is_connected || gateway.hold_down.holds(key, gateway.clock.now()) {
        return;
    }
    // Of hits at the same moment one begins, and only what begins costs anything.
    if !stored.begin_validation_ahead() {
        return;
    }
    let admit = || gateway.refresh_ahead.admit().map(Some);
    if !fetch::behind(gateway, arrival, key, request, stored, mode, admit) {
        stored.forgo_validation_ahead();
    }
}

#[cfg(test)]
mod tests {
    use std::{num::NonZeroU32, time::Duration};

    use super::{IN_FLIGHT_MAX, RefreshAhead};
    use crate::protect::RateConfig;

    #[tokio::test(start_paused = true)]
    async fn no_more_begin_than_the_rate_allows() {
        let two = NonZeroU32::new(2).unwrap();
        let ahead = RefreshAhead::new(Some(RateConfig {
            per_second: two,
            burst: two,
        }));
        let begun = || (0..10).filter(|_| ahead.admit().is_some()).count();
        assert_eq!(begun(), 2);
        tokio::time::advance(Duration::from_millis(500)).await;
        assert_eq!(begun(), 1);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(begun(), 2, "what was not used is not saved up");
    }

    #[test]
    fn no_more_are_in_flight_than_there_are_places() {
        let ahead = RefreshAhead::new(None);
        let mut held: Vec<_> = std::iter::from_fn(|| ahead.admit()).collect();
        assert_eq!(held.len(), IN_FLIGHT_MAX);
        held.pop();
        assert!(ahead.admit().is_some());
    }
}
