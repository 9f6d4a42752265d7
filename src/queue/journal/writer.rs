//! The writer: the one task that changes the database.
//!
//! It takes everything that waits, writes it in one blocking piece with one commit, brings the index up to date in order of the
//! commit, and answers everyone. What comes meanwhile is the next batch. No window is waited for: one write alone is one
//! commit, sixty-four at once are about two. A read that fails wakes it too: it is the one that recovers the database.
//!
//! Appends fail fast: who waits for a 202 is told at once that there is none. Changes of what was accepted are kept, in order,
//! and tried again until they are recorded. What a failed commit may have left is reconciled by the next one that succeeds:
//! appends that were refused are removed, changes are written once more. Until then nothing is appended, so that there is at
//! most one batch to take back. Bounds: [`BATCH_MAX`] and [`BATCH_BYTES_MAX`] for a batch; behind it the channels, where
//! whoever sends waits.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    task::spawn_blocking,
    time::{Instant, sleep_until},
};

use super::{
    Inner,
    batch::{Append, SWEPT_MAX, Transition},
    commit::{State, refuse},
    error::{JournalError, Unavailable},
};

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
        for taken_back in &mut self.state.unconfirmed {
            // Perhaps a record names it after all. If none does, the next start sweeps it.
            taken_back.keep_file();
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
                () = self.inner.disk.read_failed(), if !is_failing && !is_closing => {}
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
