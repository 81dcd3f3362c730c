//! One process under test: started, killed, and never left behind.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::wait_for;

/// What a process has of its machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usage {
    /// Its memory that is not swapped out.
    pub resident_bytes: u64,
    /// Its open files, sockets and pipes.
    pub n_handles: usize,
}

/// A running process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts a command with its output in a log file.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn start(mut command: Command, log: &Path) -> Self {
        let file = File::options().create(true).append(true).open(log).expect("a log file");
        let errors = file.try_clone().expect("a second handle of the log");
        let child = command
            .stdin(Stdio::piped())
            .stdout(file)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("could not start {command:?}: {error}"));
        Self { child, log: log.to_owned() }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Lets it stand still, as a machine does that is out of memory or suspended.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    /// Ends it at once, without a chance to clean up.
    pub fn kill(mut self) {
        self.signal(Signal::SIGKILL);
        self.child.wait().expect("a child of ours");
    }

    /// Asks it to end and waits for it.
    ///
    /// # Panics
    /// If it has not ended within half a minute.
    pub fn stop(mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        wait_for("a process to end after SIGTERM", 30, || self.child.try_wait().expect("a child"))
    }

    /// Whether it has ended by itself.
    pub fn has_ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of ours")
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// What it has of the machine at this moment; none when it has ended.
    pub fn usage(&self) -> Option<Usage> {
        let folder = PathBuf::from(format!("/proc/{}", self.id()));
        let status = std::fs::read_to_string(folder.join("status")).ok()?;
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let resident_kib: u64 = resident.trim().trim_end_matches(" kB").parse().ok()?;
        let n_handles = std::fs::read_dir(folder.join("fd")).ok()?.count();
        Some(Usage { resident_bytes: resident_kib << 10, n_handles })
    }

    /// The processes that it started and that still run.
    pub fn children(&self) -> Vec<u32> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id())).into_iter().flatten();
        let of_task =
            |task: std::fs::DirEntry| std::fs::read_to_string(task.path().join("children"));
        let lists = tasks.filter_map(|task| of_task(task.ok()?).ok());
        let ids = |list: String| -> Vec<u32> {
            list.split_whitespace().filter_map(|id| id.parse().ok()).collect()
        };
        lists.flat_map(ids).collect()
    }

    /// Ends one of the processes that it started, at once. One that has ended meanwhile is none.
    pub fn kill_child(&self, id: u32) {
        if self.children().contains(&id) {
            kill(Pid::from_raw(i32::try_from(id).expect("a process id")), Signal::SIGKILL).ok();
        }
    }

    /// Signals the processes that it started, then itself, as the end of a service or of a
    /// cluster's job does.
    pub fn signal_all(&self, signal: Signal) {
        for id in self.children() {
            kill(Pid::from_raw(i32::try_from(id).expect("a process id")), signal).ok();
        }
        self.signal(signal);
    }

    fn signal(&self, signal: Signal) {
        let id = Pid::from_raw(i32::try_from(self.child.id()).expect("a process id"));
        // It may have ended by itself in this very moment; then there is nothing to signal.
        kill(id, signal).ok();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(Signal::SIGKILL);
            self.child.wait().ok();
        }
    }
}
