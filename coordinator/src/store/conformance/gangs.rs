//! Gangs: granted whole, as good as the worst of their members, and gone together.

use std::collections::BTreeSet;

use domain::attempt::AttemptEnd;
use domain::ids::{LeaseToken, WorkerId};

use super::fixture::{Fixture, checkpoint, is_ended, last_step, run_of};
use crate::scheduler::policy::Placement;
use crate::store::read::ReadStore;
use crate::store::{Changed, Finished, Granted, LogLevel, ReportEvent, Reported, Store};

/// A gang of three, rank 1 with rank 0 on one worker and rank 2 on another.
async fn gang(f: &Fixture<impl Store + ReadStore>) -> (Granted, WorkerId, WorkerId) {
    let first = f.prepared().await;
    let second = f.worker().await;
    let granted = grant(f, &[&first, &first, &second]).await.remove(0);
    (granted, first, second)
}

async fn grant(f: &Fixture<impl Store + ReadStore>, workers: &[&WorkerId]) -> Vec<Granted> {
    let work = f.queued_ids().await.remove(0);
    let workers = workers.iter().copied().cloned().collect();
    let granted = f.store.grant(&[Placement { work, workers, passes: None }]).await.unwrap();
    f.check().await;
    granted
}

async fn live(f: &Fixture<impl Store + ReadStore>) -> Vec<LeaseToken> {
    f.store.live_leases().await.unwrap().into_iter().map(|lease| lease.token).collect()
}

fn tokens(granted: &Granted) -> Vec<LeaseToken> {
    let members = granted.members.iter().map(|member| member.token);
    std::iter::once(granted.token).chain(members).collect()
}

pub(in crate::store) async fn a_gang_is_granted_whole_or_not_at_all(
    f: &Fixture<impl Store + ReadStore>,
) {
    let first = f.prepared().await;
    let second = f.worker().await;
    f.store.drain_worker(&second).await.unwrap();
    assert_eq!(grant(f, &[&first, &second]).await, []);
    assert_eq!(live(f).await, []);
    assert_eq!(grant(f, &[]).await, [], "nobody is no gang");
    let granted = grant(f, &[&first, &first]).await.remove(0);
    let workers: Vec<&WorkerId> = granted.members.iter().map(|member| &member.worker).collect();
    assert_eq!((granted.worker.clone(), workers), (first.clone(), vec![&first]));
    assert_eq!(live(f).await, tokens(&granted));
}

pub(in crate::store) async fn every_member_has_its_rank(f: &Fixture<impl Store + ReadStore>) {
    let (granted, first, second) = gang(f).await;
    let mut places = BTreeSet::new();
    for (rank, token) in tokens(&granted).into_iter().enumerate() {
        let assignment = f.store.assignment(token).await.unwrap().unwrap();
        assert_eq!((assignment.rank as usize, assignment.world_size), (rank, 3));
        assert_eq!(assignment.work, granted.work);
        assert_eq!(assignment.attempt, granted.attempt);
        places.insert(assignment.rendezvous());
    }
    assert_eq!(places.len(), 1, "all meet in one place: {places:?}");
    let speed = [("tokens_per_second".to_owned(), 320.0)].into();
    f.report(granted.token, ReportEvent::Point { step: 1, values: speed }).await;
    let workers = f.store.workers(true).await.unwrap();
    let all = workers.iter().flat_map(|worker| &worker.assignments);
    let speeds: f64 = all.filter_map(|assignment| assignment.tokens_per_second).sum();
    assert_eq!(speeds, 320.0, "of rank 0 alone");
    let ranks = |worker: &WorkerId| -> Vec<u32> {
        let view = workers.iter().find(|view| view.id == worker.as_str()).unwrap();
        view.assignments.iter().map(|assignment| assignment.rank).collect()
    };
    assert_eq!((ranks(&first), ranks(&second)), (vec![0, 1], vec![2]));
    let busy = f.store.busy_slots().await.unwrap();
    let n_of = |worker: &WorkerId| busy.iter().filter(|slot| slot.worker == *worker).count();
    assert_eq!((n_of(&first), n_of(&second)), (2, 1));
    assert!(busy.iter().all(|slot| slot.flops_left > 1e6), "{busy:?}");
    // The next attempt meets elsewhere, and work of one slot nowhere.
    f.finish(granted.token, AttemptEnd::Preempted).await;
    let workers = vec![first.clone(), second];
    let again = Placement { work: granted.work.clone(), workers, passes: None };
    let again = f.store.grant(&[again]).await.unwrap().remove(0);
    for token in tokens(&again) {
        let assignment = f.store.assignment(token).await.unwrap().unwrap();
        places.insert(assignment.rendezvous());
    }
    assert_eq!(places.len(), 2, "{places:?}");
    let alone = f.grant_first(&first).await;
    let assignment = f.store.assignment(alone.token).await.unwrap().unwrap();
    assert_eq!(assignment.rendezvous(), "");
}

pub(in crate::store) async fn only_rank_0_says_what_counts(f: &Fixture<impl Store + ReadStore>) {
    let (granted, ..) = gang(f).await;
    let member = granted.members[1].token;
    let log = ReportEvent::Log { at_ms: 1, level: LogLevel::Info, text: "here".into() };
    let point = ReportEvent::Point { step: 1, values: [("train_loss_nats".into(), 9.0)].into() };
    let events = vec![log, point, checkpoint(20, true)];
    let reported = f.store.report(member, events).await.unwrap();
    assert_eq!(reported, Reported::Stored { work: granted.work.clone(), has_new_work: false });
    let run = run_of(&granted.work);
    let logs = f.store.logs(&run, 0, 10).await.unwrap().lines;
    assert_eq!(logs.iter().map(|line| line.text.as_str()).collect::<Vec<_>>(), ["rank 2: here"]);
    assert_eq!(f.store.run_view(&run).await.unwrap().unwrap().summary.step, 0);
    let assignment = f.store.assignment(granted.token).await.unwrap().unwrap();
    let crate::store::AssignmentDetails::Train(details) = assignment.details else {
        panic!("a run is trained");
    };
    assert_eq!(details.checkpoints, []);
}

pub(in crate::store) async fn the_end_of_a_gang_is_the_end_of_all_its_rights(
    f: &Fixture<impl Store + ReadStore>,
) {
    let (granted, ..) = gang(f).await;
    assert!(is_ended(&f.succeed(granted.token, last_step()).await));
    assert_eq!(live(f).await, []);
    for member in &granted.members {
        assert!(f.store.assignment(member.token).await.unwrap().is_none());
        assert_eq!(f.finish(member.token, AttemptEnd::Bug).await, Finished::Stale);
        let events = vec![checkpoint(20, false)];
        assert_eq!(f.store.report(member.token, events).await.unwrap(), Reported::Stale);
    }
}

/// Aim: whichever member is lost, the attempt is, and the others are told.
pub(in crate::store) async fn a_lost_member_loses_the_attempt(f: &Fixture<impl Store + ReadStore>) {
    let (granted, first, second) = gang(f).await;
    let changed = f.store.expire_leases(&[granted.members[1].token]).await.unwrap();
    let mut revoked = changed.revoked;
    revoked.sort();
    let holders = [first.clone(), first.clone(), second.clone()];
    let all: Vec<_> = tokens(&granted).into_iter().zip(holders).collect();
    assert_eq!(revoked, all);
    f.check().await;
    let again = f.store.expire_leases(&tokens(&granted)).await.unwrap();
    assert_eq!(again, Changed::default());
    // And where its worker is gone.
    let granted = grant(f, &[&first, &second]).await.remove(0);
    f.store.close_lost_workers(std::slice::from_ref(&second)).await.unwrap();
    f.check().await;
    assert_eq!(live(f).await, []);
    assert_eq!(f.finish(granted.token, AttemptEnd::Succeeded).await, Finished::Stale);
}

pub(in crate::store) async fn a_member_that_fails_ends_the_attempt_so(
    f: &Fixture<impl Store + ReadStore>,
) {
    let (granted, ..) = gang(f).await;
    let member = granted.members[1].token;
    f.store.finish_attempt(member, AttemptEnd::OutOfMemory, "no room").await.unwrap();
    f.check().await;
    assert_eq!(live(f).await, []);
    let run = f.store.run_view(&run_of(&granted.work)).await.unwrap().unwrap();
    let attempt = &run.attempts[0];
    assert_eq!(attempt.ended_as.as_deref(), Some("out_of_memory"));
    assert!(attempt.message.starts_with("rank 2 on `w_"), "{}", attempt.message);
    assert!(attempt.message.ends_with(": no room"), "{}", attempt.message);
}

/// Aim: a member that must leave costs no work: rank 0 is asked for a checkpoint first.
pub(in crate::store) async fn a_member_that_leaves_has_rank_0_asked(
    f: &Fixture<impl Store + ReadStore>,
) {
    let (granted, first, _) = gang(f).await;
    let member = granted.members[1].token;
    assert_eq!(f.store.held_leases().await.unwrap(), []);
    assert!(is_ended(&f.finish(member, AttemptEnd::Preempted).await));
    assert_eq!(f.store.held_leases().await.unwrap(), [(granted.token, first)]);
    assert_eq!(live(f).await, [granted.token, granted.members[0].token]);
    assert_eq!(f.finish(member, AttemptEnd::Preempted).await, Finished::Stale);
    f.report(granted.token, checkpoint(20, false)).await;
    assert!(is_ended(&f.finish(granted.token, AttemptEnd::Preempted).await));
    assert_eq!(live(f).await, []);
    assert_eq!(f.store.held_leases().await.unwrap(), []);
    assert!(f.queued_ids().await.contains(&granted.work));
}

/// Aim: the worker that failed is kept away, and not the one that holds the attempt's token.
pub(in crate::store) async fn a_log_rule_keeps_a_gang_from_the_member_that_failed(
    f: &Fixture<impl Store + ReadStore>,
) {
    let rules = "version: 1
runtime:
  retries: {bug: {attempts: 9, pause_seconds: 0}}
  log_rules: [{pattern: 'Xid', action: exclude_worker}]";
    let first = f.prepared_with(&[("version: 1", rules)]).await;
    let second = f.worker().await;
    let granted = grant(f, &[&first, &second]).await.remove(0);
    let member = granted.members[0].token;
    f.store.finish_attempt(member, AttemptEnd::Bug, "NVRM: Xid 79").await.unwrap();
    f.store.requeue(std::slice::from_ref(&granted.work)).await.unwrap();
    let queue = f.queue().await;
    let queued = queue.iter().find(|queued| queued.work == granted.work).unwrap();
    let excluded: Vec<&str> = queued.needs.excluded.keys().map(String::as_str).collect();
    assert_eq!(excluded, [second.as_str()]);
}

/// Aim: no statement has more arguments than a database takes.
pub(in crate::store) async fn the_largest_gang_is_granted(f: &Fixture<impl Store + ReadStore>) {
    let worker = f.prepared().await;
    let granted = grant(f, &vec![&worker; 1024]).await.remove(0);
    assert_eq!(live(f).await, tokens(&granted));
    assert!(is_ended(&f.finish(granted.token, AttemptEnd::Preempted).await));
    assert_eq!(live(f).await, []);
}
