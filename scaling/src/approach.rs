//! Owns the approaches to N_opt and D_opt side by side: where they disagree, and where a + b is not
//! 1. Does not fit; the exponents come from `envelope`, `isoflop` and `interval`.

use crate::diagnose::Finding;
use crate::interval::Estimate;

/// a + b this near to 1 is 1 for any use: whole steps and the models' own FLOPs move it by as much.
const NEAR_ONE: f64 = 0.02;

/// What one approach says of N_opt ∝ C^a and D_opt ∝ C^b.
#[derive(Debug, Clone, PartialEq)]
pub struct Approach {
    /// `envelope`, `isoflop` or the name of the law (approaches 1, 2 and 3 of Hoffmann et al.
    /// 2022).
    pub name: String,
    /// a.
    pub parameters_exponent: Estimate,
    /// b.
    pub tokens_exponent: Estimate,
    /// a + b, from the same draws or residuals; `None` where the approach makes it 1.
    pub exponent_sum: Option<Estimate>,
}

/// The warnings `approaches-disagree` and `exponent-sum` of these approaches to the same runs.
///
/// Two disagree where their difference is larger than the root of the sum of squares of the two
/// half widths that face each other: the interval of a difference of independent numbers.
/// Approaches to the same runs share their luck, so that their difference varies less than that,
/// and a warning is never too early.
pub fn findings(approaches: &[Approach]) -> Vec<Finding> {
    let mut found = Vec::new();
    for (index, first) in approaches.iter().enumerate() {
        found.extend(
            approaches[index + 1..].iter().filter_map(|second| disagreement(first, second)),
        );
    }
    found.extend(approaches.iter().filter_map(sum_is_not_one));
    found
}

fn disagreement(first: &Approach, second: &Approach) -> Option<Finding> {
    let (a, b) = (&first.parameters_exponent, &second.parameters_exponent);
    let (of_a, of_b) = (a.value()?, b.value()?);
    let (upper, lower) = if of_a > of_b { (a, b) } else { (b, a) };
    let down = upper.value()? - upper.interval()?.0;
    let up = lower.interval()?.1 - lower.value()?;
    let (apart, allowed) = ((of_a - of_b).abs(), down.hypot(up));
    (apart > allowed).then(|| {
        let shown = |one: &Approach, value: f64, estimate: &Estimate| {
            let (low, high) = estimate.interval().unwrap_or((value, value));
            format!("{value:.3} ({low:.3} to {high:.3}) by `{}`", one.name)
        };
        let text = format!(
            "a of N_opt is {} and {}: {apart:.3} apart, where their intervals allow {allowed:.3}",
            shown(first, of_a, a),
            shown(second, of_b, b)
        );
        Finding { name: "approaches-disagree", text }
    })
}

fn sum_is_not_one(approach: &Approach) -> Option<Finding> {
    let sum = approach.exponent_sum.as_ref()?;
    let (value, (low, high)) = (sum.value()?, sum.interval()?);
    let is_apart = (value - 1.0).abs() > NEAR_ONE && !(low..=high).contains(&1.0);
    is_apart.then(|| {
        let text = format!(
            "a + b = {value:.3} ({low:.3} to {high:.3}) by `{}`, and 1 for C proportional to N D; \
             N, D and C are counted otherwise, or the runs are not at their best",
            approach.name
        );
        Finding { name: "exponent-sum", text }
    })
}

#[cfg(test)]
mod tests;
