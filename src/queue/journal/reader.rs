//! Reading: one write, its content, its answer; lists; the audit.

use std::ops::Bound;

use redb::ReadTransaction;

use super::{
    super::{
        item::{Answer, Content, Item, ItemId, StoredBody},
        outlet::DeliveryBody,
        seal::OpenSealedError,
    },
    Inner,
    change::{AuditEntry, Field, KeyHash},
    error::{DiskError, JournalError},
    rebuild,
    spool::BodyError,
    tables::{ANSWERS, AUDIT, CONTENTS, ContentRow, ITEMS, ItemRow, KEYS, KeyRow, name},
    transaction::{Sound, codec_row, file_of},
};

/// What is sent of a write.
#[derive(Debug)]
pub(in crate::queue) struct Opened {
    /// Every field, the sealed ones last.
    pub(in crate::queue) fields: Vec<Field>,
    /// The body, verified.
    pub(in crate::queue) body: DeliveryBody,
}

/// Why the content of a write cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(in crate::queue) enum ContentError {
    /// There is none, or it is not what was written. Whoever has claimed the write gives it up (`corrupt`); for whoever has
    /// not it may have been delivered meanwhile.
    #[error("the content of the write is damaged")]
    Damaged,
    /// Its credentials do not open with the keys there are: the write is to be parked (`auth`).
    #[error(transparent)]
    Sealed(#[from] OpenSealedError),
    /// It cannot be read now.
    #[error(transparent)]
    Unavailable(#[from] JournalError),
}

impl Inner {
    pub(super) fn item(&self, id: ItemId) -> Result<Option<Item>, DiskError> {
        self.disk.read_confirmed(|transaction, unconfirmed| {
            if unconfirmed.contains(id) {
                return Ok(None);
            }
            let items = transaction.open_table(ITEMS)?;
            let row = items.get(id.as_bytes())?;
            match row {
                None => Ok(None),
                Some(row) => self.item_of(transaction, id, row.value()).map(Some),
            }
        })
    }

    /// The write, which the caller has claimed: there is a record of it.
    ///
    /// # Errors
    /// [`DiskError::Damaged`] also where that is not found.
    pub(super) fn claimed(&self, id: ItemId) -> Result<Item, DiskError> {
        self.disk.read(|transaction| {
            let items = transaction.open_table(ITEMS)?;
            let row = items.get(id.as_bytes())?;
            let row = row.ok_or(DiskError::Damaged("a write is not found by its id"))?;
            self.item_of(transaction, id, row.value())
        })
    }

    /// The write that has this idempotency key, with what the key came with.
    pub(super) fn known(&self, key: KeyHash) -> Result<Option<(KeyRow, Item)>, DiskError> {
        let row = self.disk.read(|transaction| {
            let keys = transaction.open_table(KEYS)?;
            let row = keys.get(key.as_bytes())?;
            let row = row.as_ref().map(|row| row.value());
            Ok(match self.sound(name::KEYS, key.as_bytes(), row) {
                Sound::Is(row) => Some::<KeyRow>(row),
                // Appending it finds out, and says so.
                _ => None,
            })
        })?;
        let Some(row) = row else {
            return Ok(None);
        };
        let item = self.item(row.id)?.filter(Item::holds_its_key);
        Ok(item.map(|item| (row, item)))
    }

    /// The write of this row; made again from its content where the row is damaged.
    pub(super) fn item_of(
        &self,
        transaction: &ReadTransaction,
        id: ItemId,
        row: &[u8],
    ) -> Result<Item, DiskError> {
        match self.sound(name::ITEMS, id.as_bytes(), Some(row)) {
            Sound::Is(ItemRow { item, .. }) => Ok(item.into_owned()),
            _ => Ok(match self.content_of(transaction, id)? {
                Sound::Is(row) => rebuild::from_content(row.accepted.into_owned()),
                _ => rebuild::placeholder(id),
            }),
        }
    }

    /// At most `limit` writes after this one, in order of acceptance.
    pub(super) fn page(&self, after: Option<ItemId>, limit: usize) -> Result<Vec<Item>, DiskError> {
        self.disk.read_confirmed(|transaction, unconfirmed| {
            let items = transaction.open_table(ITEMS)?;
            let from = match &after {
                Some(id) => Bound::Excluded(id.as_bytes()),
                None => Bound::Unbounded,
            };
            let rows = items.range::<&[u8; 16]>((from, Bound::Unbounded))?;
            let mut items = Vec::new();
            for row in rows {
                if items.len() >= limit {
                    break;
                }
                let (id, row) = row?;
                let id = ItemId::from_bytes(*id.value());
                if !unconfirmed.contains(id) {
                    items.push(self.item_of(transaction, id, row.value())?);
                }
            }
            Ok(items)
        })
    }

    /// The content as it is stored. `None`: it is damaged, or the write has ended.
    ///
    /// # Errors
    /// [`DiskError::Damaged`] also where that of a write that has not ended is not found.
    pub(super) fn stored_content(&self, id: ItemId) -> Result<Option<Content>, DiskError> {
        self.disk
            .read(|transaction| match self.content_of(transaction, id)? {
                Sound::Is(row) => Ok(Some(row.content.into_owned())),
                Sound::Missing if self.is_pending_or_stuck(transaction, id)? => {
                    Err(DiskError::Damaged("a content is not found by its id"))
                }
                Sound::Missing | Sound::Damaged => Ok(None),
            })
    }

    /// Whether a write is known not to have ended.
    fn is_pending_or_stuck(
        &self,
        transaction: &ReadTransaction,
        id: ItemId,
    ) -> Result<bool, DiskError> {
        let items = transaction.open_table(ITEMS)?;
        let row = items.get(id.as_bytes())?;
        let row = row.as_ref().map(|row| row.value());
        let row: Sound<ItemRow<'_>> = self.sound(name::ITEMS, id.as_bytes(), row);
        Ok(matches!(row, Sound::Is(row) if !row.item.state.is_ended()))
    }

    /// Everything that is sent, opened and verified.
    pub(super) fn content(&self, id: ItemId) -> Result<Opened, ContentError> {
        let stored = self.stored_content(id).map_err(JournalError::from)?;
        // Or it was delivered since the caller looked.
        let stored = stored.ok_or(ContentError::Damaged)?;
        let mut fields = stored.fields;
        if let Some(sealed) = &stored.sealed {
            fields.extend(self.keyring.open(id, sealed)?);
        }
        let body = self.body(id, stored.body)?;
        Ok(Opened { fields, body })
    }

    /// The body of this write as it was stored when the caller looked, verified.
    pub(super) fn body(
        &self,
        id: ItemId,
        stored: StoredBody,
    ) -> Result<DeliveryBody, ContentError> {
        match stored {
            StoredBody::Inline(body) => Ok(DeliveryBody::Whole(body)),
            StoredBody::File {
                name,
                bytes,
                checksum,
            } => match self.spool.verify(&name, bytes, checksum) {
                Ok(()) => Ok(DeliveryBody::File {
                    path: self.spool.path(&name),
                    bytes,
                }),
                Err(BodyError::Damaged) => {
                    // It goes with the delivery, and with an edit.
                    let stored = self.stored_content(id).map_err(JournalError::from)?;
                    if stored
                        .as_ref()
                        .and_then(file_of)
                        .is_some_and(|file| file == name)
                    {
                        self.disk.damage.note_record("spool", name.as_bytes());
                    }
                    Err(ContentError::Damaged)
                }
                Err(BodyError::Io(error)) => Err(JournalError::Unavailable(error).into()),
            },
        }
    }

    pub(super) fn answer(&self, id: ItemId) -> Result<Option<Answer>, DiskError> {
        self.disk.read_confirmed(|transaction, unconfirmed| {
            if unconfirmed.contains(id) {
                return Ok(None);
            }
            let answers = transaction.open_table(ANSWERS)?;
            let row = answers.get(id.as_bytes())?;
            let row = row.as_ref().map(|row| row.value());
            Ok(match self.sound(name::ANSWERS, id.as_bytes(), row) {
                Sound::Is(answer) => Some(answer),
                _ => None,
            })
        })
    }

    /// At most `limit` entries before this number, the latest first, with their numbers.
    pub(super) fn audit(
        &self,
        before: Option<u64>,
        limit: usize,
    ) -> Result<Vec<(u64, AuditEntry)>, DiskError> {
        self.disk.read(|transaction| {
            let audit = transaction.open_table(AUDIT)?;
            let before = before.unwrap_or(u64::MAX).to_be_bytes();
            let mut entries = Vec::new();
            for row in audit.range::<&[u8; 8]>(..&before)?.rev().take(limit) {
                let (key, row) = row?;
                if let Sound::Is(entry) = self.sound(name::AUDIT, key.value(), Some(row.value())) {
                    entries.push((u64::from_be_bytes(*key.value()), entry));
                }
            }
            Ok(entries)
        })
    }

    pub(super) fn content_of(
        &self,
        transaction: &ReadTransaction,
        id: ItemId,
    ) -> Result<Sound<ContentRow<'static>>, DiskError> {
        let contents = transaction.open_table(CONTENTS)?;
        let row = contents.get(id.as_bytes())?;
        let row = row.as_ref().map(|row| row.value());
        Ok(self.sound(name::CONTENTS, id.as_bytes(), row))
    }

    pub(super) fn sound<T: serde::de::DeserializeOwned>(
        &self,
        table: &'static str,
        key: &[u8],
        row: Option<&[u8]>,
    ) -> Sound<T> {
        codec_row(self.disk.codec, &self.disk.damage, table, key, row)
    }
}
