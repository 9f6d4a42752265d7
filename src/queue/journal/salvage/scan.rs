//! Leaves of a database file that redb cannot open, or cannot find its way in: page by page, whatever holds them together.
//!
//! redb 4 (its `docs/design.md`, "Leaf page") cuts a file into pages of 4 KiB. A leaf begins at one and may go over several:
//! `1 u8 | 0 u8 | pairs u16 | end of each key u32, only where keys differ in length | end of each value u32 | keys | values`.
//! Header and branches are not needed for that, and nothing in a leaf says which table it is of: a record is proven by its own
//! checksum, which table and key are part of. Where another layout is met, nothing is proven.
//!
//! A leaf may be one that was given up: what is proven was once written, not that it still holds. And the body of a write may
//! look like leaves: without the database's seed none of it is proven ([`codec`](super::super::codec)).
//!
//! Bounds: [`WINDOW_BYTES`] in memory; the file is read about twice at most, and its bytes are hashed [`HASHED_MAX`] times at
//! most, for each table.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
};

use super::super::{codec::Codec, error::DiskError, tables::name};

/// redb's, unless it is told otherwise.
const PAGE_BYTES: usize = 4_096;

/// A longer leaf is none of ours: a body of 64 KiB, its head, and room.
const LEAF_MAX_BYTES: usize = 1024 * 1024;

/// What is read at a time.
const WINDOW_BYTES: usize = 2 * LEAF_MAX_BYTES;

/// How often the length of the file may be hashed for leaves of more than a page. Beyond it only single pages are looked at:
/// a file may be full of what looks like beginnings.
const HASHED_MAX: u64 = 4;

/// To look at a pair takes about as long as to hash this.
const PAIR_BYTES: usize = 16;

/// The first byte of a leaf.
const LEAF: u8 = 1;

/// Our tables, and the length of their keys where there is one.
const TABLES: [(&str, Option<usize>); 7] = [
    (name::ITEMS, Some(16)),
    (name::CONTENTS, Some(16)),
    (name::ANSWERS, Some(16)),
    (name::KEYS, Some(32)),
    (name::ENDED, Some(24)),
    (name::AUDIT, Some(8)),
    (name::META, None),
];

/// The proven records of one leaf.
pub(super) struct Leaf<'a> {
    pub(super) table: &'static str,
    /// Keys and records.
    pub(super) rows: Vec<(&'a [u8], &'a [u8])>,
}

/// Calls `each` with every leaf of which anything is proven. What cannot be read of the file is passed over.
///
/// # Errors
/// Those of `each`, and where not even the length of the file is to be had.
pub(super) fn each_leaf(
    file: &File,
    codec: Codec,
    mut each: impl FnMut(&Leaf<'_>) -> Result<(), DiskError>,
) -> Result<(), DiskError> {
    let file_bytes = file.metadata().map_err(DiskError::File)?.len();
    let mut hashes_left = file_bytes.saturating_mul(HASHED_MAX);
    let mut window = Window::new(file);
    let mut at = 0;
    while at < file_bytes {
        let bytes = window.at(at);
        let bytes = match hashes_left {
            0 => &bytes[..bytes.len().min(PAGE_BYTES)],
            _ => bytes,
        };
        let parsed = Parsed::of(bytes, codec);
        if parsed.hashed > PAGE_BYTES as u64 {
            hashes_left = hashes_left.saturating_sub(parsed.hashed);
        }
        if let Some(leaf) = &parsed.leaf {
            each(leaf)?;
        }
        at += parsed.bytes.next_multiple_of(PAGE_BYTES) as u64;
    }
    Ok(())
}

/// What begins at a page.
struct Parsed<'a> {
    leaf: Option<Leaf<'a>>,
    /// How far it goes, as far as that is proven; at least 1.
    bytes: usize,
    /// Bytes that were looked at and hashed for one table.
    hashed: u64,
}

impl<'a> Parsed<'a> {
    fn of(bytes: &'a [u8], codec: Codec) -> Self {
        let mut parsed = Self {
            leaf: None,
            bytes: 1,
            hashed: 0,
        };
        if bytes.first() != Some(&LEAF) {
            return parsed;
        }
        for (table, key_bytes) in TABLES {
            let pairs = Pairs::of(bytes, key_bytes);
            let (mut rows, mut end, mut hashed) = (Vec::new(), 1, 0);
            let looked_at = pairs.pairs * PAIR_BYTES;
            for (key, row, row_end) in pairs {
                hashed += row.len();
                // The records of a leaf do not overlap. Those of what only looks like one may.
                if hashed > bytes.len() {
                    break;
                }
                if codec.is_sound(table, key, row) {
                    rows.push((key, row));
                    end = end.max(row_end);
                }
            }
            parsed.hashed = parsed.hashed.max((looked_at + hashed) as u64);
            if !rows.is_empty() {
                parsed.leaf = Some(Leaf { table, rows });
                parsed.bytes = end;
                break;
            }
        }
        parsed
    }
}

/// The pairs of a leaf, if it is one: each with where its value ends. A pair whose bounds make no sense is left out.
struct Pairs<'a> {
    bytes: &'a [u8],
    key_bytes: Option<usize>,
    pairs: usize,
    next: usize,
}

impl<'a> Pairs<'a> {
    fn of(bytes: &'a [u8], key_bytes: Option<usize>) -> Self {
        let pairs = bytes
            .get(2..4)
            .map_or(0, |pairs| u16::from_le_bytes([pairs[0], pairs[1]]));
        let pairs = usize::from(pairs);
        // Of each at least where it ends, and its key.
        let is_possible = 4 + pairs * (4 + key_bytes.unwrap_or(4)) <= bytes.len();
        Self {
            bytes,
            key_bytes,
            pairs: if is_possible { pairs } else { 0 },
            next: 0,
        }
    }

    fn pair(&self, number: usize) -> Option<(&'a [u8], &'a [u8], usize)> {
        let key_start = match number {
            0 => self.keys_at(),
            _ => self.key_end(number - 1)?,
        };
        let value_start = match number {
            0 => self.key_end(self.pairs - 1)?,
            _ => self.value_end(number - 1)?,
        };
        let value_end = self.value_end(number)?;
        let key = self.bytes.get(key_start..self.key_end(number)?)?;
        let value = self.bytes.get(value_start..value_end)?;
        Some((key, value, value_end))
    }

    const fn keys_at(&self) -> usize {
        match self.key_bytes {
            Some(_) => 4 + 4 * self.pairs,
            None => 4 + 8 * self.pairs,
        }
    }

    fn key_end(&self, number: usize) -> Option<usize> {
        match self.key_bytes {
            Some(key_bytes) => Some(self.keys_at() + key_bytes * (number + 1)),
            None => self.offset(number),
        }
    }

    fn value_end(&self, number: usize) -> Option<usize> {
        match self.key_bytes {
            Some(_) => self.offset(number),
            None => self.offset(self.pairs + number),
        }
    }

    fn offset(&self, number: usize) -> Option<usize> {
        let at = 4 + 4 * number;
        let offset = self.bytes.get(at..at + 4)?.first_chunk::<4>()?;
        usize::try_from(u32::from_le_bytes(*offset)).ok()
    }
}

impl<'a> Iterator for Pairs<'a> {
    type Item = (&'a [u8], &'a [u8], usize);

    fn next(&mut self) -> Option<Self::Item> {
        while self.next < self.pairs {
            self.next += 1;
            if let Some(pair) = self.pair(self.next - 1) {
                return Some(pair);
            }
        }
        None
    }
}

/// A part of the file.
struct Window<'a> {
    file: &'a File,
    start: u64,
    bytes: Vec<u8>,
    /// Whether more than this cannot be had: the file ends, or cannot be read there.
    is_last: bool,
}

impl<'a> Window<'a> {
    const fn new(file: &'a File) -> Self {
        Self {
            file,
            start: 0,
            bytes: Vec::new(),
            is_last: false,
        }
    }

    /// The bytes from there on: as many as a leaf may have, or as there are. None where they cannot be read.
    fn at(&mut self, at: u64) -> &[u8] {
        let end = self.start + self.bytes.len() as u64;
        let is_enough = self.is_last || at + LEAF_MAX_BYTES as u64 <= end;
        if at >= end || !is_enough {
            self.fill(at);
        }
        let from = usize::try_from(at - self.start).unwrap_or(usize::MAX);
        let bytes = self.bytes.get(from..).unwrap_or_default();
        &bytes[..bytes.len().min(LEAF_MAX_BYTES)]
    }

    fn fill(&mut self, at: u64) {
        self.start = at;
        self.bytes.resize(WINDOW_BYTES, 0);
        let mut filled = 0;
        self.is_last = false;
        while filled < WINDOW_BYTES {
            match self.read(filled) {
                Ok(0) | Err(_) => {
                    self.is_last = true;
                    break;
                }
                Ok(bytes) => filled += bytes,
            }
        }
        self.bytes.truncate(filled);
    }

    fn read(&mut self, filled: usize) -> io::Result<usize> {
        let at = self.start + filled as u64;
        loop {
            match self.file.read_at(&mut self.bytes[filled..], at) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => return read,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs::File, io::Write};

    use redb::{Database, TableDefinition};

    use super::{Leaf, PAGE_BYTES, Parsed, each_leaf};
    use crate::queue::journal::{
        codec::Codec,
        tables::{AUDIT, CONTENTS, ITEMS, KEYS, META},
    };

    /// Records of many lengths, also ones of several pages; which of them are found by their keys.
    #[test]
    fn every_record_that_redb_wrote_is_found() {
        let path = tempfile::NamedTempFile::new().unwrap();
        let database = Database::create(path.path()).unwrap();
        let mut written = BTreeMap::new();
        let transaction = database.begin_write().unwrap();
        let codec = Codec::new();
        let record = |table: &str, key: &[u8], len: u64| {
            codec.encode(table, key, &vec![0x5a_u8; usize::try_from(len).unwrap()])
        };
        for number in 0..400_u64 {
            let len = if number % 50 == 7 {
                number * 500
            } else {
                number
            };
            let mut insert16 = |definition: TableDefinition<'_, &[u8; 16], &[u8]>, name| {
                let mut key = [3; 16];
                key[..8].copy_from_slice(&number.to_be_bytes());
                let row = record(name, &key, len);
                let mut table = transaction.open_table(definition).unwrap();
                table.insert(&key, row.as_slice()).unwrap();
                written.insert((name, key.to_vec()), row);
            };
            insert16(ITEMS, "items");
            insert16(CONTENTS, "contents");
            let key = number.to_be_bytes();
            let row = record("audit", &key, len);
            let mut audit = transaction.open_table(AUDIT).unwrap();
            audit.insert(&key, row.as_slice()).unwrap();
            written.insert(("audit", key.to_vec()), row);
            let key = [number.to_le_bytes()[0]; 32];
            let row = record("keys", &key, 40);
            let mut keys = transaction.open_table(KEYS).unwrap();
            keys.insert(&key, row.as_slice()).unwrap();
            written.insert(("keys", key.to_vec()), row);
        }
        for key in ["format", "counters", "pauses"] {
            let row = record("meta", key.as_bytes(), 9);
            let mut meta = transaction.open_table(META).unwrap();
            meta.insert(key, row.as_slice()).unwrap();
            written.insert(("meta", key.as_bytes().to_vec()), row);
        }
        transaction.commit().unwrap();
        drop(database);
        let mut found = BTreeMap::new();
        let file = File::open(path.path()).unwrap();
        let note = |leaf: &Leaf<'_>| {
            for (key, row) in &leaf.rows {
                found.insert((leaf.table, key.to_vec()), row.to_vec());
            }
            Ok(())
        };
        each_leaf(&file, codec, note).unwrap();
        assert!(found == written, "{} of {}", found.len(), written.len());
    }

    /// A page of this may cost as much as a leaf of a mebibyte.
    #[test]
    fn a_file_of_nothing_but_beginnings_is_bounded_work() {
        let mut beginnings = vec![0xff; 256 * PAGE_BYTES];
        for page in beginnings.chunks_mut(PAGE_BYTES) {
            page[..4].copy_from_slice(&[1, 0, 255, 127]);
        }
        let one = Parsed::of(&beginnings, Codec::new());
        assert!(one.leaf.is_none());
        assert!(
            one.hashed > 256 * 1024,
            "{}: not the case meant",
            one.hashed
        );
        let single = Parsed::of(&beginnings[..PAGE_BYTES], Codec::new());
        assert!(single.hashed <= PAGE_BYTES as u64, "{}", single.hashed);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&beginnings).unwrap();
        each_leaf(&file, Codec::new(), |_| panic!("nothing is there")).unwrap();
    }
}
