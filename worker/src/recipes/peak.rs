//! How fast this process can multiply matrices: the denominator of MFU on a machine that publishes no
//! peak.
//!
//! It draws no random number, so that it changes no result.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use domain::spec::Precision;
use tch::{Device, Kind, Tensor};

use super::RecipeError;

/// Rows and columns of the product: large enough for the cores, small enough for the start of a run.
const SIZE: i64 = 1024;

/// The same on a CUDA device, which has a hundred times the cores and a launch to pay for.
const SIZE_CUDA: i64 = 8192;

/// How long the first attempt of a process looks, and every later one.
const FIRST_LOOK: Duration = Duration::from_millis(300);
const LATER_LOOK: Duration = Duration::from_millis(50);

/// The fastest product so far, in FLOPs per second, by precision and intra-op threads. A process has
/// one device.
static FASTEST: Mutex<Option<HashMap<(Precision, i32), f64>>> = Mutex::new(None);

/// FLOPs per second, multiply-add as two, of the fastest product of two square matrices of 1024 rows
/// (8192 with CUDA) that this process has seen with this precision and its intra-op threads.
///
/// A product that shares its cores with other work is slow, so one look may find too little; every
/// attempt looks again, and what was found never falls.
pub(super) fn flops_per_second(precision: Precision, device: Device) -> Result<f64, RecipeError> {
    let mut fastest = FASTEST.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let known = fastest.get_or_insert_default().entry((precision, tch::get_num_threads()));
    let known = known.or_insert(0.0);
    let time = if *known == 0.0 { FIRST_LOOK } else { LATER_LOOK };
    *known = known.max(look(precision, device, time)?);
    Ok(*known)
}

/// The fastest of the products of so much time, and of at least two after one that warms up.
fn look(precision: Precision, device: Device, time: Duration) -> Result<f64, RecipeError> {
    // As the model multiplies: without instructions for bf16 products the numbers are float32.
    let kind = match precision {
        Precision::Bf16 if torch_ext::multiplies_bf16(device) => Kind::BFloat16,
        Precision::Fp32 | Precision::Bf16 => Kind::Float,
    };
    let _no_grad = tch::no_grad_guard();
    let size = if device == Device::Cpu { SIZE } else { SIZE_CUDA };
    // Varied numbers: of equal ones some devices draw less power and run at higher clocks.
    let numbers = Tensor::f_arange(size * size, (Kind::Float, device))?.f_sin()?;
    let matrix = numbers.f_view([size, size])?.f_to_kind(kind)?;
    drop(numbers);
    let _warm = matrix.f_matmul(&matrix)?;
    torch_ext::synchronize(device)?;
    let begin = Instant::now();
    let (mut best_seconds, mut n_products) = (f64::INFINITY, 0);
    while n_products < 2 || begin.elapsed() < time {
        let start = Instant::now();
        let _product = matrix.f_matmul(&matrix)?;
        torch_ext::synchronize(device)?;
        best_seconds = best_seconds.min(start.elapsed().as_secs_f64());
        n_products += 1;
    }
    Ok(2.0 * (size as f64).powi(3) / best_seconds)
}
