//! A parametric law of a group, with the compute-optimal allocation where one follows from it.
//! The law, its fit and its intervals are `scaling`'s.

use std::collections::BTreeMap;

use api::{EstimateView, LadderPrediction, MethodFit};
use domain::spec::{FitMethod, FitObjective, FitWeights};
use scaling::approach::Approach;
use scaling::diagnose::diagnose;
use scaling::fit::{self, Fit, FitOptions, weighted_by_noise};
use scaling::interval::{Estimate, Inference, Resampling, infer_with};
use scaling::ladder::{Ladder, MAX_KAPPA_SPREAD, Rung};
use scaling::law::{LawName, Variable};
use scaling::noise::SeedNoise;
use scaling::objective::Objective;
use scaling::observation::{Dataset, Observation};
use scaling::profile;

use super::super::observe::Group;
use super::super::view;
use super::{Fitted, Predictor, Settings, curve_range, unfitted};

/// What follows from a law with a compute-optimal point, beside its own coefficients.
const DERIVED: [&str; 2] = ["parameters_exponent", "tokens_exponent"];

const NO_OPTIMUM: &str =
    "the law has no compute-optimal point in closed form: ask for a model, by N and D";

/// A fitted law that can be asked.
#[derive(Debug)]
pub(in crate::fits) struct LawModel {
    pub(in crate::fits) inference: Inference,
    /// κ of C = κ N D.
    pub(in crate::fits) kappa: f64,
    /// Smallest and largest D / N of the fitted points; `None` for a law that does not look at both.
    pub(in crate::fits) ratio_range: Option<(f64, f64)>,
    /// What it was fitted to.
    pub(in crate::fits) dataset: Dataset,
    /// The fitted sizes with their own FLOPs for a token; `None` where they are no ladder.
    ladder: Option<Ladder>,
}

impl LawModel {
    /// Whether it looks at C alone.
    pub(in crate::fits) fn is_of_compute(&self) -> bool {
        self.inference.form.law().variables() == [Variable::Flops]
    }

    /// Whether it says how a budget is split best.
    pub(in crate::fits) fn has_optimum(&self) -> bool {
        has_optimum(self.inference.law)
    }

    /// How a budget is spent best along the fitted sizes.
    pub(in crate::fits) fn along_sizes(&self, flops: f64) -> Option<LadderPrediction> {
        let found = self.ladder.as_ref()?.estimate(&self.inference, flops)?;
        Some(LadderPrediction {
            parameters: view::estimate(&found.parameters),
            tokens: view::estimate(&found.tokens),
            loss_nats: view::estimate(&found.loss_nats),
            rung_parameters: found.rung_parameters,
            share_at_end: found.share_at_end,
        })
    }

    /// The loss at a budget: where it is split best, or by a law of C, which knows no split.
    pub(in crate::fits) fn loss_at(&self, flops: f64) -> Estimate {
        if self.is_of_compute() {
            return self.inference.predict(f64::NAN, f64::NAN, flops).curve;
        }
        match self.inference.optimum(flops, self.kappa) {
            Some(optimum) => optimum.loss_nats,
            None => Estimate::not_identified(NO_OPTIMUM),
        }
    }
}

fn has_optimum(law: LawName) -> bool {
    matches!(law, LawName::Chinchilla | LawName::Coupled)
}

/// The law of a method; the envelope and the profiles have none.
pub(super) fn law_of(method: FitMethod) -> Option<LawName> {
    Some(match method {
        FitMethod::Envelope | FitMethod::Isoflop => return None,
        FitMethod::Chinchilla => LawName::Chinchilla,
        FitMethod::Coupled => LawName::Coupled,
        FitMethod::Kaplan => LawName::Kaplan,
        FitMethod::Overtraining => LawName::Overtraining,
        FitMethod::Power => LawName::Power,
        FitMethod::PowerFloor => LawName::PowerFloor,
        FitMethod::BrokenPower => LawName::BrokenPower,
    })
}

pub(super) fn objective(objective: FitObjective) -> Objective {
    match objective {
        FitObjective::Huber => Objective::default(),
        FitObjective::Lad => Objective::AbsoluteDeviations,
        FitObjective::LogSquares => Objective::LogSquares,
        FitObjective::LossSquares => Objective::LossSquares,
    }
}

fn formulas(law: LawName) -> Vec<String> {
    let mut all = vec![law.law().formula().to_owned()];
    if has_optimum(law) {
        all.push(
            "N_opt(C) ∝ C^parameters_exponent with parameters_exponent = beta / (alpha + beta)"
                .to_owned(),
        );
        all.push(
            "D_opt(C) ∝ C^tokens_exponent with tokens_exponent = alpha / (alpha + beta)".to_owned(),
        );
    }
    all
}

/// Stable names of everything that a fit of the law gives.
fn names(law: LawName) -> Vec<&'static str> {
    let law_itself = law.law();
    // The names do not depend on the values.
    let theta = vec![0.1; law_itself.parameter_names().len()];
    let own = law_itself.coefficients(&theta).into_iter().map(|one| one.name);
    own.chain(DERIVED.into_iter().filter(|_| has_optimum(law))).collect()
}

pub(super) fn fit(method: FitMethod, law: LawName, group: &Group, settings: &Settings) -> Fitted {
    match try_fit(method, law, group, settings) {
        Ok(fitted) => fitted,
        Err(reason) => unfitted(method, formulas(law), &names(law), &reason),
    }
}

fn try_fit(
    method: FitMethod,
    law: LawName,
    group: &Group,
    settings: &Settings,
) -> Result<Fitted, String> {
    if let Some(reason) = group.why_empty() {
        return Err(reason);
    }
    let dataset = group.dataset().map_err(|error| error.to_string())?;
    let options = FitOptions { objective: objective(settings.objective), ..FitOptions::default() };
    let (dataset, noise) = weighted(dataset, law, group, (settings, &options))?;
    let fit = fit::fit(law.law(), &dataset, &options).map_err(|error| error.to_string())?;
    let resampling = Resampling { has_influence: true, ..Resampling::default() };
    let inference = infer_with(&fit, &dataset, &options, &settings.interval, &resampling)
        .map_err(|error| error.to_string())?;
    let kappa = Kappa::of(dataset.points());
    let mut warnings = warnings(group, (&fit, &inference), &dataset, &options)?;
    warnings.extend(kappa.warning().filter(|_| has_optimum(law)));
    let range = curve_range(group, inference.ranges.flops);
    // Where the law is not identified as a whole, no number has an interval.
    let scheme = inference.whole.is_none().then_some(&inference.resampled.scheme);
    let (is_drawn, interval_note) =
        (scheme.is_some_and(view::is_drawn), scheme.and_then(view::explain));
    let intervals = scheme.map(ToString::to_string).unwrap_or_default();
    let ladder = Ladder::new(&rungs(dataset.points())).ok();
    let ratio_range = ratio_range(law, &dataset);
    let model = LawModel { inference, kappa: kappa.mean, ratio_range, dataset, ladder };
    let view = MethodFit {
        method: method.label().to_owned(),
        formulas: formulas(law),
        objective: format!("{}{noise}", fit.objective_name()),
        coefficients: coefficients(&model),
        n_observations: fit.n_points as u64,
        n_runs: fit.n_runs as u64,
        residual_rms_log: view::finite(fit.residual_rms_log),
        intervals,
        curve: view::curve(range, |flops| model.loss_at(flops)),
        points: Vec::new(),
        dropped: Vec::new(),
        warnings,
    };
    let approach = approach(&model);
    let predictor = Predictor::Law(Box::new(model));
    Ok(Fitted { view, predictor, is_drawn, interval_note, approach })
}

/// The points with their weights, and the noise that these come from, in words.
fn weighted(
    dataset: Dataset,
    law: LawName,
    group: &Group,
    (settings, options): (&Settings, &FitOptions),
) -> Result<(Dataset, String), String> {
    if settings.objective == FitObjective::LossSquares && settings.weights != FitWeights::Equal {
        let why = "the noise of seeds is that of ln L, and `loss-squares` has residuals of L";
        return Err(why.to_owned());
    }
    let Some((noise, words)) = noise(&dataset, group, settings)? else {
        return Ok((dataset, String::new()));
    };
    let weighted = weighted_by_noise(law.law(), dataset, &noise, options);
    Ok((weighted.map_err(|error| error.to_string())?, words))
}

/// The noise of seeds that weights come from, and the same in words; `None` for equal weights.
pub(super) fn noise(
    dataset: &Dataset,
    group: &Group,
    settings: &Settings,
) -> Result<Option<(SeedNoise, String)>, String> {
    if settings.weights == FitWeights::Equal {
        return Ok(None);
    }
    // Runs of one N and D that differ in more than their seed would be taken for luck.
    if !group.mixed.is_empty() {
        let mixed = group.mixed.join("; ");
        return Err(format!(
            "weights `seed_noise` need runs that differ in their seed alone at one N and D: {mixed}"
        ));
    }
    let noise = SeedNoise::of(dataset).map_err(|error| error.to_string())?;
    let growth = if noise.power == 0.0 {
        String::new()
    } else {
        format!(" at L = {:.3}, growing as L^{:.2}", noise.at_loss_nats, noise.power)
    };
    let words = format!(
        "; seeds vary by {:.5} in ln L{growth} ({} places, {} degrees of freedom)",
        noise.sd_log, noise.n_places, noise.n_freedom
    );
    Ok(Some((noise, words)))
}

fn warnings(
    group: &Group,
    (fit, inference): (&Fit, &Inference),
    dataset: &Dataset,
    options: &FitOptions,
) -> Result<Vec<String>, String> {
    let profile = profile::floor(fit, dataset, options, inference.resampled.level)
        .map_err(|error| error.to_string())?;
    let name_of_run = |key| match group.run(key) {
        Some(run) => format!("`{}`", run.name),
        None => "a run".to_owned(),
    };
    let found = diagnose(fit, inference, dataset, profile.as_ref(), &name_of_run);
    Ok(found.iter().map(ToString::to_string).collect())
}

fn coefficients(model: &LawModel) -> BTreeMap<String, EstimateView> {
    let own = model
        .inference
        .coefficients
        .iter()
        .map(|one| (one.name.to_owned(), view::estimate(&one.estimate)));
    let derived = approach(model).into_iter().flat_map(|approach| {
        let estimates = [approach.parameters_exponent, approach.tokens_exponent];
        DERIVED.into_iter().zip(estimates)
    });
    own.chain(derived.map(|(name, one)| (name.to_owned(), view::estimate(&one)))).collect()
}

/// a and b of N_opt ∝ C^a and D_opt ∝ C^b; `None` for laws without a compute-optimal point.
fn approach(model: &LawModel) -> Option<Approach> {
    let inference = &model.inference;
    let optimum = inference.optimum(inference.ranges.flops.1, model.kappa)?;
    let parameters_exponent = optimum.parameters_exponent;
    Some(Approach {
        name: inference.law.to_string(),
        tokens_exponent: view::minus(1.0, &parameters_exponent),
        parameters_exponent,
        exponent_sum: None,
    })
}

/// Where the points of a law of N and D lie in D / N, which may be far off with both inside.
fn ratio_range(law: LawName, dataset: &Dataset) -> Option<(f64, f64)> {
    let variables = law.law().variables();
    let is_joint =
        [Variable::Parameters, Variable::Tokens].iter().all(|one| variables.contains(one));
    dataset.range(|point| point.tokens / point.parameters).filter(|_| is_joint)
}

fn rungs(points: &[Observation]) -> Vec<Rung> {
    let rung = |point: &Observation| Rung {
        parameters: point.parameters,
        flops_per_token: point.flops / point.tokens,
    };
    points.iter().map(rung).collect()
}

/// κ of C = κ·N·D over the fitted points: exact FLOPs count attention and head, which do not grow
/// like N.
struct Kappa {
    /// Its geometric mean.
    mean: f64,
    low: f64,
    high: f64,
}

impl Kappa {
    fn of(points: &[Observation]) -> Self {
        let of = |point: &Observation| point.flops / (point.parameters * point.tokens);
        let ln_sum: f64 = points.iter().map(|point| of(point).ln()).sum();
        Self {
            mean: (ln_sum / points.len().max(1) as f64).exp(),
            low: points.iter().map(of).fold(f64::INFINITY, f64::min),
            high: points.iter().map(of).fold(0.0, f64::max),
        }
    }

    fn warning(&self) -> Option<String> {
        (self.high > MAX_KAPPA_SPREAD * self.low).then(|| {
            format!(
                "kappa-varies: C/(N·D) runs from {:.3} to {:.3} over the sizes; the \
                 compute-optimal line takes {:.3}",
                self.low, self.high, self.mean
            )
        })
    }
}
