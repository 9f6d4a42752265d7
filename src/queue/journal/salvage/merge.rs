//! What is proven on the pages of a damaged file, put together: of what is there twice, the newest.

use std::collections::{BTreeMap, BTreeSet};

use redb::{ReadableTable, Table};

use super::{
    super::{
        codec::Codec,
        disk::transact,
        error::DiskError,
        tables::{ContentRow, Counters, ItemRow, KeyRow, meta, name, parse_ended_key},
        transaction::Tables,
    },
    ROWS_BYTES_MAX, ROWS_MAX, Salvage,
    scan::{Leaf, each_leaf},
};
use crate::queue::item::ItemId;

/// What was found on the pages.
#[derive(Default)]
pub(super) struct Scanned {
    /// Writes whose record is from there.
    pub(super) items: BTreeSet<ItemId>,
    /// Writes whose content is.
    pub(super) contents: BTreeSet<ItemId>,
    /// Writes whose answer is.
    pub(super) answers: BTreeSet<ItemId>,
    /// Of these, those of which there are several.
    pub(super) disputed: BTreeSet<ItemId>,
    /// Writes that had come to their end when any of it was written.
    pub(super) ended: BTreeSet<ItemId>,
    /// The newest page of running numbers.
    pub(super) meta: Option<Meta>,
    /// What is on pages of that table without them: it may go over several.
    pub(super) loose: Vec<Settings>,
}

/// A page of the database's own table.
pub(super) struct Meta {
    pub(super) counters: Counters,
    pub(super) settings: Settings,
}

/// What is kept besides the running numbers, by its key.
pub(super) type Settings = BTreeMap<&'static str, Vec<u8>>;

/// Proven rows that are not put in yet.
#[derive(Default)]
struct Proven {
    rows: Vec<(&'static str, Vec<u8>, Vec<u8>)>,
    bytes: usize,
}

impl Salvage<'_> {
    /// Puts in what any page of the damaged file proves.
    ///
    /// `until` are the running numbers of the database where all of it could be read: only what is newer counts then.
    /// Otherwise what was lost cannot be told from what was removed, and everything counts that is not there yet.
    ///
    /// # Errors
    /// Where the new database fails.
    pub(super) fn scan(&mut self, until: Option<Counters>) -> Result<(), DiskError> {
        let file = match self.backing.pages() {
            Ok(file) => file,
            Err(error) => {
                tracing::error!(%error, "The pages of the damaged queue database cannot be read.");
                return Ok(());
            }
        };
        let (mut proven, mut records) = (Proven::default(), 0);
        let codec = self.codec;
        each_leaf(&file, codec, |leaf| {
            records += leaf.rows.len();
            self.scanned.note(leaf, codec);
            proven.extend(leaf);
            if proven.rows.len() >= ROWS_MAX || proven.bytes >= ROWS_BYTES_MAX {
                self.merge(std::mem::take(&mut proven), until)?;
            }
            Ok(())
        })?;
        self.merge(proven, until)?;
        let writes = self.scanned.items.len();
        tracing::warn!(
            records,
            writes,
            "The pages of the damaged queue database were searched for records."
        );
        Ok(())
    }

    fn merge(&mut self, proven: Proven, until: Option<Counters>) -> Result<(), DiskError> {
        let codec = self.codec;
        let (known, named, scanned) = (&mut self.known, &mut self.named, &mut self.scanned);
        let failed = &self.failed;
        let mut damaged = Vec::new();
        transact(&self.target, self.damage, codec, |tables| {
            for (table, key, row) in &proven.rows {
                let until = until.filter(|_| !failed.contains(table));
                let merged = merge_row(codec, tables, table, key, row, until)?;
                match merged {
                    Merged::Item(id) => {
                        scanned.items.insert(id);
                        known.insert(id);
                    }
                    Merged::Content(id) => {
                        scanned.contents.insert(id);
                        known.insert(id);
                    }
                    Merged::Key(id) => drop(named.insert(id)),
                    Merged::Answer(id) => drop(scanned.answers.insert(id)),
                    Merged::Disputed(id) => drop(scanned.disputed.insert(id)),
                    Merged::Other => {}
                    Merged::Unknown => damaged.push((*table, key)),
                }
            }
            Ok(())
        })?;
        for (table, key) in damaged {
            self.damage.note_record(table, key);
        }
        Ok(())
    }
}

impl Proven {
    fn extend(&mut self, leaf: &Leaf<'_>) {
        if leaf.table == name::META {
            return;
        }
        for (key, row) in &leaf.rows {
            self.bytes += row.len();
            self.rows.push((leaf.table, key.to_vec(), row.to_vec()));
        }
    }
}

impl Scanned {
    fn note(&mut self, leaf: &Leaf<'_>, codec: Codec) {
        match leaf.table {
            name::ENDED => {
                let keys = leaf.rows.iter();
                let keys = keys.filter_map(|(key, _)| <&[u8; 24]>::try_from(*key).ok());
                self.ended.extend(keys.map(|key| parse_ended_key(key).1));
            }
            name::META => self.note_meta(leaf, codec),
            _ => {}
        }
    }

    fn note_meta(&mut self, leaf: &Leaf<'_>, codec: Codec) {
        let row = |key: &str| {
            let found = leaf.rows.iter().find(|(found, _)| *found == key.as_bytes());
            found.map(|(_, row)| *row)
        };
        let settings = [meta::PAUSES, meta::CLOCK_STEPS].into_iter();
        let settings = settings.filter_map(|key| Some((key, row(key)?.to_vec())));
        let counters = row(meta::COUNTERS).and_then(|row| {
            codec
                .decode(name::META, meta::COUNTERS.as_bytes(), row)
                .ok()
        });
        let Some(counters): Option<Counters> = counters else {
            self.loose.push(settings.collect());
            return;
        };
        let newest = self.meta.as_ref().map(|meta| meta.counters.revision);
        if newest.is_some_and(|newest| newest >= counters.revision) {
            return;
        }
        self.meta = Some(Meta {
            counters,
            settings: settings.collect(),
        });
    }
}

/// What became of a proven record.
enum Merged {
    Item(ItemId),
    Content(ItemId),
    Key(ItemId),
    Answer(ItemId),
    /// There is another answer to it.
    Disputed(ItemId),
    /// Nothing more is to be done about it.
    Other,
    /// It is of a type that is not known.
    Unknown,
}

fn merge_row(
    codec: Codec,
    tables: &mut Tables<'_>,
    table: &'static str,
    key: &[u8],
    row: &[u8],
    until: Option<Counters>,
) -> Result<Merged, DiskError> {
    match table {
        name::ITEMS => {
            let rank = |row: &[u8]| item_rank(codec, key, row);
            let is_past = |rank: &(u64, bool)| until.is_some_and(|until| rank.0 <= until.revision);
            let put = put_newest(&mut tables.items, key, row, rank, is_past)?;
            Ok(put.merged(|key, _| Merged::Item(ItemId::from_bytes(*key))))
        }
        name::CONTENTS => {
            let rank = |row: &[u8]| content_rank(codec, key, row);
            let is_past = |rank: &u64| until.is_some_and(|until| *rank <= until.revision);
            let put = put_newest(&mut tables.contents, key, row, rank, is_past)?;
            Ok(put.merged(|key, _| Merged::Content(ItemId::from_bytes(*key))))
        }
        name::KEYS => {
            let rank = |row: &[u8]| key_rank(codec, key, row);
            let is_past = |id: &ItemId| until.is_some_and(|until| Some(*id) <= until.last_id);
            let put = put_newest(&mut tables.keys, key, row, rank, is_past)?;
            Ok(put.merged(|_, id| Merged::Key(id)))
        }
        name::ANSWERS => merge_answer(tables, key, row),
        name::ENDED => {
            let Some(key) = key.first_chunk() else {
                return Ok(Merged::Unknown);
            };
            if tables.ended.get(key)?.is_none() {
                // One without its write is removed when the queue is loaded.
                tables.ended.insert(key, row)?;
            }
            Ok(Merged::Other)
        }
        name::AUDIT => {
            let Some(key) = key.first_chunk() else {
                return Ok(Merged::Unknown);
            };
            let number = u64::from_be_bytes(*key);
            let is_past = until.is_some_and(|until| number <= until.audit);
            if !is_past && tables.audit.get(key)?.is_none() {
                tables.audit.insert(key, row)?;
            }
            Ok(Merged::Other)
        }
        _ => Ok(Merged::Other),
    }
}

/// A transaction that failed may have left its pages, and the next one has its number.
fn item_rank(codec: Codec, key: &[u8], row: &[u8]) -> Option<(u64, bool)> {
    let row: Result<ItemRow<'_>, _> = codec.decode(name::ITEMS, key, row);
    let row = row.ok()?;
    Some((row.revision, row.item.state.is_ended()))
}

fn content_rank(codec: Codec, key: &[u8], row: &[u8]) -> Option<u64> {
    let row: Result<ContentRow<'_>, _> = codec.decode(name::CONTENTS, key, row);
    row.ok().map(|row| row.revision)
}

/// Ids increase: of two writes that had the key, the later one has it.
fn key_rank(codec: Codec, key: &[u8], row: &[u8]) -> Option<ItemId> {
    let row: Result<KeyRow, _> = codec.decode(name::KEYS, key, row);
    row.ok().map(|row| row.id)
}

/// Puts the row in, unless its rank is past, or that of the one that is there is as high; its key and rank if it did.
fn put_newest<'k, const N: usize, R: PartialOrd>(
    table: &mut Table<'_, &'static [u8; N], &'static [u8]>,
    key: &'k [u8],
    row: &[u8],
    rank: impl Fn(&[u8]) -> Option<R>,
    is_past: impl Fn(&R) -> bool,
) -> Result<Put<'k, N, R>, DiskError> {
    let (Some(key), Some(found)) = (key.first_chunk(), rank(row)) else {
        return Ok(Put::Unknown);
    };
    let before = table.get(key)?;
    let before = before.and_then(|before| rank(before.value()));
    if is_past(&found) || before.is_some_and(|before| before >= found) {
        return Ok(Put::Not);
    }
    table.insert(key, row)?;
    Ok(Put::As(key, found))
}

/// What became of a row that may be there already.
enum Put<'k, const N: usize, R> {
    As(&'k [u8; N], R),
    Not,
    Unknown,
}

impl<const N: usize, R> Put<'_, N, R> {
    fn merged(self, merged: impl FnOnce(&[u8; N], R) -> Merged) -> Merged {
        match self {
            Self::As(key, rank) => merged(key, rank),
            Self::Not => Merged::Other,
            Self::Unknown => Merged::Unknown,
        }
    }
}

/// Nothing in an answer says which is the later one.
fn merge_answer(tables: &mut Tables<'_>, key: &[u8], row: &[u8]) -> Result<Merged, DiskError> {
    let Some(key) = key.first_chunk() else {
        return Ok(Merged::Unknown);
    };
    let id = ItemId::from_bytes(*key);
    let before = tables.answers.get(key)?.map(|before| before.value() == row);
    match before {
        None => {
            tables.answers.insert(key, row)?;
            Ok(Merged::Answer(id))
        }
        Some(true) => Ok(Merged::Other),
        Some(false) => Ok(Merged::Disputed(id)),
    }
}
