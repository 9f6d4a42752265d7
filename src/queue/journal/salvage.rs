//! Saving what can be read of a damaged database.
//!
//! Every record that is what was written is copied into a new database, which then takes the place of the damaged one; that is
//! set aside whole. A table is read from both ends up to where reading fails, and by the ids that other tables name. A write of
//! which only a part is left is made again from it ([`rebuild`]): it is shown to an operator, never sent by itself.

use std::{
    collections::BTreeSet,
    fs, io,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{
    super::item::{Item, ItemId},
    backing::{Backing, open_file},
    codec,
    damage::Damage,
    disk::transact,
    error::DiskError,
    rebuild,
    tables::{
        ANSWERS, AUDIT, CONTENTS, Counters, ENDED, ITEMS, ItemRow, KEYS, KeyRow, META, meta, name,
        parse_ended_key,
    },
    transaction::{Sound, Tables, check_format, read_meta},
};
use crate::policy::Timestamp;

/// Rows read and written at a time.
const ROWS_MAX: usize = 1_024;

/// Bytes of them, but for the last one.
const ROWS_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What was saved.
#[derive(Debug, Default)]
pub(super) struct Salvaged {
    /// Writes whose records were lost in part, as they are now.
    pub(super) rebuilt: Vec<Item>,
}

type Rows<const N: usize> = Vec<([u8; N], Vec<u8>)>;
type Definition<const N: usize> = TableDefinition<'static, &'static [u8; N], &'static [u8]>;

/// A salvage that is under way.
struct Salvage<'a> {
    backing: &'a Backing,
    damage: &'a Damage,
    source: Option<Database>,
    target: Database,
    /// Every id that any record names.
    known: BTreeSet<ItemId>,
    /// The writes that have a record of their own.
    items: BTreeSet<ItemId>,
    now: Timestamp,
}

/// Copies what can be read into a new database, and puts that in place.
///
/// `marked` is how far the database had come, as far as is known.
pub(super) fn salvage(
    backing: &Backing,
    marked: Option<Counters>,
    damage: &Damage,
    now: Timestamp,
) -> Result<Salvaged, DiskError> {
    tracing::error!("The queue's database is damaged; what can be read of it is saved.");
    match fs::remove_file(backing.new_file()) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(DiskError::File(error));
        }
        _ => {}
    }
    let mut salvage = Salvage {
        backing,
        damage,
        source: None,
        target: open_file(&backing.new_file())?,
        known: BTreeSet::new(),
        items: BTreeSet::new(),
        now,
    };
    let salvaged = salvage.run(marked)?;
    drop(salvage);
    backing.replace().map_err(DiskError::File)?;
    Ok(salvaged)
}

impl Salvage<'_> {
    fn run(&mut self, marked: Option<Counters>) -> Result<Salvaged, DiskError> {
        let found = self.counters()?;
        let id = |key: &[u8; 16], _: &[u8]| Some(ItemId::from_bytes(*key));
        let of_key = |key: &[u8; 32], row: &[u8]| {
            let row: Result<KeyRow, _> = codec::decode(name::KEYS, key, row);
            row.ok().map(|row| row.id)
        };
        let of_end = |key: &[u8; 24], _: &[u8]| Some(parse_ended_key(key).1);
        self.copy(CONTENTS, name::CONTENTS, id)?;
        self.copy(KEYS, name::KEYS, of_key)?;
        self.copy(ANSWERS, name::ANSWERS, id)?;
        self.copy(ENDED, name::ENDED, of_end)?;
        self.copy(AUDIT, name::AUDIT, |_, _| None)?;
        self.copy(ITEMS, name::ITEMS, id)?;
        self.copy_known(CONTENTS, name::CONTENTS)?;
        self.copy_known(ITEMS, name::ITEMS)?;
        self.copy_known(ANSWERS, name::ANSWERS)?;
        self.copy_meta(meta::PAUSES)?;
        self.copy_meta(meta::CLOCK_STEPS)?;
        let rebuilt = self.complete()?;
        self.count(found, marked)?;
        Ok(Salvaged { rebuilt })
    }

    /// The running numbers of the damaged database.
    ///
    /// # Errors
    /// Where a newer version wrote it: it is not for us to say that it is damaged.
    fn counters(&mut self) -> Result<Option<Counters>, DiskError> {
        let format = self.read(|source| {
            let transaction = source.begin_read()?;
            read_meta(&transaction.open_table(META)?, meta::FORMAT)
        });
        if let Err(DiskError::Format(found)) = check_format(format.ok().flatten()) {
            return Err(DiskError::Format(found));
        }
        let counters = self.read(|source| {
            let transaction = source.begin_read()?;
            read_meta(&transaction.open_table(META)?, meta::COUNTERS)
        });
        Ok(counters.ok().flatten())
    }

    /// Copies a table from both ends, up to where reading fails.
    fn copy<const N: usize>(
        &mut self,
        table: Definition<N>,
        name: &'static str,
        id_of: impl Fn(&[u8; N], &[u8]) -> Option<ItemId>,
    ) -> Result<(), DiskError> {
        let (mut low, mut high): (Option<[u8; N]>, Option<[u8; N]>) = (None, None);
        for is_forward in [true, false] {
            let mut limit = ROWS_MAX;
            loop {
                let rows = self.read(|source| rows(source, table, (low, high), is_forward, limit));
                let rows = match rows {
                    Ok(rows) if rows.is_empty() => return Ok(()),
                    Ok(rows) => rows,
                    Err(_) if limit > 1 => {
                        limit = 1;
                        continue;
                    }
                    Err(_) => break,
                };
                let last = rows.last().map(|(key, _)| *key);
                match is_forward {
                    // A damaged table may go round in circles.
                    true if last <= low => break,
                    true => low = last,
                    false if high.is_some_and(|high| last >= Some(high)) => break,
                    false => high = last,
                }
                for (key, row) in &rows {
                    self.known.extend(id_of(key, row));
                }
                self.write(table, name, &rows)?;
            }
        }
        Ok(())
    }

    /// Copies what other tables name and reading in order did not come to.
    fn copy_known(&mut self, table: Definition<16>, name: &'static str) -> Result<(), DiskError> {
        let known: Vec<_> = self.known.iter().copied().collect();
        for ids in known.chunks(ROWS_MAX) {
            let mut found = Rows::new();
            for id in ids {
                if self.has(table, *id)? {
                    continue;
                }
                let row = self.read(|source| {
                    let transaction = source.begin_read()?;
                    let row = transaction.open_table(table)?.get(id.as_bytes())?;
                    Ok(row.map(|row| row.value().to_vec()))
                });
                found.extend(row.ok().flatten().map(|row| (*id.as_bytes(), row)));
            }
            self.write(table, name, &found)?;
        }
        Ok(())
    }

    fn copy_meta(&mut self, key: &'static str) -> Result<(), DiskError> {
        let row = self.read(|source| {
            let transaction = source.begin_read()?;
            let row = transaction.open_table(META)?.get(key)?;
            Ok(row.map(|row| row.value().to_vec()))
        });
        let Ok(Some(row)) = row else {
            return Ok(());
        };
        self.transact(|tables| {
            // As it is: whoever reads it finds out whether it is damaged.
            tables.meta.insert(key, row.as_slice())?;
            Ok(())
        })
    }

    /// Makes again what is left in part: of each write there is then an item, and a content until it has ended.
    fn complete(&mut self) -> Result<Vec<Item>, DiskError> {
        let known: Vec<_> = self.known.iter().copied().collect();
        let mut rebuilt = Vec::new();
        for ids in known.chunks(ROWS_MAX) {
            let now = self.now;
            let items = &self.items;
            let (made, _) = transact(&self.target, self.damage, |tables| {
                let mut made = Vec::new();
                for id in ids {
                    made.extend(complete_one(tables, *id, items.contains(id), now)?);
                }
                Ok(made)
            })?;
            rebuilt.extend(made);
        }
        for item in &rebuilt {
            self.damage.note_record(name::ITEMS, item.id.as_bytes());
        }
        Ok(rebuilt)
    }

    /// Goes on with the running numbers, and says what is lost.
    fn count(
        &mut self,
        found: Option<Counters>,
        marked: Option<Counters>,
    ) -> Result<(), DiskError> {
        let before = [found, marked].into_iter().flatten();
        let before = before.max_by_key(|counters| counters.revision);
        let last_id = self.known.last().copied();
        let kept = self.transact(|tables| {
            let kept = redb::ReadableTableMetadata::len(&tables.items)?;
            let counters = &mut tables.counters;
            let from = before.unwrap_or_default();
            counters.revision = counters.revision.max(from.revision.saturating_add(1));
            counters.seq = counters.seq.max(from.seq).max(kept);
            counters.last_id = last_id.max(from.last_id);
            counters.audit = counters.audit.max(from.audit);
            counters.answer_bytes = from.answer_bytes;
            counters.removed = counters.seq - kept;
            Ok(kept)
        })?;
        let expected = before.map(|counters| counters.seq.saturating_sub(counters.removed));
        match expected {
            Some(expected) if expected > kept => {
                self.damage
                    .note_lost(expected - kept, "nothing of them can be read");
            }
            Some(_) => {}
            // The marker is lost too.
            None => self.damage.note_lost(1, "how many there were is not known"),
        }
        Ok(())
    }

    /// Writes the rows that are what was written.
    fn write<const N: usize>(
        &mut self,
        table: Definition<N>,
        name: &'static str,
        rows: &Rows<N>,
    ) -> Result<(), DiskError> {
        let is_items = name == name::ITEMS;
        let sound = |key: &[u8; N], row: &[u8]| codec::is_sound(name, key, row);
        let (sound, damaged): (Vec<_>, Vec<_>) =
            rows.iter().partition(|(key, row)| sound(key, row));
        for (key, _) in damaged {
            self.damage.note_record(name, key);
        }
        if is_items {
            let ids = sound
                .iter()
                .filter_map(|(key, _)| <[u8; 16]>::try_from(&key[..]).ok());
            self.items.extend(ids.map(ItemId::from_bytes));
        }
        let mut transaction = self.target.begin_write()?;
        transaction.set_two_phase_commit(true);
        transaction.set_quick_repair(true);
        {
            let mut table = transaction.open_table(table)?;
            for (key, row) in sound {
                table.insert(key, row.as_slice())?;
            }
        }
        transaction.commit()?;
        Ok(())
    }

    fn has(&self, table: Definition<16>, id: ItemId) -> Result<bool, DiskError> {
        let transaction = self.target.begin_read()?;
        match transaction.open_table(table) {
            Ok(table) => Ok(table.get(id.as_bytes())?.is_some()),
            Err(redb::TableError::TableDoesNotExist(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn transact<T>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        transact(&self.target, self.damage, work).map(|(result, _)| result)
    }

    /// Reads of the damaged database. It is opened anew after each failure: a panic may have left it locked.
    fn read<T>(
        &mut self,
        read: impl FnOnce(&Database) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let source = match self.source.take() {
            Some(source) => source,
            None => self.backing.open()?,
        };
        let result =
            catch_unwind(AssertUnwindSafe(|| read(&source))).unwrap_or(Err(DiskError::Panicked));
        match &result {
            Ok(_) => self.source = Some(source),
            Err(_) => {
                let _ = catch_unwind(AssertUnwindSafe(|| drop(source)));
            }
        }
        result
    }
}

/// The next rows between `low` and `high`, from one end.
fn rows<const N: usize>(
    source: &Database,
    table: Definition<N>,
    (low, high): (Option<[u8; N]>, Option<[u8; N]>),
    is_forward: bool,
    limit: usize,
) -> Result<Rows<N>, DiskError> {
    let transaction = source.begin_read()?;
    let table = match transaction.open_table(table) {
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(Vec::new()),
        table => table?,
    };
    if low.is_some() && high.is_some() && low >= high {
        return Ok(Vec::new());
    }
    let low = low.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let high = high.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
    let mut range = table.range::<&[u8; N]>((low, high))?;
    let (mut rows, mut bytes) = (Vec::new(), 0);
    while rows.len() < limit && bytes < ROWS_BYTES_MAX {
        let row = if is_forward {
            range.next()
        } else {
            range.next_back()
        };
        let Some(row) = row.transpose()? else {
            break;
        };
        let value = row.1.value().to_vec();
        bytes += value.len();
        rows.push((*row.0.value(), value));
    }
    Ok(rows)
}

/// Sees to it that a write has its records; what it is now, if one was lost.
fn complete_one(
    tables: &mut Tables<'_>,
    id: ItemId,
    has_item: bool,
    now: Timestamp,
) -> Result<Option<Item>, DiskError> {
    let content = tables.content(id)?;
    let item = match (has_item, &content) {
        (true, _) => {
            let row = tables.items.get(id.as_bytes())?;
            let row = row.map(|row| codec::decode(name::ITEMS, id.as_bytes(), row.value()));
            let item = row
                .and_then(Result::ok)
                .map(|row: ItemRow<'_>| row.item.into_owned());
            match (item, &content) {
                (Some(item), _) if item.state.is_ended() => {
                    tables.contents.remove(id.as_bytes())?;
                    return Ok(None);
                }
                (Some(_), Sound::Is(_)) => return Ok(None),
                (Some(item), _) => rebuild::without_content(item),
                (None, _) => rebuild::placeholder(id),
            }
        }
        (false, Sound::Is(row)) => rebuild::from_content(row.accepted.clone().into_owned()),
        (false, _) => rebuild::placeholder(id),
    };
    if !matches!(content, Sound::Is(_)) {
        tables.put_content(&item, &rebuild::lost_content(), None)?;
    }
    tables.put_item(&item, now)?;
    let counters = &mut tables.counters;
    counters.seq = counters.seq.max(item.seq);
    Ok(Some(item))
}
