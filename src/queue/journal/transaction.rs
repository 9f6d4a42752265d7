//! One write transaction: every table open, the rows of a write changed together, the running numbers kept.

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use redb::{ReadableTable, ReadableTableMetadata, Table, WriteTransaction};
use serde::{Serialize, de::DeserializeOwned};

use super::{
    super::{
        item::{Answer, Content, Item, ItemId, StoredBody},
        timeline::ClockStep,
    },
    batch::Receipts,
    change::{AuditEntry, KeyHash, Pause},
    codec::Codec,
    damage::Damage,
    error::DiskError,
    rebuild,
    tables::{
        ANSWERS, AUDIT, CONTENTS, ContentRow, Counters, ENDED, EndedRow, FORMAT, ITEMS, ItemRow,
        KEYS, KeyRow, META, ended_key, meta, name, parse_ended_key,
    },
};
use crate::{database::Guarded, policy::Timestamp};

/// Audit entries that are kept.
const AUDIT_ENTRIES_MAX: u64 = 10_000;

type Rows<'t, const N: usize> = Guarded<Table<'t, &'static [u8; N], &'static [u8]>>;

/// The open tables of a write transaction.
pub(super) struct Tables<'t> {
    pub(super) items: Rows<'t, 16>,
    pub(super) contents: Rows<'t, 16>,
    pub(super) answers: Rows<'t, 16>,
    pub(super) keys: Rows<'t, 32>,
    pub(super) ended: Rows<'t, 24>,
    pub(super) audit: Rows<'t, 8>,
    pub(super) meta: Guarded<Table<'t, &'static str, &'static [u8]>>,
    pub(super) counters: Counters,
    damage: &'t Damage,
    codec: Codec,
}

/// What a removed or ended write leaves behind.
#[derive(Debug, Default)]
pub(super) struct Leftovers {
    /// Its spool file, to be removed after the commit.
    pub(super) file: Option<String>,
}

/// Whether there was a row of the write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    New,
    Instead,
}

impl<'t> Tables<'t> {
    /// Opens the tables of a database of this format; makes them in a new one.
    pub(super) fn open(
        transaction: &'t WriteTransaction,
        damage: &'t Damage,
        codec: Codec,
    ) -> Result<Self, DiskError> {
        let mut meta = Guarded::from(transaction.open_table(META)?);
        let is_new = meta.is_empty()?;
        let mut counters = Counters::default();
        if is_new {
            put_meta(&mut meta, Codec::UNSEEDED, meta::FORMAT, &FORMAT)?;
            put_meta(&mut meta, Codec::UNSEEDED, meta::SEED, &codec)?;
        } else {
            check_format(read_meta(&*meta, Codec::UNSEEDED, meta::FORMAT)?)?;
            counters = read_meta(&*meta, codec, meta::COUNTERS)?
                .ok_or(DiskError::Damaged("its running numbers are lost"))?;
        }
        counters.revision += 1;
        Ok(Self {
            items: transaction.open_table(ITEMS)?.into(),
            contents: transaction.open_table(CONTENTS)?.into(),
            answers: transaction.open_table(ANSWERS)?.into(),
            keys: transaction.open_table(KEYS)?.into(),
            ended: transaction.open_table(ENDED)?.into(),
            audit: transaction.open_table(AUDIT)?.into(),
            meta,
            counters,
            damage,
            codec,
        })
    }

    /// Writes the running numbers.
    pub(super) fn finish(mut self) -> Result<Counters, DiskError> {
        put_meta(&mut self.meta, self.codec, meta::COUNTERS, &self.counters)?;
        Ok(self.counters)
    }

    /// Records what has become of a write. Of one that was lost since it is put in again, and counted.
    pub(super) fn put_item(&mut self, item: &Item, now: Timestamp) -> Result<(), DiskError> {
        if self.add_item(item, now)? == Added::Instead {
            return Ok(());
        }
        match self.counters.removed.checked_sub(1) {
            Some(removed) => self.counters.removed = removed,
            None => self.counters.seq += 1,
        }
        if !item.state.is_ended() && self.contents.get(item.id.as_bytes())?.is_none() {
            self.put_content(item, &rebuild::lost_content(), None)?;
        }
        Ok(())
    }

    /// Puts in the row of a write that is counted elsewhere.
    pub(super) fn add_item(&mut self, item: &Item, now: Timestamp) -> Result<Added, DiskError> {
        let row = ItemRow {
            revision: self.counters.revision,
            recorded_at: now,
            item: Cow::Borrowed(item),
        };
        let key = item.id.as_bytes();
        let record = self.codec.encode(name::ITEMS, key, &row);
        Ok(match self.items.insert(key, record.as_slice())? {
            Some(_) => Added::Instead,
            None => Added::New,
        })
    }

    pub(super) fn put_content(
        &mut self,
        accepted: &Item,
        content: &Content,
        key_hash: Option<KeyHash>,
    ) -> Result<(), DiskError> {
        let row = ContentRow {
            revision: self.counters.revision,
            accepted: Cow::Borrowed(accepted),
            key: key_hash,
            content: Cow::Borrowed(content),
        };
        let key = accepted.id.as_bytes();
        let record = self.codec.encode(name::CONTENTS, key, &row);
        self.contents.insert(key, record.as_slice())?;
        Ok(())
    }

    /// Notes whose this key is. The first one has it for as long as there is a record of it.
    pub(super) fn put_key(&mut self, key: KeyHash, item: &Item) -> Result<(), DiskError> {
        let row = KeyRow {
            id: item.id,
            body_sha256: item.body_sha256,
        };
        let record = self.codec.encode(name::KEYS, key.as_bytes(), &row);
        self.keys.insert(key.as_bytes(), record.as_slice())?;
        Ok(())
    }

    /// Whose this key is.
    pub(super) fn key(&self, key: KeyHash) -> Result<Sound<KeyRow>, DiskError> {
        let row = self.keys.get(key.as_bytes())?;
        Ok(self.decode(
            name::KEYS,
            key.as_bytes(),
            row.as_ref().map(|row| row.value()),
        ))
    }

    pub(super) fn content(&self, id: ItemId) -> Result<Sound<ContentRow<'static>>, DiskError> {
        let key = id.as_bytes();
        let row = self.contents.get(key)?;
        Ok(self.decode(name::CONTENTS, key, row.as_ref().map(|row| row.value())))
    }

    /// The write; made again from its content where its own record is damaged.
    pub(super) fn item(&self, id: ItemId) -> Result<Option<Item>, DiskError> {
        let key = id.as_bytes();
        let row = self.items.get(key)?;
        let row: Sound<ItemRow<'_>> =
            self.decode(name::ITEMS, key, row.as_ref().map(|row| row.value()));
        Ok(match row {
            Sound::Is(row) => Some(row.item.into_owned()),
            Sound::Missing => None,
            Sound::Damaged => Some(match self.content(id)? {
                Sound::Is(row) => rebuild::from_content(row.accepted.into_owned()),
                _ => rebuild::placeholder(id),
            }),
        })
    }

    /// Records that a write came to its end: its content goes, its receipt stays.
    pub(super) fn end(
        &mut self,
        item: &Item,
        answer: Option<&Answer>,
        now: Timestamp,
    ) -> Result<Leftovers, DiskError> {
        let id = item.id;
        let replaced = self.forget_end(id)?;
        let (file, key) = self.remove_content(id)?;
        let row = EndedRow {
            key: key.or(replaced.as_ref().and_then(|row| row.key)),
            answer_bytes: answer.map_or(0, |answer| answer.body.len() as u64),
        };
        match answer {
            Some(answer) => self.put_answer(id, answer)?,
            // What it was parked for is not what it ended with.
            None => drop(self.answers.remove(id.as_bytes())?),
        }
        let ended_key = ended_key(item.ended_at.unwrap_or(now), id);
        let record = self.codec.encode(name::ENDED, &ended_key, &row);
        self.ended.insert(&ended_key, record.as_slice())?;
        self.counters.answer_bytes = self.counters.answer_bytes.saturating_add(row.answer_bytes);
        self.put_item(item, now)?;
        Ok(Leftovers { file })
    }

    /// Keeps what the origin answered.
    pub(super) fn put_answer(&mut self, id: ItemId, answer: &Answer) -> Result<(), DiskError> {
        let record = self.codec.encode(name::ANSWERS, id.as_bytes(), answer);
        self.answers.insert(id.as_bytes(), record.as_slice())?;
        Ok(())
    }

    /// Removes everything there is of a write.
    pub(super) fn remove(&mut self, id: ItemId) -> Result<Option<Leftovers>, DiskError> {
        let ended = self.forget_end(id)?;
        let (file, key) = self.remove_content(id)?;
        self.answers.remove(id.as_bytes())?;
        if let Some(key) = key.or(ended.and_then(|row| row.key))
            && matches!(self.key(key)?, Sound::Is(row) if row.id == id)
        {
            self.keys.remove(key.as_bytes())?;
        }
        if self.items.remove(id.as_bytes())?.is_none() {
            return Ok(None);
        }
        self.counters.removed += 1;
        Ok(Some(Leftovers { file }))
    }

    /// Removes a write by its row of `ended`, whatever the rest of it says.
    pub(super) fn remove_ended(
        &mut self,
        at: Timestamp,
        id: ItemId,
    ) -> Result<Leftovers, DiskError> {
        let left = self.remove(id)?.unwrap_or_default();
        // Gone already, unless its item says something else, or nothing.
        self.ended.remove(&ended_key(at, id))?;
        Ok(left)
    }

    /// The keys of these writes, where they have one. Reads every key.
    pub(super) fn keys_of(
        &self,
        ids: &HashSet<ItemId>,
    ) -> Result<HashMap<ItemId, KeyHash>, DiskError> {
        let mut keys = HashMap::new();
        for row in self.keys.iter()? {
            let (key, row) = row?;
            let key = KeyHash::from_bytes(*key.value());
            let row = self.decode(name::KEYS, key.as_bytes(), Some(row.value()));
            if let Sound::<KeyRow>::Is(row) = row
                && ids.contains(&row.id)
            {
                keys.insert(row.id, key);
            }
        }
        Ok(keys)
    }

    /// Lists the receipt of a write that ended, with the key that goes when it goes; the bytes of its answer.
    pub(super) fn list_ended(
        &mut self,
        item: &Item,
        key_hash: Option<KeyHash>,
        now: Timestamp,
    ) -> Result<u64, DiskError> {
        let at = item.ended_at.unwrap_or(now);
        let item = Item {
            ended_at: Some(at),
            ..item.clone()
        };
        let key = ended_key(at, item.id);
        let row = EndedRow {
            key: key_hash,
            answer_bytes: self.answer_bytes(item.id)?,
        };
        let record = self.codec.encode(name::ENDED, &key, &row);
        self.ended.insert(&key, record.as_slice())?;
        self.put_item(&item, now)?;
        Ok(row.answer_bytes)
    }

    /// The length of the answer's body; of one that is damaged, nothing counts.
    fn answer_bytes(&self, id: ItemId) -> Result<u64, DiskError> {
        let row = self.answers.get(id.as_bytes())?;
        let row = row.as_ref().map(|row| row.value());
        Ok(match self.decode(name::ANSWERS, id.as_bytes(), row) {
            Sound::<Answer>::Is(answer) => answer.body.len() as u64,
            Sound::Missing | Sound::Damaged => 0,
        })
    }

    /// How many writes there are, how many of them have not ended, and how many contents there are.
    pub(super) fn count_writes(&self) -> Result<(u64, u64, u64), DiskError> {
        let (mut items, mut unended) = (0, 0);
        for row in self.items.iter()? {
            let (id, row) = row?;
            let row: Result<ItemRow<'_>, _> =
                self.codec.decode(name::ITEMS, id.value(), row.value());
            items += 1;
            unended += u64::from(row.is_ok_and(|row| !row.item.state.is_ended()));
        }
        Ok((items, unended, self.contents.len()?))
    }

    /// What there is of receipts.
    pub(super) fn receipts(&self) -> Result<Receipts, DiskError> {
        Ok(Receipts {
            items: self.ended.len()?,
            answer_bytes: self.counters.answer_bytes,
        })
    }

    /// The write that ended first, and when.
    pub(super) fn first_ended(&self) -> Result<Option<(Timestamp, ItemId)>, DiskError> {
        Ok(self
            .ended
            .first()?
            .map(|(key, _)| parse_ended_key(key.value())))
    }

    pub(super) fn put_pauses(&mut self, pauses: &[Pause]) -> Result<(), DiskError> {
        put_meta(&mut self.meta, self.codec, meta::PAUSES, &pauses)
    }

    pub(super) fn put_clock_steps(&mut self, steps: &[ClockStep]) -> Result<(), DiskError> {
        put_meta(&mut self.meta, self.codec, meta::CLOCK_STEPS, &steps)
    }

    /// Adds an entry; the oldest goes when there are too many.
    pub(super) fn put_audit(&mut self, entry: &AuditEntry) -> Result<(), DiskError> {
        self.counters.audit += 1;
        let key = self.counters.audit.to_be_bytes();
        let record = self.codec.encode(name::AUDIT, &key, entry);
        self.audit.insert(&key, record.as_slice())?;
        if self.audit.len()? > AUDIT_ENTRIES_MAX {
            self.audit.pop_first()?;
        }
        Ok(())
    }

    fn remove_content(
        &mut self,
        id: ItemId,
    ) -> Result<(Option<String>, Option<KeyHash>), DiskError> {
        let key = id.as_bytes();
        let row = self.content(id)?;
        self.contents.remove(key)?;
        Ok(match row {
            Sound::Is(row) => (file_of(&row.content), row.key),
            _ => (None, None),
        })
    }

    /// Removes the row of `ended` of a write that ended before.
    fn forget_end(&mut self, id: ItemId) -> Result<Option<EndedRow>, DiskError> {
        let Some(item) = self.item(id)?.filter(|item| item.state.is_ended()) else {
            return Ok(None);
        };
        let Some(at) = item.ended_at else {
            return Ok(None);
        };
        let key = ended_key(at, id);
        let row = self.ended.remove(&key)?;
        let row = row.as_ref().map(|row| row.value());
        let row: EndedRow = match codec_row(self.codec, self.damage, name::ENDED, &key, row) {
            Sound::Is(row) => row,
            Sound::Damaged => EndedRow::default(),
            Sound::Missing => return Ok(None),
        };
        let counters = &mut self.counters;
        counters.answer_bytes = counters.answer_bytes.saturating_sub(row.answer_bytes);
        Ok(Some(row))
    }

    fn decode<T: DeserializeOwned>(
        &self,
        table: &'static str,
        key: &[u8],
        row: Option<&[u8]>,
    ) -> Sound<T> {
        codec_row(self.codec, self.damage, table, key, row)
    }
}

/// A record, if it is what was written.
#[derive(Clone, Debug)]
pub(super) enum Sound<T> {
    Is(T),
    Missing,
    Damaged,
}

/// Decodes a row, and counts it when it is damaged.
pub(super) fn codec_row<T: DeserializeOwned>(
    codec: Codec,
    damage: &Damage,
    table: &'static str,
    key: &[u8],
    row: Option<&[u8]>,
) -> Sound<T> {
    let Some(row) = row else {
        return Sound::Missing;
    };
    match codec.decode(table, key, row) {
        Ok(value) => Sound::Is(value),
        Err(error) => {
            tracing::debug!(%error, table, "Cannot decode a record.");
            damage.note_record(table, key);
            Sound::Damaged
        }
    }
}

/// A value of `meta`; `None` where it is not there.
pub(super) fn read_meta<T: DeserializeOwned>(
    meta: &impl ReadableTable<&'static str, &'static [u8]>,
    codec: Codec,
    key: &'static str,
) -> Result<Option<T>, DiskError> {
    let Some(row) = meta.get(key)? else {
        return Ok(None);
    };
    codec
        .decode(name::META, key.as_bytes(), row.value())
        .map(Some)
        .map_err(|_| DiskError::Damaged("a record of its own is damaged"))
}

fn put_meta(
    meta: &mut Table<'_, &'static str, &'static [u8]>,
    codec: Codec,
    key: &'static str,
    value: &impl Serialize,
) -> Result<(), DiskError> {
    let record = codec.encode(name::META, key.as_bytes(), value);
    meta.insert(key, record.as_slice())?;
    Ok(())
}

/// Whether this version knows the format.
pub(super) fn check_format(found: Option<u32>) -> Result<(), DiskError> {
    match found {
        Some(FORMAT) => Ok(()),
        Some(other) => Err(DiskError::Format(other)),
        None => Err(DiskError::Damaged("its format is lost")),
    }
}

/// The spool file that a content names.
pub(super) fn file_of(content: &Content) -> Option<String> {
    match &content.body {
        StoredBody::File { name, .. } => Some(name.clone()),
        StoredBody::Inline(_) => None,
    }
}
