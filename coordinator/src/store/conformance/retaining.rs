//! Rolling checkpoints are kept as long as something may depend on them, and no longer.

use domain::attempt::AttemptEnd;
use domain::ids::{ContentHash, LeaseToken, RunId};

use super::fixture::{Fixture, is_ended, last_step, placement, point, run_of, study};
use super::trunks::{begin, details, offered, runs, shared, work};
use crate::store::read::ReadStore;
use crate::store::{Artifact, ReportEvent, Store, SupersededCheckpoint};

/// Runs and checkpoints are never as many in a test.
const ALL: u32 = 1000;

/// A checkpoint where a trainer puts it.
fn laid(run: &RunId, attempt: u32, step: u64, is_data_point: bool) -> ReportEvent {
    let artifact = |name: &str| {
        let key = format!("runs/{run}/{attempt}-7/{step}/{name}");
        Artifact { hash: ContentHash::of(key.as_bytes()), key, n_bytes: 10 }
    };
    ReportEvent::Checkpoint {
        step,
        manifest: artifact("manifest.json"),
        weights: artifact("model.safetensors"),
        is_data_point,
        n_bytes: 100,
    }
}

fn steps(found: &[SupersededCheckpoint]) -> Vec<u64> {
    found.iter().map(|checkpoint| checkpoint.step).collect()
}

async fn leave(
    f: &Fixture<impl Store + ReadStore>,
    token: LeaseToken,
    run: &RunId,
    steps: impl IntoIterator<Item = u64>,
) {
    for step in steps {
        f.report(token, laid(run, 1, step, false)).await;
    }
}

/// Marks all that is superseded, and answers what may be removed by now.
async fn swept(f: &Fixture<impl Store + ReadStore>) -> Vec<u64> {
    f.store.supersede_checkpoints(ALL).await.unwrap();
    assert_eq!(f.store.supersede_checkpoints(ALL).await.unwrap(), 0);
    f.check().await;
    steps(&f.store.superseded_checkpoints(ALL).await.unwrap())
}

pub(in crate::store) async fn the_last_three_checkpoints_and_the_data_points_are_kept(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    let run = run_of(&granted.work);
    f.report(granted.token, laid(&run, 1, 20, true)).await;
    leave(f, granted.token, &run, [10, 30, 31, 32]).await;
    // The data point stands in for the first, as a rolling one would.
    f.store.supersede_checkpoints(ALL).await.unwrap();
    // An attempt that has not said that it has started may be about to read one.
    assert_eq!(swept(f).await, [0; 0]);
    begin_at(f, granted.token, 0).await;
    assert_eq!(swept(f).await, [10]);
    leave(f, granted.token, &run, [33]).await;
    assert_eq!(swept(f).await, [10, 30]);
    assert_eq!(offered(&details(f, granted.token).await), [33, 32, 31, 20]);

    let found = f.store.superseded_checkpoints(1).await.unwrap();
    for _ in 0..2 {
        f.store.note_removed(found.clone()).await.unwrap();
    }
    assert_eq!(swept(f).await, [30]);
    let view = f.store.run_view(&run).await.unwrap().unwrap();
    let of = |is_superseded: bool| {
        let such = view.checkpoints.iter().filter(|one| one.is_superseded == is_superseded);
        such.map(|one| one.step).collect::<Vec<_>>()
    };
    assert_eq!((of(true), of(false)), (vec![10, 30], vec![20, 31, 32, 33]));
    let events = f.store.events_after(0, 1000).await.unwrap();
    let told = events.iter().filter(|event| event.kind == "checkpoint_superseded");
    assert_eq!(told.count(), 2);

    // A run that has succeeded goes on from none.
    f.report(granted.token, laid(&run, 1, last_step(), true)).await;
    assert!(is_ended(&f.finish(granted.token, AttemptEnd::Succeeded).await));
    assert_eq!(swept(f).await, [30, 31, 32, 33]);
}

async fn begin_at(f: &Fixture<impl Store + ReadStore>, token: LeaseToken, step: u64) {
    let numerics = super::trunks::numerics();
    f.report(token, ReportEvent::Started { numerics, resumed_from_step: step }).await;
}

/// Aim: what is in doubt stands in for nothing, and what lies elsewhere is not touched.
pub(in crate::store) async fn only_what_is_sound_stands_in_for_a_checkpoint(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let first = f.grant_first(&worker).await;
    let run = run_of(&first.work);
    begin_at(f, first.token, 0).await;
    f.report(first.token, super::fixture::checkpoint(5, false)).await;
    leave(f, first.token, &run, [10, 11, 12]).await;
    f.store.expire_leases(&[first.token]).await.unwrap();
    let second = f.store.grant(&[placement(&first.work, &worker)]).await.unwrap().remove(0);
    let manifest_key = format!("runs/{run}/1-7/12/manifest.json");
    let doubted = ReportEvent::CheckpointRefused { manifest_key, reason: "torn".into() };
    f.report(second.token, doubted).await;
    begin_at(f, second.token, 11).await;
    f.report(second.token, laid(&run, 2, 13, false)).await;
    assert_eq!(swept(f).await, [0; 0]);
    f.report(second.token, laid(&run, 2, 14, false)).await;
    assert_eq!(swept(f).await, [10]);
}

/// Aim: a checkpoint that a later study wants measured is none to remove, and one that is marked is
/// none to measure.
pub(in crate::store) async fn a_data_point_of_another_study_is_kept(
    f: &Fixture<impl Store + ReadStore>,
) {
    let more = [("name: tiny", "name: other"), ("first_step: 20", "first_step: 2")];
    let wanted = study(&more).plan.cells[0].seedless.data_point_steps.clone();
    let &[first, second, ..] = wanted.as_slice() else { panic!("{wanted:?}") };
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    let run = run_of(&granted.work);
    begin_at(f, granted.token, 0).await;
    leave(f, granted.token, &run, [first, second, second + 1, second + 2]).await;
    f.report(granted.token, point(second + 2, 3.0)).await;
    assert_eq!(swept(f).await, [first]);
    assert_eq!(f.apply(&more).await.n_missed_data_points, 1, "step {first}");
    leave(f, granted.token, &run, second + 3..second + 6).await;
    assert_eq!(swept(f).await, [first, second + 1, second + 2]);
}

/// Aim: what another run may yet go on from is kept until that run needs it no more.
pub(in crate::store) async fn a_branch_keeps_what_it_may_begin_from(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared_with(&shared()).await;
    let [(short, branch, last), (middle, ..), _] = runs();
    let source = begin(f, &short, &worker).await;
    leave(f, source, &short, branch - 4..=branch).await;
    // All before it have three between them and the branch, or are at it.
    assert_eq!(swept(f).await, [branch - 4, branch - 3]);
    let other = f.store.grant(&[placement(&work(&middle), &worker)]).await.unwrap().remove(0);
    // It may be about to read what it was told of.
    assert_eq!(swept(f).await, [0; 0]);
    assert_eq!(offered(&details(f, other.token).await), [branch, branch - 1, branch - 2]);
    begin_at(f, other.token, branch).await;
    leave(f, source, &short, branch + 1..branch + 4).await;
    assert_eq!(swept(f).await, [branch - 4, branch - 3]);
    f.report(source, laid(&short, 1, last, true)).await;
    assert!(is_ended(&f.finish(source, AttemptEnd::Succeeded).await));
    let rest: Vec<u64> = (branch + 1..branch + 4).collect();
    assert_eq!(swept(f).await, [&[branch - 4, branch - 3][..], &rest].concat());
}

/// Aim: workers that are lost count in a row only as long as nothing comes of it.
pub(in crate::store) async fn a_run_that_gets_on_may_lose_as_many_workers_again(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let n_losses = async |work: &domain::ids::WorkId| {
        let snapshot = f.store.snapshot().await.unwrap();
        snapshot.work.into_iter().find(|one| one.id == work.as_str()).unwrap().n_losses
    };
    let mut granted = f.grant_first(&worker).await;
    let run = run_of(&granted.work);
    for lost in 1..3 {
        f.store.expire_leases(&[granted.token]).await.unwrap();
        assert_eq!(n_losses(&granted.work).await, lost);
        let again = placement(&granted.work, &worker);
        granted = f.store.grant(&[again]).await.unwrap().remove(0);
    }
    begin_at(f, granted.token, 0).await;
    assert_eq!(n_losses(&granted.work).await, 2);
    f.report(granted.token, laid(&run, 3, 5, false)).await;
    assert_eq!(n_losses(&granted.work).await, 0);
}
