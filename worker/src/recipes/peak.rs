//! How fast this process can multiply matrices: the denominator of MFU on a machine that publishes no
//! peak.
//!
//! It draws no random number, so that it changes no result.

use std::time::Instant;

use domain::spec::Precision;
use tch::{Device, Kind, Tensor};

use super::RecipeError;

/// Rows and columns of the product: large enough for the cores, small enough for the start of a run.
const SIZE: i64 = 1024;

/// The same on a CUDA device, which has a hundred times the cores and a launch to pay for.
const SIZE_CUDA: i64 = 8192;

/// The best of so many products counts, after one that warms up.
const TRIES: usize = 3;

/// FLOPs per second of a product of two square matrices of 1024 rows (8192 with CUDA) on the device, on the
/// CPU with this thread's intra-op threads, multiply-add as two. A tenth of a second on two cores.
pub(super) fn flops_per_second(precision: Precision, device: Device) -> Result<f64, RecipeError> {
    let kind = match precision {
        Precision::Fp32 => Kind::Float,
        Precision::Bf16 => Kind::BFloat16,
    };
    let _no_grad = tch::no_grad_guard();
    let size = if device == Device::Cpu { SIZE } else { SIZE_CUDA };
    let matrix = Tensor::f_ones([size, size], (kind, device))?;
    let mut best_seconds = f64::INFINITY;
    for attempt in 0..=TRIES {
        torch_ext::synchronize(device)?;
        let start = Instant::now();
        let _product = matrix.f_matmul(&matrix)?;
        torch_ext::synchronize(device)?;
        if attempt > 0 {
            best_seconds = best_seconds.min(start.elapsed().as_secs_f64());
        }
    }
    Ok(2.0 * (size as f64).powi(3) / best_seconds)
}
