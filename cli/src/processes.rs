//! The processes that the command line starts: where their programs are, how they end.
//!
//! It does not know what they serve.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::Context;
use tokio::process::{Child, Command};

/// A process gets this long to end after its standard input closed: a worker has half a minute for
/// the checkpoints of what it trains.
const STOP_TIMEOUT: Duration = Duration::from_secs(40);

/// Lines of a log shown when its process failed.
const TAIL_LINES: usize = 12;

/// A program of this project: next to this executable, as `make build` puts them.
pub(crate) fn sibling(name: &str) -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("could not find this executable's own path")?;
    let path = this.with_file_name(name);
    anyhow::ensure!(
        path.is_file(),
        "`{name}` is not beside `{}`\n\nhint: `make build` puts the three programs into one folder",
        this.display()
    );
    Ok(path)
}

/// A child that ends when its standard input closes, so it cannot outlive this process.
#[derive(Debug)]
pub(crate) struct Process {
    /// What people call it.
    pub(crate) name: String,
    /// Where it writes.
    pub(crate) log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts a program with its output in a log file.
    pub(crate) fn start(name: &str, command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::create(log)
            .with_context(|| format!("could not write `{}`", log.display()))?;
        let errors =
            file.try_clone().with_context(|| format!("could not write `{}`", log.display()))?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(file)
            .stderr(errors)
            // Ctrl-C reaches this process only; it ends its children in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("could not start `{name}`"))?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), child })
    }

    /// Its process id, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Closes its standard input and waits; kills it when that takes too long.
    pub(crate) async fn stop(mut self) {
        drop(self.child.stdin.take());
        if tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await.is_err() {
            crate::output::note(&format!("`{}` does not end by itself and is killed", self.name));
            drop(self.child.kill().await);
        }
    }

    /// The last lines it wrote.
    pub(crate) fn tail(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(TAIL_LINES);
        lines[from..].iter().map(|line| format!("  {line}")).collect::<Vec<_>>().join("\n")
    }
}
