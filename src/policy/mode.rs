//! How the gateway weighs the origin against the store: set globally, per route, and at run time.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The weight the origin has against the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Fresh answers from the store, the origin otherwise, stale answers where the rules or a lost link allow them.
    #[default]
    Auto,
    /// Whatever is stale is validated; no stale answers of the gateway's own making.
    Online,
    /// Any stored response at once, the fill behind it: for metered links.
    PreferCache,
    /// No contact with the upstream at all.
    Offline,
}

impl Mode {
    /// Every mode, in the order the documentation lists them.
    pub const ALL: [Mode; 4] = [Mode::Auto, Mode::Online, Mode::PreferCache, Mode::Offline];

    /// The name used in configuration, the command line and the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Mode::Auto => "auto",
            Mode::Online => "online",
            Mode::PreferCache => "prefer-cache",
            Mode::Offline => "offline",
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not the name of a mode.
#[derive(Debug, thiserror::Error)]
#[error("unknown mode `{0}`; one of auto, online, prefer-cache, offline")]
pub struct UnknownMode(String);

impl FromStr for Mode {
    type Err = UnknownMode;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Mode::ALL
            .into_iter()
            .find(|mode| mode.as_str() == text)
            .ok_or_else(|| UnknownMode(text.to_owned()))
    }
}
