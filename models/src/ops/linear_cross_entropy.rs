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
//! the objective is a sum: the backward pass only multiplies them by what comes in, in place, so that
//! there is one gradient of W and not a scaled one beside it. In bfloat16 the products with W go by
//! parts of the vocabulary, whose results are rounded one after the other.
//!
//! Beside the gradients of x and W the peak is at most an eighth of the whole logits. In bfloat16 W
//! comes on top once more, rounded: 2 bytes a number and as much again where the library packs it, and 6
//! bytes where bfloat16 is not multiplied (4 of them during all of the pass). For a large vocabulary and
//! few rows that is more than the slices. Rounding it for each slice anew would save it, and cost a
//! pass over W for each of the 28.

use tch::{Kind, Tensor};
use torch_ext::{Forward, is_recording};

use super::graph::in_graph;
use super::{MatmulPrecision, sizes};

/// A slice has a 28th of the rows, and two float32 matrices of its logits' shape live at a time: a
/// fourteenth of the whole logits, where the promise is an eighth. MKL packs for its own products too,
/// up to ten megabytes on CPUs with AMX.
const SLICES: i64 = 28;

/// Longer slices no longer hide the pass over the gradient of W that each of them costs.
const LONGEST_SLICE: i64 = 1024;

/// Rows of W in one bfloat16 product: large enough for the cores, and its result is a small part of
/// the logits of a vocabulary that is large.
const VOCABULARY_PART: i64 = 1024;

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
        // In place: the saved gradients are nobody else's. A second pass through a graph that is kept
        // would find them scaled, and libtorch refuses it, because it counts their versions.
        let scaled = |index: usize| {
            let mut gradient = given.saved[index].shallow_clone();
            given.wanted[index].then(|| gradient.g_mul_(factor))
        };
        vec![scaled(0), scaled(1)]
    });
    LossSums { objective, nats: sums.nats }
}

/// The cross-entropy of each row in nats, `[R]`, without gradients; arguments as of
/// [`linear_cross_entropy`].
pub fn nats_of_rows(
    x: &Tensor,
    weight: &Tensor,
    targets: &Tensor,
    precision: MatmulPrecision,
) -> Tensor {
    let options = LossOptions { precision, z_loss: 0.0 };
    tch::no_grad(|| rows(x, weight, targets, options, false).nats).squeeze_dim(1)
}

struct Sums {
    objective: Tensor,
    nats: Tensor,
    gradients: Option<(Tensor, Tensor)>,
}

/// As [`Sums`], for each row `[R, 1]`.
struct Rows {
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
    let Rows { objective, nats, gradients } = rows(x, weight, targets, options, needs_gradients);
    let sum = |rows: &Tensor| rows.sum(Kind::Double).to_kind(x.kind());
    Sums { objective: sum(&objective), nats: sum(&nats), gradients }
}

fn rows(
    x: &Tensor,
    weight: &Tensor,
    targets: &Tensor,
    options: LossOptions,
    needs_gradients: bool,
) -> Rows {
    let [rows, _] = sizes(x);
    let step = (rows / SLICES).clamp(1, LONGEST_SLICE);
    let gradients = needs_gradients.then(|| (x.empty_like(), weight.zeros_like()));
    let products = Products::new(weight, options.precision);
    let [vocab, _] = sizes(weight);
    // Made once: an allocator that gives each slice new ones keeps several of them.
    let buffers = [0, 1].map(|_| Tensor::empty([step, vocab], (x.kind(), x.device())));
    let (mut nats, mut objective) = (Vec::new(), Vec::new());
    let mut from = 0;
    while from < rows {
        let slice = |x: &Tensor| x.narrow(0, from, step.min(rows - from));
        let [logits, log_softmax] =
            buffers.each_ref().map(|x| x.narrow(0, 0, step.min(rows - from)));
        let x = options.precision.operand(&slice(x));
        products.logits(&x, &logits);
        let mut slice_loss = SliceLoss::new(&logits, log_softmax, &slice(targets));
        objective.push(slice_loss.objective(options.z_loss));
        if let Some((dx, d_weight)) = &gradients {
            let d_logits = slice_loss.d_logits(options.z_loss);
            products.gradients(&x, d_logits, &logits, &slice(dx), d_weight);
        }
        nats.push(slice_loss.nats);
        from += step;
    }
    Rows { objective: Tensor::cat(&objective, 0), nats: Tensor::cat(&nats, 0), gradients }
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

/// The products with W `[V, E]` in a precision, into matrices of W's own kind.
struct Products {
    weight: Tensor,
    kind: Kind,
    precision: MatmulPrecision,
}

impl Products {
    fn new(weight: &Tensor, precision: MatmulPrecision) -> Self {
        Self { weight: precision.operand(weight), kind: weight.kind(), precision }
    }

    /// x · Wᵀ for x as an operand.
    fn logits(&self, x: &Tensor, logits: &Tensor) {
        let transposed = self.weight.transpose(0, 1);
        if self.precision == MatmulPrecision::Fp32 {
            drop(x.mm_out(logits, &transposed));
            return;
        }
        for (from, count) in self.parts() {
            let product = x.mm(&transposed.narrow(1, from, count));
            logits.narrow(1, from, count).copy_(&self.precision.rounded(&product));
        }
    }

    /// dx = d_logits · W, and d_weight += d_logitsᵀ · x. The logits are no longer needed.
    fn gradients(
        &self,
        x: &Tensor,
        d_logits: Tensor,
        logits: &Tensor,
        dx: &Tensor,
        d_weight: &Tensor,
    ) {
        if self.precision == MatmulPrecision::Fp32 {
            drop(d_logits.mm_out(dx, &self.weight));
            drop(d_weight.shallow_clone().addmm_(&d_logits.transpose(0, 1), x));
            return;
        }
        let d_logits = self.rounded_over(d_logits, logits);
        dx.shallow_clone().copy_(&self.precision.rounded(&d_logits.mm(&self.weight)));
        for (from, count) in self.parts() {
            let product = d_logits.narrow(1, from, count).transpose(0, 1).mm(x);
            let mut target = d_weight.narrow(0, from, count);
            target += self.precision.rounded(&product).to_kind(self.kind);
        }
    }

    /// The rounded gradients as an operand, in the memory of matrices that are no longer needed.
    fn rounded_over(&self, d_logits: Tensor, logits: &Tensor) -> Tensor {
        let [_, vocab] = sizes(&d_logits);
        let mut rounded = logits.view_dtype(Kind::BFloat16).narrow(1, 0, vocab);
        rounded.copy_(&d_logits);
        if self.weight.kind() == Kind::BFloat16 {
            return rounded;
        }
        let mut operand = d_logits;
        operand.copy_(&rounded);
        operand
    }

    /// First row and number of rows of each part of W.
    fn parts(&self) -> impl Iterator<Item = (i64, i64)> {
        let [vocab, _] = sizes(&self.weight);
        let count = (vocab + VOCABULARY_PART - 1) / VOCABULARY_PART;
        let from = |part: i64| part * VOCABULARY_PART;
        (0..count).map(move |part| (from(part), VOCABULARY_PART.min(vocab - from(part))))
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
    fn the_nats_of_rows_add_up_to_their_sum() {
        let (x, weight) = (random(&[333, 5], 1), random(&[17, 5], 2));
        let targets = targets(333, 17);
        let of_rows = nats_of_rows(&x, &weight, &targets, MatmulPrecision::Fp32);
        assert_eq!(of_rows.size(), [333]);
        let logits = x.matmul(&weight.transpose(0, 1));
        let expected = logits.logsumexp([-1], false)
            - logits.gather(1, &targets.unsqueeze(1), false).squeeze_dim(1);
        assert!(relative_error(&of_rows, &expected) < 1e-13);
        let sums = linear_cross_entropy(&x, &weight, &targets, options(0.0));
        assert!(relative_error(&of_rows.sum(Kind::Double), &sums.nats) < 1e-13);
    }

    #[test]
    fn a_vocabulary_of_several_parts_has_the_same_losses_and_gradients() {
        // Aim: parts of W in bfloat16 are put where they belong. Method: numbers that bfloat16 knows,
        // so that float64 differs by the rounding of results only.
        let exact = |shape: &[i64], seed: i64| (random(shape, seed) * 4.0).round() / 64.0;
        let (x, weight) = (exact(&[45, 24], 1), exact(&[2 * VOCABULARY_PART + 7, 24], 2));
        let targets = targets(45, 2 * VOCABULARY_PART + 7);
        let run = |kind: Kind, precision| {
            let inputs: [Tensor; 2] =
                [&x, &weight].map(|x| x.to_kind(kind).set_requires_grad(true));
            let options = LossOptions { precision, z_loss: 0.0 };
            let sums = linear_cross_entropy(&inputs[0], &inputs[1], &targets, options);
            let gradients = Tensor::run_backward(&[&sums.objective], &inputs, false, false);
            (sums.nats.double_value(&[]), gradients)
        };
        let (nats, gradients) = run(Kind::Float, MatmulPrecision::Bf16);
        let (expected, expected_gradients) = run(Kind::Double, MatmulPrecision::Fp32);
        assert!((nats / expected - 1.0).abs() < 1e-4, "{nats} {expected}");
        for (found, expected) in gradients.iter().zip(&expected_gradients) {
            let error = relative_error(found, expected);
            assert!(error < 1e-2, "{error}");
        }
    }

    #[test]
    fn a_second_backward_pass_is_refused_and_not_wrong() {
        let x = random(&[7, 5], 1).set_requires_grad(true);
        let sums = linear_cross_entropy(&x, &random(&[31, 5], 2), &targets(7, 31), options(0.0));
        let pass =
            |keep_graph| Tensor::f_run_backward(&[&sums.objective * 2.0], &[&x], keep_graph, false);
        pass(true).unwrap();
        assert!(pass(false).unwrap_err().to_string().contains("modified by an inplace operation"));
    }

    /// Checks the process's peak resident memory over one pass against an eighth of the logits, one
    /// gradient of each input, and the copies of W.
    fn check_peak(rows: i64, vocab: i64, width: i64, precision: MatmulPrecision) {
        // Aim: neither the logits nor their gradients are ever whole, and a gradient of W is there
        // once. Method: the peak above what a pass over a few rows has left in place.
        let whole = rows * vocab * 4;
        let inputs = [rows, vocab]
            .map(|rows| random(&[rows, width], 1).to_kind(Kind::Float).set_requires_grad(true));
        let targets = targets(rows, vocab);
        let pass = |rows: i64| {
            let (x, targets) = (inputs[0].narrow(0, 0, rows), targets.narrow(0, 0, rows));
            let options = LossOptions { precision, z_loss: 0.0 };
            let sums = linear_cross_entropy(&x, &inputs[1], &targets, options);
            // As the trainer does: the gradient of the mean.
            drop(Tensor::run_backward(&[sums.objective / rows], &inputs, false, false));
        };
        pass(64);
        torch_ext::release_freed_memory();
        fs::write("/proc/self/clear_refs", "5").unwrap();
        let before = status_bytes("VmRSS:");
        pass(rows);
        let grown = status_bytes("VmHWM:") - before;
        let gradients = (rows + vocab) * width * 4;
        let copies = match precision {
            MatmulPrecision::Fp32 => 0,
            // Rounded, and once more as the library packs it for a product; float32 again where
            // bfloat16 is not multiplied.
            MatmulPrecision::Bf16 if torch_ext::multiplies_bf16(Device::Cpu) => vocab * width * 4,
            MatmulPrecision::Bf16 => vocab * width * 6,
        };
        assert!(grown > gradients / 2, "{grown}: the peak was not measured");
        let allowed = whole / 8 + gradients + copies;
        assert!(grown <= allowed, "{precision:?}, {width}: {grown}, not {allowed}, of {whole}");
    }

    #[test]
    fn peak_memory_is_at_most_an_eighth_of_the_logits_beside_one_gradient() {
        for precision in [MatmulPrecision::Fp32, MatmulPrecision::Bf16] {
            check_peak(8192, 8192, 16, precision);
            check_peak(8192, 8192, 512, precision);
            check_peak(2048, 16384, 768, precision);
        }
    }

    fn status_bytes(name: &str) -> i64 {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() * 1024
    }
}
