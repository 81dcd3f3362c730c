//! The envelope and the isoFLOP profiles of a file beside its law: three approaches to N_opt and
//! D_opt.
//!
//! The approaches themselves are `scaling::envelope` and `scaling::isoflop`.

use std::collections::BTreeMap;

use scaling::approach::{Approach, findings};
use scaling::envelope::{self, DroppedBudget, EnvelopeOptions};
use scaling::interval::{Estimate, Inference, IntervalOptions};
use scaling::isoflop::{self, IsoflopFit, IsoflopOptions};
use scaling::law::LawName;
use scaling::observation::{Dataset, RunKey, Weighting};

use super::profiles;
use crate::fit_document::estimate_view;
use crate::output::approach::ApproachView;

/// With more points than these the law stands alone: an envelope interpolates all of them in every
/// draw.
const MOST_POINTS: usize = 20_000;
/// Runs of several points that make an envelope.
const LEAST_CURVES: usize = 2;
/// The name of the profiles less what parabolas miss on the law's own surface.
const CORRECTED: &str = "corrected";

/// Where an approach that is no law is to be seen; `None` for other names.
pub(super) fn beside_a_law(name: &str) -> Option<String> {
    let rows = match name {
        "envelope" => "whose `--run` column has runs of several rows".to_owned(),
        "isoflop" => format!(
            "whose rows lie on {} budgets and more of at least {} sizes each",
            isoflop::MIN_BUDGETS,
            profiles::LEAST_SIZES
        ),
        _ => return None,
    };
    Some(format!(
        "`{name}` is no law, but another approach to the best N and D of a budget: it stands \
         beside the fit of `--law chinchilla` or `coupled` to a file {rows}; `gradus fit STUDY \
         --law {name}` makes it of a study"
    ))
}

/// The approaches side by side, the law's last, with what is to be warned of.
pub(super) fn of(
    dataset: &Dataset,
    (inference, objective): (&Inference, &str),
    interval: &IntervalOptions,
) -> (Vec<ApproachView>, Vec<String>) {
    let is_joint = matches!(inference.law, LawName::Chinchilla | LawName::Coupled)
        && dataset.points().len() <= MOST_POINTS;
    let Some(law) = of_law(inference).filter(|_| is_joint) else {
        return (Vec::new(), Vec::new());
    };
    let mut all = Vec::new();
    let mut warnings = Vec::new();
    all.extend(of_envelope(dataset, interval));
    if let Some((profiles, found)) = of_profiles(dataset, inference, interval) {
        all.extend(profiles);
        warnings.extend(found);
    }
    let objective = objective.to_owned();
    all.push(Made { approach: law, objective, n_budgets: None, dropped: Vec::new() });
    // The profiles as they are stand for approach 2: corrected ones lean on the law beside them.
    let bare: Vec<Approach> = all
        .iter()
        .map(|one| one.approach.clone())
        .filter(|approach| approach.name != CORRECTED)
        .collect();
    warnings.extend(findings(&bare).iter().map(ToString::to_string));
    (all.into_iter().map(view).collect(), warnings)
}

/// An approach with what it minimises, the number of its budgets, and those that it left out.
struct Made {
    approach: Approach,
    objective: String,
    n_budgets: Option<u64>,
    dropped: Vec<DroppedBudget>,
}

fn view(Made { approach, objective, n_budgets, dropped }: Made) -> ApproachView {
    let text = |one: &DroppedBudget| format!("{:.3e} FLOPs: {}", one.flops, one.reason);
    ApproachView {
        name: approach.name,
        objective,
        parameters_exponent: estimate_view(&approach.parameters_exponent),
        tokens_exponent: estimate_view(&approach.tokens_exponent),
        exponent_sum: approach.exponent_sum.as_ref().map(estimate_view),
        n_budgets,
        dropped: dropped.iter().map(text).collect(),
    }
}

/// a and b of the law, whose sum is 1 because its C is κ N D; `None` for laws without an optimum.
pub(super) fn of_law(inference: &Inference) -> Option<Approach> {
    // The exponents need no κ.
    let optimum = inference.optimum(inference.ranges.flops.1, 6.0)?;
    let parameters_exponent = optimum.parameters_exponent;
    let tokens_exponent = match &parameters_exponent {
        Estimate::Identified { value, low, high } => {
            Estimate::Identified { value: 1.0 - value, low: 1.0 - high, high: 1.0 - low }
        }
        other @ Estimate::NotIdentified { .. } => other.clone(),
    };
    let name = inference.law.to_string();
    Some(Approach { name, parameters_exponent, tokens_exponent, exponent_sum: None })
}

/// Approach 1, where runs have several points.
fn of_envelope(dataset: &Dataset, interval: &IntervalOptions) -> Option<Made> {
    let mut n_points: BTreeMap<RunKey, usize> = BTreeMap::new();
    for point in dataset.points() {
        *n_points.entry(point.run).or_default() += 1;
    }
    let n_curves = n_points.values().filter(|n| **n > 1).count();
    if n_curves < LEAST_CURVES {
        return None;
    }
    let options = EnvelopeOptions { interval: *interval, ..EnvelopeOptions::default() };
    let name = "envelope".to_owned();
    let objective =
        "sum of squared residuals of ln N, of ln D and of ln L over ln C, of the least \
                     losses at budgets"
            .to_owned();
    Some(match envelope::fit(dataset, &options) {
        Ok(fitted) => {
            let approach = Approach {
                name,
                exponent_sum: Some(fitted.exponent_sum()),
                parameters_exponent: fitted.parameters.exponent,
                tokens_exponent: fitted.tokens.exponent,
            };
            let n_budgets = Some(fitted.frontier.len() as u64);
            Made { approach, objective, n_budgets, dropped: fitted.dropped }
        }
        Err(error) => {
            let none = || Estimate::not_identified(error.to_string());
            let (parameters_exponent, tokens_exponent) = (none(), none());
            let exponent_sum = Some(none());
            let approach = Approach { name, parameters_exponent, tokens_exponent, exponent_sum };
            Made { approach, objective, n_budgets: Some(0), dropped: Vec::new() }
        }
    })
}

/// Approach 2, where the ends of runs lie on budgets, as it is and corrected by the law's surface;
/// also what it warns of.
fn of_profiles(
    dataset: &Dataset,
    inference: &Inference,
    interval: &IntervalOptions,
) -> Option<(Vec<Made>, Vec<String>)> {
    let dataset = dataset.ends();
    let budgets: Vec<f64> =
        profiles::budgets(dataset.points()).iter().map(|one| profiles::mean(one)).collect();
    if budgets.len() < isoflop::MIN_BUDGETS {
        return None;
    }
    let options = IsoflopOptions { level: interval.level, ..IsoflopOptions::default() };
    let fitted = isoflop::fit(&dataset, &budgets, &options);
    // Rows that happen to cost the same are no profiles.
    if fitted.minima.is_empty() {
        return None;
    }
    let mut warnings = fitted.warnings.clone();
    // Where the law does not know alpha and beta, it does not know how parabolas miss either.
    let corrected = inference.why_no_optimum().is_none().then(|| {
        let surface = (inference.form.law(), inference.resampled.theta.as_slice());
        isoflop::fit_corrected(&dataset, &budgets, &options, surface).ok()
    });
    let corrected = corrected.flatten();
    let bias = corrected.as_ref().and_then(|corrected| isoflop::bias(&fitted, corrected));
    warnings.extend(bias.map(|one| one.to_string()));
    let weights = match dataset.weighting() {
        Weighting::Equal => "",
        Weighting::Given | Weighting::SeedNoise => ", weighted as the law's,",
    };
    let made = |name: &str, fit: IsoflopFit| Made {
        approach: Approach {
            name: name.to_owned(),
            parameters_exponent: fit.parameters.exponent,
            tokens_exponent: fit.tokens.exponent,
            exponent_sum: Some(fit.exponent_sum),
        },
        objective: format!(
            "sum of squared residuals of ln L from a parabola in ln N at each budget{weights} then of \
             ln N and of ln D over ln C, weighted by their errors"
        ),
        n_budgets: Some(fit.minima.len() as u64),
        dropped: fit.dropped,
    };
    let plain = made("isoflop", fitted);
    let corrected = corrected.map(|fit| made(CORRECTED, fit));
    Some((std::iter::once(plain).chain(corrected).collect(), warnings))
}
