//! Owns the profile of a floor: the best objective for each value of E, and the values that the
//! data do not refuse. Does not replace the bootstrap; it shows whether a floor has a lower or an
//! upper end at all.

use crate::fit::{Fit, FitError, FitOptions, Problem};
use crate::interval::student;
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
/// A floor exceeds the smallest loss by no more than the noise; this share of it is where the
/// profile ends, or this multiple of the optimum where that is more: a robust fit may put its floor
/// above a low outlier.
const HIGHEST_SHARE: f64 = 0.999;
const ABOVE_OPTIMUM: f64 = 1.2;
/// The standard deviation of a normal distribution over the median of its sizes.
const NORMAL_OF_MEDIAN: f64 = 1.4826;
/// Residuals of rounding have no density.
const LEAST_WIDTH: f64 = 1e-12;
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
    /// Upper end; `None` where no floor up to the smallest loss, or 1.2 times the optimum, is
    /// refused.
    pub high: Option<f64>,
    /// Nats of E within one unit of twice the log-likelihood: above 0.2 the floor is hardly seen.
    pub flat_nats: f64,
}

/// Profiles the floor of `fit`, for laws that have one; `None` for others and for pinned laws.
///
/// For squares the fall is (n − p) (S / S0 − 1) with S the objective and p its parameters: the square
/// of Student's t with n − p degrees of freedom, of which the ends are those quantiles. A Huber loss
/// or an absolute value is the likelihood of no noise that residuals have, so that its fall is scaled
/// by what the residuals are. n is the number of **runs**, or of trunks where runs share one, since
/// points of a run share its luck; there is no profile where they are no more than the parameters.
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
    let n_units = dataset.n_clusters().unwrap_or(fit.n_runs) as f64;
    let freedom = n_units - fit.theta.len() as f64;
    if freedom < 1.0 || fit.identifiability.whole.is_some() {
        return Ok(None);
    }
    let robust = Robust::of(fit, dataset, n_units);
    let fall = |objective: f64| {
        let fall = match &robust {
            Some(robust) => robust.scale * (objective - fit.objective),
            None => freedom * (objective / fit.objective.max(1e-300) - 1.0),
        };
        fall.max(0.0)
    };
    let limit = student(level, freedom).powi(2);
    let free = Problem::new(choice.law(), dataset, options.objective)?;
    let walk = Walk { free: &free, choice, name: names[index], fall: &fall };
    let mut points = vec![(optimum, 0.0)];
    let mut ends = [None, None];
    let highest = (HIGHEST_SHARE * smallest).max(ABOVE_OPTIMUM * optimum);
    // A floor below the lowest that is tried has no lower side.
    let mut flat_ends = [(LOWEST_SHARE * smallest).min(optimum), highest];
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

/// What twice the fall of a robust objective is multiplied by, so that it is distributed as χ².
///
/// With ψ the derivative of the loss of a residual r, it is mean(ψ') / mean(ψ²) at the optimum
/// (Schrader and Hettmansperger 1980; Heritier and Ronchetti 1994), each ψ times its weight.
struct Robust {
    scale: f64,
}

impl Robust {
    /// `None` for sums of squares.
    ///
    /// Where a threshold lies below the residuals, or is none at all, ψ' is their density at zero:
    /// counted within a width that falls with the fifth root of their number, since few are within
    /// the threshold, and less those that a fit of so many parameters passes through.
    fn of(fit: &Fit, dataset: &Dataset, n_units: f64) -> Option<Self> {
        let threshold = match fit.objective_kind {
            Objective::Huber { delta } => delta,
            Objective::AbsoluteDeviations => 0.0,
            Objective::LogSquares | Objective::LossSquares => return None,
        };
        let residuals = &fit.residuals_log;
        let (n, n_free) = (residuals.len() as f64, fit.theta.len() as f64);
        let mut sizes: Vec<f64> = residuals.iter().map(|one| one.abs()).collect();
        sizes.sort_by(f64::total_cmp);
        let spread = NORMAL_OF_MEDIAN * sizes[sizes.len() / 2];
        let width = (spread * n.powf(-0.2)).max(threshold).max(LEAST_WIDTH);
        let rows = || residuals.iter().zip(dataset.covariates().iter().map(|one| one.weight));
        let within: f64 = rows().filter(|(r, _)| r.abs() <= width).map(|(_, weight)| weight).sum();
        let is_linear = width > threshold;
        let psi = |r: f64| if threshold > 0.0 { r.clamp(-threshold, threshold) } else { 1.0 };
        let squares: f64 = rows().map(|(r, weight)| (weight * psi(*r)).powi(2)).sum();
        let freedom = (n - n_free).max(1.0);
        let (curved, mean_square) = if is_linear {
            let one = dataset.covariates().iter().map(|one| one.weight).sum::<f64>() / n;
            let slope = if threshold > 0.0 { threshold } else { 1.0 };
            let counted = (within - n_free * one).max(one);
            (slope / width * counted / freedom, squares / n)
        } else {
            (within / n, squares / freedom)
        };
        // What parameters leave of runs, or trunks, over what they leave of points.
        let per_unit = (n_units - n_free).max(1.0) / freedom;
        Some(Self { scale: 2.0 * per_unit * curved / mean_square.max(1e-300) })
    }
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
    use crate::observation::{Observation, RunKey};
    use crate::planted::Study;
    use crate::random::Stream;

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
        let tokens = study.tokens[..4].to_vec();
        let blind = Study { sizes: study.sizes[..8].to_vec(), tokens, run_sd: 0.02, ..study };
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
        let own = |(run, point): (u32, &Observation)| Observation { run: RunKey(run), ..*point };
        let points: Vec<_> = (0..).zip(&points).map(own).collect();
        assert_eq!(points.len(), 6 * n as usize);
        let data = Dataset::new(&points).unwrap();
        for objective in [Objective::default(), Objective::LogSquares] {
            let options = FitOptions { objective, ..FitOptions::default() };
            let fitted = fit(LawName::Chinchilla.law(), &data, &options).unwrap();
            let profile = floor(&fitted, &data, &options, 0.95).unwrap().unwrap();
            for end in [profile.low.unwrap(), profile.high.unwrap()] {
                let choice = LawChoice::of(LawName::Chinchilla);
                let held = Pinned::new(choice, &[("ln_e", end.ln())]).unwrap();
                let refitted = fit(&held, &data, &options).unwrap();
                let freedom = points.len() as f64 - 5.0;
                let fall = match Robust::of(&fitted, &data, fitted.n_runs as f64) {
                    Some(robust) => robust.scale * (refitted.objective - fitted.objective),
                    None => freedom * (refitted.objective / fitted.objective - 1.0),
                };
                // The 95 % quantile of Student's t.
                let limit = student(0.95, freedom).powi(2);
                assert!((fall / limit - 1.0).abs() < 0.03, "{objective}: {end} falls {fall}");
            }
            let width = profile.high.unwrap() - profile.low.unwrap();
            assert!(profile.flat_nats < 0.6 * width, "{profile:?}");
        }
    }

    /// Runs of one law of C, each a point, whose ln L is off by so much.
    fn along_compute(n: u32, noise: impl Fn(u32) -> f64) -> Vec<Observation> {
        let point = |run: u32| {
            let share = f64::from(run) / f64::from(n - 1);
            let flops = 1e18 * 1e6_f64.powf(share);
            let loss_nats = (1.8 + 0.6 * (flops / 1e20).powf(-0.3)) * noise(run).exp();
            let (parameters, tokens) = (1e8, flops / 6e8);
            Observation { run: RunKey(run), parameters, tokens, flops, loss_nats, seed: 0 }
        };
        (0..n).map(point).collect()
    }

    /// Aim: an end lies on its own side of the optimum. Method: a low outlier that a robust fit
    /// puts its floor above.
    #[test]
    fn a_floor_above_a_low_outlier_lies_between_its_ends() {
        let mut points = along_compute(40, |run| 0.001 * Stream::new(5, u64::from(run)).normal());
        points[33].loss_nats = 1.6;
        let data = Dataset::new(&points).unwrap();
        for objective in [Objective::default(), Objective::AbsoluteDeviations] {
            let options = FitOptions { objective, ..FitOptions::default() };
            let fitted = fit(LawName::PowerFloor.law(), &data, &options).unwrap();
            let value = fitted.coefficient("E").unwrap();
            assert!(value > 1.6, "{value}");
            let profile = floor(&fitted, &data, &options, 0.95).unwrap().unwrap();
            let (low, high) = (profile.low.unwrap(), profile.high.unwrap());
            assert!(low < value && value < high, "{low} {value} {high}");
            assert!(profile.flat_nats > 0.0 && profile.flat_nats < high - low, "{profile:?}");
        }
    }

    /// Aim: the same with few runs, where the likelihood of so many parameters is far narrower than its
    /// limit for many (82 % of 8 runs). Method: planted studies of 8 runs and three parameters; none
    /// where the parameters pass through all of them.
    #[test]
    fn few_runs_hold_the_floor_as_often_as_they_say() {
        const STUDIES: u64 = 300;
        let of = |objective: Objective, study: u64, n: u32| {
            let options = FitOptions { objective, ..FitOptions::default() };
            let noise = |run| 1e-3 * Stream::new(9000 + study, u64::from(run)).normal();
            let data = Dataset::new(&along_compute(n, noise)).unwrap();
            let fitted = fit(LawName::PowerFloor.law(), &data, &options).unwrap();
            floor(&fitted, &data, &options, 0.95).unwrap()
        };
        let share = |objective: Objective| {
            let holds = |study: &u64| {
                let profile = of(objective, *study, 8).unwrap();
                let is_above = profile.low.is_none_or(|low| low < 1.8);
                is_above && profile.high.is_none_or(|high| 1.8 < high)
            };
            (0..STUDIES).filter(holds).count() as f64 / STUDIES as f64
        };
        let objectives =
            [Objective::default(), Objective::AbsoluteDeviations, Objective::LogSquares];
        let shares = objectives.map(share);
        println!("{shares:?} of huber, lad and log-squares");
        // Three standard errors of 95 % of 300 are 3.8 %.
        assert!(shares.iter().all(|share| (0.91..=0.99).contains(share)), "{shares:?}");
        assert_eq!(of(Objective::LogSquares, 0, 3), None);
    }

    /// Aim: an interval of 95 % holds the floor about so often, wherever the threshold lies among
    /// the residuals. Method: planted studies; 2 % is the standard error of 95 % of 150.
    #[test]
    fn likelihood_intervals_hold_the_floor_as_often_as_they_say() {
        const STUDIES: u64 = 150;
        let held = |objective: Objective, sd: f64| {
            let options = FitOptions { objective, ..FitOptions::default() };
            let holds = |study: &u64| {
                let noise = |run| sd * Stream::new(1000 + study, u64::from(run)).normal();
                let data = Dataset::new(&along_compute(40, noise)).unwrap();
                let fitted = fit(LawName::PowerFloor.law(), &data, &options).unwrap();
                let profile = floor(&fitted, &data, &options, 0.95).unwrap().unwrap();
                let is_above = profile.low.is_none_or(|low| low < 1.8);
                is_above && profile.high.is_none_or(|high| 1.8 < high)
            };
            (0..STUDIES).filter(holds).count() as f64 / STUDIES as f64
        };
        let mut shares = Vec::new();
        for sd in [2e-4, 1e-3, 6e-3] {
            for objective in
                [Objective::default(), Objective::AbsoluteDeviations, Objective::LogSquares]
            {
                shares.push((sd, objective.label(), held(objective, sd)));
            }
        }
        println!("{shares:?}");
        assert!(shares.iter().all(|one| (0.90..=0.995).contains(&one.2)), "{shares:?}");
    }

    #[test]
    fn a_law_without_a_floor_has_no_profile() {
        let data = Study::ladder(6).dataset();
        let options = FitOptions::default();
        let fitted = fit(LawName::Power.law(), &data, &options).unwrap();
        assert_eq!(floor(&fitted, &data, &options, 0.95).unwrap(), None);
    }
}
