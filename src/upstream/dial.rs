//! From a host and port to a TCP connection: resolve once, filter every address, dial what is left (happy eyeballs).

use std::{
    collections::VecDeque,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use futures_util::stream::{FuturesUnordered, StreamExt};
use http::uri::{Authority, Scheme};
use tokio::time::timeout;

use super::{dialled::Dialled, error::DialError, filter::AddressFilter, resolve::Resolver};

// RFC 8305 section 8: the recommended connection attempt delay.
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);

/// Dials under one set of address rules.
#[derive(Clone, Debug)]
pub(super) struct Dialer {
    pub(super) resolver: Arc<Resolver>,
    pub(super) filter: Arc<AddressFilter>,
    pub(super) connect_timeout: Duration,
}

impl Dialer {
    /// A connection to one of the host's addresses. The addresses that were checked are the ones that are dialled:
    /// there is no second resolution.
    pub(super) async fn dial(&self, host: &str, port: u16) -> Result<Dialled, DialError> {
        let resolved = self.resolver.resolve(host, port).await?;
        let addresses = interleave(self.permitted(&resolved)?);
        timeout(self.connect_timeout, race(addresses))
            .await
            .map_err(|_| DialError::ConnectTimedOut {
                limit: self.connect_timeout,
            })?
    }

    /// Whether at least one of the host's addresses may be dialled. Nothing is.
    pub(super) async fn check(&self, host: &str, port: u16) -> Result<(), DialError> {
        let resolved = self.resolver.resolve(host, port).await?;
        self.permitted(&resolved).map(|_| ())
    }

    fn permitted(&self, resolved: &[SocketAddr]) -> Result<Vec<SocketAddr>, DialError> {
        let permitted: Vec<_> = resolved
            .iter()
            .copied()
            .filter(|address| self.filter.permits(*address, is_local))
            .collect();
        match (permitted.is_empty(), resolved.first()) {
            (true, Some(&address)) => Err(DialError::Denied { address }),
            _ => Ok(permitted),
        }
    }
}

/// The port of an authority, or its scheme's. One that is no port (`:99999`) is an error, never the default.
pub(super) fn port(scheme: &Scheme, authority: &Authority) -> Result<u16, DialError> {
    if let Some(port) = authority.port_u16() {
        return Ok(port);
    }
    let has_port = authority
        .as_str()
        .rsplit_once(':')
        .is_some_and(|(_, port)| !port.is_empty() && !port.ends_with(']'));
    match has_port {
        true => Err(DialError::InvalidPort),
        false if *scheme == Scheme::HTTPS => Ok(443),
        false => Ok(80),
    }
}

/// Whether an address is one of this machine's: only those can be bound.
fn is_local(ip: IpAddr) -> bool {
    UdpSocket::bind((ip, 0)).is_ok()
}

/// Alternates between the families, the resolver's first choice first (RFC 8305 section 4).
fn interleave(addresses: Vec<SocketAddr>) -> VecDeque<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (preferred, other): (VecDeque<_>, VecDeque<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let mut other = other.into_iter();
    let mut mixed = VecDeque::new();
    for address in preferred {
        mixed.push_back(address);
        mixed.extend(other.next());
    }
    mixed.extend(other);
    mixed
}

/// The first connection that stands. A further attempt starts when one fails, or is slow; the others are dropped.
async fn race(mut addresses: VecDeque<SocketAddr>) -> Result<Dialled, DialError> {
    let mut attempts = FuturesUnordered::new();
    let mut failure = None;
    loop {
        if let Some(address) = addresses.pop_front() {
            attempts.push(connect(address));
        }
        let finished = if addresses.is_empty() {
            attempts.next().await
        } else {
            match timeout(ATTEMPT_DELAY, attempts.next()).await {
                Ok(finished) => finished,
                Err(_) => continue,
            }
        };
        match finished {
            Some(Ok(stream)) => return Ok(stream),
            Some(Err(error)) => failure = Some(error),
            None => return Err(failure.expect("the resolver gives at least one address")),
        }
    }
}

async fn connect(address: SocketAddr) -> Result<Dialled, DialError> {
    Dialled::to(address)
        .await
        .map_err(|source| DialError::Connect {
            address,
            source: Arc::new(source),
        })
}

#[cfg(test)]
mod tests {
    use std::{io, net::SocketAddr, sync::Arc, time::Duration};

    use http::uri::Scheme;
    use tokio::{
        net::{TcpListener, TcpSocket},
        time::Instant,
    };

    use super::{Dialer, interleave, port};
    use crate::upstream::{
        error::DialError,
        filter::{AddressFilter, Networks, StrictRules},
        resolve::Resolver,
    };

    // Nothing listens on 127.0.0.9; 127.0.0.66 is made to be full.
    fn names(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let addresses: &[&str] = match host {
            "refused-first" => &["127.0.0.9", "127.0.0.1"],
            "full-first" => &["127.0.0.66", "127.0.0.1"],
            "private-first" => &["10.0.0.1", "127.0.0.1"],
            "private-only" => &["10.0.0.1", "169.254.169.254"],
            _ => &["127.0.0.9"],
        };
        let with_port = |ip: &&str| SocketAddr::new(ip.parse().unwrap(), port);
        Ok(addresses.iter().map(with_port).collect())
    }

    fn dialer() -> Dialer {
        Dialer {
            resolver: Arc::new(Resolver::with(names)),
            filter: Arc::new(AddressFilter::Strict(StrictRules {
                networks: Networks::Public,
                allow: vec!["127.0.0.0/8".parse().unwrap()],
                own_listeners: Vec::new(),
            })),
            connect_timeout: Duration::from_secs(2),
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_address_is_tried_at_once_when_one_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let start = Instant::now();
        for host in ["refused-first", "private-first"] {
            let stream = dialer().dial(host, address.port()).await.unwrap();
            assert_eq!(stream.into_stream().peer_addr().unwrap(), address);
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
        let error = dialer().dial("refused", address.port()).await.unwrap_err();
        assert!(matches!(error, DialError::Connect { .. }));
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_address_is_tried_soon_when_one_is_silent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let full = TcpSocket::new_v4().unwrap();
        full.bind(SocketAddr::new(
            "127.0.0.66".parse().unwrap(),
            address.port(),
        ))
        .unwrap();
        let full = full.listen(1).unwrap();
        let mut queued = Vec::new();
        let connect = || tokio::net::TcpStream::connect(full.local_addr().unwrap());
        while let Ok(stream) = tokio::time::timeout(Duration::from_millis(10), connect()).await {
            queued.push(stream.unwrap());
        }
        let start = Instant::now();
        let stream = dialer().dial("full-first", address.port()).await.unwrap();
        assert_eq!(stream.into_stream().peer_addr().unwrap(), address);
        assert_eq!(start.elapsed().as_millis(), 250);
    }

    #[tokio::test]
    async fn a_name_with_refused_addresses_only_is_denied() {
        let error = dialer().dial("private-only", 80).await.unwrap_err();
        assert!(
            matches!(error, DialError::Denied { address } if address.to_string() == "10.0.0.1:80")
        );
    }

    #[test]
    fn families_alternate_from_the_resolvers_first_choice() {
        let check = |given: &[&str], expected: &[&str]| {
            let parse = |list: &[&str]| -> Vec<SocketAddr> {
                list.iter().map(|text| text.parse().unwrap()).collect()
            };
            assert_eq!(interleave(parse(given)), parse(expected));
        };
        check(
            &["[::1]:1", "[::2]:1", "[::3]:1", "1.1.1.1:1"],
            &["[::1]:1", "1.1.1.1:1", "[::2]:1", "[::3]:1"],
        );
        check(
            &["1.1.1.1:1", "[::1]:1", "[::2]:1", "[::3]:1"],
            &["1.1.1.1:1", "[::1]:1", "[::2]:1", "[::3]:1"],
        );
        check(&["1.1.1.1:1", "2.2.2.2:1"], &["1.1.1.1:1", "2.2.2.2:1"]);
    }

    #[test]
    fn a_port_is_the_authoritys_or_the_schemes_and_never_made_up() {
        let check = |scheme: Scheme, authority: &str, expected: Option<u16>| {
            let found = port(&scheme, &authority.parse().unwrap()).ok();
            assert_eq!(found, expected, "{authority}");
        };
        check(Scheme::HTTP, "a", Some(80));
        check(Scheme::HTTPS, "a", Some(443));
        check(Scheme::HTTPS, "a:", Some(443));
        check(Scheme::HTTPS, "a:80", Some(80));
        check(Scheme::HTTP, "[::1]", Some(80));
        check(Scheme::HTTP, "[::1]:81", Some(81));
        check(Scheme::HTTP, "a:99999", None);
    }
}
