//! Stored responses that answer other queries: found in every tier and after a restart, and never too far afield.

use super::{Fixture, key, reread};
use crate::{
    policy::{CacheKey, Mark, StoredHead},
    store::{Published, PurgeKind, Purged, Selector, searches::VARIATIONS_MAX},
};

fn saying(mut head: StoredHead, field: &str) -> StoredHead {
    head.headers
        .insert("no-vary-search", field.parse().unwrap());
    reread(head)
}

fn publish(fixture: &Fixture, text: &str, field: &str) {
    fixture.publish_head(&key(text), saying(fixture.head(""), field), "body");
}

/// The keys that answer a request for this one too, in order.
async fn found(fixture: &Fixture, text: &str) -> Vec<String> {
    let asked = key(text);
    let resources = fixture.store.equivalents(&asked).await.unwrap();
    let answers = |key: &CacheKey, head: &StoredHead| {
        head.terms
            .search
            .as_ref()
            .is_some_and(|search| search.answers(key, &asked))
    };
    let mut keys: Vec<_> = resources
        .iter()
        .filter(|resource| answers(&resource.key, &resource.variants[0].head))
        .map(|resource| resource.key.as_str().to_owned())
        .collect();
    keys.sort();
    keys
}

#[tokio::test]
async fn equivalents_are_found_in_every_tier_and_after_a_restart() {
    let mut fixture = Fixture::new().await;
    publish(
        &fixture,
        "http://a.example/x?id=1&utm=1",
        r#"params=("utm")"#,
    );
    publish(
        &fixture,
        "~p http://a.example/x?id=1&utm=2",
        r#"params=("utm")"#,
    );
    fixture.publish(&key("http://a.example/x?id=1&utm=3"), "says nothing");
    for place in ["waiting", "disk", "restarted"] {
        match place {
            "waiting" => {}
            "disk" => fixture.forget_memory().await,
            _ => fixture = fixture.reopen().await,
        }
        for (asked, expected) in [
            (
                "http://a.example/x?utm=9&id=1",
                &["http://a.example/x?id=1&utm=1"][..],
            ),
            (
                "http://a.example/x?id=1",
                &["http://a.example/x?id=1&utm=1"],
            ),
            (
                "~p http://a.example/x?id=1",
                &["~p http://a.example/x?id=1&utm=2"],
            ),
            ("~q http://a.example/x?id=1", &[]),
            ("http://a.example/x?id=2", &[]),
            ("http://a.example/y?id=1", &[]),
            ("http://a.example:81/x?id=1", &[]),
            ("http://a.example/x?id=1&utm=1", &[]),
        ] {
            assert_eq!(found(&fixture, asked).await, expected, "{place} {asked}");
        }
    }
}

#[tokio::test]
async fn a_path_may_have_several_variations_but_not_any_number() {
    let mut fixture = Fixture::new().await;
    for number in 0..VARIATIONS_MAX + 4 {
        let url = format!("http://a.example/x?id=1&p{number}");
        publish(&fixture, &url, &format!("params=(\"p{number}\")"));
    }
    for _ in 0..2 {
        let found = found(&fixture, "http://a.example/x?id=1").await;
        assert_eq!(found.len(), VARIATIONS_MAX);
        fixture = fixture.reopen().await;
    }
}

#[tokio::test]
async fn what_is_purged_or_replaced_is_no_equivalent_any_more() {
    let fixture = Fixture::new().await;
    let (stored, asked) = ("http://a.example/x?utm=1", "http://a.example/x?utm=2");
    publish(&fixture, stored, "params");
    fixture.forget_memory().await;
    assert_eq!(found(&fixture, asked).await, [stored]);
    fixture.publish(&key(stored), "says nothing");
    assert!(found(&fixture, asked).await.is_empty());
    fixture.forget_memory().await;
    assert!(found(&fixture, asked).await.is_empty());
}

/// An invalidation once stopped at the bound of a lookup, and the ninth stayed fresh.
#[tokio::test]
async fn a_mark_reaches_every_equivalent_wherever_it_is() {
    let asked = key("http://a.example/x?utm=asked");
    let elsewhere = ["http://a.example/x?id=1", "~p http://a.example/x?utm=1"];
    for (place, mark) in [
        ("waiting", Mark::Invalid),
        ("disk", Mark::Stale),
        ("restarted", Mark::Invalid),
    ] {
        let mut fixture = Fixture::new().await;
        let all: Vec<_> = (0..20)
            .map(|number| format!("http://a.example/x?utm={number}"))
            .collect();
        for text in all.iter().map(String::as_str).chain(elsewhere) {
            publish(&fixture, text, r#"params=("utm")"#);
        }
        match place {
            "waiting" => {}
            "disk" => fixture.forget_memory().await,
            _ => fixture = fixture.reopen().await,
        }
        fixture.store.mark_equivalents(&asked, mark).await.unwrap();
        for restarted in [false, true] {
            if restarted {
                fixture = fixture.reopen().await;
            }
            for text in &all {
                let marked = fixture.mark_of(&key(text)).await;
                assert_eq!(marked, Some(mark), "{place} {restarted} {text}");
            }
            for text in elsewhere {
                let marked = fixture.mark_of(&key(text)).await;
                assert_eq!(marked, Some(Mark::None), "{place} {restarted} {text}");
            }
        }
    }
}

#[tokio::test]
async fn a_fill_of_an_equivalent_loses_to_the_mark() {
    let fixture = Fixture::new().await;
    publish(&fixture, "http://a.example/x?utm=1", "params");
    let (asked, filling) = (
        key("http://a.example/x?utm=2"),
        key("http://a.example/x?utm=3"),
    );
    let ticket = fixture.store.ticket();
    fixture
        .store
        .mark_equivalents(&asked, Mark::Invalid)
        .await
        .unwrap();
    let head = saying(fixture.head(""), "params");
    let body = bytes::Bytes::from_static(b"body");
    let published = fixture.store.publish(ticket, &filling, head, body);
    assert_eq!(published, Published::Purged);
}

#[tokio::test]
async fn paths_without_any_are_not_looked_for_once_the_disk_was_scanned() {
    let fixture = Fixture::new().await;
    publish(&fixture, "http://a.example/x?utm=1", "params");
    publish(&fixture, "http://b.example/x?utm=1", "params");
    let fixture = fixture.reopen().await;
    let asked = |text| fixture.store.may_have_equivalents(&key(text));
    let scanning = async {
        while asked("http://a.example/y?utm=2") {
            tokio::task::yield_now().await;
        }
    };
    let limit = std::time::Duration::from_secs(30);
    tokio::time::timeout(limit, scanning).await.unwrap();
    assert!(asked("http://a.example/x?utm=2") && asked("http://b.example/x"));
    assert!(!asked("http://a.example/") && !asked("~p http://a.example/x?utm=1"));
}

/// What answers `http://a.example/x?id=1`, each in its own way, and then what does not.
const ANSWERING: [(&str, &str); 4] = [
    ("http://a.example/x?id=1", r#"params=("utm")"#),
    ("http://a.example/x?id=1&utm=1", r#"params=("utm")"#),
    ("~p http://a.example/x?id=1&utm=2", "except=(\"id\")"),
    ("~query-0f http://a.example/x?id=1&b", r#"params=("b")"#),
];
const OTHERS: [(&str, &str); 4] = [
    ("http://a.example/x?id=2&utm=1", r#"params=("utm")"#),
    ("http://a.example/x?id=1&other", r#"params=("utm")"#),
    ("http://a.example/y?id=1", "params"),
    ("http://a.example:81/x?id=1", "params"),
];

async fn purge(fixture: &Fixture, kind: PurgeKind) -> Purged {
    let selector = Selector::Url("http://a.example/x?id=1".to_owned());
    fixture.store.purge(&selector, kind).await.unwrap()
}

/// It once counted none of them, and they went on answering.
#[tokio::test]
async fn a_purge_by_url_reaches_what_answers_that_url_wherever_it_is() {
    for place in ["waiting", "both", "disk", "restarted"] {
        let mut fixture = Fixture::new().await;
        for (text, field) in ANSWERING.into_iter().chain(OTHERS) {
            publish(&fixture, text, field);
        }
        match place {
            "waiting" => {}
            "both" => fixture.store.flush().await.unwrap(),
            "disk" => fixture.forget_memory().await,
            _ => fixture = fixture.reopen().await,
        }
        let dry = purge(&fixture, PurgeKind::DryRun).await;
        assert_eq!((dry.count, dry.sample.len()), (4, 4), "{place}: {dry:?}");
        assert_eq!(purge(&fixture, PurgeKind::Soft).await.count, 4, "{place}");
        for reopened in [false, true] {
            if reopened {
                fixture = fixture.reopen().await;
            }
            for (all, mark) in [(ANSWERING, Mark::Stale), (OTHERS, Mark::None)] {
                for (text, _) in all {
                    let marked = fixture.mark_of(&key(text)).await;
                    assert_eq!(marked, Some(mark), "{place} {reopened} {text}");
                }
            }
        }
        assert_eq!(purge(&fixture, PurgeKind::Hard).await.count, 4, "{place}");
        let fixture = fixture.reopen().await;
        for (all, mark) in [(ANSWERING, None), (OTHERS, Some(Mark::None))] {
            for (text, _) in all {
                assert_eq!(fixture.mark_of(&key(text)).await, mark, "{place} {text}");
            }
        }
    }
}

#[tokio::test]
async fn a_purge_by_url_does_not_count_what_waits_to_be_replaced() {
    let fixture = Fixture::new().await;
    let answering = "http://a.example/x?id=1&utm=1";
    publish(&fixture, answering, r#"params=("utm")"#);
    fixture.forget_memory().await;
    fixture.publish(&key(answering), "says nothing");
    assert_eq!(purge(&fixture, PurgeKind::DryRun).await.count, 0);
    assert_eq!(purge(&fixture, PurgeKind::Hard).await.count, 0);
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.mark_of(&key(answering)).await, Some(Mark::None));
}

#[tokio::test]
async fn a_fill_of_what_answers_a_purged_url_loses_to_the_purge() {
    let fixture = Fixture::new().await;
    let filling = key("http://a.example/x?id=1&utm=1");
    let ticket = fixture.store.ticket();
    purge(&fixture, PurgeKind::Soft).await;
    assert!(
        !fixture.store.is_current(ticket, &filling, None),
        "nobody joins it"
    );
    let body = || bytes::Bytes::from_static(b"body");
    let head = || saying(fixture.head(""), r#"params=("utm")"#);
    let published = fixture.store.publish(ticket, &filling, head(), body());
    assert_eq!(published, Published::Purged);
    for (text, says) in [
        ("http://a.example/x?id=1&utm=1", false),
        ("http://a.example/y?id=1&utm=1", true),
    ] {
        let head = if says { head() } else { fixture.head("") };
        let published = fixture.store.publish(ticket, &key(text), head, body());
        assert_eq!(published, Published::Stored, "{text}");
    }
}
