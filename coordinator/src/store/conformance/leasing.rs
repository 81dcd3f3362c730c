//! Leases are granted, end, and are taken over; workers come and go.

use domain::attempt::AttemptEnd;
use domain::ids::{LeaseToken, WorkerId};
use domain::run::RunState;
use domain::worker::WorkerState;

use super::fixture::{Fixture, checkpoint, is_ended, last_step, placement, registration};
use crate::store::read::ReadStore;
use crate::store::{AssignmentDetails, Changed, Finished, Retry, Store, WorkerToRegister};

pub(in crate::store) async fn work_is_granted_once_and_tokens_grow(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let works = f.queued_ids().await;
    let placements: Vec<_> = works.iter().map(|work| placement(work, &worker)).collect();
    let granted = f.store.grant(&placements).await.unwrap();
    assert_eq!(granted.len(), 2);
    assert!(granted[0].token < granted[1].token);
    assert!(f.store.grant(&placements).await.unwrap().is_empty());
    assert_eq!(f.store.live_leases().await.unwrap().len(), 2);
}

pub(in crate::store) async fn only_an_active_worker_is_granted_work(
    f: &Fixture<impl Store + ReadStore>,
) {
    f.apply(&[]).await;
    let work = f.queued_ids().await.remove(0);
    let joining = registration("w_joining", "machine", 9);
    let joining = f.store.register_worker(joining).await.unwrap().worker;
    assert!(f.store.grant(&[placement(&work, &joining)]).await.unwrap().is_empty());
    let draining = f.worker().await;
    assert!(f.store.drain_worker(&draining).await.unwrap());
    assert!(f.store.grant(&[placement(&work, &draining)]).await.unwrap().is_empty());
    let unknown = "w_unknown".parse().unwrap();
    assert!(f.store.grant(&[placement(&work, &unknown)]).await.unwrap().is_empty());
}

/// A request may come twice, the second time after its worker has confirmed the first answer, and
/// nobody would confirm the second.
pub(in crate::store) async fn a_worker_that_registers_twice_stays_confirmed(
    f: &Fixture<impl Store + ReadStore>,
) {
    let first = registration("w_first", "machine", 10);
    let again = WorkerToRegister { proposed_id: "w_again".parse().unwrap(), ..first.clone() };
    let worker = f.store.register_worker(first).await.unwrap().worker;
    assert!(f.store.confirm_worker(&worker).await.unwrap());
    assert_eq!(f.store.register_worker(again).await.unwrap().worker, worker);
    let live = f.store.live_workers().await.unwrap();
    assert_eq!(live.iter().map(|w| w.state).collect::<Vec<_>>(), [WorkerState::Active]);
}

pub(in crate::store) async fn an_assignment_says_all_that_is_needed(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    f.report(granted.token, checkpoint(20, true)).await;
    f.report(granted.token, checkpoint(30, false)).await;
    let assignment = f.store.assignment(granted.token).await.unwrap().unwrap();
    assert_eq!(assignment.work, granted.work);
    let AssignmentDetails::Train(details) = assignment.details else {
        panic!("a run is trained");
    };
    let steps: Vec<u64> = details.checkpoints.iter().map(|offered| offered.step).collect();
    assert_eq!(steps, [30, 20]);
    assert_eq!(details.data_manifest.key, "data/manifest.json");
    assert_eq!(details.numerics, None);
    assert_eq!(f.store.assignment(LeaseToken(999)).await.unwrap(), None);
}

pub(in crate::store) async fn an_expired_lease_is_given_to_another_worker(
    f: &Fixture<impl Store + ReadStore>,
) {
    let first = f.prepared().await;
    let lost = f.grant_first(&first).await;
    let changed = f.store.expire_leases(&[lost.token]).await.unwrap();
    assert_eq!(changed.revoked, [(lost.token, first)]);
    assert_eq!(f.store.expire_leases(&[lost.token]).await.unwrap(), Changed::default());
    assert!(f.store.assignment(lost.token).await.unwrap().is_none());
    let second = f.worker().await;
    let placements = [placement(&lost.work, &second)];
    let granted = f.store.grant(&placements).await.unwrap().remove(0);
    assert_eq!(granted.attempt.0, 2);
    assert!(granted.token > lost.token);
    assert_eq!(f.finish(lost.token, AttemptEnd::Succeeded).await, Finished::Stale);
    assert!(is_ended(&f.succeed(granted.token, last_step()).await));
}

pub(in crate::store) async fn a_failure_backs_off_until_its_budget_is_spent(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    assert!(is_ended(&f.finish(granted.token, AttemptEnd::Bug).await));
    assert!(!f.queued_ids().await.contains(&granted.work));
    let backoffs = f.store.backoffs(10).await.unwrap();
    assert_eq!(backoffs.iter().map(|b| &b.work).collect::<Vec<_>>(), [&granted.work]);
    assert!((500..=1_000).contains(&backoffs[0].pause_ms), "{backoffs:?}");
    let changed = f.store.requeue(std::slice::from_ref(&granted.work)).await.unwrap();
    assert_eq!(changed.work, [(granted.work.clone(), RunState::Queued)]);
    assert!(f.store.backoffs(10).await.unwrap().is_empty());
    let changed = f.store.requeue(std::slice::from_ref(&granted.work)).await.unwrap();
    assert_eq!(changed, Changed::default(), "it does not back off any more");
    // A retry by hand does not wait.
    let granted = f.grant_first(&worker).await;
    assert!(is_ended(&f.finish(granted.token, AttemptEnd::Bug).await));
    let domain::ids::WorkId::Run(run) = &granted.work else { panic!("a run was granted") };
    f.store.retry_run(run, Retry::All).await.unwrap();
    assert!(f.queued_ids().await.contains(&granted.work));
}

pub(in crate::store) async fn a_worker_that_leaves_gives_its_work_back(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    let changed = f.store.deregister_worker(&worker).await.unwrap();
    assert_eq!(changed.revoked, [(granted.token, worker.clone())]);
    assert!(f.queued_ids().await.contains(&granted.work));
    assert!(f.store.live_workers().await.unwrap().is_empty());
    assert_eq!(f.store.deregister_worker(&worker).await.unwrap(), Changed::default());
}

pub(in crate::store) async fn a_lost_worker_loses_its_leases_and_may_come_back(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    let changed = f.store.close_lost_workers(std::slice::from_ref(&worker)).await.unwrap();
    assert_eq!(changed.revoked, [(granted.token, worker.clone())]);
    assert!(!f.store.confirm_worker(&worker).await.unwrap());
    let again = registration("w_0", "machine", 0);
    let registered = f.store.register_worker(again).await.unwrap();
    assert_eq!(registered.worker, worker);
    assert!(f.store.confirm_worker(&worker).await.unwrap());
}

/// Aim: whoever asked for a machine has it, though the worker that is on it was cut off. Method: a
/// worker is drained before it is lost, or while it is, and comes back.
pub(in crate::store) async fn a_drain_outlives_the_loss_of_a_worker(
    f: &Fixture<impl Store + ReadStore>,
) {
    for number in [0, 1] {
        let worker = f.worker().await;
        if number == 0 {
            assert!(f.store.drain_worker(&worker).await.unwrap());
        }
        f.store.close_lost_workers(std::slice::from_ref(&worker)).await.unwrap();
        assert!(f.store.drain_worker(&worker).await.unwrap());
        let again = registration(&format!("w_{number}"), "machine", number);
        assert_eq!(f.store.register_worker(again).await.unwrap().worker, worker);
        assert!(f.store.confirm_worker(&worker).await.unwrap());
        let live = f.store.live_workers().await.unwrap();
        let state = live.iter().find(|one| one.worker == worker).map(|one| one.state);
        assert_eq!(state, Some(WorkerState::Draining));
        f.store.deregister_worker(&worker).await.unwrap();
        assert!(!f.store.drain_worker(&worker).await.unwrap(), "it has said goodbye");
    }
}

pub(in crate::store) async fn an_agent_started_again_ends_its_older_registration(
    f: &Fixture<impl Store + ReadStore>,
) {
    f.apply(&[]).await;
    let older = f.worker().await;
    let granted = f.grant_first(&older).await;
    let before = older.clone();
    let mut restarted = registration("w_0", "machine", 77);
    restarted.proposed_id = "w_new".parse().unwrap();
    let registered = f.store.register_worker(restarted.clone()).await.unwrap();
    assert_eq!(registered.replaced, [older]);
    assert_eq!(registered.changed.revoked[0].0, granted.token);
    assert_ne!(registered.worker, before);
    let repeated = f.store.register_worker(restarted).await.unwrap();
    assert_eq!(repeated.worker, registered.worker);
    assert!(repeated.replaced.is_empty());
}

/// Aim: in a container name, host and process id are the same after a restart; what was decided
/// about the process before is not inherited. Method: drain a worker that has a run, and have it
/// come again as another instance.
pub(in crate::store) async fn a_restarted_container_inherits_nothing(
    f: &Fixture<impl Store + ReadStore>,
) {
    f.apply(&[]).await;
    let older = f.worker().await;
    let granted = f.grant_first(&older).await;
    assert!(f.store.drain_worker(&older).await.unwrap());
    let mut restarted = registration("w_0", "machine", 0);
    restarted.proposed_id = "w_new".parse().unwrap();
    restarted.instance = "another".into();
    let registered = f.store.register_worker(restarted).await.unwrap();
    assert_ne!(registered.worker, older);
    assert_eq!((registered.replaced, registered.name.as_str()), (vec![older], "worker"));
    assert_eq!(registered.changed.revoked[0].0, granted.token);
    assert!(f.store.confirm_worker(&registered.worker).await.unwrap());
    let live = f.store.live_workers().await.unwrap();
    assert_eq!(live.iter().map(|w| w.state).collect::<Vec<_>>(), [WorkerState::Active]);
}

/// Aim: two agents of one name on one host do not end each other's attempts. Method: each registers
/// twice while the other is connected.
pub(in crate::store) async fn a_second_worker_of_one_name_gets_another(
    f: &Fixture<impl Store + ReadStore>,
) {
    f.apply(&[]).await;
    let first = f.worker().await;
    let granted = f.grant_first(&first).await;
    let of_instance = |number: u32, instance: &str, connected: &[WorkerId]| {
        let mut worker = registration("w_0", "machine", 0);
        worker.proposed_id = format!("w_new{number}").parse().unwrap();
        worker.instance = instance.to_owned();
        worker.connected = connected.to_vec();
        worker
    };
    let asked = of_instance(1, "another", std::slice::from_ref(&first));
    let second = f.store.register_worker(asked).await.unwrap();
    assert_eq!((second.name.as_str(), second.replaced.len()), ("worker-2", 0));
    let both = [first.clone(), second.worker.clone()];
    let third = f.store.register_worker(of_instance(2, "a third", &both)).await.unwrap();
    assert_eq!((third.name.as_str(), third.replaced.len()), ("worker-3", 0));
    let mut again = registration("w_0", "machine", 0);
    again.connected = both.to_vec();
    let again = f.store.register_worker(again).await.unwrap();
    assert_eq!((again.worker, again.name.as_str()), (first, "worker"));
    let again = f.store.register_worker(of_instance(3, "another", &both)).await.unwrap();
    assert_eq!((again.worker, again.name.as_str()), (second.worker, "worker-2"));
    assert!(again.replaced.is_empty());
    assert!(f.store.assignment(granted.token).await.unwrap().is_some(), "its right lives");
}

pub(in crate::store) async fn a_cancelled_run_takes_its_right_from_the_holder(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    let domain::ids::WorkId::Run(run) = &granted.work else { panic!("a run was granted") };
    let changed = f.store.cancel_run(run, "enough").await.unwrap();
    assert_eq!(changed.revoked, [(granted.token, worker)]);
    assert_eq!(f.finish(granted.token, AttemptEnd::Succeeded).await, Finished::Stale);
    assert!(f.store.cancel_run(run, "enough").await.unwrap().work.is_empty());
}
