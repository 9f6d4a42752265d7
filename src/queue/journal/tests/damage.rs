//! Files that are damaged, cut short, or gone: what can be read is served, and what cannot is said.

use std::fs;

use redb::{Database, ReadableDatabase, ReadableTableMetadata, TableDefinition};

use super::{
    failures::{faulty, open},
    faults::Keeps,
    salvage::{PAGE_BYTES, change},
    *,
};
use crate::queue::{Dead, Parked};

/// A closed queue of some writes, each of which is in every state a client may find it in.
pub(super) async fn queue() -> (Arc<TempDir>, Config, Vec<Item>) {
    let fixture = Fixture::new().await;
    let mut items = Vec::new();
    for number in 0..40 {
        let key = KeyHash::new("me", "POST", "", &number.to_string());
        let write = NewWrite {
            key: Some(key),
            ..fixture.write(body(number))
        };
        items.push(appended(fixture.journal.append(write).await));
    }
    for item in &items[30..] {
        let end = Change::End {
            item: done(item, fixture.now()),
            answer: None,
        };
        fixture.journal.record(end).await.unwrap();
    }
    items = fixture.all().await;
    let (dir, config) = fixture.close().await;
    (dir, config, items)
}

pub(super) fn body(number: usize) -> Vec<u8> {
    vec![number as u8; number * 50]
}

/// A copy of a closed queue, opened.
pub(super) async fn copy(dir: &TempDir, change: impl FnOnce(&Path)) -> Fixture {
    let copy = Arc::new(tempfile::tempdir().unwrap());
    fs::create_dir(copy.path().join("spool")).unwrap();
    for name in ["queue.redb", "queue.marker", "queue.pauses"] {
        fs::copy(dir.path().join(name), copy.path().join(name)).unwrap();
    }
    change(copy.path());
    let backing = Backing::directory(copy.path().to_owned());
    let config = config(copy.path());
    Fixture::open(copy, config, backing).await.unwrap()
}

/// How many of the writes are not what they were; the others are whole.
async fn damaged(fixture: &Fixture, items: &[Item], case: &str) -> usize {
    let mut damaged = 0;
    for (number, item) in items.iter().enumerate() {
        let Some(found) = fixture.item(item.id).await else {
            damaged += 1;
            continue;
        };
        if found != *item {
            assert!(
                found.state.is_stuck(),
                "{case}: {number} is {:?}",
                found.state
            );
            damaged += 1;
        }
        if item.state.is_ended() {
            continue;
        }
        match fixture.content(item.id).await {
            Ok(opened) => assert_eq!(body_of(opened), body(number), "{case}: {number}"),
            Err(ContentError::Damaged) => damaged += 1,
            Err(error) => panic!("{case}: {error}"),
        }
    }
    damaged
}

#[tokio::test]
async fn no_flipped_byte_costs_more_than_it_touches_or_goes_unsaid() {
    let (dir, _, items) = queue().await;
    let len = fs::metadata(dir.path().join("queue.redb")).unwrap().len();
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..60 {
        // Most of the file is free: half of the flips go where the rows are.
        let at = usize::try_from(random.u64(..len)).unwrap();
        let (flip, mut changed) = (random.u8(1..), 0);
        let fixture = copy(&dir, |copy| {
            let path = copy.join("queue.redb");
            let mut content = fs::read(&path).unwrap();
            let used: Vec<_> = (0..content.len()).filter(|at| content[*at] != 0).collect();
            changed = if round % 2 == 0 {
                at
            } else {
                used[at % used.len()]
            };
            content[changed] ^= flip;
            fs::write(path, content).unwrap();
        })
        .await;
        let case = format!("byte {changed} ^ {flip}");
        let damaged = damaged(&fixture, &items, &case).await;
        if damaged > 0 {
            assert!(fixture.journal.damage() > 0, "{case}: {damaged} damaged");
            assert_eq!(fixture.errors("corrupt"), fixture.journal.damage());
        }
        let item = fixture.append("goes on").await;
        assert!(item.id > items[39].id, "{case}");
        let fixture = fixture.reopen().await;
        assert_eq!(fixture.item(item.id).await, Some(item), "{case}");
    }
}

/// Changes one record so that it is not what was written.
fn damage_record(dir: &Path, table: &'static str, id: ItemId) {
    let database = Database::open(dir.join("queue.redb")).unwrap();
    let table: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new(table);
    let row = {
        let transaction = database.begin_read().unwrap();
        let table = transaction.open_table(table).unwrap();
        table.get(id.as_bytes()).unwrap().unwrap().value().to_vec()
    };
    let transaction = database.begin_write().unwrap();
    {
        let mut row = row;
        let middle = row.len() / 2;
        row[middle] ^= 1;
        let mut table = transaction.open_table(table).unwrap();
        table.insert(id.as_bytes(), row.as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_write_whose_record_is_damaged_is_made_again_from_its_content_and_parked() {
    let (dir, _, items) = queue().await;
    let id = items[3].id;
    let fixture = copy(&dir, |dir| damage_record(dir, "items", id)).await;
    assert_eq!(fixture.journal.damage(), 1);
    let found = fixture.item(id).await.unwrap();
    assert_eq!(found.state, State::Parked(Parked::Ambiguous));
    assert!(found.remark.is_some());
    assert_eq!(found.url, items[3].url);
    assert_eq!(fixture.body(id).await, body(3));
    assert_eq!(damaged(&fixture, &items, "").await, 1);
    // It is recorded as it is now.
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.journal.damage(), 0);
    assert_eq!(fixture.item(id).await, Some(found));
}

#[tokio::test]
async fn a_write_whose_content_is_damaged_cannot_be_sent() {
    let (dir, _, items) = queue().await;
    let id = items[3].id;
    let fixture = copy(&dir, |dir| damage_record(dir, "contents", id)).await;
    assert_eq!(fixture.item(id).await.as_ref(), Some(&items[3]));
    for _ in 0..2 {
        let content = fixture.journal.content(id).await;
        assert!(matches!(content, Err(ContentError::Damaged)));
    }
    assert_eq!(fixture.journal.damage(), 1, "counted once");
    let fixture = copy(&dir, |dir| {
        damage_record(dir, "contents", id);
        damage_record(dir, "items", id);
    })
    .await;
    let found = fixture.item(id).await.unwrap();
    assert_eq!(found.state, State::Dead(Dead::Corrupt));
    assert_eq!(fixture.journal.damage(), 2);
    assert_eq!(fixture.all().await.len(), items.len());
}

#[tokio::test]
async fn a_damaged_spool_file_cannot_be_sent() {
    let fixture = Fixture::new().await;
    let item = fixture.append_spooled(&vec![7; 100_000].into()).await;
    let file = &fixture.spool_files()[0];
    let mut content = fs::read(file).unwrap();
    content[50_000] ^= 1;
    fs::write(file, &content).unwrap();
    let found = fixture.journal.content(item.id).await;
    assert!(matches!(found, Err(ContentError::Damaged)));
    fs::remove_file(file).unwrap();
    let found = fixture.journal.content(item.id).await;
    assert!(matches!(found, Err(ContentError::Damaged)));
    assert_eq!(fixture.journal.damage(), 1);
}

#[tokio::test]
async fn of_a_truncated_file_what_is_left_is_served_and_the_rest_is_counted() {
    let (dir, _, items) = queue().await;
    let len = fs::metadata(dir.path().join("queue.redb")).unwrap().len();
    for eighths in 0..8 {
        let fixture = copy(&dir, |copy| {
            let file = fs::File::options()
                .write(true)
                .open(copy.join("queue.redb"));
            file.unwrap().set_len(len * eighths / 8).unwrap();
        })
        .await;
        let case = format!("{eighths}/8");
        let damaged = damaged(&fixture, &items, &case).await;
        assert!(damaged == 0 || fixture.journal.damage() > 0, "{case}");
        if eighths == 0 {
            assert_eq!(
                fixture.journal.damage(),
                items.len() as u64,
                "an empty file"
            );
        } else {
            assert!(fixture.path("queue.redb.bad-1").exists(), "{case}");
        }
        let item = fixture.append("goes on").await;
        assert!(item.id > items[39].id && item.seq > 40, "{case}: {item:?}");
        fixture.reopen().await;
    }
}

#[tokio::test]
async fn a_file_that_is_gone_is_not_taken_for_a_new_queue() {
    let (dir, _, items) = queue().await;
    let fixture = copy(&dir, |dir| fs::remove_file(dir.join("queue.redb")).unwrap()).await;
    assert_eq!(fixture.journal.damage(), items.len() as u64);
    assert_eq!(fixture.append("goes on").await.seq, 41);
    // Without the marker the body of a write says that there was one.
    let fixture = copy(&dir, |dir| {
        fs::remove_file(dir.join("queue.redb")).unwrap();
        fs::remove_file(dir.join("queue.marker")).unwrap();
        fs::remove_file(dir.join("queue.pauses")).unwrap();
        fs::write(dir.join("spool").join("body"), "of a write").unwrap();
    })
    .await;
    let unsaid = "how many writes there were, and what was paused";
    assert_eq!(fixture.journal.damage(), 2, "{unsaid}");
    assert_eq!(fixture.spool_files(), Vec::<PathBuf>::new());
    assert!(fixture.path("spool.bad").join("body").exists(), "kept");
    let new = Fixture::new().await;
    assert_eq!(new.journal.damage(), 0);
}

#[tokio::test]
async fn a_file_that_went_back_is_noticed() {
    let (dir, config, items) = queue().await;
    let old = fs::read(dir.path().join("queue.redb")).unwrap();
    let backing = Backing::directory(dir.path().to_owned());
    let fixture = Fixture::open(dir, config, backing).await.unwrap();
    fixture.append("lost").await;
    let (dir, _) = fixture.close().await;
    let fixture = copy(&dir, |dir| fs::write(dir.join("queue.redb"), old).unwrap()).await;
    // What is pending in it may have been delivered since.
    assert_eq!(damaged(&fixture, &items, "").await, 30);
    for item in &items[..30] {
        let found = fixture.item(item.id).await.unwrap();
        assert_eq!(found.state, State::Parked(Parked::Ambiguous));
    }
    assert_eq!(fixture.journal.damage(), 1 + 30);
    assert_eq!(fixture.append("goes on").await.seq, 42);
}

#[tokio::test]
async fn a_file_of_a_newer_version_is_left_alone() {
    let (dir, config, _) = queue().await;
    let path = dir.path().join("queue.redb");
    {
        let database = Database::open(&path).unwrap();
        let transaction = database.begin_write().unwrap();
        {
            let meta: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
            let mut meta = transaction.open_table(meta).unwrap();
            let record =
                crate::queue::journal::codec::Codec::UNSEEDED.encode("meta", b"format", &7_u32);
            meta.insert("format", record.as_slice()).unwrap();
        }
        transaction.commit().unwrap();
    }
    let before = fs::read(&path).unwrap();
    let backing = Backing::directory(dir.path().to_owned());
    let opened = Fixture::open(dir.clone(), config, backing).await;
    assert!(matches!(
        opened.map(drop),
        Err(OpenError::Format { found: 7, .. })
    ));
    assert_eq!(fs::metadata(&path).unwrap().len(), before.len() as u64);
    assert!(!dir.path().join("queue.redb.bad-1").exists());
}

/// The keys of receipts that were listed again stayed for ever.
#[tokio::test(start_paused = true)]
async fn a_receipt_whose_listing_was_lost_takes_its_key_along_when_it_goes() {
    const KEYS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("keys");
    const ENDED: TableDefinition<'_, &[u8; 24], &[u8]> = TableDefinition::new("ended");
    let (dir, _, items) = queue().await;
    let fixture = copy(&dir, |copy| {
        let database = Database::open(copy.join("queue.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut ended = transaction.open_table(ENDED).unwrap();
        ended.retain(|_, _| false).unwrap();
        drop(ended);
        transaction.commit().unwrap();
    })
    .await;
    assert_eq!(damaged(&fixture, &items, "unlisted").await, 0);
    fixture.clock.step_secs(86_400 + 1);
    tokio::time::sleep(Duration::from_secs(31)).await;
    fixture.append("another").await;
    assert_eq!(fixture.all().await.len(), 31, "without the receipts");
    let (dir, _) = fixture.close().await;
    let database = Database::open(dir.path().join("queue.redb")).unwrap();
    let keys = database.begin_read().unwrap().open_table(KEYS).unwrap();
    assert_eq!(keys.len().unwrap(), 30);
}

/// The key of a receipt whose row of `ended` was damaged was no receipt's any more: it stayed for ever, and the bytes of the
/// answer counted for nothing.
#[tokio::test(start_paused = true)]
async fn a_receipt_whose_listing_is_damaged_keeps_its_key_and_its_answer_and_takes_them_along() {
    const KEYS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("keys");
    const ENDED: TableDefinition<'_, &[u8; 24], &[u8]> = TableDefinition::new("ended");
    let fixture = Fixture::new().await;
    let key = KeyHash::new("me", "POST", "", "key");
    let keyed = || NewWrite {
        key: Some(key),
        ..new_write("body".into(), Timestamp::from_secs(1_700_000_000))
    };
    let item = appended(fixture.journal.append(keyed()).await);
    let end = Change::End {
        item: done(&item, fixture.now()),
        answer: Some(crate::queue::Answer {
            status: 201,
            fields: Vec::new(),
            body: vec![7; 1_000].into(),
            is_truncated: false,
        }),
    };
    fixture.journal.record(end).await.unwrap();
    let (dir, _) = fixture.close().await;
    let counters = |dir: &Path| match Marker::open(dir).unwrap().1 {
        Marked::Until(counters) => counters,
        other => panic!("{other:?}"),
    };
    assert_eq!(counters(dir.path()).answer_bytes, 1_000);
    let fixture = copy(&dir, |copy| {
        let database = Database::open(copy.join("queue.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let mut ended = transaction.open_table(ENDED).unwrap();
        let (key, _) = ended
            .pop_first()
            .unwrap()
            .map(|(key, row)| (*key.value(), drop(row)))
            .unwrap();
        ended.insert(&key, [1, 0, 0].as_slice()).unwrap();
        drop(ended);
        transaction.commit().unwrap();
    })
    .await;
    assert_eq!(fixture.journal.damage(), 1);
    assert_eq!(counters(fixture.dir.path()).answer_bytes, 1_000);
    match fixture.journal.append(keyed()).await.unwrap() {
        Appended::Known(known) => assert_eq!(known.id, item.id),
        Appended::New(item) => panic!("sent once more: {item:?}"),
    }
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.journal.damage(), 0, "put right");
    assert!(fixture.journal.answer(item.id).await.unwrap().is_some());
    fixture.clock.step_secs(86_400 + 1);
    tokio::time::sleep(Duration::from_secs(31)).await;
    fixture.append("another").await;
    assert_eq!(fixture.all().await.len(), 1, "without the receipt");
    assert_eq!(counters(fixture.dir.path()).answer_bytes, 0);
    let (dir, _) = fixture.close().await;
    let database = Database::open(dir.path().join("queue.redb")).unwrap();
    let keys = database.begin_read().unwrap().open_table(KEYS).unwrap();
    assert_eq!(keys.len().unwrap(), 0);
}

/// Each read of a write that was just delivered counted as damage, for which somebody was called.
#[tokio::test]
async fn what_is_delivered_while_it_is_read_is_not_damaged() {
    let fixture = Fixture::new().await;
    let inline = fixture.append("inline").await;
    let spooled = fixture.append_spooled(&vec![7; 100_000].into()).await;
    let stored = fixture.journal.stored_content(spooled.id).await.unwrap();
    for item in [&inline, &spooled] {
        let end = Change::End {
            item: done(item, fixture.now()),
            answer: None,
        };
        fixture.journal.record(end).await.unwrap();
        let content = fixture.journal.content(item.id).await;
        assert!(matches!(content, Err(ContentError::Damaged)));
    }
    // As it was when the caller looked.
    let body = stored.unwrap().body;
    let body = fixture.journal.body(spooled.id, body).await;
    assert!(matches!(body, Err(ContentError::Damaged)));
    let remove = Change::Remove(inline.id);
    fixture.journal.record(remove).await.unwrap();
    let content = fixture.journal.content(inline.id).await;
    assert!(matches!(content, Err(ContentError::Damaged)));
    assert_eq!(fixture.journal.damage(), 0);
}

fn lose_rows(dir: &Path, tables: &[&str]) {
    let database = Database::open(dir.join("queue.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    for table in tables {
        let table: TableDefinition<'_, &[u8; 16], &[u8]> = TableDefinition::new(table);
        let mut table = transaction.open_table(table).unwrap();
        table.retain(|_, _| false).unwrap();
    }
    transaction.commit().unwrap();
}

/// A write of which nothing was left but its key was not shown, and whoever repeated it was told that it was new: it was sent twice.
#[tokio::test]
async fn a_write_of_which_only_the_key_is_left_is_shown_and_keeps_it() {
    let fixture = Fixture::new().await;
    let keyed = |name: &str| NewWrite {
        key: Some(KeyHash::new("me", "POST", "", name)),
        ..new_write("keyed".into(), Timestamp::from_secs(1_700_000_000))
    };
    let item = appended(fixture.journal.append(keyed("1")).await);
    let delivered = appended(fixture.journal.append(keyed("2")).await);
    let end = Change::End {
        item: done(&delivered, fixture.now()),
        answer: None,
    };
    fixture.journal.record(end).await.unwrap();
    let (dir, _) = fixture.close().await;
    let fixture = copy(&dir, |copy| {
        lose_rows(copy, &["items", "contents"]);
        change(copy, |content| {
            // Nor on any page that was given up.
            let has = |page: &[u8], what: &[u8]| page.windows(what.len()).any(|at| at == what);
            for page in content.chunks_mut(PAGE_BYTES) {
                if has(page, b"http://a.example/orders") {
                    page.fill(0);
                }
            }
        });
    })
    .await;
    let all = fixture.all().await;
    assert_eq!(all.len(), 1, "and nothing of what was delivered: {all:?}");
    let shown = (all[0].id, all[0].state);
    assert_eq!(shown, (item.id, State::Dead(Dead::Corrupt)));
    match fixture.journal.append(keyed("1")).await.unwrap() {
        Appended::Known(known) => assert_eq!(known, all[0]),
        Appended::New(item) => panic!("sent once more: {item:?}"),
    }
    assert_eq!(fixture.journal.damage(), 2);
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.all().await, all);
    assert_eq!(fixture.journal.damage(), 0, "put right");
}

/// Most of these are met as it is opened, one when everything was loaded, and in release builds some only by the first write,
/// which the drill of corruption sees to.
#[tokio::test]
async fn of_damage_in_the_own_tables_of_redb_nothing_is_lost_or_counted_twice() {
    // Of the keys of such a table. Behind it stands of what kind the type of its values is, which redb takes for granted.
    const TYPE: &[u8] = b"redb::TransactionIdWithPagination";
    let (fixture, storage, dir) = faulty().await;
    let mut items = Vec::new();
    for number in 0..5 {
        items.push(fixture.append(number.to_string()).await);
    }
    // Found on its way, it is recorded at the start that nobody knows what came of it.
    items[0].state = State::Sending;
    let sending = Change::Update(items[0].clone());
    fixture.journal.record(sending).await.unwrap();
    drop(fixture);
    let content = storage.snapshot();
    let mut salvaged = 0;
    let named = content.windows(TYPE.len()).enumerate();
    for (at, _) in named.filter(|(_, bytes)| *bytes == TYPE) {
        storage.crash(Keeps::Everything);
        storage.change(|damaged| {
            damaged.clone_from(&content);
            damaged[at + TYPE.len()] = u8::MAX;
        });
        let fixture = open(&dir, &storage).await;
        salvaged += usize::from(fixture.journal.damage() > 0);
        for (number, item) in items.iter().enumerate() {
            let found = fixture.item(item.id).await.unwrap();
            assert_ne!(found.state, State::Sending);
            let body = fixture.journal.content(item.id).await.unwrap();
            assert_eq!(body_of(body), number.to_string().as_bytes());
        }
        let usage = fixture.index.lock().unwrap().usage();
        assert_eq!(usage.items, items.len(), "byte {at}");
        fixture.append("goes on").await;
    }
    assert!(salvaged > 0, "no such place was damaged");
}
