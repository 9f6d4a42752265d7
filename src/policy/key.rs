//! What a stored response is filed under: the effective upstream URI, byte for byte, and the partition it belongs to.

use std::{borrow::Borrow, fmt, sync::Arc};

/// The primary cache key (RFC 9111 section 2): the effective upstream URI as it is forwarded.
///
/// Text form, also the order on disk: `scheme://authority/path?query`, with the scheme and authority in lower case, a
/// default port left out, an empty path written `/`, and everything after it untouched. A private partition stands
/// before it: `~{partition} {uri}`.
///
/// The response to a QUERY (RFC 10008) is filed by its content too: a digest of that begins its partition,
/// `~query-{digest} {uri}` or `~query-{digest}+{partition} {uri}`. No other partition begins so.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CacheKey(Arc<str>);

impl CacheKey {
    /// How the partition of the response to a QUERY begins.
    pub const QUERY_PARTITION: &str = "query-";

    /// How the partition of a Host begins, where there is none of a content before it.
    pub const HOST_PARTITION: &str = "host-";

    /// How many hexadecimal digits name the partition of a credential.
    pub const CREDENTIAL_DIGITS: usize = 32;

    /// Appends the text form of a key to `text`, which a caller on the hit path reuses.
    pub fn write(
        text: &mut String,
        partition: Option<&str>,
        scheme: &str,
        authority: &str,
        path_and_query: &str,
    ) {
        if let Some(partition) = partition {
            text.push('~');
            text.push_str(partition);
            text.push(' ');
        }
        text.push_str(scheme);
        text.push_str("://");
        let authority = without_default_port(scheme, authority);
        let start = text.len();
        text.push_str(authority);
        text[start..].make_ascii_lowercase();
        if !path_and_query.starts_with('/') {
            text.push('/');
        }
        text.push_str(path_and_query);
    }

    /// A key from its text form, as [`CacheKey::write`] makes it.
    pub fn from_text(text: &str) -> Self {
        Self(Arc::from(text))
    }

    /// The key of a QUERY to this target whose content has this digest, in hexadecimal digits.
    #[must_use]
    pub fn with_query(&self, digest: &str) -> Self {
        let (prefix, uri) = (Self::QUERY_PARTITION, self.uri());
        match self.partition() {
            None => Self::from_text(&format!("~{prefix}{digest} {uri}")),
            Some(partition) => Self::from_text(&format!("~{prefix}{digest}+{partition} {uri}")),
        }
    }

    /// The key of a GET for the target of this QUERY, in the same partition; `None` where this is no key of a QUERY.
    pub fn query_target(&self) -> Option<Self> {
        let content = self.partition()?.strip_prefix(Self::QUERY_PARTITION)?;
        Some(match content.split_once('+') {
            None => Self::from_text(self.uri()),
            Some((_, partition)) => Self::from_text(&format!("~{partition} {}", self.uri())),
        })
    }

    /// The text form.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The effective upstream URI, without the partition.
    pub fn uri(&self) -> &str {
        if self.0.starts_with('~') {
            self.0.split_once(' ').map_or(&*self.0, |(_, uri)| uri)
        } else {
            &self.0
        }
    }

    /// The partition, if the response belongs to one: of the content of a QUERY, of a Host, of the forward proxy, of a
    /// credential (its HMAC), or of several of these, joined by `+` in this order.
    pub fn partition(&self) -> Option<&str> {
        let rest = self.0.strip_prefix('~')?;
        rest.split_once(' ').map(|(partition, _)| partition)
    }

    /// Whether the response belongs to a credential, or to the want of one: a private cache stored it. The partition of one
    /// is the last of those it lies in.
    pub fn is_of_credential(&self) -> bool {
        let partition = self.partition().unwrap_or_default();
        let last = partition.rsplit('+').next().unwrap_or_default();
        last.len() == Self::CREDENTIAL_DIGITS && last.bytes().all(|byte| byte.is_ascii_hexdigit())
    }

    /// Whether the response, to anything but a QUERY, belongs to the Host that the client named.
    pub fn is_of_host(&self) -> bool {
        let partition = self.partition().unwrap_or_default();
        partition.starts_with(Self::HOST_PARTITION)
    }

    /// The authority of the URI (`host` or `host:port`).
    pub fn authority(&self) -> &str {
        let uri = self.uri();
        let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
        rest.split('/').next().unwrap_or(rest)
    }

    /// The origin of the URI (RFC 9110 section 4.3.1): `scheme://host` or `scheme://host:port`.
    pub fn origin(&self) -> &str {
        let uri = self.uri();
        let after_scheme = uri.find("://").map_or(0, |at| at + 3);
        let end = uri[after_scheme..].find('/');
        end.map_or(uri, |at| &uri[..after_scheme + at])
    }

    /// The text form without the query, and the query without its question mark; empty where there is none.
    pub fn split_query(&self) -> (&str, &str) {
        let uri = self.uri();
        match memchr::memchr(b'?', uri.as_bytes()) {
            Some(at) => {
                // A partition may have a question mark of its own; the query is at the end.
                let at = self.0.len() - uri.len() + at;
                (&self.0[..at], &self.0[at + 1..])
            }
            None => (&self.0, ""),
        }
    }

    /// The path and query of the URI, starting with `/`.
    pub fn path_and_query(&self) -> &str {
        let uri = self.uri();
        let after_scheme = uri.find("://").map_or(0, |at| at + 3);
        uri[after_scheme..]
            .find('/')
            .map_or("/", |at| &uri[after_scheme + at..])
    }
}

fn without_default_port<'a>(scheme: &str, authority: &'a str) -> &'a str {
    let port = match scheme {
        "http" => ":80",
        "https" => ":443",
        _ => return authority,
    };
    authority.strip_suffix(port).unwrap_or(authority)
}

impl Borrow<str> for CacheKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.uri())
    }
}

impl fmt::Debug for CacheKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CacheKey({})", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::CacheKey;

    fn key(partition: Option<&str>, scheme: &str, authority: &str, path: &str) -> CacheKey {
        let mut text = String::new();
        CacheKey::write(&mut text, partition, scheme, authority, path);
        CacheKey::from_text(&text)
    }

    #[test]
    fn the_key_is_the_effective_uri() {
        for (scheme, authority, path, expected) in [
            (
                "http",
                "Example.COM:80",
                "/A%2fb?Q=1",
                "http://example.com/A%2fb?Q=1",
            ),
            ("https", "example.com:443", "", "https://example.com/"),
            (
                "http",
                "example.com:8080",
                "?q",
                "http://example.com:8080/?q",
            ),
            ("https", "[::1]:80", "/", "https://[::1]:80/"),
        ] {
            assert_eq!(key(None, scheme, authority, path).as_str(), expected);
        }
    }

    #[test]
    fn the_key_of_a_query_knows_its_target() {
        for (target, expected) in [
            ("http://a.example/x?y", "~query-0f http://a.example/x?y"),
            ("~abc http://a.example/", "~query-0f+abc http://a.example/"),
            (
                "~host-b+abc http://a.example/",
                "~query-0f+host-b+abc http://a.example/",
            ),
            // What a Host says is never taken for the digest of a content.
            (
                "~host-query-1 http://a.example/",
                "~query-0f+host-query-1 http://a.example/",
            ),
        ] {
            let target = CacheKey::from_text(target);
            let query = target.with_query("0f");
            assert_eq!(query.as_str(), expected);
            assert_eq!(query.uri(), target.uri());
            assert_eq!(query.query_target(), Some(target.clone()));
            assert_eq!(target.query_target(), None);
        }
    }

    #[test]
    fn what_a_private_cache_stored_is_told_from_what_it_did_not() {
        let credential = "0123456789abcdef0123456789abcdef";
        for (partition, expected) in [
            (String::new(), false),
            (credential.to_owned(), true),
            (format!("host-a.example+{credential}"), true),
            (format!("forward+{credential}"), true),
            (format!("query-{credential}+{credential}"), true),
            (format!("query-{credential}"), false),
            (format!("query-{credential}+host-a.example"), false),
            ("host-a.example".to_owned(), false),
            (format!("host-{credential}"), false),
            ("host-cafe".to_owned(), false),
            ("forward".to_owned(), false),
        ] {
            let partition = (!partition.is_empty()).then_some(partition.as_str());
            let key = key(partition, "http", "a.example", "/");
            assert_eq!(key.is_of_credential(), expected, "{key:?}");
        }
    }

    #[test]
    fn parts_of_a_partitioned_key_are_found_again() {
        let key = key(Some("abc"), "http", "a.example:81", "/x?y");
        assert_eq!(key.as_str(), "~abc http://a.example:81/x?y");
        assert_eq!(key.partition(), Some("abc"));
        assert_eq!(key.uri(), "http://a.example:81/x?y");
        assert_eq!(key.authority(), "a.example:81");
        assert_eq!(key.origin(), "http://a.example:81");
        assert_eq!(key.split_query(), ("~abc http://a.example:81/x", "y"));
        assert_eq!(key.path_and_query(), "/x?y");
    }
}
