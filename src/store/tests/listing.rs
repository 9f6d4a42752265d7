//! Listings: order, filters, pages.

use super::{Fixture, body, key};
use crate::store::{Listing, Sort, StoreError, Tier};

/// Ten responses: even ones on disk only, odd ones in memory too, the last one not on disk yet.
async fn fixture() -> Fixture {
    let fixture = Fixture::new().await;
    for number in [3, 7, 0, 8, 5, 2, 6, 4, 1] {
        fixture.clock.step_secs(1);
        let key = key(&format!("http://{}.example/{number}", host(number)));
        fixture.publish(&key, body(1_000 * (10 - number)));
    }
    fixture.forget_memory().await;
    for number in [1, 3, 5, 7] {
        let key = key(&format!("http://{}.example/{number}", host(number)));
        let resource = fixture.lookup(&key).await.unwrap();
        for _ in 0..number {
            fixture.store.touch(&resource, &resource.variants[0]);
        }
    }
    fixture.clock.step_secs(1);
    fixture.publish(&key("https://c.example/9"), body(1_000));
    fixture
}

fn host(number: usize) -> &'static str {
    if number < 5 { "a" } else { "b" }
}

async fn pages(fixture: &Fixture, mut listing: Listing) -> Vec<String> {
    let mut items = Vec::new();
    loop {
        let page = fixture.store.list(&listing).await.unwrap();
        assert!(page.items.len() <= listing.limit);
        items.extend(page.items.iter().map(|entry| {
            let number = entry.key.path_and_query().trim_start_matches('/');
            let tier = match entry.tier {
                Tier::Memory => "m",
                Tier::Disk => "d",
            };
            format!("{number}{tier}")
        }));
        let Some(cursor) = page.next_cursor else {
            return items;
        };
        assert!(!page.items.is_empty());
        listing.cursor = Some(cursor);
    }
}

#[tokio::test]
async fn every_order_goes_through_all_tiers_page_by_page() {
    let fixture = fixture().await;
    for (sort, expected) in [
        (Sort::Key, "0d 1m 2d 3m 4d 5m 6d 7m 8d 9m"),
        (Sort::Hits, "7m 5m 3m 1m 0d 2d 4d 6d 8d 9m"),
        (Sort::Age, "3m 7m 0d 8d 5m 2d 6d 4d 1m 9m"),
        (Sort::Size, "0d 1m 2d 3m 4d 5m 6d 7m 8d 9m"),
    ] {
        for limit in [1, 3, 9, 10, 1_000] {
            let listing = Listing {
                sort,
                limit,
                ..Listing::default()
            };
            assert_eq!(
                pages(&fixture, listing).await.join(" "),
                expected,
                "{sort:?} {limit}"
            );
        }
    }
}

#[tokio::test]
async fn filters_hold_together() {
    let fixture = fixture().await;
    let text = |text: &str| Some(text.to_owned());
    let all = Listing {
        limit: 2,
        ..Listing::default()
    };
    for (listing, expected) in [
        (
            Listing {
                host: text("A.example"),
                ..all.clone()
            },
            "0d 1m 2d 3m 4d",
        ),
        (
            Listing {
                host: text("c.example"),
                ..all.clone()
            },
            "9m",
        ),
        (
            Listing {
                tier: Some(Tier::Memory),
                ..all.clone()
            },
            "1m 3m 5m 7m 9m",
        ),
        (
            Listing {
                tier: Some(Tier::Disk),
                ..all.clone()
            },
            "0d 2d 4d 6d 8d",
        ),
        (
            Listing {
                path_prefix: text("/4"),
                ..all.clone()
            },
            "4d",
        ),
        (
            Listing {
                contains: text("b.example/"),
                ..all.clone()
            },
            "5m 6d 7m 8d",
        ),
        (
            Listing {
                host: text("b.example"),
                tier: Some(Tier::Memory),
                ..all.clone()
            },
            "5m 7m",
        ),
        (
            Listing {
                host: text("nobody"),
                ..all.clone()
            },
            "",
        ),
    ] {
        assert_eq!(
            pages(&fixture, listing.clone()).await.join(" "),
            expected,
            "{listing:?}"
        );
    }
}

#[tokio::test]
async fn a_page_goes_on_where_it_ended_even_if_that_item_is_gone() {
    let fixture = fixture().await;
    let mut listing = Listing {
        limit: 3,
        ..Listing::default()
    };
    let page = fixture.store.list(&listing).await.unwrap();
    fixture.store.remove(&page.items[2].id).await.unwrap();
    listing.cursor = page.next_cursor;
    let page = fixture.store.list(&listing).await.unwrap();
    assert_eq!(page.items[0].key.path_and_query(), "/3");
}

#[tokio::test]
async fn a_cursor_of_somebody_else_is_refused() {
    let fixture = Fixture::new().await;
    for cursor in ["", "x", "00", "0g"] {
        let listing = Listing {
            cursor: Some(cursor.to_owned()),
            ..Listing::default()
        };
        let listed = fixture.store.list(&listing).await;
        assert!(matches!(listed, Err(StoreError::Cursor)), "{cursor}");
    }
}

#[tokio::test]
async fn partitions_and_variants_are_items_of_their_own_with_stable_ids() {
    let fixture = Fixture::new().await;
    for text in ["http://a.example/", "~p http://a.example/"] {
        for language in ["de", "en"] {
            fixture.publish_head(&key(text), fixture.head(language), "body");
        }
    }
    let listing = Listing {
        limit: 10,
        ..Listing::default()
    };
    let ids = |page: crate::store::Page| -> Vec<_> {
        page.items.into_iter().map(|entry| entry.id).collect()
    };
    let in_memory = ids(fixture.store.list(&listing).await.unwrap());
    assert_eq!(in_memory.len(), 4);
    fixture.forget_memory().await;
    let on_disk = ids(fixture.store.list(&listing).await.unwrap());
    assert_eq!(in_memory, on_disk);
    let after = ids(fixture.reopen().await.store.list(&listing).await.unwrap());
    assert_eq!(in_memory, after);
}

#[tokio::test]
async fn more_rows_than_are_read_at_a_time_are_listed_whole() {
    let fixture = Fixture::new().await;
    for number in 0..2_500 {
        fixture.publish(&key(&format!("http://a.example/{number:04}")), "body");
        if number % 500 == 0 {
            fixture.store.flush().await.unwrap();
        }
    }
    fixture.forget_memory().await;
    for sort in [Sort::Key, Sort::Hits, Sort::Age, Sort::Size] {
        let listing = Listing {
            sort,
            limit: 700,
            ..Listing::default()
        };
        let items = pages(&fixture, listing).await;
        let mut distinct = items.clone();
        distinct.sort();
        distinct.dedup();
        assert_eq!((items.len(), distinct.len()), (2_500, 2_500), "{sort:?}");
    }
}
