//! Purges on disk: what a matcher selects is counted, marked or removed, in chunks of short transactions. What is marked
//! already costs no commit.

use std::collections::HashSet;

use redb::ReadableTable;

use super::{
    Disk, DiskError, Labelled, Row, parse_uri_row,
    reader::bounds,
    transaction::{Gone, Tables},
};
use crate::{
    policy::{CacheKey, Mark},
    store::{
        id::RecordId,
        labels::Label,
        matcher::{Matcher, RowRange, split_query},
        resource::{Effect, stronger},
    },
};

/// Rows looked at in one transaction: some milliseconds of work.
const CHUNK_ROWS: usize = 1_024;

/// URLs that a purge shows of what it selected.
pub(in crate::store) const SAMPLE_MAX: usize = 20;

/// What to select, and what to do with it.
pub(in crate::store) struct Selecting<'a> {
    pub(in crate::store) matcher: &'a Matcher,
    /// `None`: count only.
    pub(in crate::store) effect: Option<Effect>,
    /// Names whose records do not count: something else waits to replace them.
    pub(in crate::store) superseded: &'a HashSet<RecordId>,
    /// Names that were selected in memory; those found on disk are taken out.
    pub(in crate::store) elsewhere: &'a mut HashSet<RecordId>,
}

/// What a purge selected on disk.
#[derive(Debug, Default)]
pub(in crate::store) struct Selected {
    pub(in crate::store) count: u64,
    pub(in crate::store) sample: Vec<String>,
}

impl Disk {
    /// Removes, marks or counts what is selected, durably.
    pub(in crate::store) fn select(
        &self,
        mut selecting: Selecting<'_>,
    ) -> Result<Selected, DiskError> {
        self.with_recovery(|| {
            let mut selected = Selected::default();
            self.select_by_key(&mut selecting, &mut selected)?;
            self.select_by_label(&mut selecting, &mut selected)?;
            Ok(selected)
        })
    }

    /// Marks what is filed under labels, durably.
    pub(in crate::store) fn mark_labelled<'a>(
        &self,
        marks: impl Iterator<Item = (&'a Label, Mark)> + Clone,
    ) -> Result<(), DiskError> {
        self.with_recovery(|| {
            // Of all labels together, so that many small ones share a commit.
            let mut found = Vec::new();
            for (label, mark) in marks.clone() {
                self.each_labelled(label, |labelled| {
                    found.extend(labelled.iter().filter_map(|one| one.to_mark(mark)));
                    if found.len() >= CHUNK_ROWS {
                        self.mark_all(&std::mem::take(&mut found))?;
                    }
                    Ok(())
                })?;
            }
            self.mark_all(&found)
        })
    }

    /// Once more after a failure from which the database recovers; suspended after another one.
    fn with_recovery<T>(
        &self,
        mut work: impl FnMut() -> Result<T, DiskError>,
    ) -> Result<T, DiskError> {
        let result = match work() {
            Err(error) if self.recover(&error) => work(),
            result => result,
        };
        if result.is_err() {
            self.suspend();
        }
        result
    }

    fn select_by_label(
        &self,
        selecting: &mut Selecting<'_>,
        selected: &mut Selected,
    ) -> Result<(), DiskError> {
        let matcher = selecting.matcher;
        let is_done = |key: &CacheKey| matcher.matches(key);
        for label in self.labels_selected(matcher)? {
            self.each_labelled(&label, |mut labelled| {
                labelled.retain(|one| !one.key.as_ref().is_some_and(is_done));
                for one in &labelled {
                    selecting.elsewhere.remove(&one.id);
                    if !selecting.superseded.contains(&one.id) {
                        selected.add(one.key.as_ref().map_or("", CacheKey::uri));
                    }
                }
                self.change_labelled(selecting.effect, &labelled)
            })?;
        }
        Ok(())
    }

    /// The labels under which is what a matcher selects by something else than its key.
    fn labels_selected(&self, matcher: &Matcher) -> Result<Vec<Label>, DiskError> {
        let Matcher::Uri(uri) = matcher else {
            return Ok(matcher.labels().to_vec());
        };
        let (wanted, query) = split_query(uri);
        let (mut labels, mut after) = (Vec::new(), None);
        loop {
            // Those of a partition begin with it, so all are looked at: one row of each path.
            let paths = self.search_paths(after.as_deref(), CHUNK_ROWS)?;
            for path in &paths {
                if CacheKey::from_text(path).uri() == wanted {
                    let variations = self.variations(path, usize::MAX)?;
                    let label = |variation| Label::search(path, variation, query);
                    labels.extend(variations.iter().map(label));
                }
            }
            if paths.len() < CHUNK_ROWS {
                return Ok(labels);
            }
            after = paths.last().cloned();
        }
    }

    fn change_labelled(
        &self,
        effect: Option<Effect>,
        labelled: &[Labelled],
    ) -> Result<(), DiskError> {
        match effect {
            None => Ok(()),
            Some(Effect::Mark(mark)) => {
                let marks: Vec<_> = labelled
                    .iter()
                    .filter_map(|one| one.to_mark(mark))
                    .collect();
                self.mark_all(&marks)
            }
            Some(Effect::Remove) if labelled.is_empty() => Ok(()),
            Some(Effect::Remove) => {
                let gone = self.transact(|tables| {
                    let mut gone = Vec::new();
                    for one in labelled {
                        gone.extend(tables.remove(one.id)?);
                        // Also where the record could not say which rows are its own.
                        tables.tags.remove(one.row.as_slice())?;
                    }
                    Ok(gone)
                })?;
                self.remove_bodies(&gone);
                Ok(())
            }
        }
    }

    /// What is filed under a label, chunk by chunk. Nobody else changes it meanwhile: there is one writer.
    fn each_labelled(
        &self,
        label: &Label,
        mut work: impl FnMut(Vec<Labelled>) -> Result<(), DiskError>,
    ) -> Result<(), DiskError> {
        let range = RowRange::starting(&label.row_prefix());
        let mut after: Option<Vec<u8>> = None;
        loop {
            let (labelled, resume_after) = self.labelled(&range, after.as_deref(), CHUNK_ROWS)?;
            work(labelled)?;
            if resume_after.is_none() {
                return Ok(());
            }
            after = resume_after;
        }
    }

    fn mark_all(&self, marks: &[(RecordId, Mark)]) -> Result<(), DiskError> {
        if marks.is_empty() {
            return Ok(());
        }
        self.transact(|tables| {
            marks
                .iter()
                .try_for_each(|(id, mark)| tables.mark(*id, *mark))
        })
    }

    fn select_by_key(
        &self,
        selecting: &mut Selecting<'_>,
        selected: &mut Selected,
    ) -> Result<(), DiskError> {
        let (matcher, effect) = (selecting.matcher, selecting.effect);
        for range in matcher.ranges() {
            let mut after = None;
            loop {
                let is_wanted = |key: &_| matcher.matches(key);
                let rows = self.rows(&range, after.as_deref(), CHUNK_ROWS, is_wanted)?;
                for row in &rows.rows {
                    selecting.elsewhere.remove(&row.id);
                    selected.add(row.key.uri());
                }
                if let Some(effect) = effect
                    && rows.rows.iter().any(|row| row.is_changed_by(effect))
                {
                    self.change_chunk(matcher, effect, &range, after.as_deref())?;
                }
                let Some(resume_after) = rows.resume_after else {
                    break;
                };
                after = Some(resume_after);
            }
        }
        Ok(())
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

impl Row {
    /// Marks that say nothing new cost no commit.
    fn is_changed_by(&self, effect: Effect) -> bool {
        match effect {
            Effect::Remove => true,
            Effect::Mark(mark) => stronger(self.usage.mark, mark) != self.usage.mark,
        }
    }
}

impl Labelled {
    /// Its name and the mark, where that says something new.
    fn to_mark(&self, mark: Mark) -> Option<(RecordId, Mark)> {
        (stronger(self.usage.mark, mark) != self.usage.mark).then_some((self.id, mark))
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
        if !uri.is_empty() {
            self.sample(uri);
        }
    }

    /// Adds to the sample, where it has room.
    pub(in crate::store) fn sample(&mut self, uri: &str) {
        if self.sample.len() < SAMPLE_MAX && !self.sample.iter().any(|sampled| sampled == uri) {
            self.sample.push(uri.to_owned());
        }
    }
}
