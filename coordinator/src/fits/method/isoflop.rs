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
use super::{Fitted, Predictor, Settings, unfitted};

/// Stable names, in the order of the formulas.
const NAMES: [&str; 4] =
    ["parameters_coefficient", "parameters_exponent", "tokens_coefficient", "tokens_exponent"];

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
    let dataset = group.clustered(&ends).map_err(|error| error.to_string())?;
    let options = IsoflopOptions {
        level: settings.interval.level,
        unit_flops: settings.unit_flops(),
        ..IsoflopOptions::default()
    };
    let fit = isoflop::fit(&dataset, &budgets, &options);
    let bias = bias(group, &fit, (&dataset, &budgets, &options));
    let n_used = fit.minima.iter().map(|minimum| minimum.n_points as u64).sum();
    let has_line = fit.minima.len() >= isoflop::MIN_BUDGETS;
    let view = MethodFit {
        method: FitMethod::Isoflop.label().to_owned(),
        formulas: formulas(settings),
        objective:
            "sum of squared residuals of ln L from a parabola in ln N at each budget, then of ln N \
                    and of ln D over ln C"
                .to_owned(),
        coefficients: coefficients(&fit),
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
        warnings: fit.warnings.iter().cloned().chain(bias).collect(),
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

/// How far the parabolas miss, by the law that fits the same runs; `None` where it misses by
/// little, or where the law does not know alpha and beta and so cannot say.
fn bias(
    group: &Group,
    fit: &IsoflopFit,
    (dataset, budgets, options): (&Dataset, &[f64], &IsoflopOptions),
) -> Option<String> {
    let law = LawName::Chinchilla.law();
    let surface = fit::fit(law, &group.dataset().ok()?, &FitOptions::default()).ok()?;
    let known = &surface.identifiability;
    let mut exponents = surface.coefficients.iter().zip(&known.coefficients);
    let is_unknown =
        exponents.any(|(one, reason)| ["alpha", "beta"].contains(&one.name) && reason.is_some());
    if known.whole.is_some() || is_unknown {
        return None;
    }
    let corrected =
        isoflop::fit_corrected(dataset, budgets, options, (law, &surface.theta)).ok()?;
    isoflop::bias(fit, &corrected).map(|found| found.to_string())
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

fn coefficients(fit: &IsoflopFit) -> BTreeMap<String, EstimateView> {
    let estimates = [
        &fit.parameters.prefactor,
        &fit.parameters.exponent,
        &fit.tokens.prefactor,
        &fit.tokens.exponent,
    ];
    NAMES.into_iter().map(str::to_owned).zip(estimates.map(view::estimate)).collect()
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
