//! Rebuilds heads on their way through: what concerns one connection only stays on it (RFC 9110 section 7.6.1).

use std::{fmt::Write as _, net::IpAddr};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, header};

const FORWARDED: HeaderName = HeaderName::from_static("forwarded");
const X_FORWARDED: [HeaderName; 4] = [
    HeaderName::from_static("x-forwarded-for"),
    HeaderName::from_static("x-forwarded-host"),
    HeaderName::from_static("x-forwarded-proto"),
    HeaderName::from_static("x-forwarded-port"),
];

/// Room for what most origins are told of a client.
const FORWARDED_TYPICAL_BYTES: usize = 80;

/// Fields that `Connection` cannot remove: a deliberate deviation from RFC 9110 section 7.6.1, because a client could
/// otherwise strip what the origin, or this cache, relies on.
fn is_protected(name: &str) -> bool {
    let kept = [
        "authorization",
        "host",
        "cookie",
        "cache-control",
        "forwarded",
        "via",
        "vary",
        "set-cookie",
        "age",
    ];
    kept.contains(&name) || name.starts_with("content-")
}

/// Removes hop-by-hop and Connection-named fields.
pub(crate) fn remove_hop_by_hop(headers: &mut HeaderMap) {
    remove_named(headers);
    remove_all(headers, is_hop_by_hop);
}

/// Whether a field concerns one connection only.
pub(crate) fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "te"
            | "transfer-encoding"
            | "upgrade"
    )
}

/// Removes the fields that `Connection` names, but for hop-by-hop fields, which have a meaning here.
pub(crate) fn remove_named(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CONNECTION) {
        return;
    }
    let mut named: smallvec::SmallVec<[HeaderName; 4]> = smallvec::SmallVec::new();
    for value in headers.get_all(header::CONNECTION) {
        for option in value.as_bytes().split(|byte| *byte == b',') {
            if let Ok(name) = HeaderName::from_bytes(option.trim_ascii())
                && !is_protected(name.as_str())
                && !is_hop_by_hop(name.as_str())
            {
                named.push(name);
            }
        }
    }
    for name in named {
        headers.remove(name);
    }
}

/// Whether a field is what a client may claim about other hops but is not trusted to: `Forwarded`, and whatever begins with
/// `X-Forwarded`, of which every framework knows some.
pub(crate) fn is_claim(name: &str) -> bool {
    name == "forwarded" || begins_so(name, "x-forwarded")
}

/// Whether there is any field that is an override.
pub(crate) fn has_overrides(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| is_override(name.as_str()))
}

/// Whether it is a field by which some origins let a request be another one than it says. On a read they would have that
/// other one's answer filed under the key of this one.
pub(crate) fn is_override(name: &str) -> bool {
    const OVERRIDES: [&str; 14] = [
        "front-end-https",
        "x-host",
        "x-http-host-override",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-host",
        "x-original-uri",
        "x-original-url",
        "x-proxy-host",
        "x-rewrite-uri",
        "x-rewrite-url",
        "x-scheme",
        "x-url-scheme",
    ];
    let is_it = |known: &&str| name.len() == known.len() && begins_so(name, known);
    // All begin so, and hardly any other name does: one look instead of fourteen.
    matches!(name.as_bytes().first(), Some(b'f' | b'x')) && OVERRIDES.iter().any(is_it)
}

/// Whether a name begins so, with `_` taken for `-`: an origin behind CGI, or what took after it, cannot tell the two
/// apart.
fn begins_so(name: &str, start: &str) -> bool {
    let is_same = |(byte, wanted): (u8, u8)| byte == wanted || (byte == b'_' && wanted == b'-');
    name.len() >= start.len() && name.bytes().zip(start.bytes()).all(is_same)
}

/// Removes the fields whose names are unwanted: one look at each, because hardly any is.
pub(crate) fn remove_all(headers: &mut HeaderMap, is_unwanted: impl Fn(&str) -> bool) {
    let unwanted: smallvec::SmallVec<[HeaderName; 4]> = headers
        .keys()
        .filter(|name| is_unwanted(name.as_str()))
        .cloned()
        .collect();
    for name in unwanted {
        headers.remove(name);
    }
}

/// Joins several `Cookie` lines, as HTTP/2 may split them, into the one that HTTP/1 has (RFC 9113 section 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let mut lines = headers
        .get_all(header::COOKIE)
        .iter()
        .map(HeaderValue::as_bytes);
    let (Some(first), Some(second)) = (lines.next(), lines.next()) else {
        return;
    };
    let lines: Vec<&[u8]> = [first, second].into_iter().chain(lines).collect();
    if let Ok(joined) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(header::COOKIE, joined);
    }
}

/// Says to the origin of a reverse route who asked, and for what host where that may be told (RFC 7239, and the older
/// fields). `client` is the hop that was seen, the last of the chain.
pub(crate) fn set_forwarded(
    headers: &mut HeaderMap,
    client: Option<IpAddr>,
    host: Option<&HeaderValue>,
) {
    let Some(client) = client else { return };
    // One buffer for what both say: `for=ADDRESS;host="HOST";proto=http`, of which the address is the older field's value.
    let (before, after) = match client {
        IpAddr::V4(_) => ("for=", ""),
        IpAddr::V6(_) => ("for=\"[", "]\""),
    };
    let mut text = String::with_capacity(FORWARDED_TYPICAL_BYTES);
    text.push_str(before);
    push_address(&mut text, client);
    let end_of_address = text.len();
    text.push_str(after);
    if let Some(host) = host.and_then(|host| host.to_str().ok()) {
        text.extend([";host=\"", host, "\""]);
    }
    text.push_str(";proto=http");
    let text = Bytes::from(text);
    let address = text.slice(before.len()..end_of_address);
    append(headers, FORWARDED, text);
    append(headers, X_FORWARDED[0].clone(), address);
    if let Some(host) = host {
        headers.insert(X_FORWARDED[1].clone(), host.clone());
    }
    headers.insert(X_FORWARDED[2].clone(), HeaderValue::from_static("http"));
}

/// An address as text: without formats, where it is one of the short ones that most are.
pub(crate) fn push_address(text: &mut String, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let mut digits = *b"000.000.000.000";
            let mut length = 0;
            for octet in address.octets() {
                for (power, digit) in [(100, octet / 100), (10, octet / 10 % 10), (1, octet % 10)] {
                    if octet >= power || power == 1 {
                        digits[length] = b'0' + digit;
                        length += 1;
                    }
                }
                // The last one is left out.
                if length < digits.len() {
                    digits[length] = b'.';
                }
                length += 1;
            }
            text.push_str(std::str::from_utf8(&digits[..length - 1]).expect("digits and dots"));
        }
        IpAddr::V6(address) => {
            let written = write!(text, "{address}");
            debug_assert!(written.is_ok(), "a String takes everything");
        }
    }
}

fn append(headers: &mut HeaderMap, name: HeaderName, value: Bytes) {
    if let Ok(value) = HeaderValue::from_maybe_shared(value) {
        headers.append(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::{
        has_overrides, is_claim, is_override, push_address, remove_all, remove_hop_by_hop,
    };
    use http::HeaderMap;

    #[test]
    fn what_an_origin_may_take_for_a_claim_or_an_override_is_removed() {
        for (name, claims_so, overrides) in [
            ("forwarded", true, false),
            ("x-forwarded", true, false),
            ("x-forwarded-host", true, false),
            ("x_forwarded_host", true, false),
            ("x-forwarded_proto", true, false),
            ("x-host", false, true),
            ("x_original-url", false, true),
            ("x_http_method_override", false, true),
            ("front_end_https", false, true),
            ("x-proxy-host", false, true),
            ("x-forward", false, false),
            ("x-hosts", false, false),
            ("x-hos", false, false),
            ("x_theme", false, false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(name, "a".parse().unwrap());
            assert_eq!(has_overrides(&headers), overrides, "{name}");
            let mut without_claims = headers.clone();
            remove_all(&mut without_claims, is_claim);
            assert_eq!(without_claims.is_empty(), claims_so, "{name}");
            let mut without_overrides = headers;
            remove_all(&mut without_overrides, is_override);
            assert_eq!(without_overrides.is_empty(), overrides, "{name}");
        }
    }

    #[test]
    fn an_address_is_written_as_it_is_shown() {
        for address in ["0.0.0.0", "127.0.0.1", "192.168.10.255", "::1", "fe80::1:2"] {
            let mut text = String::new();
            push_address(&mut text, address.parse().unwrap());
            assert_eq!(text, address);
        }
    }

    #[test]
    fn what_concerns_one_connection_stays_on_it() {
        let mut headers: HeaderMap = [
            (
                "connection",
                "close, X-Private, Authorization, Content-Type",
            ),
            ("connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("x-private", "1"),
            ("authorization", "kept: a client cannot strip it"),
            ("content-type", "text/plain"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("proxy-authorization", "Basic x"),
            ("upgrade", "h2c"),
            ("x-kept", "1"),
        ]
        .into_iter()
        .map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap()))
        .collect();
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(http::HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["authorization", "content-type", "x-kept"]);
    }
}
