//! The dispatcher over a real store.

use coordinator::scheduler::tick::tick;
use coordinator::store::{LogLevel, ReportEvent, Store};
use domain::attempt::AttemptEnd;
use domain::ids::WorkId;

use crate::support::{STUDY, Served, artifact, machine, started};

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
    served.apply(&many_runs()).await;
    let worker = served.worker("one").await;
    served.app.leader.enter(&worker, machine());
    assert!(served.app.leader.activate(&worker));
    let queued = served.app.store.queue_head(10, u64::MAX).await.unwrap().work;
    let token = served.grant(&queued[0].work, &worker).await;
    let result = ReportEvent::Preparation {
        manifest: artifact("data"),
        n_training_tokens: 90,
        n_validation_tokens: 10,
        vocab_size: 257,
    };
    served.report(token, vec![started(0), result]).await;
    served.finish(token, AttemptEnd::Succeeded, "").await;
    let queue = served.app.store.queue_head(500, u64::MAX).await.unwrap().work;
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
    let queue = served.app.store.queue_head(500, u64::MAX).await.unwrap().work;
    assert!(queue.len() == 80 && large.contains(&queue[39].work));
    let _poll = served.app.leader.open_poll(&worker, 1).unwrap();
    assert_eq!(tick(&served.app).await.unwrap(), 1);
    let leases = served.app.store.live_leases().await.unwrap();
    assert!(!large.contains(&leases[0].work), "{leases:?}");
    assert_eq!(tick(&served.app).await.unwrap(), 0, "its slot is taken");
}
