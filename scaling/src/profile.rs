//! Owns the profile of a floor: the best objective for each value of E, and the values that the
//! data do not refuse. Does not replace the bootstrap; it shows whether a floor has a lower or an
//! upper end at all.

use statrs::distribution::{ChiSquared, ContinuousCDF};

use crate::fit::{Fit, FitError, FitOptions, Problem};
use crate::law::{LawChoice, LawForm, Pinned};
use crate::objective::Objective;
use crate::observation::Dataset;

/// Values tried on each side of the optimum, until one is refused.
const STEPS: usize = 24;
/// More values tried where the fall passes a limit, until it is met within this share of the limit.
const REFINEMENTS: usize = 12;
const NEAR: f64 = 0.01;
/// A fall of twice the log-likelihood that hardly tells two floors apart.
const FLAT: f64 = 1.0;
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
    let limit = ChiSquared::new(1.0).map_or(f64::INFINITY, |law| law.inverse_cdf(level));
    let free = Problem::new(choice.law(), dataset, options.objective)?;
    let walk = Walk { free: &free, choice, name: names[index], fall: &fall };
    let mut points = vec![(optimum, 0.0)];
    let mut ends = [None, None];
    let mut flat_ends = [LOWEST_SHARE * smallest, HIGHEST_SHARE * smallest];
    for (side, end) in flat_ends.into_iter().enumerate() {
        let mut side_points =
            walk.outward(&without(&fit.theta, index), optimum, end, limit.max(1.0));
        ends[side] = walk.crossing(optimum, &mut side_points, limit);
        flat_ends[side] = walk.crossing(optimum, &mut side_points, FLAT).unwrap_or(end);
        points.extend(side_points.iter().map(|one| (one.value, one.fall)));
    }
    points.sort_by(|a, b| a.0.total_cmp(&b.0));
    let flat_nats = flat_ends[1] - flat_ends[0];
    Ok(Some(FloorProfile { name, points, low: ends[0], high: ends[1], flat_nats }))
}

/// A point of a profile, with the other parameters at their best there.
#[derive(Debug, Clone)]
struct Place {
    value: f64,
    fall: f64,
    others: Vec<f64>,
}

/// Fits with the floor held.
struct Walk<'a> {
    free: &'a Problem<'a>,
    choice: LawChoice,
    /// The parameter that is the log of the floor.
    name: &'static str,
    fall: &'a dyn Fn(f64) -> f64,
}

impl Walk<'_> {
    /// The best of everything else where the floor is `value`.
    fn at(&self, value: f64, start: &[f64]) -> Option<Place> {
        let law = Pinned::new(self.choice, &[(self.name, value.ln())]).ok()?;
        let problem = self.free.of_law(&law);
        let minimum = problem.descend(start);
        let is_number = minimum.value.is_finite();
        is_number.then(|| {
            let fall = (self.fall)(problem.plain(&minimum.theta));
            Place { value, fall, others: minimum.theta }
        })
    }

    /// Steps from the optimum to `end`, until one falls by more than `limit`.
    fn outward(&self, start: &[f64], optimum: f64, end: f64, limit: f64) -> Vec<Place> {
        let mut places: Vec<Place> = Vec::new();
        if (end - optimum).abs() < 1e-12 {
            return places;
        }
        for step in 1..=STEPS {
            let value = optimum + (end - optimum) * step as f64 / STEPS as f64;
            let others = places.last().map_or(start, |last| &last.others);
            let Some(place) = self.at(value, others) else { break };
            places.push(place);
            if places.last().is_some_and(|last| last.fall > limit) {
                break;
            }
        }
        places
    }

    /// Where the profile, followed outward, first falls by `limit`; the places on the way are
    /// added.
    ///
    /// Near its optimum a fall grows as the square of the distance, so that its root is what is
    /// interpolated: in the fall itself an end would lie far inside where the first step goes far.
    fn crossing(&self, optimum: f64, places: &mut Vec<Place>, limit: f64) -> Option<f64> {
        for _ in 0..REFINEMENTS {
            let (at, low, high) = bracket(optimum, places, limit)?;
            if (high.1 - limit).abs() <= NEAR * limit {
                return Some(high.0);
            }
            let start = places[at].others.clone();
            let Some(place) = self.at(between(low, high, limit), &start) else { break };
            places.insert(at, place);
        }
        let (_, low, high) = bracket(optimum, places, limit)?;
        Some(between(low, high, limit))
    }
}

/// A position among places, with the (floor, fall) before it and its own.
type Bracket = (usize, (f64, f64), (f64, f64));

/// The first place beyond `limit`, with the (floor, fall) before it and its own.
fn bracket(optimum: f64, places: &[Place], limit: f64) -> Option<Bracket> {
    let at = places.iter().position(|place| place.fall >= limit)?;
    let before = at.checked_sub(1).map_or((optimum, 0.0), |at| (places[at].value, places[at].fall));
    Some((at, before, (places[at].value, places[at].fall)))
}

/// Where a fall whose root is a line between two places is `limit`, or a little beyond.
fn between(low: (f64, f64), high: (f64, f64), limit: f64) -> f64 {
    let (from, to, target) = (low.1.sqrt(), high.1.sqrt(), (limit * (1.0 + 0.5 * NEAR)).sqrt());
    low.0 + (high.0 - low.0) * ((target - from) / (to - from)).min(1.0)
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

    /// Aim: an end lies where the likelihood falls by as much as it says, also where the data are
    /// so many that the first step of the profile goes far beyond. Method: the floor held at each
    /// end, everything else fitted anew.
    #[test]
    fn the_ends_lie_where_the_likelihood_falls_by_the_limit() {
        let study = Study { point_sd: 0.002, seed: 4, ..Study::ladder(8) };
        let mut points = study.observations();
        let n = u32::try_from(points.len()).unwrap();
        for seed in 1..6 {
            points.extend(Study { seed, ..study.clone() }.observations());
        }
        let own = |(run, point): (u32, &crate::observation::Observation)| {
            crate::observation::Observation { run: crate::observation::RunKey(run), ..*point }
        };
        let points: Vec<_> = (0..).zip(&points).map(own).collect();
        assert_eq!(points.len(), 6 * n as usize);
        let data = Dataset::new(&points).unwrap();
        for objective in [Objective::default(), Objective::LogSquares] {
            let options = FitOptions { objective, ..FitOptions::default() };
            let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
            let profile = floor(&fitted, &data, &options, 0.95).unwrap().unwrap();
            let scale = if objective == Objective::LogSquares { 1.0 } else { 2.0 };
            for end in [profile.low.unwrap(), profile.high.unwrap()] {
                let choice = LawChoice::of(LawName::Chinchilla);
                let held = Pinned::new(choice, &[("ln_e", end.ln())]).unwrap();
                let refitted = fit(&held, &data, &options).unwrap();
                let ratio = refitted.objective / fitted.objective;
                let fall = scale * points.len() as f64 * ratio.ln();
                // 3.84 is the 95 % quantile of χ² with one degree of freedom.
                assert!((fall / 3.841_459 - 1.0).abs() < 0.03, "{objective}: {end} falls {fall}");
            }
            let width = profile.high.unwrap() - profile.low.unwrap();
            assert!(profile.flat_nats < 0.6 * width, "{profile:?}");
        }
    }

    #[test]
    fn a_law_without_a_floor_has_no_profile() {
        let data = Study::ladder(6).dataset();
        let options = FitOptions::default();
        let fitted = fit(LawName::Power.law(), &data, &options).unwrap();
        assert_eq!(floor(&fitted, &data, &options, 0.95).unwrap(), None);
    }
}
