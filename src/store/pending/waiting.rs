//! What waits for one key: what happens to its records on disk first, and the responses that are put after that.

use std::{mem, sync::Arc};

use crate::{
    policy::{CacheKey, Mark},
    store::{
        disk::{GivenUp, KeyChange},
        id::RecordId,
        resource::{Effect, StoredResponse, stronger},
    },
};

/// What waits for one key.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) before: Before,
    // What the batch being written does first; still hidden from lookups until that is done.
    pub(super) writing: Before,
    // Most recently stored first; also while they are being written.
    pub(super) puts: Vec<Arc<StoredResponse>>,
    // Which of the puts are new responses, and not what is on disk with another head.
    pub(super) new: Vec<RecordId>,
}

/// What happens to the records on disk before the puts.
#[derive(Clone, Debug, Default)]
pub(super) struct Before {
    pub(super) mark: Option<Mark>,
    pub(super) removes: Vec<RecordId>,
}

/// What lookups must know of a key besides its records on disk.
#[derive(Debug, Default)]
pub(in crate::store) struct Overlay {
    pub(in crate::store) mark: Mark,
    pub(in crate::store) removes: Vec<RecordId>,
    pub(in crate::store) puts: Vec<Arc<StoredResponse>>,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum Outcome {
    Written,
    /// Responses are given up; marks and removals are tried again.
    Failed,
}

impl Waiting {
    pub(super) fn overlay(&self) -> Overlay {
        let mark = |before: &Before| before.mark.unwrap_or_default();
        Overlay {
            mark: stronger(mark(&self.before), mark(&self.writing)),
            removes: [&self.writing.removes[..], &self.before.removes[..]].concat(),
            puts: self.puts.clone(),
        }
    }

    pub(super) fn take(&mut self, key: &CacheKey) -> KeyChange {
        // What is there already was taken by a batch that nobody finished.
        self.before.retry(mem::take(&mut self.writing));
        self.writing = mem::take(&mut self.before);
        KeyChange {
            key: key.clone(),
            mark: self.writing.mark,
            removes: self.writing.removes.clone(),
            puts: self.puts.clone(),
            new: self.new.clone(),
        }
    }

    pub(super) fn finish(&mut self, change: &KeyChange, outcome: Outcome) {
        let is_done = |put: &Arc<_>| change.puts.iter().any(|done| Arc::ptr_eq(put, done));
        let (done, waiting) = mem::take(&mut self.puts).into_iter().partition(is_done);
        self.puts = waiting;
        let writing = mem::take(&mut self.writing);
        if outcome == Outcome::Failed {
            self.before.retry(writing);
            let done: Vec<Arc<StoredResponse>> = done;
            for put in done {
                self.give_up(&put, self.new.contains(&put.id()));
            }
        }
        // One that replaced what was being written is new where that was and is not on disk.
        let Self { new, puts, .. } = self;
        new.retain(|id| puts.iter().any(|put| put.id() == *id));
    }

    /// Has what is on disk under the name of `put`, which is not written, removed or marked.
    pub(super) fn give_up(&mut self, put: &StoredResponse, is_new: bool) {
        match GivenUp::of(put, is_new) {
            GivenUp::Remove => self.before.remove(put.id()),
            GivenUp::Mark(mark) => self.before.add_mark(mark),
        }
    }

    pub(super) fn is_idle(&self) -> bool {
        self.puts.is_empty() && self.before.is_empty() && self.writing.is_empty()
    }

    /// The names whose records on disk are no longer what lookups find.
    pub(super) fn superseded(&self) -> impl Iterator<Item = RecordId> {
        let removes = [&self.writing.removes, &self.before.removes]
            .into_iter()
            .flatten();
        removes.copied().chain(self.puts.iter().map(|put| put.id()))
    }

    /// Records and body bytes.
    pub(super) fn size(&self) -> (usize, u64) {
        let befores = self.before.size() + self.writing.size();
        let bytes = self.puts.iter().map(|put| put.weight()).sum();
        (self.puts.len() + befores, bytes)
    }
}

impl Before {
    pub(super) fn is_empty(&self) -> bool {
        self.mark.is_none() && self.removes.is_empty()
    }

    pub(super) fn size(&self) -> usize {
        usize::from(self.mark.is_some()) + self.removes.len()
    }

    pub(super) fn add_mark(&mut self, mark: Mark) {
        self.mark = Some(stronger(self.mark.unwrap_or_default(), mark));
    }

    pub(super) fn remove(&mut self, id: RecordId) {
        if !self.removes.contains(&id) {
            self.removes.push(id);
        }
    }

    pub(super) fn retry(&mut self, earlier: Self) {
        self.mark = match (self.mark, earlier.mark) {
            (Some(one), Some(other)) => Some(stronger(one, other)),
            (one, other) => one.or(other),
        };
        self.removes.extend(earlier.removes);
        self.removes.sort();
        self.removes.dedup();
    }
}

/// Does to the responses of a list that are selected what a purge or an invalidation does.
pub(in crate::store) fn apply(
    responses: &mut Vec<Arc<StoredResponse>>,
    effect: Effect,
    is_selected: impl Fn(&StoredResponse) -> bool,
) {
    match effect {
        Effect::Remove => responses.retain(|response| !is_selected(response)),
        Effect::Mark(mark) => {
            for response in responses
                .iter_mut()
                .filter(|response| is_selected(response))
            {
                if let Some(marked) = response.marked(mark) {
                    *response = Arc::new(marked);
                }
            }
        }
    }
}
