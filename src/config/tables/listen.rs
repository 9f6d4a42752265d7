//! `[listen]`.

use std::{net::SocketAddr, time::Duration};

use crate::config::{
    ListenAddress,
    problem::Problem,
    reader::{Sourced, options},
    tree::Origin,
    value::OneOrMany,
};

options! {
    /// Where the gateway listens.
    struct Listen {
        /// Forward proxy and reverse routes. A list is allowed; "unix:/path" too.
        proxy: OneOrMany<ListenAddress> = "127.0.0.1:8080",
        /// Health, metrics and the admin API.
        admin: SocketAddr = "127.0.0.1:8081",
        /// How long a shutdown waits for requests in flight.
        shutdown_grace: Duration = "20s",
    }
}

impl Listen {
    pub(in crate::config) fn addresses(&self) -> Vec<ListenAddress> {
        self.proxy
            .0
            .iter()
            .map(|found| found.value.clone())
            .collect()
    }

    /// The first proxy address that others than this machine can reach.
    pub(in crate::config) fn exposed(&self) -> Option<(&Sourced<ListenAddress>, SocketAddr)> {
        self.proxy.0.iter().find_map(|found| match found.value {
            ListenAddress::Tcp(address) if !address.ip().to_canonical().is_loopback() => {
                Some((found, address))
            }
            _ => None,
        })
    }

    /// Reports addresses that are asked for twice.
    pub(in crate::config) fn check(&self, problems: &mut Vec<Problem>) {
        let mut taken: Vec<&ListenAddress> = Vec::new();
        let admin = ListenAddress::Tcp(self.admin.value);
        if self.admin.origin != Origin::Refused {
            taken.push(&admin);
        }
        for address in &self.proxy.0 {
            // Port 0 is another port each time.
            let any_port = matches!(address.value, ListenAddress::Tcp(tcp) if tcp.port() == 0);
            if taken.contains(&&address.value) && !any_port {
                let title = "`listen.proxy`: the same address twice";
                let label = if address.value == admin {
                    "this is `listen.admin` too"
                } else {
                    "this is in the list already"
                };
                problems.push(Problem::error(address.origin, title).label(label));
            }
            taken.push(&address.value);
        }
    }
}
