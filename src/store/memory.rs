//! The memory tier: resources by key, weighed in bytes.
//!
//! A lookup is one hash lookup and takes no lock of ours. Changes of one key are serialised by a stripe, held for the
//! change only; its generation lets a reader that went to disk in between notice. No TTL: freshness is the policy's.

use std::{
    hash::BuildHasher,
    ops::RangeInclusive,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use foldhash::fast::RandomState;
use moka::{notification::RemovalCause, policy::EvictionPolicy, sync::Cache};
use prometheus_client::metrics::counter::Counter;

use super::{
    id::RecordId,
    resource::{Resource, StoredBody, StoredResponse},
};
use crate::policy::CacheKey;

/// What a key costs besides its text and variants: moka's entry (305 bytes measured) and ours.
const ENTRY_OVERHEAD_BYTES: u64 = 400;

/// A larger part of the budget than one in this many is not spent on one body.
const BODY_SHARE: u64 = 8;

/// Nor on one key: a key that weighs more than its budget would never be admitted.
const KEY_SHARE: u64 = 2;

/// One key that was used and stayed on disk is remembered for so many bytes of the budget: about as many as find room.
const USED_SHARE_BYTES: u64 = 2 * 1024;

/// And at least so many, and at most, so that they take no more than 16 MiB: 4 bytes each.
const USED_KEYS: RangeInclusive<u64> = 256..=4 * 1024 * 1024;

/// Enough that two changes at the same time seldom meet.
const STRIPES: usize = 256;

pub(super) struct Memory {
    cache: Cache<CacheKey, Arc<Resource>, RandomState>,
    stripes: Box<[Stripe]>,
    /// What was used and stayed on disk: of each key a part of its hash, in a place that others may take.
    used: Box<[AtomicU32]>,
    hasher: RandomState,
    budget: u64,
}

#[derive(Debug, Default)]
struct Stripe {
    generation: AtomicU64,
    lock: Mutex<()>,
}

/// The right to change the keys of one stripe.
pub(super) struct Changing<'a> {
    memory: &'a Memory,
    stripe: &'a Stripe,
    _guard: MutexGuard<'a, ()>,
}

/// Whether what is rejected or evicted here is lost, or is still on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Behind {
    Disk,
    Nothing,
}

impl Memory {
    pub(super) fn new(budget: u64, behind: Behind, evictions: Counter) -> Self {
        let policy = match behind {
            // Frequency keeps a scan from emptying the tier.
            Behind::Disk => EvictionPolicy::tiny_lfu(),
            // But it may reject what is new, which would then be lost at once.
            Behind::Nothing => EvictionPolicy::lru(),
        };
        let hasher = RandomState::default();
        let used = (budget / USED_SHARE_BYTES).clamp(*USED_KEYS.start(), *USED_KEYS.end());
        let cache = Cache::builder()
            .max_capacity(budget)
            .weigher(|_, resource: &Arc<Resource>| {
                u32::try_from(weight(resource)).unwrap_or(u32::MAX)
            })
            .eviction_policy(policy)
            .eviction_listener(move |_, _, cause| {
                if cause == RemovalCause::Size {
                    evictions.inc();
                }
            })
            .build_with_hasher(hasher.clone());
        Self {
            cache,
            stripes: (0..STRIPES).map(|_| Stripe::default()).collect(),
            used: (0..used).map(|_| AtomicU32::new(0)).collect(),
            hasher,
            budget,
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<Arc<Resource>> {
        self.cache.get(key)
    }

    /// The same for who has asked before, and found nothing: admission goes by how often a key is asked for.
    pub(super) fn get_again(&self, key: &str) -> Option<Arc<Resource>> {
        if !self.cache.contains_key(key) {
            return None;
        }
        self.get(key)
    }

    /// The generation of the key's stripe: another one later says that something there changed.
    pub(super) fn generation(&self, key: &str) -> u64 {
        self.stripe(key).generation.load(Ordering::Acquire)
    }

    /// Serialises changes of `key`.
    pub(super) fn change(&self, key: &str) -> Changing<'_> {
        let stripe = self.stripe(key);
        let guard = stripe.lock.lock().unwrap_or_else(PoisonError::into_inner);
        Changing {
            memory: self,
            stripe,
            _guard: guard,
        }
    }

    /// The variants that this tier takes, and whether those are all: large bodies stay out, and so do the oldest
    /// variants where all together are too heavy.
    pub(super) fn fitting(
        &self,
        variants: &[Arc<StoredResponse>],
    ) -> (Vec<Arc<StoredResponse>>, bool) {
        let mut left = self.budget / KEY_SHARE;
        let fitting: Vec<_> = variants
            .iter()
            .filter(|variant| {
                let weight = variant.weight();
                let fits = self.takes(&variant.body) && weight <= left;
                if fits {
                    left -= weight;
                }
                fits
            })
            .cloned()
            .collect();
        let all = fitting.len() == variants.len();
        (fitting, all)
    }

    /// Whether a body is small enough to be kept in memory.
    pub(super) fn takes(&self, body: &StoredBody) -> bool {
        match body {
            StoredBody::Memory(bytes) => bytes.len() as u64 <= self.budget / BODY_SHARE,
            StoredBody::File(_) => true,
        }
    }

    /// Whether what the disk has of `key` should come here: there is room, or it was used before, about as long ago as keys
    /// stay here. What is used once would push out another, or be refused, and cost more than it is worth (the doorkeeper
    /// of TinyLFU, Einziger et al. 2017, section 3.4.2).
    pub(super) fn is_worth_promoting(&self, key: &str) -> bool {
        if self.cache.weighted_size() < self.budget - self.budget / 8 {
            return true;
        }
        let (slot, mark) = self.used(key);
        slot.load(Ordering::Relaxed) == mark
    }

    /// Notes the use of what stays on disk.
    pub(super) fn note_use(&self, key: &str) {
        let (slot, mark) = self.used(key);
        slot.store(mark, Ordering::Relaxed);
    }

    fn used(&self, key: &str) -> (&AtomicU32, u32) {
        let hash = self.hasher.hash_one(key);
        let slot = usize::try_from(hash % self.used.len() as u64).unwrap_or_default();
        (
            &self.used[slot],
            u32::try_from(hash >> 32).unwrap_or_default(),
        )
    }

    /// Every resource, in no order; one that comes or goes meanwhile may be missed.
    pub(super) fn iter(&self) -> impl Iterator<Item = Arc<Resource>> + '_ {
        self.cache.iter().map(|(_, resource)| resource)
    }

    /// Keys and weight, as of now.
    pub(super) fn totals(&self) -> (u64, u64) {
        self.cache.run_pending_tasks();
        (self.cache.entry_count(), self.cache.weighted_size())
    }

    /// Forgets everything, as if it had been evicted.
    #[cfg(test)]
    pub(super) fn clear(&self) {
        self.cache.invalidate_all();
    }

    fn stripe(&self, key: &str) -> &Stripe {
        let hash = self.hasher.hash_one(key);
        &self.stripes[usize::try_from(hash % STRIPES as u64).unwrap_or_default()]
    }
}

impl Changing<'_> {
    pub(super) fn generation(&self) -> u64 {
        self.stripe.generation.load(Ordering::Acquire)
    }

    /// Says that what waited for the disk is there now: who read the disk before has to look again.
    pub(super) fn note_written(&self) {
        self.stripe.generation.fetch_add(1, Ordering::AcqRel);
    }

    /// Puts the variants that fit in place of what is there; `complete`: the disk has no others.
    pub(super) fn replace(&self, key: &CacheKey, variants: &[Arc<StoredResponse>], complete: bool) {
        self.stripe.generation.fetch_add(1, Ordering::AcqRel);
        self.promote(key, variants, complete);
    }

    /// The same with what the disk had: nobody else who read the disk meanwhile need look again.
    pub(super) fn promote(&self, key: &CacheKey, variants: &[Arc<StoredResponse>], complete: bool) {
        let (fitting, all) = self.memory.fitting(variants);
        if fitting.is_empty() {
            self.memory.cache.invalidate(key.as_str());
        } else {
            let resource = Resource::new(key.clone(), fitting, complete && all);
            self.memory.cache.insert(key.clone(), resource);
        }
    }

    /// Keeps, of each variant, what `change` makes of it.
    pub(super) fn update(
        &self,
        key: &CacheKey,
        mut change: impl FnMut(&Arc<StoredResponse>) -> Option<Arc<StoredResponse>>,
    ) {
        self.stripe.generation.fetch_add(1, Ordering::AcqRel);
        let Some(resource) = self.memory.cache.get(key.as_str()) else {
            return;
        };
        let variants: Vec<_> = resource.variants.iter().filter_map(&mut change).collect();
        let is_same = variants.len() == resource.variants.len()
            && variants
                .iter()
                .zip(&resource.variants)
                .all(|(new, old)| Arc::ptr_eq(new, old));
        if !is_same {
            self.promote(key, &variants, resource.is_complete());
        }
    }

    /// Says that of `key` the disk has these variants and no others.
    pub(super) fn note_on_disk(&self, key: &CacheKey, on_disk: &[RecordId]) {
        if let Some(resource) = self.memory.cache.get(key.as_str())
            && !resource.is_complete()
            && on_disk.iter().all(|id| resource.has(*id))
        {
            resource.set_complete();
        }
    }
}

fn weight(resource: &Resource) -> u64 {
    let variants: u64 = resource
        .variants
        .iter()
        .map(|variant| variant.weight())
        .sum();
    ENTRY_OVERHEAD_BYTES + resource.key.as_str().len() as u64 + variants
}
