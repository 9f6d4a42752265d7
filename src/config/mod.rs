//! From a file, the environment and flags to one checked [`Config`], every error at once.

//!
//! Each table is declared once (`tables/`): its options with type, default and documentation. From these declarations
//! come reading, the names that are known, the JSON Schema, `config show` and the reference. Relative paths in the file
//! are taken from the file's directory; those of variables and flags from the working directory.
//!
//! Invariant: what [`load`] returns is whole and consistent, the rest of the program checks nothing again. Secrets are
//! shown neither in errors nor by `config show`.

use std::{fmt, net::SocketAddr, path::PathBuf, time::Duration};

use crate::{
    admin,
    policy::{Mode, Settings},
    protect,
    proxy::{ForwardConfig, RouteConfig},
    queue, store, telemetry, upstream,
};

mod gather;
mod json_schema;
mod names;
mod problem;
mod reader;
mod reference;
mod shape;
mod show;
mod sources;
mod tables;
mod tree;
mod units;
mod value;

pub use json_schema::json_schema;
pub use reference::reference;
pub use show::Annotate;
pub use sources::{Flags, Sources};

use gather::{Gathered, gather};
use problem::{Problem, Severity};
use reader::{OptionValue, Reader, options};
use tables::{Admin, Cache, Forward, Limits, Listen, Queue, Route, Storage, Telemetry, Upstream};
use tree::Source;
use value::{Integer, Named, choices};

/// Everything the gateway needs to know, checked: the rest of the program never checks again.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where the configuration came from, for the banner.
    pub file: Option<PathBuf>,
    /// What is allowed but hardly meant, each with its place; for the log at start.
    pub warnings: Vec<String>,
    /// Listeners of the proxy.
    pub proxy_listeners: Vec<ListenAddress>,
    /// Listener of the admin API.
    pub admin_listener: SocketAddr,
    /// How long a drain may take.
    pub shutdown_grace: Duration,
    /// The mode at start.
    pub mode: Mode,
    /// `[storage]`.
    pub storage: store::Config,
    /// `[cache]`: the settings where no route matches.
    pub cache: Settings,
    /// The budget of `refresh_ahead` of all routes; `None`: no limit.
    pub refresh_ahead_rate: Option<protect::RateConfig>,
    /// `[upstreams]` and the address rules of `[forward]`.
    pub upstream: upstream::Config,
    /// `[[routes]]`, first match wins, `--upstream` last.
    pub routes: Vec<RouteConfig>,
    /// `[queue]`.
    pub queue: queue::Config,
    /// `[limits]`.
    pub limits: protect::Config,
    /// `[forward]`.
    pub forward: ForwardConfig,
    /// `[admin]`.
    pub admin: admin::Config,
    /// `[telemetry]`.
    pub telemetry: telemetry::Config,
}

/// Where the proxy listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// TCP.
    Tcp(SocketAddr),
    /// A Unix socket, made with mode 0600.
    Unix(PathBuf),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => write!(f, "{address}"),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// Everything that is wrong, each with its place, rendered by `Display` with file, line, column, caret and suggestion.
#[derive(Debug, thiserror::Error)]
#[error("{rendered}")]
pub struct ConfigErrors {
    /// How many.
    pub count: usize,
    rendered: String,
}

options! {
    /// The whole configuration.
    struct Root {
        /// The version of this format.
        config_version: Integer<1, 1> = 1,
        /// How the origin is weighed against the store: "auto", "online", "prefer-cache" or "offline".
        mode: Mode = "auto",
        /// Listeners.
        listen: Listen = {},
        /// Storage.
        storage: Storage = {},
        /// Caching.
        cache: Cache = {},
        /// Upstreams by name.
        upstreams: Named<Upstream> = {},
        /// Routes, first match wins.
        routes: Vec<Route> = [],
        /// Writes that wait for their origins.
        queue: Queue = {},
        /// Limits on clients.
        limits: Limits = {},
        /// The forward proxy.
        forward: Forward = {},
        /// The admin API.
        admin: Admin = {},
        /// Logs.
        telemetry: Telemetry = {},
    }
}

choices! { Mode, r#""auto", "online", "prefer-cache" or "offline""#, [
    "auto" => Mode::Auto,
    "online" => Mode::Online,
    "prefer-cache" => Mode::PreferCache,
    "offline" => Mode::Offline,
]}

/// A commented starter configuration.
pub const STARTER: &str = include_str!("starter.toml");

/// Reads and checks everything, and reports every error at once.
///
/// # Errors
/// [`ConfigErrors`] with all of them.
pub fn load(sources: &Sources) -> Result<Config, ConfigErrors> {
    check(sources, tables::user_data_dir()).map(|(config, _)| config)
}

/// The values in force, as TOML, each with its origin if asked for. Secrets are masked.
///
/// # Errors
/// As [`load`].
pub fn show(sources: &Sources, annotate: Annotate) -> Result<String, ConfigErrors> {
    let (_, gathered) = check(sources, tables::user_data_dir())?;
    Ok(show::show(&gathered.tree, &gathered.sources, annotate))
}

fn check(
    sources: &Sources,
    user_data_dir: Option<PathBuf>,
) -> Result<(Config, Gathered), ConfigErrors> {
    let mut gathered = gather(sources, user_data_dir);
    let mut reader = Reader::default();
    let root = Root::read(&gathered.tree, &mut reader);
    let mut problems = std::mem::take(&mut gathered.problems);
    let readable = |problem: &Problem| !gathered.is_broken_at(problem.origin);
    problems.extend(reader.problems.into_iter().filter(readable));
    // What does not parse may be missing elsewhere, so nothing is compared with anything then.
    let config = match root {
        Some(root) if gathered.broken_lines.is_empty() => Some(root.check(&mut problems)),
        _ => None,
    };
    let (errors, warnings): (Vec<_>, Vec<_>) = problems
        .into_iter()
        .partition(|problem| problem.severity == Severity::Error);
    match config {
        Some(config) if errors.is_empty() => {
            let config = Config {
                file: sources.file.as_ref().map(|(path, _)| path.clone()),
                warnings: render(warnings, &gathered.sources),
                ..config
            };
            Ok((config, gathered))
        }
        _ => Err(ConfigErrors::new(errors, &gathered.sources)),
    }
}

impl ConfigErrors {
    fn new(errors: Vec<Problem>, sources: &[Source]) -> Self {
        let errors = render(errors, sources);
        Self {
            count: errors.len(),
            rendered: errors.join("\n\n"),
        }
    }
}

/// As text, each once, from top to bottom.
fn render(mut problems: Vec<Problem>, sources: &[Source]) -> Vec<String> {
    problems.sort_by_key(Problem::position);
    // A mistake in `[cache]` is found again in every route that takes it over.
    problems.dedup_by(|later, first| later.repeats(first));
    problems
        .iter()
        .map(|problem| problem.render(sources))
        .collect()
}

impl Root {
    /// Composes the modules' configurations and compares options with each other.
    fn check(&self, problems: &mut Vec<Problem>) -> Config {
        let _only_one: u8 = self.config_version.get();
        self.listen.check(problems);
        let upstreams = tables::upstreams(&self.upstreams, problems);
        let has_keys = self.queue.key_file.0.is_some();
        let routes = tables::routes(&self.routes, &self.cache, &upstreams, has_keys, problems);
        let storage = self.storage.check(problems);
        let reverse = routes.iter().any(|route| route.upstream.is_some());
        if !self.forward.enabled.value && !reverse {
            let title = "nothing to serve: no forward proxy, and no route with an upstream";
            let problem = Problem::warning(self.forward.enabled.origin, title);
            problems.push(problem.help("add a route with an upstream, or --upstream URL"));
        }
        Config {
            file: None,
            warnings: Vec::new(),
            proxy_listeners: self.listen.addresses(),
            admin_listener: self.listen.admin.value,
            shutdown_grace: self.listen.shutdown_grace.value,
            mode: self.mode.value,
            queue: self.queue.check(&storage.dir, problems),
            storage,
            cache: self.cache.settings(),
            refresh_ahead_rate: self.cache.refresh_ahead_rate(),
            upstream: upstream::Config {
                upstreams,
                deny_private_networks: self.forward.deny_private_networks.value,
                allow_networks: self.forward.allow_networks.value.clone(),
                max_in_flight: self.limits.max_in_flight_per_upstream.get(),
                max_waiting: self.limits.max_waiting_per_upstream.get(),
            },
            routes,
            limits: self.limits.config(),
            forward: self.forward.check(&self.listen, problems),
            admin: self.admin.check(problems),
            telemetry: self.telemetry.config(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Sources, check};

    #[test]
    fn without_a_home_a_data_directory_must_be_named() {
        let mut sources = Sources::default();
        let errors = check(&sources, None).unwrap_err().to_string();
        assert!(errors.contains("--data-dir"), "{errors}");
        assert!(errors.contains("HARDTACK_STORAGE__DIR"), "{errors}");
        let (config, _) = check(&sources, Some("/home/anna/.local/share/hardtack".into())).unwrap();
        assert_eq!(
            config.storage.dir.to_str(),
            Some("/home/anna/.local/share/hardtack")
        );
        sources.flags.data_dir = Some("/data".to_owned());
        let (config, _) = check(&sources, None).unwrap();
        assert_eq!(config.storage.dir.to_str(), Some("/data"));
    }
}
