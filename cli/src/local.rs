//! The folder `.gradus`, and the coordinator and workers that serve it.
//!
//! It does not print progress; `commands::up` and `commands::demo` do.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use api::HealthView;
use serde::Deserialize;
use tokio::process::Command;

use crate::args::{Global, UpArgs};
use crate::client::Client;
use crate::locate::read_token;
use crate::processes::{Process, sibling};

/// Where everything of a folder's store is.
pub(crate) const FOLDER: &str = ".gradus";

/// Where the dashboard is looked for first.
const USUAL_PORT: u16 = 8080;

/// A coordinator serves within this, migrations included.
const START_TIMEOUT: Duration = Duration::from_mins(1);

/// How often a starting coordinator is asked.
const START_INTERVAL: Duration = Duration::from_millis(50);

/// A worker that dies is missed within this, so that its runs go on elsewhere in well under ten
/// seconds; a busy machine may still keep four heartbeats in a row waiting.
const LEASE_TERM_MS: &str = "5000";

/// The dynamic loader's exit status when a library is missing (`ld.so` of glibc).
const LOADER_FAILED: i32 = 127;

/// What a coordinator writes once it serves.
#[derive(Debug, Clone, Deserialize)]
pub(crate) struct Endpoint {
    /// The HTTP API's address.
    pub(crate) http: String,
    /// The workers' address.
    pub(crate) grpc: String,
    /// The process that serves.
    pub(crate) pid: u32,
}

impl Endpoint {
    /// Reads an endpoint file; nothing when there is none or it is being written.
    pub(crate) fn read(path: &Path) -> Option<Self> {
        serde_json::from_slice(&std::fs::read(path).ok()?).ok()
    }
}

/// A coordinator and workers of this process.
#[derive(Debug)]
pub(crate) struct Local {
    /// The API.
    pub(crate) client: Client,
    /// The coordinator.
    pub(crate) coordinator: Process,
    /// The workers.
    pub(crate) workers: Vec<Process>,
    /// What to say about how it was started.
    pub(crate) notes: Vec<String>,
    /// Held as long as this folder is served.
    _lock: std::fs::File,
}

impl Local {
    /// Starts everything in the current folder.
    pub(crate) async fn start(global: &Global, args: &UpArgs) -> anyhow::Result<Self> {
        let folder = PathBuf::from(FOLDER);
        let logs = folder.join("logs");
        std::fs::create_dir_all(&logs)
            .with_context(|| format!("could not make the folder `{}`", logs.display()))?;
        let lock = lock(&folder)?;
        let (listen, notes) = listen_address(args);
        let token = global.token_file.as_deref();
        let endpoint_file = folder.join("endpoint");
        remove(&endpoint_file)?;
        let mut command = Command::new(sibling("gradus-coordinator")?);
        command
            .arg("--database")
            .arg(format!("sqlite:{}", folder.join("store.db").display()))
            .arg("--endpoint-file")
            .arg(&endpoint_file)
            .args(["--listen", &listen, "--exit-with-parent"])
            .args(["--lease-term-ms", LEASE_TERM_MS]);
        with_token(&mut command, token);
        let log = logs.join("coordinator.log");
        let mut coordinator = Process::start("gradus-coordinator", &mut command, &log)?;
        let endpoint = serving(&mut coordinator, &endpoint_file).await?;
        let client =
            Client::new(&endpoint.http, read_token(token)?)?.used_by(global.user.as_deref());
        client.get::<HealthView>(&["health"]).await?;
        let workers = start_workers(&folder, &endpoint, args, token)?;
        Ok(Self { client, coordinator, workers, notes, _lock: lock })
    }

    /// Waits until the coordinator or all workers have ended, and says which.
    ///
    /// A single worker that ends is told of; the others go on.
    pub(crate) async fn watch(&mut self) -> anyhow::Error {
        loop {
            tokio::time::sleep(Duration::from_millis(500)).await;
            if let Some(status) = self.coordinator.ended() {
                return ended(&self.coordinator, status);
            }
            let mut index = 0;
            while index < self.workers.len() {
                let Some(status) = self.workers[index].ended() else {
                    index += 1;
                    continue;
                };
                let worker = self.workers.remove(index);
                let error = ended(&worker, status);
                if self.workers.is_empty() {
                    return error;
                }
                crate::output::note(&format!("warning: {error}"));
            }
        }
    }

    /// Ends the workers, then the coordinator, and waits for them.
    pub(crate) async fn stop(self) {
        let mut stopping = tokio::task::JoinSet::new();
        for worker in self.workers {
            stopping.spawn(worker.stop());
        }
        stopping.join_all().await;
        self.coordinator.stop().await;
        // A file that names nobody would only mislead; that it is gone already is as good.
        drop(std::fs::remove_file(Path::new(FOLDER).join("endpoint")));
    }
}

fn ended(process: &Process, status: ExitStatus) -> anyhow::Error {
    let hint = loader_hint(&process.name, status);
    anyhow::anyhow!(
        "`{}` ended ({status}); the end of `{}`:\n{}{hint}",
        process.name,
        process.log.display(),
        process.tail()
    )
}

/// What to do when the dynamic loader did not find what a worker is linked to.
fn loader_hint(name: &str, status: ExitStatus) -> &'static str {
    if name.starts_with("gradus-worker") && status.code() == Some(LOADER_FAILED) {
        "\n\nhint: libtorch is not where it was when this was built; run `make setup` and `make build`"
    } else {
        ""
    }
}

/// One process serves a folder. The lock is the kernel's, so a crash leaves none behind.
fn lock(folder: &Path) -> anyhow::Result<std::fs::File> {
    let path = folder.join("lock");
    let file = std::fs::File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("could not open `{}`", path.display()))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(std::fs::TryLockError::WouldBlock) => {
            let at = Endpoint::read(&folder.join("endpoint"))
                .map(|endpoint| format!(" at {} (process {})", endpoint.http, endpoint.pid))
                .unwrap_or_default();
            bail!(
                "`{}` is served already{at}\n\nhint: `gradus apply FILE` and `gradus watch` use \
                 that one; end it with Ctrl-C where it runs to start another",
                folder.display()
            )
        }
        Err(std::fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("could not lock `{}`", path.display()))
        }
    }
}

/// The address as asked for, else the usual port, else any free one.
fn listen_address(args: &UpArgs) -> (String, Vec<String>) {
    if let Some(listen) = &args.listen {
        return (listen.clone(), Vec::new());
    }
    if TcpListener::bind(("127.0.0.1", USUAL_PORT)).is_ok() {
        return (format!("127.0.0.1:{USUAL_PORT}"), Vec::new());
    }
    let note = format!("port {USUAL_PORT} is in use; taking a free one (`--listen` chooses)");
    ("127.0.0.1:0".to_owned(), vec![note])
}

fn remove(path: &Path) -> anyhow::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("could not remove `{}`", path.display()))
        }
        _ => Ok(()),
    }
}

fn with_token(command: &mut Command, token: Option<&Path>) {
    if let Some(token) = token {
        command.arg("--token-file").arg(token);
    }
}

/// Waits until the coordinator has written where it serves.
pub(crate) async fn serving(process: &mut Process, file: &Path) -> anyhow::Result<Endpoint> {
    let deadline = Instant::now() + START_TIMEOUT;
    loop {
        if let Some(status) = process.ended() {
            return Err(ended(process, status));
        }
        let endpoint = Endpoint::read(file);
        if let Some(endpoint) = endpoint.filter(|found| Some(found.pid) == process.id()) {
            return Ok(endpoint);
        }
        if Instant::now() > deadline {
            bail!(
                "`{}` does not serve after {} s; the end of `{}`:\n{}",
                process.name,
                START_TIMEOUT.as_secs(),
                process.log.display(),
                process.tail()
            );
        }
        tokio::time::sleep(START_INTERVAL).await;
    }
}

fn start_workers(
    folder: &Path,
    endpoint: &Endpoint,
    args: &UpArgs,
    token: Option<&Path>,
) -> anyhow::Result<Vec<Process>> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let n_workers = args.workers.map_or(cores, |n| n as usize);
    // Teams of threads that share cores run many times slower than smaller ones that do not.
    let threads = (cores / n_workers).max(1).to_string();
    let program = sibling("gradus-worker")?;
    let mut workers = Vec::new();
    for number in 1..=n_workers {
        let name = format!("local-{number}");
        let scratch = folder.join("scratch").join(&name);
        std::fs::create_dir_all(&scratch)
            .with_context(|| format!("could not make the folder `{}`", scratch.display()))?;
        let mut command = Command::new(&program);
        command
            .args(["run", "--coordinator", &endpoint.grpc, "--name", &name])
            .args(["--slots", "1", "--threads", &threads, "--exit-with-parent"])
            .arg("--scratch")
            .arg(&scratch);
        with_token(&mut command, token);
        let log = folder.join("logs").join(format!("worker-{number}.log"));
        workers.push(Process::start(&format!("gradus-worker {name}"), &mut command, &log)?);
    }
    Ok(workers)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn a_worker_that_the_loader_refuses_hints_at_libtorch() {
        // An exit status stands in the second byte of what `wait` returns.
        let status = |code: i32| ExitStatus::from_raw(code << 8);
        assert!(loader_hint("gradus-worker local-1", status(127)).contains("libtorch"));
        assert_eq!(loader_hint("gradus-worker local-1", status(1)), "");
        assert_eq!(loader_hint("gradus-coordinator", status(127)), "");
    }
}
