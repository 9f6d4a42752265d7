//! Writing a batch: body files first, then one transaction that names them.

use std::{collections::HashSet, sync::Arc};

use super::{
    Bodies, Disk, DiskError,
    reader::Corrupt,
    transaction::{Gone, NewRecord, Tables},
};
use crate::{
    policy::{CacheKey, Mark},
    store::{
        codec::{self, RecordBody},
        id::RecordId,
        resource::{BodyFile, StoredBody, StoredResponse, stronger},
    },
};

/// Records up to this hold their body. A little less than a power of two: redb gives a value of 32 KiB pages of 64 KiB.
const INLINE_RECORD_MAX: usize = 32 * 1024 - 512;

/// What changed and is not on disk yet.
#[derive(Debug, Default)]
pub(in crate::store) struct Batch {
    pub(in crate::store) changes: Vec<KeyChange>,
    /// Names and hits of what was used.
    pub(in crate::store) touches: Vec<(RecordId, u64)>,
    /// What a reader found corrupt.
    pub(in crate::store) corrupt: Vec<Corrupt>,
    /// Whether the responses are given up, for want of room on the disk.
    pub(in crate::store) skips_puts: bool,
}

/// What happens to one key, in this order.
#[derive(Clone, Debug)]
pub(in crate::store) struct KeyChange {
    pub(in crate::store) key: CacheKey,
    /// For every variant that is on disk.
    pub(in crate::store) mark: Option<Mark>,
    pub(in crate::store) removes: Vec<RecordId>,
    pub(in crate::store) puts: Vec<Arc<StoredResponse>>,
    /// Which of the puts are new responses; the others freshen what is on disk.
    pub(in crate::store) new: Vec<RecordId>,
}

/// What becomes of an older record when the put that would have replaced it is given up: it must not come back as good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) enum GivenUp {
    /// Another response took its place.
    Remove,
    /// Only its head was freshened: its body is still right, and worth having while disconnected.
    Mark(Mark),
}

/// What a batch came to.
#[derive(Debug, Default)]
pub(in crate::store) struct Written {
    /// The variants that the disk now has of the keys that changed.
    pub(in crate::store) on_disk: Vec<(CacheKey, Vec<RecordId>)>,
    /// What was removed along the way. Its body files are still there: see [`Disk::remove_bodies`].
    pub(in crate::store) gone: Vec<Gone>,
    pub(in crate::store) evicted: u64,
    pub(in crate::store) corrupt: u64,
}

/// A put with its record made and its body file, if it has one, written.
struct Prepared<'a> {
    key: &'a CacheKey,
    stored: &'a StoredResponse,
    record: Vec<u8>,
    file: Option<u64>,
    is_file_new: bool,
}

impl KeyChange {
    /// What becomes of the record that `put` would have replaced.
    fn given_up(&self, put: &StoredResponse) -> GivenUp {
        GivenUp::of(put, self.new.contains(&put.id()))
    }
}

impl GivenUp {
    pub(in crate::store) fn of(put: &StoredResponse, is_new: bool) -> Self {
        if is_new {
            Self::Remove
        } else {
            Self::Mark(stronger(Mark::Stale, put.head.mark))
        }
    }
}

impl Batch {
    pub(in crate::store) fn is_empty(&self) -> bool {
        self.changes.is_empty() && self.touches.is_empty() && self.corrupt.is_empty()
    }

    /// How many responses are in it.
    pub(in crate::store) fn puts(&self) -> usize {
        self.changes.iter().map(|change| change.puts.len()).sum()
    }
}

impl Disk {
    /// Writes a batch, durably. When it fails nothing of it is on disk.
    pub(in crate::store) fn write(&self, batch: &Batch) -> Result<Written, DiskError> {
        let prepared = self.prepare_all(batch)?;
        let new_files = prepared
            .iter()
            .filter(|put| put.is_file_new)
            .filter_map(|put| put.file);
        let written = self
            .bodies
            .sync_directories(new_files.clone())
            .map_err(DiskError::Body)
            .and_then(|()| self.transact(|tables| self.apply(tables, batch, &prepared)));
        if written.is_err() {
            new_files.for_each(|file| self.bodies.remove(file));
        }
        written
    }

    /// Removes the body files of what is gone, after the commit that forgot them.
    pub(in crate::store) fn remove_bodies(&self, gone: &[Gone]) {
        for file in gone.iter().filter_map(|gone| gone.body_file) {
            self.bodies.remove(file);
        }
    }

    fn apply(
        &self,
        tables: &mut Tables<'_>,
        batch: &Batch,
        prepared: &[Prepared<'_>],
    ) -> Result<Written, DiskError> {
        let mut written = Written::default();
        let kept: HashSet<_> = prepared.iter().map(|put| put.stored.id()).collect();
        for change in &batch.changes {
            self.apply_marks_and_removes(tables, &kept, change, &mut written)?;
        }
        for put in prepared {
            written.gone.extend(tables.put(&put.new_record())?);
            let key = put.stored.id().key();
            written.gone.extend(tables.cap_variants(key)?);
        }
        for (id, hits) in &batch.touches {
            tables.touch(*id, *hits)?;
        }
        for corrupt in &batch.corrupt {
            written.remove_corrupt(tables, corrupt)?;
        }
        let evicted = tables.evict(self.budget)?;
        written.evicted = evicted.len() as u64;
        written.gone.extend(evicted);
        for change in &batch.changes {
            let id = self.namer.key(change.key.as_str());
            let on_disk = tables.variants(id)?.into_iter().map(|(id, _)| id);
            written
                .on_disk
                .push((change.key.clone(), on_disk.collect()));
        }
        Ok(written)
    }

    fn apply_marks_and_removes(
        &self,
        tables: &mut Tables<'_>,
        kept: &HashSet<RecordId>,
        change: &KeyChange,
        written: &mut Written,
    ) -> Result<(), DiskError> {
        if let Some(mark) = change.mark {
            let key = self.namer.key(change.key.as_str());
            for (id, _) in tables.variants(key)? {
                tables.mark(id, mark)?;
            }
        }
        // A put replaces its record, and may go on with the body file of it.
        for id in change.removes.iter().filter(|id| !kept.contains(id)) {
            written.gone.extend(tables.remove(*id)?);
        }
        for put in change.puts.iter().filter(|put| !kept.contains(&put.id())) {
            match change.given_up(put) {
                GivenUp::Remove => written.gone.extend(tables.remove(put.id())?),
                GivenUp::Mark(mark) => tables.mark(put.id(), mark)?,
            }
        }
        Ok(())
    }

    fn prepare_all<'a>(&self, batch: &'a Batch) -> Result<Vec<Prepared<'a>>, DiskError> {
        let mut prepared = Vec::new();
        if batch.skips_puts {
            return Ok(prepared);
        }
        for change in &batch.changes {
            for stored in &change.puts {
                match self.prepare(&change.key, stored) {
                    Ok(put) => prepared.extend(put),
                    Err(error) => {
                        self.discard(&prepared);
                        return Err(error);
                    }
                }
            }
        }
        Ok(prepared)
    }

    /// `None`: its body file is gone, and the stored response with it.
    fn prepare<'a>(
        &self,
        key: &'a CacheKey,
        stored: &'a StoredResponse,
    ) -> Result<Option<Prepared<'a>>, DiskError> {
        let id = stored.id();
        let with_file = |file: &BodyFile, is_file_new| {
            Some(Prepared {
                key,
                stored,
                record: codec::encode_with_file(id, key, &stored.head, file),
                file: Some(file.id),
                is_file_new,
            })
        };
        let body = match &stored.body {
            StoredBody::File(file) => {
                let is_there = self.file_of(id)?.is_some_and(|there| there == *file);
                return Ok(is_there.then(|| with_file(file, false)).flatten());
            }
            StoredBody::Memory(body) => body,
        };
        if body.len() <= INLINE_RECORD_MAX {
            let record = codec::encode_inline(id, key, &stored.head, body);
            // An empty body has no blocks to put into a file.
            if record.len() <= INLINE_RECORD_MAX || body.is_empty() {
                return Ok(Some(Prepared {
                    key,
                    stored,
                    record,
                    file: None,
                    is_file_new: false,
                }));
            }
        }
        let blocks = Bodies::checksums(body);
        // A freshened or marked response has the body that is on disk already.
        let same = self
            .file_of(id)?
            .filter(|file| file.len == body.len() as u64 && file.blocks == blocks);
        if let Some(file) = same {
            return Ok(with_file(&file, false));
        }
        let file = self.bodies.write(body, blocks).map_err(DiskError::Body)?;
        Ok(with_file(&file, true))
    }

    fn file_of(&self, id: RecordId) -> Result<Option<BodyFile>, DiskError> {
        // A database that cannot be read is recovered by the transaction that follows.
        let record = self.record(id).unwrap_or_default();
        Ok(record.and_then(|(record, _)| match record.body {
            RecordBody::File(file) => Some(file),
            RecordBody::Inline(_) => None,
        }))
    }

    fn discard(&self, prepared: &[Prepared<'_>]) {
        for put in prepared.iter().filter(|put| put.is_file_new) {
            if let Some(file) = put.file {
                self.bodies.remove(file);
            }
        }
    }
}

impl Prepared<'_> {
    fn new_record(&self) -> NewRecord<'_> {
        NewRecord {
            id: self.stored.id(),
            key: self.key,
            head: &self.stored.head,
            record: &self.record,
            body_bytes: self.stored.body.len(),
            body_file: self.file,
            hits: self.stored.hits(),
        }
    }
}

impl Written {
    /// Removes it unless it has been replaced since by something sound.
    fn remove_corrupt(
        &mut self,
        tables: &mut Tables<'_>,
        corrupt: &Corrupt,
    ) -> Result<(), DiskError> {
        let usage = tables.usage_of(corrupt.id)?;
        let is_still_corrupt = match corrupt.body_file {
            Some(file) => usage.is_some_and(|usage| usage.body_file == file),
            None => usage.is_none() || !tables.has_sound_record(corrupt.id)?,
        };
        if is_still_corrupt && let Some(gone) = tables.remove(corrupt.id)? {
            self.gone.push(gone);
            self.corrupt += 1;
        }
        Ok(())
    }
}
