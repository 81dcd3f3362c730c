//! A coordinator and workers as real processes in a temporary folder.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::{Process, Proxy, binary, wait_for};

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
    /// The folder of the artifact store; one in the cluster's folder by default.
    pub artifacts: Option<PathBuf>,
    /// Trainers that train nothing and take so long for a step; those that train by default.
    pub fake_step_ms: Option<u64>,
    /// Whether each worker reaches the coordinator through a proxy of its own.
    pub has_proxies: bool,
    /// Further arguments of every worker.
    pub worker_arguments: Vec<String>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            lease_term_ms: 1500,
            worker_threads: 1,
            parent: std::env::temp_dir(),
            database: None,
            artifacts: None,
            fake_step_ms: None,
            has_proxies: false,
            worker_arguments: Vec::new(),
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
    /// By their numbers, from 1.
    workers: BTreeMap<usize, Process>,
    proxies: BTreeMap<usize, Proxy>,
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
            workers: BTreeMap::new(),
            proxies: BTreeMap::new(),
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
            .arg(self.artifacts())
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

    /// The folder of the artifact store.
    pub fn artifacts(&self) -> PathBuf {
        self.options.artifacts.clone().unwrap_or_else(|| self.path().join("artifacts"))
    }

    /// The coordinator's process.
    ///
    /// # Panics
    /// If it does not run.
    pub fn coordinator(&self) -> &Process {
        self.coordinator.as_ref().expect("a running coordinator")
    }

    /// Kills the coordinator without warning.
    pub fn kill_coordinator(&mut self) {
        self.coordinator.take().expect("a running coordinator").kill();
    }

    /// Starts a worker with one slot; its number, from 1.
    ///
    /// # Panics
    /// If its proxy cannot be started.
    pub fn start_worker(&mut self) -> usize {
        self.n_started += 1;
        let number = self.n_started;
        if self.options.has_proxies {
            let target = address(&self.endpoint.grpc).parse().expect("an address");
            self.proxies.insert(number, Proxy::start(target).expect("a proxy"));
        }
        self.start_worker_again(number);
        number
    }

    /// Starts the killed worker of this number anew, under the same name.
    pub fn start_worker_again(&mut self, number: usize) {
        let name = format!("worker-{number}");
        let first = match self.proxies.get(&number) {
            Some(proxy) => format!("http://{}", proxy.address()),
            None => self.endpoint.grpc.clone(),
        };
        let standby = self.standby.iter().map(|(_, endpoint)| endpoint.grpc.clone());
        let addresses: Vec<String> = std::iter::once(first).chain(standby).collect();
        let mut command = Command::new(binary("gradus-worker"));
        command
            .arg("run")
            .args(["--coordinator", &addresses.join(",")])
            .args(["--name", &name])
            .args(["--slots", "1", "--threads", &self.options.worker_threads.to_string()])
            .arg("--scratch")
            .arg(self.scratch(number))
            .args(&self.options.worker_arguments);
        if let Some(step_ms) = self.options.fake_step_ms {
            command.arg("--trainer").arg(binary("gradus-fake-trainer"));
            command.env("GRADUS_FAKE_STEP_MS", step_ms.to_string());
        }
        let process = Process::start(command, &self.path().join(format!("{name}.log")));
        self.workers.insert(number, process);
    }

    /// The folder for files of a worker that may be lost.
    pub fn scratch(&self, number: usize) -> PathBuf {
        self.path().join("scratch").join(format!("worker-{number}"))
    }

    /// Stops the workers, then the coordinator, in order; the folder stays.
    ///
    /// # Panics
    /// If one of them does not end.
    pub fn stop(&mut self) {
        for (_, worker) in std::mem::take(&mut self.workers) {
            worker.stop();
        }
        let standby = self.standby.take().map(|(process, _)| process);
        for coordinator in standby.into_iter().chain(self.coordinator.take()) {
            coordinator.stop();
        }
    }

    /// Kills the oldest worker without warning.
    ///
    /// # Panics
    /// If there is none.
    pub fn kill_worker(&mut self) {
        let (_, oldest) = self.workers.pop_first().expect("a running worker");
        oldest.kill();
    }

    /// Kills the worker of this number without warning.
    ///
    /// # Panics
    /// If it does not run.
    pub fn kill_worker_number(&mut self, number: usize) {
        self.workers.remove(&number).expect("a running worker").kill();
    }

    /// Signals every process of the worker of this number and waits until it has ended in order.
    ///
    /// # Panics
    /// If it does not run, or ends otherwise.
    pub fn signal_worker(&mut self, number: usize, signal: Signal) {
        let mut worker = self.workers.remove(&number).expect("a running worker");
        worker.signal_all(signal);
        let status = wait_for("the worker to leave", 60, || worker.has_ended());
        assert!(status.success(), "{status}\n{}", worker.log());
    }

    /// The agent of the worker of this number, from 1: `worker-1` and so on.
    ///
    /// # Panics
    /// If it does not run.
    pub fn worker(&self, number: usize) -> &Process {
        &self.workers[&number]
    }

    /// What lies between the worker of this number and the coordinator.
    ///
    /// # Panics
    /// If the cluster has no proxies.
    pub fn proxy(&self, number: usize) -> &Proxy {
        &self.proxies[&number]
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

    /// Everything that a study measured, by checkpoint: what must be equal bit for bit whatever
    /// happened on the way.
    ///
    /// # Panics
    /// If a run has no checkpoint.
    pub fn results(&self, study: &str) -> BTreeMap<String, String> {
        let mut results = BTreeMap::new();
        for run in self.json(&["runs", study])["runs"].as_array().expect("a list of runs") {
            let view = self.json(&["show", run["id"].as_str().expect("a run has an id")]);
            for evaluation in view["evaluations"].as_array().expect("a list") {
                let key = format!("{} at {}", run["name"], evaluation["step"]);
                // JSON has the shortest text that reads back as the same float: equal text, equal
                // bits.
                results.insert(key, evaluation["value"].to_string());
            }
            let last = view["checkpoints"].as_array().and_then(|all| all.last().cloned());
            let weights =
                last.expect("a finished run has a checkpoint")["weights_hash"].to_string();
            results.insert(format!("{} weights", run["name"]), weights);
        }
        results
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
