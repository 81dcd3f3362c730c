//! A coordinator and workers as real processes in a temporary folder.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tempfile::TempDir;

use crate::{Process, binary, wait_for};

/// How a cluster differs from the usual one.
#[derive(Debug, Clone)]
pub struct ClusterOptions {
    /// The term of a lease; short, so that a lost worker is noticed within a test.
    pub lease_term_ms: u64,
    /// Intra-op threads of a worker's one slot; few, so that several workers share the cores.
    pub worker_threads: u32,
    /// The folder in which the cluster makes its own; the system's temporary one by default.
    pub parent: PathBuf,
    /// The store's URL; an SQLite file in the cluster's folder by default.
    pub database: Option<String>,
    /// Trainers that train nothing and take so long for a step; those that train by default.
    pub fake_step_ms: Option<u64>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            lease_term_ms: 1500,
            worker_threads: 1,
            parent: std::env::temp_dir(),
            database: None,
            fake_step_ms: None,
        }
    }
}

/// Where a coordinator listens.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The address of the HTTP API.
    pub http: String,
    /// The address for workers.
    pub grpc: String,
}

/// A coordinator with its store in a temporary folder, and its workers.
#[derive(Debug)]
pub struct Cluster {
    folder: TempDir,
    options: ClusterOptions,
    endpoint: Endpoint,
    coordinator: Option<Process>,
    standby: Option<(Process, Endpoint)>,
    workers: Vec<Process>,
    n_started: usize,
}

impl Cluster {
    /// Starts a coordinator with no worker.
    pub fn start(options: ClusterOptions) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("gradus-").tempdir_in(&options.parent)?;
        let unbound =
            Endpoint { http: "http://127.0.0.1:0".into(), grpc: "http://127.0.0.1:0".into() };
        let mut cluster = Self {
            folder,
            options,
            endpoint: unbound,
            coordinator: None,
            standby: None,
            workers: Vec::new(),
            n_started: 0,
        };
        cluster.start_coordinator()?;
        Ok(cluster)
    }

    /// The folder with the store, the artifacts and the logs.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Where the coordinator listens.
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Starts the coordinator; after a kill, on the same addresses and the same store.
    pub fn start_coordinator(&mut self) -> Result<()> {
        let (process, endpoint) = self.serve("coordinator", &self.endpoint);
        self.endpoint = endpoint;
        self.coordinator = Some(process);
        Ok(())
    }

    /// Starts a second coordinator on the same store, which waits for its turn. Workers that are
    /// started afterwards know both.
    pub fn start_standby(&mut self) {
        let unbound =
            Endpoint { http: "http://127.0.0.1:0".into(), grpc: "http://127.0.0.1:0".into() };
        self.standby = Some(self.serve("standby", &unbound));
    }

    /// Kills the coordinator without warning; from here on the standby is asked.
    ///
    /// # Panics
    /// If there is no standby.
    pub fn kill_coordinator_before_standby(&mut self) {
        self.kill_coordinator();
        let (process, endpoint) = self.standby.take().expect("a standby");
        self.endpoint = endpoint;
        self.coordinator = Some(process);
    }

    /// Starts the program and waits until it serves.
    fn serve(&self, name: &str, at: &Endpoint) -> (Process, Endpoint) {
        let endpoint_file = self.path().join(format!("{name}.endpoint"));
        std::fs::remove_file(&endpoint_file).ok();
        let database = self.database();
        let mut command = Command::new(binary("gradus-coordinator"));
        command
            .args(["--database", &database])
            .arg("--artifacts")
            .arg(self.path().join("artifacts"))
            .args(["--listen", address(&at.http)])
            .args(["--grpc-listen", address(&at.grpc)])
            .args(["--lease-term-ms", &self.options.lease_term_ms.to_string()])
            .arg("--endpoint-file")
            .arg(&endpoint_file);
        let mut process = Process::start(command, &self.path().join(format!("{name}.log")));
        let endpoint = wait_for("the coordinator to serve", 20, || {
            if let Some(status) = process.has_ended() {
                panic!("the coordinator ended with {status}:\n{}", process.log());
            }
            read_endpoint(&endpoint_file).ok()
        });
        (process, endpoint)
    }

    /// The store's URL.
    pub fn database(&self) -> String {
        let of_file = || format!("sqlite:{}", self.path().join("store.db").display());
        self.options.database.clone().unwrap_or_else(of_file)
    }

    /// Kills the coordinator without warning.
    pub fn kill_coordinator(&mut self) {
        self.coordinator.take().expect("a running coordinator").kill();
    }

    /// Starts a worker with one slot.
    pub fn start_worker(&mut self) {
        self.n_started += 1;
        let name = format!("worker-{}", self.n_started);
        let standby = self.standby.iter().map(|(_, endpoint)| endpoint.grpc.as_str());
        let addresses: Vec<&str> =
            std::iter::once(self.endpoint.grpc.as_str()).chain(standby).collect();
        let mut command = Command::new(binary("gradus-worker"));
        command
            .arg("run")
            .args(["--coordinator", &addresses.join(",")])
            .args(["--name", &name])
            .args(["--slots", "1", "--threads", &self.options.worker_threads.to_string()])
            .arg("--scratch")
            .arg(self.path().join("scratch").join(&name));
        if let Some(step_ms) = self.options.fake_step_ms {
            command.arg("--trainer").arg(binary("gradus-fake-trainer"));
            command.env("GRADUS_FAKE_STEP_MS", step_ms.to_string());
        }
        self.workers.push(Process::start(command, &self.path().join(format!("{name}.log"))));
    }

    /// Stops the workers, then the coordinator, in order; the folder stays.
    ///
    /// # Panics
    /// If one of them does not end.
    pub fn stop(&mut self) {
        for worker in self.workers.drain(..) {
            worker.stop();
        }
        let standby = self.standby.take().map(|(process, _)| process);
        for coordinator in standby.into_iter().chain(self.coordinator.take()) {
            coordinator.stop();
        }
    }

    /// Kills the oldest worker without warning.
    pub fn kill_worker(&mut self) {
        self.workers.remove(0).kill();
    }

    /// The agent of the `n`-th worker, `n` from 1, where none was killed: `worker-n`.
    ///
    /// # Panics
    /// If there are not so many.
    pub fn worker(&self, n: usize) -> &Process {
        &self.workers[n - 1]
    }

    /// How many workers were started and not killed.
    pub fn n_workers(&self) -> usize {
        self.workers.len()
    }

    /// Runs `gradus` with arguments against this coordinator.
    pub fn gradus(&self, arguments: &[&str]) -> Output {
        Command::new(binary("gradus"))
            .args(arguments)
            .args(["--coordinator", &self.endpoint.http])
            .current_dir(self.path())
            .output()
            .expect("gradus can be started")
    }

    /// Runs `gradus … --json` and reads what it prints.
    ///
    /// # Panics
    /// If it fails or prints no JSON.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let output = self.gradus(&[arguments, &["--json"]].concat());
        assert!(
            output.status.success(),
            "gradus {arguments:?} ended with {}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stderr),
            self.logs()
        );
        serde_json::from_slice(&output.stdout).expect("`--json` prints JSON")
    }

    /// Applies a study file.
    pub fn apply(&self, study: &Path) -> Value {
        self.json(&["apply", &study.display().to_string()])
    }

    /// Waits until a study is no longer active, and gives its summary.
    pub fn wait_for_end(&self, study: &str, seconds: u64) -> Value {
        wait_for("the study to end", seconds, || {
            let view = self.json(&["status", study]);
            let summary = &view["summary"];
            (summary["state"] != "active").then(|| summary.clone())
        })
    }

    /// All logs together, for the message of a failing test.
    pub fn logs(&self) -> String {
        let mut files: Vec<PathBuf> = std::fs::read_dir(self.path())
            .map(|entries| entries.filter_map(|entry| entry.ok().map(|e| e.path())).collect())
            .unwrap_or_default();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
        files.sort();
        files.iter().map(|path| tail(path)).collect()
    }
}

/// The end of one log.
fn tail(path: &Path) -> String {
    const LINES: usize = 40;
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let end = &lines[lines.len().saturating_sub(LINES)..];
    format!("--- {}\n{}\n", path.display(), end.join("\n"))
}

fn address(url: &str) -> &str {
    url.trim_start_matches("http://")
}

fn read_endpoint(file: &Path) -> Result<Endpoint> {
    let value: Value = serde_json::from_slice(&std::fs::read(file)?)?;
    let text = |key: &str| value[key].as_str().map(str::to_owned).context("a missing address");
    Ok(Endpoint { http: text("http")?, grpc: text("grpc")? })
}
