//! Validation of a stored response behind an answer that was given already.

use std::sync::Arc;

use http::{Request, header};
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    policy::{CacheKey, Mode},
    proxy::{
        Gateway,
        access::RequestId,
        arrival::Arrival,
        collapse::{Extent, Role, Target},
        equivalent,
        fill::{self, Plan},
        request::Conditions,
    },
    store::StoredResponse,
};

/// A place among the fills behind answers, where these are counted.
pub(crate) type Place = OwnedSemaphorePermit;

/// Validates a stored response behind an answer that was given already: one fill per key, whoever asks. A part is
/// validated with the range that was asked for, so that not the whole comes where it has changed.
///
/// `admit` is asked when there is need for a fill, and must be quick: `None` forbids it, and a place that it gives is held
/// until the fill has ended. Whether a fill was started.
pub(crate) fn behind(
    gateway: &Arc<Gateway>,
    arrival: &Arrival,
    key: &CacheKey,
    request: &Request<impl Sized>,
    stored: &Arc<StoredResponse>,
    mode: Mode,
    admit: impl FnOnce() -> Option<Option<Place>>,
) -> bool {
    if gateway.hold_down.holds(key, gateway.clock.now()) {
        return false;
    }
    let (extent, conditions) = if stored.head.is_part() {
        (Extent::Part, Conditions::Keep)
    } else {
        (Extent::Whole, Conditions::Drop)
    };
    let target = Target {
        key: key.clone(),
        variant: None,
        extent,
    };
    let mut place = None;
    let look = || {
        let resource = gateway.store.peek(key.as_str());
        if resource.is_some_and(|resource| resource.has_newer_than(stored)) {
            return Some(());
        }
        match admit() {
            Some(admitted) => place = admitted,
            None => return Some(()),
        }
        None
    };
    let Role::Start(fill) = gateway.fills.join(&gateway.store, target, None, look) else {
        return false;
    };
    let mut headers = request.headers().clone();
    if extent == Extent::Whole {
        headers.remove(header::RANGE);
    }
    let plan = Plan {
        arrival: Arrival {
            id: RequestId::next(),
            interim: None,
            ..equivalent::arrival_for(arrival, key)
        },
        headers,
        stored: Some(Arc::clone(stored)),
        is_validation: true,
        validate: true,
        conditions,
        part: None,
        completing: None,
        mode,
        is_shared: false,
        _place: place,
    };
    drop(fill::start(gateway, fill, plan, None));
    true
}
