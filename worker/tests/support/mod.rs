//! What the agent's tests share: a coordinator of their own, a worker process, and assignments.
//!
//! It holds no test.

pub(crate) mod coordinator;

use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use coordinator::FakeCoordinator;
use domain::cell::Identity;
use domain::ids::ContentHash;
use domain::recipe::NUMERICS_VERSION;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use proto::v1::{self, assignment};
use serde_json::json;
use tempfile::TempDir;
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

pub(crate) const STEPS: u64 = 40;

/// A worker process whose trainers are fake. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Worker {
    process: Child,
}

impl Worker {
    /// Starts a worker of one slot, with variables for its trainers' faults.
    pub(crate) fn start(address: &str, scratch: &Path, variables: &[(&str, &str)]) -> Self {
        let fake = env!("CARGO_BIN_EXE_gradus-fake-trainer");
        Self::start_with_trainer(address, scratch, variables, fake)
    }

    pub(crate) fn start_with_trainer(
        address: &str,
        scratch: &Path,
        variables: &[(&str, &str)],
        trainer: &str,
    ) -> Self {
        let process = Command::new(env!("CARGO_BIN_EXE_gradus-worker"))
            .args(["run", "--name", "one", "--threads", "1", "--exit-with-parent"])
            .args(["--coordinator", address, "--trainer", trainer, "--stop-grace-ms", "200"])
            .arg("--scratch")
            .arg(scratch)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { process }
    }

    pub(crate) fn pid(&self) -> Pid {
        Pid::from_raw(self.process.id().unwrap().try_into().unwrap())
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).unwrap();
    }

    /// Closes standard input, as the death of a parent does.
    pub(crate) fn lose_parent(&mut self) {
        self.process.stdin.take().unwrap();
    }

    /// Waits for the end; the status, and what it wrote to standard error.
    pub(crate) async fn wait(&mut self) -> (ExitStatus, String) {
        let mut said = String::new();
        let mut stderr = self.process.stderr.take().unwrap();
        let end = async {
            stderr.read_to_string(&mut said).await.unwrap();
            self.process.wait().await.unwrap()
        };
        let status = tokio::time::timeout(Duration::from_secs(30), end).await.unwrap();
        (status, said)
    }

    /// The trainers of this worker.
    pub(crate) fn trainers(&self) -> Vec<Pid> {
        let agent = self.pid();
        let processes = std::fs::read_dir("/proc").unwrap();
        let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
        pids.map(Pid::from_raw).filter(|pid| stat(*pid).is_some_and(|s| s.1 == agent)).collect()
    }
}

/// A process's state and parent.
fn stat(pid: Pid) -> Option<(char, Pid)> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in brackets may hold spaces.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let state = fields.next()?.chars().next()?;
    Some((state, Pid::from_raw(fields.next()?.parse().ok()?)))
}

/// Whether a process still does anything; one that nobody has waited for does not.
pub(crate) fn is_alive(pid: Pid) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z')
}

/// A coordinator with its artifacts, a worker, and prepared data.
#[derive(Debug)]
pub(crate) struct Scene {
    pub(crate) coordinator: FakeCoordinator,
    pub(crate) worker: Worker,
    pub(crate) data: v1::ArtifactRef,
    artifacts: PathBuf,
    _folder: TempDir,
}

/// The token of the preparation that every scene begins with.
pub(crate) const PREPARATION: u64 = 1;

impl Scene {
    /// Starts both and lets the worker prepare data.
    pub(crate) async fn start(variables: &[(&str, &str)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let artifacts = folder.path().join("artifacts");
        let (address, coordinator) = FakeCoordinator::start(&artifacts).await;
        let worker = Worker::start(&address, &folder.path().join("scratch"), variables);
        coordinator.with(|seen| seen.assignments.push_back(preparation(&artifacts)));
        let finished = coordinator.wait_for_end(PREPARATION).await;
        assert_eq!(finished.end, "succeeded", "{}", finished.message);
        let manifest = coordinator.with(|seen| {
            seen.events(PREPARATION).into_iter().find_map(|event| match event {
                v1::event::Kind::Preparation(result) => result.manifest,
                _ => None,
            })
        });
        let data = manifest.expect("a preparation reports its manifest");
        Self { coordinator, worker, data, artifacts, _folder: folder }
    }

    /// The file of an artifact.
    pub(crate) fn artifact(&self, key: &str) -> PathBuf {
        self.artifacts.join(key)
    }

    /// Queues a training attempt of the one run, from the given checkpoints.
    pub(crate) fn train(&self, token: u64, attempt: u32, checkpoints: Vec<v1::CheckpointRef>) {
        let train = v1::Train {
            config_json: cell_json(),
            data_manifest: Some(self.data.clone()),
            data_point_steps: vec![10, 20],
            rolling_checkpoint_seconds: 3_600,
            checkpoints,
            ..v1::Train::default()
        };
        let work = assignment::Work::Train(train);
        self.assign(v1::Assignment {
            lease_token: token,
            work_id: "r_1".into(),
            attempt,
            work: Some(work),
            ..v1::Assignment::default()
        });
    }

    pub(crate) fn assign(&self, assignment: v1::Assignment) {
        self.coordinator.with(|seen| seen.assignments.push_back(assignment));
    }
}

/// A cell of [`STEPS`] steps.
pub(crate) fn cell_json() -> String {
    let config = json!({ "pretrain": {
        "numerics_version": NUMERICS_VERSION,
        "model": {
            "architecture": "llama", "vocab_size": 257, "d_model": 16, "n_layers": 1,
            "n_heads": 2, "ffn_hidden": 32,
        },
        "training": {
            "sequence_length": 16, "batch_sequences": 2, "seed": 3,
            "optimizer": { "learning_rate": 1e-3 },
            "schedule": { "constant": { "warmup_steps": 2 } },
        },
        "steps": STEPS,
        "preparation_hash": "0",
    }});
    Identity::of(&config).unwrap().canonical_json
}

fn preparation(artifacts: &Path) -> v1::Assignment {
    let text = b"to be or not to be";
    let hash = ContentHash::of(text);
    let key = format!("sources/{hash}");
    std::fs::create_dir_all(artifacts.join("sources")).unwrap();
    std::fs::write(artifacts.join(&key), text).unwrap();
    let config = json!({
        "preparation_version": 1,
        "sources": [{ "format": "text", "text_field": "text", "file_hashes": [hash.as_str()] }],
        "tokenizer": "byte", "validation_fraction": 0.5, "seed": 0,
    });
    let source = v1::ArtifactRef { key, hash: hash.to_string(), n_bytes: text.len() as u64 };
    let work = v1::PrepareData {
        config_json: Identity::of(&config).unwrap().canonical_json,
        sources: vec![source],
    };
    v1::Assignment {
        lease_token: PREPARATION,
        work_id: "p_1".into(),
        attempt: 1,
        work: Some(assignment::Work::PrepareData(work)),
        ..v1::Assignment::default()
    }
}
