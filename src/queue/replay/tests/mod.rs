//! Deliveries under virtual time, to origins that do as they are told.

mod answers;
mod clocks;
mod isolation;
mod model;
mod phases;
mod portal;
mod restarts;
mod support;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use futures_util::future::join_all;
use tempfile::TempDir;
use tokio::{
    sync::{Notify, broadcast},
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::support::{Origins, Wall};
use super::{Replay, run, status::Statuses};
use crate::{
    clock::Clock,
    queue::{
        Changed, Config, Item, ItemId, LaneId, Origin, Repeat, State,
        changed::Changes,
        index::{Index, Room},
        journal::{
            AppendError, Appended, Change, Journal, NewBody, NewWrite, Pause,
            faults::{FaultyStorage, Keeps},
        },
        tests::{config, item},
    },
    telemetry::{AttemptLabels, Metrics},
};

/// Longer than anything a test waits for; under virtual time it costs nothing.
const PATIENCE: Duration = Duration::from_secs(10_000_000);

/// How long deliveries in flight may take at shutdown.
const GRACE: Duration = Duration::from_secs(20);

/// A queue on a disk in memory, its origins and its clock.
struct Fixture {
    dir: Arc<TempDir>,
    storage: FaultyStorage,
    config: Config,
    origins: Origins,
    wall: Arc<Wall>,
    journal: Journal,
    replay: Arc<Replay<Origins>>,
    changes: broadcast::Receiver<Changed>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    running: JoinSet<()>,
}

fn origin(name: &str) -> Origin {
    Origin::Upstream(name.to_owned())
}

/// A write of a lane of the origin `api`, whose path tells it apart.
fn write(method: &str, lane: &str, path: &str) -> Item {
    write_to("api", method, lane, path)
}

fn write_to(at: &str, method: &str, lane: &str, path: &str) -> Item {
    let repeat = match method {
        "PUT" | "DELETE" => Repeat::Harmless,
        _ => Repeat::Doubtful,
    };
    Item {
        method: method.to_owned(),
        url: format!("http://{at}.example{path}"),
        lane: lane.to_owned(),
        lane_id: LaneId::new(&origin(at), lane),
        origin: origin(at),
        repeat,
        accepted_at: Wall::BEGIN,
        next_at: Wall::BEGIN,
        ..item()
    }
}

impl Fixture {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = Arc::new(tempfile::tempdir().unwrap());
        let mut config = config();
        config.dir = dir.path().to_owned();
        (config.max_lane_items, config.max_client_items) = (10_000, 10_000);
        change(&mut config);
        Self::open(
            dir,
            FaultyStorage::default(),
            config,
            Origins::new(),
            Wall::new(),
        )
        .await
    }

    async fn open(
        dir: Arc<TempDir>,
        storage: FaultyStorage,
        config: Config,
        origins: Origins,
        wall: Arc<Wall>,
    ) -> Self {
        let index = Arc::new(Mutex::new(Index::new(&config)));
        let (metrics, tasks) = (Metrics::new(), TaskTracker::new());
        let journal = Journal::open_on(
            storage.clone(),
            &config,
            wall.clone(),
            Arc::clone(&metrics),
            Arc::clone(&index),
            &tasks,
        );
        let journal = journal.await.unwrap();
        let changes = Changes::keeping(100_000);
        let watched = changes.subscribe();
        let replay = Arc::new(Replay {
            outlet: origins.clone(),
            journal: journal.clone(),
            index,
            places: Arc::default(),
            config: config.clone(),
            clock: wall.clone(),
            metrics,
            changes,
            wake: Arc::new(Notify::new()),
            statuses: Arc::new(Statuses::new(wall.clone())),
        });
        let shutdown = CancellationToken::new();
        let mut running = JoinSet::new();
        running.spawn(run(Arc::clone(&replay), shutdown.clone(), GRACE));
        Self {
            dir,
            storage,
            config,
            origins,
            wall,
            journal,
            replay,
            changes: watched,
            tasks,
            shutdown,
            running,
        }
    }

    /// Stops, and starts anew.
    async fn restart(mut self) -> Self {
        self.stop().await;
        self.close().await;
        self.start().await
    }

    /// The process is gone from one moment to the next, and starts anew.
    async fn crash(mut self, keeps: Keeps) -> Self {
        self.storage.fail_after(0);
        self.running.shutdown().await;
        self.close().await;
        self.storage.crash(keeps);
        self.start().await
    }

    async fn close(&mut self) {
        self.journal.close().await;
        self.tasks.close();
        self.tasks.wait().await;
    }

    async fn start(self) -> Self {
        let Self {
            dir,
            storage,
            config,
            origins,
            wall,
            ..
        } = self;
        Self::open(dir, storage, config, origins, wall).await
    }

    async fn append(&self, item: Item) -> Item {
        self.append_with(item, &[]).await
    }

    async fn append_with(&self, item: Item, fields: &[(&str, &str)]) -> Item {
        self.try_append(item, fields).await.unwrap()
    }

    async fn try_append(
        &self,
        mut item: Item,
        fields: &[(&str, &str)],
    ) -> Result<Item, AppendError> {
        let now = self.wall.now();
        (item.accepted_at, item.next_at) = (now, now);
        let field = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
        let fields = fields.iter().map(field).collect();
        let room = Room::of(&item);
        self.replay.index().reserve(&item.origin, room).unwrap();
        let write = NewWrite {
            item,
            fields,
            body: NewBody::Inline(Bytes::new()),
            key: None,
        };
        let appended = self.journal.append(write).await.inspect_err(|_| {
            self.replay.index().release_reservation(room);
        })?;
        self.replay.wake.notify_one();
        match appended {
            Appended::New(item) | Appended::Known(item) => Ok(item),
        }
    }

    /// Appends them in this order, in few commits.
    async fn append_all(&self, items: impl IntoIterator<Item = Item>) -> Vec<Item> {
        join_all(items.into_iter().map(|item| self.append(item))).await
    }

    async fn item(&self, id: ItemId) -> Item {
        self.journal.item(id).await.unwrap().unwrap()
    }

    /// Returns once a write is as it should be.
    async fn until(&mut self, id: ItemId, is_so: impl Fn(&Item) -> bool) -> Item {
        let mut item = self.item(id).await;
        let waiting = async {
            while !is_so(&item) {
                self.changes.recv().await.unwrap();
                item = self.journal.item(id).await.unwrap().unwrap();
            }
        };
        if timeout(PATIENCE, waiting).await.is_err() {
            panic!(
                "{item:#?} is not as it should be; {:?} were seen",
                self.origins.paths()
            );
        }
        item
    }

    /// Returns once a write is neither queued, nor waiting, nor on its way.
    async fn settled(&mut self, id: ItemId) -> Item {
        self.until(id, |item| !item.state.is_pending()).await
    }

    async fn all_done(&mut self, items: &[Item]) {
        for item in items {
            let settled = self.settled(item.id).await;
            assert!(matches!(settled.state, State::Done(_)), "{settled:#?}");
        }
    }

    fn phase(&self) -> Option<&'static str> {
        let status = self.replay.statuses.of(&origin("api"))?;
        Some(status.phase.as_str())
    }

    async fn pass_secs(&self, secs: u64) {
        sleep(Duration::from_secs(secs)).await;
    }

    fn attempts(&self, outcome: &'static str) -> u64 {
        let attempts = &self.replay.metrics.queue_attempts;
        attempts.get_or_create(&AttemptLabels { outcome }).get()
    }

    async fn pause(&self, origins: Vec<Option<Origin>>) {
        let since = self.wall.now();
        let pause = |origin| Pause {
            origin,
            since,
            reason: None,
        };
        let pauses = origins.into_iter().map(pause).collect();
        self.journal.record(Change::Pause(pauses)).await.unwrap();
        self.replay.wake.notify_one();
    }

    /// Shuts down, as far as the grace lasts.
    async fn stop(&mut self) {
        self.shutdown.cancel();
        while self.running.join_next().await.is_some() {}
    }
}
