//! The orchestration tax: a run under a real coordinator and worker, against the bare loop that makes
//! the same steps on the same data.
//!
//! Each round starts processes, trains one run through them, stops them, and then lets the bare loop
//! train the very same cell from the same artifact store. Both sides must come to the same losses.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use api::{Curve, CurveList, RunList, RunView};
use domain::recipe::CellConfig;
use e2e::{Cluster, ClusterOptions};
use serde::de::DeserializeOwned;

use crate::args::OrchestrationArgs;
use crate::bare::{self, Request, Trained};
use crate::case::Size;
use crate::report::{Bar, Report, Row};

/// The coordinator's usual one, which decides how often heartbeats come.
const LEASE_TERM_MS: u64 = 15_000;

/// While buffers, caches and the worker's first reports settle.
const UNTIMED_STEPS: u32 = 20;

/// How often a run is asked whether it has ended: so seldom that the asking costs nothing.
const PAUSE: Duration = Duration::from_secs(2);

/// Tokens of a step.
const BATCH_TOKENS: u32 = 8 * 256;

/// The one coordinator's answer holds every step: the most points that it gives.
const MAX_POINTS: u32 = 10_000;

pub(crate) fn measure(args: &OrchestrationArgs) -> Result<Report> {
    let mut report = Report::new("orchestration", &args.common)?;
    let quick = args.common.quick;
    let timed = args.steps.unwrap_or(if quick { 100 } else { 1500 });
    let rounds = args.common.rounds_or(10);
    let size = Size::Small;
    report.note(format!(
        "llama, {} parameters, fp32, T = 256, {BATCH_TOKENS} tokens a step: {timed} steps after \
         {UNTIMED_STEPS} untimed ones, wall clock with everything between steps. Under \
         orchestration: coordinator (SQLite), worker and trainer as processes on this machine, \
         metrics of each step, heartbeats of a lease of {LEASE_TERM_MS} ms, a checkpoint a minute. \
         {rounds} rounds, orchestrated and bare in turns.",
        size.label()
    ));
    let (mut orchestrated, mut bare) = (Vec::new(), Vec::new());
    for round in 1..=rounds {
        let pair = match pair(args, size, UNTIMED_STEPS + timed) {
            Ok(pair) => pair,
            // The other rounds' numbers are worth having.
            Err(error) => {
                report.fail(format!("round {round}: {error:#}"));
                continue;
            }
        };
        let ratio = pair.orchestrated / pair.bare;
        crate::say(&format!("round {round} of {rounds}: {pair:?}, ratio {ratio:.4}"));
        orchestrated.push(pair.orchestrated);
        bare.push(pair.bare);
    }
    if bare.is_empty() {
        return Ok(report);
    }
    let row = Row::alone("a run under coordinator and worker", "tokens/s", &orchestrated);
    report.add(row.beside(&orchestrated, "the bare loop", &bare).bar(Bar::AtLeast(0.99)));
    Ok(report)
}

/// Tokens per second of both sides.
#[derive(Debug)]
struct Pair {
    orchestrated: f64,
    bare: f64,
}

fn pair(args: &OrchestrationArgs, size: Size, steps: u32) -> Result<Pair> {
    let threads = args.common.threads;
    let parent = args.common.folder()?;
    let options = ClusterOptions {
        lease_term_ms: LEASE_TERM_MS,
        worker_threads: threads,
        parent,
        ..ClusterOptions::default()
    };
    let mut cluster = Cluster::start(options)?;
    cluster.start_worker();
    let study = cluster.path().join("study.yaml");
    std::fs::write(cluster.path().join("text.txt"), text())?;
    std::fs::write(&study, study_file(size, steps))?;
    cluster.apply(&study);
    let orchestrated = Orchestrated::wait(&cluster)?;
    cluster.stop();

    let cell: CellConfig = serde_json::from_value(orchestrated.view.config.clone())
        .context("the run's configuration is no cell")?;
    let CellConfig::Pretrain(pretrain) = &cell;
    let bare = bare::train(&Request {
        store: cluster.path().join("artifacts"),
        manifest_key: manifest_key(&cluster.path().join("artifacts"), &pretrain.preparation_hash)?,
        scratch: cluster.path().join("scratch-of-the-bare-loop"),
        cell,
        threads,
        checkpoint_steps: Vec::new(),
        place: None,
    })?;
    ensure!(
        bare.losses()? == orchestrated.losses,
        "the two sides came to different losses, so they did not do the same"
    );
    let speed = |elapsed: &[f64]| tokens_per_second(elapsed, UNTIMED_STEPS, BATCH_TOKENS);
    Ok(Pair {
        orchestrated: speed(&orchestrated.elapsed_seconds)?,
        bare: speed(&elapsed_seconds(&bare)?)?,
    })
}

/// The manifest of prepared data of which there was one attempt.
fn manifest_key(store: &Path, preparation_hash: &str) -> Result<String> {
    let folder = format!("data/{preparation_hash}");
    let attempt = std::fs::read_dir(store.join(&folder))?.next().context("no prepared data")??;
    Ok(format!("{folder}/{}/manifest.json", attempt.file_name().to_string_lossy()))
}

fn elapsed_seconds(trained: &Trained) -> Result<Vec<f64>> {
    trained.series("elapsed_seconds")
}

/// The speed from the end of step `untimed` to the end of the last, by the clock at each step's end.
fn tokens_per_second(elapsed: &[f64], untimed: u32, batch_tokens: u32) -> Result<f64> {
    let start = elapsed.get(untimed as usize - 1).context("a run of too few steps")?;
    let end = elapsed.last().context("a run of no steps")?;
    let n_steps = elapsed.len() - untimed as usize;
    Ok(n_steps as f64 * f64::from(batch_tokens) / (end - start))
}

/// A run that has ended under a coordinator.
struct Orchestrated {
    view: RunView,
    elapsed_seconds: Vec<f64>,
    losses: Vec<f64>,
}

impl Orchestrated {
    /// Waits for the cluster's one run.
    fn wait(cluster: &Cluster) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(Self::wait_async(cluster))
    }

    async fn wait_async(cluster: &Cluster) -> Result<Self> {
        let summary = loop {
            let list: RunList = get(cluster, "runs").await?;
            let run = list.runs.into_iter().next().context("the study has no run")?;
            match run.state.as_str() {
                "waiting" | "queued" | "leased" | "backoff" => tokio::time::sleep(PAUSE).await,
                "succeeded" => break run,
                state => anyhow::bail!("the run is {state}: {}\n{}", run.message, cluster.logs()),
            }
        };
        ensure!(summary.n_attempts == 1, "the run needed {} attempts", summary.n_attempts);
        let view: RunView = get(cluster, &format!("runs/{}", summary.id)).await?;
        let steps = usize::try_from(summary.steps)?;
        Ok(Self {
            view,
            elapsed_seconds: series(cluster, &summary.id, "elapsed_seconds", steps).await?,
            losses: series(cluster, &summary.id, "train_loss_nats", steps).await?,
        })
    }
}

/// Every step's value of a metric.
async fn series(cluster: &Cluster, run: &str, name: &str, steps: usize) -> Result<Vec<f64>> {
    let path = format!("runs/{run}/curves?series={name}&max_points={MAX_POINTS}");
    let list: CurveList = get(cluster, &path).await?;
    let curve: Curve = list.curves.into_iter().next().with_context(|| format!("no `{name}`"))?;
    let values: Option<Vec<f64>> = curve.values.into_iter().collect();
    let values = values.with_context(|| format!("a `{name}` that is not finite"))?;
    ensure!(values.len() == steps, "{} of {steps} steps have a `{name}`", values.len());
    Ok(values)
}

async fn get<T: DeserializeOwned>(cluster: &Cluster, path: &str) -> Result<T> {
    let url = format!("{}/api/v1/{path}", cluster.endpoint().http);
    let response = reqwest::get(&url).await?.error_for_status()?;
    Ok(response.json().await?)
}

fn study_file(size: Size, steps: u32) -> String {
    let widths = size.widths();
    format!(
        "version: 1
name: orchestration
data:
  corpora:
    - {{name: text, files: [text.txt]}}
stages:
  - name: pretrain
    recipe:
      pretrain:
        model: {{preset: llama, d_model: {}, n_layers: {}, n_heads: {}, ffn_hidden: {}}}
        training:
          sequence_length: 256
          batch_sequences: 8
          optimizer: {{learning_rate: 1e-3}}
          schedule: {{constant: {{warmup_steps: 10}}}}
        design: {{fixed_tokens: {{tokens: {}}}}}
        checkpoints: final
runtime: {{rolling_checkpoint_seconds: 60}}
",
        widths.d_model,
        widths.n_layers,
        widths.n_heads,
        widths.ffn_hidden,
        u64::from(steps) * u64::from(BATCH_TOKENS)
    )
}

/// Some 300 KiB of lines with structure.
fn text() -> String {
    let line = |line: u64| format!("{line} {}\n", line.pow(3) % 9973);
    (0..20_000).map(line).collect::<Vec<_>>().concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speed_is_counted_from_the_end_of_the_last_untimed_step() {
        // One slow first step, then two of half a second each.
        assert_eq!(tokens_per_second(&[10.0, 10.5, 11.0], 1, 100).unwrap(), 200.0);
        assert!(tokens_per_second(&[10.0], 2, 100).is_err());
    }

    #[test]
    fn the_study_file_is_valid() {
        let study = domain::spec::parse(&study_file(Size::Small, 120), "study.yaml").unwrap();
        assert_eq!(study.spec.runtime.rolling_checkpoint_seconds, 60);
    }
}
