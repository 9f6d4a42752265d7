//! Names to addresses: the system's resolver, under a time limit, with the last good addresses as a fallback.
//!
//! Bounds: 32 lookups at a time, counted until the system call really ends (a resolver that hangs must not take the
//! threads that the disk tier needs); 4,096 names remembered, for 24 h.
//! A successful lookup is never answered from memory: caching names is the system's business.

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, SocketAddr, ToSocketAddrs},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::Semaphore,
    time::{Instant, timeout},
};
use tracing::warn;

use super::error::DialError;

/// Time for one lookup, with the wait for a place.
pub(super) const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);

// The runtime's blocking threads are 512 and shared with file reads.
const MAX_LOOKUPS: usize = 32;

// A day: an origin seldom moves during an outage of its name server, and never back.
const KEEP_GOOD: Duration = Duration::from_secs(24 * 3_600);

const MAX_KEPT_NAMES: usize = 4_096;

// More addresses than happy eyeballs can try in one connect timeout.
const MAX_ADDRESSES: usize = 8;

/// The resolver. One per process, so that its bounds hold.
#[derive(Debug)]
pub(super) struct Resolver {
    look_up: LookUp,
    places: Arc<Semaphore>,
    good: Mutex<HashMap<String, Good>>,
}

/// Blocks until the addresses are known.
type LookUp = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;

#[derive(Debug)]
struct Good {
    addresses: Vec<SocketAddr>,
    at: Instant,
}

impl Resolver {
    /// The system's.
    pub(super) fn new() -> Self {
        Self::with(system)
    }

    pub(super) fn with(look_up: LookUp) -> Self {
        Self {
            look_up,
            places: Arc::new(Semaphore::new(MAX_LOOKUPS)),
            good: Mutex::default(),
        }
    }

    /// The addresses of a host, at least one. An IP literal (in brackets or not) is its own address.
    pub(super) async fn resolve(
        &self,
        host: &str,
        port: u16,
    ) -> Result<Vec<SocketAddr>, DialError> {
        let literal = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(ip) = literal.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        match self.look_up(literal, port).await {
            Ok(addresses) => {
                self.remember(literal, &addresses);
                Ok(addresses)
            }
            Err(source) => self
                .recall(literal, port)
                .ok_or_else(|| DialError::Resolve {
                    host: literal.to_owned(),
                    source: Arc::new(source),
                }),
        }
    }

    async fn look_up(&self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let looking = async {
            let place = Arc::clone(&self.places)
                .acquire_owned()
                .await
                .map_err(io::Error::other)?;
            let host = host.to_owned();
            let look_up = self.look_up;
            let found = tokio::task::spawn_blocking(move || {
                let _place = place;
                look_up(&host, port)
            });
            found.await.map_err(io::Error::other)?
        };
        let addresses = timeout(LOOKUP_TIMEOUT, looking)
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the name server is silent"))??;
        if addresses.is_empty() {
            return Err(io::Error::new(io::ErrorKind::NotFound, "no address"));
        }
        Ok(addresses)
    }

    fn remember(&self, host: &str, addresses: &[SocketAddr]) {
        let at = Instant::now();
        let mut good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        if !good.contains_key(host) && good.len() >= MAX_KEPT_NAMES {
            make_room(&mut good);
        }
        let addresses = addresses.to_vec();
        good.insert(host.to_owned(), Good { addresses, at });
    }

    fn recall(&self, host: &str, port: u16) -> Option<Vec<SocketAddr>> {
        let good = self.good.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = good
            .get(host)
            .filter(|kept| kept.at.elapsed() < KEEP_GOOD)?;
        warn!(host, "Name lookup failed; using the last good addresses.");
        let mut addresses = kept.addresses.clone();
        for address in &mut addresses {
            address.set_port(port);
        }
        Some(addresses)
    }
}

fn system(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    let addresses = (host, port).to_socket_addrs()?;
    Ok(addresses.take(MAX_ADDRESSES).collect())
}

// A sixteenth at a time, so that a flood of new names pays for the scan only now and then.
fn make_room(good: &mut HashMap<String, Good>) {
    let mut times: Vec<Instant> = good.values().map(|kept| kept.at).collect();
    let (_, oldest_kept, _) = times.select_nth_unstable(MAX_KEPT_NAMES / 16);
    let oldest_kept = *oldest_kept;
    good.retain(|_, kept| kept.at > oldest_kept);
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        net::{Ipv4Addr, SocketAddr},
        sync::{Arc, Mutex, MutexGuard},
        time::Duration,
    };

    use tokio::time::Instant;

    use super::{KEEP_GOOD, MAX_KEPT_NAMES, MAX_LOOKUPS, Resolver};

    const ADDRESS: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

    fn answers(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        match host {
            "gone.example" => Err(io::Error::other("NXDOMAIN")),
            "empty.example" => Ok(Vec::new()),
            _ => Ok(vec![SocketAddr::from((ADDRESS, port))]),
        }
    }

    fn fails(_: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        Err(io::Error::other("SERVFAIL"))
    }

    static HANG: Mutex<()> = Mutex::new(());

    fn hangs(_: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
        drop(HANG.lock());
        Err(io::Error::other("too late"))
    }

    #[tokio::test]
    async fn an_ip_literal_is_its_own_address() {
        let resolver = Resolver::with(fails);
        for (host, expected) in [
            ("192.0.2.9", "192.0.2.9:80"),
            ("[2001:db8::1]", "[2001:db8::1]:80"),
            ("::1", "[::1]:80"),
        ] {
            let found = resolver.resolve(host, 80).await.unwrap();
            assert_eq!(found, [expected.parse().unwrap()]);
        }
    }

    #[tokio::test]
    async fn a_name_without_an_address_is_an_error() {
        let resolver = Resolver::with(answers);
        assert!(resolver.resolve("gone.example", 80).await.is_err());
        assert!(resolver.resolve("empty.example", 80).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_good_addresses_are_used_for_a_day_when_lookups_fail() {
        let mut resolver = Resolver::with(answers);
        resolver.resolve("a.example", 80).await.unwrap();
        resolver.look_up = fails;
        tokio::time::advance(KEEP_GOOD - Duration::from_secs(1)).await;
        let found = resolver.resolve("a.example", 443).await.unwrap();
        assert_eq!(found, [SocketAddr::from((ADDRESS, 443))]);
        assert!(resolver.resolve("b.example", 443).await.is_err());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(resolver.resolve("a.example", 443).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn the_names_kept_are_bounded_and_the_oldest_go_first() {
        let resolver = Resolver::with(answers);
        for n in 0..=MAX_KEPT_NAMES {
            tokio::time::advance(Duration::from_millis(1)).await;
            let address = SocketAddr::from((ADDRESS, 80));
            resolver.remember(&format!("{n}.example"), &[address]);
        }
        assert!(resolver.good.lock().unwrap().len() <= MAX_KEPT_NAMES);
        assert!(resolver.recall("0.example", 80).is_none());
        assert!(
            resolver
                .recall(&format!("{MAX_KEPT_NAMES}.example"), 80)
                .is_some()
        );
    }

    #[expect(
        clippy::await_holding_lock,
        reason = "the lock is what the lookups hang on"
    )]
    #[tokio::test(start_paused = true)]
    async fn a_resolver_that_hangs_costs_two_seconds_and_a_bounded_number_of_threads() {
        let resolver = Arc::new(Resolver::with(hangs));
        let hanging: MutexGuard<'static, ()> = HANG.lock().unwrap();
        let start = Instant::now();
        let lookups = (0..MAX_LOOKUPS * 2).map(|_| resolver.resolve("slow.example", 80));
        let all = futures_util::future::join_all(lookups);
        // Time does not pass by itself while a blocking thread is at work.
        let (found, ()) = tokio::join!(all, async {
            tokio::task::yield_now().await;
            assert_eq!(resolver.places.available_permits(), 0);
            tokio::time::advance(Duration::from_secs(2)).await;
        });
        assert!(found.iter().all(Result::is_err));
        assert_eq!(start.elapsed().as_secs(), 2);
        assert_eq!(
            resolver.places.available_permits(),
            0,
            "the threads still hang"
        );
        drop(hanging);
        let all_places = u32::try_from(MAX_LOOKUPS).unwrap();
        drop(resolver.places.acquire_many(all_places).await.unwrap());
    }
}
