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
use crate::policy::{CacheKey, Mark, Names};

/// Keys that are marked on the spot; the work for more goes where it may take its time.
const KEYS_ON_THE_SPOT_MAX: usize = 64;

impl Inner {
    pub(super) async fn invalidate_groups(
        self: &Arc<Self>,
        key: &CacheKey,
        groups: &Names,
    ) -> Result<(), StoreError> {
        let origin = key.origin();
        let some = Label::some_group(origin);
        match groups {
            Names::Listed(groups) => {
                let labels = groups.iter().map(|group| Label::group(origin, group));
                let labels = labels.chain([Label::every_group(origin)]).collect();
                self.mark_labelled(labels, Some(some), Mark::Invalid).await
            }
            Names::Every => {
                self.mark_labelled([some].into_iter().collect(), None, Mark::Invalid)
                    .await
            }
        }
    }

    pub(super) async fn mark_paths(
        self: &Arc<Self>,
        paths: &[Paths],
        mark: Mark,
    ) -> Result<(), StoreError> {
        let labels = paths.iter().map(Paths::label).collect();
        self.mark_labelled(labels, None, mark).await
    }

    /// Marks what is filed under one of `labels`, or where so many wait already, under the wider one: in memory, and in what
    /// waits for the disk, when this returns.
    pub(super) async fn mark_labelled(
        self: &Arc<Self>,
        labels: Labels,
        wider: Option<Label>,
        mark: Mark,
    ) -> Result<(), StoreError> {
        // What waits for the disk is marked with it. Before the keys are looked for: what a lookup promotes meanwhile is
        // marked there, or found here.
        let labels = self.announce(labels, wider, mark);
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

    /// Refuses the fills under way and has the disk marked; returns the labels for which that is done.
    fn announce(&self, labels: Labels, wider: Option<Label>, mark: Mark) -> Labels {
        self.purges.invalidate_labelled(&labels);
        if self.disk.is_none() || self.pending.mark_labelled(&labels, mark) {
            return labels;
        }
        match wider {
            // Of this origin alone: what one asks for too often is no other one's loss.
            Some(wider) => self.announce([wider].into_iter().collect(), None, mark),
            None => {
                self.distrust_disk(mark);
                labels
            }
        }
    }

    fn mark_keys(&self, keys: &[CacheKey], labels: &[Label], mark: Mark) {
        for key in keys {
            let changing = self.memory.change(key.as_str());
            let is_labelled = |stored: &StoredResponse| stored.is_labelled(labels);
            apply_to_memory(&changing, key, Effect::Mark(mark), is_labelled);
        }
    }
}
