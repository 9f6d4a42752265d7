//! Databases that are damaged, or go back, while the gateway runs: what was acknowledged is neither lost nor sent again by
//! itself, and what was refused stays so.

use super::{
    failures::{faulty, next_try, open},
    faults::{FaultyStorage, Keeps},
    salvage::PAGE_BYTES,
    *,
};
use crate::queue::{
    Dead, Parked,
    journal::{ContentError, tables::ended_key},
};

/// redb's header: which of two trees is the newer one, and where they are.
const HEADER_BYTES: usize = 320;

const AMBIGUOUS: State = State::Parked(Parked::Ambiguous);

const CORRUPT: State = State::Dead(Dead::Corrupt);

/// Nothing of this is written; the database is then in need of being opened again.
async fn refuse_one(fixture: &Fixture) {
    let refused = fixture.journal.append(fixture.write("refused")).await;
    assert!(
        matches!(refused, Err(AppendError::Unavailable(Unavailable::Failing))),
        "{refused:?}"
    );
}

fn indexed(fixture: &Fixture, item: &Item) -> Option<State> {
    fixture.index.lock().unwrap().state(item.id)
}

/// What is there is there after a restart, and nothing more is found damaged.
async fn assert_stays(fixture: Fixture, storage: &FaultyStorage, dir: &Arc<TempDir>, case: &str) {
    let last = fixture.append("goes on").await;
    let all = fixture.all().await;
    assert_eq!(all.last(), Some(&last), "{case}");
    fixture.close().await;
    storage.crash(Keeps::Nothing);
    let fixture = open(dir, storage).await;
    assert_eq!(fixture.all().await, all, "{case}");
    assert_eq!(fixture.journal.damage(), 0, "{case}: put right");
}

/// It was opened again as it had been earlier, and what had been acknowledged since was forgotten without a word.
#[tokio::test(start_paused = true)]
async fn a_database_that_goes_back_while_it_runs_is_noticed() {
    let (fixture, storage, dir) = faulty().await;
    let first = fixture.append("first").await;
    let before = storage.snapshot();
    let lost = fixture.append("lost").await;
    storage.fail_after(0);
    refuse_one(&fixture).await;
    storage.change(|content| *content = before);
    storage.heal();
    next_try().await;
    // Of this no page is left, but it is known that it was accepted.
    let found = fixture.item(lost.id).await.unwrap();
    assert_eq!(found.state, CORRUPT);
    assert_eq!(indexed(&fixture, &lost), Some(CORRUPT));
    // It may have been delivered since.
    let found = fixture.item(first.id).await.unwrap();
    assert_eq!(found.state, AMBIGUOUS);
    assert_eq!(indexed(&fixture, &first), Some(AMBIGUOUS));
    assert_eq!(fixture.body(first.id).await, "first");
    assert_eq!(fixture.journal.damage(), 2, "the one that is lost is said");
    assert_eq!(fixture.append("later").await.seq, 3);
    assert_stays(fixture, &storage, &dir, "").await;
}

/// The header alone goes back: what it does not know of is found on its pages, but for those that redb uses to open it.
#[tokio::test(start_paused = true)]
async fn what_a_header_that_goes_back_forgets_is_found_on_its_pages() {
    let (fixture, storage, dir) = faulty().await;
    let body = |number: u8| vec![number; 10_000];
    let (mut items, mut before) = (Vec::new(), Vec::new());
    for number in 0..20 {
        if number == 10 {
            before = storage.snapshot();
        }
        items.push(fixture.append(body(number)).await);
    }
    storage.fail_after(0);
    refuse_one(&fixture).await;
    storage.change(|content| {
        content[..HEADER_BYTES].copy_from_slice(&before[..HEADER_BYTES]);
    });
    storage.heal();
    next_try().await;
    let mut found = [0; 2];
    for (number, item) in (0..).zip(&items) {
        let now = fixture.item(item.id).await.unwrap();
        assert_eq!(indexed(&fixture, item), Some(now.state), "{number}");
        if now.state == CORRUPT {
            continue;
        }
        assert_eq!(now.state, AMBIGUOUS, "{number}");
        assert_eq!(fixture.body(item.id).await, body(number));
        found[usize::from(number / 10)] += 1;
    }
    assert_eq!(found[0], 10, "what the header knows of");
    assert!(found[1] > 0, "no page had it: nothing was shown");
    assert_eq!(fixture.journal.damage(), 20, "lost ones are said");
    assert_stays(fixture, &storage, &dir, "").await;
}

#[tokio::test(start_paused = true)]
async fn what_was_refused_is_not_saved_from_the_pages_of_its_commit() {
    let mut saved = 0;
    for operations in 0..30 {
        let case = format!("after {operations} operations");
        let (fixture, storage, dir) = faulty().await;
        let first = fixture.append("first").await;
        storage.fail_after(operations);
        let refused = fixture.journal.append(fixture.write("refused")).await;
        if let Ok(Appended::New(item)) = refused {
            assert_eq!(indexed(&fixture, &item), Some(State::Queued), "{case}");
            break;
        }
        storage.change(|content| content[..HEADER_BYTES].fill(0xa5));
        storage.heal();
        next_try().await;
        let all = fixture.all().await;
        assert_eq!(all.len(), 1, "{case}: {all:?}");
        assert_eq!((all[0].id, all[0].state), (first.id, AMBIGUOUS), "{case}");
        let counts = fixture.index.lock().unwrap().counts();
        assert_eq!(counts.iter().sum::<usize>(), 1, "{case}");
        // It was made again with the rest, to be removed.
        saved += fixture.journal.damage() - 1;
        assert_stays(fixture, &storage, &dir, &case).await;
    }
    assert!(saved > 0, "no page had it: nothing was shown");
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_commit_meets_the_damage_is_appended_once_and_as_it_is() {
    let key = KeyHash::new("me", "POST", "http://a.example/orders", "1");
    let mut saved = 0;
    for sync in 0..2 {
        let case = format!("sync {sync}");
        let (fixture, storage, dir) = faulty().await;
        let first = fixture.append("first").await;
        storage.destroy_at_failing_sync(0..HEADER_BYTES);
        storage.fail_syncs_of(1 << sync);
        let keyed = || NewWrite {
            key: Some(key),
            ..fixture.write("keyed")
        };
        let item = appended(fixture.journal.append(keyed()).await);
        assert_eq!(item.state, State::Queued, "{case}");
        assert_eq!(fixture.item(item.id).await.as_ref(), Some(&item), "{case}");
        assert_eq!(fixture.body(item.id).await, "keyed", "{case}");
        assert_eq!(indexed(&fixture, &item), Some(State::Queued), "{case}");
        assert_eq!(indexed(&fixture, &first), Some(AMBIGUOUS), "{case}");
        let counts = fixture.index.lock().unwrap().counts();
        assert_eq!(counts.iter().sum::<usize>(), 2, "{case}");
        match fixture.journal.append(keyed()).await.unwrap() {
            Appended::Known(known) => assert_eq!(known, item, "{case}"),
            Appended::New(again) => panic!("{case}: {again:?}"),
        }
        let all = fixture.all().await;
        let ids: Vec<_> = all.iter().map(|item| item.id).collect();
        assert_eq!(ids, [first.id, item.id], "{case}");
        saved += fixture.journal.damage() - 1;
        assert_stays(fixture, &storage, &dir, &case).await;
    }
    assert!(saved > 0, "it was on no page: nothing was shown");
}

/// Each try counted, and after three of them on a disk that was full nothing was queued before a restart.
#[tokio::test(start_paused = true)]
async fn a_salvage_that_cannot_be_written_for_a_while_is_tried_until_it_can() {
    let (fixture, storage, dir) = faulty().await;
    let first = fixture.append("first").await;
    storage.fail_after(0);
    refuse_one(&fixture).await;
    storage.change(|content| content[..HEADER_BYTES].fill(0xa5));
    // In the way of the new database.
    let obstacle = fixture.path("queue.redb.new");
    std::fs::create_dir(&obstacle).unwrap();
    storage.heal();
    let failed = fixture.errors("write");
    while fixture.errors("write") < failed + 10 {
        next_try().await;
    }
    std::fs::remove_dir(obstacle).unwrap();
    next_try().await;
    assert_eq!(fixture.item(first.id).await.unwrap().state, AMBIGUOUS);
    assert_stays(fixture, &storage, &dir, "").await;
}

/// What was lifted was held back again at the next restart.
#[tokio::test(start_paused = true)]
async fn what_is_paused_after_a_salvage_is_what_was_and_stays_so_at_the_next_start() {
    let pause = |name: &str| Pause {
        origin: Some(Origin::Upstream(name.to_owned())),
        since: Timestamp::from_secs(1_700_000_000),
        reason: None,
    };
    for now in [Vec::new(), vec![pause("b")]] {
        let (fixture, storage, dir) = faulty().await;
        let before = Change::Pause(vec![pause("a")]);
        fixture.journal.record(before).await.unwrap();
        let before = storage.snapshot();
        let change = Change::Pause(now.clone());
        fixture.journal.record(change).await.unwrap();
        storage.fail_after(0);
        refuse_one(&fixture).await;
        storage.change(|content| *content = before);
        storage.heal();
        next_try().await;
        fixture.append("later").await;
        assert_eq!(fixture.journal.pauses(), now);
        fixture.close().await;
        storage.crash(Keeps::Nothing);
        assert_eq!(open(&dir, &storage).await.journal.pauses(), now);
    }
}

/// An operator was shown that it may have been delivered until its receipt, which it was not, was swept.
#[tokio::test(start_paused = true)]
async fn a_write_that_is_shown_after_a_salvage_is_not_swept_like_one_that_ended() {
    let (fixture, storage, dir) = faulty().await;
    // Pages in the middle that nothing is on: the database is cut where it ends when it is opened.
    let gone = fixture.append(vec![7; 60_000]).await;
    let item = fixture.append("delivered").await;
    fixture.append(vec![8; 60_000]).await;
    let gone = Change::Remove(gone.id);
    fixture.journal.record(gone).await.unwrap();
    fixture.append("later").await;
    let mut content = storage.snapshot();
    let end = done(&item, fixture.now());
    let listed = ended_key(end.ended_at.unwrap(), item.id);
    let end = Change::End {
        item: end,
        answer: None,
    };
    fixture.journal.record(end).await.unwrap();
    let now = storage.snapshot();
    let mut pages = now.chunks(PAGE_BYTES);
    let page = pages.find(|page| page.windows(listed.len()).any(|at| at == listed));
    storage.fail_after(0);
    refuse_one(&fixture).await;
    // Of its end nothing is left but the page that lists its receipt.
    for free in content.chunks_mut(PAGE_BYTES) {
        if free.iter().all(|byte| *byte == 7) {
            free.copy_from_slice(page.unwrap());
        }
    }
    storage.change(|current| *current = content);
    storage.heal();
    next_try().await;
    let found = fixture.item(item.id).await.unwrap();
    assert_eq!(found.state, AMBIGUOUS);
    assert_eq!(indexed(&fixture, &item), Some(AMBIGUOUS));
    fixture.clock.step_secs(86_400 + 1);
    next_try().await;
    assert_eq!(fixture.item(item.id).await, Some(found));
    assert_stays(fixture, &storage, &dir, "").await;
}

/// The row of it was one more than was counted: the next start took that for damage, and brought back what had been removed.
#[tokio::test]
async fn what_becomes_of_a_write_that_was_lost_is_recorded_and_counted() {
    let fixture = Fixture::new().await;
    let first = fixture.append("first").await;
    let [waiting, ended] = ["waiting", "ended"].map(|body| fixture.append(body));
    let (waiting, ended) = (waiting.await, ended.await);
    for item in [&waiting, &ended] {
        let lost = Change::Remove(item.id);
        fixture.journal.record(lost).await.unwrap();
    }
    let waiting = Item {
        state: State::Waiting,
        ..waiting
    };
    let ended = done(&ended, fixture.now());
    let changes = [
        Change::Update(waiting.clone()),
        Change::End {
            item: ended.clone(),
            answer: None,
        },
    ];
    for change in changes {
        fixture.journal.record(change).await.unwrap();
    }
    let expected = [first, waiting.clone(), ended];
    assert_eq!(fixture.all().await, expected);
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.journal.damage(), 0);
    assert_eq!(fixture.all().await, expected);
    let content = fixture.journal.content(waiting.id).await;
    assert!(matches!(content, Err(ContentError::Damaged)));
}
