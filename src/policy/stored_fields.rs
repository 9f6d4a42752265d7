//! The fields of a stored response, small: a table of fields costs 104 bytes a line and 96 besides, a line here its value
//! and 4.
//!
//! Responses of one origin have mostly the same names, so the names are shared by all that have them, as a table without
//! values. A table for an answer is a copy of that one, with the values put in: no name is hashed again. All values lie
//! one after the other in one allocation of their own. As they come from the HTTP library each is a slice of the
//! connection's read buffer and keeps the whole of it alive: 8 KiB for a head of 200 bytes.
//!
//! Bounds: [`SHAPES_MAX`] lists of names are shared, of [`SHAPE_BYTES_MAX`] each, 8 MiB in all. Whatever has others has them
//! for itself, and they weigh with it.

use std::{
    collections::HashMap,
    mem,
    ops::Range,
    sync::{Arc, LazyLock, Mutex, PoisonError, Weak},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};
use smallvec::SmallVec;

use super::fields::FieldLines;

/// Lists of names that are shared.
const SHAPES_MAX: usize = 1_024;

/// Bytes of one that is shared, names and table. Longer lists are hardly those of many responses.
const SHAPE_BYTES_MAX: usize = 8 * 1024;

/// Lists that find no place before those are looked for that nobody has any more.
const REFUSED_MAX: usize = SHAPES_MAX / 4;

/// Of each line, besides the text of its name: its entry in the table (104), its place in the index (8), and its name in the
/// list by which the table is found (40).
const LINE_BYTES: usize = 152;

static SHAPES: LazyLock<Mutex<Shapes>> = LazyLock::new(Mutex::default);

/// Fields that an answer has besides those stored: Age, Cache-Status, Via, the length, and what the HTTP library adds. A
/// copy of a table keeps the room of its index, though not of its lines, so that these take no new one.
const ADDED_FIELDS: usize = 5;

/// Lines that most responses have at most.
const TYPICAL_LINES: usize = 16;

/// Lines that a response can be stored with; the HTTP library takes a hundred.
const LINES_MAX: usize = 1_024;

const VALID: &str = "it was the value of a field before";

/// Fields in their order, those of one name together; immutable.
#[derive(Clone, Debug, Default)]
pub struct StoredFields {
    shape: Arc<Shape>,
    /// The values, one after the other.
    text: Box<[u8]>,
    /// Where each value ends.
    ends: Box<[u32]>,
}

/// The names of a response's fields.
#[derive(Debug, Default)]
struct Shape {
    /// Each name with as many empty values as it has lines.
    table: HeaderMap,
    /// What it takes where it is one response's own; 0 where it is shared.
    own_bytes: usize,
}

/// A line's name, and whether its value must not be compressed by what is told of it (RFC 7541 section 7.1.3).
type Name = (HeaderName, bool);

/// The lists of names that are shared.
#[derive(Default)]
struct Shapes {
    known: HashMap<Box<[Name]>, Weak<Shape>>,
    refused: usize,
}

impl Shape {
    fn new(names: &[Name], own_bytes: usize) -> Arc<Self> {
        let mut table = HeaderMap::with_capacity(names.len() + ADDED_FIELDS);
        for (name, is_sensitive) in names {
            let mut value = HeaderValue::from_static("");
            value.set_sensitive(*is_sensitive);
            table.append(name, value);
        }
        Arc::new(Self { table, own_bytes })
    }

    /// The one with these names, which repeat for each line: shared, where it is small and there is room.
    fn of(names: &[Name]) -> Arc<Self> {
        let bytes = names
            .iter()
            .map(|(name, _)| LINE_BYTES + name.as_str().len());
        let bytes = bytes.sum();
        let shared = (bytes <= SHAPE_BYTES_MAX).then(|| {
            let mut shapes = SHAPES.lock().unwrap_or_else(PoisonError::into_inner);
            shapes.shared(names)
        });
        shared.flatten().unwrap_or_else(|| Self::new(names, bytes))
    }
}

impl Shapes {
    /// `None`: there is no room for another one.
    fn shared(&mut self, names: &[Name]) -> Option<Arc<Shape>> {
        if let Some(shape) = self.known.get(names).and_then(Weak::upgrade) {
            return Some(shape);
        }
        if self.known.len() >= SHAPES_MAX {
            self.refused += 1;
            if self.refused >= REFUSED_MAX {
                self.refused = 0;
                self.known.retain(|_, shape| shape.strong_count() > 0);
            }
            if self.known.len() >= SHAPES_MAX && !self.known.contains_key(names) {
                return None;
            }
        }
        let shape = Shape::new(names, 0);
        self.known.insert(names.into(), Arc::downgrade(&shape));
        Some(shape)
    }
}

impl StoredFields {
    /// Of lines that were stored once; `None` where they can be no fields, or those of one name are not together.
    pub fn from_lines<'a>(lines: impl Iterator<Item = (&'a str, &'a [u8])>) -> Option<Self> {
        let mut names: SmallVec<[Name; TYPICAL_LINES]> = SmallVec::new();
        let (mut text, mut ends) = (Vec::new(), Vec::new());
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            let is_apart = names.iter().rev().skip(1).any(|(known, _)| *known == name)
                && names.last().is_some_and(|(last, _)| *last != name);
            if is_apart || names.len() == LINES_MAX || !value.iter().all(is_of_a_value) {
                return None;
            }
            names.push((name, false));
            text.extend_from_slice(value);
            ends.push(u32::try_from(text.len()).ok()?);
        }
        Some(Self {
            shape: Shape::of(&names),
            text: text.into(),
            ends: ends.into(),
        })
    }

    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The lines: names, repeated for each line, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &[u8])> {
        let names = self.shape.table.iter().map(|(name, _)| name);
        names.zip(self.ranges().map(|range| &self.text[range]))
    }

    /// The first value of this name.
    pub fn get(&self, name: impl AsRef<str>) -> Option<&[u8]> {
        self.get_all(name).next()
    }

    /// The values of this name.
    pub fn get_all(&self, name: impl AsRef<str>) -> impl Iterator<Item = &[u8]> {
        self.iter()
            .filter(move |(own, _)| own.as_str() == name.as_ref())
            .map(|(_, value)| value)
    }

    /// Whether there is a line of this name.
    pub fn contains_key(&self, name: impl AsRef<str>) -> bool {
        self.get(name).is_some()
    }

    /// As a table.
    pub fn to_map(&self) -> HeaderMap {
        let mut map = self.shape.table.clone();
        let text = Bytes::copy_from_slice(&self.text);
        for (line, range) in map.values_mut().zip(self.ranges()) {
            let is_sensitive = line.is_sensitive();
            *line = HeaderValue::from_maybe_shared(text.slice(range)).expect(VALID);
            line.set_sensitive(is_sensitive);
        }
        map
    }

    /// Without the lines of this name.
    #[must_use]
    pub fn without(&self, name: &HeaderName) -> Self {
        let mut map = self.to_map();
        map.remove(name);
        Self::from(&map)
    }

    /// Bytes on the heap, roughly; of the names only where no other response has them too.
    pub fn heap_bytes(&self) -> usize {
        size_of_val(&*self.ends) + self.text.len() + self.shape.own_bytes
    }

    fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        let ends = self.ends.iter().map(|end| *end as usize);
        ends.scan(0, |start, end| Some(mem::replace(start, end)..end))
    }
}

impl From<&HeaderMap> for StoredFields {
    fn from(map: &HeaderMap) -> Self {
        let mut text = Vec::with_capacity(map.values().map(HeaderValue::len).sum());
        let ends = map.values().map(|value| {
            text.extend_from_slice(value.as_bytes());
            u32::try_from(text.len()).expect("a head is smaller than 4 GiB")
        });
        let ends = ends.collect();
        let names = map.iter();
        let names = names.map(|(name, value)| (name.clone(), value.is_sensitive()));
        Self {
            shape: Shape::of(&names.collect::<SmallVec<[_; TYPICAL_LINES]>>()),
            text: text.into(),
            ends,
        }
    }
}

impl PartialEq for StoredFields {
    /// Tables are equal in any order, and the values of equal tables would then be those of other names.
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for StoredFields {}

/// Whether a byte may stand in a value, as [`HeaderValue`] sees it.
const fn is_of_a_value(byte: &u8) -> bool {
    matches!(*byte, b'\t' | 32..=126 | 128..)
}

/// A stored value as one to be sent.
pub(super) fn as_value(stored: &[u8]) -> HeaderValue {
    HeaderValue::from_bytes(stored).expect(VALID)
}

impl FieldLines for StoredFields {
    fn lines(&self, name: &HeaderName) -> impl Iterator<Item = &[u8]> {
        self.get_all(name)
    }
}

#[cfg(test)]
impl StoredFields {
    /// Puts this value in the place of what there was of its name.
    pub(crate) fn insert(&mut self, name: impl http::header::IntoHeaderName, value: HeaderValue) {
        let mut map = self.to_map();
        map.insert(name, value);
        *self = Self::from(&map);
    }
}

#[cfg(test)]
mod tests {
    use std::{iter, sync::Arc};

    use bytes::Bytes;
    use http::{HeaderMap, HeaderName, HeaderValue, header};

    use super::{
        LINES_MAX, REFUSED_MAX, SHAPE_BYTES_MAX, SHAPES_MAX, Shapes, StoredFields, is_of_a_value,
    };

    #[test]
    fn every_field_stays_in_its_order_and_none_shares_the_buffer_it_came_in() {
        let read = Bytes::from(vec![b'v'; 8 * 1024]);
        let mut map = HeaderMap::new();
        map.append(
            header::ETAG,
            HeaderValue::from_maybe_shared(read.slice(0..3)).unwrap(),
        );
        map.append("x-own", HeaderValue::from_static("1"));
        map.append(header::VARY, HeaderValue::from_static("a"));
        map.append("x-empty", HeaderValue::from_static(""));
        // Not beside its like: whoever walks through the values of a table meets it there all the same.
        map.append(header::VARY, HeaderValue::from_static("b"));
        let mut secret = HeaderValue::from_static("s");
        secret.set_sensitive(true);
        map.append("x-secret", secret);

        let stored = StoredFields::from(&map);
        assert_eq!(stored.len(), 6);
        let again = stored.to_map();
        assert_eq!(again, map);
        assert!(again.iter().eq(map.iter()), "{again:?}");
        assert!(again["x-secret"].is_sensitive());
        assert_eq!(stored.get("x-own").unwrap(), b"1");
        assert_eq!(stored.get_all(header::VARY).count(), 2);
        assert!(stored.contains_key("x-empty") && !stored.contains_key("x-other"));
        drop(map);
        assert!(read.is_unique(), "the read buffer is still alive");
    }

    #[test]
    fn what_was_stored_is_equal_to_itself_and_to_nothing_else() {
        let stored = |fields: &[(&'static str, &'static str)]| {
            let mut map = HeaderMap::new();
            for (name, value) in fields {
                map.append(*name, HeaderValue::from_static(value));
            }
            StoredFields::from(&map)
        };
        let one = stored(&[("x-a", "1"), ("etag", "2")]);
        assert_eq!(one, stored(&[("x-a", "1"), ("etag", "2")]));
        for other in [
            &[("x-b", "1"), ("etag", "2")][..],
            &[("x-a", "1"), ("date", "2")],
            &[("x-a", "1"), ("etag", "3")],
            &[("x-a", "1")],
            &[("etag", "1"), ("x-a", "2")],
        ] {
            assert_ne!(one, stored(other));
        }
    }

    #[test]
    fn lines_that_were_stored_are_what_they_were_and_others_are_refused() {
        let lines = |lines: &[(&'static str, &'static [u8])]| {
            StoredFields::from_lines(lines.iter().copied())
        };
        let one = [
            ("x-a", &b"1"[..]),
            ("vary", b""),
            ("vary", b"\xff\t"),
            ("x-b", b"2"),
        ];
        let stored = lines(&one).unwrap();
        assert_eq!(stored, StoredFields::from(&stored.to_map()));
        assert!(Arc::ptr_eq(
            &stored.shape,
            &StoredFields::from(&stored.to_map()).shape
        ));
        let found = stored.iter().map(|(name, value)| (name.as_str(), value));
        assert!(found.eq(one));
        assert_eq!(lines(&[]).unwrap().len(), 0);
        for refused in [
            &[("x a", &b"1"[..])][..],
            &[("", b"1")],
            &[("x-a", b"\n")],
            &[("x-a", b"\x7f")],
            &[("x-a", b"1"), ("x-b", b"1"), ("X-A", b"1")],
        ] {
            assert!(lines(refused).is_none(), "{refused:?}");
        }
        let many = |count| StoredFields::from_lines(iter::repeat_n(("x-a", &b"1"[..]), count));
        assert!(many(LINES_MAX).is_some() && many(LINES_MAX + 1).is_none());
    }

    #[test]
    fn a_byte_of_a_value_is_what_the_library_takes_for_one() {
        for byte in 0..=u8::MAX {
            let library = HeaderValue::from_bytes(&[byte]).is_ok();
            assert_eq!(is_of_a_value(&byte), library, "{byte}");
        }
    }

    #[test]
    fn names_are_kept_once_for_all_that_have_the_same() {
        let stored = |names: &[&'static str]| {
            let mut map = HeaderMap::new();
            for name in names {
                map.append(*name, HeaderValue::from_static("x"));
            }
            StoredFields::from(&map)
        };
        let one = stored(&["x-shape-a", "x-shape-b"]);
        for (names, expected) in [
            (&["x-shape-a", "x-shape-b"][..], true),
            (&["x-shape-b", "x-shape-a"], false),
            (&["x-shape-a"], false),
            (&["x-shape-a", "x-shape-a", "x-shape-b"], false),
        ] {
            assert_eq!(
                Arc::ptr_eq(&one.shape, &stored(names).shape),
                expected,
                "{names:?}"
            );
        }
    }

    #[test]
    fn lists_of_names_are_let_go_with_the_last_that_has_them_and_bounded() {
        let mut shapes = Shapes::default();
        let names = |number: usize| {
            let name = HeaderName::try_from(format!("x-{number}")).unwrap();
            [(name, false)]
        };
        let kept: Vec<_> = (0..SHAPES_MAX)
            .map(|number| shapes.shared(&names(number)).unwrap())
            .collect();
        assert!(shapes.shared(&names(SHAPES_MAX)).is_none());
        assert!(Arc::ptr_eq(&kept[7], &shapes.shared(&names(7)).unwrap()));
        assert_eq!(shapes.known.len(), SHAPES_MAX);
        drop(kept);
        // One that was known finds its place again at once, another one when the others have been looked through.
        assert!(shapes.shared(&names(7)).is_some());
        assert!(shapes.shared(&names(SHAPES_MAX)).is_none());
        let other = (0..REFUSED_MAX).find_map(|_| shapes.shared(&names(SHAPES_MAX)));
        assert!(other.is_some());
        assert_eq!(shapes.known.len(), 1);
    }

    #[test]
    fn names_weigh_with_the_response_that_has_them_for_itself() {
        let long = |number: usize| {
            let mut map = HeaderMap::new();
            let name = format!("x-{number}-{}", "n".repeat(SHAPE_BYTES_MAX));
            map.append(
                HeaderName::try_from(name).unwrap(),
                HeaderValue::from_static(""),
            );
            StoredFields::from(&map)
        };
        assert!(long(1).heap_bytes() > SHAPE_BYTES_MAX);
        assert!(!Arc::ptr_eq(&long(1).shape, &long(1).shape));
        let mut map = HeaderMap::new();
        map.append("x-short", HeaderValue::from_static(""));
        assert_eq!(StoredFields::from(&map).heap_bytes(), size_of::<u32>());
    }
}
