//! Branch pages of redb's trees that lead the wrong way: every row is there, and one who looks for it by its key does not find it.

use std::{collections::BTreeMap, fs};

use super::{
    damage::{body, copy},
    salvage::{PAGE_BYTES, change},
    *,
};

/// The first byte of a page that is a branch of a tree.
const BRANCH: u8 = 2;

const WRITES: usize = 100;

fn key(number: usize) -> KeyHash {
    KeyHash::new("me", "POST", "", &number.to_string())
}

/// A closed queue of writes that wait, each with its key.
async fn queue() -> (Arc<TempDir>, Vec<Item>) {
    let fixture = Fixture::new().await;
    for number in 0..WRITES {
        let write = NewWrite {
            key: Some(key(number)),
            ..fixture.write(body(number))
        };
        appended(fixture.journal.append(write).await);
    }
    let items = fixture.all().await;
    let (dir, _) = fixture.close().await;
    (dir, items)
}

/// Where in the file branches separate rows of these keys, by page. Some of the pages are not in use any more.
fn signposts<const N: usize>(dir: &Path, keys: &[[u8; N]]) -> BTreeMap<usize, Vec<usize>> {
    let content = fs::read(dir.join("queue.redb")).unwrap();
    let pages = content.chunks(PAGE_BYTES).enumerate();
    let branches = pages.filter(|(_, page)| page[0] == BRANCH);
    let at = branches.map(|(number, page)| {
        let is_key = |at: &usize| keys.iter().any(|key| page[*at..*at + N] == *key);
        let places = (0..PAGE_BYTES - N).filter(is_key);
        (number, places.map(|at| number * PAGE_BYTES + at).collect())
    });
    at.filter(|(_, places): &(_, Vec<_>)| !places.is_empty())
        .collect()
}

fn ids(items: &[Item]) -> Vec<[u8; 16]> {
    items.iter().map(|item| *item.id.as_bytes()).collect()
}

/// Writes zeros there: less than any key, so what is left of it is sought to the right.
fn mislead(dir: &Path, places: &[usize], key_bytes: usize) {
    change(dir, |content| {
        places
            .iter()
            .for_each(|at| content[*at..*at + key_bytes].fill(0));
    });
}

fn is_salvaged(fixture: &Fixture) -> bool {
    fixture.path("queue.redb.bad-1").exists()
}

/// Every write as it was, with what is sent of it: how many first tries failed.
async fn found(fixture: &Fixture, items: &[Item], case: &str) -> usize {
    let mut failed = 0;
    for (number, item) in items.iter().enumerate() {
        let claimed = fixture.journal.claimed(item.id).await.unwrap();
        assert_eq!(claimed, *item, "{case}: {number}");
        failed += usize::from(fixture.journal.content(item.id).await.is_err());
        let opened = fixture.content(item.id).await.unwrap();
        assert_eq!(body_of(opened), body(number), "{case}: {number}");
    }
    failed
}

/// A write whose record was not found by its id was taken for one that was over. It stayed in the list, and was never sent.
#[tokio::test]
async fn no_write_is_lost_to_a_branch_that_leads_the_wrong_way() {
    let (dir, items) = queue().await;
    let (mut at_start, mut by_reads) = (0, 0);
    let signposts = signposts(dir.path(), &ids(&items));
    for (page, places) in &signposts {
        let case = format!("page {page}");
        let fixture = copy(&dir, |copy| mislead(copy, places, 16)).await;
        let is_seen_at_start = is_salvaged(&fixture);
        at_start += usize::from(is_seen_at_start);
        let failed = found(&fixture, &items, &case).await;
        assert!(failed <= 1, "{case}: {failed} reads failed");
        by_reads += failed;
        assert_eq!(
            fixture.journal.damage(),
            u64::from(is_seen_at_start || failed > 0),
            "{case}: every record is there, what led to it is not"
        );
        let fixture = fixture.reopen().await;
        assert_eq!(fixture.all().await, items, "{case}");
        assert_eq!(fixture.journal.damage(), 0, "{case}: put right");
    }
    assert!(at_start > 0, "no branch of the writes in {signposts:?}");
    assert!(by_reads > 0, "no branch of the contents in {signposts:?}");
}

/// The same of all branches, also of those that say which pages are in use: redb closed the database by cutting it down to
/// nothing, and every write was lost.
#[tokio::test]
async fn a_damaged_file_is_set_aside_as_it_was_found() {
    let (dir, items) = queue().await;
    let mut as_found = Vec::new();
    let fixture = copy(&dir, |copy| {
        change(copy, |content| {
            for page in content.chunks_mut(PAGE_BYTES) {
                // After its head come checksum and number of each page below, and then the keys, of 16 bytes in our tables.
                let keys = usize::from(u16::from_le_bytes([page[2], page[3]]));
                let first = 8 + 24 * (keys + 1);
                if page[0] == BRANCH
                    && let Some(keys) = page.get_mut(first..first + 16 * keys)
                {
                    keys.fill(0);
                }
            }
            as_found.clone_from(content);
        });
    })
    .await;
    let set_aside = fs::read(fixture.path("queue.redb.bad-1")).unwrap();
    // But for the header, in which redb says that it is open.
    assert!(set_aside[PAGE_BYTES..] == as_found[PAGE_BYTES..]);
    found(&fixture, &items, "").await;
    assert_eq!(fixture.all().await, items);
}

/// redb may end the process over damage, where one panic meets another. It did so at each start.
#[tokio::test]
async fn a_database_that_was_not_closed_is_verified_first() {
    let (dir, items) = queue().await;
    let is_noted = |dir: &Path| dir.join("queue.open").exists();
    assert!(!is_noted(dir.path()), "it was closed");
    let not_closed = |copy: &Path| fs::write(copy.join("queue.open"), "").unwrap();
    let sound = copy(&dir, not_closed).await;
    assert_eq!(sound.journal.damage(), 0);
    assert_eq!(sound.all().await, items);
    sound.append("goes on").await;
    assert!(is_noted(sound.dir.path()));

    let mut seen_by_nothing_else = 0;
    for places in signposts(dir.path(), &ids(&items)).values() {
        if is_salvaged(&copy(&dir, |copy| mislead(copy, places, 16)).await) {
            continue;
        }
        let both = |copy: &Path| {
            mislead(copy, places, 16);
            not_closed(copy);
        };
        let fixture = copy(&dir, both).await;
        seen_by_nothing_else += usize::from(is_salvaged(&fixture));
        assert_eq!(found(&fixture, &items, "not closed").await, 0);
    }
    assert!(seen_by_nothing_else > 0);
}

/// A key that was not found was taken for new, and its write sent once more.
#[tokio::test]
async fn no_key_is_lost_to_a_branch_that_leads_the_wrong_way() {
    let (dir, items) = queue().await;
    let keys: Vec<_> = (0..WRITES).map(|number| *key(number).as_bytes()).collect();
    let signposts = signposts(dir.path(), &keys);
    let mut salvaged = 0;
    for places in signposts.values() {
        let fixture = copy(&dir, |copy| mislead(copy, places, 32)).await;
        salvaged += usize::from(is_salvaged(&fixture));
        for (number, item) in items.iter().enumerate() {
            let again = NewWrite {
                key: Some(key(number)),
                ..fixture.write(body(number))
            };
            match fixture.journal.append(again).await.unwrap() {
                Appended::Known(known) => assert_eq!(known, *item),
                Appended::New(item) => panic!("sent once more: {item:?}"),
            }
        }
    }
    assert!(salvaged > 0, "no branch of the keys in {signposts:?}");
}

/// A salvage that failed left the queue closed, until something was appended: then it was opened as if it were sound.
#[tokio::test]
async fn a_salvage_that_fails_is_tried_again() {
    let (dir, items) = queue().await;
    let mut retried = 0;
    for places in signposts(dir.path(), &ids(&items)).values() {
        let fixture = copy(&dir, |copy| mislead(copy, places, 16)).await;
        if is_salvaged(&fixture) {
            continue;
        }
        let in_the_way = fixture.path("queue.redb.new");
        fs::create_dir(&in_the_way).unwrap();
        for item in &items {
            // Of one of them the content is not found; after that nothing is.
            let _ = fixture.journal.content(item.id).await;
        }
        let append = fixture.journal.append(fixture.write("refused")).await;
        let is_damaged = append.is_err();
        assert!(!is_salvaged(&fixture));
        fs::remove_dir(in_the_way).unwrap();
        fixture.content(items[0].id).await.unwrap();
        found(&fixture, &items, "in the end").await;
        assert_eq!(
            is_salvaged(&fixture),
            is_damaged,
            "it went on with what is damaged"
        );
        retried += usize::from(is_damaged);
    }
    assert!(retried > 0);
}

/// It was closed by a commit, and the next start took it for one that was closed in order.
#[tokio::test]
async fn what_is_closed_damaged_is_left_as_it_was_and_verified_by_the_next_start() {
    let (dir, items) = queue().await;
    let mut left = 0;
    for places in signposts(dir.path(), &ids(&items)).values() {
        let fixture = copy(&dir, |copy| mislead(copy, places, 16)).await;
        // Nothing is salvaged, and nothing closed before the end, where a little cannot be written first.
        fs::create_dir(fixture.path("queue.probe")).unwrap();
        let before = fs::read(fixture.path("queue.redb")).unwrap();
        let mut is_damaged = false;
        for item in &items {
            is_damaged |= fixture.journal.content(item.id).await.is_err();
        }
        if !is_damaged || is_salvaged(&fixture) {
            continue;
        }
        let (dir, _) = fixture.close().await;
        assert!(dir.path().join("queue.open").exists());
        let after = fs::read(dir.path().join("queue.redb")).unwrap();
        assert!(after[PAGE_BYTES..] == before[PAGE_BYTES..]);
        left += 1;
    }
    assert!(left > 0);
}
