//! What views are told, with every part of a page asked for at least once.

use std::collections::BTreeMap;

use domain::attempt::AttemptEnd;
use domain::ids::{ContentHash, LeaseToken, RunId};

use super::fixture::{Fixture, checkpoint, point, run_of, source, study_named};
use crate::store::read::{ALL_STEPS, CurveQuery, CurveScope, Lookup, ReadStore};
use crate::store::{FitToSave, Granted, LogLevel, Numerics, ReportEvent, Store};

const LOSS: &str = "train_loss_nats";

fn started(step: u64) -> ReportEvent {
    ReportEvent::Started { numerics: Numerics::of_a_cpu(1), resumed_from_step: step }
}

/// A run that has started, made two steps and left a data point.
async fn in_the_middle(f: &Fixture<impl Store + ReadStore>) -> Granted {
    let worker = f.prepared().await;
    let granted = f.grant_first(&worker).await;
    let values = BTreeMap::from([(LOSS.to_owned(), 2.5), ("tokens_per_second".to_owned(), 1000.0)]);
    let log = ReportEvent::Log { at_ms: 7, level: LogLevel::Warn, text: "\0x".repeat(7_000) };
    let events = vec![
        started(0),
        point(1, 3.0),
        ReportEvent::Point { step: 2, values },
        ReportEvent::Point { step: 3, values: BTreeMap::from([(LOSS.to_owned(), f64::NAN)]) },
        log.clone(),
        checkpoint(20, true),
    ];
    f.store.report(granted.token, events).await.unwrap();
    f.report(granted.token, log).await;
    granted
}

pub(in crate::store) async fn every_view_shows_a_study_in_the_middle_of_its_work(
    f: &Fixture<impl Store + ReadStore>,
) {
    let granted = in_the_middle(f).await;
    let run = run_of(&granted.work);
    assert!(f.store.schema_version().await.unwrap() > 0);
    assert_eq!(f.store.count_live_workers(0).await.unwrap(), 1);
    assert_eq!(f.store.count_live_workers(i64::MAX).await.unwrap(), 0);
    let (known, unknown) = (source().hash, ContentHash::of(b"other"));
    let missing = f.store.missing_sources(&[known, unknown.clone()]).await.unwrap();
    assert_eq!(missing, [unknown]);

    let studies = f.store.study_list().await.unwrap().studies;
    assert_eq!((studies.len(), studies[0].state.as_str()), (1, "active"));
    assert_eq!(studies[0].runs, BTreeMap::from([("leased".into(), 1), ("queued".into(), 1)]));
    assert_eq!(studies[0].preparations, BTreeMap::from([("succeeded".into(), 1)]));
    assert_eq!(studies[0].evaluations, BTreeMap::from([("queued".into(), 1)]));
    assert!(studies[0].flops_done > 0.0 && studies[0].flops_done < studies[0].flops_total);
    assert!(studies[0].flops_per_second.unwrap() > 0.0 && studies[0].eta_seconds.unwrap() > 0.0);
    let study = studies[0].id.parse().unwrap();
    let view = f.store.study_view(&study).await.unwrap().unwrap();
    assert_eq!((view.axes, view.active_runs.len(), view.workers.len()), (vec!["lr".into()], 1, 1));

    let runs = f.store.run_list(Some(&study)).await.unwrap().runs;
    assert_eq!(runs, f.store.run_list(None).await.unwrap().runs);
    let summary = runs.iter().find(|row| row.id == run.as_str()).unwrap();
    assert_eq!((summary.state.as_str(), summary.step, summary.n_attempts), ("leased", 3, 1));
    assert_eq!((summary.train_loss_nats, summary.tokens_per_second), (None, Some(1000.0)));
    let view = f.store.run_view(&run).await.unwrap().unwrap();
    assert_eq!(view.summary, *summary);
    assert_eq!((view.attempts.len(), view.checkpoints.len(), view.evaluations.len()), (1, 1, 1));
    assert_eq!(view.attempts[0].resumed_from_step, Some(0));
    assert!(view.checkpoints[0].is_data_point);
    assert!(view.evaluations[0].flops_exact > 0.0);
    assert_eq!(view.series, ["tokens_per_second", LOSS]);

    let lines = f.store.logs(&run, 0, 10).await.unwrap().lines;
    assert_eq!((lines.len(), lines[0].text.chars().count()), (1, 14_000), "kept once");
    assert!(lines[0].text.starts_with("\u{fffd}x"), "PostgreSQL's text has no NUL");
    assert!(f.store.logs(&run, lines[0].id, 10).await.unwrap().lines.is_empty());
    let workers = f.store.workers(true).await.unwrap();
    assert_eq!(workers, f.store.workers(false).await.unwrap());
    assert_eq!(workers[0].assignments[0].tokens_per_second, Some(1000.0));
    let events = f.store.events_after(0, 1000).await.unwrap();
    assert_eq!(events.last().unwrap().id, f.store.last_event_id().await.unwrap());
    assert!(events.iter().zip(1_i64..).all(|(event, number)| event.id == number));
}

/// What a curve of the run shows: steps and values.
async fn curve(f: &Fixture<impl ReadStore>, scope: CurveScope) -> Vec<(u64, Option<f64>)> {
    let query = CurveQuery { scope, series: LOSS.to_owned(), max_points: 100, steps: ALL_STEPS };
    let curves = f.store.curves(&query).await.unwrap().curves;
    curves.into_iter().flat_map(|curve| curve.steps.into_iter().zip(curve.values)).collect()
}

pub(in crate::store) async fn a_restart_hides_what_it_has_undone(
    f: &Fixture<impl Store + ReadStore>,
) {
    let first = in_the_middle(f).await;
    let run = run_of(&first.work);
    let all = [(1, Some(3.0)), (2, Some(2.5)), (3, None)];
    assert_eq!(curve(f, CurveScope::Run(run.clone())).await, all);
    f.store.expire_leases(&[first.token]).await.unwrap();
    let worker = f.worker().await;
    let placements = [super::fixture::placement(&first.work, &worker)];
    let second = f.store.grant(&placements).await.unwrap().remove(0);
    f.store.report(second.token, vec![started(1), point(2, 2.25)]).await.unwrap();
    let truth = [(1, Some(3.0)), (2, Some(2.25))];
    assert_eq!(curve(f, CurveScope::Run(run)).await, truth);
    let study = f.store.study_list().await.unwrap().studies[0].id.parse().unwrap();
    assert_eq!(curve(f, CurveScope::Study(study)).await, truth);
}

pub(in crate::store) async fn a_name_finds_what_it_names(f: &Fixture<impl Store + ReadStore>) {
    let applied = f.apply(&[]).await;
    let found = f.store.find_study("tiny").await.unwrap();
    assert_eq!(found, Lookup::Found(applied.study_id.clone()));
    assert_eq!(f.store.find_study(applied.study_id.as_str()).await.unwrap(), found);
    let near = f.store.find_study("tinny").await.unwrap();
    assert_eq!(near, Lookup::Missing { nearest: Some("tiny".to_owned()) });
    let runs = f.store.run_list(None).await.unwrap().runs;
    for run in &runs {
        let id: RunId = run.id.parse().unwrap();
        assert_eq!(f.store.find_run(&run.name).await.unwrap(), Lookup::Found(id.clone()));
        assert_eq!(f.store.find_run(&run.id).await.unwrap(), Lookup::Found(id));
    }
    // The same runs in a second study, and others of the same names in a third.
    f.apply(&[("name: tiny", "name: second")]).await;
    let id: RunId = runs[0].id.parse().unwrap();
    assert_eq!(f.store.find_run(&runs[0].name).await.unwrap(), Lookup::Found(id));
    f.apply(&[("name: tiny", "name: third"), ("tokens: 1e5", "tokens: 2e5")]).await;
    let found = f.store.find_run(&runs[0].name).await.unwrap();
    let Lookup::Ambiguous { candidates } = found else { panic!("{found:?}") };
    assert_eq!(candidates.len(), 2);
    assert!(candidates.iter().any(|candidate| candidate.contains("second,tiny")), "{candidates:?}");
    assert_eq!(f.store.run_list(None).await.unwrap().runs.len(), 4);
}

pub(in crate::store) async fn what_a_fit_is_made_from_is_complete(
    f: &Fixture<impl Store + ReadStore>,
) {
    let granted = in_the_middle(f).await;
    let study = f.store.study_list().await.unwrap().studies[0].id.parse().unwrap();
    let inputs = f.store.fit_inputs(&study).await.unwrap().unwrap();
    assert_eq!((inputs.runs.len(), inputs.n_open_evaluations), (2, 1));
    assert_eq!((inputs.evaluations.len(), inputs.unmeasured.len()), (0, 1));
    let evaluation = evaluate(f).await;
    let result = ReportEvent::Evaluation {
        name: "validation_loss".into(),
        value: 3.25,
        standard_error: Some(0.01),
        n_tokens: 512,
    };
    f.report(evaluation, result).await;
    f.finish(evaluation, AttemptEnd::Succeeded).await;
    f.finish(granted.token, AttemptEnd::Diverged).await;
    let inputs = f.store.fit_inputs(&study).await.unwrap().unwrap();
    assert_eq!((inputs.evaluations[0].value, inputs.n_open_evaluations), (3.25, 0));
    let run = inputs.runs.iter().find(|row| row.run_id == run_of(&granted.work)).unwrap();
    assert_eq!(run.end, Some(AttemptEnd::Diverged));

    let inputs_hash = ContentHash::of(b"inputs");
    assert_eq!(f.store.stored_fit(&study, &inputs_hash).await.unwrap(), None);
    let id = domain::ids::FitId::from_hash(&inputs_hash);
    for report_json in ["{}", "{\"late\":1}"] {
        let fit = FitToSave {
            id: id.clone(),
            study: study.clone(),
            inputs_hash: inputs_hash.clone(),
            inputs_json: String::new(),
            report_json: report_json.into(),
            summary_json: String::new(),
        };
        f.store.save_fit(fit).await.unwrap();
    }
    let stored = f.store.stored_fit(&study, &inputs_hash).await.unwrap();
    assert_eq!(stored.as_deref(), Some("{}"), "the first is kept");
    let record = f.store.fit_record(&id).await.unwrap().unwrap();
    assert_eq!((record.report_json.as_str(), record.inputs_json.as_str()), ("{}", ""));
    let other = domain::ids::FitId::from_hash(&ContentHash::of(b"other"));
    assert_eq!(f.store.fit_record(&other).await.unwrap(), None);
    let line = api::FitSummary { draws: 7, ..api::FitSummary::default() };
    let newer = FitToSave {
        id: other.clone(),
        study: study.clone(),
        inputs_hash: ContentHash::of(b"other"),
        inputs_json: "[1]".into(),
        report_json: "{}".into(),
        summary_json: serde_json::to_string(&line).unwrap(),
    };
    f.store.save_fit(newer).await.unwrap();
    let list = f.store.fit_list(Some(&study), 10).await.unwrap();
    let mut found: Vec<(String, u32)> =
        list.iter().map(|fit| (fit.id.clone(), fit.draws)).collect();
    found.sort();
    let mut expected = vec![(id.to_string(), 0), (other.to_string(), 7)];
    expected.sort();
    assert_eq!(found, expected);
    assert!(list.iter().all(|fit| fit.study == "tiny" && fit.created_at_ms > 0), "{list:?}");
    assert_eq!(f.store.fit_list(None, 1).await.unwrap().len(), 1);
    assert_eq!(f.store.fit_list(Some(&study_named("nobody")), 9).await.unwrap(), []);
}

/// Grants the first evaluation.
async fn evaluate(f: &Fixture<impl Store + ReadStore>) -> LeaseToken {
    let work = f.queued_ids().await.into_iter().find(|work| work.kind() == "evaluation").unwrap();
    let worker = f.worker().await;
    let placements = [super::fixture::placement(&work, &worker)];
    f.store.grant(&placements).await.unwrap().remove(0).token
}
