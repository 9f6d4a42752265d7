//! Which lookups wait for the disk, and which need no other thread.

use std::{fs, sync::Arc};

use futures_util::{FutureExt, poll};

use super::{Directory, Fixture, body, faults::FaultyStorage, key};
use crate::store::disk::Backing;

/// A store on storage that keeps no pages in memory, with one response that is on disk only, and was read since its commit.
async fn uncached(target: &str) -> (Fixture, FaultyStorage) {
    let (dir, storage) = (Directory::temporary(), FaultyStorage::default());
    storage.set_uncached(true);
    let backing = Backing::Faulty(dir.path().to_owned(), storage.clone());
    let fixture = Fixture::open_on(backing, dir, |_| {}).await.unwrap();
    fixture.publish(&key(target), "body");
    fixture.forget_memory().await;
    read_from_disk(&fixture, target).await;
    (fixture, storage)
}

/// Also opens what the last commit left.
async fn read_from_disk(fixture: &Fixture, target: &str) {
    assert!(fixture.lookup(&key(target)).await.is_some());
    fixture.store.inner.memory.clear();
}

#[tokio::test]
async fn what_the_system_has_at_hand_is_read_without_another_thread() {
    let (fixture, _storage) = uncached("http://a.example/").await;
    let reads = &fixture.store.inner.reads;
    let _nobody_else_reads = reads.acquire_many(reads.available_permits() as u32).await;
    let target = key("http://a.example/");
    let body = fixture.body(&target).now_or_never();
    assert_eq!(body.expect("it is at hand").unwrap(), b"body");
    let target = key("http://a.example/none");
    let found = fixture.lookup(&target).now_or_never();
    assert!(found.expect("that it is not there is at hand").is_none());
}

#[tokio::test]
async fn what_is_at_hand_is_found_without_waiting_and_nothing_else() {
    let (fixture, storage) = uncached("http://a.example/").await;
    let at_hand = |target: &str| fixture.store.at_hand(key(target).as_str());
    storage.set_far(true);
    assert!(at_hand("http://a.example/").is_none());
    storage.set_far(false);
    let found = at_hand("http://a.example/").unwrap();
    assert_eq!(found.variants.len(), 1);
    assert!(
        fixture
            .store
            .peek(key("http://a.example/").as_str())
            .is_some()
    );
    // That nothing is there is known to the next lookup, which then need not look.
    assert!(at_hand("http://a.example/none").is_none());
    storage.set_far(true);
    let found = fixture.lookup(&key("http://a.example/none")).now_or_never();
    assert!(found.expect("it need not look").is_none());
}

#[tokio::test]
async fn what_has_to_be_waited_for_is_read_by_another_thread() {
    let (fixture, storage) = uncached("http://a.example/").await;
    storage.set_far(true);
    let reads = &fixture.store.inner.reads;
    let nobody_reads = reads.acquire_many(reads.available_permits() as u32).await;
    let target = key("http://a.example/");
    let mut body = Box::pin(fixture.body(&target));
    assert!(poll!(&mut body).is_pending(), "it waits for its turn");
    drop(nobody_reads);
    assert_eq!(body.await.unwrap(), b"body");
    // The database is none the worse for the reads that were given up.
    storage.set_far(false);
    fixture.publish(&key("http://a.example/new"), "new");
    fixture.forget_memory().await;
    assert_eq!(
        fixture.body(&key("http://a.example/new")).await.unwrap(),
        b"new"
    );
    assert_eq!(fixture.errors("read") + fixture.errors("write"), 0);
}

#[tokio::test]
async fn a_body_file_is_read_by_another_thread() {
    let fixture = Fixture::new().await;
    let target = key("http://a.example/");
    fixture.publish(&target, body(100_000));
    fixture.forget_memory().await;
    read_from_disk(&fixture, "http://a.example/").await;
    let reads = &fixture.store.inner.reads;
    let nobody_reads = reads.acquire_many(reads.available_permits() as u32).await;
    let mut found = Box::pin(fixture.lookup(&target));
    assert!(poll!(&mut found).is_pending());
    drop(nobody_reads);
    assert!(found.await.is_some());
}

#[tokio::test]
async fn the_first_read_after_a_commit_is_another_threads() {
    let (fixture, _storage) = uncached("http://a.example/").await;
    fixture.publish(&key("http://a.example/new"), "new");
    fixture.forget_memory().await;
    let reads = &fixture.store.inner.reads;
    let nobody_reads = reads.acquire_many(reads.available_permits() as u32).await;
    let target = key("http://a.example/new");
    let mut body = Box::pin(fixture.body(&target));
    assert!(poll!(&mut body).is_pending());
    drop(nobody_reads);
    assert_eq!(body.await.unwrap(), b"new");
}

#[tokio::test]
async fn reads_of_the_last_commit_do_not_make_the_database_grow_with_each_commit() {
    let fixture = Fixture::new().await;
    let database = fixture.dir.path().join("cache.redb");
    let mut lens = Vec::new();
    for round in 0..30 {
        for at in 0..40 {
            fixture.publish(
                &key(&format!("http://a.example/{at}")),
                body(20_000 + round),
            );
        }
        fixture.store.flush().await.unwrap();
        lens.push(fs::metadata(&database).unwrap().len());
    }
    assert_eq!(lens[9], lens[29], "{lens:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lookups_find_each_response_in_turn_while_others_are_written() {
    let fixture = Arc::new(Fixture::new().await);
    let target = key("http://a.example/");
    let reading = {
        let (fixture, target) = (fixture.clone(), target.clone());
        let tasks = tokio_util::task::TaskTracker::new();
        tasks.spawn(async move {
            let mut last = 0;
            while last < 50 {
                if let Some(body) = fixture.body(&target).await {
                    let now: u32 = String::from_utf8(body).unwrap().parse().unwrap();
                    assert!(now >= last, "{now} after {last}");
                    last = now;
                }
                fixture.store.inner.memory.clear();
                tokio::task::yield_now().await;
            }
        })
    };
    for turn in 1..=50 {
        fixture.clock.step_secs(1);
        fixture.publish(&target, turn.to_string());
        fixture.forget_memory().await;
    }
    reading.await.unwrap();
}
