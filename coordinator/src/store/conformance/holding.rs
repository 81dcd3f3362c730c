//! Studies are paused, resumed and put in another order; failures have budgets of their own.

use domain::attempt::AttemptEnd;
use domain::ids::WorkId;

use super::fixture::{Fixture, checkpoint, placement, run_ids, run_of, study_named};
use crate::store::read::ReadStore;
use crate::store::{AssignmentDetails, Numerics, ReportEvent, Retry, Store, StoreError};

pub(in crate::store) async fn a_paused_study_is_granted_nothing_and_gives_its_slots_back(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let study = study_named("tiny");
    let leased = f.grant_first(&worker).await;
    f.report(leased.token, checkpoint(20, true)).await;
    let before = f.queued_ids().await;
    assert_eq!(before.len(), 2, "the other run, and an evaluation");

    let changed = f.store.pause_study(&study, "the cluster is wanted").await.unwrap();
    assert_eq!(changed.preempted, [(leased.token, worker.clone())]);
    assert_eq!(changed.run_ids().len(), 2);
    assert!(changed.work.is_empty() && changed.revoked.is_empty());
    assert!(f.queued_ids().await.is_empty());
    assert_eq!(f.store.held_leases().await.unwrap(), [(leased.token, worker.clone())]);
    // A placement that was decided before the pause comes too late.
    assert!(f.store.grant(&[placement(&before[0], &worker)]).await.unwrap().is_empty());
    let again = f.store.pause_study(&study, "again").await.unwrap();
    assert!(again.settled.is_empty());
    assert_eq!(again.preempted, changed.preempted);

    // What it wrote before it left is measured after the pause, like what was queued before.
    f.report(leased.token, checkpoint(30, true)).await;
    f.finish(leased.token, AttemptEnd::Preempted).await;
    assert!(f.queued_ids().await.is_empty());
    assert!(f.store.held_leases().await.unwrap().is_empty());
    let resumed = f.store.resume_study(&study).await.unwrap();
    assert_eq!(resumed.run_ids().len(), 2);
    assert_eq!(f.queued_ids().await.len(), 4, "two runs and two evaluations");
    assert!(f.store.resume_study(&study).await.unwrap().run_ids().is_empty());
    let next = f.store.grant(&[placement(&leased.work, &worker)]).await.unwrap();
    assert_eq!(next[0].attempt.0, 2, "a pause costs no failure");
}

pub(in crate::store) async fn a_run_of_two_studies_is_held_only_when_both_are_paused(
    f: &Fixture<impl Store + ReadStore>,
) {
    f.prepared().await;
    f.apply(&[("name: tiny", "name: other")]).await;
    f.store.pause_study(&study_named("tiny"), "").await.unwrap();
    assert_eq!(f.queued_ids().await.len(), 2);
    f.store.pause_study(&study_named("other"), "").await.unwrap();
    assert!(f.queued_ids().await.is_empty());
    // A cancelled study wants nothing, so that its pause does not count.
    f.store.cancel_study(&study_named("other"), "enough").await.unwrap();
    f.store.resume_study(&study_named("tiny")).await.unwrap();
    assert_eq!(f.queued_ids().await.len(), 2);
}

pub(in crate::store) async fn data_for_a_paused_study_is_not_prepared(
    f: &Fixture<impl Store + ReadStore>,
) {
    f.apply(&[]).await;
    assert_eq!(f.queued_ids().await.len(), 1);
    f.store.pause_study(&study_named("tiny"), "").await.unwrap();
    assert!(f.queued_ids().await.is_empty());
    // Another study that needs the same data wants it now.
    f.apply(&[("name: tiny", "name: other"), ("tokens: 1e5", "tokens: 2e5")]).await;
    assert_eq!(f.queued_ids().await.len(), 1);
}

/// Aim: a hold is lifted when nobody holds any more, in whatever order studies were cancelled, paused
/// and retried.
pub(in crate::store) async fn no_hold_outlives_what_it_came_from(
    f: &Fixture<impl Store + ReadStore>,
) {
    f.apply(&[]).await;
    f.apply(&[("name: tiny", "name: other"), ("tokens: 1e5", "tokens: 2e5")]).await;
    let (tiny, other) = (study_named("tiny"), study_named("other"));
    // Only a paused study needs the data for a while; then a retried one does again.
    f.store.cancel_study(&other, "enough").await.unwrap();
    f.store.pause_study(&tiny, "").await.unwrap();
    assert!(f.queued_ids().await.is_empty());
    f.store.retry_study(&other, Retry::All).await.unwrap();
    assert_eq!(f.queued_ids().await.len(), 1, "the data of both");
    // Nobody pauses what nobody has.
    let run = run_ids(&[]).remove(0);
    f.store.cancel_study(&tiny, "enough").await.unwrap();
    f.store.retry_run(&run, Retry::All).await.unwrap();
    f.check().await;
    f.store.cancel_study(&other, "enough").await.unwrap();
    f.store.retry_run(&run, Retry::All).await.unwrap();
    assert_eq!(f.queued_ids().await.len(), 1, "the data of the one run");
    let failed = f.store.retry_study(&tiny, Retry::Failed).await.unwrap();
    assert!(failed.work.is_empty());
}

pub(in crate::store) async fn another_priority_moves_the_queue(
    f: &Fixture<impl Store + ReadStore>,
) {
    f.prepared().await;
    f.apply(&[("name: tiny", "name: longer"), ("tokens: 1e5", "tokens: 2e5")]).await;
    let first = |queue: Vec<WorkId>| run_of(&queue[0]);
    let short = run_ids(&[]);
    assert!(!short.contains(&first(f.queued_ids().await)), "the longest first");
    let changed = f.store.set_priority(&study_named("tiny"), 5).await.unwrap();
    assert_eq!(changed.run_ids().len(), 2);
    assert!(short.contains(&first(f.queued_ids().await)));
    assert_eq!(f.queue().await[0].priority, 5);
    let repeated = f.store.set_priority(&study_named("tiny"), 5).await.unwrap();
    assert!(repeated.run_ids().is_empty());
    let unknown = f.store.set_priority(&study_named("none"), 5).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })), "{unknown:?}");
}

pub(in crate::store) async fn a_retry_of_one_class_leaves_the_others(
    f: &Fixture<impl Store + ReadStore>,
) {
    let one_failure = "version: 1\nruntime: {max_failures: 1}";
    let worker = f.prepared_with(&[("version: 1", one_failure)]).await;
    let first = f.grant_first(&worker).await;
    f.finish(first.token, AttemptEnd::Bug).await;
    let second = f.grant_first(&worker).await;
    f.finish(second.token, AttemptEnd::BadCheckpoint).await;
    let study = study_named("tiny");
    let oom = Retry::Class(AttemptEnd::OutOfMemory);
    assert!(f.store.retry_study(&study, oom).await.unwrap().work.is_empty());
    let class = Retry::Class(AttemptEnd::BadCheckpoint);
    let changed = f.store.retry_study(&study, class).await.unwrap();
    assert_eq!(changed.run_ids(), [&run_of(&second.work)]);
    f.store.cancel_run(&run_of(&second.work), "enough").await.unwrap();
    let changed = f.store.retry_study(&study, Retry::Failed).await.unwrap();
    assert_eq!(changed.run_ids(), [&run_of(&first.work)], "what was cancelled stays");
}

pub(in crate::store) async fn a_run_that_did_not_fit_takes_half_as_much_at_a_time(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let works = f.queued_ids().await;
    let run = run_of(&works[0]);
    // The batch has 8 sequences. The first attempt does not even begin.
    for (n, before, expected) in [(1, 8, 4), (2, 4, 2), (3, 2, 1), (4, 1, 1)] {
        let granted = f.store.grant(&[placement(&works[0], &worker)]).await.unwrap().remove(0);
        if n > 1 {
            let numerics = Numerics { micro_batch_sequences: before, ..Numerics::of_a_cpu(1) };
            f.report(granted.token, ReportEvent::Started { numerics, resumed_from_step: 0 }).await;
        }
        f.finish(granted.token, AttemptEnd::OutOfMemory).await;
        f.store.retry_run(&run, Retry::All).await.unwrap();
        let view = f.store.run_view(&run).await.unwrap().unwrap();
        assert_eq!(view.summary.has_changed_numerics, n > 1, "after attempt {n}");
        let granted = f.store.grant(&[placement(&works[0], &worker)]).await.unwrap().remove(0);
        let assignment = f.store.assignment(granted.token).await.unwrap().unwrap();
        let AssignmentDetails::Train(details) = assignment.details else { panic!("a run") };
        assert_eq!(details.micro_batch_sequences, expected, "after attempt {n}");
        let fixed = details.numerics.map(|numerics| numerics.micro_batch_sequences);
        assert_eq!(fixed, (n > 1).then_some(expected), "after attempt {n}");
        f.finish(granted.token, AttemptEnd::Preempted).await;
    }
}

pub(in crate::store) async fn a_micro_batch_beyond_the_batch_is_halved_from_the_batch(
    f: &Fixture<impl Store + ReadStore>,
) {
    let too_many = "version: 1\nruntime: {micro_batch_sequences: 64}";
    let worker = f.prepared_with(&[("version: 1", too_many)]).await;
    let works = f.queued_ids().await;
    // The batch has 8 sequences, so that 32 of them would be the same work again.
    for expected in [4, 2] {
        let granted = f.store.grant(&[placement(&works[0], &worker)]).await.unwrap().remove(0);
        f.finish(granted.token, AttemptEnd::OutOfMemory).await;
        f.store.retry_run(&run_of(&works[0]), Retry::All).await.unwrap();
        let granted = f.store.grant(&[placement(&works[0], &worker)]).await.unwrap().remove(0);
        let assignment = f.store.assignment(granted.token).await.unwrap().unwrap();
        let AssignmentDetails::Train(details) = assignment.details else { panic!("a run") };
        assert_eq!(details.micro_batch_sequences, expected);
        f.finish(granted.token, AttemptEnd::Preempted).await;
    }
}

/// Grants a run and ends it, as often as it is queued directly again; how often.
async fn times(f: &Fixture<impl Store + ReadStore>, work: &WorkId, end: AttemptEnd) -> usize {
    let worker = f.worker().await;
    for n in 0..100 {
        let granted = f.store.grant(&[placement(work, &worker)]).await.unwrap();
        let Some(lease) = granted.first() else { return n };
        match end {
            // A machine that says so itself is not asked again at once.
            AttemptEnd::WorkerLost => {
                f.store.expire_leases(&[lease.token]).await.unwrap();
            }
            end => drop(f.finish(lease.token, end).await),
        }
    }
    panic!("it never ends")
}

pub(in crate::store) async fn each_way_to_fail_has_its_own_budget(
    f: &Fixture<impl Store + ReadStore>,
) {
    let at_once = "version: 1
runtime:
  retries:
    bug: {attempts: 3, pause_seconds: 0}
    bad_checkpoint: {attempts: 2, pause_seconds: 0}
    worker_lost: {attempts: 4, pause_seconds: 0}";
    f.prepared_with(&[("version: 1", at_once)]).await;
    let works = f.queued_ids().await;
    let (first, second) = (&works[0], &works[1]);
    let worker = f.worker().await;
    // One of another class in between spends nothing of the first class's budget.
    for end in [AttemptEnd::Bug, AttemptEnd::BadCheckpoint, AttemptEnd::Preempted] {
        let granted = f.store.grant(&[placement(first, &worker)]).await.unwrap().remove(0);
        f.finish(granted.token, end).await;
    }
    assert_eq!(times(f, first, AttemptEnd::Bug).await, 2);
    assert_eq!(times(f, second, AttemptEnd::WorkerLost).await, 4);
    f.store.retry_run(&run_of(first), Retry::Failed).await.unwrap();
    assert_eq!(times(f, first, AttemptEnd::BadCheckpoint).await, 2, "a retry gives a new budget");
}
