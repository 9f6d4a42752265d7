//! The binary: arguments, configuration, telemetry, signals, drain.

use std::{process::ExitCode, sync::Arc};

use anyhow::Context;
use clap::Parser;
use hardtack::{
    app,
    cli::{Arguments, Command, Exit, RunArguments, banner, complain},
    clock::SystemClock,
    config::{self, Config},
    protect,
    telemetry::{self, LogFormat},
};
use tokio::{
    runtime::{Builder, Runtime},
    signal::unix::{Signal, SignalKind, signal},
};
use tracing::{debug, info, warn};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let ended = match Arguments::parse().into_command() {
        Command::Run(arguments) => run(&arguments),
        command => runtime().map(|runtime| runtime.block_on(command.execute())),
    };
    ended.unwrap_or_else(|error| {
        complain(&format!("error: {error:#}"));
        Exit::Failed.into()
    })
}

fn run(arguments: &RunArguments) -> anyhow::Result<ExitCode> {
    // Nothing is opened or bound before the whole configuration is known to be good.
    let loaded = arguments
        .sources()
        .and_then(|sources| config::load(&sources));
    let config = match loaded {
        Ok(config) => config,
        Err(errors) => {
            complain(&errors.to_string());
            return Ok(Exit::Usage.into());
        }
    };
    let _logging = telemetry::start_logging(&config.telemetry)
        .map_err(anyhow::Error::from_boxed)
        .context("cannot start logging")?;
    keep_memory_small();
    let runtime = runtime()?;
    let ended = runtime.block_on(serve(config));
    // Whatever still reads a file then has been given up by the drain.
    runtime.shutdown_background();
    ended
}

/// Without huge pages, which the allocator asks for: with them an idle gateway is twice as large, and what was used once
/// stays.
fn keep_memory_small() {
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::thread::disable_transparent_huge_pages(true) {
        debug!(%error, "Huge pages stay in use.");
    }
}

async fn serve(config: Config) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::register()?;
    for warning in &config.warnings {
        warn!("{warning}");
    }
    if let Some(limit) = protect::raise_descriptor_limit() {
        debug!(limit, "Raised the limit of open files.");
    }
    // A start that is interrupted leaves what a crash leaves, which the next start repairs.
    let running = tokio::select! {
        started = app::start(config, Arc::new(SystemClock)) => started.context("the gateway did not start")?,
        signal = signals.next() => return Ok(signal.exit_code()),
    };
    greet(&running);
    let signal = signals.next().await;
    info!(
        signal = signal.name(),
        "Stopping; a second signal exits at once."
    );
    tokio::select! {
        () = running.shutdown() => Ok(Exit::Ok.into()),
        signal = signals.next() => {
            warn!(signal = signal.name(), "Exiting at once.");
            Ok(signal.exit_code())
        }
    }
}

/// For people, unless whoever configured JSON lines reads nothing else.
fn greet(running: &app::Running) {
    let text = banner(running);
    match running.config().telemetry.log_format {
        LogFormat::Json => info!(banner = text, "Started."),
        LogFormat::Auto | LogFormat::Pretty => complain(text.trim_end()),
    }
}

fn runtime() -> anyhow::Result<Runtime> {
    Builder::new_multi_thread()
        .enable_all()
        .on_thread_park(telemetry::before_parking)
        .build()
        .context("cannot start the runtime")
}

/// The signals that end the gateway.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// Why the gateway ends.
#[derive(Clone, Copy)]
enum Ending {
    Terminate,
    Interrupt,
}

impl Signals {
    fn register() -> anyhow::Result<Self> {
        let register = |kind| signal(kind).context("cannot listen for signals");
        Ok(Self {
            terminate: register(SignalKind::terminate())?,
            interrupt: register(SignalKind::interrupt())?,
            hang_up: register(SignalKind::hangup())?,
        })
    }

    /// The next signal to end. Cancel-safe: a signal that was not returned is kept.
    async fn next(&mut self) -> Ending {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return Ending::Terminate,
                _ = self.interrupt.recv() => return Ending::Interrupt,
                _ = self.hang_up.recv() => {
                    info!("SIGHUP is ignored: the configuration is read at start only.");
                }
            }
        }
    }
}

impl Ending {
    const fn name(self) -> &'static str {
        match self {
            Ending::Terminate => "SIGTERM",
            Ending::Interrupt => "SIGINT",
        }
    }

    /// As a shell reports a process ended by the signal.
    fn exit_code(self) -> ExitCode {
        match self {
            Ending::Terminate => ExitCode::from(143),
            Ending::Interrupt => ExitCode::from(130),
        }
    }
}
