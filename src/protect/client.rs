//! Who a request comes from: the peer, or what trusted proxies say of it.
//!
//! Fields are read from the right, as far as hops are trusted: what a trusted proxy has appended is at the right and well
//! formed; everything further left was written by someone else and is never looked at.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};

use http::{HeaderMap, HeaderName, header};

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// A client as it is counted: an IPv4 address, or an IPv6 network of 64 bits (what one customer gets).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ClientKey(u128);

impl ClientKey {
    pub(super) fn of(client: IpAddr) -> Self {
        match network(client) {
            // The mapped form keeps the two families apart: its network half is zero, its other half is not.
            IpAddr::V4(ip) => Self(ip.to_ipv6_mapped().to_bits()),
            IpAddr::V6(ip) => Self(ip.to_bits()),
        }
    }
}

/// Whom an address counts for: itself, or of IPv6 its /64, of which one client may have every address.
pub fn network(client: IpAddr) -> IpAddr {
    const NETWORK_BITS: u128 = !0 << 64;
    match client.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & NETWORK_BITS).into(),
        ip @ IpAddr::V4(_) => ip,
    }
}

/// The first hop, seen from us, that is not trusted; where the fields do not tell, the last that is.
pub(super) fn behind(
    peer: IpAddr,
    headers: &HeaderMap,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> IpAddr {
    let peer = peer.to_canonical();
    if !is_trusted(peer) {
        return peer;
    }
    let forwarded = first_untrusted(
        peer,
        headers,
        &header::FORWARDED,
        forwarded_for,
        &is_trusted,
    );
    let x_forwarded_for = first_untrusted(peer, headers, &X_FORWARDED_FOR, node, &is_trusted);
    match (forwarded, x_forwarded_for) {
        (Some(one), Some(other)) if one == other => one,
        // A proxy writes one of the two and lets through what its client wrote into the other: believe neither.
        (Some(_), Some(_)) | (None, None) => peer,
        (Some(client), None) | (None, Some(client)) => client,
    }
}

/// What one field says; `None` when the message does not have it.
fn first_untrusted(
    peer: IpAddr,
    headers: &HeaderMap,
    name: &HeaderName,
    parse: fn(&str) -> Option<IpAddr>,
    is_trusted: impl Fn(IpAddr) -> bool,
) -> Option<IpAddr> {
    if !headers.contains_key(name) {
        return None;
    }
    let lines = headers.get_all(name).iter().rev();
    let mut hops = lines.flat_map(|line| FromTheRight(Some(line.as_bytes())));
    let mut client = peer;
    while is_trusted(client) {
        let hop = hops
            .next()
            .and_then(|element| std::str::from_utf8(element).ok())
            .and_then(parse);
        match hop {
            Some(hop) => client = hop,
            None => break,
        }
    }
    Some(client)
}

/// The elements of a list field, last one first; empty ones left out. Commas inside quotes do not separate.
struct FromTheRight<'a>(Option<&'a [u8]>);

impl<'a> Iterator for FromTheRight<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        loop {
            let rest = self.0?;
            let comma = last_separator(rest);
            self.0 = comma.map(|comma| &rest[..comma]);
            let element = comma.map_or(rest, |comma| &rest[comma + 1..]).trim_ascii();
            if !element.is_empty() {
                return Some(element);
            }
        }
    }
}

fn last_separator(list: &[u8]) -> Option<usize> {
    let mut quoted = false;
    for (position, byte) in list.iter().enumerate().rev() {
        match byte {
            b'"' if !is_escaped(list, position) => quoted = !quoted,
            b',' if !quoted => return Some(position),
            _ => {}
        }
    }
    None
}

fn is_escaped(list: &[u8], position: usize) -> bool {
    let backslashes = list[..position]
        .iter()
        .rev()
        .take_while(|byte| **byte == b'\\')
        .count();
    backslashes % 2 == 1
}

/// The `for` of one forwarded-element (RFC 7239 section 4).
fn forwarded_for(element: &str) -> Option<IpAddr> {
    let mut found = None;
    // No valid `for` has a semicolon inside its quotes, so splitting regardless of them is safe: the pieces do not parse.
    for pair in element.split(';') {
        let (name, value) = pair.split_once('=')?;
        if name.trim_ascii().eq_ignore_ascii_case("for") && found.replace(value).is_some() {
            return None;
        }
    }
    let value = found?.trim_ascii();
    match value.strip_prefix('"') {
        Some(quoted) => node(&quoted.strip_suffix('"')?.replace('\\', "")),
        None => node(value),
    }
}

/// An address, in brackets or not, with a port or not. `unknown` and obfuscated identifiers are none.
fn node(text: &str) -> Option<IpAddr> {
    let text = text.trim_ascii();
    let bare = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let ip = bare
        .parse::<IpAddr>()
        .ok()
        .or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()));
    ip.map(|ip| ip.to_canonical())
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use http::{HeaderMap, HeaderName, HeaderValue};

    use super::behind;

    /// 10.0.0.0/8 and fd00::/8 are trusted; the peer is 10.0.0.1.
    #[track_caller]
    fn check(lines: &[(&'static str, &'static str)], expected: &str) {
        check_peer("10.0.0.1", lines, expected);
    }

    #[track_caller]
    fn check_peer(peer: &str, lines: &[(&'static str, &'static str)], expected: &str) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            );
        }
        let trusted = |ip: IpAddr| match ip {
            IpAddr::V4(ip) => ip.octets()[0] == 10,
            IpAddr::V6(ip) => ip.octets()[0] == 0xfd,
        };
        let client = behind(peer.parse().unwrap(), &headers, trusted);
        assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{lines:?}");
    }

    const XFF: &str = "x-forwarded-for";
    const FORWARDED: &str = "forwarded";

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_claims() {
        check_peer("192.0.2.9", &[(XFF, "1.2.3.4")], "192.0.2.9");
        check_peer(
            "::ffff:192.0.2.9",
            &[(FORWARDED, "for=1.2.3.4")],
            "192.0.2.9",
        );
        check_peer("::ffff:10.0.0.1", &[(XFF, "1.2.3.4")], "1.2.3.4");
    }

    #[test]
    fn x_forwarded_for_is_walked_from_the_right_to_the_first_untrusted_hop() {
        check(&[], "10.0.0.1");
        check(&[(XFF, "1.2.3.4")], "1.2.3.4");
        check(&[(XFF, "6.6.6.6, 1.2.3.4")], "1.2.3.4");
        check(&[(XFF, "6.6.6.6, 1.2.3.4,10.0.0.2 , 10.0.0.3")], "1.2.3.4");
        check(
            &[
                (XFF, "6.6.6.6"),
                (XFF, "1.2.3.4, 10.0.0.2"),
                (XFF, "10.0.0.3"),
            ],
            "1.2.3.4",
        );
        check(&[(XFF, "10.0.0.3, 10.0.0.2")], "10.0.0.3");
        check(&[(XFF, "1.2.3.4:5678")], "1.2.3.4");
        check(&[(XFF, "2001:db8::1")], "2001:db8::1");
        check(&[(XFF, "[2001:db8::1]")], "2001:db8::1");
        check(&[(XFF, "[2001:db8::1]:443, fd00::1")], "2001:db8::1");
        check(&[(XFF, "::ffff:1.2.3.4")], "1.2.3.4");
        check(&[(XFF, "1.2.3.4, , ,")], "1.2.3.4");
    }

    #[test]
    fn a_hop_that_names_nobody_ends_the_walk_at_the_trusted_one() {
        check(&[(XFF, "1.2.3.4, unknown")], "10.0.0.1");
        check(&[(XFF, "1.2.3.4, unknown, 10.0.0.7")], "10.0.0.7");
        check(&[(XFF, "1.2.3.4, 1.2.3")], "10.0.0.1");
        check(&[(XFF, "1.2.3.4, 1.2.3.4:99999")], "10.0.0.1");
        check(
            &[(FORWARDED, "for=1.2.3.4, for=_hidden, for=10.0.0.7")],
            "10.0.0.7",
        );
        check(&[(FORWARDED, "for=1.2.3.4, for=unknown")], "10.0.0.1");
        check(&[(FORWARDED, "for=1.2.3.4, by=10.0.0.7")], "10.0.0.1");
        check(&[(FORWARDED, "for=1.2.3.4, nonsense")], "10.0.0.1");
        check(&[(FORWARDED, "for=1.2.3.4;for=5.6.7.8")], "10.0.0.1");
    }

    #[test]
    fn fields_that_contradict_each_other_are_both_not_believed() {
        check(&[(FORWARDED, "for=1.2.3.4"), (XFF, "1.2.3.4")], "1.2.3.4");
        check(&[(FORWARDED, "for=1.2.3.4"), (XFF, "5.6.7.8")], "10.0.0.1");
        check(
            &[(FORWARDED, "for=127.0.0.1"), (XFF, "5.6.7.8")],
            "10.0.0.1",
        );
    }

    #[test]
    fn forwarded_is_read_with_its_parameters_and_quotes() {
        check(
            &[(FORWARDED, "proto=https;For=1.2.3.4;by=10.0.0.1")],
            "1.2.3.4",
        );
        check(&[(FORWARDED, r#"for="1.2.3.4:80""#)], "1.2.3.4");
        check(
            &[(FORWARDED, r#"for="[2001:db8::1]:4711"; proto=http"#)],
            "2001:db8::1",
        );
        check(&[(FORWARDED, r#"for="[2001:db8::1]""#)], "2001:db8::1");
        check(&[(FORWARDED, r#"for="\1.2.3.4""#)], "1.2.3.4");
        check(
            &[(FORWARDED, r#"for=1.2.3.4;host="a,b", for=10.0.0.2"#)],
            "1.2.3.4",
        );
        check(&[(FORWARDED, r#"for=1.2.3.4;host="a\",b""#)], "1.2.3.4");
    }

    #[test]
    fn what_a_client_wrote_to_the_left_cannot_swallow_what_the_proxy_appended() {
        check(&[(FORWARDED, r#"for=", for=1.2.3.4"#)], "1.2.3.4");
        check(
            &[(FORWARDED, r#"for="x, for="[2001:db8::1]""#)],
            "2001:db8::1",
        );
        check(
            &[(FORWARDED, "for=\\"), (FORWARDED, "for=1.2.3.4")],
            "1.2.3.4",
        );
        check(&[(XFF, r#"", 1.2.3.4"#)], "1.2.3.4");
    }
}
