//! Stored responses in two tiers behind one handle: memory (moka) and disk (redb and body files).
//!
//! Invariants: what is published is visible to the next lookup, whichever tier holds it; a purge or an invalidation
//! wins over every fill that started before it; a corrupt record or body is dropped and counted, never served. Bounds:
//! bytes in memory, bytes on disk, records and bytes waiting to be written. Deliberately absent: freshness (policy's).
//!
//! ```text
//! publish, freshen, mark ─► memory ─► pending ─► writer ─► disk (cache.redb, bodies/)
//! lookup                 ◄─ memory ◄─ pending ◄─────────── disk
//! purge                  ─► log (tickets), memory, pending, then the writer
//! ```
//!
//! Locks, always in this order and never across an await: the purge log, a stripe of the memory tier, what is pending.

mod absent;
#[cfg(feature = "benchmarks")]
pub(crate) mod benchmarks;
mod body;
mod codec;
mod disk;
mod equivalents;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod id;
mod inner;
mod invalidate;
mod labels;
mod listing;
mod lookup;
mod matcher;
mod memory;
mod paths;
mod pending;
mod publish;
mod purge;
mod purges;
mod queries;
mod resource;
mod searches;
mod thread;
mod writer;

#[cfg(test)]
mod tests;

use std::{path::PathBuf, sync::Arc};

use bytes::Bytes;

use self::inner::Inner;
pub use self::paths::Paths;
pub use self::resource::{BodyFile, Resource, StoredBody, StoredResponse};
use crate::{
    clock::SharedClock,
    policy::{CacheKey, Mark, Names, StoredHead},
};

/// The `[storage]` table, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Data directory, made with mode 0700.
    pub dir: PathBuf,
    /// Budget of the memory tier in bytes.
    pub memory_bytes: u64,
    /// Budget of the disk tier in bytes; 0 turns the tier off.
    pub disk_bytes: u64,
    /// The largest body that is stored, in bytes.
    pub max_object_bytes: u64,
    /// Free bytes of the filesystem below which nothing more is stored.
    pub disk_free_min_bytes: u64,
}

/// The handle of the store. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

/// What was current when a fill started: a purge since then wins over the fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// What became of a response handed to the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Published {
    /// In memory now, on disk within a second.
    Stored,
    /// In memory only: the write-behind queue or the disk is full.
    MemoryOnly,
    /// Not at all: a purge or an invalidation came since the ticket.
    Purged,
    /// Not at all: larger than the budgets allow.
    TooLarge,
}

/// What a purge selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// Every variant of this URL in every partition, and of others that say that they answer it too.
    Url(String),
    /// Every URL that starts so.
    Prefix(String),
    /// Every URL of this authority (`host` matches any port, `host:port` only that one).
    Host(String),
    /// Whatever its origin tagged so, and what counts as tagged with everything.
    Tag(String),
}

/// What a purge does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PurgeKind {
    /// Mark stale: served stale where that is allowed, validated otherwise.
    Soft,
    /// Remove.
    Hard,
    /// Count only.
    DryRun,
}

/// What a purge found.
#[derive(Clone, Debug, Default)]
pub struct Purged {
    /// Stored responses (variants) selected.
    pub count: u64,
    /// Some of their URLs, at most 20.
    pub sample: Vec<String>,
}

/// Where a listed response was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tier {
    /// In memory (and, as a rule, on disk too).
    Memory,
    /// On disk only.
    Disk,
}

/// A question about what is stored. All filters must hold.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Authority filter, as in [`Selector::Host`].
    pub host: Option<String>,
    /// The path starts so.
    pub path_prefix: Option<String>,
    /// The URL contains this text.
    pub contains: Option<String>,
    /// The tag, as in [`Selector::Tag`].
    pub tag: Option<String>,
    /// The tier.
    pub tier: Option<Tier>,
    /// The order.
    pub sort: Sort,
    /// After this cursor, as an earlier page returned it.
    pub cursor: Option<String>,
    /// At most this many items.
    pub limit: usize,
}

/// The order of a listing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sort {
    /// By key.
    #[default]
    Key,
    /// Most hits first.
    Hits,
    /// Oldest stored first.
    Age,
    /// Largest first.
    Size,
}

/// One stored response in a listing.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Stable id of the stored response (key and variant): 32 hexadecimal digits.
    pub id: String,
    /// The key.
    pub key: CacheKey,
    /// Its head.
    pub head: Arc<StoredHead>,
    /// Where it is.
    pub tier: Tier,
    /// Body bytes.
    pub body_bytes: u64,
    /// Hits since it entered memory, or as last recorded on disk.
    pub hits: u64,
}

/// A page of a listing.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// The entries.
    pub items: Vec<Entry>,
    /// The cursor of the next page, if there is one.
    pub next_cursor: Option<String>,
}

/// Sizes and counts of both tiers.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stats {
    /// Keys in memory.
    pub memory_entries: u64,
    /// Weight in memory, in bytes.
    pub memory_bytes: u64,
    /// Stored responses on disk.
    pub disk_entries: u64,
    /// Bytes on disk: records and body files.
    pub disk_bytes: u64,
    /// Whether storing on disk is suspended (too little free space, or an error).
    pub disk_suspended: bool,
}

/// The store could not do what was asked. A lookup error is a miss.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has the data directory.
    #[error("the data directory {} is in use by another hardtack", dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
    },
    /// An I/O error.
    #[error("cannot {attempt}")]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// A body file or record does not have its checksum.
    #[error("a stored body is corrupt")]
    Corrupt,
    /// The disk tier is closed, or does not keep up: what was asked holds in memory only.
    #[error("the disk tier is not available")]
    Unavailable,
    /// The cursor of a listing is not one that an earlier page returned.
    #[error("the cursor is not one of a listing")]
    Cursor,
}

impl Store {
    /// Opens both tiers. A missing directory is made; an unreadable or incompatible `cache.redb` is set aside and the
    /// disk tier starts cold. Call inside a tokio runtime; the writer task runs on `tasks` until [`Store::close`].
    ///
    /// With a disk budget of 0 everything is in memory, and what an earlier run left on disk is removed: it would
    /// otherwise come back, one day, without the purges and invalidations since.
    ///
    /// # Errors
    /// When another process has the directory, or it may not be used.
    pub async fn open(
        config: Config,
        clock: SharedClock,
        metrics: Arc<crate::telemetry::Metrics>,
        tasks: &tokio_util::task::TaskTracker,
    ) -> Result<Self, StoreError> {
        let inner = Inner::open(config, clock, metrics).await?;
        inner.start_writer(tasks)?;
        Ok(Self { inner })
    }

    /// The resource under the key's text, if it is in memory: the way of a hit. Takes no lock across anything.
    ///
    /// It may lack variants that are on disk only; [`Store::lookup`] knows them all.
    pub fn peek(&self, key: &str) -> Option<Arc<Resource>> {
        self.inner.memory.get(key)
    }

    /// The resource in memory, or else on disk, if that need not be waited for, is sound, and has no body in a file.
    pub fn at_hand(&self, key: &str) -> Option<Arc<Resource>> {
        self.inner.at_hand(key)
    }

    /// The resource in memory, on its way to disk, or on disk; a small one found on disk is promoted, where memory has room or
    /// it was used before.
    ///
    /// # Errors
    /// When the disk tier cannot be read and memory has nothing.
    pub async fn lookup(&self, key: &CacheKey) -> Result<Option<Arc<Resource>>, StoreError> {
        match self.inner.known(key) {
            Some(known) => Ok(known),
            // Boxed: larger than all that a request to the origin needs besides, and slow anyway.
            None => Box::pin(self.inner.lookup(key)).await,
        }
    }

    /// Whether [`Store::equivalents`] may find anything: an atomic load.
    pub fn may_have_equivalents(&self, key: &CacheKey) -> bool {
        self.inner.may_have_equivalents(key)
    }

    /// Stored responses of other URIs of the same partition, origin and path, some variant of which may say that the
    /// difference does not matter ([`crate::policy::SearchVariation::answers`] knows); at most 8.
    ///
    /// # Errors
    /// When the disk tier cannot be read.
    pub async fn equivalents(&self, key: &CacheKey) -> Result<Vec<Arc<Resource>>, StoreError> {
        self.inner.equivalents(key).await
    }

    /// Counts a hit and keeps recency; cheap enough for the way of a hit.
    pub fn touch(&self, resource: &Resource, variant: &StoredResponse) {
        self.inner.touch(resource, variant);
    }

    /// A ticket for a fill that starts now.
    pub fn ticket(&self) -> Ticket {
        self.inner.purges.ticket()
    }

    /// Whether no purge or invalidation of `key`, or of what a response with this head is filed under, came since
    /// `ticket`. Without a head the response counts as filed under everything.
    pub fn is_current(&self, ticket: Ticket, key: &CacheKey, head: Option<&StoredHead>) -> bool {
        self.inner.is_current(ticket, key, head)
    }

    /// Publishes a complete response: in memory when this returns, on disk within a second. It replaces the variant
    /// with the same [`crate::policy::VariantKey`], and the part of it; a part (a 206) replaces a part only. Beyond 32
    /// variants and parts the oldest goes.
    pub fn publish(
        &self,
        ticket: Ticket,
        key: &CacheKey,
        head: StoredHead,
        body: Bytes,
    ) -> Published {
        self.inner.publish(ticket, key, head, body)
    }

    /// Publishes a new head for a stored response whose body stays (a 304, a mark). Where something newer has replaced
    /// that response in the meantime nothing changes, and that is [`Published::Stored`].
    pub fn freshen(
        &self,
        ticket: Ticket,
        key: &CacheKey,
        stored: &Arc<StoredResponse>,
        head: StoredHead,
    ) -> Published {
        self.inner.freshen(ticket, key, stored, head)
    }

    /// Marks every variant of `key`, in this partition, as [`Mark::Invalid`] or [`Mark::Stale`]: for every lookup from
    /// now on, on disk within a second.
    ///
    /// # Errors
    /// When the disk tier does not take it; the mark then holds for what is in memory.
    pub async fn mark(&self, key: &CacheKey, mark: Mark) -> Result<(), StoreError> {
        self.inner.mark(key, mark).await
    }

    /// The same, and for the responses to QUERY requests of the same URI and partition: what an unsafe method does.
    ///
    /// # Errors
    /// As [`Store::mark`].
    pub async fn mark_target(&self, key: &CacheKey, mark: Mark) -> Result<(), StoreError> {
        self.inner.mark_target(key, mark).await
    }

    /// Marks every stored response of another URI that may answer a request for `key` too ([`Store::equivalents`]), without
    /// that bound.
    ///
    /// # Errors
    /// As [`Store::mark`].
    pub async fn mark_equivalents(&self, key: &CacheKey, mark: Mark) -> Result<(), StoreError> {
        self.inner.mark_equivalents(key, mark).await
    }

    /// Invalidates as [`Store::mark_target`] does, for the sake of a response that takes the place of what is stored. It may
    /// be published under the ticket returned; `None` where something else was purged since `ticket`. The result beside
    /// it is that of [`Store::mark`].
    pub async fn supersede(
        &self,
        ticket: Ticket,
        key: &CacheKey,
    ) -> (Option<Ticket>, Result<(), StoreError>) {
        self.inner.supersede(ticket, key).await
    }

    /// Marks every stored response in one of these groups (RFC 9875) as [`Mark::Invalid`], in every partition: those of the
    /// origin of `key`, and no others'. Where more invalidations wait than names can be kept of, that is any group of the
    /// origin. For every lookup from now on, on disk within a second; it does not wait for that.
    ///
    /// # Errors
    /// As [`Store::mark`].
    pub async fn invalidate_groups(
        &self,
        key: &CacheKey,
        groups: &Names,
    ) -> Result<(), StoreError> {
        self.inner.invalidate_groups(key, groups).await
    }

    /// Says which paths may be invalidated together, once, before anything is stored or looked up.
    pub fn watch(&self, paths: Vec<Paths>) {
        self.inner.labels.watch(paths);
    }

    /// Marks every stored response under one of these paths, which must be watched, as [`Store::invalidate_groups`] does
    /// it.
    ///
    /// # Errors
    /// As [`Store::mark`].
    pub async fn mark_paths(&self, paths: &[Paths], mark: Mark) -> Result<(), StoreError> {
        self.inner.mark_paths(paths, mark).await
    }

    /// Purges what `selector` selects, in both tiers; durable when it returns.
    ///
    /// # Errors
    /// When the disk tier does not take it now. It is tried again, and lookups respect it meanwhile.
    pub async fn purge(&self, selector: &Selector, kind: PurgeKind) -> Result<Purged, StoreError> {
        self.inner.purge(selector, kind).await
    }

    /// Removes one stored response by its id, durably; `None` when there is none.
    ///
    /// # Errors
    /// As [`Store::purge`].
    pub async fn remove(&self, id: &str) -> Result<Option<Entry>, StoreError> {
        self.inner.remove(id).await
    }

    /// A page of what is stored.
    ///
    /// # Errors
    /// When the cursor is not one of ours, or the disk tier cannot be read.
    pub async fn list(&self, listing: &Listing) -> Result<Page, StoreError> {
        self.inner.list(listing).await
    }

    /// The stored responses of the key to which the stored response `id` belongs, that one first; empty when there is
    /// none.
    ///
    /// # Errors
    /// When the disk tier cannot be read.
    pub async fn entry(&self, id: &str) -> Result<Vec<Entry>, StoreError> {
        self.inner.entries(id).await
    }

    /// The blocks of a body, verified one by one before they are handed out. A corrupt block ends the stream with an
    /// error and drops the stored response.
    pub fn read_body(
        &self,
        key: &CacheKey,
        stored: &StoredResponse,
    ) -> impl futures_util::Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        body::read(&self.inner, key, stored, 0..u64::MAX)
    }

    /// The bytes of a body that lie in `range`, as [`Store::read_body`] reads them. Whole blocks are verified, also where
    /// only a part of them is handed out.
    pub fn read_body_range(
        &self,
        key: &CacheKey,
        stored: &StoredResponse,
        range: std::ops::Range<u64>,
    ) -> impl futures_util::Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        body::read(&self.inner, key, stored, range)
    }

    /// Sizes and counts.
    pub fn stats(&self) -> Stats {
        self.inner.stats()
    }

    /// Waits until everything published so far is on disk (or was given up).
    ///
    /// # Errors
    /// None today: what was given up is counted.
    pub async fn flush(&self) -> Result<(), StoreError> {
        self.inner.flush().await;
        Ok(())
    }

    /// Writes what waits, closes the database and ends the writer task. What is in memory can still be read.
    ///
    /// # Errors
    /// When what waited could not be written.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.inner.close().await
    }
}
