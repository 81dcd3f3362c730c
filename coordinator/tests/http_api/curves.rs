//! Curves over restarts, thinned and with values that are not finite.

use domain::attempt::AttemptEnd;
use domain::ids::{RunId, WorkId};
use serde_json::{Value, json};

use crate::support::{Served, point, started};

async fn curve(served: &Served, run: &RunId) -> Value {
    served.get(&format!("/api/v1/runs/{run}/curves")).await.ok()["curves"][0].clone()
}

#[tokio::test]
async fn a_restart_never_forks_or_hides_a_curve() {
    // Aim: the current truth over a lost attempt. Method: the first attempt reaches step 4 and is
    // preempted; the second resumes from step 2. Before it reports nothing is hidden; after its
    // first point, the steps that it undid are.
    let served = Served::new().await;
    let (worker, run, _) = served.prepared().await;
    let work = WorkId::Run(run.clone());
    let first = served.grant(&work, &worker).await;
    let points = (1..=4).map(|step| point(step, 10.0 - step as f64));
    served.report(first, [started(0)].into_iter().chain(points).collect()).await;
    served.finish(first, AttemptEnd::Preempted, "").await;

    let second = served.grant(&work, &worker).await;
    served.report(second, vec![started(2)]).await;
    assert_eq!(curve(&served, &run).await["steps"], json!([1, 2, 3, 4]));

    served.report(second, vec![point(3, 6.5)]).await;
    let restarted = curve(&served, &run).await;
    assert_eq!(restarted["steps"], json!([1, 2, 3]));
    assert_eq!(restarted["values"], json!([9.0, 8.0, 6.5]));

    served.report(second, vec![point(4, 5.5), point(5, 4.5)]).await;
    assert_eq!(curve(&served, &run).await["values"], json!([9.0, 8.0, 6.5, 5.5, 4.5]));
}

#[tokio::test]
async fn a_value_that_is_not_finite_is_null() {
    let served = Served::new().await;
    let (worker, run, _) = served.prepared().await;
    let token = served.grant(&WorkId::Run(run.clone()), &worker).await;
    served.report(token, vec![started(0), point(1, 5.0), point(2, f64::INFINITY)]).await;
    assert_eq!(curve(&served, &run).await["values"], json!([5.0, null]));
}

#[tokio::test]
async fn a_study_has_a_curve_of_each_run_that_has_points() {
    let served = Served::new().await;
    let (worker, run, other) = served.prepared().await;
    let token = served.grant(&WorkId::Run(other.clone()), &worker).await;
    served.report(token, vec![started(0), point(1, 5.0)]).await;
    let path = "/api/v1/studies/tiny/curves?series=train_loss_nats&max_points=100";
    let curves = served.get(path).await.ok();
    assert_eq!(curves["series"], "train_loss_nats");
    let run_ids = |curves: &Value| {
        let curves = curves["curves"].as_array().unwrap();
        curves.iter().map(|curve| curve["run_id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(run_ids(&curves), [other.as_str()]);
    served.finish(token, AttemptEnd::Preempted, "").await;
    let token = served.grant(&WorkId::Run(run.clone()), &worker).await;
    served.report(token, vec![started(0), point(1, 4.0)]).await;
    let curves = served.get(path).await.ok();
    assert_eq!(run_ids(&curves), [run.as_str(), other.as_str()]);
    let curve = &curves["curves"][0];
    assert_eq!(curve["tokens_per_step"], 32.0);
    assert_eq!(curve["axis_values"], json!({ "size": "s1" }));
}

#[tokio::test]
async fn a_long_curve_is_thinned_and_keeps_its_ends_and_extremes() {
    let served = Served::new().await;
    let (worker, run, _) = served.prepared().await;
    let token = served.grant(&WorkId::Run(run.clone()), &worker).await;
    let loss = |step: u64| if step == 777 { 99.0 } else { 1.0 / step as f64 };
    let points = (1..=3_000).map(|step| point(step, loss(step)));
    served.report(token, [started(0)].into_iter().chain(points).collect()).await;
    let path = format!("/api/v1/runs/{run}/curves?max_points=50");
    let curve = served.get(&path).await.ok()["curves"][0].clone();
    let steps: Vec<u64> = serde_json::from_value(curve["steps"].clone()).unwrap();
    assert!(steps.len() <= 50, "{}", steps.len());
    assert!(steps.contains(&777) && steps.contains(&1) && steps.contains(&3_000), "{steps:?}");

    // A part of it is as fine as its points are.
    let path = format!("{path}&from_step=771&to_step=780");
    let part = served.get(&path).await.ok()["curves"][0].clone();
    assert_eq!(part["steps"], json!((771..=780).collect::<Vec<u64>>()));
    assert_eq!(part["values"][6], 99.0);
    let path = format!("/api/v1/runs/{run}/curves?from_step=2999");
    assert_eq!(served.get(&path).await.ok()["curves"][0]["steps"], json!([2_999, 3_000]));
}
