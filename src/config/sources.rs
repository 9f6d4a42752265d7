//! The texts that configuration comes from.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use super::{ConfigErrors, problem::Problem, tree::Origin};

/// Where configuration comes from. Defaults, then file, then environment, then flags.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The named file and its text.
    pub file: Option<(PathBuf, String)>,
    /// Variables of the environment; only names that start with `HARDTACK_` and contain `__` after it are configuration.
    pub environment: Vec<(String, String)>,
    /// Command line flags.
    pub flags: Flags,
}

/// The flags of `hardtack run`, as they were typed.
#[derive(Clone, Debug, Default)]
#[expect(missing_docs, reason = "each is the flag of that name")]
pub struct Flags {
    pub listen: Option<String>,
    pub admin: Option<String>,
    pub data_dir: Option<String>,
    pub upstream: Option<String>,
    pub mode: Option<String>,
    pub log_format: Option<String>,
}

// Far more than anyone writes by hand; a wrong path to something huge is said at once.
const LARGEST_FILE: u64 = 1 << 20;

impl Sources {
    /// The file, if one is named, this process's environment, and these flags.
    ///
    /// # Errors
    /// When the named file cannot be read.
    pub fn of_process(file: Option<&Path>, flags: Flags) -> Result<Self, ConfigErrors> {
        let read = |path: &Path| match read_text(path) {
            Ok(text) => Ok((path.to_owned(), text)),
            Err(error) => {
                let title = format!(
                    "cannot read the configuration file {}: {error}",
                    path.display()
                );
                let help = "`hardtack init -o FILE` writes a starter";
                Err(ConfigErrors::new(
                    vec![Problem::error(Origin::Default, title).help(help)],
                    &[],
                ))
            }
        };
        Ok(Self {
            file: file.map(read).transpose()?,
            environment: environment(),
            flags,
        })
    }
}

fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(LARGEST_FILE + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(io::Error::other("larger than 1 MiB"));
    }
    Ok(text)
}

/// Ours only: names and values of others may be no text at all.
fn environment() -> Vec<(String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            let ours = name.starts_with("HARDTACK_");
            ours.then(|| (name, value.to_string_lossy().into_owned()))
        })
        .collect()
}
