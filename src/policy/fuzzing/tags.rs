//! Tags and groups: names are a set, a malformed list names nothing, and what is beyond the bounds is everything.

use std::collections::BTreeSet;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::reversed;
use crate::{
    fuzzing::{are_closed, fields, joined},
    policy::{
        fields::members,
        tags::{Names, Tags, invalidated_groups},
    },
};

const SURROGATE_KEY: HeaderName = HeaderName::from_static("surrogate-key");
const CACHE_TAG: HeaderName = HeaderName::from_static("cache-tag");
const CACHE_GROUPS: HeaderName = HeaderName::from_static("cache-groups");
const CACHE_GROUP_INVALIDATION: HeaderName = HeaderName::from_static("cache-group-invalidation");

/// The bounds that the module promises.
const NAMES_MAX: usize = 128;
const NAME_BYTES_MAX: usize = 256;

/// What the names start with that this target adds.
const ADDED: &str = "added";

/// The tags and groups of a response.
pub(crate) fn tags(input: &[u8]) {
    let headers = fields(input);
    let found = parse(&headers);
    assert_bounded(found.tags.listed());
    assert_bounded(found.groups.listed());
    check_ways_to_write(&headers, &found);
    check_names(&headers, &found);
    check_bounds(&headers, &found);
    check_malformed(&headers, &found);
    check_invalidation(&headers, &found);
}

/// The order, the repetition and the number of lines say nothing.
fn check_ways_to_write(headers: &HeaderMap, found: &Tags) {
    // A structured field is what its lines are together, whatever their quotes (RFC 9651 section 4.2).
    assert_eq!(parse(&joined(headers)).groups, found.groups);
    if !are_closed(headers) {
        return;
    }
    let twice = headers.iter().chain(headers);
    let twice = twice
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect();
    for other in [reversed(headers), twice] {
        let other = parse(&other);
        assert_eq!(set(&other.tags), set(&found.tags));
        assert_eq!(set(&other.groups), set(&found.groups));
    }
    // In a surrogate key a comma is like any other byte.
    if !headers.contains_key(SURROGATE_KEY) {
        assert_eq!(set(&parse(&joined(headers)).tags), set(&found.tags));
    }
}

/// What is named is found, and nothing else.
fn check_names(headers: &HeaderMap, found: &Tags) {
    let mut named: Vec<&[u8]> = Vec::new();
    for line in headers.get_all(SURROGATE_KEY) {
        named.extend(line.as_bytes().split(u8::is_ascii_whitespace));
    }
    for line in headers.get_all(CACHE_TAG).iter().map(HeaderValue::as_bytes) {
        if line.contains(&b'"') {
            named.extend(members(line));
        } else {
            named.extend(line.split(|byte| *byte == b',').map(<[u8]>::trim_ascii));
        }
    }
    let named = named.into_iter().filter(|name| !name.is_empty());
    assert_eq!(set(&found.tags), within_bounds(named));
    let lines = joined(headers).remove(CACHE_GROUPS);
    if let Some(named) = lines.and_then(|text| plain_strings(text.as_bytes())) {
        let named = named.iter().map(Vec::as_slice);
        assert_eq!(set(&found.groups), within_bounds(named));
    }
}

/// Up to the bounds a name more is a name more; beyond them it is every name, and never fewer than before.
fn check_bounds(headers: &HeaderMap, found: &Tags) {
    check_bound(&found.tags, |names| {
        parse(&with(headers, CACHE_TAG, &names.join(","))).tags
    });
    // A field of no groups may be a malformed one, which it stays.
    if !headers.contains_key(CACHE_GROUPS) || set(&found.groups) != Some(BTreeSet::new()) {
        check_bound(&found.groups, |names| {
            let strings = format!("\"{}\"", names.join("\", \""));
            parse(&with(headers, CACHE_GROUPS, &strings)).groups
        });
    }
}

fn check_bound(found: &Names, more: impl Fn(&[String]) -> Names) {
    let names = |count: usize, length: usize| -> Vec<String> {
        let digits = length - ADDED.len();
        (0..count)
            .map(|index| format!("{ADDED}{index:0digits$}"))
            .collect()
    };
    let Some(own) = set(found) else {
        assert_eq!(more(&names(1, 9)), Names::Every);
        return;
    };
    if own.iter().any(|name| name.starts_with(ADDED.as_bytes())) {
        return;
    }
    assert_eq!(more(&names(1, NAME_BYTES_MAX + 1)), Names::Every);
    let left = NAMES_MAX - own.len();
    assert_eq!(more(&names(left + 1, 9)), Names::Every);
    if left > 0 {
        assert!(more(&names(1, NAME_BYTES_MAX)) != Names::Every);
        let full = more(&names(left, 9));
        assert_eq!(full.listed().len(), NAMES_MAX);
        assert!(own.iter().all(|name| full.has(name)));
        assert!(!full.has(ADDED.as_bytes()));
    }
    assert!(Names::Every.has(ADDED.as_bytes()));
}

/// One member that is no string, and the whole field names nothing; tags are none of its business.
fn check_malformed(headers: &HeaderMap, found: &Tags) {
    for member in ["1", "token", "?1", "(\"a\")", "\"a", ""] {
        // The quote may be the one that an earlier line lacks.
        if member.contains('"') && !are_closed(headers) {
            continue;
        }
        let malformed = parse(&with(headers, CACHE_GROUPS, member));
        assert_eq!(malformed.groups, Names::default(), "{member}");
        assert_eq!(malformed.tags, found.tags);
    }
}

/// A response that has groups is hit by the invalidation that names them.
fn check_invalidation(headers: &HeaderMap, found: &Tags) {
    assert_bounded(invalidated_groups(headers).listed());
    let same: HeaderMap = headers
        .get_all(CACHE_GROUPS)
        .iter()
        .map(|line| (CACHE_GROUP_INVALIDATION, line.clone()))
        .collect();
    assert_eq!(invalidated_groups(&same), found.groups);
}

fn parse(headers: &HeaderMap) -> Tags {
    Tags::parse(headers, &[SURROGATE_KEY, CACHE_TAG])
}

fn with(headers: &HeaderMap, name: HeaderName, line: &str) -> HeaderMap {
    let mut headers = headers.clone();
    let line = HeaderValue::from_str(line).expect("names are field values");
    headers.append(name, line);
    headers
}

/// The names; `None`: every one.
fn set(names: &Names) -> Option<BTreeSet<&[u8]>> {
    match names {
        Names::Listed(names) => Some(names.iter().map(|name| &**name).collect()),
        Names::Every => None,
    }
}

/// What these names count as.
fn within_bounds<'a>(names: impl Iterator<Item = &'a [u8]>) -> Option<BTreeSet<&'a [u8]>> {
    let names: BTreeSet<&[u8]> = names.collect();
    let fit = names.len() <= NAMES_MAX && names.iter().all(|name| name.len() <= NAME_BYTES_MAX);
    fit.then_some(names)
}

fn assert_bounded(names: &[Box<[u8]>]) {
    assert!(names.len() <= NAMES_MAX);
    assert!(names.iter().all(|name| name.len() <= NAME_BYTES_MAX));
    let distinct: BTreeSet<_> = names.iter().collect();
    assert_eq!(distinct.len(), names.len(), "{names:?}");
}

/// The strings of a list of nothing but strings without parameters; `None`: it is another list, or none.
fn plain_strings(mut text: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut strings = Vec::new();
    loop {
        let (string, rest) = plain_string(text)?;
        strings.push(string);
        let rest = rest.trim_ascii_start();
        if rest.is_empty() {
            return Some(strings);
        }
        text = rest.strip_prefix(b",")?.trim_ascii_start();
    }
}

fn plain_string(text: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut rest = text.strip_prefix(b"\"")?;
    let mut string = Vec::new();
    loop {
        let (byte, after) = match rest {
            [b'"', after @ ..] => return Some((string, after)),
            [b'\\', escaped @ (b'"' | b'\\'), after @ ..] => (*escaped, after),
            [b'\\', ..] => return None,
            [byte @ b' '..=b'~', after @ ..] => (*byte, after),
            _ => return None,
        };
        string.push(byte);
        rest = after;
    }
}
