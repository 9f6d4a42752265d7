//! Records: `version u8 | postcard | xxh3-64 of the table's name, the key and all before`, little-endian, with a seed.
//!
//! The database does not check what it reads. Table and key take part in the checksum, so that a record which turns up in
//! another place is damaged too.
//!
//! The seed is the database's own, and known to nobody else: whoever sends a body that looks like records cannot make them ones
//! that are believed when single pages are all that is left. The records that lead to it have none, and are trusted only where
//! they stand: in redb's tree, and in the marker.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::Xxh3;

/// The version of the layout above, and of what postcard makes of the types in it.
const VERSION: u8 = 1;

const CHECKSUM_BYTES: usize = 8;

/// Makes records, and reads them. Whose seed is another reads none of them.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Codec {
    seed: u64,
}

/// Why bytes are not a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum CodecError {
    #[error("the checksum does not match")]
    Checksum,
    #[error("record version {0} is not known")]
    Version(u8),
    #[error("the record is malformed")]
    Malformed,
}

impl Codec {
    /// For the records that lead to the seed.
    pub(super) const UNSEEDED: Self = Self { seed: 0 };

    /// With a seed of its own, for a new database.
    pub(super) fn new() -> Self {
        let mut seed = [0; 8];
        // Without the system's randomness damage is still found; only the seed might be guessed.
        if getrandom::fill(&mut seed).is_err() {
            fastrand::fill(&mut seed);
        }
        Self {
            seed: u64::from_le_bytes(seed),
        }
    }

    /// The record of `value` under this key of this table.
    pub(super) fn encode(self, table: &str, key: &[u8], value: &impl Serialize) -> Vec<u8> {
        let mut bytes = postcard::to_extend(value, vec![VERSION])
            .expect("the types of the queue have only what postcard takes");
        let checksum = self.checksum(table, key, &bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes
    }

    /// What was encoded under this key of this table.
    pub(super) fn decode<T: DeserializeOwned>(
        self,
        table: &str,
        key: &[u8],
        bytes: &[u8],
    ) -> Result<T, CodecError> {
        let (record, found) = bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .ok_or(CodecError::Malformed)?;
        if u64::from_le_bytes(*found) != self.checksum(table, key, record) {
            return Err(CodecError::Checksum);
        }
        match record.split_first() {
            Some((&VERSION, encoded)) => {
                postcard::from_bytes(encoded).map_err(|_| CodecError::Malformed)
            }
            Some((&version, _)) => Err(CodecError::Version(version)),
            None => Err(CodecError::Malformed),
        }
    }

    /// Whether the record is what was written there, whatever its type.
    pub(super) fn is_sound(self, table: &str, key: &[u8], bytes: &[u8]) -> bool {
        bytes
            .split_last_chunk::<CHECKSUM_BYTES>()
            .is_some_and(|(record, found)| {
                u64::from_le_bytes(*found) == self.checksum(table, key, record)
            })
    }

    fn checksum(self, table: &str, key: &[u8], record: &[u8]) -> u64 {
        let mut hasher = Xxh3::with_seed(self.seed);
        hasher.update(table.as_bytes());
        // Names of tables have no zero in them, and the keys of a table are of one length.
        hasher.update(&[0]);
        hasher.update(key);
        hasher.update(record);
        hasher.digest()
    }
}

/// The seed is nobody's business.
impl fmt::Debug for Codec {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Codec")
    }
}

#[cfg(test)]
mod tests {
    use super::{Codec, CodecError};

    const CODEC: Codec = Codec { seed: 7 };

    #[test]
    fn a_record_comes_back_only_from_its_place_and_whole() {
        let value = ("text".to_owned(), 7_u64);
        let record = CODEC.encode("items", b"key", &value);
        assert_eq!(CODEC.decode("items", b"key", &record), Ok(value));
        for (table, key) in [("answers", "key"), ("items", "kez")] {
            let moved = CODEC.decode::<(String, u64)>(table, key.as_bytes(), &record);
            assert_eq!(moved, Err(CodecError::Checksum), "{table} {key}");
        }
        for at in 0..record.len() {
            for bit in 0..8 {
                let mut flipped = record.clone();
                flipped[at] ^= 1 << bit;
                let found = CODEC.decode::<(String, u64)>("items", b"key", &flipped);
                assert_eq!(found, Err(CodecError::Checksum), "{at}.{bit}");
            }
            let cut = CODEC.decode::<(String, u64)>("items", b"key", &record[..at]);
            assert!(cut.is_err(), "{at}");
        }
    }

    #[test]
    fn a_record_of_another_version_is_told_from_a_damaged_one() {
        let mut record = vec![9, 1, 2];
        let sum = CODEC.checksum("items", b"key", &record);
        record.extend_from_slice(&sum.to_le_bytes());
        let found = CODEC.decode::<u64>("items", b"key", &record);
        assert_eq!(found, Err(CodecError::Version(9)));
    }
    #[test]
    fn a_record_with_another_seed_is_none() {
        let record = CODEC.encode("items", b"key", &7_u64);
        assert_ne!(Codec::new(), Codec::new());
        for other in [Codec::UNSEEDED, Codec::new()] {
            assert!(!other.is_sound("items", b"key", &record));
            let found = other.decode::<u64>("items", b"key", &record);
            assert_eq!(found, Err(CodecError::Checksum));
        }
    }
}
