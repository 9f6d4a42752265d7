//! Out of one queue and into another.

use std::fs;

use bytes::Bytes;

use super::{AMBIGUOUS, BY, Bench, REJECTED, keyed};
use crate::queue::{
    DeliveryBody, Item, LaneId, Origin, Parked, State,
    operate::{Edit, EditedBody, Filter, ImportError, Imported, Record},
};

#[tokio::test]
async fn what_is_exported_is_imported_whole_and_once() {
    let bench = Bench::new().await;
    let first = bench.write_as("/a", AMBIGUOUS, keyed).await;
    let second = bench.write("/b", State::Queued).await;
    let large = Bytes::from(vec![b'y'; 200_000]);
    let edit = Edit {
        body: EditedBody::New(large.clone()),
        stays_parked: true,
        ..Edit::default()
    };
    bench.queue.edit(first.id, edit, BY).await.unwrap();
    let records = bench.exported().await;
    let text = serde_json::to_string(&records).unwrap();
    assert!(!text.contains("secret"), "sealed");

    let other = Bench::new().await;
    other.clock.step_secs(1);
    let newer = other.write("/newer", State::Queued).await;
    // Their order in the file does not matter: their ids say what came first.
    let lines = |records: &[Record]| (1..).zip(records.iter().rev().cloned()).collect::<Vec<_>>();
    let outcomes = |outcomes: Vec<(u64, Result<Imported, _>)>| {
        let outcomes = outcomes.into_iter();
        outcomes
            .map(|(line, outcome): (_, Result<_, ImportError>)| (line, outcome.unwrap()))
            .collect::<Vec<_>>()
    };
    let imported = outcomes(other.queue.import(lines(&records)).await);
    assert_eq!(imported, [(1, Imported::New), (2, Imported::New)]);
    let again = outcomes(other.queue.import(lines(&records)).await);
    assert_eq!(again, [(1, Imported::Known), (2, Imported::Known)]);

    let other = other.reopened().await;
    assert_eq!(other.list(Filter::default()).await, ["/a", "/b", "/newer"]);
    let after = other.item(first.id).await;
    assert_eq!(after.state, State::Parked(Parked::Operator));
    assert_eq!(
        after.idempotency_key,
        bench.item(first.id).await.idempotency_key
    );
    assert_eq!(other.queue.blocked_by(newer.id), Some(first.id));
    let opened = other.queue.inner.journal.content(first.id).await.unwrap();
    let DeliveryBody::File { path, .. } = opened.body else {
        panic!("a large body is in a file");
    };
    assert_eq!(fs::read(path).unwrap(), large);
    let credential = ("authorization".to_owned(), b"Bearer secret".to_vec());
    let opened = other.queue.inner.journal.content(second.id).await.unwrap();
    assert!(opened.fields.contains(&credential), "the same key opens it");
    let weights: u64 = [first.id, second.id, newer.id].len() as u64;
    assert_eq!(
        other.queue.summary().counts.iter().sum::<usize>() as u64,
        weights
    );
    // What comes later is behind all of them.
    assert!(other.write("/last", State::Queued).await.id > newer.id);
}

#[tokio::test]
async fn without_the_key_nothing_is_imported_and_it_says_so() {
    let bench = Bench::new().await;
    bench.write("/a", State::Queued).await;
    let records: Vec<_> = (1..).zip(bench.exported().await).collect();
    for key in [None, Some("another-key-that-seals-credentials-01234")] {
        let other = Bench::with_key(key).await;
        let outcomes = other.queue.import(records.clone()).await;
        let error = outcomes[0].1.as_ref().unwrap_err().to_string();
        assert!(error.contains("queue.key_file"), "{error}");
        assert!(other.list(Filter::default()).await.is_empty());
        assert_eq!(other.queue.summary().bytes, 0);
        drop(other.dir);
    }
}

#[tokio::test]
async fn an_import_respects_the_limits_of_the_queue() {
    let bench = Bench::new().await;
    for number in 0..3 {
        bench.write(&format!("/{number}"), State::Queued).await;
    }
    let records: Vec<_> = (1..).zip(bench.exported().await).collect();
    let mut other = Bench::new().await;
    other.config.max_items = 2;
    let other = other.reopened().await;
    let outcomes = other.queue.import(records).await;
    let taken: Vec<_> = outcomes
        .iter()
        .map(|(_, outcome)| outcome.is_ok())
        .collect();
    assert_eq!(taken, [true, true, false]);
    assert_eq!(other.list(Filter::default()).await, ["/0", "/1"]);
}

/// With the lane of a write that halts, a forged line held up what it does not belong to.
#[tokio::test]
async fn no_line_of_an_import_gets_into_the_lane_of_another_origin() {
    let bench = Bench::new().await;
    for lane in ["route:orders", "none"] {
        let item = bench.write_as("/a", REJECTED, |item| item.lane = lane.to_owned());
        item.await;
    }
    let other = Bench::new().await;
    let elsewhere = |item: &mut Item| {
        item.origin = Origin::Upstream("other".to_owned());
        item.lane_id = LaneId::new(&item.origin, &item.lane);
    };
    let victim = other.write_as("/victim", State::Queued, elsewhere).await;
    let forged = bench.exported().await.into_iter().map(|record| {
        let mut line = serde_json::to_value(record).unwrap();
        line["item"]["lane_id"] = victim.lane_id.to_string().into();
        Record::parse(line.to_string().as_bytes()).unwrap()
    });
    let outcomes = other.queue.import((1..).zip(forged).collect()).await;
    assert!(outcomes.iter().all(|(_, outcome)| outcome.is_ok()));
    assert_eq!(other.queue.blocked_by(victim.id), None);
    let items = other
        .queue
        .list(&Filter::default(), None, 10)
        .await
        .unwrap();
    let [ordered, unordered, _] = &items.items[..] else {
        panic!("{items:?}");
    };
    let named = LaneId::new(&ordered.item.origin, "route:orders");
    assert_eq!(ordered.item.lane_id, named);
    assert_ne!(unordered.item.lane_id, victim.lane_id);
    assert_ne!(unordered.item.lane_id, named);
}

/// The second one was put into the index, which then counted it, and had it delivered, twice.
#[tokio::test]
async fn a_write_that_is_twice_in_an_import_is_imported_once() {
    let bench = Bench::new().await;
    for number in 0..20 {
        let unordered = |item: &mut Item| item.lane = "none".to_owned();
        let path = format!("/{number}");
        bench.write_as(&path, State::Queued, unordered).await;
    }
    let records = bench.exported().await;
    let twice = records.iter().chain(&records).cloned();
    let other = Bench::new().await;
    let outcomes = other.queue.import((1..).zip(twice).collect()).await;
    let count = |wanted| {
        let outcomes = outcomes.iter();
        outcomes
            .filter(|(_, outcome)| outcome.as_ref().is_ok_and(|outcome| *outcome == wanted))
            .count()
    };
    assert_eq!((count(Imported::New), count(Imported::Known)), (20, 20));
    let summary = |bench: &Bench| {
        let summary = bench.queue.summary();
        (summary.counts.iter().sum::<usize>(), summary.bytes)
    };
    let before = summary(&other);
    assert_eq!(before.0, 20);
    let other = other.reopened().await;
    assert_eq!(summary(&other), before);
    assert_eq!(other.list(Filter::default()).await.len(), 20);
}
