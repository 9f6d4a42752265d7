//! One write transaction: every table open, the totals kept, the rows of a stored response changed together.

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};

use super::{
    Disk, DiskError, Usage,
    tables::{
        BODIES, RECENCY, RECORDS, STATE, State, TAGS, URIS, USAGE, recency_id, recency_row,
        tag_row, uri_row,
    },
};
use crate::{
    database::Guarded,
    policy::{CacheKey, Mark, StoredHead},
    store::{
        codec,
        id::{KeyId, RecordId},
        labels::{Label, labels_of},
        resource::{VARIANTS_MAX, stronger},
    },
};

/// What the rows of a stored response take in the tables besides its record and the URI: usage, recency and names, with
/// their share of pages that are not full (measured: 270 MB for 100,000 records of 1.4 KB).
const ROWS_BYTES: u64 = 512;

/// The block size of common filesystems, which a file's size is rounded up to.
const FILE_BLOCK_BYTES: u64 = 4_096;

/// The size of redb's pages. A record beyond half of it gets pages of its own, a power of two of them.
const PAGE_BYTES: u64 = 4_096;

/// The open tables of a write transaction.
pub(super) struct Tables<'t> {
    pub(super) records: Guarded<Table<'t, &'static [u8; 24], &'static [u8]>>,
    pub(super) usage: Guarded<Table<'t, &'static [u8; 24], &'static [u8; 57]>>,
    recency: Guarded<Table<'t, &'static [u8; 32], ()>>,
    pub(super) uris: Guarded<Table<'t, &'static [u8], ()>>,
    pub(super) tags: Guarded<Table<'t, &'static [u8], ()>>,
    bodies: Guarded<Table<'t, u64, &'static [u8; 24]>>,
    pub(super) state: State,
}

/// A stored response that was removed.
#[derive(Clone, Debug)]
pub(in crate::store) struct Gone {
    /// Its key, unless its record is too corrupt to say.
    pub(in crate::store) key: Option<CacheKey>,
    /// Its body file, to be removed after the commit.
    pub(in crate::store) body_file: Option<u64>,
}

/// What is written of one stored response.
pub(super) struct NewRecord<'a> {
    pub(super) id: RecordId,
    pub(super) key: &'a CacheKey,
    pub(super) head: &'a StoredHead,
    pub(super) record: &'a [u8],
    pub(super) body_bytes: u64,
    pub(super) body_file: Option<u64>,
    pub(super) hits: u64,
}

impl Disk {
    /// Runs `work` in one durable transaction. After a failure the database is opened again and `work` runs once more.
    pub(super) fn transact<T>(
        &self,
        mut work: impl FnMut(&mut Tables<'_>) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let result = match self.try_transact(&mut work) {
            Err(error) if self.recover(&error) => self.try_transact(&mut work),
            result => result,
        };
        self.set_failed(result.is_err());
        result
    }

    fn try_transact<T>(
        &self,
        work: &mut impl FnMut(&mut Tables<'_>) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        self.with_database(|database| {
            let mut transaction = Guarded::from(database.database().begin_write()?);
            // Opening after a crash takes 0.6 ms with it, 2.5 s a gigabyte without.
            transaction.set_quick_repair(true);
            let (result, entries, state) = {
                let mut tables = Tables::open(&transaction)?;
                let result = work(&mut tables)?;
                tables.save_state(&transaction)?;
                (result, tables.records.len()?, tables.state)
            };
            transaction.into_inner().commit()?;
            database.advance();
            self.set_totals(entries, state);
            Ok(result)
        })
    }
}

impl<'t> Tables<'t> {
    fn open(transaction: &'t WriteTransaction) -> Result<Self, DiskError> {
        let mut state = transaction
            .open_table(STATE)?
            .get(())?
            .and_then(|row| State::decode(row.value()))
            .ok_or_else(|| redb::StorageError::Corrupted("the state is lost".to_owned()))?;
        state.turn += 1;
        Ok(Self {
            records: transaction.open_table(RECORDS)?.into(),
            usage: transaction.open_table(USAGE)?.into(),
            recency: transaction.open_table(RECENCY)?.into(),
            uris: transaction.open_table(URIS)?.into(),
            tags: transaction.open_table(TAGS)?.into(),
            bodies: transaction.open_table(BODIES)?.into(),
            state,
        })
    }

    fn save_state(&self, transaction: &WriteTransaction) -> Result<(), DiskError> {
        transaction
            .open_table(STATE)?
            .insert((), &self.state.encode())?;
        Ok(())
    }

    pub(super) fn usage_of(&self, id: RecordId) -> Result<Option<Usage>, DiskError> {
        let row = self.usage.get(&id.0)?;
        Ok(row.and_then(|row| Usage::decode(id, row.value())))
    }

    pub(super) fn has_sound_record(&self, id: RecordId) -> Result<bool, DiskError> {
        let record = self.records.get(&id.0)?;
        Ok(record.is_some_and(|bytes| codec::decode(id, bytes.value()).is_ok()))
    }

    /// The names of the variants of a key, and their usage.
    pub(super) fn variants(&self, key: KeyId) -> Result<Vec<(RecordId, Option<Usage>)>, DiskError> {
        let (low, high) = key.bounds();
        self.usage
            .range::<&[u8; 24]>(&low..=&high)?
            .map(|row| {
                let (id, usage) = row?;
                let id = RecordId(*id.value());
                Ok((id, Usage::decode(id, usage.value())))
            })
            .collect()
    }

    /// Writes a record in place of the one of the same name; what that leaves behind is returned.
    pub(super) fn put(&mut self, new: &NewRecord<'_>) -> Result<Option<Gone>, DiskError> {
        let replaced = self.remove(new.id)?;
        let row = uri_row(new.key, new.id);
        let tags: Vec<_> = tag_rows(new.id, &labels_of(new.key, Some(&new.head.terms))).collect();
        let usage = Usage {
            turn: self.state.turn,
            hits: new.hits,
            stored_at: new.head.response_time.as_millis(),
            cost: cost(
                new.record.len(),
                std::iter::once(&row).chain(&tags).map(Vec::len),
                new.body_file.map(|_| new.body_bytes),
            ),
            body_bytes: new.body_bytes,
            body_file: new.body_file.unwrap_or_default(),
            mark: new.head.mark,
        };
        self.records.insert(&new.id.0, new.record)?;
        self.put_usage(new.id, &usage)?;
        self.uris.insert(row.as_slice(), ())?;
        for tag in tags {
            self.tags.insert(tag.as_slice(), ())?;
        }
        if let Some(file) = new.body_file {
            self.bodies.insert(file, &new.id.0)?;
        }
        self.state.bytes = self.state.bytes.saturating_add(usage.cost);
        // The file lives on under the new record where that names it too.
        Ok(replaced.filter(|gone| gone.body_file != new.body_file))
    }

    /// Marks a stored response; its record stays as it is.
    pub(super) fn mark(&mut self, id: RecordId, mark: Mark) -> Result<(), DiskError> {
        let Some(mut usage) = self.usage_of(id)? else {
            return Ok(());
        };
        usage.mark = stronger(usage.mark, mark);
        self.usage.insert(&id.0, &usage.encode(id))?;
        Ok(())
    }

    /// Notes that a stored response was used.
    pub(super) fn touch(&mut self, id: RecordId, hits: u64) -> Result<(), DiskError> {
        let Some(mut row) = self.usage.get_mut(&id.0)? else {
            return Ok(());
        };
        let Some(mut usage) = Usage::decode(id, row.value()) else {
            return Ok(());
        };
        let last_turn = std::mem::replace(&mut usage.turn, self.state.turn);
        usage.hits = usage.hits.max(hits);
        row.insert(&usage.encode(id))?;
        drop(row);
        self.recency.remove(&recency_row(last_turn, id))?;
        self.recency.insert(&recency_row(usage.turn, id), ())?;
        Ok(())
    }

    /// Removes every row of a stored response. `None`: there was none.
    pub(super) fn remove(&mut self, id: RecordId) -> Result<Option<Gone>, DiskError> {
        let usage = self.usage_of(id)?;
        self.usage.remove(&id.0)?;
        let filed = self
            .records
            .remove(&id.0)?
            .map(|bytes| codec::filed(bytes.value()));
        if usage.is_none() && filed.is_none() {
            return Ok(None);
        }
        let key = match filed.flatten() {
            Some((key, terms)) => {
                self.uris.remove(uri_row(&key, id).as_slice())?;
                // Rows that a record too corrupt to name leaves behind select what is stored under its name later.
                for tag in tag_rows(id, &labels_of(&key, Some(&terms))) {
                    self.tags.remove(tag.as_slice())?;
                }
                Some(key)
            }
            None => None,
        };
        let mut body_file = None;
        if let Some(usage) = usage {
            self.recency.remove(&recency_row(usage.turn, id))?;
            self.state.bytes = self.state.bytes.saturating_sub(usage.cost);
            body_file = Some(usage.body_file).filter(|file| *file != 0);
        }
        if let Some(file) = body_file {
            self.bodies.remove(file)?;
        }
        Ok(Some(Gone { key, body_file }))
    }

    /// Removes what was used longest ago until the tier is within `budget`.
    pub(super) fn evict(&mut self, budget: u64) -> Result<Vec<Gone>, DiskError> {
        let mut gone = Vec::new();
        while self.state.bytes > budget {
            let Some(id) = self
                .recency
                .pop_first()?
                .map(|(row, _)| recency_id(row.value()))
            else {
                // Nothing is left: what still counts was lost to corruption.
                self.state.bytes = 0;
                break;
            };
            gone.extend(self.remove(id)?);
        }
        Ok(gone)
    }

    /// Removes the variants of a key beyond [`VARIANTS_MAX`], oldest first.
    pub(super) fn cap_variants(&mut self, key: KeyId) -> Result<Vec<Gone>, DiskError> {
        let mut variants = self.variants(key)?;
        let beyond = variants.len().saturating_sub(VARIANTS_MAX);
        let mut gone = Vec::new();
        variants.sort_by_key(|(_, usage)| usage.map(|usage| usage.stored_at));
        for (id, _) in variants.into_iter().take(beyond) {
            gone.extend(self.remove(id)?);
        }
        Ok(gone)
    }

    fn put_usage(&mut self, id: RecordId, usage: &Usage) -> Result<(), DiskError> {
        self.usage.insert(&id.0, &usage.encode(id))?;
        self.recency.insert(&recency_row(usage.turn, id), ())?;
        Ok(())
    }
}

fn tag_rows(id: RecordId, labels: &[Label]) -> impl Iterator<Item = Vec<u8>> {
    labels.iter().map(move |label| tag_row(label, id))
}

/// Bytes of disk that a stored response takes, roughly: its record, its rows of text, its body file.
pub(super) fn cost(
    record_len: usize,
    row_lens: impl Iterator<Item = usize>,
    file_len: Option<u64>,
) -> u64 {
    let record = record_len as u64;
    let pages = if record > PAGE_BYTES / 2 {
        (record + 64).next_power_of_two().max(PAGE_BYTES)
    } else {
        // Leaves are two thirds full on average.
        record * 3 / 2
    };
    let file = file_len.map_or(0, |len| len.next_multiple_of(FILE_BLOCK_BYTES));
    let rows: u64 = row_lens.map(|len| len as u64).sum();
    pages + rows + ROWS_BYTES + file
}
