//! Which messages are refused before anything else looks at them: those that two parties could read differently, and
//! those over the limits (RFC 9112 sections 3.2, 6.1 and 6.3; the smuggling vectors hyper lets through).

use http::{HeaderMap, HeaderValue, Method, Request, Uri, Version, header};
use http_body::Body;

use super::problem::Problem;
use crate::policy::{FieldSet, Reason};

/// Bytes of a request target. Longer ones are attacks or mistakes; hyper's own limit is 64 KiB.
const TARGET_MAX_BYTES: usize = 8 * 1024;
/// Fields of a request.
const FIELDS_MAX: usize = 100;

/// Refuses what must not be read on.
pub(crate) fn check<B: Body>(
    request: &Request<B>,
    fields: FieldSet,
    max_head_bytes: usize,
    two_framings: bool,
) -> Result<(), Problem> {
    if fields.has(FieldSet::TRANSFER_ENCODING) && request.version() < Version::HTTP_2 {
        check_framing(request.headers(), two_framings)?;
    }
    check_host(request)?;
    check_target(request)?;
    check_size(request, max_head_bytes)?;
    if *request.method() == Method::TRACE {
        return Err(Problem::new(
            Reason::MethodNotAllowed,
            "TRACE would echo credentials to whoever asks",
        ));
    }
    if *request.method() == Method::CONNECT && has_body(request) {
        return Err(bad("CONNECT has no body"));
    }
    Ok(())
}

/// Whether the request has a body.
pub(crate) fn has_body<B: Body>(request: &Request<B>) -> bool {
    !request.body().is_end_stream()
}

/// Whether a segment of the path is `.` or `..`, in any spelling that an origin may take for one: percent-encoded, or
/// with parameters behind it (`..;x`). Such a path can leave the part of the origin that a route or a base path names.
pub(crate) fn has_dot_segments(path: &str) -> bool {
    // Most paths have neither, and every request asks.
    if !path.bytes().any(|byte| byte == b'.' || byte == b'%') {
        return false;
    }
    path.split('/').any(|segment| {
        let name = segment.split(';').next().unwrap_or_default();
        let after = without_dot(name);
        after.is_some_and(|rest| rest.is_empty() || without_dot(rest) == Some(""))
    })
}

/// What follows a dot at the start, plain or percent-encoded.
fn without_dot(name: &str) -> Option<&str> {
    [".", "%2e", "%2E"]
        .iter()
        .find_map(|dot| name.strip_prefix(dot))
}

fn bad(detail: &str) -> Problem {
    Problem::closing(Reason::BadRequest, detail)
}

fn check_framing(headers: &HeaderMap, two_framings: bool) -> Result<(), Problem> {
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let Some(coding) = codings.next() else {
        return Ok(());
    };
    if codings.next().is_some() {
        return Err(bad("more than one Transfer-Encoding field"));
    }
    if two_framings || headers.contains_key(header::CONTENT_LENGTH) {
        return Err(bad("both Content-Length and Transfer-Encoding"));
    }
    if !coding
        .as_bytes()
        .trim_ascii()
        .eq_ignore_ascii_case(b"chunked")
    {
        let codings = String::from_utf8_lossy(coding.as_bytes()).into_owned();
        let only_chunked = codings
            .split(',')
            .all(|coding| coding.trim().eq_ignore_ascii_case("chunked"));
        if only_chunked {
            return Err(bad("chunked applied more than once"));
        }
        return Err(Problem::closing(
            Reason::NotImplemented,
            "a transfer coding other than chunked",
        ));
    }
    Ok(())
}

fn check_host<B>(request: &Request<B>) -> Result<(), Problem> {
    let mut hosts = request.headers().get_all(header::HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return Err(bad("more than one Host field"));
    }
    match host {
        None if request.version() == Version::HTTP_11 => Err(bad("no Host field")),
        Some(host) if !is_host(host.as_bytes()) => {
            Err(bad("the Host field is not a host and an optional port"))
        }
        Some(host) if request.version() == Version::HTTP_2 && !is_target(host, request.uri()) => {
            Err(bad("the Host field differs from :authority"))
        }
        _ => Ok(()),
    }
}

/// Whether Host says what `:authority` says, where there is one (RFC 9113 section 8.3.1). Before HTTP/2 a target with
/// an authority replaces Host (RFC 9112 section 3.2.2), so there the two may differ.
fn is_target(host: &HeaderValue, target: &Uri) -> bool {
    target.authority().is_none_or(|authority| {
        host.as_bytes()
            .eq_ignore_ascii_case(authority.as_str().as_bytes())
    })
}

/// `uri-host [":" port]` (RFC 9110 section 7.2). Empty is allowed: a target without authority has an empty Host.
fn is_host(host: &[u8]) -> bool {
    if host.is_empty() || is_plain_host(host) {
        return true;
    }
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=:[]".contains(byte);
    let Some(authority) = http::uri::Authority::try_from(host)
        .ok()
        .filter(|_| host.iter().all(allowed))
    else {
        return false;
    };
    let port = authority
        .as_str()
        .strip_prefix(authority.host())
        .unwrap_or_default();
    let has_good_port = match port.strip_prefix(':') {
        None => port.is_empty(),
        Some("") => true,
        // The parser of numbers takes a plus sign, the grammar of ports does not.
        Some(number) => !number.starts_with('+') && authority.port_u16().is_some(),
    };
    !authority.host().is_empty() && has_good_port
}

/// What nearly every client sends, told without the parser: letters, digits, dots and hyphens, and perhaps a port.
fn is_plain_host(host: &[u8]) -> bool {
    let end = host.iter().position(|byte| *byte == b':');
    let (name, port) = host.split_at(end.unwrap_or(host.len()));
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    // Four digits are a port whatever they are.
    let has_plain_port = match port {
        [] => true,
        [_, digits @ ..] => {
            (1..=4).contains(&digits.len()) && digits.iter().all(u8::is_ascii_digit)
        }
    };
    !name.is_empty() && has_plain_port && name.iter().all(is_plain)
}

fn check_target<B>(request: &Request<B>) -> Result<(), Problem> {
    let uri = request.uri();
    if let Some(authority) = uri.authority() {
        if authority.as_str().contains('@') {
            return Err(bad("userinfo in the request target"));
        }
        if !is_host(authority.as_str().as_bytes()) || authority.host().is_empty() {
            return Err(bad(
                "the authority of the request target is not a host and an optional port",
            ));
        }
        if uri.scheme().is_none() && *request.method() != Method::CONNECT {
            return Err(bad("only CONNECT names an authority alone"));
        }
    }
    if *request.method() == Method::CONNECT
        && uri
            .authority()
            .and_then(http::uri::Authority::port_u16)
            .is_none()
    {
        return Err(bad("CONNECT needs a host and a port"));
    }
    if uri
        .scheme_str()
        .is_some_and(|scheme| scheme != "http" && scheme != "https")
    {
        return Err(bad("only http and https are served"));
    }
    if uri.path() == "*" && *request.method() != Method::OPTIONS {
        return Err(bad("only OPTIONS asks for *"));
    }
    if target_bytes(uri) > TARGET_MAX_BYTES {
        return Err(Problem::closing(
            Reason::TargetTooLong,
            format!("the request target has more than {TARGET_MAX_BYTES} bytes"),
        ));
    }
    Ok(())
}

fn target_bytes(uri: &Uri) -> usize {
    uri.path_and_query()
        .map_or(0, |target| target.as_str().len())
        + uri
            .authority()
            .map_or(0, |authority| authority.as_str().len())
}

fn check_size<B>(request: &Request<B>, max_head_bytes: usize) -> Result<(), Problem> {
    // name, colon, space, value, end of line; close to what came over the wire.
    let fields: usize = request
        .headers()
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + 4)
        .sum();
    let bytes = fields + target_bytes(request.uri()) + request.method().as_str().len() + 12;
    if bytes > max_head_bytes || request.headers().len() > FIELDS_MAX {
        return Err(Problem::closing(
            Reason::HeadTooLarge,
            format!("a request head may have {max_head_bytes} bytes and {FIELDS_MAX} fields"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{check, has_dot_segments};
    use crate::policy::{FieldSet, Reason};
    use http::{Request, Version};

    fn refusal(
        method: &str,
        target: &str,
        fields: &[(&str, &str)],
        two_framings: bool,
    ) -> Option<Reason> {
        let mut request = Request::builder()
            .method(method)
            .uri(target)
            .version(Version::HTTP_11);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let body = if fields.iter().any(|(name, _)| *name == "content-length") {
            "abc"
        } else {
            ""
        };
        let request = request
            .body(http_body_util::Full::new(bytes::Bytes::from_static(
                body.as_bytes(),
            )))
            .unwrap();
        let fields = FieldSet::of(request.headers());
        check(&request, fields, 32 * 1024, two_framings)
            .err()
            .map(|problem| problem.reason)
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let long = format!("/{}", "a".repeat(9_000));
        let host = ("host", "a.example");
        for (method, target, fields, framings, expected) in [
            ("GET", "/", &[host][..], false, None),
            (
                "GET",
                "http://a.example/",
                &[("host", "b.example")],
                false,
                None,
            ),
            ("GET", "/", &[], false, Some(Reason::BadRequest)),
            ("GET", "/", &[host, host], false, Some(Reason::BadRequest)),
            (
                "GET",
                "/",
                &[("host", "u@a")],
                false,
                Some(Reason::BadRequest),
            ),
            (
                "GET",
                "/",
                &[("host", "a/b")],
                false,
                Some(Reason::BadRequest),
            ),
            (
                "GET",
                "/",
                &[("host", "a:x")],
                false,
                Some(Reason::BadRequest),
            ),
            ("GET", "/", &[("host", "[::1]:80")], false, None),
            (
                "GET",
                "http://u:p@a.example/",
                &[host],
                false,
                Some(Reason::BadRequest),
            ),
            ("GET", "foo", &[host], false, Some(Reason::BadRequest)),
            (
                "GET",
                "ftp://a.example/",
                &[host],
                false,
                Some(Reason::BadRequest),
            ),
            (
                "GET",
                "/",
                &[("host", "a:+80")],
                false,
                Some(Reason::BadRequest),
            ),
            (
                "GET",
                "http://a.example:+80/",
                &[host],
                false,
                Some(Reason::BadRequest),
            ),
            (
                "CONNECT",
                "a.example:+443",
                &[host],
                false,
                Some(Reason::BadRequest),
            ),
            ("CONNECT", "a.example:443", &[host], false, None),
            (
                "CONNECT",
                "a.example",
                &[host],
                false,
                Some(Reason::BadRequest),
            ),
            (
                "CONNECT",
                "a.example:443",
                &[host, ("content-length", "3")],
                false,
                Some(Reason::BadRequest),
            ),
            ("TRACE", "/", &[host], false, Some(Reason::MethodNotAllowed)),
            ("GET", &long, &[host], false, Some(Reason::TargetTooLong)),
            (
                "POST",
                "/",
                &[host, ("transfer-encoding", "chunked")],
                false,
                None,
            ),
            (
                "POST",
                "/",
                &[host, ("transfer-encoding", "chunked")],
                true,
                Some(Reason::BadRequest),
            ),
            (
                "POST",
                "/",
                &[host, ("transfer-encoding", "chunked, chunked")],
                false,
                Some(Reason::BadRequest),
            ),
            (
                "POST",
                "/",
                &[host, ("transfer-encoding", "gzip, chunked")],
                false,
                Some(Reason::NotImplemented),
            ),
            (
                "POST",
                "/",
                &[
                    host,
                    ("transfer-encoding", "chunked"),
                    ("transfer-encoding", "chunked"),
                ],
                false,
                Some(Reason::BadRequest),
            ),
        ] {
            assert_eq!(
                refusal(method, target, fields, framings),
                expected,
                "{method} {target} {fields:?}"
            );
        }
    }

    #[test]
    fn in_http_2_host_says_what_the_authority_says_or_nothing() {
        let target = "http://a.example:8080/";
        for (target, hosts, expected) in [
            (target, &[][..], None),
            (target, &["a.example:8080"], None),
            (target, &["A.Example:8080"], None),
            (target, &["a.example"], Some(Reason::BadRequest)),
            (target, &["b.example:8080"], Some(Reason::BadRequest)),
            (target, &["\"a.example:8080\""], Some(Reason::BadRequest)),
            (target, &[""], Some(Reason::BadRequest)),
            (target, &["a.example:8080"; 2], Some(Reason::BadRequest)),
            // Without :authority, Host is what is asked for.
            ("/", &["a.example"], None),
            ("/", &["\"a.example\""], Some(Reason::BadRequest)),
            ("/", &["u@a.example"], Some(Reason::BadRequest)),
        ] {
            let mut request = Request::builder().uri(target).version(Version::HTTP_2);
            for host in hosts {
                request = request.header("host", *host);
            }
            let request = request.body(String::new()).unwrap();
            let reason = check(&request, FieldSet::default(), 32 * 1024, false)
                .map_err(|problem| problem.reason);
            assert_eq!(reason.err(), expected, "{target} {hosts:?}");
        }
    }

    #[test]
    fn dot_segments_are_found_in_every_spelling() {
        for (path, expected) in [
            ("/", false),
            ("", false),
            ("*", false),
            ("/.", true),
            ("/..", true),
            ("/./a", true),
            ("/a/../b", true),
            ("/a/..", true),
            ("/a/%2e/b", true),
            ("/a/%2E%2e/b", true),
            ("/a/.%2e/b", true),
            ("/a/%2E./b", true),
            ("/a/..;x/b", true),
            ("/a/%2e%2e;x=/b", true),
            ("/a/.;/b", true),
            ("/a/...", false),
            ("/a/%2e%2e%2e", false),
            ("/a/.b/..c/d..", false),
            ("/a/.well-known/%2ehidden", false),
            ("/a/%252e%252e/b", false),
            ("/a/;../b", false),
            ("/a//b", false),
        ] {
            assert_eq!(has_dot_segments(path), expected, "{path}");
        }
    }

    #[test]
    fn a_head_over_the_limits_is_refused() {
        let large = "x".repeat(40_000);
        assert_eq!(
            refusal("GET", "/", &[("host", "a"), ("x", &large)], false),
            Some(Reason::HeadTooLarge)
        );
    }
}
