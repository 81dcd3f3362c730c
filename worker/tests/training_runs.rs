//! A tiny model learns, diverges, stops and is measured, in the child process itself.
#![cfg(feature = "torch")]
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod bench;

use std::collections::BTreeSet;

use bench::Story;
use bench::work::{ARCHITECTURES, Bench, assignment, preparation, run, text};
use domain::spec::{
    CorpusFormat, LossSpikeSpec, Precision, TokenizerSpec, UnstableStep, WeightAverageSpec,
};
use proto::v1::{self, assignment::Work, event::Kind};
use tch::Tensor;
use worker::checkpoint::tensors::from_bytes;

/// The weights that a checkpoint publishes, with their names.
fn published(bench: &Bench, story: &Story, step: u64) -> Vec<(String, Tensor)> {
    let key = &story.checkpoint(step).weights.as_ref().unwrap().key;
    from_bytes(&std::fs::read(bench.site.path(key)).unwrap()).unwrap()
}

#[test]
fn a_tiny_model_learns_and_its_checkpoints_measure_it() {
    let bench = Bench::new();
    let cell = bench.cell("llama", 120);
    let mut trainer = bench.trainer();
    let story = trainer.carry_out(run(bench.train(&cell, &[1]), 1));
    assert_eq!(story.end, "succeeded", "{}", story.message);
    let losses = story.losses();
    assert_eq!(
        losses.iter().map(|(step, _)| *step).collect::<Vec<_>>(),
        (1..=120).collect::<Vec<_>>()
    );
    // An untrained model of 257 tokens has a loss of ln 257 = 5.55.
    assert!((losses[0].1 - 257_f64.ln()).abs() < 0.2, "{:?}", losses[0]);
    assert!(losses[119].1 < 2.2, "{:?}", losses[119]);
    assert!(story.checkpoints().iter().all(|checkpoint| checkpoint.is_data_point));

    let mut measured = Vec::new();
    for step in [1, 120] {
        let work = bench.evaluate(&cell, story.checkpoint(step));
        let story = trainer.carry_out(assignment(Work::Evaluate(work), "e_test", 2));
        assert_eq!(story.end, "succeeded", "{}", story.message);
        measured.push(story.evaluation().clone());
    }
    assert_eq!(measured[0].name, "validation_loss_nats");
    assert!(measured[0].value > 5.0 && measured[1].value < 2.3, "{measured:?}");
    assert!(measured[1].standard_error.is_some_and(|error| error > 0.0 && error < 0.1));
    assert!(measured[1].n_tokens > 5000 && measured[1].n_tokens % 33 == 0);
}

#[test]
fn every_point_has_the_metrics_of_its_step() {
    let bench = Bench::new();
    let cell = bench.cell("tnl", 3);
    let story = bench.attempt(bench.train(&cell, &[1]), 1);
    let points = story.points();
    let names: BTreeSet<&str> = points[0].values.keys().map(String::as_str).collect();
    let expected = [
        "checkpoint_stall_seconds",
        "data_wait_seconds",
        "elapsed_seconds",
        "flops",
        "flops_channel_mixer",
        "flops_head",
        "flops_mixing",
        "flops_output_gate",
        "flops_per_second",
        "flops_projections",
        "gradient_norm",
        "learning_rate",
        "memory_bytes",
        "memory_peak_bytes",
        "mfu",
        "peak_flops_per_second",
        "tokens",
        "tokens_per_second",
        "train_loss_nats",
    ];
    assert_eq!(names.into_iter().collect::<Vec<_>>(), expected);
    // Three steps of warm-up to a peak of 0.01: a quarter, a half, three quarters.
    assert_eq!(story.values("learning_rate"), [(1, 0.0025), (2, 0.005), (3, 0.0075)]);
    assert!(story.values("gradient_norm").iter().all(|(_, norm)| *norm > 0.0));
    let flops = cell.flops_per_token(domain::spec::FlopKind::Exact);
    for point in points {
        let ratio = point.values["flops_per_second"] / point.values["tokens_per_second"];
        assert!((ratio / flops - 1.0).abs() < 1e-12);
        let mfu = point.values["flops_per_second"] / point.values["peak_flops_per_second"];
        assert_eq!(point.values["mfu"], mfu);
        assert_eq!(point.values["tokens"], cell.tokens_at(point.step) as f64);
        let spent = cell.flops_at(point.step, domain::spec::FlopKind::Exact);
        assert!((point.values["flops"] / spent - 1.0).abs() < 1e-12);
        let terms = point
            .values
            .iter()
            .filter(|(name, _)| name.starts_with("flops_") && name.as_str() != "flops_per_second");
        let of_terms: f64 = terms.map(|(_, flops)| flops).sum();
        assert!((of_terms / spent - 1.0).abs() < 1e-12);
        assert!(point.values["memory_bytes"] > 1e7);
        assert!(point.values["memory_peak_bytes"] >= point.values["memory_bytes"]);
        assert!(point.values["data_wait_seconds"] > 0.0);
    }
    // After the first step and the last there is a checkpoint.
    let stalls = story.values("checkpoint_stall_seconds");
    let is_stalled: Vec<bool> = stalls.iter().map(|(_, seconds)| *seconds > 0.0).collect();
    assert_eq!(is_stalled, [true, false, true], "{stalls:?}");
}

/// By how much, as shares: the first step's loss and gradient norm, the losses of all steps, and the
/// distance of the last weights from each other.
struct Rounding {
    first_step: f64,
    losses: f64,
    weights: f64,
}

/// The distance of two sets of weights, as a share of the norm of the first.
fn distance(one: &[(String, Tensor)], other: &[(String, Tensor)]) -> f64 {
    let square = |x: Tensor| x.square().sum(tch::Kind::Double).double_value(&[]);
    let pairs = one.iter().zip(other);
    let apart: f64 = pairs.map(|((_, a), (_, b))| square(a - b)).sum();
    let norm: f64 = one.iter().map(|(_, a)| square(a.shallow_clone())).sum();
    (apart / norm).sqrt()
}

/// Trains on batches of four sequences, whole and cut into three and one and into single ones.
#[track_caller]
fn check_micro_batches(precision: Precision, rounding: &Rounding) {
    let bench = Bench::new();
    let mut trainer = bench.trainer();
    let mut attempts = 1..;
    for architecture in ARCHITECTURES {
        let mut cell = bench.cell(architecture, 8);
        (cell.training.precision, cell.training.z_loss) = (precision, 1e-3);
        let mut train_in = |micro_batch_sequences| {
            let train = v1::Train { micro_batch_sequences, ..bench.train(&cell, &[]) };
            let story = trainer.carry_out(run(train, attempts.next().unwrap()));
            assert_eq!(story.end, "succeeded", "{}", story.message);
            let numerics = story.started().numerics.clone().unwrap();
            assert_eq!(numerics.micro_batch_sequences, micro_batch_sequences);
            let weights = published(&bench, &story, 8);
            (story, weights)
        };
        let (whole, weights) = train_in(4);
        for size in [3, 1] {
            let (cut, cut_weights) = train_in(size);
            let shares = |name: &str| -> Vec<f64> {
                let pairs = whole.values(name).into_iter().zip(cut.values(name));
                pairs.map(|((_, a), (_, b))| (a / b - 1.0).abs()).collect()
            };
            let (losses, norms) = (shares("train_loss_nats"), shares("gradient_norm"));
            let distance = distance(&weights, &cut_weights);
            let found = format!("{architecture} in {size}: {losses:?} {norms:?} {distance:e}");
            assert!(losses[0].max(norms[0]) < rounding.first_step, "{found}");
            assert!(losses.iter().all(|share| *share < rounding.losses), "{found}");
            assert!(distance < rounding.weights, "{found}");
        }
    }
}

#[test]
fn micro_batches_change_rounding_only() {
    // Found: 1e-7, 3e-5, 1e-4, the latter two with HGRN2, the others a hundredth of it.
    let rounding = Rounding { first_step: 5e-7, losses: 1e-4, weights: 5e-4 };
    check_micro_batches(Precision::Fp32, &rounding);
    // Found: 7e-4, 1e-3, 0.05, after eight steps of AdamW, whose first ones follow the signs.
    let rounding = Rounding { first_step: 2e-3, losses: 5e-3, weights: 0.1 };
    check_micro_batches(Precision::Bf16, &rounding);
}

#[test]
fn a_model_of_one_layer_is_trained() {
    let bench = Bench::new();
    let mut trainer = bench.trainer();
    for (attempt, architecture) in (1..).zip(["llama", "hgrn2", "cosformer2"]) {
        let mut cell = bench.cell(architecture, 20);
        cell.model.shape.n_layers = 1;
        let story = trainer.carry_out(run(bench.train(&cell, &[]), attempt));
        assert_eq!(story.end, "succeeded", "{architecture}: {}", story.message);
        let losses = story.losses();
        assert!(losses[19].1 < losses[0].1 - 0.5, "{architecture}: {losses:?}");
    }
}

#[test]
fn a_run_that_goes_non_finite_ends_as_diverged_with_its_last_point() {
    let bench = Bench::new();
    let mut cell = bench.cell("llama", 50);
    cell.training.optimizer.learning_rate = Some(1e30);
    let story = bench.attempt(bench.train(&cell, &[]), 1);
    assert_eq!(story.end, "diverged");
    let (step, _) = *story.losses().last().unwrap();
    assert!(step < 50);
    assert!(story.message.contains(&format!("step {step}:")), "{}", story.message);
    let finite = story.losses().iter().filter(|(_, loss)| loss.is_finite()).count() as u64;
    let norm = story.values("gradient_norm").last().unwrap().1;
    assert!(finite == step - 1 || !norm.is_finite(), "{story:?}");
    assert_eq!(story.logs("error"), [story.message.as_str()]);
    assert!(story.checkpoints().is_empty());
}

#[test]
fn a_study_may_let_a_run_pass_over_steps_that_are_not_finite() {
    let bench = Bench::new();
    let mut cell = bench.cell("llama", 50);
    cell.training.optimizer.learning_rate = Some(1e30);
    cell.training.stability.non_finite = UnstableStep::Skip { at_most_in_a_row: 3 };
    let story = bench.attempt(bench.train(&cell, &[]), 1);
    // Weights that are not finite never recover: the fourth step in a row ends the run.
    assert_eq!(story.end, "diverged");
    assert!(story.message.contains("after 3 steps in a row"), "{}", story.message);
    assert_eq!(story.logs("warn").len(), 3, "{story:?}");
    assert_eq!(story.values("skipped_steps").last().unwrap().1, 3.0);
}

#[test]
fn a_loss_that_jumps_ends_a_run_whose_study_says_no_more() {
    let bench = Bench::new();
    let mut cell = bench.cell("llama", 3);
    // A rate that lets the loss jump up, and no word of what happens then.
    cell.training.optimizer.learning_rate = Some(3.0);
    let keys = serde_json::json!({ "loss_spike": { "above_nats": 1e-9, "window_steps": 1 } });
    cell.training.stability = serde_json::from_value(keys).unwrap();
    let story = bench.attempt(bench.train(&cell, &[]), 1);
    assert_eq!(story.end, "diverged");
    assert!(story.message.starts_with("step 2: the loss is"), "{}", story.message);
    assert_eq!((story.losses().len(), story.checkpoints().len()), (2, 0));
}

#[test]
fn a_step_that_is_passed_over_changes_no_weight() {
    let bench = Bench::new();
    let mut cell = bench.cell("llama", 3);
    // The mean after the first step is its loss, and no later loss is a nanonat above it.
    let then = UnstableStep::Skip { at_most_in_a_row: 9 };
    let mut train_with = |attempt, above_nats, steps| {
        cell.steps = steps;
        cell.training.stability.loss_spike =
            Some(LossSpikeSpec { above_nats, window_steps: 1, then });
        // A rate that lets the loss jump up.
        cell.training.optimizer.learning_rate = Some(3.0);
        bench.attempt(bench.train(&cell, &[1]), attempt)
    };
    let jumping = train_with(1, 1e9, 3);
    let losses: Vec<f64> = jumping.losses().iter().map(|(_, loss)| *loss).collect();
    assert!(losses[1] > losses[0], "{losses:?}");
    let passed_over = train_with(2, 1e-9, 2);
    assert_eq!(passed_over.values("skipped_steps").last().unwrap().1, 1.0);
    let weights = |step| passed_over.checkpoint(step).weights.clone().unwrap().hash;
    assert_eq!(weights(1), weights(2));
}

#[test]
fn an_average_is_published_and_measured_and_changes_no_training() {
    let bench = Bench::new();
    let mut cell = bench.cell("llama", 3);
    let plain = bench.attempt(bench.train(&cell, &[1, 2]), 1);
    cell.training.weight_average = Some(WeightAverageSpec::Ema { decay: 0.5 });
    let mut trainer = bench.trainer();
    let averaged = trainer.carry_out(run(bench.train(&cell, &[1, 2]), 2));
    assert_eq!(averaged.losses(), plain.losses());
    let of_updates = [1, 2, 3].map(|step| published(&bench, &plain, step));
    for (index, (name, found)) in published(&bench, &averaged, 3).iter().enumerate() {
        let [first, second, third] = of_updates.each_ref().map(|weights| &weights[index].1);
        let expected = (first * 0.25 + second * 0.5 + third) / 1.75;
        let difference = (found - expected).abs().max().double_value(&[]);
        assert!(difference < 1e-6, "`{name}` is {difference} off");
    }
    let work = bench.evaluate(&cell, averaged.checkpoint(3));
    let of_average = trainer.carry_out(assignment(Work::Evaluate(work), "e_test", 3));
    let work = bench.evaluate(&cell, plain.checkpoint(3));
    let of_last = trainer.carry_out(assignment(Work::Evaluate(work), "e_test", 4));
    // The loss still falls, and the average lags behind.
    assert!(of_average.evaluation().value > of_last.evaluation().value);
}

#[test]
fn a_z_loss_is_trained_on_and_not_reported() {
    let bench = Bench::new();
    let mut cell = bench.cell("llama", 8);
    let plain = bench.attempt(bench.train(&cell, &[]), 1).losses();
    cell.training.z_loss = 1e-2;
    let with_z = bench.attempt(bench.train(&cell, &[]), 2).losses();
    // ln² 257 is 31: were it in the loss, the first would be 0.3 higher.
    assert_eq!(with_z[0], plain[0]);
    assert_ne!(with_z[7], plain[7]);
    assert!((with_z[7].1 - plain[7].1).abs() < 0.2, "{with_z:?} {plain:?}");
}

#[test]
fn a_stopped_run_ends_without_a_checkpoint_and_the_child_takes_the_next() {
    let bench = Bench::new();
    let cell = bench.cell("llama", 1_000_000);
    let mut trainer = bench.trainer();
    trainer.assign(run(bench.train(&cell, &[]), 7));
    let story = trainer.until(|event| matches!(event, Kind::Point(_)));
    let stop = |lease_token| v1::StopAttempt { lease_token, reason: "test".into() };
    // A late one for another attempt must not hit this one.
    trainer.send(v1::to_trainer::Kind::Stop(stop(6)));
    trainer.send(v1::to_trainer::Kind::Stop(stop(7)));
    let story = trainer.rest(story);
    assert_eq!(story.end, "cancelled");
    assert!(story.checkpoints().is_empty());
    let next = trainer.carry_out(run(bench.train(&bench.cell("llama", 2), &[]), 8));
    assert_eq!(next.end, "succeeded", "{}", next.message);
}

#[test]
fn a_child_whose_agent_is_gone_ends_in_the_middle_of_its_work() {
    let bench = Bench::new();
    let cell = bench.cell("llama", 100_000_000);
    let mut trainer = bench.trainer();
    trainer.assign(run(bench.train(&cell, &[]), 1));
    trainer.until(|event| matches!(event, Kind::Point(_)));
    assert!(!trainer.hang_up().success());
    // And in order when it has nothing to do.
    assert!(bench.trainer().hang_up().success());
}

#[test]
fn a_rolling_checkpoint_is_no_data_point() {
    let bench = Bench::new();
    let cell = bench.cell("llama", 1_000_000);
    let train = v1::Train { rolling_checkpoint_seconds: 1, ..bench.train(&cell, &[]) };
    let mut trainer = bench.trainer();
    trainer.assign(run(train, 1));
    let story = trainer.until(|event| matches!(event, Kind::Checkpoint(_)));
    assert!(!story.checkpoints()[0].is_data_point);
    trainer.kill();
}

#[test]
fn the_child_says_first_what_it_can_do() {
    let bench = Bench::new();
    let capabilities = bench.trainer().capabilities.clone();
    assert_eq!((capabilities.device_kind.as_str(), capabilities.threads_per_slot), ("cpu", 1));
    assert_eq!(capabilities.libtorch_version, "2.11.0");
    assert_eq!(capabilities.recipes, ["pretrain"]);
    assert!(!capabilities.cpu_capability.is_empty() && capabilities.memory_bytes > 0);
}

#[test]
fn damaged_weights_are_not_measured() {
    let bench = Bench::new();
    let cell = bench.cell("llama", 1);
    let mut trainer = bench.trainer();
    let story = trainer.carry_out(run(bench.train(&cell, &[]), 1));
    let work = bench.evaluate(&cell, story.checkpoint(1));
    std::fs::write(bench.site.path("runs/r_test/1-1/1/model.safetensors"), b"nonsense").unwrap();
    let story = trainer.carry_out(assignment(Work::Evaluate(work), "e_test", 2));
    assert_eq!(story.end, "bad_checkpoint");
    assert!(story.message.contains("model.safetensors"), "{}", story.message);
}

#[test]
fn a_split_that_is_too_short_is_refused_with_numbers() {
    let bench = Bench::new();
    let mut cell = bench.cell("llama", 1);
    let mut trainer = bench.trainer();
    let story = trainer.carry_out(run(bench.train(&cell, &[]), 1));
    let checkpoint = story.checkpoint(1).clone();
    cell.training.sequence_length = 1_000_000;
    let story = trainer.carry_out(run(bench.train(&cell, &[]), 2));
    assert_eq!(story.end, "bad_data");
    assert!(story.message.contains("the training split has"), "{}", story.message);
    let work = bench.evaluate(&cell, &checkpoint);
    let story = trainer.carry_out(assignment(Work::Evaluate(work), "e_test", 3));
    assert_eq!(story.end, "bad_data");
    assert!(story.message.contains("the validation split has"), "{}", story.message);
}

#[test]
fn data_of_another_preparation_are_refused() {
    let mut bench = Bench::new();
    let text = text(800, 2);
    let bytes = text.as_bytes();
    let (_, assignment) =
        preparation(&bench.site, CorpusFormat::Text, TokenizerSpec::Byte, &[bytes]);
    let mut trainer = bench.trainer();
    let story = trainer.carry_out(assignment);
    bench.data_manifest = story.preparation().manifest.clone().unwrap();
    let story = trainer.carry_out(run(bench.train(&bench.cell("llama", 1), &[]), 1));
    assert_eq!(story.end, "bad_data");
    assert!(story.message.contains("are those of preparation"), "{}", story.message);
}
