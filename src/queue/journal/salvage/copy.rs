//! What redb still reads of a damaged database: each table from both ends up to where reading fails, and by the ids that other
//! tables name.

use std::{
    collections::BTreeSet,
    ops::Bound,
    panic::{AssertUnwindSafe, catch_unwind},
};

use redb::{Database, ReadableDatabase};

use super::{
    super::{
        change::Pause,
        codec::Codec,
        error::DiskError,
        tables::{
            ANSWERS, AUDIT, CONTENTS, Counters, ENDED, ITEMS, KEYS, KeyRow, META, meta, name,
            parse_ended_key,
        },
        transaction::{Sound, check_format, codec_row, read_meta},
    },
    Definition, ROWS_BYTES_MAX, ROWS_MAX, Rows, Salvage,
};
use crate::queue::item::ItemId;

impl Salvage<'_> {
    /// Copies everything that can be read; the running numbers, where they can.
    ///
    /// # Errors
    /// Where another version wrote it, and where the new database fails.
    pub(super) fn copy_all(&mut self) -> Result<Option<Counters>, DiskError> {
        let found = self.counters()?;
        let id = |key: &[u8; 16], _: &[u8]| Some(ItemId::from_bytes(*key));
        let codec = self.codec;
        let of_key = |key: &[u8; 32], row: &[u8]| {
            let row: Result<KeyRow, _> = codec.decode(name::KEYS, key, row);
            row.ok().map(|row| row.id)
        };
        let of_end = |key: &[u8; 24], _: &[u8]| Some(parse_ended_key(key).1);
        let contents = self.copy(CONTENTS, name::CONTENTS, id)?;
        let items = self.copy(ITEMS, name::ITEMS, id)?;
        let answers = self.copy(ANSWERS, name::ANSWERS, id)?;
        let ended = self.copy(ENDED, name::ENDED, of_end)?;
        let keys = self.copy(KEYS, name::KEYS, of_key)?;
        self.copy(AUDIT, name::AUDIT, |_, _| None)?;
        // Of what has not ended there is an answer only where it is parked or dead.
        self.known.extend(answers.difference(&ended));
        self.known.extend(contents.union(&items));
        if !self.failed.contains(name::ENDED) {
            // A key goes with its write. One of a page says nothing, but in the tree it is of a write that had not ended.
            self.known.extend(keys.difference(&ended));
        }
        self.named.extend(answers.iter().chain(&ended).chain(&keys));
        self.copy_named(CONTENTS, name::CONTENTS)?;
        self.copy_named(ITEMS, name::ITEMS)?;
        self.copy_named(ANSWERS, name::ANSWERS)?;
        self.copy_clock_steps()?;
        self.pauses = self.read_pauses();
        Ok(found)
    }

    /// The running numbers of the damaged database.
    ///
    /// # Errors
    /// Where another version wrote it: it is not for us to say that it is damaged.
    fn counters(&mut self) -> Result<Option<Counters>, DiskError> {
        let format = self.read(|source| {
            let transaction = source.begin_read()?;
            read_meta(
                &transaction.open_table(META)?,
                Codec::UNSEEDED,
                meta::FORMAT,
            )
        });
        if let Err(DiskError::Format(found)) = check_format(format.ok().flatten()) {
            return Err(DiskError::Format(found));
        }
        let codec = self.codec;
        let counters = self.read(|source| {
            let transaction = source.begin_read()?;
            read_meta(&transaction.open_table(META)?, codec, meta::COUNTERS)
        });
        Ok(counters.ok().flatten())
    }

    /// Copies a table from both ends, up to where reading fails; the writes that it names.
    fn copy<const N: usize>(
        &mut self,
        table: Definition<N>,
        name: &'static str,
        id_of: impl Fn(&[u8; N], &[u8]) -> Option<ItemId>,
    ) -> Result<BTreeSet<ItemId>, DiskError> {
        let mut named = BTreeSet::new();
        let (mut low, mut high): (Option<[u8; N]>, Option<[u8; N]>) = (None, None);
        for is_forward in [true, false] {
            let mut limit = ROWS_MAX;
            loop {
                let rows = self.read(|source| rows(source, table, (low, high), is_forward, limit));
                let rows = match rows {
                    Ok(rows) if rows.is_empty() => return Ok(named),
                    Ok(rows) => rows,
                    Err(_) if limit > 1 => {
                        limit = 1;
                        continue;
                    }
                    Err(_) => {
                        self.failed.insert(name);
                        break;
                    }
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
                    named.extend(id_of(key, row));
                }
                self.write(table, name, &rows)?;
            }
        }
        Ok(named)
    }

    /// Copies what other tables name and reading in order did not come to.
    fn copy_named(&mut self, table: Definition<16>, name: &'static str) -> Result<(), DiskError> {
        let named: Vec<_> = self.known.union(&self.named).copied().collect();
        for ids in named.chunks(ROWS_MAX) {
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
            if name != name::ANSWERS {
                let found = found.iter().map(|(id, _)| ItemId::from_bytes(*id));
                self.known.extend(found);
            }
            self.write(table, name, &found)?;
        }
        Ok(())
    }

    /// What was paused; `None` where not even that there is no record of it can be read.
    fn read_pauses(&mut self) -> Option<Sound<Vec<Pause>>> {
        let key = meta::PAUSES;
        let row = self.meta(key).ok()?;
        Some(codec_row(
            self.codec,
            self.damage,
            name::META,
            key.as_bytes(),
            row.as_deref(),
        ))
    }

    fn meta(&mut self, key: &'static str) -> Result<Option<Vec<u8>>, DiskError> {
        self.read(|source| {
            let transaction = source.begin_read()?;
            let row = transaction.open_table(META)?.get(key)?;
            Ok(row.map(|row| row.value().to_vec()))
        })
    }

    fn copy_clock_steps(&mut self) -> Result<(), DiskError> {
        let key = meta::CLOCK_STEPS;
        let Ok(Some(row)) = self.meta(key) else {
            return Ok(());
        };
        self.transact(|tables| {
            // As it is: whoever reads it finds out whether it is damaged.
            tables.meta.insert(key, row.as_slice())?;
            Ok(())
        })
    }

    /// Writes the rows that are what was written.
    fn write<const N: usize>(
        &mut self,
        table: Definition<N>,
        name: &'static str,
        rows: &Rows<N>,
    ) -> Result<(), DiskError> {
        let sound = |key: &[u8; N], row: &[u8]| self.codec.is_sound(name, key, row);
        let (sound, damaged): (Vec<_>, Vec<_>) =
            rows.iter().partition(|(key, row)| sound(key, row));
        for (key, _) in damaged {
            self.failed.insert(name);
            self.damage.note_record(name, key);
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

    /// Reads of the damaged database. It is opened anew after each failure: a panic may have left it locked.
    pub(super) fn read<T>(
        &mut self,
        read: impl FnOnce(&Database) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let source = match self.source.take() {
            Some(source) => source,
            None => self.backing.open_apart()?,
        };
        let result =
            catch_unwind(AssertUnwindSafe(|| read(&source))).unwrap_or(Err(DiskError::Panicked));
        if result.is_ok() {
            self.source = Some(source);
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
