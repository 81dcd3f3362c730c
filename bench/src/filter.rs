//! cosFormer2's Toeplitz filter: the form that trains at a length against the other one and against
//! the naive recurrence.

use std::time::{Duration, Instant};

use models::ops::toeplitz::{self, FilterForm, Toeplitz};
use tch::{Device, Kind, Tensor};

use crate::report::{Report, Row};

/// Tokens of a batch, at every length up to it.
const TOKENS: i64 = 2048;

/// Channels and modes of the 7M models.
const CHANNELS: i64 = 256;
const MODES: i64 = 64;

/// A short call is repeated for so long.
const SHORTEST: Duration = Duration::from_millis(50);

/// A batch with the filter's weight.
struct Filter {
    x: Tensor,
    weight: Tensor,
}

impl Filter {
    fn new(time: i64) -> Self {
        tch::manual_seed(1);
        let random =
            |size: &[i64]| Tensor::randn(size, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let batch = (TOKENS / time).max(1);
        Self { x: random(&[batch, time, CHANNELS]), weight: random(&[CHANNELS, MODES]) }
    }

    /// Tokens per second with gradients.
    fn tokens_per_second(&self, apply: &dyn Fn() -> Tensor) -> f64 {
        let start = Instant::now();
        let tokens = self.x.size()[0] * self.x.size()[1];
        for n_calls in 1_u32.. {
            let sum = apply().sum(Kind::Float);
            drop(Tensor::run_backward(&[sum], &[&self.x, &self.weight], false, false));
            let elapsed = start.elapsed();
            if elapsed >= SHORTEST {
                return f64::from(n_calls) * tokens as f64 / elapsed.as_secs_f64();
            }
        }
        unreachable!("time passes")
    }
}

/// What the first column calls it.
pub(crate) fn what(time: i64) -> String {
    format!("filter by Fourier transforms (cosformer2), T = {time}")
}

/// Two rows for a length; `rounds` in turns after one that is not counted.
pub(crate) fn measure(time: i64, rounds: u32, report: &mut Report) {
    let filter = Filter::new(time);
    let layer = Toeplitz::new(filter.weight.shallow_clone());
    let fourier = || layer.forward(&filter.x, FilterForm::Fourier);
    let chunks = || layer.forward(&filter.x, FilterForm::Chunked(toeplitz::CHUNK));
    let naive = || toeplitz::naive(&filter.x, &filter.weight);
    let peers: [(&str, &dyn Fn() -> Tensor); 2] =
        [("in chunks", &chunks), ("naive recurrence", &naive)];
    for (peer, other) in peers {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for _ in 0..=rounds {
            ours.push(filter.tokens_per_second(&fourier));
            theirs.push(filter.tokens_per_second(other));
        }
        let what = format!("{}, with backward", what(time));
        let row = Row::alone(what, "tokens/s", &ours[1..]);
        report.add(row.beside(&ours[1..], peer, &theirs[1..]));
    }
}
