//! What an operator holds back stays so, whatever becomes of the database.

use std::{fs, os::unix::fs::FileExt};

use super::{damage::copy, salvage::destroy_header, *};

const NOTED: &str = "queue.pauses";

fn pause(name: Option<&str>) -> Pause {
    Pause {
        origin: name.map(|name| Origin::Upstream(name.to_owned())),
        since: Timestamp::from_secs(1_700_000_000),
        reason: None,
    }
}

/// What is noted of it beside the database is not what was written.
fn damage_noted(dir: &Path) {
    let noted = fs::File::options().write(true).open(dir.join(NOTED));
    let noted = noted.unwrap();
    let bytes = noted.metadata().unwrap().len();
    noted.write_all_at(&[0xa5], bytes - 1).unwrap();
}

/// Three files of one closed queue: before anything was paused, while `a` was, and while only `b` was.
async fn paused_queue() -> (Arc<TempDir>, [Vec<u8>; 3]) {
    let mut fixture = Fixture::new().await;
    let mut files = [const { Vec::new() }; 3];
    for (name, file) in [None, Some("a"), Some("b")].into_iter().zip(&mut files) {
        if name.is_some() {
            let paused = Change::Pause(vec![pause(name)]);
            fixture.journal.record(paused).await.unwrap();
        }
        fixture.append("pending").await;
        let (dir, config) = fixture.close().await;
        *file = fs::read(dir.path().join("queue.redb")).unwrap();
        let backing = Backing::directory(dir.path().to_owned());
        fixture = Fixture::open(dir, config, backing).await.unwrap();
    }
    (fixture.close().await.0, files)
}

/// Of a database without a page that says it, every pause was forgotten: what an operator had held back was sent.
#[tokio::test]
async fn what_was_paused_stays_so_whatever_is_left_of_the_database() {
    let (dir, [without, with_a, with_b]) = paused_queue().await;
    let garbage = vec![0xa5; with_b.len()];
    let no_header = |mut content: Vec<u8>| {
        destroy_header(&mut content);
        content
    };
    let (a, b) = (pause(Some("a")), pause(Some("b")));
    let cases = [
        ("whole", with_b.clone(), vec![b.clone()]),
        ("pages", no_header(with_b), vec![b.clone()]),
        ("garbage", garbage, vec![b.clone()]),
        ("empty", Vec::new(), vec![b.clone()]),
        ("gone back before it", without.clone(), vec![b.clone()]),
        ("older pages", no_header(without), vec![b.clone()]),
        // Whether it was lifted since is not for the file to say.
        ("gone back", with_a.clone(), vec![a.clone(), b.clone()]),
        ("older pages with one", no_header(with_a), vec![a, b]),
    ];
    for (case, content, expected) in cases {
        let fixture = copy(&dir, |dir| {
            fs::write(dir.join("queue.redb"), content).unwrap();
        })
        .await;
        let mut pauses = fixture.journal.pauses();
        pauses.sort_by_key(|pause| pause.origin.as_ref().map(ToString::to_string));
        assert_eq!(pauses, expected, "{case}");
        let before = fixture.journal.pauses();
        assert_eq!(fixture.reopen().await.journal.pauses(), before, "{case}");
    }
}

#[tokio::test]
async fn that_nothing_says_what_was_paused_is_said_and_what_cannot_be_read_holds_everything() {
    let (dir, [.., with_b]) = paused_queue().await;
    let garbage = vec![0xa5; with_b.len()];
    let fixture = copy(&dir, |dir| {
        fs::write(dir.join("queue.redb"), &garbage).unwrap();
        fs::remove_file(dir.join("queue.marker")).unwrap();
        fs::remove_file(dir.join(NOTED)).unwrap();
    })
    .await;
    assert_eq!(fixture.journal.pauses(), []);
    let unsaid = "how many writes there were, and what was paused";
    assert_eq!(fixture.journal.damage(), 2, "{unsaid}");
    for content in [&garbage[..], &[]] {
        let fixture = copy(&dir, |dir| {
            fs::write(dir.join("queue.redb"), content).unwrap();
            damage_noted(dir);
        })
        .await;
        let pauses = fixture.journal.pauses();
        assert_eq!(pauses.len(), 1);
        assert_eq!(pauses[0].origin, None, "everything");
    }
}

/// An older record that said that nothing was paused was believed, and what had been held back since was sent.
#[tokio::test]
async fn what_is_noted_and_cannot_be_read_holds_everything_whatever_an_older_record_says() {
    let (dir, [without, with_a, _]) = paused_queue().await;
    let cases = [(without, Vec::new()), (with_a, vec![pause(Some("a"))])];
    for (content, known) in cases {
        let fixture = copy(&dir, |dir| {
            fs::write(dir.join("queue.redb"), &content).unwrap();
            damage_noted(dir);
        })
        .await;
        let (everything, named): (Vec<_>, Vec<_>) = fixture
            .journal
            .pauses()
            .into_iter()
            .partition(|pause| pause.origin.is_none());
        assert_eq!(everything.len(), 1);
        assert_eq!(named, known);
    }
}

/// Everything was held back, and that took the place of what was noted exactly.
#[tokio::test]
async fn a_damaged_record_of_what_is_paused_is_made_again_from_what_is_noted() {
    let (dir, _) = paused_queue().await;
    let fixture = copy(&dir, |dir| {
        let database = redb::Database::open(dir.join("queue.redb")).unwrap();
        let transaction = database.begin_write().unwrap();
        let meta: redb::TableDefinition<'_, &str, &[u8]> = redb::TableDefinition::new("meta");
        let mut meta = transaction.open_table(meta).unwrap();
        meta.insert("pauses", [1, 2, 3].as_slice()).unwrap();
        drop(meta);
        transaction.commit().unwrap();
    })
    .await;
    assert_eq!(fixture.journal.damage(), 1);
    assert_eq!(fixture.journal.pauses(), [pause(Some("b"))]);
    let fixture = fixture.reopen().await;
    assert_eq!(fixture.journal.pauses(), [pause(Some("b"))]);
    assert_eq!(fixture.journal.damage(), 0, "put right");
}
