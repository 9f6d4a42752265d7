//! Opening: after a clean end, a crash, and on whatever lies in the directory.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::{Directory, Fixture, MIB, body, key};
use crate::store::{Published, PurgeKind, Selector, StoreError};

#[tokio::test]
async fn what_was_stored_is_there_after_a_restart() {
    let fixture = Fixture::new().await;
    let keys: Vec<_> = (0..50)
        .map(|number| key(&format!("http://a.example/{number}")))
        .collect();
    for (number, key) in keys.iter().enumerate() {
        fixture.publish(key, body(number * 2_000));
    }
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.store.stats().disk_entries, 50);
    for (number, key) in keys.iter().enumerate() {
        assert_eq!(fixture.body(key).await.unwrap(), body(number * 2_000));
    }
}

#[tokio::test]
async fn totals_are_the_same_after_a_restart() {
    let fixture = Fixture::new().await;
    for number in 0..20 {
        fixture.publish(
            &key(&format!("http://a.example/{number}")),
            body(number * 9_000),
        );
        fixture.publish(&key(&format!("http://a.example/{}", number / 2)), body(10));
        fixture.store.flush().await.unwrap();
    }
    let before = fixture.store.stats();
    assert!(before.disk_bytes > 0);
    let after = fixture.reopen().await.store.stats();
    assert_eq!(
        (after.disk_entries, after.disk_bytes),
        (before.disk_entries, before.disk_bytes)
    );
}

#[tokio::test]
async fn a_second_store_in_the_same_directory_is_told_so() {
    let fixture = Fixture::new().await;
    let second = Fixture::open(fixture.dir.clone(), |_| {}).await;
    assert!(matches!(second, Err(StoreError::InUse { dir }) if dir == fixture.dir.path()));
    let dir = fixture.close().await;
    Fixture::open(dir, |_| {}).await.unwrap();
}

#[tokio::test]
async fn everything_in_the_directory_is_ours_alone() {
    let fixture = Fixture::new().await;
    fixture.publish(&key("http://a.example/"), body(100_000));
    fixture.store.flush().await.unwrap();
    fn check(path: &Path) {
        let metadata = fs::metadata(path).unwrap();
        let mode = metadata.permissions().mode() & 0o777;
        let expected = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(mode, expected, "{}", path.display());
        if metadata.is_dir() {
            for entry in fs::read_dir(path).unwrap() {
                check(&entry.unwrap().path());
            }
        }
    }
    check(fixture.dir.path());
}

#[tokio::test]
async fn whatever_the_database_file_is_the_store_opens_and_works() {
    let garbage = |len: usize| {
        (0..len)
            .map(|at| (at * 7919 % 256) as u8)
            .collect::<Vec<_>>()
    };
    let whole = {
        let fixture = Fixture::new().await;
        for number in 0..300 {
            fixture.publish(&key(&format!("http://a.example/{number}")), body(3_000));
        }
        let dir = fixture.close().await;
        fs::read(dir.path().join("cache.redb")).unwrap()
    };
    let mut other_version = whole.clone();
    other_version[9] ^= 0x7f;
    for (what, content) in [
        ("empty", Vec::new()),
        ("one byte", vec![0]),
        ("short garbage", garbage(100)),
        ("garbage", garbage(100_000)),
        ("cut early", whole[..5_000].to_vec()),
        ("cut in half", whole[..whole.len() / 2].to_vec()),
        ("cut late", whole[..whole.len() - 1].to_vec()),
        ("altered header", other_version),
        ("zeroes", vec![0; 1_000_000]),
    ] {
        let dir = Directory::temporary();
        fs::write(dir.path().join("cache.redb"), content).unwrap();
        let fixture = Fixture::open(dir, |_| {}).await.expect(what);
        let key = key("http://a.example/1");
        // A miss, or what was stored, but no error.
        let found = fixture.body(&key).await;
        assert!(found.is_none_or(|found| found == body(3_000)), "{what}");
        fixture.publish(&key, "new");
        let fixture = fixture.reopen().await;
        assert_eq!(fixture.body(&key).await.expect(what), b"new", "{what}");
        assert!(!fixture.store.stats().disk_suspended, "{what}");
        let set_aside = fixture.dir.path().join("cache.redb.bad");
        assert!(
            !set_aside.exists(),
            "{what}: gone after the next good start"
        );
    }
}

#[tokio::test]
async fn an_incompatible_database_is_set_aside() {
    use redb::{Database, TableDefinition};
    let dir = Directory::temporary();
    let path = dir.path().join("cache.redb");
    let database = Database::create(&path).unwrap();
    let transaction = database.begin_write().unwrap();
    transaction
        .open_table(TableDefinition::<&str, u64>::new("something else"))
        .unwrap();
    transaction.commit().unwrap();
    drop(database);
    let fixture = Fixture::open(dir, |_| {}).await.unwrap();
    assert!(fixture.dir.path().join("cache.redb.bad").exists());
    fixture.publish(&key("http://a.example/"), "body");
    let fixture = fixture.reopen().await;
    assert_eq!(
        fixture.body(&key("http://a.example/")).await.unwrap(),
        b"body"
    );
}

#[tokio::test]
async fn body_files_that_no_record_names_are_swept_and_the_others_stay() {
    let fixture = Fixture::new().await;
    let key = key("http://a.example/");
    fixture.publish(&key, body(100_000));
    let dir = fixture.close().await;
    let orphan = dir.path().join("bodies/ab/ab00000000000001");
    fs::create_dir_all(orphan.parent().unwrap()).unwrap();
    fs::write(&orphan, "orphan").unwrap();
    let half = orphan.with_extension("part");
    fs::write(&half, "half").unwrap();
    let fixture = Fixture::open(dir, |_| {}).await.unwrap();
    fixture.swept(1).await;
    assert!(!orphan.exists());
    assert_eq!(fixture.body(&key).await.unwrap(), body(100_000));
}

#[tokio::test]
async fn a_cold_start_sweeps_all_body_files() {
    let fixture = Fixture::new().await;
    fixture.publish(&key("http://a.example/"), body(100_000));
    let dir = fixture.close().await;
    fs::write(dir.path().join("cache.redb"), "").unwrap();
    let fixture = Fixture::open(dir, |_| {}).await.unwrap();
    fixture.swept(0).await;
}

#[tokio::test]
async fn turning_the_disk_tier_off_forgets_what_is_on_it() {
    let fixture = Fixture::new().await;
    let key = key("http://a.example/");
    fixture.publish(&key, body(100_000));
    let fixture = fixture.reopen_with(|config| config.disk_bytes = 0).await;
    assert!(fixture.lookup(&key).await.is_none());
    fixture.swept(0).await;
    let fixture = fixture.reopen().await;
    assert!(fixture.lookup(&key).await.is_none());
}

#[tokio::test]
async fn a_smaller_budget_than_before_is_kept() {
    let fixture = Fixture::new().await;
    for number in 0..20 {
        fixture.publish(
            &key(&format!("http://a.example/{number}")),
            body(MIB as usize),
        );
        fixture.store.flush().await.unwrap();
    }
    let fixture = fixture
        .reopen_with(|config| config.disk_bytes = 5 * MIB)
        .await;
    fixture.publish(&key("http://a.example/new"), "body");
    fixture.store.flush().await.unwrap();
    assert!(fixture.store.stats().disk_bytes <= 5 * MIB);
    assert!(fixture.body_files().len() < 5);
}

#[tokio::test]
async fn a_closed_store_serves_what_it_has_in_memory() {
    let fixture = Fixture::new().await;
    let key = key("http://a.example/");
    fixture.publish(&key, "body");
    fixture.store.close().await.unwrap();
    assert_eq!(fixture.body(&key).await.unwrap(), b"body");
    fixture.store.flush().await.unwrap();
    fixture.store.close().await.unwrap();
    let other = super::key("http://b.example/");
    assert!(fixture.lookup(&other).await.is_none());
    assert_eq!(fixture.publish(&other, "body"), Published::MemoryOnly);
    assert_eq!(fixture.body(&other).await.unwrap(), b"body");
    let selector = Selector::Prefix(String::new());
    assert!(
        fixture
            .store
            .purge(&selector, PurgeKind::Hard)
            .await
            .is_err()
    );
}
