//! Disks that are full, or nearly, and writes that fail.

use std::{sync::Arc, time::Duration};

use super::{Directory, Fixture, body, faults::FaultyStorage, key};
use crate::{
    policy::Mark,
    store::{Published, PurgeKind, Selector, disk::Backing},
};

async fn faulty() -> (Fixture, FaultyStorage) {
    let storage = FaultyStorage::default();
    let dir = Directory::temporary();
    let fixture = open(dir, &storage).await;
    (fixture, storage)
}

async fn open(dir: Arc<Directory>, storage: &FaultyStorage) -> Fixture {
    let backing = Backing::Faulty(dir.path().to_owned(), storage.clone());
    Fixture::open_on(backing, dir, |_| {}).await.unwrap()
}

/// Waits, in virtual time, until the writer has looked at the disk again.
async fn next_look() {
    tokio::time::sleep(Duration::from_secs(6)).await;
}

#[tokio::test(start_paused = true)]
async fn below_the_minimum_of_free_space_nothing_is_stored_and_the_rest_goes_on() {
    let fixture = Fixture::new().await;
    let (one, other) = (key("http://a.example/1"), key("http://a.example/2"));
    fixture.publish(&one, "one");
    fixture.publish(&other, "other");
    let fixture = fixture
        .reopen_with(|config| config.disk_free_min_bytes = u64::MAX)
        .await;
    assert!(fixture.store.stats().disk_suspended);
    assert_eq!(fixture.body(&one).await.unwrap(), b"one");
    let new = key("http://a.example/new");
    assert_eq!(fixture.publish(&new, "new"), Published::MemoryOnly);
    assert_eq!(fixture.body(&new).await.unwrap(), b"new");
    assert_eq!(fixture.errors("skipped"), 1);
    assert!(fixture.metrics.storage_free_bytes.get() > 0);
    fixture.store.mark(&one, Mark::Invalid).await.unwrap();
    let selector = Selector::Url(other.as_str().to_owned());
    let purged = fixture
        .store
        .purge(&selector, PurgeKind::Hard)
        .await
        .unwrap();
    assert_eq!(purged.count, 1);
    let fixture = fixture.reopen().await;
    assert!(!fixture.store.stats().disk_suspended);
    assert_eq!(fixture.mark_of(&one).await, Some(Mark::Invalid));
    assert!(fixture.lookup(&other).await.is_none());
    assert!(fixture.lookup(&new).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_suspends_storing_until_there_is_room_again() {
    let (fixture, storage) = faulty().await;
    let (old, lost, new) = (
        key("http://a.example/old"),
        key("http://a.example/lost"),
        key("http://a.example/new"),
    );
    fixture.publish(&old, "old");
    fixture.store.flush().await.unwrap();
    storage.set_full(true);
    assert_eq!(fixture.publish(&lost, "lost"), Published::Stored);
    fixture.forget_memory().await;
    assert!(fixture.store.stats().disk_suspended);
    assert!(fixture.errors("write") > 0);
    assert_eq!(fixture.publish(&new, "new"), Published::MemoryOnly);
    assert_eq!(fixture.body(&new).await.unwrap(), b"new");
    assert_eq!(fixture.body(&old).await.unwrap(), b"old", "reads go on");
    next_look().await;
    assert_eq!(fixture.body(&old).await.unwrap(), b"old", "and on");
    storage.set_full(false);
    next_look().await;
    assert!(!fixture.store.stats().disk_suspended);
    assert_eq!(fixture.body(&old).await.unwrap(), b"old");
    assert!(fixture.lookup(&lost).await.is_none());
    assert_eq!(fixture.publish(&new, "new"), Published::Stored);
    fixture.forget_memory().await;
    assert_eq!(fixture.body(&new).await.unwrap(), b"new");
}

#[tokio::test(start_paused = true)]
async fn an_invalidation_that_cannot_be_written_holds_and_is_written_later() {
    let (fixture, storage) = faulty().await;
    let key = key("http://a.example/");
    fixture.publish(&key, "body");
    fixture.forget_memory().await;
    storage.set_full(true);
    fixture.store.mark(&key, Mark::Invalid).await.unwrap();
    fixture.forget_memory().await;
    assert_eq!(fixture.mark_of(&key).await, Some(Mark::Invalid));
    storage.set_full(false);
    next_look().await;
    fixture.forget_memory().await;
    assert_eq!(fixture.mark_of(&key).await, Some(Mark::Invalid));
    let dir = fixture.close().await;
    let fixture = open(dir, &storage).await;
    assert_eq!(fixture.mark_of(&key).await, Some(Mark::Invalid));
}

#[tokio::test(start_paused = true)]
async fn a_purge_that_cannot_be_written_says_so_and_holds_and_is_written_later() {
    let (fixture, storage) = faulty().await;
    let (one, other) = (key("http://a.example/1"), key("http://a.example/2"));
    fixture.publish(&one, "one");
    fixture.publish(&other, body(100_000));
    fixture.forget_memory().await;
    storage.set_full(true);
    let selector = Selector::Prefix("http://a.example/1".to_owned());
    assert!(
        fixture
            .store
            .purge(&selector, PurgeKind::Hard)
            .await
            .is_err()
    );
    assert!(fixture.lookup(&one).await.is_none());
    assert_eq!(fixture.body(&other).await.unwrap(), body(100_000));
    storage.set_full(false);
    next_look().await;
    assert!(fixture.lookup(&one).await.is_none());
    assert_eq!(fixture.store.stats().disk_entries, 1);
    let dir = fixture.close().await;
    let fixture = open(dir, &storage).await;
    assert!(fixture.lookup(&one).await.is_none());
    assert_eq!(fixture.body(&other).await.unwrap(), body(100_000));
}

#[tokio::test(start_paused = true)]
async fn purges_that_fail_again_and_again_do_not_pile_up() {
    let (fixture, storage) = faulty().await;
    let target = key("http://a.example/0");
    fixture.publish(&target, "body");
    fixture.forget_memory().await;
    storage.set_full(true);
    for number in 0..100 {
        let selector = Selector::Prefix(format!("http://a.example/{}", number / 2));
        let purged = fixture.store.purge(&selector, PurgeKind::Hard).await;
        // Only one that finds something needs the disk.
        assert_eq!(purged.is_err(), number < 2, "{number}");
    }
    assert_eq!(fixture.store.inner.purges.read().in_force_of(&target), 1);
    storage.set_full(false);
    next_look().await;
    assert_eq!(fixture.store.inner.purges.read().in_force_of(&target), 0);
    assert!(fixture.lookup(&target).await.is_none());
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_cannot_be_written_says_so() {
    let (fixture, storage) = faulty().await;
    let key = key("http://a.example/");
    fixture.publish(&key, "body");
    fixture.store.flush().await.unwrap();
    let id = fixture.lookup(&key).await.unwrap().variants[0]
        .id()
        .public();
    storage.set_full(true);
    assert!(fixture.store.remove(&id.to_string()).await.is_err());
    storage.set_full(false);
    next_look().await;
    assert!(fixture.lookup(&key).await.is_none());
    assert_eq!(fixture.store.stats().disk_entries, 0);
}

/// Breaks what was promised: a response that was replaced came back from disk, with the newer one only in memory.
#[tokio::test(start_paused = true)]
async fn a_replaced_response_does_not_come_back_when_the_newer_one_is_not_written() {
    let fixture = Fixture::new().await;
    let (one, freshened) = (key("http://a.example/1"), key("http://a.example/2"));
    fixture.publish(&one, "old");
    fixture.publish(&freshened, "same");
    let fixture = fixture
        .reopen_with(|config| config.disk_free_min_bytes = u64::MAX)
        .await;
    assert_eq!(fixture.body(&one).await.unwrap(), b"old");
    assert_eq!(fixture.publish(&one, "new"), Published::MemoryOnly);
    assert_eq!(fixture.body(&one).await.unwrap(), b"new");
    let stored = fixture.lookup(&freshened).await.unwrap().variants[0].clone();
    let ticket = fixture.store.ticket();
    let head = fixture.head("");
    let place = fixture.store.freshen(ticket, &freshened, &stored, head);
    assert_eq!(place, Published::MemoryOnly);
    assert_eq!(fixture.mark_of(&freshened).await, Some(Mark::None));
    fixture.forget_memory().await;
    assert!(fixture.lookup(&one).await.is_none());
    assert_eq!(fixture.mark_of(&freshened).await, Some(Mark::Stale));
    let fixture = fixture.reopen().await;
    assert!(fixture.lookup(&one).await.is_none());
    assert_eq!(fixture.mark_of(&freshened).await, Some(Mark::Stale));
    assert_eq!(fixture.body(&freshened).await.unwrap(), b"same");
}

/// The same where writing failed after the response was taken for writing.
#[tokio::test(start_paused = true)]
async fn a_replaced_response_does_not_come_back_when_writing_the_newer_one_failed() {
    let (fixture, storage) = faulty().await;
    let (one, freshened) = (key("http://a.example/1"), key("http://a.example/2"));
    fixture.publish(&one, "old");
    fixture.publish(&freshened, "same");
    fixture.store.flush().await.unwrap();
    let stored = fixture.lookup(&freshened).await.unwrap().variants[0].clone();
    storage.set_full(true);
    assert_eq!(fixture.publish(&one, "new"), Published::Stored);
    let ticket = fixture.store.ticket();
    let mut head = fixture.head("");
    head.mark = Mark::Invalid;
    let place = fixture.store.freshen(ticket, &freshened, &stored, head);
    assert_eq!(place, Published::Stored);
    fixture.forget_memory().await;
    assert!(fixture.lookup(&one).await.is_none(), "not while it fails");
    assert_eq!(fixture.mark_of(&freshened).await, Some(Mark::Invalid));
    storage.set_full(false);
    next_look().await;
    fixture.forget_memory().await;
    let dir = fixture.close().await;
    let fixture = open(dir, &storage).await;
    assert!(fixture.lookup(&one).await.is_none(), "nor afterwards");
    assert_eq!(fixture.mark_of(&freshened).await, Some(Mark::Invalid));
}

/// A removal and a put of one name in one batch share the body file that is there.
#[tokio::test]
async fn a_body_put_again_right_after_its_removal_keeps_its_file() {
    let fixture = Fixture::new().await;
    let one = key("http://a.example/1");
    fixture.publish(&one, body(100_000));
    fixture.forget_memory().await;
    let id = fixture.lookup(&one).await.unwrap().variants[0].id();
    fixture.store.inner.pending.remove(&one, id);
    fixture.publish(&one, body(100_000));
    fixture.forget_memory().await;
    assert_eq!(fixture.body(&one).await.unwrap(), body(100_000));
}

/// With a failing disk and a full queue a mark waited five seconds and was lost.
#[tokio::test(start_paused = true)]
async fn a_mark_for_which_there_is_no_room_holds_for_everything_on_disk() {
    let (fixture, storage) = faulty().await;
    let (one, other) = (key("http://a.example/1"), key("http://a.example/2"));
    fixture.publish(&one, "one");
    fixture.publish(&other, "other");
    fixture.forget_memory().await;
    storage.set_full(true);
    let mut n = 0;
    while fixture
        .store
        .inner
        .pending
        .mark(&key(&format!("http://b.example/{n}")), Mark::Invalid)
    {
        n += 1;
    }
    let start = tokio::time::Instant::now();
    let unknown = key("http://c.example/");
    fixture.store.mark(&unknown, Mark::Invalid).await.unwrap();
    assert_eq!(
        fixture.mark_of(&other).await,
        Some(Mark::None),
        "nothing was stored there"
    );
    fixture.store.inner.memory.clear();
    fixture.store.mark(&one, Mark::Invalid).await.unwrap();
    assert!(start.elapsed() < Duration::from_secs(1));
    assert_eq!(fixture.mark_of(&one).await, Some(Mark::Invalid));
    assert_eq!(fixture.mark_of(&other).await, Some(Mark::Invalid));
    storage.set_full(false);
    next_look().await;
    fixture.forget_memory().await;
    let dir = fixture.close().await;
    let fixture = open(dir, &storage).await;
    assert_eq!(fixture.mark_of(&one).await, Some(Mark::Invalid));
    assert_eq!(fixture.mark_of(&other).await, Some(Mark::Invalid));
}

/// A purge that could not read the disk was tried again at once, without end.
#[tokio::test(start_paused = true)]
async fn a_purge_that_cannot_read_the_disk_is_tried_again_after_a_pause() {
    let storage = FaultyStorage::default();
    storage.set_uncached(true);
    let fixture = open(Directory::temporary(), &storage).await;
    fixture.publish(&key("http://a.example/1"), "one");
    fixture.store.flush().await.unwrap();
    storage.set_unreadable(true);
    let selector = Selector::Prefix("http://a.example/".to_owned());
    let purged = fixture.store.purge(&selector, PurgeKind::Hard).await;
    assert!(purged.is_err());
    let before = fixture.errors("write");
    tokio::time::sleep(Duration::from_secs(20)).await;
    let tries = fixture.errors("write") - before;
    assert!(tries <= 16, "{tries} errors in 20 seconds");
    storage.set_unreadable(false);
    next_look().await;
    fixture.forget_memory().await;
    assert_eq!(fixture.store.stats().disk_entries, 0);
}

/// A panic outside the database took the purges of its batch with it.
#[tokio::test(start_paused = true)]
async fn a_purge_whose_batch_panicked_is_tried_again() {
    let (fixture, storage) = faulty().await;
    let one = key("http://a.example/1");
    fixture.publish(&one, "one");
    fixture.forget_memory().await;
    storage.set_breaking(true);
    let selector = Selector::Url(one.as_str().to_owned());
    let purged = fixture.store.purge(&selector, PurgeKind::Hard).await;
    assert!(purged.is_err());
    assert!(fixture.lookup(&one).await.is_none());
    storage.set_breaking(false);
    next_look().await;
    fixture.forget_memory().await;
    assert!(fixture.lookup(&one).await.is_none());
    assert_eq!(fixture.store.stats().disk_entries, 0);
}

/// Opening is quick: neither a closed nor a killed store leaves redb anything to repair.
#[tokio::test]
async fn opening_repairs_nothing() {
    for is_closed in [true, false] {
        let (fixture, storage) = faulty().await;
        fixture.publish(&key("http://a.example/1"), "one");
        fixture.store.flush().await.unwrap();
        if is_closed {
            fixture.close().await;
        } else {
            std::mem::forget(fixture);
        }
        let mut builder = redb::Builder::new();
        builder.set_repair_callback(|repair| repair.abort());
        let before = storage.reads();
        assert!(builder.create_with_backend(storage.clone()).is_ok());
        assert!(storage.reads() > before);
    }
}

#[tokio::test]
async fn a_key_of_which_nothing_is_stored_is_looked_for_on_disk_once() {
    let storage = FaultyStorage::default();
    storage.set_uncached(true);
    let fixture = open(Directory::temporary(), &storage).await;
    let one = key("http://a.example/1");
    assert!(fixture.lookup(&one).await.is_none());
    let before = storage.reads();
    assert!(fixture.lookup(&one).await.is_none());
    assert_eq!(storage.reads(), before);

    fixture.publish(&one, "one");
    fixture.forget_memory().await;
    assert_eq!(fixture.body(&one).await.unwrap(), b"one");
    assert!(storage.reads() > before);
}
