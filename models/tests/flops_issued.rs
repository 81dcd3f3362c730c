//! What the linear models issue when they train, as a multiple of `flops_exact`.
//!
//! The formula names one form, chunks of d_h tokens and a backward pass of twice the forward one, so
//! that C does not depend on a kernel. What runs has chunks of 64, makes scores again backwards, and the
//! scores of `hgrn2` by halves of halves. `flops.rs` holds the formula; here is how far from it the
//! machine's work is. `docs/reference/metrics.md` has the ratios.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod operations;

use domain::model::{Architecture, ModelConfig, Shape};
use models::LanguageModel;
use operations::multiply_adds;
use tch::{Device, Kind, Tensor};
use torch_ext::record_operations;

const BATCH: i64 = 2;

/// Operations of one training pass over those of the formula, for heads of 64, as in the benchmarks.
fn issued(architecture: Architecture, time: i64) -> f64 {
    tch::set_num_threads(1);
    let shape = Shape { vocab_size: 1024, d_model: 256, n_layers: 3, n_heads: 4, ffn_hidden: 768 };
    let config = ModelConfig::new(architecture, shape).unwrap();
    let model = LanguageModel::new(&config, Device::Cpu, 1).unwrap();
    let text = Tensor::randint(1024, [BATCH, time + 1], (Kind::Int64, Device::Cpu));
    let ((), mut operations) = record_operations(|| model.loss(&text).backward()).unwrap();
    // The fade of a state before the next chunk adds to it is element-wise.
    operations.retain(|operation| operation.name != "aten::addcmul");
    let formula = config.flops_exact(u64::try_from(time).unwrap()).total();
    2.0 * multiply_adds(&operations) as f64 / (formula * (BATCH * time) as f64)
}

#[track_caller]
fn check(architecture: Architecture, expected: [f64; 2]) {
    let found = [256, 1024].map(|time| issued(architecture, time));
    let is_near = found.iter().zip(&expected).all(|(found, it)| (found - it).abs() < 5e-4);
    assert!(is_near, "{architecture:?}: {found:?}");
}

/// The fused kernel is counted by its shapes, over the full T × T, as the formula is, although it
/// leaves out the blocks above the diagonal: for attention the two agree by construction.
#[test]
fn llama_issues_what_the_formula_says() {
    check(Architecture::Llama, [1.0, 1.0]);
}

#[test]
fn tnl_issues_a_little_more_than_the_formula() {
    check(Architecture::Tnl, [1.0069, 1.0069]);
}

#[test]
fn hgrn2_issues_a_little_less_than_the_formula() {
    check(Architecture::Hgrn2, [0.9944, 0.9944]);
}

#[test]
fn cosformer2_issues_a_little_more_than_the_formula() {
    check(Architecture::CosFormer2, [1.0063, 1.0232]);
}
