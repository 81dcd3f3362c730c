//! The dispatcher and the reconciler over a real store.

use std::time::Duration;

use coordinator::grpc::WorkerApi;
use coordinator::leader::Directive;
use coordinator::reconcile;
use coordinator::scheduler::fit::Machine;
use coordinator::scheduler::policy::Placement;
use coordinator::scheduler::tick::tick;
use coordinator::store::{LogLevel, ReportEvent, Store};
use domain::attempt::AttemptEnd;
use domain::ids::{WorkId, WorkerId};
use proto::v1::HeartbeatRequest;
use proto::v1::worker_service_server::WorkerService as _;
use tokio_util::sync::CancellationToken;

use crate::support::{STUDY, Served, machine, started, with_seeds};

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
    assert!(served.app.leader.may_have_queued());
    let leases = served.app.store.live_leases().await.unwrap();
    assert!(!large.contains(&leases[0].work), "{leases:?}");
    assert_eq!(tick(&served.app).await.unwrap(), 0, "its slot is taken");
}

/// More long runs than the dispatcher looks at, and as many short ones, on one worker's word.
async fn longer_than_the_head(served: &Served, said: Vec<ReportEvent>, end: AttemptEnd) -> Long {
    let rules = "runtime:
  retries: {bug: {attempts: 9, pause_seconds: 0}}
  log_rules: [{pattern: 'Xid', action: exclude_worker}]
";
    let (_, worker) = served.prepared_with(&(with_seeds(600) + rules)).await;
    let queue = served.app.store.queue_head(2000, None).await.unwrap().work;
    let largest = queue[0].cost_flops;
    let works: Vec<WorkId> =
        queue.iter().filter(|w| w.cost_flops == largest).map(|w| w.work.clone()).collect();
    assert_eq!((queue.len(), works.len()), (1200, 600));
    let placed = works.iter().map(|work| Placement::of_one(work.clone(), worker.clone()));
    let placed: Vec<Placement> = placed.collect();
    for granted in served.app.store.grant(&placed).await.unwrap() {
        served.report(granted.token, said.clone()).await;
        served.finish(granted.token, end, "NVRM: Xid 79").await;
    }
    served.app.store.requeue(&works).await.unwrap();
    let queue = served.app.store.queue_head(600, None).await.unwrap().work;
    assert!(queue.iter().all(|queued| works.contains(&queued.work)), "they go first");
    Long { worker, works }
}

struct Long {
    worker: WorkerId,
    works: Vec<WorkId>,
}

impl Served {
    /// The worker has these slots, and asks for work with so many of them.
    fn seat(&self, worker: &WorkerId, machine: Machine, n_free_slots: u32) {
        self.app.leader.enter(worker, machine);
        assert!(self.app.leader.activate(worker));
        self.app.leader.open_poll(worker, n_free_slots).unwrap();
    }

    /// Ticks until nothing is granted.
    async fn dispatched(&self) -> usize {
        let mut n_granted = 0;
        loop {
            match tick(&self.app).await.unwrap() {
                0 => return n_granted,
                n => n_granted += n,
            }
        }
    }
}

/// Aim: however much of a study is kept from every worker, what is not is granted.
#[tokio::test]
async fn a_head_that_is_kept_from_every_worker_hides_nothing_behind_it() {
    let served = Served::new().await;
    let long = longer_than_the_head(&served, vec![started(0)], AttemptEnd::Bug).await;
    served.seat(&long.worker, machine(), 1);
    assert_eq!(served.dispatched().await, 1);
    let leases = served.app.store.live_leases().await.unwrap();
    assert!(!long.works.contains(&leases[0].work), "{leases:?}");
}

/// Aim: however much of a study is bound to the machines that its first attempts ran on, others are
/// given the rest of it. Method: one such machine, with one slot to give, and one of another kind.
#[tokio::test]
async fn a_head_that_is_bound_to_one_machine_hides_nothing_from_another() {
    let served = Served::new().await;
    let long = longer_than_the_head(&served, vec![started(0)], AttemptEnd::Preempted).await;
    served.seat(&long.worker, machine(), 1);
    let other = served.worker("two").await;
    let mut unlike = Machine { n_slots: 3, ..machine() };
    unlike.capabilities.cpu_capability = "AVX512".to_owned();
    served.seat(&other, unlike, 3);
    assert_eq!(served.dispatched().await, 4);
    for lease in served.app.store.live_leases().await.unwrap() {
        assert_eq!(long.works.contains(&lease.work), lease.worker == long.worker, "{lease:?}");
    }
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

/// Aim: no worker is told that a lease lives which is over a moment later. Method: a heartbeat comes
/// while the store is told; then the store refuses, and then it does not.
#[tokio::test]
async fn a_heartbeat_is_not_answered_while_a_lease_of_it_is_ended() {
    let served = Served::new().await;
    let (worker, run, _) = served.prepared().await;
    let token = served.grant(&WorkId::Run(run), &worker).await;
    let leader = &served.app.leader;
    reconcile::take_over(&served.app).await.unwrap();
    let api = WorkerApi::new(served.app.clone());
    let beat = || HeartbeatRequest { worker_id: worker.to_string(), lease_tokens: vec![token.0] };
    let heard = async || {
        let answer = api.heartbeat(tonic::Request::new(beat())).await;
        answer.map(|answer| answer.into_inner().stale_lease_tokens).map_err(|status| status.code())
    };
    served.app.clock.advance(Duration::from_mins(10));
    assert_eq!(leader.begin_to_end(), [token]);
    assert_eq!(heard().await, Err(tonic::Code::Unavailable));
    leader.refuse_end(&[token]);
    assert_eq!(heard().await, Ok(Vec::new()));
    reconcile::round(&served.app).await.unwrap();
    assert_eq!(heard().await, Ok(Vec::new()), "it was renewed");
    served.app.clock.advance(Duration::from_mins(10));
    leader.begin_to_end();
    reconcile::round(&served.app).await.unwrap();
    assert_eq!(heard().await, Ok(vec![token.0]));
}

/// Aim: a coordinator that stands still ends no lease for that. Method: the clock jumps between two
/// rounds; that one was done is seen by what it queued again.
#[tokio::test]
async fn a_coordinator_that_stood_still_gives_every_lease_a_term() {
    let served = Served::new().await;
    let text = STUDY.to_owned() + "runtime: {retries: {bug: {attempts: 9, pause_seconds: 0}}}\n";
    let (_, worker) = served.prepared_with(&text).await;
    let works = served.app.store.queue_head(9, None).await.unwrap().work;
    let token = served.grant(&works[0].work, &worker).await;
    reconcile::take_over(&served.app).await.unwrap();
    let lead = CancellationToken::new();
    let rounds = tokio::spawn(reconcile::reconcile(served.app.clone(), lead.clone()));
    let round = async || {
        let failing = served.grant(&works[1].work, &worker).await;
        served.finish(failing, AttemptEnd::Bug, "").await;
        let is_done = async {
            while served.app.store.queue_head(9, None).await.unwrap().work.is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_mins(1), is_done).await.expect("a round is done");
    };
    round().await;
    served.app.clock.advance(Duration::from_mins(10));
    round().await;
    let leases = served.app.store.live_leases().await.unwrap();
    assert_eq!(leases.iter().map(|lease| lease.token).collect::<Vec<_>>(), [token]);
    assert_eq!(served.app.leader.n_leases(), 1);
    lead.cancel();
    rounds.await.unwrap();
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
