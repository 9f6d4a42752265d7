//! Purges on disk: what a matcher selects is counted, marked or removed, in chunks of short transactions.

use std::collections::HashSet;

use redb::ReadableTable;

use super::{
    Disk, DiskError, parse_uri_row,
    reader::bounds,
    transaction::{Gone, Tables},
};
use crate::store::{
    id::RecordId,
    purges::{Matcher, RowRange},
    resource::Effect,
};

/// Rows looked at in one transaction: some milliseconds of work.
const CHUNK_ROWS: usize = 1_024;

/// URLs that a purge shows of what it selected.
pub(in crate::store) const SAMPLE_MAX: usize = 20;

/// What a purge selected on disk.
#[derive(Debug, Default)]
pub(in crate::store) struct Selected {
    pub(in crate::store) count: u64,
    pub(in crate::store) sample: Vec<String>,
}

impl Disk {
    /// Removes or marks what `matcher` selects, durably, or counts it. Names found are taken out of `elsewhere`.
    pub(in crate::store) fn select(
        &self,
        matcher: &Matcher,
        effect: Option<Effect>,
        elsewhere: &mut HashSet<RecordId>,
    ) -> Result<Selected, DiskError> {
        let result = match self.try_select(matcher, effect, elsewhere) {
            Err(error) if self.recover(&error) => self.try_select(matcher, effect, elsewhere),
            result => result,
        };
        if result.is_err() {
            self.suspend();
        }
        result
    }

    fn try_select(
        &self,
        matcher: &Matcher,
        effect: Option<Effect>,
        elsewhere: &mut HashSet<RecordId>,
    ) -> Result<Selected, DiskError> {
        let mut selected = Selected::default();
        for range in matcher.ranges() {
            let mut after = None;
            loop {
                let is_wanted = |key: &_| matcher.matches(key);
                let rows = self.rows(&range, after.as_deref(), CHUNK_ROWS, is_wanted)?;
                for row in &rows.rows {
                    elsewhere.remove(&row.id);
                    selected.add(row.key.uri());
                }
                if let Some(effect) = effect
                    && !rows.rows.is_empty()
                {
                    self.change_chunk(matcher, effect, &range, after.as_deref())?;
                }
                let Some(resume_after) = rows.resume_after else {
                    break;
                };
                after = Some(resume_after);
            }
        }
        Ok(selected)
    }

    fn change_chunk(
        &self,
        matcher: &Matcher,
        effect: Effect,
        range: &RowRange,
        after: Option<&[u8]>,
    ) -> Result<(), DiskError> {
        let gone = self.transact(|tables| match effect {
            Effect::Remove => tables.remove_chunk(matcher, range, after),
            Effect::Mark(mark) => {
                for (_, id) in tables.chunk(matcher, range, after)? {
                    tables.mark(id, mark)?;
                }
                Ok(Vec::new())
            }
        })?;
        self.remove_bodies(&gone);
        Ok(())
    }
}

impl Tables<'_> {
    fn chunk(
        &self,
        matcher: &Matcher,
        range: &RowRange,
        after: Option<&[u8]>,
    ) -> Result<Vec<(Vec<u8>, RecordId)>, DiskError> {
        let rows = self.uris.range::<&[u8]>(bounds(range, after))?;
        let mut chunk = Vec::new();
        for row in rows.take(CHUNK_ROWS) {
            let row = row?.0.value().to_vec();
            if let Some((key, id)) = parse_uri_row(&row)
                && matcher.matches(&key)
            {
                chunk.push((row, id));
            }
        }
        Ok(chunk)
    }

    fn remove_chunk(
        &mut self,
        matcher: &Matcher,
        range: &RowRange,
        after: Option<&[u8]>,
    ) -> Result<Vec<Gone>, DiskError> {
        let mut gone = Vec::new();
        for (row, id) in self.chunk(matcher, range, after)? {
            gone.extend(self.remove(id)?);
            // Also where the record could not say which row is its own.
            self.uris.remove(row.as_slice())?;
        }
        Ok(gone)
    }
}

impl Selected {
    pub(in crate::store) fn add(&mut self, uri: &str) {
        self.count += 1;
        self.sample(uri);
    }

    /// Adds to the sample, where it has room.
    pub(in crate::store) fn sample(&mut self, uri: &str) {
        if self.sample.len() < SAMPLE_MAX && !self.sample.iter().any(|sampled| sampled == uri) {
            self.sample.push(uri.to_owned());
        }
    }
}
