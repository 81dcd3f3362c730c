//! Owns the question whether data can determine a coefficient: thresholds, each with its reason,
//! and judgements. Does not resample; `interval` adds what resampling shows.

use crate::algebra::symmetric_eigen;
use crate::fit::{Convergence, Problem};
use crate::law::{Coefficient, Law, LawName, Quantity, Variable};
use crate::observation::Dataset;

/// |correlation| of ln N and ln D beyond which the two terms of a law of N and D cannot be told
/// apart.
///
/// On a ray of constant D/N it is 1 and the terms can be exchanged; at 0.99 one part in 50 of the
/// variance of ln D is left to separate them.
pub const MAX_CORRELATION: f64 = 0.99;
/// Smallest over largest eigenvalue of the scaled normal matrix that counts as singular.
///
/// Squares of sensitivities are resolved to about 1e-16 times their sum over hundreds of points.
pub const SINGULAR: f64 = 1e-12;
/// A coefficient takes part in a singular direction from this share of the eigenvector on.
const SINGULAR_SHARE: f64 = 0.1;
/// Root-mean-square change of ln L when a parameter changes by one ([`Law::unit_of`]), below which the data do not see
/// it: a tenth of the best measured seed noise (0.001 in ln L).
pub const MIN_EFFECT: f64 = 1e-4;
/// A floor below this share of the smallest loss is a fit that wants no floor.
pub const MIN_FLOOR_SHARE: f64 = 0.01;
/// Starts that reach the same objective must agree on every coefficient to this relative
/// difference.
pub const MAX_SPREAD: f64 = 0.01;
/// Widest useful interval of an exponent; published exponents all lie between 0 and 1.3.
pub const MAX_EXPONENT_WIDTH: f64 = 1.0;
/// Largest ratio of the ends of a prefactor's interval; beyond three decades it says nothing.
pub const MAX_SCALE_RATIO: f64 = 1e3;
/// Largest ratio of the ends of the interval of the irreducible loss.
pub const MAX_FLOOR_RATIO: f64 = 3.0;
/// Largest ratio of the ends of the interval of a predicted loss: a factor of two in nats spans
/// whole generations.
pub const MAX_LOSS_RATIO: f64 = 2.0;
/// What the data cannot determine, known before any resampling.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identifiability {
    /// Why no number of this fit may be used, predictions included.
    pub whole: Option<String>,
    /// Per coefficient, in the order of the fit's coefficients: why its value may not be used.
    pub coefficients: Vec<Option<String>>,
}

/// Why an interval of this `quantity` is not a statement, if so.
pub fn absurd_interval(quantity: Quantity, low: f64, high: f64) -> Option<String> {
    if !(low.is_finite() && high.is_finite()) {
        return Some(format!("its interval is not finite ({low} to {high})"));
    }
    let ratio_limit = match quantity {
        Quantity::Exponent if low <= 0.0 && high >= 0.0 => {
            return Some(format!("its interval, {low:.3} to {high:.3}, contains zero"));
        }
        Quantity::Exponent => {
            let is_wide = high - low > MAX_EXPONENT_WIDTH;
            return is_wide.then(|| {
                format!("its interval, {low:.3} to {high:.3}, is wider than {MAX_EXPONENT_WIDTH}")
            });
        }
        Quantity::Difference => return None,
        Quantity::Scale => MAX_SCALE_RATIO,
        Quantity::Floor => MAX_FLOOR_RATIO,
        Quantity::Loss => MAX_LOSS_RATIO,
    };
    let ratio = high / low;
    // Written so that a ratio that is not a number counts as absurd.
    let is_narrow = ratio <= ratio_limit;
    (!is_narrow).then(|| {
        let (low, high) = (short(low), short(high));
        format!("its interval, {low} to {high}, spans more than a factor of {ratio_limit}")
    })
}

/// Some four digits; far from one with a power of ten.
fn short(value: f64) -> String {
    match value.abs() {
        size if !(1e-3..1e5).contains(&size) => format!("{value:.3e}"),
        size if size < 10.0 => format!("{value:.3}"),
        size if size < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Judges a fitted law.
pub(crate) fn judge(
    law: &dyn Law,
    dataset: &Dataset,
    problem: &Problem<'_>,
    theta: &[f64],
    convergence: &Convergence,
) -> Identifiability {
    let coefficients = law.coefficients(theta);
    let mut reasons: Vec<Option<String>> = vec![None; coefficients.len()];
    let smallest_loss = dataset.range(|point| point.loss_nats).map_or(f64::NAN, |range| range.0);
    for (reason, coefficient) in reasons.iter_mut().zip(&coefficients) {
        let is_floor = coefficient.quantity == Quantity::Floor;
        if is_floor && coefficient.value < MIN_FLOOR_SHARE * smallest_loss {
            *reason = Some("the fit drives it to zero: no floor is visible in these losses".into());
        }
    }
    for (j, text) in blind_parameters(problem, theta, law) {
        for i in touched(law, theta, j, problem.steps()[j]) {
            reasons[i].get_or_insert_with(|| text.clone());
        }
    }
    let shared = exchangeable(law, dataset);
    for (reason, spread) in reasons.iter_mut().zip(&convergence.spreads_at_best) {
        if reason.is_none() {
            *reason = shared.clone().or_else(|| disagreement(*spread));
        }
    }
    let whole = too_few_values(law, dataset)
        .or_else(|| law.missing(&problem.points))
        .or_else(|| no_freedom(problem.points.len(), theta.len()));
    Identifiability { whole, coefficients: reasons }
}

/// A coefficient at the end of the range in which it is looked for would have gone on: its value is
/// that end, and an interval around it is one of the range. Only where the end is the law's own, as
/// that of an accuracy, it may be right.
pub(crate) fn refuse_bounds(
    law: &dyn Law,
    at_bound: &[&'static str],
    coefficients: &[Coefficient],
    found: &mut Identifiability,
) {
    if law.name() == LawName::Sigmoid {
        return;
    }
    for (reason, one) in found.coefficients.iter_mut().zip(coefficients) {
        if let Some(bound) = law.bounds().iter().find(|bound| bound.name == one.name)
            && at_bound.contains(&one.name)
        {
            reason.get_or_insert_with(|| {
                format!(
                    "it ended at {:.4e}, an end of the range in which it is looked for, {:e} to \
                     {:e}",
                    one.value, bound.low, bound.high
                )
            });
        }
    }
}

/// Distinct values of each variable against what the law needs.
pub(crate) fn too_few_values(law: &dyn Law, dataset: &Dataset) -> Option<String> {
    let needs = law.needs();
    // One budget is one C, however many runs spend it; a law of N and D sees their own values.
    let is_of_compute = law.variables().contains(&Variable::Flops);
    let n_budgets = if is_of_compute { dataset.n_budgets() } else { needs.n_budgets };
    let counts = [
        ("sizes N", dataset.n_distinct(|point| point.parameters), needs.n_sizes),
        ("token counts D", dataset.n_distinct(|point| point.tokens), needs.n_token_counts),
        ("compute values C", n_budgets, needs.n_budgets),
    ];
    let (what, found, needed) = counts.into_iter().find(|(_, found, needed)| found < needed)?;
    let name = law.name();
    Some(format!(
        "{found} distinct {what}; `{name}` needs {needed} before data could contradict it"
    ))
}

/// As many points as parameters are met by any of a law's curves, whatever they measured.
fn no_freedom(n_points: usize, n_parameters: usize) -> Option<String> {
    (n_points <= n_parameters).then(|| {
        format!("{n_points} points for {n_parameters} parameters: nothing is left to judge by")
    })
}

/// Whether the law has a term of N and one of D, which a fixed ratio cannot tell apart.
///
/// That of C and D/N is not meant: there a fixed ratio is too few values of it.
fn is_of_size_and_data(law: &dyn Law) -> bool {
    let of = |variable: Variable| law.variables().contains(&variable);
    of(Variable::Parameters) && of(Variable::Tokens) && law.needs().n_sizes > 1
}

fn exchangeable(law: &dyn Law, dataset: &Dataset) -> Option<String> {
    let correlation = correlation(dataset);
    (is_of_size_and_data(law) && correlation.abs() > MAX_CORRELATION).then(|| {
        format!(
            "ln N and ln D move together (correlation {correlation:.4}), so their terms are \
             exchangeable"
        )
    })
}

/// A coefficient on which starts disagree. Another one on which they agree is none the worse: where
/// no floor is wanted, each start ends at another one, and all at the same exponents.
fn disagreement(spread: f64) -> Option<String> {
    (spread > MAX_SPREAD)
        .then(|| format!("starts that fit equally well disagree by {:.1} %", 100.0 * spread))
}

/// Parameters without effect, or part of a direction without effect.
fn blind_parameters(problem: &Problem<'_>, theta: &[f64], law: &dyn Law) -> Vec<(usize, String)> {
    let n = theta.len();
    let gram = problem.gram(theta, |_| 1.0);
    // Whatever weights sum to, an effect is one on ln L.
    let total = problem.total_weight();
    let effects: Vec<f64> = (0..n).map(|j| (gram[j * n + j] / total).sqrt()).collect();
    let mut found = Vec::new();
    for ((j, effect), unit) in effects.iter().enumerate().zip(problem.steps()) {
        // Written so that an effect that is not a number counts as none.
        let is_seen = *effect * unit >= MIN_EFFECT;
        if !is_seen {
            let name = name_of(law, theta, j, *unit);
            found.push((j, format!("the losses hardly depend on `{name}` at the optimum")));
        }
    }
    // Among those that are seen, what can be traded for what.
    let seen: Vec<usize> = (0..n).filter(|j| found.iter().all(|(blind, _)| blind != j)).collect();
    let pairs = seen.iter().flat_map(|i| seen.iter().map(move |j| (*i, *j)));
    let scaled: Vec<f64> =
        pairs.map(|(i, j)| gram[i * n + j] / total / (effects[i] * effects[j])).collect();
    if seen.is_empty() {
        return found;
    }
    let (values, vectors) = symmetric_eigen(&scaled, seen.len());
    let largest = values.iter().copied().fold(0.0, f64::max);
    for (value, vector) in values.iter().zip(vectors.chunks_exact(seen.len())) {
        if *value > SINGULAR * largest {
            continue;
        }
        let involved = seen.iter().zip(vector).filter(|(_, share)| share.abs() > SINGULAR_SHARE);
        found.extend(involved.map(|(j, _)| {
            let name = name_of(law, theta, *j, problem.steps()[*j]);
            (*j, format!("`{name}` can be traded for others: the Hessian is singular"))
        }));
    }
    found
}

/// What readers know parameter `j` by: the coefficient of its name, or the first that depends on it.
fn name_of(law: &dyn Law, theta: &[f64], j: usize, step: f64) -> &'static str {
    let coefficients = law.coefficients(theta);
    let own = law.parameter_names()[j];
    let is_one = coefficients.iter().any(|one| one.name == own);
    let first = touched(law, theta, j, step).first().map(|at| coefficients[*at].name);
    if is_one { own } else { first.unwrap_or(own) }
}

/// Which coefficients depend on parameter `j`.
fn touched(law: &dyn Law, theta: &[f64], j: usize, step: f64) -> Vec<usize> {
    let mut moved = theta.to_vec();
    moved[j] += 1e-3 * step;
    let pairs = law.coefficients(theta).into_iter().zip(law.coefficients(&moved));
    pairs.enumerate().filter(|(_, (a, b))| a.value != b.value).map(|(i, _)| i).collect()
}

/// Correlation of ln N and ln D over the points; 0 where one of them does not vary.
fn correlation(dataset: &Dataset) -> f64 {
    let n = dataset.points().len() as f64;
    let logs = dataset.points().iter().map(|point| (point.parameters.ln(), point.tokens.ln()));
    let (sum_x, sum_y) = logs.clone().fold((0.0, 0.0), |(x, y), (a, b)| (x + a, y + b));
    let (mut xx, mut yy, mut xy) = (0.0, 0.0, 0.0);
    for (a, b) in logs {
        let (x, y) = (a - sum_x / n, b - sum_y / n);
        xx += x * x;
        yy += y * y;
        xy += x * y;
    }
    if xx < 1e-18 || yy < 1e-18 { 0.0 } else { xy / (xx * yy).sqrt() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_judged_by_what_they_stand_for() {
        assert_eq!(absurd_interval(Quantity::Exponent, 0.3, 0.4), None);
        assert!(absurd_interval(Quantity::Exponent, -0.1, 0.4).unwrap().contains("contains zero"));
        assert!(absurd_interval(Quantity::Exponent, 0.1, 1.4).unwrap().contains("wider than"));
        assert_eq!(absurd_interval(Quantity::Difference, -0.1, 0.1), None);
        assert!(absurd_interval(Quantity::Scale, 1.0, 2e3).is_some());
        let of_loss = absurd_interval(Quantity::Loss, 2.31642, 4.8845).unwrap();
        assert!(of_loss.contains("2.316 to 4.885,"), "{of_loss}");
        let of_scale = absurd_interval(Quantity::Scale, 0.01234, 8.7e13).unwrap();
        assert!(of_scale.contains("0.012 to 8.700e13,"), "{of_scale}");
        assert!(absurd_interval(Quantity::Scale, 0.0, 2e3).is_some());
        assert!(absurd_interval(Quantity::Loss, 2.0, 4.1).is_some());
        assert!(absurd_interval(Quantity::Floor, 1.0, f64::INFINITY).is_some());
    }
}
