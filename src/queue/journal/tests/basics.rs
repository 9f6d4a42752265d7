//! What is appended and recorded is there, in order, also after a restart.

use super::*;
use crate::queue::{Answer, Parked};

#[tokio::test]
async fn a_write_that_was_appended_is_there_after_a_restart_as_it_was() {
    let fixture = Fixture::new().await;
    let item = fixture.append("body").await;
    assert_eq!(item.seq, 1);
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.item(item.id).await.unwrap(), item);
    let opened = fixture.journal.content(item.id).await.unwrap();
    assert_eq!(
        opened.fields,
        [("content-type".to_owned(), b"text/plain".to_vec())]
    );
    assert_eq!(body_of(opened), "body");
    assert_eq!(
        fixture.index.lock().unwrap().state(item.id),
        Some(State::Queued)
    );
    assert_eq!(fixture.journal.damage(), 0);
}

#[tokio::test]
async fn writes_keep_the_order_of_their_acceptance_over_restarts_and_clock_steps() {
    let mut fixture = Fixture::new().await;
    let mut ids = Vec::new();
    for round in 0..3 {
        fixture.clock.step_secs(-3_600 * round);
        for number in 0..50 {
            ids.push(fixture.append(format!("{number}")).await.id);
        }
        fixture = fixture.reopen().await;
    }
    assert!(ids.is_sorted());
    let all = fixture.all().await;
    assert!(all.iter().map(|item| item.id).eq(ids));
    assert!(all.iter().map(|item| item.seq).eq(1..=150));
}

/// New ids were behind that of an imported write until a restart: what was accepted after it was delivered before it.
#[tokio::test]
async fn what_is_accepted_after_an_import_from_a_gateway_that_is_ahead_comes_after_it() {
    let fixture = Fixture::new().await;
    let first = fixture.append("first").await;
    let ahead = (fixture.now().as_millis().cast_unsigned() + 60_000) << 16;
    let mut id = *first.id.as_bytes();
    id[..8].copy_from_slice(&(ahead | 0x7000).to_be_bytes());
    let id = ItemId::from_bytes(id);
    let write = fixture.write("imported");
    let import = Change::Import {
        item: Item { id, ..write.item },
        fields: write.fields,
        body: write.body,
    };
    // In one batch, then in one after it.
    let (imported, second) = tokio::join!(fixture.journal.record(import), fixture.append("second"));
    imported.unwrap();
    let third = fixture.append("third").await;
    assert!(
        second.id > id && third.id > second.id,
        "{second:?} {third:?}"
    );
    let ids: Vec<_> = fixture.all().await.iter().map(|item| item.id).collect();
    assert_eq!(ids, [first.id, id, second.id, third.id]);
}

#[tokio::test]
async fn of_a_delivered_write_the_receipt_and_the_answer_are_left() {
    let fixture = Fixture::new().await;
    let item = fixture.append("body").await;
    let parked = Item {
        state: State::Parked(Parked::Conflict),
        ..item.clone()
    };
    let update = Change::Update(parked.clone());
    fixture.journal.record(update).await.unwrap();
    assert_eq!(fixture.item(item.id).await.unwrap(), parked);
    let answer = Answer {
        status: 201,
        fields: vec![("etag".to_owned(), b"\"1\"".to_vec())],
        body: Bytes::from_static(b"made"),
        is_truncated: false,
    };
    let end = Change::End {
        item: done(&item, fixture.now()),
        answer: Some(answer.clone()),
    };
    fixture.journal.record(end).await.unwrap();
    let fixture = fixture.reopen().await;
    let ended = fixture.item(item.id).await.unwrap();
    assert_eq!(ended, done(&item, fixture.now()));
    assert_eq!(fixture.journal.answer(item.id).await.unwrap(), Some(answer));
    assert_eq!(fixture.journal.stored_content(item.id).await.unwrap(), None);
    assert_eq!(fixture.index.lock().unwrap().state(item.id), None);
}

#[tokio::test]
async fn writes_that_come_at_once_share_commits() {
    let fixture = Fixture::new().await;
    fixture.append("first").await;
    let before = fixture.revision();
    let waiting: Vec<_> = (0..64)
        .map(|number| {
            let (journal, write) = (fixture.journal.clone(), fixture.write(format!("{number}")));
            fixture
                .tasks
                .spawn(async move { appended(journal.append(write).await) })
        })
        .collect();
    let mut items = Vec::new();
    for write in waiting {
        items.push(write.await.unwrap());
    }
    let commits = fixture.revision() - before;
    assert!(commits <= 16, "{commits} commits for 64 writes");
    items.sort_by_key(|item| item.id);
    assert!(items.iter().map(|item| item.seq).eq(2..=65));
}

#[tokio::test]
async fn the_same_key_again_is_the_same_write_and_with_another_body_a_mismatch() {
    let fixture = Fixture::new().await;
    let key = KeyHash::new("me", "POST", "http://a.example/orders", "key");
    let with_key = |body: &'static str| NewWrite {
        key: Some(key),
        ..fixture.write(body)
    };
    let item = appended(fixture.journal.append(with_key("body")).await);
    let again = fixture.journal.append(with_key("body")).await;
    assert!(matches!(again, Ok(Appended::Known(known)) if known == item));
    let other = fixture.journal.append(with_key("other")).await;
    assert!(matches!(other, Err(AppendError::KeyMismatch(known)) if *known == item));
    let end = Change::End {
        item: done(&item, fixture.now()),
        answer: None,
    };
    fixture.journal.record(end).await.unwrap();
    let with_key = |body: &'static str| NewWrite {
        key: Some(key),
        ..new_write(body.into(), Timestamp::from_secs(1_700_000_000))
    };
    let fixture = fixture.reopen().await;
    let again = fixture.journal.append(with_key("body")).await;
    assert!(matches!(again, Ok(Appended::Known(known)) if known.state.is_ended()));
    assert_eq!(fixture.all().await.len(), 1);
    fixture
        .journal
        .record(Change::Remove(item.id))
        .await
        .unwrap();
    let new = appended(fixture.journal.append(with_key("other")).await);
    assert_eq!(new.seq, 2);
    assert_eq!(fixture.all().await, [new]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_in_one_batch_is_one_write() {
    let fixture = Fixture::new().await;
    let key = KeyHash::new("me", "POST", "http://a.example/orders", "key");
    let waiting: Vec<_> = (0..32)
        .map(|number| {
            let body = if number % 4 == 3 { "other" } else { "body" };
            let write = NewWrite {
                key: Some(key),
                ..fixture.write(body)
            };
            let journal = fixture.journal.clone();
            fixture
                .tasks
                .spawn(async move { journal.append(write).await })
        })
        .collect();
    let (mut new, mut known, mut mismatched) = (0, 0, 0);
    for append in waiting {
        match append.await.unwrap() {
            Ok(Appended::New(_)) => new += 1,
            Ok(Appended::Known(_)) => known += 1,
            Err(AppendError::KeyMismatch(_)) => mismatched += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!((new, known + mismatched), (1, 31));
    assert!([8, 24].contains(&mismatched), "{mismatched}");
    assert_eq!(fixture.all().await.len(), 1);
}

#[tokio::test]
async fn a_large_body_is_in_a_file_of_ours_until_the_end() {
    let fixture = Fixture::new().await;
    let body: Bytes = (0..200_000).map(|at| (at % 251) as u8).collect();
    let item = fixture.append_spooled(&body).await;
    let files = fixture.spool_files();
    assert_eq!(files.len(), 1);
    let mode = std::os::unix::fs::PermissionsExt::mode(
        &std::fs::metadata(&files[0]).unwrap().permissions(),
    );
    assert_eq!(mode & 0o777, 0o600);
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.body(item.id).await, body);
    let end = Change::End {
        item: done(&item, fixture.now()),
        answer: None,
    };
    fixture.journal.record(end).await.unwrap();
    assert_eq!(fixture.spool_files(), Vec::<PathBuf>::new());
    assert_eq!(fixture.journal.damage(), 0);
}

#[tokio::test]
async fn a_body_that_is_not_appended_leaves_no_file() {
    let fixture = Fixture::new().await;
    let key = Some(KeyHash::new("me", "POST", "http://a.example/orders", "key"));
    let body = Bytes::from(vec![7; 100_000]);
    for expected in [1, 1] {
        let write = NewWrite {
            key,
            ..fixture.spooled(&body).await
        };
        fixture.journal.append(write).await.unwrap();
        assert_eq!(fixture.spool_files().len(), expected);
    }
    let dropped = fixture.spooled(&body).await;
    assert_eq!(fixture.spool_files().len(), 2);
    drop(dropped);
    assert_eq!(fixture.spool_files().len(), 1);
    // Whatever it came in: a small one is in the database.
    let item = appended(
        fixture
            .journal
            .append(fixture.spooled(&"small".into()).await)
            .await,
    );
    assert_eq!(fixture.spool_files().len(), 1);
    assert_eq!(fixture.body(item.id).await, "small");
}

#[tokio::test]
async fn files_that_no_record_names_are_swept_at_start_and_no_others() {
    let fixture = Fixture::new().await;
    let body = Bytes::from(vec![7; 100_000]);
    let item = fixture.append_spooled(&body).await;
    std::fs::write(fixture.path("spool").join("orphan"), "left by a crash").unwrap();
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.spool_files().len(), 1);
    assert_eq!(fixture.body(item.id).await, body);
}

#[tokio::test]
async fn an_edited_write_has_its_new_content_and_its_old_key() {
    let fixture = Fixture::new().await;
    let key = KeyHash::new("me", "POST", "http://a.example/orders", "key");
    let old = Bytes::from(vec![7; 100_000]);
    let write = NewWrite {
        key: Some(key),
        ..fixture.spooled(&old).await
    };
    let item = appended(fixture.journal.append(write).await);
    let edited = fixture.write("new");
    let changed = Item {
        body_sha256: edited.item.body_sha256,
        body_bytes: 3,
        ..item.clone()
    };
    let replace = |fields, body| Change::Replace {
        item: changed.clone(),
        fields,
        body,
    };
    let fields = vec![("x-edited".to_owned(), b"1".to_vec())];
    let body = Some(NewBody::Inline("new".into()));
    fixture.journal.record(replace(fields, body)).await.unwrap();
    assert_eq!(fixture.body(item.id).await, "new");
    assert_eq!(fixture.spool_files(), Vec::<PathBuf>::new());
    let fields = vec![("x-edited".to_owned(), b"2".to_vec())];
    fixture
        .journal
        .record(replace(fields.clone(), None))
        .await
        .unwrap();
    let opened = fixture.journal.content(item.id).await.unwrap();
    assert_eq!(opened.fields, fields);
    assert_eq!(body_of(opened), "new");
    let write = NewWrite {
        key: Some(key),
        ..fixture.spooled(&old).await
    };
    let again = fixture.journal.append(write).await;
    assert!(matches!(again, Ok(Appended::Known(known)) if known == changed));
    // Before a repetition is appended it is asked for: that refused it as one with another body.
    let known = fixture.journal.known(key, item.body_sha256).await;
    assert!(matches!(known, Ok(Some(known)) if known == changed));
    let other = fixture.journal.known(key, changed.body_sha256).await;
    assert!(matches!(other, Err(AppendError::KeyMismatch(_))));
}

#[tokio::test]
async fn pauses_and_audit_entries_are_there_after_a_restart() {
    let fixture = Fixture::new().await;
    let pause = Pause {
        origin: Some(Origin::Upstream("a".to_owned())),
        since: fixture.now(),
        reason: Some("maintenance".to_owned()),
    };
    let entry = |action: &str| AuditEntry {
        at: fixture.now(),
        actor: "admin".to_owned(),
        action: action.to_owned(),
        item: None,
        detail: String::new(),
    };
    let entries = [entry("pause"), entry("look")];
    let change = Change::Pause(vec![pause.clone()]);
    fixture
        .journal
        .record_audited(change, entries[0].clone())
        .await
        .unwrap();
    fixture
        .journal
        .record_audited(Change::Note, entries[1].clone())
        .await
        .unwrap();
    assert_eq!(fixture.journal.pauses(), std::slice::from_ref(&pause));
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.journal.pauses(), [pause]);
    let audit = fixture.journal.audit(None, 10).await.unwrap();
    let [last, first] = &audit[..] else {
        panic!("{audit:?}");
    };
    assert_eq!(
        (last, first),
        (&(2, entries[1].clone()), &(1, entries[0].clone()))
    );
    assert_eq!(
        fixture.journal.audit(Some(2), 10).await.unwrap(),
        std::slice::from_ref(first)
    );
}

#[tokio::test]
async fn a_second_process_is_told_which_file_is_in_use() {
    let fixture = Fixture::new().await;
    let backing = Backing::directory(fixture.dir.path().to_owned());
    let second = Fixture::open(fixture.dir.clone(), fixture.config.clone(), backing).await;
    let Err(error @ OpenError::InUse { .. }) = second else {
        panic!("opened twice");
    };
    assert!(
        error.to_string().contains("queue.redb is in use"),
        "{error}"
    );
    fixture.append("still served").await;
}

#[tokio::test]
async fn what_was_on_its_way_is_sent_again_only_where_that_does_no_harm() {
    let ttl_secs = 3_600;
    for (repeat, secs, expected) in [
        (Repeat::Harmless, 10 * ttl_secs, State::Waiting),
        (Repeat::Keyed, ttl_secs - 1, State::Waiting),
        (
            Repeat::Keyed,
            ttl_secs + 1,
            State::Parked(Parked::Ambiguous),
        ),
        (Repeat::Conditional, 10, State::Waiting),
        (Repeat::Doubtful, 10, State::Parked(Parked::Ambiguous)),
    ] {
        let fixture = Fixture::new().await;
        let item = fixture.append("body").await;
        let sending = Item {
            repeat,
            state: State::Sending,
            ..item.clone()
        };
        let sent_at = fixture.now();
        fixture
            .journal
            .record(Change::Update(sending))
            .await
            .unwrap();
        let (dir, config) = fixture.close().await;
        let backing = Backing::directory(dir.path().to_owned());
        let later = Timestamp::from_millis(sent_at.as_millis() + secs * 1_000);
        let fixture = Fixture::open_at(dir, config, backing, later).await.unwrap();
        let found = fixture.item(item.id).await.unwrap();
        assert_eq!(found.state, expected, "{repeat:?} after {secs} s");
        assert_eq!(found.ambiguous_since, Some(sent_at));
        let state = fixture.index.lock().unwrap().state(item.id);
        assert_eq!(state, Some(expected));
        let fixture = fixture.reopen().await;
        assert_eq!(fixture.item(item.id).await.unwrap(), found);
    }
}
