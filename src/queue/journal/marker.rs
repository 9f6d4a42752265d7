//! `queue.marker`: beside the database, how far it had come, the seed of its records, and what is paused. It tells a queue that was lost, or went back,
//! from one that never was; and what is held back stays so where nothing of the database can be read.
//!
//! | At | What |
//! |---|---|
//! | 0 | length u8, record of [`Counters`]: written after each commit and not synced |
//! | 128 | length u8, record of the database's [`Codec`]: written when it is made, and synced |
//! | 192 | length u32, record of the [`Pause`]s: written when they change, and synced |
//!
//! The running numbers survive the process, and after a loss of power they are at most behind, which says nothing. A database
//! that is behind its marker has lost commits.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    change::Pause,
    codec::Codec,
    tables::{Counters, meta},
    transaction::Sound,
};

const FILE: &str = "queue.marker";

/// In place of a table's name.
const TABLE: &str = "marker";

/// Nobody else writes to the file, and it is where the seed is from.
const RECORDS: Codec = Codec::UNSEEDED;

/// The longest record of [`Counters`], with room: what is behind it in the file is of an earlier, longer one.
const COUNTERS_BYTES: usize = 128;

/// Where the seed is.
const SEED_AT: u64 = 128;

/// Of the seed, with room.
const SEED_BYTES: usize = 64;

/// Where the pauses are.
const PAUSES_AT: u64 = 192;

/// Of the pauses' length.
const LENGTH_BYTES: usize = 4;

/// More than all origins of a configuration, each with a reason: what says that it is longer is damaged.
const PAUSES_MAX_BYTES: u32 = 64 * 1024 * 1024;

/// The open marker.
#[derive(Debug)]
pub(super) struct Marker {
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    noted: Noted,
    /// Whether the file says something else of the pauses.
    is_unsaved: bool,
}

/// What was noted last, by this process or an earlier one; also where the file could not be written.
#[derive(Clone, Debug)]
pub(super) struct Noted {
    pub(super) counters: Option<Counters>,
    pub(super) codec: Option<Codec>,
    pub(super) pauses: Sound<Vec<Pause>>,
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
        let noted = Noted {
            counters: read_short::<_, COUNTERS_BYTES>(&file, 0, ""),
            codec: read_short::<_, SEED_BYTES>(&file, SEED_AT, meta::SEED),
            pauses: read_pauses(&file),
        };
        let marked = match is_there {
            false => Marked::Never,
            true => noted.counters.map_or(Marked::Once, Marked::Until),
        };
        let state = Mutex::new(State {
            noted,
            is_unsaved: false,
        });
        Ok((Self { file, state }, marked))
    }

    /// Notes how far the database has come.
    pub(super) fn note(&self, counters: &Counters) -> io::Result<()> {
        let mut state = self.lock();
        state.noted.counters = Some(*counters);
        self.write_short::<COUNTERS_BYTES>(0, "", counters)?;
        self.save_pauses(&mut state)
    }

    /// Notes what the database's records are made with.
    pub(super) fn note_seed(&self, codec: Codec) -> io::Result<()> {
        if self.lock().noted.codec == Some(codec) {
            return Ok(());
        }
        self.write_short::<SEED_BYTES>(SEED_AT, meta::SEED, &codec)?;
        self.file.sync_data()?;
        self.lock().noted.codec = Some(codec);
        Ok(())
    }

    /// Notes what is paused. Where that cannot be written it is tried again when more is noted.
    pub(super) fn note_pauses(&self, pauses: &[Pause]) -> io::Result<()> {
        let mut state = self.lock();
        if let Sound::Is(noted) = &state.noted.pauses
            && noted == pauses
        {
            return Ok(());
        }
        state.noted.pauses = Sound::Is(pauses.to_owned());
        state.is_unsaved = true;
        self.save_pauses(&mut state)
    }

    /// What was noted last.
    pub(super) fn noted(&self) -> Noted {
        self.lock().noted.clone()
    }

    /// Makes what was noted durable.
    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }

    /// One write, so that no other is between its length and its record.
    fn write_short<const N: usize>(
        &self,
        at: u64,
        key: &str,
        value: &impl Serialize,
    ) -> io::Result<()> {
        let record = RECORDS.encode(TABLE, key.as_bytes(), value);
        let mut bytes = [0; N];
        bytes[0] = u8::try_from(record.len()).unwrap_or_default();
        bytes[1..=record.len()].copy_from_slice(&record);
        self.file.write_all_at(&bytes, at)
    }

    fn save_pauses(&self, state: &mut State) -> io::Result<()> {
        if state.is_unsaved
            && let Sound::Is(pauses) = &state.noted.pauses
        {
            let record = RECORDS.encode(TABLE, meta::PAUSES.as_bytes(), pauses);
            let length = u32::try_from(record.len()).map_err(io::Error::other)?;
            let bytes = [&length.to_le_bytes(), record.as_slice()].concat();
            self.file.write_all_at(&bytes, PAUSES_AT)?;
            self.file.sync_data()?;
            state.is_unsaved = false;
        }
        Ok(())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read_short<T: DeserializeOwned, const N: usize>(file: &File, at: u64, key: &str) -> Option<T> {
    let mut bytes = [0; N];
    file.read_exact_at(&mut bytes, at).ok()?;
    let record = bytes.get(1..=usize::from(bytes[0]))?;
    RECORDS.decode(TABLE, key.as_bytes(), record).ok()
}

fn read_pauses(file: &File) -> Sound<Vec<Pause>> {
    let mut length = [0; LENGTH_BYTES];
    if file.read_exact_at(&mut length, PAUSES_AT).is_err() {
        return Sound::Missing;
    }
    let length = u32::from_le_bytes(length);
    if length > PAUSES_MAX_BYTES {
        return Sound::Damaged;
    }
    let mut record = vec![0; length as usize];
    let read = file.read_exact_at(&mut record, PAUSES_AT + LENGTH_BYTES as u64);
    let pauses = read.ok().and_then(|()| {
        let decoded = RECORDS.decode(TABLE, meta::PAUSES.as_bytes(), &record);
        decoded.ok()
    });
    pauses.map_or(Sound::Damaged, Sound::Is)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::{Codec, Counters, Marked, Marker, PAUSES_AT, Pause, Sound};
    use crate::policy::Timestamp;

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
    #[test]
    fn a_marker_says_what_records_are_made_with() {
        let dir = tempfile::tempdir().unwrap();
        let (marker, _) = Marker::open(dir.path()).unwrap();
        assert_eq!(marker.noted().codec, None);
        let codec = Codec::new();
        marker.note_seed(codec).unwrap();
        marker.note(&Counters::default()).unwrap();
        marker.note_pauses(&[]).unwrap();
        let (marker, _) = Marker::open(dir.path()).unwrap();
        assert_eq!(marker.noted().codec, Some(codec));
    }

    #[test]
    fn a_marker_says_what_is_paused_or_that_it_cannot() {
        let dir = tempfile::tempdir().unwrap();
        let noted = || Marker::open(dir.path()).unwrap().0.noted().pauses;
        assert!(matches!(noted(), Sound::Missing));
        let pause = |reason: &str| Pause {
            origin: None,
            since: Timestamp::from_secs(1_700_000_000),
            reason: Some(reason.to_owned()),
        };
        let (marker, _) = Marker::open(dir.path()).unwrap();
        let long = vec![pause(&"long".repeat(100)), pause("short")];
        for pauses in [&long[..], &long[1..], &[]] {
            marker.note_pauses(pauses).unwrap();
            marker.note(&Counters::default()).unwrap();
            match noted() {
                Sound::Is(noted) => assert_eq!(noted, pauses),
                other => panic!("{other:?}"),
            }
        }
        marker.note_pauses(&long).unwrap();
        // The power was lost while they were written.
        marker.file.write_all_at(&[7; 9], PAUSES_AT + 20).unwrap();
        assert!(matches!(noted(), Sound::Damaged));
        marker.file.write_all_at(&[255; 4], PAUSES_AT).unwrap();
        assert!(matches!(noted(), Sound::Damaged));
    }
}
