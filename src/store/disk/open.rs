//! Opening the disk tier: fast, whatever its size, and never fatal for what is in its file.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64},
    },
};

use redb::{Builder, ReadableTableMetadata};

use super::{
    Bodies, Disk, DiskError,
    at_hand::DatabaseFile,
    bodies::sync_directory,
    error::{Recovery, is_garbage},
    snapshot::OpenDatabase,
    tables::{BODIES, RECENCY, RECORDS, STATE, State, TAGS, URIS, USAGE},
};
use crate::{database::Handle, store::id::Namer};

/// Pages that redb keeps in memory. The operating system caches the file besides, and hot responses are in the memory
/// tier; redb's own default is 1 GiB.
const PAGE_CACHE_BYTES: usize = 24 * 1024 * 1024;

/// About what a small commit writes.
const PROBE_BYTES: usize = 64 * 1024;

/// Where the database is.
#[derive(Clone, Debug)]
pub(in crate::store) enum Backing {
    /// `cache.redb` in this data directory.
    Directory(PathBuf),
    /// Somewhere that fails on demand; body files are in this data directory.
    #[cfg(test)]
    Faulty(PathBuf, crate::store::tests::faults::FaultyStorage),
}

/// A database that is open and of the right format.
pub(super) struct Opened {
    pub(super) database: OpenDatabase,
    pub(super) state: State,
    pub(super) entries: u64,
    /// Whether there was nothing usable before.
    pub(super) is_cold: bool,
}

impl Backing {
    pub(super) fn dir(&self) -> &Path {
        match self {
            Self::Directory(dir) => dir,
            #[cfg(test)]
            Self::Faulty(dir, _) => dir,
        }
    }

    fn file(&self) -> PathBuf {
        self.dir().join("cache.redb")
    }

    fn set_aside_file(&self) -> PathBuf {
        self.dir().join("cache.redb.bad")
    }

    /// The bytes of the database, where there are any.
    fn len(&self) -> io::Result<Option<u64>> {
        match self {
            Self::Directory(_) => match fs::metadata(self.file()) {
                Ok(metadata) => Ok(Some(metadata.len())),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
            #[cfg(test)]
            Self::Faulty(_, storage) => Ok(Some(storage.bytes()).filter(|bytes| *bytes > 0)),
        }
    }

    /// Whether writing has a prospect of success: a little is written, synced and removed.
    pub(super) fn is_writable(&self) -> bool {
        match self {
            Self::Directory(dir) => {
                let probe = dir.join("probe");
                let written = private_file(&probe).and_then(|mut file| {
                    file.write_all(&[0; PROBE_BYTES])?;
                    file.sync_all()
                });
                let removed = fs::remove_file(&probe);
                written.and(removed).is_ok()
            }
            #[cfg(test)]
            Self::Faulty(_, storage) => !storage.is_full(),
        }
    }

    fn set_aside(&self) -> io::Result<()> {
        match self {
            Self::Directory(_) => match fs::rename(self.file(), self.set_aside_file()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => sync_directory(self.dir()),
            },
            #[cfg(test)]
            Self::Faulty(_, storage) => {
                storage.clear();
                Ok(())
            }
        }
    }

    fn database(&self) -> Result<Handle, DiskError> {
        let mut builder = Builder::new();
        builder.set_cache_size(PAGE_CACHE_BYTES);
        let open = || match self {
            Self::Directory(_) => {
                let file = private_file(&self.file()).map_err(redb::StorageError::from)?;
                let backend = DatabaseFile::new(file)?;
                Ok(builder.create_with_backend(backend)?.into())
            }
            #[cfg(test)]
            Self::Faulty(_, storage) => {
                if storage.is_uncached() {
                    builder.set_cache_size(0);
                }
                Ok(builder.create_with_backend(storage.clone())?.into())
            }
        };
        catch_unwind(AssertUnwindSafe(open)).unwrap_or(Err(DiskError::Panicked))
    }
}

impl Disk {
    /// Opens the tier, cold where there is nothing usable. Reads no more than a few pages, closed or killed: every commit
    /// has the allocator's state with it (`set_quick_repair`), so redb repairs nothing.
    ///
    /// A build with debug assertions does read the whole database: redb 4.5 then walks every page of every table at each
    /// open (`mark_allocated_page_for_debug`) to check its own allocator. Two opens of 1,000 records took 539 reads of
    /// 2.2 MB in all, of which all but 12 reads of 33 KB were that walk.
    ///
    /// # Errors
    /// When another process has the database, or the directory may not be used. Other errors leave the tier suspended:
    /// the writer tries again.
    pub(in crate::store) fn open(
        backing: Backing,
        budget: u64,
        free_min: u64,
    ) -> Result<Self, DiskError> {
        let opened = match open_or_start_cold(&backing, None) {
            Err(error) if is_for_the_operator(&error) => return Err(error),
            Err(error) => {
                tracing::error!(%error, "Cannot open the cache database; serving from memory.");
                None
            }
            Ok(opened) => Some(opened),
        };
        let seed = opened
            .as_ref()
            .map_or_else(|| fastrand::u64(..), |opened| opened.state.seed);
        let disk = Self {
            bodies: Bodies::new(backing.dir()),
            backing,
            budget,
            free_min,
            namer: Namer { seed },
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            turn: AtomicU64::new(0),
            low_on_space: AtomicBool::new(false),
            failed: AtomicBool::new(opened.is_none()),
            started_cold: AtomicBool::new(false),
            database: RwLock::new(None),
        };
        if let Some(opened) = opened {
            disk.set_totals(opened.entries, opened.state);
            *disk
                .database
                .write()
                .unwrap_or_else(PoisonError::into_inner) = Some(opened.database);
        }
        disk.check_space();
        Ok(disk)
    }
}

/// Opens what is there; sets it aside where it is not a database of this format.
///
/// With a `seed`, a database of another seed is not ours: names have been made with this one already.
pub(super) fn open_or_start_cold(
    backing: &Backing,
    seed: Option<u64>,
) -> Result<Opened, DiskError> {
    let new_seed = seed.unwrap_or_else(|| fastrand::u64(..));
    let len = backing.len().map_err(redb::StorageError::from)?;
    match len {
        None => start_new(backing, new_seed),
        Some(0) => {
            // redb would take it for a new database without a word.
            tracing::warn!("The cache database is empty; the disk tier starts cold.");
            start_cold(backing, new_seed)
        }
        Some(_) => match open_existing(backing, seed) {
            Ok(opened) => {
                let _ = fs::remove_file(backing.set_aside_file());
                Ok(opened)
            }
            Err(error) if error.recovery() == Recovery::StartCold && !is_in_use(&error) => {
                tracing::warn!(%error, "The cache database is unusable; the disk tier starts cold.");
                start_cold(backing, new_seed)
            }
            Err(error) => Err(error),
        },
    }
}

/// Sets aside what is there and starts with nothing. Body files that are left are swept.
pub(super) fn start_cold(backing: &Backing, seed: u64) -> Result<Opened, DiskError> {
    backing.set_aside().map_err(redb::StorageError::from)?;
    start_new(backing, seed)
}

fn start_new(backing: &Backing, seed: u64) -> Result<Opened, DiskError> {
    let database = backing.database()?;
    let state = State {
        seed,
        ..State::default()
    };
    let mut transaction = database.begin_write()?;
    transaction.set_quick_repair(true);
    transaction.open_table(RECORDS)?;
    transaction.open_table(USAGE)?;
    transaction.open_table(RECENCY)?;
    transaction.open_table(URIS)?;
    transaction.open_table(TAGS)?;
    transaction.open_table(BODIES)?;
    transaction.open_table(STATE)?.insert((), &state.encode())?;
    transaction.commit()?;
    // The file's name is as new as its content.
    sync_directory(backing.dir()).map_err(redb::StorageError::from)?;
    Ok(Opened {
        database: OpenDatabase::new(database),
        state,
        entries: 0,
        is_cold: true,
    })
}

fn open_existing(backing: &Backing, seed: Option<u64>) -> Result<Opened, DiskError> {
    let database = OpenDatabase::new(backing.database()?);
    let opening = AssertUnwindSafe(|| totals(&database));
    let (state, entries) = match catch_unwind(opening).unwrap_or(Err(DiskError::Panicked)) {
        Ok(totals) => totals,
        Err(error) => {
            database.give_up();
            return Err(error);
        }
    };
    if seed.is_some_and(|seed| seed != state.seed) {
        return Err(redb::StorageError::Corrupted("another seed".to_owned()).into());
    }
    Ok(Opened {
        database,
        state,
        entries,
        is_cold: false,
    })
}

fn totals(database: &OpenDatabase) -> Result<(State, u64), DiskError> {
    let snapshot = database.snapshot()?;
    let entries = snapshot.records.len()?;
    let state = snapshot
        .transaction
        .open_table(STATE)?
        .get(())?
        .and_then(|row| State::decode(row.value()))
        .ok_or_else(|| redb::StorageError::Corrupted("no state of this format".to_owned()))?;
    Ok((state, entries))
}

/// Opens or makes a file that only we may read, from its first moment on.
fn private_file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    file.set_permissions(Permissions::from_mode(0o600))?;
    Ok(file)
}

fn is_in_use(error: &DiskError) -> bool {
    matches!(error, DiskError::Database(error) if matches!(**error, redb::Error::DatabaseAlreadyOpen))
}

/// Errors that waiting does not mend.
fn is_for_the_operator(error: &DiskError) -> bool {
    match error {
        DiskError::Database(error) => match error.as_ref() {
            redb::Error::DatabaseAlreadyOpen => true,
            redb::Error::Io(error) => {
                !is_garbage(error)
                    && !matches!(
                        error.kind(),
                        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                    )
            }
            _ => false,
        },
        _ => false,
    }
}
