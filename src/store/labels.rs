//! Labels: by what else than its key a stored response is found, and the index of those in memory or on their way to disk.
//!
//! A label is a kind and a name as bytes without NUL, and the beginning of its rows in the disk tier's `tags` table.
//! Invariant: whatever is in the memory tier or waits for the disk is in the index under each of its labels, from before
//! it can be found there until it is gone. It may be there for longer (as long as somebody reads it), so who asks verifies.
//! Bound: the labels of a response weigh with it ([`Filed::weight`]). A lock of a shard is held for one change or one
//! copy, and nothing else is locked under it.

use std::{
    collections::{HashMap, hash_map},
    fmt,
    hash::BuildHasher,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};

use foldhash::fast::RandomState;
use smallvec::SmallVec;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::{
    id::{RECORD_ID_BYTES, to_hex},
    paths::Paths,
    searches::Searches,
};
use crate::policy::{CacheKey, Names, SearchVariation, Terms};

/// Enough that two changes at the same time seldom meet.
const SHARDS: usize = 64;

/// What a label costs in the index besides its text: an entry of each of two maps, in tables that are half full.
const LABEL_OVERHEAD_BYTES: u64 = 200;

const TAG: u8 = b't';
const EVERY_TAG: u8 = b'T';
const GROUP: u8 = b'g';
const EVERY_GROUP: u8 = b'G';
/// Of what is in any group at all.
const SOME_GROUP: u8 = b's';
/// Of what answers other queries too; see [`Label::search`].
const SEARCH: u8 = b'q';
/// In memory only: on disk what it selects is found by key.
const PATHS: u8 = b'p';

/// Ends the part of a label before the name. It can be in no URI and in no string of a structured field.
const SEPARATOR: u8 = 1;

/// One label.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Label(Arc<[u8]>);

/// The labels of one response; few as a rule.
pub(super) type Labels = SmallVec<[Label; 4]>;

/// The keys of every label. Cheap to share.
pub(super) struct LabelIndex {
    shards: Box<[Mutex<Shard>]>,
    hasher: RandomState,
    watched: OnceLock<Vec<(Paths, Label)>>,
    /// By which variations paths answer other queries.
    pub(super) searches: Searches,
}

type Shard = HashMap<Label, HashMap<CacheKey, usize, RandomState>, RandomState>;

/// That a response is in the index; dropping it takes the response out.
pub(super) struct Filed {
    index: Arc<LabelIndex>,
    key: CacheKey,
    labels: Labels,
}

impl Label {
    /// A tag, of whatever origin.
    pub(super) fn tag(name: &[u8]) -> Self {
        Self::of(TAG, &[name])
    }

    /// Of a response that counts as having every tag.
    pub(super) fn every_tag() -> Self {
        Self::of(EVERY_TAG, &[])
    }

    /// A group of an origin, in every partition.
    pub(super) fn group(origin: &str, name: &[u8]) -> Self {
        Self::of(GROUP, &[origin.as_bytes(), &[SEPARATOR], name])
    }

    /// Of a response that counts as having every group of its origin.
    pub(super) fn every_group(origin: &str) -> Self {
        Self::of(EVERY_GROUP, &[origin.as_bytes()])
    }

    /// Of a response that is in any group of its origin: what is invalidated where there is no telling of which.
    pub(super) fn some_group(origin: &str) -> Self {
        Self::of(SOME_GROUP, &[origin.as_bytes()])
    }

    /// What a response stored under a path (a key without its query) is, among those of the same `variation`, for a query:
    /// two queries between which no difference matters have the same label.
    pub(super) fn search(path: &str, variation: &SearchVariation, query: &str) -> Self {
        let canonical = xxh3_128(&variation.canonical(query)).to_be_bytes();
        let mut text = Self::search_prefix(path, Some(variation));
        text.extend_from_slice(to_hex(&canonical).as_bytes());
        Self(text.into())
    }

    /// Of a response that may turn out to answer any other query.
    fn any_search() -> Self {
        Self::of(SEARCH, &[])
    }

    /// Whether it is of what answers other queries too.
    pub(super) fn is_search(&self) -> bool {
        self.0.first() == Some(&SEARCH)
    }

    /// Where the labels of a path begin, those of one variation or of all.
    pub(super) fn search_prefix(path: &str, variation: Option<&SearchVariation>) -> Vec<u8> {
        let mut text = vec![SEARCH];
        text.extend_from_slice(path.as_bytes());
        text.push(SEPARATOR);
        if let Some(variation) = variation {
            let encoded = postcard::to_allocvec(variation);
            let encoded = encoded.expect("a variation is plain data without maps");
            let hash = xxh3_64(&encoded).to_be_bytes();
            text.extend_from_slice(to_hex(&hash).as_bytes());
        }
        text
    }

    /// The path at the beginning of a row of such a label; `None` where it is none.
    pub(super) fn search_path(row: &[u8]) -> Option<&str> {
        let text = row.strip_prefix(&[SEARCH])?;
        let end = text.iter().position(|byte| *byte == SEPARATOR)?;
        std::str::from_utf8(&text[..end]).ok()
    }

    /// Paths of an origin.
    pub(super) fn paths(origin: &str, pattern: &str) -> Self {
        Self::of(
            PATHS,
            &[origin.as_bytes(), &[SEPARATOR], pattern.as_bytes()],
        )
    }

    fn of(kind: u8, parts: &[&[u8]]) -> Self {
        let mut text = vec![kind];
        parts.iter().for_each(|part| text.extend_from_slice(part));
        Self(text.into())
    }

    /// Whether it is of what an origin, a path of the configuration, or a stored query has one of, and not of names as many
    /// as one answer can think up.
    pub(super) fn is_wide(&self) -> bool {
        matches!(self.0.first(), Some(&(SOME_GROUP | PATHS | SEARCH)))
    }

    /// Where its rows in the `tags` table begin.
    pub(super) fn row_prefix(&self) -> Vec<u8> {
        let mut prefix = Vec::with_capacity(self.0.len() + 1 + RECORD_ID_BYTES);
        prefix.extend_from_slice(&self.0);
        prefix.push(0);
        prefix
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Label({})", String::from_utf8_lossy(&self.0))
    }
}

/// The labels under which a response with these terms is filed on disk. Without any, as while a fill has no answer: what it may
/// come to have, which is everything.
pub(super) fn labels_of(key: &CacheKey, terms: Option<&Terms>) -> Labels {
    let origin = key.origin();
    let Some(terms) = terms else {
        let every = [
            Label::every_tag(),
            Label::every_group(origin),
            Label::some_group(origin),
            Label::any_search(),
        ];
        return every.into_iter().collect();
    };
    let tags = &terms.tags;
    let mut labels = Labels::new();
    match &tags.tags {
        Names::Every => labels.push(Label::every_tag()),
        Names::Listed(names) => labels.extend(names.iter().map(|name| Label::tag(name))),
    }
    if let Some(variation) = &terms.search {
        let (path, query) = key.split_query();
        labels.push(Label::search(path, variation, query));
    }
    match &tags.groups {
        Names::Every => labels.push(Label::every_group(origin)),
        Names::Listed(names) => labels.extend(names.iter().map(|name| Label::group(origin, name))),
    }
    if tags.groups != Names::default() {
        labels.push(Label::some_group(origin));
    }
    labels
}

impl LabelIndex {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self {
            shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
            hasher: RandomState::default(),
            watched: OnceLock::new(),
            searches: Searches::default(),
        })
    }

    /// Has responses under these paths filed under a label each; once, before anything is filed.
    pub(super) fn watch(&self, paths: Vec<Paths>) {
        let mut watched: Vec<(Paths, Label)> = Vec::with_capacity(paths.len());
        for paths in paths {
            let label = paths.label();
            if watched.iter().all(|(_, known)| *known != label) {
                watched.push((paths, label));
            }
        }
        // A second gateway on one store would have the same routes.
        let _ = self.watched.set(watched);
    }

    /// The labels of a response, those of watched paths among them. Without terms see [`labels_of`].
    pub(super) fn labels(&self, key: &CacheKey, terms: Option<&Terms>) -> Labels {
        let mut labels = labels_of(key, terms);
        let watched = self.watched.get().into_iter().flatten();
        let of_key = watched.filter(|(paths, _)| paths.match_key(key));
        labels.extend(of_key.map(|(_, label)| label.clone()));
        labels
    }

    /// The paths of a label, where it is one of watched paths.
    pub(super) fn paths_of(&self, label: &Label) -> Option<&Paths> {
        let mut watched = self.watched.get()?.iter();
        watched.find_map(|(paths, own)| (own == label).then_some(paths))
    }

    /// Files a response under these labels; `None` where it has none.
    pub(super) fn file(self: &Arc<Self>, key: &CacheKey, labels: Labels) -> Option<Arc<Filed>> {
        if labels.is_empty() {
            return None;
        }
        for label in &labels {
            let mut shard = self.shard(label);
            let keys = shard.entry(label.clone()).or_default();
            *keys.entry(key.clone()).or_default() += 1;
        }
        Some(Arc::new(Filed {
            index: self.clone(),
            key: key.clone(),
            labels,
        }))
    }

    /// Every key with a response under this label, perhaps some that no longer have one.
    pub(super) fn keys(&self, label: &Label) -> Vec<CacheKey> {
        self.keys_up_to(label, usize::MAX)
    }

    /// Any of them, at most `limit`: what that costs does not grow with how many there are.
    pub(super) fn keys_up_to(&self, label: &Label, limit: usize) -> Vec<CacheKey> {
        let shard = self.shard(label);
        let keys = shard.get(label).into_iter().flatten().take(limit);
        keys.map(|(key, _)| key.clone()).collect()
    }

    fn shard(&self, label: &Label) -> MutexGuard<'_, Shard> {
        let hash = self.hasher.hash_one(label);
        let shard = &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or_default()];
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_out(&self, key: &CacheKey, label: &Label) {
        let mut shard = self.shard(label);
        let hash_map::Entry::Occupied(mut keys) = shard.entry(label.clone()) else {
            return;
        };
        if let hash_map::Entry::Occupied(mut count) = keys.get_mut().entry(key.clone()) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        if keys.get().is_empty() {
            keys.remove();
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        let is_empty = |shard: &Mutex<Shard>| shard.lock().unwrap().is_empty();
        self.shards.iter().all(is_empty)
    }
}

impl Filed {
    pub(super) fn labels(&self) -> &[Label] {
        &self.labels
    }

    /// Bytes it takes in memory, roughly.
    pub(super) fn weight(&self) -> u64 {
        let weight = |label: &Label| label.0.len() as u64 + LABEL_OVERHEAD_BYTES;
        self.labels.iter().map(weight).sum()
    }
}

impl Drop for Filed {
    fn drop(&mut self) {
        for label in &self.labels {
            self.index.take_out(&self.key, label);
        }
    }
}

impl fmt::Debug for Filed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filed").field(&self.labels).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Label, LabelIndex, Labels};
    use crate::policy::CacheKey;

    fn labels(names: &[&str]) -> Labels {
        let label = |name: &&str| Label::tag(name.as_bytes());
        names.iter().map(label).collect()
    }

    #[test]
    fn a_key_is_found_under_a_label_as_long_as_one_response_of_it_is_filed_there() {
        let index = LabelIndex::new();
        let (one, two) = (
            CacheKey::from_text("http://a/1"),
            CacheKey::from_text("http://a/2"),
        );
        let keys = |name: &str| {
            let mut keys = index.keys(&Label::tag(name.as_bytes()));
            keys.sort();
            keys
        };
        let first = index.file(&one, labels(&["a", "b"]));
        let second = index.file(&one, labels(&["a"]));
        let other = index.file(&two, labels(&["a"]));
        assert_eq!(keys("a"), [one.clone(), two.clone()]);
        assert_eq!(keys("b"), std::slice::from_ref(&one));
        assert_eq!(index.keys_up_to(&Label::tag(b"a"), 1).len(), 1);
        drop(first);
        assert_eq!(keys("a"), [one, two.clone()]);
        assert_eq!(keys("b"), []);
        drop(second);
        assert_eq!(keys("a"), [two]);
        drop(other);
        assert!(index.is_empty());
        assert!(
            index
                .file(&CacheKey::from_text("http://a/"), Labels::new())
                .is_none()
        );
    }

    #[test]
    fn no_label_is_another_ones_beginning() {
        let all = [
            Label::tag(b"a"),
            Label::tag(b"ab"),
            Label::group("http://a", b"b"),
            Label::group("http://ab", b""),
            Label::group("http://a", b""),
            Label::every_group("http://a"),
            Label::some_group("http://a"),
            Label::some_group("http://ab"),
            Label::every_tag(),
        ];
        for one in &all {
            for other in all.iter().filter(|other| *other != one) {
                assert!(
                    !other.row_prefix().starts_with(&one.row_prefix()),
                    "{one:?} {other:?}"
                );
            }
        }
    }
}
