//! The two bearer tokens, `admin` and `read`, and their files.
//!
//! Invariants: a file holds one token alone; a file we make has mode 0600 from its first byte and is whole or absent
//! (written aside, then renamed); tokens are compared in constant time and never printed.

use std::{
    fmt,
    fs::{self, OpenOptions, Permissions},
    io::{self, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

use subtle::{Choice, ConstantTimeEq};
use tracing::{info, warn};

use super::Config;

/// Name in the data directory of the file with the token that may do everything.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";
/// Name in the data directory of the file with the token that may only read.
pub const READ_TOKEN_FILE: &str = "read.token";

// What a person would choose by hand as a joke or a placeholder is shorter.
const MIN_TOKEN_BYTES: usize = 16;
// Far more than any token; keeps a mistaken path (a log, a device) from being read whole.
const MAX_FILE_BYTES: u64 = 4_096;

/// Who may ask the admin API.
#[derive(Clone)]
pub struct Tokens {
    admin: String,
    read: Option<String>,
}

/// What a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// GET and HEAD.
    Read,
    /// Everything.
    Admin,
}

/// The tokens could not be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TokenError {
    /// A file could not be read or written.
    #[error("cannot {attempt} the token file {}", path.display())]
    Io {
        /// What was attempted.
        attempt: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// The file does not hold one token alone.
    #[error(
        "the token file {} has to hold one token alone: {MIN_TOKEN_BYTES} or more visible ASCII characters without spaces",
        path.display()
    )]
    Malformed {
        /// Which file.
        path: PathBuf,
    },
    /// The system gave no randomness.
    #[error("cannot get randomness for a token: {0}")]
    Randomness(getrandom::Error),
}

impl Tokens {
    /// From the configured file (then there is no read token), or from the data directory, where missing ones are made.
    ///
    /// # Errors
    /// [`TokenError`] when a file cannot be read or made, or does not hold one token alone.
    pub fn load(config: &Config, data_dir: &Path) -> Result<Self, TokenError> {
        if let Some(path) = &config.token_file {
            let admin = read_token(path)?;
            warn_if_others_can_read(path);
            let read = config
                .read_token_file
                .as_deref()
                .map(read_token)
                .transpose()?;
            return Ok(Self { admin, read });
        }
        let read = match &config.read_token_file {
            Some(path) => read_token(path)?,
            None => read_or_make(&data_dir.join(READ_TOKEN_FILE))?,
        };
        Ok(Self {
            admin: read_or_make(&data_dir.join(ADMIN_TOKEN_FILE))?,
            read: Some(read),
        })
    }

    /// What `presented` allows. Always compares with both tokens, each in constant time.
    pub(super) fn access(&self, presented: &str) -> Option<Access> {
        let presented = presented.as_bytes();
        let admin = self.admin.as_bytes().ct_eq(presented);
        let read = match &self.read {
            Some(read) => read.as_bytes().ct_eq(presented),
            None => Choice::from(0),
        };
        if admin.into() {
            Some(Access::Admin)
        } else if read.into() {
            Some(Access::Read)
        } else {
            None
        }
    }

    #[cfg(test)]
    pub(super) fn for_test(admin: &str, read: &str) -> Self {
        Self {
            admin: admin.to_owned(),
            read: Some(read.to_owned()),
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

fn read_or_make(path: &Path) -> Result<String, TokenError> {
    match read_token(path) {
        Err(TokenError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
            make(path)
        }
        Err(error) => Err(error),
        Ok(token) => {
            restrict(path)?;
            Ok(token)
        }
    }
}

/// Reads the token of a file. Also how the command line finds its own.
pub(crate) fn read_token(path: &Path) -> Result<String, TokenError> {
    let failed = |source| TokenError::Io {
        attempt: "read",
        path: path.to_owned(),
        source,
    };
    let malformed = || TokenError::Malformed {
        path: path.to_owned(),
    };
    if fs::metadata(path).map_err(failed)?.len() > MAX_FILE_BYTES {
        return Err(malformed());
    }
    let text = fs::read(path).map_err(failed)?;
    let token = text.trim_ascii();
    if token.len() < MIN_TOKEN_BYTES || !token.iter().all(u8::is_ascii_graphic) {
        return Err(malformed());
    }
    Ok(String::from_utf8_lossy(token).into_owned())
}

/// Makes a token of 256 random bits.
fn make(path: &Path) -> Result<String, TokenError> {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).map_err(TokenError::Randomness)?;
    let token = bytes.iter().fold(String::new(), |mut token, byte| {
        token.push_str(&format!("{byte:02x}"));
        token
    });
    write_aside(path, &token).map_err(|source| TokenError::Io {
        attempt: "make",
        path: path.to_owned(),
        source,
    })?;
    info!(file = %path.display(), "Made a token.");
    Ok(token)
}

fn write_aside(path: &Path, token: &str) -> io::Result<()> {
    let aside = path.with_extension("token.new");
    // A leftover of a start that was killed.
    match fs::remove_file(&aside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&aside)?;
    writeln!(file, "{token}")?;
    file.sync_all()?;
    fs::rename(aside, path)
}

/// Takes a token of ours back from group and others, whoever gave it to them.
fn restrict(path: &Path) -> Result<(), TokenError> {
    if !others_can_read(path) {
        return Ok(());
    }
    warn!(file = %path.display(), "Others could read this token; its mode is 0600 now. Delete the file to get a new token.");
    fs::set_permissions(path, Permissions::from_mode(0o600)).map_err(|source| TokenError::Io {
        attempt: "restrict",
        path: path.to_owned(),
        source,
    })
}

/// A configured file may be a mounted secret whose mode is not ours to change.
fn warn_if_others_can_read(path: &Path) {
    if others_can_read(path) {
        warn!(file = %path.display(), "Others can read the admin token.");
    }
}

fn others_can_read(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::{self, Permissions},
        os::unix::fs::PermissionsExt,
        path::Path,
    };

    use super::{ADMIN_TOKEN_FILE, Access, READ_TOKEN_FILE, TokenError, Tokens};
    use crate::admin::Config;

    fn made_in_data_dir() -> Config {
        Config {
            token_file: None,
            read_token_file: None,
            allowed_hosts: Vec::new(),
        }
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_first_start_makes_two_tokens_that_only_the_owner_can_read() {
        let dir = tempfile::tempdir().unwrap();
        let tokens = Tokens::load(&made_in_data_dir(), dir.path()).unwrap();
        let files = [ADMIN_TOKEN_FILE, READ_TOKEN_FILE].map(|name| dir.path().join(name));
        for file in &files {
            assert_eq!(mode(file), 0o600);
        }
        let [admin, read] = files.map(|file| fs::read_to_string(file).unwrap());
        assert_ne!(admin, read);
        assert_eq!(admin.trim().len(), 64, "256 bits in hexadecimal digits");
        assert_eq!(tokens.access(admin.trim()), Some(Access::Admin));
        assert_eq!(tokens.access(read.trim()), Some(Access::Read));
        assert_eq!(
            fs::read_dir(dir.path()).unwrap().count(),
            2,
            "nothing is left aside"
        );
    }

    #[test]
    fn tokens_survive_a_restart_and_a_mode_that_was_opened_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        Tokens::load(&made_in_data_dir(), dir.path()).unwrap();
        let file = dir.path().join(ADMIN_TOKEN_FILE);
        let before = fs::read_to_string(&file).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o644)).unwrap();
        let tokens = Tokens::load(&made_in_data_dir(), dir.path()).unwrap();
        assert_eq!(tokens.access(before.trim()), Some(Access::Admin));
        assert_eq!(mode(&file), 0o600);
    }

    #[test]
    fn a_leftover_of_a_killed_start_is_no_token() {
        let dir = tempfile::tempdir().unwrap();
        let aside = dir
            .path()
            .join(ADMIN_TOKEN_FILE)
            .with_extension("token.new");
        fs::write(aside, "half").unwrap();
        Tokens::load(&made_in_data_dir(), dir.path()).unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn a_configured_file_holds_one_token_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        let config = Config {
            token_file: Some(path.clone()),
            read_token_file: None,
            allowed_hosts: Vec::new(),
        };
        let load = || Tokens::load(&config, dir.path());
        assert!(matches!(load(), Err(TokenError::Io { .. })), "missing");
        let long = "x".repeat(5_000);
        for wrong in [
            "",
            "\n",
            "short",
            "two tokens-in-one-file",
            "admin = \"abcdefgh\"\n#",
            &long,
        ] {
            fs::write(&path, wrong).unwrap();
            assert!(
                matches!(load(), Err(TokenError::Malformed { .. })),
                "{wrong:.30}"
            );
        }
        fs::write(&path, "0123456789abcdef\r\n").unwrap();
        let tokens = load().unwrap();
        assert_eq!(tokens.access("0123456789abcdef"), Some(Access::Admin));
        assert!(!dir.path().join(READ_TOKEN_FILE).exists());
    }

    #[test]
    fn nothing_but_the_whole_token_gives_access() {
        let tokens = Tokens::for_test("admin-admin-admin", "read-read-read-read");
        for wrong in [
            "",
            "admin",
            "admin-admin-admin ",
            "ADMIN-ADMIN-ADMIN",
            "admin-admin-admi",
        ] {
            assert_eq!(tokens.access(wrong), None, "{wrong}");
        }
        assert!(!format!("{tokens:?}").contains("admin-admin"));
    }
}
