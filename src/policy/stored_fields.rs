//! The fields of a stored response, small: a table of fields costs 104 bytes a line and 96 besides, a line here 48.
//!
//! A name that most responses have is a number, and all values lie in one allocation of their own. As they come from the
//! HTTP library each value is a slice of the connection's read buffer and keeps the whole of it alive: 8 KiB for a head of
//! 200 bytes.

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use super::fields::FieldLines;

/// Names that are kept as their place in this list.
static COMMON: [HeaderName; 40] = [
    header::CONTENT_TYPE,
    header::CONTENT_LENGTH,
    header::DATE,
    header::CACHE_CONTROL,
    header::ETAG,
    header::LAST_MODIFIED,
    header::EXPIRES,
    header::VARY,
    header::SERVER,
    header::VIA,
    header::AGE,
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LOCATION,
    header::CONTENT_DISPOSITION,
    header::CONTENT_RANGE,
    header::CONTENT_SECURITY_POLICY,
    header::ACCEPT_RANGES,
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
    header::ALT_SVC,
    header::LINK,
    header::LOCATION,
    header::PRAGMA,
    header::REFERRER_POLICY,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    header::STRICT_TRANSPORT_SECURITY,
    header::X_CONTENT_TYPE_OPTIONS,
    header::X_FRAME_OPTIONS,
    header::X_XSS_PROTECTION,
    HeaderName::from_static("cache-status"),
    HeaderName::from_static("surrogate-key"),
    HeaderName::from_static("x-cache"),
    HeaderName::from_static("x-powered-by"),
    HeaderName::from_static("x-request-id"),
];

/// Fields in their order, those of one name together; immutable.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StoredFields {
    lines: Box<[Line]>,
    /// Names that are not common, in the order in which they occur.
    others: Box<[HeaderName]>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    value: HeaderValue,
    /// A place in [`COMMON`], or behind its end in `others`. A table of fields has at most 32,768 names.
    name: u16,
}

impl StoredFields {
    /// How many lines there are.
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// The lines: names, repeated for each line, and values.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.lines.iter().map(|line| (self.name(line), &line.value))
    }

    /// The first value of this name.
    pub fn get(&self, name: impl AsRef<str>) -> Option<&HeaderValue> {
        self.get_all(name).next()
    }

    /// The values of this name.
    pub fn get_all(&self, name: impl AsRef<str>) -> impl Iterator<Item = &HeaderValue> {
        self.iter()
            .filter(move |(own, _)| own.as_str() == name.as_ref())
            .map(|(_, value)| value)
    }

    /// Whether there is a line of this name.
    pub fn contains_key(&self, name: impl AsRef<str>) -> bool {
        self.get(name).is_some()
    }

    /// As a table, with room for `more` lines.
    pub fn to_map(&self, more: usize) -> HeaderMap {
        let mut map = HeaderMap::with_capacity(self.lines.len() + more);
        for (name, value) in self.iter() {
            map.append(name, value.clone());
        }
        map
    }

    /// Without the lines of this name.
    #[must_use]
    pub fn without(&self, name: &HeaderName) -> Self {
        let mut map = self.to_map(0);
        map.remove(name);
        Self::from(&map)
    }

    /// Bytes on the heap, roughly.
    pub fn heap_bytes(&self) -> usize {
        let values: usize = self.lines.iter().map(|line| line.value.len()).sum();
        let names = self.others.iter();
        let names: usize = names
            .map(|name| size_of::<HeaderName>() + name.as_str().len())
            .sum();
        size_of_val(&*self.lines) + values + names
    }

    fn name(&self, line: &Line) -> &HeaderName {
        let place = usize::from(line.name);
        COMMON
            .get(place)
            .unwrap_or_else(|| &self.others[place - COMMON.len()])
    }
}

impl From<&HeaderMap> for StoredFields {
    fn from(map: &HeaderMap) -> Self {
        let size = map.values().map(HeaderValue::len).sum();
        let mut values = BytesMut::with_capacity(size);
        for value in map.values() {
            values.extend_from_slice(value.as_bytes());
        }
        let mut values = values.freeze();
        let mut others = Vec::new();
        let mut lines = Vec::with_capacity(map.len());
        for name in map.keys() {
            let common = COMMON.iter().position(|common| common == name);
            let place = common.unwrap_or_else(|| {
                others.push(name.clone());
                COMMON.len() + others.len() - 1
            });
            for value in map.get_all(name) {
                lines.push(Line {
                    value: own(value, values.split_to(value.len())),
                    name: u16::try_from(place).expect("a table has at most 32,768 names"),
                });
            }
        }
        Self {
            lines: lines.into(),
            others: others.into(),
        }
    }
}

/// The same value, in these bytes of its own.
fn own(value: &HeaderValue, bytes: bytes::Bytes) -> HeaderValue {
    let mut own =
        HeaderValue::from_maybe_shared(bytes).expect("it was the value of a field before");
    own.set_sensitive(value.is_sensitive());
    own
}

impl FieldLines for StoredFields {
    fn lines(&self, name: &HeaderName) -> impl Iterator<Item = &HeaderValue> {
        self.get_all(name)
    }
}

#[cfg(test)]
impl StoredFields {
    /// Puts this value in the place of what there was of its name.
    pub(crate) fn insert(&mut self, name: impl http::header::IntoHeaderName, value: HeaderValue) {
        let mut map = self.to_map(1);
        map.insert(name, value);
        *self = Self::from(&map);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use bytes::Bytes;
    use http::{HeaderMap, HeaderValue, header};

    use super::{COMMON, StoredFields};

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
        let again = stored.to_map(3);
        assert_eq!(again, map);
        assert!(again.iter().eq(map.iter()), "{again:?}");
        assert!(again["x-secret"].is_sensitive());
        assert_eq!(stored.get("x-own").unwrap(), "1");
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
        ] {
            assert_ne!(one, stored(other));
        }
    }

    #[test]
    fn no_common_name_is_listed_twice() {
        let names: HashSet<_> = COMMON.iter().collect();
        assert_eq!(names.len(), COMMON.len());
    }
}
