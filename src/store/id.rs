//! Names of stored responses: 16 bytes for the key and 8 for the variant, hashed with a seed of the data directory.
//!
//! A part of a representation has a name of its own beside that of the complete response, so that neither overwrites the
//! other by accident.
//!
//! The seed keeps clients from choosing URLs whose names collide. A name is never proof: whoever finds a record by its
//! name compares the key's whole text.

use std::fmt;

use xxhash_rust::xxh3::{xxh3_64_with_seed, xxh3_128_with_seed};

use crate::policy::{CacheKey, StoredHead, VariantKey};

pub(super) const KEY_ID_BYTES: usize = 16;
pub(super) const RECORD_ID_BYTES: usize = 24;

/// How many bytes of the key's name stand in the public id of a stored response.
pub(super) const PUBLIC_KEY_BYTES: usize = 8;

/// Tells the seed for parts from the other.
const PART: u64 = 0x7061_7274;

/// The name of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct KeyId(pub(super) [u8; KEY_ID_BYTES]);

/// The name of a stored response: of its key, then of its variant. Ordered so that the variants of a key are neighbours.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RecordId(pub(super) [u8; RECORD_ID_BYTES]);

/// Makes names under one seed.
#[derive(Clone, Copy, Debug)]
pub(super) struct Namer {
    pub(super) seed: u64,
}

impl Namer {
    pub(super) fn key(self, key: &str) -> KeyId {
        KeyId(xxh3_128_with_seed(key.as_bytes(), self.seed).to_be_bytes())
    }

    /// The name of a response stored under this head.
    pub(super) fn record(self, key: &CacheKey, head: &StoredHead) -> RecordId {
        if head.is_part() {
            self.part(key, &head.variant)
        } else {
            self.named(key, &head.variant, self.seed)
        }
    }

    /// The name of the part of this variant.
    pub(super) fn part(self, key: &CacheKey, variant: &VariantKey) -> RecordId {
        self.named(key, variant, self.seed ^ PART)
    }

    fn named(self, key: &CacheKey, variant: &VariantKey, seed: u64) -> RecordId {
        let variant =
            postcard::to_allocvec(variant).expect("a variant key is plain data without maps");
        let variant = xxh3_64_with_seed(&variant, seed);
        RecordId::new(self.key(key.as_str()), variant.to_be_bytes())
    }
}

impl KeyId {
    /// The names of all its variants lie from the first to the second, both included.
    pub(super) fn bounds(self) -> ([u8; RECORD_ID_BYTES], [u8; RECORD_ID_BYTES]) {
        (
            RecordId::new(self, [0; 8]).0,
            RecordId::new(self, [0xff; 8]).0,
        )
    }
}

impl RecordId {
    pub(super) fn new(key: KeyId, variant: [u8; 8]) -> Self {
        let mut id = [0; RECORD_ID_BYTES];
        id[..KEY_ID_BYTES].copy_from_slice(&key.0);
        id[KEY_ID_BYTES..].copy_from_slice(&variant);
        Self(id)
    }

    pub(super) fn key(self) -> KeyId {
        let mut key = [0; KEY_ID_BYTES];
        key.copy_from_slice(&self.0[..KEY_ID_BYTES]);
        KeyId(key)
    }

    pub(super) fn public(self) -> PublicId {
        let mut id = [0; 16];
        id[..PUBLIC_KEY_BYTES].copy_from_slice(&self.0[..PUBLIC_KEY_BYTES]);
        id[PUBLIC_KEY_BYTES..].copy_from_slice(&self.0[KEY_ID_BYTES..]);
        PublicId(id)
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordId({})", self.public())
    }
}

/// The id that the admin API shows: 32 hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PublicId(pub(super) [u8; 16]);

impl PublicId {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let bytes = from_hex(text)?;
        Some(Self(bytes.try_into().ok()?))
    }

    /// All names that can have this public id lie from the first to the second, both included.
    pub(super) fn bounds(self) -> ([u8; RECORD_ID_BYTES], [u8; RECORD_ID_BYTES]) {
        let (mut low, mut high) = ([0; RECORD_ID_BYTES], [0xff; RECORD_ID_BYTES]);
        low[..PUBLIC_KEY_BYTES].copy_from_slice(&self.0[..PUBLIC_KEY_BYTES]);
        high[..PUBLIC_KEY_BYTES].copy_from_slice(&self.0[..PUBLIC_KEY_BYTES]);
        (low, high)
    }
}

impl fmt::Display for PublicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// Lower-case hexadecimal digits of `bytes`.
pub(super) fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .map(|digit| char::from(DIGITS[usize::from(digit)]))
        .collect()
}

/// The bytes of an even number of hexadecimal digits.
pub(super) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect::<Option<_>>()?;
    let pairs = digits.chunks_exact(2);
    let whole = pairs.remainder().is_empty();
    whole.then(|| pairs.map(|pair| pair[0] << 4 | pair[1]).collect())
}

#[cfg(test)]
mod tests {
    use super::{Namer, PublicId, from_hex, to_hex};
    use crate::policy::{CacheKey, VariantKey};

    #[test]
    fn a_public_id_is_32_hexadecimal_digits_and_finds_its_record() {
        let namer = Namer { seed: 7 };
        let key = CacheKey::from_text("http://a.example/");
        let record = namer.part(&key, &VariantKey::default());
        let text = record.public().to_string();
        assert_eq!(text.len(), 32);
        let public = PublicId::parse(&text).unwrap();
        assert_eq!(public, record.public());
        let (low, high) = public.bounds();
        assert!(low <= record.0 && record.0 <= high);
        let (low, high) = namer.key(key.as_str()).bounds();
        assert!(low <= record.0 && record.0 <= high);
    }

    #[test]
    fn another_seed_gives_other_names() {
        let key = "http://a.example/";
        assert_ne!(Namer { seed: 1 }.key(key), Namer { seed: 2 }.key(key));
    }

    #[test]
    fn hexadecimal_goes_both_ways_and_refuses_the_rest() {
        assert_eq!(to_hex(&[0, 0x1f, 0xff]), "001fff");
        assert_eq!(from_hex("001fff"), Some(vec![0, 0x1f, 0xff]));
        for text in ["0", "0g", "é0", "+1"] {
            assert_eq!(from_hex(text), None, "{text}");
        }
        assert_eq!(PublicId::parse("00"), None);
    }
}
