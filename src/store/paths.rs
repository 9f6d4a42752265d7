//! Paths of an origin that are invalidated together: what a route's `invalidates` names.
//!
//! They select by key, so on disk they are neighbouring rows of the `uris` table. In memory keys have no order: there a
//! response under such a path is filed under a label of its own, for the paths that are watched.

use super::{labels::Label, matcher::RowRange};
use crate::policy::{CacheKey, path_matches};

/// A pattern of paths of one origin. It selects every partition, variant and query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// `scheme://authority`, as keys have it.
    origin: String,
    pattern: String,
}

impl Paths {
    /// `pattern` is a path with `*` for anything within a segment and `**` for anything at all.
    pub fn new(scheme: &str, authority: &str, pattern: &str) -> Self {
        let mut key = String::new();
        CacheKey::write(&mut key, None, scheme, authority, "/");
        let origin = CacheKey::from_text(&key).origin().to_owned();
        let pattern = pattern.to_owned();
        Self { origin, pattern }
    }

    pub(super) fn label(&self) -> Label {
        Label::paths(&self.origin, &self.pattern)
    }

    pub(super) fn match_key(&self, key: &CacheKey) -> bool {
        let path = key.path_and_query().split('?').next().unwrap_or_default();
        key.origin() == self.origin && path_matches(&self.pattern, path)
    }

    /// The rows of the `uris` table among which all of them are.
    pub(super) fn ranges(&self) -> Vec<RowRange> {
        let Some(star) = self.pattern.find('*') else {
            let rows = |end: &str| {
                RowRange::starting(format!("{}{}{end}", self.origin, self.pattern).as_bytes())
            };
            return vec![rows("\0"), rows("?")];
        };
        // `/a/**` is `/a` too.
        let literal = self.pattern[..star].trim_end_matches('/');
        vec![RowRange::starting(
            format!("{}{literal}", self.origin).as_bytes(),
        )]
    }
}

#[cfg(test)]
mod tests {
    use super::Paths;
    use crate::{
        policy::CacheKey,
        store::{
            disk::uri_row,
            id::{RECORD_ID_BYTES, RecordId},
        },
    };

    #[test]
    fn paths_select_any_query_and_partition_of_their_origin() {
        for (pattern, key, expected) in [
            ("/v1/orders/**", "http://a.example/v1/orders/1", true),
            ("/v1/orders/**", "http://a.example/v1/orders/1/x?y=/z", true),
            ("/v1/orders/**", "http://a.example/v1/orders", true),
            ("/v1/orders/**", "http://a.example/v1/orders?page=2", true),
            ("/v1/orders/**", "~p http://a.example/v1/orders/1", true),
            ("/v1/orders/**", "http://a.example/v1/orders2", false),
            ("/v1/orders/**", "http://a.example:81/v1/orders/1", false),
            ("/v1/orders/**", "https://a.example/v1/orders/1", false),
            ("/v1/*/photo", "http://a.example/v1/me/photo?s=2", true),
            ("/v1/*/photo", "http://a.example/v1/me/too/photo", false),
            ("/v1/list", "http://a.example/v1/list?page=2", true),
            ("/v1/list", "~p http://a.example/v1/list", true),
            ("/v1/list", "http://a.example/v1/lists", false),
            ("/v1/list", "http://a.example/x?/v1/list", false),
        ] {
            let paths = Paths::new("http", "A.example:80", pattern);
            let key = CacheKey::from_text(key);
            assert_eq!(paths.match_key(&key), expected, "{pattern} {key}");
            let row = uri_row(&key, RecordId([7; RECORD_ID_BYTES]));
            let mut ranges = paths.ranges().into_iter();
            let is_among = ranges
                .any(|range| range.from <= row && range.until.is_none_or(|until| row < until));
            assert!(is_among || !expected, "{pattern} {key}");
        }
    }
}
