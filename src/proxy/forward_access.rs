//! Who may use the forward proxy, and for what hosts: never an open proxy by accident.

use http::{HeaderMap, header, uri::Authority};
use ipnet::IpNet;
use subtle::ConstantTimeEq;

use super::{Gateway, connection::Peer, problem::Problem, routes::host_matches};
use crate::policy::Reason;

/// Refuses a forward request that this peer may not make.
pub(crate) fn check(
    gateway: &Gateway,
    peer: &Peer,
    headers: &HeaderMap,
    authority: &Authority,
) -> Result<(), Problem> {
    let config = &gateway.forward;
    let denied = |detail: String| Err(Problem::new(Reason::ForwardDenied, detail));
    if !config.enabled {
        return denied("forward.enabled is false; only reverse routes are served".to_owned());
    }
    // Inside a tunnel the CONNECT was checked, and its credentials are not repeated.
    if peer.pinned.is_none() {
        if !may_use(peer, &config.allow_clients) {
            return denied("this client is not in forward.allow_clients".to_owned());
        }
        if !config.credentials.is_empty() && !has_credentials(headers, &config.credentials) {
            let detail = "Proxy-Authorization with one of forward.credentials is needed";
            return Err(Problem::new(Reason::ProxyAuthenticationRequired, detail));
        }
    }
    if !config
        .allow
        .iter()
        .any(|pattern| host_matches(pattern, authority.as_str()))
    {
        return denied(format!("{} is not in forward.allow", authority.host()));
    }
    Ok(())
}

/// An empty list lets everyone in who reaches the listener; a Unix socket is guarded by its file mode.
fn may_use(peer: &Peer, allowed: &[IpNet]) -> bool {
    let Some(address) = peer.address else {
        return true;
    };
    let address = address.to_canonical();
    allowed.is_empty() || allowed.iter().any(|network| network.contains(&address))
}

fn has_credentials(headers: &HeaderMap, accepted: &[String]) -> bool {
    let Some(value) = headers.get(header::PROXY_AUTHORIZATION) else {
        return false;
    };
    let Some((scheme, encoded)) = value.to_str().ok().and_then(|text| text.split_once(' ')) else {
        return false;
    };
    if !scheme.eq_ignore_ascii_case("basic") {
        return false;
    }
    let Some(given) = base64_decode(encoded.trim()) else {
        return false;
    };
    // Every pair is compared, in constant time, so that timing says nothing about which one nearly matched.
    let matching = accepted.iter().fold(0, |found, pair| {
        found | given.ct_eq(pair.as_bytes()).unwrap_u8()
    });
    matching == 1
}

fn base64_decode(text: &str) -> Option<Vec<u8>> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(text).ok()
}

#[cfg(test)]
mod tests {
    use super::has_credentials;
    use http::{HeaderMap, header};

    #[test]
    fn only_the_right_pair_is_let_in() {
        let accepted = ["alice:secret".to_owned(), "bob:hush".to_owned()];
        for (value, expected) in [
            ("Basic YWxpY2U6c2VjcmV0", true),
            ("basic Ym9iOmh1c2g=", true),
            ("Basic YWxpY2U6aHVzaA==", false),
            ("Bearer YWxpY2U6c2VjcmV0", false),
            ("Basic !!", false),
            ("Basic", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::PROXY_AUTHORIZATION, value.parse().unwrap());
            assert_eq!(has_credentials(&headers, &accepted), expected, "{value}");
        }
        assert!(!has_credentials(&HeaderMap::new(), &accepted));
    }
}
