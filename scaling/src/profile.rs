//! Owns the profile of a floor: the best objective for each value of E, and the values that the
//! data do not refuse. Does not replace the bootstrap; it shows whether a floor has a lower or an
//! upper end at all.

use statrs::distribution::{ChiSquared, ContinuousCDF};

use crate::fit::{Fit, FitError, FitOptions, Problem};
use crate::law::{LawForm, Pinned};
use crate::objective::Objective;
use crate::observation::Dataset;

/// Values tried on each side of the optimum.
const STEPS: usize = 24;
/// A floor cannot exceed the smallest loss by more than the noise; this share of it is where the
/// profile ends.
const HIGHEST_SHARE: f64 = 0.999;
/// The lowest floor tried, as a share of the smallest loss.
const LOWEST_SHARE: f64 = 0.01;

/// The objective along a floor, minimised over everything else.
#[derive(Debug, Clone, PartialEq)]
pub struct FloorProfile {
    /// The floor's name in the formula.
    pub name: &'static str,
    /// (E in nats, twice the fall of the log-likelihood from the optimum), from the smallest E on.
    pub points: Vec<(f64, f64)>,
    /// Lower end of the likelihood-ratio interval, nats; `None` where no floor down to a hundredth
    /// of the smallest loss is refused.
    pub low: Option<f64>,
    /// Upper end; `None` where no floor up to the smallest loss is refused.
    pub high: Option<f64>,
    /// Nats of E within one unit of twice the log-likelihood: above 0.2 the floor is hardly seen.
    pub flat_nats: f64,
}

/// Profiles the floor of `fit`, for laws that have one; `None` for others and for pinned laws.
///
/// The log-likelihood is that of Laplace (2 n ln S) for absolute deviations and Huber losses, whose
/// threshold lies far below the residuals, and that of Gauss (n ln S) for squares, with S the
/// objective and n the number of **runs**, since points of a run share its luck. A sum of squares
/// and of absolute values need no scale this way.
///
/// # Errors
/// As `fit::fit` for the same inputs.
pub fn floor(
    fit: &Fit,
    dataset: &Dataset,
    options: &FitOptions,
    level: f64,
) -> Result<Option<FloorProfile>, FitError> {
    let LawForm::Free(choice) = fit.form else { return Ok(None) };
    let names = choice.law().parameter_names();
    let Some((index, name)) = floor_of(fit, names) else { return Ok(None) };
    let smallest = dataset.range(|point| point.loss_nats).map_or(f64::NAN, |range| range.0);
    let optimum = fit.theta[index].exp();
    let scale = match options.objective {
        Objective::Huber { .. } | Objective::AbsoluteDeviations => 2.0,
        Objective::LogSquares | Objective::LossSquares => 1.0,
    } * fit.n_runs as f64;
    let fall = |objective: f64| scale * (objective / fit.objective.max(1e-300)).ln().max(0.0);
    let mut points = vec![(optimum, 0.0)];
    for end in [LOWEST_SHARE * smallest, HIGHEST_SHARE * smallest] {
        let mut start: Vec<f64> = without(&fit.theta, index);
        for step in 1..=STEPS {
            let value = optimum + (end - optimum) * step as f64 / STEPS as f64;
            if (end - optimum).abs() < 1e-12 {
                break;
            }
            let Ok(law) = Pinned::new(choice, &[(names[index], value.ln())]) else { break };
            let problem = Problem::new(&law, dataset, options.objective)?;
            let minimum = problem.descend(&start);
            if !minimum.value.is_finite() {
                break;
            }
            points.push((value, fall(problem.plain(&minimum.theta))));
            start = minimum.theta;
        }
    }
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let limit = ChiSquared::new(1.0).map_or(f64::INFINITY, |law| law.inverse_cdf(level));
    let at = points.iter().position(|point| point.1 == 0.0).unwrap_or(0);
    let low = crossing(points[..=at].iter().rev(), limit);
    let high = crossing(points[at..].iter(), limit);
    let flat = |ends: (Option<f64>, Option<f64>)| {
        let (first, last) = (points[0].0, points[points.len() - 1].0);
        ends.1.unwrap_or(last) - ends.0.unwrap_or(first)
    };
    let flat_nats =
        flat((crossing(points[..=at].iter().rev(), 1.0), crossing(points[at..].iter(), 1.0)));
    Ok(Some(FloorProfile { name, points, low, high, flat_nats }))
}

/// Position of the parameter that is the log of the floor, and the floor's name.
fn floor_of(fit: &Fit, names: &[&'static str]) -> Option<(usize, &'static str)> {
    let floor = fit.coefficients.iter().find(|one| one.quantity == crate::law::Quantity::Floor)?;
    let ln_floor = floor.value.ln();
    let is_it = |index: &usize| names[*index].starts_with("ln_") && fit.theta[*index] == ln_floor;
    let exact = (0..names.len()).find(is_it);
    // exp and ln do not always undo each other to the last bit.
    let near = || (0..names.len()).find(|index| (fit.theta[*index] - ln_floor).abs() < 1e-12);
    exact.or_else(near).map(|index| (index, floor.name))
}

fn without(theta: &[f64], index: usize) -> Vec<f64> {
    [&theta[..index], &theta[index + 1..]].concat()
}

/// Where the profile, followed outward, first exceeds `limit`; linear between its points.
fn crossing<'a>(points: impl Iterator<Item = &'a (f64, f64)>, limit: f64) -> Option<f64> {
    let mut before: Option<(f64, f64)> = None;
    for (value, fall) in points {
        if *fall > limit {
            let (last, at) = before?;
            return Some(last + (value - last) * (limit - at) / (fall - at));
        }
        before = Some((*value, *fall));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::fit;
    use crate::law::LawName;
    use crate::planted::Study;

    #[test]
    fn a_visible_floor_has_two_ends_around_it_and_an_invisible_one_has_no_lower_end() {
        let options = FitOptions::default();
        let study = Study { run_sd: 0.002, point_sd: 0.001, seed: 2, ..Study::ladder(14) };
        let data = study.dataset();
        let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
        let profile = floor(&fitted, &data, &options, 0.95).unwrap().unwrap();
        let (low, high) = (profile.low.unwrap(), profile.high.unwrap());
        assert!(low < 1.5 && 1.5 < high && high - low < 0.2, "{low} {high}");
        assert!(profile.points.windows(2).all(|pair| pair[0].0 < pair[1].0));
        // Few tokens on small models: all losses are far above the floor.
        let tokens = study.tokens[..3].to_vec();
        let blind = Study { sizes: study.sizes[..5].to_vec(), tokens, run_sd: 0.02, ..study };
        let data = blind.dataset();
        let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
        let profile = floor(&fitted, &data, &options, 0.95).unwrap().unwrap();
        assert_eq!(profile.low, None, "{profile:?}");
        assert!(profile.flat_nats > 0.2, "{}", profile.flat_nats);
    }

    #[test]
    fn a_law_without_a_floor_has_no_profile() {
        let data = Study::ladder(6).dataset();
        let options = FitOptions::default();
        let fitted = fit(LawName::Power.law(), &data, &options).unwrap();
        assert_eq!(floor(&fitted, &data, &options, 0.95).unwrap(), None);
    }
}
