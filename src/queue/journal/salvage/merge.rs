//! What is proven on the pages of a damaged file, put together: of what is there twice, the newest.

use std::collections::{BTreeMap, BTreeSet};

use redb::ReadableTable;

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

/// Rows that wait to be put in.
#[derive(Default)]
struct Waiting {
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
        let (mut waiting, mut records) = (Waiting::default(), 0);
        let codec = self.codec;
        each_leaf(&file, codec, |leaf| {
            records += leaf.rows.len();
            self.scanned.note(leaf, codec);
            waiting.extend(leaf);
            if waiting.rows.len() >= ROWS_MAX || waiting.bytes >= ROWS_BYTES_MAX {
                self.merge(std::mem::take(&mut waiting), until)?;
            }
            Ok(())
        })?;
        self.merge(waiting, until)?;
        let writes = self.scanned.items.len();
        tracing::warn!(
            records,
            writes,
            "The pages of the damaged queue database were searched for records."
        );
        Ok(())
    }

    fn merge(&mut self, waiting: Waiting, until: Option<Counters>) -> Result<(), DiskError> {
        let codec = self.codec;
        let (known, named, scanned) = (&mut self.known, &mut self.named, &mut self.scanned);
        let failed = &self.failed;
        let mut damaged = Vec::new();
        transact(&self.target, self.damage, codec, |tables| {
            for (table, key, row) in &waiting.rows {
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

impl Waiting {
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
        name::ITEMS => merge_item(codec, tables, key, row, until),
        name::CONTENTS => merge_content(codec, tables, key, row, until),
        name::KEYS => merge_key(codec, tables, key, row, until),
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

fn merge_item(
    codec: Codec,
    tables: &mut Tables<'_>,
    key: &[u8],
    row: &[u8],
    until: Option<Counters>,
) -> Result<Merged, DiskError> {
    // A transaction that failed may have left its pages, and the next one has its number.
    let rank = |row: &[u8]| {
        let row: Result<ItemRow<'_>, _> = codec.decode(name::ITEMS, key, row);
        row.ok()
            .map(|row| (row.revision, row.item.state.is_ended()))
    };
    let (Some(key), Some(found)) = (key.first_chunk(), rank(row)) else {
        return Ok(Merged::Unknown);
    };
    let before = tables.items.get(key)?;
    let before = before.and_then(|before| rank(before.value()));
    let is_past = until.is_some_and(|until| found.0 <= until.revision);
    if is_past || before.is_some_and(|before| before >= found) {
        return Ok(Merged::Other);
    }
    tables.items.insert(key, row)?;
    Ok(Merged::Item(ItemId::from_bytes(*key)))
}

fn merge_content(
    codec: Codec,
    tables: &mut Tables<'_>,
    key: &[u8],
    row: &[u8],
    until: Option<Counters>,
) -> Result<Merged, DiskError> {
    let revision = |row: &[u8]| {
        let row: Result<ContentRow<'_>, _> = codec.decode(name::CONTENTS, key, row);
        row.ok().map(|row| row.revision)
    };
    let (Some(key), Some(found)) = (key.first_chunk(), revision(row)) else {
        return Ok(Merged::Unknown);
    };
    let before = tables.contents.get(key)?;
    let before = before.and_then(|before| revision(before.value()));
    let is_past = until.is_some_and(|until| found <= until.revision);
    if is_past || before.is_some_and(|before| before >= found) {
        return Ok(Merged::Other);
    }
    tables.contents.insert(key, row)?;
    Ok(Merged::Content(ItemId::from_bytes(*key)))
}

/// Ids increase: of two writes that had the key, the later one has it.
fn merge_key(
    codec: Codec,
    tables: &mut Tables<'_>,
    key: &[u8],
    row: &[u8],
    until: Option<Counters>,
) -> Result<Merged, DiskError> {
    let (Some(key), Ok(found)) = (key.first_chunk(), codec.decode(name::KEYS, key, row)) else {
        return Ok(Merged::Unknown);
    };
    let KeyRow { id, .. } = found;
    let before = tables.keys.get(key)?;
    let before = before.and_then(|row| codec.decode(name::KEYS, key, row.value()).ok());
    let is_past = until.is_some_and(|until| Some(id) <= until.last_id);
    if is_past || before.is_some_and(|before: KeyRow| before.id >= id) {
        return Ok(Merged::Other);
    }
    tables.keys.insert(key, row)?;
    Ok(Merged::Key(id))
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
