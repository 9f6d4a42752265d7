//! By which variations the stored responses of a path answer other queries (No-Vary-Search), so that a lookup knows under
//! which labels to look.
//!
//! A filter says which paths have any: for the others a lookup costs an atomic load. It is filled by what is published
//! and promoted, and from the disk tier after the start; until that is done every path may have some. Bounds:
//! [`PATHS_MAX`] paths, of which any goes for a new one (it is found on disk again), [`VARIATIONS_MAX`] of each.

use std::{
    collections::HashMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use xxhash_rust::xxh3::xxh3_64;

use crate::policy::SearchVariation;

/// With as many paths as are kept in memory, one in 256 others is looked for in vain.
const FILTER_BITS: u64 = 1 << 20;

const PATHS_MAX: usize = 4_096;

/// Servers are told to send one for a path; more are tried one after the other.
pub(super) const VARIATIONS_MAX: usize = 8;

pub(super) struct Searches {
    filter: Box<[AtomicU64]>,
    is_scanned: AtomicBool,
    paths: Mutex<HashMap<Box<str>, Known>>,
}

/// The variations of a path, the latest last.
#[derive(Clone, Default)]
struct Known {
    variations: Vec<SearchVariation>,
    // Whether those on disk are among them.
    is_complete: bool,
}

impl Searches {
    /// Whether anything stored under this path may answer other queries.
    pub(super) fn may_have(&self, path: &str) -> bool {
        let (word, bit) = place(path);
        self.filter[word].load(Ordering::Relaxed) & bit != 0
            || !self.is_scanned.load(Ordering::Relaxed)
    }

    /// Says that something under this path is stored on disk.
    pub(super) fn note_path(&self, path: &str) {
        let (word, bit) = place(path);
        self.filter[word].fetch_or(bit, Ordering::Relaxed);
    }

    /// Says that every path on disk has been noted.
    pub(super) fn set_scanned(&self) {
        self.is_scanned.store(true, Ordering::Relaxed);
    }

    /// Says that something is stored under this path that answers other queries.
    pub(super) fn note(&self, path: &str, variation: &SearchVariation) {
        self.note_path(path);
        self.change(path, |known| known.add(variation.clone()));
    }

    /// The same of what was found on disk, where there is nothing more.
    pub(super) fn note_on_disk(&self, path: &str, variations: Vec<SearchVariation>) {
        self.change(path, |known| {
            let later = std::mem::replace(&mut known.variations, variations);
            later.into_iter().for_each(|variation| known.add(variation));
            known.is_complete = true;
        });
    }

    /// The variations of a path, and whether those on disk are among them.
    pub(super) fn of(&self, path: &str) -> (Vec<SearchVariation>, bool) {
        let known = self.paths().get(path).cloned().unwrap_or_default();
        (known.variations, known.is_complete)
    }

    fn change(&self, path: &str, change: impl FnOnce(&mut Known)) {
        let mut paths = self.paths();
        if let Some(known) = paths.get_mut(path) {
            return change(known);
        }
        if paths.len() == PATHS_MAX
            && let Some(other) = paths.keys().next().cloned()
        {
            paths.remove(&other);
        }
        change(paths.entry(path.into()).or_default());
    }

    fn paths(&self) -> MutexGuard<'_, HashMap<Box<str>, Known>> {
        self.paths.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Searches {
    fn default() -> Self {
        Self {
            filter: (0..FILTER_BITS / 64).map(|_| AtomicU64::new(0)).collect(),
            is_scanned: AtomicBool::new(false),
            paths: Mutex::default(),
        }
    }
}

impl Known {
    fn add(&mut self, variation: SearchVariation) {
        if self.variations.contains(&variation) {
            return;
        }
        if self.variations.len() == VARIATIONS_MAX {
            self.variations.remove(0);
        }
        self.variations.push(variation);
    }
}

/// The word of the filter and the bit in it.
fn place(path: &str) -> (usize, u64) {
    let bit = xxh3_64(path.as_bytes()) % FILTER_BITS;
    (
        usize::try_from(bit / 64).unwrap_or_default(),
        1 << (bit % 64),
    )
}
