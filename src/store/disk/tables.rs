//! The tables of `cache.redb` and their fixed-size rows.
//!
//! | Table | Key | Value |
//! |---|---|---|
//! | `records` | record name (24) | a record, see [`crate::store::codec`] |
//! | `usage` | record name (24) | [`Usage`]: what changes without the response |
//! | `recency` | turn of last use (u64, big-endian), record name | nothing; in eviction order |
//! | `uris` | URI, `0x00`, partition, record name | nothing; in listing order, and by prefix for purges |
//! | `tags` | label, `0x00`, record name | nothing; see [`crate::store::labels`], by label for purges |
//! | `bodies` | name of a body file (u64) | the record that it belongs to |
//! | `state` | nothing | [`State`]: format, seed, totals |
//!
//! A turn is the number of the batch, not a time: the order of use survives any step of the clock.

use redb::TableDefinition;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use crate::{
    policy::{CacheKey, Mark},
    store::{
        id::{RECORD_ID_BYTES, RecordId},
        labels::Label,
    },
};

pub(super) const RECORDS: TableDefinition<'_, &[u8; RECORD_ID_BYTES], &[u8]> =
    TableDefinition::new("records");
pub(super) const USAGE: TableDefinition<'_, &[u8; RECORD_ID_BYTES], &[u8; USAGE_BYTES]> =
    TableDefinition::new("usage");
pub(super) const RECENCY: TableDefinition<'_, &[u8; RECENCY_BYTES], ()> =
    TableDefinition::new("recency");
pub(super) const URIS: TableDefinition<'_, &[u8], ()> = TableDefinition::new("uris");
pub(super) const TAGS: TableDefinition<'_, &[u8], ()> = TableDefinition::new("tags");
pub(super) const BODIES: TableDefinition<'_, u64, &[u8; RECORD_ID_BYTES]> =
    TableDefinition::new("bodies");
pub(super) const STATE: TableDefinition<'_, (), &[u8; STATE_BYTES]> = TableDefinition::new("state");

/// The version of everything in this file. Another one starts cold.
pub(super) const FORMAT: u64 = 2;

const USAGE_BYTES: usize = 6 * 8 + 1 + 8;
const STATE_BYTES: usize = 4 * 8 + 8;
const RECENCY_BYTES: usize = 8 + RECORD_ID_BYTES;

/// What is known of a stored response besides its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::store) struct Usage {
    /// The batch in which it was last used.
    pub(in crate::store) turn: u64,
    pub(in crate::store) hits: u64,
    /// When its head was received, in milliseconds since the epoch.
    pub(in crate::store) stored_at: i64,
    /// Bytes that count against the budget.
    pub(in crate::store) cost: u64,
    pub(in crate::store) body_bytes: u64,
    /// Its body file; 0: its body is inline.
    pub(in crate::store) body_file: u64,
    pub(in crate::store) mark: Mark,
}

/// What is known of the whole tier.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    pub(super) seed: u64,
    /// Bytes of all records and body files, as their costs say.
    pub(super) bytes: u64,
    pub(super) turn: u64,
}

impl Usage {
    pub(super) fn encode(&self, id: RecordId) -> [u8; USAGE_BYTES] {
        let words = [
            self.turn,
            self.hits,
            self.stored_at.cast_unsigned(),
            self.cost,
            self.body_bytes,
            self.body_file,
        ];
        let mut row = [0; USAGE_BYTES];
        put_words(&mut row, &words);
        row[48] = match self.mark {
            Mark::None => 0,
            Mark::Stale => 1,
            Mark::Invalid => 2,
        };
        seal(&mut row, seed_of(id));
        row
    }

    /// `None` where the row does not have its checksum.
    pub(super) fn decode(id: RecordId, row: &[u8; USAGE_BYTES]) -> Option<Self> {
        let [turn, hits, stored_at, cost, body_bytes, body_file] = words(unseal(row, seed_of(id))?);
        let mark = match row[48] {
            0 => Mark::None,
            1 => Mark::Stale,
            2 => Mark::Invalid,
            _ => return None,
        };
        Some(Self {
            turn,
            hits,
            stored_at: stored_at.cast_signed(),
            cost,
            body_bytes,
            body_file,
            mark,
        })
    }
}

impl State {
    pub(super) fn encode(&self) -> [u8; STATE_BYTES] {
        let mut row = [0; STATE_BYTES];
        put_words(&mut row, &[FORMAT, self.seed, self.bytes, self.turn]);
        seal(&mut row, 0);
        row
    }

    /// `None` where it is of another format or does not have its checksum.
    pub(super) fn decode(row: &[u8; STATE_BYTES]) -> Option<Self> {
        let [format, seed, bytes, turn] = words(unseal(row, 0)?);
        (format == FORMAT).then_some(Self { seed, bytes, turn })
    }
}

pub(super) fn recency_row(turn: u64, id: RecordId) -> [u8; RECENCY_BYTES] {
    let mut row = [0; RECENCY_BYTES];
    row[..8].copy_from_slice(&turn.to_be_bytes());
    row[8..].copy_from_slice(&id.0);
    row
}

pub(super) fn recency_id(row: &[u8; RECENCY_BYTES]) -> RecordId {
    let mut id = [0; RECORD_ID_BYTES];
    id.copy_from_slice(&row[8..]);
    RecordId(id)
}

/// The row of `uris`, also a place in the order of listings.
pub(in crate::store) fn uri_row(key: &CacheKey, id: RecordId) -> Vec<u8> {
    let partition = key.partition().unwrap_or_default();
    let mut row = Vec::with_capacity(key.as_str().len() + RECORD_ID_BYTES + 1);
    row.extend(key.uri().as_bytes());
    row.push(0);
    row.extend(partition.as_bytes());
    row.extend(id.0);
    row
}

/// The row of `tags`.
pub(super) fn tag_row(label: &Label, id: RecordId) -> Vec<u8> {
    let mut row = label.row_prefix();
    row.extend(id.0);
    row
}

/// The name in a row of `tags`; `None` where it is not one.
pub(super) fn tag_row_id(row: &[u8]) -> Option<RecordId> {
    let (_, id) = row.split_last_chunk::<RECORD_ID_BYTES>()?;
    Some(RecordId(*id))
}

/// The key and the name in a row of `uris`; `None` where it is not one.
pub(in crate::store) fn parse_uri_row(row: &[u8]) -> Option<(CacheKey, RecordId)> {
    let (text, id) = row.split_last_chunk::<RECORD_ID_BYTES>()?;
    // No URI has a NUL in it.
    let end = text.iter().position(|byte| *byte == 0)?;
    let uri = std::str::from_utf8(&text[..end]).ok()?;
    let partition = std::str::from_utf8(&text[end + 1..]).ok()?;
    let key = if partition.is_empty() {
        CacheKey::from_text(uri)
    } else {
        CacheKey::from_text(&format!("~{partition} {uri}"))
    };
    Some((key, RecordId(*id)))
}

fn seed_of(id: RecordId) -> u64 {
    xxh3_64_with_seed(&id.0, 0)
}

fn put_words(row: &mut [u8], words: &[u64]) {
    for (place, word) in row.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_le_bytes());
    }
}

fn words<const N: usize>(content: &[u8]) -> [u64; N] {
    let mut words = [0; N];
    for (word, bytes) in words.iter_mut().zip(content.chunks_exact(8)) {
        let mut eight = [0; 8];
        eight.copy_from_slice(bytes);
        *word = u64::from_le_bytes(eight);
    }
    words
}

/// Writes the checksum of a row into its last eight bytes.
fn seal(row: &mut [u8], seed: u64) {
    let (content, checksum) = row
        .split_last_chunk_mut::<8>()
        .expect("every sealed row has room for its checksum");
    *checksum = xxh3_64_with_seed(content, seed).to_le_bytes();
}

fn unseal(row: &[u8], seed: u64) -> Option<&[u8]> {
    let (content, checksum) = row.split_last_chunk::<8>()?;
    (xxh3_64_with_seed(content, seed).to_le_bytes() == *checksum).then_some(content)
}

#[cfg(test)]
mod tests {
    use super::{State, Usage, parse_uri_row, recency_id, recency_row, uri_row};
    use crate::{
        policy::{CacheKey, Mark},
        store::id::RecordId,
    };

    const ID: RecordId = RecordId([9; 24]);

    const USAGE: Usage = Usage {
        turn: 1,
        hits: 2,
        stored_at: -3,
        cost: 4,
        body_bytes: 5,
        body_file: 6,
        mark: Mark::Invalid,
    };

    #[test]
    fn every_flipped_bit_of_a_usage_row_is_noticed() {
        let row = USAGE.encode(ID);
        assert_eq!(Usage::decode(ID, &row), Some(USAGE));
        assert_eq!(Usage::decode(RecordId([8; 24]), &row), None);
        for bit in 0..row.len() * 8 {
            let mut row = row;
            row[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Usage::decode(ID, &row), None, "bit {bit}");
        }
    }

    #[test]
    fn every_flipped_bit_of_the_state_is_noticed() {
        let state = State {
            seed: 1,
            bytes: 2,
            turn: 3,
        };
        let row = state.encode();
        assert_eq!(State::decode(&row), Some(state));
        for bit in 0..row.len() * 8 {
            let mut row = row;
            row[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(State::decode(&row), None, "bit {bit}");
        }
    }

    #[test]
    fn rows_give_back_what_they_were_made_of() {
        for text in ["http://a.example/", "~abc http://a.example/?q"] {
            let key = CacheKey::from_text(text);
            assert_eq!(parse_uri_row(&uri_row(&key, ID)), Some((key, ID)));
        }
        assert_eq!(parse_uri_row(b"short"), None);
        assert_eq!(parse_uri_row(&[b'a'; 40]), None);
        assert_eq!(recency_id(&recency_row(7, ID)), ID);
        assert!(recency_row(255, ID) < recency_row(256, ID));
    }
}
