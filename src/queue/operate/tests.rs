//! What operators do, on a queue whose deliveries do not run: nothing changes but what is asked for.

use std::{fs, sync::Arc, time::Duration};

use bytes::Bytes;
use ring::digest::{SHA256, digest};
use tempfile::TempDir;
use tokio_util::task::TaskTracker;

use super::{
    Edit, EditedBody, EditedKey, Filter, Imported, OperateError, Operation, OperationState, Record,
};
use crate::{
    clock::VirtualClock,
    policy::Timestamp,
    queue::{
        Appended, Config, Dead, DeliveryBody, Done, Item, ItemId, LaneId, NewBody, NewWrite,
        OnStuck, Origin, Parked, Places, Queue, Repeat, State,
        journal::Change,
        tests::{config, item},
    },
    telemetry::Metrics,
};

const BY: &str = "admin token from 127.0.0.1";
const NOW: Timestamp = Timestamp::from_secs(1_000_000);
const KEY: &str = "a-key-that-seals-credentials-0123456789";

/// A queue of its own directory, which ends with the test.
struct Bench {
    queue: Queue,
    clock: Arc<VirtualClock>,
    dir: TempDir,
    config: Config,
}

impl Bench {
    async fn new() -> Self {
        Self::with_key(Some(KEY)).await
    }

    async fn with_key(key: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        fs::create_dir(&data).unwrap();
        let key_file = key.map(|key| {
            let path = dir.path().join("keys");
            fs::write(&path, key).unwrap();
            path
        });
        let config = Config {
            dir: data,
            key_file,
            ..config()
        };
        let clock = Arc::new(VirtualClock::new(NOW));
        let queue = open(&config, &clock).await;
        Self {
            queue,
            clock,
            dir,
            config,
        }
    }

    async fn reopened(self) -> Self {
        self.queue.close().await;
        let queue = open(&self.config, &self.clock).await;
        Self { queue, ..self }
    }

    /// Appends a write, and leaves it in this state.
    async fn write(&self, path: &str, state: State) -> Item {
        self.write_as(path, state, |_| {}).await
    }

    async fn write_as(&self, path: &str, state: State, change: impl FnOnce(&mut Item)) -> Item {
        let body = Bytes::from(format!("body of {path}"));
        let mut wanted = Item {
            url: format!("http://api.example{path}"),
            body_bytes: body.len() as u64,
            accepted_at: NOW,
            next_at: NOW,
            ..item()
        };
        wanted
            .body_sha256
            .copy_from_slice(digest(&SHA256, &body).as_ref());
        change(&mut wanted);
        let fields = [
            ("content-type", "text/plain"),
            ("idempotency-key", "\"k-1\""),
            ("authorization", "Bearer secret"),
        ];
        let write = NewWrite {
            item: wanted,
            fields: fields
                .map(|(name, value)| (name.to_owned(), value.into()))
                .to_vec(),
            body: NewBody::Inline(body),
            key: None,
        };
        let Appended::New(mut item) = self.queue.append(write).await.unwrap() else {
            panic!("known");
        };
        if state != State::Queued {
            self.queue.index().claim(item.id, |_| true).unwrap();
            item.state = state;
            item.attempts = 50;
            let change = Change::Update(item.clone());
            self.queue.inner.journal.record(change).await.unwrap();
        }
        item
    }

    async fn item(&self, id: ItemId) -> Item {
        self.queue.item(id).await.unwrap().unwrap()
    }

    async fn list(&self, filter: Filter) -> Vec<String> {
        let page = self.queue.list(&filter, None, 1_000).await.unwrap();
        assert_eq!(page.next, None);
        let paths = page.items.iter().map(|shown| path(&shown.item));
        paths.collect()
    }

    /// The actions of the audit, the oldest first.
    async fn audited(&self) -> Vec<(String, Option<ItemId>)> {
        let page = self.queue.audit(None, 100).await.unwrap();
        let entries = page.items.into_iter().rev();
        entries
            .map(|entry| {
                assert_eq!(entry.actor, BY);
                (entry.action, entry.item)
            })
            .collect()
    }

    async fn exported(&self) -> Vec<Record> {
        let page = self
            .queue
            .list(&Filter::default(), None, 1_000)
            .await
            .unwrap();
        let mut records = Vec::new();
        for shown in page.items {
            records.extend(self.queue.record(shown.item.id).await.unwrap());
        }
        records
    }
}

async fn open(config: &Config, clock: &Arc<VirtualClock>) -> Queue {
    let tasks = TaskTracker::new();
    Queue::open(
        config.clone(),
        Places::default(),
        clock.clone(),
        Metrics::new(),
        &tasks,
    )
    .await
    .unwrap()
}

fn path(item: &Item) -> String {
    let path = item.url.strip_prefix("http://api.example");
    path.unwrap().to_owned()
}

fn states(names: &[&'static str]) -> Filter {
    Filter {
        states: Some(names.to_vec()),
        ..Filter::default()
    }
}

const REJECTED: State = State::Dead(Dead::Rejected);
const AMBIGUOUS: State = State::Parked(Parked::Ambiguous);

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

#[tokio::test]
async fn a_retried_write_is_due_at_once_and_lives_anew() {
    for state in [
        State::Waiting,
        REJECTED,
        AMBIGUOUS,
        State::Dead(Dead::Attempts),
    ] {
        let bench = Bench::new().await;
        let before = bench
            .write_as("/a", state, |item| {
                item.ambiguous_since = Some(NOW);
                item.next_at = Timestamp::from_secs(9_000_000);
                item.floor_until = Some(item.next_at);
            })
            .await;
        bench.clock.step_secs(100);
        let now = Timestamp::from_secs(1_000_100);
        bench.queue.retry(before.id, BY).await.unwrap();
        let after = bench.item(before.id).await;
        assert_eq!(
            (after.state, after.next_at, after.floor_until),
            (State::Waiting, now, None)
        );
        assert_eq!((after.attempts, after.counted_attempts()), (50, 0));
        assert_eq!(after.waits_since(), now);
        assert!(
            after.may_be_repeated(now),
            "{state:?}: the operator's word counts"
        );
        let due = bench.queue.index().next_due_at(&after.origin);
        assert_eq!(due, Some(now));
        assert_eq!(
            bench.audited().await,
            [("retry".to_owned(), Some(before.id))]
        );
    }
}

#[tokio::test]
async fn where_repeating_does_no_harm_the_earlier_attempt_is_remembered() {
    let bench = Bench::new().await;
    let before = bench
        .write_as("/a", State::Dead(Dead::Attempts), |item| {
            item.method = "DELETE".to_owned();
            item.repeat = Repeat::Harmless;
            item.ambiguous_since = Some(NOW);
        })
        .await;
    bench.queue.retry(before.id, BY).await.unwrap();
    // A 404 now means that it is done.
    assert_eq!(bench.item(before.id).await.ambiguous_since, Some(NOW));
}

#[tokio::test]
async fn what_somebody_works_on_and_what_has_ended_is_left_alone() {
    let bench = Bench::new().await;
    let busy = bench.write("/a", State::Queued).await;
    bench.queue.index().claim(busy.id, |_| true).unwrap();
    let done = bench.write("/b", AMBIGUOUS).await;
    bench
        .queue
        .resolve(done.id, Some("it was there"), BY)
        .await
        .unwrap();
    let queued = bench.write("/c", State::Queued).await;
    let unknown = ItemId::from_bytes([7; 16]);

    let refusal = async |id| match bench.queue.retry(id, BY).await.unwrap_err() {
        OperateError::InUse => "in use",
        OperateError::NotAllowed { state, .. } => state.as_str(),
        OperateError::Unknown { .. } => "unknown",
        error => panic!("{error}"),
    };
    assert_eq!(refusal(busy.id).await, "in use");
    assert_eq!(refusal(done.id).await, "done");
    assert_eq!(refusal(queued.id).await, "queued");
    assert_eq!(refusal(unknown).await, "unknown");
    let edited = bench.queue.edit(queued.id, Edit::default(), BY).await;
    assert!(matches!(edited, Err(OperateError::NotAllowed { .. })));
    // Nobody has kept a claim.
    assert!(bench.queue.index().claim(queued.id, |_| true).is_ok());
    assert_eq!(
        bench.audited().await.len(),
        1,
        "what was refused changed nothing"
    );
}

#[tokio::test]
async fn a_dropped_write_is_gone_and_frees_its_lane() {
    let bench = Bench::new().await;
    let head = bench.write("/a", REJECTED).await;
    let next = bench.write("/b", State::Queued).await;
    assert_eq!(bench.queue.blocked_by(next.id), Some(head.id));
    bench.queue.drop_item(head.id, BY).await.unwrap();
    assert_eq!(bench.queue.item(head.id).await.unwrap(), None);
    assert_eq!(bench.queue.blocked_by(next.id), None);
    let page = bench.queue.audit(None, 10).await.unwrap();
    assert_eq!(page.items[0].action, "drop");
    assert!(
        page.items[0].detail.contains("http://api.example/a"),
        "{page:?}"
    );
    let bench = bench.reopened().await;
    assert_eq!(bench.list(Filter::default()).await, ["/b"]);
}

#[tokio::test]
async fn a_resolved_write_keeps_its_receipt() {
    let bench = Bench::new().await;
    let write = bench.write("/a", AMBIGUOUS).await;
    bench
        .queue
        .resolve(write.id, Some("seen at the origin"), BY)
        .await
        .unwrap();
    let bench = bench.reopened().await;
    let after = bench.item(write.id).await;
    assert_eq!(after.state, State::Done(Done::Resolved));
    assert_eq!(after.remark.as_deref(), Some("seen at the origin"));
    assert_eq!(bench.queue.summary().bytes, 0);
}

fn keyed(item: &mut Item) {
    item.repeat = Repeat::Keyed;
    item.idempotency_key = Some("k-1".to_owned());
    item.is_client_key = true;
}

#[tokio::test]
async fn an_edited_write_is_another_request_with_another_key() {
    let bench = Bench::new().await;
    let before = bench.write_as("/a", REJECTED, keyed).await;
    let body = Bytes::from(vec![b'x'; 100_000]);
    let edit = Edit {
        path: Some("/b?c=1".to_owned()),
        fields: vec![
            (
                "content-type".to_owned(),
                Some(b"application/json".to_vec()),
            ),
            ("x-new".to_owned(), Some(b"1".to_vec())),
        ],
        body: EditedBody::New(body.clone()),
        ..Edit::default()
    };
    bench.queue.edit(before.id, edit, BY).await.unwrap();

    let bench = bench.reopened().await;
    let after = bench.item(before.id).await;
    assert_eq!(
        (path(&after), after.state),
        ("/b?c=1".to_owned(), State::Waiting)
    );
    let key = after.idempotency_key.clone().unwrap();
    assert!(key != "k-1" && !after.is_client_key);
    assert_eq!(after.body_sha256, digest(&SHA256, &body).as_ref());
    assert_eq!(after.body_bytes, 100_000);
    assert!(after.weight_bytes > 100_000);
    assert_eq!(bench.queue.summary().bytes, after.weight_bytes);
    let opened = bench.queue.inner.journal.content(after.id).await.unwrap();
    let DeliveryBody::File { path, .. } = opened.body else {
        panic!("a large body is in a file");
    };
    assert_eq!(fs::read(path).unwrap(), body);
    let value = |name: &str| {
        let field = opened.fields.iter().find(|(known, _)| known == name);
        String::from_utf8(field.unwrap().1.clone()).unwrap()
    };
    assert_eq!(value("content-type"), "application/json");
    assert_eq!(value("idempotency-key"), format!("\"{key}\""));
    assert_eq!(value("authorization"), "Bearer secret", "sealed anew");
    let audit = bench.queue.audit(None, 10).await.unwrap();
    assert!(
        !audit.items[0].detail.contains("application/json"),
        "no values: {audit:?}"
    );
}

#[tokio::test]
async fn an_edited_write_may_keep_its_key_and_stay_parked() {
    let bench = Bench::new().await;
    let before = bench.write_as("/a", AMBIGUOUS, keyed).await;
    let edit = Edit {
        key: EditedKey::Same,
        stays_parked: true,
        ..Edit::default()
    };
    bench.queue.edit(before.id, edit, BY).await.unwrap();
    let after = bench.item(before.id).await;
    assert_eq!(after.state, State::Parked(Parked::Operator));
    assert_eq!(after.idempotency_key.as_deref(), Some("k-1"));
    assert_eq!(bench.queue.index().next_due_at(&after.origin), None);
}

#[tokio::test]
async fn an_edit_that_makes_no_sense_changes_nothing() {
    let bench = Bench::new().await;
    let before = bench.write("/a", REJECTED).await;
    for edit in [
        Edit {
            path: Some("b".to_owned()),
            ..Edit::default()
        },
        Edit {
            fields: vec![("host".to_owned(), Some(b"evil.example".to_vec()))],
            ..Edit::default()
        },
        Edit {
            body: EditedBody::New(vec![0; (8 << 20) + 1].into()),
            ..Edit::default()
        },
    ] {
        assert!(bench.queue.edit(before.id, edit, BY).await.is_err());
        assert_eq!(bench.item(before.id).await, before);
    }
    assert!(
        bench.queue.retry(before.id, BY).await.is_ok(),
        "no claim is left"
    );
}

#[tokio::test]
async fn credentials_that_do_not_open_can_be_given_anew() {
    let bench = Bench::new().await;
    let write = bench.write("/a", State::Parked(Parked::Auth)).await;
    fs::write(bench.config.key_file.as_ref().unwrap(), format!("{KEY}-2")).unwrap();
    let bench = bench.reopened().await;
    let same = bench.queue.edit(write.id, Edit::default(), BY).await;
    assert!(same.unwrap_err().to_string().contains("authorization"));
    let given = Edit {
        fields: vec![("Authorization".to_owned(), Some(b"Bearer new".to_vec()))],
        ..Edit::default()
    };
    bench.queue.edit(write.id, given, BY).await.unwrap();
    let opened = bench.queue.inner.journal.content(write.id).await.unwrap();
    let expected = ("authorization".to_owned(), b"Bearer new".to_vec());
    assert!(opened.fields.contains(&expected));
}

#[tokio::test]
async fn a_plan_is_frozen_and_runs_once() {
    let bench = Bench::new().await;
    let on_stuck = |item: &mut Item| item.on_stuck = OnStuck::Continue;
    let mut planned = Vec::new();
    for number in 0..100 {
        let write = bench
            .write_as(&format!("/{number}"), REJECTED, on_stuck)
            .await;
        planned.push(write.id);
    }
    bench.write("/queued", State::Queued).await;
    let plan = bench.queue.redrive_plan(Filter::default()).await.unwrap();
    assert_eq!((plan.total, plan.state), (100, OperationState::Planned));
    assert_eq!(plan.sample, planned[..20]);
    assert_eq!(
        bench.list(states(&["dead"])).await.len(),
        100,
        "only planned"
    );

    let late = bench.write_as("/late", REJECTED, on_stuck).await;
    bench.queue.drop_item(planned[3], BY).await.unwrap();
    bench.queue.redrive_begin(&plan.id, BY).unwrap();
    assert!(
        bench.queue.redrive_begin(&plan.id, BY).is_err(),
        "it runs already"
    );
    bench.queue.redrive_run(&plan.id, BY).await;
    let Operation {
        state,
        total,
        done,
        failed,
        failures,
        ..
    } = bench.queue.operation(&plan.id).unwrap();
    assert_eq!(
        (state, total, done, failed),
        (OperationState::Ended, 100, 99, 1)
    );
    assert_eq!(failures[0].0, planned[3]);
    assert_eq!(
        bench.item(late.id).await.state,
        REJECTED,
        "it is not in the plan"
    );
    assert_eq!(bench.list(states(&["waiting"])).await.len(), 99);
    let actions: Vec<_> = bench
        .audited()
        .await
        .into_iter()
        .map(|(action, _)| action)
        .collect();
    assert_eq!(
        actions,
        ["drop", "redrive", "redrive"],
        "not one for each write"
    );
}

#[tokio::test]
async fn what_cannot_be_redriven_is_refused() {
    let bench = Bench::new().await;
    for state in ["queued", "sending", "done", "cancelled"] {
        let plan = bench.queue.redrive_plan(states(&["dead", state])).await;
        assert!(matches!(plan, Err(OperateError::Invalid(_))), "{state}");
    }
    assert!(bench.queue.redrive_plan(states(&["waiting"])).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn there_are_four_plans_at_most_and_old_ones_are_forgotten() {
    let bench = Bench::new().await;
    for _ in 0..4 {
        bench.queue.redrive_plan(Filter::default()).await.unwrap();
    }
    let fifth = bench.queue.redrive_plan(Filter::default()).await;
    assert!(matches!(
        fifth,
        Err(OperateError::TooManyPlans { limit: 4 })
    ));
    tokio::time::advance(Duration::from_secs(600)).await;
    bench.queue.redrive_plan(Filter::default()).await.unwrap();
}

#[tokio::test]
async fn pauses_are_kept_across_restarts_and_taken_back_one_by_one() {
    let bench = Bench::new().await;
    let places = |bench: &Bench| {
        let pauses = bench.queue.summary().pauses.into_iter();
        pauses
            .map(|pause| pause.origin.map(|origin| origin.to_string()))
            .collect::<Vec<_>>()
    };
    let api = || Some("api".to_owned());
    bench
        .queue
        .pause(None, Some("drill".to_owned()), BY)
        .await
        .unwrap();
    bench.queue.pause(Some("api"), None, BY).await.unwrap();
    bench
        .queue
        .pause(Some("http://a.example"), None, BY)
        .await
        .unwrap();
    bench.queue.pause(Some("api"), None, BY).await.unwrap();
    let bench = bench.reopened().await;
    let forward = || Some("http://a.example".to_owned());
    assert_eq!(places(&bench), [None, forward(), api()]);
    assert_eq!(
        bench.queue.summary().pauses[0].reason.as_deref(),
        Some("drill")
    );
    bench.queue.resume(None, BY).await.unwrap();
    assert_eq!(places(&bench), [forward(), api()]);
    bench
        .queue
        .resume(Some("http://a.example"), BY)
        .await
        .unwrap();
    bench.queue.resume(Some("api"), BY).await.unwrap();
    let bench = bench.reopened().await;
    assert!(places(&bench).is_empty());
    let actions = bench.audited().await;
    assert_eq!(actions.len(), 7, "{actions:?}");
}

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
            .map(|(line, outcome): (_, Result<_, super::ImportError>)| (line, outcome.unwrap()))
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
