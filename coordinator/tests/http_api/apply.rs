//! Planning, uploading, applying, cancelling and retrying.

use domain::attempt::AttemptEnd;
use domain::ids::{ContentHash, WorkId};
use serde_json::json;

use crate::support::{SOURCE, STUDY, Served, apply_request, started, with_seeds};

#[tokio::test]
async fn a_plan_stores_nothing() {
    let served = Served::new().await;
    let plan = served.post("/api/v1/plan", &apply_request(STUDY)).await.ok();
    assert_eq!(plan["n_runs"], 2);
    assert_eq!(served.get("/api/v1/studies").await.ok(), json!({ "studies": [] }));
}

#[tokio::test]
async fn a_long_plan_is_shown_whole() {
    // Aim: an answer in pieces is the answer. Method: more cells than stand in two of them, beside
    // the plan as it is made here.
    let served = Served::new().await;
    let text = with_seeds(300);
    let plan = served.post("/api/v1/plan", &apply_request(&text)).await.ok();
    let parsed = domain::spec::parse(&text, "tiny.yaml").unwrap();
    let file_hashes = vec![ContentHash::of(SOURCE)];
    let sources = [planner::CorpusHashes { corpus: "plays".to_owned(), file_hashes }];
    let expected = planner::plan_view(&planner::plan(&parsed, &sources).unwrap());
    assert_eq!(expected.cells.len(), 600);
    assert_eq!(plan, json!(expected));
    assert_eq!(served.apply(&text).await["plan"], plan);
}

#[tokio::test]
async fn a_wrong_study_file_is_answered_with_the_place_and_stores_nothing() {
    let served = Served::new().await;
    let text = STUDY.replace("n_layers: 1", "n_leyers: 1");
    for path in ["/api/v1/plan", "/api/v1/studies"] {
        let answer = served.post(path, &apply_request(&text)).await;
        let message = answer.refused(400, "invalid_spec");
        assert!(message.starts_with("tiny.yaml:11:"), "{message}");
        assert!(message.contains("n_layers"), "{message}");
    }
    assert_eq!(served.get("/api/v1/studies").await.ok(), json!({ "studies": [] }));
}

#[tokio::test]
async fn a_study_whose_sources_are_missing_is_refused_until_they_are_uploaded() {
    let served = Served::new().await;
    let hash = ContentHash::of(SOURCE);
    let asked = json!({ "hashes": [hash.as_str()] });
    assert_eq!(served.post("/api/v1/sources/missing", &asked).await.ok(), asked);
    let message =
        served.post("/api/v1/studies", &apply_request(STUDY)).await.refused(409, "missing_sources");
    assert!(message.contains(hash.as_str()), "{message}");
    served.apply(STUDY).await;
    let missing = served.post("/api/v1/sources/missing", &asked).await.ok();
    assert_eq!(missing, json!({ "hashes": [] }));
}

#[tokio::test]
async fn an_upload_that_is_not_what_its_hash_says_is_refused() {
    let served = Served::new().await;
    let hash = ContentHash::of(b"something else");
    let path = format!("/api/v1/sources/{hash}");
    served.put(&path, SOURCE).await.refused(400, "bad_request");
    let asked = json!({ "hashes": [hash.as_str()] });
    assert_eq!(served.post("/api/v1/sources/missing", &asked).await.ok(), asked);
}

#[tokio::test]
async fn an_upload_cannot_name_a_path() {
    let served = Served::new().await;
    for name in ["..%2F..%2Fstore.db", "abc", "%2Fetc%2Fpasswd"] {
        served.put(&format!("/api/v1/sources/{name}"), SOURCE).await.refused(400, "bad_request");
    }
}

#[tokio::test]
async fn applying_again_changes_nothing() {
    let served = Served::new().await;
    let first = served.apply(STUDY).await;
    assert_eq!(first["n_new_runs"], 2);
    assert_eq!(first["is_update"], false);
    let second = served.apply(STUDY).await;
    assert_eq!(second["n_new_runs"], 0);
    assert_eq!(second["n_reused_runs"], 2);
    assert_eq!(second["is_update"], true);
    assert_eq!(second["study_id"], first["study_id"]);
}

#[tokio::test]
async fn a_name_of_several_runs_is_a_conflict_that_lists_them() {
    let served = Served::new().await;
    served.apply(STUDY).await;
    let other = STUDY.replace("name: tiny", "name: other").replace("1e-3", "2e-3");
    served.apply(&other).await;
    let runs = served.get("/api/v1/runs").await.ok();
    assert_eq!(runs["runs"].as_array().unwrap().len(), 4);
    let name = runs["runs"][0]["name"].as_str().unwrap();
    let message = served.get(&format!("/api/v1/runs/{name}")).await.refused(409, "conflict");
    assert!(message.contains("`tiny`") && message.contains("`other`"), "{message}");
}

#[tokio::test]
async fn one_run_of_two_studies_is_listed_in_both_and_counted_once() {
    let served = Served::new().await;
    served.apply(STUDY).await;
    served.apply(&STUDY.replace("name: tiny", "name: other")).await;
    let all = served.get("/api/v1/runs").await.ok();
    assert_eq!(all["runs"].as_array().unwrap().len(), 2);
    assert_eq!(all["runs"][0]["study"], "tiny");
    let other = served.get("/api/v1/studies/other/runs").await.ok();
    assert_eq!(other["runs"][0]["id"], all["runs"][0]["id"]);
    assert_eq!(other["runs"][0]["study"], "other");
    let name = all["runs"][0]["name"].as_str().unwrap();
    let run = served.get(&format!("/api/v1/runs/{name}")).await.ok();
    assert_eq!(run["cells"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_cancelled_study_is_retried() {
    let served = Served::new().await;
    served.prepared().await;
    let reason = json!({ "reason": "wrong data" });
    let changed = served.post("/api/v1/studies/tiny/cancel", &reason).await.ok();
    assert_eq!(changed["run_ids"].as_array().unwrap().len(), 2);
    let study = served.get("/api/v1/studies/tiny").await.ok();
    assert_eq!(study["summary"]["state"], "cancelled");
    assert_eq!(study["cancel_reason"], "wrong data");
    let changed = served.post("/api/v1/studies/tiny/retry", &json!({})).await.ok();
    assert_eq!(changed["run_ids"].as_array().unwrap().len(), 2);
    let study = served.get("/api/v1/studies/tiny").await.ok();
    assert_eq!(study["summary"]["state"], "active");
    assert_eq!(study["summary"]["runs"], json!({ "queued": 2 }));
}

#[tokio::test]
async fn a_cancelled_run_is_taken_from_its_worker_and_retried() {
    let served = Served::new().await;
    let (worker, run, _) = served.prepared().await;
    let token = served.grant(&WorkId::Run(run.clone()), &worker).await;
    served.report(token, vec![started(0)]).await;
    let cancel = format!("/api/v1/runs/{run}/cancel");
    let changed = served.post(&cancel, &json!({ "reason": "" })).await.ok();
    assert_eq!(changed["run_ids"], json!([run.as_str()]));
    // The worker's end comes late and changes nothing.
    served.finish(token, AttemptEnd::Succeeded, "").await;
    let view = served.get(&format!("/api/v1/runs/{run}")).await.ok();
    assert_eq!(view["summary"]["state"], "cancelled");
    let again = served.post(&cancel, &json!({ "reason": "" })).await.ok();
    assert_eq!(again["run_ids"], json!([]));
    served.post(&format!("/api/v1/runs/{run}/retry"), &json!({})).await.ok();
    let view = served.get(&format!("/api/v1/runs/{run}")).await.ok();
    assert_eq!(view["summary"]["state"], "queued");
}

#[tokio::test]
async fn a_body_that_is_no_json_is_refused() {
    let served = Served::new().await;
    let unknown = json!({ "reason": "", "force": true });
    served.apply(STUDY).await;
    let answer = served.post("/api/v1/studies/tiny/cancel", &unknown).await;
    let message = answer.refused(400, "bad_request");
    assert!(message.contains("force"), "{message}");
}

#[tokio::test]
async fn a_source_may_be_larger_than_any_request_in_json() {
    let served = Served::new().await;
    let bytes = vec![b'x'; 40 * 1024 * 1024];
    let hash = ContentHash::of(&bytes);
    let put = served.put(&format!("/api/v1/sources/{hash}"), bytes).await;
    assert_eq!(put.status, 204, "{put:?}");
    let asked = json!({ "hashes": [hash.as_str()] });
    let missing = served.post("/api/v1/sources/missing", &asked).await.ok();
    assert_eq!(missing, json!({ "hashes": [] }));
}
