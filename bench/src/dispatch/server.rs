//! A coordinator program on a fresh database, and what is asked of it over HTTP.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use e2e::Process;
use serde_json::{Value, json};
use tempfile::TempDir;
use test_postgres::Disk;

use super::Database;

/// Longer than any benchmark: no heartbeat is needed.
const LEASE_TERM_MS: u64 = 600_000;

const START_DEADLINE: Duration = Duration::from_secs(20);

/// Linux counts in hundredths of a second, whatever its own clock does.
const MILLISECONDS_PER_TICK: u64 = 10;

/// The one text that every study names.
const SOURCE: &[u8] = b"to be or not to be";

pub(super) struct Server {
    // Dropped in this order: the coordinator before its database.
    coordinator: Option<Process>,
    _postgres: Option<test_postgres::Server>,
    database_url: String,
    folder: TempDir,
    http: reqwest::Client,
    http_url: String,
    pub(super) grpc_url: String,
    source_hash: String,
}

impl Server {
    /// Starts one; none where the database is not installed.
    pub(super) fn start(database: Database, parent: &Path) -> Result<Option<Self>> {
        let folder = tempfile::Builder::new().prefix("gradus-bench-").tempdir_in(parent)?;
        let (postgres, url) = match database {
            Database::Sqlite => {
                (None, format!("sqlite:{}", folder.path().join("store.db").display()))
            }
            Database::Postgres => match test_postgres::Server::start(Disk::Synced) {
                None => return Ok(None),
                Some(server) => {
                    let url = server.url();
                    (Some(server), url)
                }
            },
        };
        // Free ports, and the same ones after a kill.
        let unbound = "http://127.0.0.1:0".to_owned();
        let mut server = Self {
            coordinator: None,
            _postgres: postgres,
            database_url: url,
            folder,
            http: reqwest::Client::new(),
            http_url: unbound.clone(),
            grpc_url: unbound,
            source_hash: domain::ids::ContentHash::of(SOURCE).to_string(),
        };
        server.serve()?;
        Ok(Some(server))
    }

    /// Starts the coordinator and waits until its sockets accept.
    pub(super) fn serve(&mut self) -> Result<()> {
        let endpoint = self.folder.path().join("endpoint");
        if endpoint.exists() {
            std::fs::remove_file(&endpoint).context("could not remove the old endpoint file")?;
        }
        let mut command = Command::new(e2e::binary("gradus-coordinator"));
        command
            .args(["--database", &self.database_url])
            .arg("--artifacts")
            .arg(self.artifacts())
            .args(["--lease-term-ms", &LEASE_TERM_MS.to_string()])
            .args(["--listen", self.http_url.trim_start_matches("http://")])
            .args(["--grpc-listen", self.grpc_url.trim_start_matches("http://")])
            .arg("--endpoint-file")
            .arg(&endpoint)
            .env("RUST_LOG", "warn");
        let coordinator = Process::start(command, &self.folder.path().join("coordinator.log"));
        (self.http_url, self.grpc_url) = addresses(&endpoint, &coordinator)?;
        self.coordinator = Some(coordinator);
        Ok(())
    }

    /// Kills the coordinator without warning.
    pub(super) fn kill(&mut self) {
        if let Some(coordinator) = self.coordinator.take() {
            coordinator.kill();
        }
    }

    fn process(&self) -> Result<&Process> {
        self.coordinator.as_ref().context("the coordinator was killed")
    }

    /// The most that the coordinator has had in RAM, in bytes.
    pub(super) fn peak_bytes(&self) -> Result<u64> {
        let path = format!("/proc/{}/status", self.process()?.id());
        let text = std::fs::read_to_string(path)?;
        let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kibibytes = line.and_then(|rest| rest.trim().strip_suffix("kB"));
        let kibibytes = kibibytes.context("no `VmHWM` in the process's status")?;
        Ok(kibibytes.trim().parse::<u64>()? * 1024)
    }

    /// The time that the coordinator has spent on cores.
    pub(super) fn cpu_time(&self) -> Result<Duration> {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.process()?.id()))?;
        // The name in parentheses may hold anything; behind it, fields 14 and 15 are the ticks.
        let (_, rest) = text.rsplit_once(')').context("no name in the process's status")?;
        let ticks = rest.split_whitespace().skip(11).take(2);
        let n: u64 = ticks.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
        Ok(Duration::from_millis(n * MILLISECONDS_PER_TICK))
    }

    /// The artifact store's folder.
    pub(super) fn artifacts(&self) -> PathBuf {
        self.folder.path().join("artifacts")
    }

    /// Submits a study of so many runs. Studies with different `variant`s share none.
    pub(super) async fn apply(&self, name: &str, n_runs: u32, variant: u32) -> Result<()> {
        let upload = format!("{}/api/v1/sources/{}", self.http_url, self.source_hash);
        if variant == 0 {
            let request = self.http.put(upload).header("content-type", "application/octet-stream");
            request.body(SOURCE).send().await?.error_for_status()?;
        }
        let file = json!({ "name": "play.txt", "hash": self.source_hash, "n_bytes": SOURCE.len() });
        let body = json!({
            "spec_text": study(name, n_runs, variant),
            "spec_file": format!("{name}.yaml"),
            "sources": [{ "corpus": "plays", "files": [file] }],
        });
        let answer =
            self.http.post(format!("{}/api/v1/studies", self.http_url)).json(&body).send().await?;
        let status = answer.status();
        if !status.is_success() {
            bail!("the study was refused with {status}: {}", answer.text().await?);
        }
        // The whole answer, as a user's command would wait for it.
        answer.bytes().await?;
        Ok(())
    }

    /// How many runs of a study have succeeded.
    /// Cancels a study or retries all of it, as `verb` says.
    pub(super) async fn change(&self, name: &str, verb: &str, body: &Value) -> Result<()> {
        let url = format!("{}/api/v1/studies/{name}/{verb}", self.http_url);
        let answer = self.http.post(url).json(body).send().await?;
        let status = answer.status();
        ensure!(status.is_success(), "{verb} answered {status}: {}", answer.text().await?);
        Ok(())
    }

    pub(super) async fn n_succeeded(&self, name: &str) -> Result<u64> {
        self.n_in(name, "succeeded").await
    }

    /// How many runs of a study are in this state.
    pub(super) async fn n_in(&self, name: &str, state: &str) -> Result<u64> {
        let url = format!("{}/api/v1/studies/{name}", self.http_url);
        let view: Value = self.http.get(url).send().await?.error_for_status()?.json().await?;
        Ok(view["summary"]["runs"][state].as_u64().unwrap_or(0))
    }
}

#[expect(clippy::disallowed_methods, reason = "another process is waited for")]
fn addresses(endpoint: &Path, coordinator: &Process) -> Result<(String, String)> {
    let deadline = Instant::now() + START_DEADLINE;
    loop {
        let found: Option<Value> =
            std::fs::read(endpoint).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        if let Some(found) = found {
            let text = |key: &str| {
                found[key].as_str().map(str::to_owned).context("an endpoint file without addresses")
            };
            return Ok((text("http")?, text("grpc")?));
        }
        if Instant::now() > deadline {
            bail!("the coordinator does not serve:\n{}", coordinator.log());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// So many learning rates in one axis; the seeds are the other.
const RATES: u32 = 100;

fn study(name: &str, n_runs: u32, variant: u32) -> String {
    let n_rates = n_runs.min(RATES);
    let n_seeds = n_runs.div_ceil(n_rates);
    let rates: Vec<String> = (0..n_rates).map(|rate| format!("1.{:03}e-3", rate % 1000)).collect();
    let seeds: Vec<String> = (0..n_seeds).map(|seed| seed.to_string()).collect();
    format!(
        "version: 1
name: {name}
data:
  corpora:
    - {{name: plays, files: ['*.txt']}}
stages:
  - name: pretrain
    recipe:
      pretrain:
        model: {{preset: llama_study, d_model: 32, n_layers: 2, n_heads: 2, ffn_hidden: 96}}
        training:
          sequence_length: 128
          batch_sequences: 8
          optimizer: {{weight_decay: {decay}}}
        axes:
          - {{name: lr, field: training.optimizer.learning_rate, values: [{rates}]}}
          - {{name: seed, field: training.seed, values: [{seeds}]}}
        design: {{fixed_tokens: {{tokens: 1e5}}}}
        checkpoints: final
",
        decay = f64::from(variant) / 1e6,
        rates = rates.join(", "),
        seeds = seeds.join(", "),
    )
}
