//! Checkpoints on the way of a learning rate that decays are no ends of runs, and a report says so.

use coordinator::fits::{Question, Which, fit_model};
use domain::spec::FitMethod;
use serde_json::json;

use super::{CHECKPOINTS, study};

/// The notes of a study whose runs decay or not, and what a prediction of its law warns of.
fn said(is_decaying: bool, warmup_steps: u64, methods: &[FitMethod]) -> (Vec<String>, Vec<String>) {
    let mut inputs = study(&["llama"], 6, &json!({ "methods": methods, "draws": 100 }));
    for run in &mut inputs.runs {
        run.is_decaying = is_decaying;
        run.warmup_steps = warmup_steps;
        run.budget_flops = Some(1e15);
    }
    let model = fit_model(&inputs).expect("it is fitted");
    let which = Which::default();
    let asked = model.predict(&which, Question::Budget { flops: 1e15 });
    let warned = asked.predictions.into_iter().flat_map(|one| one.warnings).collect();
    (model.report().notes.clone(), warned)
}

fn has(texts: &[String], beginning: &str) -> bool {
    texts.iter().any(|text| text.starts_with(beginning))
}

#[test]
fn checkpoints_on_the_way_of_a_decay_are_warned_of_and_so_is_what_is_predicted_from_them() {
    let law = [FitMethod::Chinchilla];
    let (notes, warned) = said(true, 0, &law);
    // Six runs of ten checkpoints, of which one is the end.
    assert!(has(&notes, "unlike-checkpoints: 54 of 60 fitted points"), "{notes:?}");
    assert!(has(&warned, "of the fit: unlike-checkpoints: "), "{warned:?}");
    assert!(!has(&notes, "every measured checkpoint"), "{notes:?}");

    let (notes, warned) = said(false, 0, &law);
    assert!(!has(&notes, "unlike-checkpoints") && !has(&notes, "in-warm-up"), "{notes:?}");
    assert!(has(&notes, "every measured checkpoint is a data point"), "{notes:?}");
    assert!(!has(&warned, "of the fit: unlike-checkpoints"), "{warned:?}");

    let (notes, _) = said(false, CHECKPOINTS[2], &law);
    assert!(has(&notes, "in-warm-up: 12 of 60 fitted points"), "{notes:?}");

    // Profiles are made of ends alone.
    let (notes, _) = said(true, CHECKPOINTS[2], &[FitMethod::Isoflop]);
    assert!(!has(&notes, "unlike-checkpoints") && !has(&notes, "in-warm-up"), "{notes:?}");
}

#[test]
fn text_that_is_read_over_and_over_is_warned_of() {
    let noted = |tenths: u64| {
        let settings = json!({ "methods": [FitMethod::Chinchilla], "draws": 100 });
        let mut inputs = study(&["llama"], 6, &settings);
        for (index, run) in inputs.runs.iter_mut().enumerate() {
            // Every second run has so much less text than it reads.
            let tenths = if index % 2 == 0 { tenths } else { 10 };
            run.training_tokens = Some(run.steps * run.batch_tokens * 10 / tenths);
        }
        fit_model(&inputs).expect("it is fitted").report().notes.clone()
    };
    assert!(!has(&noted(39), "repeated-data"), "{:?}", noted(39));
    let notes = noted(80);
    let expected = "repeated-data: 3 of 6 fitted runs read their training text more than 4 times \
                    (from 1.0 to 8.0 times)";
    assert!(has(&notes, expected), "{notes:?}");
}

#[test]
fn a_prediction_outside_the_fitted_sizes_and_tokens_says_so() {
    let inputs = study(&["llama"], 6, &json!({ "methods": [FitMethod::Chinchilla], "draws": 100 }));
    let model = fit_model(&inputs).expect("it is fitted");
    let warned = |question| -> Vec<String> {
        let asked = model.predict(&Which::default(), question);
        asked.predictions.into_iter().flat_map(|one| one.warnings).collect()
    };
    let fitted = &model.report().groups[0].observations;
    let inside = &fitted[fitted.len() / 2];
    let (parameters, tokens) = (inside.parameters, inside.tokens);
    let texts = warned(Question::Model { parameters, tokens });
    assert!(!has(&texts, "outside-data") && !has(&texts, "far-extrapolation"), "{texts:?}");
    // Of the same C, which alone would say nothing.
    let far = Question::Model { parameters: 1e4 * parameters, tokens: 1e-4 * tokens };
    let texts = warned(far);
    assert!(has(&texts, "far-extrapolation: N = "), "{texts:?}");
    assert!(has(&texts, "outside-data: D = "), "{texts:?}");
    assert!(!texts.iter().any(|text| text.contains(": C = ")), "{texts:?}");
    assert!(has(&texts, "outside-data: D / N = "), "{texts:?}");
    let small = model.measured_range().0 / 3.0;
    let texts = warned(Question::Budget { flops: small });
    assert!(has(&texts, "outside-data: C = "), "{texts:?}");
}
