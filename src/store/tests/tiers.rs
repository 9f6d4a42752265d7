//! Publishing and looking up, through memory, what waits and disk.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;

use super::{Fixture, MIB, body, key};
use crate::{
    policy::Mark,
    store::{Published, StoredBody, disk::Written},
};

#[tokio::test]
async fn what_is_published_is_visible_at_once_and_from_disk() {
    let fixture = Fixture::new().await;
    for len in [
        0, 1, 1_000, 31_000, 32_768, 65_536, 300_000, 1_048_576, 5_000_000,
    ] {
        let key = key(&format!("http://a.example/{len}"));
        assert_eq!(fixture.publish(&key, body(len)), Published::Stored);
        assert!(fixture.store.peek(key.as_str()).is_some(), "{len}");
        assert_eq!(fixture.body(&key).await.unwrap(), body(len), "{len}");
        fixture.forget_memory().await;
        assert!(fixture.store.peek(key.as_str()).is_none(), "{len}");
        assert_eq!(fixture.body(&key).await.unwrap(), body(len), "{len}");
    }
}

#[tokio::test]
async fn any_range_of_a_body_can_be_read_from_memory_and_from_its_file() {
    const BLOCK: u64 = 256 * 1024;
    let fixture = Fixture::new().await;
    for len in [1_000, 8 * BLOCK as usize + 5] {
        let key = key(&format!("http://a.example/{len}"));
        fixture.publish(&key, body(len));
        fixture.forget_memory().await;
        let resource = fixture.lookup(&key).await.unwrap();
        let last = len as u64 - 1;
        for range in [
            0..0,
            0..1,
            5..900,
            last..last + 1,
            0..u64::MAX,
            BLOCK - 1..BLOCK + 1,
            BLOCK..2 * BLOCK,
            BLOCK + 7..5 * BLOCK + 3,
            u64::MAX - 1..u64::MAX,
        ] {
            let blocks = fixture
                .store
                .read_body_range(&key, &resource.variants[0], range.clone());
            let read: Vec<Bytes> = blocks.try_collect().await.unwrap();
            let end = range.end.min(len as u64) as usize;
            let expected = &body(len)[(range.start as usize).min(end)..end];
            assert!(read.concat() == expected, "{range:?} of {len}");
        }
    }
}

#[tokio::test]
async fn a_head_comes_back_from_disk_as_it_was() {
    let fixture = Fixture::new().await;
    let key = key("~p http://a.example/");
    let mut head = fixture.head("de");
    head.authorized = true;
    fixture.publish_head(&key, head.clone(), "body");
    fixture.forget_memory().await;
    let resource = fixture.lookup(&key).await.unwrap();
    assert_eq!(resource.key, key);
    let found = &resource.variants[0].head;
    assert_eq!(found.status, head.status);
    assert_eq!(found.headers, head.headers);
    assert_eq!(found.request_time, head.request_time);
    assert_eq!(found.response_time, head.response_time);
    assert_eq!(found.variant, head.variant);
    assert_eq!(found.authorized, head.authorized);
    assert_eq!(found.mark, Mark::None);
}

#[tokio::test]
async fn a_small_response_is_promoted_and_a_large_body_stays_in_its_file() {
    let fixture = Fixture::new().await;
    let (small, middle, large) = (
        key("http://a.example/small"),
        key("http://a.example/middle"),
        key("http://a.example/large"),
    );
    fixture.publish(&small, body(100));
    fixture.publish(&middle, body(MIB as usize));
    fixture.publish(&large, body(MIB as usize + 1));
    fixture.forget_memory().await;
    for (key, in_memory) in [(&small, true), (&middle, true), (&large, false)] {
        fixture.lookup(key).await.unwrap();
        let resource = fixture.store.peek(key.as_str()).unwrap();
        let is_whole = matches!(resource.variants[0].body, StoredBody::Memory(_));
        assert_eq!(is_whole, in_memory, "{key}");
    }
    assert_eq!(fixture.body(&large).await.unwrap(), body(MIB as usize + 1));
}

#[tokio::test]
async fn what_is_asked_for_once_pushes_nothing_out_of_a_full_memory() {
    let fixture = Fixture::with(|config| config.memory_bytes = MIB).await;
    let numbered = |number: usize| key(&format!("http://a.example/{number}"));
    for number in 0..200 {
        fixture.publish(&numbered(number), body(10_000));
    }
    fixture.forget_memory().await;
    let is_promoted = async |number: usize| {
        // Looked up twice for one use, as a hit on disk is that has to be validated.
        fixture.store.at_hand(numbered(number).as_str());
        let found = fixture.lookup(&numbered(number)).await.unwrap();
        fixture.store.touch(&found, &found.variants[0]);
        fixture.store.inner.memory.totals();
        fixture.store.peek(numbered(number).as_str()).is_some()
    };
    fixture.store.inner.memory.totals();
    let evicted_before = fixture.evictions("memory", "size");
    let mut promoted = 0;
    for number in 0..200 {
        promoted += usize::from(is_promoted(number).await);
    }
    // As many as there is room for, and not the rest.
    assert!((80..=105).contains(&promoted), "{promoted}");
    let evicted = fixture.evictions("memory", "size") - evicted_before;
    assert!(evicted <= 2, "{evicted}");
    // Asked for again and again, one finds its place.
    let mut again = false;
    for _ in 0..5 {
        again = is_promoted(199).await;
    }
    assert!(again);
}

#[tokio::test]
async fn a_body_too_large_for_memory_is_visible_before_and_after_it_is_on_disk() {
    let fixture = Fixture::with(|config| config.memory_bytes = MIB).await;
    let key = key("http://a.example/");
    assert_eq!(fixture.publish(&key, "old"), Published::Stored);
    assert_eq!(fixture.publish(&key, body(3_000_000)), Published::Stored);
    assert!(fixture.store.peek(key.as_str()).is_none());
    assert_eq!(fixture.body(&key).await.unwrap(), body(3_000_000));
    fixture.store.flush().await.unwrap();
    assert_eq!(fixture.body(&key).await.unwrap(), body(3_000_000));
}

#[tokio::test]
async fn a_body_over_the_limit_is_not_stored_and_changes_nothing() {
    let fixture = Fixture::with(|config| config.max_object_bytes = 10).await;
    let key = key("http://a.example/");
    assert_eq!(fixture.publish(&key, "0123456789"), Published::Stored);
    assert_eq!(fixture.publish(&key, "0123456789a"), Published::TooLarge);
    assert_eq!(fixture.body(&key).await.unwrap(), b"0123456789");
}

#[tokio::test]
async fn every_variant_is_kept_and_the_latest_comes_first() {
    let fixture = Fixture::new().await;
    let key = key("http://a.example/");
    for language in ["de", "en", "fr"] {
        fixture.clock.step_secs(1);
        fixture.publish_head(&key, fixture.head(language), language);
    }
    fixture.clock.step_secs(1);
    fixture.publish_head(&key, fixture.head("de"), "neu");
    let expected = ["neu", "fr", "en"];
    for _ in 0..2 {
        let resource = fixture.lookup(&key).await.unwrap();
        let mut bodies = Vec::new();
        for variant in &resource.variants {
            bodies.push(String::from_utf8(fixture.read(&key, variant).await.unwrap()).unwrap());
        }
        assert_eq!(bodies, expected);
        fixture.forget_memory().await;
    }
}

#[tokio::test]
async fn a_variant_published_while_the_others_are_only_on_disk_hides_none_of_them() {
    let fixture = Fixture::new().await;
    let key = key("http://a.example/");
    fixture.publish_head(&key, fixture.head("de"), "de");
    fixture.forget_memory().await;
    fixture.publish_head(&key, fixture.head("en"), "en");
    assert_eq!(fixture.lookup(&key).await.unwrap().variants.len(), 2);
    fixture.forget_memory().await;
    fixture.publish_head(&key, fixture.head("fr"), "fr");
    fixture.store.flush().await.unwrap();
    assert_eq!(fixture.lookup(&key).await.unwrap().variants.len(), 3);
}

#[tokio::test]
async fn a_finished_batch_does_not_hide_what_was_published_since() {
    let fixture = Fixture::with(|config| config.memory_bytes = MIB).await;
    let key = key("http://a.example/");
    fixture.publish_head(&key, fixture.head("de"), "de");
    fixture.store.flush().await.unwrap();
    let on_disk = vec![fixture.lookup(&key).await.unwrap().variants[0].id()];
    // Too large for memory: only the overlay has it when the batch before it is done.
    fixture.publish_head(&key, fixture.head("en"), body(500_000));
    fixture.store.inner.note_on_disk(&Written {
        on_disk: vec![(key.clone(), on_disk)],
        ..Written::default()
    });
    assert_eq!(fixture.lookup(&key).await.unwrap().variants.len(), 2);
}

#[tokio::test]
async fn beyond_32_variants_the_oldest_goes_from_every_tier() {
    let fixture = Fixture::new().await;
    let key = key("http://a.example/");
    for number in 0..40 {
        fixture.clock.step_secs(1);
        let language = format!("x-{number}");
        fixture.publish_head(&key, fixture.head(&language), language);
    }
    for _ in 0..2 {
        let resource = fixture.lookup(&key).await.unwrap();
        assert_eq!(resource.variants.len(), 32);
        let newest = fixture.read(&key, &resource.variants[0]).await.unwrap();
        let oldest = fixture.read(&key, &resource.variants[31]).await.unwrap();
        assert_eq!((newest, oldest), (b"x-39".to_vec(), b"x-8".to_vec()));
        fixture.forget_memory().await;
    }
    assert_eq!(fixture.store.stats().disk_entries, 32);
}

#[tokio::test]
async fn a_freshened_head_keeps_the_body_and_its_file() {
    let fixture = Fixture::new().await;
    for len in [10, 100_000, 2_000_000] {
        let key = key(&format!("http://a.example/{len}"));
        fixture.publish(&key, body(len));
        fixture.forget_memory().await;
        let files = fixture.body_files();
        let stored = fixture.lookup(&key).await.unwrap().variants[0].clone();
        fixture.clock.step_secs(60);
        let mut head = fixture.head("");
        head.headers.insert("age", "7".parse().unwrap());
        let ticket = fixture.store.ticket();
        let published = fixture.store.freshen(ticket, &key, &stored, head);
        assert_eq!(published, Published::Stored);
        fixture.forget_memory().await;
        let found = fixture.lookup(&key).await.unwrap();
        assert_eq!(found.variants.len(), 1);
        assert_eq!(found.variants[0].head.headers.get("age").unwrap(), b"7");
        assert_eq!(fixture.body(&key).await.unwrap(), body(len));
        assert_eq!(
            fixture.body_files(),
            files,
            "{len}: the file is not written again"
        );
    }
}

#[tokio::test]
async fn a_freshened_head_of_another_variant_replaces_the_old_variant() {
    let fixture = Fixture::new().await;
    let key = key("http://a.example/");
    fixture.publish_head(&key, fixture.head("de"), "body");
    let stored = fixture.lookup(&key).await.unwrap().variants[0].clone();
    let ticket = fixture.store.ticket();
    let head = fixture.head("en");
    fixture.store.freshen(ticket, &key, &stored, head.clone());
    for _ in 0..2 {
        let found = fixture.lookup(&key).await.unwrap();
        assert_eq!(found.variants.len(), 1);
        assert_eq!(found.variants[0].head.variant, head.variant);
        fixture.forget_memory().await;
    }
}

#[tokio::test]
async fn a_replaced_variant_is_hidden_before_its_removal_is_on_disk() {
    let fixture = Fixture::new().await;
    let key = key("http://a.example/");
    fixture.publish_head(&key, fixture.head("de"), "body");
    fixture.forget_memory().await;
    let stored = fixture.lookup(&key).await.unwrap().variants[0].clone();
    let ticket = fixture.store.ticket();
    let head = fixture.head("en");
    fixture.store.freshen(ticket, &key, &stored, head);
    fixture.store.inner.memory.clear();
    assert_eq!(fixture.lookup(&key).await.unwrap().variants.len(), 1);
}

#[tokio::test]
async fn a_304_for_a_body_file_that_is_gone_does_not_replace_what_came_after_it() {
    let fixture = Fixture::new().await;
    let key = key("http://a.example/");
    fixture.publish(&key, body(2_000_000));
    fixture.forget_memory().await;
    let old = fixture.lookup(&key).await.unwrap().variants[0].clone();
    let ticket = fixture.store.ticket();
    fixture.publish(&key, body(3_000_000));
    fixture.forget_memory().await;
    // Nobody in memory knows that the file has been replaced on disk.
    fixture.store.freshen(ticket, &key, &old, fixture.head(""));
    fixture.forget_memory().await;
    assert_eq!(fixture.body(&key).await.unwrap(), body(3_000_000));
}

#[tokio::test]
async fn a_304_for_what_has_been_replaced_since_changes_nothing() {
    let fixture = Fixture::new().await;
    let key = key("http://a.example/");
    fixture.publish(&key, "old");
    let old = fixture.lookup(&key).await.unwrap().variants[0].clone();
    let ticket = fixture.store.ticket();
    fixture.clock.step_secs(1);
    fixture.publish(&key, "new");
    fixture.clock.step_secs(1);
    fixture.store.freshen(ticket, &key, &old, fixture.head(""));
    assert_eq!(fixture.body(&key).await.unwrap(), b"new");
    fixture.forget_memory().await;
    assert_eq!(fixture.body(&key).await.unwrap(), b"new");
}

#[tokio::test]
async fn what_was_used_longest_ago_is_evicted_from_disk_first() {
    let fixture = Fixture::with(|config| config.disk_bytes = 10 * MIB).await;
    let keys: Vec<_> = (0..12)
        .map(|number| key(&format!("http://a.example/{number}")))
        .collect();
    for key in &keys[..8] {
        fixture.publish(key, body(MIB as usize));
        fixture.store.flush().await.unwrap();
    }
    // A use of the oldest, later than its last report, saves it.
    fixture.clock.step_secs(3_600);
    let used = fixture.lookup(&keys[0]).await.unwrap();
    fixture.store.touch(&used, &used.variants[0]);
    fixture.store.flush().await.unwrap();
    for key in &keys[8..] {
        fixture.publish(key, body(MIB as usize));
        fixture.store.flush().await.unwrap();
    }
    fixture.forget_memory().await;
    let mut there = Vec::new();
    for (number, key) in keys.iter().enumerate() {
        if fixture.lookup(key).await.is_some() {
            there.push(number);
        }
    }
    assert_eq!(there, [0, 4, 5, 6, 7, 8, 9, 10, 11]);
    assert!(fixture.store.stats().disk_bytes <= 10 * MIB);
    assert_eq!(fixture.evictions("disk", "size"), 3);
    assert_eq!(fixture.body_files().len(), 9, "their files are gone too");
}

#[tokio::test]
async fn memory_stays_within_its_budget() {
    let fixture = Fixture::with(|config| config.memory_bytes = MIB).await;
    for number in 0..200 {
        let key = key(&format!("http://a.example/{number}"));
        fixture.publish(&key, body(20_000));
        assert!(fixture.lookup(&key).await.is_some(), "{number}");
    }
    assert!(fixture.store.stats().memory_bytes <= MIB);
    assert!(fixture.evictions("memory", "size") > 0);
    for number in 0..200 {
        let key = key(&format!("http://a.example/{number}"));
        assert_eq!(fixture.body(&key).await.unwrap(), body(20_000), "{number}");
    }
}

#[tokio::test]
async fn without_a_disk_tier_memory_is_all_there_is() {
    let fixture = Fixture::with(|config| config.disk_bytes = 0).await;
    let key = key("http://a.example/");
    assert_eq!(fixture.publish(&key, "body"), Published::Stored);
    assert_eq!(fixture.body(&key).await.unwrap(), b"body");
    assert_eq!(fixture.publish(&key, body(10_000_000)), Published::TooLarge);
    assert!(!fixture.dir.path().join("cache.redb").exists());
    let fixture = fixture.reopen_with(|config| config.disk_bytes = 0).await;
    assert!(fixture.lookup(&key).await.is_none());
}

#[tokio::test]
async fn what_does_not_fit_into_the_queue_is_in_memory_only() {
    let fixture = Fixture::new().await;
    let body = Bytes::from(body(5_000_000));
    let mut published = Vec::new();
    // No await: the writer does not get to run.
    for number in 0..20 {
        published.push(fixture.publish(&key(&format!("http://a.example/{number}")), body.clone()));
    }
    assert_eq!(published[0], Published::Stored);
    assert_eq!(published[19], Published::MemoryOnly);
    let skipped = published
        .iter()
        .filter(|one| **one == Published::MemoryOnly)
        .count();
    assert_eq!(fixture.errors("skipped"), skipped as u64);
    assert_eq!(
        fixture.body(&key("http://a.example/0")).await.unwrap(),
        body
    );
    fixture.store.flush().await.unwrap();
    let now = fixture.publish(&key("http://a.example/later"), body);
    assert_eq!(now, Published::Stored);
}

#[tokio::test(start_paused = true)]
async fn a_response_is_committed_within_a_second_without_being_asked_for() {
    let fixture = Fixture::new().await;
    let start = tokio::time::Instant::now();
    fixture.publish(&key("http://a.example/"), "body");
    let mut done = fixture.store.inner.pending.watch();
    done.changed().await.unwrap();
    assert!(start.elapsed() < std::time::Duration::from_secs(1));
    assert_eq!(fixture.store.stats().disk_entries, 1);
}

#[tokio::test]
async fn hits_are_counted_and_survive_a_restart_once_reported() {
    let fixture = Fixture::new().await;
    let key = key("http://a.example/");
    fixture.publish(&key, "body");
    fixture.store.flush().await.unwrap();
    let resource = fixture.lookup(&key).await.unwrap();
    fixture.clock.step_secs(3_600);
    for _ in 0..3 {
        fixture.store.touch(&resource, &resource.variants[0]);
    }
    assert_eq!(resource.variants[0].hits(), 3);
    let fixture = fixture.reopen().await;
    let found = fixture.lookup(&key).await.unwrap();
    // The first of the three was reported; the next report would have come ten minutes later.
    assert_eq!(found.variants[0].hits(), 1);
}

#[tokio::test]
async fn every_hit_counts_also_where_memory_forgets_what_was_hit_before_the_disk_knows() {
    let fixture = Fixture::new().await;
    let (hit, other) = (key("http://a.example/"), key("http://a.example/other"));
    fixture.publish(&hit, "body");
    fixture.forget_memory().await;
    for _ in 0..3 {
        let found = fixture.lookup(&hit).await.unwrap();
        fixture.store.touch(&found, &found.variants[0]);
        fixture.store.inner.memory.clear();
    }
    // A flush waits for what is published, and what was used before goes with it.
    fixture.publish(&other, "body");
    fixture.forget_memory().await;
    let found = fixture.lookup(&hit).await.unwrap();
    assert_eq!(found.variants[0].hits(), 3);
}

#[tokio::test]
async fn a_lookup_of_many_at_once_gives_each_the_same_answer() {
    let fixture = Arc::new(Fixture::new().await);
    let key = key("http://a.example/");
    fixture.publish(&key, body(200_000));
    fixture.forget_memory().await;
    let tasks = tokio_util::task::TaskTracker::new();
    let lookups: Vec<_> = (0..100)
        .map(|_| {
            let (fixture, key) = (fixture.clone(), key.clone());
            tasks.spawn(async move { fixture.body(&key).await })
        })
        .collect();
    for lookup in lookups {
        assert_eq!(lookup.await.unwrap().unwrap(), body(200_000));
    }
}

#[tokio::test]
async fn the_newer_of_two_responses_stays_whichever_comes_last_unless_it_is_of_the_future() {
    let fixture = Fixture::new().await;
    let target = key("http://a.example/");
    let older = fixture.head("");
    fixture.clock.step_secs(5);
    let newer = fixture.head("");
    fixture.publish_head(&target, newer, "newer");
    assert_eq!(
        fixture.publish_head(&target, older.clone(), "older"),
        Published::Stored
    );
    assert_eq!(fixture.body(&target).await.unwrap(), b"newer");
    // The clock is set back: what was stored before must not hold off all that comes.
    fixture.clock.step_secs(-5);
    fixture.publish_head(&target, older, "older");
    assert_eq!(fixture.body(&target).await.unwrap(), b"older");
}
