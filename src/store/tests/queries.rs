//! The responses to QUERY requests of a URI, which an unsafe method on it invalidates wherever they are.

use super::{Fixture, key};
use crate::{
    policy::{CacheKey, Mark},
    store::{Published, PurgeKind, Selector},
};

const TARGET: &str = "http://a.example/x";

/// What belongs to the target, and what does not.
fn keys() -> ([CacheKey; 3], [CacheKey; 4]) {
    let target = key(TARGET);
    let own = [
        target.clone(),
        target.with_query("aa"),
        target.with_query("bb"),
    ];
    let others = [
        key("~p http://a.example/x"),
        key("~p http://a.example/x").with_query("aa"),
        key("http://a.example/x?y").with_query("aa"),
        key("http://a.example/x2").with_query("aa"),
    ];
    (own, others)
}

#[derive(Clone, Copy, Debug)]
enum Where {
    Waiting,
    Both,
    Disk,
    AfterRestart,
    WithoutDisk,
}

async fn published(place: Where) -> Fixture {
    let fixture = match place {
        Where::WithoutDisk => Fixture::with(|config| config.disk_bytes = 0).await,
        _ => Fixture::new().await,
    };
    let (own, others) = keys();
    for key in own.iter().chain(&others) {
        assert_eq!(fixture.publish(key, "body"), Published::Stored);
    }
    match place {
        Where::Waiting | Where::WithoutDisk => fixture,
        Where::Both => {
            fixture.store.flush().await.unwrap();
            fixture
        }
        Where::Disk => {
            fixture.forget_memory().await;
            fixture
        }
        Where::AfterRestart => fixture.reopen().await,
    }
}

async fn assert_marks(fixture: &Fixture, mark: Mark, what: &str) {
    let (own, others) = keys();
    for key in &own {
        assert_eq!(fixture.mark_of(key).await, Some(mark), "{what} {key:?}");
    }
    for key in &others {
        assert_eq!(
            fixture.mark_of(key).await,
            Some(Mark::None),
            "{what} {key:?}"
        );
    }
}

#[tokio::test]
async fn every_query_of_a_target_is_marked_wherever_it_is() {
    for mark in [Mark::Invalid, Mark::Stale] {
        for place in [
            Where::Waiting,
            Where::Both,
            Where::Disk,
            Where::AfterRestart,
            Where::WithoutDisk,
        ] {
            let what = format!("{mark:?} {place:?}");
            let fixture = published(place).await;
            fixture.store.mark_target(&key(TARGET), mark).await.unwrap();
            assert_marks(&fixture, mark, &what).await;
            if !matches!(place, Where::WithoutDisk) {
                assert_marks(&fixture.reopen().await, mark, &what).await;
            }
        }
    }
}

/// A 304 makes it usable again, so the next unsafe method must find it again.
#[tokio::test]
async fn a_query_that_was_freshened_after_an_invalidation_is_found_by_the_next() {
    for place in [Where::Both, Where::WithoutDisk] {
        let fixture = published(place).await;
        let (target, query) = (key(TARGET), key(TARGET).with_query("aa"));
        for _ in 0..2 {
            fixture
                .store
                .mark_target(&target, Mark::Invalid)
                .await
                .unwrap();
            assert_eq!(
                fixture.mark_of(&query).await,
                Some(Mark::Invalid),
                "{place:?}"
            );
            let resource = fixture.lookup(&query).await.unwrap();
            let (ticket, head) = (fixture.store.ticket(), fixture.head(""));
            fixture
                .store
                .freshen(ticket, &query, &resource.variants[0], head);
            assert_eq!(fixture.mark_of(&query).await, Some(Mark::None), "{place:?}");
        }
    }
}

#[tokio::test]
async fn a_fill_of_a_query_that_began_before_is_not_published() {
    let fixture = Fixture::new().await;
    let (target, query) = (key(TARGET), key(TARGET).with_query("aa"));
    let ticket = fixture.store.ticket();
    fixture
        .store
        .mark_target(&target, Mark::Invalid)
        .await
        .unwrap();
    assert!(
        !fixture
            .store
            .is_current(ticket, &query, Some(&fixture.head("")))
    );
    let published = fixture
        .store
        .publish(ticket, &query, fixture.head(""), "body".into());
    assert_eq!(published, Published::Purged);
}

#[tokio::test]
async fn what_supersedes_its_target_is_published_unless_something_else_was_purged() {
    let fixture = published(Where::Both).await;
    let target = key(TARGET);
    let publish = |ticket| {
        fixture
            .store
            .publish(ticket, &target, fixture.head(""), "new".into())
    };

    let before = fixture.store.ticket();
    let (renewed, marked) = fixture.store.supersede(before, &target).await;
    marked.unwrap();
    assert_marks(&fixture, Mark::Invalid, "superseded").await;
    assert_eq!(publish(before), Published::Purged);
    assert_eq!(publish(renewed.unwrap()), Published::Stored);
    assert_eq!(fixture.body(&target).await.unwrap(), b"new");

    let before = fixture.store.ticket();
    let selector = Selector::Url(TARGET.to_owned());
    fixture
        .store
        .purge(&selector, PurgeKind::Hard)
        .await
        .unwrap();
    let (renewed, marked) = fixture.store.supersede(before, &target).await;
    marked.unwrap();
    assert_eq!(renewed, None);

    let (renewed, _) = fixture
        .store
        .supersede(fixture.store.ticket(), &target)
        .await;
    fixture.store.mark(&target, Mark::Invalid).await.unwrap();
    assert_eq!(publish(renewed.unwrap()), Published::Purged);
}
