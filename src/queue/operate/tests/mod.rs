//! What operators do, on a queue whose deliveries do not run: nothing changes but what is asked for.

mod change;
mod edit;
mod listing;
mod redrive;
mod transfer;

use std::{fs, sync::Arc};

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use super::{Filter, Record};
use crate::{
    clock::VirtualClock,
    policy::Timestamp,
    queue::{
        Appended, Config, Dead, Item, ItemId, NewBody, NewWrite, Parked, Places, Queue, Repeat,
        State,
        journal::Change,
        tests::{config, item},
    },
    telemetry::Metrics,
};

const BY: &str = "admin token from 127.0.0.1";
const NOW: Timestamp = Timestamp::from_secs(1_000_000);
const KEY: &str = "a-key-that-seals-credentials-0123456789";

/// A queue of its own directory, which ends with the test.
struct Bench {
    queue: Queue,
    clock: Arc<VirtualClock>,
    dir: TempDir,
    config: Config,
}

impl Bench {
    async fn new() -> Self {
        Self::with_key(Some(KEY)).await
    }

    async fn with_key(key: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        let key_file = key.map(|key| {
            let path = dir.path().join("keys");
            fs::write(&path, key).unwrap();
            path
        });
        let config = Config {
            dir: data,
            key_file,
            ..config()
        };
        let clock = Arc::new(VirtualClock::new(NOW));
        let queue = open(&config, &clock).await;
        Self {
            queue,
            clock,
            dir,
            config,
        }
    }

    async fn reopened(self) -> Self {
        self.queue.close().await;
        let queue = open(&self.config, &self.clock).await;
        Self { queue, ..self }
    }

    /// Appends a write, and leaves it in this state.
    async fn write(&self, path: &str, state: State) -> Item {
        self.write_as(path, state, |_| {}).await
    }

    async fn write_as(&self, path: &str, state: State, change: impl FnOnce(&mut Item)) -> Item {
        let body = Bytes::from(format!("body of {path}"));
        let mut wanted = Item {
            url: format!("http://api.example{path}"),
            body_bytes: body.len() as u64,
            accepted_at: NOW,
            next_at: NOW,
            ..item()
        };
        wanted
            .body_sha256
            .copy_from_slice(digest(&SHA256, &body).as_ref());
        change(&mut wanted);
        let fields = [
            ("content-type", "text/plain"),
            ("idempotency-key", "\"k-1\""),
            ("authorization", "Bearer secret"),
        ];
        let write = NewWrite {
            item: wanted,
            fields: fields
                .map(|(name, value)| (name.to_owned(), value.into()))
                .to_vec(),
            body: NewBody::Inline(body),
            key: None,
        };
        let Appended::New(mut item) = self.queue.append(write).await.unwrap() else {
            panic!("known");
        };
        if state != State::Queued {
            self.queue.index().claim(item.id, |_| true).unwrap();
            item.state = state;
            item.attempts = 50;
            let change = Change::Update(item.clone());
            self.queue.inner.journal.record(change).await.unwrap();
        }
        item
    }

    async fn item(&self, id: ItemId) -> Item {
        self.queue.item(id).await.unwrap().unwrap()
    }

    async fn list(&self, filter: Filter) -> Vec<String> {
        let page = self.queue.list(&filter, None, 1_000).await.unwrap();
        assert_eq!(page.next, None);
        let paths = page.items.iter().map(|shown| path(&shown.item));
        paths.collect()
    }

    /// The actions of the audit, the oldest first.
    async fn audited(&self) -> Vec<(String, Option<ItemId>)> {
        let page = self.queue.audit(None, 100).await.unwrap();
        let entries = page.items.into_iter().rev();
        entries
            .map(|entry| {
                assert_eq!(entry.actor, BY);
                (entry.action, entry.item)
            })
            .collect()
    }

    async fn exported(&self) -> Vec<Record> {
        let page = self
            .queue
            .list(&Filter::default(), None, 1_000)
            .await
            .unwrap();
        let mut records = Vec::new();
        for shown in page.items {
            records.extend(self.queue.record(shown.item.id).await.unwrap());
        }
        records
    }
}

async fn open(config: &Config, clock: &Arc<VirtualClock>) -> Queue {
    let tasks = TaskTracker::new();
    Queue::open(
        config.clone(),
        Places::default(),
        clock.clone(),
        Metrics::new(),
        &tasks,
    )
    .await
    .unwrap()
}

fn keyed(item: &mut Item) {
    item.repeat = Repeat::Keyed;
    item.idempotency_key = Some("k-1".to_owned());
    item.is_client_key = true;
}

fn path(item: &Item) -> String {
    let path = item.url.strip_prefix("http://api.example");
    path.unwrap().to_owned()
}

fn states(names: &[&'static str]) -> Filter {
    Filter {
        states: Some(names.to_vec()),
        ..Filter::default()
    }
}

const REJECTED: State = State::Dead(Dead::Rejected);
const AMBIGUOUS: State = State::Parked(Parked::Ambiguous);
