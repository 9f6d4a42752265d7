//! Opening the journal: fast, whatever it holds, and never over something that was there.

use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError},
};

use redb::{Database, ReadableDatabase};
use tokio::{sync::mpsc, task::spawn_blocking};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Inner, Journal,
    backing::Backing,
    batch::ReceiptLimits,
    change::Pause,
    codec::Codec,
    commit::State,
    damage::Damage,
    disk::{Disk, transact},
    error::{DiskError, OpenError, Recovery},
    ids::Ids,
    load::Loaded,
    marker::{Marked, Marker, Noted},
    open_flag::{LastEnd, OpenFlag},
    salvage::{self, Occasion},
    space::Space,
    spool::{Spool, sync_directory},
    tables::{Counters, META, meta},
    transaction::{Sound, check_format, read_meta},
    writer::{BATCH_MAX, Writer},
};
use crate::{
    clock::SharedClock,
    database::Handle,
    policy::Timestamp,
    queue::{
        Config,
        index::Index,
        seal::Keyring,
        timeline::{ClockStep, Timeline},
    },
    telemetry::Metrics,
};

/// Opens the journal on this backing.
pub(super) async fn open_on(
    backing: Backing,
    config: &Config,
    clock: SharedClock,
    metrics: Arc<Metrics>,
    index: Arc<Mutex<Index>>,
    tasks: &TaskTracker,
) -> Result<Journal, OpenError> {
    let config = config.clone();
    let opening = spawn_blocking(move || Inner::open(backing, &config, clock, metrics, index));
    let opened = opening.await.map_err(|error| OpenError::Damaged {
        path: "queue.redb".into(),
        source: error.into(),
    })?;
    let (inner, loaded) = opened?;
    let inner = Arc::new(inner);
    let (appends, append_queue) = mpsc::channel(BATCH_MAX);
    let (transitions, transition_queue) = mpsc::channel(BATCH_MAX);
    let state = State {
        ids: Ids::after(loaded.counters.last_id),
        receipts: loaded.receipts,
        unconfirmed: Vec::new(),
    };
    let writer = Writer::new(inner.clone(), append_queue, transition_queue, state);
    tasks.spawn(writer.run());
    Ok(Journal {
        inner,
        appends,
        transitions,
    })
}

impl Inner {
    fn open(
        backing: Backing,
        config: &Config,
        clock: SharedClock,
        metrics: Arc<Metrics>,
        index: Arc<Mutex<Index>>,
    ) -> Result<(Self, Loaded), OpenError> {
        let keyring = match &config.key_file {
            Some(path) => Keyring::read(path)?,
            None => Keyring::empty(),
        };
        let io = |attempt, path: &std::path::Path| {
            let path = path.to_owned();
            move |source| OpenError::Io {
                attempt,
                path,
                source,
            }
        };
        let dir = backing.dir().to_owned();
        prepare_directory(&dir).map_err(io("make", &dir))?;
        let (spool, space) = (Spool::new(&dir), Space::new(&dir));
        let damage = Damage::new(metrics.clone());
        let now = clock.now();
        let (marker, marked) = Marker::open(&dir).map_err(io("write beside", &backing.file()))?;
        let (open_flag, last_end) = OpenFlag::raise(&dir);
        let opening = Opening {
            backing: &backing,
            last_end,
            spool: &spool,
            space: &space,
            damage: &damage,
            marked,
            noted: marker.noted(),
            now,
        };
        let (database, codec) = opening
            .database()
            .map_err(|error| open_error(&backing, error))?;
        spool
            .prepare()
            .map_err(io("make the spool of", &backing.file()))?;
        let inner = Self {
            disk: Disk::new(backing, marker, damage, codec, database, open_flag),
            spool,
            space,
            keyring,
            sensitive: config.sensitive_headers.clone(),
            limits: ReceiptLimits {
                items: config.max_items as u64,
                answer_bytes: config.max_bytes / 4,
                ttl: config.receipt_ttl,
            },
            index,
            clock,
            metrics,
            pauses: Mutex::default(),
            timeline: Mutex::default(),
            closing: CancellationToken::new(),
            ended: CancellationToken::new(),
        };
        let mut loaded = inner
            .load_or_salvage()
            .map_err(|error| open_error(&inner.disk.backing, error))?;
        inner.disk.note_pauses(&loaded.pauses);
        inner.set_pauses(std::mem::take(&mut loaded.pauses));
        inner.resume_timeline(std::mem::take(&mut loaded.clock_steps));
        inner.space.check();
        Ok((inner, loaded))
    }

    fn resume_timeline(&self, steps: Vec<ClockStep>) {
        let index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = |before| index.newest_before(before);
        *self.timeline() = Timeline::resume(steps, self.clock.now(), newest);
    }

    /// Loads and settles; where the tables do not agree with each other, have gone back, or cannot be written for damage, once
    /// more after a salvage.
    fn load_or_salvage(&self) -> Result<Loaded, DiskError> {
        let loaded = self.load().and_then(|loaded| {
            let checked = self.disk.check_progress(&loaded.counters);
            checked.inspect_err(|_| self.forget(&loaded))?;
            self.settled(loaded)
        });
        match loaded {
            Err(error) if error.recovery() == Recovery::Salvage => {
                tracing::error!(%error, "The queue's database cannot be loaded.");
                self.disk.salvage(Occasion::Start, self.clock.now())?;
                self.settled(self.load()?)
            }
            loaded => loaded,
        }
    }

    /// What was loaded, recorded; or nothing of it is in the index.
    fn settled(&self, mut loaded: Loaded) -> Result<Loaded, DiskError> {
        self.disk.note(&loaded.counters);
        self.disk.note_seed();
        let settled = self.settle(&mut loaded);
        settled.inspect_err(|_| self.forget(&loaded))?;
        Ok(loaded)
    }
}

/// The database on its way to be opened.
struct Opening<'a> {
    backing: &'a Backing,
    last_end: LastEnd,
    spool: &'a Spool,
    space: &'a Space,
    damage: &'a Damage,
    marked: Marked,
    noted: Noted,
    now: Timestamp,
}

impl Opening<'_> {
    fn database(&self) -> Result<(Handle, Codec), DiskError> {
        match self.try_database() {
            // Opening writes a little.
            Err(error) if error.is_no_space() && self.space.give_up_reserve() => {
                self.try_database()
            }
            opened => opened,
        }
    }

    fn try_database(&self) -> Result<(Handle, Codec), DiskError> {
        let is_there = self.backing.bytes().map_err(DiskError::File)?.is_some();
        if !is_there {
            self.note_missing();
            let codec = self.noted.codec.unwrap_or_else(Codec::new);
            return Ok((self.start_new(codec)?, codec));
        }
        let opened = match self.last_end {
            LastEnd::Orderly => self.backing.open(),
            LastEnd::Unclean => {
                tracing::info!("The queue's database was not closed; it is verified.");
                self.backing.open_verified()
            }
        };
        match opened {
            Err(error) if error.recovery() == Recovery::Salvage => {
                tracing::error!(%error, "The queue's database cannot be opened.");
                let codec = self.codec(None);
                let (noted, start) = (&self.noted, Occasion::Start);
                salvage::salvage(self.backing, codec, noted, start, self.damage, self.now)?;
                Ok((self.backing.open()?, codec))
            }
            Err(error) => Err(error),
            Ok(database) => {
                let codec = self.codec(codec_of(&database)?);
                Ok((database, codec))
            }
        }
    }

    /// What the records are made with: as the database says it, or else the marker. Where neither does, none of them is one.
    fn codec(&self, found: Option<Codec>) -> Codec {
        found.or(self.noted.codec).unwrap_or_else(|| {
            tracing::error!(
                "The seed of the queue's records is lost: none of them can be trusted any more."
            );
            Codec::new()
        })
    }

    /// A new database, or one that goes on where a lost one had come to.
    fn start_new(&self, codec: Codec) -> Result<Handle, DiskError> {
        let database = self.backing.open()?;
        transact(&database, self.damage, codec, |tables| {
            if let Marked::Until(before) = self.marked {
                tables.counters = Counters {
                    revision: before.revision.saturating_add(1),
                    removed: before.seq,
                    answer_bytes: 0,
                    ..before
                };
            }
            match &self.noted.pauses {
                Sound::Is(pauses) => tables.put_pauses(pauses),
                Sound::Missing => Ok(()),
                Sound::Damaged => tables.put_pauses(&[Pause::of_everything(self.now)]),
            }
        })?;
        // The file's name is as new as its content.
        sync_directory(self.backing.dir()).map_err(DiskError::File)?;
        Ok(database)
    }

    /// Says so where there should be a database.
    fn note_missing(&self) {
        let lost = match self.marked {
            Marked::Until(counters) => counters.seq.saturating_sub(counters.removed),
            Marked::Once => 1,
            Marked::Never => 0,
        };
        let lost = lost.max(u64::from(self.spool.has_any()));
        if lost > 0 {
            self.damage
                .note_lost(lost, "queue.redb is missing or empty");
        } else if self.marked != Marked::Never {
            tracing::error!("queue.redb is missing or empty; no write was in it.");
        }
        if lost > 0 && matches!(self.noted.pauses, Sound::Missing) {
            self.damage.note_pauses();
        }
    }
}

/// The seed as redb's tree says it, where it can be read.
///
/// # Errors
/// Where another version made the database.
fn codec_of(database: &Database) -> Result<Option<Codec>, DiskError> {
    let read = || {
        let meta = database.begin_read()?.open_table(META)?;
        check_format(read_meta(&meta, Codec::UNSEEDED, meta::FORMAT)?)?;
        read_meta(&meta, Codec::UNSEEDED, meta::SEED)
    };
    match catch_unwind(AssertUnwindSafe(read)).unwrap_or(Err(DiskError::Panicked)) {
        Err(DiskError::Format(found)) => Err(DiskError::Format(found)),
        // Loading finds out what is the matter.
        found => Ok(found.ok().flatten()),
    }
}

fn prepare_directory(dir: &std::path::Path) -> io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
}

fn open_error(backing: &Backing, error: DiskError) -> OpenError {
    let path = backing.file();
    match error {
        error if error.is_in_use() => OpenError::InUse { path },
        DiskError::Format(found) => OpenError::Format { path, found },
        error if error.recovery() == Recovery::Salvage => OpenError::Damaged {
            path,
            source: Box::new(error),
        },
        error => OpenError::Io {
            attempt: "open",
            path,
            source: error.into_io(),
        },
    }
}
