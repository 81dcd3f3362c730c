//! A PostgreSQL server of their own for tests and benchmarks, in a temporary folder, on a socket.
//!
//! It is Debian's package, run as the user `postgres` where the tests run as root, because the
//! server refuses to be root. It knows nothing of what is stored.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, geteuid};
use tempfile::TempDir;

/// Where Debian puts the programs of each version.
const VERSIONS: &str = "/usr/lib/postgresql";

/// The user that the server runs as when the tests are root's.
const SERVER_USER: &str = "postgres";

/// How long a server may take to answer.
const START_DEADLINE: Duration = Duration::from_mins(1);

const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disk {
    /// Quick, and enough where only processes are killed.
    Unsynced,
    /// As in use: what benchmarks measure.
    Synced,
}

/// A running server. It is stopped, and its folder removed, when this is dropped.
#[derive(Debug)]
pub struct Server {
    // The field order is the order of dropping: the process before its folder.
    process: Option<Process>,
    programs: PathBuf,
    disk: Disk,
    folder: TempDir,
}

#[derive(Debug)]
struct Process(Child);

impl Server {
    /// Starts a server with an empty database; none, said on standard error, where PostgreSQL is
    /// not installed.
    ///
    /// # Panics
    /// If it is installed and does not start, or if it is not installed in CI.
    pub fn start(disk: Disk) -> Option<Self> {
        let Some(programs) = programs() else {
            assert!(std::env::var_os("CI").is_none(), "CI needs Debian's package `postgresql`");
            say(&format!("SKIPPED: no PostgreSQL in `{VERSIONS}`; install Debian's `postgresql`"));
            return None;
        };
        let folder = tempfile::Builder::new().prefix("gpg-").tempdir().expect("a temporary folder");
        give_to_server_user(folder.path()).expect("root may give a folder away");
        let mut server = Self { process: None, programs, disk, folder };
        server.make_cluster();
        server.start_again();
        Some(server)
    }

    /// The address of the database.
    pub fn url(&self) -> String {
        format!("postgres://gradus@localhost/postgres?host={}", self.folder.path().display())
    }

    /// Stops the server as an operator would: open transactions are broken off.
    pub fn stop(&mut self) {
        self.end(Signal::SIGINT);
    }

    /// Stops the server at once, as a crash would.
    pub fn crash(&mut self) {
        self.end(Signal::SIGQUIT);
    }

    /// Starts the stopped server on what it had stored.
    ///
    /// # Panics
    /// If it does not answer within a minute.
    pub fn start_again(&mut self) {
        let folder = self.folder.path().to_owned();
        let mut command = self.command("postgres");
        command.arg("-D").arg(folder.join("data")).arg("-k").arg(&folder).args(["-h", ""]);
        if self.disk == Disk::Unsynced {
            command.arg("-F");
        }
        let log = std::fs::File::create(folder.join("log")).expect("a log file");
        let errors = log.try_clone().expect("a second handle of the log");
        let child = command.stdin(Stdio::null()).stdout(log).stderr(errors).spawn();
        self.process = Some(Process(child.expect("PostgreSQL starts")));
        let deadline = Instant::now() + START_DEADLINE;
        while !self.answers() {
            let log = std::fs::read_to_string(folder.join("log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "PostgreSQL does not answer:\n{log}");
            pause();
        }
    }

    fn answers(&self) -> bool {
        let mut command = self.command("pg_isready");
        command.arg("-q").arg("-h").arg(self.folder.path());
        command.status().is_ok_and(|status| status.success())
    }

    fn end(&mut self, signal: Signal) {
        if let Some(process) = self.process.take() {
            process.end(signal);
        }
    }

    fn make_cluster(&self) {
        let mut command = self.command("initdb");
        command
            .arg("-D")
            .arg(self.folder.path().join("data"))
            .args(["--no-sync", "--auth=trust", "--username=gradus"])
            .args(["--locale=C", "--encoding=UTF8"]);
        let output = command.output().expect("initdb starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// One of the server's programs, as the user that may run it.
    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        command.current_dir(self.folder.path());
        if let Some(user) = server_user() {
            command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        }
        command
    }
}

impl Process {
    fn end(mut self, signal: Signal) {
        self.signal(signal);
        self.0.wait().expect("a child of ours");
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.0.id()).expect("a process id"));
        // It may have ended by itself in this very moment; then there is nothing to signal.
        kill(id, signal).ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(Signal::SIGQUIT);
            self.0.wait().ok();
        }
    }
}

/// The folder with the programs of the newest version.
fn programs() -> Option<PathBuf> {
    let mut versions: Vec<(u32, PathBuf)> = std::fs::read_dir(VERSIONS)
        .ok()?
        .filter_map(|entry| {
            let path = entry.ok()?.path();
            let version = path.file_name()?.to_str()?.parse().ok()?;
            let programs = path.join("bin");
            programs.join("initdb").exists().then_some((version, programs))
        })
        .collect();
    versions.sort();
    versions.pop().map(|(_, programs)| programs)
}

/// Whom the server runs as; none when the tests' own user will do.
fn server_user() -> Option<User> {
    if !geteuid().is_root() {
        return None;
    }
    let user = User::from_name(SERVER_USER).expect("the list of users can be read");
    Some(user.expect("Debian's package made the user `postgres`"))
}

fn give_to_server_user(folder: &Path) -> io::Result<()> {
    match server_user() {
        Some(user) => {
            std::os::unix::fs::chown(folder, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
        }
        None => Ok(()),
    }
}

#[expect(clippy::print_stderr, reason = "a test that is left out says so")]
fn say(text: &str) {
    eprintln!("{text}");
}

#[expect(clippy::disallowed_methods, reason = "a condition of another process is waited for")]
fn pause() {
    std::thread::sleep(POLL_INTERVAL);
}
