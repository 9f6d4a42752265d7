//! What a successful unsafe request invalidates (RFC 9111 section 4.4).

use http::{
    HeaderMap, HeaderValue, Method, StatusCode,
    header::{CONTENT_LOCATION, LOCATION},
};

use super::{CacheKey, Names, QueryRules, tags::invalidated_groups};

/// The keys to invalidate: the target, and same-origin `Location` and `Content-Location`.
pub type InvalidationTargets = smallvec::SmallVec<[CacheKey; 3]>;

/// Methods registered as safe (IANA), besides `CONNECT`, which has no target. Any other one, known or not, may change
/// something.
const SAFE: [&str; 9] = [
    "CONNECT", "GET", "HEAD", "OPTIONS", "PROPFIND", "QUERY", "REPORT", "SEARCH", "TRACE",
];

/// The keys that a request with `method` to `target`, answered so, invalidates; empty for safe methods and errors. What
/// the response names is read under the same rules for queries as the target.
pub fn invalidates(
    method: &Method,
    target: &CacheKey,
    status: StatusCode,
    response_headers: &HeaderMap,
    rules: &QueryRules,
) -> InvalidationTargets {
    let mut keys = InvalidationTargets::new();
    if !may_have_changed(method, status) {
        return keys;
    }
    keys.push(target.clone());
    for name in [LOCATION, CONTENT_LOCATION] {
        let Some(location) = response_headers.get(name) else {
            continue;
        };
        // Only of the same origin: no site may invalidate another's (RFC 9111 section 4.4).
        match same_origin_target(target, location, rules) {
            Some(key) if !keys.contains(&key) => keys.push(key),
            _ => {}
        }
    }
    keys
}

/// The groups of the target's origin (RFC 9875 section 3) that a request with `method`, answered so, invalidates; none for
/// safe methods and errors. What is invalidated so invalidates nothing further.
pub fn invalidates_groups(
    method: &Method,
    status: StatusCode,
    response_headers: &HeaderMap,
) -> Names {
    if may_have_changed(method, status) {
        invalidated_groups(response_headers)
    } else {
        Names::default()
    }
}

/// Whether an unsafe request was answered as if it had been executed.
pub fn may_have_changed(method: &Method, status: StatusCode) -> bool {
    !SAFE.contains(&method.as_str()) && (status.is_success() || status.is_redirection())
}

/// The key that a URI reference in a response for `target` means, in the same partition; `None` where it is of another
/// origin or cannot be read.
pub(super) fn same_origin_target(
    target: &CacheKey,
    reference: &HeaderValue,
    rules: &QueryRules,
) -> Option<CacheKey> {
    let reference = reference.to_str().ok()?.trim();
    let (scheme, _) = target.uri().split_once("://")?;
    let resolved = resolve(scheme, target, reference)?;
    let resolved = rules.apply(&resolved).unwrap_or(resolved);
    let mut text = String::new();
    CacheKey::write(
        &mut text,
        target.partition(),
        scheme,
        target.authority(),
        &resolved,
    );
    Some(CacheKey::from_text(&text))
}

/// The path and query of `reference`, resolved against `base` (RFC 3986 section 5.2.2); `None` where scheme or authority
/// are others.
fn resolve(scheme: &str, base: &CacheKey, reference: &str) -> Option<String> {
    let reference = reference.split('#').next().unwrap_or(reference);
    let relative = match scheme_of(reference) {
        Some(other) if !other.eq_ignore_ascii_case(scheme) => return None,
        Some(other) => &reference[other.len() + 1..],
        None => reference,
    };
    let path_and_query = match relative.strip_prefix("//") {
        Some(rest) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, rest) = rest.split_at(end);
            if !is_same_authority(scheme, authority, base) {
                return None;
            }
            rest
        }
        // `http:path` has no meaning that everybody shares.
        None if relative.len() != reference.len() => return None,
        None if relative.starts_with('/') => relative,
        None => return Some(merge(base.path_and_query(), relative)),
    };
    let (path, query) = split_query(path_and_query);
    Some(remove_dot_segments(path) + query)
}

/// The scheme at the start of a URI reference, if it has one (RFC 3986 section 3.1).
fn scheme_of(reference: &str) -> Option<&str> {
    let (scheme, _) = reference.split_once(':')?;
    let mut bytes = scheme.bytes();
    let starts_well = bytes.next()?.is_ascii_alphabetic();
    let is_scheme = bytes.all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    (starts_well && is_scheme).then_some(scheme)
}

/// Compared as [`CacheKey::write`] writes them: without case and default port. Userinfo is never the same.
fn is_same_authority(scheme: &str, authority: &str, base: &CacheKey) -> bool {
    let mut text = String::new();
    CacheKey::write(&mut text, None, scheme, authority, "");
    CacheKey::from_text(&text).authority() == base.authority()
}

/// A relative path or query against the base (RFC 3986 sections 5.2.2 and 5.2.3).
fn merge(base: &str, relative: &str) -> String {
    let (base_path, _) = split_query(base);
    let (path, query) = split_query(relative);
    match (path, query) {
        ("", "") => base.to_owned(),
        ("", query) => base_path.to_owned() + query,
        (path, query) => {
            let directory = base_path
                .rfind('/')
                .map_or("", |slash| &base_path[..=slash]);
            remove_dot_segments(&format!("{directory}{path}")) + query
        }
    }
}

/// The path, and the query with its question mark.
fn split_query(path_and_query: &str) -> (&str, &str) {
    path_and_query.split_at(path_and_query.find('?').unwrap_or(path_and_query.len()))
}

/// RFC 3986 section 5.2.4, for a path that starts with `/`.
fn remove_dot_segments(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    let mut segments = path.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    kept.pop();
                }
                if is_last {
                    kept.push("");
                }
            }
            segment => kept.push(segment),
        }
    }
    format!("/{}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::{CacheKey, QueryRules, invalidates, invalidates_groups, remove_dot_segments};
    use crate::policy::{ParameterPattern, tests::headers};

    fn invalidated(method: &str, target: &str, status: u16, response: &str) -> Vec<String> {
        invalidated_under(&QueryRules::default(), method, target, status, response)
    }

    fn invalidated_under(
        rules: &QueryRules,
        method: &str,
        target: &str,
        status: u16,
        response: &str,
    ) -> Vec<String> {
        let keys = invalidates(
            &method.parse().unwrap(),
            &CacheKey::from_text(target),
            status.try_into().unwrap(),
            &headers(response),
            rules,
        );
        keys.iter().map(|key| key.as_str().to_owned()).collect()
    }

    #[test]
    fn what_a_response_names_is_read_under_the_rules_for_queries() {
        let rules = QueryRules {
            ignored: vec![ParameterPattern::parse("utm_*").unwrap()],
            sorted: true,
        };
        let named = "Location: /y?b=1&utm_id=2&a=3 | Content-Location: ?utm_id=1";
        let keys = invalidated_under(&rules, "POST", "http://a.example/x", 201, named);
        let expected = ["http://a.example/x", "http://a.example/y?a=3&b=1"];
        assert_eq!(keys, expected);
    }

    #[test]
    fn successful_unsafe_requests_invalidate_their_target() {
        const TARGET: &str = "http://a.example/x";
        for (method, status, expected) in [
            ("POST", 200, true),
            ("PUT", 201, true),
            ("DELETE", 204, true),
            ("PATCH", 303, true),
            ("M-SEARCH", 200, true),
            ("get", 200, true),
            ("POST", 400, false),
            ("POST", 500, false),
            ("GET", 200, false),
            ("HEAD", 200, false),
            ("OPTIONS", 200, false),
            ("TRACE", 200, false),
            ("PROPFIND", 207, false),
            ("QUERY", 200, false),
        ] {
            let found = !invalidated(method, TARGET, status, "").is_empty();
            assert_eq!(found, expected, "{method} {status}");
        }
    }

    #[test]
    fn groups_are_invalidated_by_successful_unsafe_requests_only() {
        let fields = headers(r#"Cache-Group-Invalidation: "a""#);
        for (method, status, expected) in [
            ("POST", 200, true),
            ("DELETE", 303, true),
            ("M-SEARCH", 200, true),
            ("POST", 404, false),
            ("POST", 503, false),
            ("GET", 200, false),
            ("HEAD", 200, false),
            ("OPTIONS", 204, false),
            ("QUERY", 200, false),
        ] {
            let (name, status_code) = (method.parse().unwrap(), status.try_into().unwrap());
            let groups = invalidates_groups(&name, status_code, &fields);
            assert_eq!(!groups.is_empty(), expected, "{method} {status}");
        }
    }

    #[test]
    fn locations_are_resolved_and_must_be_of_the_same_origin() {
        const TARGET: &str = "http://a.example:8080/b/c/d?q";
        for (location, expected) in [
            ("/e", Some("/e")),
            ("/e?f#g", Some("/e?f")),
            ("e", Some("/b/c/e")),
            ("./e", Some("/b/c/e")),
            ("../e?f=/../g", Some("/b/e?f=/../g")),
            ("../../../../e", Some("/e")),
            ("..", Some("/b/")),
            ("?f", Some("/b/c/d?f")),
            ("e:8080/f", None),
            ("http://a.example:8080/e", Some("/e")),
            ("HTTP://A.Example:8080/E/./F", Some("/E/F")),
            ("//a.example:8080/e", Some("/e")),
            ("http://a.example:8080", Some("/")),
            ("http://a.example:8080?f", Some("/?f")),
            ("http://a.example/e", None),
            ("https://a.example:8080/e", None),
            ("http://b.example:8080/e", None),
            ("http://a.example:8080@b.example/e", None),
            ("http://user@a.example:8080/e", None),
            ("http://a.example:8080.b.example/e", None),
            ("http:e", None),
            ("//b.example/e", None),
            ("", None),
            ("#f", None),
            ("/b/c/d?q", None),
        ] {
            let found = invalidated("POST", TARGET, 201, &format!("Location: {location}"));
            let target = TARGET.to_owned();
            let expected: Vec<String> = std::iter::once(target)
                .chain(expected.map(|path| format!("http://a.example:8080{path}")))
                .collect();
            assert_eq!(found, expected, "{location}");
        }
    }

    #[test]
    fn both_locations_count_and_stay_in_the_partition() {
        let found = invalidated(
            "POST",
            "~p http://a.example/x",
            200,
            "Location: /y | Content-Location: http://a.example:80/z",
        );
        assert_eq!(
            found,
            [
                "~p http://a.example/x",
                "~p http://a.example/y",
                "~p http://a.example/z"
            ]
        );
    }

    #[test]
    fn dot_segments_are_removed_as_the_rfc_does() {
        for (path, expected) in [
            ("/a/b/c/./../../g", "/a/g"),
            ("/a/b/.", "/a/b/"),
            ("/a/b/..", "/a/"),
            ("/..", "/"),
            ("/a//../b", "/a/b"),
            ("/...", "/..."),
            ("/", "/"),
            ("", "/"),
        ] {
            assert_eq!(remove_dot_segments(path), expected, "{path}");
        }
    }
}
