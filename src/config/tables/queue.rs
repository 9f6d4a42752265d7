//! `[queue]`.

use std::{num::NonZeroU32, path::Path, time::Duration};

use http::HeaderName;

use crate::{
    config::{
        problem::Problem,
        reader::options,
        tree::Origin,
        units::{Budget, Rate, Timeout},
        value::{FilePath, Integer},
    },
    queue::{self, ReplayRate},
};

options! {
    /// Writes that wait for their origins. Which writes these are is said by the `write` of a route.
    struct Queue {
        /// Writes that wait, those that need an operator included. Beyond: 503 before any 202.
        max_items: Integer<1, 100_000_000> = 100000,
        /// Bytes of all of them. Large bodies that are being read may take a quarter of it besides.
        max_bytes: Budget = "1GiB",
        /// Bytes of one body; a larger one is refused with 413.
        max_item: Budget = "8MiB",
        /// Writes in one lane; left out: as many as `max_items`.
        max_lane_items: Option<Integer<1, 100_000_000>> = absent,
        /// Writes of one client: with one credential, and from one address (of IPv6 one /64), whatever its credentials. Clients
        /// that share an address share it, unless a proxy of `limits.trusted_proxies` names them. Left out: as many as
        /// `max_items`.
        max_client_items: Option<Integer<1, 100_000_000>> = absent,
        /// A write that has waited longer is dead: shown to an operator, never deleted.
        max_age: Timeout = "72h",
        /// A write that was tried this often is dead. Time without a connection costs no attempts.
        max_attempts: Integer<1, 1_000_000> = 50,
        /// Deliveries to one origin; "off": no limit.
        replay_rate: Rate = "50/s",
        /// After an outage the first delivery waits a random part of this, so that many gateways do not come back together.
        recovery_spread: Duration = "10s",
        /// How long the receipt of a write can be read after its end.
        receipt_ttl: Timeout = "24h",
        /// File with the keys that seal stored credentials, one a line, 32 characters at least: the first seals, all open.
        /// Empty: writes with credentials are never queued.
        key_file: FilePath = "",
        /// Fields that are sealed, besides Authorization and Cookie.
        sensitive_headers: Vec<HeaderName> = ["x-api-key", "x-auth-token"],
    }
}

impl Queue {
    pub(in crate::config) fn check(
        &self,
        dir: &Path,
        problems: &mut Vec<Problem>,
    ) -> queue::Config {
        let (item, all) = (&self.max_item, &self.max_bytes);
        if item.0 > all.0 && ![item.origin, all.origin].contains(&Origin::Refused) {
            // Whichever was written is the one to change; the other may be a default.
            let culprit = match item.origin {
                Origin::Default => all.origin,
                written => written,
            };
            let title = "`queue.max_item`: one write would not fit into `queue.max_bytes`";
            problems.push(Problem::error(culprit, title));
        }
        if let Some(path) = &self.key_file.0
            && let Err(error) = queue::check_key_file(path)
        {
            let title = "`queue.key_file`: not a file of keys";
            let problem = Problem::error(self.key_file.origin, title).label(error.to_string());
            problems.push(problem.help("make one: `head -c 32 /dev/urandom | base64 > queue.key`"));
        }
        let max_items: usize = self.max_items.get();
        let at_most = |own: Option<Integer<1, 100_000_000>>| own.map_or(max_items, Integer::get);
        queue::Config {
            dir: dir.to_owned(),
            max_items,
            max_bytes: all.0.get(),
            max_item_bytes: item.0.get(),
            max_lane_items: at_most(self.max_lane_items.value),
            max_client_items: at_most(self.max_client_items.value),
            max_age: self.max_age.0,
            max_attempts: self.max_attempts.get(),
            replay_rate: ReplayRate {
                deliveries: self.replay_rate.0.map_or(u32::MAX, NonZeroU32::get),
                per: Duration::from_secs(1),
            },
            recovery_spread: self.recovery_spread.value,
            receipt_ttl: self.receipt_ttl.0,
            key_file: self.key_file.0.clone(),
            sensitive_headers: self.sensitive_headers.value.clone(),
        }
    }
}
