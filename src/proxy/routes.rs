//! Which route takes a request: first match wins.

use http::{Method, uri::Scheme};
use smallvec::{SmallVec, smallvec};

use super::RouteConfig;

/// The routes, in order.
#[derive(Debug)]
pub(crate) struct Routes {
    routes: Vec<RouteConfig>,
}

/// What a route is matched against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    /// Host, and port where one was given, as the client wrote it.
    pub(crate) authority: &'a str,
    /// Path without query.
    pub(crate) path: &'a str,
    /// Method.
    pub(crate) method: &'a Method,
}

impl Routes {
    /// In the order of the configuration.
    pub(crate) const fn new(routes: Vec<RouteConfig>) -> Self {
        Self { routes }
    }

    /// The route at this position.
    pub(crate) fn get(&self, index: usize) -> Option<&RouteConfig> {
        self.routes.get(index)
    }

    /// The first route with an upstream that matches: for reverse requests.
    pub(crate) fn reverse(&self, asked: &Asked<'_>) -> Option<usize> {
        self.routes
            .iter()
            .position(|route| route.upstream.is_some() && matches(route, asked))
    }

    /// The first route that matches: for the policy of forward requests.
    pub(crate) fn forward(&self, asked: &Asked<'_>) -> Option<usize> {
        self.routes.iter().position(|route| matches(route, asked))
    }
}

/// Whether the route names this authority literally, so that it may take a forward request to its upstream. A host
/// without port names the default port of the request's scheme, and no other service of that host.
pub(crate) fn names_literally(route: &RouteConfig, scheme: &Scheme, authority: &str) -> bool {
    let names_a_port = without_port(&route.host).len() < route.host.len();
    !route.host.contains('*')
        && host_matches(&route.host, authority)
        && (names_a_port || has_default_port(scheme, authority))
}

/// No port, an empty one, or the scheme's own (RFC 9110 sections 4.2.1 and 4.2.2).
fn has_default_port(scheme: &Scheme, authority: &str) -> bool {
    let default = if *scheme == Scheme::HTTPS { 443 } else { 80 };
    match authority[without_port(authority).len()..].strip_prefix(':') {
        None | Some("") => true,
        Some(port) => port.parse() == Ok(default),
    }
}

fn matches(route: &RouteConfig, asked: &Asked<'_>) -> bool {
    (route.methods.is_empty() || route.methods.contains(asked.method))
        && host_matches(&route.host, asked.authority)
        && path_matches(&route.path, asked.path)
}

/// `*`, `*.suffix`, `host` (any port) or `host:port`; case-insensitive.
pub(crate) fn host_matches(pattern: &str, authority: &str) -> bool {
    if pattern == "*" {
        return true;
    }
    let host = without_port(authority);
    if let Some(suffix) = pattern.strip_prefix('*') {
        let start = host.len().checked_sub(suffix.len());
        return start.is_some_and(|start| {
            start > 0 && host.is_char_boundary(start) && host[start..].eq_ignore_ascii_case(suffix)
        });
    }
    let authority = if without_port(pattern).len() == pattern.len() {
        host
    } else {
        authority
    };
    pattern.eq_ignore_ascii_case(authority)
}

/// The host of an authority; brackets of an IPv6 literal stay.
pub(crate) fn without_port(authority: &str) -> &str {
    match authority.rfind(':') {
        Some(colon) if !authority[colon..].contains(']') => &authority[..colon],
        _ => authority,
    }
}

/// `*` stands for anything within a segment, `**` for anything at all. A pattern that ends in `/**` also matches the
/// path before it.
fn path_matches(pattern: &str, path: &str) -> bool {
    if pattern
        .strip_suffix("/**")
        .is_some_and(|parent| !parent.contains('*') && parent == path)
    {
        return true;
    }
    glob(pattern.as_bytes(), path.as_bytes())
}

/// Reads the path once, with every place of the pattern where the match can stand at the same time. There is no way
/// back, so a hostile path costs at most pattern times path, and a usual one little more than its length.
fn glob(pattern: &[u8], path: &[u8]) -> bool {
    let fixed = pattern.iter().position(|byte| *byte == b'*');
    let (literal, pattern) = pattern.split_at(fixed.unwrap_or(pattern.len()));
    let Some(path) = path.strip_prefix(literal) else {
        return false;
    };
    if pattern == b"**" {
        return true;
    }
    let mut places = Places::at_start_of(pattern);
    for byte in path {
        places.read(*byte);
        if places.are_none() {
            return false;
        }
    }
    places.contain(pattern.len())
}

/// What a pattern asks for at one of its places.
enum Piece {
    Literal(u8),
    Within,
    Across,
    End,
}

fn piece(pattern: &[u8], place: usize) -> Piece {
    match pattern.get(place..).unwrap_or_default() {
        [] => Piece::End,
        [b'*', b'*', ..] => Piece::Across,
        [b'*', ..] => Piece::Within,
        [literal, ..] => Piece::Literal(*literal),
    }
}

/// The places of a pattern where a match can stand after what was read so far, one bit each.
struct Places<'a> {
    pattern: &'a [u8],
    /// In place for patterns of up to 255 bytes after their first star, so that matching allocates nothing.
    words: SmallVec<[u64; 4]>,
}

impl<'a> Places<'a> {
    fn at_start_of(pattern: &'a [u8]) -> Self {
        let words = smallvec![0; pattern.len() / 64 + 1];
        let mut places = Self { pattern, words };
        places.enter(0);
        places
    }

    /// Adds a place, and those behind it that take nothing to reach: a star may stand for no byte.
    fn enter(&mut self, mut place: usize) {
        loop {
            self.words[place / 64] |= 1 << (place % 64);
            place += match piece(self.pattern, place) {
                Piece::Within => 1,
                Piece::Across => 2,
                Piece::Literal(_) | Piece::End => return,
            };
        }
    }

    /// From the last place to the first: what a place leads to lies behind it, and so is not taken for a place of
    /// before this byte.
    fn read(&mut self, byte: u8) {
        for word in (0..self.words.len()).rev() {
            let mut before = std::mem::take(&mut self.words[word]);
            while before != 0 {
                let bit = before.ilog2();
                before ^= 1 << bit;
                let place = word * 64 + bit as usize;
                match piece(self.pattern, place) {
                    Piece::Literal(literal) if literal == byte => self.enter(place + 1),
                    Piece::Within if byte != b'/' => self.enter(place),
                    Piece::Across => self.enter(place),
                    Piece::Literal(_) | Piece::Within | Piece::End => {}
                }
            }
        }
    }

    fn are_none(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    fn contain(&self, place: usize) -> bool {
        self.words[place / 64] & (1 << (place % 64)) != 0
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use proptest::prelude::*;

    use super::{RouteConfig, Scheme, glob, host_matches, names_literally, path_matches};
    use crate::policy::Settings;

    #[test]
    fn host_patterns() {
        for (pattern, authority, expected) in [
            ("*", "anything:1", true),
            ("a.example", "A.Example", true),
            ("a.example", "a.example:8080", true),
            ("a.example:80", "a.example:8080", false),
            ("a.example:8080", "a.example:8080", true),
            ("*.example", "a.example", true),
            ("*.example", "a.b.example:1", true),
            ("*.example", "example", false),
            ("*.example", ".example", false),
            ("[::1]", "[::1]:80", true),
            ("[::1]:81", "[::1]:80", false),
        ] {
            assert_eq!(
                host_matches(pattern, authority),
                expected,
                "{pattern} {authority}"
            );
        }
    }

    #[test]
    fn a_route_names_the_authority_that_it_spells_out() {
        let (http, https) = (&Scheme::HTTP, &Scheme::HTTPS);
        for (host, scheme, authority, expected) in [
            ("a.example", http, "a.example", true),
            ("a.example", http, "A.Example:80", true),
            ("a.example", http, "a.example:", true),
            ("a.example", http, "a.example:8080", false),
            ("a.example", http, "a.example:443", false),
            ("a.example", https, "a.example", true),
            ("a.example", https, "a.example:443", true),
            ("a.example", https, "a.example:80", false),
            ("a.example:8080", http, "a.example:8080", true),
            ("a.example:8080", http, "a.example", false),
            ("[::1]", http, "[::1]", true),
            ("[::1]", http, "[::1]:81", false),
            ("[::1]:81", http, "[::1]:81", true),
            ("a.example", http, "b.example", false),
            ("*.example", http, "a.example", false),
            ("*", http, "a.example", false),
        ] {
            let route = RouteConfig {
                name: "named".to_owned(),
                host: host.to_owned(),
                path: "/**".to_owned(),
                methods: Vec::new(),
                upstream: None,
                mode: None,
                cache: Settings::default(),
                preserve_host: false,
            };
            assert_eq!(
                names_literally(&route, scheme, authority),
                expected,
                "{host} {scheme} {authority}"
            );
        }
    }

    #[test]
    fn path_patterns() {
        for (pattern, path, expected) in [
            ("/**", "/", true),
            ("/**", "/a/b", true),
            ("/v1/**", "/v1/a/b", true),
            ("/v1/**", "/v1", true),
            ("/v1/**", "/v10", false),
            ("/v1/*", "/v1/a", true),
            ("/v1/*", "/v1/a/b", false),
            ("/*/x/**", "/a/x/y/z", true),
            ("/*/x/**", "/a/b/x/y", false),
            ("/**/x", "/a/b/x", true),
            ("/**/x", "/a/b/y", false),
            ("/a*b*c", "/aXbYbZc", true),
            ("/exact", "/exact", true),
            ("/exact", "/exact/", false),
        ] {
            assert_eq!(path_matches(pattern, path), expected, "{pattern} {path}");
        }
    }

    /// The definition: what is left of the pattern takes what is left of the path.
    fn takes(pattern: &[u8], path: &[u8]) -> bool {
        let star = |rest: &[u8], stays: bool| {
            takes(rest, path) || (stays && !path.is_empty() && takes(pattern, &path[1..]))
        };
        match pattern {
            [] => path.is_empty(),
            [b'*', b'*', rest @ ..] => star(rest, true),
            [b'*', rest @ ..] => star(rest, path.first() != Some(&b'/')),
            [literal, rest @ ..] => path.first() == Some(literal) && takes(rest, &path[1..]),
        }
    }

    proptest! {
        #[test]
        fn a_pattern_takes_what_its_definition_takes(pattern in "[/ab*]{0,9}", path in "[/ab]{0,12}") {
            prop_assert_eq!(
                glob(pattern.as_bytes(), path.as_bytes()),
                takes(pattern.as_bytes(), path.as_bytes())
            );
        }
    }

    #[test]
    fn a_pattern_longer_than_the_words_in_place_is_matched_too() {
        let literal = "ab".repeat(300);
        let pattern = format!("/*{literal}*/**/x");
        assert!(path_matches(&pattern, &format!("/b{literal}a/y/x")));
        assert!(!path_matches(&pattern, &format!("/b{}/y/x", &literal[1..])));
    }

    // Two kinds of stars used to go back over the path, one for each place of the other: 68 ms for 8 KB.
    #[test]
    fn a_hostile_path_is_matched_in_bounded_time() {
        // Longer than any request target, so that the square of it is hours and the length of it is not noticed.
        let path_bytes = 1 << 18;
        let (done, finished) = mpsc::channel();
        let matching = std::thread::spawn(move || {
            for (pattern, unit) in [
                ("/*a*a*a*a*a*b", "a"),
                ("/**a**a**a**a**b", "a"),
                ("/**-*.js", "-"),
                ("/**/*-*-*.js", "-"),
                ("/**/*/**/*.js", "/-"),
                ("/**aaaaaaaaaaaaaaaab", "a"),
            ] {
                let path = format!("/{}", unit.repeat(path_bytes / unit.len()));
                assert!(!path_matches(pattern, &path), "{pattern}");
            }
            done.send(()).unwrap();
        });
        finished
            .recv_timeout(Duration::from_secs(20))
            .expect("matching costs at most pattern times path");
        matching.join().unwrap();
    }
}
