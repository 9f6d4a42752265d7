//! Stored responses of other URIs that answer a request too, because they say that the difference does not matter
//! (No-Vary-Search).
//!
//! Bounds: a lookup looks at [`KEYS_MAX`] keys. They are verified by who reuses a response: a label is a hash. An
//! invalidation has no such bound: it marks what is filed under the labels, and verifies nothing.

use std::sync::{Arc, atomic::Ordering};

use super::{
    Inner, Resource, StoreError,
    disk::DiskError,
    labels::{Label, Labels},
    searches::VARIATIONS_MAX,
};
use crate::policy::{CacheKey, Mark, SearchVariation};

/// Keys between which no difference matters are few: the second request for one is answered from the first.
const KEYS_MAX: usize = 8;

impl Inner {
    /// Whether it is worth to look for equivalents of `key`.
    pub(super) fn may_have_equivalents(&self, key: &CacheKey) -> bool {
        self.labels.searches.may_have(key.split_query().0)
    }

    pub(super) async fn equivalents(
        self: &Arc<Self>,
        key: &CacheKey,
    ) -> Result<Vec<Arc<Resource>>, StoreError> {
        let (path, query) = key.split_query();
        let mut found: Vec<Arc<Resource>> = Vec::new();
        for variation in self.variations(path).await? {
            let label = Label::search(path, &variation, query);
            for other in self.keys_under(key, &label).await? {
                if found.len() < KEYS_MAX
                    && found.iter().all(|resource| resource.key != other)
                    && let Some(resource) = self.lookup(&other).await?
                {
                    found.push(resource);
                }
            }
        }
        Ok(found)
    }

    /// Marks every stored response that may answer a request for `key` too, and what is stored for QUERY requests to the
    /// URIs that a lookup would find.
    pub(super) async fn mark_equivalents(
        self: &Arc<Self>,
        key: &CacheKey,
        mark: Mark,
    ) -> Result<(), StoreError> {
        if !self.may_have_equivalents(key) {
            return Ok(());
        }
        let (path, query) = key.split_query();
        let (variations, read) = match self.variations(path).await {
            Ok(variations) => (variations, Ok(())),
            Err(error) => {
                self.distrust_disk(mark);
                (self.labels.searches.of(path).0, Err(error))
            }
        };
        let label = |variation| Label::search(path, variation, query);
        let labels: Labels = variations.iter().map(label).collect();
        // From here on every fill that is under way is refused, so what is nowhere now does not come.
        self.purges.invalidate_labelled(&labels);
        let mut used = Labels::new();
        for label in labels {
            if self.has_any_labelled(&label).await {
                used.push(label);
            }
        }
        if used.is_empty() {
            return read;
        }
        let marked = self.mark_labelled(used.clone(), None, mark).await.and(read);
        if !self.queries.may_exist.load(Ordering::Acquire) {
            return marked;
        }
        self.mark_queries_labelled(key, &used, mark)
            .await
            .and(marked)
    }

    /// Marks what is stored for QUERY requests to URIs that a lookup of `key` would find under `labels`.
    async fn mark_queries_labelled(
        self: &Arc<Self>,
        key: &CacheKey,
        labels: &[Label],
        mark: Mark,
    ) -> Result<(), StoreError> {
        let mut marked = Ok(());
        for label in labels {
            match self.keys_under(key, label).await {
                Ok(keys) => {
                    for other in keys {
                        marked = self.mark_target(&other, mark).await.and(marked);
                    }
                }
                Err(error) => {
                    self.distrust_disk(mark);
                    marked = Err(error);
                }
            }
        }
        marked
    }

    /// Whether anything may be filed under a label. Marks that wait for the disk have room for so many labels only.
    async fn has_any_labelled(self: &Arc<Self>, label: &Label) -> bool {
        // In this order: what is in memory now may be on disk, and nowhere else, a moment later.
        if !self.labels.keys_up_to(label, 1).is_empty() {
            return true;
        }
        if self.disk.is_none() {
            return false;
        }
        let sought = label.clone();
        let found = self.on_disk(move |disk| disk.keys_labelled(&sought, 1));
        !matches!(found.await, Ok(keys) if keys.is_empty())
    }

    /// Keys under a label, other than `key`: those in memory, or else those on disk.
    async fn keys_under(
        self: &Arc<Self>,
        key: &CacheKey,
        label: &Label,
    ) -> Result<Vec<CacheKey>, StoreError> {
        let others = |keys: Vec<CacheKey>| {
            let others = keys.into_iter().filter(|other| other != key);
            others.take(KEYS_MAX).collect::<Vec<_>>()
        };
        let in_memory = others(self.labels.keys_up_to(label, KEYS_MAX + 1));
        if !in_memory.is_empty() || self.disk.is_none() {
            return Ok(in_memory);
        }
        let label = label.clone();
        let found = self
            .on_disk(move |disk| disk.keys_labelled(&label, KEYS_MAX + 1))
            .await;
        match found {
            Ok(keys) => Ok(others(keys)),
            // A tier that is closed has nothing: that is no news, and `Store::stats` says it.
            Err(DiskError::Closed) => Ok(Vec::new()),
            Err(error) => Err(self.read_error(error)),
        }
    }

    async fn variations(self: &Arc<Self>, path: &str) -> Result<Vec<SearchVariation>, StoreError> {
        let searches = &self.labels.searches;
        let (known, is_complete) = searches.of(path);
        if is_complete || self.disk.is_none() {
            return Ok(known);
        }
        let sought = path.to_owned();
        match self
            .on_disk(move |disk| disk.variations(&sought, VARIATIONS_MAX))
            .await
        {
            Ok(found) => searches.note_on_disk(path, found),
            Err(DiskError::Closed) => return Ok(known),
            Err(error) => return Err(self.read_error(error)),
        }
        Ok(searches.of(path).0)
    }
}
