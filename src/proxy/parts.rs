//! Parts of representations: completed by asking the origin for the rest, joined with what is stored, and filled up
//! behind range misses.
//!
//! Invariants: one part per key and variant, and none beside a complete response, which takes its place; bytes are
//! joined only where the policy says that they are of one representation. Bounds: what is assembled or joined is at
//! most `storage.max_object` and counts against the bodies in flight; of fills that nobody asked for
//! [`UNASKED_FILLS_MAX`] run at a time, for representations up to a part of `storage.max_object`. Beyond any of
//! these the newer part just takes the older one's place, or nothing is filled.

use std::{ops::Range, sync::Arc};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use http::{HeaderMap, header};
use tracing::warn;

use super::{
    Gateway,
    access::RequestId,
    arrival::Arrival,
    collapse::{Extent, Role, Target},
    fill::{self, Fill, Outcome, Plan, Storing},
    keeping::Keeping,
    question::Answered,
    request::Conditions,
};
use crate::{
    policy::{
        self, Assembly, CacheKey, Combined, Completion, Mark, Mode, RequestHead, Settings,
        StoredHead,
    },
    store::{Published, StoreError, StoredResponse},
};

/// Fills that nobody asked for: few, so that they never keep the upstream's permits from requests.
pub(super) const UNASKED_FILLS_MAX: usize = 8;

/// Of `storage.max_object`: a larger representation is not fetched whole because somebody wanted two ranges of it.
const UNASKED_SHARE: u64 = 16;

/// A stored part on its way to be completed.
pub(crate) struct Completing {
    part: Arc<StoredResponse>,
    how: Completion,
}

/// What came of asking for the rest.
pub(super) enum Rest {
    /// The fill has come to an assembled answer.
    Taken,
    /// It cannot be combined with the part.
    Unusable,
    /// It is an answer to the request itself.
    Anew(Box<Answered>),
}

impl Completing {
    /// How `part` is completed to what the request wants, if it can be and the outcome can be kept.
    pub(crate) fn of(
        gateway: &Gateway,
        request: &RequestHead<'_>,
        part: &Arc<StoredResponse>,
        settings: &Settings,
    ) -> Option<Self> {
        let (now, bytes) = (gateway.clock.now(), part.body.len());
        let how = policy::completion(request, &part.head, bytes, settings, now)?;
        let fits = how
            .known_bytes()
            .is_none_or(|bytes| bytes <= gateway.max_object_bytes);
        fits.then(|| Self {
            part: Arc::clone(part),
            how,
        })
    }

    /// Has the outgoing `headers` ask for the rest.
    pub(super) fn ask(&self, headers: &mut HeaderMap) {
        self.how.ask(headers, &self.part.head);
    }
}

/// Takes the answer to a request for the rest of a part.
pub(super) async fn complete(
    gateway: &Gateway,
    fill: &Arc<Fill>,
    plan: &Plan,
    completing: &Completing,
    request: &RequestHead<'_>,
    settings: &Settings,
    answered: Answered,
) -> Rest {
    let Completing { part, how } = completing;
    match how.judge(request, &answered.head(), &part.head, settings) {
        policy::Answered::Anew => Rest::Anew(Box::new(answered)),
        policy::Answered::AskAnew => Rest::Unusable,
        policy::Answered::Rest(assembly) => {
            assemble(gateway, fill, plan, part, settings, assembly, answered).await
        }
    }
}

async fn assemble(
    gateway: &Gateway,
    fill: &Arc<Fill>,
    plan: &Plan,
    part: &Arc<StoredResponse>,
    settings: &Settings,
    assembly: Assembly,
    answered: Answered,
) -> Rest {
    let status = answered.response.status();
    let rest = answered.response.into_body();
    let announced = http_body::Body::size_hint(&rest).exact();
    let has_its_length = announced.is_none_or(|bytes| bytes == assembly.rest_bytes);
    let mut keeping = Keeping::new(
        fill.growing(),
        &gateway.in_flight_bytes,
        gateway.max_object_bytes,
    );
    if rest.is_close_delimited() || !has_its_length || keeping.reserve(assembly.bytes).is_err() {
        return Rest::Unusable;
    }
    gateway.hold_down.succeeded(&fill.target.key);
    let head = Arc::new(*assembly.head);
    fill.keep_for_the_starter(assembly.received);
    fill.growing().expect(Some(assembly.bytes));
    fill.came_to(Outcome::Storing(Arc::new(Storing {
        head: Arc::clone(&head),
        length: Some(assembly.bytes),
        trailers: None,
        answered: status,
    })));
    let stored = |range| read(gateway, &fill.target.key, part, range);
    let end = keeping
        .assemble(
            stored(assembly.before),
            (rest, assembly.rest_bytes),
            stored(assembly.after),
        )
        .await;
    fill::finish(gateway, fill, plan, settings, &head, end).await;
    Rest::Taken
}

fn read(
    gateway: &Gateway,
    key: &CacheKey,
    stored: &StoredResponse,
    range: Range<u64>,
) -> impl Stream<Item = Result<Bytes, StoreError>> + use<> {
    gateway.store.read_body_range(key, stored, range)
}

/// Publishes what a fill brought; a part together with what is stored of the same representation.
pub(super) async fn publish(
    gateway: &Gateway,
    fill: &Fill,
    plan: &Plan,
    settings: &Settings,
    head: &StoredHead,
    body: Bytes,
) -> Published {
    let head = policy::whole_if_complete(head.clone(), body.len() as u64);
    if !head.is_part() {
        return put(gateway, fill, head, body);
    }
    if policy::Extent::of(&head, body.len() as u64).is_none() {
        // Longer than it claims: nobody knows what the bytes are.
        return Published::TooLarge;
    }
    for stored in same_variant(gateway, &fill.target.key, plan, &head) {
        let (old, new) = (&stored.head, &head);
        let combined =
            policy::combine((old, stored.body.len()), (new, body.len() as u64), settings);
        match combined {
            Combined::Stands(freshened) => {
                let (ticket, key) = (fill.ticket, &fill.target.key);
                return gateway.store.freshen(ticket, key, &stored, *freshened);
            }
            Combined::Joined {
                head: joined,
                before,
                after,
            } => {
                if let Some(body) = join(gateway, fill, &stored, before, &body, after).await {
                    return put(gateway, fill, *joined, body);
                }
            }
            // It would never be selected beside a complete response. But it may say that this one is outdated.
            Combined::Apart if !old.is_part() => {
                let is_outdated = new.response_time >= old.response_time
                    && policy::contradicts(old, stored.body.len(), new);
                if is_outdated {
                    mark_stale(gateway, &fill.target.key).await;
                }
                return Published::Stored;
            }
            Combined::Apart => {}
        }
    }
    put(gateway, fill, head, body)
}

async fn mark_stale(gateway: &Gateway, key: &CacheKey) {
    if let Err(error) = gateway.store.mark(key, Mark::Stale).await {
        warn!(%key, %error, "An outdated response could not be marked on disk.");
    }
}

fn put(gateway: &Gateway, fill: &Fill, head: StoredHead, body: Bytes) -> Published {
    gateway
        .store
        .publish(fill.ticket, &fill.target.key, head, body)
}

/// What is stored of the variant: the complete response, then the part. Of what is on disk only, what the request found
/// when it came: looking again would take time in which the next request finds nothing.
fn same_variant(
    gateway: &Gateway,
    key: &CacheKey,
    plan: &Plan,
    head: &StoredHead,
) -> Vec<Arc<StoredResponse>> {
    let mut known = match gateway.store.peek(key.as_str()) {
        Some(resource) => resource.variants.clone(),
        // What only stands in, for want of one under this key, says nothing about it.
        None => {
            let own = plan.stored.iter().filter(|_| plan.is_validation);
            own.chain(&plan.part).cloned().collect()
        }
    };
    known.retain(|stored| stored.head.variant == head.variant);
    known.sort_by_key(|stored| stored.head.is_part());
    known
}

/// The stored bytes around the new ones; `None` where there is no room for them, or they cannot be read.
async fn join(
    gateway: &Gateway,
    fill: &Fill,
    stored: &StoredResponse,
    before: Range<u64>,
    new: &Bytes,
    after: Range<u64>,
) -> Option<Bytes> {
    let kept_bytes = (before.end - before.start) + (after.end - after.start);
    if kept_bytes == 0 {
        return Some(new.clone());
    }
    let bytes = kept_bytes + new.len() as u64;
    if bytes > gateway.max_object_bytes {
        return None;
    }
    // The new ones have their share of the budget already.
    let more = u32::try_from(kept_bytes).ok()?;
    let _share = gateway.in_flight_bytes.try_acquire_many(more).ok()?;
    let mut joined = BytesMut::with_capacity(usize::try_from(bytes).ok()?);
    append(&mut joined, read(gateway, &fill.target.key, stored, before)).await?;
    joined.extend_from_slice(new);
    append(&mut joined, read(gateway, &fill.target.key, stored, after)).await?;
    Some(joined.freeze())
}

async fn append(
    joined: &mut BytesMut,
    blocks: impl Stream<Item = Result<Bytes, StoreError>>,
) -> Option<()> {
    let mut blocks = std::pin::pin!(blocks);
    while let Some(block) = blocks.next().await {
        joined.extend_from_slice(&block.ok()?);
    }
    Some(())
}

/// Fetches the whole, or what `part` lacks of it, behind a request for a range that the part has not got and that does not
/// make it the whole: one fill per key, whoever asks.
pub(super) fn fill_behind(
    gateway: &Arc<Gateway>,
    arrival: &Arrival,
    key: &CacheKey,
    request: &RequestHead<'_>,
    part: &Arc<StoredResponse>,
    mode: Mode,
) {
    let extent = policy::Extent::of(&part.head, part.body.len());
    let complete_bytes = extent.and_then(|extent| extent.complete_bytes());
    let is_small =
        complete_bytes.is_some_and(|bytes| bytes <= gateway.max_object_bytes / UNASKED_SHARE);
    let is_needed = !policy::makes_whole(request, &part.head, part.body.len());
    if !is_small || !is_needed || gateway.hold_down.holds(key, gateway.clock.now()) {
        return;
    }
    let Ok(place) = Arc::clone(&gateway.unasked_fills).try_acquire_owned() else {
        return;
    };
    let target = Target {
        key: key.clone(),
        variant: None,
        extent: Extent::Whole,
    };
    let look = || {
        let resource = gateway.store.peek(key.as_str())?;
        let is_the_whole = |stored: &StoredResponse| {
            !stored.head.is_part() && stored.head.variant == part.head.variant
        };
        let mut variants = resource.variants.iter();
        variants.any(|stored| is_the_whole(stored)).then_some(())
    };
    let Role::Start(fill) = gateway.fills.join(&gateway.store, target, None, look) else {
        return;
    };
    let mut headers = request.headers.clone();
    for name in [
        header::RANGE,
        header::IF_RANGE,
        header::IF_NONE_MATCH,
        header::IF_MODIFIED_SINCE,
    ] {
        headers.remove(name);
    }
    let arrival = Arrival {
        id: RequestId::next(),
        interim: None,
        ..arrival.clone()
    };
    let settings = arrival.settings(gateway).under(mode);
    let whole = RequestHead::new(request.method, &headers, request.has_body);
    let completing = Completing::of(gateway, &whole, part, &settings);
    let plan = Plan {
        is_validation: false,
        headers: headers.clone(),
        stored: None,
        validate: false,
        conditions: Conditions::Drop,
        part: Some(Arc::clone(part)),
        completing,
        mode,
        is_shared: false,
        _place: Some(place),
        arrival: arrival.clone(),
    };
    drop(fill::start(gateway, fill, plan, None));
}
