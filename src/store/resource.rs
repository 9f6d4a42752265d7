//! What is stored under one key: immutable values that are shared, and copied on write.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
};

use bytes::Bytes;

use super::{
    id::RecordId,
    labels::{Filed, Label, LabelIndex},
};
use crate::policy::{CacheKey, Mark, StoredHead, Timestamp};

/// More variants than this of one key are not kept: the oldest go.
pub(super) const VARIANTS_MAX: usize = 32;

/// Bytes of a body file that share one checksum: what is read and verified at a time.
pub(super) const BLOCK_BYTES: usize = 256 * 1024;

/// Every stored response of one key: the variants. Immutable; a change publishes a new one.
#[derive(Debug)]
pub struct Resource {
    /// The key.
    pub key: CacheKey,
    /// The variants, most recently stored first; at least one, at most 32.
    pub variants: Vec<Arc<StoredResponse>>,
    // False while the disk may hold variants that this lacks: then only `Store::lookup` knows them all.
    complete: AtomicBool,
    // Whether it was read from the disk and is not in memory.
    on_disk: AtomicBool,
}

/// One stored response.
#[derive(Debug)]
pub struct StoredResponse {
    /// Its head.
    pub head: StoredHead,
    /// Its body.
    pub body: StoredBody,
    id: RecordId,
    hits: AtomicU64,
    validated_ahead: AtomicBool,
    // When its use was last reported to the disk tier: milliseconds since the epoch.
    reported: AtomicI64,
    // That it is found by its labels; `None`: it has none, or is not where labels are looked for.
    filed: Option<Arc<Filed>>,
}

/// Where the body of a stored response is.
#[derive(Clone, Debug)]
pub enum StoredBody {
    /// In memory, whole.
    Memory(Bytes),
    /// In a body file, read and verified block by block.
    File(BodyFile),
}

/// A body file: its name, length and block checksums.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BodyFile {
    pub(super) id: u64,
    pub(super) len: u64,
    pub(super) blocks: Arc<[u64]>,
}

/// What a purge or an invalidation makes of a stored response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Remove,
    Mark(Mark),
}

impl Resource {
    pub(super) fn new(
        key: CacheKey,
        variants: Vec<Arc<StoredResponse>>,
        complete: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            key,
            variants,
            complete: AtomicBool::new(complete),
            on_disk: AtomicBool::new(false),
        })
    }

    /// Says that it was read from the disk and stays there.
    pub(super) fn set_on_disk(&self) {
        self.on_disk.store(true, Ordering::Relaxed);
    }

    pub(super) fn is_on_disk(&self) -> bool {
        self.on_disk.load(Ordering::Relaxed)
    }

    pub(super) fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Acquire)
    }

    /// Says that the disk holds no variant that this lacks.
    pub(super) fn set_complete(&self) {
        self.complete.store(true, Ordering::Release);
    }

    /// Whether something newer has taken the place of `stored`, one of its variants.
    pub fn has_newer_than(&self, stored: &StoredResponse) -> bool {
        self.variants.iter().any(|known| {
            known.id == stored.id && known.head.response_time > stored.head.response_time
        })
    }

    pub(super) fn has(&self, id: RecordId) -> bool {
        self.variants.iter().any(|variant| variant.id == id)
    }
}

impl StoredResponse {
    pub(super) const fn new(id: RecordId, head: StoredHead, body: StoredBody) -> Self {
        Self {
            head,
            body,
            id,
            hits: AtomicU64::new(0),
            validated_ahead: AtomicBool::new(false),
            reported: AtomicI64::new(0),
            filed: None,
        }
    }

    /// Makes it known to the index under its labels, before it can be found in memory or waits for the disk.
    pub(super) fn file(&mut self, index: &Arc<LabelIndex>, key: &CacheKey) {
        if let Some(variation) = &self.head.terms.search {
            index.searches.note(key.split_query().0, variation);
        }
        self.filed = index.file(key, index.labels(key, Some(&self.head.terms)));
    }

    /// What it is filed under.
    pub(super) fn labels(&self) -> &[Label] {
        self.filed.as_ref().map_or(&[], |filed| filed.labels())
    }

    pub(super) fn is_labelled(&self, labels: &[Label]) -> bool {
        self.labels().iter().any(|own| labels.contains(own))
    }

    /// With what an earlier version of it, or its record, knew about its use.
    pub(super) fn with_use(mut self, hits: u64, reported: i64) -> Self {
        self.hits = AtomicU64::new(hits);
        self.reported = AtomicI64::new(reported);
        self
    }

    /// The same body under another head.
    pub(super) fn with_head(&self, id: RecordId, head: StoredHead) -> Self {
        Self::new(id, head, self.body.clone())
            .with_use(self.hits(), self.reported.load(Ordering::Relaxed))
    }

    /// The same response, marked; `None` where the mark says nothing new.
    pub(super) fn marked(&self, mark: Mark) -> Option<Self> {
        let mark = stronger(self.head.mark, mark);
        (mark != self.head.mark).then(|| {
            let mut head = self.head.clone();
            head.mark = mark;
            let mut marked = self.with_head(self.id, head);
            marked.filed.clone_from(&self.filed);
            marked
        })
    }

    pub(super) fn id(&self) -> RecordId {
        self.id
    }

    /// Hits since it entered memory, or as last recorded on disk.
    pub fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }

    /// Whether a validation ahead of its end has begun.
    pub fn is_validated_ahead(&self) -> bool {
        self.validated_ahead.load(Ordering::Relaxed)
    }

    /// Says that one begins. `false` when one had begun before: a stored response is worth one, and what came of it is
    /// another one, or a failure.
    pub fn begin_validation_ahead(&self) -> bool {
        !self.validated_ahead.swap(true, Ordering::Relaxed)
    }

    /// Says that what [`Self::begin_validation_ahead`] announced does not begin after all.
    pub fn forgo_validation_ahead(&self) {
        self.validated_ahead.store(false, Ordering::Relaxed);
    }

    pub(super) fn count_hit(&self) {
        self.hits.fetch_add(1, Ordering::Relaxed);
    }

    /// Whether its use is to be reported to the disk tier: not more often than every `interval_millis`, in whichever
    /// direction the clock went.
    pub(super) fn report_is_due(&self, now: Timestamp, interval_millis: u64) -> bool {
        let reported = self.reported.load(Ordering::Relaxed);
        now.as_millis().abs_diff(reported) >= interval_millis
    }

    pub(super) fn set_reported(&self, now: Timestamp) {
        self.reported.store(now.as_millis(), Ordering::Relaxed);
    }

    /// Bytes it takes in memory, roughly.
    pub(super) fn weight(&self) -> u64 {
        let fields = self.head.headers.heap_bytes();
        let body = match &self.body {
            StoredBody::Memory(bytes) => bytes.len(),
            StoredBody::File(file) => file.blocks.len() * 8,
        };
        let filed = self.filed.as_ref().map_or(0, |filed| filed.weight());
        let terms = self.head.terms.heap_bytes();
        (size_of::<Self>() + fields + terms + body) as u64 + filed
    }
}

impl StoredBody {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        match self {
            Self::Memory(bytes) => bytes.len() as u64,
            Self::File(file) => file.len(),
        }
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl BodyFile {
    /// Its length in bytes.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes: never, for an empty body needs no file.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The length of block `index`: all but the last are whole.
    pub(super) fn block_len(&self, index: usize) -> usize {
        let start = index as u64 * BLOCK_BYTES as u64;
        let left = self.len.saturating_sub(start);
        usize::try_from(left).map_or(BLOCK_BYTES, |left| left.min(BLOCK_BYTES))
    }
}

/// The mark that says more: an invalidation outranks a soft purge.
pub(super) fn stronger(one: Mark, other: Mark) -> Mark {
    match (one, other) {
        (Mark::Invalid, _) | (_, Mark::Invalid) => Mark::Invalid,
        (Mark::Stale, _) | (_, Mark::Stale) => Mark::Stale,
        (Mark::None, Mark::None) => Mark::None,
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{StoredBody, StoredResponse};
    use crate::{
        policy::{Settings, StoredHead, Terms, Timestamp},
        store::id::{RECORD_ID_BYTES, RecordId},
    };

    #[test]
    fn the_names_that_a_response_keeps_besides_its_fields_weigh_with_it() {
        let weight = |head: &StoredHead| {
            let body = StoredBody::Memory(Bytes::new());
            StoredResponse::new(RecordId([0; RECORD_ID_BYTES]), head.clone(), body).weight()
        };
        let name = "x".repeat(200);
        for (field, text) in [
            ("surrogate-key", name.clone()),
            ("cache-groups", format!("\"{name}\"")),
            ("no-vary-search", format!("params=(\"{name}\")")),
            ("no-vary-search", format!("except=(\"{name}\")")),
        ] {
            let time = Timestamp::from_secs(0);
            let mut head = crate::store::tests::head(time, "");
            head.headers.insert(field, text.parse().unwrap());
            let without = weight(&head);
            let settings = Settings::default();
            head.terms = Terms::parse(head.status, &head.headers.to_map(), &settings, time, time);
            assert!(weight(&head) >= without + 200, "{field}: {text}");
        }
    }
}
