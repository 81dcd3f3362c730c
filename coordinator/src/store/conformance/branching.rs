//! Runs that go on from another one: what happens to the two after that, and who waits for whom.

use domain::attempt::AttemptEnd;
use domain::ids::{LeaseToken, RunId, WorkId, WorkerId};

use super::fixture::{
    Fixture, checkpoint, is_ended, placement, preparation_result, study, study_named,
};
use super::trunks::{SHARED, begin, details, is_marked, numerics, offered, runs, shared, work};
use crate::store::read::ReadStore;
use crate::store::{LogLevel, Numerics, ReportEvent, Retry, Store};

async fn grant(f: &Fixture<impl Store + ReadStore>, run: &RunId, worker: &WorkerId) -> LeaseToken {
    f.store.grant(&[placement(&work(run), worker)]).await.unwrap().remove(0).token
}

/// Begins where another run has left a checkpoint, with these sequences at a time.
async fn go_on(
    f: &Fixture<impl Store + ReadStore>,
    token: LeaseToken,
    (step, micro_batch_sequences): (u64, u32),
) {
    let numerics = Numerics { micro_batch_sequences, ..numerics() };
    f.report(token, ReportEvent::Started { numerics, resumed_from_step: step }).await;
}

/// Ends an attempt for want of memory and queues its run again.
async fn run_out_of_memory(f: &Fixture<impl Store + ReadStore>, token: LeaseToken, run: &RunId) {
    assert!(is_ended(&f.finish(token, AttemptEnd::OutOfMemory).await));
    f.store.requeue(&[work(run)]).await.unwrap();
}

async fn continues(f: &Fixture<impl Store + ReadStore>, run: &RunId) -> Option<u64> {
    f.store.run_view(run).await.unwrap().unwrap().continues.map(|from| from.step)
}

pub(in crate::store) async fn a_branch_that_needs_less_memory_keeps_its_trunk(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared_with(&shared()).await;
    let [(short, branch, _), (middle, ..), _] = runs();
    let first = begin(f, &short, &worker).await;
    f.report(first, checkpoint(branch, false)).await;
    let second = grant(f, &middle, &worker).await;
    go_on(f, second, (branch, 4)).await;
    run_out_of_memory(f, second, &middle).await;
    assert!(is_marked(f, &middle).await);
    let third = grant(f, &middle, &worker).await;
    let found = details(f, third).await;
    let n_sequences = found.numerics.as_ref().map(|numerics| numerics.micro_batch_sequences);
    assert_eq!((offered(&found), n_sequences), (vec![branch], Some(2)));
    go_on(f, third, (branch, 2)).await;
    assert_eq!(continues(f, &middle).await, Some(branch));
    // An attempt that begins anew owes the trunk nothing.
    assert!(is_ended(&f.finish(third, AttemptEnd::Preempted).await));
    let fourth = grant(f, &middle, &worker).await;
    go_on(f, fourth, (0, 2)).await;
    assert_eq!(continues(f, &middle).await, None);
}

/// Aim: what begins below the checkpoint that it was to go on from costs more, and its study knows.
pub(in crate::store) async fn a_branch_that_begins_anew_is_charged_whole(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared_with(&shared()).await;
    let [(short, branch, _), (middle, ..), _] = runs();
    let cells = study(&shared()).plan.cells.clone();
    let [all, whole] = [0, 1].map(|cell: usize| cells[cell].seedless.flops_exact);
    let first = begin(f, &short, &worker).await;
    f.report(first, checkpoint(branch, false)).await;
    let second = grant(f, &middle, &worker).await;
    let terms = async || f.store.run_status(&middle).await.unwrap().unwrap();
    let planned = terms().await.cost_flops;
    assert!(planned < 0.9 * whole, "{planned} of {whole}");
    go_on(f, second, (0, 4)).await;
    let found = terms().await.cost_flops;
    assert!((found / whole - 1.0).abs() < 1e-9, "{found} of {whole}");
    // Once is enough, however often it is said.
    go_on(f, second, (0, 4)).await;
    let progress = f.store.study_view(&study_named("tiny")).await.unwrap().unwrap();
    assert!(progress.summary.flops_total >= all + whole, "{:?}", progress.summary);
}

pub(in crate::store) async fn a_source_that_needs_less_memory_keeps_its_branches(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared_with(&shared()).await;
    let [(short, branch, _), (middle, later, _), (long, ..)] = runs();
    let first = begin(f, &short, &worker).await;
    f.report(first, checkpoint(branch, false)).await;
    // One has begun with the checkpoint by then, and goes on as it did.
    let second = grant(f, &middle, &worker).await;
    go_on(f, second, (branch, 4)).await;
    run_out_of_memory(f, first, &short).await;
    assert!(is_ended(&f.finish(second, AttemptEnd::WorkerLost).await));
    f.store.requeue(&[work(&middle)]).await.unwrap();
    let third = grant(f, &middle, &worker).await;
    let found = details(f, third).await;
    assert_eq!((offered(&found), found.numerics), (vec![branch], Some(numerics())));
    go_on(f, third, (branch, 4)).await;
    assert!(is_marked(f, &short).await && !is_marked(f, &middle).await);
    // The other has not begun when the run that it goes on from needs less.
    f.report(third, checkpoint(later, false)).await;
    run_out_of_memory(f, third, &middle).await;
    let fourth = grant(f, &long, &worker).await;
    let found = details(f, fourth).await;
    let n_sequences = found.numerics.as_ref().map(|numerics| numerics.micro_batch_sequences);
    assert_eq!((offered(&found), n_sequences), (vec![later], Some(2)));
    assert!(is_marked(f, &long).await, "it is made with other numerics than its trunk");
}

/// Two shares of decay and two lengths, such that a long run leaves the trunk before a short one
/// does, which thus goes on from it.
const TWO_SHARES: [(&str, &str); 3] = [
    (
        "field: training.optimizer.learning_rate, values: [1e-3]",
        "field: training.schedule.wsd.decay_share, values: [0.5, 0.1]",
    ),
    ("[2e10, 4e10, 8e10]", "[2e10, 3.4e10]"),
    ("share_trunks: true}", "share_trunks: true, budget_flops: 4.2e10}"),
];

pub(in crate::store) async fn a_source_that_cannot_be_afforded_keeps_nobody_waiting(
    f: &Fixture<impl Store + ReadStore>,
) {
    let changes: Vec<_> = shared().into_iter().chain(TWO_SHARES).collect();
    let worker = f.prepared_with(&changes).await;
    let mut cells = study(&changes).plan.cells.clone();
    cells.sort_by_key(|cell| cell.trunk.as_ref().unwrap().steps);
    let [first, dear, cheap, _] = cells.as_slice() else { panic!("four runs") };
    let from = |cell: &planner::PlannedCell| {
        cell.trunk.as_ref().unwrap().from.as_ref().map(|(run, _)| run.clone())
    };
    assert_eq!(from(cheap).as_ref(), Some(&dear.run_id));
    assert!(dear.seedless.flops_exact > 1.5 * cheap.seedless.flops_exact);
    assert_eq!(f.queued_ids().await, [work(&first.run_id)]);
    // The first has left what the dear one goes on from, which no longer fits into the budget.
    let token = begin(f, &first.run_id, &worker).await;
    f.check().await;
    let branch = first.trunk.as_ref().unwrap().steps;
    f.report(token, checkpoint(branch, false)).await;
    f.check().await;
    let queued = f.queued_ids().await;
    assert_eq!(queued, [work(&cheap.run_id)], "the dear one is over the budget");
    // With more to spend it waits for the dear one again.
    let more = ("budget_flops: 4.2e10", "budget_flops: 9e10");
    f.apply(&changes.into_iter().chain([more]).collect::<Vec<_>>()).await;
    f.check().await;
    assert_eq!(f.queued_ids().await, [work(&dear.run_id)]);
}

/// Aim: along a trunk each run is settled after the one that it goes on from. Method: the first is
/// beyond the budget before its data is there.
pub(in crate::store) async fn data_that_comes_late_passes_over_what_cannot_be_afforded(
    f: &Fixture<impl Store + ReadStore>,
) {
    let little = ("share_trunks: true}", "share_trunks: true, budget_flops: 1e10}");
    f.apply(&shared().into_iter().chain([little]).collect::<Vec<_>>()).await;
    let worker = f.worker().await;
    let granted = f.grant_first(&worker).await;
    f.report(granted.token, preparation_result()).await;
    assert!(is_ended(&f.finish(granted.token, AttemptEnd::Succeeded).await));
    f.check().await;
    assert_eq!(f.queued_ids().await, [], "no run fits into the budget");
    let more = [little, ("budget_flops: 1e10", "budget_flops: 1e12")];
    f.apply(&shared().into_iter().chain(more).collect::<Vec<_>>()).await;
    f.check().await;
    let [(short, ..), ..] = runs();
    assert_eq!(f.queued_ids().await, [work(&short)]);
}

pub(in crate::store) async fn a_source_that_a_rule_keeps_away_keeps_nobody_waiting(
    f: &Fixture<impl Store + ReadStore>,
) {
    let rules = (
        "share_trunks: true}",
        "share_trunks: true, retries: {bug: {attempts: 9, pause_seconds: 0}}, \
         log_rules: [{pattern: 'Xid [0-9]+', action: exclude_worker}]}",
    );
    let changes: Vec<_> = shared().into_iter().chain([rules]).collect();
    let worker = f.prepared_with(&changes).await;
    let [(short, ..), (middle, ..), _] = runs();
    let first = begin(f, &short, &worker).await;
    assert!(is_ended(&f.finish(first, AttemptEnd::Bug).await));
    f.check().await;
    assert_eq!(f.queued_ids().await, [work(&short)], "what failed there may go there again");
    let second = begin(f, &short, &worker).await;
    let level = LogLevel::Error;
    f.report(second, ReportEvent::Log { at_ms: 1, level, text: "NVRM: Xid 79".into() }).await;
    assert!(is_ended(&f.finish(second, AttemptEnd::Bug).await));
    f.check().await;
    let queued: Vec<WorkId> = f.queued_ids().await;
    assert!(queued.contains(&work(&middle)), "{queued:?}");
}

pub(in crate::store) async fn a_branch_waits_for_a_source_of_another_study_that_is_carried_out(
    f: &Fixture<impl Store + ReadStore>,
) {
    let urgent = [
        ("[2e10, 4e10, 8e10]", "[2e10]"),
        ("share_trunks: true}", "share_trunks: true, priority: 5}"),
    ];
    let worker = f.prepared_with(&shared().into_iter().chain(urgent).collect::<Vec<_>>()).await;
    let other = [("name: tiny", "name: other"), ("[2e10, 4e10, 8e10]", "[2e10, 4e10]")];
    f.apply(&shared().into_iter().chain(other).collect::<Vec<_>>()).await;
    let [(short, branch, _), (middle, ..), _] = runs();
    assert_eq!(f.queued_ids().await.len(), 2, "the other study may never be carried out");
    let first = begin(f, &short, &worker).await;
    f.check().await;
    assert_eq!(f.queued_ids().await, []);
    f.report(first, checkpoint(branch, false)).await;
    assert_eq!(f.queued_ids().await, [work(&middle)]);
}

pub(in crate::store) async fn what_was_taken_over_is_given_back_with_the_source(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared_with(&shared()).await;
    let [(short, branch, last), (middle, ..), _] = runs();
    let planned = f.store.run_status(&middle).await.unwrap().unwrap().needs.memory_bytes;
    let first = begin(f, &short, &worker).await;
    f.report(first, checkpoint(branch - 1, false)).await;
    run_out_of_memory(f, first, &short).await;
    let again = grant(f, &short, &worker).await;
    go_on(f, again, (branch - 1, 2)).await;
    assert!(is_ended(&f.succeed(again, last).await));
    assert!(is_marked(f, &middle).await);
    let status = f.store.run_status(&middle).await.unwrap().unwrap();
    assert!(status.needs.memory_bytes < planned);
    // Without the shortest it is the first of its trunk, and nothing has been done for it.
    let mut changes = shared();
    changes.push(("[2e10, 4e10, 8e10]", "[4e10, 8e10]"));
    f.apply(&changes).await;
    f.check().await;
    assert!(!is_marked(f, &middle).await);
    let status = f.store.run_status(&middle).await.unwrap().unwrap();
    assert_eq!((status.needs.memory_bytes, status.needs.numerics), (planned, None));
    let second = grant(f, &middle, &worker).await;
    let found = details(f, second).await;
    assert_eq!((offered(&found), found.micro_batch_sequences), (Vec::new(), 0));
}

/// Aim: of many checkpoints of another run those that may not be used hide none of the run's own.
pub(in crate::store) async fn checkpoints_that_may_not_be_used_hide_none(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared_with(&shared()).await;
    let [(short, branch, _), (middle, ..), _] = runs();
    assert!(branch > 45, "{branch} steps are too few for this test");
    // It begins by itself while nobody has the run that it goes on from.
    f.store.cancel_run(&short, "").await.unwrap();
    let second = begin(f, &middle, &worker).await;
    f.report(second, checkpoint(5, false)).await;
    f.store.retry_run(&short, Retry::All).await.unwrap();
    let first = begin(f, &short, &worker).await;
    for step in branch - 36..branch {
        f.report(first, checkpoint(step, false)).await;
    }
    // Another study wants a data point before all of those.
    let other = [
        ("name: tiny", "name: other"),
        ("checkpoints: final\n", "checkpoints: {log_spaced: {count: 4, first_step: 8}}\n"),
    ];
    f.apply(&SHARED.into_iter().chain(other).collect::<Vec<_>>()).await;
    assert!(is_ended(&f.finish(second, AttemptEnd::Preempted).await));
    let third = grant(f, &middle, &worker).await;
    assert_eq!(offered(&details(f, third).await), [5]);
}
