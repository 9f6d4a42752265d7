//! What is addressed and matched: listeners, networks, hosts, paths, URLs, methods, header fields.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use http::{HeaderName, HeaderValue, Method, Uri};
use ipnet::IpNet;

use super::{ListenAddress, value::TextValue};

impl TextValue for SocketAddr {
    const EXPECTED: &'static str = r#"an IP address and a port, such as "127.0.0.1:8081""#;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_err(|_| {
            match text.rsplit_once(':') {
                None => "no port, `:8080`, at its end",
                Some(("", _)) => "no address before the port; every address is `0.0.0.0`",
                Some(("localhost", _)) => "a name is not an address; localhost is `127.0.0.1`",
                Some((_, port)) if port.parse::<u16>().is_err() => "not a port after the last `:`",
                Some(_) => "not an IP address before the port",
            }
            .to_owned()
        })
    }
}

impl TextValue for ListenAddress {
    const EXPECTED: &'static str =
        r#"an IP address and a port, such as "127.0.0.1:8080", or "unix:/path""#;

    fn parse(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            None => SocketAddr::parse(text).map(ListenAddress::Tcp),
            Some(path) if path.starts_with('/') => Ok(ListenAddress::Unix(PathBuf::from(path))),
            Some(_) => Err("the path after `unix:` must start with `/`".to_owned()),
        }
    }
}

impl TextValue for IpNet {
    const EXPECTED: &'static str = r#"a network in CIDR notation, such as "10.0.0.0/8""#;

    fn parse(text: &str) -> Result<Self, String> {
        // One address is the network of that address alone.
        if let Ok(address) = text.parse::<IpAddr>() {
            return Ok(address.into());
        }
        text.parse().map_err(|_| match text.split_once('/') {
            None => "not an IP address".to_owned(),
            Some((address, _)) if address.parse::<IpAddr>().is_err() => {
                format!("`{address}` is not an IP address")
            }
            Some((_, length)) => format!("`/{length}` is not a prefix length of that address"),
        })
    }
}

/// `*`, a host, `host:port`, or `*.suffix`; in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct AuthorityPattern(pub(super) String);

impl TextValue for AuthorityPattern {
    const EXPECTED: &'static str =
        r#"a host such as "api.example.com" or "api.example.com:8080", "*.example.com" or "*""#;

    fn parse(text: &str) -> Result<Self, String> {
        if let Ok(HostPattern(host)) = HostPattern::parse(text) {
            return Ok(Self(host));
        }
        match split_port(text) {
            (host, Some(port)) if !host.starts_with('*') => {
                check_port(port)?;
                Ok(Self(format!("{}:{port}", check_host(host)?)))
            }
            (_, Some(_)) => Err("a port goes with a whole host only".to_owned()),
            (_, None) => HostPattern::parse(text).map(|HostPattern(host)| Self(host)),
        }
    }
}

/// `*`, a host, or `*.suffix`; in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct HostPattern(pub(super) String);

impl TextValue for HostPattern {
    const EXPECTED: &'static str = r#"a host such as "api.example.com", "*.example.com" or "*""#;

    fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self(text.to_owned()));
        }
        match text.strip_prefix("*.") {
            Some(suffix) => Ok(Self(format!("*.{}", check_host(suffix)?))),
            None => check_host(text).map(Self),
        }
    }
}

/// A host without a port, in lower case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Host(pub(super) String);

impl TextValue for Host {
    const EXPECTED: &'static str = r#"a host without a port, such as "localhost" or "[::1]""#;

    fn parse(text: &str) -> Result<Self, String> {
        check_host(text).map(Self)
    }
}

/// A path pattern: literal, `*` within a segment, `**` across segments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathPattern(pub(super) String);

impl TextValue for PathPattern {
    const EXPECTED: &'static str = r#"a path pattern such as "/v1/**" or "/users/*/photo""#;

    fn parse(text: &str) -> Result<Self, String> {
        check_path(text)?;
        if text.contains('?') {
            return Err("a query is no part of a path".to_owned());
        }
        let half = |segment: &&str| segment.contains("**") && *segment != "**";
        match text.split('/').find(half) {
            Some(segment) => Err(format!("`**` must be a whole segment, unlike `{segment}`")),
            None => Ok(Self(text.to_owned())),
        }
    }
}

/// Path and query of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PathAndQuery(pub(super) String);

impl TextValue for PathAndQuery {
    const EXPECTED: &'static str = r#"a path such as "/healthz""#;

    fn parse(text: &str) -> Result<Self, String> {
        check_path(text)?;
        http::uri::PathAndQuery::try_from(text)
            .map(|_| Self(text.to_owned()))
            .map_err(|_| "a character that no path may hold".to_owned())
    }
}

/// `http://` or `https://`, an authority, and perhaps a base path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OriginUrl(pub(super) Uri);

impl TextValue for OriginUrl {
    const EXPECTED: &'static str = r#"a URL such as "https://api.example.com""#;

    fn parse(text: &str) -> Result<Self, String> {
        let Some((scheme, rest)) = text.split_once("://") else {
            return Err("no `http://` or `https://` at its start".to_owned());
        };
        if !["http", "https"].contains(&scheme.to_ascii_lowercase().as_str()) {
            return Err(format!("`{scheme}` is neither http nor https"));
        }
        if let Some(mark) = rest.chars().find(|c| "?#".contains(*c)) {
            return Err(format!("nothing from `{mark}` on belongs here"));
        }
        let authority = rest.split('/').next().unwrap_or(rest);
        if authority.contains('@') {
            return Err("a user or password does not belong here".to_owned());
        }
        let (host, port) = split_port(authority);
        check_host(host)?;
        port.map_or(Ok(()), check_port)?;
        text.parse()
            .map(Self)
            .map_err(|_| "a character that no URL may hold".to_owned())
    }
}

impl TextValue for Method {
    const EXPECTED: &'static str = r#"a method such as "GET""#;
    const CHOICES: &'static [&'static str] = &[];

    fn parse(text: &str) -> Result<Self, String> {
        if text.chars().any(|c| c.is_ascii_lowercase()) {
            return Err(format!("did you mean \"{}\"?", text.to_ascii_uppercase()));
        }
        text.parse().map_err(|_| "not a method".to_owned())
    }
}

/// A field and its value, `name: value`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FieldLine(pub(super) (HeaderName, HeaderValue));

impl TextValue for FieldLine {
    const EXPECTED: &'static str = r#"a field such as "x-queued: yes""#;

    fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("no `:` in it")?;
        let value = HeaderValue::from_str(value.trim());
        let value = value.map_err(|_| "a control character in the value".to_owned())?;
        Ok(Self((HeaderName::parse(name.trim())?, value)))
    }
}

impl TextValue for HeaderName {
    const EXPECTED: &'static str = r#"the name of a header field, such as "cdn-cache-control""#;

    fn parse(text: &str) -> Result<Self, String> {
        text.parse()
            .map_err(|_| "not the name of a field".to_owned())
    }
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        // The colons of `[::1]` are not before a port.
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn check_port(port: &str) -> Result<(), String> {
    match port.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => Err(format!("`{port}` is not a port")),
    }
}

/// A name or an address as the host of a URI (RFC 3986 section 3.2.2), in lower case.
fn check_host(host: &str) -> Result<String, String> {
    if host.is_empty() {
        return Err("no host".to_owned());
    }
    if let Some(inside) = host.strip_prefix('[') {
        let address = inside.strip_suffix(']').map(str::parse::<Ipv6Addr>);
        return match address {
            Some(Ok(address)) => Ok(format!("[{address}]")),
            _ => Err(format!("`{host}` is not an IPv6 address in brackets")),
        };
    }
    if host.parse::<Ipv6Addr>().is_ok() {
        return Err("an IPv6 address goes in brackets".to_owned());
    }
    if !host.is_ascii() {
        return Err("write it in its ASCII form, `xn--…`".to_owned());
    }
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if let Some(other) = host.chars().find(|c| !plain(*c)) {
        return Err(format!("{other:?} does not belong in a host"));
    }
    if host.len() > 253
        || host
            .split('.')
            .any(|label| label.is_empty() || label.len() > 63)
    {
        return Err("a label of it is empty or too long".to_owned());
    }
    Ok(host.to_ascii_lowercase())
}

fn check_path(path: &str) -> Result<(), String> {
    if !path.starts_with('/') {
        return Err("a path starts with `/`".to_owned());
    }
    match path
        .chars()
        .find(|c| *c == '#' || c.is_whitespace() || c.is_control())
    {
        Some(other) => Err(format!("{other:?} does not belong in a path")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good<T: TextValue>(text: &str) {
        assert_eq!(T::parse(text).err(), None, "{text:?}");
    }

    fn bad<T: TextValue>(text: &str, part: &str) {
        let error = T::parse(text).err().expect(text);
        assert!(error.contains(part), "{text:?} gave {error:?}");
    }

    #[test]
    fn listeners_are_addresses_not_names() {
        good::<ListenAddress>("[::]:8080");
        good::<ListenAddress>("unix:/run/hardtack.sock");
        bad::<ListenAddress>("unix:run", "start with `/`");
        bad::<ListenAddress>(":8080", "`0.0.0.0`");
        bad::<ListenAddress>("localhost:8080", "`127.0.0.1`");
        bad::<ListenAddress>("127.0.0.1", "no port");
        bad::<ListenAddress>("127.0.0.1:99999", "not a port");
        bad::<ListenAddress>("a.example:80", "not an IP address");
    }

    #[test]
    fn networks_are_cidr_or_one_address() {
        good::<IpNet>("10.0.0.0/8");
        good::<IpNet>("fd00::/8");
        assert_eq!(
            IpNet::parse("192.0.2.1").unwrap().to_string(),
            "192.0.2.1/32"
        );
        bad::<IpNet>("10.0.0.0/33", "`/33`");
        bad::<IpNet>("10.0.0/8", "`10.0.0`");
        bad::<IpNet>("home", "not an IP address");
    }

    #[test]
    fn hosts_are_hosts() {
        assert_eq!(
            AuthorityPattern::parse("API.Example.com:80").unwrap().0,
            "api.example.com:80"
        );
        for text in ["*", "*.example.com", "localhost", "127.0.0.1", "[::1]:8080"] {
            good::<AuthorityPattern>(text);
        }
        bad::<AuthorityPattern>("a.example:0", "`0` is not a port");
        bad::<AuthorityPattern>("*.example.com:80", "whole host");
        bad::<AuthorityPattern>("a*b.example", "'*'");
        bad::<AuthorityPattern>("http://a.example", "");
        bad::<HostPattern>("a.example:80", "':'");
        bad::<HostPattern>("a..example", "empty");
        bad::<HostPattern>("bücher.example", "xn--");
        bad::<Host>("::1", "brackets");
        bad::<Host>("", "no host");
    }

    #[test]
    fn urls_name_an_origin() {
        good::<OriginUrl>("http://127.0.0.1:3000");
        good::<OriginUrl>("https://api.example.com/base");
        good::<OriginUrl>("http://[::1]:3000/");
        bad::<OriginUrl>("localhost:3000", "no `http://`");
        bad::<OriginUrl>("ftp://a.example", "`ftp`");
        bad::<OriginUrl>("http://u:p@a.example", "password");
        bad::<OriginUrl>("http://a.example:99999", "`99999`");
        bad::<OriginUrl>("http://a.example/?q", "`?`");
        bad::<OriginUrl>("http:///x", "no host");
        bad::<OriginUrl>("http://a.example/a b", "character");
    }

    #[test]
    fn paths_start_at_the_root() {
        good::<PathPattern>("/**");
        good::<PathPattern>("/v1/*/photo");
        bad::<PathPattern>("v1/**", "starts with `/`");
        bad::<PathPattern>("/v1**", "whole segment");
        bad::<PathPattern>("/v1?x=1", "query");
        good::<PathAndQuery>("/healthz?full=1");
        bad::<PathAndQuery>("healthz", "starts with `/`");
        bad::<Method>("get", "\"GET\"");
        bad::<Method>("G T", "not a method");
    }
}
