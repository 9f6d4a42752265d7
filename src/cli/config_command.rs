//! `hardtack check`, `init`, and `config show | schema | reference`: what they print, and how they end.

use std::{fs::File, io::Write as _, path::Path};

use crate::config::{self, Annotate, Sources};

/// What a command has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Data, for standard output.
    pub output: String,
    /// Talk, for standard error.
    pub talk: String,
    /// How it ends.
    pub status: Status,
}

/// How a command ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// As asked.
    Ok,
    /// Not done.
    Failed,
    /// The configuration is wrong.
    Invalid,
}

impl Status {
    /// The exit code of the process.
    pub const fn exit_code(self) -> u8 {
        match self {
            Status::Ok => 0,
            Status::Failed => 1,
            Status::Invalid => 2,
        }
    }
}

impl Outcome {
    fn ok(output: impl Into<String>) -> Self {
        Self {
            output: output.into(),
            talk: String::new(),
            status: Status::Ok,
        }
    }

    fn ended(status: Status, talk: String) -> Self {
        Self {
            output: String::new(),
            talk,
            status,
        }
    }
}

/// `hardtack check`: everything that a start would check.
pub fn check(sources: &Sources) -> Outcome {
    let config = match config::load(sources) {
        Ok(config) => config,
        Err(errors) => {
            let count = match errors.count {
                1 => "1 error".to_owned(),
                count => format!("{count} errors"),
            };
            return Outcome::ended(Status::Invalid, format!("{errors}\n\n{count}\n"));
        }
    };
    let warnings = config
        .warnings
        .iter()
        .map(|warning| format!("{warning}\n\n"));
    let what = match &config.file {
        Some(file) => file.display().to_string(),
        None => "the configuration without a file".to_owned(),
    };
    Outcome {
        talk: warnings.collect(),
        ..Outcome::ok(format!("{what} is good\n"))
    }
}

/// `hardtack init`: the starter, printed, or written to a file that does not exist yet.
pub fn init(file: Option<&Path>) -> Outcome {
    let Some(path) = file else {
        return Outcome::ok(config::STARTER);
    };
    let written =
        File::create_new(path).and_then(|mut file| file.write_all(config::STARTER.as_bytes()));
    let path = path.display();
    match written {
        Ok(()) => Outcome::ended(
            Status::Ok,
            format!("wrote {path}; start with: hardtack run --config {path}\n"),
        ),
        Err(error) => Outcome::ended(Status::Failed, format!("cannot write {path}: {error}\n")),
    }
}

/// `hardtack config show [--origin]`.
pub fn show(sources: &Sources, annotate: Annotate) -> Outcome {
    match config::show(sources, annotate) {
        Ok(text) => Outcome::ok(text),
        Err(errors) => Outcome::ended(Status::Invalid, format!("{errors}\n")),
    }
}

/// `hardtack config schema`.
pub fn schema() -> Outcome {
    Outcome::ok(format!("{:#}\n", config::json_schema()))
}

/// `hardtack config reference`.
pub fn reference() -> Outcome {
    Outcome::ok(config::reference())
}
