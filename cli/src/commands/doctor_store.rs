//! The part of `gradus doctor` that looks at the store, through a coordinator.
//!
//! It repairs nothing.

use std::path::Path;

use api::{CheckView, HealthView, RunList, RunView, StudyList};

use super::doctor::Check;
use crate::args::Global;
use crate::client::Client;
use crate::failure::Failure;
use crate::local::FOLDER;
use crate::locate;

/// Runs whose checkpoints are looked for: enough to see a folder that was cleared.
const MOST_RUNS: usize = 200;

/// The checks of the store; a store that cannot be reached is one check.
pub(super) async fn checks(global: &Global, is_deep: bool) -> Vec<Check> {
    if global.coordinator.is_none() && !Path::new(FOLDER).join("store.db").is_file() {
        let hint = "`gradus up` makes one";
        return vec![Check::warn("store", "there is no store in this folder", hint)];
    }
    let is_local = global.coordinator.is_none();
    let asked = locate::reading(global, async |client| ask(client, is_local, is_deep).await).await;
    asked.unwrap_or_else(|failure| {
        let text = failure.report();
        let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        vec![Check::fail("store", line, "the logs are in `.gradus/logs`")]
    })
}

async fn ask(client: &Client, is_local: bool, is_deep: bool) -> Result<Vec<Check>, Failure> {
    let health: HealthView = client.get(&["health"]).await?;
    let studies: StudyList = client.get(&["studies"]).await?;
    let runs: RunList = client.get(&["runs"]).await?;
    let mut checks = vec![
        Check::ok("store", format!("answers; migration {}", health.schema_version)),
        work(&studies),
        workers(&health, &studies),
    ];
    // Only a store in this folder has its artifacts where this process can see them.
    if is_local {
        checks.push(artifacts(client, &runs).await?);
    }
    if is_deep {
        checks.push(invariants(client).await?);
    }
    Ok(checks)
}

/// Whether the store keeps its invariants.
async fn invariants(client: &Client) -> Result<Check, Failure> {
    let view: CheckView = client.get(&["check"]).await?;
    Ok(match view.violations.first() {
        None => {
            let (n_work, n_attempts) = (view.n_work, view.n_attempts);
            Check::ok(
                "invariants",
                format!("hold for {n_work} pieces of work and {n_attempts} attempts"),
            )
        }
        Some(first) => Check::fail(
            "invariants",
            format!(
                "{} are broken; the first: {} {} (`{}`: {})",
                view.violations.len(),
                first.invariant,
                first.rule,
                first.subject,
                first.found
            ),
            "this is a defect of ours; keep the store as it is and report it",
        ),
    })
}

fn work(studies: &StudyList) -> Check {
    let count = |state: &str| -> u64 {
        let of = |study: &api::StudySummary| {
            [&study.runs, &study.evaluations, &study.preparations]
                .iter()
                .filter_map(|counts| counts.get(state))
                .sum::<u64>()
        };
        studies.studies.iter().map(of).sum()
    };
    let n_open = ["waiting", "queued", "leased", "backoff"].map(count).iter().sum::<u64>();
    let message = format!(
        "{} studies; {n_open} pieces of work open, {} failed",
        studies.studies.len(),
        count("failed")
    );
    if count("failed") > 0 {
        Check::warn("work", message, "`gradus runs` says why, `gradus retry STUDY` tries again")
    } else {
        Check::ok("work", message)
    }
}

fn workers(health: &HealthView, studies: &StudyList) -> Check {
    let is_waited_for = studies.studies.iter().any(|study| study.state == "active");
    let message = format!("{} are there", health.n_live_workers);
    if is_waited_for && health.n_live_workers == 0 {
        Check::warn("workers", message, "a study waits; `gradus up` starts workers")
    } else {
        Check::ok("workers", message)
    }
}

/// Whether the manifests that the store names are in its folder.
async fn artifacts(client: &Client, runs: &RunList) -> Result<Check, Failure> {
    let folder = Path::new(FOLDER).join("artifacts");
    let (mut n_found, mut missing) = (0_usize, Vec::new());
    for run in runs.runs.iter().take(MOST_RUNS) {
        let view: RunView = client.get(&["runs", &run.id]).await?;
        for checkpoint in view.checkpoints.iter().filter(|one| one.is_data_point) {
            if folder.join(&checkpoint.manifest_key).is_file() {
                n_found += 1;
            } else {
                missing.push(checkpoint.manifest_key.clone());
            }
        }
    }
    Ok(match missing.first() {
        None => Check::ok("artifacts", format!("{n_found} data-point checkpoints are there")),
        Some(first) => Check::fail(
            "artifacts",
            format!("{} checkpoints are missing, such as `{first}`", missing.len()),
            "restore `.gradus/artifacts`",
        ),
    })
}
