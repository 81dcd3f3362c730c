//! What a plan says of a run's memory is near what the kernel measures.
#![cfg(feature = "torch")]
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod bench;

use std::time::{Duration, Instant};

use bench::Trainer;
use bench::work::{Bench, assignment, run};
use domain::memory::MemoryEstimate;
use domain::model::{ModelConfig, Shape};
use domain::recipe::PretrainCell;
use domain::spec::{Precision, WeightAverageSpec};
use proto::v1;
use proto::v1::assignment::Work;
use proto::v1::event::Kind;
use serde_json::json;

/// Steps that are trained: the first makes gradients and moments, all leave checkpoints, whose
/// writing lies beside the next step. How far beside it differs: of few steps sometimes none had
/// its peak while a checkpoint's copy was there.
const STEPS: u64 = 12;

/// A cell of about 7M parameters and 2,048 tokens a step.
fn cell(bench: &Bench, architecture: &str, precision: Precision) -> PretrainCell {
    let keys = json!({
        "architecture": architecture, "vocab_size": 1024, "d_model": 256, "n_layers": 8,
        "n_heads": 4, "ffn_hidden": 688,
    });
    let mut cell = bench.cell(architecture, STEPS);
    cell.model = serde_json::from_value(keys).unwrap();
    cell.training.sequence_length = 256;
    cell.training.batch_sequences = 8;
    cell.training.precision = precision;
    cell
}

/// Trains and compares the peak of the process, less what libtorch takes when it is loaded: with many
/// activations, and with few, where weights, moments and kernels are nearly all.
fn check(architecture: &str, precision: Precision) {
    for batch_sequences in [8, 1] {
        let bench = Bench::new();
        let mut cell = cell(&bench, architecture, precision);
        cell.training.batch_sequences = batch_sequences;
        check_cell(&bench, &cell, batch_sequences);
    }
}

fn check_cell(bench: &Bench, cell: &PretrainCell, micro_batch_sequences: u32) {
    let mut trainer = bench.trainer();
    let loaded = trainer.memory_bytes("VmRSS");
    let checkpoints: Vec<u64> = (1..STEPS).collect();
    let train = v1::Train { micro_batch_sequences, ..bench.train(cell, &checkpoints) };
    trainer.assign(run(train, 1));
    let is_last = |event: &Kind| matches!(event, Kind::Checkpoint(found) if found.step == STEPS);
    trainer.until(is_last);
    let measured = (trainer.memory_bytes("VmHWM") - loaded) as f64;
    // A CPU without instructions for bf16 products keeps float32 copies of what it multiplies, and may
    // take as much as in float32, which a plan knows nothing of.
    let mut estimates = vec![cell.memory(micro_batch_sequences)];
    if !trainer.capabilities.cpu_capability.contains("+BF16") {
        let mut exact = cell.clone();
        exact.training.precision = Precision::Fp32;
        estimates.push(exact.memory(micro_batch_sequences));
    }
    let is_near = |one: &MemoryEstimate| (one.total() as f64 / measured - 1.0).abs() <= 0.15;
    let of = (cell.model.architecture(), cell.training.precision, micro_batch_sequences);
    assert!(estimates.iter().any(is_near), "{of:?}: {measured}: {estimates:?}");
}

#[test]
fn the_estimate_of_llama_holds() {
    check("llama", Precision::Fp32);
    check("llama", Precision::Bf16);
}

#[test]
fn the_estimate_of_tnl_holds() {
    check("tnl", Precision::Fp32);
    check("tnl", Precision::Bf16);
}

#[test]
fn the_estimate_of_hgrn2_holds() {
    check("hgrn2", Precision::Fp32);
    check("hgrn2", Precision::Bf16);
}

#[test]
fn the_estimate_of_cosformer2_holds() {
    check("cosformer2", Precision::Fp32);
    check("cosformer2", Precision::Bf16);
}

#[test]
fn the_estimate_of_the_linear_mixers_holds_for_wide_heads() {
    // Heads of 128 and of 256 channels, whose states are two and four times as large.
    for architecture in ["tnl", "hgrn2", "cosformer2"] {
        for n_heads in [2, 1] {
            let bench = Bench::new();
            let mut cell = cell(&bench, architecture, Precision::Fp32);
            let shape = Shape { n_heads, n_layers: 4, ..cell.model.shape };
            cell.model = ModelConfig::new(cell.model.architecture(), shape).unwrap();
            check_cell(&bench, &cell, 8);
        }
    }
}

#[test]
fn the_estimate_holds_with_an_average_of_the_weights() {
    let bench = Bench::new();
    let mut cell = cell(&bench, "llama", Precision::Fp32);
    cell.training.batch_sequences = 1;
    cell.training.weight_average = Some(WeightAverageSpec::Ema { decay: 0.99 });
    check_cell(&bench, &cell, 1);
}

#[test]
fn the_estimate_holds_with_a_head_of_its_own() {
    let bench = Bench::new();
    let mut cell = cell(&bench, "tnl", Precision::Fp32);
    cell.training.batch_sequences = 1;
    (cell.model.shape.vocab_size, cell.model.tie_embeddings) = (1 << 14, false);
    check_cell(&bench, &cell, 1);
}

#[test]
fn the_estimate_holds_for_a_long_text() {
    let bench = Bench::new();
    let mut cell = cell(&bench, "llama", Precision::Fp32);
    (cell.training.sequence_length, cell.training.batch_sequences) = (2048, 1);
    check_cell(&bench, &cell, 1);
}

#[test]
fn the_estimate_holds_for_parts_of_a_batch() {
    let bench = Bench::new();
    let mut cell = cell(&bench, "hgrn2", Precision::Fp32);
    cell.training.batch_sequences = 3;
    check_cell(&bench, &cell, 1);
}

/// Waits until a trainer whose run is over has less than it had.
fn gives_its_memory_back(trainer: &Trainer) {
    let begin = Instant::now();
    let kept = || trainer.memory_bytes("VmHWM") - trainer.memory_bytes("VmRSS");
    while kept() < 100 << 20 {
        assert!(begin.elapsed() < Duration::from_mins(1), "{}", kept());
        std::thread::yield_now();
    }
}

#[test]
fn a_step_takes_the_memory_that_the_step_before_has_freed() {
    // Aim: no step asks the kernel for what all steps need. Method: the page faults of a longer run
    // less those of a shorter one.
    let n_page_faults = |steps: u64| {
        let bench = Bench::new();
        let mut cell = cell(&bench, "llama", Precision::Fp32);
        (cell.steps, cell.training.batch_sequences) = (steps, 4);
        let mut trainer = bench.trainer();
        trainer.assign(run(bench.train(&cell, &[]), 1));
        let is_last =
            |event: &Kind| matches!(event, Kind::Checkpoint(found) if found.step == steps);
        trainer.until(is_last);
        let n_page_faults = trainer.n_page_faults();
        gives_its_memory_back(&trainer);
        n_page_faults
    };
    let (short, long) = (n_page_faults(3), n_page_faults(7));
    // 16 MB of 4 KB pages for each of four steps; all of a step's memory would be 60,000 pages.
    assert!(long < short + 4 * 4_000, "{short} {long}");
}

/// The most memory that the process had since it was ready, as far as it is known.
fn grown(trainer: &Trainer, loaded: u64) -> u64 {
    trainer.memory_bytes("VmHWM") - loaded
}

#[test]
fn an_evaluation_never_has_the_logits_of_a_text_in_memory() {
    // Aim: what was trained can be evaluated where it was trained. Method: one text whose logits are
    // 268 MB, and as much again for their softmax.
    let bench = Bench::new();
    let mut cell = bench.cell("llama", 1);
    cell.model.shape.vocab_size = 1 << 15;
    (cell.training.sequence_length, cell.training.batch_sequences) = (2048, 1);
    let story = bench.attempt(bench.train(&cell, &[]), 1);
    let work = bench.evaluate(&cell, story.checkpoint(1));
    let mut trainer = bench.trainer();
    let loaded = trainer.memory_bytes("VmRSS");
    let story = trainer.carry_out(assignment(Work::Evaluate(work), "e_test", 2));
    assert_eq!(story.end, "succeeded", "{}", story.message);
    let (grown, logits) = (grown(&trainer, loaded), (2048 * 4) << 15);
    assert!(grown < logits / 2, "{grown} of {logits}");
}

#[test]
fn a_refused_checkpoint_leaves_room_for_one_model() {
    // Aim: the model that was to be restored is gone before the next is made. Method: the peak where
    // the attempt says that it starts; measuring the cores then takes longer than looking.
    let bench = Bench::new();
    let cell = cell(&bench, "llama", Precision::Fp32);
    let mut short = cell.clone();
    short.steps = 1;
    let story = bench.attempt(bench.train(&short, &[]), 1);
    let reference = story.checkpoint(1).manifest.clone().unwrap();
    std::fs::write(bench.site.path(&reference.key), b"nonsense").unwrap();
    let checkpoints =
        vec![v1::CheckpointRef { step: 1, manifest: Some(reference), has_failed: true }];
    let mut trainer = bench.trainer();
    let loaded = trainer.memory_bytes("VmRSS");
    trainer.assign(run(v1::Train { checkpoints, ..bench.train(&cell, &[]) }, 2));
    let story = trainer.until(|event| matches!(event, Kind::Started(_)));
    assert_eq!(story.refused().len(), 1, "{story:?}");
    let learner = 3 * 4 * cell.model.parameters_total();
    let grown = grown(&trainer, loaded);
    assert!(grown < learner * 3 / 2, "{grown}, where one is {learner}");
}
