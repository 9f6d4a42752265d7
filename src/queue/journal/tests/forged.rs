//! Bodies that look like records, and the seed by which those are told from ours.

use std::{borrow::Cow, fs};

use redb::{Database, TableDefinition};
use serde::Serialize;

use super::{
    damage::{copy, queue},
    salvage::{PAGE_BYTES, change, destroy_header},
    *,
};
use crate::queue::journal::{
    codec::Codec,
    tables::{Counters, ItemRow},
};

/// What a client can know of a record: everything but the seed.
fn record(table: &str, key: &[u8], value: &impl Serialize) -> (Vec<u8>, Vec<u8>) {
    let record = Codec::UNSEEDED.encode(table, key, value);
    (key.to_vec(), record)
}

/// A page of the database, as redb writes it.
fn leaf(rows: &[(Vec<u8>, Vec<u8>)], has_fixed_keys: bool) -> Vec<u8> {
    let offset = |bytes: usize| u32::try_from(bytes).unwrap().to_le_bytes();
    let mut leaf = vec![1, 0, u8::try_from(rows.len()).unwrap(), 0];
    let offsets = if has_fixed_keys { 4 } else { 8 };
    let mut end = leaf.len() + offsets * rows.len();
    for (key, _) in rows {
        end += key.len();
        if !has_fixed_keys {
            leaf.extend_from_slice(&offset(end));
        }
    }
    for (_, value) in rows {
        end += value.len();
        leaf.extend_from_slice(&offset(end));
    }
    leaf.extend(rows.iter().flat_map(|(key, _)| key));
    leaf.extend(rows.iter().flat_map(|(_, value)| value));
    leaf.resize(PAGE_BYTES, 0);
    leaf
}

/// A body with a write to wherever its sender likes, and with settings of the database of another format; each looks like a page.
fn forged(id: ItemId, padding: usize) -> Vec<u8> {
    let fake = new_write(Bytes::new(), Timestamp::from_secs(1_700_000_000)).item;
    let row = ItemRow {
        revision: u64::MAX,
        recorded_at: fake.accepted_at,
        item: Cow::Owned(Item { id, ..fake }),
    };
    let counters = Counters {
        revision: u64::MAX / 2,
        seq: 1 << 40,
        ..Counters::default()
    };
    let everything = Pause {
        origin: None,
        since: Timestamp::from_secs(1_700_000_000),
        reason: None,
    };
    let items = [record("items", id.as_bytes(), &row)];
    let meta = [
        record("meta", b"counters", &counters),
        record("meta", b"format", &9_u32),
        record("meta", b"pauses", &[everything]),
    ];
    let mut body = vec![0; padding];
    body.extend(leaf(&items, true));
    body.extend(leaf(&meta, false));
    // Always as long, or what is before it would not be.
    body.resize(5 * PAGE_BYTES, 0);
    body
}

fn find(content: &[u8], bytes: &[u8]) -> usize {
    let found = content
        .windows(bytes.len())
        .position(|found| found == bytes);
    found.unwrap()
}

/// Whoever sent the body had a write appear that he never sent, the queue paused, its numbers spent, or its start refused.
#[tokio::test]
async fn a_body_that_looks_like_pages_is_a_body_whatever_is_left_around_it() {
    let id = ItemId::from_bytes([9; 16]);
    let looks = forged(id, 0)[..40].to_vec();
    let mut padding = 0;
    for has_beginning in [None, Some(true), Some(false)] {
        let fixture = Fixture::new().await;
        let item = fixture.append(forged(id, padding)).await;
        let (dir, config) = fixture.close().await;
        let content = fs::read(dir.path().join("queue.redb")).unwrap();
        let at = find(&content, &looks);
        let beginning = find(&content, item.id.as_bytes()) / PAGE_BYTES * PAGE_BYTES;
        let Some(has_beginning) = has_beginning else {
            padding = PAGE_BYTES - at % PAGE_BYTES;
            continue;
        };
        assert_eq!(at % PAGE_BYTES, 0);
        assert!(beginning < at, "of the leaf that the body is in");
        change(dir.path(), |content| {
            destroy_header(content);
            if !has_beginning {
                content[beginning..at].fill(0);
            }
        });
        let backing = Backing::directory(dir.path().to_owned());
        let fixture = Fixture::open(dir, config, backing).await.unwrap();
        let case = format!("with its beginning: {has_beginning}");
        let all = fixture.all().await;
        assert!(all.iter().all(|found| found.id == item.id), "{case}");
        assert_eq!(fixture.journal.pauses(), [], "{case}");
        assert_eq!(fixture.append("goes on").await.seq, 2, "{case}");
    }
}

/// Changes the record of the seed, which redb's tree leads to.
fn damage_seed(dir: &Path) {
    let database = Database::open(dir.join("queue.redb")).unwrap();
    let transaction = database.begin_write().unwrap();
    {
        let meta: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
        let mut meta = transaction.open_table(meta).unwrap();
        meta.insert("seed", [1, 2, 3].as_slice()).unwrap();
    }
    transaction.commit().unwrap();
}

#[tokio::test]
async fn a_seed_that_is_lost_in_one_place_is_had_from_the_other() {
    let (dir, _, items) = queue().await;
    let fixture = copy(&dir, damage_seed).await;
    assert_eq!(fixture.all().await, items);
    assert!(fixture.journal.damage() > 0, "it is said");
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.journal.damage(), 0, "put right");
    let marker = |dir: &Path| dir.join("queue.marker");
    let fixture = copy(&dir, |dir| fs::remove_file(marker(dir)).unwrap()).await;
    assert_eq!(fixture.all().await, items);
    assert_eq!(fixture.journal.damage(), 0);
    let (dir, config) = fixture.close().await;
    change(dir.path(), |content| destroy_header(content));
    let backing = Backing::directory(dir.path().to_owned());
    let fixture = Fixture::open(dir, config, backing).await.unwrap();
    assert_eq!(fixture.all().await.len(), items.len(), "noted again");
}

#[tokio::test]
async fn without_a_seed_nothing_is_trusted_and_that_is_said() {
    let (dir, _, items) = queue().await;
    for has_header in [false, true] {
        let fixture = copy(&dir, |dir| {
            fs::remove_file(dir.join("queue.marker")).unwrap();
            fs::remove_file(dir.join("queue.pauses")).unwrap();
            match has_header {
                true => damage_seed(dir),
                false => change(dir, |content| destroy_header(content)),
            }
        })
        .await;
        let case = format!("with header: {has_header}");
        for item in fixture.all().await {
            assert!(!item.state.is_pending(), "{case}: {item:?}");
            assert!(items.iter().all(|known| *known != item), "{case}");
        }
        assert!(fixture.journal.damage() > 0, "{case}");
        assert!(fixture.path("queue.redb.bad-1").exists(), "{case}");
        let item = fixture.append("goes on").await;
        let fixture = fixture.reopen().await;
        assert_eq!(fixture.item(item.id).await, Some(item), "{case}");
        assert_eq!(fixture.journal.damage(), 0, "{case}: put right");
    }
}
