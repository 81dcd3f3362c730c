//! Owns the smoothly broken power law of one variable.
//! Does not choose the number of breaks; held-out error does.

use super::grid::{mean, project};
use super::power::{needs_along, unit_invariances};
use super::transform::{LogBounded, logistic, softplus};
use super::{
    Axis, Bound, Coefficient, Invariance, Law, LawChoice, LawName, LogPoint, Needs, Quantity,
    Variable,
};

/// More breaks than these have more parameters than [`super::MAX_PARAMETERS`].
pub const MAX_BREAKS: usize = 3;
/// Where the sharpness f of a break is looked for: below, the break is a corner between two points;
/// above, it is wider than any data.
const SHARPNESS: LogBounded = LogBounded { low: 0.01, high: 10.0 };
/// Places of a break tried, as shares of the range of the data, and slopes before and after it.
const PLACES: [f64; 7] = [0.08, 0.22, 0.36, 0.5, 0.64, 0.78, 0.92];
const SHARPNESS_GRID: [f64; 2] = [0.1, 0.6];
const SLOPES: [f64; 7] = [0.0, 0.05, 0.12, 0.25, 0.5, 0.9, -0.3];

/// y = a + b x^-c0 Π_i (1 + (x / d_i)^(1 / f_i))^(-c_i f_i) (Caballero et al. 2022, 2210.14891,
/// equation 1).
///
/// `theta` = (ln a, ln b, c0, then c_i, ln d_i, u_i for each break) with f_i between 0.01 and 10.
/// Breaks are named from the smallest d on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BrokenPower {
    axis: Axis,
    n_breaks: usize,
}

static ALL: [[BrokenPower; MAX_BREAKS]; 3] = {
    const fn of(axis: Axis) -> [BrokenPower; MAX_BREAKS] {
        [
            BrokenPower { axis, n_breaks: 1 },
            BrokenPower { axis, n_breaks: 2 },
            BrokenPower { axis, n_breaks: 3 },
        ]
    }
    [of(Axis::Parameters), of(Axis::Tokens), of(Axis::Flops)]
};

const THETA: [&str; 12] =
    ["ln_a", "ln_b", "c0", "c1", "ln_d1", "u1", "c2", "ln_d2", "u2", "c3", "ln_d3", "u3"];
const NAMES: [[&str; 3]; MAX_BREAKS] = [["c1", "d1", "f1"], ["c2", "d2", "f2"], ["c3", "d3", "f3"]];

impl BrokenPower {
    pub(super) fn of(axis: Axis, n_breaks: usize) -> &'static Self {
        let row = match axis {
            Axis::Parameters => 0,
            Axis::Tokens => 1,
            Axis::Flops => 2,
        };
        &ALL[row][n_breaks.clamp(1, MAX_BREAKS) - 1]
    }

    /// (c, ln d, u) of each break.
    fn breaks<'a>(&self, theta: &'a [f64]) -> impl Iterator<Item = (f64, f64, f64)> + 'a {
        theta[3..3 + 3 * self.n_breaks].chunks_exact(3).map(|one| (one[0], one[1], one[2]))
    }
}

impl Law for BrokenPower {
    fn choice(&self) -> LawChoice {
        LawChoice {
            axis: self.axis,
            n_breaks: self.n_breaks,
            ..LawChoice::of(LawName::BrokenPower)
        }
    }

    fn formula(&self) -> &'static str {
        match self.axis {
            Axis::Parameters => "L = a + b N^-c0 prod_i (1 + (N / d_i)^(1 / f_i))^(-c_i f_i)",
            Axis::Tokens => "L = a + b D^-c0 prod_i (1 + (D / d_i)^(1 / f_i))^(-c_i f_i)",
            Axis::Flops => "L = a + b C^-c0 prod_i (1 + (C / d_i)^(1 / f_i))^(-c_i f_i)",
        }
    }

    fn variables(&self) -> &'static [Variable] {
        self.axis.variables()
    }

    fn bounds(&self) -> &'static [Bound] {
        const fn of(name: &'static str) -> Bound {
            Bound { name, low: SHARPNESS.low, high: SHARPNESS.high }
        }
        const BOUNDS: [Bound; MAX_BREAKS] = [of("f1"), of("f2"), of("f3")];
        &BOUNDS[..self.n_breaks]
    }

    fn invariances(&self) -> &'static [Invariance] {
        unit_invariances(self.axis)
    }

    fn identified_by(&self) -> &'static str {
        "several values of its variable on both sides of each break, and some close to it"
    }

    fn parameter_names(&self) -> &[&'static str] {
        &THETA[..3 + 3 * self.n_breaks]
    }

    fn coefficients(&self, theta: &[f64]) -> Vec<Coefficient> {
        let mut all = vec![
            Coefficient { name: "a", quantity: Quantity::Floor, value: theta[0].exp() },
            Coefficient { name: "b", quantity: Quantity::Scale, value: theta[1].exp() },
            Coefficient { name: "c0", quantity: Quantity::Difference, value: theta[2] },
        ];
        let mut breaks: Vec<(f64, f64, f64)> = self.breaks(theta).collect();
        breaks.sort_by(|x, y| x.1.total_cmp(&y.1));
        for ((c, ln_d, u), [c_name, d_name, f_name]) in breaks.into_iter().zip(NAMES) {
            all.extend([
                Coefficient { name: c_name, quantity: Quantity::Difference, value: c },
                Coefficient { name: d_name, quantity: Quantity::Scale, value: ln_d.exp() },
                Coefficient { name: f_name, quantity: Quantity::Scale, value: SHARPNESS.value(u) },
            ]);
        }
        all
    }

    fn needs(&self) -> Needs {
        needs_along(self.axis, 4 + 3 * self.n_breaks)
    }

    fn log_prediction(&self, theta: &[f64], point: &LogPoint, gradient: &mut [f64]) -> f64 {
        let x = self.axis.log(point);
        let mut power = theta[1] - theta[2] * x;
        for (c, ln_d, u) in self.breaks(theta) {
            let f = SHARPNESS.value(u);
            power -= c * f * softplus((x - ln_d) / f);
        }
        let floor = theta[0];
        let largest = floor.max(power);
        let (floor_part, power_part) = ((floor - largest).exp(), (power - largest).exp());
        let sum = floor_part + power_part;
        let share = power_part / sum;
        gradient[0] = floor_part / sum;
        gradient[1] = share;
        gradient[2] = -share * x;
        for (index, (c, ln_d, u)) in self.breaks(theta).enumerate() {
            let (ln_f, slope) = SHARPNESS.log(u);
            let f = ln_f.exp();
            let z = (x - ln_d) / f;
            let at = 3 + 3 * index;
            gradient[at] = -share * f * softplus(z);
            gradient[at + 1] = share * c * logistic(z);
            gradient[at + 2] = -share * c * f * slope * (softplus(z) - z * logistic(z));
        }
        largest + sum.ln()
    }

    /// Breaks spread over the data; prefactor and floor are solved for.
    fn starting_grid(&self, points: &[LogPoint], log_losses: &[f64]) -> Vec<Vec<f64>> {
        let logs: Vec<f64> = points.iter().map(|point| self.axis.log(point)).collect();
        let low = logs.iter().copied().fold(f64::INFINITY, f64::min);
        let high = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let centre = mean(logs.iter().copied());
        let level = mean(log_losses.iter().copied()).exp();
        let floors: Vec<f64> = log_losses.iter().map(|value| (-value).exp()).collect();
        let mut starts = Vec::new();
        for places in increasing(PLACES.len(), self.n_breaks) {
            for sharpness in SHARPNESS_GRID {
                for slopes in slope_sequences(self.n_breaks) {
                    let mut theta = vec![0.0, 0.0, slopes[0]];
                    for (index, place) in places.iter().enumerate() {
                        theta.extend([
                            slopes[index + 1] - slopes[index],
                            low + PLACES[*place] * (high - low),
                            SHARPNESS.inverse(sharpness),
                        ]);
                    }
                    let shape = |x: f64| -> f64 {
                        let breaks = self
                            .breaks(&theta)
                            .map(|(c, ln_d, _)| c * sharpness * softplus((x - ln_d) / sharpness));
                        -slopes[0] * x - breaks.sum::<f64>()
                    };
                    let anchor = shape(centre);
                    let column: Vec<f64> = logs
                        .iter()
                        .zip(&floors)
                        .map(|(x, floor)| floor * (shape(*x) - anchor).exp())
                        .collect();
                    let found = project(&[&floors, &column]);
                    theta[0] = found[0].max(1e-6 * level).ln();
                    theta[1] = found[1].max(1e-6 * level).ln() - anchor;
                    starts.push(theta);
                }
            }
        }
        starts
    }

    fn least_polished(&self) -> usize {
        // With three breaks 1 of 10 exact studies was missed by 64.
        if self.n_breaks > 2 { 192 } else { 64 }
    }
}

/// All increasing sequences of `count` numbers below `n`.
fn increasing(n: usize, count: usize) -> Vec<Vec<usize>> {
    let mut all = vec![Vec::new()];
    for _ in 0..count {
        all = all
            .iter()
            .flat_map(|known: &Vec<usize>| {
                let from = known.last().map_or(0, |last| last + 1);
                (from..n).map(move |next| [known.as_slice(), &[next]].concat())
            })
            .collect();
    }
    all
}

/// Slopes before the first and after each break: all pairs for one break, neighbouring choices for
/// more, so that the grid stays in the thousands.
fn slope_sequences(n_breaks: usize) -> Vec<Vec<f64>> {
    let choices = match n_breaks {
        1 => &SLOPES[..],
        2 => &SLOPES[1..6],
        _ => &SLOPES[1..4],
    };
    let mut all: Vec<Vec<f64>> = choices.iter().map(|slope| vec![*slope]).collect();
    for _ in 0..n_breaks {
        all = all
            .iter()
            .flat_map(|known| {
                choices.iter().map(move |slope| [known.as_slice(), &[*slope]].concat())
            })
            .filter(|sequence| sequence[sequence.len() - 1] != sequence[sequence.len() - 2])
            .collect();
    }
    all
}
