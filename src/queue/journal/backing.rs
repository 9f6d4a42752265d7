//! Where the database is: `queue.redb` in the data directory.

use std::{
    fs::{self, File, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
};

use redb::{Builder, StorageBackend, backends::FileBackend};

use super::{error::DiskError, spool::sync_directory, storage::Storage, turn::Turn};
use crate::database::{Damaged, Handle};

/// Pages that redb keeps in memory: the rows that each commit changes. redb's own default is 1 GiB.
const PAGE_CACHE_BYTES: usize = 16 * 1024 * 1024;

/// About what a small commit writes.
const PROBE_BYTES: usize = 64 * 1024;

/// Damaged databases that are kept. Beyond this the last one is replaced: what could be read of it was salvaged.
const SET_ASIDE_MAX: u32 = 9;

/// Where the database is.
#[derive(Clone, Debug)]
pub(super) struct Backing {
    place: Place,
    turn: Turn,
}

#[derive(Clone, Debug)]
enum Place {
    /// `queue.redb` in this data directory.
    Directory(PathBuf),
    /// Somewhere that fails on demand; other files are in this data directory.
    #[cfg(test)]
    Faulty(PathBuf, super::tests::faults::FaultyStorage),
}

impl Backing {
    /// In this directory.
    pub(super) fn directory(dir: PathBuf) -> Self {
        Self {
            place: Place::Directory(dir),
            turn: Turn::default(),
        }
    }

    /// In this storage, with other files in this directory.
    #[cfg(test)]
    pub(super) fn faulty(dir: PathBuf, storage: super::tests::faults::FaultyStorage) -> Self {
        Self {
            place: Place::Faulty(dir, storage),
            turn: Turn::default(),
        }
    }

    /// What commits of this database come to.
    pub(super) fn turn(&self) -> &Turn {
        &self.turn
    }

    pub(super) fn dir(&self) -> &Path {
        match &self.place {
            Place::Directory(dir) => dir,
            #[cfg(test)]
            Place::Faulty(dir, _) => dir,
        }
    }

    pub(super) fn file(&self) -> PathBuf {
        self.dir().join("queue.redb")
    }

    /// Where a salvaged database grows.
    pub(super) fn new_file(&self) -> PathBuf {
        self.dir().join("queue.redb.new")
    }

    /// The file of the database, to be read page by page.
    pub(super) fn pages(&self) -> io::Result<File> {
        match &self.place {
            Place::Directory(_) => File::open(self.file()),
            #[cfg(test)]
            Place::Faulty(_, storage) => storage.pages(),
        }
    }

    /// The bytes of the database, where there are any.
    pub(super) fn bytes(&self) -> io::Result<Option<u64>> {
        match &self.place {
            Place::Directory(_) => match fs::metadata(self.file()) {
                Ok(metadata) => Ok(Some(metadata.len()).filter(|bytes| *bytes > 0)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(error),
            },
            #[cfg(test)]
            Place::Faulty(_, storage) => Ok(Some(storage.bytes()).filter(|bytes| *bytes > 0)),
        }
    }

    /// Opens the database. One that is not there, or empty, is made.
    pub(super) fn open(&self) -> Result<Handle, DiskError> {
        match &self.place {
            Place::Directory(_) => open_watched(&self.file(), &self.turn),
            #[cfg(test)]
            Place::Faulty(_, storage) => open_on(|| Ok(Storage::new(storage.open(), &self.turn))),
        }
    }

    /// The same after it was verified, which reads all of it.
    ///
    /// # Errors
    /// [`DiskError::Damaged`] also where a page is not what was written.
    pub(super) fn open_verified(&self) -> Result<Handle, DiskError> {
        let mut doubtful = self.open_apart()?;
        let verify = AssertUnwindSafe(|| Ok(doubtful.check_integrity()?));
        match catch_unwind(verify).unwrap_or(Err(DiskError::Panicked))? {
            true => {
                drop(doubtful);
                self.open()
            }
            false => Err(DiskError::Damaged("a page is not what was written")),
        }
    }

    /// Opens a damaged database to be read. Whatever redb does to it, the file stays as it is.
    pub(super) fn open_apart(&self) -> Result<Damaged, DiskError> {
        let opened = match &self.place {
            Place::Directory(_) => open_on(|| apart(file_backend(&self.file())?)),
            #[cfg(test)]
            Place::Faulty(_, storage) => open_on(|| apart(storage.open())),
        };
        opened.map(Damaged::from)
    }

    /// Tries whether writing has a prospect of success: a little is written, synced and removed.
    ///
    /// # Errors
    /// When it has none.
    pub(super) fn probe(&self) -> io::Result<()> {
        match &self.place {
            Place::Directory(dir) => {
                let probe = dir.join("queue.probe");
                let written = private_file(&probe).and_then(|mut file| {
                    file.write_all(&[0; PROBE_BYTES])?;
                    file.sync_all()
                });
                let removed = fs::remove_file(&probe);
                written.and(removed)
            }
            #[cfg(test)]
            Place::Faulty(_, storage) => storage.check(),
        }
    }

    /// Puts the salvaged database in place of the damaged one, which is kept as `queue.redb.bad-<n>`.
    pub(super) fn replace(&self) -> io::Result<()> {
        #[cfg(test)]
        if let Place::Faulty(_, storage) = &self.place {
            return storage.replace(&self.new_file());
        }
        let file = self.file();
        if file.try_exists()? {
            let set_aside = self.set_aside_file()?;
            // A second name first: at no moment is there no database.
            fs::hard_link(&file, &set_aside).or_else(|_| fs::copy(&file, &set_aside).map(drop))?;
            tracing::error!(file = %set_aside.display(), "The damaged queue database is set aside.");
        }
        fs::rename(self.new_file(), file)?;
        sync_directory(self.dir())
    }

    fn set_aside_file(&self) -> io::Result<PathBuf> {
        let name = |number| self.dir().join(format!("queue.redb.bad-{number}"));
        for number in 1..=SET_ASIDE_MAX {
            if !name(number).try_exists()? {
                return Ok(name(number));
            }
        }
        fs::remove_file(name(SET_ASIDE_MAX))?;
        Ok(name(SET_ASIDE_MAX))
    }
}

/// Opens or makes the database in this file.
pub(super) fn open_file(path: &Path) -> Result<Handle, DiskError> {
    open_watched(path, &Turn::default())
}

fn open_watched(path: &Path, turn: &Turn) -> Result<Handle, DiskError> {
    open_on(|| Ok(Storage::new(file_backend(path)?, turn)))
}

fn file_backend(path: &Path) -> Result<FileBackend, DiskError> {
    let file = private_file(path).map_err(redb::StorageError::from)?;
    Ok(FileBackend::new(file)?)
}

fn apart<B: StorageBackend>(storage: B) -> Result<Storage<B>, DiskError> {
    Ok(Storage::apart(storage).map_err(redb::StorageError::from)?)
}

fn open_on<B: StorageBackend>(
    storage: impl FnOnce() -> Result<Storage<B>, DiskError>,
) -> Result<Handle, DiskError> {
    let open = || Ok(builder().create_with_backend(storage()?)?.into());
    catch_unwind(AssertUnwindSafe(open)).unwrap_or(Err(DiskError::Panicked))
}

pub(super) fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(PAGE_CACHE_BYTES);
    builder
}

/// Opens or makes a file that only we may read, from its first moment on.
pub(super) fn private_file(path: &Path) -> io::Result<File> {
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

#[cfg(test)]
mod tests {
    use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition};

    use super::{Backing, Damaged, fs};

    const ROWS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("rows");

    fn rows(database: &Database) -> u64 {
        let transaction = database.begin_read().unwrap();
        transaction.open_table(ROWS).unwrap().len().unwrap()
    }

    fn add(database: &Database, keys: std::ops::Range<u64>) {
        let transaction = database.begin_write().unwrap();
        for key in keys {
            let mut rows = transaction.open_table(ROWS).unwrap();
            rows.insert(key, [7; 1_000].as_slice()).unwrap();
        }
        transaction.commit().unwrap();
    }

    #[test]
    fn what_redb_does_to_a_damaged_database_it_does_to_none() {
        let dir = tempfile::tempdir().unwrap();
        let backing = Backing::directory(dir.path().to_owned());
        let file = || fs::read(backing.file()).unwrap();
        let open = backing.open().unwrap();
        add(&open, 0..10);
        let as_found = file();
        drop(Damaged::from(open));
        assert!(file() == as_found, "closing it was a commit");
        let source = backing.open_apart().unwrap();
        assert_eq!(rows(&source), 10);
        add(&source, 10..1_000);
        assert_eq!(rows(&source), 1_000, "it finds what it wrote");
        drop(source);
        assert!(file() == as_found, "it was written");
        assert_eq!(rows(&backing.open().unwrap()), 10);
    }
}
