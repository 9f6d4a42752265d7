//! What is published but not on disk yet: an overlay over the disk tier, and the writer's work list.
//!
//! Invariants: what is in here is visible to lookups until the commit that writes it is done; what a purge selected is
//! taken out in the same step that hands the purge to the writer, so no older response is written after it. Bounds:
//! [`RECORDS_MAX`] records and a number of bytes (beyond, responses are not written at all), [`CHANGES_MAX`] records,
//! marks and removals together, and a number of labels ([`marks`]; beyond either, everything on disk is distrusted),
//! [`SELECTOR_JOBS_MAX`] purges, [`TOUCHES_MAX`] touches and [`CORRUPT_MAX`] corrupt records (beyond, forgotten).

mod marks;
mod waiting;

use std::{
    collections::{HashMap, HashSet},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{Notify, oneshot, watch},
    time::Instant,
};

pub(super) use self::{
    marks::LabelMark,
    waiting::{Outcome, Overlay, apply},
};
use self::{marks::LabelMarks, waiting::Waiting};
use super::{
    Purged, StoreError,
    disk::{Batch, Corrupt, Selected},
    id::RecordId,
    labels::Label,
    matcher::Matcher,
    purges::InForce,
    resource::{Effect, StoredResponse, stronger},
};
use crate::policy::{CacheKey, Mark};

/// Purges at work or waiting; further ones wait outside.
pub(super) const SELECTOR_JOBS_MAX: usize = 16;

/// Some seconds of a busy gateway's misses.
const RECORDS_MAX: usize = 4_096;

/// Marks and removals are small, and losing one costs more than losing a response.
const CHANGES_MAX: usize = 4 * RECORDS_MAX;

/// Bodies that wait; one larger body is let in when nothing else waits.
const BYTES_MAX: u64 = 64 * 1024 * 1024;

const TOUCHES_MAX: usize = 6_144;
const CORRUPT_MAX: usize = 1_024;

/// How long a response waits for others to share a commit with: half of the second that is promised.
const DELAY: Duration = Duration::from_millis(500);

/// Enough to be worth a commit at once.
const ENOUGH_RECORDS: usize = 256;
const ENOUGH_BYTES: u64 = 8 * 1024 * 1024;
/// Touches share a commit and the pages that they change: the more of them, the less each costs.
const ENOUGH_TOUCHES: usize = 4_096;

pub(super) struct Pending {
    state: Mutex<State>,
    /// Woken when there may be work to do.
    wake: Notify,
    /// The number of the last change that was written or given up.
    done: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    keys: HashMap<CacheKey, Waiting>,
    selects: Vec<SelectJob>,
    marks: LabelMarks,
    touches: HashMap<RecordId, u64>,
    corrupt: HashSet<Corrupt>,
    records: usize,
    bytes: u64,
    // The number of the last change.
    number: u64,
    // When the oldest of what waits came.
    since: Option<Instant>,
    is_urgent: bool,
    is_closing: bool,
}

/// A purge that the writer carries out on disk.
pub(super) struct SelectJob {
    pub(super) matcher: Matcher,
    /// `None`: count only.
    pub(super) effect: Option<Effect>,
    /// What was selected in memory and may not be on disk.
    pub(super) elsewhere: HashMap<RecordId, CacheKey>,
    /// Names under which something waits that it does not select: what it selects of them on disk does not count.
    pub(super) superseded: HashSet<RecordId>,
    #[expect(dead_code, reason = "held until the job is done")]
    pub(super) in_force: Option<InForce>,
    /// Gone once an answer was given.
    pub(super) reply: Option<oneshot::Sender<Result<Purged, StoreError>>>,
}

/// What the writer does next.
#[derive(Default)]
pub(super) struct Work {
    pub(super) selects: Vec<SelectJob>,
    pub(super) marks: Vec<(Label, LabelMark)>,
    pub(super) batch: Batch,
    upto: u64,
    pub(super) is_last: bool,
}

impl Pending {
    pub(super) fn new() -> Self {
        Self {
            state: Mutex::default(),
            wake: Notify::new(),
            done: watch::Sender::new(0),
        }
    }

    /// Whether a response of this size may be put.
    pub(super) fn has_room(&self, bytes: u64) -> bool {
        let state = self.state();
        !state.is_closing
            && state.records < RECORDS_MAX
            && (state.bytes == 0 || state.bytes + bytes <= BYTES_MAX)
    }

    /// Adds a response, in place of the variant of the same name and of `replaces`.
    pub(super) fn put(
        &self,
        key: &CacheKey,
        stored: Arc<StoredResponse>,
        replaces: Option<RecordId>,
    ) {
        self.change(key, |waiting| {
            let other = replaces.filter(|id| *id != stored.id());
            waiting
                .puts
                .retain(|put| put.id() != stored.id() && Some(put.id()) != other);
            if let Some(id) = other {
                waiting.before.remove(id);
            }
            if replaces != Some(stored.id()) && !waiting.new.contains(&stored.id()) {
                waiting.new.push(stored.id());
            }
            waiting.puts.insert(0, stored);
        });
    }

    /// Notes that a response is not put, so that what it replaces on disk does not come back. `false`: there is no room
    /// for the note.
    #[must_use]
    pub(super) fn give_up(
        &self,
        key: &CacheKey,
        stored: &StoredResponse,
        replaces: Option<RecordId>,
    ) -> bool {
        self.try_change(key, |waiting| {
            waiting
                .puts
                .retain(|put| put.id() != stored.id() && Some(put.id()) != replaces);
            let is_new = replaces != Some(stored.id()) || waiting.new.contains(&stored.id());
            let other = replaces.filter(|id| *id != stored.id());
            if let Some(id) = other {
                waiting.before.remove(id);
            }
            waiting.give_up(stored, is_new);
        })
    }

    /// Marks every variant of `key`. `false`: there is no room.
    #[must_use]
    pub(super) fn mark(&self, key: &CacheKey, mark: Mark) -> bool {
        self.try_change(key, |waiting| {
            waiting.before.add_mark(mark);
            apply(&mut waiting.puts, Effect::Mark(mark), |_| true);
        })
    }

    /// Marks what waits and is filed under one of `labels`, and has what is on disk marked. `false`: there is no room for
    /// the latter.
    #[must_use]
    pub(super) fn mark_labelled(&self, labels: &[Label], mark: Mark) -> bool {
        let mut state = self.state();
        // In one step with what is asked of the disk, where the writer would else put an older state after it.
        for waiting in state.keys.values_mut() {
            let is_labelled = |put: &StoredResponse| put.is_labelled(labels);
            apply(&mut waiting.puts, Effect::Mark(mark), is_labelled);
        }
        if !state.marks.has_room(labels) {
            return false;
        }
        let is_first = state.note_change();
        let number = state.number;
        state.marks.ask(labels, mark, number);
        drop(state);
        if is_first {
            self.wake.notify_one();
        }
        true
    }

    /// The mark that what is filed under one of `labels` has, whatever its record says.
    pub(super) fn mark_of(&self, labels: &[Label]) -> Mark {
        if labels.is_empty() {
            return Mark::None;
        }
        self.state().marks.of(labels)
    }

    /// Forgets marks that are done on disk, unless they were asked for again meanwhile.
    pub(super) fn forget_marks(&self, done: &[(Label, LabelMark)]) {
        self.state().marks.forget(done);
    }

    /// Whether there is room for little more than marks.
    pub(super) fn is_crowded(&self) -> bool {
        self.state().records >= RECORDS_MAX
    }

    /// Whether everything that is on disk now is to be marked so, or more strongly, in any case.
    pub(super) fn is_distrusting(&self, mark: Mark) -> bool {
        let state = self.state();
        state.selects.iter().any(|job| job.distrusts(mark))
    }

    /// Marks everything that is on disk, and nothing that waits: that is newer, and has marks of its own.
    pub(super) fn distrust(&self, in_force: InForce, mark: Mark) {
        let mut state = self.state();
        if !state.is_closing {
            state.selects.push(SelectJob {
                matcher: Matcher::everything(),
                effect: Some(Effect::Mark(mark)),
                elsewhere: HashMap::new(),
                superseded: HashSet::new(),
                in_force: Some(in_force),
                reply: None,
            });
            state.number += 1;
        }
        drop(state);
        self.wake.notify_one();
    }

    /// Removes one variant of `key`.
    pub(super) fn remove(&self, key: &CacheKey, id: RecordId) {
        self.change(key, |waiting| {
            waiting.puts.retain(|put| put.id() != id);
            waiting.before.remove(id);
        });
    }

    /// Whether the removal of a variant still waits.
    pub(super) fn is_removing(&self, key: &CacheKey, id: RecordId) -> bool {
        self.overlay(key).removes.contains(&id)
    }

    /// Applies a purge to what waits and hands it to the writer, in one step.
    pub(super) fn select(&self, mut job: SelectJob) {
        let mut state = self.state();
        if state.is_closing {
            // Its sender goes with it, and the caller sees that. Without the lock: a purge in force has one of its own.
            drop(state);
            drop(job);
            return;
        }
        let State { keys, .. } = &mut *state;
        for (key, waiting) in keys.iter_mut() {
            job.select_waiting(key, waiting);
        }
        state.selects.push(job);
        state.forget_idle();
        state.number += 1;
        drop(state);
        self.wake.notify_one();
    }

    /// Notes a use, where there is room and nobody else is at it.
    pub(super) fn try_touch(&self, id: RecordId, hits: u64) -> bool {
        let Ok(mut state) = self.state.try_lock() else {
            return false;
        };
        if state.touches.len() >= TOUCHES_MAX {
            return false;
        }
        // What is found on disk again and again knows only of the hits there, not of those that wait.
        let uses = state.touches.entry(id).or_insert(0);
        *uses = hits.max(*uses + 1);
        if state.touches.len() == ENOUGH_TOUCHES {
            self.wake.notify_one();
        }
        true
    }

    /// Has a corrupt record removed. Where there is no room it is found again.
    pub(super) fn drop_corrupt(&self, corrupt: Corrupt) {
        let mut state = self.state();
        if state.corrupt.len() < CORRUPT_MAX && state.corrupt.insert(corrupt) {
            state.note_change();
            drop(state);
            self.wake.notify_one();
        }
    }

    pub(super) fn has(&self, key: &CacheKey) -> bool {
        self.state().keys.contains_key(key)
    }

    pub(super) fn overlay(&self, key: &CacheKey) -> Overlay {
        let state = self.state();
        state
            .keys
            .get(key)
            .map(Waiting::overlay)
            .unwrap_or_default()
    }

    /// Every response that waits.
    pub(super) fn responses(&self) -> Vec<(CacheKey, Arc<StoredResponse>)> {
        let state = self.state();
        let responses = state.keys.iter().flat_map(|(key, waiting)| {
            let puts = waiting.puts.iter();
            puts.map(|put| (key.clone(), put.clone()))
        });
        responses.collect()
    }

    /// Waits until everything that came before this call is written or given up.
    pub(super) async fn flush(&self) {
        let number = {
            let mut state = self.state();
            state.is_urgent = true;
            state.number
        };
        self.wake.notify_one();
        self.done(number).await;
    }

    /// Waits until the writer has ended.
    pub(super) async fn ended(&self) {
        self.done(u64::MAX).await;
    }

    /// Follows what is written.
    #[cfg(test)]
    pub(super) fn watch(&self) -> watch::Receiver<u64> {
        self.done.subscribe()
    }

    async fn done(&self, number: u64) {
        let mut done = self.done.subscribe();
        // The sender lives as long as we do, so this ends by the number alone.
        let _ = done.wait_for(|done| *done >= number).await;
    }

    /// Takes nothing more; the writer ends after what waits.
    pub(super) fn close(&self) {
        self.state().is_closing = true;
        self.wake.notify_one();
    }

    /// Resolves when something may have become due.
    pub(super) async fn woken(&self) {
        self.wake.notified().await;
    }

    /// When the next batch is to be taken, if anything waits.
    pub(super) fn due(&self) -> Option<Instant> {
        let state = self.state();
        let is_enough = state.records >= ENOUGH_RECORDS
            || state.bytes >= ENOUGH_BYTES
            || state.touches.len() >= ENOUGH_TOUCHES;
        if state.is_urgent || state.is_closing || is_enough || !state.selects.is_empty() {
            return Some(Instant::now());
        }
        state.since.map(|since| since + DELAY)
    }

    pub(super) fn is_closing(&self) -> bool {
        self.state().is_closing
    }

    /// Takes everything that waits. It stays visible to lookups until [`Pending::finish`].
    pub(super) fn take(&self) -> Work {
        let mut state = self.state();
        state.since = None;
        state.is_urgent = false;
        let changes = state
            .keys
            .iter_mut()
            .map(|(key, waiting)| waiting.take(key))
            .collect();
        Work {
            selects: mem::take(&mut state.selects),
            marks: state.marks.all(),
            batch: Batch {
                skips_puts: false,
                changes,
                touches: mem::take(&mut state.touches).into_iter().collect(),
                corrupt: mem::take(&mut state.corrupt).into_iter().collect(),
            },
            upto: state.number,
            is_last: state.is_closing,
        }
    }

    /// Forgets what was written or given up. Purges that failed come back.
    pub(super) fn finish(&self, work: Work, outcome: Outcome) {
        let mut state = self.state();
        for change in &work.batch.changes {
            if let Some(waiting) = state.keys.get_mut(&change.key) {
                waiting.finish(change, outcome);
            }
        }
        let (needless, selects): (Vec<_>, Vec<_>) = work.selects.into_iter().partition(|job| {
            matches!(job.effect, Some(Effect::Mark(mark)) if job.distrusts(mark)
                    && state.selects.iter().any(|later| later.distrusts(mark)))
        });
        state.selects.splice(0..0, selects);
        state.forget_idle();
        let has_more = outcome == Outcome::Failed && !state.keys.is_empty();
        if has_more || !state.marks.is_empty() {
            state.since.get_or_insert_with(Instant::now);
        }
        drop(state);
        // Without the lock: a purge in force has one of its own.
        drop(needless);
        self.done.send_replace(work.upto);
    }

    /// Has what was taken taken again, when nothing is known of it.
    pub(super) fn retry(&self) {
        self.state().since.get_or_insert_with(Instant::now);
    }

    /// Says that the writer has ended: nobody waits for it any more.
    pub(super) fn end(&self) {
        self.done.send_replace(u64::MAX);
    }

    fn change(&self, key: &CacheKey, change: impl FnOnce(&mut Waiting)) {
        self.change_in(self.state(), key, change);
    }

    /// The same, unless too much waits already and nothing yet for `key`.
    fn try_change(&self, key: &CacheKey, change: impl FnOnce(&mut Waiting)) -> bool {
        let state = self.state();
        let has_room = state.records < CHANGES_MAX || state.keys.contains_key(key);
        if has_room {
            self.change_in(state, key, change);
        }
        has_room
    }

    fn change_in(
        &self,
        mut state: MutexGuard<'_, State>,
        key: &CacheKey,
        change: impl FnOnce(&mut Waiting),
    ) {
        let waiting = state.keys.entry(key.clone()).or_default();
        let before = waiting.size();
        change(waiting);
        let after = waiting.size();
        state.records = state.records - before.0 + after.0;
        state.bytes = state.bytes - before.1 + after.1;
        let is_first = state.note_change();
        let is_enough = state.records >= ENOUGH_RECORDS || state.bytes >= ENOUGH_BYTES;
        drop(state);
        if is_first || is_enough {
            self.wake.notify_one();
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Numbers a change; whether it is the first that waits.
    fn note_change(&mut self) -> bool {
        self.number += 1;
        let is_first = self.since.is_none();
        self.since.get_or_insert_with(Instant::now);
        is_first
    }

    /// Drops keys for which nothing waits any more, and counts the rest again.
    fn forget_idle(&mut self) {
        self.keys.retain(|_, waiting| !waiting.is_idle());
        let (mut records, mut bytes) = (0, 0);
        for waiting in self.keys.values() {
            let size = waiting.size();
            records += size.0;
            bytes += size.1;
        }
        (self.records, self.bytes) = (records, bytes);
    }
}

impl SelectJob {
    /// Does to what waits for a key what it does on disk, and notes what it selected.
    fn select_waiting(&mut self, key: &CacheKey, waiting: &mut Waiting) {
        let matcher = &self.matcher;
        let is_selected = |put: &StoredResponse| matcher.selects(key, put);
        let selected: Vec<_> = waiting.puts.iter().filter(|put| is_selected(put)).collect();
        if matcher.tells_apart() {
            let is_left = |id: &RecordId| selected.iter().all(|put| put.id() != *id);
            self.superseded.extend(waiting.superseded().filter(is_left));
        }
        let elsewhere = selected.iter().map(|put| (put.id(), key.clone()));
        self.elsewhere.extend(elsewhere);
        if let Some(effect) = self.effect {
            apply(&mut waiting.puts, effect, is_selected);
        }
    }

    fn distrusts(&self, mark: Mark) -> bool {
        let is_enough = |effect| matches!(effect, Effect::Mark(own) if stronger(own, mark) == own);
        self.matcher == Matcher::everything() && self.effect.is_some_and(is_enough)
    }

    /// The answer: what was found on disk, and what was only in memory.
    pub(super) fn purged(
        &self,
        mut selected: Selected,
        only_elsewhere: &HashSet<RecordId>,
    ) -> Purged {
        for id in only_elsewhere {
            if let Some(key) = self.elsewhere.get(id) {
                selected.add(key.uri());
            }
        }
        Purged {
            count: selected.count,
            sample: selected.sample,
        }
    }
}
