//! Purges by an operator, and removals of one stored response: in every tier, durable when they return.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use tokio::sync::oneshot;

use super::{
    Entry, Inner, PurgeKind, Purged, Selector, StoreError,
    disk::Selected,
    id::{PublicId, RecordId},
    matcher::Matcher,
    pending::SelectJob,
    publish::apply_to_memory,
    resource::{Effect, StoredResponse},
};
use crate::policy::{CacheKey, Mark};

impl Inner {
    pub(super) async fn purge(
        self: &Arc<Self>,
        selector: &Selector,
        kind: PurgeKind,
    ) -> Result<Purged, StoreError> {
        let _permit = self
            .purging
            .acquire()
            .await
            .map_err(|_| StoreError::Unavailable)?;
        let matcher = Matcher::from(selector);
        let effect = match kind {
            PurgeKind::Soft => Some(Effect::Mark(Mark::Stale)),
            PurgeKind::Hard => Some(Effect::Remove),
            PurgeKind::DryRun => None,
        };
        let (reply, answer) = oneshot::channel();
        let inner = self.clone();
        // One piece, off the runtime's threads: it walks the whole memory tier, and a caller that goes away in the
        // middle leaves no purge half done.
        let swept =
            tokio::task::spawn_blocking(move || inner.purge_memory(matcher, effect, reply)).await;
        swept.map_err(|_| StoreError::Unavailable)?;
        answer.await.unwrap_or(Err(StoreError::Unavailable))
    }

    /// Purges what is in memory and hands the rest to the writer, who replies.
    fn purge_memory(
        &self,
        matcher: Matcher,
        effect: Option<Effect>,
        reply: oneshot::Sender<Result<Purged, StoreError>>,
    ) {
        let in_force = effect.map(|effect| self.purges.begin(matcher.clone(), effect));
        let elsewhere = self.sweep_memory(&matcher, effect);
        let job = SelectJob {
            matcher,
            effect,
            elsewhere,
            superseded: HashSet::new(),
            in_force,
            reply: Some(reply),
        };
        if self.disk.is_some() {
            self.pending.select(job);
            return;
        }
        let ids: HashSet<_> = job.elsewhere.keys().copied().collect();
        let purged = job.purged(Selected::default(), &ids);
        if let Some(reply) = job.reply {
            // Nobody waits for the answer any more: the purge is done all the same.
            let _ = reply.send(Ok(purged));
        }
    }

    fn sweep_memory(
        &self,
        matcher: &Matcher,
        effect: Option<Effect>,
    ) -> HashMap<RecordId, CacheKey> {
        let mut selected = HashMap::new();
        for key in self.keys_in_memory(matcher) {
            let changing = self.memory.change(key.as_str());
            // It may have changed since its key was found.
            let now = self.memory.get(key.as_str());
            for variant in now.iter().flat_map(|resource| &resource.variants) {
                if matcher.selects(&key, variant) {
                    selected.insert(variant.id(), key.clone());
                }
            }
            if let Some(effect) = effect {
                let is_selected = |stored: &StoredResponse| matcher.selects(&key, stored);
                apply_to_memory(&changing, &key, effect, is_selected);
            }
        }
        selected
    }

    /// The keys among which all are that `matcher` selects in memory.
    fn keys_in_memory<'a>(
        &'a self,
        matcher: &'a Matcher,
    ) -> Box<dyn Iterator<Item = CacheKey> + 'a> {
        match matcher {
            Matcher::Labels(labels) => {
                Box::new(labels.iter().flat_map(|label| self.labels.keys(label)))
            }
            by_key => {
                let all = self.memory.iter().filter(|resource| {
                    let mut variants = resource.variants.iter();
                    variants.any(|stored| by_key.selects(&resource.key, stored))
                });
                Box::new(all.map(|resource| resource.key.clone()))
            }
        }
    }

    pub(super) async fn remove(self: &Arc<Self>, id: &str) -> Result<Option<Entry>, StoreError> {
        let Some(public) = PublicId::parse(id) else {
            return Ok(None);
        };
        let Some((key, id)) = self.named(public).await? else {
            return Ok(None);
        };
        let entry = self.entries_of(&key, id).await?.into_iter().next();
        self.purges.invalidate(&key);
        {
            let changing = self.memory.change(key.as_str());
            changing.update(&key, |variant| {
                (variant.id() != id).then(|| variant.clone())
            });
            if self.disk.is_some() {
                self.pending.remove(&key, id);
            }
        }
        if self.disk.is_some() {
            self.pending.flush().await;
            if self.pending.is_removing(&key, id) {
                return Err(StoreError::Unavailable);
            }
        }
        Ok(entry)
    }
}
