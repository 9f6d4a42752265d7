//! What is not what was written is dropped and counted, never served.

use std::{fs, path::PathBuf};

use redb::{Database, TableDefinition};

use super::{Directory, Fixture, body, key};
use crate::store::StoreError;

const RECORDS: TableDefinition<'_, &[u8; 24], &[u8]> = TableDefinition::new("records");
const USAGE: TableDefinition<'_, &[u8; 24], &[u8; 57]> = TableDefinition::new("usage");

fn body_path(fixture: &Fixture) -> PathBuf {
    let name = &fixture.body_files()[0];
    fixture
        .dir
        .path()
        .join("bodies")
        .join(&name[..2])
        .join(name)
}

fn flip(path: &PathBuf, at: usize) {
    let mut content = fs::read(path).unwrap();
    content[at] ^= 1;
    fs::write(path, content).unwrap();
}

#[tokio::test]
async fn a_corrupt_record_is_a_miss_and_goes() {
    for table in ["records", "usage"] {
        let fixture = Fixture::new().await;
        let (bad, good) = (key("http://a.example/"), key("http://b.example/"));
        fixture.publish(&bad, "bad");
        let dir = fixture.close().await;
        let database = Database::open(dir.path().join("cache.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        if table == "records" {
            let mut records = transaction.open_table(RECORDS).unwrap();
            let (id, mut record) = {
                let (id, record) = records.pop_first().unwrap().unwrap();
                (*id.value(), record.value().to_vec())
            };
            let middle = record.len() / 2;
            record[middle] ^= 1;
            records.insert(&id, record.as_slice()).unwrap();
        } else {
            let mut usage = transaction.open_table(USAGE).unwrap();
            let (id, mut row) = {
                let (id, row) = usage.pop_first().unwrap().unwrap();
                (*id.value(), *row.value())
            };
            row[3] ^= 1;
            usage.insert(&id, &row).unwrap();
        }
        transaction.commit().unwrap();
        drop(database);
        let fixture = Fixture::open(dir, |_| {}).await.unwrap();
        fixture.publish(&good, "good");
        assert!(fixture.lookup(&bad).await.is_none(), "{table}");
        assert_eq!(fixture.errors("corrupt"), 1, "{table}");
        fixture.forget_memory().await;
        assert_eq!(fixture.store.stats().disk_entries, 1, "{table}");
        assert_eq!(fixture.evictions("disk", "corrupt"), 1, "{table}");
        assert_eq!(fixture.body(&good).await.unwrap(), b"good", "{table}");
        fixture.publish(&bad, "again");
        fixture.forget_memory().await;
        assert_eq!(fixture.body(&bad).await.unwrap(), b"again", "{table}");
    }
}

#[tokio::test]
async fn a_corrupt_body_that_is_read_whole_is_a_miss() {
    let fixture = Fixture::new().await;
    let key = key("http://a.example/");
    fixture.publish(&key, body(500_000));
    fixture.forget_memory().await;
    flip(&body_path(&fixture), 400_000);
    assert!(fixture.lookup(&key).await.is_none());
    assert_eq!(fixture.errors("corrupt"), 1);
    fixture.forget_memory().await;
    assert_eq!(fixture.store.stats().disk_entries, 0);
    assert!(fixture.body_files().is_empty());
}

#[tokio::test]
async fn a_corrupt_block_ends_the_stream_before_it_is_handed_out() {
    use futures_util::StreamExt;
    let fixture = Fixture::new().await;
    let key = key("http://a.example/");
    fixture.publish(&key, body(2_000_000));
    fixture.forget_memory().await;
    flip(&body_path(&fixture), 1_000_000);
    let resource = fixture.lookup(&key).await.unwrap();
    let blocks: Vec<_> = fixture
        .store
        .read_body(&key, &resource.variants[0])
        .collect()
        .await;
    let (last, sound) = blocks.split_last().unwrap();
    assert!(matches!(last, Err(StoreError::Corrupt)));
    let sound: Vec<u8> = sound
        .iter()
        .flat_map(|block| block.as_ref().unwrap().to_vec())
        .collect();
    assert_eq!(sound, body(2_000_000)[..sound.len()]);
    assert_eq!(sound.len(), 3 * 256 * 1024);
    assert!(
        fixture.store.peek(key.as_str()).is_none(),
        "dropped from memory"
    );
    assert_eq!(fixture.errors("corrupt"), 1);
    fixture.store.flush().await.unwrap();
    assert!(fixture.lookup(&key).await.is_none(), "and from disk");
}

#[tokio::test]
async fn a_missing_body_file_is_a_corrupt_one() {
    let fixture = Fixture::new().await;
    let (whole, streamed) = (key("http://a.example/"), key("http://b.example/"));
    fixture.publish(&whole, body(500_000));
    fixture.publish(&streamed, body(5_000_000));
    fixture.forget_memory().await;
    for name in fixture.body_files() {
        fs::remove_file(
            fixture
                .dir
                .path()
                .join("bodies")
                .join(&name[..2])
                .join(name),
        )
        .unwrap();
    }
    assert!(fixture.lookup(&whole).await.is_none());
    let resource = fixture.lookup(&streamed).await.unwrap();
    let read = fixture.read(&streamed, &resource.variants[0]).await;
    assert!(matches!(read, Err(StoreError::Corrupt)));
    fixture.store.flush().await.unwrap();
    assert!(fixture.lookup(&streamed).await.is_none());
}

#[tokio::test]
async fn no_flipped_byte_of_the_database_makes_a_wrong_answer() {
    let fixture = Fixture::new().await;
    let keys: Vec<_> = (0..30)
        .map(|n| key(&format!("http://a.example/{n}")))
        .collect();
    for (number, key) in keys.iter().enumerate() {
        fixture.publish(key, body(number * 100));
    }
    let dir = fixture.close().await;
    let sound = fs::read(dir.path().join("cache.redb")).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..60 {
        let dir = Directory::temporary();
        let mut content = sound.clone();
        content[random.usize(..sound.len())] ^= random.u8(1..);
        fs::write(dir.path().join("cache.redb"), content).unwrap();
        let fixture = Fixture::open(dir, |_| {}).await.unwrap();
        for (number, key) in keys.iter().enumerate() {
            // A miss or an error is one thing, another body is another.
            if let Ok(Some(resource)) = fixture.store.lookup(key).await {
                let found = fixture.read(key, &resource.variants[0]).await.unwrap();
                assert_eq!(found, body(number * 100));
            }
            fixture.publish(key, "new");
        }
        fixture.store.flush().await.unwrap();
        for key in &keys {
            assert_eq!(fixture.body(key).await.unwrap(), b"new");
        }
        fixture.store.close().await.unwrap();
    }
}
