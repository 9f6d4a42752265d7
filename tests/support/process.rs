//! A gateway as a process of its own, which can be killed, and restarted on the same data directory and ports.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{Client, Reserved, eventually, gateway::merged};

/// A running gateway process.
pub(crate) struct Process {
    /// Speaks to the proxy listener.
    pub(crate) client: Client,
    /// Speaks to the admin listener, with the admin token.
    pub(crate) admin: Client,
    child: Owned,
    home: Home,
}

/// How a process ended, and what it said.
#[derive(Debug)]
pub(crate) struct Exit {
    /// `None`: by a signal.
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// What outlives one process: its directory and its ports.
pub(crate) struct Home {
    dir: TempDir,
    proxy: Reserved,
    admin: Reserved,
}

/// A child process, killed when dropped, so that a failed test leaves none behind.
pub(crate) struct Owned(Child);

impl Process {
    /// With this TOML laid over the base configuration of tests.
    pub(crate) async fn start(config: &str) -> Self {
        let home = Home::new();
        std::fs::write(home.config_file(), merged(&home.data(), config)).unwrap();
        Self::start_in(home).await
    }

    /// As the first command of a container: on every address, without a home or an environment of its own, and with
    /// nothing but these arguments and variables.
    pub(crate) async fn start_like_a_container(
        arguments: &[&str],
        environment: &[(&str, &str)],
    ) -> Self {
        let home = Home::new();
        let mut command = gateway_command();
        command
            .env_clear()
            .envs(environment.iter().copied())
            .arg("run")
            .args([
                "--listen",
                &format!("0.0.0.0:{}", home.proxy.address.port()),
            ])
            .args(["--admin", &home.admin.address.to_string()])
            .arg("--data-dir")
            .arg(home.data())
            .args(arguments);
        Self::spawn(command, home).await
    }

    /// Kills it with -9, as a power cut would.
    pub(crate) async fn kill(mut self) -> Home {
        self.child.0.kill().unwrap();
        self.ended().await.1
    }

    /// Asks it to end, with SIGTERM.
    pub(crate) fn terminate(&self) {
        let id = i32::try_from(self.child.0.id()).expect("a process id");
        let pid = Pid::from_raw(id).expect("a process id");
        kill_process(pid, Signal::TERM).unwrap();
    }

    /// Waits until it has ended: its exit code, and what is left of it.
    pub(crate) async fn ended(mut self) -> (Option<i32>, Home) {
        (self.child.ended().await, self.home)
    }

    /// What it has said so far, on both of its outputs.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.home.log()).unwrap()
    }

    /// The data directory.
    pub(crate) fn data(&self) -> PathBuf {
        self.home.data()
    }

    async fn start_in(home: Home) -> Self {
        let mut command = gateway_command();
        command
            .arg("run")
            .arg("--config")
            .arg(home.config_file())
            .args(["--listen", &home.proxy.address.to_string()])
            .args(["--admin", &home.admin.address.to_string()]);
        Self::spawn(command, home).await
    }

    async fn spawn(mut command: Command, home: Home) -> Self {
        let announced = home.data().join("gateway.json");
        // One left by a killed process would be believed.
        let _ = std::fs::remove_file(&announced);
        let log = || File::options().append(true).create(true).open(home.log());
        let child = command
            .stdout(log().unwrap())
            .stderr(log().unwrap())
            .spawn();
        let mut child = Owned(child.unwrap());
        child.announces(&announced, &home.log()).await;

        let token = std::fs::read_to_string(home.data().join("admin.token")).unwrap();
        let process = Self {
            client: Client::new(home.proxy.address),
            admin: Client::new(home.admin.address).with_bearer(token.trim().to_owned()),
            child,
            home,
        };
        assert_eq!(process.admin.get("/livez").await.status, 200);
        process
    }
}

impl Owned {
    async fn announces(&mut self, announced: &Path, log: &Path) {
        eventually("gateway.json appears", || {
            let ended = self.0.try_wait().unwrap();
            let said = || std::fs::read_to_string(log).unwrap_or_default();
            assert!(ended.is_none(), "the gateway ended: {}", said());
            // Parsed, not only found: it may be half written.
            let text = std::fs::read_to_string(announced).unwrap_or_default();
            let parsed = serde_json::from_str::<serde_json::Value>(&text).ok();
            async move { parsed }
        })
        .await;
    }

    async fn ended(&mut self) -> Option<i32> {
        eventually("the process ends", || {
            let status = self.0.try_wait().unwrap();
            async move { status }
        })
        .await
        .code()
    }
}

impl Drop for Owned {
    fn drop(&mut self) {
        // Errors say that it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Home {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            proxy: Reserved::new(),
            admin: Reserved::new(),
        }
    }

    /// Starts a gateway again on the same data directory and ports.
    pub(crate) async fn start(self) -> Process {
        Process::start_in(self).await
    }

    fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    fn config_file(&self) -> PathBuf {
        self.dir.path().join("gateway.toml")
    }

    fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }
}

/// Runs the binary with these arguments, and only these variables, until it ends by itself.
pub(crate) async fn run_to_exit(arguments: &[&str], environment: &[(&str, &str)]) -> Exit {
    let dir = tempfile::tempdir().unwrap();
    let file = |name| dir.path().join(name);
    let child = gateway_command()
        .env_clear()
        .envs(environment.iter().copied())
        .args(arguments)
        .stdout(File::create(file("stdout")).unwrap())
        .stderr(File::create(file("stderr")).unwrap())
        .spawn()
        .unwrap();
    let code = Owned(child).ended().await;
    let read = |name| std::fs::read_to_string(file(name)).unwrap();
    Exit {
        code,
        stdout: read("stdout"),
        stderr: read("stderr"),
    }
}

/// The binary of this build, with nothing on its standard input.
fn gateway_command() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hardtack"));
    command.stdin(Stdio::null());
    command
}
