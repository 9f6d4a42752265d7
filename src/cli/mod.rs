//! The command line: what starts the gateway, and the commands that speak its admin API.
//!
//! Invariants: data on stdout, talk on stderr; what changes something says what it will do and is confirmed first;
//! exit codes are the contract of [`Exit`]. Deliberately absent: any way past the admin API into a running gateway.

pub mod config_command;
pub mod demo;

mod banner;
mod cache;
mod client;
mod confirm;
mod health;
mod human;
mod listing;
mod output;
mod queue;
mod queue_changes;
mod queue_transfer;
mod run;
mod status;
mod table;
mod upstream;

use std::{path::PathBuf, process::ExitCode};

use clap::{Args, CommandFactory, Parser, Subcommand};

pub use self::{banner::banner, output::complain, run::RunArguments};
use self::{
    config_command::{Outcome, Status},
    output::print,
};
use crate::{
    admin::ProblemDocument,
    config::{Annotate, ConfigErrors, Sources},
};

/// An offline-first edge caching gateway.
///
/// Without a command it starts the gateway, as `hardtack run` does.
#[derive(Debug, Parser)]
#[command(name = "hardtack", version, args_conflicts_with_subcommands = true)]
pub struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunArguments,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Start the gateway (also without any command)
    Run(RunArguments),
    /// Take a tour with a built-in toy origin, without a network
    Demo,
    /// Write a commented starter configuration
    Init {
        /// Write to this file instead of standard output
        #[arg(short, long, value_name = "FILE")]
        output: Option<PathBuf>,
    },
    /// Check everything a start would check, and report all errors at once
    Check(RunArguments),
    /// Show the configuration, or its schema
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Show the gateway at a glance
    Status(Reading),
    /// List, show and purge stored responses
    #[command(subcommand)]
    Cache(cache::CacheCommand),
    /// See the writes that wait for their origins, and see to those that need it
    #[command(subcommand)]
    Queue(queue::QueueCommand),
    /// List upstreams, or say that one is online or offline
    #[command(subcommand)]
    Upstream(upstream::UpstreamCommand),
    /// Ask whether the gateway is alive; exit 0 if it is (for containers)
    Healthcheck(health::Healthcheck),
    /// Write a completion script
    Completions {
        /// For which shell
        shell: clap_complete::Shell,
    },
}

/// What to show of the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Every setting in force
    Show {
        /// Also where each value comes from
        #[arg(long)]
        origin: bool,
        /// As JSON
        #[arg(long, conflicts_with = "origin")]
        json: bool,
        /// What to lay over the file
        #[command(flatten)]
        run: Box<RunArguments>,
    },
    /// The JSON Schema of the configuration file
    Schema,
    /// Every option with its type, default and meaning
    Reference,
}

/// Where the gateway is, for commands that ask it.
#[derive(Clone, Debug, Default, Args)]
pub struct Gateway {
    /// Admin API of the gateway [env: HARDTACK_ADMIN] [default: as the data directory says]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// Data directory of the gateway, with its address and token
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,
}

/// A command that only reads.
#[derive(Clone, Debug, Default, Args)]
pub struct Reading {
    #[command(flatten)]
    gateway: Gateway,
    /// As JSON; lists one object a line
    #[arg(long)]
    json: bool,
}

/// Exit codes of every command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done.
    Ok = 0,
    /// Not done: an error, or an answer of no.
    Failed = 1,
    /// The arguments or the configuration are wrong.
    Usage = 2,
    /// No gateway answers.
    Unreachable = 3,
    /// The gateway refused, or a destructive command was not confirmed.
    Refused = 4,
}

/// Why a command was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CommandError {
    /// Nothing says where the gateway is.
    #[error(
        "no gateway runs here: there is no {}; name one with --admin or --data-dir",
        file.display()
    )]
    NoGateway {
        /// The file that would say it.
        file: PathBuf,
    },
    /// The address is not one.
    #[error("`{address}` is not the URL of an admin API, such as http://127.0.0.1:8081")]
    Address {
        /// What was given.
        address: String,
    },
    /// No connection, or no answer in time.
    #[error("no gateway answers at {url}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        #[source]
        source: reqwest::Error,
    },
    /// There is no token to present.
    #[error(
        "there is no token for {url}: set HARDTACK_TOKEN, or name the --data-dir that holds admin.token"
    )]
    NoToken {
        /// Whose token.
        url: String,
    },
    /// The gateway answered with a problem.
    #[error("{}: {}", problem.title, problem.detail)]
    Problem {
        /// What it said.
        problem: Box<ProblemDocument>,
    },
    /// The answer is not one of hardtack's.
    #[error("what answers at {url} does not speak this admin API: {why}")]
    Foreign {
        /// Where.
        url: String,
        /// What is wrong with the answer.
        why: String,
    },
    /// A destructive command was not confirmed.
    #[error("not confirmed; nothing was changed")]
    NotConfirmed,
    /// A destructive command without a terminal to ask on.
    #[error("not confirmed; nothing was changed. Add --yes to do it without asking")]
    CannotAsk,
    /// The gateway is alive but does not take requests.
    #[error("the gateway is {state}")]
    Unhealthy {
        /// What it is instead.
        state: String,
    },
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// The tour did not go as it should.
    #[error("the demo was cut short")]
    Demo(#[source] demo::DemoError),
    /// It has been said already why.
    #[error("not done")]
    Told(Exit),
    /// A file that was named cannot be used.
    #[error("cannot {attempt} {}", path.display())]
    File {
        /// What was attempted.
        attempt: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// Standard output took nothing more.
    #[error("cannot write the answer")]
    Output(#[source] std::io::Error),
}

impl Arguments {
    /// The command; starting the gateway where none was given.
    pub fn into_command(self) -> Command {
        self.command.unwrap_or(Command::Run(self.run))
    }
}

impl Command {
    /// Does what the command says, and tells how it ended. Starting the gateway is `main`'s part, not this one's.
    pub async fn execute(self) -> ExitCode {
        let done = match self {
            Command::Run(_) => unreachable!("main starts the gateway"),
            Command::Demo => demo::run().await.map_err(CommandError::Demo),
            Command::Init { output } => end(config_command::init(output.as_deref())),
            Command::Check(run) => {
                with_sources(&run, |sources| end(config_command::check(sources)))
            }
            Command::Config(command) => command.execute(),
            Command::Status(reading) => status::show(&reading).await,
            Command::Cache(command) => command.execute().await,
            Command::Queue(command) => command.execute().await,
            Command::Upstream(command) => command.execute().await,
            Command::Healthcheck(check) => check.execute().await,
            Command::Completions { shell } => completions(shell),
        };
        match done {
            Ok(()) => Exit::Ok.into(),
            Err(error) => {
                error.tell();
                error.exit().into()
            }
        }
    }
}

impl ConfigCommand {
    fn execute(self) -> Result<(), CommandError> {
        match self {
            ConfigCommand::Schema => end(config_command::schema()),
            ConfigCommand::Reference => end(config_command::reference()),
            ConfigCommand::Show { origin, json, run } => with_sources(&run, |sources| {
                let annotate = if origin {
                    Annotate::Origins
                } else {
                    Annotate::Nothing
                };
                let shown = config_command::show(sources, annotate);
                end(if json { as_json(shown) } else { shown })
            }),
        }
    }
}

fn with_sources(
    run: &RunArguments,
    act: impl FnOnce(&Sources) -> Result<(), CommandError>,
) -> Result<(), CommandError> {
    act(&run.sources()?)
}

/// Writes what a command of the configuration has to say.
fn end(outcome: Outcome) -> Result<(), CommandError> {
    print(&outcome.output)?;
    if !outcome.talk.is_empty() {
        complain(outcome.talk.trim_end());
    }
    match outcome.status {
        Status::Ok => Ok(()),
        Status::Failed => Err(CommandError::Told(Exit::Failed)),
        Status::Invalid => Err(CommandError::Told(Exit::Usage)),
    }
}

/// The TOML of `config show` as one line of JSON.
fn as_json(shown: Outcome) -> Outcome {
    if shown.status != Status::Ok {
        return shown;
    }
    let table: toml::Table = shown.output.parse().expect("what is shown is TOML");
    let output = serde_json::to_string(&table).expect("TOML without dates is JSON") + "\n";
    Outcome { output, ..shown }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        ExitCode::from(exit as u8)
    }
}

impl CommandError {
    fn tell(&self) {
        match self {
            CommandError::Told(_) => {}
            // Rendered with their own places and titles.
            CommandError::Config(errors) => complain(&errors.to_string()),
            error => complain(&format!("error: {}", with_causes(error))),
        }
    }

    /// The exit code that tells a script what happened.
    fn exit(&self) -> Exit {
        match self {
            CommandError::Told(exit) => *exit,
            CommandError::Address { .. }
            | CommandError::File { .. }
            | CommandError::NoToken { .. }
            | CommandError::Config(_) => Exit::Usage,
            CommandError::NoGateway { .. } | CommandError::Unreachable { .. } => Exit::Unreachable,
            CommandError::NotConfirmed | CommandError::CannotAsk => Exit::Refused,
            CommandError::Problem { problem } => match problem.status {
                400 => Exit::Usage,
                404 | 500.. => Exit::Failed,
                _ => Exit::Refused,
            },
            CommandError::Demo(_)
            | CommandError::Foreign { .. }
            | CommandError::Unhealthy { .. }
            | CommandError::Output(_) => Exit::Failed,
        }
    }
}

/// An error and its causes on one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| {
        let cause = cause.to_string();
        // Some libraries repeat the cause in the message.
        if text.ends_with(&cause) {
            text
        } else {
            format!("{text}: {cause}")
        }
    })
}

fn completions(shell: clap_complete::Shell) -> Result<(), CommandError> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "hardtack", &mut script);
    print(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::{Arguments, Command, CommandError, Exit};
    use crate::admin::ProblemDocument;

    #[test]
    fn the_commands_are_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn arguments_without_a_command_start_the_gateway() {
        for line in [
            "",
            "run",
            "--listen 127.0.0.1:0",
            "run --mode offline --upstream http://a",
        ] {
            let words = ["hardtack"].into_iter().chain(line.split_whitespace());
            let command = Arguments::try_parse_from(words).unwrap().into_command();
            assert!(matches!(command, Command::Run(_)), "{line}");
        }
        for wrong in [
            "--listen x status",
            "cache",
            "cache purge",
            "upstream offline",
            "queue",
            "queue drop",
            "queue retry",
            "queue edit",
            "queue retry 1 --state dead",
            "nothing",
        ] {
            let words = ["hardtack"].into_iter().chain(wrong.split_whitespace());
            assert_eq!(
                Arguments::try_parse_from(words).unwrap_err().exit_code(),
                2,
                "{wrong}"
            );
        }
    }

    #[test]
    fn a_problem_of_the_gateway_becomes_an_exit_code() {
        for (status, expected) in [
            (400, Exit::Usage),
            (401, Exit::Refused),
            (403, Exit::Refused),
            (404, Exit::Failed),
            (421, Exit::Refused),
            (429, Exit::Refused),
            (500, Exit::Failed),
            (503, Exit::Failed),
        ] {
            let problem = Box::new(ProblemDocument {
                r#type: String::new(),
                title: String::new(),
                status,
                detail: String::new(),
                reason: String::new(),
                instance: String::new(),
            });
            assert_eq!(
                CommandError::Problem { problem }.exit(),
                expected,
                "{status}"
            );
        }
    }
}
