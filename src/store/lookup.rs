//! Lookups: memory, then what waits to be written, then the disk; what the disk has is promoted, where memory has room
//! or it was asked for before.
//!
//! A lookup that went to disk publishes what it found only if nothing was published or purged under the key meanwhile, and
//! nothing that waited for the disk was done there: what it read may be from before that, and what waited is forgotten.

use std::sync::Arc;

use super::{
    Inner, StoreError, Ticket,
    disk::{Disk, DiskError, Found},
    pending::apply,
    resource::{Effect, Resource, StoredResponse, VARIANTS_MAX},
};
use crate::policy::CacheKey;

/// How often a lookup goes back to disk because the key changed under it. Each time somebody else made progress.
const ATTEMPTS: usize = 4;

/// What a key looked like before the disk was asked.
#[derive(Clone, Copy)]
pub(super) struct Before {
    ticket: Ticket,
    /// Purges whose work on disk was done.
    ended: u64,
    generation: u64,
}

/// What came of merging the tiers.
pub(super) enum Merged {
    Done(Option<Arc<Resource>>),
    /// The key changed meanwhile.
    Outdated,
}

impl Inner {
    /// The resource in memory, where that knows all its variants.
    fn complete_in_memory(&self, key: &CacheKey) -> Option<Arc<Resource>> {
        let resource = self.memory.get_again(key.as_str())?;
        (self.disk.is_none() || resource.is_complete()).then_some(resource)
    }

    /// Whether it was noted that no tier has anything of `key`.
    fn is_absent(&self, key: &str) -> bool {
        let generation = self.memory.generation(key);
        self.disk.is_some() && self.absent.is_noted(key, generation)
    }

    /// What memory has of `key`, or else the disk, if that need not be waited for.
    pub(super) fn at_hand(self: &Arc<Self>, key: &str) -> Option<Arc<Resource>> {
        if let Some(resource) = self.memory.get(key) {
            return Some(resource);
        }
        let disk = self.disk.as_ref()?;
        if self.is_absent(key) {
            return None;
        }
        let key = &CacheKey::from_text(key);
        let before = self.before(key);
        let records = disk.records_at_hand(key)?;
        if !records.are_whole() {
            return None;
        }
        match self.take_in(key, before, Ok(disk.found(records))) {
            Ok(Merged::Done(resource)) => resource,
            // Whoever looks closer is told what is the matter.
            Ok(Merged::Outdated) | Err(_) => None,
        }
    }

    /// What a lookup finds without the disk: a resource, or for certain nothing. `None`: only the disk can tell.
    pub(super) fn known(&self, key: &CacheKey) -> Option<Option<Arc<Resource>>> {
        // First: memory had nothing of it either, and what came since has changed the generation.
        if self.is_absent(key.as_str()) {
            return Some(None);
        }
        let resource = self.complete_in_memory(key);
        (resource.is_some() || self.disk.is_none()).then_some(resource)
    }

    pub(super) async fn lookup(
        self: &Arc<Self>,
        key: &CacheKey,
    ) -> Result<Option<Arc<Resource>>, StoreError> {
        for _ in 0..ATTEMPTS {
            if let Some(known) = self.known(key) {
                return Ok(known);
            }
            let before = self.before(key);
            let found = self.find(key).await;
            match self.take_in(key, before, found)? {
                Merged::Done(resource) => return Ok(resource),
                Merged::Outdated => {}
            }
        }
        // Somebody keeps changing this key, so what matters is in memory or waits to be written. What else is on disk
        // stays unknown, as with a disk that cannot be read.
        match self.merge(key, self.before(key), Err(DiskError::Closed))? {
            Merged::Done(resource) => Ok(resource),
            Merged::Outdated => Ok(self.memory.get(key.as_str())),
        }
    }

    /// What the disk has of `key`. Another thread reads what would have to be waited for.
    async fn find(self: &Arc<Self>, key: &CacheKey) -> Result<Found, DiskError> {
        let disk = self.disk.as_ref().ok_or(DiskError::Closed)?;
        match disk.records_at_hand(key) {
            Some(records) if records.need_files() => {
                self.on_disk(move |disk| Ok(disk.found(records))).await
            }
            Some(records) => Ok(disk.found(records)),
            None => {
                let sought = key.clone();
                self.on_disk(move |disk| disk.find(&sought)).await
            }
        }
    }

    /// What the tiers know together, after the disk was asked.
    fn take_in(
        self: &Arc<Self>,
        key: &CacheKey,
        before: Before,
        found: Result<Found, DiskError>,
    ) -> Result<Merged, StoreError> {
        let merged = self.merge(key, before, found)?;
        // The disk may lose what memory now has.
        if matches!(merged, Merged::Done(Some(_)))
            && let Some(forgotten) = self.queries.know(key)
        {
            self.invalidate_forgotten(&forgotten);
        }
        Ok(merged)
    }

    pub(super) fn before(&self, key: &CacheKey) -> Before {
        Before {
            ticket: self.purges.ticket(),
            ended: self.purges.read().ended(),
            generation: self.memory.generation(key.as_str()),
        }
    }

    /// Puts together what all tiers know of `key`, and keeps it in memory if it is worth that.
    pub(super) fn merge(
        &self,
        key: &CacheKey,
        before: Before,
        found: Result<Found, DiskError>,
    ) -> Result<Merged, StoreError> {
        let has_nothing = found.as_ref().is_ok_and(Found::is_empty);
        let (found, error) = match found {
            Ok(found) => (found, None),
            Err(error) => (Found::default(), Some(error)),
        };
        let mut from_disk = found.variants;
        for stored in &mut from_disk {
            stored.file(&self.labels, key);
        }
        let log = self.purges.read();
        let changing = self.memory.change(key.as_str());
        let is_current = |labels: &[_]| log.is_current(before.ticket, key, labels);
        let is_outdated = log.ended() != before.ended
            || !is_current(&[])
            || from_disk.iter().any(|stored| !is_current(stored.labels()))
            || changing.generation() != before.generation;
        if is_outdated {
            return Ok(Merged::Outdated);
        }
        let overlay = self.pending.overlay(key);
        let from_disk = from_disk
            .into_iter()
            .filter(|stored| !overlay.removes.contains(&stored.id()))
            .filter_map(|stored| {
                let marks = [overlay.mark, self.pending.mark_of(stored.labels())];
                let marks = marks.into_iter().map(Effect::Mark);
                let effects: Vec<_> = log.effects(key, &stored).chain(marks).collect();
                after(effects, Arc::new(stored))
            })
            .collect();
        for corrupt in found.corrupt {
            self.count_error("corrupt");
            self.pending.drop_corrupt(corrupt);
        }
        let in_memory = self.memory.get_again(key.as_str());
        let in_memory = in_memory.map(|resource| resource.variants.clone());
        let is_on_disk_only = in_memory.is_none() && overlay.puts.is_empty();
        let sources = [in_memory.unwrap_or_default(), overlay.puts, from_disk];
        let variants = merge_variants(sources);
        if variants.is_empty() {
            if has_nothing && !self.pending.has(key) {
                self.absent.note(key.as_str(), changing.generation());
            }
            return match error {
                // A tier that is closed has nothing: that is no news, and `Store::stats` says it.
                None | Some(DiskError::Closed) => Ok(Merged::Done(None)),
                Some(error) => Err(self.read_error(error)),
            };
        }
        let complete = error.is_none();
        let resource = Resource::new(key.clone(), variants, complete);
        if is_on_disk_only && !self.memory.is_worth_promoting(key.as_str()) {
            resource.set_on_disk();
        } else {
            changing.promote(key, &resource.variants, complete);
        }
        Ok(Merged::Done(Some(resource)))
    }

    /// Runs one read of the disk tier where it may block.
    pub(super) async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        read: impl FnOnce(&Disk) -> Result<T, DiskError> + Send + 'static,
    ) -> Result<T, DiskError> {
        let _permit = self.reads.acquire().await.map_err(|_| DiskError::Closed)?;
        let inner = self.clone();
        let read = tokio::task::spawn_blocking(move || {
            let disk = inner.disk.as_ref().ok_or(DiskError::Closed)?;
            read(disk)
        });
        read.await.unwrap_or(Err(DiskError::Panicked))
    }

    pub(super) fn read_error(&self, error: DiskError) -> StoreError {
        if matches!(error, DiskError::Closed) {
            return StoreError::Unavailable;
        }
        self.count_error("read");
        StoreError::Io {
            attempt: "read the cache database",
            source: error.into_io(),
        }
    }
}

/// What these effects leave of a response.
fn after(effects: Vec<Effect>, stored: Arc<StoredResponse>) -> Option<Arc<StoredResponse>> {
    let mut one = vec![stored];
    for effect in effects {
        apply(&mut one, effect, |_| true);
    }
    one.pop()
}

/// All variants, the first source's first; of those with the same name only the first.
fn merge_variants(sources: [Vec<Arc<StoredResponse>>; 3]) -> Vec<Arc<StoredResponse>> {
    let mut merged: Vec<Arc<StoredResponse>> = Vec::new();
    for variant in sources.into_iter().flatten() {
        if merged.len() < VARIANTS_MAX && merged.iter().all(|known| known.id() != variant.id()) {
            merged.push(variant);
        }
    }
    merged
}
