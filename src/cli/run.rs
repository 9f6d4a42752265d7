//! The flags of `hardtack run`, and the configuration they are laid over.

use std::path::PathBuf;

use clap::Args;

use crate::config::{ConfigErrors, Flags, Sources};

/// What may be said on the command line about a start.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArguments {
    /// Configuration file [env: HARDTACK_CONFIG]; none is searched for
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the proxy listens [default: 127.0.0.1:8080]
    #[arg(long, value_name = "ADDR")]
    listen: Option<String>,
    /// Where the admin API listens [default: 127.0.0.1:8081]
    #[arg(long, value_name = "ADDR")]
    admin: Option<String>,
    /// Data directory [default: hardtack in the user's data directory]
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// Send every request that no other route takes to this URL
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// How the origin is weighed against the store
    #[arg(long, value_parser = ["auto", "online", "prefer-cache", "offline"])]
    mode: Option<String>,
    /// Look of log lines: auto is pretty on a terminal, JSON otherwise
    #[arg(long, value_parser = ["auto", "pretty", "json"])]
    log_format: Option<String>,
}

impl RunArguments {
    /// The named file, the environment, and these flags.
    ///
    /// # Errors
    /// When a named file cannot be read.
    pub fn sources(&self) -> Result<Sources, ConfigErrors> {
        let from_environment = || {
            let file = std::env::var_os("HARDTACK_CONFIG");
            file.filter(|file| !file.is_empty()).map(PathBuf::from)
        };
        let file = self.config.clone().or_else(from_environment);
        let flags = Flags {
            listen: self.listen.clone(),
            admin: self.admin.clone(),
            data_dir: self.data_dir.clone(),
            upstream: self.upstream.clone(),
            mode: self.mode.clone(),
            log_format: self.log_format.clone(),
        };
        Sources::of_process(file.as_deref(), flags)
    }
}
