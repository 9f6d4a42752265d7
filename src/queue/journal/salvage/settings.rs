//! What is kept besides the writes: what is paused, and how the clock was set.
//!
//! A pause too many is safe, one too few is not: where it is not certain what was paused, everything counts that says so, and
//! where what says it last is damaged, everything is held back.

use super::{
    super::{
        change::Pause,
        error::DiskError,
        tables::{Counters, meta, name},
        transaction::Sound,
    },
    Salvage,
    merge::Settings,
};

impl Salvage<'_> {
    /// Holds back what was held back: as redb reads it where that is all there was, else whatever any page and the marker say.
    pub(super) fn restore_pauses(
        &self,
        found: Option<Counters>,
        noted: &Sound<Vec<Pause>>,
    ) -> Result<(), DiskError> {
        let is_last = found.is_some() && !self.is_behind && !self.has_newer_page(found);
        let pauses = match &self.pauses {
            Some(Sound::Is(pauses)) if is_last => pauses.clone(),
            Some(Sound::Missing) if is_last => return Ok(()),
            _ => match self.any_pauses(noted) {
                Some(pauses) => pauses,
                None => {
                    self.damage.note_pauses();
                    return Ok(());
                }
            },
        };
        self.transact(|tables| tables.put_pauses(&pauses))
    }

    /// What any record says to be paused; and everything, where one that may be the last is damaged. `None`: there is none at all.
    fn any_pauses(&self, noted: &Sound<Vec<Pause>>) -> Option<Vec<Pause>> {
        let newest = self.scanned.meta.as_ref();
        let is_page_found = newest.is_some();
        let pages = self.scanned.loose.iter();
        let pages = pages.chain(newest.map(|meta| &meta.settings));
        let mut found: Vec<_> = pages.filter_map(|page| self.pauses_of(page)).collect();
        if let Some(Sound::Is(pauses)) = &self.pauses {
            found.push(pauses.clone());
        }
        match (noted, &self.pauses) {
            // It is noted after the commit, before anybody is told of it.
            (Sound::Is(pauses), _) => found.push(pauses.clone()),
            (Sound::Damaged, _) | (Sound::Missing, Some(Sound::Damaged)) => {
                found.push(vec![Pause::of_everything(self.now)]);
            }
            (Sound::Missing, _) => {}
        }
        if found.is_empty() {
            // A page of running numbers without a record of pauses says that there were none.
            return is_page_found.then(Vec::new);
        }
        let mut pauses: Vec<Pause> = Vec::new();
        for pause in found.into_iter().flatten() {
            if pauses.iter().all(|known| known.origin != pause.origin) {
                pauses.push(pause);
            }
        }
        Some(pauses)
    }

    /// How the clock was set, if a page says it that is newer than the database as it could be read.
    pub(super) fn restore_clock_steps(&self, found: Option<Counters>) -> Result<(), DiskError> {
        let newest = self.scanned.meta.as_ref();
        let Some(newest) = newest.filter(|_| self.has_newer_page(found)) else {
            return Ok(());
        };
        let pages = [&newest.settings].into_iter().chain(&self.scanned.loose);
        let Some(row) = pages.filter_map(|page| page.get(meta::CLOCK_STEPS)).next() else {
            return Ok(());
        };
        self.transact(|tables| {
            tables.meta.insert(meta::CLOCK_STEPS, row.as_slice())?;
            Ok(())
        })
    }

    /// Whether a page of running numbers is newer than the database as it could be read.
    fn has_newer_page(&self, found: Option<Counters>) -> bool {
        let page = self.scanned.meta.as_ref();
        let page = page.map(|meta| meta.counters.revision);
        page > found.map(|found| found.revision)
    }

    fn pauses_of(&self, page: &Settings) -> Option<Vec<Pause>> {
        let row = page.get(meta::PAUSES)?;
        let pauses = self.codec.decode(name::META, meta::PAUSES.as_bytes(), row);
        pauses.ok()
    }
}
