//! Random histories against a map: what is stored is what the map says, whatever was evicted, reopened or lost.

use std::{collections::BTreeMap, fs, path::Path};

use proptest::{collection::vec, prelude::*, test_runner::TestCaseError};

use super::{Directory, Fixture, body, key};
use crate::{
    policy::{CacheKey, Mark},
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

/// Inline, inline but alone in memory, a file, a file too large for memory, one that is streamed.
const SIZES: [usize; 6] = [0, 10, 20_000, 40_000, 300_000, 1_100_000];

#[derive(Clone, Debug)]
enum Action {
    Publish {
        key: usize,
        language: usize,
        size: usize,
    },
    Freshen {
        key: usize,
        language: usize,
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

/// What is stored under a key and a language: a body, how often its head was freshened, and its mark.
type Model = BTreeMap<(usize, usize), (Vec<u8>, u64, Mark)>;

fn selectors() -> Vec<(Selector, &'static [usize])> {
    vec![
        (Selector::Url("http://a.example/x".to_owned()), &[1, 2]),
        (Selector::Prefix("http://a.example/".to_owned()), &[0, 1, 2]),
        (Selector::Host("a.example".to_owned()), &[0, 1, 2, 3]),
        (Selector::Host("b.example".to_owned()), &[4]),
        (Selector::Prefix(String::new()), &[0, 1, 2, 3, 4]),
    ]
}

fn action() -> impl Strategy<Value = Action> {
    let (keys, languages, sizes) = (0..KEYS.len(), 0..LANGUAGES.len(), 0..SIZES.len());
    let marks = prop_oneof![Just(Mark::Stale), Just(Mark::Invalid)];
    prop_oneof![
        8 => (keys.clone(), languages.clone(), sizes)
            .prop_map(|(key, language, size)| Action::Publish { key, language, size }),
        3 => (keys.clone(), languages.clone())
            .prop_map(|(key, language)| Action::Freshen { key, language }),
        2 => (keys.clone(), marks).prop_map(|(key, mark)| Action::Mark { key, mark }),
        2 => (0..selectors().len(), any::<bool>())
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
                size,
            } => self.publish(key, language, size)?,
            Action::Freshen { key, language } => self.freshen(key, language).await?,
            Action::Mark { key: at, mark } => {
                self.fixture.store.mark(&key(KEYS[at]), mark).await.unwrap();
                self.mark(|key| key == at, mark);
            }
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

    fn publish(&mut self, at: usize, language: usize, size: usize) -> Result<(), TestCaseError> {
        self.published += 1;
        let mut body = body(SIZES[size]);
        if let Some(first) = body.first_mut() {
            *first = self.published as u8;
        }
        let head = self.fixture.head(LANGUAGES[language]);
        let published = self
            .fixture
            .publish_head(&key(KEYS[at]), head, body.clone());
        prop_assert_eq!(published, Published::Stored);
        self.model.insert((at, language), (body, 0, Mark::None));
        Ok(())
    }

    async fn freshen(&mut self, at: usize, language: usize) -> Result<(), TestCaseError> {
        let Some((_, count, mark)) = self.model.get_mut(&(at, language)) else {
            return Ok(());
        };
        let key = key(KEYS[at]);
        let mut head = self.fixture.head(LANGUAGES[language]);
        let resource = self.fixture.store.lookup(&key).await.unwrap().unwrap();
        let stored = resource
            .variants
            .iter()
            .find(|one| one.head.variant == head.variant)
            .unwrap();
        *count += 1;
        *mark = Mark::None;
        head.headers.insert("age", (*count).into());
        let ticket = self.fixture.store.ticket();
        let published = self.fixture.store.freshen(ticket, &key, stored, head);
        prop_assert_eq!(published, Published::Stored);
        Ok(())
    }

    fn mark(&mut self, selects: impl Fn(usize) -> bool, new: Mark) {
        for ((key, _), (_, _, mark)) in &mut self.model {
            if selects(*key) {
                *mark = stronger(*mark, new);
            }
        }
    }

    async fn purge(&mut self, selector: usize, hard: bool) -> Result<(), TestCaseError> {
        let (selector, keys) = &selectors()[selector];
        let kind = if hard {
            PurgeKind::Hard
        } else {
            PurgeKind::Soft
        };
        let expected = self
            .model
            .keys()
            .filter(|(key, _)| keys.contains(key))
            .count();
        for kind in [PurgeKind::DryRun, kind] {
            let purged = self.fixture.store.purge(selector, kind).await.unwrap();
            prop_assert_eq!(purged.count, expected as u64);
        }
        if hard {
            self.model.retain(|(key, _), _| !keys.contains(key));
        } else {
            self.mark(|key| keys.contains(&key), Mark::Stale);
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
        self.mark(|key| key == at, Mark::Stale);
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
                let age = age.map_or(0, |age| age.to_str().unwrap().parse().unwrap());
                found.insert((at, language), (body, age, stored.head.mark));
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
    let items = model.iter().map(|(at, (body, age, mark))| {
        format!(
            "{at:?} {} bytes from {:?}, {age}, {mark:?}",
            body.len(),
            body.first()
        )
    });
    format!("[{}]", items.collect::<Vec<_>>().join("; "))
}

fn copy(from: &Path, to: &Path) {
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
            history.check().await
        })?;
    }
}
