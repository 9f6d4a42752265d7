//! Purges, invalidations and removals, against every tier and every fill that began before.

use super::{Fixture, body, key, tagged};
use crate::{
    policy::{CacheKey, Mark, Names},
    store::{Published, PurgeKind, Selector, lookup::Merged, matcher::Matcher, resource::Effect},
};

const ALL: [&str; 6] = [
    "http://a.example/x",
    "http://a.example/x?y",
    "~p http://a.example/x",
    "https://a.example/x",
    "http://a.example:81/x",
    "http://a.example.org/x",
];

fn url(text: &str) -> Selector {
    Selector::Url(text.to_owned())
}

fn prefix(text: &str) -> Selector {
    Selector::Prefix(text.to_owned())
}

fn host(text: &str) -> Selector {
    Selector::Host(text.to_owned())
}

async fn there(fixture: &Fixture) -> Vec<&'static str> {
    let mut there = Vec::new();
    for text in ALL {
        if fixture.lookup(&key(text)).await.is_some() {
            there.push(text);
        }
    }
    there
}

/// Where the responses are when the purge comes.
#[derive(Clone, Copy, Debug)]
enum Where {
    Waiting,
    Both,
    Disk,
}

#[tokio::test]
async fn a_purge_selects_by_url_prefix_and_host_wherever_the_responses_are() {
    for (selector, gone) in [
        (url(ALL[0]), &[0, 2][..]),
        (prefix("http://a.example/x"), &[0, 1, 2]),
        (prefix("http://a.example"), &[0, 1, 2, 4, 5]),
        (prefix(""), &[0, 1, 2, 3, 4, 5]),
        (host("A.example"), &[0, 1, 2, 3, 4]),
        (host("a.example:81"), &[4]),
        (host("b.example"), &[]),
    ] {
        for place in [Where::Waiting, Where::Both, Where::Disk] {
            let fixture = Fixture::new().await;
            for text in ALL {
                fixture.publish(&key(text), text);
            }
            match place {
                Where::Waiting => {}
                Where::Both => fixture.store.flush().await.unwrap(),
                Where::Disk => fixture.forget_memory().await,
            }
            let what = format!("{selector:?} {place:?}");
            let count = |kind| {
                let (fixture, selector) = (&fixture, &selector);
                async move { fixture.store.purge(selector, kind).await.unwrap().count }
            };
            assert_eq!(count(PurgeKind::DryRun).await, gone.len() as u64, "{what}");
            assert_eq!(there(&fixture).await.len(), ALL.len(), "{what}");
            assert_eq!(count(PurgeKind::Hard).await, gone.len() as u64, "{what}");
            let left: Vec<_> = (0..ALL.len())
                .filter(|index| !gone.contains(index))
                .map(|index| ALL[index])
                .collect();
            assert_eq!(there(&fixture).await, left, "{what}");
            fixture.forget_memory().await;
            assert_eq!(there(&fixture).await, left, "{what}");
            assert_eq!(there(&fixture.reopen().await).await, left, "{what}");
        }
    }
}

#[tokio::test]
async fn a_soft_purge_marks_in_every_tier_and_survives_a_restart() {
    for place in [Where::Waiting, Where::Both, Where::Disk] {
        let fixture = Fixture::new().await;
        let (purged, other) = (key(ALL[0]), key(ALL[5]));
        for key in [&purged, &other] {
            fixture.publish(key, body(100_000));
        }
        match place {
            Where::Waiting => {}
            Where::Both => fixture.store.flush().await.unwrap(),
            Where::Disk => fixture.forget_memory().await,
        }
        let found = fixture
            .store
            .purge(&url(ALL[0]), PurgeKind::Soft)
            .await
            .unwrap();
        assert_eq!(
            (found.count, &found.sample[..]),
            (1, &[ALL[0].to_owned()][..])
        );
        assert_eq!(
            fixture.mark_of(&purged).await,
            Some(Mark::Stale),
            "{place:?}"
        );
        assert_eq!(fixture.mark_of(&other).await, Some(Mark::None), "{place:?}");
        let fixture = fixture.reopen().await;
        assert_eq!(
            fixture.mark_of(&purged).await,
            Some(Mark::Stale),
            "{place:?}"
        );
        assert_eq!(fixture.body(&purged).await.unwrap(), body(100_000));
        assert_eq!(fixture.mark_of(&other).await, Some(Mark::None), "{place:?}");
    }
}

#[tokio::test]
async fn an_invalidation_marks_every_variant_of_its_key_and_of_no_other() {
    for place in [Where::Waiting, Where::Both, Where::Disk] {
        let fixture = Fixture::new().await;
        let (target, other) = (key(ALL[0]), key(ALL[2]));
        for language in ["de", "en"] {
            fixture.publish_head(&target, fixture.head(language), language);
            fixture.publish_head(&other, fixture.head(language), language);
        }
        match place {
            Where::Waiting => {}
            Where::Both => fixture.store.flush().await.unwrap(),
            Where::Disk => fixture.forget_memory().await,
        }
        fixture.store.mark(&target, Mark::Invalid).await.unwrap();
        // A soft purge afterwards says less.
        fixture
            .store
            .purge(&url(ALL[0]), PurgeKind::Soft)
            .await
            .unwrap();
        let mut fixture = fixture;
        for _ in 0..2 {
            for (key, mark) in [(&target, Mark::Invalid), (&other, Mark::Stale)] {
                let resource = fixture.lookup(key).await.unwrap();
                let marks: Vec<_> = resource.variants.iter().map(|one| one.head.mark).collect();
                assert_eq!(marks, [mark, mark], "{place:?} {key}");
            }
            fixture = fixture.reopen().await;
        }
    }
}

#[tokio::test]
async fn a_new_response_takes_a_mark_off() {
    let fixture = Fixture::new().await;
    let key = key(ALL[0]);
    fixture.publish(&key, "old");
    fixture.store.mark(&key, Mark::Invalid).await.unwrap();
    fixture.publish(&key, "new");
    assert_eq!(fixture.mark_of(&key).await, Some(Mark::None));
    fixture.forget_memory().await;
    assert_eq!(fixture.mark_of(&key).await, Some(Mark::None));
    fixture.store.mark(&key, Mark::Stale).await.unwrap();
    let stored = fixture.lookup(&key).await.unwrap().variants[0].clone();
    let ticket = fixture.store.ticket();
    fixture
        .store
        .freshen(ticket, &key, &stored, fixture.head(""));
    fixture.forget_memory().await;
    assert_eq!(fixture.mark_of(&key).await, Some(Mark::None));
    assert_eq!(fixture.body(&key).await.unwrap(), b"new");
}

#[tokio::test]
async fn a_purge_or_an_invalidation_wins_over_a_fill_that_began_before() {
    let fixture = Fixture::new().await;
    let (target, other) = (key(ALL[0]), key(ALL[5]));
    for purge in 0..3 {
        let before = fixture.store.ticket();
        match purge {
            0 => drop(
                fixture
                    .store
                    .purge(&url(ALL[0]), PurgeKind::Hard)
                    .await
                    .unwrap(),
            ),
            1 => drop(
                fixture
                    .store
                    .purge(&url(ALL[0]), PurgeKind::Soft)
                    .await
                    .unwrap(),
            ),
            _ => fixture.store.mark(&target, Mark::Invalid).await.unwrap(),
        }
        assert!(
            !fixture
                .store
                .is_current(before, &target, Some(&fixture.head("")))
        );
        assert!(
            fixture
                .store
                .is_current(before, &other, Some(&fixture.head("")))
        );
        let publish = |ticket, key| {
            let head = fixture.head("");
            fixture.store.publish(ticket, key, head, "body".into())
        };
        assert_eq!(publish(before, &target), Published::Purged);
        assert!(fixture.lookup(&target).await.is_none());
        assert_eq!(publish(before, &other), Published::Stored);
    }
    let ticket = fixture.store.ticket();
    let published = fixture
        .store
        .publish(ticket, &target, fixture.head(""), "body".into());
    assert_eq!(published, Published::Stored);
}

#[tokio::test]
async fn a_dry_run_refuses_no_fill() {
    let fixture = Fixture::new().await;
    let before = fixture.store.ticket();
    fixture
        .store
        .purge(&prefix(""), PurgeKind::DryRun)
        .await
        .unwrap();
    assert!(
        fixture
            .store
            .is_current(before, &key(ALL[0]), Some(&fixture.head("")))
    );
}

#[tokio::test]
async fn a_large_purge_is_done_in_many_short_steps_and_counts_all() {
    let fixture = Fixture::new().await;
    for number in 0..3_000 {
        fixture.publish(&key(&format!("http://a.example/{number}")), "body");
        fixture.publish(&key(&format!("http://b.example/{number}")), "body");
    }
    fixture.forget_memory().await;
    let stored = fixture.store.stats().disk_entries;
    let found = fixture
        .store
        .purge(&host("a.example"), PurgeKind::Hard)
        .await
        .unwrap();
    assert_eq!(found.sample.len(), 20);
    assert_eq!(fixture.store.stats().disk_entries, stored - found.count);
    let left = fixture
        .store
        .purge(&prefix(""), PurgeKind::Hard)
        .await
        .unwrap();
    assert_eq!(left.count, stored - found.count);
    let stats = fixture.store.stats();
    assert_eq!((stats.disk_entries, stats.disk_bytes), (0, 0));
}

#[tokio::test]
async fn a_purge_removes_the_body_files_too() {
    let fixture = Fixture::new().await;
    fixture.publish(&key(ALL[0]), body(100_000));
    fixture.publish(&key(ALL[5]), body(100_000));
    fixture.store.flush().await.unwrap();
    assert_eq!(fixture.body_files().len(), 2);
    fixture
        .store
        .purge(&url(ALL[0]), PurgeKind::Hard)
        .await
        .unwrap();
    assert_eq!(fixture.body_files().len(), 1);
    fixture.publish(&key(ALL[5]), body(200_000));
    fixture.store.flush().await.unwrap();
    assert_eq!(fixture.body_files().len(), 1, "replaced, not added");
}

#[tokio::test]
async fn a_stored_response_is_removed_by_its_id_and_its_variants_stay() {
    for place in [Where::Waiting, Where::Both, Where::Disk] {
        let fixture = Fixture::new().await;
        let key = key(ALL[2]);
        for language in ["de", "en"] {
            fixture.clock.step_secs(1);
            fixture.publish_head(&key, fixture.head(language), language);
        }
        let id = fixture.lookup(&key).await.unwrap().variants[0]
            .id()
            .public()
            .to_string();
        match place {
            Where::Waiting => {}
            Where::Both => fixture.store.flush().await.unwrap(),
            Where::Disk => fixture.forget_memory().await,
        }
        let before = fixture.store.ticket();
        let entries = fixture.store.entry(&id).await.unwrap();
        assert_eq!(entries.len(), 2, "{place:?}");
        assert_eq!(entries[0].id, id);
        let removed = fixture.store.remove(&id).await.unwrap().unwrap();
        assert_eq!((removed.id.as_str(), removed.body_bytes), (id.as_str(), 2));
        assert!(fixture.store.remove(&id).await.unwrap().is_none());
        assert!(fixture.store.entry(&id).await.unwrap().is_empty());
        assert!(
            !fixture
                .store
                .is_current(before, &key, Some(&fixture.head("")))
        );
        assert_eq!(fixture.body(&key).await.unwrap(), b"de");
        let fixture = fixture.reopen().await;
        assert_eq!(fixture.lookup(&key).await.unwrap().variants.len(), 1);
        assert_eq!(fixture.body(&key).await.unwrap(), b"de");
    }
    let fixture = Fixture::new().await;
    for id in ["", "zz", &"0".repeat(32)] {
        assert!(fixture.store.remove(id).await.unwrap().is_none());
    }
}

#[tokio::test]
async fn what_was_read_from_disk_before_a_purge_does_not_come_back_to_memory() {
    let fixture = Fixture::new().await;
    let key = key(ALL[0]);
    fixture.publish(&key, "body");
    fixture.forget_memory().await;
    let inner = &fixture.store.inner;
    let before = inner.before(&key);
    let found = inner.disk.as_ref().unwrap().find(&key).unwrap();
    assert_eq!(found.variants.len(), 1);
    fixture
        .store
        .purge(&url(ALL[0]), PurgeKind::Hard)
        .await
        .unwrap();
    let merged = inner.merge(&key, before, Ok(found)).unwrap();
    assert!(matches!(merged, Merged::Outdated));
    assert!(fixture.lookup(&key).await.is_none());
}

#[tokio::test]
async fn what_was_read_from_disk_before_a_new_response_does_not_replace_it() {
    let fixture = Fixture::new().await;
    let key = key(ALL[0]);
    fixture.publish(&key, "old");
    fixture.forget_memory().await;
    let inner = &fixture.store.inner;
    let before = inner.before(&key);
    let found = inner.disk.as_ref().unwrap().find(&key).unwrap();
    fixture.publish(&key, "new");
    fixture.forget_memory().await;
    let merged = inner.merge(&key, before, Ok(found)).unwrap();
    assert!(matches!(merged, Merged::Outdated));
    assert_eq!(fixture.body(&key).await.unwrap(), b"new");
}

// What waits was looked at after the disk only: a commit in between made it disappear from both.
#[tokio::test]
async fn what_was_read_from_disk_before_a_commit_is_not_taken_for_what_is_there_after_it() {
    for earlier in [None, Some("old")] {
        let fixture = Fixture::new().await;
        let key = key(ALL[0]);
        if let Some(body) = earlier {
            fixture.publish(&key, body);
            fixture.store.flush().await.unwrap();
        }
        fixture.publish(&key, "new");
        fixture.store.inner.memory.clear();
        assert!(is_outdated_by_commit(&fixture, &key).await, "{earlier:?}");
        assert_eq!(fixture.body(&key).await.unwrap(), b"new");
    }
}

#[tokio::test]
async fn what_was_read_from_disk_before_it_was_marked_there_does_not_come_back_without_its_mark() {
    for of_group in [false, true] {
        let fixture = Fixture::new().await;
        let key = key(ALL[0]);
        fixture.publish_head(&key, tagged(fixture.head(""), "", "g"), "body");
        fixture.forget_memory().await;
        if of_group {
            let groups = Names::Listed([b"g"[..].into()].into());
            let invalidated = fixture.store.invalidate_groups(&key, &groups).await;
            invalidated.unwrap();
        } else {
            let marked = fixture.store.inner.mark(&key, Mark::Invalid).await;
            marked.unwrap();
        }
        assert!(is_outdated_by_commit(&fixture, &key).await, "{of_group}");
        assert_eq!(fixture.mark_of(&key).await, Some(Mark::Invalid));
    }
}

#[tokio::test]
async fn what_was_read_from_disk_before_a_purge_was_done_there_does_not_come_back() {
    for effect in [Effect::Remove, Effect::Mark(Mark::Stale)] {
        let fixture = Fixture::new().await;
        let key = key(ALL[0]);
        fixture.publish(&key, "body");
        fixture.forget_memory().await;
        let inner = &fixture.store.inner;
        let in_force = inner.purges.begin(Matcher::from(&url(ALL[0])), effect);
        let before = inner.before(&key);
        let found = inner.disk.as_ref().unwrap().find(&key).unwrap();
        drop(in_force);
        let merged = inner.merge(&key, before, Ok(found)).unwrap();
        assert!(matches!(merged, Merged::Outdated), "{effect:?}");
    }
}

/// Whether a lookup that reads the disk before everything that waits is written has to read it again.
async fn is_outdated_by_commit(fixture: &Fixture, key: &CacheKey) -> bool {
    let inner = &fixture.store.inner;
    let before = inner.before(key);
    let found = inner.disk.as_ref().unwrap().find(key).unwrap();
    fixture.store.flush().await.unwrap();
    let merged = inner.merge(key, before, Ok(found)).unwrap();
    matches!(merged, Merged::Outdated)
}

#[tokio::test]
async fn a_purge_holds_for_lookups_while_its_work_on_disk_is_still_to_be_done() {
    for (effect, expected) in [
        (Effect::Remove, None),
        (Effect::Mark(Mark::Stale), Some(Mark::Stale)),
    ] {
        let fixture = Fixture::new().await;
        let key = key(ALL[0]);
        fixture.publish(&key, "body");
        fixture.forget_memory().await;
        let matcher = Matcher::from(&url(ALL[0]));
        let in_force = fixture.store.inner.purges.begin(matcher, effect);
        assert_eq!(fixture.mark_of(&key).await, expected);
        drop(in_force);
    }
}
