//! At start: the index is filled, what was on its way when the process ended is decided, what is damaged is put right, and what
//! nobody needs any more is removed.

use std::{
    collections::{HashMap, HashSet},
    sync::PoisonError,
};

use redb::{ReadTransaction, ReadableTable, ReadableTableMetadata};
use serde::de::DeserializeOwned;

use super::{
    super::{
        item::{Item, ItemId, Parked, Repeat, State},
        timeline::ClockStep,
    },
    INLINE_BODY_MAX_BYTES, Inner,
    batch::Receipts,
    change::Pause,
    codec::Codec,
    error::DiskError,
    tables::{
        CONTENTS, Counters, ENDED, EndedRow, ITEMS, ItemRow, KEYS, META, ended_key, meta, name,
        parse_ended_key,
    },
    transaction::{Sound, check_format, file_of, read_meta},
    writer::BATCH_MAX,
};
use crate::policy::Timestamp;

/// What was found at start.
#[derive(Debug, Default)]
pub(super) struct Loaded {
    pub(super) counters: Counters,
    pub(super) receipts: Receipts,
    pub(super) pauses: Vec<Pause>,
    /// Whether the record of them is to be made again.
    are_pauses_damaged: bool,
    pub(super) clock_steps: Vec<ClockStep>,
    /// What is in the index.
    indexed: Vec<ItemId>,
    /// Whose bodies are in files.
    spooled: Vec<ItemId>,
    /// What is to be recorded before anything else is.
    changed: Vec<Item>,
    /// Receipts without a row in `ended`.
    unlisted: Vec<Item>,
    /// Rows of `ended` that are damaged, or without their receipt.
    dangling: Vec<[u8; 24]>,
}

impl Inner {
    /// Fills the index. Reads every item once; a content only where its item is damaged.
    ///
    /// # Errors
    /// [`DiskError::Damaged`] where the tables do not agree with each other: what can be read must then be salvaged.
    pub(super) fn load(&self) -> Result<Loaded, DiskError> {
        let mut loaded = Loaded::default();
        let read = self
            .disk
            .read(|transaction| self.read_all(transaction, &mut loaded));
        if read.is_err() {
            // A panic leaves what was read so far as well.
            self.forget(&loaded);
        }
        read.map(|()| loaded)
    }

    /// Takes what was loaded out of the index again.
    pub(super) fn forget(&self, loaded: &Loaded) {
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.indexed.iter().for_each(|id| index.remove(*id));
    }

    fn read_all(
        &self,
        transaction: &ReadTransaction,
        loaded: &mut Loaded,
    ) -> Result<(), DiskError> {
        {
            let meta = transaction.open_table(META)?;
            check_format(read_meta(&meta, Codec::UNSEEDED, meta::FORMAT)?)?;
            if read_meta(&meta, Codec::UNSEEDED, meta::SEED)? != Some(self.disk.codec) {
                return Err(DiskError::Damaged("its seed is lost"));
            }
            loaded.counters = read_meta(&meta, self.disk.codec, meta::COUNTERS)?
                .ok_or(DiskError::Damaged("its running numbers are lost"))?;
            loaded.pauses = match self.setting(&meta, meta::PAUSES)? {
                Sound::Is(pauses) => pauses,
                Sound::Missing => Vec::new(),
                Sound::Damaged => {
                    loaded.are_pauses_damaged = true;
                    self.noted_pauses()
                }
            };
            // Where that cannot be read, nothing is known of how the clock was set.
            loaded.clock_steps = match self.setting(&meta, meta::CLOCK_STEPS)? {
                Sound::Is(steps) => steps,
                Sound::Missing | Sound::Damaged => Vec::new(),
            };
        }
        find_keys(transaction)?;
        let listed = self.read_ended(transaction, loaded)?;
        self.read_items(transaction, loaded, listed)
    }

    /// What is noted to be paused. What was held back stays so; where that cannot be read, everything is held back.
    fn noted_pauses(&self) -> Vec<Pause> {
        match self.disk.noted().pauses {
            Sound::Is(pauses) => pauses,
            Sound::Missing | Sound::Damaged => vec![Pause::of_everything(self.clock.now())],
        }
    }

    /// A setting of `meta`.
    fn setting<T: DeserializeOwned>(
        &self,
        table: &impl ReadableTable<&'static str, &'static [u8]>,
        key: &'static str,
    ) -> Result<Sound<T>, DiskError> {
        let row = table.get(key)?;
        let row = row.as_ref().map(|row| row.value());
        Ok(self.sound(name::META, key.as_bytes(), row))
    }

    /// The receipts that are listed.
    fn read_ended(
        &self,
        transaction: &ReadTransaction,
        loaded: &mut Loaded,
    ) -> Result<HashSet<(ItemId, Timestamp)>, DiskError> {
        let ended = transaction.open_table(ENDED)?;
        let mut listed = HashSet::new();
        for row in ended.iter()? {
            let (key, row) = row?;
            let (at, id) = parse_ended_key(key.value());
            loaded.receipts.items += 1;
            match self.sound::<EndedRow>(name::ENDED, key.value(), Some(row.value())) {
                Sound::Is(row) => {
                    loaded.receipts.answer_bytes += row.answer_bytes;
                    listed.insert((id, at));
                }
                // Its receipt is listed again, or its key would stay for ever, and its answer would not count.
                _ => loaded.dangling.push(*key.value()),
            }
        }
        if loaded.receipts.items != ended.len()? {
            return Err(DiskError::Damaged("receipts are missing"));
        }
        Ok(listed)
    }

    fn read_items(
        &self,
        transaction: &ReadTransaction,
        loaded: &mut Loaded,
        mut listed: HashSet<(ItemId, Timestamp)>,
    ) -> Result<(), DiskError> {
        let items = transaction.open_table(ITEMS)?;
        let now = self.clock.now();
        let (mut count, mut unended, mut last) = (0_u64, 0_u64, None);
        let mut index = self.index.lock().unwrap_or_else(PoisonError::into_inner);
        for row in items.iter()? {
            let (id, row) = row?;
            let id = ItemId::from_bytes(*id.value());
            if last.replace(id).is_some_and(|last| last >= id) {
                return Err(DiskError::Damaged("its order is lost"));
            }
            count += 1;
            if items.get(id.as_bytes())?.is_none() {
                // A change of it would go elsewhere, beside it.
                return Err(DiskError::Damaged("a write is not found by its id"));
            }
            let (item, is_changed) = self.recovered(transaction, id, row.value(), now)?;
            if item.state.is_ended() {
                let at = item.ended_at.unwrap_or(Timestamp::from_millis(i64::MIN));
                if !listed.remove(&(id, at)) {
                    loaded.unlisted.push(item);
                }
                continue;
            }
            unended += 1;
            if item.body_bytes > INLINE_BODY_MAX_BYTES {
                loaded.spooled.push(id);
            }
            index.load(&item);
            loaded.indexed.push(id);
            if is_changed {
                loaded.changed.push(item);
            }
        }
        drop(index);
        let dangling = listed.iter().map(|(id, at)| ended_key(*at, *id));
        loaded.dangling.extend(dangling);
        let counters = &loaded.counters;
        let is_whole =
            count == items.len()? && count == counters.seq.saturating_sub(counters.removed);
        let contents = transaction.open_table(CONTENTS)?.len()?;
        if !is_whole || contents != unended {
            return Err(DiskError::Damaged("records are missing"));
        }
        Ok(())
    }

    /// The write, with what the end of the last process means for it; whether that must be recorded.
    fn recovered(
        &self,
        transaction: &ReadTransaction,
        id: ItemId,
        row: &[u8],
        now: Timestamp,
    ) -> Result<(Item, bool), DiskError> {
        match self.disk.codec.decode(name::ITEMS, id.as_bytes(), row) {
            Ok(ItemRow {
                item, recorded_at, ..
            }) => {
                let item = item.into_owned();
                Ok(match item.state {
                    State::Sending => (interrupted(item, recorded_at, now), true),
                    _ => (item, false),
                })
            }
            // Counted there.
            Err(_) => Ok((self.item_of(transaction, id, row)?, true)),
        }
    }

    /// Records what loading has decided, and removes what nobody needs.
    pub(super) fn settle(&self, loaded: &mut Loaded) -> Result<(), DiskError> {
        let now = self.clock.now();
        for items in loaded.changed.chunks(BATCH_MAX) {
            self.disk
                .transact(|tables| items.iter().try_for_each(|item| tables.put_item(item, now)))?;
        }
        let (unlisted, dangling) = (&loaded.unlisted, &loaded.dangling);
        if !unlisted.is_empty() || !dangling.is_empty() {
            let answer_bytes = self.disk.transact(|tables| {
                for key in dangling {
                    tables.ended.remove(key)?;
                }
                let keys = match unlisted.is_empty() {
                    true => HashMap::new(),
                    false => tables.keys_of(&unlisted.iter().map(|item| item.id).collect())?,
                };
                let mut answer_bytes = 0;
                for item in unlisted {
                    let key = keys.get(&item.id).copied();
                    answer_bytes += tables.list_ended(item, key, now)?;
                }
                Ok(answer_bytes)
            })?;
            loaded.receipts.answer_bytes += answer_bytes;
        }
        loaded.receipts.items += unlisted.len() as u64;
        loaded.receipts.items -= (dangling.len() as u64).min(loaded.receipts.items);
        if loaded.receipts.answer_bytes != loaded.counters.answer_bytes {
            self.disk.transact(|tables| {
                tables.counters.answer_bytes = loaded.receipts.answer_bytes;
                Ok(())
            })?;
        }
        if loaded.are_pauses_damaged {
            self.disk
                .transact(|tables| tables.put_pauses(&loaded.pauses))?;
        }
        loaded.changed = Vec::new();
        self.sweep_spool(&std::mem::take(&mut loaded.spooled))
    }

    /// Removes the files of bodies that no record names. After damage they are kept: perhaps they are all that is left.
    fn sweep_spool(&self, spooled: &[ItemId]) -> Result<(), DiskError> {
        if !self.spool.has_any() {
            return Ok(());
        }
        let named = self.named_files(spooled)?;
        let swept = match self.disk.damage.count() {
            0 => self.spool.sweep(&named),
            _ => self.spool.set_aside(&named),
        };
        let files = swept.map_err(DiskError::File)?;
        if files > 0 {
            tracing::info!(files, "Removed spool files that no record names.");
        }
        Ok(())
    }

    fn named_files(&self, spooled: &[ItemId]) -> Result<HashSet<String>, DiskError> {
        self.disk.read(|transaction| {
            let mut named = HashSet::new();
            for id in spooled {
                if let Sound::Is(row) = self.content_of(transaction, *id)? {
                    named.extend(file_of(&row.content));
                }
            }
            Ok(named)
        })
    }

    /// Whether a receipt is too old, or there are too many.
    pub(super) fn has_receipts_to_sweep(&self, receipts: Receipts) -> Result<bool, DiskError> {
        let limits = &self.limits;
        if receipts.items == 0 {
            return Ok(false);
        }
        if limits.is_exceeded(receipts) {
            return Ok(true);
        }
        let outdated = self.ago(limits.ttl);
        self.disk.read(|transaction| {
            let ended = transaction.open_table(ENDED)?;
            let first = ended.first()?;
            Ok(first.is_some_and(|(key, _)| {
                let (at, _) = parse_ended_key(key.value());
                at <= outdated
            }))
        })
    }
}

/// Looks for every idempotency key: one that is not found is taken for new, and its write sent once more.
fn find_keys(transaction: &ReadTransaction) -> Result<(), DiskError> {
    let keys = transaction.open_table(KEYS)?;
    for row in keys.iter()? {
        let (key, _) = row?;
        if keys.get(key.value())?.is_none() {
            return Err(DiskError::Damaged("a key is not found"));
        }
    }
    Ok(())
}

/// What a write that was on its way when the process ended becomes: sent again where that is allowed, else shown.
pub(super) fn interrupted(mut item: Item, recorded_at: Timestamp, now: Timestamp) -> Item {
    item.ambiguous_since.get_or_insert(recorded_at);
    let is_allowed = match item.repeat {
        Repeat::Harmless => true,
        Repeat::Keyed | Repeat::Conditional => item.may_be_repeated(now),
        Repeat::Doubtful => false,
    };
    item.state = match is_allowed {
        true => State::Waiting,
        false => State::Parked(Parked::Ambiguous),
    };
    if !is_allowed {
        item.remark = Some(
            "The gateway ended while it was on its way; it may have been executed.".to_owned(),
        );
    }
    item
}
