//! Which of the fields that a cache asks for a request has: found out in one pass, because every hit asks for all of them
//! and few requests have any.

use http::{HeaderMap, header::HeaderName};

/// A set of request fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldSet(u16);

impl FieldSet {
    /// `Authorization`.
    pub const AUTHORIZATION: Self = Self(1);
    /// `Cache-Control` or `Pragma`.
    pub const CACHE_DIRECTIVES: Self = Self(1 << 1);
    /// `If-None-Match` or `If-Modified-Since`: conditions that a cache evaluates.
    pub const CACHE_CONDITIONS: Self = Self(1 << 2);
    /// `If-Match` or `If-Unmodified-Since`: conditions that only the origin may evaluate.
    pub const ORIGIN_CONDITIONS: Self = Self(1 << 3);
    /// Conditions of either kind.
    pub const CONDITIONS: Self = Self(Self::CACHE_CONDITIONS.0 | Self::ORIGIN_CONDITIONS.0);
    /// `Range`.
    pub const RANGE: Self = Self(1 << 4);
    /// `Transfer-Encoding`.
    pub const TRANSFER_ENCODING: Self = Self(1 << 5);
    /// `Upgrade`.
    pub const UPGRADE: Self = Self(1 << 6);
    /// `Via`.
    pub const VIA: Self = Self(1 << 7);

    /// Those of `headers`.
    pub fn of(headers: &HeaderMap) -> Self {
        headers
            .keys()
            .fold(Self::default(), |set, name| Self(set.0 | bits(name)))
    }

    /// Whether any field of `wanted` is among them.
    pub const fn has(self, wanted: Self) -> bool {
        self.0 & wanted.0 != 0
    }
}

fn bits(name: &HeaderName) -> u16 {
    let set = match name.as_str() {
        "authorization" => FieldSet::AUTHORIZATION,
        "cache-control" | "pragma" => FieldSet::CACHE_DIRECTIVES,
        "if-none-match" | "if-modified-since" => FieldSet::CACHE_CONDITIONS,
        "if-match" | "if-unmodified-since" => FieldSet::ORIGIN_CONDITIONS,
        "range" => FieldSet::RANGE,
        "transfer-encoding" => FieldSet::TRANSFER_ENCODING,
        "upgrade" => FieldSet::UPGRADE,
        "via" => FieldSet::VIA,
        _ => FieldSet::default(),
    };
    set.0
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderValue, header};

    use super::FieldSet;

    #[test]
    fn each_field_is_told_by_its_name() {
        let all = [
            (header::AUTHORIZATION, FieldSet::AUTHORIZATION),
            (header::CACHE_CONTROL, FieldSet::CACHE_DIRECTIVES),
            (header::PRAGMA, FieldSet::CACHE_DIRECTIVES),
            (header::IF_NONE_MATCH, FieldSet::CACHE_CONDITIONS),
            (header::IF_MODIFIED_SINCE, FieldSet::CACHE_CONDITIONS),
            (header::IF_MATCH, FieldSet::ORIGIN_CONDITIONS),
            (header::IF_UNMODIFIED_SINCE, FieldSet::ORIGIN_CONDITIONS),
            (header::RANGE, FieldSet::RANGE),
            (header::TRANSFER_ENCODING, FieldSet::TRANSFER_ENCODING),
            (header::UPGRADE, FieldSet::UPGRADE),
            (header::VIA, FieldSet::VIA),
            (header::HOST, FieldSet::default()),
            (header::IF_RANGE, FieldSet::default()),
        ];
        for (name, expected) in &all {
            let alone = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static("x"))]);
            assert_eq!(FieldSet::of(&alone), *expected, "{name}");
        }
        let mut headers = HeaderMap::new();
        for (name, _) in &all {
            headers.append(name, HeaderValue::from_static("x"));
            headers.append(name, HeaderValue::from_static("y"));
        }
        let set = FieldSet::of(&headers);
        assert!(
            all.iter()
                .all(|(_, one)| *one == FieldSet::default() || set.has(*one))
        );
        assert!(set.has(FieldSet::CONDITIONS));
        assert!(!FieldSet::of(&HeaderMap::new()).has(set));
    }
}
