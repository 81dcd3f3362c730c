//! Two studies that have a run in common and measure it differently.

use domain::attempt::AttemptEnd;
use domain::ids::{LeaseToken, StudyId, WorkerId};
use domain::recipe::EvaluationConfig;

use super::fixture::{Fixture, checkpoint, last_step, placement, run_of, study_named};
use crate::store::read::ReadStore;
use crate::store::{AssignmentDetails, ReportEvent, Store};

const ONE_RUN: (&str, &str) = ("values: [1e-3, 2e-3]", "values: [1e-3]");
const ONE_FAILURE: (&str, &str) = ("version: 1", "version: 1\nruntime: {max_failures: 1}");
const SOME_SEQUENCES: (&str, &str) = (
    "checkpoints: {log_spaced: {count: 4, first_step: 20}}",
    "checkpoints: {log_spaced: {count: 4, first_step: 20}}
        evaluate: [{task: validation_loss, sequences: 8}]",
);

/// An evaluation that a worker has.
struct Begun {
    token: LeaseToken,
    step: u64,
    sequences: Option<u32>,
}

/// Grants every queued evaluation.
async fn begin_all(f: &Fixture<impl Store + ReadStore>, worker: &WorkerId) -> Vec<Begun> {
    let mut begun = Vec::new();
    for work in f.queued_ids().await.into_iter().filter(|work| work.kind() == "evaluation") {
        let token = f.store.grant(&[placement(&work, worker)]).await.unwrap().remove(0).token;
        let details = f.store.assignment(token).await.unwrap().unwrap().details;
        let AssignmentDetails::Evaluate { config_json, checkpoint_manifest, .. } = details else {
            panic!("an evaluation evaluates");
        };
        let config: EvaluationConfig = serde_json::from_str(&config_json).unwrap();
        let step = checkpoint_manifest.key.split('/').next().unwrap().parse().unwrap();
        begun.push(Begun { token, step, sequences: config.sequences });
    }
    begun
}

/// What is measured says where, and of which sequences.
async fn measure(f: &Fixture<impl Store + ReadStore>, begun: &Begun) {
    let (value, n_tokens) = match begun.sequences {
        None => (begun.step as f64, 512),
        Some(_) => (begun.step as f64 + 0.5, 1024),
    };
    let name = "validation_loss".into();
    let result = ReportEvent::Evaluation { name, value, standard_error: None, n_tokens };
    f.report(begun.token, result).await;
    f.finish(begun.token, AttemptEnd::Succeeded).await;
}

/// A study's state, how many evaluations it says that it has, and the loss of its run.
async fn seen(f: &Fixture<impl ReadStore>, study: &StudyId) -> (String, u64, Option<f64>) {
    let summary = f.store.study_view(study).await.unwrap().unwrap().summary;
    let list = f.store.study_list().await.unwrap().studies;
    assert!(list.contains(&summary), "the list and the page of a study agree");
    let run = f.store.run_list(Some(study)).await.unwrap().runs.remove(0);
    (summary.state, summary.evaluations.values().sum(), run.validation_loss_nats)
}

/// Aim: a study's state, counts and losses are those of the evaluations that it asks for, as its
/// fits are, and not what another study measures on the same run. Method: two studies of one run
/// with other steps and sequences, before and after its end; the last evaluation of one fails.
pub(in crate::store) async fn a_study_is_judged_by_its_own_evaluations(
    f: &Fixture<impl Store + ReadStore>,
) {
    let worker = f.prepared_with(&[ONE_RUN, ONE_FAILURE]).await;
    let elsewhere = ("first_step: 20", "first_step: 30");
    let renamed = ("name: tiny", "name: other");
    let other = f.apply(&[renamed, ONE_RUN, ONE_FAILURE, SOME_SEQUENCES, elsewhere]).await;
    let (mine, other) = (study_named("tiny"), other.study_id);
    let granted = f.grant_first(&worker).await;
    f.report(granted.token, checkpoint(20, true)).await;
    f.report(granted.token, checkpoint(30, true)).await;
    for begun in begin_all(f, &worker).await {
        measure(f, &begun).await;
    }
    assert_eq!(seen(f, &mine).await, ("active".into(), 1, Some(20.0)));
    assert_eq!(seen(f, &other).await, ("active".into(), 1, Some(30.5)));

    f.succeed(granted.token, last_step()).await;
    let (whole, some): (Vec<Begun>, Vec<Begun>) =
        begin_all(f, &worker).await.into_iter().partition(|begun| begun.sequences.is_none());
    measure(f, &whole[0]).await;
    let loss = Some(last_step() as f64);
    assert_eq!(seen(f, &mine).await, ("complete".into(), 2, loss));
    assert_eq!(seen(f, &other).await, ("active".into(), 2, None));
    f.finish(some[0].token, AttemptEnd::Bug).await;
    assert_eq!(seen(f, &mine).await, ("complete".into(), 2, loss));
    assert_eq!(seen(f, &other).await, ("failed".into(), 2, None));

    for study in [&mine, &other] {
        let inputs = f.store.fit_inputs(study).await.unwrap().unwrap();
        assert_eq!(inputs.evaluations.len() + inputs.unmeasured.len(), 2, "fits agree");
    }
    let alone = f.store.run_view(&run_of(&granted.work)).await.unwrap().unwrap();
    assert_eq!((alone.summary.validation_loss_nats, alone.evaluations.len()), (loss, 6));
    assert_eq!(f.store.run_list(None).await.unwrap().runs, [alone.summary]);
    // What an edited study asks for counts at once.
    f.apply(&[ONE_RUN, ONE_FAILURE, SOME_SEQUENCES]).await;
    assert_eq!(seen(f, &mine).await, ("failed".into(), 2, None));
}
