//! Owns the last step to least absolute deviations: their optimum is a vertex, where as many
//! residuals vanish as there are parameters. Does not search; it is given a point close by.

use super::{Problem, by_values};

/// Newton steps to the vertex; from the smoothed optimum two are enough.
const STEPS: usize = 8;
/// Points beside the closest that are tried in place of each of them.
const EXCHANGES: usize = 4;

/// The best vertex near `theta` if it is better, and its sum of absolute residuals.
pub(super) fn nearest(problem: &Problem<'_>, theta: &[f64]) -> Option<(Vec<f64>, f64)> {
    let n = theta.len();
    let residuals = problem.residuals(theta);
    let mut order: Vec<usize> = (0..residuals.len()).collect();
    order.sort_by(|a, b| residuals[*a].abs().total_cmp(&residuals[*b].abs()));
    order.dedup_by(|a, b| by_values(&problem.points[*a], &problem.points[*b]).is_eq());
    let mut active: Vec<usize> = order.iter().copied().take(n).collect();
    let start = problem.plain(theta);
    let mut best: Option<(Vec<f64>, f64)> = None;
    let improve = |active: &[usize], best: &mut Option<(Vec<f64>, f64)>| -> bool {
        let Some(found) = interpolate(problem, theta, active) else { return false };
        let value = problem.plain(&found);
        let is_better = value < best.as_ref().map_or(start, |one| one.1);
        if is_better {
            *best = Some((found, value));
        }
        is_better
    };
    improve(&active, &mut best);
    for place in 0..active.len() {
        for other in order.iter().skip(n).take(EXCHANGES) {
            let before = active[place];
            active[place] = *other;
            if !improve(&active, &mut best) {
                active[place] = before;
            }
        }
    }
    best
}

/// The parameters at which the residuals of `active` vanish.
fn interpolate(problem: &Problem<'_>, start: &[f64], active: &[usize]) -> Option<Vec<f64>> {
    let n = start.len();
    let mut theta = start.to_vec();
    for _ in 0..STEPS {
        let (mut matrix, mut right) = (Vec::with_capacity(n * n), Vec::with_capacity(n));
        for index in active {
            let (row, residual) = problem.row(&theta, *index);
            matrix.extend_from_slice(&row[..n]);
            right.push(residual);
        }
        let step = eliminate(&mut matrix, &mut right)?;
        theta.iter_mut().zip(&step).for_each(|(value, change)| *value += change);
        if step.iter().zip(&theta).all(|(change, value)| change.abs() <= 1e-14 * value.abs()) {
            break;
        }
    }
    theta.iter().all(|value| value.is_finite()).then_some(theta)
}

/// Solves a square system by Gaussian elimination with row pivoting.
fn eliminate(matrix: &mut [f64], right: &mut [f64]) -> Option<Vec<f64>> {
    let n = right.len();
    for column in 0..n {
        let pivot = (column..n)
            .max_by(|a, b| matrix[a * n + column].abs().total_cmp(&matrix[b * n + column].abs()))?;
        let size = matrix[pivot * n + column].abs();
        if size.is_nan() || size <= 0.0 {
            return None;
        }
        for k in 0..n {
            matrix.swap(pivot * n + k, column * n + k);
        }
        right.swap(pivot, column);
        for row in column + 1..n {
            let factor = matrix[row * n + column] / matrix[column * n + column];
            for k in column..n {
                matrix[row * n + k] -= factor * matrix[column * n + k];
            }
            right[row] -= factor * right[column];
        }
    }
    for row in (0..n).rev() {
        for k in row + 1..n {
            right[row] -= matrix[row * n + k] * right[k];
        }
        right[row] /= matrix[row * n + row];
    }
    Some(right.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elimination_pivots_and_refuses_a_singular_system() {
        let found = eliminate(&mut [0.0, 2.0, 1.0, 1.0], &mut [4.0, 5.0]).unwrap();
        assert_eq!(found, [3.0, 2.0]);
        assert_eq!(eliminate(&mut [1.0, 1.0, 1.0, 1.0], &mut [1.0, 2.0]), None);
    }
}
