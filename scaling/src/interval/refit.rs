//! Owns the refit of a law to resampled runs, from the optimum that `fit` found.
//! Does not draw; it is given the weights of their points.

use std::sync::atomic::{AtomicUsize, Ordering};

use crate::algebra::{cholesky, solve_upper};
use crate::fit::{EQUAL_OBJECTIVE, Fit, Grid, MAX_SEARCHED, Problem};
use crate::law::{Law, Variable};
use crate::minimize::{MAX_STEP, Minimum, OBJECTIVE_FLOOR};
use crate::observation::{Dataset, Observation, SAME_COMPUTE};
use crate::random::Stream;

/// Perturbed starts of each refit, beside the optimum and the other basins.
const N_PERTURBED: usize = 2;
/// Size of the perturbation in first-order standard errors; these are two to four times too small
/// themselves.
const PERTURBATION: f64 = 3.0;

/// Values above this share of another are equal to it.
const SAME: f64 = 1.0 - 1e-6;

/// Refits resampled runs from starts near the optimum.
#[derive(Debug)]
pub(super) struct Refitter<'a> {
    problem: &'a Problem<'a>,
    /// Per variable: what it is called, the class of equal values of each point, how many classes a
    /// refit needs.
    classes: [(&'static str, Vec<usize>, usize); 3],
    starts: Vec<Vec<f64>>,
    /// Factor of the inverse normal matrix, for perturbed starts.
    lower: Option<Vec<f64>>,
    noise: f64,
    /// The law's grid where resamples share it, if they are to be searched by it.
    grid: Option<Grid>,
    /// Refits that another start than the optimum won.
    switched: AtomicUsize,
}

impl<'a> Refitter<'a> {
    pub(super) fn new(
        law: &'a dyn Law,
        problem: &'a Problem<'a>,
        dataset: &Dataset,
        fit: &Fit,
        is_global: bool,
    ) -> Self {
        let needs = law.needs();
        let is_of_compute = law.variables().contains(&Variable::Flops);
        let n_budgets = if is_of_compute { needs.n_budgets - 1 } else { 0 };
        // One fewer than for an interval: a replicate need only be solvable.
        let classes = [
            ("sizes", classes(dataset, |point| point.parameters, SAME), needs.n_sizes - 1),
            (
                "token counts",
                classes(dataset, |point| point.tokens, SAME),
                needs.n_token_counts - 1,
            ),
            ("compute values", classes(dataset, |point| point.flops, SAME_COMPUTE), n_budgets),
        ];
        let basins = fit.convergence.basins.iter().map(|one| one.theta.clone());
        let starts = std::iter::once(fit.theta.clone()).chain(basins).collect();
        let mut gram = problem.gram(&fit.theta, |_| 1.0);
        let n = fit.theta.len();
        (0..n).for_each(|i| gram[i * n + i] *= 1.0 + 1e-9);
        // The normal matrix has the weights as they are, whatever they sum to.
        let mean_weight = problem.total_weight() / problem.points.len() as f64;
        let (lower, noise) = (cholesky(&gram, n), fit.residual_rms_log * mean_weight.sqrt());
        // Of more points the fit itself searches a part, and each draw would search all of them.
        let is_searched = is_global && problem.points.len() <= MAX_SEARCHED;
        let grid = if is_searched { problem.grid() } else { None };
        Self { problem, classes, starts, lower, noise, grid, switched: AtomicUsize::new(0) }
    }

    /// Refits that another start than the optimum won, until now.
    pub(super) fn n_switched(&self) -> usize {
        self.switched.load(Ordering::Relaxed)
    }

    /// Refits the points, each counted by its weight in a replicate.
    pub(super) fn refit(&self, weights: &[f64], mut stream: Stream) -> Result<Vec<f64>, String> {
        for (what, classes, needed) in &self.classes {
            let mut seen = vec![false; classes.len()];
            let kept = classes.iter().zip(weights).filter(|(_, weight)| **weight > 0.0);
            kept.for_each(|(class, _)| seen[*class] = true);
            let found = seen.iter().filter(|is_seen| **is_seen).count();
            if found < *needed {
                return Err(format!("{found} distinct {what} are left"));
            }
        }
        let (n_kept, n_parameters) = (weights.iter().filter(|one| **one > 0.0).count(), self.n());
        if n_kept < n_parameters {
            return Err(format!("{n_kept} points are left for {n_parameters} parameters"));
        }
        let problem = self.problem.reweighted(weights);
        let perturbed = (0..N_PERTURBED).filter_map(|_| self.perturbed(&mut stream));
        let searched = self.grid.as_ref().and_then(|grid| self.problem.best_start(grid, weights));
        let mut best: Option<Minimum> = None;
        let mut from_optimum = f64::INFINITY;
        let starts = self.starts.iter().cloned().chain(searched).chain(perturbed);
        for (index, start) in starts.enumerate() {
            let minimum = problem.descend(&start);
            let is_better = best.as_ref().is_none_or(|best| minimum.value < best.value);
            if minimum.converged && is_better {
                if index == 0 {
                    from_optimum = minimum.value;
                }
                best = Some(minimum);
            }
        }
        let best = best.ok_or_else(|| "no start converged".to_owned())?;
        // What rounding leaves of an exact fit is no other minimum.
        if best.value * (1.0 + EQUAL_OBJECTIVE) + OBJECTIVE_FLOOR < from_optimum {
            self.switched.fetch_add(1, Ordering::Relaxed);
        }
        Ok(problem.sharpen(best).theta)
    }

    /// Parameters of the law.
    fn n(&self) -> usize {
        self.starts.first().map_or(0, Vec::len)
    }

    fn perturbed(&self, stream: &mut Stream) -> Option<Vec<f64>> {
        let centre = self.starts.first()?;
        let n = centre.len();
        let noise: Vec<f64> = (0..n).map(|_| PERTURBATION * self.noise * stream.normal()).collect();
        let step = solve_upper(self.lower.as_ref()?, n, &noise);
        // A parameter without effect, such as a floor of zero, has no standard error.
        let most = self.problem.steps().iter().map(|unit| MAX_STEP * unit);
        let step = step.iter().zip(most).map(|(step, most)| step.max(-most).min(most));
        Some(centre.iter().zip(step).map(|(value, step)| value + step).collect())
    }
}

/// Numbers the points so that equal values of `field` get equal numbers: those above so large a share
/// of the smallest of their class.
fn classes(dataset: &Dataset, field: impl Fn(&Observation) -> f64, same: f64) -> Vec<usize> {
    let apart = -same.ln();
    let mut order: Vec<(f64, usize)> =
        dataset.points().iter().map(|point| field(point).ln()).zip(0..).collect();
    order.sort_by(|a, b| a.0.total_cmp(&b.0));
    let mut classes = vec![0; order.len()];
    let (mut class, mut first) = (0, order.first().map_or(0.0, |one| one.0));
    for (value, point) in order {
        if value - first >= apart {
            (class, first) = (class + 1, value);
        }
        classes[point] = class;
    }
    classes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fit::{FitOptions, fit};
    use crate::interval::{IntervalOptions, infer};
    use crate::law::LawName;
    use crate::observation::RunKey;
    use crate::planted::Study;

    #[test]
    fn an_exact_fit_has_no_draw_with_another_minimum() {
        let points = Study::ladder(12).observations().into_iter().zip(0..);
        let points: Vec<Observation> =
            points.map(|(point, run)| Observation { run: RunKey(run), ..point }).collect();
        let data = Dataset::new(&points).unwrap();
        let (law, options) = (LawName::Chinchilla.law(), FitOptions::default());
        let fitted = fit(law, &data, &options).unwrap();
        let interval = IntervalOptions { draws: 200, ..IntervalOptions::default() };
        assert_eq!(infer(&fitted, &data, &options, &interval).unwrap().n_switched, 0);
    }

    #[test]
    fn draws_of_very_many_points_are_not_searched_by_the_grid() {
        let some = Study { point_sd: 0.01, ..Study::ladder(8) }.observations();
        for (n, is_searched) in [(some.len(), true), (MAX_SEARCHED + 1, false)] {
            let points = some.iter().cycle().zip(0_u32..).take(n);
            let points = points.map(|(point, run)| Observation { run: RunKey(run), ..*point });
            let data = Dataset::new(&points.collect::<Vec<_>>()).unwrap();
            let (law, options) = (LawName::Chinchilla.law(), FitOptions::default());
            let problem = Problem::new(law, &data, options.objective).unwrap();
            let fitted = fit(law, &data, &options).unwrap();
            for is_global in [true, false] {
                let refitter = Refitter::new(law, &problem, &data, &fitted, is_global);
                assert_eq!(refitter.grid.is_some(), is_global && is_searched, "{n} points");
            }
        }
    }
}
