//! `queue.marker`: beside the database, how far it had come, and the seed of its records. It tells a queue that was lost, or
//! went back, from one that never was.
//!
//! | At | What |
//! |---|---|
//! | 0 | length u8, record of [`Counters`]: written after each commit and not synced |
//! | 128 | length u8, record of the database's [`Codec`]: written when it is made, and synced |
//!
//! `queue.pauses`: what is paused, as a record, so that it stays so where nothing of the database can be read. When it changes
//! the file is replaced as a whole, and synced: a write that is cut off leaves the one before.
//!
//! The running numbers survive the process, and after a loss of power they are at most behind, which says nothing. A database
//! that is behind its marker has lost commits.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use serde::{Serialize, de::DeserializeOwned};

use super::{
    change::Pause,
    codec::Codec,
    spool::sync_directory,
    tables::{Counters, meta},
    transaction::Sound,
};

const FILE: &str = "queue.marker";

const PAUSES_FILE: &str = "queue.pauses";

/// Where it grows.
const NEW_PAUSES_FILE: &str = "queue.pauses.new";

/// In place of a table's name.
const TABLE: &str = "marker";

/// Nobody else writes to the files, and one of them is where the seed is from.
const RECORDS: Codec = Codec::UNSEEDED;

/// The longest record of [`Counters`], with room: what is behind it in the file is of an earlier, longer one.
const COUNTERS_BYTES: usize = 128;

/// Where the seed is.
const SEED_AT: u64 = 128;

/// Of the seed, with room.
const SEED_BYTES: usize = 64;

/// More than all origins of a configuration, each with a reason: what is longer is damaged.
const PAUSES_MAX_BYTES: u64 = 64 * 1024 * 1024;

/// The open marker.
#[derive(Debug)]
pub(super) struct Marker {
    dir: PathBuf,
    file: File,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    noted: Noted,
    /// Whether the file says something else of the seed.
    is_seed_unsaved: bool,
    /// Whether the other says something else of the pauses.
    are_pauses_unsaved: bool,
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
            pauses: read_pauses(dir),
        };
        let marked = match is_there {
            false => Marked::Never,
            true => noted.counters.map_or(Marked::Once, Marked::Until),
        };
        let state = Mutex::new(State {
            noted,
            is_seed_unsaved: false,
            are_pauses_unsaved: false,
        });
        let marker = Self {
            dir: dir.to_owned(),
            file,
            state,
        };
        Ok((marker, marked))
    }

    /// Notes how far the database has come.
    pub(super) fn note(&self, counters: &Counters) -> io::Result<()> {
        let mut state = self.lock();
        state.noted.counters = Some(*counters);
        self.write_short::<COUNTERS_BYTES>(0, "", counters)
    }

    /// Notes what the database's records are made with. It is written by [`Marker::save`].
    pub(super) fn note_seed(&self, codec: Codec) {
        let mut state = self.lock();
        if state.noted.codec != Some(codec) {
            state.noted.codec = Some(codec);
            state.is_seed_unsaved = true;
        }
    }

    /// Notes what is paused. It is written by [`Marker::save`].
    pub(super) fn note_pauses(&self, pauses: &[Pause]) {
        let mut state = self.lock();
        if let Sound::Is(noted) = &state.noted.pauses
            && noted == pauses
        {
            return;
        }
        state.noted.pauses = Sound::Is(pauses.to_owned());
        state.are_pauses_unsaved = true;
    }

    /// Writes what is not written yet of the seed and the pauses, and syncs it. What fails is tried again the next time.
    pub(super) fn save(&self) -> io::Result<()> {
        let mut state = self.lock();
        let seed = self.save_seed(&mut state);
        seed.and(self.save_pauses(&mut state))
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

    fn save_seed(&self, state: &mut State) -> io::Result<()> {
        if state.is_seed_unsaved
            && let Some(codec) = &state.noted.codec
        {
            self.write_short::<SEED_BYTES>(SEED_AT, meta::SEED, codec)?;
            self.file.sync_data()?;
            state.is_seed_unsaved = false;
        }
        Ok(())
    }

    fn save_pauses(&self, state: &mut State) -> io::Result<()> {
        if state.are_pauses_unsaved
            && let Sound::Is(pauses) = &state.noted.pauses
        {
            let record = RECORDS.encode(TABLE, meta::PAUSES.as_bytes(), pauses);
            if record.len() as u64 > PAUSES_MAX_BYTES {
                return Err(io::Error::other("it is too long"));
            }
            let new = self.dir.join(NEW_PAUSES_FILE);
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&record)?;
            file.sync_all()?;
            fs::rename(new, self.dir.join(PAUSES_FILE))?;
            sync_directory(&self.dir)?;
            state.are_pauses_unsaved = false;
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

fn read_pauses(dir: &Path) -> Sound<Vec<Pause>> {
    let file = match File::open(dir.join(PAUSES_FILE)) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Sound::Missing,
        file => file,
    };
    let record = file.and_then(|file| {
        let mut record = Vec::new();
        file.take(PAUSES_MAX_BYTES).read_to_end(&mut record)?;
        Ok(record)
    });
    // One that was longer has lost its end, and with it its checksum.
    let pauses = record.ok().and_then(|record| {
        let decoded = RECORDS.decode(TABLE, meta::PAUSES.as_bytes(), &record);
        decoded.ok()
    });
    pauses.map_or(Sound::Damaged, Sound::Is)
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};

    use super::{
        Codec, Counters, Marked, Marker, NEW_PAUSES_FILE, PAUSES_FILE, PAUSES_MAX_BYTES, Pause,
        Sound,
    };
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
        marker.note_seed(codec);
        marker.note(&Counters::default()).unwrap();
        marker.note_pauses(&[]);
        marker.save().unwrap();
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
        let long = [pause(&"long".repeat(100)), pause("short")];
        for pauses in [&long[..], &long[1..], &[]] {
            marker.note_pauses(pauses);
            marker.save().unwrap();
            match noted() {
                Sound::Is(noted) => assert_eq!(noted, pauses),
                other => panic!("{other:?}"),
            }
        }
        let path = dir.path().join(PAUSES_FILE);
        let record = fs::read(&path).unwrap();
        for length in 0..record.len() {
            fs::write(&path, &record[..length]).unwrap();
            assert!(matches!(noted(), Sound::Damaged), "{length}");
        }
    }

    /// The only record of what was paused was written over where it stood.
    #[test]
    fn what_was_paused_is_not_lost_with_a_record_that_was_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let noted = || Marker::open(dir.path()).unwrap().0.noted().pauses;
        let pause = Pause {
            origin: None,
            since: Timestamp::from_secs(1_700_000_000),
            reason: None,
        };
        let (marker, _) = Marker::open(dir.path()).unwrap();
        marker.note_pauses(std::slice::from_ref(&pause));
        marker.save().unwrap();
        let new = dir.path().join(NEW_PAUSES_FILE);
        // The power was lost while the next one was written.
        fs::write(&new, [1, 0, 7]).unwrap();
        assert!(matches!(noted(), Sound::Is(noted) if noted == [pause.clone()]));
        fs::remove_file(&new).unwrap();
        fs::create_dir(&new).unwrap();
        marker.note_pauses(&[]);
        marker.save().unwrap_err();
        assert!(matches!(noted(), Sound::Is(noted) if noted == [pause.clone()]));
        fs::remove_dir(&new).unwrap();
        marker.save().unwrap();
        assert!(matches!(noted(), Sound::Is(noted) if noted.is_empty()));
        let too_long = Pause {
            reason: Some("x".repeat(usize::try_from(PAUSES_MAX_BYTES).unwrap())),
            ..pause
        };
        marker.note_pauses(&[too_long]);
        marker.save().unwrap_err();
        assert!(matches!(noted(), Sound::Is(noted) if noted.is_empty()));
    }

    /// Without the seed nothing comes back of a database that does not open.
    #[test]
    fn what_could_not_be_written_is_written_with_what_is_noted_next() {
        let dir = tempfile::tempdir().unwrap();
        let (mut marker, _) = Marker::open(dir.path()).unwrap();
        let read_only = File::open(dir.path().join(super::FILE)).unwrap();
        let writable = std::mem::replace(&mut marker.file, read_only);
        let codec = Codec::new();
        marker.note_seed(codec);
        marker.save().unwrap_err();
        marker.file = writable;
        marker.save().unwrap();
        let (marker, _) = Marker::open(dir.path()).unwrap();
        assert_eq!(marker.noted().codec, Some(codec));
    }
}
