//! What studies say about the granting of their work, and what failed attempts had said.

use std::collections::BTreeMap;

use domain::attempt::AttemptEnd;
use domain::ids::{LeaseToken, StudyId, WorkId};
use domain::spec::DeviceKind;

use super::fixture::{Fixture, checkpoint, is_ended, placement, registration, run_of, study_named};
use crate::actor::{Actor, acting};
use crate::scheduler::fit::{Exclusion, Machine};
use crate::scheduler::policy::{FreeWorker, Snapshot, decide};
use crate::store::read::ReadStore;
use crate::store::{Capabilities, LogLevel, ReportEvent, Retry, Store, WorkerRecord};

/// Aim: the head has runs of every study, however many longer ones another one has.
pub(in crate::store) async fn a_large_study_hides_no_other(f: &Fixture<impl Store + ReadStore>) {
    f.prepared().await;
    let longer = ("tokens: 1e5", "tokens: 2e5");
    let weight = ("version: 1", "version: 1\nruntime: {weight: 3}");
    f.apply(&[("name: tiny", "name: longer"), longer, weight]).await;
    let head = f.store.queue_head(1, None).await.unwrap();
    let found: Vec<_> = head.work.iter().map(|queued| queued.study.clone().unwrap()).collect();
    assert_eq!(found, [study_named("longer"), study_named("tiny")]);
    let weights: Vec<f64> = found.iter().map(|study| head.studies[study].weight).collect();
    assert_eq!(weights, [3.0, 1.0]);
    assert!(head.is_cut);
    assert!(!f.store.queue_head(9, None).await.unwrap().is_cut);
}

pub(in crate::store) async fn a_run_of_two_studies_is_granted_for_the_more_urgent_one(
    f: &Fixture<impl Store + ReadStore>,
) {
    f.prepared().await;
    let weight = ("version: 1", "version: 1\nruntime: {weight: 3}");
    f.apply(&[("name: tiny", "name: other"), weight]).await;
    let (tiny, other) = (study_named("tiny"), study_named("other"));
    let study = async || f.queue().await[0].study.clone();
    assert_eq!(study().await, Some(other.clone()), "the larger weight");
    f.store.set_priority(&tiny, 5).await.unwrap();
    assert_eq!(study().await, Some(tiny.clone()));
    f.store.pause_study(&tiny, "").await.unwrap();
    assert_eq!(study().await, Some(other.clone()));
    f.store.cancel_study(&other, "").await.unwrap();
    f.store.resume_study(&tiny).await.unwrap();
    assert_eq!(study().await, Some(tiny.clone()));
    f.store.cancel_study(&tiny, "").await.unwrap();
    let runs = f.store.run_list(Some(&tiny)).await.unwrap().runs;
    f.store.retry_run(&runs[0].id.parse().unwrap(), Retry::All).await.unwrap();
    assert_eq!(study().await, None, "no live study has it");
}

pub(in crate::store) async fn a_study_is_its_first_users_and_says_its_terms(
    f: &Fixture<impl Store + ReadStore>,
) {
    let terms = "version: 1
runtime:
  weight: 2.5
  placement: {device: cuda, labels: {pool: night}, memory_bytes: 7}";
    let changes = [("version: 1", terms)];
    acting(Actor::User("ada".into()), f.prepared_with(&changes)).await;
    acting(Actor::User("bob".into()), f.apply(&changes)).await;
    let head = f.store.queue_head(9, None).await.unwrap();
    let terms = &head.studies[&study_named("tiny")];
    assert_eq!((terms.user.as_str(), terms.weight, terms.budget_left_flops), ("ada", 2.5, None));
    assert_eq!(terms.placement.device, Some(DeviceKind::Cuda));
    assert_eq!(terms.placement.labels["pool"], "night");
    assert_eq!(terms.placement.memory_bytes, Some(7));
    assert!(head.work.iter().all(|work| work.needs.memory_bytes > 1 << 20), "{head:?}");
}

/// Aim: a worker's labels come back as the policy compares them with what a study asks for.
pub(in crate::store) async fn a_label_brings_work_to_the_worker_that_has_it(
    f: &Fixture<impl Store + ReadStore>,
) {
    let asks = "version: 1\nruntime: {placement: {labels: {pool: night}}}";
    f.prepared_with(&[("version: 1", asks)]).await;
    let mut worker = registration("w_night", "machine", 99);
    worker.machine.capabilities.labels = BTreeMap::from([("pool".into(), "night".into())]);
    let night = f.store.register_worker(worker).await.unwrap().worker;
    assert!(f.store.confirm_worker(&night).await.unwrap());
    let live = f.store.live_workers().await.unwrap();
    assert_eq!(live.len(), 2, "one has no label");
    let seat = |record: &WorkerRecord| FreeWorker {
        worker: record.worker.clone(),
        n_free_slots: record.machine.n_slots,
        machine: record.machine.clone(),
    };
    let snapshot = Snapshot {
        free: live.iter().map(seat).collect(),
        live: live.iter().map(|record| (record.worker.clone(), record.machine.clone())).collect(),
        queue: f.store.queue_head(9, None).await.unwrap(),
        ..Snapshot::default()
    };
    let granted = f.store.grant(&decide(&snapshot).placements).await.unwrap();
    assert_eq!(granted.len(), 2);
    assert!(granted.iter().all(|granted| granted.worker == night), "{granted:?}");
}

/// Aim: an evaluation follows the study that its run is granted for.
pub(in crate::store) async fn evaluations_follow_their_runs_study(
    f: &Fixture<impl Store + ReadStore>,
) {
    let placement = "version: 1\nruntime: {placement: {labels: {pool: night}}}";
    let worker = f.prepared_with(&[("version: 1", placement)]).await;
    let first = f.grant_first(&worker).await;
    f.report(first.token, checkpoint(1, true)).await;
    let evaluation = |queue: Vec<crate::scheduler::policy::QueuedWork>| {
        queue.into_iter().find(|work| matches!(work.work, WorkId::Evaluation(_))).unwrap()
    };
    assert_eq!(evaluation(f.queue().await).study, Some(study_named("tiny")));
    f.apply(&[("name: tiny", "name: other")]).await;
    f.store.set_priority(&study_named("other"), 3).await.unwrap();
    assert_eq!(evaluation(f.queue().await).study, Some(study_named("other")));
    // When nothing else of its study is queued, what that says is there all the same.
    f.store.cancel_study(&study_named("other"), "").await.unwrap();
    let granted = f.queue().await.into_iter().filter(|w| matches!(w.work, WorkId::Run(_)));
    for work in granted {
        f.store.grant(&[super::fixture::placement(&work.work, &worker)]).await.unwrap();
    }
    let head = f.store.queue_head(9, None).await.unwrap();
    assert_eq!(head.work.len(), 1);
    assert_eq!(head.studies[&study_named("tiny")].placement.labels["pool"], "night");
}

/// Aim: what one study has to evaluate hides neither another's data nor its runs.
pub(in crate::store) async fn evaluations_hide_nothing_of_others(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    for step in [10, 20] {
        f.report(granted.token, checkpoint(step, true)).await;
    }
    f.finish(granted.token, AttemptEnd::Preempted).await;
    f.apply(&[("name: tiny", "name: other"), ("data:", "data:\n  seed: 7")]).await;
    let head = f.store.queue_head(1, None).await.unwrap();
    let kinds: Vec<(&str, Option<StudyId>)> =
        head.work.iter().map(|queued| (queued.work.kind(), queued.study.clone())).collect();
    let tiny = Some(study_named("tiny"));
    let expected = [("preparation", None), ("evaluation", tiny.clone()), ("run", tiny)];
    assert_eq!(kinds, expected);
}

pub(in crate::store) async fn a_budget_is_spent_by_what_was_begun(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let cost = f.queue().await[0].cost_flops;
    let left = async || {
        let head = f.store.queue_head(9, None).await.unwrap();
        (head.work.len(), head.studies.values().next().and_then(|terms| terms.budget_left_flops))
    };
    let with_budget = async |flops: f64| {
        let runtime = format!("version: 1\nruntime: {{budget_flops: {flops:?}}}");
        f.apply(&[("version: 1", runtime.as_str())]).await;
    };
    with_budget(cost * 0.99).await;
    assert_eq!(left().await.0, 0, "each costs too much");
    with_budget(cost * 1.5).await;
    assert_eq!(left().await, (2, Some(cost * 1.5)), "each alone fits");
    let granted = f.grant_first(&worker).await;
    assert_eq!(left().await.0, 0);
    // What was begun may go on, and costs nothing more.
    f.finish(granted.token, AttemptEnd::Preempted).await;
    assert_eq!(left().await, (1, Some(cost * 1.5 - cost)));
    with_budget(cost * 2.0).await;
    assert_eq!(left().await.0, 2);
    // A study that gives up what it has begun has spent it all the same.
    let runtime = format!("version: 1\nruntime: {{budget_flops: {:?}}}", cost * 8.0);
    f.apply(&[("version: 1", runtime.as_str()), ("tokens: 1e5", "tokens: 2e5")]).await;
    assert_eq!(left().await.1, Some(cost * 8.0 - cost));
}

pub(in crate::store) async fn runs_that_fit_nowhere_hide_no_other(
    f: &Fixture<impl Store + ReadStore>,
) {
    // Of two sizes; the larger one costs more and so goes first.
    let rates = "{name: lr, field: training.optimizer.learning_rate, values: [1e-3, 2e-3]}";
    let axis = (rates, "{name: size, field: model.d_model, values: [32, 64]}");
    f.prepared_with(&[axis]).await;
    let needs: Vec<u64> = f.queue().await.iter().map(|work| work.needs.memory_bytes).collect();
    let (least, most) = (needs[0].min(needs[1]), needs[0].max(needs[1]));
    assert!(least < most, "{needs:?}");
    let head = async |largest: u64| {
        let machines = [machine("cpu", largest), machine("cuda", u64::MAX)];
        f.store.queue_head(1, Some(&machines)).await.unwrap().work
    };
    let n = async |largest: u64| head(largest).await.len();
    // What the study does not ask for, however large, is no reason to look at larger ones.
    let says = "version: 1\nruntime: {placement: {device: cpu}}";
    f.apply(&[axis, ("version: 1", says)]).await;
    assert_eq!(n(most).await, 1);
    assert_eq!(head(least).await[0].needs.memory_bytes, least);
    assert_eq!(n(least - 1).await, 0);
    // A study that says what it needs is believed.
    let says = "version: 1\nruntime: {placement: {memory_bytes: 1}}";
    f.apply(&[axis, ("version: 1", says)]).await;
    assert_eq!(n(1).await, 1);
}

/// Aim: the pages of the queue have all of it, each piece once, also where all of it is as long.
pub(in crate::store) async fn the_whole_queue_is_read_page_by_page(
    f: &Fixture<impl Store + ReadStore>,
) {
    let seven = ("[1e-3, 2e-3]", "[1e-3, 2e-3, 3e-3, 4e-3, 5e-3, 6e-3, 7e-3]");
    let worker = f.prepared_with(&[seven]).await;
    let granted = f.grant_first(&worker).await;
    f.report(granted.token, checkpoint(20, true)).await;
    f.finish(granted.token, AttemptEnd::Preempted).await;
    f.apply(&[("name: tiny", "name: other"), ("data:", "data:\n  seed: 7")]).await;
    let mut found = Vec::new();
    for page in 0..=4 {
        let read = f.store.queue_page(2, page).await.unwrap();
        assert_eq!(read.is_cut, page < 3, "{page}");
        found.extend(read.work.into_iter().map(|queued| queued.work));
    }
    let mut all = f.queued_ids().await;
    let kinds: Vec<&str> = all.iter().map(WorkId::kind).collect();
    assert_eq!((kinds[0], kinds[1], kinds.len()), ("preparation", "evaluation", 9));
    found.sort();
    all.sort();
    assert_eq!(found, all);
}

fn log(text: &str) -> ReportEvent {
    ReportEvent::Log { at_ms: 1, level: LogLevel::Error, text: text.to_owned() }
}

const RULES: &str = "version: 1
runtime:
  retries: {bug: {attempts: 9, pause_seconds: 0}}
  log_rules:
    - {pattern: 'Xid [0-9]+', action: exclude_worker}
    - {pattern: 'assertion', action: stop_retries}";

pub(in crate::store) async fn a_log_rule_keeps_work_from_a_worker(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared_with(&[("version: 1", RULES)]).await;
    let first = f.grant_first(&worker).await;
    f.report(first.token, log("step 1")).await;
    f.report(first.token, log("NVRM: Xid 79")).await;
    f.finish(first.token, AttemptEnd::Bug).await;
    let excluded = async || {
        let queue = f.queue().await;
        let work = queue.iter().find(|work| work.work == first.work).unwrap();
        work.needs.excluded.clone().into_iter().collect::<Vec<(String, Exclusion)>>()
    };
    let by_rule = (worker.to_string(), Exclusion::Rule("Xid [0-9]+".to_owned()));
    assert_eq!(excluded().await, std::slice::from_ref(&by_rule));
    // A failure that says nothing of the kind excludes nobody else for good.
    let other = f.worker().await;
    let second = f.store.grant(&[placement(&first.work, &other)]).await.unwrap().remove(0);
    f.report(second.token, log("step 1")).await;
    f.finish(second.token, AttemptEnd::Bug).await;
    let failed = Exclusion::Failed { failed: "bug".to_owned() };
    let both = BTreeMap::from([by_rule.clone(), (other.to_string(), failed)]);
    assert_eq!(excluded().await, both.into_iter().collect::<Vec<_>>());
    // A lease that ran out says nothing about its machine.
    let silent = f.worker().await;
    let lost = f.store.grant(&[placement(&first.work, &silent)]).await.unwrap().remove(0);
    f.store.expire_leases(&[lost.token]).await.unwrap();
    assert_eq!(excluded().await.len(), 2);
    // An attempt that does not fail forgets that.
    let third = f.store.grant(&[placement(&first.work, &other)]).await.unwrap().remove(0);
    f.finish(third.token, AttemptEnd::Preempted).await;
    assert_eq!(excluded().await, [by_rule]);
    // Nor does a success of other work, whatever it says.
    f.store.cancel_run(&run_of(&first.work), "").await.unwrap();
    f.store.retry_run(&run_of(&first.work), Retry::All).await.unwrap();
    assert_eq!(excluded().await, [], "whoever retries gives a fresh start");
}

/// Aim: one sick machine fails nothing for good. Method: the same worker says again and again that
/// it could not reach what an evaluation, and a run, needs.
pub(in crate::store) async fn a_machine_that_cannot_is_charged_and_avoided(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared().await;
    let run = f.grant_first(&worker).await;
    f.report(run.token, checkpoint(20, true)).await;
    let evaluation = f.grant_first(&worker).await;
    assert_eq!(evaluation.work.kind(), "evaluation");
    for mut granted in [run, evaluation] {
        for n_lost in 1..=5 {
            let why = "the scratch folder cannot be written";
            let finished =
                f.store.finish_attempt(granted.token, AttemptEnd::WorkerLost, why).await.unwrap();
            assert!(is_ended(&finished));
            let waiting = f.store.backoffs(10).await.unwrap();
            let waiting = waiting.iter().find(|waiting| waiting.work == granted.work).unwrap();
            let whole_ms = 1000 << (n_lost - 1);
            assert!((whole_ms / 2..=whole_ms).contains(&waiting.pause_ms), "{waiting:?}");
            f.store.requeue(std::slice::from_ref(&granted.work)).await.unwrap();
            let queue = f.queue().await;
            let queued = queue.iter().find(|queued| queued.work == granted.work).unwrap();
            let failed = Exclusion::Failed { failed: "worker_lost".to_owned() };
            assert_eq!(queued.needs.excluded.get(worker.as_str()), Some(&failed));
            granted = f.store.grant(&[placement(&granted.work, &worker)]).await.unwrap().remove(0);
        }
    }
}

pub(in crate::store) async fn a_log_rule_stops_retries(f: &Fixture<impl Store + ReadStore>) {
    let worker = f.prepared_with(&[("version: 1", RULES)]).await;
    let state = async |work: &WorkId| f.store.run_status(&run_of(work)).await.unwrap().unwrap();
    let first = f.grant_first(&worker).await;
    f.report(first.token, log("an assertion of ours")).await;
    f.finish(first.token, AttemptEnd::Preempted).await;
    assert_eq!(state(&first.work).await.state, "queued", "it did not fail");
    let again = f.store.grant(&[placement(&first.work, &worker)]).await.unwrap().remove(0);
    let message = "assertion failed: left == right";
    f.store.finish_attempt(again.token, AttemptEnd::Bug, message).await.unwrap();
    assert_eq!(state(&first.work).await.state, "failed");
    let kinds: Vec<String> = f
        .store
        .events_after(0, 1000)
        .await
        .unwrap()
        .into_iter()
        .filter(|event| event.subject == first.work.as_str())
        .map(|event| event.kind)
        .collect();
    assert!(kinds.contains(&"log_rule_matched".to_owned()), "{kinds:?}");
    // Also where nobody is left to say how it ended: what it does may take its machine down.
    f.store.retry_run(&run_of(&first.work), Retry::All).await.unwrap();
    let third = f.store.grant(&[placement(&first.work, &worker)]).await.unwrap().remove(0);
    f.report(third.token, log("an assertion of ours")).await;
    f.store.close_lost_workers(std::slice::from_ref(&worker)).await.unwrap();
    assert_eq!(state(&first.work).await.state, "failed");
}

/// Aim: every event says who it comes from.
pub(in crate::store) async fn events_say_who(f: &Fixture<impl Store + ReadStore>) {
    let ada = Actor::User("ada".into());
    let worker = acting(ada.clone(), f.prepared()).await;
    let granted = f.grant_first(&worker).await;
    f.report(granted.token, checkpoint(1, true)).await;
    f.store.expire_leases(&[granted.token]).await.unwrap();
    acting(ada, f.store.pause_study(&study_named("tiny"), "")).await.unwrap();
    f.store.finish_attempt(LeaseToken(999), AttemptEnd::Bug, "").await.unwrap();
    let events = f.store.events_after(0, 1000).await.unwrap();
    let by = |kind: &str| -> Vec<&str> {
        let of_kind = events.iter().filter(|event| event.kind == kind);
        of_kind.map(|event| event.actor.as_str()).collect()
    };
    let of_the_worker = format!("worker {worker}");
    assert_eq!(by("study_applied"), ["user ada"]);
    assert_eq!(by("study_paused"), ["user ada"]);
    assert_eq!(by("worker_joined"), [of_the_worker.as_str()]);
    assert_eq!(by("preparation_succeeded"), [of_the_worker.as_str()]);
    assert_eq!(by("checkpoint_published"), [of_the_worker.as_str()]);
    let queued_again = [of_the_worker.as_str(), of_the_worker.as_str(), "coordinator"];
    assert_eq!(by("run_queued"), queued_again, "both by the data, one by the end of its lease");
    assert!(events.iter().all(|event| !event.actor.is_empty()));
}

fn machine(device_kind: &str, memory_bytes: u64) -> Machine {
    let device_kind = device_kind.to_owned();
    let capabilities = Capabilities { device_kind, memory_bytes, ..Capabilities::of_a_cpu(1) };
    Machine { n_slots: 1, capabilities }
}
