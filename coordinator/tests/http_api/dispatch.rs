//! The dispatcher and the reconciler over a real store.

use std::time::Duration;

use coordinator::leader::Directive;
use coordinator::reconcile;
use coordinator::scheduler::fit::Machine;
use coordinator::scheduler::policy::Placement;
use coordinator::scheduler::tick::tick;
use coordinator::store::{LogLevel, ReportEvent, Store};
use domain::attempt::AttemptEnd;
use domain::ids::WorkId;

use crate::support::{STUDY, Served, machine, started};

/// Forty large runs and as many small ones, kept from a worker that says something bad.
fn many_runs() -> String {
    let rates: Vec<String> = (1..=40).map(|n| format!("{n}e-5")).collect();
    let axis = format!(
        "          - {{name: lr, field: training.optimizer.learning_rate, values: [{}]}}\n        design:",
        rates.join(", ")
    );
    let rules = "runtime:
  retries: {bug: {attempts: 9, pause_seconds: 0}}
  log_rules: [{pattern: 'Xid', action: exclude_worker}]
";
    let text = STUDY.replacen("        design:", &axis, 1) + rules;
    assert!(text.contains("name: lr"));
    text
}

/// Aim: more than a first look of runs that go first and fit nowhere hides no other. Method: all
/// forty large runs have failed on the one worker with a line for which they are kept from it.
#[tokio::test]
async fn runs_that_are_kept_from_every_worker_hide_no_other() {
    let served = Served::new().await;
    let (_, worker) = served.prepared_with(&many_runs()).await;
    served.app.leader.enter(&worker, machine());
    assert!(served.app.leader.activate(&worker));
    let queue = served.app.store.queue_head(500, None).await.unwrap().work;
    let largest = queue[0].cost_flops;
    let large: Vec<WorkId> =
        queue.iter().filter(|w| w.cost_flops == largest).map(|w| w.work.clone()).collect();
    assert_eq!((queue.len(), large.len()), (80, 40));
    for work in &large {
        let token = served.grant(work, &worker).await;
        let text = "NVRM: Xid 79".to_owned();
        let said = ReportEvent::Log { at_ms: 1, level: LogLevel::Error, text };
        served.report(token, vec![started(0), said]).await;
        served.finish(token, AttemptEnd::Bug, "").await;
    }
    served.app.store.requeue(&large).await.unwrap();
    let queue = served.app.store.queue_head(500, None).await.unwrap().work;
    assert!(queue.len() == 80 && large.contains(&queue[39].work));
    let _poll = served.app.leader.open_poll(&worker, 1).unwrap();
    assert_eq!(tick(&served.app).await.unwrap(), 1);
    let leases = served.app.store.live_leases().await.unwrap();
    assert!(!large.contains(&leases[0].work), "{leases:?}");
    assert_eq!(tick(&served.app).await.unwrap(), 0, "its slot is taken");
}

/// Aim: a right that is over in the store is forgotten by the leader, whoever failed to say so, and its
/// holders are told. Method: a gang's attempt ends in the store alone, as when the caller of an end has
/// gone away in the middle of it.
#[tokio::test]
async fn what_is_over_in_the_store_keeps_no_slot() {
    let served = Served::new().await;
    let (_, worker) = served.prepared_with(STUDY).await;
    let leader = &served.app.leader;
    leader.enter(&worker, Machine { n_slots: 2, ..machine() });
    assert!(leader.activate(&worker));
    let work = served.app.store.queue_head(1, None).await.unwrap().work.remove(0).work;
    let workers = vec![worker.clone(), worker.clone()];
    let gang = Placement { work, workers, passes: None };
    let granted = served.app.store.grant(&[gang]).await.unwrap();
    leader.granted(&granted);
    reconcile::round(&served.app).await.unwrap();
    assert_eq!(leader.n_leases(), 2, "what lives is left alone");
    served.finish(granted[0].token, AttemptEnd::Preempted, "").await;
    // Time enough for the next look; its agent renews the leases that it has, so that none runs out.
    served.app.clock.advance(Duration::from_mins(10));
    let tokens = [granted[0].token, granted[0].members[0].token];
    assert_eq!(leader.renew(&worker, &tokens).unwrap().stale, []);
    reconcile::round(&served.app).await.unwrap();
    assert_eq!(leader.n_leases(), 0);
    assert_eq!(leader.renew(&worker, &tokens).unwrap().stale, tokens);
}

/// Aim: a worker that drains in the store is not placed on for ever when the leader was not told.
/// Method: whoever asked for it is gone between the store's answer and the leader's.
#[tokio::test]
async fn a_worker_that_drains_in_the_store_drains_here_too() {
    let served = Served::new().await;
    let (_, worker) = served.prepared_with(STUDY).await;
    let leader = &served.app.leader;
    leader.enter(&worker, machine());
    assert!(leader.activate(&worker));
    let poll = leader.open_poll(&worker, 1).unwrap();
    assert!(served.app.store.drain_worker(&worker).await.unwrap());
    assert_eq!(tick(&served.app).await.unwrap(), 0, "the store grants it nothing");
    assert_eq!(leader.seats().free.len(), 1, "and the leader places on it");
    served.app.clock.advance(Duration::from_mins(10));
    leader.renew(&worker, &[]).unwrap();
    reconcile::round(&served.app).await.unwrap();
    assert_eq!(leader.seats().live, []);
    assert_eq!(leader.take_mail(&worker, &poll).unwrap().directives, [Directive::Drain]);
}
