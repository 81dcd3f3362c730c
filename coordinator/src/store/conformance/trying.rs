//! Changes that are tried out: each says exactly what it would do, and leaves nothing.

use std::future::Future;

use domain::attempt::AttemptEnd;
use domain::ids::RunId;

use super::fixture::{Fixture, checkpoint, run_of, study, study_named};
use crate::store::read::ReadStore;
use crate::store::{ApplyOutcome, Changed, Retry, Store, StoreError, trying_out};

/// Everything that the store shows of what may change.
async fn shown(f: &Fixture<impl Store + ReadStore>) -> String {
    let runs = f.store.run_list(None).await.unwrap();
    let (studies, snapshot) = (f.store.study_list().await, f.store.snapshot().await);
    let events = f.store.last_event_id().await.unwrap();
    format!("{runs:?} {:?} {:?} {events}", studies.unwrap(), snapshot.unwrap())
}

/// Tries a verb out, twice, and then carries it out; the runs that it concerned.
async fn the_same<F>(f: &Fixture<impl Store + ReadStore>, verb: impl Fn() -> F) -> Vec<RunId>
where
    F: Future<Output = Result<Changed, StoreError>>,
{
    let before = shown(f).await;
    let tried = trying_out(true, verb()).await.unwrap();
    assert_eq!(shown(f).await, before, "what is tried out leaves nothing");
    let again = trying_out(true, verb()).await.unwrap();
    let done = trying_out(false, verb()).await.unwrap();
    assert_eq!((&tried, &again), (&done, &done));
    if !done.run_ids().is_empty() {
        assert_ne!(shown(f).await, before, "what is done is seen");
    }
    done.run_ids().into_iter().cloned().collect()
}

pub(in crate::store) async fn what_is_tried_out_is_exact_and_leaves_nothing(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    // Another study has the first of the two runs too.
    f.apply(&[("name: tiny", "name: other"), ("values: [1e-3, 2e-3]", "values: [1e-3]")]).await;
    let (tiny, other) = (study_named("tiny"), study_named("other"));
    let leased = f.grant_first(&worker).await;
    f.report(leased.token, checkpoint(20, true)).await;
    let (store, run) = (&f.store, run_of(&leased.work));

    assert_eq!(the_same(f, || store.set_priority(&tiny, 7)).await.len(), 2);
    assert_eq!(the_same(f, || store.pause_study(&other, "a look")).await, []);
    assert_eq!(the_same(f, || store.resume_study(&other)).await, []);
    assert_eq!(the_same(f, || store.pause_study(&tiny, "a look")).await.len(), 2);
    assert_eq!(the_same(f, || store.resume_study(&tiny)).await.len(), 2);
    // The other study still wants one of the two.
    let cancelled = the_same(f, || store.cancel_study(&tiny, "enough")).await;
    assert!(cancelled.len() <= 2, "{cancelled:?}");
    the_same(f, || store.retry_study(&tiny, Retry::All)).await;
    the_same(f, || store.cancel_run(&run, "enough")).await;
    the_same(f, || store.retry_run(&run, Retry::Failed)).await;
    assert_eq!(the_same(f, || store.retry_run(&run, Retry::All)).await.len(), 1);
    f.check().await;
}

/// Aim: a right is ended by the change alone, and not by trying it out.
pub(in crate::store) async fn a_cancel_that_is_tried_out_takes_no_right(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let leased = f.grant_first(&worker).await;
    let tried = trying_out(true, f.store.cancel_study(&study_named("tiny"), "enough")).await;
    assert_eq!(tried.unwrap().revoked, [(leased.token, worker.clone())]);
    assert!(f.store.assignment(leased.token).await.unwrap().is_some());
    f.succeed(leased.token, super::fixture::last_step()).await;
    f.check().await;
}

/// A verb that fails fails as it would, and one that is tried out beside real ones undoes none.
pub(in crate::store) async fn what_is_tried_out_beside_changes_undoes_none(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let leased = f.grant_first(&worker).await;
    let tiny = study_named("tiny");
    let unknown = trying_out(true, f.store.cancel_study(&study_named("none"), "")).await;
    assert!(matches!(unknown, Err(StoreError::NotFound { .. })), "{unknown:?}");
    let applied =
        trying_out(true, f.store.apply_study(study(&[("name: tiny", "name: new")]))).await;
    assert!(matches!(applied, Ok(ApplyOutcome::Applied(applied)) if applied.n_reused_runs == 2));
    let (tried, ended, prioritised) = tokio::join!(
        trying_out(true, f.store.cancel_study(&tiny, "enough")),
        f.finish(leased.token, AttemptEnd::Preempted),
        f.store.set_priority(&tiny, 5),
    );
    assert!(super::fixture::is_ended(&ended));
    assert_eq!((tried.unwrap().run_ids().len(), prioritised.unwrap().settled.len()), (2, 2));
    assert!(f.queue().await.iter().all(|work| work.priority == 5));
    assert_eq!(f.store.study_list().await.unwrap().studies.len(), 1);
    f.check().await;
}
