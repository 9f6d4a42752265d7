//! Lists, and what is shown of a write.

use super::{AMBIGUOUS, BY, Bench, REJECTED, path, states};
use crate::{
    policy::Timestamp,
    queue::{Item, LaneId, Origin, State, operate::Filter},
};

#[tokio::test]
async fn filters_select_and_must_all_hold() {
    let bench = Bench::new().await;
    let other = |item: &mut Item| {
        item.origin = Origin::Upstream("other".to_owned());
        item.lane = "path:/b".to_owned();
        item.lane_id = LaneId::new(&item.origin, &item.lane);
        item.accepted_at = Timestamp::from_secs(10);
    };
    let a = bench.write("/a", State::Queued).await;
    let b = bench.write_as("/b", REJECTED, other).await;
    let c = bench.write("/c", AMBIGUOUS).await;
    bench.queue.resolve(c.id, None, BY).await.unwrap();
    for (filter, expected) in [
        (Filter::default(), &["/a", "/b"][..]),
        (states(&["queued"]), &["/a"]),
        (states(&["dead", "parked"]), &["/b"]),
        (states(&["done"]), &["/c"]),
        (
            Filter {
                origin: Some("other".to_owned()),
                ..Filter::default()
            },
            &["/b"],
        ),
        (
            Filter {
                lane: Some("path:/b".to_owned()),
                ..Filter::default()
            },
            &["/b"],
        ),
        (
            Filter {
                lane: Some(a.lane_id.to_string()),
                ..Filter::default()
            },
            &["/a"],
        ),
        (
            Filter {
                accepted_before: Some(Timestamp::from_secs(20)),
                ..Filter::default()
            },
            &["/b"],
        ),
        (
            Filter {
                text: Some("rejected".to_owned()),
                ..Filter::default()
            },
            &["/b"],
        ),
        (
            Filter {
                text: Some(b.id.to_string()),
                ..Filter::default()
            },
            &["/b"],
        ),
        (
            Filter {
                text: Some("rejected".to_owned()),
                ..states(&["queued"])
            },
            &[],
        ),
    ] {
        assert_eq!(bench.list(filter.clone()).await, expected, "{filter:?}");
    }
}

#[tokio::test]
async fn pages_of_every_size_join_to_the_whole_list() {
    let bench = Bench::new().await;
    let mut expected = Vec::new();
    for number in 0..7 {
        let name = format!("/{number}");
        bench.write(&name, State::Queued).await;
        expected.push(name);
    }
    for limit in 1..=8 {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = bench
                .queue
                .list(&Filter::default(), after, limit)
                .await
                .unwrap();
            assert!(page.items.len() <= limit);
            found.extend(page.items.iter().map(|shown| path(&shown.item)));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(found, expected, "{limit}");
    }
}

#[tokio::test]
async fn a_write_is_shown_with_what_goes_before_it_and_without_secrets() {
    let bench = Bench::new().await;
    let first = bench.write("/a", State::Queued).await;
    let second = bench.write("/b", State::Queued).await;
    let inspected = bench.queue.inspect(second.id).await.unwrap();
    assert_eq!(inspected.shown.blocked_by, Some(first.id));
    let content = inspected.content.unwrap();
    assert!(
        content
            .fields
            .iter()
            .all(|(name, _)| name != "authorization")
    );
    assert_eq!(content.sealed.unwrap().names, ["authorization"]);
    let lanes = bench.queue.lanes(None, None, 10).await.unwrap();
    let [lane] = &lanes.items[..] else {
        panic!("{lanes:?}");
    };
    assert_eq!(
        (&*lane.name, lane.items, lane.head),
        ("route:orders", 2, first.id)
    );
}
