//! A study on a planted surface, carried out by a worker that trains nothing.

use std::collections::BTreeMap;

use anyhow::{Result, bail, ensure};
use coordinator::scheduler::fit::Machine;
use coordinator::scheduler::policy::Placement;
use coordinator::store::read::ReadStore;
use coordinator::store::{
    ApplyOutcome, Artifact, AssignmentDetails, Capabilities, Numerics, ReportEvent, Store,
    StudyToApply, WorkerToRegister,
};
use domain::attempt::AttemptEnd;
use domain::ids::{ContentHash, LeaseToken, WorkId, WorkerId};
use planner::CorpusHashes;

/// Six sizes, two seeds each: enough for a bootstrap.
pub(super) const N_RUNS: usize = 12;

/// Applies the study and carries everything out.
pub(super) async fn fill<S: Store + ReadStore>(store: &S) -> Result<()> {
    let source = artifact("source");
    store.record_source(&source).await?;
    let spec_text = include_str!("study.yaml").to_owned();
    let parsed = domain::spec::parse(&spec_text, "study.yaml")?;
    let hashes =
        [CorpusHashes { corpus: "plays".to_owned(), file_hashes: vec![source.hash.clone()] }];
    let plan = planner::plan(&parsed, &hashes)?;
    let study = StudyToApply {
        spec: parsed.spec,
        spec_text,
        spec_file: "study.yaml".into(),
        plan: plan.into(),
    };
    let ApplyOutcome::Applied(applied) = store.apply_study(study).await? else {
        bail!("the source is missing");
    };
    let worker = store.register_worker(worker()?).await?.worker;
    ensure!(store.confirm_worker(&worker).await?, "the worker is gone");
    let inputs = store.fit_inputs(&applied.study_id).await?;
    let runs = inputs.map(|inputs| inputs.runs).unwrap_or_default();
    ensure!(runs.len() == N_RUNS, "{} runs were planned", runs.len());
    let sizes: BTreeMap<WorkId, (u64, u64)> = runs
        .iter()
        .map(|run| {
            let size = (run.parameters_non_embedding, run.batch_tokens);
            (WorkId::Run(run.run_id.clone()), size)
        })
        .collect();
    let steps: BTreeMap<WorkId, Vec<u64>> =
        runs.into_iter().map(|run| (WorkId::Run(run.run_id), run.data_point_steps)).collect();
    let mut trained: Option<WorkId> = None;
    // One at a time: the preparation, then each run and the evaluations that follow from it.
    loop {
        let mut queue = store.queue_head(100, None).await?.work;
        queue.sort_by_key(|queued| queued.work.kind() != "evaluation");
        let Some(queued) = queue.into_iter().next() else { return Ok(()) };
        let token = grant(store, &queued.work, &worker).await?;
        let events = match (&queued.work, steps.get(&queued.work)) {
            (work, Some(steps)) => {
                trained = Some(work.clone());
                std::iter::once(started())
                    .chain(steps.iter().map(|step| checkpoint(*step)))
                    .collect()
            }
            _ => {
                vec![outcome(store, token, trained.as_ref().and_then(|run| sizes.get(run))).await?]
            }
        };
        store.report(token, events).await?;
        store.finish_attempt(token, AttemptEnd::Succeeded, "").await?;
    }
}

/// What a preparation or an evaluation comes to.
async fn outcome<S: Store>(
    store: &S,
    token: LeaseToken,
    size: Option<&(u64, u64)>,
) -> Result<ReportEvent> {
    let assignment = store.assignment(token).await?;
    match (assignment.map(|one| one.details), size) {
        (Some(AssignmentDetails::Evaluate { checkpoint_manifest, .. }), Some((n, batch))) => {
            let step: u64 =
                checkpoint_manifest.key.rsplit('-').next().unwrap_or_default().parse()?;
            Ok(ReportEvent::Evaluation {
                name: "validation_loss_nats".to_owned(),
                value: loss(*n as f64, (step * batch) as f64),
                standard_error: Some(0.01),
                n_tokens: 80,
            })
        }
        _ => Ok(ReportEvent::Preparation {
            manifest: artifact("data"),
            n_training_tokens: 100_000,
            n_validation_tokens: 1000,
            vocab_size: 257,
        }),
    }
}

/// A law with some luck, which the fit finds again.
fn loss(n: f64, d: f64) -> f64 {
    (1.5 + 60.0 * n.powf(-0.35) + 300.0 * d.powf(-0.4)) * (0.002 * (n + 7.0 * d).sin()).exp()
}

async fn grant<S: Store>(store: &S, work: &WorkId, worker: &WorkerId) -> Result<LeaseToken> {
    let granted = store.grant(&[Placement::of_one(work.clone(), worker.clone())]).await?;
    ensure!(granted.len() == 1, "`{work}` was not granted");
    Ok(granted[0].token)
}

fn artifact(name: &str) -> Artifact {
    Artifact { key: format!("x/{name}"), hash: ContentHash::of(name.as_bytes()), n_bytes: 10 }
}

fn checkpoint(step: u64) -> ReportEvent {
    ReportEvent::Checkpoint {
        step,
        manifest: artifact(&format!("manifest-{step}")),
        weights: artifact(&format!("weights-{step}")),
        is_data_point: true,
        n_bytes: 1000,
    }
}

fn started() -> ReportEvent {
    let numerics = Numerics {
        device_kind: "cpu".into(),
        intra_op_threads: 1,
        micro_batch_sequences: 0,
        cpu_capability: "AVX2".into(),
        libtorch_version: "2.11.0".into(),
    };
    ReportEvent::Started { numerics, resumed_from_step: 0 }
}

fn worker() -> Result<WorkerToRegister> {
    Ok(WorkerToRegister {
        proposed_id: "w_1".parse()?,
        name: "worker".into(),
        hostname: "here".into(),
        pid: 1,
        instance: "here-1".into(),
        connected: Vec::new(),
        machine: Machine {
            n_slots: 1,
            capabilities: Capabilities {
                device_kind: "cpu".into(),
                device_name: "a CPU".into(),
                threads_per_slot: 1,
                cpu_capability: "AVX2".into(),
                libtorch_version: "2.11.0".into(),
                memory_bytes: 1 << 30,
                recipes: vec!["pretrain".into()],
                labels: BTreeMap::new(),
            },
        },
    })
}

/// The value below which a share of the sorted times lies.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a position between zero and the number of values"
)]
pub(super) fn at_share(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1);
    let at = (share * last as f64).round() as usize;
    sorted.get(at.min(last)).copied().unwrap_or(f64::NAN)
}
