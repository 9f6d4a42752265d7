//! Stored responses of other URIs that answer a request too, because they say that the difference does not matter
//! (No-Vary-Search).
//!
//! Bounds: [`KEYS_MAX`] keys are looked at. The keys under a label are verified by who reuses a response: a label is a hash.

use std::sync::Arc;

use super::{Inner, Resource, StoreError, disk::DiskError, labels::Label};
use crate::policy::{CacheKey, SearchVariation};

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
        match self.on_disk(move |disk| disk.variations(&sought)).await {
            Ok(found) => searches.note_on_disk(path, found),
            Err(DiskError::Closed) => return Ok(known),
            Err(error) => return Err(self.read_error(error)),
        }
        Ok(searches.of(path).0)
    }
}
