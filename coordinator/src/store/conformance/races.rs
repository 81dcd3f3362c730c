//! Two at once, several times, in both orders: the answers fit together whoever was first.

use domain::attempt::AttemptEnd;
use domain::ids::WorkId;

use super::fixture::{Fixture, checkpoint, placement, point};
use crate::store::read::ReadStore;
use crate::store::{Finished, Granted, Reported, Retry, Store};

/// How often each race is run.
const ROUNDS: usize = 8;

pub(in crate::store) async fn two_grants_at_once_give_each_run_once(
    f: &Fixture<impl Store + ReadStore>,
) {
    let first = f.prepared().await;
    let second = f.worker().await;
    for _ in 0..ROUNDS {
        let works = f.queued_ids().await;
        let to_first: Vec<_> = works.iter().map(|work| placement(work, &first)).collect();
        let to_second: Vec<_> = works.iter().map(|work| placement(work, &second)).collect();
        let (a, b) = tokio::join!(f.store.grant(&to_first), f.store.grant(&to_second));
        let granted: Vec<Granted> = a.unwrap().into_iter().chain(b.unwrap()).collect();
        let mut once: Vec<&WorkId> = granted.iter().map(|lease| &lease.work).collect();
        once.sort();
        once.dedup();
        assert_eq!((granted.len(), once.len()), (works.len(), works.len()));
        let tokens: Vec<_> = granted.iter().map(|lease| lease.token).collect();
        f.store.expire_leases(&tokens).await.unwrap();
    }
}

pub(in crate::store) async fn an_expiry_and_an_end_agree_on_who_was_first(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    for round in 0..ROUNDS {
        let lease = f.grant_first(&worker).await;
        let tokens = [lease.token];
        let expire = f.store.expire_leases(&tokens);
        let finish = f.store.finish_attempt(lease.token, AttemptEnd::Preempted, "");
        let (expired, finished) = if round % 2 == 0 {
            tokio::join!(expire, finish)
        } else {
            let (finished, expired) = tokio::join!(finish, expire);
            (expired, finished)
        };
        let was_expired = !expired.unwrap().revoked.is_empty();
        assert_eq!(was_expired, finished.unwrap() == Finished::Stale);
        assert!(f.queued_ids().await.contains(&lease.work));
    }
}

pub(in crate::store) async fn a_cancel_and_an_end_agree_on_who_was_first(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    for round in 0..ROUNDS {
        let lease = f.grant_first(&worker).await;
        let WorkId::Run(run) = &lease.work else { panic!("a run was granted") };
        let cancel = f.store.cancel_run(run, "enough");
        let finish = f.store.finish_attempt(lease.token, AttemptEnd::Preempted, "");
        let (cancelled, finished) = if round % 2 == 0 {
            tokio::join!(cancel, finish)
        } else {
            let (finished, cancelled) = tokio::join!(finish, cancel);
            (cancelled, finished)
        };
        // The cancel wins in the end; only whether it took the right from somebody depends.
        let was_revoked = !cancelled.unwrap().revoked.is_empty();
        assert_eq!(was_revoked, finished.unwrap() == Finished::Stale);
        assert!(!f.queued_ids().await.contains(&lease.work));
        f.store.retry_run(run, Retry::All).await.unwrap();
    }
}

pub(in crate::store) async fn the_same_report_twice_at_once_is_stored_once(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let lease = f.grant_first(&worker).await;
    for step in 1..=ROUNDS as u64 {
        let events = vec![point(step, 2.0), checkpoint(step, true)];
        let (a, b) = tokio::join!(
            f.store.report(lease.token, events.clone()),
            f.store.report(lease.token, events.clone())
        );
        let n_new = [a.unwrap(), b.unwrap()]
            .iter()
            .filter(|reported| matches!(reported, Reported::Stored { has_new_work: true, .. }))
            .count();
        assert_eq!(n_new, 1);
    }
}

pub(in crate::store) async fn many_commands_at_once_are_all_answered(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let lease = f.grant_first(&worker).await;
    let reports = (1..=200_u64).map(|step| f.store.report(lease.token, vec![point(step, 1.0)]));
    for reported in futures::future::join_all(reports).await {
        assert!(matches!(reported.unwrap(), Reported::Stored { .. }));
    }
}
