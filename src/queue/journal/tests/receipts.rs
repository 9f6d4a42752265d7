//! Receipts are kept for a time, and in bounds.

use super::*;
use crate::queue::{Answer, Parked};

async fn end(fixture: &Fixture, item: &Item, answer_bytes: usize) {
    let answer = Answer {
        status: 200,
        fields: Vec::new(),
        body: vec![1; answer_bytes].into(),
        is_truncated: false,
    };
    let end = Change::End {
        item: done(item, fixture.now()),
        answer: Some(answer),
    };
    fixture.journal.record(end).await.unwrap();
}

async fn left(fixture: &Fixture) -> Vec<u64> {
    fixture.all().await.iter().map(|item| item.seq).collect()
}

#[tokio::test(start_paused = true)]
async fn a_receipt_is_swept_after_its_time_at_start_and_while_running() {
    let fixture = Fixture::new().await;
    for _ in 0..3 {
        fixture.append("body").await;
    }
    let all = fixture.all().await;
    end(&fixture, &all[0], 10).await;
    fixture.clock.step_secs(3_600);
    end(&fixture, &all[1], 10).await;
    fixture.clock.step_secs(86_400 - 1_800);
    tokio::time::sleep(Duration::from_secs(31)).await;
    fixture.append("another").await;
    assert_eq!(left(&fixture).await, [2, 3, 4]);
    assert_eq!(fixture.journal.answer(all[0].id).await.unwrap(), None);
    assert!(fixture.journal.answer(all[1].id).await.unwrap().is_some());
    let at = fixture.now().plus(Duration::from_secs(3_600));
    let (dir, config) = fixture.close().await;
    let backing = Backing::directory(dir.path().to_owned());
    let fixture = Fixture::open_at(dir, config, backing, at).await.unwrap();
    fixture.append("another").await;
    assert_eq!(left(&fixture).await, [3, 4, 5]);
    assert_eq!(fixture.journal.damage(), 0);
}

/// With the receipt the idempotency key was forgotten: what was sent again was a new write.
#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_forward_makes_no_receipt_older() {
    let fixture = Fixture::new().await;
    let item = fixture.append("body").await;
    end(&fixture, &item, 10).await;
    fixture.clock.set_forward_secs(86_400 * 365);
    tokio::time::sleep(Duration::from_secs(31)).await;
    fixture.append("another").await;
    assert_eq!(left(&fixture).await, [1, 2]);
    let at = fixture.now();
    let (dir, config) = fixture.close().await;
    let backing = Backing::directory(dir.path().to_owned());
    let fixture = Fixture::open_at(dir, config, backing, at).await.unwrap();
    fixture.append("another").await;
    assert_eq!(left(&fixture).await, [1, 2, 3]);
    fixture.clock.step_secs(86_400);
    tokio::time::sleep(Duration::from_secs(31)).await;
    fixture.append("another").await;
    assert_eq!(left(&fixture).await, [2, 3, 4]);
}

#[tokio::test]
async fn there_are_no_more_receipts_than_writes_may_wait() {
    let fixture = Fixture::with(|config| config.max_items = 2).await;
    for _ in 0..4 {
        let item = fixture.append("body").await;
        end(&fixture, &item, 10).await;
    }
    assert_eq!(left(&fixture).await, [3, 4]);
    let fixture = fixture.reopen().await;
    let item = fixture.append("body").await;
    end(&fixture, &item, 10).await;
    assert_eq!(left(&fixture).await, [4, 5]);
    assert_eq!(fixture.journal.damage(), 0);
}

#[tokio::test]
async fn answers_take_a_quarter_of_the_room_at_most() {
    let fixture = Fixture::with(|config| config.max_bytes = 100_000).await;
    for _ in 0..3 {
        let item = fixture.append("body").await;
        end(&fixture, &item, 10_000).await;
    }
    assert_eq!(left(&fixture).await, [2, 3]);
    // The same end once more counts once.
    let last = fixture.all().await[1].clone();
    end(&fixture, &last, 10_000).await;
    assert_eq!(left(&fixture).await, [2, 3]);
}

/// Answers to writes that wait for an operator took up to 64 KiB each, and counted toward nothing.
#[tokio::test]
async fn of_the_answer_to_a_stuck_write_the_beginning_is_kept() {
    let fixture = Fixture::new().await;
    let item = fixture.append("body").await;
    let parked = Item {
        state: State::Parked(Parked::Conflict),
        ..item.clone()
    };
    for (bytes, kept, is_truncated) in [(4_096, 4_096, false), (4_097, 4_096, true)] {
        let body = Bytes::from((0..bytes).map(|at| at as u8).collect::<Vec<_>>());
        let answered = Change::Answered {
            item: parked.clone(),
            answer: Answer {
                status: 409,
                fields: Vec::new(),
                body: body.clone(),
                is_truncated: false,
            },
        };
        fixture.journal.record(answered).await.unwrap();
        let answer = fixture.journal.answer(item.id).await.unwrap().unwrap();
        assert_eq!(answer.body, body[..kept]);
        assert_eq!(answer.is_truncated, is_truncated);
    }
    end(&fixture, &parked, 10_000).await;
    let answer = fixture.journal.answer(item.id).await.unwrap().unwrap();
    assert_eq!(answer.body.len(), 10_000, "a receipt's is whole");
}

/// A session that the origin opened in its answer was on disk in the clear for as long as the receipt.
#[tokio::test]
async fn no_secret_of_an_answer_is_kept() {
    let fixture = Fixture::with(|config| {
        config.sensitive_headers = vec![http::HeaderName::from_static("x-token")];
    })
    .await;
    let field = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
    let answer = || Answer {
        status: 409,
        fields: vec![
            field("set-cookie", "session=geheim-1"),
            field("content-type", "text/plain"),
            field("Set-Cookie", "session=geheim-2"),
            field("x-token", "geheim-3"),
        ],
        body: Bytes::new(),
        is_truncated: false,
    };
    let item = fixture.append("body").await;
    let parked = Item {
        state: State::Parked(Parked::Conflict),
        ..item.clone()
    };
    let ended = done(&item, fixture.now());
    for change in [
        Change::Answered {
            item: parked,
            answer: answer(),
        },
        Change::End {
            item: ended,
            answer: Some(answer()),
        },
    ] {
        fixture.journal.record(change).await.unwrap();
        let kept = fixture.journal.answer(item.id).await.unwrap().unwrap();
        assert_eq!(kept.fields, [field("content-type", "text/plain")]);
    }
    let file = std::fs::read(fixture.path("queue.redb")).unwrap();
    assert!(!file.windows(6).any(|bytes| bytes == b"geheim"));
}
