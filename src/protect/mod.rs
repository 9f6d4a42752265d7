//! Who may come in, and how fast: clients, rate limits, connection limits.
//!
//! Time is tokio's monotonic clock, so that it follows virtual time. Bounds: 65,536 clients with a bucket of their own,
//! and one bucket for all others; connections as configured and as the process's file descriptors permit.
//! Overload classes, quotas and a second rate for requests that go upstream have their place here, and are not there yet.

use std::{net::IpAddr, num::NonZeroU32, time::Duration};

use ipnet::IpNet;

mod buckets;
mod client;
mod connections;
mod rate;

use self::{client::ClientKey, rate::RateLimit};
pub use self::{
    client::network,
    connections::{ConnectionPermit, Connections, raise_descriptor_limit},
    rate::Budget,
};

/// The `[limits]` table, checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Rate per client, or `None` for no limit.
    pub per_client: Option<RateConfig>,
    /// Whether loopback peers are exempt.
    pub exempt_loopback: bool,
    /// Connections of all clients together.
    pub max_connections: usize,
    /// Connections of one client.
    pub max_connections_per_client: usize,
    /// Bytes of a request head.
    pub max_head_bytes: usize,
    /// Peers whose `Forwarded` / `X-Forwarded-For` are believed.
    pub trusted_proxies: Vec<IpNet>,
}

/// A rate: `per_second` on average, `burst` at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateConfig {
    /// Requests a second.
    pub per_second: NonZeroU32,
    /// Requests at once.
    pub burst: NonZeroU32,
}

/// Admits connections and requests.
#[derive(Debug)]
pub struct Admission {
    rate: Option<RateLimit>,
    connections: Connections,
    exempt_loopback: bool,
    trusted_proxies: Vec<IpNet>,
}

/// A refusal, and when to come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Never less than a second, never earlier than the limiter's own time; rounded up to whole seconds.
    pub retry_after: Duration,
    /// The limit's requests per second, for `RateLimit-Policy`.
    pub per_second: u32,
    /// The limit's burst.
    pub burst: u32,
}

impl Admission {
    /// From the checked configuration. At most 65,536 clients are tracked, then an overflow bucket.
    pub fn new(config: Config) -> Self {
        Self {
            rate: config.per_client.map(RateLimit::new),
            connections: Connections::new(
                config.max_connections,
                config.max_connections_per_client,
            ),
            exempt_loopback: config.exempt_loopback,
            trusted_proxies: config.trusted_proxies,
        }
    }

    /// The client behind a peer: the peer, or, behind trusted proxies, the first untrusted hop from the right of
    /// `Forwarded` or `X-Forwarded-For`; the peer again where they contradict each other. Mapped addresses count as IPv4.
    pub fn client(&self, peer: IpAddr, headers: &http::HeaderMap) -> IpAddr {
        client::behind(peer, headers, |hop| self.is_trusted(hop))
    }

    /// One request of `client` (IPv6 by /64) that came from `peer`. An exempt peer is exempt for itself only: one that is
    /// a trusted proxy is not, because others speak through it.
    ///
    /// # Errors
    /// [`Refused`] when the client is over its rate.
    pub fn check(&self, peer: IpAddr, client: IpAddr) -> Result<(), Refused> {
        match &self.rate {
            Some(rate) if !self.is_exempt(peer) || self.is_trusted(peer.to_canonical()) => {
                rate.check(ClientKey::of(client))
            }
            _ => Ok(()),
        }
    }

    /// One connection of `peer`, or `None` when it is one too many. A trusted proxy's connections carry many clients, and
    /// an exempt peer is exempt here too: both count only among all connections.
    pub fn admit_connection(&self, peer: IpAddr) -> Option<ConnectionPermit> {
        if self.is_exempt(peer) || self.is_trusted(peer.to_canonical()) {
            self.connections.admit_any()
        } else {
            self.connections.admit(ClientKey::of(peer))
        }
    }

    /// Connections open at present.
    pub fn open_connections(&self) -> usize {
        self.connections.open()
    }

    fn is_exempt(&self, client: IpAddr) -> bool {
        self.exempt_loopback && client.to_canonical().is_loopback()
    }

    /// Whether what this peer says about other hops is believed.
    pub fn is_trusted(&self, hop: IpAddr) -> bool {
        self.trusted_proxies
            .iter()
            .any(|network| network.contains(&hop))
    }
}

#[cfg(test)]
mod tests {
    use std::{net::IpAddr, num::NonZeroU32, time::Duration};

    use super::{Admission, Config, RateConfig, Refused};

    fn config() -> Config {
        Config {
            per_client: Some(RateConfig {
                per_second: NonZeroU32::new(10).unwrap(),
                burst: NonZeroU32::new(3).unwrap(),
            }),
            exempt_loopback: true,
            max_connections: 100,
            max_connections_per_client: 2,
            max_head_bytes: 32 * 1024,
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
        }
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn passed(admission: &Admission, client: &str) -> usize {
        (0..10)
            .filter(|_| admission.check(ip(client), ip(client)).is_ok())
            .count()
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_exempt_by_what_a_proxy_says_of_him() {
        let exempting = Config {
            exempt_loopback: true,
            trusted_proxies: vec!["127.0.0.1/32".parse().unwrap()],
            ..config()
        };
        let admission = Admission::new(exempting);
        let (proxy, claimed) = (ip("127.0.0.1"), ip("127.0.0.2"));
        let passed = (0..10).filter(|_| admission.check(proxy, claimed).is_ok());
        assert_eq!(passed.count(), 3);
        let passed = (0..10).filter(|_| admission.check(ip("127.0.0.3"), ip("127.0.0.3")).is_ok());
        assert_eq!(passed.count(), 10, "an exempt peer that is no proxy");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_gets_its_burst_and_then_its_rate() {
        let admission = Admission::new(config());
        assert_eq!(passed(&admission, "192.0.2.1"), 3);
        assert_eq!(
            admission.check(ip("192.0.2.1"), ip("192.0.2.1")),
            Err(Refused {
                retry_after: Duration::from_secs(1),
                per_second: 10,
                burst: 3,
            })
        );
        assert_eq!(passed(&admission, "192.0.2.2"), 3, "another client");
        tokio::time::advance(Duration::from_millis(99)).await;
        assert_eq!(passed(&admission, "192.0.2.1"), 0);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(passed(&admission, "192.0.2.1"), 1);
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(
            passed(&admission, "192.0.2.1"),
            3,
            "never more than a burst"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_comes_back_when_told_is_let_in() {
        let mut slow = config();
        slow.per_client = Some(RateConfig {
            per_second: NonZeroU32::MIN,
            burst: NonZeroU32::MIN,
        });
        let admission = Admission::new(slow);
        for already_waited in [0, 1, 500, 999] {
            admission.check(ip("192.0.2.1"), ip("192.0.2.1")).unwrap();
            tokio::time::advance(Duration::from_millis(already_waited)).await;
            let refused = admission
                .check(ip("192.0.2.1"), ip("192.0.2.1"))
                .unwrap_err();
            assert_eq!(refused.retry_after, Duration::from_secs(1));
            tokio::time::advance(refused.retry_after).await;
        }
        admission.check(ip("192.0.2.1"), ip("192.0.2.1")).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_ipv6_client_is_its_64_and_a_mapped_one_is_ipv4() {
        let admission = Admission::new(config());
        assert_eq!(passed(&admission, "2001:db8:0:1::1"), 3);
        assert_eq!(passed(&admission, "2001:db8:0:1:ffff::2"), 0);
        assert_eq!(passed(&admission, "2001:db8:0:2::1"), 3);
        assert_eq!(passed(&admission, "192.0.2.1"), 3);
        assert_eq!(passed(&admission, "::ffff:192.0.2.1"), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn loopback_is_exempt_only_where_configured() {
        let admission = Admission::new(config());
        for client in ["127.0.0.1", "127.0.0.9", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(passed(&admission, client), 10, "{client}");
            assert!((0..5).all(|_| admission.admit_connection(ip(client)).is_some()));
        }
        let mut strict = config();
        strict.exempt_loopback = false;
        assert_eq!(passed(&Admission::new(strict), "127.0.0.1"), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_rate_everybody_passes() {
        let mut open = config();
        open.per_client = None;
        assert_eq!(passed(&Admission::new(open), "192.0.2.1"), 10);
    }

    #[test]
    fn connections_are_limited_per_client_but_not_for_trusted_proxies() {
        let admission = Admission::new(config());
        let held: Vec<_> = (0..3)
            .map(|_| admission.admit_connection(ip("192.0.2.1")))
            .collect();
        assert_eq!(held.iter().flatten().count(), 2);
        let proxied: Vec<_> = (0..50)
            .map(|_| admission.admit_connection(ip("10.0.0.1")))
            .collect();
        assert_eq!(proxied.iter().flatten().count(), 50);
        assert_eq!(admission.open_connections(), 52);
    }
}
