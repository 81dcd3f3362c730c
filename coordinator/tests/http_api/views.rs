//! Lists, details, progress and what a name means.

use coordinator::store::read::ReadStore;
use coordinator::store::{FitToSave, ReportEvent, Store};
use domain::attempt::AttemptEnd;
use domain::ids::{ContentHash, FitId, StudyId, WorkId};
use serde_json::json;

use crate::support::{STUDY, Served, checkpoint, point, started, without_times};

/// One run in the middle of its training, with a measured checkpoint; the other is queued.
async fn half_way() -> Served {
    let served = Served::new().await;
    let (worker, run, _) = served.prepared().await;
    let token = served.grant(&WorkId::Run(run), &worker).await;
    let events = vec![started(0), point(49, 5.5), point(50, 5.0), checkpoint(50)];
    served.report(token, events).await;
    let queued = served.app.store.queue_head(10, None).await.unwrap().work;
    let evaluation = queued.iter().find(|work| work.work.kind() == "evaluation").unwrap();
    let other = served.worker("two").await;
    let evaluating = served.grant(&evaluation.work, &other).await;
    let result = ReportEvent::Evaluation {
        name: "validation_loss_nats".to_owned(),
        value: 5.25,
        standard_error: Some(0.05),
        n_tokens: 80,
    };
    served.report(evaluating, vec![result]).await;
    served.finish(evaluating, AttemptEnd::Succeeded, "").await;
    served
}

#[tokio::test]
async fn an_empty_store_has_empty_lists() {
    let served = Served::new().await;
    assert_eq!(served.get("/api/v1/studies").await.ok(), json!({ "studies": [] }));
    assert_eq!(served.get("/api/v1/runs").await.ok(), json!({ "runs": [] }));
    assert_eq!(served.get("/api/v1/workers").await.ok(), json!({ "workers": [] }));
}

#[tokio::test]
async fn a_study_shows_its_progress() {
    let served = half_way().await;
    let study = served.get("/api/v1/studies/tiny").await.ok();
    let summary = &study["summary"];
    assert_eq!(summary["state"], "active");
    assert_eq!(summary["runs"], json!({ "leased": 1, "queued": 1 }));
    assert_eq!(summary["evaluations"], json!({ "succeeded": 1 }));
    assert_eq!(summary["preparations"], json!({ "succeeded": 1 }));
    // Half of the first run; it trains ten steps a second.
    let runs = served.get("/api/v1/studies/tiny/runs").await.ok();
    let flops = |index: usize| runs["runs"][index]["flops_exact"].as_f64().unwrap();
    let total = flops(0) + flops(1);
    assert_eq!(summary["flops_done"].as_f64().unwrap(), flops(0) / 2.0);
    assert_eq!(summary["flops_total"].as_f64().unwrap(), total);
    let rate = flops(0) / 10.0;
    assert!((summary["flops_per_second"].as_f64().unwrap() / rate - 1.0).abs() < 1e-9);
    let eta_seconds = (total - flops(0) / 2.0) / rate;
    assert!((summary["eta_seconds"].as_f64().unwrap() / eta_seconds - 1.0).abs() < 1e-9);
    assert_eq!(study["axes"], json!(["size"]));
    assert_eq!(study["active_runs"].as_array().unwrap().len(), 1);
    insta::assert_json_snapshot!("study", without_times(study));
}

#[tokio::test]
async fn the_list_of_studies_agrees_with_the_study() {
    let served = half_way().await;
    let list = served.get("/api/v1/studies").await.ok();
    let study = served.get("/api/v1/studies/tiny").await.ok();
    assert_eq!(list["studies"][0], study["summary"]);
    let by_id = format!("/api/v1/studies/{}", study["summary"]["id"].as_str().unwrap());
    assert_eq!(served.get(&by_id).await.ok(), study);
}

#[tokio::test]
async fn runs_come_with_their_latest_losses() {
    let served = half_way().await;
    let runs = served.get("/api/v1/studies/tiny/runs").await.ok();
    assert_eq!(served.get("/api/v1/runs").await.ok(), runs);
    let first = &runs["runs"][0];
    assert_eq!(first["step"], 50);
    assert_eq!(first["train_loss_nats"], 5.0);
    assert_eq!(first["validation_loss_nats"], 5.25);
    assert_eq!(first["tokens_per_second"], 320.0);
    assert_eq!(first["worker"], "one");
    assert_eq!(runs["runs"][1]["train_loss_nats"], json!(null));
    insta::assert_json_snapshot!("runs", runs);
}

#[tokio::test]
async fn a_run_shows_all_it_has() {
    let served = half_way().await;
    let runs = served.get("/api/v1/runs").await.ok();
    let (id, name) = (runs["runs"][0]["id"].clone(), runs["runs"][0]["name"].clone());
    let run = served.get(&format!("/api/v1/runs/{}", id.as_str().unwrap())).await.ok();
    let evaluation = &run["evaluations"][0];
    assert_eq!(evaluation["tokens"], 1600);
    assert_eq!(
        evaluation["flops_exact"].as_f64().unwrap() * 2.0,
        run["summary"]["flops_exact"].as_f64().unwrap()
    );
    assert_eq!(run["series"], json!(["tokens_per_second", "train_loss_nats"]));
    insta::assert_json_snapshot!("run", without_times(run.clone()));
    let by_name = served.get(&format!("/api/v1/runs/{}", name.as_str().unwrap())).await;
    assert_eq!(by_name.ok(), run);
}

#[tokio::test]
async fn workers_show_what_they_do_and_for_how_long() {
    let served = half_way().await;
    let workers = served.get("/api/v1/workers").await.ok();
    let assignment = &workers["workers"][0]["assignments"][0];
    assert_eq!(assignment["step"], 50);
    assert_eq!(assignment["eta_seconds"], 5.0);
    assert_eq!(workers["workers"][1]["assignments"], json!([]));
    insta::assert_json_snapshot!("workers", without_times(workers));
}

#[tokio::test]
async fn a_failed_attempt_leaves_its_message_on_the_run() {
    let served = Served::new().await;
    let (worker, run, _) = served.prepared().await;
    let token = served.grant(&WorkId::Run(run.clone()), &worker).await;
    served.report(token, vec![started(0), point(1, f64::NAN)]).await;
    served.finish(token, AttemptEnd::Diverged, "the loss of step 1 is not finite").await;
    let view = served.get(&format!("/api/v1/runs/{run}")).await.ok();
    assert_eq!(view["summary"]["state"], "diverged");
    assert_eq!(view["summary"]["message"], "the loss of step 1 is not finite");
    assert_eq!(view["summary"]["train_loss_nats"], json!(null));
    assert_eq!(view["attempts"][0]["ended_as"], "diverged");
}

#[tokio::test]
async fn a_run_is_marked_when_an_attempt_says_that_it_rounds_otherwise() {
    let served = Served::new().await;
    let (worker, run, _) = served.prepared().await;
    let mut started_with = started(0);
    for (threads, is_marked) in [(1, false), (1, false), (2, true), (1, true)] {
        let token = served.grant(&WorkId::Run(run.clone()), &worker).await;
        let ReportEvent::Started { numerics, .. } = &mut started_with else { unreachable!() };
        numerics.intra_op_threads = threads;
        served.report(token, vec![started_with.clone()]).await;
        served.finish(token, AttemptEnd::Preempted, "").await;
        let view = served.get(&format!("/api/v1/runs/{run}")).await.ok();
        assert_eq!(view["summary"]["has_changed_numerics"], is_marked);
    }
}

#[tokio::test]
async fn logs_come_in_pages() {
    let served = Served::new().await;
    let (worker, run, _) = served.prepared().await;
    let token = served.grant(&WorkId::Run(run.clone()), &worker).await;
    let line = |n: i64| ReportEvent::Log {
        at_ms: n,
        level: coordinator::store::LogLevel::Info,
        text: format!("line {n}"),
    };
    served.report(token, (1..=5).map(line).collect()).await;
    let mut after = 0;
    let mut texts = Vec::new();
    loop {
        let path = format!("/api/v1/runs/{run}/logs?after={after}&limit=2");
        let page = served.get(&path).await.ok();
        let Some(last) = page["lines"].as_array().unwrap().last() else { break };
        after = last["id"].as_i64().unwrap();
        let lines = page["lines"].as_array().unwrap().iter();
        texts.extend(lines.map(|line| line["text"].as_str().unwrap().to_owned()));
    }
    assert_eq!(texts, ["line 1", "line 2", "line 3", "line 4", "line 5"]);
}

#[tokio::test]
async fn a_name_that_is_not_there_is_answered_with_the_nearest() {
    let served = half_way().await;
    let message = served.get("/api/v1/studies/tinny").await.refused(404, "not_found");
    assert_eq!(message, "there is no study `tinny`; did you mean `tiny`?");
    let runs = served.get("/api/v1/runs").await.ok();
    let name = runs["runs"][0]["name"].as_str().unwrap().to_owned();
    let message = served.get(&format!("/api/v1/runs/{name}x")).await.refused(404, "not_found");
    assert!(message.ends_with(&format!("did you mean `{name}`?")), "{message}");
}

#[tokio::test]
async fn health_says_what_serves() {
    let served = half_way().await;
    let health = served.get("/api/v1/health").await.ok();
    assert_eq!(health["is_read_only"], false);
    assert_eq!(health["schema_version"], 14);
    assert_eq!(health["n_live_workers"], 2);
}

#[tokio::test]
async fn parameters_out_of_range_are_refused_with_the_range() {
    let served = half_way().await;
    for path in ["/api/v1/studies/tiny/curves?max_points=2", "/api/v1/runs/s1/logs?limit=0"] {
        let message = served.get(path).await.refused(400, "bad_request");
        assert!(message.contains("expected"), "{message}");
    }
    served.get("/api/v1/studies/tiny/curves?serie=x").await.refused(400, "bad_request");
}

#[tokio::test]
async fn steps_of_a_curve_that_are_none_are_refused_by_name() {
    let served = half_way().await;
    for (asked, answer) in [
        ("from_step=-1", "`from_step=-1` is out of range: a step is 0 or more"),
        ("from_step=3&to_step=-7", "`to_step=-7` is out of range: a step is 0 or more"),
        ("from_step=8&to_step=7", "`from_step=8` is above `to_step=7`"),
    ] {
        let path = format!("/api/v1/studies/tiny/curves?{asked}");
        assert_eq!(served.get(&path).await.refused(400, "bad_request"), answer);
    }
    let path = "/api/v1/studies/tiny/curves?to_step=x";
    let message = served.get(path).await.refused(400, "bad_request");
    assert!(message.contains("to_step"), "{message}");
}

async fn study_id(served: &Served) -> StudyId {
    let study = served.get("/api/v1/studies/tiny").await.ok();
    study["summary"]["id"].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_inputs_of_a_fit_are_the_runs_and_what_the_study_measures() {
    let served = half_way().await;
    let study = study_id(&served).await;
    let inputs = served.app.store.fit_inputs(&study).await.unwrap().unwrap();
    assert_eq!(inputs.study, "tiny");
    let names: Vec<_> = inputs.runs.iter().map(|run| run.name.as_str()).collect();
    assert_eq!(names, ["s1", "s2"]);
    assert_eq!(inputs.runs[0].state, "leased");
    assert_eq!((inputs.runs[0].batch_tokens, inputs.runs[0].steps), (32, 100));
    let [evaluation] = inputs.evaluations.as_slice() else { panic!("{:?}", inputs.evaluations) };
    assert_eq!(evaluation.run_id, inputs.runs[0].run_id);
    assert_eq!((evaluation.step, evaluation.value), (50, 5.25));
    assert_eq!(evaluation.task, "validation_loss");

    // The same run in a study that measures a part of the split: another measurement.
    let evaluate = "        evaluate: [{task: validation_loss, sequences: 1}]\n";
    let text = STUDY.replace("name: tiny", "name: part") + evaluate;
    let part: StudyId = served.apply(&text).await["study_id"].as_str().unwrap().parse().unwrap();
    let inputs = served.app.store.fit_inputs(&part).await.unwrap().unwrap();
    assert_eq!(inputs.runs.len(), 2);
    assert_eq!(inputs.evaluations, []);

    // The same measurement in a study that asks for the last step alone.
    let checkpoints = "checkpoints: {log_spaced: {count: 2, first_step: 50}}";
    let text = STUDY.replace("name: tiny", "name: end").replace(checkpoints, "checkpoints: final");
    assert!(text.contains("checkpoints: final"));
    let end: StudyId = served.apply(&text).await["study_id"].as_str().unwrap().parse().unwrap();
    let inputs = served.app.store.fit_inputs(&end).await.unwrap().unwrap();
    assert_eq!(inputs.runs[0].data_point_steps, [100]);
    assert_eq!(inputs.evaluations, []);
}

#[tokio::test]
async fn a_fit_is_kept_once() {
    let served = half_way().await;
    let study = study_id(&served).await;
    let inputs_hash = ContentHash::of(b"inputs");
    assert_eq!(served.app.store.stored_fit(&study, &inputs_hash).await.unwrap(), None);
    for report in ["{\"first\":1}", "{\"second\":2}"] {
        let fit = FitToSave {
            id: FitId::from_hash(&inputs_hash),
            study: study.clone(),
            inputs_hash: inputs_hash.clone(),
            inputs_json: String::new(),
            report_json: report.to_owned(),
            summary_json: String::new(),
        };
        served.app.store.save_fit(fit).await.unwrap();
    }
    let stored = served.app.store.stored_fit(&study, &inputs_hash).await.unwrap();
    assert_eq!(stored.as_deref(), Some("{\"first\":1}"));
}

/// The lines of an answer.
fn lines(answer: &crate::support::Answer) -> Vec<serde_json::Value> {
    let text = std::str::from_utf8(&answer.body).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Aim: every point is given, and what a restart has done again is marked.
#[tokio::test]
async fn every_point_of_a_run_is_given() {
    let served = Served::new().await;
    let (worker, run, _) = served.prepared().await;
    let work = WorkId::Run(run.clone());
    let first = served.grant(&work, &worker).await;
    served.report(first, vec![started(0), point(1, 5.5), point(2, f64::NAN), point(3, 0.1)]).await;
    served.finish(first, AttemptEnd::Preempted, "").await;
    let second = served.grant(&work, &worker).await;
    served.report(second, vec![started(1), point(2, 5.25)]).await;
    let answer = served.get(&format!("/api/v1/runs/{run}/points?series=train_loss_nats")).await;
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    let found: Vec<_> = lines(&answer)
        .into_iter()
        .map(|line| {
            assert_eq!(
                (&line["run"], &line["series"]),
                (&json!(run.as_str()), &json!("train_loss_nats"))
            );
            (
                line["step"].clone(),
                line["attempt"].clone(),
                line["value"].clone(),
                line["is_current"].clone(),
            )
        })
        .collect();
    let expected = [
        (1, 1, json!(5.5), true),
        (2, 1, json!(null), false),
        (2, 2, json!(5.25), true),
        (3, 1, json!(0.1), false),
    ];
    let expected = expected.map(|(step, attempt, value, is_current)| {
        (json!(step), json!(attempt), value, json!(is_current))
    });
    assert_eq!(found, expected);
    let all = lines(&served.get(&format!("/api/v1/runs/{run}/points")).await);
    assert_eq!(all.len(), 2 * found.len(), "both series");
    served.get("/api/v1/runs/none/points").await.refused(404, "not_found");
}

#[tokio::test]
async fn a_history_says_what_has_happened_and_pages() {
    let served = half_way().await;
    served.post("/api/v1/studies/tiny/pause", &json!({ "reason": "lunch" })).await.ok();
    let events = served.get("/api/v1/studies/tiny/history").await.ok()["events"].clone();
    let events = events.as_array().unwrap();
    let kinds: Vec<&str> = events.iter().map(|event| event["kind"].as_str().unwrap()).collect();
    for kind in ["study_applied", "preparation_succeeded", "run_granted", "evaluation_succeeded"] {
        assert!(kinds.contains(&kind), "{kinds:?}");
    }
    let last = events.last().unwrap();
    assert_eq!(
        (&last["kind"], &last["detail"]["reason"]),
        (&json!("study_paused"), &json!("lunch"))
    );
    let after = events[1]["id"].as_i64().unwrap();
    let path = format!("/api/v1/studies/tiny/history?after={after}&limit=2");
    assert_eq!(served.get(&path).await.ok()["events"], json!(events[2..4]));
    let run = &served.get("/api/v1/studies/tiny/runs").await.ok()["runs"][0]["id"];
    let path = format!("/api/v1/runs/{}/history", run.as_str().unwrap());
    let of_run = served.get(&path).await.ok()["events"].clone();
    assert!(of_run.as_array().unwrap().iter().all(|event| events.contains(event)));
    let of_worker = served.get("/api/v1/workers/two/history").await.ok()["events"].clone();
    let kinds = [&of_worker[0]["kind"], &of_worker[1]["kind"]];
    assert_eq!(kinds, ["worker_registered", "worker_joined"]);
    served.get("/api/v1/workers/twoo/history").await.refused(404, "not_found");
    served.get("/api/v1/studies/tiny/history?limit=0").await.refused(400, "bad_request");
}
