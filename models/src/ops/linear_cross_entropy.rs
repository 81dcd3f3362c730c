//! The head and the loss in one: logits = x · Wᵀ, cross-entropy against the targets, summed. The whole
//! logits are never in memory, nor are their gradients.
//!
//! It does not divide by the number of targets, and does not know what x is.
//!
//! Per row with logits l and target y:  nats = log Σ_j e^{l_j} − l_y. The objective adds the z-loss
//! c · (log Σ_j e^{l_j})² (Chowdhery et al., "PaLM", 2022, section 5, c = 1e-4 there), which keeps the
//! logits from drifting. Its gradient is  dl_j = softmax(l)_j (1 + 2 c log Σ e^l) − [j = y].
//!
//! Rows go in slices. A slice's logits become its gradients of x and W while they are there, because
//! the objective is a sum: the backward pass only multiplies them by what comes in.

use tch::{Kind, Tensor};
use torch_ext::{Forward, is_recording};

use super::graph::in_graph;
use super::{MatmulPrecision, sizes};

/// A slice has a twentieth of the rows, and two matrices of its logits' shape live at a time: a tenth
/// of the whole logits, where the promise is an eighth.
const SLICES: i64 = 20;

/// Longer slices no longer hide the pass over the gradient of W that each of them costs.
const LONGEST_SLICE: i64 = 1024;

/// How the objective is computed.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LossOptions {
    /// Precision of the products with W; all else is float32 (float64 for float64 input).
    pub precision: MatmulPrecision,
    /// The z-loss's coefficient c; 0 for none.
    pub z_loss: f64,
}

/// Sums over the rows, both of no dimension.
#[derive(Debug)]
pub struct LossSums {
    /// What is to be minimised: nats and z-loss; part of the graph.
    pub objective: Tensor,
    /// The cross-entropies in nats, without the z-loss; outside of the graph.
    pub nats: Tensor,
}

/// The sums for x `[R, E]`, W `[V, E]` and targets `[R]`, int64.
pub fn linear_cross_entropy(
    x: &Tensor,
    weight: &Tensor,
    targets: &Tensor,
    options: LossOptions,
) -> LossSums {
    let needs_gradients = is_recording() && (x.requires_grad() || weight.requires_grad());
    let sums = tch::no_grad(|| sums(x, weight, targets, options, needs_gradients));
    let Some((dx, d_weight)) = sums.gradients else {
        return LossSums { objective: sums.objective, nats: sums.nats };
    };
    let forward = Forward {
        name: "linear_cross_entropy",
        inputs: &[x, weight],
        outputs: &[&sums.objective],
        saved: &[&dx, &d_weight],
    };
    let [objective] = in_graph(&forward, |given| {
        let factor = given.gradients[0].as_ref().expect("the only output has the gradient");
        let scaled = |index: usize| given.wanted[index].then(|| &given.saved[index] * factor);
        vec![scaled(0), scaled(1)]
    });
    LossSums { objective, nats: sums.nats }
}

struct Sums {
    objective: Tensor,
    nats: Tensor,
    gradients: Option<(Tensor, Tensor)>,
}

fn sums(
    x: &Tensor,
    weight: &Tensor,
    targets: &Tensor,
    options: LossOptions,
    needs_gradients: bool,
) -> Sums {
    let [rows, _] = sizes(x);
    let step = (rows / SLICES).clamp(1, LONGEST_SLICE);
    let gradients = needs_gradients.then(|| (x.empty_like(), weight.zeros_like()));
    let operand = Operand::new(weight, options.precision);
    let [vocab, _] = sizes(weight);
    // Made once: an allocator that gives each slice new ones keeps several of them.
    let buffers = [0, 1].map(|_| Tensor::empty([step, vocab], (x.kind(), x.device())));
    let (mut nats, mut objective) = (Vec::new(), Vec::new());
    let mut from = 0;
    while from < rows {
        let slice = |x: &Tensor| x.narrow(0, from, step.min(rows - from));
        let [logits, log_softmax] =
            buffers.each_ref().map(|x| x.narrow(0, 0, step.min(rows - from)));
        let x = Operand::new(&slice(x), options.precision);
        x.times(&operand.transposed(), &logits);
        let mut slice_loss = SliceLoss::new(&logits, log_softmax, &slice(targets));
        objective.push(slice_loss.objective(options.z_loss));
        if let Some((dx, d_weight)) = &gradients {
            let d_logits = Operand::new(&slice_loss.d_logits(options.z_loss), options.precision);
            d_logits.times(&operand, &slice(dx));
            d_logits.add_transposed_times(&x, d_weight);
        }
        nats.push(slice_loss.nats);
        from += step;
    }
    let sum = |slices: &[Tensor]| Tensor::cat(slices, 0).sum(Kind::Double).to_kind(x.kind());
    Sums { objective: sum(&objective), nats: sum(&nats), gradients }
}

/// One slice's losses, `[R, 1]` each, and what its gradients are made of.
struct SliceLoss {
    targets: Tensor,
    nats: Tensor,
    log_total: Tensor,
    log_softmax: Tensor,
}

impl SliceLoss {
    /// Writes the log softmax to where it is given.
    fn new(logits: &Tensor, log_softmax: Tensor, targets: &Tensor) -> Self {
        let targets = targets.unsqueeze(1);
        drop(logits.log_softmax_int_out(&log_softmax, -1, None::<Kind>));
        let nats = -log_softmax.gather(1, &targets, false);
        let log_total = logits.gather(1, &targets, false) + &nats;
        Self { targets, nats, log_total, log_softmax }
    }

    fn objective(&self, z_loss: f64) -> Tensor {
        if z_loss == 0.0 {
            return self.nats.shallow_clone();
        }
        &self.nats + self.log_total.square() * z_loss
    }

    /// The gradient of the logits, which takes the place of their log softmax.
    fn d_logits(&mut self, z_loss: f64) -> Tensor {
        let mut d_logits = self.log_softmax.exp_();
        if z_loss != 0.0 {
            d_logits *= &self.log_total * (2.0 * z_loss) + 1.0;
        }
        let minus_one = self.nats.full_like(-1.0);
        d_logits.scatter_add_(1, &self.targets, &minus_one)
    }
}

/// A matrix ready for products in a precision; the products are of the matrix's own kind again.
struct Operand {
    matrix: Tensor,
    kind: Kind,
    precision: MatmulPrecision,
}

impl Operand {
    fn new(matrix: &Tensor, precision: MatmulPrecision) -> Self {
        Self { matrix: precision.operand(matrix), kind: matrix.kind(), precision }
    }

    fn transposed(&self) -> Self {
        Self { matrix: self.matrix.transpose(0, 1), ..*self }
    }

    fn times(&self, other: &Self, target: &Tensor) {
        match self.precision {
            MatmulPrecision::Fp32 => drop(self.matrix.mm_out(target, &other.matrix)),
            MatmulPrecision::Bf16 => {
                let product = self.precision.rounded(&self.matrix.mm(&other.matrix));
                target.shallow_clone().copy_(&product);
            }
        }
    }

    fn add_transposed_times(&self, other: &Self, target: &Tensor) {
        let transposed = self.matrix.transpose(0, 1);
        let mut target = target.shallow_clone();
        match self.precision {
            MatmulPrecision::Fp32 => drop(target.addmm_(&transposed, &other.matrix)),
            MatmulPrecision::Bf16 => {
                let product = self.precision.rounded(&transposed.mm(&other.matrix));
                target += product.to_kind(self.kind);
            }
        }
    }
}

/// The naive twin: the whole logits.
pub fn naive(x: &Tensor, weight: &Tensor, targets: &Tensor, z_loss: f64) -> LossSums {
    let logits = x.matmul(&weight.transpose(0, 1)); // [R, V]
    let log_total = logits.logsumexp([-1], false); // [R]
    let of_target = logits.gather(1, &targets.unsqueeze(1), false).squeeze_dim(1);
    let nats = (&log_total - of_target).sum(x.kind());
    let objective = &nats + log_total.square().sum(x.kind()) * z_loss;
    LossSums { objective, nats: nats.detach() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tch::Device;

    use super::*;
    use crate::ops::testing::{assert_same_with_gradients, random, relative_error};

    fn targets(rows: i64, vocab: i64) -> Tensor {
        tch::manual_seed(3);
        Tensor::randint(vocab, [rows], (Kind::Int64, Device::Cpu))
    }

    fn options(z_loss: f64) -> LossOptions {
        LossOptions { z_loss, ..LossOptions::default() }
    }

    #[test]
    fn slices_and_whole_logits_agree_for_odd_sizes_with_and_without_z_loss() {
        for (rows, vocab, width) in [(1, 2, 1), (7, 31, 5), (41, 100, 8), (333, 17, 3)] {
            let (x, weight) = (random(&[rows, width], 1) * 3.0, random(&[vocab, width], 2));
            let targets = targets(rows, vocab);
            for z_loss in [0.0, 1e-2] {
                assert_same_with_gradients(
                    &[&x, &weight],
                    |x| {
                        let sums = linear_cross_entropy(&x[0], &x[1], &targets, options(z_loss));
                        vec![sums.objective]
                    },
                    |x| vec![naive(&x[0], &x[1], &targets, z_loss).objective],
                );
                let found = linear_cross_entropy(&x, &weight, &targets, options(z_loss));
                let expected = naive(&x, &weight, &targets, z_loss);
                assert!(relative_error(&found.nats, &expected.nats) < 1e-13);
            }
        }
    }

    #[test]
    fn logits_of_hundreds_stay_finite_and_a_certain_prediction_costs_nothing() {
        let x = Tensor::eye(3, (Kind::Float, Device::Cpu)) * 300.0;
        let weight = Tensor::eye(3, (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let right = Tensor::from_slice(&[0_i64, 1, 2]);
        let wrong = Tensor::from_slice(&[1_i64, 2, 0]);
        let nats = |targets| {
            let sums = linear_cross_entropy(&x, &weight, targets, options(0.0));
            sums.objective.backward();
            assert_eq!(weight.grad().isfinite().all().int64_value(&[]), 1);
            sums.nats.double_value(&[])
        };
        assert_eq!(nats(&right), 0.0);
        assert_eq!(nats(&wrong), 900.0);
    }

    #[test]
    fn bfloat16_products_stay_near_and_their_gradients_too() {
        let (x, weight) = (random(&[200, 16], 1), random(&[50, 16], 2) * 0.3);
        let targets = targets(200, 50);
        let run = |precision| {
            let inputs: [Tensor; 2] =
                [&x, &weight].map(|x| x.to_kind(Kind::Float).set_requires_grad(true));
            let options = LossOptions { precision, z_loss: 1e-3 };
            let sums = linear_cross_entropy(&inputs[0], &inputs[1], &targets, options);
            let nats = sums.nats.double_value(&[]);
            (nats, Tensor::run_backward(&[sums.objective], &inputs, false, false))
        };
        let (exact, exact_gradients) = run(MatmulPrecision::Fp32);
        let (rounded, gradients) = run(MatmulPrecision::Bf16);
        // Factors of 8 bits are off by 2^-9 each at most, and errors of many rows partly cancel.
        assert!(rounded != exact && (rounded / exact - 1.0).abs() < 1e-3, "{rounded} {exact}");
        for (found, expected) in gradients.iter().zip(&exact_gradients) {
            let expected = expected.to_kind(Kind::Double);
            assert_eq!(found.kind(), Kind::Float);
            let error = relative_error(found, &expected);
            assert!(error < 2e-2, "{error}");
        }
    }

    #[test]
    fn peak_memory_is_at_most_an_eighth_of_the_logits_beside_the_gradients() {
        // Aim: neither the logits nor their gradients are ever whole. Method: the process's peak
        // resident memory over one pass, above what a pass over a few rows has left in place.
        let (rows, vocab, width) = (8192, 8192, 16);
        let whole = rows * vocab * 4;
        let inputs = [rows, vocab]
            .map(|rows| random(&[rows, width], 1).to_kind(Kind::Float).set_requires_grad(true));
        let targets = targets(rows, vocab);
        let pass = |rows: i64| {
            let (x, targets) = (inputs[0].narrow(0, 0, rows), targets.narrow(0, 0, rows));
            let sums = linear_cross_entropy(&x, &inputs[1], &targets, options(0.0));
            drop(Tensor::run_backward(&[sums.objective], &inputs, false, false));
        };
        pass(64);
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = status_bytes("VmRSS:");
        pass(rows);
        let grown = status_bytes("VmHWM:") - before;
        // The gradients, unscaled and scaled.
        let gradients = 2 * (rows + vocab) * width * 4;
        assert!(grown > gradients / 4, "{grown}: the peak was not measured");
        assert!(grown <= whole / 8 + gradients, "{grown} of {whole}");
    }

    fn status_bytes(name: &str) -> i64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() * 1024
    }
}
