//! Tables and rows of `queue.redb`.
//!
//! | Table | Key | Value |
//! |---|---|---|
//! | `items` | id | [`ItemRow`] |
//! | `contents` | id | [`ContentRow`], until the write's end |
//! | `answers` | id | [`Answer`](super::super::Answer), of ended writes |
//! | `keys` | hash of an idempotency key and whose it is | [`KeyRow`] |
//! | `ended` | time of the end, id | [`EndedRow`] |
//! | `audit` | running number | [`AuditEntry`](super::AuditEntry) |
//! | `meta` | `format`, `seed`, `counters`, `pauses`, `clock-steps` | `u32`, [`Codec`](super::codec::Codec), [`Counters`], [`Pause`](super::Pause)s, [`ClockStep`](crate::queue::timeline::ClockStep)s |

use std::borrow::Cow;

use redb::TableDefinition;
use serde::{Deserialize, Serialize};

use super::{
    super::item::{Content, Item, ItemId},
    change::KeyHash,
};
use crate::policy::Timestamp;

pub(super) type IdTable = TableDefinition<'static, &'static [u8; 16], &'static [u8]>;

pub(super) const ITEMS: IdTable = TableDefinition::new("items");
pub(super) const CONTENTS: IdTable = TableDefinition::new("contents");
pub(super) const ANSWERS: IdTable = TableDefinition::new("answers");
pub(super) const KEYS: TableDefinition<'_, &[u8; 32], &[u8]> = TableDefinition::new("keys");
pub(super) const ENDED: TableDefinition<'_, &[u8; 24], &[u8]> = TableDefinition::new("ended");
pub(super) const AUDIT: TableDefinition<'_, &[u8; 8], &[u8]> = TableDefinition::new("audit");
pub(super) const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");

/// Names of the tables, for checksums.
pub(super) mod name {
    pub(in super::super) const ITEMS: &str = "items";
    pub(in super::super) const CONTENTS: &str = "contents";
    pub(in super::super) const ANSWERS: &str = "answers";
    pub(in super::super) const KEYS: &str = "keys";
    pub(in super::super) const ENDED: &str = "ended";
    pub(in super::super) const AUDIT: &str = "audit";
    pub(in super::super) const META: &str = "meta";
}

/// Keys of `meta`. The first two are of records without a seed.
pub(super) mod meta {
    pub(in super::super) const FORMAT: &str = "format";
    pub(in super::super) const SEED: &str = "seed";
    pub(in super::super) const COUNTERS: &str = "counters";
    pub(in super::super) const PAUSES: &str = "pauses";
    pub(in super::super) const CLOCK_STEPS: &str = "clock-steps";
}

/// The number of this layout. Another one is not touched.
pub(super) const FORMAT: u32 = 2;

/// The changing part of a write.
#[derive(Serialize, Deserialize)]
pub(super) struct ItemRow<'a> {
    /// The transaction that wrote it: of two records of a write, the one with the higher number is right.
    pub(super) revision: u64,
    pub(super) recorded_at: Timestamp,
    pub(super) item: Cow<'a, Item>,
}

/// The part of a write that does not change, and what it takes to make its item again when that is damaged.
#[derive(Serialize, Deserialize)]
pub(super) struct ContentRow<'a> {
    pub(super) revision: u64,
    pub(super) accepted: Cow<'a, Item>,
    pub(super) key: Option<KeyHash>,
    pub(super) content: Cow<'a, Content>,
}

/// Whose an idempotency key is.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct KeyRow {
    pub(super) id: ItemId,
    /// Of the body it came with.
    pub(super) body_sha256: [u8; 32],
}

/// What goes with the receipt of an ended write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EndedRow {
    pub(super) key: Option<KeyHash>,
    pub(super) answer_bytes: u64,
}

/// Running numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counters {
    /// Transactions so far.
    pub(super) revision: u64,
    /// The last write's number for people.
    pub(super) seq: u64,
    /// The last id given.
    pub(super) last_id: Option<ItemId>,
    /// The last audit entry's number.
    pub(super) audit: u64,
    /// Writes that were removed for good: `seq` less this is how many records there should be.
    pub(super) removed: u64,
    /// Bytes of all answers.
    pub(super) answer_bytes: u64,
}

/// The key of a row of `ended`: earlier ends first.
pub(super) fn ended_key(at: Timestamp, id: ItemId) -> [u8; 24] {
    let mut key = [0; 24];
    // With the sign bit flipped, negative times sort before positive ones.
    let at = at.as_millis().cast_unsigned() ^ (1 << 63);
    key[..8].copy_from_slice(&at.to_be_bytes());
    key[8..].copy_from_slice(id.as_bytes());
    key
}

/// What [`ended_key`] was made of.
pub(super) fn parse_ended_key(key: &[u8; 24]) -> (Timestamp, ItemId) {
    let (mut at, mut id) = ([0; 8], [0; 16]);
    at.copy_from_slice(&key[..8]);
    id.copy_from_slice(&key[8..]);
    let millis = (u64::from_be_bytes(at) ^ (1 << 63)).cast_signed();
    (Timestamp::from_millis(millis), ItemId::from_bytes(id))
}

#[cfg(test)]
mod tests {
    use super::{ended_key, parse_ended_key};
    use crate::{policy::Timestamp, queue::ItemId};

    #[test]
    fn ended_writes_sort_by_time_and_their_keys_say_it() {
        let id = ItemId::from_bytes([7; 16]);
        let times = [i64::MIN, -1, 0, 1, 1_700_000_000_000, i64::MAX];
        let keys = times.map(|millis| ended_key(Timestamp::from_millis(millis), id));
        assert!(keys.is_sorted());
        for (key, millis) in keys.iter().zip(times) {
            assert_eq!(parse_ended_key(key), (Timestamp::from_millis(millis), id));
        }
    }
}
