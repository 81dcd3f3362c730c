//! IsoFLOP profiles of a group: the best size at each budget, and N_opt(C) and D_opt(C) through them.
//! The method itself is `scaling::isoflop`.

use std::collections::BTreeMap;

use api::{DroppedPoint, EstimateView, FitPoint, MethodFit};
use domain::spec::FitMethod;
use scaling::approach::Approach;
use scaling::fit::{self, FitOptions};
use scaling::isoflop::{self, IsoflopFit, IsoflopOptions};
use scaling::law::LawName;
use scaling::observation::Dataset;

use super::super::observe::{Group, Run};
use super::super::view;
use super::{Fitted, Predictor, Settings, law, unfitted};

/// Stable names, in the order of the formulas.
const NAMES: [&str; 4] =
    ["parameters_coefficient", "parameters_exponent", "tokens_coefficient", "tokens_exponent"];

/// The exponents of minima less what parabolas miss on the law's surface, where it is known.
const CORRECTED: [&str; 2] = ["parameters_exponent_corrected", "tokens_exponent_corrected"];

/// Why a held-out run is not predicted.
const NO_LOSS: &str = "isoFLOP profiles give N_opt(C) and D_opt(C), and no law of the loss";

fn formulas(settings: &Settings) -> Vec<String> {
    let unit = settings.unit_text();
    vec![
        format!("N_opt(C) = parameters_coefficient·(C / {unit})^parameters_exponent"),
        format!("D_opt(C) = tokens_coefficient·(C / {unit})^tokens_exponent"),
    ]
}

pub(super) fn fit(group: &Group, settings: &Settings) -> Fitted {
    match try_fit(group, settings) {
        Ok(fitted) => fitted,
        Err(reason) => unfitted(FitMethod::Isoflop, formulas(settings), &NAMES, &reason),
    }
}

fn try_fit(group: &Group, settings: &Settings) -> Result<Fitted, String> {
    if let Some(reason) = group.why_empty() {
        return Err(reason);
    }
    let budgets = budgets(group);
    if budgets.is_empty() {
        return Err("no run belongs to a budget: profiles need an `isoflop` design".to_owned());
    }
    let (ended, open): (Vec<&Run>, Vec<&Run>) =
        group.fitted().partition(|run| run.is_over && run.is_measured_to_the_end());
    let ends: Vec<_> = ended.iter().map(|run| run.end_on_budget()).collect();
    let mut dataset = group.clustered(&ends).map_err(|error| error.to_string())?;
    let mut weights = String::new();
    if let Some((noise, words)) = law::noise(&dataset, group, settings)? {
        // Before there is a parabola each run is taken at its own loss; a lucky one counts a little
        // more than it should.
        let residuals = vec![0.0; dataset.points().len()];
        dataset = dataset.weighted_by(&noise, &residuals);
        weights = format!(", each over the variance of ln L between seeds{words}");
    }
    let options = IsoflopOptions {
        level: settings.interval.level,
        unit_flops: settings.unit_flops(),
        ..IsoflopOptions::default()
    };
    let fit = isoflop::fit(&dataset, &budgets, &options);
    let corrected = corrected((group, settings), (&dataset, &budgets, &options));
    let bias = corrected.as_ref().and_then(|corrected| isoflop::bias(&fit, corrected));
    let n_used = fit.minima.iter().map(|minimum| minimum.n_points as u64).sum();
    let has_line = fit.minima.len() >= isoflop::MIN_BUDGETS;
    let view = MethodFit {
        method: FitMethod::Isoflop.label().to_owned(),
        formulas: formulas(settings),
        objective: format!(
            "sum of squared residuals of ln L from a parabola in ln N at each budget, then of ln N \
             and of ln D over ln C, weighted by their errors{weights}"
        ),
        coefficients: coefficients(&fit, corrected.as_ref()),
        n_observations: n_used,
        n_runs: n_used,
        // The residuals are those of ln N, and no loss is predicted.
        residual_rms_log: None,
        intervals: if has_line {
            let freedom = fit.minima.len() - 2;
            format!("Student's t of the regression over budgets, {freedom} degrees of freedom")
        } else {
            String::new()
        },
        curve: Vec::new(),
        points: points(&fit),
        dropped: dropped(group, &fit, &open),
        warnings: fit.warnings.iter().cloned().chain(bias.map(|found| found.to_string())).collect(),
    };
    let interval_note = has_line.then(|| {
        "isoflop: budgets share no run, so its intervals are Student's t of the line over budgets; \
         C is exact FLOPs, as the budgets are"
            .to_owned()
    });
    let approach = Approach {
        name: FitMethod::Isoflop.label().to_owned(),
        parameters_exponent: fit.parameters.exponent.clone(),
        tokens_exponent: fit.tokens.exponent.clone(),
        exponent_sum: Some(fit.exponent_sum.clone()),
    };
    let predictor = Predictor::Nothing(NO_LOSS.to_owned());
    Ok(Fitted { view, predictor, is_drawn: false, interval_note, approach: Some(approach) })
}

/// The profiles less what parabolas miss on the surface of the law that fits the same runs by the
/// study's objective; `None` where the law does not know alpha and beta and so cannot say.
fn corrected(
    (group, settings): (&Group, &Settings),
    (dataset, budgets, options): (&Dataset, &[f64], &IsoflopOptions),
) -> Option<IsoflopFit> {
    let surface_law = LawName::Chinchilla.law();
    let objective = law::objective(settings.objective);
    let fit_options = FitOptions { objective, ..FitOptions::default() };
    let surface = fit::fit(surface_law, &group.dataset().ok()?, &fit_options).ok()?;
    let known = &surface.identifiability;
    let mut exponents = surface.coefficients.iter().zip(&known.coefficients);
    let is_unknown =
        exponents.any(|(one, reason)| ["alpha", "beta"].contains(&one.name) && reason.is_some());
    if known.whole.is_some() || is_unknown {
        return None;
    }
    isoflop::fit_corrected(dataset, budgets, options, (surface_law, &surface.theta)).ok()
}

/// The budgets that fitted runs of the group belong to, the smallest first.
fn budgets(group: &Group) -> Vec<f64> {
    let mut budgets: Vec<f64> = group
        .fitted()
        .filter_map(|run| run.budget_flops)
        .filter(|budget| budget.is_finite() && *budget > 0.0)
        .collect();
    budgets.sort_by(f64::total_cmp);
    budgets.dedup();
    budgets
}

fn coefficients(
    fit: &IsoflopFit,
    corrected: Option<&IsoflopFit>,
) -> BTreeMap<String, EstimateView> {
    let estimates = [
        &fit.parameters.prefactor,
        &fit.parameters.exponent,
        &fit.tokens.prefactor,
        &fit.tokens.exponent,
    ];
    let corrected = corrected.into_iter().flat_map(|fit| {
        CORRECTED.into_iter().zip([&fit.parameters.exponent, &fit.tokens.exponent])
    });
    let all = NAMES.into_iter().zip(estimates).chain(corrected);
    all.map(|(name, estimate)| (name.to_owned(), view::estimate(estimate))).collect()
}

fn points(fit: &IsoflopFit) -> Vec<FitPoint> {
    let point = |one: &isoflop::ProfileMinimum| FitPoint {
        flops: one.flops,
        parameters: one.parameters,
        tokens: one.tokens,
        loss_nats: one.loss_nats,
    };
    fit.minima.iter().map(point).collect()
}

fn dropped(group: &Group, fit: &IsoflopFit, open: &[&Run]) -> Vec<DroppedPoint> {
    let open = open.iter().map(|run| DroppedPoint {
        what: format!("`{}`", run.name),
        reason: "the loss at the end of its budget is not measured yet".to_owned(),
    });
    let budgets = fit.dropped.iter().map(|one| DroppedPoint {
        what: format!("budget {:.3e} FLOPs", one.flops),
        reason: one.reason.clone(),
    });
    let outside = fit.excluded.iter().filter_map(|one| {
        let what = format!("`{}`", group.run(one.run)?.name);
        Some(DroppedPoint { what, reason: one.reason.clone() })
    });
    open.chain(budgets).chain(outside).collect()
}
