//! What a response is filed under besides its key: tags in its origin's own words, and cache groups (RFC 9875).
//!
//! Read once, when a response is stored or freshened. Names are bytes and compared as such. Bounds: [`NAMES_MAX`] tags and
//! as many groups of a response, [`NAME_BYTES_MAX`] bytes each. A response with more of either, or with a longer one,
//! counts as one with *every* tag or group, and what invalidates so many groups, or such a one, invalidates *every* group:
//! either may then hit more than it means, and never less.

use std::mem;

use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use sfv::{BareItem, List, ListEntry, Parser};

use super::fields::members;

/// Content systems send tens; each costs a row on disk. RFC 9875 section 2.1 asks for at least 32 groups.
const NAMES_MAX: usize = 128;

/// Longer than any identifier that people or content systems give. RFC 9875 section 2.1 asks for at least 32.
const NAME_BYTES_MAX: usize = 256;

/// Fields whose names are separated by white space and may contain commas. In all others commas separate.
const SPACE_SEPARATED: [&str; 2] = ["surrogate-key", "xkey"];

const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// The tags and groups of a response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    /// Of the fields that the operator named (`tags_header`): Surrogate-Key, Cache-Tag.
    pub tags: Names,
    /// Of `Cache-Groups`; they mean something within the response's origin only.
    pub groups: Names,
}

/// Names of one kind, without repetitions.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Names {
    /// These, in the order of the fields.
    Listed(Box<[Box<[u8]>]>),
    /// More, or longer ones, than are kept: it counts as having every name.
    Every,
}

impl Tags {
    /// Reads the fields of a response.
    pub(super) fn parse(headers: &HeaderMap, tag_fields: &[HeaderName]) -> Self {
        let mut tags = Names::default();
        for name in tag_fields {
            let is_space_separated = SPACE_SEPARATED.contains(&name.as_str());
            for line in headers.get_all(name) {
                if is_space_separated {
                    let words = line.as_bytes().split(u8::is_ascii_whitespace);
                    tags.extend(words.filter(|word| !word.is_empty()));
                } else {
                    tags.extend(members(line.as_bytes()));
                }
            }
        }
        let groups = groups(headers, &CACHE_GROUPS);
        Self { tags, groups }
    }
}

impl Names {
    /// Bytes on the heap, roughly.
    pub(super) fn heap_bytes(&self) -> usize {
        let names = self.listed().iter();
        names.map(|name| size_of::<Box<[u8]>>() + name.len()).sum()
    }

    /// Whether a response with these names is one with `name`.
    pub fn has(&self, name: &[u8]) -> bool {
        match self {
            Self::Listed(names) => names.iter().any(|own| **own == *name),
            Self::Every => true,
        }
    }

    /// Whether it has no name at all.
    pub fn is_empty(&self) -> bool {
        matches!(self, Self::Listed(names) if names.is_empty())
    }

    /// The names, where these are known.
    pub fn listed(&self) -> &[Box<[u8]>] {
        match self {
            Self::Listed(names) => names,
            Self::Every => &[],
        }
    }

    fn extend<'a>(&mut self, more: impl Iterator<Item = &'a [u8]>) {
        let Self::Listed(names) = self else { return };
        let mut names = mem::take(names).into_vec();
        for name in more {
            if names.iter().any(|own| **own == *name) {
                continue;
            }
            if names.len() == NAMES_MAX || name.len() > NAME_BYTES_MAX {
                *self = Self::Every;
                return;
            }
            names.push(name.into());
        }
        *self = Self::Listed(names.into());
    }
}

impl Default for Names {
    fn default() -> Self {
        Self::Listed(Box::default())
    }
}

/// The groups that `Cache-Group-Invalidation` names, read as those of a response are: more of them, or a longer one, are
/// every group of the origin.
pub(super) fn invalidated_groups(headers: &HeaderMap) -> Names {
    groups(headers, &CACHE_GROUP_INVALIDATION)
}

/// A field that is no list of strings names none.
fn groups(headers: &HeaderMap, field: &HeaderName) -> Names {
    let mut groups = Names::default();
    let listed = strings(headers, field).unwrap_or_default();
    groups.extend(listed.iter().map(String::as_bytes));
    groups
}

/// A list of strings (RFC 9651), their parameters ignored; `None` where the field is absent, or anything else.
fn strings(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<String>> {
    let text = joined(headers, name)?;
    let list: List = Parser::new(&text).parse().ok()?;
    list.into_iter().map(string).collect()
}

fn string(entry: ListEntry) -> Option<String> {
    match entry {
        ListEntry::Item(item) => match item.bare_item {
            BareItem::String(text) => Some(String::from(text)),
            _ => None,
        },
        ListEntry::InnerList(_) => None,
    }
}

/// Every line of a structured field as one (RFC 9651 section 4.2).
pub(super) fn joined(headers: &HeaderMap, name: &HeaderName) -> Option<Vec<u8>> {
    let mut lines = headers.get_all(name).iter();
    let mut text = lines.next()?.as_bytes().to_vec();
    for line in lines {
        text.extend_from_slice(b", ");
        text.extend_from_slice(line.as_bytes());
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::{NAME_BYTES_MAX, NAMES_MAX, Names, Tags, invalidated_groups};
    use crate::policy::tests::headers;

    fn parsed(fields: &str) -> Tags {
        let names = ["surrogate-key", "cache-tag"].map(HeaderName::from_static);
        Tags::parse(&headers(fields), &names)
    }

    fn shown(names: &Names) -> Vec<&str> {
        let text = |name| std::str::from_utf8(name).unwrap();
        names.listed().iter().map(|name| text(name)).collect()
    }

    #[test]
    fn tags_are_separated_as_their_field_does_it() {
        for (fields, expected) in [
            ("Surrogate-Key: a b\tc", &["a", "b", "c"][..]),
            ("Surrogate-Key: a,b  c", &["a,b", "c"]),
            ("Cache-Tag: a, b,c", &["a", "b", "c"]),
            ("Cache-Tag: a b , c", &["a b", "c"]),
            ("Cache-Tag: a | Cache-Tag: b, a", &["a", "b"]),
            ("Cache-Tag: a | Surrogate-Key: b a", &["b", "a"]),
            ("Cache-Tag: A, a", &["A", "a"]),
            ("Cache-Tag: , ,", &[]),
            ("Surrogate-Key:", &[]),
            ("X-Cache-Tags: a", &[]),
            ("-", &[]),
        ] {
            assert_eq!(shown(&parsed(fields).tags), expected, "{fields}");
        }
    }

    #[test]
    fn groups_are_a_list_of_strings_and_nothing_else() {
        for (fields, expected) in [
            (r#"Cache-Groups: "a", "b";x=1"#, &["a", "b"][..]),
            (r#"Cache-Groups: "a" | Cache-Groups: "b""#, &["a", "b"]),
            (r#"Cache-Groups: "a, b \" c""#, &[r#"a, b " c"#]),
            (r#"Cache-Groups: "a", "A", "a""#, &["a", "A"]),
            (r#"Cache-Groups: "a", b"#, &[]),
            (r#"Cache-Groups: "a", ("b")"#, &[]),
            (r#"Cache-Groups: "a", 1"#, &[]),
            (r#"Cache-Groups: "a"#, &[]),
            (r#"Cache-Groups: "a" "b""#, &[]),
            ("Cache-Groups:", &[]),
            ("-", &[]),
        ] {
            assert_eq!(shown(&parsed(fields).groups), expected, "{fields}");
            let invalidating = fields.replace("Groups", "Group-Invalidation");
            let invalidated = invalidated_groups(&headers(&invalidating));
            assert_eq!(shown(&invalidated), expected, "{fields}");
        }
    }

    #[test]
    fn a_response_with_more_than_is_kept_has_every_name() {
        let numbered = |count| {
            let names: Vec<String> = (0..count).map(|index| format!("\"n{index}\"")).collect();
            names.join(", ")
        };
        let fits = numbered(NAMES_MAX);
        let tags = parsed(&format!("Cache-Tag: {fits} | Cache-Groups: {fits}"));
        assert!(tags.tags.has(b"\"n127\"") && tags.groups.has(b"n127"));
        assert!(!tags.tags.has(b"other") && !tags.groups.has(b"other"));
        let beyond = numbered(NAMES_MAX + 1);
        let tags = parsed(&format!("Cache-Tag: {beyond} | Cache-Groups: {beyond}"));
        assert_eq!((&tags.tags, &tags.groups), (&Names::Every, &Names::Every));
        assert!(tags.tags.has(b"other") && tags.groups.has(b"other"));
        let invalidation = headers(&format!("Cache-Group-Invalidation: {beyond}"));
        assert_eq!(invalidated_groups(&invalidation), Names::Every);
        for (length, expected) in [(NAME_BYTES_MAX, false), (NAME_BYTES_MAX + 1, true)] {
            let long = "x".repeat(length);
            let tags = parsed(&format!("Surrogate-Key: {long} | Cache-Groups: \"{long}\""));
            assert_eq!(tags.tags == Names::Every, expected, "{length}");
            assert_eq!(tags.groups == Names::Every, expected, "{length}");
            let invalidation = headers(&format!("Cache-Group-Invalidation: \"a\", \"{long}\""));
            let invalidated = invalidated_groups(&invalidation);
            assert_eq!(invalidated == Names::Every, expected, "{length}");
            assert!(invalidated.has(long.as_bytes()), "{length}");
        }
    }
}
