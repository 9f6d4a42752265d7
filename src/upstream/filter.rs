//! Which addresses may be dialled. Pure, and asked about the address that is really dialled, so that no spelling of an
//! IP literal and no name that resolves to something else gets around it.
//!
//! Refused for forward-proxied requests: everything that is not globally reachable unicast (IANA's special-purpose
//! registries), the transition formats that carry an IPv4 address inside an IPv6 one, and our own listeners. Exceptions
//! by CIDR lift the first two, never the last.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::IpNet;

/// The rules of one connector.
#[derive(Clone, Debug)]
pub(super) enum AddressFilter {
    /// Forward-proxied requests: a client chose the target.
    Strict(StrictRules),
    /// A configured upstream: the operator chose the target, which may be private.
    Configured,
}

/// Rules for targets that a client chose.
#[derive(Clone, Debug)]
pub(super) struct StrictRules {
    pub(super) networks: Networks,
    /// Exceptions to the networks that are refused.
    pub(super) allow: Vec<IpNet>,
    pub(super) own_listeners: Vec<SocketAddr>,
}

/// Which networks a client may reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Networks {
    /// Globally reachable unicast addresses.
    Public,
    /// Any unicast address.
    Any,
}

impl AddressFilter {
    /// Whether this address may be dialled. `is_local` says whether an address is one of this machine's; it is asked
    /// only about the port of a listener that is bound to every address.
    pub(super) fn permits(&self, address: SocketAddr, is_local: impl Fn(IpAddr) -> bool) -> bool {
        match self {
            Self::Configured => true,
            Self::Strict(rules) => {
                !rules.is_own_listener(address, is_local) && rules.permits_network(address.ip())
            }
        }
    }
}

impl StrictRules {
    fn is_own_listener(&self, address: SocketAddr, is_local: impl Fn(IpAddr) -> bool) -> bool {
        let target = address.ip().to_canonical();
        self.own_listeners
            .iter()
            .filter(|listener| listener.port() == address.port())
            .any(|listener| {
                let bound = listener.ip().to_canonical();
                bound == target
                    || bound.is_unspecified()
                        && (target.is_loopback() || target.is_unspecified() || is_local(target))
            })
    }

    fn permits_network(&self, ip: IpAddr) -> bool {
        let canonical = ip.to_canonical();
        if canonical.is_unspecified() || canonical.is_multicast() {
            return false;
        }
        self.networks == Networks::Any
            || is_public(ip)
            || self
                .allow
                .iter()
                .any(|network| network.contains(&ip) || network.contains(&canonical))
    }
}

fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !NOT_PUBLIC_V4
            .iter()
            .any(|(network, length)| in_v4(ip, *network, *length)),
        IpAddr::V6(ip) => !NOT_PUBLIC_V6
            .iter()
            .any(|(network, length)| in_v6(ip, *network, *length)),
    }
}

fn in_v4(ip: Ipv4Addr, network: Ipv4Addr, length: u32) -> bool {
    (ip.to_bits() ^ network.to_bits()) >> (u32::BITS - length) == 0
}

fn in_v6(ip: Ipv6Addr, network: Ipv6Addr, length: u32) -> bool {
    (ip.to_bits() ^ network.to_bits()) >> (u128::BITS - length) == 0
}

// https://www.iana.org/assignments/iana-ipv4-special-registry
const NOT_PUBLIC_V4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),        // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // shared by carriers (CGNAT)
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local, metadata services
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // protocol assignments
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // 6to4 relays
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarking
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, broadcast
    (Ipv4Addr::new(168, 63, 129, 16), 32), // a cloud's metadata service on a public address
];

// https://www.iana.org/assignments/iana-ipv6-special-registry
const NOT_PUBLIC_V6: [(Ipv6Addr, u32); 15] = [
    (Ipv6Addr::UNSPECIFIED, 96), // unspecified, loopback, IPv4-compatible
    (Ipv6Addr::new(0, 0, 0, 0, 0, 0xffff, 0, 0), 96), // IPv4-mapped
    (Ipv6Addr::new(0, 0, 0, 0, 0xffff, 0, 0, 0), 96), // IPv4-translated (SIIT)
    (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96), // NAT64
    (Ipv6Addr::new(0x64, 0xff9b, 1, 0, 0, 0, 0, 0), 48), // local NAT64
    (Ipv6Addr::new(0x100, 0, 0, 0, 0, 0, 0, 0), 64), // discard
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // protocol assignments, with Teredo
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
    (Ipv6Addr::new(0x5f00, 0, 0, 0, 0, 0, 0, 0), 16), // segment routing
    (Ipv6Addr::new(0xfc00, 0, 0, 0, 0, 0, 0, 0), 7), // unique local
    (Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0), 10), // link-local
    (Ipv6Addr::new(0xfec0, 0, 0, 0, 0, 0, 0, 0), 10), // site-local
    (Ipv6Addr::new(0xff00, 0, 0, 0, 0, 0, 0, 0), 8), // multicast
];

#[cfg(test)]
mod tests {
    use super::{AddressFilter, Networks, StrictRules};

    fn rules(networks: Networks, allow: &[&str], own_listeners: &[&str]) -> AddressFilter {
        AddressFilter::Strict(StrictRules {
            networks,
            allow: allow.iter().map(|net| net.parse().unwrap()).collect(),
            own_listeners: own_listeners
                .iter()
                .map(|address| address.parse().unwrap())
                .collect(),
        })
    }

    fn permits(filter: &AddressFilter, address: &str) -> bool {
        // The machine's own address besides loopback.
        filter.permits(address.parse().unwrap(), |ip| {
            ip.to_string() == "93.184.216.1"
        })
    }

    #[track_caller]
    fn check(filter: &AddressFilter, permitted: &[&str], refused: &[&str]) {
        for address in permitted {
            assert!(permits(filter, address), "{address} must be permitted");
        }
        for address in refused {
            assert!(!permits(filter, address), "{address} must be refused");
        }
    }

    #[test]
    fn a_client_reaches_public_addresses_only() {
        check(
            &rules(Networks::Public, &[], &[]),
            &[
                "1.1.1.1:80",
                "9.255.255.255:80",
                "11.0.0.0:80",
                "100.63.255.255:80",
                "100.128.0.0:80",
                "172.15.255.255:80",
                "172.32.0.0:80",
                "192.0.1.0:80",
                "198.17.255.255:80",
                "198.20.0.0:80",
                "223.255.255.255:80",
                "[2606:4700::1111]:443",
                "[2001:200::1]:443",
                "[2003::1]:443",
            ],
            &[
                "0.0.0.0:80",
                "0.1.2.3:80",
                "10.0.0.1:80",
                "10.255.255.255:80",
                "100.64.0.1:80",
                "100.127.255.255:80",
                "127.0.0.1:80",
                "127.255.255.254:80",
                "168.63.129.16:80",
                "169.254.169.254:80",
                "172.16.0.1:80",
                "172.31.255.255:80",
                "192.0.0.170:80",
                "192.0.2.1:80",
                "192.88.99.1:80",
                "192.168.1.1:80",
                "198.18.0.1:80",
                "198.19.255.255:80",
                "198.51.100.1:80",
                "203.0.113.1:80",
                "224.0.0.1:80",
                "239.255.255.255:80",
                "240.0.0.1:80",
                "255.255.255.255:80",
                "[::]:80",
                "[::1]:80",
                "[::1.1.1.1]:80",
                "[::ffff:127.0.0.1]:80",
                "[::ffff:1.1.1.1]:80",
                "[::ffff:0:1.1.1.1]:80",
                "[64:ff9b::7f00:1]:80",
                "[64:ff9b::101:101]:80",
                "[64:ff9b:1::1]:80",
                "[100::1]:80",
                "[2001::1]:80",
                "[2001:10::1]:80",
                "[2001:20::1]:80",
                "[2001:db8::1]:80",
                "[2002:7f00:1::]:80",
                "[3fff::1]:80",
                "[5f00::1]:80",
                "[fc00::1]:80",
                "[fdff::1]:80",
                "[fe80::1]:80",
                "[fe80::1%2]:80",
                "[febf::1]:80",
                "[fec0::1]:80",
                "[ff02::1]:80",
            ],
        );
    }

    #[test]
    fn an_exception_by_cidr_lifts_the_networks_but_not_our_own_listeners() {
        let allow = ["127.0.0.0/8", "fd00::/8", "224.0.0.0/4"];
        check(
            &rules(
                Networks::Public,
                &allow,
                &["127.0.0.1:8080", "[fd00::1]:8081"],
            ),
            &[
                "127.0.0.1:80",
                "127.0.0.2:8080",
                "[::ffff:127.0.0.1]:80",
                "[fd00::1]:80",
            ],
            &[
                "127.0.0.1:8080",
                "[::ffff:127.0.0.1]:8080",
                "[fd00::1]:8081",
                "10.0.0.1:80",
                "224.0.0.1:80",
            ],
        );
    }

    #[test]
    fn with_private_networks_allowed_only_multicast_unspecified_and_our_listeners_are_refused() {
        check(
            &rules(Networks::Any, &[], &["127.0.0.1:8080"]),
            &["127.0.0.1:80", "10.0.0.1:80", "[fe80::1]:80", "[::1]:8080"],
            &[
                "127.0.0.1:8080",
                "[::ffff:127.0.0.1]:8080",
                "0.0.0.0:80",
                "[::]:80",
                "[::ffff:0.0.0.0]:80",
                "224.0.0.1:80",
                "[::ffff:224.0.0.1]:80",
                "[ff02::1]:80",
            ],
        );
    }

    #[test]
    fn a_listener_on_every_address_is_refused_on_each_local_one() {
        for wildcard in ["0.0.0.0:8080", "[::]:8080"] {
            check(
                &rules(Networks::Any, &[], &[wildcard]),
                &["127.0.0.1:80", "93.184.216.1:80", "93.184.216.2:8080"],
                &[
                    "127.0.0.1:8080",
                    "127.9.9.9:8080",
                    "[::1]:8080",
                    "93.184.216.1:8080",
                    "[::ffff:93.184.216.1]:8080",
                ],
            );
        }
    }

    #[test]
    fn a_configured_upstream_may_be_anywhere() {
        check(
            &AddressFilter::Configured,
            &["127.0.0.1:80", "169.254.169.254:80", "[fe80::1]:80"],
            &[],
        );
    }
}
