//! Fits over HTTP: made, kept, found again, and asked.

use coordinator::store::read::ReadStore;
use coordinator::store::{FitToSave, ReportEvent, Store};
use domain::attempt::AttemptEnd;
use domain::ids::{ContentHash, FitId, StudyId, WorkId, WorkerId};
use serde_json::{Value, json};

use crate::support::{STUDY, Served, checkpoint, started};

/// Six sizes over two decades of N, eight data points each.
fn planted_study() -> String {
    let sizes: Vec<String> = [16, 24, 36, 56, 84, 128]
        .iter()
        .map(|width| format!("              - {{label: d{width}, model.d_model: {width}}}\n"))
        .collect();
    let sizes = sizes.concat();
    let two = "              - {label: s1, model.d_model: 16}
              - {label: s2, model.d_model: 32}
";
    let text = STUDY
        .replace(two, &sizes)
        .replace("tokens: 3200", "tokens: 64000")
        .replace("count: 2, first_step: 50", "count: 8, first_step: 40");
    assert!(text.contains("d128") && text.contains("count: 8"));
    text + "fit: {methods: [envelope, chinchilla, isoflop], hold_out: none, draws: 120}\n"
}

/// The loss of a law that the fit must find again, with the luck of a seed.
fn planted_loss(parameters: u64, tokens: u64) -> f64 {
    let (n, d) = (parameters as f64, tokens as f64);
    let luck = 0.002 * ((parameters + 7 * tokens) as f64).sin();
    (1.5 + 60.0 * n.powf(-0.35) + 300.0 * d.powf(-0.4)) * luck.exp()
}

/// Trains and measures so many of the runs of a study.
async fn trained(served: &Served, n_runs: usize) -> StudyId {
    let (study, worker) = served.prepared_with(&planted_study()).await;
    let inputs = served.app.store.fit_inputs(&study).await.unwrap().unwrap();
    for run in inputs.runs.iter().take(n_runs) {
        let token = served.grant(&WorkId::Run(run.run_id.clone()), &worker).await;
        let mut events = vec![started(0)];
        events.extend(run.data_point_steps.iter().map(|step| checkpoint(*step)));
        served.report(token, events).await;
        served.finish(token, AttemptEnd::Succeeded, "").await;
        measure(served, &worker, &run.data_point_steps, |step| {
            planted_loss(run.parameters_non_embedding, step * run.batch_tokens)
        })
        .await;
    }
    study
}

/// Carries out the evaluations that are queued: all of one run, the earliest step first or not.
async fn measure(served: &Served, worker: &WorkerId, steps: &[u64], loss: impl Fn(u64) -> f64) {
    let queued = served.app.store.queue_head(100, None).await.unwrap().work;
    let evaluations: Vec<WorkId> =
        queued.into_iter().map(|work| work.work).filter(|w| w.kind() == "evaluation").collect();
    assert_eq!(evaluations.len(), steps.len());
    for work in evaluations {
        let token = served.grant(&work, worker).await;
        let assignment = served.app.store.assignment(token).await.unwrap().unwrap();
        let coordinator::store::AssignmentDetails::Evaluate { checkpoint_manifest, .. } =
            assignment.details
        else {
            panic!("an evaluation")
        };
        let step = checkpoint_manifest.key.rsplit('-').next().unwrap().parse().unwrap();
        let result = ReportEvent::Evaluation {
            name: "validation_loss_nats".to_owned(),
            value: loss(step),
            standard_error: Some(0.01),
            n_tokens: 80,
        };
        served.report(token, vec![result]).await;
        served.finish(token, AttemptEnd::Succeeded, "").await;
    }
}

fn post() -> Value {
    json!({})
}

/// The prediction of one method for the one group.
fn of<'a>(list: &'a Value, method: &str) -> &'a Value {
    let all = list["predictions"].as_array().unwrap();
    all.iter().find(|one| one["method"] == method).unwrap()
}

#[tokio::test]
async fn a_fit_is_made_listed_and_asked() {
    let served = Served::new().await;
    trained(&served, 6).await;
    assert_eq!(served.get("/api/v1/fits").await.ok(), json!({ "fits": [] }));
    let made = served.post("/api/v1/studies/tiny/fits", &post()).await.ok();
    let id = made["id"].as_str().unwrap();
    assert_eq!((&made["is_provisional"], &made["missing"]), (&json!(false), &json!([])));
    let law = &made["groups"][0]["fits"][1];
    assert_eq!(law["objective"], "sum of Huber losses of the residuals of ln L, δ = 0.001");
    assert_eq!(served.post("/api/v1/studies/tiny/fits", &post()).await.ok(), made, "made once");
    assert_eq!(served.get("/api/v1/studies/tiny/fit").await.ok(), made);
    assert_eq!(served.get(&format!("/api/v1/fits/{id}")).await.ok(), made);
    let list = served.get("/api/v1/fits?study=tiny").await.ok();
    assert_eq!(list["fits"].as_array().unwrap().len(), 1);
    let line = &list["fits"][0];
    assert_eq!((&line["id"], &line["study"]), (&made["id"], &json!("tiny")));
    assert_eq!(line["methods"], json!(["envelope", "chinchilla", "isoflop"]));
    assert_eq!((&line["n_observations"], &line["draws"]), (&json!(48), &json!(120)));
    // A model at the edge of what was measured: what was planted lies in its interval.
    let path = format!("/api/v1/fits/{id}/predict?n=50000&d=60000");
    let answer = served.get(&path).await.ok();
    let law = of(&answer, "chinchilla");
    let loss = &law["measured_loss_nats"];
    let planted = 1.5 + 60.0 * 50_000_f64.powf(-0.35) + 300.0 * 60_000_f64.powf(-0.4);
    let (low, high) = (loss["low"].as_f64().unwrap(), loss["high"].as_f64().unwrap());
    assert!(low < planted && planted < high, "{planted} is not in {low} to {high}");
    assert_eq!(of(&answer, "envelope")["loss_nats"]["status"], "not_identified");
    assert_eq!(law["along_sizes"], Value::Null, "no budget is spent");
    let alone = served.get(&format!("/api/v1/fits/{id}/compare?c=1e10")).await.ok();
    assert_eq!(alone, json!({ "fit": made["id"], "comparisons": [] }), "there is one group");
    // A budget: the best model costs what the budget is.
    let path = format!("/api/v1/fits/{id}/predict?c=1e10&method=chinchilla");
    let answer = served.get(&path).await.ok();
    assert_eq!(answer["predictions"].as_array().unwrap().len(), 1);
    let law = of(&answer, "chinchilla");
    let value = |field: &str| law[field]["value"].as_f64().unwrap();
    let kappa = law["flops_per_parameter_token"].as_f64().unwrap();
    let cost = kappa * value("parameters") * value("tokens");
    assert!((cost / 1e10 - 1.0).abs() < 1e-9, "{cost}");
    // Beside it the best of the trained sizes, each with its own FLOPs for a token.
    let along = &law["along_sizes"];
    let observations = made["groups"][0]["observations"].as_array().unwrap();
    let sizes = || observations.iter().map(|one| one["parameters"].as_f64().unwrap());
    let best = along["rung_parameters"].as_f64().unwrap();
    assert!(sizes().any(|size| size.to_bits() == best.to_bits()), "{best}");
    let (low, high) = (sizes().fold(best, f64::min), sizes().fold(best, f64::max));
    let size = along["parameters"]["value"].as_f64();
    assert!(size.is_none_or(|size| low <= size && size <= high), "{size:?}");
    let reason = along["parameters"]["reason"].as_str();
    assert!(reason.is_none_or(|text| text.contains("an end of the ladder")), "{reason:?}");
    let path = format!("/api/v1/fits/{id}/curve?points=5");
    let curve = served.get(&path).await.ok();
    for line in curve["lines"].as_array().unwrap() {
        let losses: Vec<f64> = line["points"]
            .as_array()
            .unwrap()
            .iter()
            .map(|point| point["loss_nats"].as_f64().unwrap())
            .collect();
        match line["method"].as_str().unwrap() {
            "isoflop" => assert!(losses.is_empty() && line["reason"] != "", "{line}"),
            _ => assert!(losses.len() == 5 && losses.is_sorted_by(|a, b| a > b), "{line}"),
        }
    }
}

/// Aim: a stored fit is made again to the last bit from what is stored with it, whatever the study
/// has become since; and one that is not is not asked.
#[tokio::test]
async fn a_stored_fit_is_made_again_from_what_is_stored_with_it() {
    let served = Served::new().await;
    let study = trained(&served, 5).await;
    let settings = json!({"fit": {"methods": ["chinchilla"], "draws": 140, "seed": 3}});
    let made = served.post("/api/v1/studies/tiny/fits", &settings).await.ok();
    assert_eq!(made["is_provisional"], true, "a run is missing");
    assert_eq!(made["missing"][0]["name"], "d128");
    let record = served.app.store.fit_record(&made["id"].as_str().unwrap().parse().unwrap()).await;
    let record = record.unwrap().unwrap();
    assert_eq!(ContentHash::of(record.inputs_json.as_bytes()).as_str(), made["inputs_hash"]);
    // As another process finds it: under another identifier, with nothing remembered.
    let keep = async |name: &[u8], inputs_json: String, report: &Value| {
        let id = FitId::from_hash(&ContentHash::of(name));
        let fit = FitToSave {
            id: id.clone(),
            study: study.clone(),
            inputs_hash: ContentHash::of(name),
            inputs_json,
            report_json: report.to_string(),
            summary_json: String::new(),
        };
        served.app.store.save_fit(fit).await.unwrap();
        id
    };
    let inputs = || record.inputs_json.clone();
    let ask = async |id: &FitId| {
        served.get(&format!("/api/v1/fits/{}/predict?c=1e10", id.as_str())).await
    };
    let copy = keep(b"copy", inputs(), &made).await;
    let first: FitId = made["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(ask(&copy).await.ok(), ask(&first).await.ok());
    let mut changed = made.clone();
    changed["groups"][0]["fits"][0]["coefficients"]["E"] =
        json!({"status": "identified", "value": 1.0, "low": 0.9, "high": 1.1});
    let changed = keep(b"changed", inputs(), &changed).await;
    let message = ask(&changed).await.refused(409, "conflict");
    assert!(message.contains("not made again as it was stored"), "{message}");
    let older = keep(b"older", String::new(), &made).await;
    let message = ask(&older).await.refused(409, "conflict");
    assert!(message.contains("an older build"), "{message}");
    assert_eq!(served.get(&format!("/api/v1/fits/{}", older.as_str())).await.ok(), made);
}

#[tokio::test]
async fn what_a_fit_cannot_answer_is_refused_by_name() {
    let served = Served::new().await;
    trained(&served, 4).await;
    let made = served.post("/api/v1/studies/tiny/fits", &post()).await.ok();
    let fit = format!("/api/v1/fits/{}", made["id"].as_str().unwrap());
    for (path, named) in [
        ("predict", "give `c` alone"),
        ("predict?c=1&n=2&d=3", "give `c` alone"),
        ("predict?n=2", "give `c` alone"),
        ("predict?c=-1", "`c` is -1"),
        ("predict?c=NaN", "`c` is NaN"),
        ("predict?c=1&group=tnl", "`group` is `tnl`; the fit has `all`"),
        ("curve?method=magic", "`method` is `magic`; the fit has `envelope`, `chinchilla`"),
        ("curve?low=2&high=1", "`low` is 2e0"),
        ("curve?points=1", "points"),
        ("curve?step=1", "step"),
        ("compare?group=tnl", "`group` is `tnl`; the fit has `all`"),
        ("compare?group=all&with=all", "`with` is `group`, `all`"),
        ("compare?c=0", "`c` is 0"),
    ] {
        let message = served.get(&format!("{fit}/{path}")).await.refused(400, "bad_request");
        assert!(message.contains(named), "{path}: {message}");
    }
    for (body, named) in [
        (json!({"fit": {"draws": 0}}), "fit.draws"),
        (json!({"fit": {"methods": []}}), "fit.methods"),
        (json!({"law": "isoflop", "objective": "lad"}), "`fit.objective` is `lad`"),
        (json!({"weights": "seed_noise", "objective": "loss-squares"}), "`fit.weights`"),
        (json!({"fit": {"law": "x"}}), "law"),
        (
            json!({"fit": {"group_by": "shoe"}}),
            "`shoe`, and the study has no such axis; it has `size`",
        ),
    ] {
        let answer = served.post("/api/v1/studies/tiny/fits", &body).await;
        let message = answer.refused(400, "bad_request");
        assert!(message.contains(named), "{body}: {message}");
    }
    served.get("/api/v1/fits/f_nothing").await.refused(404, "not_found");
    served.get("/api/v1/fits?study=nobody").await.refused(404, "not_found");
}

/// Aim: what a kept fit was asked before is not computed again. Method: the whole way from a request to
/// the body in this process, without a socket; the first answer makes the numbers, of 200 more the
/// median is compared with it. `--no-capture` prints the times, which are those of the documentation.
#[tokio::test]
async fn a_kept_fit_answers_from_memory_what_it_was_asked_before() {
    let served = Served::new().await;
    trained(&served, 6).await;
    let made = served.post("/api/v1/studies/tiny/fits", &post()).await.ok();
    let id = made["id"].as_str().unwrap();
    for path in ["", "/curve", "/predict?c=1e10", "/predict?n=50000&d=60000"] {
        let path = format!("/api/v1/fits/{id}{path}");
        let first_ms = served.times_ms(&path, 1).await[0];
        let times_ms = served.times_ms(&path, 200).await;
        let (p50, p99) = (times_ms[100], times_ms[198]);
        eprintln!("{path}: first {first_ms:.3} ms, then p50 {p50:.3} ms, p99 {p99:.3} ms");
        // The report alone was made by the request that made the fit.
        assert!(p50 < first_ms || !path.contains("predict"), "{path}: {p50} ms, {first_ms} ms");
    }
}

/// Aim: single settings stand in place of the study's own, in a query and in a body, and the same ones are one fit.
#[tokio::test]
async fn a_study_is_fitted_by_another_law_and_objective_when_asked() {
    let served = Served::new().await;
    trained(&served, 6).await;
    let settings = json!({"law": "coupled", "objective": "lad", "hold_out": "none", "draws": 150});
    let made = served.post("/api/v1/studies/tiny/fits", &settings).await.ok();
    let fits = made["groups"][0]["fits"].as_array().unwrap();
    assert_eq!(fits.len(), 1);
    assert_eq!(fits[0]["method"], "coupled");
    assert!(fits[0]["objective"].as_str().unwrap().contains("least absolute deviations"));
    assert_eq!((&made["draws"], &made["seed"]), (&json!(150), &json!(0)));
    // The same again, in whatever way it is asked for, is the same fit.
    assert_eq!(served.post("/api/v1/studies/tiny/fits", &settings).await.ok(), made);
    let query = "law=coupled&objective=lad&hold_out=none&draws=150";
    let read = served.get(&format!("/api/v1/studies/tiny/fit?{query}")).await.ok();
    assert_eq!(read, made);
    let section = json!({"fit": {"methods": ["coupled"], "objective": "lad", "draws": 150}});
    assert_eq!(served.post("/api/v1/studies/tiny/fits", &section).await.ok(), made);
    let own = served.get("/api/v1/studies/tiny/fit").await.ok();
    assert_ne!(own["id"], made["id"], "the study's own settings are another fit");
    assert_eq!(own["groups"][0]["fits"].as_array().unwrap().len(), 3);
    let listed = served.get("/api/v1/fits?study=tiny").await.ok();
    assert_eq!(listed["fits"].as_array().unwrap().len(), 2, "{listed}");
    let asked = format!("/api/v1/fits/{}/predict?c=1e10", made["id"].as_str().unwrap());
    assert_eq!(served.get(&asked).await.ok()["predictions"][0]["method"], "coupled");
}

#[tokio::test]
async fn a_bad_setting_is_refused_by_field_and_value_with_what_is_valid() {
    let served = Served::new().await;
    trained(&served, 1).await;
    for (field, value, valid) in [
        ("law", "sigmoid", "`coupled`"),
        ("objective", "mse", "`huber`, `lad`, `log-squares`, `loss-squares`"),
        ("weights", "runs", "`equal`, `seed_noise`"),
        ("hold_out", "c>1", "`none`, `largest_size`, `largest_compute`"),
        ("group_by", "shoe", "no such axis"),
    ] {
        let query = format!("/api/v1/studies/tiny/fit?{field}={value}");
        let asked = [
            served.get(&query.replace('>', "%3E")).await.refused(400, "bad_request"),
            served
                .post("/api/v1/studies/tiny/fits", &json!({field: value}))
                .await
                .refused(400, "bad_request"),
        ];
        for message in asked {
            let is_named = message.contains(field) && message.contains(value);
            assert!(is_named && message.contains(valid), "{message}");
        }
    }
    let message = served.get("/api/v1/studies/tiny/fit?colour=red").await;
    assert!(message.refused(400, "bad_request").contains("colour"));
}
