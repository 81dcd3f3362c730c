//! What attempts have to say, once and twice, in time and late.

use domain::attempt::AttemptEnd;
use domain::ids::{LeaseToken, WorkId};

use super::fixture::{Fixture, checkpoint, is_ended, last_step, placement, point, study};
use crate::store::read::ReadStore;
use crate::store::{AssignmentDetails, Finished, LogLevel, Numerics, ReportEvent, Reported, Store};

fn stored(reported: &Reported) -> bool {
    matches!(reported, Reported::Stored { .. })
}

pub(in crate::store) async fn a_data_point_queues_its_evaluation_once(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    let first = f.report(granted.token, checkpoint(20, true)).await;
    assert_eq!(first, Reported::Stored { work: granted.work.clone(), has_new_work: true });
    let second = f.report(granted.token, checkpoint(20, true)).await;
    assert_eq!(second, Reported::Stored { work: granted.work.clone(), has_new_work: false });
    let evaluations = f.queued_ids().await.into_iter().filter(|w| w.kind() == "evaluation");
    assert_eq!(evaluations.count(), 1);
    f.report(granted.token, checkpoint(25, false)).await;
    let evaluations = f.queued_ids().await.into_iter().filter(|w| w.kind() == "evaluation");
    assert_eq!(evaluations.count(), 1);
}

pub(in crate::store) async fn runs_with_the_same_weights_have_an_evaluation_each(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    for _ in 0..2 {
        let run = f.queued_ids().await.into_iter().find(|w| w.kind() == "run").unwrap();
        let granted = f.store.grant(&[placement(&run, &worker)]).await.unwrap().remove(0);
        f.report(granted.token, checkpoint(20, true)).await;
    }
    let evaluations = f.queued_ids().await.into_iter().filter(|w| w.kind() == "evaluation");
    assert_eq!(evaluations.count(), 2);
}

pub(in crate::store) async fn a_new_study_of_an_old_run_gets_its_evaluations(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    assert!(is_ended(&f.succeed(granted.token, last_step()).await));
    let before = f.queued_ids().await.into_iter().filter(|w| w.kind() == "evaluation").count();
    let more = "evaluate: [{task: validation_loss, sequences: 3}]\n        design:";
    f.apply(&[("name: tiny", "name: other"), ("design:", more)]).await;
    let after = f.queued_ids().await.into_iter().filter(|w| w.kind() == "evaluation").count();
    assert_eq!((before, after), (1, 2));
}

/// Aim: a study that asks more data points of a run under way gets those that can still be had, and
/// is told of the others. Method: it wants steps with a checkpoint, passed without one, and to come.
pub(in crate::store) async fn a_new_study_of_a_run_under_way_gets_its_data_points(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    let more = [("name: tiny", "name: other"), ("first_step: 20", "first_step: 2")];
    let wanted = study(&more).plan.cells[0].seedless.data_point_steps.clone();
    let &[first, second, third, last] = wanted.as_slice() else { panic!("{wanted:?}") };
    f.report(granted.token, point(second, 3.0)).await;
    f.report(granted.token, checkpoint(first, false)).await;
    let evaluations = async || {
        f.queued_ids().await.into_iter().filter(|work| work.kind() == "evaluation").count()
    };
    assert_eq!(evaluations().await, 0);
    let applied = f.apply(&more).await;
    assert_eq!(evaluations().await, 1, "of step {first}");
    assert_eq!(applied.n_missed_data_points, 1, "step {second}");
    let preempted: Vec<_> = applied.changed.preempted.iter().map(|(token, _)| *token).collect();
    assert_eq!(preempted, [granted.token], "the attempt does not know of step {third}");
    let again = f.apply(&more).await;
    assert_eq!((again.n_missed_data_points, again.changed.preempted.len()), (0, 0));
    f.finish(granted.token, AttemptEnd::Preempted).await;
    let next = f.store.grant(&[placement(&granted.work, &worker)]).await.unwrap().remove(0);
    let assignment = f.store.assignment(next.token).await.unwrap().unwrap();
    let AssignmentDetails::Train(details) = assignment.details else { panic!("a run") };
    let steps = &details.data_point_steps;
    assert!([first, second, third, last].iter().all(|step| steps.contains(step)), "{steps:?}");
}

/// Aim: damaged weights of one attempt do not fail a data point that the next attempt writes again.
pub(in crate::store) async fn an_evaluation_that_failed_is_queued_when_its_weights_come_again(
    f: &Fixture<impl Store + ReadStore>,
) {
    let one_failure = "version: 1\nruntime: {max_failures: 1}";
    let worker = f.prepared_with(&[("version: 1", one_failure)]).await;
    let first = f.grant_first(&worker).await;
    f.report(first.token, checkpoint(20, true)).await;
    f.store.expire_leases(&[first.token]).await.unwrap();
    let is_evaluation = |work: &WorkId| work.kind() == "evaluation";
    let evaluation = f.queued_ids().await.into_iter().find(is_evaluation).unwrap();
    let granted = f.store.grant(&[placement(&evaluation, &worker)]).await.unwrap().remove(0);
    f.finish(granted.token, AttemptEnd::BadCheckpoint).await;
    assert!(!f.queued_ids().await.iter().any(is_evaluation));
    let second = f.store.grant(&[placement(&first.work, &worker)]).await.unwrap().remove(0);
    f.report(second.token, checkpoint(20, true)).await;
    assert!(f.queued_ids().await.iter().any(is_evaluation));
}

pub(in crate::store) async fn a_stale_token_changes_nothing(f: &Fixture<impl Store + ReadStore>) {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    f.store.expire_leases(&[granted.token]).await.unwrap();
    let before = f.queued_ids().await;
    for token in [granted.token, LeaseToken(12_345)] {
        let events = vec![point(1, 2.0), checkpoint(20, true)];
        assert_eq!(f.store.report(token, events).await.unwrap(), Reported::Stale);
        assert_eq!(f.finish(token, AttemptEnd::Succeeded).await, Finished::Stale);
    }
    assert_eq!(f.queued_ids().await, before);
}

pub(in crate::store) async fn the_same_end_twice_is_answered_alike(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    assert!(is_ended(&f.succeed(granted.token, last_step()).await));
    let again = f.finish(granted.token, AttemptEnd::Succeeded).await;
    let Finished::Ended { end, changed } = again else { panic!("the end was known") };
    assert_eq!(end, AttemptEnd::Succeeded);
    assert!(changed.work.is_empty());
    assert_eq!(f.finish(granted.token, AttemptEnd::Bug).await, Finished::Stale);
}

pub(in crate::store) async fn a_success_without_a_result_is_a_bug(
    f: &Fixture<impl Store + ReadStore>,
) {
    f.apply(&[]).await;
    let worker = f.worker().await;
    let preparation = f.grant_first(&worker).await;
    let finished = f.finish(preparation.token, AttemptEnd::Succeeded).await;
    let Finished::Ended { end, .. } = finished else { panic!("the token was live") };
    assert_eq!(end, AttemptEnd::Bug);
}

pub(in crate::store) async fn a_diverged_run_is_over(f: &Fixture<impl Store + ReadStore>) {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    f.report(granted.token, point(3, f64::NAN)).await;
    assert!(is_ended(&f.finish(granted.token, AttemptEnd::Diverged).await));
    assert!(!f.queued_ids().await.contains(&granted.work));
}

/// Aim: the second attempt that finds a checkpoint damaged has it refused, and not the first, which
/// may have been on a sick machine, however often that one says it.
pub(in crate::store) async fn a_checkpoint_that_fails_twice_is_not_offered_again(
    f: &Fixture<impl Store + ReadStore>,
) {
    let offered = async |token| {
        let assignment = f.store.assignment(token).await.unwrap().unwrap();
        let AssignmentDetails::Train(details) = assignment.details else {
            panic!("a run is trained");
        };
        let checkpoints = details.checkpoints.iter();
        checkpoints.map(|offered| (offered.step, offered.has_failed)).collect::<Vec<_>>()
    };
    let refused = |step: u64| ReportEvent::CheckpointRefused {
        manifest_key: format!("{step}/manifest.json"),
        reason: "its hash is wrong".into(),
    };
    let worker = f.prepared().await;
    let first = f.grant_first(&worker).await;
    f.report(first.token, checkpoint(20, false)).await;
    f.report(first.token, checkpoint(30, false)).await;
    for _ in 0..2 {
        f.report(first.token, refused(30)).await;
        assert_eq!(offered(first.token).await, [(30, false), (20, false)]);
    }
    f.store.expire_leases(&[first.token]).await.unwrap();
    let again = placement(&first.work, &worker);
    let second = f.store.grant(&[again]).await.unwrap().remove(0);
    assert_eq!(offered(second.token).await, [(30, true), (20, false)]);
    f.report(second.token, refused(30)).await;
    f.report(second.token, refused(20)).await;
    assert_eq!(offered(second.token).await, [(20, false)]);
    let events = f.store.events_after(0, 1000).await.unwrap();
    let n_of = |kind: &str| events.iter().filter(|event| event.kind == kind).count();
    assert_eq!((n_of("checkpoint_doubted"), n_of("checkpoint_refused")), (2, 1));
}

pub(in crate::store) async fn the_first_attempt_fixes_the_numerics(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let started = |threads, resumed_from_step| ReportEvent::Started {
        numerics: Numerics::of_a_cpu(threads),
        resumed_from_step,
    };
    let first = f.grant_first(&worker).await;
    assert!(stored(&f.report(first.token, started(2, 0)).await));
    f.store.expire_leases(&[first.token]).await.unwrap();
    let queue = f.queue().await;
    let queued = queue.iter().find(|queued| queued.work == first.work).unwrap();
    assert_eq!(queued.needs.numerics, Some(Numerics::of_a_cpu(2)));
    let placements = [placement(&first.work, &worker)];
    let second = f.store.grant(&placements).await.unwrap().remove(0);
    assert!(stored(&f.report(second.token, started(3, 10)).await));
    f.store.expire_leases(&[second.token]).await.unwrap();
    let queue = f.queue().await;
    let queued = queue.iter().find(|queued| queued.work == first.work).unwrap();
    assert_eq!(queued.needs.numerics, Some(Numerics::of_a_cpu(2)));
}

pub(in crate::store) async fn a_report_is_stored_whole_and_may_be_repeated(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    let log = ReportEvent::Log { at_ms: 1, level: LogLevel::Info, text: "begun".into() };
    let mut events = vec![log];
    events.extend((1..=1000).map(|step| point(step, 1.0 / step as f64)));
    for _ in 0..2 {
        assert!(stored(&f.store.report(granted.token, events.clone()).await.unwrap()));
    }
}

pub(in crate::store) async fn an_evaluation_ends_with_its_value(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let run = f.grant_first(&worker).await;
    f.report(run.token, checkpoint(20, true)).await;
    let evaluation = f.grant_first(&worker).await;
    assert_eq!(evaluation.work.kind(), "evaluation");
    let assignment = f.store.assignment(evaluation.token).await.unwrap().unwrap();
    let AssignmentDetails::Evaluate { checkpoint_manifest, .. } = assignment.details else {
        panic!("an evaluation evaluates");
    };
    assert_eq!(checkpoint_manifest.key, "20/manifest.json");
    let result = ReportEvent::Evaluation {
        name: "validation_loss_nats".into(),
        value: 3.25,
        standard_error: Some(0.01),
        n_tokens: 1000,
    };
    f.report(evaluation.token, result).await;
    assert!(is_ended(&f.finish(evaluation.token, AttemptEnd::Succeeded).await));
}
