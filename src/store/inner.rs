//! What every handle of a store shares, from opening to closing.

use std::{
    fs::{self, File, OpenOptions, Permissions, TryLockError},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::{sync::Semaphore, task::spawn_blocking};
use tokio_util::task::TaskTracker;

use super::{
    Config, Stats, StoreError,
    absent::Absent,
    disk::{Backing, Disk, DiskError},
    id::Namer,
    labels::LabelIndex,
    memory::{Behind, Memory},
    pending::{Pending, SELECTOR_JOBS_MAX},
    purges::PurgeLog,
    queries::Queries,
    resource::{Resource, StoredResponse},
    thread::DiskThread,
    writer::Writer,
};
use crate::{
    clock::SharedClock,
    telemetry::{EvictionLabels, Metrics, OperationLabels, TierLabels},
};

/// Reads of the disk tier at the same time. More would only queue at the disk, each with a thread.
const READS_MAX: usize = 16;

/// How often the use of a stored response is reported to the disk tier, where only the order of use matters.
const REPORT_INTERVAL_MILLIS: u64 = 10 * 60 * 1_000;

pub(super) struct Inner {
    pub(super) config: Config,
    pub(super) clock: SharedClock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) namer: Namer,
    pub(super) purges: Arc<PurgeLog>,
    pub(super) memory: Memory,
    pub(super) absent: Absent,
    pub(super) pending: Pending,
    pub(super) queries: Queries,
    pub(super) labels: Arc<LabelIndex>,
    /// `None`: the tier is off.
    pub(super) disk: Option<Arc<Disk>>,
    pub(super) reads: Semaphore,
    pub(super) purging: Semaphore,
    // Held for its lock; gone after closing.
    directory: Mutex<Option<File>>,
}

impl Inner {
    pub(super) async fn open(
        config: Config,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, StoreError> {
        let backing = Backing::Directory(config.dir.clone());
        Self::open_on(backing, config, clock, metrics).await
    }

    pub(super) async fn open_on(
        backing: Backing,
        config: Config,
        clock: SharedClock,
        metrics: Arc<Metrics>,
    ) -> Result<Arc<Self>, StoreError> {
        let opening = spawn_blocking(move || {
            let directory = lock_directory(&config.dir)?;
            let disk = open_disk(backing, &config)?;
            Ok(Arc::new(Self::new(config, clock, metrics, directory, disk)))
        });
        opening.await.unwrap_or(Err(StoreError::Unavailable))
    }

    fn new(
        config: Config,
        clock: SharedClock,
        metrics: Arc<Metrics>,
        directory: File,
        disk: Option<Disk>,
    ) -> Self {
        for (tier, bytes) in [("memory", config.memory_bytes), ("disk", config.disk_bytes)] {
            let capacity = i64::try_from(bytes).unwrap_or(i64::MAX);
            let labels = TierLabels { tier };
            let _ = metrics
                .cache_capacity_bytes
                .get_or_create(&labels)
                .set(capacity);
        }
        let evictions = metrics
            .cache_evictions
            .get_or_create_owned(&EvictionLabels {
                tier: "memory",
                reason: "size",
            });
        let behind = if disk.is_some() {
            Behind::Disk
        } else {
            Behind::Nothing
        };
        let namer = disk.as_ref().map_or_else(
            || Namer {
                seed: fastrand::u64(..),
            },
            Disk::namer,
        );
        Self {
            memory: Memory::new(config.memory_bytes, behind, evictions),
            absent: Absent::new(),
            namer,
            config,
            clock,
            metrics,
            purges: Arc::default(),
            pending: Pending::new(),
            queries: Queries::new(disk.as_ref().is_some_and(|disk| disk.entries() > 0)),
            labels: LabelIndex::new(),
            disk: disk.map(Arc::new),
            reads: Semaphore::new(READS_MAX),
            purging: Semaphore::new(SELECTOR_JOBS_MAX),
            directory: Mutex::new(Some(directory)),
        }
    }

    pub(super) fn start_writer(self: &Arc<Self>, tasks: &TaskTracker) -> Result<(), StoreError> {
        if let Some(disk) = &self.disk {
            let thread = DiskThread::start().map_err(|source| StoreError::Io {
                attempt: "start the thread of the disk tier",
                source,
            })?;
            tasks.spawn(Writer::new(self.clone(), disk.clone(), thread).run());
        } else {
            // Perhaps many gigabytes: that must not hold up the start.
            self.labels.searches.set_scanned();
            let bodies = self.config.dir.join("bodies");
            tasks.spawn_blocking(move || fs::remove_dir_all(bodies));
        }
        Ok(())
    }

    pub(super) fn touch(&self, resource: &Resource, variant: &StoredResponse) {
        variant.count_hit();
        if self.disk.is_none() {
            return;
        }
        if resource.is_on_disk() {
            self.memory.note_use(resource.key.as_str());
        }
        let now = self.clock.now();
        if variant.report_is_due(now, REPORT_INTERVAL_MILLIS)
            && self.pending.try_touch(variant.id(), variant.hits())
        {
            variant.set_reported(now);
        }
    }

    pub(super) fn stats(&self) -> Stats {
        let (memory_entries, memory_bytes) = self.memory.totals();
        let disk = self.disk.as_deref();
        self.note_free_space(disk.and_then(Disk::free_bytes));
        Stats {
            memory_entries,
            memory_bytes,
            disk_entries: disk.map_or(0, Disk::entries),
            disk_bytes: disk.map_or(0, Disk::bytes),
            disk_suspended: disk.is_some_and(Disk::is_suspended),
        }
    }

    pub(super) fn note_free_space(&self, free: Option<u64>) {
        if let Some(free) = free {
            let free = i64::try_from(free).unwrap_or(i64::MAX);
            self.metrics.storage_free_bytes.set(free);
        }
    }

    pub(super) async fn flush(&self) {
        if self.disk.is_some() {
            self.pending.flush().await;
        }
    }

    pub(super) async fn close(&self) -> Result<(), StoreError> {
        let failed = if let Some(disk) = &self.disk {
            self.pending.close();
            self.pending.ended().await;
            disk.has_failed()
        } else {
            false
        };
        drop(
            self.directory
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        if failed {
            return Err(StoreError::Unavailable);
        }
        Ok(())
    }

    pub(super) fn count_error(&self, op: &'static str) {
        self.count_errors(op, 1);
    }

    pub(super) fn count_errors(&self, op: &'static str, count: u64) {
        self.metrics
            .storage_errors
            .get_or_create(&OperationLabels { op })
            .inc_by(count);
    }
}

/// Makes the directory, ours alone, and keeps other processes out of it.
fn lock_directory(dir: &Path) -> Result<File, StoreError> {
    let io_error = |attempt| move |source| StoreError::Io { attempt, source };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(io_error("make the data directory"))?;
    if let Err(error) = fs::set_permissions(dir, Permissions::from_mode(0o700)) {
        tracing::warn!(%error, "Cannot keep others out of the data directory.");
    }
    let lock = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(dir.join("lock"))
        .map_err(io_error("open the lock of the data directory"))?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(in_use(dir)),
        Err(TryLockError::Error(source)) => Err(io_error("lock the data directory")(source)),
    }
}

fn open_disk(backing: Backing, config: &Config) -> Result<Option<Disk>, StoreError> {
    if config.disk_bytes == 0 {
        return remove_left_overs(&config.dir)
            .map(|()| None)
            .map_err(|source| StoreError::Io {
                attempt: "remove the disk tier of an earlier run",
                source,
            });
    }
    Disk::open(backing, config.disk_bytes, config.disk_free_min_bytes)
        .map(Some)
        .map_err(|error| match error {
            DiskError::Database(error) if matches!(*error, redb::Error::DatabaseAlreadyOpen) => {
                in_use(&config.dir)
            }
            error => StoreError::Io {
                attempt: "open the cache database",
                source: error.into_io(),
            },
        })
}

/// Removes the database, which makes body files orphans.
fn remove_left_overs(dir: &Path) -> io::Result<()> {
    match fs::remove_file(dir.join("cache.redb")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn in_use(dir: &Path) -> StoreError {
    StoreError::InUse {
        dir: dir.to_owned(),
    }
}
