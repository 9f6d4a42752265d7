//! `[forward]`.

use ipnet::IpNet;

use super::Listen;
use crate::{
    config::{
        names::HostPattern,
        problem::Problem,
        reader::options,
        tree::Origin,
        value::{Credentials, FilePath, Integer, TextValue},
    },
    proxy::ForwardConfig,
};

options! {
    /// The forward proxy: absolute-form requests and CONNECT.
    struct Forward {
        /// Whether it is served at all; false: only reverse routes are.
        enabled: bool = true,
        /// Networks of clients that may use it. These, or credentials, are needed as soon as `listen.proxy` is not loopback.
        allow_clients: Vec<IpNet> = [],
        /// `user:password` pairs accepted as Proxy-Authorization: Basic.
        credentials: Vec<Credentials> = [],
        /// More of them in a file, one a line.
        credentials_file: FilePath = "",
        /// Hosts a client may reach through it.
        allow: Vec<HostPattern> = ["*"],
        /// Whether private addresses are refused: checked on the address that is really dialled.
        deny_private_networks: bool = true,
        /// Networks that may be reached all the same.
        allow_networks: Vec<IpNet> = [],
        /// Ports of CONNECT that are tunnelled.
        connect_ports: Vec<Integer<1, 65535>> = [443],
        /// Hosts asked for with http:// that are fetched with https://, and so can be cached.
        upgrade_to_https: Vec<HostPattern> = [],
    }
}

// Each is compared with every Proxy-Authorization.
const MOST_CREDENTIALS: usize = 1_000;

impl Forward {
    pub(in crate::config) fn check(
        &self,
        listen: &Listen,
        problems: &mut Vec<Problem>,
    ) -> ForwardConfig {
        let hosts = |patterns: &[HostPattern]| patterns.iter().map(|host| host.0.clone()).collect();
        let credentials = self.all_credentials(problems);
        let config = ForwardConfig {
            enabled: self.enabled.value,
            allow_clients: self.allow_clients.value.clone(),
            credentials: credentials.unwrap_or_default(),
            allow: hosts(&self.allow),
            connect_ports: self.connect_ports.iter().map(|port| port.get()).collect(),
            upgrade_to_https: hosts(&self.upgrade_to_https),
        };
        self.check_exposure(&config, listen, problems);
        config
    }

    /// Those of the configuration and those of the file. `None` when the file was refused.
    fn all_credentials(&self, problems: &mut Vec<Problem>) -> Option<Vec<String>> {
        let mut all: Vec<String> = self.credentials.iter().map(|one| one.0.clone()).collect();
        if let Some(path) = &self.credentials_file.0 {
            let refuse = |label: String| {
                let title = "`forward.credentials_file`: not a file of credentials";
                problems.push(Problem::error(self.credentials_file.origin, title).label(label));
            };
            let from_file = std::fs::read_to_string(path)
                .map_err(|error| error.to_string())
                .and_then(|text| credentials_of(&text));
            all.extend(from_file.map_err(refuse).ok()?);
        }
        if all.len() > MOST_CREDENTIALS {
            let title = format!("`forward.credentials`: more than {MOST_CREDENTIALS}");
            problems.push(Problem::error(self.credentials_file.origin, title));
        }
        Some(all)
    }

    /// Never an open proxy by accident.
    fn check_exposure(&self, config: &ForwardConfig, listen: &Listen, problems: &mut Vec<Problem>) {
        let guarded = !config.allow_clients.is_empty()
            || !config.credentials.is_empty()
            || self.credentials_file.0.is_some();
        let origins = [
            listen.proxy.origin,
            self.enabled.origin,
            self.allow_clients.origin,
            self.credentials.origin,
        ];
        if !config.enabled || guarded || origins.contains(&Origin::Refused) {
            return;
        }
        if let Some((listener, address)) = listen.exposed() {
            let title = format!("the forward proxy on {address} would be open to everyone");
            let problem = Problem::error(listener.origin, title).label("not a loopback address");
            problems.push(
                EXPOSURE_HELP
                    .iter()
                    .fold(problem, |problem, help| problem.help(*help)),
            );
        }
    }
}

const EXPOSURE_HELP: [&str; 3] = [
    "for a reverse gateway (routes or --upstream only), switch the forward proxy off:\n\
     \x20   HARDTACK_FORWARD__ENABLED=false\n\
     or in the file\n\
     \x20   [forward]\n\
     \x20   enabled = false",
    "or name the networks of the clients that may use it:\n\
     \x20   HARDTACK_FORWARD__ALLOW_CLIENTS=10.0.0.0/8,192.168.0.0/16\n\
     or in the file\n\
     \x20   [forward]\n\
     \x20   allow_clients = [\"10.0.0.0/8\", \"192.168.0.0/16\"]",
    "or ask clients for credentials, `user:password` lines in a file:\n\
     \x20   HARDTACK_FORWARD__CREDENTIALS_FILE=/run/secrets/proxy\n\
     or in the file\n\
     \x20   [forward]\n\
     \x20   credentials_file = \"/run/secrets/proxy\"",
];

/// The pairs of a credentials file: one a line; empty lines and lines that start with `#` do not count.
fn credentials_of(text: &str) -> Result<Vec<String>, String> {
    let mut pairs = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let pair =
            Credentials::parse(line).map_err(|error| format!("line {}: {error}", number + 1))?;
        pairs.push(pair.0);
    }
    if pairs.is_empty() {
        return Err("no `user:password` line in it".to_owned());
    }
    Ok(pairs)
}
