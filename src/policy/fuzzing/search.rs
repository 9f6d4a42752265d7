//! `No-Vary-Search`: whatever it says, queries are compared as a slow and plain comparison compares them.

use std::collections::BTreeMap;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    fuzzing::{are_closed, fields, joined, lines, parts},
    policy::{CacheKey, SearchVariation},
};

const NO_VARY_SEARCH: HeaderName = HeaderName::from_static("no-vary-search");

/// The bounds that the module promises.
const NAMES_MAX: usize = 64;
const NAMES_BYTES_MAX: usize = 1_024;

/// The fields of a response, then a line each of a rule in plain words (see [`Rule`]) and of two queries.
pub(crate) fn search(input: &[u8]) {
    let mut parts = parts(input);
    let headers = fields(parts.next().unwrap_or_default());
    let mut lines = lines(parts.next().unwrap_or_default())
        .map(|line| std::str::from_utf8(line).unwrap_or_default());
    let mut next = || lines.next().unwrap_or_default();
    let rule = Rule::read(next());
    let (first, second) = (next(), next());
    check_fields(&headers);
    if let Some(variation) = SearchVariation::parse(&headers) {
        check_equivalence(&variation, first, second);
    }
    if let Some(variation) = rule.check_ways_to_write() {
        check_equivalence(&variation, first, second);
        let is_same = rule.are_equivalent(first, second);
        let same = answers(&variation, first, second);
        assert_eq!(same, is_same, "{rule:?}: {first:?} and {second:?}");
        let (mut kept, mut mattering) =
            (pairs_of(&variation.canonical(first)), rule.mattering(first));
        if rule.ignores_order {
            kept.sort();
            mattering.sort();
        }
        assert_eq!(kept, mattering, "{rule:?}: {first:?}");
    }
}

/// A structured field is what its lines are together (RFC 9651 section 4.2), and malformed as a whole.
fn check_fields(headers: &HeaderMap) {
    let found = SearchVariation::parse(headers);
    assert_eq!(SearchVariation::parse(&joined(headers)), found);
    let own = headers.get_all(NO_VARY_SEARCH);
    if are_closed(headers) {
        let twice = own.iter().chain(own);
        let twice = twice.map(|line| (NO_VARY_SEARCH, line.clone())).collect();
        assert_eq!(SearchVariation::parse(&twice), found);
    }
    for member in [
        "params=(",
        "params=1",
        "except=token",
        "key-order=\"x\"",
        "=",
    ] {
        let mut malformed = headers.clone();
        malformed.append(NO_VARY_SEARCH, HeaderValue::from_static(member));
        // The quote may be the one that an earlier line lacks.
        if !member.contains('"') || are_closed(headers) {
            assert_eq!(SearchVariation::parse(&malformed), None, "{member}");
        }
    }
}

/// What holds for any two queries under any rule.
fn check_equivalence(variation: &SearchVariation, first: &str, second: &str) {
    let same = answers(variation, first, second);
    assert_eq!(same, answers(variation, second, first));
    let (one, other) = (variation.canonical(first), variation.canonical(second));
    assert_eq!(same, one == other);
    for (query, canonical) in [(first, one), (second, other)] {
        assert!(answers(variation, query, query));
        // What matters of what matters is all of it.
        let again = pairs_of(&canonical)
            .iter()
            .map(encoded_pair)
            .collect::<Vec<_>>();
        assert_eq!(
            variation.canonical(&again.join("&")),
            canonical,
            "{query:?}"
        );
        assert_eq!(variation.canonical(&format!("&{query}&&")), canonical);
    }
    let key = |path: &str| CacheKey::from_text(&format!("http://a.example/{path}?{first}"));
    assert!(!variation.answers(&key("x"), &key("y")), "another path");
}

fn answers(variation: &SearchVariation, stored: &str, asked: &str) -> bool {
    let key = |query: &str| CacheKey::from_text(&format!("http://a.example/x?{query}"));
    variation.answers(&key(stored), &key(asked))
}

/// What `No-Vary-Search` can say, as words: `only`, `sorted`, and names as a form has them.
#[derive(Debug)]
struct Rule {
    names: Vec<String>,
    is_only: bool,
    ignores_order: bool,
}

impl Rule {
    fn read(line: &str) -> Self {
        let words: Vec<&str> = line.split(' ').collect();
        let names = words
            .iter()
            .filter(|word| !matches!(**word, "" | "only" | "sorted"));
        Self {
            names: names.map(|word| decoded(word)).collect(),
            is_only: words.contains(&"only"),
            ignores_order: words.contains(&"sorted"),
        }
    }

    /// The rule as read from a field, in each of the ways to write it.
    fn check_ways_to_write(&self) -> Option<SearchVariation> {
        let strings = self
            .names
            .iter()
            .map(|name| format!("\"{}\"", encoded(name)));
        let list = format!("({})", strings.collect::<Vec<_>>().join(" "));
        let ways = if self.is_only {
            [
                format!("except={list}"),
                format!("params, except={list}"),
                format!("except={list};a=1, params=?1;b"),
            ]
        } else {
            [
                format!("params={list}"),
                format!("params=?0, unknown, params={list}"),
                format!("params={list};a=x"),
            ]
        };
        let order = if self.ignores_order { "?1" } else { "?0" };
        let read = |text: &str| {
            let line = HeaderValue::from_str(text).expect("a field value");
            SearchVariation::parse(&HeaderMap::from_iter([(NO_VARY_SEARCH, line)]))
        };
        let found = ways.map(|way| {
            let found = read(&format!("{way}, key-order={order}"));
            assert_eq!(read(&format!("key-order={order}, {way}")), found, "{way}");
            found
        });
        assert!(found.iter().all(|one| *one == found[0]), "{found:?}");
        let says_nothing = !self.is_only && !self.ignores_order && self.names.is_empty();
        let bytes: usize = self.names.iter().map(String::len).sum();
        let is_too_much = self.names.len() > NAMES_MAX || bytes > NAMES_BYTES_MAX;
        let is_none = is_too_much || says_nothing;
        assert_eq!(found[0].is_none(), is_none, "{self:?}");
        found.into_iter().next().flatten()
    }

    /// The slow way: the parameters that matter, in order; or for each name its values in order.
    fn are_equivalent(&self, first: &str, second: &str) -> bool {
        let (first, second) = (self.mattering(first), self.mattering(second));
        if !self.ignores_order {
            return first == second;
        }
        let by_name = |pairs: Vec<(String, String)>| {
            let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
            for (name, value) in pairs {
                values.entry(name).or_default().push(value);
            }
            values
        };
        by_name(first) == by_name(second)
    }

    fn mattering(&self, query: &str) -> Vec<(String, String)> {
        let mut pairs = Vec::new();
        for parameter in query.split('&') {
            if parameter.is_empty() {
                continue;
            }
            let (name, value) = match parameter.find('=') {
                Some(at) => (&parameter[..at], &parameter[at + 1..]),
                None => (parameter, ""),
            };
            let name = decoded(name);
            if self.names.contains(&name) == self.is_only {
                pairs.push((name, decoded(value)));
            }
        }
        pairs
    }
}

/// The text of a form's name or value.
fn decoded(text: &str) -> String {
    let spaced = text.replace('+', " ");
    let mut pieces = spaced.split('%');
    let mut bytes = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let digits = piece
            .get(..2)
            .filter(|two| two.bytes().all(|b| b.is_ascii_hexdigit()));
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                bytes.extend_from_slice(&piece.as_bytes()[2..]);
            }
            None => {
                bytes.push(b'%');
                bytes.extend_from_slice(piece.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Text as a form has it, every byte in its code.
fn encoded(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

fn encoded_pair((name, value): &(String, String)) -> String {
    format!("{}={}", encoded(name), encoded(value))
}

/// The names and values in a canonical form.
fn pairs_of(mut canonical: &[u8]) -> Vec<(String, String)> {
    let mut texts = std::iter::from_fn(|| {
        let (length, rest) = canonical.split_first_chunk()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).expect("a length");
        let (text, rest) = rest.split_at(length);
        canonical = rest;
        Some(String::from_utf8(text.to_vec()).expect("text"))
    });
    let mut pairs = Vec::new();
    while let Some(name) = texts.next() {
        pairs.push((name, texts.next().expect("a name has a value")));
    }
    pairs
}
