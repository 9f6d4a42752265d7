//! Disks that are full, syncs that fail, power that is lost.

use std::sync::atomic::{AtomicBool, Ordering};

use super::{
    faults::{FaultyStorage, Keeps},
    *,
};
use crate::queue::{Parked, index::Room};

pub(super) async fn open(dir: &Arc<TempDir>, storage: &FaultyStorage) -> Fixture {
    let backing = Backing::faulty(dir.path().to_owned(), storage.clone());
    let config = config(dir.path());
    Fixture::open(dir.clone(), config, backing).await.unwrap()
}

pub(super) async fn faulty() -> (Fixture, FaultyStorage, Arc<TempDir>) {
    let (storage, dir) = (
        FaultyStorage::default(),
        Arc::new(tempfile::tempdir().unwrap()),
    );
    (open(&dir, &storage).await, storage, dir)
}

fn parked(item: &Item) -> Item {
    Item {
        state: State::Parked(Parked::Conflict),
        ..item.clone()
    }
}

/// Waits, in virtual time, until the writer has tried again.
pub(super) async fn next_try() {
    tokio::time::sleep(Duration::from_secs(31)).await;
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_fails_once_is_nobodys_loss() {
    let (fixture, storage, dir) = faulty().await;
    let first = fixture.append("first").await;
    for syncs in [1, 2] {
        storage.fail_syncs(1);
        let item = fixture.append(format!("{syncs}")).await;
        storage.fail_syncs(1);
        let update = Change::Update(parked(&item));
        fixture.journal.record(update).await.unwrap();
    }
    let all = fixture.all().await;
    assert!(all.iter().map(|item| item.seq).eq(1..=3));
    assert_eq!(all[0], first);
    assert!(fixture.errors("write") >= 4);
    drop(fixture);
    storage.crash(Keeps::Nothing);
    let fixture = open(&dir, &storage).await;
    assert_eq!(fixture.all().await, all);
    assert_eq!(fixture.journal.damage(), 0);
}

#[tokio::test(start_paused = true)]
async fn while_nothing_can_be_written_appends_are_refused_and_changes_wait() {
    let (fixture, storage, dir) = faulty().await;
    let item = fixture.append("body").await;
    storage.fail_after(0);
    for _ in 0..3 {
        let refused = fixture.journal.append(fixture.write("refused")).await;
        let Err(AppendError::Unavailable(Unavailable::Failing)) = refused else {
            panic!("{refused:?}");
        };
    }
    let journal = fixture.journal.clone();
    let update = Change::Update(parked(&item));
    let recording = fixture
        .tasks
        .spawn(async move { journal.record(update).await });
    next_try().await;
    assert!(!recording.is_finished());
    assert_eq!(fixture.item(item.id).await.unwrap(), item, "reads go on");
    storage.heal();
    recording.await.unwrap().unwrap();
    assert_eq!(fixture.item(item.id).await.unwrap(), parked(&item));
    let state = fixture.index.lock().unwrap().state(item.id);
    assert_eq!(state, Some(parked(&item).state));
    fixture.append("later").await;
    let all = fixture.all().await;
    assert!(all.iter().map(|item| item.seq).eq(1..=2), "{all:?}");
    drop(fixture);
    storage.crash(Keeps::Nothing);
    let fixture = open(&dir, &storage).await;
    assert_eq!(fixture.all().await, all);
}

/// What a failed commit left on disk was told its client as refused.
#[tokio::test(start_paused = true)]
async fn what_was_refused_is_not_on_disk_once_anything_else_is() {
    let (fixture, storage, dir) = faulty().await;
    fixture.append("first").await;
    let body = Bytes::from(vec![7; 100_000]);
    for operations in 0..60 {
        storage.fail_after(operations);
        let write = fixture.spooled(&body).await;
        let refused = fixture.journal.append(write).await;
        storage.heal();
        next_try().await;
        let kept = fixture.all().await.len();
        let is_kept = refused.is_ok();
        if let Ok(Appended::New(item)) = refused {
            assert_eq!(fixture.body(item.id).await, body);
            let remove = Change::Remove(item.id);
            fixture.journal.record(remove).await.unwrap();
        }
        assert_eq!(
            kept,
            1 + usize::from(is_kept),
            "after {operations} operations"
        );
        assert_eq!(fixture.spool_files(), Vec::<PathBuf>::new());
    }
    fixture.append("last").await;
    let all = fixture.all().await;
    assert_eq!(all.len(), 2);
    drop(fixture);
    storage.crash(Keeps::Nothing);
    let fixture = open(&dir, &storage).await;
    assert_eq!(fixture.all().await, all);
    assert_eq!(fixture.journal.damage(), 0);
}

/// A refused write was found again by its key before it was removed: the repetition was told that it is queued, and it was not.
#[tokio::test(start_paused = true)]
async fn what_was_refused_is_never_shown_and_its_repetition_is_kept() {
    let mut refused = 0;
    for mask in 1..256 {
        let (fixture, storage, dir) = faulty().await;
        fixture.append("first").await;
        let key = KeyHash::new("me", "POST", "http://a.example/orders", "1");
        let keyed = |body: &'static str| NewWrite {
            key: Some(key),
            ..fixture.write(body)
        };
        let body_sha256 = keyed("keyed").item.body_sha256;
        storage.fail_syncs_of(mask);
        let outcome = fixture.journal.append(keyed("keyed")).await;
        // Neither can be read while the database does not open.
        let known = fixture.journal.known(key, body_sha256).await;
        let page = fixture.journal.page(None, usize::MAX).await;
        if outcome.is_err() {
            refused += 1;
            assert!(!matches!(known, Ok(Some(_))), "mask {mask:b}");
            assert!(
                page.is_ok_and(|page| page.len() == 1) || known.is_err(),
                "mask {mask:b}"
            );
        }
        // Whatever the repetition is told, stands.
        let repeated = match fixture.journal.append(keyed("keyed")).await {
            Ok(Appended::New(item) | Appended::Known(item)) => Some(item),
            Err(_) => None,
        };
        storage.fail_syncs_of(0);
        next_try().await;
        let last = fixture.append("last").await;
        let all = fixture.all().await;
        if let Some(item) = repeated {
            assert!(all.contains(&item), "mask {mask:b}");
        }
        assert_eq!(all.last(), Some(&last));
        drop(fixture);
        storage.crash(Keeps::Nothing);
        let fixture = open(&dir, &storage).await;
        assert_eq!(fixture.all().await, all, "mask {mask:b}");
    }
    assert!(refused > 0, "no commit failed for good");
}

/// A client was told to come back with a write that the next start found, and sent as well.
#[tokio::test(start_paused = true)]
async fn what_a_start_may_find_is_not_told_to_be_refused_and_keeps_its_place() {
    let mut seen = [0; 3];
    for mask in 1..64 {
        let (fixture, storage, dir) = faulty().await;
        let first = fixture.append("first").await;
        storage.fail_syncs_of(mask);
        let write = fixture.write("second");
        let (lane, room) = (write.item.lane_id, Room::of(&write.item));
        let index = || fixture.index.lock().unwrap();
        index().reserve(&write.item.origin, room).unwrap();
        let lane_len = index().lane_len(lane);
        let outcome = fixture.journal.append(write).await;
        if !matches!(outcome, Ok(_) | Err(AppendError::Unknown)) {
            index().release_reservation(room);
        }
        let is_kept = index().lane_len(lane) == lane_len;
        // Killed: what was written is there, synced or not.
        drop(fixture);
        storage.crash(Keeps::Everything);
        storage.fail_syncs_of(0);
        let fixture = open(&dir, &storage).await;
        let all = fixture.all().await;
        let case = match outcome {
            Ok(_) => 0,
            Err(AppendError::Unknown) => 1,
            Err(_) => 2,
        };
        seen[case] += 1;
        match case {
            0 => assert_eq!(all.len(), 2, "mask {mask:b}"),
            1 => assert!(is_kept, "mask {mask:b}"),
            _ => assert_eq!(all, [first], "mask {mask:b}"),
        }
    }
    assert!(seen.iter().all(|seen| *seen > 0), "{seen:?}");
}

/// It is certain with the next commit.
#[tokio::test(start_paused = true)]
async fn what_was_in_doubt_gives_its_place_back_once_it_is_taken_back() {
    let mut doubted = 0;
    for mask in 1..64 {
        let (fixture, storage, _dir) = faulty().await;
        storage.fail_syncs_of(mask);
        let write = fixture.write("doubted");
        let (lane, room) = (write.item.lane_id, Room::of(&write.item));
        let index = || fixture.index.lock().unwrap();
        index().reserve(&write.item.origin, room).unwrap();
        let outcome = fixture.journal.append(write).await;
        storage.fail_syncs_of(0);
        if matches!(outcome, Err(AppendError::Unknown)) {
            doubted += 1;
            assert_eq!(index().lane_len(lane), 1, "mask {mask:b}");
            next_try().await;
            assert_eq!(index().lane_len(lane), 0, "mask {mask:b}");
            assert_eq!(fixture.all().await, []);
        }
    }
    assert!(doubted > 0);
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_taken_back_before_the_end() {
    let mut refused = 0;
    for mask in 1..64 {
        let (fixture, storage, dir) = faulty().await;
        let first = fixture.append("first").await;
        storage.fail_syncs_of(mask);
        let outcome = fixture.journal.append(fixture.write("second")).await;
        storage.fail_syncs_of(0);
        fixture.close().await;
        if outcome.is_err() {
            refused += 1;
            let fixture = open(&dir, &storage).await;
            assert_eq!(
                fixture.all().await,
                std::slice::from_ref(&first),
                "mask {mask:b}"
            );
        }
    }
    assert!(refused > 0, "no commit failed for good");
}

/// Each new write was one more to take back, without end, as long as the database failed.
#[tokio::test(start_paused = true)]
async fn nothing_is_tried_to_be_appended_until_the_database_has_shown_that_it_writes() {
    let (fixture, storage, _dir) = faulty().await;
    fixture.append("first").await;
    storage.fail_after(0);
    let refused = fixture.journal.append(fixture.write("refused")).await;
    assert!(refused.is_err());
    for _ in 0..10 {
        // Later than the next try, whenever that is.
        tokio::time::sleep(Duration::from_secs(6)).await;
        let errors = fixture.errors("write");
        for _ in 0..20 {
            let refused = fixture.journal.append(fixture.write("refused")).await;
            assert!(matches!(
                refused,
                Err(AppendError::Unavailable(Unavailable::Failing))
            ));
        }
        assert_eq!(fixture.errors("write"), errors, "refused without a try");
    }
    assert!(
        fixture.errors("write") >= 10,
        "what is to be taken back is tried"
    );
    storage.heal();
    next_try().await;
    fixture.append("later").await;
    let all = fixture.all().await;
    assert!(all.iter().map(|item| item.seq).eq(1..=2), "{all:?}");
}

#[tokio::test(start_paused = true)]
async fn whenever_the_power_is_lost_everything_acknowledged_is_there() {
    for operations in 0..50 {
        for keeps in [
            Keeps::Nothing,
            Keeps::Everything,
            Keeps::SomePages(operations),
        ] {
            let (fixture, storage, dir) = faulty().await;
            let mut acknowledged = vec![fixture.append("first").await];
            storage.fail_after(operations);
            let mut unknown = 0;
            for number in 0..4 {
                match fixture
                    .journal
                    .append(fixture.write(format!("{number}")))
                    .await
                {
                    Ok(Appended::New(item)) => acknowledged.push(item),
                    Ok(Appended::Known(item)) => panic!("{item:?}"),
                    Err(_) => unknown += 1,
                }
            }
            // The process is gone before it could reconcile.
            storage.crash(keeps);
            drop(fixture);
            let fixture = open(&dir, &storage).await;
            let all = fixture.all().await;
            let case = format!("after {operations} operations, {keeps:?}");
            for item in &acknowledged {
                assert!(all.contains(item), "{case}");
                fixture.body(item.id).await;
            }
            assert!(all.len() <= acknowledged.len() + unknown, "{case}");
            assert_eq!(fixture.journal.damage(), 0, "{case}");
            fixture.append("goes on").await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_appends_and_is_recovered_from_without_a_restart() {
    let (fixture, storage, _dir) = faulty().await;
    let item = fixture.append("body").await;
    storage.set_full(true);
    let refused = fixture.journal.append(fixture.write("refused")).await;
    let Err(AppendError::Unavailable(Unavailable::NoSpace)) = refused else {
        panic!("{refused:?}");
    };
    assert!(fixture.path("queue.reserve").exists());
    let journal = fixture.journal.clone();
    let update = Change::Update(parked(&item));
    let recording = fixture
        .tasks
        .spawn(async move { journal.record(update).await });
    let given_up = async {
        while fixture.path("queue.reserve").exists() {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    let limit = Duration::from_secs(60);
    tokio::time::timeout(limit, given_up).await.unwrap();
    assert!(!recording.is_finished());
    storage.set_full(false);
    recording.await.unwrap().unwrap();
    fixture.append("again").await;
    assert!(fixture.path("queue.reserve").exists(), "taken again");
    assert_eq!(fixture.all().await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn what_waits_is_tried_once_more_at_the_end_and_no_longer() {
    let (fixture, storage, dir) = faulty().await;
    let item = fixture.append("body").await;
    storage.fail_after(0);
    let journal = fixture.journal.clone();
    let update = Change::Update(parked(&item));
    let recording = fixture
        .tasks
        .spawn(async move { journal.record(update).await });
    next_try().await;
    fixture.close().await;
    assert!(matches!(
        recording.await.unwrap(),
        Err(JournalError::Closed)
    ));
    storage.heal();
    let fixture = open(&dir, &storage).await;
    assert_eq!(fixture.all().await, [item]);
    let journal = fixture.journal.clone();
    let write = fixture.write("late");
    fixture.close().await;
    let late = journal.append(write).await;
    assert!(matches!(
        late,
        Err(AppendError::Unavailable(Unavailable::Closed))
    ));
}

/// What an import is told stands, also when its first commit was not taken for one and was there all the same.
#[tokio::test(start_paused = true)]
async fn an_import_whose_sync_fails_is_imported_once() {
    for mask in 1..64 {
        let (fixture, storage, dir) = faulty().await;
        let first = fixture.append("first").await;
        let mut id = *first.id.as_bytes();
        id[15] ^= 1;
        let import = || {
            let write = fixture.write("imported");
            Change::Import {
                item: Item {
                    id: ItemId::from_bytes(id),
                    ..write.item
                },
                fields: write.fields,
                body: write.body,
            }
        };
        storage.fail_syncs_of(mask);
        let (one, two) = tokio::join!(
            fixture.journal.record(import()),
            fixture.journal.record(import())
        );
        assert!(one.is_ok(), "mask {mask:b}: {one:?}");
        assert!(matches!(two, Err(JournalError::Exists)), "mask {mask:b}");
        assert_eq!(
            fixture.index.lock().unwrap().counts().iter().sum::<usize>(),
            2
        );
        storage.fail_syncs_of(0);
        let all = fixture.all().await;
        assert_eq!(all.len(), 2, "mask {mask:b}");
        drop(fixture);
        storage.crash(Keeps::Nothing);
        let fixture = open(&dir, &storage).await;
        assert_eq!(fixture.all().await, all, "mask {mask:b}");
        assert_eq!(fixture.journal.damage(), 0, "mask {mask:b}");
    }
}

/// A clock that panics on demand, where no panic is expected.
#[derive(Debug, Default)]
struct BreakableClock {
    is_broken: AtomicBool,
}

impl Clock for BreakableClock {
    fn now(&self) -> Timestamp {
        assert!(!self.is_broken.load(Ordering::SeqCst), "on demand");
        Timestamp::from_secs(1_700_000_000)
    }

    fn steady(&self) -> Duration {
        Duration::ZERO
    }
}

/// The end waited for ever for a writer that was gone.
#[tokio::test(start_paused = true)]
async fn a_panic_of_the_writer_closes_the_queue_and_loses_nothing_accepted() {
    let fixture = Fixture::new().await;
    let (dir, config) = fixture.close().await;
    let clock = Arc::new(BreakableClock::default());
    let (index, tasks) = (
        Arc::new(Mutex::new(Index::new(&config))),
        TaskTracker::new(),
    );
    let backing = || Backing::directory(dir.path().to_owned());
    let journal = open_on(
        backing(),
        &config,
        clock.clone(),
        Metrics::new(),
        index,
        &tasks,
    );
    let journal = journal.await.unwrap();
    let write = || new_write("body".into(), Timestamp::from_secs(1_700_000_000));
    let item = appended(journal.append(write()).await);
    assert!(!journal.is_closed());
    clock.is_broken.store(true, Ordering::SeqCst);
    // It might have been in the commit: only the next start finds out.
    let unknown = journal.append(write()).await;
    assert!(matches!(unknown, Err(AppendError::Unknown)), "{unknown:?}");
    journal.inner.ended.cancelled().await;
    for _ in 0..2 {
        let closed = journal.append(write()).await;
        let Err(AppendError::Unavailable(Unavailable::Closed)) = closed else {
            panic!("{closed:?}");
        };
        let closed = journal.record(Change::Update(parked(&item))).await;
        assert!(matches!(closed, Err(JournalError::Closed)), "{closed:?}");
        assert!(journal.is_closed(), "and it is said");
    }
    let before = tokio::time::Instant::now();
    journal.close().await;
    assert_eq!(before.elapsed(), Duration::ZERO);
    tasks.close();
    tasks.wait().await;
    let fixture = Fixture::open(dir.clone(), config, backing()).await.unwrap();
    assert_eq!(fixture.all().await, [item]);
    assert_eq!(fixture.journal.damage(), 0);
}
