//! Owns the named warnings about a fitted law, each with the numbers behind it. Does not refuse a
//! number; `identify` and `interval` do that. A warning says when not to believe one.

use std::fmt;

use crate::fit::Fit;
use crate::interval::Inference;
use crate::law::{LawName, Variable};
use crate::observation::{Dataset, RunKey};
use crate::profile::FloorProfile;

mod coefficient;
mod design;
mod pattern;
mod slope;

pub use design::mixed;
pub(crate) use design::shared_trunks;

/// A warning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Its stable name, such as `few-sizes`.
    pub name: &'static str,
    /// What was found, with numbers.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.name, self.text)
    }
}

/// All warnings about a fit (`docs/concepts/fitting.md` lists them with their thresholds).
///
/// `profile` is that of the floor, where there is one; without it the floor is judged by its place
/// alone. `name_of_run` says what a run is called where it came from, since a key means nothing to
/// a reader.
pub fn diagnose(
    fit: &Fit,
    inference: &Inference,
    dataset: &Dataset,
    profile: Option<&FloorProfile>,
    name_of_run: &dyn Fn(RunKey) -> String,
) -> Vec<Finding> {
    let law = fit.form.law();
    let of = |variable: Variable| law.variables().contains(&variable);
    let is_joint = of(Variable::Parameters) && of(Variable::Tokens);
    let mut all = Vec::new();
    let mut say = |name: &'static str, text: Option<String>| {
        all.extend(text.map(|text| Finding { name, text }));
    };
    say("whole-law", fit.identifiability.whole.clone());
    if is_joint || of(Variable::Flops) {
        say("narrow-compute", design::narrow_compute(fit));
    }
    if is_joint {
        say("few-sizes", design::few_sizes(fit));
        say("narrow-span", design::narrow_span(fit));
        say("fixed-ratio", design::fixed_ratio(dataset));
        say("unbalanced-seeds", design::unbalanced_seeds(dataset));
    }
    say("not-a-frontier", design::not_a_frontier(law.variables(), dataset));
    say("loss-rises", coefficient::loss_rises(fit, inference, dataset));
    let n_clusters = dataset.n_clusters().unwrap_or(fit.n_runs);
    say("shared-trunks", shared_trunks(n_clusters, fit.n_runs));
    say("at-bound", coefficient::at_bound(fit));
    say("several-minima", coefficient::several_minima(fit));
    say("lone-start", coefficient::lone_start(fit));
    say("basin-switch", coefficient::basin_switch(inference));
    say("steep-exponent", coefficient::steep_exponent(fit));
    say("loose-exponent", coefficient::loose_exponent(fit, inference));
    say("floor", coefficient::floor(fit, dataset, profile));
    if fit.law == LawName::Coupled {
        say("outer-exponent", coefficient::outer_exponent(inference));
        say("tied-floor", coefficient::tied_floor(fit, inference));
    }
    if fit.law == LawName::DataConstrained {
        say("few-repetitions", coefficient::few_repetitions(fit, dataset));
        say("outside-repetitions", coefficient::outside_repetitions(fit, dataset));
    }
    if fit.law == LawName::Overtraining {
        say("few-ratios", design::few_ratios(dataset));
    }
    if is_joint && fit.law != LawName::Coupled {
        say("interaction", pattern::interaction(fit, dataset));
    }
    if is_joint || of(Variable::Flops) {
        say("residual-trend", pattern::residual_trend(fit, dataset));
        say("residual-runs", pattern::residual_runs(fit, dataset));
        say("large-losses", pattern::large_losses(fit, dataset));
    }
    say("influence", pattern::influence(fit, inference, dataset, name_of_run));
    all
}

/// Correlation of pairs; `None` where one side does not vary.
fn correlation(pairs: &[(f64, f64)]) -> Option<f64> {
    let n = pairs.len() as f64;
    let (x, y) = pairs.iter().fold((0.0, 0.0), |(x, y), pair| (x + pair.0 / n, y + pair.1 / n));
    let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
        pairs.iter().map(|pair| of(pair.0 - x, pair.1 - y)).sum()
    };
    let (xx, yy, xy) = (sum(&|a, _| a * a), sum(&|_, b| b * b), sum(&|a, b| a * b));
    (xx > 1e-18 && yy > 1e-18).then(|| xy / (xx * yy).sqrt())
}

#[cfg(test)]
mod named_tests;
#[cfg(test)]
mod pattern_tests;
#[cfg(test)]
mod tests;
