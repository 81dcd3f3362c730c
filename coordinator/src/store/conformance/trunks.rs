//! Runs of one trunk train their common steps once.

use domain::attempt::AttemptEnd;
use domain::ids::{LeaseToken, RunId, WorkId, WorkerId};
use domain::recipe::CellConfig;
use domain::spec::FlopKind;

use super::fixture::{
    Fixture, STUDY, checkpoint, is_ended, placement, preparation_result, study, study_named,
};
use crate::store::read::{ReadStore, TrunkStatus};
use crate::store::{AssignmentDetails, Numerics, ReportEvent, Retry, Store, TrainDetails};

/// Three lengths of one configuration.
pub(super) const SHARED: [(&str, &str); 4] = [
    (
        "optimizer: {learning_rate: 1e-3}",
        "optimizer: {learning_rate: 1e-3}\n          \
         schedule: {wsd: {warmup_steps: 2, decay_share: 0.25}}",
    ),
    ("values: [1e-3, 2e-3]", "values: [1e-3]"),
    (
        "design: {fixed_tokens: {tokens: 1e5}}",
        "design: {isoflop: {budgets: [2e10, 4e10, 8e10], max_tokens_per_parameter: 1000}}",
    ),
    ("checkpoints: {log_spaced: {count: 4, first_step: 20}}", "checkpoints: final\n"),
];

pub(in crate::store) fn shared() -> Vec<(&'static str, &'static str)> {
    let last = ("checkpoints: final\n", "checkpoints: final\nruntime: {share_trunks: true}\n");
    SHARED.into_iter().chain([last]).collect()
}

/// The runs from the shortest on, each with the step where it leaves the trunk and its last one.
pub(in crate::store) fn runs() -> [(RunId, u64, u64); 3] {
    let cells = study(&shared()).plan.cells.clone();
    let run = |cell: &planner::PlannedCell| {
        let trunk = cell.trunk.as_ref().unwrap();
        (cell.run_id.clone(), trunk.steps, *cell.seedless.data_point_steps.last().unwrap())
    };
    let runs: Vec<_> = cells.iter().map(run).collect();
    runs.try_into().unwrap()
}

pub(in crate::store) fn work(run: &RunId) -> WorkId {
    WorkId::Run(run.clone())
}

pub(super) fn numerics() -> Numerics {
    Numerics {
        device_kind: "cpu".into(),
        intra_op_threads: 1,
        micro_batch_sequences: 4,
        cpu_capability: "AVX2".into(),
        libtorch_version: "2.11.0".into(),
    }
}

pub(super) async fn begin<S: Store + ReadStore>(
    f: &Fixture<S>,
    run: &RunId,
    worker: &WorkerId,
) -> LeaseToken {
    let granted = f.store.grant(&[placement(&work(run), worker)]).await.unwrap().remove(0);
    let started = ReportEvent::Started { numerics: numerics(), resumed_from_step: 0 };
    f.report(granted.token, started).await;
    granted.token
}

pub(super) async fn details(
    f: &Fixture<impl Store + ReadStore>,
    token: LeaseToken,
) -> TrainDetails {
    let assignment = f.store.assignment(token).await.unwrap().unwrap();
    let AssignmentDetails::Train(details) = assignment.details else { panic!("a run is trained") };
    *details
}

pub(super) fn offered(details: &TrainDetails) -> Vec<u64> {
    details.checkpoints.iter().map(|offered| offered.step).collect()
}

pub(in crate::store) async fn a_run_waits_for_the_checkpoint_that_it_goes_on_from(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared_with(&shared()).await;
    let [(short, branch, _), (middle, later, last), (long, ..)] = runs();
    assert_eq!(f.queued_ids().await, [work(&short)]);
    let planned = f.store.run_status(&middle).await.unwrap().unwrap();
    let expected = TrunkStatus {
        run_id: short.to_string(),
        state: "queued".into(),
        latest_step: 0,
        step: branch,
    };
    assert_eq!(planned.trunk, Some(expected));
    let first = begin(f, &short, &worker).await;
    assert_eq!(details(f, first).await.branch_step, Some(branch));
    // Rolling checkpoints on the way release nobody.
    f.report(first, checkpoint(branch - 1, false)).await;
    assert_eq!(f.queued_ids().await, []);
    f.report(first, checkpoint(branch, false)).await;
    assert_eq!(f.queued_ids().await, [work(&middle)]);
    // It is charged with what is left of it.
    let CellConfig::Pretrain(cell) = study(&shared()).plan.cells[1].config();
    let flops = cell.flops_at(last - branch, FlopKind::Exact);
    let cost = f.queue().await[0].cost_flops;
    assert!((cost / flops - 1.0).abs() < 1e-9, "{cost} is not {flops}");
    // What comes after the branch is the shorter run's own.
    f.report(first, checkpoint(branch + 1, false)).await;
    let second = f.store.grant(&[placement(&work(&middle), &worker)]).await.unwrap().remove(0);
    let found = details(f, second.token).await;
    assert_eq!(offered(&found), [branch, branch - 1]);
    assert_eq!(found.numerics, Some(numerics()));
    assert_eq!(found.branch_step, Some(later));
    // Once it has its own, those come first, and a preempted run does not wait again.
    f.report(second.token, checkpoint(branch + 2, false)).await;
    assert!(is_ended(&f.finish(second.token, AttemptEnd::Preempted).await));
    assert_eq!(f.queued_ids().await, [work(&middle)]);
    let again = begin(f, &middle, &worker).await;
    assert_eq!(offered(&details(f, again).await), [branch + 2, branch, branch - 1]);
    f.report(again, checkpoint(later, false)).await;
    assert_eq!(f.queued_ids().await, [work(&long)]);
}

pub(in crate::store) async fn a_run_whose_source_ends_begins_with_what_there_is(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared_with(&shared()).await;
    let [(short, branch, _), (middle, ..), (long, ..)] = runs();
    let first = begin(f, &short, &worker).await;
    f.report(first, checkpoint(branch - 3, false)).await;
    assert!(is_ended(&f.finish(first, AttemptEnd::Diverged).await));
    assert_eq!(f.queued_ids().await, [work(&middle)]);
    let second = begin(f, &middle, &worker).await;
    assert_eq!(offered(&details(f, second).await), [branch - 3]);
    // Nobody began the one before the longest: all of its steps are left.
    f.store.cancel_run(&middle, "").await.unwrap();
    f.check().await;
    assert_eq!(f.queued_ids().await, [work(&long)]);
    let CellConfig::Pretrain(cell) = study(&shared()).plan.cells[2].config();
    let all = cell.flops_at(cell.steps, FlopKind::Exact);
    let cost = f.queue().await[0].cost_flops;
    assert!((cost / all - 1.0).abs() < 1e-9, "{cost} is not {all}");
    let third = f.store.grant(&[placement(&work(&long), &worker)]).await.unwrap().remove(0);
    let found = details(f, third.token).await;
    assert_eq!((offered(&found), found.numerics), (Vec::new(), None));
}

pub(in crate::store) async fn a_trunk_that_is_damaged_is_passed_over_by_its_branch(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared_with(&shared()).await;
    let [(short, branch, _), (middle, ..), _] = runs();
    let first = begin(f, &short, &worker).await;
    f.report(first, checkpoint(branch, false)).await;
    for attempt in 1..=2 {
        let granted = f.store.grant(&[placement(&work(&middle), &worker)]).await.unwrap().remove(0);
        let found = details(f, granted.token).await;
        assert_eq!((offered(&found).len(), found.checkpoints[0].has_failed), (1, attempt == 2));
        let manifest_key = found.checkpoints[0].manifest.key.clone();
        let refused =
            ReportEvent::CheckpointRefused { manifest_key, reason: "its hash is another".into() };
        f.report(granted.token, refused).await;
        assert!(is_ended(&f.finish(granted.token, AttemptEnd::Preempted).await));
    }
    // The one that left it still trains, and may leave another: it is waited for.
    assert_eq!(f.queued_ids().await, []);
    assert!(is_ended(&f.finish(first, AttemptEnd::WorkerLost).await));
    assert!(!f.queued_ids().await.contains(&work(&middle)));
    let cancelled = f.store.cancel_run(&short, "").await.unwrap();
    assert!(!cancelled.work.is_empty());
    assert_eq!(f.queued_ids().await, [work(&middle)]);
}

/// Two branches find a trunk's checkpoint damaged at their first attempts: the second is the one whose
/// word settles it.
pub(in crate::store) async fn two_runs_that_find_a_trunk_damaged_settle_it(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared_with(&shared()).await;
    let [(short, branch, _), (middle, ..), _] = runs();
    let first = begin(f, &short, &worker).await;
    f.report(first, checkpoint(branch, false)).await;
    let refuse = |token: LeaseToken| async move {
        let found = details(f, token).await;
        let has_failed = found.checkpoints[0].has_failed;
        let manifest_key = found.checkpoints[0].manifest.key.clone();
        let reason = "its hash is another".to_owned();
        f.report(token, ReportEvent::CheckpointRefused { manifest_key, reason }).await;
        has_failed
    };
    assert!(!refuse(first).await, "an attempt's own word makes nothing doubtful to it");
    let second = f.store.grant(&[placement(&work(&middle), &worker)]).await.unwrap().remove(0);
    assert!(refuse(second.token).await, "another run's first attempt has said so before");
    assert_eq!(offered(&details(f, second.token).await), Vec::<u64>::new());
}

pub(in crate::store) async fn a_study_of_trunks_is_cancelled_and_retried_whole(
    f: &Fixture<impl Store + ReadStore>,
) {
    f.prepared_with(&shared()).await;
    let [(short, ..), ..] = runs();
    let name = STUDY.lines().find_map(|line| line.strip_prefix("name: ")).unwrap();
    let study_id = study_named(name);
    f.store.cancel_study(&study_id, "").await.unwrap();
    f.check().await;
    assert_eq!(f.queued_ids().await, []);
    f.store.retry_study(&study_id, Retry::All).await.unwrap();
    f.check().await;
    assert_eq!(f.queued_ids().await, [work(&short)]);
    // Without the shortest the next goes first; without sharing all of them do.
    let mut changes = shared();
    changes.push(("[2e10, 4e10, 8e10]", "[4e10, 8e10]"));
    f.apply(&changes).await;
    assert_eq!(f.queued_ids().await, [work(&runs()[1].0)]);
    f.apply(&SHARED).await;
    assert_eq!(f.queued_ids().await.len(), 3);
    f.apply(&shared()).await;
    assert_eq!(f.queued_ids().await, [work(&short)]);
}

pub(super) async fn is_marked(f: &Fixture<impl Store + ReadStore>, run: &RunId) -> bool {
    f.store.run_view(run).await.unwrap().unwrap().summary.has_changed_numerics
}

/// Whatever the way to it, a run that goes on from another one's checkpoint rounds as that one did
/// or is marked.
pub(in crate::store) async fn a_run_rounds_as_its_trunk_did_or_is_marked(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared_with(&SHARED).await;
    let [(short, branch, last), (middle, later, _), (long, ..)] = runs();
    // Sharing comes when the shortest is over and the others are queued.
    let first = begin(f, &short, &worker).await;
    f.report(first, checkpoint(branch - 1, false)).await;
    assert!(is_ended(&f.succeed(first, last).await));
    f.apply(&shared()).await;
    assert!(f.queued_ids().await.contains(&work(&middle)), "the checkpoint will not come");
    let second = f.store.grant(&[placement(&work(&middle), &worker)]).await.unwrap().remove(0);
    let found = details(f, second.token).await;
    assert_eq!((offered(&found), found.numerics), (vec![branch - 1], Some(numerics())));
    let numerics = Numerics { intra_op_threads: 2, ..numerics() };
    let started = ReportEvent::Started { numerics, resumed_from_step: branch - 1 };
    f.report(second.token, started).await;
    assert!(is_marked(f, &middle).await && !is_marked(f, &short).await);
    let view = f.store.run_view(&middle).await.unwrap().unwrap();
    let continues = view.continues.map(|continues| (continues.run_id, continues.step));
    assert_eq!(continues, Some((short.to_string(), branch - 1)), "as it happened");
    // The mark goes on with the trunk.
    f.report(second.token, checkpoint(later, false)).await;
    assert!(f.queued_ids().await.contains(&work(&long)));
    assert!(is_marked(f, &long).await);
}

pub(in crate::store) async fn data_points_of_another_study_are_trained(
    f: &Fixture<impl Store + ReadStore>,
) {
    let other = [
        ("name: tiny", "name: other"),
        ("checkpoints: final\n", "checkpoints: {log_spaced: {count: 4, first_step: 2}}\n"),
    ];
    let changes: Vec<_> = SHARED.into_iter().chain(other).collect();
    f.prepared_with(&changes).await;
    f.apply(&shared()).await;
    assert_eq!(f.queued_ids().await.len(), 3, "nobody goes on from another");
}

pub(in crate::store) async fn a_paused_study_keeps_no_run_of_another_waiting(
    f: &Fixture<impl Store + ReadStore>,
) {
    f.prepared_with(&shared()).await;
    let [(short, ..), (middle, ..), (long, ..)] = runs();
    let only_long = [("name: tiny", "name: other"), ("[2e10, 4e10, 8e10]", "[8e10]")];
    let later = ("share_trunks: true}", "share_trunks: true, priority: -1}");
    let changes: Vec<_> = shared().into_iter().chain(only_long).chain([later]).collect();
    f.apply(&changes).await;
    assert!(f.queued_ids().await.contains(&work(&long)), "the study at hand has nobody before it");
    f.apply(&shared()).await;
    assert_eq!(f.queued_ids().await, [work(&short)]);
    let study = study_named("tiny");
    f.store.pause_study(&study, "").await.unwrap();
    f.check().await;
    assert_eq!(f.queued_ids().await, [work(&long)]);
    f.store.resume_study(&study).await.unwrap();
    f.check().await;
    assert_eq!(f.queued_ids().await, [work(&short)]);
    let waits = f.store.run_status(&middle).await.unwrap().unwrap();
    assert_eq!(waits.trunk.map(|trunk| trunk.run_id), Some(short.to_string()));
}

pub(in crate::store) async fn data_that_comes_late_releases_the_first_of_a_trunk(
    f: &Fixture<impl Store + ReadStore>,
) {
    f.apply(&shared()).await;
    let [(short, ..), (middle, ..), (long, ..)] = runs();
    // The one that the middle one would go on from is over before its data is there.
    f.store.cancel_run(&short, "").await.unwrap();
    f.check().await;
    let worker = f.worker().await;
    let granted = f.grant_first(&worker).await;
    f.report(granted.token, preparation_result()).await;
    assert!(is_ended(&f.finish(granted.token, AttemptEnd::Succeeded).await));
    assert_eq!(f.queued_ids().await, [work(&middle)]);
    let CellConfig::Pretrain(cell) = study(&shared()).plan.cells[1].config();
    let all = cell.flops_at(cell.steps, FlopKind::Exact);
    let cost = f.queue().await[0].cost_flops;
    assert!((cost / all - 1.0).abs() < 1e-9, "{cost} is not {all}: it trains all of it");
    f.store.retry_run(&short, Retry::All).await.unwrap();
    f.check().await;
    assert_eq!(f.queued_ids().await.len(), 2, "nobody waits again who could begin");
    let status = f.store.run_status(&long).await.unwrap().unwrap();
    assert_eq!(status.trunk.map(|trunk| trunk.run_id), Some(middle.to_string()));
}
