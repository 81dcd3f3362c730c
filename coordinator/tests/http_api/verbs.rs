//! What can be done to studies and workers, and why something is not running.

use coordinator::clock::Clock;
use coordinator::reconcile;
use coordinator::store::Store;
use coordinator::store::read::ReadStore;
use domain::attempt::AttemptEnd;
use domain::ids::WorkId;
use serde_json::{Value, json};

use crate::support::{STUDY, Served, machine, started};

/// The codes of the reasons, the most important first.
async fn codes(served: &Served, target: &str) -> Vec<String> {
    let view = served.get(&format!("/api/v1/explain/{target}")).await.ok();
    let code = |reason: &Value| reason["code"].as_str().unwrap().to_owned();
    view["reasons"].as_array().unwrap().iter().map(code).collect()
}

#[tokio::test]
async fn a_study_is_paused_put_first_and_resumed() {
    let served = Served::new().await;
    let (worker, run, other) = served.prepared().await;
    served.grant(&WorkId::Run(run.clone()), &worker).await;
    let paused = served.post("/api/v1/studies/tiny/pause", &json!({ "reason": "wait" })).await.ok();
    assert_eq!(paused["run_ids"].as_array().unwrap().len(), 2);
    let study = served.get("/api/v1/studies/tiny").await.ok();
    assert_eq!(
        (&study["summary"]["state"], &study["pause_reason"]),
        (&json!("paused"), &json!("wait"))
    );
    assert_eq!(codes(&served, run.as_str()).await, ["leaving", "study_paused"]);
    assert_eq!(codes(&served, other.as_str()).await, ["study_paused"]);
    let again = served.post("/api/v1/studies/tiny/pause", &json!({})).await.ok();
    assert_eq!(again["run_ids"], json!([]));

    let first = served.post("/api/v1/studies/tiny/priority", &json!({ "priority": 7 })).await.ok();
    assert_eq!(first["run_ids"].as_array().unwrap().len(), 2);
    let resumed = served.post("/api/v1/studies/tiny/resume", &json!({})).await.ok();
    assert_eq!(resumed["run_ids"].as_array().unwrap().len(), 2);
    let study = served.get("/api/v1/studies/tiny").await.ok();
    assert_eq!(study["summary"]["priority"], 7);
    assert_eq!(study["summary"]["state"], "active");
}

#[tokio::test]
async fn a_retry_says_what_it_means() {
    let served = Served::new().await;
    let (worker, run, _) = served.prepared().await;
    let path = "/api/v1/studies/tiny/retry";
    let refused =
        served.post(path, &json!({ "class": "divergd" })).await.refused(400, "bad_request");
    assert!(refused.contains("`divergd`") && refused.contains("`out_of_memory`"), "{refused}");
    let refused = served.post(path, &json!({ "class": "diverged" })).await;
    refused.refused(400, "bad_request");
    for _ in 0..3 {
        let token = served.grant(&WorkId::Run(run.clone()), &worker).await;
        served.finish(token, AttemptEnd::Bug, "it broke\nin the middle").await;
        // A pause is not waited for here.
        served.post(&format!("/api/v1/runs/{run}/retry"), &json!({})).await.ok();
    }
    for code in ["backing_off", "failed"] {
        let token = served.grant(&WorkId::Run(run.clone()), &worker).await;
        served.finish(token, AttemptEnd::BadData, "the hash is another").await;
        assert_eq!(codes(&served, run.as_str()).await, [code]);
        served.app.store.requeue(&[WorkId::Run(run.clone())]).await.unwrap();
    }
    let none = served.post(path, &json!({ "class": "bug" })).await.ok();
    assert_eq!(none["run_ids"], json!([]));
    let some = served.post(path, &json!({ "class": "bad_data" })).await.ok();
    // Its data is made again, for which the other run, which was queued, waits too.
    let concerned = some["run_ids"].as_array().unwrap();
    assert_eq!(concerned.len(), 2, "{some}");
    assert!(concerned.contains(&json!(run.as_str())), "{some}");
    assert_eq!(codes(&served, run.as_str()).await, ["data_not_ready"]);
}

/// Aim: what changes nothing leaves no event. Method: each verb is tried out, made, and made again.
#[tokio::test]
async fn a_verb_that_changes_nothing_leaves_no_event() {
    let served = Served::new().await;
    let (_, run, _) = served.prepared().await;
    let newest = async || served.app.store.last_event_id().await.unwrap();
    for (path, body) in [
        ("studies/tiny/pause".to_owned(), json!({ "reason": "wait" })),
        ("studies/tiny/resume".to_owned(), json!({})),
        ("studies/tiny/priority".to_owned(), json!({ "priority": 7 })),
        (format!("runs/{run}/cancel"), json!({ "reason": "enough" })),
        (format!("runs/{run}/retry"), json!({})),
        ("studies/tiny/cancel".to_owned(), json!({ "reason": "enough" })),
        ("studies/tiny/retry".to_owned(), json!({})),
    ] {
        let path = format!("/api/v1/{path}");
        let before = newest().await;
        served.post(&format!("{path}?dry_run=true"), &body).await.ok();
        assert_eq!(newest().await, before, "{path} was only tried out");
        served.post(&path, &body).await.ok();
        let after = newest().await;
        assert!(after > before, "{path} did nothing");
        served.post(&path, &body).await.ok();
        assert_eq!(newest().await, after, "{path} changed nothing");
    }
    // Of a study that is not cancelled too, and of one whose priority was set.
    let before = newest().await;
    served.post("/api/v1/studies/tiny/retry", &json!({ "class": "bug" })).await.ok();
    assert_eq!(newest().await, before);
    served.apply(STUDY).await;
    let after = newest().await;
    assert!(after > before, "the file's priority is another");
    served.apply(STUDY).await;
    assert_eq!(newest().await, after);
    let drain = format!("/api/v1/workers/{}/drain", served.worker("two").await);
    served.post(&drain, &json!({})).await.ok();
    let drained = newest().await;
    served.post(&drain, &json!({})).await.ok();
    assert_eq!(newest().await, drained);
}

#[tokio::test]
async fn every_state_of_a_run_is_explained() {
    let served = Served::new().await;
    let (worker, run, other) = served.prepared().await;
    reconcile::take_over(&served.app).await.unwrap();
    // The worker does not ask for work, and the other run is as long and was first.
    assert_eq!(codes(&served, other.as_str()).await[0], "no_free_slot");
    let token = served.grant(&WorkId::Run(run.clone()), &worker).await;
    served.report(token, vec![started(0)]).await;
    assert_eq!(codes(&served, run.as_str()).await, ["running"]);
    served.finish(token, AttemptEnd::Bug, "it broke\nin the middle").await;
    let view = served.get(&format!("/api/v1/explain/{run}")).await.ok();
    let message = view["reasons"][0]["message"].as_str().unwrap();
    assert!(message.contains("attempt 1 ended as bug (it broke)"), "{message}");
    served.post(&format!("/api/v1/runs/{run}/cancel"), &json!({ "reason": "x" })).await.ok();
    assert_eq!(codes(&served, run.as_str()).await, ["cancelled"]);
    served.app.leader.leave(&worker);
    assert_eq!(codes(&served, other.as_str()).await, ["no_worker"]);
    let missing = served.get("/api/v1/explain/tinny").await.refused(404, "not_found");
    assert!(missing.contains("run, worker or cell"), "{missing}");
}

/// Aim: what is said of a pause is what ends it, whatever the wall clock does.
#[tokio::test]
async fn a_back_off_is_explained_by_the_clock_that_ends_it() {
    const HOUR_MS: i64 = 3_600_000;
    let clock = Clock::by_hand();
    clock.set(0, 10 * HOUR_MS);
    let served = Served::on_clock(clock.clone()).await;
    let (worker, run, _) = served.prepared().await;
    let token = served.grant(&WorkId::Run(run.clone()), &worker).await;
    served.finish(token, AttemptEnd::Bug, "it broke").await;
    reconcile::round(&served.app).await.unwrap();
    let left_seconds = async || -> u64 {
        let view = served.get(&format!("/api/v1/explain/{run}")).await.ok();
        let message = view["reasons"][0]["message"].as_str().unwrap().to_owned();
        let (_, left) = message.split_once("may begin in ").unwrap();
        left.trim_end_matches(" s").parse().unwrap()
    };
    let whole = left_seconds().await;
    assert!((1..600).contains(&whole), "{whole}");
    clock.set(1_000, 9 * HOUR_MS);
    assert_eq!(left_seconds().await, whole - 1);
    clock.set(600_000, 9 * HOUR_MS);
    assert_eq!(left_seconds().await, 0);
}

#[tokio::test]
async fn a_run_waits_for_its_data_and_says_so() {
    let served = Served::new().await;
    served.apply(crate::support::STUDY).await;
    let runs = served.get("/api/v1/runs").await.ok();
    let run = runs["runs"][0]["id"].as_str().unwrap();
    assert_eq!(codes(&served, run).await, ["data_not_ready"]);
    reconcile::take_over(&served.app).await.unwrap();
    assert_eq!(codes(&served, run).await, ["data_not_ready", "no_worker"]);
    let worker = served.worker("one").await;
    let preparation = served.app.store.queue_head(1, None).await.unwrap().work.remove(0).work;
    let token = served.grant(&preparation, &worker).await;
    served.finish(token, AttemptEnd::Bug, "no disk").await;
    assert_eq!(codes(&served, run).await, ["data_not_ready", "preparation_failed"]);
}

#[tokio::test]
async fn a_worker_is_drained_by_its_name_and_explained() {
    let served = Served::new().await;
    let worker = served.worker("one").await;
    reconcile::take_over(&served.app).await.unwrap();
    assert_eq!(codes(&served, worker.as_str()).await, ["no_poll"]);
    let poll = served.app.leader.open_poll(&worker, 1).unwrap();
    assert_eq!(codes(&served, worker.as_str()).await, ["no_work"]);
    let name = served.get("/api/v1/workers").await.ok()["workers"][0]["name"].clone();
    let path = format!("/api/v1/workers/{}/drain", name.as_str().unwrap());
    let view = served.post(&path, &json!({})).await.ok();
    assert_eq!((&view["state"], &view["id"]), (&json!("draining"), &json!(worker.as_str())));
    assert_eq!(codes(&served, worker.as_str()).await, ["draining"]);
    assert!(!served.app.leader.take_mail(&worker, &poll).unwrap().directives.is_empty());
    served.post(&path, &json!({})).await.ok();
    served.post("/api/v1/workers/two/drain", &json!({})).await.refused(404, "not_found");
}

#[tokio::test]
async fn what_a_study_asks_for_is_a_reason() {
    let served = Served::new().await;
    let (worker, run, _) = served.prepared().await;
    served.app.leader.take_over(Vec::new(), Vec::new());
    served.app.leader.enter(&worker, machine());
    assert!(served.app.leader.activate(&worker));
    for (runtime, code) in [
        ("{placement: {device: cuda}}", "placement"),
        ("{placement: {labels: {pool: night}}}", "placement"),
        ("{placement: {memory_bytes: 1099511627776}}", "memory"),
        ("{budget_flops: 1}", "over_budget"),
        ("{}", "no_free_slot"),
    ] {
        let text = STUDY.replacen("name: tiny", &format!("name: tiny\nruntime: {runtime}"), 1);
        served.apply(&text).await;
        assert_eq!(codes(&served, run.as_str()).await[0], code, "{runtime}");
    }
}
