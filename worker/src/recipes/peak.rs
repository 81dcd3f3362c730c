//! How fast this process can multiply matrices: the denominator of MFU on a machine that publishes no
//! peak.
//!
//! It draws no random number, so that it changes no result.

use std::time::Instant;

use domain::spec::Precision;
use tch::{Device, Kind, Tensor};

/// Rows and columns of the product: large enough for the cores, small enough for the start of a run.
const SIZE: i64 = 1024;

/// The best of so many products counts, after one that warms up.
const TRIES: usize = 3;

/// FLOPs per second of a product of two square matrices of 1024 rows with this thread's intra-op
/// threads, multiply-add as two. A tenth of a second on two cores.
pub(super) fn flops_per_second(precision: Precision) -> Result<f64, tch::TchError> {
    let kind = match precision {
        Precision::Fp32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    };
    let _no_grad = tch::no_grad_guard();
    let matrix = Tensor::f_ones([SIZE, SIZE], (kind, Device::Cpu))?;
    let mut best_seconds = f64::INFINITY;
    for attempt in 0..=TRIES {
        let start = Instant::now();
        let _product = matrix.f_matmul(&matrix)?;
        if attempt > 0 {
            best_seconds = best_seconds.min(start.elapsed().as_secs_f64());
        }
    }
    Ok(2.0 * (SIZE as f64).powi(3) / best_seconds)
}
