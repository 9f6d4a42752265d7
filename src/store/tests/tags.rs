//! Purges by tag and invalidations of groups, against every tier, every partition and every fill that began before.

use super::{Directory, Fixture, body, key, model::copy, tagged};
use crate::{
    policy::{CacheKey, Mark, Names},
    store::{Listing, Paths, Published, PurgeKind, Selector, Store, labels::Label},
};

/// Three of one origin, one of them in a partition, and one each of other origins.
const ALL: [&str; 5] = [
    "http://a.example/1",
    "~p http://a.example/2",
    "http://a.example/3",
    "https://a.example/1",
    "http://a.example:81/1",
];

fn tag(name: &str) -> Selector {
    Selector::Tag(name.to_owned())
}

async fn invalidate(store: &Store, of: &str, group: &str) {
    let groups = Names::Listed([group.as_bytes().into()].into());
    store.invalidate_groups(&key(of), &groups).await.unwrap();
}

async fn marks(fixture: &Fixture) -> Vec<Option<Mark>> {
    let mut marks = Vec::new();
    for text in ALL {
        marks.push(fixture.mark_of(&key(text)).await);
    }
    marks
}

/// Where the responses are when the purge comes.
#[derive(Clone, Copy, Debug)]
enum Where {
    Waiting,
    Both,
    Disk,
}

const EVERYWHERE: [Where; 3] = [Where::Waiting, Where::Both, Where::Disk];

impl Where {
    async fn put(self, fixture: &Fixture) {
        match self {
            Self::Waiting => {}
            Self::Both => fixture.store.flush().await.unwrap(),
            Self::Disk => fixture.forget_memory().await,
        }
    }
}

#[tokio::test]
async fn a_purge_by_tag_selects_what_is_tagged_so_of_every_origin_and_partition() {
    for place in EVERYWHERE {
        let fixture = Fixture::new().await;
        for (number, text) in ALL.into_iter().enumerate() {
            let tags = if number == 2 {
                "News other"
            } else {
                "news all"
            };
            let head = tagged(fixture.head(""), tags, "");
            fixture.publish_head(&key(text), head, body(100 + 30_000 * number));
        }
        place.put(&fixture).await;
        for (name, count) in [("news", 4), ("News", 1), ("new", 0), ("news all", 0)] {
            let found = fixture
                .store
                .purge(&tag(name), PurgeKind::DryRun)
                .await
                .unwrap();
            assert_eq!(
                (found.count, found.sample.len()),
                (count, count as usize),
                "{name}"
            );
        }
        assert_eq!(marks(&fixture).await, [Some(Mark::None); 5], "{place:?}");
        place.put(&fixture).await;
        let soft = fixture
            .store
            .purge(&tag("all"), PurgeKind::Soft)
            .await
            .unwrap();
        assert_eq!(soft.count, 4, "{place:?}");
        let (stale, fresh) = (Some(Mark::Stale), Some(Mark::None));
        let expected = [stale, stale, fresh, stale, stale];
        assert_eq!(marks(&fixture).await, expected, "{place:?}");
        let fixture = fixture.reopen().await;
        assert_eq!(marks(&fixture).await, expected, "{place:?}");
        let hard = fixture
            .store
            .purge(&tag("news"), PurgeKind::Hard)
            .await
            .unwrap();
        assert_eq!(hard.count, 4, "{place:?}");
        let expected = [None, None, fresh, None, None];
        assert_eq!(marks(&fixture).await, expected, "{place:?}");
        assert_eq!(marks(&fixture.reopen().await).await, expected, "{place:?}");
    }
}

#[tokio::test]
async fn a_purge_by_tag_takes_the_variants_that_have_it() {
    for place in EVERYWHERE {
        let fixture = Fixture::new().await;
        let key = key(ALL[0]);
        for (language, tags) in [("de", "a"), ("en", "b"), ("fr", "a b")] {
            let head = tagged(fixture.head(language), tags, "");
            fixture.publish_head(&key, head, language);
        }
        place.put(&fixture).await;
        let purged = fixture
            .store
            .purge(&tag("a"), PurgeKind::Hard)
            .await
            .unwrap();
        assert_eq!(purged.count, 2, "{place:?}");
        assert_eq!(fixture.body(&key).await.unwrap(), b"en", "{place:?}");
        assert_eq!(
            fixture.lookup(&key).await.unwrap().variants.len(),
            1,
            "{place:?}"
        );
    }
}

#[tokio::test]
async fn a_response_with_more_tags_than_are_kept_is_never_missed() {
    let fixture = Fixture::new().await;
    let many: Vec<String> = (0..200).map(|number| format!("tag{number}")).collect();
    let head = tagged(fixture.head(""), &many.join(" "), &many.join(" "));
    fixture.publish_head(&key(ALL[0]), head, "body");
    fixture.forget_memory().await;
    let found = fixture
        .store
        .purge(&tag("tag199"), PurgeKind::DryRun)
        .await
        .unwrap();
    assert_eq!(found.count, 1);
    invalidate(&fixture.store, ALL[0], "tag199").await;
    assert_eq!(fixture.mark_of(&key(ALL[0])).await, Some(Mark::Invalid));
}

#[tokio::test]
async fn a_group_is_invalidated_in_every_partition_of_its_origin_and_of_no_other() {
    for place in EVERYWHERE {
        let fixture = Fixture::new().await;
        for (number, text) in ALL.into_iter().enumerate() {
            let groups = if number == 2 { "h" } else { "g" };
            let head = tagged(fixture.head(""), "", groups);
            fixture.publish_head(&key(text), head, body(100 + 30_000 * number));
        }
        place.put(&fixture).await;
        invalidate(&fixture.store, "http://b.example/", "g").await;
        assert_eq!(marks(&fixture).await, [Some(Mark::None); 5], "{place:?}");
        place.put(&fixture).await;
        invalidate(&fixture.store, "http://a.example/elsewhere", "g").await;
        let (invalid, fresh) = (Some(Mark::Invalid), Some(Mark::None));
        let expected = [invalid, invalid, fresh, fresh, fresh];
        assert_eq!(marks(&fixture).await, expected, "{place:?}");
        fixture.forget_memory().await;
        assert_eq!(marks(&fixture).await, expected, "{place:?}");
        assert_eq!(marks(&fixture.reopen().await).await, expected, "{place:?}");
    }
}

#[tokio::test]
async fn what_is_stored_after_an_invalidation_of_its_group_is_not_marked() {
    let fixture = Fixture::new().await;
    let target = key(ALL[0]);
    fixture.publish_head(&target, tagged(fixture.head(""), "t", "g"), "old");
    fixture.forget_memory().await;
    invalidate(&fixture.store, ALL[0], "g").await;
    // Both wait for the same batch.
    fixture.publish_head(&target, tagged(fixture.head(""), "t", "g"), "new");
    assert_eq!(fixture.mark_of(&target).await, Some(Mark::None));
    fixture.forget_memory().await;
    assert_eq!(fixture.mark_of(&target).await, Some(Mark::None));
    assert_eq!(fixture.body(&target).await.unwrap(), b"new");
}

/// What a fill has in the end, or what it validated, may be filed under what was purged meanwhile.
#[tokio::test]
async fn a_purge_by_tag_or_group_wins_over_a_fill_that_began_before() {
    for by_group in [false, true] {
        let fixture = Fixture::new().await;
        let (target, other) = (key(ALL[0]), key(ALL[3]));
        fixture.publish_head(&target, tagged(fixture.head(""), "t", "g"), "old");
        let stored = fixture.lookup(&target).await.unwrap().variants[0].clone();
        let ticket = fixture.store.ticket();
        if by_group {
            invalidate(&fixture.store, ALL[0], "g").await;
        } else {
            fixture
                .store
                .purge(&tag("t"), PurgeKind::Soft)
                .await
                .unwrap();
        }
        let (with, without) = (tagged(fixture.head(""), "t", "g"), fixture.head(""));
        let store = &fixture.store;
        assert!(!store.is_current(ticket, &target, Some(&with)));
        assert!(
            !store.is_current(ticket, &target, None),
            "it may turn out so"
        );
        assert!(store.is_current(ticket, &target, Some(&without)));
        assert_eq!(store.is_current(ticket, &other, None), by_group);
        let publish = |head| store.publish(ticket, &target, head, "late".into());
        assert_eq!(publish(with.clone()), Published::Purged);
        let freshen = |head| store.freshen(ticket, &target, &stored, head);
        assert_eq!(freshen(with), Published::Purged);
        assert_eq!(
            freshen(without.clone()),
            Published::Purged,
            "what it validated is purged"
        );
        assert_ne!(fixture.mark_of(&target).await, Some(Mark::None));
        assert_eq!(publish(without), Published::Stored);
    }
}

#[tokio::test]
async fn an_invalidation_holds_for_lookups_while_its_work_on_disk_is_still_to_be_done() {
    let fixture = Fixture::new().await;
    let target = key(ALL[0]);
    fixture.publish_head(&target, tagged(fixture.head(""), "", "g"), "body");
    fixture.forget_memory().await;
    let label = Label::group("http://a.example", b"g");
    assert!(
        fixture
            .store
            .inner
            .pending
            .mark_labelled(&[label], Mark::Invalid)
    );
    assert_eq!(fixture.mark_of(&target).await, Some(Mark::Invalid));
}

#[tokio::test]
async fn an_invalidation_of_more_groups_than_are_kept_is_one_of_every_group_of_the_origin() {
    for place in EVERYWHERE {
        let fixture = Fixture::new().await;
        let many: Vec<_> = (0..200).map(|number| format!("group{number}")).collect();
        let (many, long) = (many.join(" "), "x".repeat(257));
        for (text, groups) in ALL.into_iter().zip(["g", &many, "", "g", &long]) {
            let head = tagged(fixture.head(""), "", groups);
            fixture.publish_head(&key(text), head, body(100));
        }
        place.put(&fixture).await;
        let ticket = fixture.store.ticket();
        let of = key("http://a.example/elsewhere");
        let invalidated = fixture.store.invalidate_groups(&of, &Names::Every).await;
        invalidated.unwrap();
        for groups in ["g", &long] {
            let head = tagged(fixture.head(""), "", groups);
            let target = key("http://a.example/new");
            assert!(!fixture.store.is_current(ticket, &target, Some(&head)));
            assert!(!fixture.store.is_current(ticket, &target, None));
        }
        let (invalid, fresh) = (Some(Mark::Invalid), Some(Mark::None));
        let expected = [invalid, invalid, fresh, fresh, fresh];
        assert_eq!(marks(&fixture).await, expected, "{place:?}");
        fixture.forget_memory().await;
        assert_eq!(marks(&fixture).await, expected, "{place:?}");
        assert_eq!(marks(&fixture.reopen().await).await, expected, "{place:?}");
    }
}

/// Any origin may name as many groups as it likes, and once made everything on disk unusable.
#[tokio::test(start_paused = true)]
async fn more_invalidations_of_one_origin_than_can_wait_are_no_other_ones_loss() {
    for place in EVERYWHERE {
        let fixture = Fixture::new().await;
        let paths = Paths::new("http", "a.example:81", "/*");
        fixture.store.watch(vec![paths.clone()]);
        let many: Vec<_> = (0..200).map(|number| format!("group{number}")).collect();
        for (text, groups) in ALL.into_iter().zip(["last", &many.join(" "), "", "g", "g"]) {
            let head = tagged(fixture.head(""), "", groups);
            fixture.publish_head(&key(text), head, body(100));
        }
        place.put(&fixture).await;
        for answer in 0..33 {
            let name = |number| format!("{answer} {number}").into_bytes().into();
            let groups = Names::Listed((0..128).map(name).collect());
            let invalidated = fixture.store.invalidate_groups(&key(ALL[0]), &groups).await;
            invalidated.unwrap();
        }
        let ticket = fixture.store.ticket();
        invalidate(&fixture.store, ALL[0], "last").await;
        let (target, unknown) = (key(ALL[0]), None);
        let head = tagged(fixture.head(""), "", "last");
        let store = &fixture.store;
        assert!(!store.is_current(ticket, &target, Some(&head)), "{place:?}");
        assert!(!store.is_current(ticket, &target, unknown), "{place:?}");
        let (invalid, fresh) = (Some(Mark::Invalid), Some(Mark::None));
        let expected = [invalid, invalid, fresh, fresh, fresh];
        assert_eq!(marks(&fixture).await, expected, "{place:?}");
        let invalidated = fixture.store.mark_paths(&[paths], Mark::Invalid).await;
        invalidated.unwrap();
        let expected = [invalid, invalid, fresh, fresh, invalid];
        assert_eq!(marks(&fixture).await, expected, "{place:?}");
        fixture.forget_memory().await;
        assert_eq!(marks(&fixture).await, expected, "{place:?}");
        assert_eq!(marks(&fixture.reopen().await).await, expected, "{place:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn more_invalidations_than_can_wait_distrust_the_disk_instead_of_being_forgotten() {
    let fixture = Fixture::new().await;
    let (target, other) = (key(ALL[0]), key(ALL[1]));
    fixture.publish_head(&target, tagged(fixture.head(""), "", "last"), "body");
    fixture.publish(&other, "body");
    fixture.forget_memory().await;
    // Of so many origins that neither names nor origins can be told any more.
    for number in 0..7_000 {
        invalidate(&fixture.store, &format!("http://{number}.example/"), "g").await;
    }
    invalidate(&fixture.store, ALL[0], "last").await;
    assert_eq!(fixture.mark_of(&target).await, Some(Mark::Invalid));
    assert_eq!(
        fixture.mark_of(&other).await,
        Some(Mark::Invalid),
        "there was no room to tell"
    );
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.mark_of(&target).await, Some(Mark::Invalid));
}

#[tokio::test]
async fn the_index_forgets_what_is_nowhere_any_more() {
    let fixture = Fixture::new().await;
    for number in 0..100 {
        let head = tagged(fixture.head(""), &format!("t{number} all"), "g");
        fixture.publish_head(&key(&format!("http://a.example/{number}")), head, "body");
    }
    let labels = &fixture.store.inner.labels;
    assert_eq!(labels.keys(&Label::tag(b"all")).len(), 100);
    fixture.forget_memory().await;
    // The tier tidies up behind its other work.
    let tidying = async {
        while !labels.is_empty() {
            fixture.publish(&key("http://a.example/busy"), "body");
            fixture.store.stats();
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(30), tidying)
        .await
        .unwrap();
    assert_eq!(
        fixture
            .store
            .purge(&tag("all"), PurgeKind::DryRun)
            .await
            .unwrap()
            .count,
        100
    );
}

#[tokio::test]
async fn tags_count_against_the_budget_of_the_disk_and_go_with_their_response() {
    let fixture = Fixture::new().await;
    let disk = fixture.store.inner.disk.clone().unwrap();
    let names: Vec<String> = (0..100)
        .map(|number| format!("a-tag-with-number-{number}"))
        .collect();
    fixture.publish(&key(ALL[0]), "body");
    fixture.store.flush().await.unwrap();
    let plain = disk.bytes();
    fixture.publish_head(
        &key(ALL[0]),
        tagged(fixture.head(""), &names.join(" "), "g"),
        "body",
    );
    fixture.store.flush().await.unwrap();
    assert_eq!(
        disk.tag_rows(),
        102,
        "the tags, the group, and that it has one"
    );
    assert!(disk.bytes() > plain + 100 * 40, "{} {plain}", disk.bytes());
    let stored = fixture.lookup(&key(ALL[0])).await.unwrap().variants[0].clone();
    let ticket = fixture.store.ticket();
    let fewer = tagged(fixture.head(""), &names[0], "");
    fixture.store.freshen(ticket, &key(ALL[0]), &stored, fewer);
    fixture.store.flush().await.unwrap();
    assert_eq!(disk.tag_rows(), 1, "a 304 that changes the tags");
    fixture
        .store
        .purge(&tag(&names[0]), PurgeKind::Hard)
        .await
        .unwrap();
    assert_eq!((disk.tag_rows(), disk.bytes()), (0, 0));
}

#[tokio::test]
async fn a_listing_by_tag_has_what_is_tagged_so_in_every_tier() {
    for place in EVERYWHERE {
        let fixture = Fixture::new().await;
        for (number, text) in ALL.into_iter().enumerate() {
            let head = tagged(fixture.head(""), if number < 3 { "a b" } else { "b" }, "");
            fixture.publish_head(&key(text), head, "body");
        }
        place.put(&fixture).await;
        let listed = |tag: &str, cursor, limit| Listing {
            tag: Some(tag.to_owned()),
            limit,
            cursor,
            ..Listing::default()
        };
        let (mut found, mut cursor): (Vec<CacheKey>, _) = (Vec::new(), None);
        loop {
            let page = fixture.store.list(&listed("a", cursor, 2)).await.unwrap();
            found.extend(page.items.into_iter().map(|entry| entry.key));
            cursor = page.next_cursor;
            if cursor.is_none() {
                break;
            }
        }
        let expected: Vec<_> = ALL[..3].iter().map(|text| key(text)).collect();
        assert_eq!(found, expected, "{place:?}");
        // A response that lost the tag is not listed for what its record on disk still says.
        fixture.publish(&key(ALL[0]), "untagged");
        let page = fixture.store.list(&listed("a", None, 10)).await.unwrap();
        assert_eq!(page.items.len(), 2, "{place:?}");
        let purged = fixture
            .store
            .purge(&tag("a"), PurgeKind::DryRun)
            .await
            .unwrap();
        assert_eq!(purged.count, 2, "{place:?}");
    }
}

/// The files as they are at the moment when a purge, or a flush after an invalidation, has returned.
#[tokio::test]
async fn neither_a_purge_nor_an_invalidation_is_undone_by_a_crash() {
    for by_group in [false, true] {
        let fixture = Fixture::new().await;
        for text in ALL {
            fixture.publish_head(
                &key(text),
                tagged(fixture.head(""), "t", "g"),
                body(100_000),
            );
        }
        fixture.store.flush().await.unwrap();
        if by_group {
            invalidate(&fixture.store, ALL[0], "g").await;
            fixture.store.flush().await.unwrap();
        } else {
            fixture
                .store
                .purge(&tag("t"), PurgeKind::Soft)
                .await
                .unwrap();
        }
        let dir = Directory::temporary();
        copy(fixture.dir.path(), dir.path());
        let fixture = Fixture::open(dir, |_| {}).await.unwrap();
        let marks = marks(&fixture).await;
        let expected = if by_group { Mark::Invalid } else { Mark::Stale };
        assert_eq!(marks[..3], [Some(expected); 3]);
        assert_eq!(marks[3], Some(if by_group { Mark::None } else { expected }));
    }
}

/// Once what waited was marked only after the disk had been asked to mark what it has: a batch that the writer took in
/// between put the unmarked response there afterwards, and it came back fresh.
#[tokio::test]
async fn what_the_writer_takes_in_the_moment_of_an_invalidation_is_marked_on_disk() {
    let fixture = Fixture::new().await;
    let target = key("http://a.example/1");
    fixture.publish_head(&target, tagged(fixture.head(""), "", "g"), "body");
    let inner = fixture.store.inner.clone();
    let group = [Label::group("http://a.example", b"g")];
    inner.purges.invalidate_labelled(&group);
    assert!(inner.pending.mark_labelled(&group, Mark::Invalid));
    fixture.store.flush().await.unwrap();
    fixture.forget_memory().await;
    assert_eq!(fixture.mark_of(&target).await, Some(Mark::Invalid));
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.mark_of(&target).await, Some(Mark::Invalid));
}

#[tokio::test]
async fn paths_are_invalidated_wherever_the_responses_are() {
    for pattern in ["/*", "/2"] {
        for place in EVERYWHERE {
            let fixture = Fixture::new().await;
            let paths = Paths::new("http", "a.example", pattern);
            fixture.store.watch(vec![paths.clone(), paths.clone()]);
            for text in ALL {
                fixture.publish(&key(text), body(100));
            }
            fixture.publish(&key("http://a.example/2?q"), body(100));
            let ticket = fixture.store.ticket();
            place.put(&fixture).await;
            fixture
                .store
                .mark_paths(std::slice::from_ref(&paths), Mark::Invalid)
                .await
                .unwrap();
            let invalid = Some(Mark::Invalid);
            let others = if pattern == "/*" {
                invalid
            } else {
                Some(Mark::None)
            };
            let none = Some(Mark::None);
            let expected = [others, invalid, others, none, none];
            assert_eq!(marks(&fixture).await, expected, "{pattern} {place:?}");
            let query = key("http://a.example/2?q");
            assert_eq!(
                fixture.mark_of(&query).await,
                invalid,
                "{pattern} {place:?}"
            );
            assert!(
                !fixture.store.is_current(ticket, &query, None),
                "a fill is refused"
            );
            fixture.forget_memory().await;
            assert_eq!(marks(&fixture).await, expected, "{pattern} {place:?}");
            assert_eq!(
                marks(&fixture.reopen().await).await,
                expected,
                "{pattern} {place:?}"
            );
        }
    }
}
