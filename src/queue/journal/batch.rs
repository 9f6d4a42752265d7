//! A batch: what is written in one transaction, and what came of it.

use std::io;

use tokio::sync::oneshot;

use super::{
    super::{
        index::Room,
        item::{Content, Item, ItemId, StoredBody},
        seal::Keyring,
    },
    change::{Appended, AuditEntry, Change, Field, KeyHash, NewBody, NewWrite},
    error::{AppendError, DiskError, JournalError, Unavailable},
    spool::SpoolFile,
    transaction::{Sound, Tables, file_of},
};
use crate::policy::Timestamp;

/// A write that waits to be appended.
pub(super) struct Append {
    pub(super) write: NewWrite,
    pub(super) reply: oneshot::Sender<Result<Appended, AppendError>>,
}

/// A write with its id, as its rows are made.
pub(super) struct Prepared {
    pub(super) item: Item,
    content: Content,
    key: Option<KeyHash>,
    // Kept until it is known whether a record names its file.
    pub(super) body: NewBody,
    pub(super) reply: oneshot::Sender<Result<Appended, AppendError>>,
}

/// A refused append that a failed commit may have left, and that is to be taken back. Its file is removed with this, unless it
/// is kept.
pub(super) struct TakenBack {
    id: ItemId,
    file: Option<SpoolFile>,
    /// What it was promised, where its client does not know whether it was appended: until that is certain, nothing of its lane
    /// goes past it.
    room: Option<Room>,
}

/// A change that waits to be recorded.
pub(super) struct Transition {
    pub(super) change: Change,
    pub(super) audit: Option<AuditEntry>,
    pub(super) reply: oneshot::Sender<Result<(), JournalError>>,
}

/// What is written in one transaction.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) transitions: Vec<Transition>,
    pub(super) appends: Vec<Prepared>,
    /// Writes whose clients were told that they were not taken, which an earlier transaction may have left.
    pub(super) unconfirmed: Vec<ItemId>,
    /// As there are before it.
    pub(super) receipts: Receipts,
    /// Whether a try to write it failed so late that a start may find it.
    pub(super) is_doubtful: bool,
}

/// How long receipts are kept.
#[derive(Clone, Copy, Debug)]
pub(super) struct ReceiptLimits {
    pub(super) items: u64,
    pub(super) answer_bytes: u64,
    pub(super) ttl: std::time::Duration,
}

impl ReceiptLimits {
    /// Whether there are more than there may be.
    pub(super) const fn is_exceeded(&self, receipts: Receipts) -> bool {
        receipts.items > self.items || receipts.answer_bytes > self.answer_bytes
    }
}

/// What there is of receipts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Receipts {
    pub(super) items: u64,
    pub(super) answer_bytes: u64,
}

/// What a batch came to, in order.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) appended: Vec<Appending>,
    /// Spool files that no record names any more.
    pub(super) files: Vec<String>,
    pub(super) receipts: Receipts,
    pub(super) swept: u64,
}

/// What came of one append.
#[derive(Debug)]
pub(super) enum Appending {
    New,
    Known(Item),
    Mismatch(Item),
    Damaged,
}

/// Receipts that one transaction removes at most, so that nobody waits long for it.
pub(super) const SWEPT_MAX: u64 = 1_024;

impl Append {
    /// Gives the write its id and seals what must be sealed.
    pub(super) fn prepare(
        self,
        id: ItemId,
        keyring: &Keyring,
        is_sensitive: impl Fn(&str) -> bool,
    ) -> Option<Prepared> {
        let NewWrite {
            mut item,
            fields,
            body,
            key,
        } = self.write;
        item.id = id;
        let stored = body.stored();
        let Some(content) = sealed_content(id, fields, stored, keyring, is_sensitive) else {
            // Whoever waits may be gone.
            let _ = self.reply.send(Err(AppendError::CredentialNotStorable));
            return None;
        };
        Some(Prepared {
            item,
            content,
            key,
            body,
            reply: self.reply,
        })
    }
}

impl Transition {
    /// Leaves the file of a new body, which a record names.
    pub(super) fn keep_body(&mut self) {
        if let Change::Replace {
            body: Some(body), ..
        }
        | Change::Import { body, .. } = &mut self.change
        {
            body.keep();
        }
    }

    /// Says that it is recorded.
    pub(super) fn answer(mut self) {
        let result = match self.change.is_existing() {
            true => Err(JournalError::Exists),
            false => {
                self.keep_body();
                Ok(())
            }
        };
        // Before the answer, so that nobody finds a file that is to go.
        drop(self.change);
        // Whoever waits may be gone.
        let _ = self.reply.send(result);
    }
}

impl TakenBack {
    fn new(id: ItemId, body: NewBody, room: Option<Room>) -> Self {
        let file = match body {
            NewBody::Spooled(file) => Some(file),
            // In the record, which goes.
            NewBody::Inline(_) => None,
        };
        Self { id, file, room }
    }

    pub(super) const fn id(&self) -> ItemId {
        self.id
    }

    /// The room that it still has.
    pub(super) const fn room(&self) -> Option<Room> {
        self.room
    }

    /// Leaves the file, which a record may name.
    pub(super) fn keep_file(&mut self) {
        if let Some(file) = &mut self.file {
            file.keep();
        }
    }
}

impl NewBody {
    /// What the record says of it.
    pub(super) fn stored(&self) -> StoredBody {
        match self {
            Self::Inline(body) => StoredBody::Inline(body.clone()),
            Self::Spooled(file) => file.stored(),
        }
    }

    /// Makes it durable as far as it is not in the record.
    pub(super) async fn sync(&mut self) -> io::Result<()> {
        match self {
            Self::Inline(_) => Ok(()),
            Self::Spooled(file) => file.sync().await,
        }
    }

    /// A record names its file now.
    pub(super) fn keep(&mut self) {
        if let Self::Spooled(file) = self {
            file.keep();
        }
    }
}

/// The content with what is sensitive sealed; `None` when there is no key for it.
pub(super) fn sealed_content(
    id: ItemId,
    fields: Vec<Field>,
    body: StoredBody,
    keyring: &Keyring,
    is_sensitive: impl Fn(&str) -> bool,
) -> Option<Content> {
    let (sensitive, fields): (Vec<_>, Vec<_>) =
        fields.into_iter().partition(|(name, _)| is_sensitive(name));
    let sealed = match sensitive.is_empty() {
        true => None,
        false => Some(keyring.seal(id, &sensitive)?),
    };
    Some(Content {
        fields,
        sealed,
        body,
    })
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.transitions.is_empty() && self.appends.is_empty() && self.unconfirmed.is_empty()
    }

    /// Tells everyone who waits for an append that there is none, or that nobody knows. What a failed commit may have left of
    /// them is to be removed.
    pub(super) fn refuse(&mut self, reason: Unavailable, unconfirmed: &mut Vec<TakenBack>) {
        for append in self.appends.drain(..) {
            self.unconfirmed.push(append.item.id);
            let (error, room) = match self.is_doubtful {
                true => (AppendError::Unknown, Some(Room::of(&append.item))),
                false => (AppendError::Unavailable(reason), None),
            };
            unconfirmed.push(TakenBack::new(append.item.id, append.body, room));
            // Whoever waits may be gone.
            let _ = append.reply.send(Err(error));
        }
    }

    /// Writes everything, in order. Running it again after a failure comes to the same.
    pub(super) fn apply(
        &mut self,
        tables: &mut Tables<'_>,
        written: &mut Written,
        seal: &dyn Fn(ItemId, Vec<Field>, StoredBody) -> Option<Content>,
        now: Timestamp,
    ) -> Result<(), DiskError> {
        for id in &self.unconfirmed {
            // Its file is held by the writer, and removed by it.
            tables.remove(*id)?;
        }
        for transition in &mut self.transitions {
            apply_change(&mut transition.change, tables, written, seal, now)?;
            if let Some(audit) = &transition.audit {
                tables.put_audit(audit)?;
            }
        }
        for append in &mut self.appends {
            // Of an earlier try, whose commit failed and may be there all the same.
            tables.remove(append.item.id)?;
            let outcome = append.apply(tables, now)?;
            written.appended.push(outcome);
        }
        Ok(())
    }
}

impl Prepared {
    fn apply(&mut self, tables: &mut Tables<'_>, now: Timestamp) -> Result<Appending, DiskError> {
        if let Some(key) = self.key {
            match tables.key(key)? {
                Sound::Missing => {}
                Sound::Damaged => return Ok(Appending::Damaged),
                Sound::Is(row) => match tables.item(row.id)?.filter(Item::holds_its_key) {
                    Some(known) if row.body_sha256 == self.item.body_sha256 => {
                        return Ok(Appending::Known(known));
                    }
                    Some(known) => return Ok(Appending::Mismatch(known)),
                    None => {}
                },
            }
            tables.put_key(key, &self.item)?;
        }
        tables.counters.seq += 1;
        tables.counters.last_id = tables.counters.last_id.max(Some(self.item.id));
        self.item.seq = tables.counters.seq;
        tables.put_content(&self.item, &self.content, self.key)?;
        tables.add_item(&self.item, now)?;
        Ok(Appending::New)
    }
}

fn apply_change(
    change: &mut Change,
    tables: &mut Tables<'_>,
    written: &mut Written,
    seal: &dyn Fn(ItemId, Vec<Field>, StoredBody) -> Option<Content>,
    now: Timestamp,
) -> Result<(), DiskError> {
    match change {
        Change::Update(item) => tables.put_item(item, now)?,
        Change::Answered { item, answer } => {
            tables.put_answer(item.id, answer)?;
            tables.put_item(item, now)?;
        }
        Change::End { item, answer } => {
            item.ended_at.get_or_insert(now);
            let ended = tables.end(item, answer.as_ref(), now)?;
            written.files.extend(ended.file);
        }
        Change::Replace { item, fields, body } => {
            let before = match tables.content(item.id)? {
                Sound::Is(row) => Some(row),
                _ => None,
            };
            let key = before.as_ref().and_then(|row| row.key);
            let before = before.map(|row| row.content.into_owned());
            let stored = match (&*body, &before) {
                (Some(body), _) => body.stored(),
                (None, Some(before)) => before.body.clone(),
                // Without its body it cannot be sent: it stays what it is.
                (None, None) => return Ok(()),
            };
            if let Some(content) = seal(item.id, fields.clone(), stored) {
                let new_file = file_of(&content);
                tables.put_content(item, &content, key)?;
                tables.put_item(item, now)?;
                let file = before.as_ref().and_then(file_of);
                // The same one where the body stays, or where this was written before.
                written
                    .files
                    .extend(file.filter(|file| new_file.as_ref() != Some(file)));
            }
        }
        Change::Import { item, fields, body } => {
            match tables.item(item.id)? {
                // Its own, of an earlier try whose commit failed and is there all the same.
                Some(found) if found.seq == item.seq => {}
                Some(_) => item.seq = 0,
                None => {
                    if let Some(content) = seal(item.id, fields.clone(), body.stored()) {
                        tables.counters.seq += 1;
                        tables.counters.last_id = tables.counters.last_id.max(Some(item.id));
                        item.seq = tables.counters.seq;
                        tables.put_content(item, &content, None)?;
                        tables.add_item(item, now)?;
                    }
                }
            }
        }
        Change::Remove(id) => {
            if let Some(left) = tables.remove(*id)? {
                written.files.extend(left.file);
            }
        }
        Change::Pause(pauses) => tables.put_pauses(pauses)?,
        Change::Note => {}
    }
    Ok(())
}

impl Written {
    /// Removes receipts of writes that ended by the moment from which they are outdated, or that are too many, oldest first;
    /// at most [`SWEPT_MAX`].
    pub(super) fn sweep(
        &mut self,
        tables: &mut Tables<'_>,
        limits: &ReceiptLimits,
        outdated: Timestamp,
    ) -> Result<(), DiskError> {
        while self.swept < SWEPT_MAX
            && let Some((at, id)) = tables.first_ended()?
        {
            let receipts = tables.receipts()?;
            if !limits.is_exceeded(receipts) && at > outdated {
                break;
            }
            let left = tables.remove_ended(at, id)?;
            self.files.extend(left.file);
            self.swept += 1;
        }
        Ok(())
    }
}

impl Appending {
    /// What the client's request is told.
    pub(super) fn answer(self, item: Item) -> Result<Appended, AppendError> {
        match self {
            Self::New => Ok(Appended::New(item)),
            Self::Known(known) => Ok(Appended::Known(known)),
            Self::Mismatch(known) => Err(AppendError::KeyMismatch(Box::new(known))),
            Self::Damaged => Err(AppendError::Unavailable(Unavailable::Damaged)),
        }
    }
}
