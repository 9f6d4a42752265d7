//! Files that redb cannot open, or cannot find its way in: what a page proves comes back, and nothing of it is sent by itself.

use std::{fs, os::unix::fs::FileExt};

use futures_util::future::join_all;
use redb::{Database, TableDefinition};

use super::{
    damage::{body, copy, queue},
    *,
};
use crate::queue::{
    Answer, Attempt, Dead, Parked,
    journal::{damage::Damage, salvage},
};

pub(super) const PAGE_BYTES: usize = 4_096;

/// Changes the database of a closed queue.
pub(super) fn change(dir: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let path = dir.join("queue.redb");
    let mut content = fs::read(&path).unwrap();
    change(&mut content);
    fs::write(path, content).unwrap();
}

pub(super) fn destroy_header(content: &mut [u8]) {
    content[..PAGE_BYTES].fill(0xa5);
}

/// What came back: each write is what it was, or is shown to an operator with everything that is sent of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    same: usize,
    /// With their content.
    parked: usize,
    dead: usize,
    missing: usize,
}

async fn found(fixture: &Fixture, items: &[Item], case: &str) -> Found {
    let mut found = Found::default();
    for (number, item) in items.iter().enumerate() {
        match fixture.item(item.id).await {
            None => found.missing += 1,
            Some(now) if now == *item => found.same += 1,
            Some(now) if now.state == State::Parked(Parked::Ambiguous) => {
                found.parked += 1;
                assert!(now.remark.is_some(), "{case}: {number}");
                assert_eq!(
                    (&now.url, now.seq),
                    (&item.url, item.seq),
                    "{case}: {number}"
                );
                assert_eq!(
                    fixture.body(item.id).await,
                    body(number),
                    "{case}: {number}"
                );
            }
            Some(now) => {
                assert_eq!(now.state, State::Dead(Dead::Corrupt), "{case}: {number}");
                found.dead += 1;
            }
        }
    }
    found
}

/// What nobody proved to be the last state must not be sent.
async fn assert_nothing_is_pending(fixture: &Fixture, case: &str) {
    for item in fixture.all().await {
        assert!(!item.state.is_pending(), "{case}: {item:?}");
    }
}

/// It works, and what comes is after all there was.
async fn assert_goes_on(fixture: Fixture, items: &[Item], case: &str) {
    let item = fixture.append("goes on").await;
    let last = items.last().unwrap();
    assert!(item.id > last.id && item.seq > last.seq, "{case}: {item:?}");
    let before = fixture.all().await;
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.all().await, before, "{case}");
    assert_eq!(fixture.journal.damage(), 0, "{case}: put right");
}

#[tokio::test]
async fn without_a_header_every_write_comes_back_parked_and_every_receipt_as_it_was() {
    let (dir, _, items) = queue().await;
    let fixture = copy(&dir, |dir| change(dir, |content| destroy_header(content))).await;
    let expected = Found {
        same: 10,
        parked: 30,
        ..Found::default()
    };
    assert_eq!(found(&fixture, &items, "").await, expected);
    assert_nothing_is_pending(&fixture, "").await;
    assert_eq!(fixture.journal.damage(), 30);
    assert_eq!(fixture.errors("corrupt"), 30);
    assert_eq!(fixture.all().await.len(), items.len());
    assert!(fixture.path("queue.redb.bad-1").exists());
    for (number, item) in items.iter().enumerate() {
        let write = NewWrite {
            key: Some(KeyHash::new("me", "POST", "", &number.to_string())),
            ..fixture.write(body(number))
        };
        match fixture.journal.append(write).await.unwrap() {
            Appended::Known(known) => assert_eq!(known.id, item.id),
            Appended::New(_) => panic!("the key of {number} is forgotten"),
        }
    }
    assert_goes_on(fixture, &items, "").await;
}

/// A PUT that was delivered may have left its earlier state behind; to send it again would undo what came after it.
#[tokio::test]
async fn whichever_page_is_lost_besides_nothing_that_was_delivered_is_sent_again() {
    let (dir, _, items) = queue().await;
    let len = fs::metadata(dir.path().join("queue.redb")).unwrap().len();
    let pages = fs::read(dir.path().join("queue.redb")).unwrap();
    let used = pages
        .chunks(PAGE_BYTES)
        .map(|page| page.iter().any(|byte| *byte != 0));
    let used: Vec<_> = used.enumerate().filter(|(_, used)| *used).collect();
    let mut from_stale = 0;
    for (page, _) in used.into_iter().skip(1) {
        let fixture = copy(&dir, |dir| {
            change(dir, |content| {
                destroy_header(content);
                content[page * PAGE_BYTES..][..PAGE_BYTES].fill(0);
            });
        })
        .await;
        let case = format!("page {page} of {}", len / PAGE_BYTES as u64);
        assert_nothing_is_pending(&fixture, &case).await;
        let found = found(&fixture, &items, &case).await;
        assert!(fixture.journal.damage() > 0, "{case}");
        from_stale += found.parked.saturating_sub(30);
        assert_goes_on(fixture, &items, &case).await;
    }
    assert!(
        from_stale > 0,
        "no earlier state was left: nothing was shown"
    );
}

#[tokio::test]
async fn of_a_file_cut_short_every_page_that_is_left_counts() {
    let (dir, _, items) = queue().await;
    let content = fs::read(dir.path().join("queue.redb")).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    let mut last = 0;
    for eighths in 1..8 {
        let case = format!("{eighths}/8 of {used}");
        // In the middle of a page, too.
        let cut = used * eighths / 8;
        let fixture = copy(&dir, |dir| change(dir, |content| content.truncate(cut))).await;
        assert_nothing_is_pending(&fixture, &case).await;
        let found = found(&fixture, &items, &case).await;
        let unsaid = (found.parked + found.dead + found.missing) as u64;
        assert!(fixture.journal.damage() >= unsaid, "{case}: {found:?}");
        let back = found.same + found.parked;
        assert!(back >= last, "{case}: {found:?}");
        last = back;
        assert_goes_on(fixture, &items, &case).await;
    }
    assert!(last > items.len() / 2, "{last} came back of the longest");
}

#[tokio::test]
async fn around_a_hole_in_the_middle_everything_comes_back() {
    let (dir, _, items) = queue().await;
    let content = fs::read(dir.path().join("queue.redb")).unwrap();
    let used = content.iter().rposition(|byte| *byte != 0).unwrap() + 1;
    for has_header in [true, false] {
        let fixture = copy(&dir, |dir| {
            change(dir, |content| {
                content[used * 3 / 8..used * 5 / 8].fill(0);
                if !has_header {
                    destroy_header(content);
                }
            });
        })
        .await;
        let case = format!("with header: {has_header}");
        let found = found(&fixture, &items, &case).await;
        assert!(found.same + found.parked > 0, "{case}: {found:?}");
        let unsaid = (found.parked + found.dead + found.missing) as u64;
        assert!(fixture.journal.damage() >= unsaid, "{case}: {found:?}");
        assert_goes_on(fixture, &items, &case).await;
    }
}

#[tokio::test]
async fn nothing_is_found_in_what_is_no_database() {
    let (dir, _, items) = queue().await;
    let fixture = copy(&dir, |dir| {
        change(dir, |content| {
            let mut random = fastrand::Rng::with_seed(3);
            random.fill(content);
            // Beginnings of leaves that go on and on.
            for page in content.chunks_mut(PAGE_BYTES) {
                page[..4].copy_from_slice(&[1, 0, 255, 255]);
            }
        });
    })
    .await;
    assert_eq!(fixture.all().await, []);
    assert_eq!(fixture.journal.damage(), items.len() as u64);
    assert_goes_on(fixture, &items, "").await;
}

#[tokio::test]
async fn pauses_audit_answers_and_clocks_come_back_and_the_spool_is_kept() {
    let fixture = Fixture::new().await;
    let large: Bytes = vec![7; 100_000].into();
    let spooled = fixture.append_spooled(&large).await;
    let answered = fixture.append("answered").await;
    let answer = |status| Answer {
        status,
        fields: Vec::new(),
        body: Bytes::from(vec![b'x'; 3_000]),
        is_truncated: false,
    };
    let attempt = |status| Attempt {
        at: fixture.now(),
        took_millis: 1,
        status: Some(status),
        error: None,
    };
    let conflict = Change::Answered {
        item: Item {
            state: State::Parked(Parked::Conflict),
            last: Some(attempt(409)),
            ..answered.clone()
        },
        answer: answer(409),
    };
    fixture.journal.record(conflict).await.unwrap();
    let end = Item {
        last: Some(attempt(201)),
        ..done(&answered, fixture.now())
    };
    let ended = Change::End {
        item: end.clone(),
        answer: Some(answer(201)),
    };
    fixture.journal.record(ended).await.unwrap();
    let pause = Pause {
        origin: Some(Origin::Upstream("a".to_owned())),
        since: fixture.now(),
        reason: None,
    };
    let audit = AuditEntry {
        at: fixture.now(),
        actor: "operator".to_owned(),
        action: "pause".to_owned(),
        item: None,
        detail: "a".to_owned(),
    };
    let two_days = Duration::from_secs(2 * 86_400);
    fixture.journal.ago(two_days);
    fixture.clock.set_forward_secs(365 * 86_400);
    let two_days_ago = fixture.journal.ago(two_days);
    assert!(
        two_days_ago.plus(2 * two_days) < fixture.now(),
        "before the step"
    );
    let paused = Change::Pause(vec![pause.clone()]);
    let recorded = fixture.journal.record_audited(paused, audit.clone());
    recorded.await.unwrap();
    let now = fixture.now();
    let (dir, config) = fixture.close().await;
    change(dir.path(), |content| destroy_header(content));
    let backing = Backing::directory(dir.path().to_owned());
    let fixture = Fixture::open_at(dir, config, backing, now).await.unwrap();
    assert_eq!(fixture.journal.ago(two_days), two_days_ago);
    assert_eq!(fixture.journal.pauses(), [pause]);
    let entries = fixture.journal.audit(None, 10).await.unwrap();
    assert_eq!(entries, [(1, audit)]);
    assert_eq!(fixture.item(answered.id).await, Some(end));
    // That of an earlier attempt is never told for it.
    let found = fixture.journal.answer(answered.id).await.unwrap();
    assert!(found.is_none_or(|found| found == answer(201)));
    let found = fixture.item(spooled.id).await.unwrap();
    assert_eq!(found.state, State::Parked(Parked::Ambiguous));
    assert_eq!(fixture.body(spooled.id).await, large);
    assert!(fixture.index.lock().unwrap().state(spooled.id).is_some());
}

/// The newest of two headers was damaged: the file opens as it was one commit before.
#[tokio::test]
async fn what_the_last_commit_said_is_not_forgotten_with_its_header() {
    let fixture = Fixture::new().await;
    let item = fixture.append("sent").await;
    let header = {
        let file = fs::File::open(fixture.path("queue.redb")).unwrap();
        let mut header = [0; 320];
        file.read_exact_at(&mut header, 0).unwrap();
        header
    };
    let sending = Item {
        state: State::Sending,
        ..item.clone()
    };
    fixture
        .journal
        .record(Change::Update(sending))
        .await
        .unwrap();
    let crashed = fs::read(fixture.path("queue.redb")).unwrap();
    let (dir, _) = fixture.close().await;
    let fixture = copy(&dir, |dir| {
        fs::write(dir.join("queue.redb"), &crashed).unwrap();
        change(dir, |content| content[..320].copy_from_slice(&header));
    })
    .await;
    let found = fixture.item(item.id).await.unwrap();
    assert_eq!(found.state, State::Parked(Parked::Ambiguous));
}

/// Of each key on a page that was given up, a dead write was made of which nothing was known.
#[tokio::test(start_paused = true)]
async fn of_a_receipt_that_was_swept_nothing_is_shown() {
    let fixture = Fixture::new().await;
    let appends = (0..200).map(|number| {
        let write = NewWrite {
            key: Some(KeyHash::new("me", "POST", "", &number.to_string())),
            ..fixture.write("delivered")
        };
        fixture.journal.append(write)
    });
    let items: Vec<_> = join_all(appends).await.into_iter().map(appended).collect();
    for items in items.chunks(50) {
        let ends = items.iter().map(|item| {
            let item = done(item, fixture.now());
            fixture.journal.record(Change::End { item, answer: None })
        });
        assert!(join_all(ends).await.iter().all(Result::is_ok));
    }
    let pending = fixture.append("pending").await;
    fixture.clock.step_secs(86_400 + 1);
    tokio::time::sleep(Duration::from_secs(31)).await;
    assert_eq!(fixture.all().await, std::slice::from_ref(&pending), "swept");
    let (dir, config) = fixture.close().await;
    change(dir.path(), |content| destroy_header(content));
    let backing = Backing::directory(dir.path().to_owned());
    let fixture = Fixture::open(dir, config, backing).await.unwrap();
    let all = fixture.all().await;
    // What some page says of a write is shown; that it had a key is not enough.
    assert!(all.iter().all(|item| !item.url.is_empty()), "{all:?}");
    assert_eq!(fixture.body(pending.id).await, "pending");
}

/// An audit entry that was damaged brought back every write that had been removed.
#[tokio::test]
async fn what_is_damaged_besides_the_writes_makes_no_write_doubtful() {
    let fixture = Fixture::new().await;
    let mut items = Vec::new();
    for number in 0..20 {
        items.push(fixture.append(body(40 + number)).await);
    }
    let end = Change::End {
        item: done(&items[0], fixture.now()),
        answer: None,
    };
    let audit = AuditEntry {
        at: fixture.now(),
        actor: "operator".to_owned(),
        action: "drop".to_owned(),
        item: None,
        detail: String::new(),
    };
    let recorded = fixture.journal.record_audited(end, audit);
    recorded.await.unwrap();
    let removed = items[10..].iter().map(|item| Change::Remove(item.id));
    join_all(removed.map(|change| fixture.journal.record(change))).await;
    let all = fixture.all().await;
    let (dir, config) = fixture.close().await;
    {
        let database = Database::open(dir.path().join("queue.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let audit: TableDefinition<'_, &[u8; 8], &[u8]> = TableDefinition::new("audit");
        let ended: TableDefinition<'_, &[u8; 24], &[u8]> = TableDefinition::new("ended");
        let damaged = [1, 2, 3].as_slice();
        let mut audit = transaction.open_table(audit).unwrap();
        audit.insert(&1_u64.to_be_bytes(), damaged).unwrap();
        let mut ended = transaction.open_table(ended).unwrap();
        ended.insert(&[7; 24], damaged).unwrap();
        drop((audit, ended));
        transaction.commit().unwrap();
    }
    let backing = Backing::directory(dir.path().to_owned());
    let noted = Marker::open(dir.path()).unwrap().0.noted();
    let damage = Damage::new(Metrics::new());
    let now = Timestamp::from_secs(1_700_000_000);
    let (codec, start) = (noted.codec.unwrap(), salvage::Occasion::Start);
    salvage::salvage(&backing, codec, &noted, start, &damage, now).unwrap();
    assert_eq!(damage.count(), 2);
    let fixture = Fixture::open(dir, config, backing).await.unwrap();
    assert_eq!(fixture.all().await, all);
    assert_eq!(fixture.journal.damage(), 0, "put right");
}
