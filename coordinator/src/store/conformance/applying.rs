//! Studies come, change, are cancelled and retried.

use domain::attempt::AttemptEnd;
use domain::ids::WorkId;
use domain::run::RunState;

use super::fixture::{
    Fixture, checkpoint, is_ended, preparation_result, run_ids, run_of, source, study, study_named,
};
use crate::store::read::ReadStore;
use crate::store::{ApplyOutcome, Retry, Store, StoreError};

pub(in crate::store) async fn a_study_without_its_sources_leaves_nothing(
    f: &Fixture<impl Store + ReadStore>,
) {
    let outcome = f.store.apply_study(study(&[])).await.unwrap();
    assert_eq!(outcome, ApplyOutcome::MissingSources(vec![source().hash]));
    assert!(f.queue().await.is_empty());
    let applied = f.apply(&[]).await;
    assert!(!applied.is_update);
}

pub(in crate::store) async fn applying_twice_makes_nothing_new(
    f: &Fixture<impl Store + ReadStore>,
) {
    let first = f.apply(&[]).await;
    assert_eq!((first.n_new_runs, first.n_reused_runs, first.is_update), (2, 0, false));
    let second = f.apply(&[]).await;
    assert_eq!((second.n_new_runs, second.n_reused_runs, second.is_update), (0, 2, true));
    assert_eq!(second.n_removed_cells, 0);
    assert!(second.changed.work.is_empty());
}

pub(in crate::store) async fn runs_wait_for_their_data(f: &Fixture<impl Store + ReadStore>) {
    f.apply(&[]).await;
    let queue = f.queued_ids().await;
    assert_eq!(queue.len(), 1);
    assert_eq!(queue[0].kind(), "preparation");
}

pub(in crate::store) async fn prepared_data_releases_the_runs(f: &Fixture<impl Store + ReadStore>) {
    f.prepared().await;
    assert_eq!(f.queued_ids().await.iter().filter(|work| work.kind() == "run").count(), 2);
}

pub(in crate::store) async fn data_that_cannot_be_made_fails_the_runs(
    f: &Fixture<impl Store + ReadStore>,
) {
    let applied = f.apply(&[]).await;
    let worker = f.worker().await;
    // The second time it is not the machine.
    for _ in 0..2 {
        let granted = f.grant_first(&worker).await;
        assert!(is_ended(&f.finish(granted.token, AttemptEnd::BadData).await));
        assert!(f.queue().await.is_empty());
        f.store.requeue(&[granted.work]).await.unwrap();
    }
    // A retry brings the data first, then the runs.
    let changed = f.store.retry_study(&applied.study_id, Retry::All).await.unwrap();
    assert_eq!(changed.run_ids().len(), 2);
    assert!(
        changed
            .work
            .iter()
            .filter(|(work, _)| work.kind() == "run")
            .all(|(_, state)| { *state == RunState::Waiting })
    );
    assert_eq!(f.queued_ids().await.len(), 1);
}

/// Aim: data that is found damaged does not fail its study for ever. Method: a run fails by it as
/// often as it may, and is retried; the data is made again first, and what was queued waits for it.
pub(in crate::store) async fn damaged_data_is_made_again(f: &Fixture<impl Store + ReadStore>) {
    f.prepared().await;
    let study = f.apply(&[]).await.study_id;
    let worker = f.worker().await;
    let mut failed = None;
    for _ in 0..2 {
        let granted = f.grant_first(&worker).await;
        assert!(is_ended(&f.finish(granted.token, AttemptEnd::BadData).await));
        f.store.requeue(std::slice::from_ref(&granted.work)).await.unwrap();
        failed = Some(granted.work);
    }
    let failed = failed.unwrap();
    let others = Retry::Class(AttemptEnd::Bug);
    assert!(f.store.retry_study(&study, others).await.unwrap().work.is_empty());
    let changed = f.store.retry_study(&study, Retry::Failed).await.unwrap();
    let became: Vec<(&str, &RunState)> =
        changed.work.iter().map(|(work, state)| (work.kind(), state)).collect();
    let expected = [
        ("preparation", &RunState::Queued),
        ("run", &RunState::Waiting),
        ("run", &RunState::Waiting),
    ];
    assert_eq!(became, expected);
    assert_eq!(changed.work[2].0, failed, "the other one was queued, and is held back");
    // A second retry finds it on its way.
    assert!(f.store.retry_study(&study, Retry::All).await.unwrap().work.is_empty());
    let queue = f.queued_ids().await;
    assert_eq!(queue.iter().map(WorkId::kind).collect::<Vec<_>>(), ["preparation"]);
    let granted = f.grant_first(&worker).await;
    f.report(granted.token, preparation_result()).await;
    assert!(is_ended(&f.finish(granted.token, AttemptEnd::Succeeded).await));
    assert_eq!(f.queued_ids().await.iter().filter(|work| work.kind() == "run").count(), 2);
}

pub(in crate::store) async fn an_edited_study_cancels_what_it_dropped(
    f: &Fixture<impl Store + ReadStore>,
) {
    f.prepared().await;
    let edit = [("[1e-3, 2e-3]", "[2e-3, 3e-3]")];
    let applied = f.apply(&edit).await;
    assert_eq!((applied.n_new_runs, applied.n_reused_runs), (1, 1));
    assert_eq!(applied.n_removed_cells, 1);
    let mut queued: Vec<String> = f.queued_ids().await.iter().map(ToString::to_string).collect();
    let mut wanted: Vec<String> = run_ids(&edit).iter().map(ToString::to_string).collect();
    queued.sort();
    wanted.sort();
    assert_eq!(queued, wanted);
    // Going back queues the cancelled run again.
    assert_eq!(f.apply(&[]).await.n_reused_runs, 2);
    assert_eq!(f.queued_ids().await.len(), 2);
}

pub(in crate::store) async fn a_run_of_two_studies_survives_the_cancel_of_one(
    f: &Fixture<impl Store + ReadStore>,
) {
    f.prepared().await;
    let other = f.apply(&[("name: tiny", "name: other"), ("[1e-3, 2e-3]", "[1e-3]")]).await;
    assert_eq!((other.n_new_runs, other.n_reused_runs, other.is_update), (0, 1, false));
    let first = f.apply(&[]).await;
    let changed = f.store.cancel_study(&first.study_id, "enough").await.unwrap();
    assert_eq!(changed.run_ids(), [&run_ids(&[])[1]]);
    let again = f.store.cancel_study(&first.study_id, "enough").await.unwrap();
    assert!(again.work.is_empty());
    let changed = f.store.cancel_study(&other.study_id, "enough").await.unwrap();
    assert_eq!(changed.run_ids(), [&run_ids(&[])[0]]);
    assert!(f.queue().await.is_empty());
}

pub(in crate::store) async fn a_cancelled_study_can_be_retried(
    f: &Fixture<impl Store + ReadStore>,
) {
    f.prepared().await;
    let study = f.apply(&[]).await.study_id;
    f.store.cancel_study(&study, "enough").await.unwrap();
    let changed = f.store.retry_study(&study, Retry::All).await.unwrap();
    assert_eq!(changed.run_ids().len(), 2);
    assert_eq!(f.queued_ids().await.len(), 2);
    assert!(f.store.retry_study(&study, Retry::All).await.unwrap().work.is_empty());
}

pub(in crate::store) async fn applying_a_cancelled_study_measures_its_checkpoints(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    f.report(granted.token, checkpoint(20, true)).await;
    let study = f.apply(&[]).await.study_id;
    f.store.cancel_study(&study, "enough").await.unwrap();
    assert!(f.queued_ids().await.is_empty());
    f.apply(&[]).await;
    assert!(f.queued_ids().await.iter().any(|work| work.kind() == "evaluation"));
}

pub(in crate::store) async fn the_priority_is_the_largest_over_the_studies(
    f: &Fixture<impl Store + ReadStore>,
) {
    f.prepared().await;
    let urgent = "runtime: {priority: 7}\nname: urgent";
    f.apply(&[("name: tiny", urgent), ("[1e-3, 2e-3]", "[1e-3]")]).await;
    let queue = f.queue().await;
    let priority = |index: usize| {
        let run = run_ids(&[])[index].clone();
        queue.iter().find(|q| q.work.as_str() == run.as_str()).unwrap().priority
    };
    assert_eq!((priority(0), priority(1)), (7, 0));
}

pub(in crate::store) async fn verbs_for_a_long_study_reach_every_run_and_no_other(
    f: &Fixture<impl Store + ReadStore>,
) {
    // Aim: what is read and written many at a time loses nothing where one lot ends. Method: 300
    // runs, of which another study has every tenth, one is leased and one has failed.
    let rates = |step: usize| {
        let list: Vec<String> = (1..=300).step_by(step).map(|n| format!("{n}e-6")).collect();
        format!("[{}]", list.join(", "))
    };
    let worker = f.prepared().await;
    f.store.cancel_study(&study_named("tiny"), "").await.unwrap();
    let (all, tenth) = (rates(1), rates(10));
    let long = [("name: tiny", "name: long\nruntime: {max_failures: 1}"), ("[1e-3, 2e-3]", &*all)];
    let few = [("name: tiny", "name: few"), ("[1e-3, 2e-3]", &*tenth)];
    let (long_id, few_id) = (f.apply(&long).await.study_id, f.apply(&few).await.study_id);
    let leased = f.grant_first(&worker).await;
    let failed = f.grant_first(&worker).await;
    f.finish(failed.token, AttemptEnd::Bug).await;

    let changed = f.store.cancel_study(&long_id, "enough").await.unwrap();
    let shared = run_ids(&few);
    assert_eq!(shared.len(), 30);
    let is_shared = |work: &WorkId| shared.contains(&run_of(work));
    let (leased_is_shared, failed_is_shared) = (is_shared(&leased.work), is_shared(&failed.work));
    assert_eq!(changed.run_ids().len(), 270 - usize::from(!failed_is_shared));
    assert!(changed.run_ids().iter().all(|run| !shared.contains(run)));
    assert_eq!(changed.revoked.len(), usize::from(!leased_is_shared));
    let n_left = |is_shared: bool| usize::from(is_shared);
    let n_open = 30 - n_left(leased_is_shared) - n_left(failed_is_shared);
    assert_eq!(f.queued_ids().await.len(), n_open);

    // All of it comes back: what was cancelled, and what failed.
    let retried = f.store.retry_study(&long_id, Retry::All).await.unwrap();
    assert_eq!(retried.run_ids().len(), 270 + n_left(failed_is_shared));
    assert!(f.store.retry_study(&long_id, Retry::All).await.unwrap().work.is_empty());
    f.check().await;

    // An edit that leaves the thirty cancels the rest, and one that has all of them again asks for
    // them again.
    let shorter = [long[0], ("[1e-3, 2e-3]", &*tenth)];
    let applied = f.apply(&shorter).await;
    assert_eq!((applied.n_removed_cells, applied.n_reused_runs), (270, 30));
    assert_eq!(applied.changed.run_ids().len(), 270);
    let applied = f.apply(&long).await;
    assert_eq!((applied.n_new_runs, applied.n_reused_runs), (0, 300));
    assert_eq!(applied.changed.run_ids().len(), 270);
    f.store.cancel_study(&few_id, "enough").await.unwrap();
    assert_eq!(f.queued_ids().await.len(), 300 - n_left(leased_is_shared));
}

pub(in crate::store) async fn what_is_not_there_is_not_found(f: &Fixture<impl Store + ReadStore>) {
    let run = f.store.cancel_run(&"r_none".parse().unwrap(), "x").await;
    assert!(matches!(run, Err(StoreError::NotFound { kind: "run", .. })), "{run:?}");
    let study = f.store.cancel_study(&"s_none".parse().unwrap(), "x").await;
    assert!(matches!(study, Err(StoreError::NotFound { kind: "study", .. })), "{study:?}");
    let retry = f.store.retry_run(&"r_none".parse().unwrap(), Retry::All).await;
    assert!(matches!(retry, Err(StoreError::NotFound { kind: "run", .. })), "{retry:?}");
}
