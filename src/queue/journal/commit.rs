//! One batch of the writer: prepared, written, put in the index, answered. Blocks.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::PoisonError,
};

use super::{
    INLINE_BODY_MAX_BYTES, Inner,
    batch::{Append, Appending, Batch, Prepared, Receipts, TakenBack, Transition, Written},
    change::{Change, NewBody},
    disk::Recovered,
    error::{AppendError, DiskError, Unavailable},
    ids::Ids,
};

/// What goes into the blocking piece, and comes back from it.
pub(super) struct State {
    pub(super) ids: Ids,
    pub(super) receipts: Receipts,
    /// Refused appends that a failed commit may have left: at most those of one batch.
    pub(super) unconfirmed: Vec<TakenBack>,
}

/// What a blocking piece came to.
pub(super) struct Outcome {
    pub(super) state: State,
    pub(super) kept: Vec<Transition>,
    /// Why nothing was written.
    pub(super) failure: Option<Unavailable>,
    /// Receipts that were removed.
    pub(super) swept: u64,
}

impl Inner {
    /// Writes one batch and says so to everyone. Blocks.
    pub(super) fn write(
        &self,
        mut state: State,
        kept: Vec<Transition>,
        appends: Vec<Append>,
    ) -> Outcome {
        for transition in &kept {
            // It may be of a gateway whose clock is ahead. What is accepted from here on comes after it all the same.
            if let Change::Import { item, .. } = &transition.change {
                state.ids.pass(item.id);
            }
        }
        let mut batch = Batch {
            transitions: kept,
            appends: self.prepare(&mut state.ids, appends),
            unconfirmed: state.unconfirmed.iter().map(TakenBack::id).collect(),
            receipts: state.receipts,
            is_doubtful: false,
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
                self.release_rooms(state.unconfirmed.drain(..));
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

    /// Appends that were in doubt are certainly not there: what they were promised is free.
    fn release_rooms(&self, taken_back: impl Iterator<Item = TakenBack>) {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        for room in taken_back.filter_map(|taken_back| taken_back.room()) {
            index.release_reservation(room);
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
        unconfirmed: &mut Vec<TakenBack>,
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
        let recovered = match self.disk.recover(error, self, now) {
            Err(error) if is_pressing && error.is_no_space() && self.space.give_up_reserve() => {
                self.disk.recover(&error, self, now)
            }
            recovered => recovered,
        }?;
        if recovered == Recovered::Salvaged {
            self.timeline().lost();
        }
        Ok(())
    }

    fn try_write(&self, batch: &mut Batch) -> Result<Written, DiskError> {
        let writing = AssertUnwindSafe(|| self.write_once(batch));
        let written = catch_unwind(writing).unwrap_or(Err(DiskError::Panicked));
        batch.is_doubtful |= written.is_err() && self.disk.backing.turn().may_be_committed();
        written
    }

    fn write_once(&self, batch: &mut Batch) -> Result<Written, DiskError> {
        self.disk.begin()?;
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
            self.timeline().saved(&steps);
        }
        Ok(written)
    }

    /// After the commit: the index first, then whoever waits, then the files that are not needed any more.
    fn finish(&self, batch: Batch, written: Written) {
        for transition in &batch.transitions {
            // It syncs: not while the index is held.
            if let Change::Pause(pauses) = &transition.change {
                self.disk.note_pauses(pauses);
            }
        }
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
}

/// Tells whoever waits that it is not appended.
pub(super) fn refuse(append: Append, reason: Unavailable) {
    // Whoever waits may be gone.
    let _ = append.reply.send(Err(AppendError::Unavailable(reason)));
}

fn reason_of(error: &DiskError) -> Unavailable {
    match error.is_no_space() {
        true => Unavailable::NoSpace,
        false => Unavailable::Failing,
    }
}
