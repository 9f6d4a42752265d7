//! The purge log: what was purged or invalidated, so that it wins over every fill and read that began before.
//!
//! A ticket is the number of the last purge when a fill began. Whoever publishes shows it and is refused when a later
//! purge selects its key, or when the log no longer reaches back so far. Invalidations of one key or label are no part of
//! the log, for there may be any number: fixed tables of [`SLOTS`] slots have the last ones by the hashes of keys, and of
//! labels. Who does not know yet what it is filed under counts as filed under everything (`labels_of`). Purges whose work
//! on disk is not done yet are in force for whatever is read from disk meanwhile; how many were done says whether what
//! was read can be from before one that is no longer in force. Bounds: [`LOG_MAX`] purges,
//! [`SELECTOR_JOBS_MAX`] in force.
//!
//! [`SELECTOR_JOBS_MAX`]: super::pending::SELECTOR_JOBS_MAX

use std::{
    collections::VecDeque,
    hash::{BuildHasher, Hash},
    sync::{
        PoisonError, RwLock, RwLockReadGuard,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::fast::RandomState;

use super::{
    Ticket,
    labels::Label,
    matcher::Matcher,
    resource::{Effect, StoredResponse},
};
use crate::policy::CacheKey;

/// A fill seldom outlasts so many purges; one that does is not stored.
const LOG_MAX: usize = 1_024;

/// Keys, or labels, of one slot share its memory: a fill may be refused in vain when others of its slot were invalidated
/// meanwhile, which costs a fetch. For keys, of which every write invalidates one, that takes two others ([`KeySlot`]).
const SLOTS: usize = 16 * 1_024;

#[derive(Debug, Default)]
pub(super) struct PurgeLog {
    latest: AtomicU64,
    entries: RwLock<Entries>,
}

#[derive(Debug)]
pub(super) struct Entries {
    latest: u64,
    log: VecDeque<(u64, Matcher)>,
    // The last purge that the log had no room for.
    forgotten: u64,
    // The last invalidations of keys of each slot.
    keys: Box<[KeySlot]>,
    // The last purge of a label of each slot, and the last of all of them.
    labels: Box<[u64]>,
    latest_of_labels: u64,
    hasher: RandomState,
    in_force: Vec<(u64, Matcher, Effect)>,
    ended: u64,
}

/// The last invalidations of the keys that share a slot.
#[derive(Clone, Copy, Debug, Default)]
struct KeySlot {
    /// Of the key that was invalidated last.
    hash: u64,
    number: u64,
    /// The last one of any other key.
    others: u64,
}

/// A purge that is in force until this is dropped.
#[derive(Debug)]
pub(super) struct InForce {
    log: std::sync::Arc<PurgeLog>,
    number: u64,
}

impl PurgeLog {
    pub(super) fn ticket(&self) -> Ticket {
        Ticket(self.latest.load(Ordering::Acquire))
    }

    /// Whether nothing at all was purged since `ticket`: nearly always so.
    pub(super) fn is_latest(&self, ticket: Ticket) -> bool {
        ticket.0 == self.latest.load(Ordering::Acquire)
    }

    /// Holds off purges: what is published meanwhile is there for the next purge to find.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, Entries> {
        self.entries.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that `key` is invalidated, by way of the overlay.
    pub(super) fn invalidate(&self, key: &CacheKey) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let number = entries.invalidate(key);
        self.latest.store(number, Ordering::Release);
    }

    /// Notes that `key` is invalidated for the sake of what will take its place: that is current under the ticket returned,
    /// unless something else was purged since `ticket`; `labels` are those that what comes may have.
    pub(super) fn renew(&self, ticket: Ticket, key: &CacheKey, labels: &[Label]) -> Option<Ticket> {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        let was_current = entries.is_current(ticket, key, labels);
        let number = entries.invalidate(key);
        self.latest.store(number, Ordering::Release);
        was_current.then_some(Ticket(number))
    }

    /// Notes that what is filed under any of `labels` is invalidated.
    pub(super) fn invalidate_labelled(&self, labels: &[Label]) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.latest += 1;
        entries.note_labels(labels);
        self.latest.store(entries.latest, Ordering::Release);
    }

    /// Notes that marks were made on disk which lookups had to know of until now.
    pub(super) fn note_ended(&self) {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.ended += 1;
    }

    /// Logs a purge that stays in force until its work on disk is done.
    pub(super) fn begin(self: &std::sync::Arc<Self>, matcher: Matcher, effect: Effect) -> InForce {
        InForce {
            log: self.clone(),
            number: self.append(matcher, effect),
        }
    }

    fn append(&self, matcher: Matcher, effect: Effect) -> u64 {
        let mut entries = self.entries.write().unwrap_or_else(PoisonError::into_inner);
        entries.latest += 1;
        let number = entries.latest;
        entries.in_force.push((number, matcher.clone(), effect));
        match matcher {
            Matcher::Labels(labels) => entries.note_labels(&labels),
            matcher => entries.note(matcher),
        }
        self.latest.store(number, Ordering::Release);
        number
    }
}

impl Entries {
    /// Whether no purge of `key`, or of what is filed under one of `labels`, came since `ticket`.
    pub(super) fn is_current(&self, ticket: Ticket, key: &CacheKey, labels: &[Label]) -> bool {
        if ticket.0 == self.latest {
            return true;
        }
        let hash = self.key_hash(key);
        if self.forgotten > ticket.0 || self.keys[slot_of(hash)].last_of(hash) > ticket.0 {
            return false;
        }
        if self.latest_of_labels > ticket.0
            && labels
                .iter()
                .any(|label| self.labels[self.slot(label)] > ticket.0)
        {
            return false;
        }
        let since = self.log.iter().rev();
        let mut since = since.take_while(|(number, _)| *number > ticket.0);
        !since.any(|(_, matcher)| matcher.matches(key) || matcher.may_select(key, labels))
    }

    fn invalidate(&mut self, key: &CacheKey) -> u64 {
        self.latest += 1;
        let hash = self.key_hash(key);
        self.keys[slot_of(hash)].note(hash, self.latest);
        self.latest
    }

    /// The queries to a URI have its hash: what invalidates the URI wins over their fills too.
    fn key_hash(&self, key: &CacheKey) -> u64 {
        let target = key.query_target();
        let target = target.as_ref().unwrap_or(key).as_str();
        self.hasher.hash_one(target)
    }

    fn note(&mut self, matcher: Matcher) {
        if self.log.len() == LOG_MAX
            && let Some((forgotten, _)) = self.log.pop_front()
        {
            self.forgotten = forgotten;
        }
        self.log.push_back((self.latest, matcher));
    }

    fn note_labels(&mut self, labels: &[Label]) {
        for label in labels {
            let slot = self.slot(label);
            self.labels[slot] = self.latest;
        }
        self.latest_of_labels = self.latest;
    }

    fn slot(&self, named: impl Hash) -> usize {
        slot_of(self.hasher.hash_one(named))
    }

    /// How many purges are no longer in force since their work on disk is done.
    pub(super) fn ended(&self) -> u64 {
        self.ended
    }

    #[cfg(test)]
    pub(super) fn in_force_of(&self, key: &CacheKey) -> usize {
        let in_force = self.in_force.iter();
        in_force
            .filter(|(_, matcher, _)| matcher.matches(key))
            .count()
    }

    /// What purges in force do to a response that is still on disk.
    pub(super) fn effects<'a>(
        &'a self,
        key: &'a CacheKey,
        stored: &'a StoredResponse,
    ) -> impl Iterator<Item = Effect> + 'a {
        self.in_force
            .iter()
            .filter(|(_, matcher, _)| matcher.selects(key, stored))
            .map(|(_, _, effect)| *effect)
    }
}

impl KeySlot {
    fn note(&mut self, hash: u64, number: u64) {
        if self.hash != hash {
            self.others = self.number;
            self.hash = hash;
        }
        self.number = number;
    }

    /// The number of the last invalidation that may be of the key with this hash.
    fn last_of(&self, hash: u64) -> u64 {
        if self.hash == hash {
            self.number
        } else {
            self.others
        }
    }
}

fn slot_of(hash: u64) -> usize {
    usize::try_from(hash % SLOTS as u64).unwrap_or_default()
}

impl Default for Entries {
    fn default() -> Self {
        Self {
            latest: 0,
            log: VecDeque::new(),
            forgotten: 0,
            keys: vec![KeySlot::default(); SLOTS].into(),
            labels: vec![0; SLOTS].into(),
            latest_of_labels: 0,
            hasher: RandomState::default(),
            in_force: Vec::new(),
            ended: 0,
        }
    }
}

impl Drop for InForce {
    fn drop(&mut self) {
        let mut entries = self
            .log
            .entries
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        entries
            .in_force
            .retain(|(number, _, _)| *number != self.number);
        entries.ended += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::{LOG_MAX, Label, Matcher, PurgeLog, StoredResponse};
    use crate::{
        policy::{CacheKey, Timestamp},
        store::{
            id::{RECORD_ID_BYTES, RecordId},
            labels::labels_of,
            resource::{Effect, StoredBody},
        },
    };

    fn key(text: &str) -> CacheKey {
        CacheKey::from_text(text)
    }

    #[test]
    fn a_purge_wins_over_the_tickets_before_it_and_over_no_others() {
        let log = PurgeLog::default();
        let (purged, other) = (key("http://a/"), key("http://b/"));
        let before = log.ticket();
        let is_current = |ticket, key| log.read().is_current(ticket, key, &[]);
        assert!(is_current(before, &purged));
        log.invalidate(&purged);
        assert!(!is_current(before, &purged));
        assert!(is_current(before, &other));
        assert!(is_current(log.ticket(), &purged));
    }

    #[test]
    fn who_invalidates_to_replace_gets_a_ticket_unless_somebody_else_purged_meanwhile() {
        let log = Arc::new(PurgeLog::default());
        let (target, query) = (key("http://a/"), key("~query-d http://a/"));
        let ticket = log.ticket();
        let renewed = log.renew(ticket, &target, &[]).unwrap();
        assert!(log.read().is_current(renewed, &target, &[]));
        assert!(!log.read().is_current(ticket, &target, &[]));
        assert!(
            !log.read().is_current(ticket, &query, &[]),
            "the queries have the hash of their target"
        );
        drop(log.begin(Matcher::Uri("http://a/".to_owned()), Effect::Remove));
        assert!(!log.read().is_current(renewed, &target, &[]));
        assert_eq!(log.renew(renewed, &target, &[]), None);
    }

    #[test]
    fn a_ticket_older_than_the_log_is_refused() {
        let log = Arc::new(PurgeLog::default());
        let other = key("http://b/");
        let purge = || drop(log.begin(Matcher::Uri("http://a/".to_owned()), Effect::Remove));
        let first = log.ticket();
        purge();
        let second = log.ticket();
        (0..LOG_MAX).for_each(|_| purge());
        assert!(!log.read().is_current(first, &other, &[]));
        assert!(log.read().is_current(second, &other, &[]));
    }

    /// Once these went to the log, which then refused every fill in progress; and once a key that shared the slot of
    /// another was refused by its invalidation, one in 16,384 of them.
    #[test]
    fn any_number_of_invalidations_of_another_key_refuses_no_fill() {
        let log = PurgeLog::default();
        let filling = key("http://a/");
        let slot = |key: &CacheKey| super::slot_of(log.read().key_hash(key));
        let neighbours: Vec<CacheKey> = (0..)
            .map(|number| key(&format!("http://b/{number}")))
            .filter(|other| slot(other) == slot(&filling))
            .take(2)
            .collect();
        let ticket = log.ticket();
        let is_current = |key: &CacheKey| log.read().is_current(ticket, key, &[]);
        for _ in 0..=LOG_MAX {
            log.invalidate(&neighbours[0]);
        }
        assert!(is_current(&filling) && is_current(&neighbours[1]));
        assert!(!is_current(&neighbours[0]));
        log.invalidate(&filling);
        assert!(!is_current(&filling) && !is_current(&neighbours[0]));
        // What the slot has no room to tell apart is refused, never let through.
        log.invalidate(&neighbours[1]);
        assert!(!is_current(&filling) && !is_current(&neighbours[0]));
    }

    #[test]
    fn a_purge_of_a_label_wins_over_what_has_it_or_may_have_it() {
        let log = Arc::new(PurgeLog::default());
        let (filling, other) = (key("http://a/"), key("http://b/"));
        let (tag, group) = (Label::tag(b"x"), Label::group("http://a", b"x"));
        let unknown = labels_of(&filling, None);
        let unknown_elsewhere = labels_of(&other, None);
        let ticket = log.ticket();
        let is_current = |labels: &[Label]| log.read().is_current(ticket, &filling, labels);
        log.invalidate_labelled(&[group.clone(), Label::every_group("http://a")]);
        assert!(!is_current(&[group]));
        assert!(!is_current(&unknown), "it may turn out to have the group");
        assert!(is_current(&unknown_elsewhere), "no other origin has it");
        assert!(is_current(std::slice::from_ref(&tag)));
        assert!(is_current(&[]));
        let purge = Matcher::Labels(vec![tag.clone(), Label::every_tag()]);
        drop(log.begin(purge, Effect::Remove));
        assert!(!is_current(&[tag]));
        assert!(!is_current(&unknown_elsewhere));
        assert!(is_current(&[Label::tag(b"y")]));
        assert!(is_current(&[]));
    }

    #[test]
    fn a_purge_is_in_force_until_its_work_is_done() {
        let log = Arc::new(PurgeLog::default());
        let (purged, other) = (key("http://a/"), key("http://b/"));
        let in_force = log.begin(Matcher::Uri(purged.uri().to_owned()), Effect::Remove);
        let head = crate::store::tests::head(Timestamp::from_secs(0), "");
        let id = RecordId([0; RECORD_ID_BYTES]);
        let stored = StoredResponse::new(id, head, StoredBody::Memory(Bytes::new()));
        let effects = |key: &CacheKey| log.read().effects(key, &stored).collect::<Vec<_>>();
        assert_eq!(effects(&purged), [Effect::Remove]);
        assert_eq!(effects(&other), []);
        drop(in_force);
        assert_eq!(effects(&purged), []);
    }
}
