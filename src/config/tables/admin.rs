//! `[admin]`.

use std::path::PathBuf;

use crate::{
    admin,
    config::{
        names::Host,
        problem::Problem,
        reader::{Sourced, options},
        value::FilePath,
    },
};

options! {
    /// The admin API.
    struct Admin {
        /// File with the token of operators alone in it, mode 0600. Empty: `admin.token` in the data directory, made on first start.
        token_file: FilePath = "",
        /// File with the token that may only read. Empty: `read.token` in the data directory, made on first start.
        read_token_file: FilePath = "",
        /// Values of Host, without a port, that are answered.
        allowed_hosts: Vec<Host> = ["localhost", "127.0.0.1", "[::1]"],
    }
}

impl Admin {
    pub(in crate::config) fn check(&self, problems: &mut Vec<Problem>) -> admin::Config {
        admin::Config {
            token_file: token_file("token_file", &self.token_file, problems),
            read_token_file: token_file("read_token_file", &self.read_token_file, problems),
            allowed_hosts: self
                .allowed_hosts
                .iter()
                .map(|host| host.0.clone())
                .collect(),
        }
    }
}

/// The file, if one is named: it must hold one token.
fn token_file(
    option: &str,
    file: &Sourced<FilePath>,
    problems: &mut Vec<Problem>,
) -> Option<PathBuf> {
    let path = file.0.clone()?;
    let wrong = match std::fs::read_to_string(&path) {
        Err(error) => Some(error.to_string()),
        Ok(text) if text.trim().is_empty() => Some("the file is empty".to_owned()),
        Ok(text) if text.split_whitespace().nth(1).is_some() => {
            Some("more than one word in the file".to_owned())
        }
        Ok(_) => None,
    };
    if let Some(label) = wrong {
        let title = format!("`admin.{option}`: not a file with one token");
        problems.push(Problem::error(file.origin, title).label(label));
    }
    Some(path)
}
