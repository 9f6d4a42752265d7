//! Branch pages of redb's trees that lead the wrong way: every row is there, and one who looks for it by its key does not find it.

use std::{collections::BTreeMap, fs};

use super::{
    damage::{body, copy},
    salvage::{PAGE_BYTES, change},
    *,
};

/// The first byte of a page that is a branch of a tree.
const BRANCH: u8 = 2;

const WRITES: usize = 40;

/// A closed queue of writes that wait.
async fn queue() -> (Arc<TempDir>, Vec<Item>) {
    let fixture = Fixture::new().await;
    for number in 0..WRITES {
        fixture.append(body(number)).await;
    }
    let items = fixture.all().await;
    let (dir, _) = fixture.close().await;
    (dir, items)
}

/// Where in the file branches separate writes, by page. Some of the pages are not in use any more.
fn signposts(dir: &Path, items: &[Item]) -> BTreeMap<usize, Vec<usize>> {
    let content = fs::read(dir.join("queue.redb")).unwrap();
    let pages = content.chunks(PAGE_BYTES).enumerate();
    let branches = pages.filter(|(_, page)| page[0] == BRANCH);
    let at = branches.map(|(number, page)| {
        let is_id = |at: &usize| {
            let bytes = &page[*at..*at + 16];
            items.iter().any(|item| item.id.as_bytes() == bytes)
        };
        let places = (0..PAGE_BYTES - 16).filter(is_id);
        (number, places.map(|at| number * PAGE_BYTES + at).collect())
    });
    at.filter(|(_, places): &(_, Vec<_>)| !places.is_empty())
        .collect()
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
    let signposts = signposts(dir.path(), &items);
    for (page, places) in &signposts {
        let case = format!("page {page}");
        let fixture = copy(&dir, |copy| {
            change(copy, |content| {
                for at in places {
                    // Less than any id: what is left of it is sought to the right.
                    content[*at..*at + 16].fill(0);
                }
            });
        })
        .await;
        let is_seen_at_start = fixture.path("queue.redb.bad-1").exists();
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
    for places in signposts(dir.path(), &items).values() {
        let damage = |copy: &Path| {
            change(copy, |content| {
                places.iter().for_each(|at| content[*at..*at + 16].fill(0));
            });
        };
        let salvaged = |fixture: &Fixture| fixture.path("queue.redb.bad-1").exists();
        if salvaged(&copy(&dir, damage).await) {
            continue;
        }
        let both = |copy: &Path| {
            damage(copy);
            not_closed(copy);
        };
        let fixture = copy(&dir, both).await;
        seen_by_nothing_else += usize::from(salvaged(&fixture));
        assert_eq!(found(&fixture, &items, "not closed").await, 0);
    }
    assert!(seen_by_nothing_else > 0);
}
