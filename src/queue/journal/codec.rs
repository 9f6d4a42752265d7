//! Records: `version u8 | postcard | xxh3-64 of the table's name, the key and all before`, little-endian.
//!
//! The database does not check what it reads. Table and key take part in the checksum, so that a record which turns up in
//! another place is damaged too.

use serde::{Serialize, de::DeserializeOwned};
use xxhash_rust::xxh3::Xxh3;

/// The version of the layout above, and of what postcard makes of the types in it.
const VERSION: u8 = 1;

const CHECKSUM_BYTES: usize = 8;

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

/// The record of `value` under this key of this table.
pub(super) fn encode(table: &str, key: &[u8], value: &impl Serialize) -> Vec<u8> {
    let mut bytes = postcard::to_extend(value, vec![VERSION])
        .expect("the types of the queue have only what postcard takes");
    let checksum = checksum(table, key, &bytes);
    bytes.extend_from_slice(&checksum.to_le_bytes());
    bytes
}

/// What was encoded under this key of this table.
pub(super) fn decode<T: DeserializeOwned>(
    table: &str,
    key: &[u8],
    bytes: &[u8],
) -> Result<T, CodecError> {
    let (record, found) = bytes
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or(CodecError::Malformed)?;
    if u64::from_le_bytes(*found) != checksum(table, key, record) {
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
pub(super) fn is_sound(table: &str, key: &[u8], bytes: &[u8]) -> bool {
    bytes
        .split_last_chunk::<CHECKSUM_BYTES>()
        .is_some_and(|(record, found)| u64::from_le_bytes(*found) == checksum(table, key, record))
}

fn checksum(table: &str, key: &[u8], record: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(table.as_bytes());
    // Names of tables have no zero in them, and the keys of a table are of one length.
    hasher.update(&[0]);
    hasher.update(key);
    hasher.update(record);
    hasher.digest()
}

#[cfg(test)]
mod tests {
    use super::{CodecError, checksum, decode, encode};

    #[test]
    fn a_record_comes_back_only_from_its_place_and_whole() {
        let value = ("text".to_owned(), 7_u64);
        let record = encode("items", b"key", &value);
        assert_eq!(decode("items", b"key", &record), Ok(value));
        for (table, key) in [("answers", "key"), ("items", "kez")] {
            let moved = decode::<(String, u64)>(table, key.as_bytes(), &record);
            assert_eq!(moved, Err(CodecError::Checksum), "{table} {key}");
        }
        for at in 0..record.len() {
            for bit in 0..8 {
                let mut flipped = record.clone();
                flipped[at] ^= 1 << bit;
                let found = decode::<(String, u64)>("items", b"key", &flipped);
                assert_eq!(found, Err(CodecError::Checksum), "{at}.{bit}");
            }
            let cut = decode::<(String, u64)>("items", b"key", &record[..at]);
            assert!(cut.is_err(), "{at}");
        }
    }

    #[test]
    fn a_record_of_another_version_is_told_from_a_damaged_one() {
        let mut record = vec![9, 1, 2];
        let sum = checksum("items", b"key", &record);
        record.extend_from_slice(&sum.to_le_bytes());
        let found = decode::<u64>("items", b"key", &record);
        assert_eq!(found, Err(CodecError::Version(9)));
    }
}
