//! The store's behaviour through its handle, on real files.

pub(super) mod faults;

mod at_hand;
mod corruption;
mod crash;
mod disk_full;
mod equivalents;
mod listing;
mod model;
mod purging;
mod queries;
mod restart;
mod tags;
mod tiers;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT_LANGUAGE, ETAG, VARY},
};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use super::{
    Config, Published, Resource, Store, StoreError, StoredResponse, disk::Backing, inner::Inner,
};
use crate::{
    clock::VirtualClock,
    policy::{CacheKey, Mark, Settings, StoredFields, StoredHead, Terms, Timestamp, VariantKey},
    telemetry::{EvictionLabels, Metrics, OperationLabels},
};

const MIB: u64 = 1024 * 1024;

/// A data directory, removed at the end if it is ours.
struct Directory {
    path: PathBuf,
    _temporary: Option<TempDir>,
}

impl Directory {
    fn temporary() -> Arc<Self> {
        let temporary = tempfile::tempdir().unwrap();
        Arc::new(Self {
            path: temporary.path().to_owned(),
            _temporary: Some(temporary),
        })
    }

    fn of_somebody_else(path: impl Into<PathBuf>) -> Arc<Self> {
        Arc::new(Self {
            path: path.into(),
            _temporary: None,
        })
    }

    fn path(&self) -> &Path {
        &self.path
    }
}

/// A store in a directory that outlives it.
struct Fixture {
    dir: Arc<Directory>,
    clock: Arc<VirtualClock>,
    metrics: Arc<Metrics>,
    tasks: TaskTracker,
    store: Store,
}

/// Budgets with room for everything a test does.
fn roomy(dir: &Path) -> Config {
    Config {
        dir: dir.to_owned(),
        memory_bytes: 64 * MIB,
        disk_bytes: 1024 * MIB,
        max_object_bytes: 64 * MIB,
        disk_free_min_bytes: 0,
    }
}

impl Fixture {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = Directory::temporary();
        Self::open(dir, change).await.unwrap()
    }

    async fn open(
        dir: Arc<Directory>,
        change: impl FnOnce(&mut Config),
    ) -> Result<Self, StoreError> {
        let backing = Backing::Directory(dir.path().to_owned());
        Self::open_on(backing, dir, change).await
    }

    async fn open_on(
        backing: Backing,
        dir: Arc<Directory>,
        change: impl FnOnce(&mut Config),
    ) -> Result<Self, StoreError> {
        let mut config = roomy(dir.path());
        change(&mut config);
        let clock = Arc::new(VirtualClock::new(Timestamp::from_secs(1_000_000)));
        let (metrics, tasks) = (Metrics::new(), TaskTracker::new());
        let inner = Inner::open_on(backing, config, clock.clone(), metrics.clone()).await?;
        inner.start_writer(&tasks)?;
        Ok(Self {
            dir,
            clock,
            metrics,
            tasks,
            store: Store { inner },
        })
    }

    /// Closes the store and opens it again.
    async fn reopen(self) -> Self {
        self.reopen_with(|_| {}).await
    }

    async fn reopen_with(self, change: impl FnOnce(&mut Config)) -> Self {
        let dir = self.close().await;
        Self::open(dir, change).await.unwrap()
    }

    async fn close(self) -> Arc<Directory> {
        self.store.close().await.unwrap();
        self.tasks.close();
        self.tasks.wait().await;
        self.dir
    }

    fn publish(&self, key: &CacheKey, body: impl Into<Bytes>) -> Published {
        self.publish_head(key, self.head(""), body)
    }

    fn publish_head(&self, key: &CacheKey, head: StoredHead, body: impl Into<Bytes>) -> Published {
        let ticket = self.store.ticket();
        self.store.publish(ticket, key, head, body.into())
    }

    /// A head received now, for requests in this language.
    fn head(&self, language: &str) -> StoredHead {
        use crate::clock::Clock;
        head(self.clock.now(), language)
    }

    async fn lookup(&self, key: &CacheKey) -> Option<Arc<Resource>> {
        self.store.lookup(key).await.unwrap()
    }

    /// The body of the first variant, from whichever tier.
    async fn body(&self, key: &CacheKey) -> Option<Vec<u8>> {
        let resource = self.lookup(key).await?;
        Some(self.read(key, &resource.variants[0]).await.unwrap())
    }

    async fn read(&self, key: &CacheKey, stored: &StoredResponse) -> Result<Vec<u8>, StoreError> {
        let blocks = self.store.read_body(key, stored);
        let whole: Vec<Bytes> = blocks.try_collect().await?;
        Ok(whole.concat())
    }

    async fn mark_of(&self, key: &CacheKey) -> Option<Mark> {
        let resource = self.lookup(key).await?;
        Some(resource.variants[0].head.mark)
    }

    /// Waits until everything is on disk, and forgets what is in memory.
    async fn forget_memory(&self) {
        self.store.flush().await.unwrap();
        self.store.inner.memory.clear();
    }

    /// Waits until the sweep after the start has left only these many body files.
    async fn swept(&self, left: usize) {
        let sweeping = async {
            while self.body_files().len() > left {
                tokio::task::yield_now().await;
            }
        };
        let limit = std::time::Duration::from_secs(30);
        tokio::time::timeout(limit, sweeping).await.unwrap();
    }

    /// The names of all body files, in order.
    fn body_files(&self) -> Vec<String> {
        let files = |dir: &Path| -> Vec<_> {
            let entries = std::fs::read_dir(dir).into_iter().flatten();
            entries.map(|entry| entry.unwrap().path()).collect()
        };
        let directories = files(&self.dir.path().join("bodies"));
        let files = directories.iter().flat_map(|directory| files(directory));
        let mut names: Vec<_> = files
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    fn errors(&self, op: &'static str) -> u64 {
        let labels = OperationLabels { op };
        self.metrics.storage_errors.get_or_create(&labels).get()
    }

    fn evictions(&self, tier: &'static str, reason: &'static str) -> u64 {
        let labels = EvictionLabels { tier, reason };
        self.metrics.cache_evictions.get_or_create(&labels).get()
    }
}

fn key(text: &str) -> CacheKey {
    CacheKey::from_text(text)
}

pub(super) fn head(now: Timestamp, language: &str) -> StoredHead {
    let mut headers = HeaderMap::new();
    headers.insert(ETAG, HeaderValue::from_static("\"one\""));
    headers.append("x-list", HeaderValue::from_static("first"));
    headers.append("x-list", HeaderValue::from_bytes(b"\xff second").unwrap());
    let mut request = HeaderMap::new();
    if !language.is_empty() {
        headers.insert(VARY, HeaderValue::from_static("accept-language"));
        let language = HeaderValue::from_str(language).unwrap();
        request.insert(ACCEPT_LANGUAGE, language);
    }
    StoredHead {
        status: StatusCode::OK,
        variant: VariantKey::new(&request, &headers),
        headers: StoredFields::from(&headers),
        request_time: now,
        response_time: now,
        authorized: false,
        sets_cookie: false,
        mark: Mark::None,
        terms: Terms::default(),
    }
}

/// The same head with these tags and groups, separated by white space.
fn tagged(mut head: StoredHead, tags: &str, groups: &str) -> StoredHead {
    let groups: Vec<_> = groups
        .split_whitespace()
        .map(|group| format!("\"{group}\""))
        .collect();
    let value = |text: &str| HeaderValue::from_str(text).unwrap();
    head.headers.insert("surrogate-key", value(tags));
    head.headers
        .insert("cache-groups", value(&groups.join(", ")));
    reread(head)
}

/// With the terms that its fields say.
fn reread(mut head: StoredHead) -> StoredHead {
    let (fields, time) = (head.headers.to_map(), head.response_time);
    head.terms = Terms::parse(head.status, &fields, &Settings::default(), time, time);
    head
}

/// Bytes that differ from block to block.
fn body(len: usize) -> Vec<u8> {
    (0..len)
        .map(|at| (at % 251) as u8 ^ (at >> 16) as u8)
        .collect()
}
