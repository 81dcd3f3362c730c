//! What a plan says of a run's memory is near what the kernel measures.
#![cfg(feature = "torch")]
#![expect(clippy::unwrap_used, reason = "a test fails where it unwraps")]

mod bench;

use bench::work::{Bench, run};
use domain::recipe::PretrainCell;
use domain::spec::Precision;
use proto::v1::event::Kind;
use serde_json::json;

/// Steps that are trained: the first makes gradients and moments, all leave checkpoints, whose writing
/// lies beside the next step.
const STEPS: u64 = 5;

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

/// Trains and compares the peak of the process, less what libtorch takes when it is loaded.
fn check(architecture: &str, precision: Precision) {
    let bench = Bench::new();
    let cell = cell(&bench, architecture, precision);
    let mut trainer = bench.trainer();
    let loaded = trainer.memory_bytes("VmRSS");
    trainer.assign(run(bench.train(&cell, &[1, 2, 3, 4]), 1));
    let is_last = |event: &Kind| matches!(event, Kind::Checkpoint(found) if found.step == STEPS);
    trainer.until(is_last);
    let measured = (trainer.memory_bytes("VmHWM") - loaded) as f64;
    let estimate = cell.memory(cell.training.batch_sequences);
    let ratio = estimate.total() as f64 / measured;
    assert!((ratio - 1.0).abs() <= 0.15, "{architecture}: {ratio} of {measured}: {estimate:?}");
}

#[test]
fn the_estimate_of_llama_holds() {
    check("llama", Precision::Fp32);
    check("llama", Precision::Bf16);
}

#[test]
fn the_estimate_of_tnl_holds() {
    check("tnl", Precision::Fp32);
}

#[test]
fn the_estimate_of_hgrn2_holds() {
    check("hgrn2", Precision::Fp32);
}

#[test]
fn the_estimate_of_cosformer2_holds() {
    check("cosformer2", Precision::Fp32);
}
