//! Bodies that are too large for the database: files of `spool/`, one a body, which only we may read.
//!
//! A file is written and synced, and its name too, before the record that names it is committed; one that no record is going to
//! name is never synced. One that is dropped before is removed; what a crash left is swept at start. Its length and checksum are
//! in the record, and are verified before each delivery. Bounds: `queue.max_item` each, `queue.max_bytes` all, which whoever
//! writes them holds.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use ring::digest::{Context, SHA256};
use tokio::task::spawn_blocking;
use xxhash_rust::xxh3::Xxh3;

use super::super::{gathering::SpoolRoom, index::Full, item::StoredBody};

/// Files are read in pieces of this to verify them.
const PIECE_BYTES: usize = 64 * 1024;

/// The directory of the bodies.
#[derive(Clone, Debug)]
pub(super) struct Spool {
    dir: Arc<Path>,
}

/// A body on its way to the disk, or a finished one that no record names yet. Removed when it is dropped.
#[derive(Debug)]
pub struct SpoolFile {
    path: PathBuf,
    name: String,
    // `None` once it is finished.
    writing: Option<Box<Writing>>,
    // Finished, and not synced yet.
    unsynced: Option<File>,
    is_synced: bool,
    bytes: u64,
    checksum: u64,
    sha256: [u8; 32],
    is_kept: bool,
    // Given back after the file is gone: fields are dropped after `drop`.
    room: Option<SpoolRoom>,
}

struct Writing {
    file: File,
    sha256: Context,
    checksum: Xxh3,
}

/// Why a body cannot be read.
#[derive(Debug, thiserror::Error)]
pub(super) enum BodyError {
    #[error("the spool file is not what was written")]
    Damaged,
    #[error("cannot read a spool file")]
    Io(#[source] io::Error),
}

impl Spool {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.join("spool").into(),
        }
    }

    /// Makes the directory, durably.
    pub(super) fn prepare(&self) -> io::Result<()> {
        if !self.dir.exists() {
            fs::DirBuilder::new().mode(0o700).create(&self.dir)?;
        }
        self.dir.parent().map_or(Ok(()), sync_directory)
    }

    /// A new, empty file.
    pub(super) fn create(&self) -> io::Result<SpoolFile> {
        let mut random = [0; 16];
        fastrand::fill(&mut random);
        let name = format!("{:032x}", u128::from_le_bytes(random));
        let path = self.dir.join(&name);
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        Ok(SpoolFile {
            path,
            name,
            writing: Some(Box::new(Writing {
                file,
                sha256: Context::new(&SHA256),
                checksum: Xxh3::new(),
            })),
            unsynced: None,
            is_synced: false,
            bytes: 0,
            checksum: 0,
            sha256: [0; 32],
            is_kept: false,
            room: None,
        })
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Reads a file through and compares it with its record.
    pub(super) fn verify(&self, name: &str, bytes: u64, checksum: u64) -> Result<(), BodyError> {
        let mut file = File::open(self.path(name)).map_err(BodyError::from_io)?;
        let (mut hasher, mut read) = (Xxh3::new(), 0);
        let mut piece = vec![0; PIECE_BYTES];
        loop {
            match file.read(&mut piece).map_err(BodyError::from_io)? {
                0 => break,
                len => {
                    hasher.update(&piece[..len]);
                    read += len as u64;
                }
            }
        }
        if read == bytes && hasher.digest() == checksum {
            Ok(())
        } else {
            Err(BodyError::Damaged)
        }
    }

    /// Removes a file. One that is gone already is as good.
    pub(super) fn remove(&self, name: &str) {
        if let Err(error) = fs::remove_file(self.path(name))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "Cannot remove a spool file; it is swept at the next start.");
        }
    }

    /// Whether there is any file.
    pub(super) fn has_any(&self) -> bool {
        fs::read_dir(&self.dir).is_ok_and(|mut files| files.next().is_some())
    }

    /// Removes every file that is not named; how many. Only before anything is appended.
    pub(super) fn sweep(&self, named: &HashSet<String>) -> io::Result<u64> {
        self.each_unnamed(named, |file| fs::remove_file(file))
    }

    /// Moves every file that is not named to `spool.bad`; how many. Only before anything is appended.
    pub(super) fn set_aside(&self, named: &HashSet<String>) -> io::Result<u64> {
        let bad = self.dir.with_file_name("spool.bad");
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&bad)?;
        self.each_unnamed(named, |file| {
            let name = file.file_name().unwrap_or_default();
            fs::rename(file, bad.join(name))
        })
    }

    fn each_unnamed(
        &self,
        named: &HashSet<String>,
        act: impl Fn(&Path) -> io::Result<()>,
    ) -> io::Result<u64> {
        let mut count = 0;
        for file in fs::read_dir(&self.dir)? {
            let file = file?;
            let name = file.file_name();
            let is_named = name.to_str().is_some_and(|name| named.contains(name));
            if !is_named && act(&file.path()).is_ok() {
                count += 1;
            }
        }
        Ok(count)
    }

    /// The content of a small file, and the file with it.
    pub(super) fn read(&self, file: &SpoolFile) -> io::Result<Bytes> {
        fs::read(&file.path).map(Bytes::from)
    }
}

impl SpoolFile {
    /// Adds a piece of the body.
    ///
    /// # Errors
    /// When it cannot be written. The file is then good for nothing.
    pub async fn write(&mut self, piece: Bytes) -> io::Result<()> {
        let mut writing = self.writing.take().ok_or_else(finished)?;
        self.bytes += piece.len() as u64;
        let written = spawn_blocking(move || {
            writing.sha256.update(&piece);
            writing.checksum.update(&piece);
            writing.file.write_all(&piece).map(|()| writing)
        });
        self.writing = Some(written.await.map_err(io::Error::other)??);
        Ok(())
    }

    /// Says that there is no more. Whoever appends it makes it durable.
    pub fn finish(&mut self) {
        if let Some(writing) = self.writing.take() {
            self.checksum = writing.checksum.digest();
            self.sha256
                .copy_from_slice(writing.sha256.finish().as_ref());
            self.unsynced = Some(writing.file);
        }
    }

    /// Makes it durable, name and all, if it is not yet.
    ///
    /// # Errors
    /// When it is not finished, or cannot be synced. The file is then good for nothing.
    pub(super) async fn sync(&mut self) -> io::Result<()> {
        if self.is_synced {
            return Ok(());
        }
        let file = self.unsynced.take().ok_or_else(unfinished)?;
        let dir = self.path.parent().map(Path::to_owned);
        let synced = spawn_blocking(move || {
            file.sync_all()?;
            dir.as_deref().map_or(Ok(()), sync_directory)
        });
        synced.await.map_err(io::Error::other)??;
        self.is_synced = true;
        Ok(())
    }

    /// Counts it toward this room from now on.
    pub(in crate::queue) fn hold(&mut self, room: SpoolRoom) {
        self.room = Some(room);
    }

    /// Takes room for so much more, if it counts toward any.
    ///
    /// # Errors
    /// When there is none.
    pub(in crate::queue) fn take_room(&mut self, bytes: u64) -> Result<(), Full> {
        self.room.as_mut().map_or(Ok(()), |room| room.take(bytes))
    }

    /// It is counted by somebody else from now on.
    pub(in crate::queue) fn give_back_room(&mut self) {
        self.room = None;
    }

    /// Its length so far.
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// SHA-256 of the body, once it is finished.
    pub const fn sha256(&self) -> [u8; 32] {
        self.sha256
    }

    /// Where it is, for whoever sends it before it is appended.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the record says of it.
    pub(super) fn stored(&self) -> StoredBody {
        StoredBody::File {
            name: self.name.clone(),
            bytes: self.bytes,
            checksum: self.checksum,
        }
    }

    /// A record names it now.
    pub(super) fn keep(&mut self) {
        debug_assert!(self.is_synced, "a record names what may not be on disk");
        self.is_kept = true;
    }
}

impl Drop for SpoolFile {
    fn drop(&mut self) {
        // In a panic nobody knows whether a record names it. If none does, the next start sweeps it.
        if !self.is_kept
            && !std::thread::panicking()
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, "Cannot remove a spool file; it is swept at the next start.");
        }
    }
}

impl std::fmt::Debug for Writing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writing").finish_non_exhaustive()
    }
}

impl BodyError {
    fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound => Self::Damaged,
            _ => Self::Io(error),
        }
    }
}

fn unfinished() -> io::Error {
    io::Error::other("the spool file is not finished, or failed")
}

fn finished() -> io::Error {
    io::Error::other("the spool file is finished, or failed")
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}
