//! `[limits]`.

use std::num::NonZeroU32;

use ipnet::IpNet;

use crate::{
    config::{
        reader::options,
        units::{ByteSize, Rate},
        value::{Integer, TextValue, choices},
    },
    protect,
};

options! {
    /// How much clients may ask for.
    struct Limits {
        /// The rate of one client.
        per_client: PerClient = {},
        /// Whether clients on this machine have no rate limit.
        exempt_loopback: bool = true,
        /// Connections of all clients together.
        max_connections: Integer<1, 1_000_000> = 10000,
        /// Connections of one client.
        max_connections_per_client: Integer<1, 1_000_000> = 64,
        /// Requests in flight to one upstream.
        max_in_flight_per_upstream: Integer<1, 1_000_000> = 256,
        /// Requests that wait for an upstream with that many in flight, at most a second each.
        max_waiting_per_upstream: Integer<0, 1_000_000> = 128,
        /// Bytes of a request head, from 8KiB to 1MiB. Bodies stream through and have no limit.
        max_head: HeadSize = "32KiB",
        /// Networks of proxies whose Forwarded and X-Forwarded-For are believed.
        trusted_proxies: Vec<IpNet> = [],
    }
}

options! {
    /// Refused beyond it: 429 with a Retry-After.
    struct PerClient {
        /// Requests a second on average; "off": no limit.
        rate: Rate = "100/s",
        /// Requests at once.
        burst: Integer<1, 1_000_000> = 200,
        /// What a client is: "ip", its address (IPv6: its /64).
        key: ClientKey = "ip",
    }
}

/// By what clients are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum ClientKey {
    Ip,
}

choices! { ClientKey, r#""ip""#, ["ip" => ClientKey::Ip] }

/// A size that the HTTP library takes for a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) struct HeadSize(usize);

impl TextValue for HeadSize {
    const EXPECTED: &'static str = r#"a size from "8KiB" to "1MiB""#;

    fn parse(text: &str) -> Result<Self, String> {
        match ByteSize::parse(text)?.0 {
            // hyper's read buffer has 8 KiB at least.
            ..0x2000 => Err("too small".to_owned()),
            0x10_0001.. => Err("too large".to_owned()),
            bytes => Ok(Self(usize::try_from(bytes).map_err(|e| e.to_string())?)),
        }
    }
}

impl Limits {
    pub(in crate::config) fn config(&self) -> protect::Config {
        // The only one so far; the next becomes a field of the checked configuration.
        let ClientKey::Ip = self.per_client.key.value;
        let per_client = self
            .per_client
            .rate
            .0
            .map(|per_second| protect::RateConfig {
                per_second,
                burst: NonZeroU32::new(self.per_client.burst.get()).unwrap_or(NonZeroU32::MIN),
            });
        protect::Config {
            per_client,
            exempt_loopback: self.exempt_loopback.value,
            max_connections: self.max_connections.get(),
            max_connections_per_client: self.max_connections_per_client.get(),
            max_head_bytes: self.max_head.0,
            trusted_proxies: self.trusted_proxies.value.clone(),
        }
    }
}
