//! Body files: `bodies/ab/<id>`, whole or absent.
//!
//! A body is written to a temporary name, synced and renamed before the record that names it is committed; the record
//! has a checksum for each block. What no record names (a crash between the two) is swept later, a directory at a time.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::store::resource::{BLOCK_BYTES, BodyFile};

/// Access to the body files of one data directory.
#[derive(Debug)]
pub(in crate::store) struct Bodies {
    root: PathBuf,
}

/// Why a block could not be read.
#[derive(Debug, thiserror::Error)]
pub(in crate::store) enum BlockError {
    /// Missing, too short, or not what was written.
    #[error("the body file is corrupt")]
    Corrupt,
    #[error("cannot read a body file")]
    Io(#[source] io::Error),
}

impl Bodies {
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            root: dir.join("bodies"),
        }
    }

    /// The block checksums that a file with this content would have.
    pub(super) fn checksums(body: &[u8]) -> Arc<[u64]> {
        body.chunks(BLOCK_BYTES).map(xxh3_64).collect()
    }

    /// Writes and syncs a new file. Its directory is still to be synced.
    pub(super) fn write(&self, body: &[u8], blocks: Arc<[u64]>) -> io::Result<BodyFile> {
        let id = self.unused_id();
        let path = self.path(id);
        let parent = path.parent().unwrap_or(&self.root);
        if !self.root.exists() {
            fs::DirBuilder::new().mode(0o700).create(&self.root)?;
            // Its own name must outlast a crash too.
            self.root.parent().map_or(Ok(()), sync_directory)?;
        }
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(parent)?;
        let temporary = path.with_extension("part");
        let written = write_synced(&temporary, body).and_then(|()| fs::rename(&temporary, &path));
        if let Err(error) = written {
            // What is left of it is swept at the next start.
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        Ok(BodyFile {
            id,
            len: body.len() as u64,
            blocks,
        })
    }

    /// Makes the names of these files durable.
    pub(super) fn sync_directories(&self, ids: impl Iterator<Item = u64>) -> io::Result<()> {
        let mut directories: Vec<PathBuf> = ids
            .filter_map(|id| self.path(id).parent().map(Path::to_owned))
            .collect();
        directories.sort();
        directories.dedup();
        directories
            .iter()
            .chain((!directories.is_empty()).then_some(&self.root))
            .try_for_each(|directory| sync_directory(directory))
    }

    /// Removes a file. One that is gone already is as good.
    pub(super) fn remove(&self, id: u64) {
        if let Err(error) = fs::remove_file(self.path(id))
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, "Cannot remove a body file; it is swept at the next start.");
        }
    }

    pub(in crate::store) fn open(&self, id: u64) -> Result<File, BlockError> {
        File::open(self.path(id)).map_err(BlockError::from_io)
    }

    /// Block `index` of an open file, verified.
    pub(in crate::store) fn read_block(
        file: &File,
        body: &BodyFile,
        index: usize,
    ) -> Result<Bytes, BlockError> {
        let expected = *body.blocks.get(index).ok_or(BlockError::Corrupt)?;
        let mut block = vec![0; body.block_len(index)];
        let offset = index as u64 * BLOCK_BYTES as u64;
        file.read_exact_at(&mut block, offset)
            .map_err(BlockError::from_io)?;
        if xxh3_64(&block) != expected {
            return Err(BlockError::Corrupt);
        }
        Ok(Bytes::from(block))
    }

    /// A whole body, verified.
    pub(super) fn read(&self, body: &BodyFile) -> Result<Bytes, BlockError> {
        let file = self.open(body.id)?;
        if body.blocks.len() == 1 {
            return Self::read_block(&file, body, 0);
        }
        let mut whole = Vec::with_capacity(usize::try_from(body.len).unwrap_or_default());
        for index in 0..body.blocks.len() {
            whole.extend_from_slice(&Self::read_block(&file, body, index)?);
        }
        Ok(Bytes::from(whole))
    }

    /// The directories that there are, for a sweep.
    pub(super) fn directories(&self) -> io::Result<Vec<PathBuf>> {
        let listing = match fs::read_dir(&self.root) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            listing => listing?,
        };
        listing.map(|entry| Ok(entry?.path())).collect()
    }

    /// Removes every file of one directory that `is_known` does not know. Only while nothing is being written.
    pub(super) fn sweep<E>(
        directory: &Path,
        mut is_known: impl FnMut(u64) -> Result<bool, E>,
    ) -> Result<u64, E> {
        let mut swept = 0;
        let files = fs::read_dir(directory).into_iter().flatten().flatten();
        for file in files {
            let name = file.file_name();
            let id = name.to_str().and_then(parse_name);
            let known = match id {
                Some(id) => is_known(id)?,
                None => false,
            };
            if !known && fs::remove_file(file.path()).is_ok() {
                swept += 1;
            }
        }
        Ok(swept)
    }

    fn path(&self, id: u64) -> PathBuf {
        self.root
            .join(format!("{:02x}", id >> 56))
            .join(format!("{id:016x}"))
    }

    fn unused_id(&self) -> u64 {
        loop {
            let id = fastrand::u64(1..);
            if !self.path(id).exists() {
                return id;
            }
        }
    }
}

impl BlockError {
    fn from_io(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof => Self::Corrupt,
            _ => Self::Io(error),
        }
    }
}

/// Makes the names in a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

fn write_synced(path: &Path, body: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(body)?;
    file.sync_all()
}

fn parse_name(name: &str) -> Option<u64> {
    (name.len() == 16)
        .then(|| u64::from_str_radix(name, 16).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use std::{convert::Infallible, fs, os::unix::fs::PermissionsExt};

    use super::{BlockError, Bodies};
    use crate::store::resource::BLOCK_BYTES;

    fn body(len: usize) -> Vec<u8> {
        (0..len).map(|at| (at % 251) as u8).collect()
    }

    #[test]
    fn a_body_file_gives_back_what_was_written() {
        let dir = tempfile::tempdir().unwrap();
        let bodies = Bodies::new(dir.path());
        for len in [
            1,
            BLOCK_BYTES - 1,
            BLOCK_BYTES,
            BLOCK_BYTES + 1,
            3 * BLOCK_BYTES + 7,
        ] {
            let body = body(len);
            let file = bodies.write(&body, Bodies::checksums(&body)).unwrap();
            assert_eq!(file.len, len as u64);
            assert_eq!(bodies.read(&file).unwrap(), body);
            let mode = fs::metadata(bodies.path(file.id))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn a_flipped_byte_a_cut_and_a_missing_file_are_corrupt() {
        let dir = tempfile::tempdir().unwrap();
        let bodies = Bodies::new(dir.path());
        let body = body(BLOCK_BYTES + 100);
        let file = bodies.write(&body, Bodies::checksums(&body)).unwrap();
        let path = bodies.path(file.id);

        let mut flipped = body.clone();
        flipped[BLOCK_BYTES + 50] ^= 1;
        fs::write(&path, &flipped).unwrap();
        let open = bodies.open(file.id).unwrap();
        assert!(Bodies::read_block(&open, &file, 0).is_ok());
        assert!(matches!(
            Bodies::read_block(&open, &file, 1),
            Err(BlockError::Corrupt)
        ));

        fs::write(&path, &body[..BLOCK_BYTES + 99]).unwrap();
        assert!(matches!(bodies.read(&file), Err(BlockError::Corrupt)));
        fs::remove_file(&path).unwrap();
        assert!(matches!(bodies.read(&file), Err(BlockError::Corrupt)));
        bodies.remove(file.id);
    }

    #[test]
    fn a_sweep_removes_what_no_record_names() {
        let dir = tempfile::tempdir().unwrap();
        let bodies = Bodies::new(dir.path());
        let kept = bodies.write(b"kept", Bodies::checksums(b"kept")).unwrap();
        let orphan = bodies
            .write(b"orphan", Bodies::checksums(b"orphan"))
            .unwrap();
        fs::write(bodies.path(kept.id).with_extension("part"), "half").unwrap();
        let mut swept = 0;
        for directory in bodies.directories().unwrap() {
            swept += Bodies::sweep::<Infallible>(&directory, |id| Ok(id == kept.id)).unwrap();
        }
        assert_eq!(swept, 2);
        assert!(bodies.read(&kept).is_ok());
        assert!(bodies.open(orphan.id).is_err());
    }
}
