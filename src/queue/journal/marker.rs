//! `queue.marker`: beside the database, how far it had come. It tells a queue that was lost, or went back, from one that never
//! was.
//!
//! Written after each commit and not synced: it survives the process, and after a loss of power it is at most behind, which
//! says nothing. A database that is behind its marker has lost commits.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use super::{codec, tables::Counters};

const FILE: &str = "queue.marker";

/// The longest record of [`Counters`], with room: what is behind it in the file is of an earlier, longer one.
const BYTES: usize = 128;

/// The open marker.
#[derive(Debug)]
pub(super) struct Marker {
    file: File,
    /// What was noted last, by this process or an earlier one; also where the file could not be written.
    noted: Mutex<Option<Counters>>,
}

/// What the marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Marked {
    /// There never was a queue here.
    Never,
    /// There was, and nothing more is known.
    Once,
    /// There was, and this is how far it had come.
    Until(Counters),
}

impl Marker {
    /// Opens the marker, or makes it; what it said.
    pub(super) fn open(dir: &Path) -> io::Result<(Self, Marked)> {
        let path = dir.join(FILE);
        let is_there = path.try_exists()?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path)?;
        let noted = read(&file);
        let marked = match is_there {
            false => Marked::Never,
            true => noted.map_or(Marked::Once, Marked::Until),
        };
        let noted = Mutex::new(noted);
        Ok((Self { file, noted }, marked))
    }

    /// Notes how far the database has come.
    pub(super) fn note(&self, counters: &Counters) -> io::Result<()> {
        *self.lock() = Some(*counters);
        let record = codec::encode("marker", b"", counters);
        let mut bytes = [0; BYTES];
        bytes[0] = u8::try_from(record.len()).unwrap_or_default();
        bytes[1..=record.len()].copy_from_slice(&record);
        self.file.write_all_at(&bytes, 0)
    }

    /// Makes what was noted durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// How far the database had come when that was noted last.
    pub(super) fn noted(&self) -> Option<Counters> {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Option<Counters>> {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(file: &File) -> Option<Counters> {
    let mut bytes = [0; BYTES];
    file.read_exact_at(&mut bytes, 0).ok()?;
    let record = bytes.get(1..=usize::from(bytes[0]))?;
    codec::decode("marker", b"", record).ok()
}

#[cfg(test)]
mod tests {
    use super::{Counters, Marked, Marker};

    #[test]
    fn a_marker_says_whether_there_was_a_queue_and_how_far_it_had_come() {
        let dir = tempfile::tempdir().unwrap();
        let (marker, marked) = Marker::open(dir.path()).unwrap();
        assert_eq!(marked, Marked::Never);
        let (_, marked) = Marker::open(dir.path()).unwrap();
        assert_eq!(marked, Marked::Once);
        let mut counters = Counters {
            revision: u64::MAX,
            seq: u64::MAX,
            last_id: Some(crate::queue::ItemId::from_bytes([255; 16])),
            audit: u64::MAX,
            removed: u64::MAX,
            answer_bytes: u64::MAX,
        };
        marker.note(&counters).unwrap();
        assert_eq!(Marker::open(dir.path()).unwrap().1, Marked::Until(counters));
        counters = Counters::default();
        marker.note(&counters).unwrap();
        assert_eq!(Marker::open(dir.path()).unwrap().1, Marked::Until(counters));
    }
}
