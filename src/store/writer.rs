//! The writer: the one task that changes the disk tier.
//!
//! It takes what waits half a second after the first of it came, or as soon as it is enough, and writes it in one
//! piece, on a thread of its own, with one commit. It ends after [`Pending::close`](super::pending::Pending::close), with the last batch.

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use tokio::time::Instant;

use super::{
    Inner, StoreError,
    disk::{Disk, DiskError, Selecting, Sweep, Written},
    labels::Label,
    matcher::Matcher,
    pending::{LabelMark, Outcome, SelectJob, Work},
    resource::{Effect, StoredBody},
    thread::DiskThread,
};
use crate::telemetry::EvictionLabels;

/// How often a full or failing disk is looked at again.
const RECHECK: Duration = Duration::from_secs(5);

/// Paths noted at a time after the start: some milliseconds of work.
const SCANNED_PATHS: usize = 1_024;

/// Purges that failed and are tried again. Whoever asked for them was told; beyond this that is all.
const RETRIED_PURGES_MAX: usize = 64;

/// The writer of one store.
pub(super) struct Writer {
    inner: Arc<Inner>,
    disk: Arc<Disk>,
    thread: DiskThread,
    sweep: Option<Sweep>,
    // The last path whose searches were noted; `None` once all are.
    scan: Option<Option<String>>,
    // Not before this is a failed disk tried again.
    retry_at: Instant,
}

impl Writer {
    pub(super) fn new(inner: Arc<Inner>, disk: Arc<Disk>, thread: DiskThread) -> Self {
        Self {
            sweep: Some(Sweep::default()),
            scan: Some(None),
            inner,
            disk,
            thread,
            retry_at: Instant::now(),
        }
    }

    pub(super) async fn run(mut self) {
        loop {
            let is_closing = self.inner.pending.is_closing();
            match self.due() {
                Some(due) if due <= Instant::now() || is_closing => {
                    if self.write().await {
                        break;
                    }
                }
                _ if self.scan.is_some() && !self.disk.is_suspended() => self.scan().await,
                _ if self.sweep.is_some() && !self.disk.is_suspended() => self.sweep().await,
                due => self.wait(due).await,
            }
        }
        let disk = self.disk.clone();
        // Closing waits for the reads that are under way.
        let _ = self.thread.run(move || disk.close()).await;
        self.thread.end().await;
        self.inner.pending.end();
    }

    /// When there is something to do: a batch, or a look at a disk that is suspended.
    fn due(&self) -> Option<Instant> {
        let due = self.inner.pending.due();
        let recheck = self.retry_at;
        if self.disk.has_failed() {
            Some(due.map_or(recheck, |due| due.max(recheck)))
        } else if self.disk.is_low_on_space() {
            Some(due.map_or(recheck, |due| due.min(recheck)))
        } else {
            due
        }
    }

    async fn wait(&self, due: Option<Instant>) {
        // Both branches lose nothing when dropped: a wake-up that is not taken stays.
        tokio::select! {
            () = self.inner.pending.woken() => {}
            () = at(due) => {}
        }
    }

    /// Writes one batch; whether it was the last one.
    async fn write(&mut self) -> bool {
        let work = self.inner.pending.take();
        let is_last = work.is_last;
        let (inner, disk) = (self.inner.clone(), self.disk.clone());
        let written = self.thread.run(move || inner.write(&disk, work)).await;
        if written.is_err() {
            // A panic outside redb: nothing is known of the batch, which is taken again.
            self.inner.count_error("write");
            self.inner.pending.retry();
            tracing::error!("Writing a batch to disk panicked.");
        }
        self.retry_at = Instant::now() + RECHECK;
        if self.disk.take_started_cold() {
            self.sweep = Some(Sweep::default());
        }
        is_last
    }

    /// Notes some paths under which something on disk answers other queries.
    async fn scan(&mut self) {
        let after = self.scan.take().flatten();
        let (inner, disk) = (self.inner.clone(), self.disk.clone());
        let noting = move || inner.note_search_paths(&disk, after);
        self.scan = self.thread.run(noting).await.unwrap_or_default();
    }

    async fn sweep(&mut self) {
        if let Some(sweep) = self.sweep.take() {
            let disk = self.disk.clone();
            let swept = self.thread.run(move || disk.sweep(sweep)).await;
            self.sweep = swept.unwrap_or_default();
        }
    }
}

async fn at(due: Option<Instant>) {
    match due {
        Some(due) => tokio::time::sleep_until(due).await,
        None => std::future::pending().await,
    }
}

/// Keeps a failed purge, once: asking again and again does not make more of it.
fn keep_for_retry(retried: &mut Vec<SelectJob>, failed: SelectJob) {
    let is_kept = retried
        .iter()
        .any(|job| job.matcher == failed.matcher && job.effect == failed.effect);
    if is_kept {
        return;
    }
    if retried.len() == RETRIED_PURGES_MAX {
        tracing::error!("A purge failed and is not tried again; too many others are.");
        return;
    }
    retried.push(failed);
}

impl Inner {
    /// Does the work of one batch. Blocks.
    fn write(&self, disk: &Disk, mut work: Work) {
        let writing = AssertUnwindSafe(|| self.write_batch(disk, &mut work));
        let written = catch_unwind(writing).unwrap_or(Err(DiskError::Panicked));
        for job in &mut work.selects {
            if let Some(reply) = job.reply.take() {
                // Nobody waits for the answer any more: the purge is tried again all the same.
                let _ = reply.send(Err(StoreError::Unavailable));
            }
        }
        for failed in std::mem::take(&mut work.selects) {
            keep_for_retry(&mut work.selects, failed);
        }
        if !work.selects.is_empty() || !work.marks.is_empty() || written.is_err() {
            // Also where the rest was written: what failed must not be tried again at once.
            disk.suspend();
        }
        match written {
            Ok(written) => {
                // In this order: no lookup may miss what was written both on disk and in what waits.
                for change in &work.batch.changes {
                    self.memory.change(change.key.as_str()).note_written();
                }
                self.pending.finish(work, Outcome::Written);
                self.note_on_disk(&written);
            }
            Err(error) => {
                self.count_error("write");
                tracing::warn!(%error, "Cannot write to the cache database; storing is suspended.");
                self.pending.finish(work, Outcome::Failed);
            }
        }
        if disk.has_started_cold() {
            self.forget_body_files();
        }
    }

    /// Carries out the purges, of which those to be tried again are left, and writes the rest.
    fn write_batch(&self, disk: &Disk, work: &mut Work) -> Result<Written, DiskError> {
        self.note_free_space(disk.check_space());
        work.selects.retain_mut(|job| self.carry_out(disk, job));
        self.carry_out_marks(disk, work);
        if disk.is_low_on_space() {
            work.batch.skips_puts = true;
            self.count_errors("skipped", work.batch.puts() as u64);
        }
        if work.batch.is_empty() && !disk.has_failed() {
            return Ok(Written::default());
        }
        // Neighbours share a page.
        work.batch.touches.sort_unstable();
        let written = disk.write(&work.batch)?;
        self.note_written(disk, &written);
        Ok(written)
    }

    /// Carries out a purge on disk; whether it is to be tried again.
    fn carry_out(&self, disk: &Disk, job: &mut SelectJob) -> bool {
        let mut only_elsewhere: HashSet<_> = job.elsewhere.keys().copied().collect();
        let selected = disk.select(Selecting {
            matcher: &job.matcher,
            effect: job.effect,
            superseded: &job.superseded,
            elsewhere: &mut only_elsewhere,
        });
        let reply = job.reply.take();
        let failed = selected.is_err();
        let answer = selected
            .map(|selected| job.purged(selected, &only_elsewhere))
            .map_err(|error| self.write_error(error));
        if let Some(reply) = reply {
            // Nobody waits for the answer any more: the purge is done all the same.
            let _ = reply.send(answer);
        }
        // One that only counts has nobody left to tell.
        failed && job.effect.is_some()
    }

    /// Marks what is filed under labels; when that fails they are left, and tried again.
    fn carry_out_marks(&self, disk: &Disk, work: &mut Work) {
        match self.mark_on_disk(disk, &work.marks) {
            Ok(()) if work.marks.is_empty() => {}
            Ok(()) => {
                // In this order: no lookup may miss the marks both on disk and in what waits.
                self.purges.note_ended();
                self.pending.forget_marks(&std::mem::take(&mut work.marks));
            }
            Err(error) => {
                let error = self.write_error(error);
                tracing::warn!(%error, "Cannot mark stored responses on disk; lookups respect it.");
            }
        }
    }

    /// The last path that was noted, where there may be more. One that cannot be read leaves every path a candidate.
    fn note_search_paths(&self, disk: &Disk, after: Option<String>) -> Option<Option<String>> {
        let searches = &self.labels.searches;
        let paths = match disk.search_paths(after.as_deref(), SCANNED_PATHS) {
            Ok(paths) => paths,
            Err(error) => {
                self.count_error("read");
                tracing::warn!(%error, "Cannot scan the cache database for No-Vary-Search.");
                return None;
            }
        };
        paths.iter().for_each(|path| searches.note_path(path));
        if paths.len() < SCANNED_PATHS {
            searches.set_scanned();
            return None;
        }
        paths.last().cloned().map(Some)
    }

    fn mark_on_disk(&self, disk: &Disk, marks: &[(Label, LabelMark)]) -> Result<(), DiskError> {
        let by_label = marks
            .iter()
            .filter(|(label, _)| self.labels.paths_of(label).is_none());
        disk.mark_labelled(by_label.map(|(label, mark)| (label, mark.mark)))?;
        for (label, mark) in marks {
            if let Some(paths) = self.labels.paths_of(label) {
                disk.select(Selecting {
                    matcher: &Matcher::Paths(paths.clone()),
                    effect: Some(Effect::Mark(mark.mark)),
                    superseded: &HashSet::new(),
                    elsewhere: &mut HashSet::new(),
                })?;
            }
        }
        Ok(())
    }

    fn write_error(&self, error: DiskError) -> StoreError {
        self.count_error("write");
        StoreError::Io {
            attempt: "write to the cache database",
            source: error.into_io(),
        }
    }

    fn note_written(&self, disk: &Disk, written: &Written) {
        for (reason, count) in [("size", written.evicted), ("corrupt", written.corrupt)] {
            let tier = "disk";
            let labels = EvictionLabels { tier, reason };
            self.metrics
                .cache_evictions
                .get_or_create(&labels)
                .inc_by(count);
        }
        for gone in &written.gone {
            if let (Some(key), Some(file)) = (&gone.key, gone.body_file) {
                self.forget_body(key, file);
            }
        }
        disk.remove_bodies(&written.gone);
    }

    pub(super) fn note_on_disk(&self, written: &Written) {
        for (key, on_disk) in &written.on_disk {
            let changing = self.memory.change(key.as_str());
            // Something that waits may be a variant that memory does not have.
            if !self.pending.has(key) {
                changing.note_on_disk(key, on_disk);
            }
        }
    }

    /// Takes every variant with a body file out of memory: a cold start forgot the files.
    fn forget_body_files(&self) {
        for resource in self.memory.iter() {
            let changing = self.memory.change(resource.key.as_str());
            changing.update(&resource.key, |variant| {
                let in_memory = matches!(variant.body, StoredBody::Memory(_));
                in_memory.then(|| variant.clone())
            });
        }
    }
}
