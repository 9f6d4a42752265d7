//! Publishing: a complete response, a freshened head, an invalidation. Nothing here waits for the disk.

use std::sync::Arc;

use bytes::Bytes;

use super::{
    Inner, Published, StoreError, Ticket,
    id::RecordId,
    matcher::Matcher,
    memory::Changing,
    pending::apply,
    resource::{Effect, Resource, StoredBody, StoredResponse, VARIANTS_MAX},
};
use crate::policy::{CacheKey, Mark, StoredHead, Timestamp};

impl Inner {
    pub(super) fn publish(
        &self,
        ticket: Ticket,
        key: &CacheKey,
        head: StoredHead,
        body: Bytes,
    ) -> Published {
        let id = self.namer.record(key, &head);
        let now = self.clock.now();
        let stored = StoredResponse::new(id, head, StoredBody::Memory(body));
        stored.set_reported(now);
        self.publish_stored(ticket, key, stored, None)
    }

    pub(super) fn freshen(
        &self,
        ticket: Ticket,
        key: &CacheKey,
        stored: &Arc<StoredResponse>,
        head: StoredHead,
    ) -> Published {
        let id = self.namer.record(key, &head);
        let fresh = stored.with_head(id, head);
        self.publish_stored(ticket, key, fresh, Some(stored))
    }

    /// Publishes `stored`, in place of `freshened` where that is still what is stored. A complete response also takes the
    /// place of the part of its variant.
    pub(super) fn publish_stored(
        &self,
        ticket: Ticket,
        key: &CacheKey,
        mut stored: StoredResponse,
        freshened: Option<&StoredResponse>,
    ) -> Published {
        stored.file(&self.labels, key);
        let mut forgotten = None;
        let published = self.publish_knowing(ticket, key, stored, freshened, &mut forgotten);
        if let Some(forgotten) = forgotten {
            self.invalidate_forgotten(&forgotten);
        }
        published
    }

    fn publish_knowing(
        &self,
        ticket: Ticket,
        key: &CacheKey,
        stored: StoredResponse,
        freshened: Option<&StoredResponse>,
        forgotten: &mut Option<CacheKey>,
    ) -> Published {
        // Purges wait until what is published here is where they find it.
        let log = self.purges.read();
        let labels = freshened.map_or(&[][..], StoredResponse::labels);
        if !log.is_current(ticket, key, stored.labels()) || !log.is_current(ticket, key, labels) {
            return Published::Purged;
        }
        let changing = self.memory.change(key.as_str());
        let resource = self.memory.get(key.as_str());
        let known = self.known_variants(key, resource.as_deref());
        // What took the place of the freshened one meanwhile is newer than a new head for the old body; and of two fills
        // the one that was answered last has the newer response, whichever ends first.
        if is_superseded(freshened.unwrap_or(&stored), &known, self.clock.now()) {
            return Published::Stored;
        }
        let place = self.place_for(&stored);
        if place == Published::TooLarge {
            return place;
        }
        let replaces = freshened
            .map(StoredResponse::id)
            .or_else(|| self.part_beside(key, &stored.head, &known));
        let stored = Arc::new(stored);
        let variants = with_variant(known, &stored, replaces);
        let is_complete =
            self.disk.is_none() || resource.as_ref().is_some_and(|known| known.is_complete());
        // What memory does not have of a complete resource is nowhere.
        let may_replace_on_disk = !is_complete
            || self.pending.has(key)
            || resource.is_some_and(|known| known.has(stored.id()) || replaces.is_some());
        changing.replace(key, &variants, is_complete);
        // While purges wait: whoever invalidates from here on finds it.
        *forgotten = self.queries.know(key);
        if self.disk.is_none() {
            return place;
        }
        if place == Published::Stored {
            self.pending.put(key, stored, replaces);
        } else if may_replace_on_disk && !self.pending.give_up(key, &stored, replaces) {
            // A purge takes these locks itself.
            drop(changing);
            drop(log);
            self.distrust_disk(Mark::Invalid);
        }
        place
    }

    /// The part whose place a complete response takes. One that is on disk only, and unknown here, is outranked by the
    /// complete response and is evicted before it, for want of use.
    fn part_beside(
        &self,
        key: &CacheKey,
        head: &StoredHead,
        known: &[Arc<StoredResponse>],
    ) -> Option<RecordId> {
        if head.is_part() || !known.iter().any(|variant| variant.head.is_part()) {
            return None;
        }
        let part = self.namer.part(key, &head.variant);
        known
            .iter()
            .any(|variant| variant.id() == part)
            .then_some(part)
    }

    /// Marks every variant of `key`, in memory at once and on disk within a second. It does not wait for the writer.
    pub(super) async fn mark(
        self: &Arc<Self>,
        key: &CacheKey,
        mark: Mark,
    ) -> Result<(), StoreError> {
        self.purges.invalidate(key);
        self.mark_stored(key, mark).await
    }

    /// The same, where fills that are under way are seen to already.
    pub(super) async fn mark_stored(
        self: &Arc<Self>,
        key: &CacheKey,
        mark: Mark,
    ) -> Result<(), StoreError> {
        let is_noted = self.mark_at_once(key, mark);
        if self.disk.is_some() && self.pending.is_closing() {
            return Err(StoreError::Unavailable);
        }
        // What is published while this looks at the disk may be marked too, which costs a validation.
        if !is_noted && !self.is_nowhere(key).await && !self.pending.mark(key, mark) {
            self.distrust_disk(mark);
        }
        Ok(())
    }

    /// Marks what is in memory, and what is on disk unless too much waits for it: whether it did.
    pub(super) fn mark_at_once(&self, key: &CacheKey, mark: Mark) -> bool {
        let changing = self.memory.change(key.as_str());
        apply_to_memory(&changing, key, Effect::Mark(mark), |_| true);
        self.disk.is_none() || (!self.pending.is_crowded() && self.pending.mark(key, mark))
    }

    pub(super) fn is_current(
        &self,
        ticket: Ticket,
        key: &CacheKey,
        head: Option<&StoredHead>,
    ) -> bool {
        self.purges.is_latest(ticket) || {
            let labels = self.labels.labels(key, head.map(|head| &head.terms));
            self.purges.read().is_current(ticket, key, &labels)
        }
    }

    /// Whether neither the disk nor what waits for it has anything of `key`, as far as can be told.
    async fn is_nowhere(self: &Arc<Self>, key: &CacheKey) -> bool {
        // In this order: what waits now may be on disk, and nowhere else, a moment later.
        if self.pending.has(key) {
            return false;
        }
        let sought = key.clone();
        let found = self.on_disk(move |disk| disk.has_any(&sought)).await;
        found.is_ok_and(|has_any| !has_any)
    }

    /// Has everything that is on disk now marked, for want of room to say what of it: from now on for lookups, and on
    /// disk when that takes it.
    pub(super) fn distrust_disk(&self, mark: Mark) {
        if self.pending.is_distrusting(mark) {
            return;
        }
        tracing::warn!("Too much waits for the disk; what is on it is marked as a whole.");
        let in_force = self.purges.begin(Matcher::everything(), Effect::Mark(mark));
        self.pending.distrust(in_force, mark);
    }

    /// Where a response can be kept. What would be kept nowhere changes nothing.
    fn place_for(&self, stored: &StoredResponse) -> Published {
        let body_bytes = stored.body.len();
        if body_bytes > self.config.max_object_bytes {
            return Published::TooLarge;
        }
        let in_memory = self.memory.takes(&stored.body);
        let Some(disk) = &self.disk else {
            return if in_memory {
                Published::Stored
            } else {
                Published::TooLarge
            };
        };
        if !disk.is_suspended()
            && body_bytes <= disk.largest_body()
            && self.pending.has_room(stored.weight())
        {
            return Published::Stored;
        }
        self.count_error("skipped");
        if in_memory {
            Published::MemoryOnly
        } else {
            Published::TooLarge
        }
    }

    /// The variants of `key` that need no disk to be known.
    fn known_variants(
        &self,
        key: &CacheKey,
        resource: Option<&Resource>,
    ) -> Vec<Arc<StoredResponse>> {
        let known = resource.map(|resource| resource.variants.clone());
        let mut known = known.unwrap_or_default();
        if self.disk.is_some() {
            for put in self.pending.overlay(key).puts {
                if known.iter().all(|variant| variant.id() != put.id()) {
                    known.push(put);
                }
            }
        }
        known
    }
}

/// Does to the variants in memory that are selected what a purge or an invalidation does.
pub(super) fn apply_to_memory(
    changing: &Changing<'_>,
    key: &CacheKey,
    effect: Effect,
    is_selected: impl Fn(&StoredResponse) -> bool,
) {
    changing.update(key, |variant| {
        let mut one = vec![variant.clone()];
        apply(&mut one, effect, &is_selected);
        one.pop()
    });
}

/// Whether something newer than `old` is stored under its name. What is of the future says only that the clock was
/// stepped back, and holds nothing off.
fn is_superseded(old: &StoredResponse, known: &[Arc<StoredResponse>], now: Timestamp) -> bool {
    known.iter().any(|variant| {
        let time = variant.head.response_time;
        variant.id() == old.id() && old.head.response_time < time && time <= now
    })
}

fn with_variant(
    known: Vec<Arc<StoredResponse>>,
    stored: &Arc<StoredResponse>,
    replaces: Option<RecordId>,
) -> Vec<Arc<StoredResponse>> {
    let others = known
        .into_iter()
        .filter(|variant| variant.id() != stored.id() && Some(variant.id()) != replaces);
    std::iter::once(stored.clone())
        .chain(others)
        .take(VARIANTS_MAX)
        .collect()
}
