//! The writer: the one task that changes the database.
//!
//! It takes everything that waits, writes it in one blocking piece with one commit, brings the index up to date in order of the
//! commit, and answers everyone. What comes meanwhile is the next batch. No window is waited for: one write alone is one
//! commit, sixty-four at once are about two.
//!
//! Appends fail fast: who waits for a 202 is told at once that there is none. Changes of what was accepted are kept, in order,
//! and tried again until they are recorded. What a failed commit may have left is reconciled by the next one that succeeds:
//! appends that were refused are removed, changes are written once more. Until then nothing is appended, so that there is at
//! most one batch to take back. Bounds: [`BATCH_MAX`] and [`BATCH_BYTES_MAX`] for a batch; behind it the channels, where
//! whoever sends waits.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, PoisonError},
    time::Duration,
};

use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

use super::{
    INLINE_BODY_MAX_BYTES, Inner,
    batch::{
        Append, Appending, Batch, Prepared, Receipts, Refused, SWEPT_MAX, Transition, Written,
    },
    change::{Change, NewBody},
    error::{AppendError, DiskError, JournalError, Unavailable},
    ids::Ids,
};
use crate::telemetry::OperationLabels;

/// Changes in one transaction.
pub(super) const BATCH_MAX: usize = 1_024;

/// Bytes of bodies in one transaction, but for the last one that is taken.
const BATCH_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// After a failure the database is tried again after this, doubled each time.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// How often receipts are swept, and a disk that was full is looked at.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// The writer of one journal.
pub(super) struct Writer {
    inner: Arc<Inner>,
    appends: mpsc::Receiver<Append>,
    transitions: mpsc::Receiver<Transition>,
    state: State,
    // What could not be recorded, in order.
    kept: Vec<Transition>,
    retry: Option<Retry>,
    sweep_at: Instant,
    ending: Ending,
}

/// What goes into the blocking piece, and comes back from it.
pub(super) struct State {
    pub(super) ids: Ids,
    pub(super) receipts: Receipts,
    /// Refused appends that a failed commit may have left: at most those of one batch.
    pub(super) unconfirmed: Vec<Refused>,
}

/// How far the end is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ending {
    Not,
    /// Nothing more is taken.
    Closing,
    /// What was kept has been tried once more.
    Tried,
}

/// The last batch failed. It is tried again, and what waits to be appended is refused until it succeeds.
#[derive(Clone, Copy)]
struct Retry {
    at: Instant,
    pause: Duration,
    reason: Unavailable,
}

/// What waits, as it was taken.
#[derive(Default)]
struct Taken {
    appends: Vec<Append>,
    transitions: Vec<Transition>,
    bytes: u64,
}

/// What a blocking piece came to.
struct Outcome {
    state: State,
    kept: Vec<Transition>,
    failure: Option<Unavailable>,
    swept: u64,
}

impl Writer {
    pub(super) fn new(
        inner: Arc<Inner>,
        appends: mpsc::Receiver<Append>,
        transitions: mpsc::Receiver<Transition>,
        state: State,
    ) -> Self {
        Self {
            inner,
            appends,
            transitions,
            state,
            kept: Vec::new(),
            retry: None,
            sweep_at: Instant::now(),
            ending: Ending::Not,
        }
    }

    pub(super) async fn run(self) {
        let inner = self.inner.clone();
        // However it ends, nobody waits for it in vain.
        let _ended = inner.ended.clone().drop_guard();
        if let Some(writer) = self.write_all().await {
            writer.leave();
        }
        // Closing waits for the reads that are under way.
        let _ = spawn_blocking(move || inner.disk.close()).await;
    }

    /// Writes whatever comes, until the end; `None` when there was a panic. Who waits is then told that the queue is closed.
    async fn write_all(mut self) -> Option<Self> {
        while let Some(taken) = self.take().await {
            self = self.write(taken).await?;
        }
        Some(self)
    }

    /// What could not be recorded is left as it is.
    fn leave(mut self) {
        let kept = std::mem::take(&mut self.kept);
        if !kept.is_empty() {
            tracing::error!(
                changes = kept.len(),
                "Changes of queued writes could not be recorded before the end."
            );
        }
        for refused in &mut self.state.unconfirmed {
            // Perhaps a record names it after all. If none does, the next start sweeps it.
            refused.keep_file();
        }
        for mut transition in kept {
            transition.keep_body();
            // Whoever waits may be gone.
            let _ = transition.reply.send(Err(JournalError::Closed));
        }
    }

    /// Waits until there is something to do; `None` when there is nothing more, ever.
    async fn take(&mut self) -> Option<Taken> {
        let mut taken = Taken::default();
        loop {
            let due = self.retry.map_or(self.sweep_at, |retry| retry.at);
            let is_failing = self.retry.is_some_and(|retry| retry.at > Instant::now());
            let is_closing = self.ending != Ending::Not;
            // Every branch loses nothing when dropped: what was received is kept in `taken`. The time comes before the appends,
            // which may come without end.
            tokio::select! {
                biased;
                () = self.inner.closing.cancelled(), if !is_closing => {
                    self.ending = Ending::Closing;
                    self.appends.close();
                    self.transitions.close();
                    continue;
                }
                Some(transition) = self.transitions.recv(), if self.has_room() => {
                    if is_failing && !is_closing {
                        self.kept.push(transition);
                        continue;
                    }
                    taken.transitions.push(transition);
                }
                () = sleep_until(due), if !is_closing => return Some(taken),
                Some(append) = self.appends.recv() => {
                    if let Some(retry) = self.retry {
                        refuse(append, retry.reason);
                        continue;
                    }
                    taken.push(append);
                }
                else => {
                    // Closing, and nothing waits: what is kept, or is to be taken back, is tried once more, then that is all.
                    let is_left = !self.kept.is_empty() || !self.state.unconfirmed.is_empty();
                    let is_last_try = self.ending == Ending::Closing && is_left;
                    self.ending = Ending::Tried;
                    return is_last_try.then_some(taken);
                }
            }
            self.take_waiting(&mut taken);
            return Some(taken);
        }
    }

    fn has_room(&self) -> bool {
        self.kept.len() < BATCH_MAX
    }

    fn take_waiting(&mut self, taken: &mut Taken) {
        while taken.transitions.len() + self.kept.len() < BATCH_MAX
            && let Ok(transition) = self.transitions.try_recv()
        {
            taken.transitions.push(transition);
        }
        while self.retry.is_none()
            && taken.appends.len() < BATCH_MAX
            && taken.bytes < BATCH_BYTES_MAX
            && let Ok(append) = self.appends.try_recv()
        {
            taken.push(append);
        }
    }

    /// Writes one batch; `None` when there was a panic.
    async fn write(self, taken: Taken) -> Option<Self> {
        let Self {
            inner,
            appends,
            transitions,
            state,
            mut kept,
            retry,
            ending,
            ..
        } = self;
        // What was kept comes first: it is older.
        kept.extend(taken.transitions);
        let writing = inner.clone();
        let outcome = spawn_blocking(move || writing.write(state, kept, taken.appends));
        // Those of the database are caught inside.
        let outcome = outcome.await.inspect_err(|error| {
            tracing::error!(%error, "The queue's writer panicked. Nothing is queued until a restart.");
        });
        let outcome = outcome.ok()?;
        let now = Instant::now();
        let retry = outcome.failure.map(|reason| {
            let pause = retry.map_or(RETRY_FIRST, |retry| (retry.pause * 2).min(RETRY_MAX));
            Retry {
                at: now + pause,
                pause,
                reason,
            }
        });
        let sweep_at = match outcome.swept {
            SWEPT_MAX.. => now,
            _ => now + SWEEP_EVERY,
        };
        Some(Self {
            inner,
            appends,
            transitions,
            state: outcome.state,
            kept: outcome.kept,
            retry,
            sweep_at,
            ending,
        })
    }
}

impl Taken {
    fn push(&mut self, append: Append) {
        self.bytes += append.write.body.bytes();
        self.appends.push(append);
    }
}

fn refuse(append: Append, reason: Unavailable) {
    // Whoever waits may be gone.
    let _ = append.reply.send(Err(AppendError::Unavailable(reason)));
}

fn reason_of(error: &DiskError) -> Unavailable {
    match error.is_no_space() {
        true => Unavailable::NoSpace,
        false => Unavailable::Failing,
    }
}

impl Inner {
    /// Writes one batch and says so to everyone. Blocks.
    fn write(&self, mut state: State, kept: Vec<Transition>, appends: Vec<Append>) -> Outcome {
        for transition in &kept {
            // It may be of a gateway whose clock is ahead. What is accepted from here on comes after it all the same.
            if let Change::Import { item, .. } = &transition.change {
                state.ids.pass(item.id);
            }
        }
        let mut batch = Batch {
            transitions: kept,
            appends: self.prepare(&mut state.ids, appends),
            unconfirmed: state.unconfirmed.iter().map(Refused::id).collect(),
            receipts: state.receipts,
        };
        let appends = batch.appends.iter().map(|append| append.item.id);
        let unconfirmed = batch.unconfirmed.iter().copied();
        // Ids increase: these are in order.
        self.disk.set_unconfirmed(unconfirmed.chain(appends));
        let written = self.write_batch(&mut batch, &mut state.unconfirmed);
        let mut swept = 0;
        let (kept, failure) = match written {
            Ok(written) => {
                // Before anybody hears of what is there now.
                self.disk.set_unconfirmed(std::iter::empty());
                state.receipts = written.receipts;
                swept = written.swept;
                // Dropped, and their files with them.
                state.unconfirmed.clear();
                self.finish(batch, written);
                (Vec::new(), None)
            }
            Err(error) => {
                tracing::error!(%error, "Cannot write to the queue's database.");
                let reason = reason_of(&error);
                batch.refuse(reason, &mut state.unconfirmed);
                (batch.transitions, Some(reason))
            }
        };
        Outcome {
            state,
            kept,
            failure,
            swept,
        }
    }

    /// Refuses what there is no room for, and gives the rest ids.
    fn prepare(&self, ids: &mut Ids, appends: Vec<Append>) -> Vec<Prepared> {
        // Also when nothing is appended: the reserve is taken again as soon as there is room.
        let is_low = self.space.check();
        let now = self.clock.now();
        let mut prepared = Vec::with_capacity(appends.len());
        for mut append in appends {
            if is_low {
                refuse(append, Unavailable::NoSpace);
                continue;
            }
            if let Err(error) = self.inline(&mut append) {
                tracing::error!(%error, "Cannot read a spool file.");
                refuse(append, Unavailable::Failing);
                continue;
            }
            let id = ids.next(now);
            prepared.extend(append.prepare(id, &self.keyring, |name| self.is_sensitive(name)));
        }
        prepared
    }

    /// Puts a small body into the record, whatever it came in: only items with larger ones are asked for their files at start.
    fn inline(&self, append: &mut Append) -> std::io::Result<()> {
        if let NewBody::Spooled(file) = &append.write.body
            && file.bytes() <= INLINE_BODY_MAX_BYTES
        {
            append.write.body = NewBody::Inline(self.spool.read(file)?);
        }
        Ok(())
    }

    /// Writes the batch; after a failure the database is opened again and it is written once more.
    fn write_batch(
        &self,
        batch: &mut Batch,
        unconfirmed: &mut Vec<Refused>,
    ) -> Result<Written, DiskError> {
        let error = match self.try_write(batch) {
            Err(error) => error,
            written => return written,
        };
        self.count_error("write");
        if error.is_no_space() {
            // What there is must do for the changes.
            batch.refuse(Unavailable::NoSpace, unconfirmed);
        }
        self.recover(&error, !batch.transitions.is_empty())?;
        self.try_write(batch)
            .inspect_err(|_| self.count_error("write"))
    }

    /// Gets the database back; for changes that must be recorded, at the cost of the reserve.
    fn recover(&self, error: &DiskError, is_pressing: bool) -> Result<(), DiskError> {
        let now = self.clock.now();
        if is_pressing && error.is_no_space() {
            self.space.give_up_reserve();
        }
        let salvaged = match self.disk.recover(error, now) {
            Err(error) if is_pressing && error.is_no_space() && self.space.give_up_reserve() => {
                self.disk.recover(&error, now)
            }
            recovered => recovered,
        }?;
        if let Some(salvaged) = salvaged {
            self.note_salvaged(&salvaged);
        }
        Ok(())
    }

    fn try_write(&self, batch: &mut Batch) -> Result<Written, DiskError> {
        let writing = AssertUnwindSafe(|| self.write_once(batch));
        catch_unwind(writing).unwrap_or(Err(DiskError::Panicked))
    }

    fn write_once(&self, batch: &mut Batch) -> Result<Written, DiskError> {
        let now = self.clock.now();
        let outdated = self.ago(self.limits.ttl);
        let steps = self.timeline().unsaved().map(<[_]>::to_vec);
        let is_idle = batch.is_empty() && steps.is_none();
        if is_idle && !self.has_receipts_to_sweep(batch.receipts)? {
            return Ok(Written {
                receipts: batch.receipts,
                ..Written::default()
            });
        }
        let written = self.disk.transact(|tables| {
            if let Some(steps) = &steps {
                tables.put_clock_steps(steps)?;
            }
            let mut written = Written::default();
            let seal = |id, fields, body| self.seal(id, fields, body);
            batch.apply(tables, &mut written, &seal, now)?;
            written.sweep(tables, &self.limits, outdated)?;
            written.receipts = tables.receipts()?;
            Ok(written)
        })?;
        if let Some(steps) = steps {
            self.timeline().saved(steps.len());
        }
        Ok(written)
    }

    /// After the commit: the index first, then whoever waits, then the files that are not needed any more.
    fn finish(&self, batch: Batch, written: Written) {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        for transition in &batch.transitions {
            match &transition.change {
                Change::Update(item)
                | Change::Answered { item, .. }
                | Change::End { item, .. }
                | Change::Replace { item, .. } => {
                    index.change(item);
                }
                Change::Import { .. } if transition.change.is_existing() => {}
                Change::Import { item, .. } => index.add(item),
                Change::Remove(id) => index.remove(*id),
                Change::Pause(pauses) => self.set_pauses(pauses.clone()),
                Change::Note => {}
            }
        }
        for (append, outcome) in batch.appends.iter().zip(&written.appended) {
            if matches!(outcome, Appending::New) {
                index.add(&append.item);
            }
        }
        drop(index);
        for (mut append, outcome) in batch.appends.into_iter().zip(written.appended) {
            if matches!(outcome, Appending::New) {
                append.body.keep();
            }
            // Before the answer, so that nobody finds a file that is to go.
            drop(append.body);
            // Whoever waits may be gone.
            let _ = append.reply.send(outcome.answer(append.item));
        }
        for file in &written.files {
            self.spool.remove(file);
        }
        for transition in batch.transitions {
            transition.answer();
        }
    }

    pub(super) fn count_error(&self, op: &'static str) {
        let labels = OperationLabels { op };
        self.metrics.storage_errors.get_or_create(&labels).inc();
    }
}
