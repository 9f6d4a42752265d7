//! `[telemetry]`.

use crate::{
    config::{
        problem::nearest,
        reader::options,
        value::{TextValue, choices},
    },
    telemetry::{self, LogFormat, Sampling},
};

options! {
    /// What the gateway tells about itself.
    struct Telemetry {
        /// The log, on standard error.
        log: Log = {},
        /// Access events in the log. Metrics count everything all the same.
        access: Access = {},
    }
}

options! {
    /// How the log looks and how much it tells.
    struct Log {
        /// "pretty", "json", or "auto": pretty on a terminal, JSON otherwise.
        format: LogFormat = "auto",
        /// "error", "warn", "info", "debug", "trace" or "off"; also by module, as in "info,hardtack::upstream=debug".
        level: Level = "info",
    }
}

options! {
    /// The share of requests that are logged: "all", "none", or one in so many, as in "1/100".
    struct Access {
        /// Requests answered from the store.
        hits: Sampling = "1/100",
        /// Every other request.
        other: Sampling = "all",
    }
}

choices! { LogFormat, r#""auto", "pretty" or "json""#, [
    "auto" => LogFormat::Auto,
    "pretty" => LogFormat::Pretty,
    "json" => LogFormat::Json,
]}

/// Directives of the log filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::config) struct Level(String);

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

impl TextValue for Level {
    const EXPECTED: &'static str = r#"a level such as "info", or "info,hardtack::upstream=debug""#;

    // The filter itself takes a misspelt level for the name of a module, and then logs nothing.
    fn parse(text: &str) -> Result<Self, String> {
        for directive in text.split(',') {
            let (module, level) = match directive.trim().rsplit_once('=') {
                Some((module, level)) => (module, level),
                None => ("hardtack", directive.trim()),
            };
            let plain = |c: char| c.is_ascii_alphanumeric() || "_:-".contains(c);
            if module.is_empty() || !module.chars().all(plain) {
                return Err(format!("`{module}` is not a module"));
            }
            if !LEVELS.contains(&level) {
                return Err(match nearest(level, LEVELS) {
                    Some(meant) => format!("`{level}` is not a level; did you mean `{meant}`?"),
                    None => format!("`{level}` is not a level"),
                });
            }
        }
        Ok(Self(text.to_owned()))
    }
}

impl Telemetry {
    pub(in crate::config) fn config(&self) -> telemetry::Config {
        telemetry::Config {
            log_format: self.log.format.value,
            log_level: self.log.level.0.clone(),
            access_hits: self.access.hits.value,
            access_other: self.access.other.value,
        }
    }
}
