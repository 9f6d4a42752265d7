//! Invalidations that clients' requests bring about and that reach further than one key. They cost what they hit, and
//! never wait for the disk.

use std::sync::Arc;

use super::{
    Inner, StoreError,
    labels::{Label, Labels},
    paths::Paths,
    publish::apply_to_memory,
    resource::{Effect, StoredResponse},
};
use crate::policy::{CacheKey, Mark};

/// Keys that are marked on the spot; the work for more goes where it may take its time.
const KEYS_ON_THE_SPOT_MAX: usize = 64;

impl Inner {
    pub(super) async fn invalidate_groups(
        self: &Arc<Self>,
        key: &CacheKey,
        groups: &[Box<[u8]>],
    ) -> Result<(), StoreError> {
        let origin = key.origin();
        let mut labels: Labels = groups
            .iter()
            .map(|group| Label::group(origin, group))
            .collect();
        labels.push(Label::every_group(origin));
        self.mark_labelled(labels, Mark::Invalid).await
    }

    pub(super) async fn invalidate_paths(
        self: &Arc<Self>,
        paths: &[Paths],
    ) -> Result<(), StoreError> {
        self.mark_labelled(paths.iter().map(Paths::label).collect(), Mark::Invalid)
            .await
    }

    /// Marks what is filed under one of `labels`: in memory, and in what waits for the disk, when this returns.
    async fn mark_labelled(self: &Arc<Self>, labels: Labels, mark: Mark) -> Result<(), StoreError> {
        self.purges.invalidate_labelled(&labels);
        // What waits for the disk is marked with it. Before the keys are looked for: what a lookup promotes meanwhile is
        // marked there, or found here.
        if self.disk.is_some() && !self.pending.mark_labelled(&labels, mark) {
            self.distrust_disk(mark);
        }
        let keys: Vec<_> = labels
            .iter()
            .flat_map(|label| self.labels.keys(label))
            .collect();
        if keys.len() <= KEYS_ON_THE_SPOT_MAX {
            self.mark_keys(&keys, &labels, mark);
        } else {
            let inner = self.clone();
            // In one piece: a client that goes away in the middle leaves nothing half done.
            let marking = move || inner.mark_keys(&keys, &labels, mark);
            let marked = tokio::task::spawn_blocking(marking).await;
            marked.map_err(|_| StoreError::Unavailable)?;
        }
        if self.disk.is_some() && self.pending.is_closing() {
            return Err(StoreError::Unavailable);
        }
        Ok(())
    }

    fn mark_keys(&self, keys: &[CacheKey], labels: &[Label], mark: Mark) {
        for key in keys {
            let changing = self.memory.change(key.as_str());
            let is_labelled = |stored: &StoredResponse| stored.is_labelled(labels);
            apply_to_memory(&changing, key, Effect::Mark(mark), is_labelled);
        }
    }
}
