//! Random histories against a map: what is stored is what the map says, whatever was evicted, reopened or lost.

use std::{collections::BTreeMap, fs, path::Path};

use proptest::{collection::vec, prelude::*, test_runner::TestCaseError};

use super::{Directory, Fixture, body, key, tagged};
use crate::{
    policy::{CacheKey, Mark, Names, StoredHead},
    store::{Config, Published, PurgeKind, Selector, resource::stronger},
};

const KEYS: [&str; 5] = [
    "http://a.example/",
    "http://a.example/x",
    "~p http://a.example/x",
    "http://a.example:81/x",
    "http://b.example/x",
];
const LANGUAGES: [&str; 3] = ["", "de", "en"];

/// Tags and groups; the last is longer than is kept, and counts as every one.
const LABELS: [(&str, &str); 4] = [("", ""), ("a", "g"), ("a b", "g h"), (LONG, LONG)];
const LONG: &str = concat!(
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
    "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
);

/// Inline, inline but alone in memory, a file, a file too large for memory, one that is streamed.
const SIZES: [usize; 6] = [0, 10, 20_000, 40_000, 300_000, 1_100_000];

#[derive(Clone, Debug)]
enum Action {
    Publish {
        key: usize,
        language: usize,
        labels: usize,
        size: usize,
    },
    Freshen {
        key: usize,
        language: usize,
        labels: usize,
    },
    InvalidateGroup {
        key: usize,
        second: bool,
    },
    Mark {
        key: usize,
        mark: Mark,
    },
    Purge {
        selector: usize,
        hard: bool,
    },
    Remove {
        key: usize,
        language: usize,
    },
    LateFill {
        key: usize,
    },
    Touch {
        key: usize,
    },
    EvictFromMemory,
    Flush,
    Reopen,
    Crash,
}

/// What is stored under a key and a language.
type Model = BTreeMap<(usize, usize), Stored>;

#[derive(Clone, Debug, PartialEq)]
struct Stored {
    body: Vec<u8>,
    /// How often its head was freshened.
    freshened: u64,
    labels: usize,
    mark: Mark,
}

/// Whether a purge selects what is stored under a key with these labels.
type Selects = fn(usize, usize) -> bool;

fn selectors() -> Vec<(Selector, Selects)> {
    vec![
        (Selector::Url("http://a.example/x".to_owned()), |key, _| {
            matches!(key, 1 | 2)
        }),
        (
            Selector::Prefix("http://a.example/".to_owned()),
            |key, _| key <= 2,
        ),
        (Selector::Host("a.example".to_owned()), |key, _| key <= 3),
        (Selector::Host("b.example".to_owned()), |key, _| key == 4),
        (Selector::Prefix(String::new()), |_, _| true),
        (Selector::Tag("a".to_owned()), |_, labels| labels >= 1),
        (Selector::Tag("b".to_owned()), |_, labels| labels >= 2),
        (Selector::Tag("c".to_owned()), |_, labels| labels == 3),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let (keys, languages, sizes) = (0..KEYS.len(), 0..LANGUAGES.len(), 0..SIZES.len());
    let labels = 0..LABELS.len();
    let marks = prop_oneof![Just(Mark::Stale), Just(Mark::Invalid)];
    prop_oneof![
        8 => (keys.clone(), languages.clone(), labels.clone(), sizes)
            .prop_map(|(key, language, labels, size)| Action::Publish { key, language, labels, size }),
        3 => (keys.clone(), languages.clone(), labels)
            .prop_map(|(key, language, labels)| Action::Freshen { key, language, labels }),
        2 => (keys.clone(), any::<bool>())
            .prop_map(|(key, second)| Action::InvalidateGroup { key, second }),
        2 => (keys.clone(), marks).prop_map(|(key, mark)| Action::Mark { key, mark }),
        3 => (0..selectors().len(), any::<bool>())
            .prop_map(|(selector, hard)| Action::Purge { selector, hard }),
        1 => (keys.clone(), languages)
            .prop_map(|(key, language)| Action::Remove { key, language }),
        1 => keys.clone().prop_map(|key| Action::LateFill { key }),
        1 => keys.prop_map(|key| Action::Touch { key }),
        3 => Just(Action::EvictFromMemory),
        2 => Just(Action::Flush),
        1 => Just(Action::Reopen),
        1 => Just(Action::Crash),
    ]
}

fn small_memory(config: &mut Config) {
    config.memory_bytes = 256 * 1024;
}

/// The store, what it should hold, and a body number that no two publications share.
struct History {
    fixture: Fixture,
    model: Model,
    published: usize,
}

impl History {
    async fn new() -> Self {
        Self {
            fixture: Fixture::with(small_memory).await,
            model: Model::new(),
            published: 0,
        }
    }

    async fn apply(mut self, action: &Action) -> Result<Self, TestCaseError> {
        self.fixture.clock.step_secs(1);
        match *action {
            Action::Publish {
                key,
                language,
                labels,
                size,
            } => self.publish(key, language, labels, size)?,
            Action::Freshen {
                key,
                language,
                labels,
            } => self.freshen(key, language, labels).await?,
            Action::Mark { key: at, mark } => {
                self.fixture.store.mark(&key(KEYS[at]), mark).await.unwrap();
                self.mark(|key, _| key == at, mark);
            }
            Action::InvalidateGroup { key, second } => self.invalidate_group(key, second).await,
            Action::Purge { selector, hard } => self.purge(selector, hard).await?,
            Action::Remove { key, language } => self.remove(key, language).await?,
            Action::LateFill { key } => self.late_fill(key).await?,
            Action::Touch { key: at } => {
                if let Some(resource) = self.fixture.lookup(&key(KEYS[at])).await {
                    self.fixture.store.touch(&resource, &resource.variants[0]);
                }
            }
            Action::EvictFromMemory => self.fixture.store.inner.memory.clear(),
            Action::Flush => self.fixture.store.flush().await.unwrap(),
            Action::Reopen => self.fixture = self.fixture.reopen_with(small_memory).await,
            Action::Crash => self.fixture = self.crash().await,
        }
        Ok(self)
    }

    fn head(&self, language: usize, labels: usize) -> StoredHead {
        let (tags, groups) = LABELS[labels];
        tagged(self.fixture.head(LANGUAGES[language]), tags, groups)
    }

    fn publish(
        &mut self,
        at: usize,
        language: usize,
        labels: usize,
        size: usize,
    ) -> Result<(), TestCaseError> {
        self.published += 1;
        let mut body = body(SIZES[size]);
        if let Some(first) = body.first_mut() {
            *first = self.published as u8;
        }
        let head = self.head(language, labels);
        let published = self
            .fixture
            .publish_head(&key(KEYS[at]), head, body.clone());
        prop_assert_eq!(published, Published::Stored);
        let stored = Stored {
            body,
            freshened: 0,
            labels,
            mark: Mark::None,
        };
        self.model.insert((at, language), stored);
        Ok(())
    }

    async fn freshen(
        &mut self,
        at: usize,
        language: usize,
        labels: usize,
    ) -> Result<(), TestCaseError> {
        let mut head = self.head(language, labels);
        let Some(model) = self.model.get_mut(&(at, language)) else {
            return Ok(());
        };
        let key = key(KEYS[at]);
        let resource = self.fixture.store.lookup(&key).await.unwrap().unwrap();
        let stored = resource
            .variants
            .iter()
            .find(|one| one.head.variant == head.variant)
            .unwrap();
        model.freshened += 1;
        model.labels = labels;
        model.mark = Mark::None;
        head.headers.insert("age", model.freshened.into());
        let ticket = self.fixture.store.ticket();
        let published = self.fixture.store.freshen(ticket, &key, stored, head);
        prop_assert_eq!(published, Published::Stored);
        Ok(())
    }

    fn mark(&mut self, selects: impl Fn(usize, usize) -> bool, new: Mark) {
        for ((key, _), stored) in &mut self.model {
            if selects(*key, stored.labels) {
                stored.mark = stronger(stored.mark, new);
            }
        }
    }

    /// The first or the second group of the key's origin.
    async fn invalidate_group(&mut self, at: usize, second: bool) {
        let (name, least) = if second { ("h", 2) } else { ("g", 1) };
        let target = key(KEYS[at]);
        let groups = Names::Listed([name.as_bytes().into()].into());
        self.fixture
            .store
            .invalidate_groups(&target, &groups)
            .await
            .unwrap();
        let is_same_origin = |other: usize| key(KEYS[other]).origin() == target.origin();
        let selects = |key, labels| labels >= least && is_same_origin(key);
        self.mark(selects, Mark::Invalid);
    }

    async fn purge(&mut self, selector: usize, hard: bool) -> Result<(), TestCaseError> {
        let (selector, selects) = &selectors()[selector];
        let kind = if hard {
            PurgeKind::Hard
        } else {
            PurgeKind::Soft
        };
        let expected = self
            .model
            .iter()
            .filter(|((key, _), stored)| selects(*key, stored.labels))
            .count();
        for kind in [PurgeKind::DryRun, kind] {
            let purged = self.fixture.store.purge(selector, kind).await.unwrap();
            prop_assert_eq!(purged.count, expected as u64);
        }
        if hard {
            self.model
                .retain(|(key, _), stored| !selects(*key, stored.labels));
        } else {
            self.mark(selects, Mark::Stale);
        }
        Ok(())
    }

    async fn remove(&mut self, at: usize, language: usize) -> Result<(), TestCaseError> {
        let head = self.fixture.head(LANGUAGES[language]);
        let id = self.fixture.store.inner.namer.record(&key(KEYS[at]), &head);
        let removed = self
            .fixture
            .store
            .remove(&id.public().to_string())
            .await
            .unwrap();
        let expected = self.model.remove(&(at, language));
        prop_assert_eq!(removed.is_some(), expected.is_some());
        Ok(())
    }

    /// A fill that a purge overtook.
    async fn late_fill(&mut self, at: usize) -> Result<(), TestCaseError> {
        let key = key(KEYS[at]);
        let ticket = self.fixture.store.ticket();
        self.fixture.store.mark(&key, Mark::Stale).await.unwrap();
        self.mark(|key, _| key == at, Mark::Stale);
        let head = self.fixture.head("");
        let published = self
            .fixture
            .store
            .publish(ticket, &key, head, "late".into());
        prop_assert_eq!(published, Published::Purged);
        Ok(())
    }

    /// What a kill leaves: the files as they are after the last commit.
    async fn crash(&self) -> Fixture {
        self.fixture.store.flush().await.unwrap();
        let dir = Directory::temporary();
        copy(self.fixture.dir.path(), dir.path());
        Fixture::open(dir, small_memory).await.unwrap()
    }

    async fn check(&self) -> Result<(), TestCaseError> {
        for (at, text) in KEYS.iter().enumerate() {
            let key: CacheKey = key(text);
            let resource = self.fixture.store.lookup(&key).await.unwrap();
            let mut found = Model::new();
            for stored in resource.iter().flat_map(|resource| &resource.variants) {
                let heads = LANGUAGES.map(|language| self.fixture.head(language).variant);
                let language = heads
                    .iter()
                    .position(|one| *one == stored.head.variant)
                    .unwrap();
                let body = self.fixture.read(&key, stored).await.unwrap();
                let age = stored.head.headers.get("age");
                let freshened = age.map_or(0, |age| str::from_utf8(age).unwrap().parse().unwrap());
                let tags = (0..LABELS.len()).map(|labels| self.head(language, labels).terms.tags);
                let labels = tags
                    .into_iter()
                    .position(|one| one == stored.head.terms.tags);
                let model = Stored {
                    body,
                    freshened,
                    labels: labels.unwrap(),
                    mark: stored.head.mark,
                };
                found.insert((at, language), model);
            }
            let expected = self.model.iter().filter(|((key, _), _)| *key == at);
            let expected: Model = expected.map(|(at, what)| (*at, what.clone())).collect();
            prop_assert!(
                found == expected,
                "{key}: {} {}",
                show(&found),
                show(&expected)
            );
        }
        Ok(())
    }
}

fn show(model: &Model) -> String {
    let items = model.iter().map(|(at, stored)| {
        format!(
            "{at:?} {} bytes from {:?}, {}, {}, {:?}",
            stored.body.len(),
            stored.body.first(),
            stored.freshened,
            stored.labels,
            stored.mark
        )
    });
    format!("[{}]", items.collect::<Vec<_>>().join("; "))
}

/// A data directory as a kill would leave it now.
pub(super) fn copy(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&target).unwrap();
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn every_history_leaves_what_the_model_has(
        actions in vec(action(), 1..30),
        checks_often in any::<bool>(),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut history = History::new().await;
            for action in &actions {
                history = history.apply(action).await?;
                // A check looks everything up, which promotes: histories without are of another kind.
                if checks_often {
                    history.check().await?;
                }
            }
            history.check().await?;
            let dir = history.fixture.close().await;
            history.fixture = Fixture::open(dir, small_memory).await.unwrap();
            history.check().await?;
            // Nothing that was replaced, evicted or removed is left where labels are looked for.
            let all = Selector::Prefix(String::new());
            history.fixture.store.purge(&all, PurgeKind::Hard).await.unwrap();
            let inner = &history.fixture.store.inner;
            prop_assert_eq!(inner.disk.as_ref().unwrap().tag_rows(), 0);
            prop_assert_eq!(inner.disk.as_ref().unwrap().bytes(), 0);
            Ok(())
        })?;
    }
}
