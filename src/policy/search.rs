//! Which differences between queries do not matter: the response field `No-Vary-Search`
//! (draft-ietf-httpbis-no-vary-search).
//!
//! Queries are compared as lists of names and values, decoded as `application/x-www-form-urlencoded`, without what does not
//! matter. The field may be written as the draft does it now (`params` or `except` with names) or as browsers took it
//! before (`params` alone or with `except`). Whatever else it says, every difference matters. Bounds: [`NAMES_MAX`] names,
//! of [`NAMES_BYTES_MAX`] bytes together.

use http::{HeaderMap, HeaderName};
use serde::{Deserialize, Serialize};
use sfv::{BareItem, Dictionary, InnerList, ListEntry, Parser};

use super::{CacheKey, tags::joined};

const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");

/// A field with more names is no sensible one; every difference matters then.
const NAMES_MAX: usize = 64;

/// Nor is one with longer names: they stay with each stored response and each path, and every query is compared with them.
const NAMES_BYTES_MAX: usize = 1_024;

/// What of a query matters to a stored response.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SearchVariation {
    parameters: Parameters,
    ignores_order: bool,
}

/// Which parameters matter, by their decoded names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
enum Parameters {
    AllBut(Vec<String>),
    Only(Vec<String>),
}

impl SearchVariation {
    /// What the fields of a response say; `None`: every difference matters.
    pub(super) fn parse(headers: &HeaderMap) -> Option<Self> {
        let text = joined(headers, &NO_VARY_SEARCH)?;
        let dictionary: Dictionary = Parser::new(&text).parse().ok()?;
        let ignores_order = match dictionary.get("key-order") {
            Some(entry) => boolean(entry)?,
            None => false,
        };
        let params = dictionary.get("params");
        let parameters = match (params, dictionary.get("except")) {
            (None, None) => Parameters::AllBut(Vec::new()),
            (None, Some(except)) => Parameters::Only(names(except)?),
            (Some(params), except) => match (boolean(params), except) {
                (Some(true), None) => Parameters::Only(Vec::new()),
                (Some(true), Some(except)) => Parameters::Only(names(except)?),
                (Some(false), None) => Parameters::AllBut(Vec::new()),
                (None, None) => Parameters::AllBut(names(params)?),
                (_, Some(_)) => return None,
            },
        };
        let found = Self {
            parameters,
            ignores_order,
        };
        let says_something = ignores_order || found.parameters != Parameters::AllBut(Vec::new());
        says_something.then_some(found)
    }

    /// Whether a response stored under `stored` answers a request for `asked` too: the same partition, origin and path, and
    /// no difference that matters.
    pub fn answers(&self, stored: &CacheKey, asked: &CacheKey) -> bool {
        let ((stored_path, stored_query), (path, query)) =
            (stored.split_query(), asked.split_query());
        stored_path == path && self.canonical(stored_query) == self.canonical(query)
    }

    /// Bytes on the heap, roughly.
    pub(super) fn heap_bytes(&self) -> usize {
        let (Parameters::AllBut(names) | Parameters::Only(names)) = &self.parameters;
        let names = names.iter().map(|name| size_of::<String>() + name.len());
        size_of::<Self>() + names.sum::<usize>()
    }

    /// What matters of a query, as bytes that are the same for two queries whenever no difference matters.
    pub fn canonical(&self, query: &str) -> Vec<u8> {
        let pairs = query.split('&').filter(|pair| !pair.is_empty());
        let mut pairs: Vec<(String, String)> = pairs
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .map(|(name, value)| (decoded(name), decoded(value)))
            .filter(|(name, _)| self.parameters.matter(name))
            .collect();
        if self.ignores_order {
            // Stable: the order of values of one name matters.
            pairs.sort_by(|(one, _), (other, _)| one.cmp(other));
        }
        let mut canonical = Vec::with_capacity(query.len());
        for text in pairs.iter().flat_map(|(name, value)| [name, value]) {
            canonical.extend_from_slice(&(text.len() as u64).to_le_bytes());
            canonical.extend_from_slice(text.as_bytes());
        }
        canonical
    }
}

impl Parameters {
    fn matter(&self, name: &str) -> bool {
        let is_named = |names: &[String]| names.iter().any(|one| one == name);
        match self {
            Self::AllBut(names) => !is_named(names),
            Self::Only(names) => is_named(names),
        }
    }
}

fn boolean(entry: &ListEntry) -> Option<bool> {
    match entry {
        ListEntry::Item(item) => item.bare_item.as_boolean(),
        ListEntry::InnerList(_) => None,
    }
}

fn names(entry: &ListEntry) -> Option<Vec<String>> {
    let ListEntry::InnerList(InnerList { items, .. }) = entry else {
        return None;
    };
    if items.len() > NAMES_MAX {
        return None;
    }
    let name = |item: &sfv::Item| match &item.bare_item {
        BareItem::String(text) => Some(decoded(text.as_str())),
        _ => None,
    };
    let names: Vec<String> = items.iter().map(name).collect::<Option<_>>()?;
    let bytes: usize = names.iter().map(String::len).sum();
    (bytes <= NAMES_BYTES_MAX).then_some(names)
}

/// A name or a value of a form: `+` is a space, `%xx` a byte, and what is no UTF-8 a replacement character.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        bytes.push(match first {
            b'+' => b' ',
            b'%' => match escaped(after) {
                Some(byte) => {
                    rest = &after[2..];
                    byte
                }
                None => b'%',
            },
            other => *other,
        });
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn escaped(digits: &[u8]) -> Option<u8> {
    let [high, low, ..] = digits else { return None };
    let digit = |byte: &u8| char::from(*byte).to_digit(16);
    u8::try_from(digit(high)? << 4 | digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::SearchVariation;
    use crate::policy::{CacheKey, tests::headers};

    fn parse(field: &str) -> Option<SearchVariation> {
        SearchVariation::parse(&headers(&format!("No-Vary-Search: {field}")))
    }

    /// Whether a response with this field to the first query answers the second.
    fn same(field: &str, first: &str, second: &str) -> bool {
        let key = |query| CacheKey::from_text(&format!("http://a.example/x{query}"));
        parse(field).unwrap().answers(&key(first), &key(second))
    }

    #[test]
    fn a_field_that_says_nothing_or_nothing_sensible_is_none() {
        for field in [
            "",
            "unknown",
            "params=()",
            "params=?0",
            "key-order=?0",
            r#"key-order="x""#,
            "key-order=1",
            r#"params="a""#,
            "params=(a)",
            "params=a",
            r#"params=("a"), except=("x")"#,
            "params=(), except=()",
            r#"params=?0, except=("x")"#,
            "except",
            "except=?1",
            "except=(a)",
            r#"params, except="x""#,
            r#"params, except=("x""#,
            r#"params, params=("a" b)"#,
        ] {
            assert_eq!(parse(field), None, "{field}");
        }
        assert_eq!(SearchVariation::parse(&headers("-")), None);
        let many = |count| format!("params=({})", vec!["\"a\""; count].join(" "));
        assert!(parse(&many(64)).is_some());
        assert!(parse(&many(65)).is_none());
        for list in ["params", "except", "params, except"] {
            let long = |bytes: usize| format!("{list}=(\"a\" \"{}\")", "x".repeat(bytes - 1));
            assert!(parse(&long(1_024)).is_some(), "{list}");
            assert!(parse(&long(1_025)).is_none(), "{list}");
        }
    }

    #[test]
    fn the_same_thing_can_be_said_in_several_ways() {
        for (one, other) in [
            ("except=()", "params"),
            ("params=?1", "params"),
            (r#"except=("x")"#, r#"params, except=("x")"#),
            ("key-order", "key-order=?1;a=b, other=3"),
            (
                r#"key-order, params=("a")"#,
                r#"params=("a";q=1);b, key-order"#,
            ),
            (r#"params=("%C3%A9+x")"#, r#"params=("%c3%a9%20x")"#),
            (
                "params=(\"a\") | No-Vary-Search: key-order",
                "params=(\"a\"), key-order",
            ),
        ] {
            assert!(parse(one).is_some(), "{one}");
            assert_eq!(parse(one), parse(other), "{one}");
        }
    }

    #[test]
    fn queries_differ_in_what_matters() {
        for (field, first, second, expected) in [
            (r#"params=("a")"#, "?a=1&b=2", "?b=2", true),
            (r#"params=("a")"#, "?a=1", "", true),
            (r#"params=("a")"#, "?a=1", "?", true),
            (r#"params=("a")"#, "?a=1&b=2", "?b=3", false),
            (r#"params=("a")"#, "?b=2&c=3", "?c=3&b=2", false),
            (r#"params=("a")"#, "?b=2", "?b=2&b=2", false),
            (r#"params=("a")"#, "?A=1", "?", false),
            (r#"except=("id")"#, "?id=1&x=2", "?y&id=1&x=3", true),
            (r#"except=("id")"#, "?id=1", "?id=2", false),
            (r#"except=("id")"#, "?id=1", "", false),
            ("except=()", "?a=1", "?b", true),
            ("key-order", "?a=1&b=2", "?b=2&a=1", true),
            ("key-order", "?a=1&a=2", "?a=2&a=1", false),
            ("key-order", "?a=1", "?a=1&b=2", false),
            (r#"key-order, params=("x")"#, "?x&a=1&b=2", "?b=2&a=1", true),
            // As forms are decoded.
            ("key-order", "?a=x", "?%61=%78", true),
            ("key-order", "?a=%f6", "?a=%ef%bf%bd", true),
            ("key-order", "?a=x&&&&", "?a=x", true),
            ("key-order", "?a=", "?a", true),
            ("key-order", "?a=%20", "?a=+", true),
            ("key-order", "?a=%2", "?a=%252", true),
            ("key-order", "?a=%zz", "?a=%25zz", true),
            ("key-order", "?a=b=c", "?a=b%3Dc", true),
            ("key-order", "?a=b=c", "?a=b", false),
            ("key-order", "?ab=c", "?a=bc", false),
            (
                r#"params=("%C3%A9+%E6%B0%97")"#,
                "?%C3%A9%20%E6%B0%97=3",
                "",
                true,
            ),
        ] {
            assert_eq!(
                same(field, first, second),
                expected,
                "{field} {first} {second}"
            );
            assert_eq!(
                same(field, second, first),
                expected,
                "{field} {second} {first}"
            );
        }
    }

    #[test]
    fn only_the_query_may_differ() {
        let variation = parse("except=()").unwrap();
        let stored = CacheKey::from_text("http://a.example/x?1");
        for (asked, expected) in [
            ("http://a.example/x?2", true),
            ("http://a.example/x", true),
            ("http://a.example/X?1", false),
            ("http://a.example/x/?1", false),
            ("http://a.example:81/x?1", false),
            ("https://a.example/x?1", false),
            ("~p http://a.example/x?1", false),
        ] {
            assert_eq!(
                variation.answers(&stored, &CacheKey::from_text(asked)),
                expected,
                "{asked}"
            );
        }
    }
}
