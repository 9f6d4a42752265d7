//! Reading the disk tier: the stored responses of a key, and rows in order for listings.

use std::ops::Bound;

use super::{
    BlockError, Disk, DiskError, Usage, at_hand, parse_uri_row,
    snapshot::Snapshot,
    tables::{TAGS, URIS, tag_row_id},
};
use crate::{
    policy::{CacheKey, SearchVariation},
    store::{
        codec::{self, Record, RecordBody},
        id::{PublicId, RecordId},
        labels::Label,
        matcher::RowRange,
        resource::{BodyFile, StoredBody, StoredResponse},
    },
};

/// Bodies up to this are read whole when they are found, so that the next hit has them in memory.
const WHOLE_BODY_MAX: u64 = 1024 * 1024;

/// And all variants of a key together up to this.
const WHOLE_BODIES_MAX: u64 = 4 * 1024 * 1024;

/// What the disk has of one key.
#[derive(Debug, Default)]
pub(in crate::store) struct Found {
    /// Most recently stored first.
    pub(in crate::store) variants: Vec<StoredResponse>,
    pub(in crate::store) corrupt: Vec<Corrupt>,
}

impl Found {
    pub(in crate::store) fn is_empty(&self) -> bool {
        self.variants.is_empty() && self.corrupt.is_empty()
    }
}

/// A stored response that is not what was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(in crate::store) struct Corrupt {
    pub(in crate::store) id: RecordId,
    /// The body file that is corrupt; `None`: the record or its usage row.
    pub(in crate::store) body_file: Option<u64>,
}

/// A row of the listing order.
#[derive(Clone, Debug)]
pub(in crate::store) struct Row {
    pub(in crate::store) row: Vec<u8>,
    pub(in crate::store) key: CacheKey,
    pub(in crate::store) id: RecordId,
    pub(in crate::store) usage: Usage,
}

/// Some rows, and the last one that was looked at where there may be more.
#[derive(Debug, Default)]
pub(in crate::store) struct Rows {
    pub(in crate::store) rows: Vec<Row>,
    pub(in crate::store) resume_after: Option<Vec<u8>>,
}

/// A row of what is filed under a label.
#[derive(Clone, Debug)]
pub(in crate::store) struct Labelled {
    pub(in crate::store) row: Vec<u8>,
    pub(in crate::store) id: RecordId,
    pub(in crate::store) usage: Usage,
    /// `None` where the record is too corrupt to say it.
    pub(in crate::store) key: Option<CacheKey>,
}

/// What the database has of one key, bodies in files still to be read.
#[derive(Default)]
pub(in crate::store) struct Records {
    sound: Vec<(RecordId, Record, Usage)>,
    corrupt: Vec<Corrupt>,
}

/// Bytes of records that are read where nothing may be waited for; more of them would keep others waiting.
const AT_HAND_BYTES: usize = 128 * 1024;

impl Records {
    /// Whether nothing is corrupt, and no body lies in a file.
    pub(in crate::store) fn are_whole(&self) -> bool {
        let mut bodies = self.sound.iter().map(|(_, record, _)| &record.body);
        self.corrupt.is_empty() && bodies.all(|body| matches!(body, RecordBody::Inline(_)))
    }

    /// Whether some bodies lie in files, and are small enough to be read whole.
    pub(in crate::store) fn need_files(&self) -> bool {
        self.sound.iter().any(|(_, record, _)| {
            matches!(&record.body, RecordBody::File(file) if file.len <= WHOLE_BODY_MAX)
        })
    }
}

impl Disk {
    /// Every stored response of `key`, with small bodies in memory.
    pub(in crate::store) fn find(&self, key: &CacheKey) -> Result<Found, DiskError> {
        let records = self.read(|snapshot| self.records_of(snapshot, key))?;
        Ok(self.found(records))
    }

    /// The records of `key`, where the system has them at hand, and they are not large.
    pub(in crate::store) fn records_at_hand(&self, key: &CacheKey) -> Option<Records> {
        self.read_at_hand(|snapshot| self.records_of(snapshot, key))
    }

    /// What these records are, with small bodies in memory.
    pub(in crate::store) fn found(&self, records: Records) -> Found {
        let mut found = Found {
            variants: Vec::with_capacity(records.sound.len()),
            corrupt: records.corrupt,
        };
        let mut whole_bytes = 0;
        for (id, record, usage) in records.sound {
            let body = match record.body {
                RecordBody::Inline(body) => StoredBody::Memory(body),
                RecordBody::File(file) => match self.whole_or_file(file, &mut whole_bytes) {
                    Ok(body) => body,
                    Err(body_file) => {
                        let body_file = Some(body_file);
                        found.corrupt.push(Corrupt { id, body_file });
                        continue;
                    }
                },
            };
            let mut head = record.head;
            head.mark = usage.mark;
            // Reported at the epoch: its first hit is news to the order of use.
            let stored = StoredResponse::new(id, head, body).with_use(usage.hits, 0);
            found.variants.push(stored);
        }
        found
            .variants
            .sort_by_key(|stored| std::cmp::Reverse(stored.head.response_time));
        found
    }

    /// Whether there is anything of `key`.
    pub(in crate::store) fn has_any(&self, key: &CacheKey) -> Result<bool, DiskError> {
        let (low, high) = self.namer.key(key.as_str()).bounds();
        self.read(|snapshot| {
            let usage = &snapshot.usage;
            let mut rows = usage.range::<&[u8; 24]>(&low..=&high)?;
            Ok(rows.next().transpose()?.is_some())
        })
    }

    /// The record and usage of one stored response, where both are sound.
    pub(in crate::store) fn record(
        &self,
        id: RecordId,
    ) -> Result<Option<(Record, Usage)>, DiskError> {
        self.read(|snapshot| {
            let records = &snapshot.records;
            let usage = &snapshot.usage;
            let record = records
                .get(&id.0)?
                .and_then(|bytes| codec::decode(id, bytes.value()).ok());
            let usage = usage
                .get(&id.0)?
                .and_then(|row| Usage::decode(id, row.value()));
            Ok(record.zip(usage))
        })
    }

    /// The name and key of the stored response with this public id.
    pub(in crate::store) fn named(
        &self,
        public: PublicId,
    ) -> Result<Option<(RecordId, CacheKey)>, DiskError> {
        let id = self.read(|snapshot| {
            let usage = &snapshot.usage;
            let (low, high) = public.bounds();
            for row in usage.range::<&[u8; 24]>(&low..=&high)? {
                let id = RecordId(*row?.0.value());
                if id.public() == public {
                    return Ok(Some(id));
                }
            }
            Ok(None)
        })?;
        let Some(id) = id else {
            return Ok(None);
        };
        Ok(self.record(id)?.map(|(record, _)| (id, record.key)))
    }

    /// The next rows of `range` after `after`, at most `limit` looked at; those of keys that are not wanted are left out.
    pub(in crate::store) fn rows(
        &self,
        range: &RowRange,
        after: Option<&[u8]>,
        limit: usize,
        is_wanted: impl Fn(&CacheKey) -> bool,
    ) -> Result<Rows, DiskError> {
        self.read(|snapshot| {
            let uris = snapshot.transaction.open_table(URIS)?;
            let usage = &snapshot.usage;
            let mut looked_at = 0;
            let mut rows = Rows::default();
            for row in uris.range::<&[u8]>(bounds(range, after))?.take(limit) {
                let row = row?.0.value().to_vec();
                looked_at += 1;
                if let Some((key, id)) = parse_uri_row(&row)
                    && is_wanted(&key)
                    && let Some(usage) = usage.get(&id.0)?
                    && let Some(usage) = Usage::decode(id, usage.value())
                {
                    let row = row.clone();
                    rows.rows.push(Row {
                        row,
                        key,
                        id,
                        usage,
                    });
                }
                rows.resume_after = Some(row);
            }
            if looked_at < limit {
                rows.resume_after = None;
            }
            Ok(rows)
        })
    }

    /// The next rows of what is filed under a label (`range`) after `after`, at most `limit` looked at, and the last one
    /// that was looked at where there may be more.
    pub(in crate::store) fn labelled(
        &self,
        range: &RowRange,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<(Vec<Labelled>, Option<Vec<u8>>), DiskError> {
        self.read(|snapshot| {
            let tags = snapshot.transaction.open_table(TAGS)?;
            let records = &snapshot.records;
            let usage = &snapshot.usage;
            let (mut labelled, mut looked_at, mut last) = (Vec::new(), 0, None);
            for row in tags.range::<&[u8]>(bounds(range, after))?.take(limit) {
                let row = row?.0.value().to_vec();
                looked_at += 1;
                if let Some(id) = tag_row_id(&row)
                    && let Some(usage) = usage.get(&id.0)?
                    && let Some(usage) = Usage::decode(id, usage.value())
                {
                    let record = records.get(&id.0)?;
                    let filed = record.and_then(|bytes| codec::filed(bytes.value()));
                    labelled.push(Labelled {
                        row: row.clone(),
                        id,
                        usage,
                        key: filed.map(|(key, _)| key),
                    });
                }
                last = Some(row);
            }
            Ok((labelled, last.filter(|_| looked_at == limit)))
        })
    }

    /// Keys of what is filed under a label, at most `limit`.
    pub(in crate::store) fn keys_labelled(
        &self,
        label: &Label,
        limit: usize,
    ) -> Result<Vec<CacheKey>, DiskError> {
        let range = RowRange::starting(&label.row_prefix());
        let (labelled, _) = self.labelled(&range, None, limit)?;
        Ok(labelled.into_iter().filter_map(|one| one.key).collect())
    }

    /// By which variations what is stored under a path answers other queries, at most `limit`.
    pub(in crate::store) fn variations(
        &self,
        path: &str,
        limit: usize,
    ) -> Result<Vec<SearchVariation>, DiskError> {
        let mut range = RowRange::starting(&Label::search_prefix(path, None));
        self.read(|snapshot| {
            let tags = snapshot.transaction.open_table(TAGS)?;
            let records = &snapshot.records;
            let mut variations = Vec::new();
            // One row of each variation is enough: the next one is looked for behind all of them.
            while variations.len() < limit
                && let Some(row) = tags.range::<&[u8]>(bounds(&range, None))?.next()
            {
                let row = row?.0.value().to_vec();
                let record = tag_row_id(&row).map(|id| records.get(&id.0)).transpose()?;
                let filed = record
                    .flatten()
                    .and_then(|bytes| codec::filed(bytes.value()));
                match filed.and_then(|(_, terms)| terms.search.map(|search| *search)) {
                    Some(variation) => {
                        let prefix = Label::search_prefix(path, Some(&variation));
                        let behind = RowRange::starting(&prefix).until.unwrap_or_default();
                        // Also where the row is of another variation than its record has.
                        range.from = behind.max([&row[..], &[0]].concat());
                        variations.push(variation);
                    }
                    None => range.from = [&row[..], &[0]].concat(),
                }
            }
            Ok(variations)
        })
    }

    /// The paths after `after` under which something answers other queries, at most `limit`.
    pub(in crate::store) fn search_paths(
        &self,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<String>, DiskError> {
        let mut range = RowRange::starting(&Label::search_prefix("", None)[..1]);
        self.read(|snapshot| {
            let tags = snapshot.transaction.open_table(TAGS)?;
            let mut paths: Vec<String> = Vec::new();
            while paths.len() < limit {
                if let Some(last) = paths.last().map(String::as_str).or(after) {
                    let prefix = Label::search_prefix(last, None);
                    range.from = RowRange::starting(&prefix).until.unwrap_or_default();
                }
                let Some(row) = tags.range::<&[u8]>(bounds(&range, None))?.next() else {
                    break;
                };
                let row = row?.0.value().to_vec();
                let Some(path) = Label::search_path(&row) else {
                    break;
                };
                paths.push(path.to_owned());
            }
            Ok(paths)
        })
    }

    /// Rows of the `tags` table, whatever they are good for.
    #[cfg(test)]
    pub(in crate::store) fn tag_rows(&self) -> u64 {
        use redb::ReadableTableMetadata as _;
        self.read(|snapshot| Ok(snapshot.transaction.open_table(TAGS)?.len()?))
            .unwrap()
    }

    fn records_of(&self, snapshot: &Snapshot, key: &CacheKey) -> Result<Records, DiskError> {
        let (low, high) = self.namer.key(key.as_str()).bounds();
        let (mut records, mut read_bytes) = (Records::default(), 0);
        for row in snapshot.records.range::<&[u8; 24]>(&low..=&high)? {
            let (id, bytes) = row?;
            read_bytes += bytes.value().len();
            if read_bytes > AT_HAND_BYTES && !at_hand::may_wait() {
                at_hand::give_up();
            }
            let id = RecordId(*id.value());
            let usage = snapshot
                .usage
                .get(&id.0)?
                .and_then(|row| Usage::decode(id, row.value()));
            match (codec::decode(id, bytes.value()), usage) {
                (Ok(record), Some(usage)) if record.key == *key => {
                    records.sound.push((id, record, usage));
                }
                // Another key of the same name: as if it were not there.
                (Ok(_), Some(_)) => {}
                _ => records.corrupt.push(Corrupt {
                    id,
                    body_file: None,
                }),
            }
        }
        Ok(records)
    }

    /// The body in memory, where it is small; `Err`: the name of the file, which is corrupt.
    fn whole_or_file(&self, file: BodyFile, whole_bytes: &mut u64) -> Result<StoredBody, u64> {
        let is_small = file.len <= WHOLE_BODY_MAX && *whole_bytes + file.len <= WHOLE_BODIES_MAX;
        if !is_small {
            return Ok(StoredBody::File(file));
        }
        match self.bodies.read(&file) {
            Ok(body) => {
                *whole_bytes += file.len;
                Ok(StoredBody::Memory(body))
            }
            Err(BlockError::Corrupt) => Err(file.id),
            // Perhaps it can be read later; whoever reads the body is told then.
            Err(BlockError::Io(_)) => Ok(StoredBody::File(file)),
        }
    }
}

pub(super) fn bounds<'a>(
    range: &'a RowRange,
    after: Option<&'a [u8]>,
) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    let from = match after {
        Some(after) if after >= range.from.as_slice() => Bound::Excluded(after),
        _ => Bound::Included(range.from.as_slice()),
    };
    let until = range
        .until
        .as_deref()
        .map_or(Bound::Unbounded, Bound::Excluded);
    match (&from, &until) {
        // A range that ends before it begins is one that redb does not take.
        (Bound::Excluded(from), Bound::Excluded(until)) if from >= until => {
            (Bound::Included(*until), Bound::Excluded(*until))
        }
        _ => (from, until),
    }
}
