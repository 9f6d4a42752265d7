//! What is left of a write in part, made whole: of each there is then an item, and a content until it has ended.

use std::ops::Bound;

use redb::{ReadableTable, ReadableTableMetadata};

use super::{
    super::{
        disk::transact,
        error::DiskError,
        rebuild::{self, HadEnded},
        tables::{Counters, ItemRow, name, parse_ended_key},
        transaction::{Sound, Tables},
    },
    Occasion, ROWS_MAX, Salvage,
};
use crate::queue::item::{Answer, Done, Item, ItemId, State};

impl Salvage<'_> {
    /// Makes again what is left in part.
    pub(super) fn complete(&mut self, occasion: Occasion<'_>) -> Result<(), DiskError> {
        let known: Vec<_> = self.known.iter().copied().collect();
        for ids in known.chunks(ROWS_MAX) {
            let made = self.transact(|tables| {
                let mut made = Vec::new();
                for id in ids {
                    if let Some(item) = self.completed(tables, *id)? {
                        tables.add_item(&item, self.now)?;
                        tables.counters.seq = tables.counters.seq.max(item.seq);
                        made.push(item);
                    }
                }
                Ok(made)
            })?;
            for item in &made {
                self.damage.note_record(name::ITEMS, item.id.as_bytes());
            }
            // There may be a million: not all of them at once.
            if let Occasion::Running(inner) = occasion {
                inner.note_salvaged(&made);
            }
        }
        self.check_answers()?;
        self.check_ended()
    }

    /// Sees to it that a write has its records; what it is now, if one was lost, or may not be the last one there was.
    fn completed(&self, tables: &mut Tables<'_>, id: ItemId) -> Result<Option<Item>, DiskError> {
        let row = self.item_row(tables, id)?;
        if row.as_ref().is_some_and(|row| row.item.state.is_ended()) {
            tables.contents.remove(id.as_bytes())?;
            return Ok(None);
        }
        let content = tables.content(id)?;
        let has_content = matches!(content, Sound::Is(_));
        let item = match (row, content) {
            (Some(row), Sound::Is(content)) => {
                // Written together, and not since: the content is the one that belongs to it.
                let is_its_own = content.revision == row.revision;
                let is_whole = is_its_own || !self.scanned.contents.contains(&id);
                let may_be_old = self.is_behind && row.item.state.is_pending();
                if is_whole && !may_be_old && !self.scanned.items.contains(&id) {
                    return Ok(None);
                }
                let had_ended = match self.scanned.ended.contains(&id) {
                    true => HadEnded::Yes,
                    false => HadEnded::Unknown,
                };
                rebuild::from_scan(row.item.into_owned(), had_ended)
            }
            (Some(row), _) => rebuild::without_content(row.item.into_owned()),
            (None, Sound::Is(content)) => rebuild::from_content(content.accepted.into_owned()),
            (None, _) => rebuild::placeholder(id),
        };
        if !has_content {
            tables.put_content(&item, &rebuild::lost_content(), None)?;
        }
        Ok(Some(item))
    }

    /// Removes answers that were found on some page and are not known to be what their write was answered in the end.
    fn check_answers(&self) -> Result<(), DiskError> {
        let answers: Vec<_> = self.scanned.answers.iter().copied().collect();
        for ids in answers.chunks(ROWS_MAX) {
            self.transact(|tables| {
                for id in ids {
                    let key = id.as_bytes();
                    let row = tables.answers.get(key)?;
                    let answer = row.map(|row| self.codec.decode(name::ANSWERS, key, row.value()));
                    let item = self.item_row(tables, *id)?.map(|row| row.item.into_owned());
                    let belongs = match (answer, item) {
                        (Some(Ok(answer)), Some(item)) => is_answer_to(&answer, &item),
                        _ => false,
                    };
                    if !belongs || self.scanned.disputed.contains(id) {
                        tables.answers.remove(key)?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Removes rows of `ended` of writes that have not, or not then: the row of a page would have them swept like receipts.
    fn check_ended(&self) -> Result<(), DiskError> {
        let mut after: Option<[u8; 24]> = None;
        loop {
            let last = self.transact(|tables| {
                let from = after.as_ref().map_or(Bound::Unbounded, Bound::Excluded);
                let rows = tables.ended.range::<&[u8; 24]>((from, Bound::Unbounded))?;
                let keys = rows.take(ROWS_MAX).map(|row| Ok(*row?.0.value()));
                let keys: Vec<[u8; 24]> = keys.collect::<Result<_, DiskError>>()?;
                for key in &keys {
                    let (at, id) = parse_ended_key(key);
                    let row = self.item_row(tables, id)?;
                    let is_of_it = row.is_some_and(|row| {
                        row.item.state.is_ended() && row.item.ended_at == Some(at)
                    });
                    if !is_of_it {
                        tables.ended.remove(key)?;
                    }
                }
                Ok(keys.last().copied())
            })?;
            if last.is_none() {
                return Ok(());
            }
            after = last;
        }
    }

    /// Goes on with the running numbers, and says what is lost.
    pub(super) fn count(&self, before: Option<Counters>) -> Result<(), DiskError> {
        let last_id = self.known.last().max(self.named.last()).copied();
        let kept = self.transact(|tables| {
            let kept = tables.items.len()?;
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

    /// The row of a write, if it is what was written.
    fn item_row(
        &self,
        tables: &Tables<'_>,
        id: ItemId,
    ) -> Result<Option<ItemRow<'static>>, DiskError> {
        let key = id.as_bytes();
        let row = tables.items.get(key)?;
        Ok(row.and_then(|row| self.codec.decode(name::ITEMS, key, row.value()).ok()))
    }

    pub(super) fn transact<T>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        transact(&self.target, self.damage, self.codec, work).map(|(result, _)| result)
    }
}

/// Whether this is what the write was answered last: an earlier answer is of another attempt.
fn is_answer_to(answer: &Answer, item: &Item) -> bool {
    let is_answered = item.state.is_stuck() || item.state == State::Done(Done::Answered);
    let status = item.last.as_ref().and_then(|last| last.status);
    is_answered && status == Some(answer.status)
}
