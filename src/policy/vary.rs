//! Variants of one key (RFC 9111 section 4.1).
//!
//! Two requests get the same stored response when the fields nominated by its `Vary` have the same normalised values.
//! Normalisation changes no meaning: lines are combined and white space around commas goes; Accept-Encoding becomes the
//! set of codings that matter; languages are compared without case and in the order of their weights. Fields that carry
//! secrets are kept as a digest only. Bound: a response that nominates more than 32 fields matches nothing.

use http::{
    HeaderMap, HeaderName,
    header::{
        ACCEPT, ACCEPT_CHARSET, ACCEPT_ENCODING, ACCEPT_LANGUAGE, AUTHORIZATION, CONTENT_ENCODING,
        CONTENT_LANGUAGE, COOKIE, PROXY_AUTHORIZATION, VARY,
    },
};
use ring::digest;
use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::{
    StoredHead,
    fields::{FieldLines, all_members, members, weighted},
};

/// More nominated fields than this are no sensible negotiation; such a response matches nothing.
const MAX_NOMINATED: usize = 32;

/// Codings that tell variants apart. Others do only where the stored response uses them, so that a client cannot fill the
/// store with variants by inventing codings.
const KNOWN_CODINGS: [&[u8]; 5] = [b"br", b"deflate", b"gzip", b"zstd", b"*"];

/// The normalised values of the request fields nominated by a stored response's `Vary`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct VariantKey {
    /// `Vary: *`, a field that the gateway writes itself, or too many: matches nothing.
    never: bool,
    /// In the order of their names.
    fields: Box<[Nominated]>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Nominated {
    /// In lower case.
    name: String,
    /// `None`: the request did not have the field.
    value: Option<Vec<u8>>,
}

/// A normalised value; on the stack as a rule.
type Value = SmallVec<[u8; 256]>;

/// The index of the variant that matches the request's fields. Of several, a complete response outranks a part, one that
/// has a `Vary` one that has none (RFC 9111 section 4.1: origins forget it on their default response), and then the most
/// recent one wins.
pub fn select<'a>(
    headers: &HeaderMap,
    variants: impl Iterator<Item = &'a StoredHead>,
) -> Option<usize> {
    let rank = |head: &StoredHead| {
        (
            !head.is_part(),
            !head.variant.is_plain(),
            head.terms.date,
            head.response_time,
        )
    };
    let mut best = None;
    for (index, head) in variants.enumerate() {
        if !head.variant.matches(headers, &head.headers) {
            continue;
        }
        if best.is_none_or(|(_, best_rank)| rank(head) > best_rank) {
            best = Some((index, rank(head)));
        }
    }
    best.map(|(index, _)| index)
}

impl VariantKey {
    /// The variant that a response with these fields to a request with those is.
    pub fn new(request: &HeaderMap, response: &impl FieldLines) -> Self {
        let mut key = Self::default();
        let mut names: SmallVec<[HeaderName; 4]> = SmallVec::new();
        for member in all_members(response, &VARY) {
            // What is no field name cannot be in a request, and tells nothing apart.
            match HeaderName::from_bytes(member) {
                _ if member == b"*" => key.never = true,
                // Every hop writes its own; what the origin saw is not what the client sent.
                Ok(name) if matches!(name.as_str(), "forwarded" | "x-forwarded-for") => {
                    key.never = true;
                }
                Ok(name) if !names.contains(&name) => names.push(name),
                _ => {}
            }
            if names.len() > MAX_NOMINATED {
                key.never = true;
                return key;
            }
        }
        names.sort_unstable_by(|a, b| a.as_str().cmp(b.as_str()));
        key.fields = names
            .iter()
            .map(|name| Nominated {
                name: name.as_str().to_owned(),
                value: normalised(name.as_str(), request, response).map(|value| value.to_vec()),
            })
            .collect();
        key
    }

    /// This variant, for requests with the same cookie only; unchanged where the request has none.
    #[must_use]
    pub(super) fn of_one_user(mut self, request: &HeaderMap) -> Self {
        let name = COOKIE.as_str();
        let place = self
            .fields
            .binary_search_by(|field| field.name.as_str().cmp(name));
        if let (Err(place), true) = (place, request.contains_key(COOKIE)) {
            let value = Some(fingerprint(name, request).to_vec());
            let name = name.to_owned();
            let mut fields = self.fields.into_vec();
            fields.insert(place, Nominated { name, value });
            self.fields = fields.into();
        }
        self
    }

    /// Whether it can match no request at all.
    pub(super) fn never_matches(&self) -> bool {
        self.never
    }

    /// Whether it matches every request.
    fn is_plain(&self) -> bool {
        !self.never && self.fields.is_empty()
    }

    /// Whether a request with these fields is answered by the variant. `stored` are the response's fields.
    pub(super) fn matches(&self, request: &HeaderMap, stored: &impl FieldLines) -> bool {
        !self.never
            && self.fields.iter().all(|field| {
                let value = normalised(&field.name, request, stored);
                value.as_deref() == field.value.as_deref()
                    || (field.name == ACCEPT_LANGUAGE.as_str()
                        && is_preferred_language(request, stored))
            })
    }
}

/// The value of a request field as it is compared; `None` where the request does not have it.
fn normalised(name: &str, request: &HeaderMap, response: &impl FieldLines) -> Option<Value> {
    if !request.contains_key(name) {
        return None;
    }
    Some(match name {
        _ if name == AUTHORIZATION
            || name == COOKIE
            || name == PROXY_AUTHORIZATION
            || name == "x-api-key" =>
        {
            fingerprint(name, request)
        }
        _ if name == ACCEPT_ENCODING => codings(request, response),
        _ if name == ACCEPT_LANGUAGE => languages(request),
        _ if name == ACCEPT_CHARSET => combined(name, request, Case::Ignored),
        _ if name == ACCEPT => combined(name, request, Case::IgnoredBeforeParameters),
        _ => combined(name, request, Case::Kept),
    })
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Kept,
    Ignored,
    /// A media type's name has no case; its parameters may.
    IgnoredBeforeParameters,
}

/// Every member of every line, joined by commas.
fn combined(name: &str, request: &HeaderMap, case: Case) -> Value {
    let mut value = Value::new();
    for line in request.get_all(name) {
        for member in members(line.as_bytes()) {
            let start = separate(&mut value);
            value.extend_from_slice(member);
            let added = &mut value[start..];
            let end = match case {
                Case::Kept => 0,
                Case::Ignored => added.len(),
                Case::IgnoredBeforeParameters => added
                    .iter()
                    .position(|byte| *byte == b';')
                    .unwrap_or(added.len()),
            };
            added[..end].make_ascii_lowercase();
        }
    }
    value
}

/// Appends a comma, unless the value is empty; returns where the next member starts.
fn separate(value: &mut Value) -> usize {
    if !value.is_empty() {
        value.push(b',');
    }
    value.len()
}

/// The languages with their weights, heaviest first; the order of equals means nothing.
fn languages(request: &HeaderMap) -> Value {
    let mut ranges: SmallVec<[(u16, SmallVec<[u8; 16]>); 8]> = SmallVec::new();
    for member in all_members(request, &ACCEPT_LANGUAGE) {
        let Some((range, weight)) = weighted(member) else {
            return combined(ACCEPT_LANGUAGE.as_str(), request, Case::Ignored);
        };
        ranges.push((weight, lowercase(range)));
    }
    ranges.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    ranges.dedup();
    let mut value = Value::new();
    for (weight, range) in &ranges {
        separate(&mut value);
        value.extend_from_slice(range);
        value.push(b';');
        value.extend_from_slice(&weight.to_be_bytes());
    }
    value
}

/// The codings the client accepts, sorted; a `!` marks one that a wildcard would allow and the client excludes. Weights
/// above zero only say what the client likes best, and the origin chose.
fn codings(request: &HeaderMap, response: &impl FieldLines) -> Value {
    let mut accepted: SmallVec<[SmallVec<[u8; 16]>; 8]> = SmallVec::new();
    for member in all_members(request, &ACCEPT_ENCODING) {
        let Some((name, weight)) = weighted(member) else {
            return combined(ACCEPT_ENCODING.as_str(), request, Case::Ignored);
        };
        let mut coding = lowercase(name);
        if coding.as_slice() == b"x-gzip" {
            // The old name (RFC 9110 section 8.4.1.3).
            coding.drain(..2);
        }
        match (weight, coding.as_slice()) {
            (0, _) => coding.insert(0, b'!'),
            // Acceptable anyway, unless it is excluded.
            (_, b"identity") => continue,
            (_, known) if KNOWN_CODINGS.contains(&known) => {}
            (_, other) if uses_coding(response, other) => {}
            _ => continue,
        }
        accepted.push(coding);
    }
    accepted.sort_unstable();
    accepted.dedup();
    let mut value = Value::new();
    for coding in &accepted {
        separate(&mut value);
        value.extend_from_slice(coding);
    }
    value
}

fn lowercase(text: &[u8]) -> SmallVec<[u8; 16]> {
    let mut text = SmallVec::from_slice(text);
    text.make_ascii_lowercase();
    text
}

fn uses_coding(response: &impl FieldLines, coding: &[u8]) -> bool {
    all_members(response, &CONTENT_ENCODING).any(|used| used.eq_ignore_ascii_case(coding))
}

/// Whether the language the client likes best, above all others, is the one language of the stored response.
fn is_preferred_language(request: &HeaderMap, stored: &impl FieldLines) -> bool {
    let mut languages = all_members(stored, &CONTENT_LANGUAGE);
    let (Some(language), None) = (languages.next(), languages.next()) else {
        return false;
    };
    let mut wanted = None;
    let mut runner_up = 0;
    for member in all_members(request, &ACCEPT_LANGUAGE) {
        match weighted(member) {
            None => return false,
            Some((range, weight)) if range.eq_ignore_ascii_case(language) => {
                wanted = wanted.max(Some(weight));
            }
            Some((_, weight)) => runner_up = runner_up.max(weight),
        }
    }
    wanted.is_some_and(|weight| weight > runner_up)
}

/// A digest of a secret: SHA-256 cut to 128 bits. It cannot be turned back, but a guess can be checked against it, so the
/// store's files are still for the gateway's eyes only.
fn fingerprint(name: &str, request: &HeaderMap) -> Value {
    let mut context = digest::Context::new(&digest::SHA256);
    context.update(name.as_bytes());
    for line in request.get_all(name) {
        context.update(&[0]);
        context.update(line.as_bytes());
    }
    Value::from_slice(&context.finish().as_ref()[..16])
}

#[cfg(test)]
mod tests {
    use super::{VariantKey, select};
    use crate::policy::{
        Settings, StoredHead,
        tests::{Request, Response, headers},
    };

    /// Whether a response with these fields to the first request answers the second.
    fn same(first: &str, response: &str, second: &str) -> bool {
        let response = headers(response);
        VariantKey::new(&headers(first), &response).matches(&headers(second), &response)
    }

    #[test]
    fn equivalent_requests_share_a_variant_and_others_do_not() {
        const ENCODING: &str = "Vary: Accept-Encoding";
        const SDCH: &str = "Vary: Accept-Encoding | Content-Encoding: sdch";
        const LANGUAGE: &str = "Vary: Accept-Language";
        const GERMAN: &str = "Vary: Accept-Language | Content-Language: de";
        for (first, response, second, expected) in [
            (
                "Accept-Encoding: gzip, br",
                ENCODING,
                "Accept-Encoding: br;q=0.8,GZIP",
                true,
            ),
            (
                "Accept-Encoding: gzip, br",
                ENCODING,
                "Accept-Encoding: gzip | Accept-Encoding: br",
                true,
            ),
            (
                "Accept-Encoding: gzip, br",
                ENCODING,
                "Accept-Encoding: gzip",
                false,
            ),
            (
                "Accept-Encoding: gzip",
                ENCODING,
                "Accept-Encoding: gzip, br;q=0",
                false,
            ),
            (
                "Accept-Encoding: gzip",
                ENCODING,
                "Accept-Encoding: x-gzip",
                true,
            ),
            (
                "Accept-Encoding: gzip",
                ENCODING,
                "Accept-Encoding: gzip, made-up",
                true,
            ),
            (
                "Accept-Encoding: gzip",
                ENCODING,
                "Accept-Encoding: gzip, identity",
                true,
            ),
            (
                "Accept-Encoding: gzip",
                ENCODING,
                "Accept-Encoding: gzip, identity;q=0",
                false,
            ),
            ("Accept-Encoding: gzip", ENCODING, "", false),
            (
                "Accept-Encoding:",
                ENCODING,
                "Accept-Encoding: identity",
                true,
            ),
            ("Accept-Encoding:", ENCODING, "", false),
            (
                "Accept-Encoding: gzip",
                ENCODING,
                "Accept-Encoding: gzip;q=high",
                false,
            ),
            (
                "Accept-Encoding: gzip, sdch",
                SDCH,
                "Accept-Encoding: gzip",
                false,
            ),
            (
                "Accept-Encoding: gzip, sdch",
                SDCH,
                "Accept-Encoding: sdch, gzip",
                true,
            ),
            (
                "Accept-Language: de, en;q=0.5",
                LANGUAGE,
                "Accept-Language: en;q=0.500,DE;q=1",
                true,
            ),
            (
                "Accept-Language: de, en;q=0.5",
                LANGUAGE,
                "Accept-Language: de, en",
                false,
            ),
            (
                "Accept-Language: de, en;q=0.5",
                LANGUAGE,
                "Accept-Language: en, de;q=0.5",
                false,
            ),
            (
                "Accept-Language: en, de",
                GERMAN,
                "Accept-Language: de, en;q=0.9",
                true,
            ),
            (
                "Accept-Language: en, de",
                GERMAN,
                "Accept-Language: de, fr",
                false,
            ),
            (
                "Accept-Language: en, de",
                GERMAN,
                "Accept-Language: de;q=0",
                false,
            ),
            (
                "Accept-Language: en, de",
                "Vary: Accept-Language | Content-Language: de, en",
                "Accept-Language: de",
                false,
            ),
            (
                "Accept-Language: en, de | Foo: 1",
                "Vary: Foo, Accept-Language | Content-Language: de",
                "Accept-Language: de | Foo: 2",
                false,
            ),
            (
                "Accept: Text/HTML, a/b",
                "Vary: Accept",
                "Accept: text/html,A/B",
                true,
            ),
            ("Accept: a/b;v=X", "Vary: Accept", "Accept: a/b;v=x", false),
            ("Foo: a, b", "Vary: foo, FOO", "Foo: a,b", true),
            ("Foo: a, b", "Vary: Foo", "Foo: b, a", false),
            ("Foo: A", "Vary: Foo", "Foo: a", false),
            ("Foo: \"a, b\"", "Vary: Foo", "Foo: \"a,b\"", false),
            ("Foo: 1 | Bar: 2", "Vary: Foo, Bar", "Bar: 2 | Foo: 1", true),
            ("Foo:", "Vary: Foo", "", false),
            ("", "Vary: not a name", "Foo: 1", true),
            ("Cookie: a=b", "Vary: Cookie", "Cookie: a=b", true),
            ("Cookie: a=b", "Vary: Cookie", "Cookie: a=c", false),
            ("Authorization: x", "Vary: Authorization", "", false),
            ("", "Vary: *", "", false),
            ("", "Vary: Foo, X-Forwarded-For", "", false),
            ("", "Vary: Forwarded", "", false),
        ] {
            assert_eq!(
                same(first, response, second),
                expected,
                "{first} -> {response} <- {second}"
            );
        }
    }

    #[test]
    fn the_order_in_which_fields_are_nominated_makes_no_variant() {
        let request = headers("Foo: 1 | Bar: 2");
        let key = |vary| VariantKey::new(&request, &headers(vary));
        assert_eq!(key("Vary: Foo, Bar"), key("Vary: bar | Vary: foo, bar"));
        assert_ne!(key("Vary: Foo, Bar"), key("Vary: Foo"));
    }

    #[test]
    fn a_response_that_nominates_too_much_matches_nothing() {
        let names = |count| {
            let names: Vec<String> = (0..count).map(|index| format!("f{index}")).collect();
            format!("Vary: {}", names.join(", "))
        };
        assert!(same("", &names(32), ""));
        assert!(!same("", &names(33), ""));
    }

    #[test]
    fn of_several_matches_the_most_recent_with_a_vary_is_chosen() {
        let head = |request: &str, response: &str, secs| {
            let (request, response) = (Request::new(request), Response::at(response, secs));
            StoredHead::new(&request.head(), &response.head(), &Settings::default())
        };
        let plain = head("", "Date: @90", 90);
        let older = head("Foo: 1", "Date: @10 | Vary: Foo", 10);
        let newer = head("Foo: 1", "Date: @20 | Vary: Foo", 20);
        let other = head("Foo: 2", "Date: @30 | Vary: Foo", 30);
        let late_but_old = head("Foo: 1", "Date: @5 | Vary: Foo", 99);
        let all = [&plain, &late_but_old, &older, &newer, &other];
        let chosen = |request: &str| select(&headers(request), all.into_iter());
        assert_eq!(chosen("Foo: 1"), Some(3));
        assert_eq!(chosen("Foo: 2"), Some(4));
        assert_eq!(chosen("Foo: 3"), Some(0));
        assert_eq!(
            select(&headers("Foo: 3"), [&older, &newer].into_iter()),
            None
        );
        assert_eq!(
            select(&headers("Foo: 1"), [&newer, &newer].into_iter()),
            Some(0)
        );
    }
}
