//! Saving what can be read of a damaged database.
//!
//! Every record that is what was written is copied into a new database, which then takes the place of the damaged one; that is
//! set aside whole. First through redb, as far as it still finds its way ([`copy`]); then from every page of the file that
//! proves a record, whatever holds the pages together ([`scan`], [`merge`]); what is paused and how the clock was set from
//! wherever it is said ([`settings`]). A write of which only a part is left is made
//! again from it ([`complete`]).
//!
//! What is found on a page may be of some time ago: of a write that is there twice the newest is taken, but a newer one may be
//! lost. So a write that was found there, or made again, is shown to an operator and never sent by itself, not even one that may
//! be repeated: a PUT that was delivered long ago would undo the one that came after it. The same goes for all there is of a
//! database that is behind its marker.

mod complete;
mod copy;
mod merge;
mod scan;
mod settings;

use std::{collections::BTreeSet, fs, io};

use redb::TableDefinition;

use self::merge::Scanned;
use super::{
    super::item::ItemId,
    Inner,
    backing::{Backing, open_file},
    change::Pause,
    codec::Codec,
    damage::Damage,
    error::DiskError,
    marker::Noted,
    tables::{Counters, name},
    transaction::Sound,
};
use crate::{
    database::{Damaged, Handle},
    policy::Timestamp,
};

/// Rows read and written at a time.
const ROWS_MAX: usize = 1_024;

/// Bytes of them, but for the last one.
const ROWS_BYTES_MAX: usize = 8 * 1024 * 1024;

type Rows<const N: usize> = Vec<([u8; N], Vec<u8>)>;
type Definition<const N: usize> = TableDefinition<'static, &'static [u8; N], &'static [u8]>;

/// When the database is salvaged.
#[derive(Clone, Copy)]
pub(super) enum Occasion<'a> {
    /// At the start: nothing is known but what is on disk.
    Start,
    /// After it: what this process noted is exact, and its index has every write that had not ended. It is told of each that
    /// was made again.
    Running(&'a Inner),
}

/// A salvage that is under way.
struct Salvage<'a> {
    backing: &'a Backing,
    codec: Codec,
    damage: &'a Damage,
    source: Option<Damaged>,
    target: Handle,
    /// Writes of which there must be something to show.
    known: BTreeSet<ItemId>,
    /// Writes that another record names. Of one that came to its end, or whose receipt is gone, nothing needs to be shown.
    named: BTreeSet<ItemId>,
    /// Tables of which redb failed to read anything, or read what was not written.
    failed: BTreeSet<&'static str>,
    /// Whether there were commits after what redb reads.
    is_behind: bool,
    scanned: Scanned,
    /// What was paused, as redb reads it. `None`: it cannot.
    pauses: Option<Sound<Vec<Pause>>>,
    now: Timestamp,
}

/// Copies what can be read into a new database, and puts that in place.
///
/// A record is one that `codec` proves: nothing else in the file is trusted. `noted` is how far the database had come, and what
/// was paused, as far as is known.
pub(super) fn salvage(
    backing: &Backing,
    codec: Codec,
    noted: &Noted,
    occasion: Occasion<'_>,
    damage: &Damage,
    now: Timestamp,
) -> Result<(), DiskError> {
    tracing::error!("The queue's database is damaged; what can be read of it is saved.");
    match fs::remove_file(backing.new_file()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(DiskError::File(error));
        }
        _ => {}
    }
    let mut salvage = Salvage {
        backing,
        codec,
        damage,
        source: None,
        target: open_file(&backing.new_file())?,
        known: BTreeSet::new(),
        named: BTreeSet::new(),
        failed: BTreeSet::new(),
        is_behind: false,
        scanned: Scanned::default(),
        pauses: None,
        now,
    };
    salvage.run(noted, occasion)?;
    drop(salvage);
    backing.replace().map_err(DiskError::File)
}

impl Salvage<'_> {
    fn run(&mut self, noted: &Noted, occasion: Occasion<'_>) -> Result<(), DiskError> {
        if let Occasion::Running(inner) = occasion {
            // Also of what is lost without a trace there is then something to show.
            self.known.extend(inner.indexed());
        }
        let marked = noted.counters;
        let found = match self.read(|_| Ok(())) {
            Ok(()) => self.copy_all()?,
            Err(error) => {
                tracing::error!(%error, "Of the queue's database only single pages can be read.");
                None
            }
        };
        let revision = |counters: Option<Counters>| counters.map(|counters| counters.revision);
        self.is_behind = found.is_some() && revision(marked) > revision(found);
        let until = found.filter(|found| self.is_whole(found));
        self.scan(until)?;
        match (occasion, &noted.pauses) {
            (Occasion::Running(_), Sound::Is(pauses)) => {
                self.transact(|tables| tables.put_pauses(pauses))?;
            }
            (_, pauses) => self.restore_pauses(found, pauses)?,
        }
        self.restore_clock_steps(found)?;
        self.complete(occasion)?;
        let scanned = self.scanned.meta.as_ref().map(|meta| meta.counters);
        let before = [found, scanned, marked].into_iter().flatten();
        self.count(before.max_by_key(|counters| counters.revision))?;
        if self.damage.count() == 0 {
            // Every record is there. What held them together is not.
            self.damage.note_record(name::META, b"");
        }
        Ok(())
    }

    /// Whether what redb could read is all there was, when these were the running numbers.
    fn is_whole(&self, counters: &Counters) -> bool {
        let expected = counters.seq.saturating_sub(counters.removed);
        let found = self.transact(|tables| tables.count_writes());
        let is_all = |(items, unended, contents)| items == expected && contents == unended;
        let has_failed = [name::ITEMS, name::CONTENTS]
            .iter()
            .any(|table| self.failed.contains(table));
        !has_failed && found.is_ok_and(is_all)
    }
}
