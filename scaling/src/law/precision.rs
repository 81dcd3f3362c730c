//! Owns the law of training precision: parameters count less at fewer bits.
//! Does not model the loss that quantization after training adds.

use super::transform::LogBounded;
use super::{
    Bound, Chinchilla, Coefficient, Invariance, Law, LawChoice, LawName, LogPoint, Needs, Quantity,
    Variable,
};

/// Where the gammas are looked for, in bits; the published ones are 2.67, 2.21 and 0.96.
const GAMMA: LogBounded = LogBounded { low: 0.02, high: 50.0 };
/// Gammas tried.
const GAMMA_GRID: [f64; 5] = [0.5, 1.0, 2.0, 4.0, 8.0];
/// Of the additive law's starts, one of so many is tried with each gamma.
const THINNING: usize = 5;
/// Distinct precisions that a gamma needs, and the bits below which one of them must lie: above, 1
/// - exp(-P / gamma) is one for every plausible gamma.
const MIN_PRECISIONS: usize = 3;
const LOW_BITS: f64 = 6.0;

/// L = E + A / N_eff^alpha + B / D^beta with N_eff = N Π (1 - exp(-P_j / gamma_j)) over the tensors
/// whose bits P_j are known (Kumar et al. 2024, 2411.04330, section 4.3).
///
/// `theta` = (ln A, ln B, ln E, alpha, beta, u_j …) with gamma_j between 0.02 and 50 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Precision {
    /// Whether the bits of weights, activations and key-value cache vary; at least one does.
    bits: [bool; 3],
}

/// All combinations, by the binary number of their bits; none of them is taken for the weights
/// alone.
static ALL: [Precision; 8] = {
    const fn with(mask: u8) -> Precision {
        Precision { bits: [mask & 1 == 1 || mask == 0, mask & 2 == 2, mask & 4 == 4] }
    }
    [with(0), with(1), with(2), with(3), with(4), with(5), with(6), with(7)]
};

const NAMES: [&str; 3] = ["gamma_w", "gamma_a", "gamma_kv"];

impl Precision {
    pub(super) fn of(bits: [bool; 3]) -> &'static Self {
        let index = usize::from(bits[0]) + 2 * usize::from(bits[1]) + 4 * usize::from(bits[2]);
        &ALL[index]
    }

    /// Positions of the known bits.
    fn known(self) -> impl Iterator<Item = usize> {
        (0..3).filter(move |index| self.bits[*index])
    }

    fn index(self) -> usize {
        usize::from(self.bits[0]) + 2 * usize::from(self.bits[1]) + 4 * usize::from(self.bits[2])
    }
}

impl Law for Precision {
    fn choice(&self) -> LawChoice {
        LawChoice { bits: self.bits, ..LawChoice::of(LawName::Precision) }
    }

    fn formula(&self) -> &'static str {
        "L = E + A / N_eff^alpha + B / D^beta, N_eff = N prod_j (1 - exp(-P_j / gamma_j))"
    }

    fn variables(&self) -> &'static [Variable] {
        use Variable::{
            ActivationBits as Pa, CacheBits as Pk, Parameters as N, Tokens as D, WeightBits as Pw,
        };
        match self.index() {
            2 => &[N, D, Pa],
            3 => &[N, D, Pw, Pa],
            4 => &[N, D, Pk],
            5 => &[N, D, Pw, Pk],
            6 => &[N, D, Pa, Pk],
            7 => &[N, D, Pw, Pa, Pk],
            _ => &[N, D, Pw],
        }
    }

    fn bounds(&self) -> &'static [Bound] {
        const W: Bound = Bound { name: NAMES[0], low: GAMMA.low, high: GAMMA.high };
        const A: Bound = Bound { name: NAMES[1], ..W };
        const K: Bound = Bound { name: NAMES[2], ..W };
        match self.index() {
            2 => &[A],
            3 => &[W, A],
            4 => &[K],
            5 => &[W, K],
            6 => &[A, K],
            7 => &[W, A, K],
            _ => &[W],
        }
    }

    fn invariances(&self) -> &'static [Invariance] {
        Chinchilla.invariances()
    }

    fn identified_by(&self) -> &'static str {
        "what `chinchilla` needs, and three precisions of each tensor with one below six bits"
    }

    fn parameter_names(&self) -> &[&'static str] {
        match self.index() {
            2 => &["ln_a", "ln_b", "ln_e", "alpha", "beta", "u_a"],
            3 => &["ln_a", "ln_b", "ln_e", "alpha", "beta", "u_w", "u_a"],
            4 => &["ln_a", "ln_b", "ln_e", "alpha", "beta", "u_kv"],
            5 => &["ln_a", "ln_b", "ln_e", "alpha", "beta", "u_w", "u_kv"],
            6 => &["ln_a", "ln_b", "ln_e", "alpha", "beta", "u_a", "u_kv"],
            7 => &["ln_a", "ln_b", "ln_e", "alpha", "beta", "u_w", "u_a", "u_kv"],
            _ => &["ln_a", "ln_b", "ln_e", "alpha", "beta", "u_w"],
        }
    }

    fn coefficients(&self, theta: &[f64]) -> Vec<Coefficient> {
        let mut all = Chinchilla.coefficients(&theta[..5]);
        all.extend(self.known().zip(&theta[5..]).map(|(index, u)| Coefficient {
            name: NAMES[index],
            quantity: Quantity::Scale,
            value: GAMMA.value(*u),
        }));
        all
    }

    fn needs(&self) -> Needs {
        Chinchilla.needs()
    }

    fn missing(&self, points: &[LogPoint]) -> Option<String> {
        self.known().find_map(|index| {
            let variable = Variable::BITS[index];
            let mut bits: Vec<f64> = points.iter().map(|point| point.bits[index]).collect();
            bits.sort_unstable_by(f64::total_cmp);
            bits.dedup();
            if bits.len() < MIN_PRECISIONS {
                let n = bits.len();
                return Some(format!(
                    "{n} values of the {variable}; `precision` needs {MIN_PRECISIONS}"
                ));
            }
            (bits[0] >= LOW_BITS).then(|| {
                format!(
                    "the {variable} are {} or more; `precision` needs some below {LOW_BITS}",
                    bits[0]
                )
            })
        })
    }

    fn log_prediction(&self, theta: &[f64], point: &LogPoint, gradient: &mut [f64]) -> f64 {
        let mut lost = 0.0;
        let mut by_u = [0.0; 3];
        for ((index, u), derivative) in self.known().zip(&theta[5..]).zip(&mut by_u) {
            let (ln_gamma, slope) = GAMMA.log(*u);
            let ratio = point.bits[index] / ln_gamma.exp();
            lost += (-(-ratio).exp_m1()).ln();
            // d ln(1 - exp(-P/γ)) / d ln γ = -(P/γ) / (exp(P/γ) - 1).
            *derivative = -ratio / ratio.exp_m1() * slope;
        }
        let effective = LogPoint { ln_parameters: point.ln_parameters + lost, ..*point };
        let value = Chinchilla.log_prediction(&theta[..5], &effective, &mut gradient[..5]);
        let by_size = -theta[3] * gradient[0];
        for (target, derivative) in gradient[5..].iter_mut().zip(by_u) {
            *target = by_size * derivative;
        }
        value
    }

    fn starting_grid(&self, points: &[LogPoint], log_losses: &[f64]) -> Vec<Vec<f64>> {
        let n_gammas = self.known().count();
        let mut starts = Vec::new();
        for gamma in GAMMA_GRID {
            let lost = |point: &LogPoint| -> f64 {
                self.known().map(|index| (-(-point.bits[index] / gamma).exp_m1()).ln()).sum()
            };
            let effective: Vec<LogPoint> = points
                .iter()
                .map(|point| LogPoint {
                    ln_parameters: point.ln_parameters + lost(point),
                    ..*point
                })
                .collect();
            let additive = Chinchilla.starting_grid(&effective, log_losses);
            let more = vec![GAMMA.inverse(gamma); n_gammas];
            starts.extend(
                additive.iter().step_by(THINNING).map(|start| [start.as_slice(), &more].concat()),
            );
        }
        starts
    }

    fn least_polished(&self) -> usize {
        48
    }
}
