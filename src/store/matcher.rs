//! Which keys and stored responses a purge selects, and among which rows on disk they are.

use super::{Selector, labels::Label, paths::Paths, resource::StoredResponse};
use crate::policy::CacheKey;

/// Which stored responses a purge or an invalidation selects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Matcher {
    /// This URI in every partition, and what is stored under another and answers this one too (No-Vary-Search).
    Uri(String),
    Prefix(String),
    /// In lower case, with or without a port.
    Host(String),
    /// What is filed under one of these, whatever its key.
    Labels(Vec<Label>),
    Paths(Paths),
}

/// Neighbouring rows of a table: from `from`, up to but not including `until`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RowRange {
    pub(super) from: Vec<u8>,
    pub(super) until: Option<Vec<u8>>,
}

impl From<&Selector> for Matcher {
    fn from(selector: &Selector) -> Self {
        match selector {
            Selector::Url(url) => Self::Uri(url.clone()),
            Selector::Prefix(prefix) => Self::Prefix(prefix.clone()),
            Selector::Host(host) => Self::Host(host.to_ascii_lowercase()),
            Selector::Tag(tag) => {
                Self::Labels(vec![Label::tag(tag.as_bytes()), Label::every_tag()])
            }
        }
    }
}

impl Matcher {
    pub(super) fn everything() -> Self {
        Self::Prefix(String::new())
    }

    pub(super) fn selects(&self, key: &CacheKey, stored: &StoredResponse) -> bool {
        match self {
            Self::Labels(labels) => stored.is_labelled(labels),
            Self::Uri(uri) => key.uri() == uri || answers(key, stored, uri),
            by_key => by_key.matches(key),
        }
    }

    /// Whether it may select something of `key` that is filed under `labels`, for what else than its key these say.
    pub(super) fn may_select(&self, key: &CacheKey, labels: &[Label]) -> bool {
        let Self::Uri(uri) = self else { return false };
        // They do not tell which URIs: what is refused in vain costs a fetch.
        labels.iter().any(Label::is_search) && split_query(key.uri()).0 == split_query(uri).0
    }

    /// Whether it may select one response of a key and not another.
    pub(super) fn tells_apart(&self) -> bool {
        matches!(self, Self::Labels(_) | Self::Uri(_))
    }

    /// Whether it selects everything of `key`.
    pub(super) fn matches(&self, key: &CacheKey) -> bool {
        match self {
            Self::Labels(_) => false,
            Self::Paths(paths) => paths.match_key(key),
            Self::Uri(uri) => key.uri() == uri,
            Self::Prefix(prefix) => key.uri().starts_with(prefix.as_str()),
            Self::Host(host) => is_host(key.authority(), host),
        }
    }

    /// The labels, where it selects by these.
    pub(super) fn labels(&self) -> &[Label] {
        match self {
            Self::Labels(labels) => labels,
            _ => &[],
        }
    }

    /// The rows of the `uris` table among which all that it selects by key are, in order.
    pub(super) fn ranges(&self) -> Vec<RowRange> {
        match self {
            Self::Labels(_) => Vec::new(),
            Self::Paths(paths) => paths.ranges(),
            Self::Uri(uri) => vec![RowRange::starting(&with_nul(uri))],
            Self::Prefix(prefix) => vec![RowRange::starting(prefix.as_bytes())],
            Self::Host(host) => ["http", "https"]
                .map(|scheme| RowRange::starting(format!("{scheme}://{host}").as_bytes()))
                .into(),
        }
    }
}

impl RowRange {
    /// The rows of every response to a QUERY of `uri`.
    pub(super) fn of_queries(uri: &str) -> Self {
        let mut prefix = with_nul(uri);
        prefix.extend_from_slice(CacheKey::QUERY_PARTITION.as_bytes());
        Self::starting(&prefix)
    }

    /// Every row that starts so.
    pub(super) fn starting(prefix: &[u8]) -> Self {
        let mut until = prefix.to_vec();
        while until.pop_if(|last| *last == u8::MAX).is_some() {}
        let until = until.split_last().map(|(last, rest)| {
            let mut until = rest.to_vec();
            until.push(last + 1);
            until
        });
        Self {
            from: prefix.to_vec(),
            until,
        }
    }
}

/// Whether a response stored under `key` says that it answers this URI too.
fn answers(key: &CacheKey, stored: &StoredResponse, uri: &str) -> bool {
    stored.head.terms.search.as_ref().is_some_and(|search| {
        let (own, asked) = (split_query(key.uri()), split_query(uri));
        own.0 == asked.0 && search.canonical(own.1) == search.canonical(asked.1)
    })
}

/// A URI without its query, and the query, as [`CacheKey::split_query`] splits a key.
pub(super) fn split_query(uri: &str) -> (&str, &str) {
    uri.split_once('?').unwrap_or((uri, ""))
}

/// Whether `authority` is `host`: any port of it, unless `host` names one.
pub(super) fn is_host(authority: &str, host: &str) -> bool {
    authority
        .strip_prefix(host)
        .is_some_and(|rest| rest.is_empty() || (rest.starts_with(':') && !has_port(host)))
}

fn has_port(host: &str) -> bool {
    // The colons of an IPv6 address stand in brackets.
    host.rsplit(']')
        .next()
        .is_some_and(|rest| rest.contains(':'))
}

fn with_nul(uri: &str) -> Vec<u8> {
    let mut prefix = uri.as_bytes().to_vec();
    prefix.push(0);
    prefix
}

#[cfg(test)]
mod tests {
    use super::{Matcher, RowRange, is_host};
    use crate::policy::CacheKey;

    #[test]
    fn a_matcher_selects_what_its_name_says() {
        let host = |host: &str| Matcher::Host(host.to_owned());
        let prefix = |prefix: &str| Matcher::Prefix(prefix.to_owned());
        let uri = |uri: &str| Matcher::Uri(uri.to_owned());
        for (matcher, text, expected) in [
            (uri("http://a/x"), "http://a/x", true),
            (uri("http://a/x"), "~p http://a/x", true),
            (uri("http://a/x"), "http://a/x?y", false),
            (prefix("http://a/x"), "~p http://a/x?y", true),
            (prefix("http://a/x"), "http://a/", false),
            (prefix(""), "http://a/", true),
            (host("a"), "http://a:81/", true),
            (host("a"), "https://a/", true),
            (host("a"), "http://a.b/", false),
            (host("a:81"), "http://a:81/", true),
            (host("a:81"), "http://a:810/", false),
            (host("a:81"), "http://a/", false),
        ] {
            assert_eq!(
                matcher.matches(&CacheKey::from_text(text)),
                expected,
                "{matcher:?} {text}"
            );
        }
    }

    #[test]
    fn a_host_without_a_port_is_any_port_of_it() {
        for (authority, host, expected) in [
            ("[::1]:81", "[::1]", true),
            ("[::1]", "[::1]", true),
            ("[::1]:81", "[::1]:81", true),
            ("[::1]:81", "[::1]:8", false),
            ("a:80", "a:8", false),
        ] {
            assert_eq!(is_host(authority, host), expected, "{authority} {host}");
        }
    }

    #[test]
    fn a_range_ends_where_the_prefix_does() {
        for (prefix, until) in [
            (&b"ab"[..], Some(&b"ac"[..])),
            (&b"a\xff"[..], Some(&b"b"[..])),
            (&b"\xff\xff"[..], None),
            (&b""[..], None),
        ] {
            assert_eq!(RowRange::starting(prefix).until.as_deref(), until);
        }
    }
}
