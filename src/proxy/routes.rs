//! Which route takes a request: first match wins.

use http::{Method, uri::Scheme};

use super::RouteConfig;
use crate::policy::path_matches;

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

    /// All of them, in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &RouteConfig> {
        self.routes.iter()
    }

    /// The route at this position.
    pub(crate) fn get(&self, index: usize) -> Option<&RouteConfig> {
        self.routes.get(index)
    }

    /// The position of the route of this name.
    pub(crate) fn position(&self, name: &str) -> Option<usize> {
        self.routes.iter().position(|route| route.name == name)
    }

    /// The route of this name.
    pub(crate) fn named(&self, name: &str) -> Option<&RouteConfig> {
        self.routes.iter().find(|route| route.name == name)
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

#[cfg(test)]
mod tests {
    use super::{RouteConfig, Scheme, host_matches, names_literally};
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
                invalidates: Vec::new(),
                write: crate::queue::WriteSettings::default(),
            };
            assert_eq!(
                names_literally(&route, scheme, authority),
                expected,
                "{host} {scheme} {authority}"
            );
        }
    }
}
