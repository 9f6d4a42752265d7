//! Listings: pages of what is stored in every tier, in a stable order, resumable after any item.
//!
//! A page keeps the best `limit` items seen in a heap of that size, whatever the number of stored responses. In key
//! order the disk is read only as far as the page reaches; other orders read every row of its index, in short
//! transactions. The order is total: equal ranks go by their row in the `uris` table.

use std::{collections::BinaryHeap, sync::Arc};

use super::{
    Entry, Inner, Listing, Page, Sort, StoreError, Tier,
    disk::{Disk, Labelled, Row, uri_row},
    id::{PublicId, RecordId, from_hex, to_hex},
    labels::Label,
    matcher::{Matcher, RowRange, is_host},
    resource::StoredResponse,
};
use crate::policy::CacheKey;

/// The most items of one page.
const LIMIT_MAX: usize = 1_000;

/// Rows of the disk tier read in one short transaction.
const CHUNK_ROWS: usize = 1_024;

/// A place in the order of a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    rank: u64,
    row: Vec<u8>,
}

/// An item of the page being made.
struct Candidate {
    place: Place,
    key: CacheKey,
    id: RecordId,
    source: Source,
}

enum Source {
    Memory(Arc<StoredResponse>),
    Disk,
}

/// The best candidates so far, after the cursor.
struct Selection<'a> {
    listing: &'a Listing,
    host: Option<String>,
    after: Option<Place>,
    limit: usize,
    // The worst on top; one more than the page has, to know whether another one follows.
    best: BinaryHeap<Candidate>,
}

impl Inner {
    pub(super) async fn list(self: &Arc<Self>, listing: &Listing) -> Result<Page, StoreError> {
        let after = listing.cursor.as_deref().map(Place::parse).transpose()?;
        let (inner, listing) = (self.clone(), listing.clone());
        let _permit = self
            .reads
            .acquire()
            .await
            .map_err(|_| StoreError::Unavailable)?;
        let page = tokio::task::spawn_blocking(move || inner.page(&listing, after));
        page.await.unwrap_or(Err(StoreError::Unavailable))
    }

    fn page(&self, listing: &Listing, after: Option<Place>) -> Result<Page, StoreError> {
        let mut selection = Selection::new(listing, after);
        if listing.tier != Some(Tier::Disk) {
            self.select_in_memory(&mut selection);
        }
        if listing.tier != Some(Tier::Memory) {
            self.select_on_disk(&mut selection)?;
        }
        let limit = selection.limit;
        let mut best = selection.best.into_sorted_vec();
        let has_more = best.len() > limit;
        best.truncate(limit);
        let last = best.last().filter(|_| has_more);
        Ok(Page {
            next_cursor: last.map(|candidate| candidate.place.to_cursor()),
            items: best
                .into_iter()
                .filter_map(|candidate| self.entry_of(candidate))
                .collect(),
        })
    }

    fn select_in_memory(&self, selection: &mut Selection<'_>) {
        for resource in self.memory.iter() {
            for variant in &resource.variants {
                selection.offer_stored(&resource.key, variant);
            }
        }
        for (key, stored) in self.pending.responses() {
            if !self.is_in_memory(&key, stored.id()) {
                selection.offer_stored(&key, &stored);
            }
        }
    }

    fn select_on_disk(&self, selection: &mut Selection<'_>) -> Result<(), StoreError> {
        let Some(disk) = &self.disk else {
            return Ok(());
        };
        if let Some(tag) = &selection.listing.tag {
            return self.select_tagged_on_disk(disk, tag, selection);
        }
        for range in selection.ranges() {
            let mut after = selection.resume_row();
            loop {
                let is_wanted = |key: &CacheKey| selection.wants(key);
                let rows = disk
                    .rows(&range, after.as_deref(), CHUNK_ROWS, is_wanted)
                    .map_err(|error| self.read_error(error))?;
                for row in rows.rows {
                    selection.offer_row(row, |key, id| self.is_newer_elsewhere(key, id));
                }
                if rows.resume_after.is_none() || selection.is_past(rows.resume_after.as_deref()) {
                    break;
                }
                after = rows.resume_after;
            }
        }
        Ok(())
    }

    /// The rows of a tag are in no order of a listing, so every page reads them all.
    fn select_tagged_on_disk(
        &self,
        disk: &Disk,
        tag: &str,
        selection: &mut Selection<'_>,
    ) -> Result<(), StoreError> {
        for label in [Label::tag(tag.as_bytes()), Label::every_tag()] {
            let range = RowRange::starting(&label.row_prefix());
            let mut after: Option<Vec<u8>> = None;
            loop {
                let (labelled, resume_after) = disk
                    .labelled(&range, after.as_deref(), CHUNK_ROWS)
                    .map_err(|error| self.read_error(error))?;
                for row in labelled.into_iter().filter_map(Labelled::into_row) {
                    if selection.wants(&row.key) {
                        selection.offer_row(row, |key, id| self.is_newer_elsewhere(key, id));
                    }
                }
                if resume_after.is_none() {
                    break;
                }
                after = resume_after;
            }
        }
        Ok(())
    }

    /// Whether a row on disk is shown, or hidden, by what is in memory or waits to be written.
    fn is_newer_elsewhere(&self, key: &CacheKey, id: RecordId) -> bool {
        let overlay = self.pending.overlay(key);
        self.is_in_memory(key, id)
            || overlay.removes.contains(&id)
            || overlay.puts.iter().any(|put| put.id() == id)
    }

    fn is_in_memory(&self, key: &CacheKey, id: RecordId) -> bool {
        let resource = self.memory.get(key.as_str());
        resource.is_some_and(|resource| resource.has(id))
    }

    /// `None`: it went since its row was read.
    fn entry_of(&self, candidate: Candidate) -> Option<Entry> {
        match candidate.source {
            Source::Memory(stored) => Some(entry(candidate.key, &stored, Tier::Memory)),
            Source::Disk => {
                let (record, usage) = self.disk.as_ref()?.record(candidate.id).ok()??;
                let mut head = record.head;
                head.mark = usage.mark;
                Some(Entry {
                    id: candidate.id.public().to_string(),
                    key: record.key,
                    head: Arc::new(head),
                    tier: Tier::Disk,
                    body_bytes: usage.body_bytes,
                    hits: usage.hits,
                })
            }
        }
    }

    /// The stored responses of the key of `id`, that one first.
    pub(super) async fn entries(self: &Arc<Self>, id: &str) -> Result<Vec<Entry>, StoreError> {
        let Some(public) = PublicId::parse(id) else {
            return Ok(Vec::new());
        };
        let Some((key, id)) = self.named(public).await? else {
            return Ok(Vec::new());
        };
        self.entries_of(&key, id).await
    }

    pub(super) async fn entries_of(
        self: &Arc<Self>,
        key: &CacheKey,
        first: RecordId,
    ) -> Result<Vec<Entry>, StoreError> {
        // Asked before the lookup, which promotes.
        let in_memory = self.memory.get(key.as_str());
        let tier = |stored: &StoredResponse| match &in_memory {
            Some(resource) if resource.has(stored.id()) => Tier::Memory,
            _ => Tier::Disk,
        };
        let resource = self.lookup(key).await?;
        let mut variants = resource.map_or_else(Vec::new, |resource| resource.variants.clone());
        if !variants.iter().any(|stored| stored.id() == first) {
            return Ok(Vec::new());
        }
        variants.sort_by_key(|stored| stored.id() != first);
        Ok(variants
            .iter()
            .map(|stored| entry(key.clone(), stored, tier(stored)))
            .collect())
    }

    /// The key and name of the stored response with this public id, wherever it is.
    pub(super) async fn named(
        self: &Arc<Self>,
        public: PublicId,
    ) -> Result<Option<(CacheKey, RecordId)>, StoreError> {
        if self.disk.is_some() {
            let named = self.on_disk(move |disk| disk.named(public)).await;
            if let Some((id, key)) = named.map_err(|error| self.read_error(error))? {
                return Ok(Some((key, id)));
            }
        }
        let inner = self.clone();
        let walk = tokio::task::spawn_blocking(move || inner.named_in_memory(public));
        Ok(walk.await.unwrap_or_default())
    }

    fn named_in_memory(&self, public: PublicId) -> Option<(CacheKey, RecordId)> {
        let mut waiting = self.pending.responses().into_iter();
        if let Some((key, stored)) = waiting.find(|(_, stored)| stored.id().public() == public) {
            return Some((key, stored.id()));
        }
        self.memory.iter().find_map(|resource| {
            let mut ids = resource.variants.iter().map(|variant| variant.id());
            let id = ids.find(|id| id.public() == public)?;
            Some((resource.key.clone(), id))
        })
    }
}

fn entry(key: CacheKey, stored: &StoredResponse, tier: Tier) -> Entry {
    Entry {
        id: stored.id().public().to_string(),
        key,
        head: Arc::new(stored.head.clone()),
        tier,
        body_bytes: stored.body.len(),
        hits: stored.hits(),
    }
}

impl Labelled {
    /// Its place in the order of listings.
    fn into_row(self) -> Option<Row> {
        let key = self.key?;
        Some(Row {
            row: uri_row(&key, self.id),
            key,
            id: self.id,
            usage: self.usage,
        })
    }
}

impl<'a> Selection<'a> {
    fn new(listing: &'a Listing, after: Option<Place>) -> Self {
        Self {
            listing,
            host: listing.host.as_deref().map(str::to_ascii_lowercase),
            after,
            limit: listing.limit.clamp(1, LIMIT_MAX),
            best: BinaryHeap::new(),
        }
    }

    fn wants(&self, key: &CacheKey) -> bool {
        let host = self.host.as_deref();
        let path = self.listing.path_prefix.as_deref();
        let text = self.listing.contains.as_deref();
        host.is_none_or(|host| is_host(key.authority(), host))
            && path.is_none_or(|path| key.path_and_query().starts_with(path))
            && text.is_none_or(|text| key.uri().contains(text))
    }

    fn ranges(&self) -> Vec<RowRange> {
        let host = self.host.clone().unwrap_or_default();
        if host.is_empty() {
            return Matcher::Prefix(String::new()).ranges();
        }
        Matcher::Host(host).ranges()
    }

    /// In key order nothing before the cursor need be read.
    fn resume_row(&self) -> Option<Vec<u8>> {
        let after = self.after.as_ref()?;
        (self.listing.sort == Sort::Key).then(|| after.row.clone())
    }

    /// In key order nothing after the page's last item need be read.
    fn is_past(&self, row: Option<&[u8]>) -> bool {
        let worst = self.best.peek();
        self.listing.sort == Sort::Key
            && self.is_full()
            && worst.is_some_and(|worst| row.is_some_and(|row| row > worst.place.row.as_slice()))
    }

    fn is_full(&self) -> bool {
        self.best.len() > self.limit
    }

    fn offer_stored(&mut self, key: &CacheKey, stored: &Arc<StoredResponse>) {
        let tag = self.listing.tag.as_deref();
        let tags = &stored.head.terms.tags.tags;
        if !self.wants(key) || !tag.is_none_or(|tag| tags.has(tag.as_bytes())) {
            return;
        }
        let rank = self.rank(
            stored.hits(),
            stored.head.response_time.as_millis(),
            stored.body.len(),
        );
        let row = uri_row(key, stored.id());
        let place = Place { rank, row };
        if self.is_wanted_place(&place) {
            self.keep(Candidate {
                place,
                key: key.clone(),
                id: stored.id(),
                source: Source::Memory(stored.clone()),
            });
        }
    }

    fn offer_row(&mut self, row: Row, is_elsewhere: impl Fn(&CacheKey, RecordId) -> bool) {
        let usage = row.usage;
        let rank = self.rank(usage.hits, usage.stored_at, usage.body_bytes);
        let place = Place { rank, row: row.row };
        if self.is_wanted_place(&place) && !is_elsewhere(&row.key, row.id) {
            self.keep(Candidate {
                place,
                key: row.key,
                id: row.id,
                source: Source::Disk,
            });
        }
    }

    /// Smaller comes first.
    fn rank(&self, hits: u64, stored_at: i64, body_bytes: u64) -> u64 {
        match self.listing.sort {
            Sort::Key => 0,
            Sort::Hits => u64::MAX - hits,
            // Moves the sign, so that times before the epoch come first.
            Sort::Age => stored_at.cast_unsigned() ^ (1 << 63),
            Sort::Size => u64::MAX - body_bytes,
        }
    }

    fn is_wanted_place(&self, place: &Place) -> bool {
        let is_after = self.after.as_ref().is_none_or(|after| place > after);
        let worst = self.best.peek().filter(|_| self.is_full());
        is_after && worst.is_none_or(|worst| *place < worst.place)
    }

    fn keep(&mut self, candidate: Candidate) {
        if self.is_full() {
            self.best.pop();
        }
        self.best.push(candidate);
    }
}

impl Place {
    fn to_cursor(&self) -> String {
        let rank = self.rank.to_be_bytes();
        to_hex(&[&rank[..], &self.row[..]].concat())
    }

    fn parse(cursor: &str) -> Result<Self, StoreError> {
        let bytes = from_hex(cursor).ok_or(StoreError::Cursor)?;
        let (rank, row) = bytes.split_first_chunk::<8>().ok_or(StoreError::Cursor)?;
        Ok(Self {
            rank: u64::from_be_bytes(*rank),
            row: row.to_vec(),
        })
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.place.cmp(&other.place)
    }
}
