//! Owns the named warnings about a fitted law, each with the numbers behind it.
//! Does not refuse a number; `identify` and `interval` do that. A warning says when not to believe one.

use std::fmt;

use crate::algebra::line;
use crate::fit::Fit;
use crate::interval::Inference;
use crate::law::{LawName, Variable};
use crate::observation::{Dataset, RunKey};
use crate::profile::FloorProfile;

/// Sizes, and decades of C, below which an extrapolation has nothing to stand on.
const FEW_SIZES: usize = 5;
const NARROW_DECADES: f64 = 2.0;
/// Span of N or D below which its exponent rests on little.
const NARROW_SPAN: f64 = 8.0;
/// Correlation of ln N and ln D above which the two terms are hard to tell apart.
const HIGH_CORRELATION: f64 = 0.9;
/// An exponent above this has not been published for any language model.
const STEEP_EXPONENT: f64 = 1.5;
/// Relative standard error of an exponent that is worth a warning.
const LOOSE_EXPONENT: f64 = 0.3;
/// Draws that left the optimum's basin.
const SWITCHED_SHARE: f64 = 0.05;
/// Influence of one run on the exponent of N.
const INFLUENCE_SHARE: f64 = 0.2;
/// t value of a pattern in the residuals.
const PATTERN_T: f64 = 3.0;
/// Nats of E within one unit of twice the log-likelihood.
const FLAT_FLOOR_NATS: f64 = 0.2;
/// A floor above this share of the smallest loss leaves hardly anything to reduce.
const HIGH_FLOOR_SHARE: f64 = 0.99;
/// R of `data_constrained` beyond which runs say how fast value decays, and how many of them are needed.
const REPEATED: f64 = 4.0;
const MIN_REPEATED: usize = 10;

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
/// `profile` is that of the floor, where there is one; without it the floor is judged by its place alone. `name_of_run`
/// says what a run is called where it came from, since a key means nothing to a reader.
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
        say("narrow-compute", narrow_compute(fit));
    }
    if is_joint {
        say("few-sizes", few_sizes(fit));
        say("narrow-span", narrow_span(fit));
        say("fixed-ratio", fixed_ratio(dataset));
    }
    say("at-bound", at_bound(fit));
    say("several-minima", several_minima(fit));
    say("basin-switch", basin_switch(inference));
    say("steep-exponent", steep_exponent(fit));
    say("loose-exponent", loose_exponent(fit, inference));
    say("floor", floor(fit, dataset, profile));
    if fit.law == LawName::Coupled {
        say("outer-exponent", outer_exponent(inference));
    }
    if fit.law == LawName::DataConstrained {
        say("few-repetitions", few_repetitions(dataset));
    }
    if is_joint && fit.law != LawName::Coupled {
        say("interaction", interaction(fit, dataset));
    }
    if is_joint || of(Variable::Flops) {
        say("residual-trend", residual_trend(fit, dataset));
    }
    say("influence", influence(fit, inference, dataset, name_of_run));
    all
}

fn narrow_compute(fit: &Fit) -> Option<String> {
    let (low, high) = fit.ranges.flops;
    let decades = (high / low).log10();
    (decades < NARROW_DECADES).then(|| format!("C spans {decades:.1} decades"))
}

fn few_sizes(fit: &Fit) -> Option<String> {
    (fit.n_sizes < FEW_SIZES).then(|| format!("{} sizes", fit.n_sizes))
}

fn narrow_span(fit: &Fit) -> Option<String> {
    let spans = [("N", fit.ranges.parameters), ("D", fit.ranges.tokens)];
    let (name, (low, high)) =
        spans.into_iter().find(|(_, (low, high))| high / low < NARROW_SPAN)?;
    Some(format!("{name} spans a factor of {:.1}", high / low))
}

fn fixed_ratio(dataset: &Dataset) -> Option<String> {
    let logs = dataset.points().iter().map(|point| (point.parameters.ln(), point.tokens.ln()));
    let r = correlation(&logs.collect::<Vec<_>>())?;
    (r.abs() > HIGH_CORRELATION).then(|| format!("ln N and ln D have a correlation of {r:.3}"))
}

fn at_bound(fit: &Fit) -> Option<String> {
    let named: Vec<String> = fit
        .at_bound
        .iter()
        .filter_map(|name| Some(format!("`{name}` = {:.3e}", fit.coefficient(name)?)))
        .collect();
    (!named.is_empty()).then(|| format!("{} at the end of its range", named.join(", ")))
}

fn several_minima(fit: &Fit) -> Option<String> {
    let rivals = &fit.convergence.rivals;
    let first = rivals.first()?;
    let percent = 100.0 * (first.objective / fit.objective - 1.0);
    Some(format!("{} others within 0.5 %, the next {percent:.3} % above", rivals.len()))
}

fn basin_switch(inference: &Inference) -> Option<String> {
    let (n, all) = (inference.n_switched, inference.resampled.replicates.len());
    (n as f64 > SWITCHED_SHARE * all as f64)
        .then(|| format!("{n} of {all} draws have another minimum than the fit's"))
}

fn steep_exponent(fit: &Fit) -> Option<String> {
    let is_steep = |one: &&crate::law::Coefficient| {
        ["alpha", "beta", "eta", "alpha_N", "alpha_D"].contains(&one.name)
            && one.value > STEEP_EXPONENT
    };
    let found = fit.coefficients.iter().find(is_steep)?;
    Some(format!("`{}` = {:.2}, above {STEEP_EXPONENT}", found.name, found.value))
}

fn loose_exponent(fit: &Fit, inference: &Inference) -> Option<String> {
    let law = fit.form.law();
    fit.coefficients.iter().enumerate().find_map(|(index, one)| {
        if one.quantity != crate::law::Quantity::Exponent {
            return None;
        }
        let value = |theta: &[f64]| law.coefficients(theta)[index].value;
        let share = inference.resampled.standard_error(value)? / one.value.abs();
        (share > LOOSE_EXPONENT).then(|| {
            format!("the standard error of `{}` is {:.0} % of it", one.name, 100.0 * share)
        })
    })
}

fn floor(fit: &Fit, dataset: &Dataset, profile: Option<&FloorProfile>) -> Option<String> {
    let found = fit.coefficients.iter().find(|one| one.quantity == crate::law::Quantity::Floor)?;
    let (smallest, _) = dataset.range(|point| point.loss_nats)?;
    if let Some(profile) = profile
        && (profile.low.is_none() || profile.flat_nats > FLAT_FLOOR_NATS)
    {
        let end =
            profile.low.map_or("has no lower end".to_owned(), |low| format!("begins at {low:.3}"));
        return Some(format!(
            "its likelihood interval {end}; {:.2} nats of `{}` fit about equally well",
            profile.flat_nats, found.name
        ));
    }
    (found.value > HIGH_FLOOR_SHARE * smallest).then(|| {
        format!(
            "`{}` = {:.4} is within a per cent of the smallest loss {smallest:.4}",
            found.name, found.value
        )
    })
}

fn outer_exponent(inference: &Inference) -> Option<String> {
    let (low, high) = inference.coefficient("k")?.interval()?;
    (low <= 1.0 && 1.0 <= high).then(|| {
        format!("the interval of k, {low:.2} to {high:.2}, holds 1: `chinchilla` says as much")
    })
}

fn few_repetitions(dataset: &Dataset) -> Option<String> {
    let points = dataset.log_points();
    let n = points.iter().filter(|point| point.repetitions() > REPEATED).count();
    (n < MIN_REPEATED).then(|| {
        format!("{n} points repeat their data more than {REPEATED} times, which R_D needs {MIN_REPEATED} of")
    })
}

/// Residuals that follow (ln N - mean)(ln D - mean): a saddle that an additive law cannot have.
fn interaction(fit: &Fit, dataset: &Dataset) -> Option<String> {
    let logs: Vec<(f64, f64)> =
        dataset.points().iter().map(|point| (point.parameters.ln(), point.tokens.ln())).collect();
    let n = logs.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logs.iter().map(of).sum::<f64>() / n;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let products = logs.iter().map(|point| (point.0 - x) * (point.1 - y));
    let pairs: Vec<(f64, f64)> = products.zip(fit.residuals_log.iter().copied()).collect();
    let t = slope_t(&pairs)?;
    (t.abs() > PATTERN_T).then(|| {
        format!("residuals follow the product of ln N and ln D (t = {t:.1}); try `coupled`")
    })
}

fn residual_trend(fit: &Fit, dataset: &Dataset) -> Option<String> {
    let logs = dataset.points().iter().map(|point| point.flops.ln());
    let pairs: Vec<(f64, f64)> = logs.zip(fit.residuals_log.iter().copied()).collect();
    let t = slope_t(&pairs)?;
    (t.abs() > PATTERN_T).then(|| format!("residuals fall or rise with C (t = {t:.1})"))
}

/// The run whose absence moves the exponent of N most, of the sum of squares of all such moves.
fn influence(
    fit: &Fit,
    inference: &Inference,
    dataset: &Dataset,
    name_of_run: &dyn Fn(RunKey) -> String,
) -> Option<String> {
    let index =
        fit.coefficients.iter().position(|one| one.quantity == crate::law::Quantity::Exponent)?;
    let law = fit.form.law();
    let value = |theta: &[f64]| law.coefficients(theta)[index].value;
    let moves: Vec<f64> = inference
        .resampled
        .influence
        .iter()
        .map(|theta| value(theta) - value(&fit.theta))
        .collect();
    // Of few runs each has a large share.
    if (moves.len() as f64) < 4.0 / INFLUENCE_SHARE {
        return None;
    }
    let total: f64 = moves.iter().map(|change| change * change).sum();
    let (run, change) = moves.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()))?;
    let share = change * change / total;
    let name = fit.coefficients[index].name;
    (share > INFLUENCE_SHARE).then(|| {
        let run = name_of_run(dataset.runs()[run]);
        format!(
            "{run} carries {:.0} % of the influence on `{name}`; without it {name} is {:.4}",
            100.0 * share,
            value(&fit.theta) + change
        )
    })
}

/// t of the slope of a line through the pairs.
fn slope_t(pairs: &[(f64, f64)]) -> Option<f64> {
    let fitted = line(pairs, 0.0)?;
    let freedom = pairs.len().checked_sub(2).filter(|freedom| *freedom > 0)? as f64;
    let error = (fitted.residual_squares / freedom / fitted.spread).sqrt();
    // Exact losses leave residuals of rounding, whose patterns mean nothing.
    let scale = pairs.iter().map(|pair| pair.1.abs()).fold(0.0, f64::max);
    (scale > 1e-9 && error > 0.0).then(|| fitted.slope / error)
}

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
mod tests {
    use super::*;
    use crate::fit::{FitOptions, fit};
    use crate::interval::{IntervalOptions, Resampling, infer_with};
    use crate::observation::Observation;
    use crate::planted::Study;

    fn findings(law: LawName, dataset: &Dataset) -> Vec<Finding> {
        let options = FitOptions::default();
        let fitted = fit(law.law(), dataset, &options).unwrap();
        let interval = IntervalOptions { draws: 100, ..IntervalOptions::default() };
        let resampling = Resampling { has_influence: true, ..Resampling::default() };
        let inference = infer_with(&fitted, dataset, &options, &interval, &resampling).unwrap();
        let profile = crate::profile::floor(&fitted, dataset, &options, 0.95).unwrap();
        diagnose(&fitted, &inference, dataset, profile.as_ref(), &|run| format!("run {}", run.0))
    }

    fn names(found: &[Finding]) -> Vec<&'static str> {
        found.iter().map(|one| one.name).collect()
    }

    /// Each point a run of its own, on a broad grid.
    fn broad(seed: u64) -> Vec<Observation> {
        let study = Study { point_sd: 0.003, seed, ..Study::ladder(8) };
        let key = |index: usize| crate::observation::RunKey(u32::try_from(index).unwrap());
        let own = |(index, point): (usize, &Observation)| Observation { run: key(index), ..*point };
        study.observations().iter().enumerate().map(own).collect()
    }

    #[test]
    fn a_broad_study_of_the_right_law_gives_no_warning() {
        let found = findings(LawName::Chinchilla, &Dataset::new(&broad(3)).unwrap());
        assert!(found.is_empty(), "{found:?}");
    }

    #[test]
    fn a_narrow_study_is_told_what_it_lacks() {
        let points: Vec<Observation> = broad(3)
            .into_iter()
            .filter(|point| point.parameters < 7e5 && point.tokens < 6e5)
            .collect();
        let found = findings(LawName::Chinchilla, &Dataset::new(&points).unwrap());
        let names = names(&found);
        assert!(names.contains(&"few-sizes") && names.contains(&"narrow-span"), "{found:?}");
        assert!(names.contains(&"narrow-compute"), "{found:?}");
    }

    #[test]
    fn one_outlying_run_and_a_missing_interaction_are_seen() {
        let mut points = broad(3);
        points[79].loss_nats *= 1.2;
        points[7].loss_nats *= 1.3;
        let found = findings(LawName::Chinchilla, &Dataset::new(&points).unwrap());
        // A robust fit is moved little, but by few runs.
        assert!(found.iter().all(|one| one.name != "few-sizes"), "{found:?}");
        let mut saddle = broad(3);
        for point in &mut saddle {
            let product = (point.parameters / 4e5).ln() * (point.tokens / 1e6).ln();
            point.loss_nats *= (0.01 * product).exp();
        }
        let found = findings(LawName::Chinchilla, &Dataset::new(&saddle).unwrap());
        assert!(names(&found).contains(&"interaction"), "{found:?}");
    }

    #[test]
    fn the_influence_of_a_run_is_told_by_the_name_of_the_run() {
        // A law of one variable with one run far out, which alone says how the line is tilted.
        let point = |run: u32| {
            let flops = if run == 29 { 1e22 } else { 1e15 * 1.05_f64.powi(run.cast_signed()) };
            let noise = 0.01 * f64::from(run).sin();
            let loss_nats = (1e20 / flops).powf(0.05) * (1.0 + noise);
            let (parameters, tokens) = (1e6, flops / 6e6);
            Observation { run: RunKey(run), parameters, tokens, flops, loss_nats, seed: 0 }
        };
        let data = Dataset::new(&(0..30).map(point).collect::<Vec<_>>()).unwrap();
        let found = findings(LawName::Power, &data);
        let influence = found.iter().find(|one| one.name == "influence").unwrap();
        assert!(influence.text.starts_with("run 29 carries"), "{influence}");
    }

    #[test]
    fn a_coupled_fit_of_additive_data_says_that_one_exponent_would_do() {
        let found = findings(LawName::Coupled, &Dataset::new(&broad(5)).unwrap());
        assert!(names(&found).contains(&"outer-exponent"), "{found:?}");
    }
}
