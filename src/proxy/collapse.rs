//! One fill per key and variant: who comes while one is under way follows it.
//!
//! Bounds: [`FILLS_MAX`] fills are joined; beyond it requests fill on their own. A fill that started before a purge of
//! its key is not joined, so nobody gets what was purged.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::fill::Fill;
use crate::{
    policy::{CacheKey, VariantKey},
    store::Store,
};

/// Fills that can be joined at a time; each holds a permit or waits for one, so this is far above what upstreams allow.
const FILLS_MAX: usize = 16_384;

/// The fills under way.
///
/// Before the head of an answer has come nobody knows by what it varies, so the first fill of a key is found without a
/// variant. Whoever followed it and turns out to want another variant looks again, for the fill of that variant.
#[derive(Debug, Default)]
pub(crate) struct Fills {
    under_way: Mutex<HashMap<Target, Arc<Fill>>>,
}

/// What a fill fills.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    /// The key.
    pub(crate) key: CacheKey,
    /// The variant, where it is known before the answer.
    pub(crate) variant: Option<VariantKey>,
    /// How much of it.
    pub(crate) extent: Extent,
}

/// How much of a representation a fill fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Extent {
    /// The whole: whoever asks for it may join.
    Whole,
    /// A part, which answers nobody else.
    Part,
}

/// What a request became.
pub(crate) enum Role<T> {
    /// It follows a fill under way.
    Follow(Arc<Fill>),
    /// It needs none: this was published meanwhile.
    Found(T),
    /// It starts this fill; others can join.
    Start(Arc<Fill>),
}

impl Fills {
    /// Joins the fill of `target`, or of the same under another name, or registers a new one, unless `look` finds that there
    /// is no need for it.
    ///
    /// Whoever found nothing in the store a moment ago may have missed a fill that ended since. A fill publishes before it
    /// leaves, so where none is under way, what the last one brought is there for `look`, which must be quick.
    pub(crate) fn join<T>(
        &self,
        store: &Store,
        target: Target,
        named: Option<&Target>,
        look: impl FnOnce() -> Option<T>,
    ) -> Role<T> {
        let mut fills = self.lock();
        for sought in std::iter::once(&target).chain(named) {
            if let Some(fill) = fills.get(sought)
                && store.is_current(fill.ticket, &target.key, fill.head().as_deref())
            {
                return Role::Follow(Arc::clone(fill));
            }
        }
        if let Some(found) = look() {
            return Role::Found(found);
        }
        let fill = Fill::new(target.clone(), store.ticket());
        if fills.len() < FILLS_MAX || fills.contains_key(&target) {
            fills.insert(target, Arc::clone(&fill));
        }
        Role::Start(fill)
    }

    /// Takes a fill that has ended off the list, unless another has taken its place.
    pub(crate) fn leave(&self, fill: &Arc<Fill>) {
        let mut fills = self.lock();
        if fills
            .get(&fill.target)
            .is_some_and(|found| Arc::ptr_eq(found, fill))
        {
            fills.remove(&fill.target);
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Target, Arc<Fill>>> {
        self.under_way
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}
