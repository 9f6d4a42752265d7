//! The journal's behaviour through its handle, on real files and on ones that fail.

mod basics;
mod damage;
mod failures;
pub(in crate::queue) mod faults;
mod forged;
mod pauses;
mod receipts;
mod recovery;
mod salvage;
mod sealing;
mod signposts;

use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use super::{
    AppendError, Appended, AuditEntry, Change, ContentError, Journal, JournalError, KeyHash,
    NewBody, NewWrite, OpenError, Opened, Pause, Unavailable,
    backing::Backing,
    marker::{Marked, Marker},
    open::open_on,
};
use crate::{
    clock::{Clock, VirtualClock},
    policy::Timestamp,
    queue::{
        Config, DeliveryBody, Done, Item, ItemId, LaneId, OnStuck, Origin, PendingReads, Repeat,
        ReplayRate, State, index::Index,
    },
    telemetry::{Metrics, OperationLabels},
};

/// A journal in a directory that outlives it.
struct Fixture {
    dir: Arc<TempDir>,
    config: Config,
    clock: Arc<VirtualClock>,
    metrics: Arc<Metrics>,
    index: Arc<Mutex<Index>>,
    tasks: TaskTracker,
    journal: Journal,
}

fn config(dir: &Path) -> Config {
    Config {
        dir: dir.to_owned(),
        max_items: 100_000,
        max_bytes: 1 << 30,
        max_item_bytes: 8 << 20,
        max_lane_items: 100_000,
        max_client_items: 100_000,
        max_age: Duration::from_secs(259_200),
        max_attempts: 50,
        replay_rate: ReplayRate {
            deliveries: 50,
            per: Duration::from_secs(1),
        },
        recovery_spread: Duration::ZERO,
        receipt_ttl: Duration::from_secs(86_400),
        key_file: None,
        sensitive_headers: Vec::new(),
    }
}

impl Fixture {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let mut config = config(dir.path());
        change(&mut config);
        let backing = Backing::directory(dir.path().to_owned());
        Self::open(dir, config, backing).await.unwrap()
    }

    async fn open(dir: Arc<TempDir>, config: Config, backing: Backing) -> Result<Self, OpenError> {
        let at = Timestamp::from_secs(1_700_000_000);
        Self::open_at(dir, config, backing, at).await
    }

    async fn open_at(
        dir: Arc<TempDir>,
        config: Config,
        backing: Backing,
        at: Timestamp,
    ) -> Result<Self, OpenError> {
        let clock = Arc::new(VirtualClock::new(at));
        let (metrics, tasks) = (Metrics::new(), TaskTracker::new());
        let index = Arc::new(Mutex::new(Index::new(&config)));
        let journal = open_on(
            backing,
            &config,
            clock.clone(),
            metrics.clone(),
            index.clone(),
            &tasks,
        )
        .await?;
        Ok(Self {
            dir,
            config,
            clock,
            metrics,
            index,
            tasks,
            journal,
        })
    }

    /// Closes the journal, and opens it again.
    async fn reopen(self) -> Self {
        let (dir, config) = self.close().await;
        let backing = Backing::directory(dir.path().to_owned());
        Self::open(dir, config, backing).await.unwrap()
    }

    async fn close(self) -> (Arc<TempDir>, Config) {
        self.journal.close().await;
        self.tasks.close();
        self.tasks.wait().await;
        (self.dir, self.config)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn write(&self, body: impl Into<Bytes>) -> NewWrite {
        new_write(body.into(), self.now())
    }

    async fn append(&self, body: impl Into<Bytes>) -> Item {
        appended(self.journal.append(self.write(body)).await)
    }

    /// A write whose body is in a finished file.
    async fn spooled(&self, body: &Bytes) -> NewWrite {
        let mut file = self.journal.spool().await.unwrap();
        for piece in body.chunks(30_000) {
            file.write(body.slice_ref(piece)).await.unwrap();
        }
        file.finish();
        let write = self.write(body.clone());
        assert_eq!(file.bytes(), body.len() as u64);
        assert_eq!(file.sha256(), write.item.body_sha256);
        NewWrite {
            body: NewBody::Spooled(file),
            ..write
        }
    }

    async fn append_spooled(&self, body: &Bytes) -> Item {
        let write = self.spooled(body).await;
        appended(self.journal.append(write).await)
    }

    fn spool_files(&self) -> Vec<PathBuf> {
        let files = std::fs::read_dir(self.path("spool")).unwrap();
        files.map(|file| file.unwrap().path()).collect()
    }

    /// How many transactions there were.
    fn revision(&self) -> u64 {
        match Marker::open(self.dir.path()).unwrap().1 {
            Marked::Until(counters) => counters.revision,
            other => panic!("{other:?}"),
        }
    }

    async fn item(&self, id: ItemId) -> Option<Item> {
        self.journal.item(id).await.unwrap()
    }

    async fn body(&self, id: ItemId) -> Bytes {
        body_of(self.journal.content(id).await.unwrap())
    }

    /// What is sent of a write, as soon as what a read of it met is seen to.
    async fn content(&self, id: ItemId) -> Result<Opened, ContentError> {
        for _ in 0..500 {
            match self.journal.content(id).await {
                Err(ContentError::Unavailable(_)) => {}
                content => return content,
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the damage that a read met is not seen to");
    }

    async fn all(&self) -> Vec<Item> {
        self.journal.page(None, usize::MAX).await.unwrap()
    }

    fn errors(&self, op: &'static str) -> u64 {
        let labels = OperationLabels { op };
        self.metrics.storage_errors.get_or_create(&labels).get()
    }
}

fn appended(result: Result<Appended, AppendError>) -> Item {
    match result.unwrap() {
        Appended::New(item) => item,
        Appended::Known(item) => panic!("{item:?} was known"),
    }
}

fn body_of(opened: Opened) -> Bytes {
    match opened.body {
        DeliveryBody::Whole(body) => body,
        DeliveryBody::File { path, .. } => std::fs::read(path).unwrap().into(),
    }
}

fn new_write(body: Bytes, now: Timestamp) -> NewWrite {
    let origin = Origin::Upstream("a".to_owned());
    let mut body_sha256 = [0; 32];
    let digest = ring::digest::digest(&ring::digest::SHA256, &body);
    body_sha256.copy_from_slice(digest.as_ref());
    let item = Item {
        id: ItemId::from_bytes([0; 16]),
        seq: 0,
        state: State::Queued,
        lane_id: LaneId::new(&origin, "lane"),
        origin,
        route: "route".to_owned(),
        lane: "lane".to_owned(),
        on_stuck: OnStuck::Halt,
        method: "POST".to_owned(),
        url: "http://a.example/orders".to_owned(),
        stored_under: "http://a.example/orders".to_owned(),
        base_path: String::new(),
        principal: "me".to_owned(),
        client: 7,
        address: 7,
        body_bytes: body.len() as u64,
        body_sha256,
        weight_bytes: body.len() as u64 + 500,
        repeat: Repeat::Doubtful,
        idempotency_key: None,
        is_client_key: false,
        is_key_honoured: false,
        idempotency_ttl: Duration::from_secs(3_600),
        trust_503: false,
        answers_html: false,
        pending_reads: PendingReads::Mark,
        accepted_at: now,
        attempts: 0,
        ambiguous_since: None,
        next_at: now,
        floor_until: None,
        last: None,
        remark: None,
        ended_at: None,
        revived: None,
    };
    NewWrite {
        item,
        fields: vec![("content-type".to_owned(), b"text/plain".to_vec())],
        body: NewBody::Inline(body),
        key: None,
    }
}

/// What the write becomes when it is delivered.
fn done(item: &Item, now: Timestamp) -> Item {
    Item {
        state: State::Done(Done::Answered),
        ended_at: Some(now),
        ..item.clone()
    }
}
