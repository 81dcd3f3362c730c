//! Owns what the starting grids of laws share: exponents to try, and non-negative least squares for
//! the rest. Does not rank the starts; `fit` does, by the objective.

/// Exponents tried as starting points: published ones lie between 0.03 and 0.8, doubtful data go
/// beyond.
pub(crate) fn exponent_grid(count: usize) -> impl Iterator<Item = f64> + Clone {
    const LOW: f64 = 0.02;
    const HIGH: f64 = 1.5;
    (0..count).map(move |i| LOW + (HIGH - LOW) * i as f64 / (count - 1) as f64)
}

/// `count` values from `low` to `high`, equal steps in their logs.
pub(super) fn log_grid(low: f64, high: f64, count: usize) -> impl Iterator<Item = f64> + Clone {
    let step = (high / low).ln() / (count - 1) as f64;
    (0..count).map(move |i| low * (step * i as f64).exp())
}

pub(super) fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let n = values.len() as f64;
    values.sum::<f64>() / n
}

/// Non-negative least squares of the columns on ones, for up to three columns.
pub(super) fn project(columns: &[&[f64]]) -> Vec<f64> {
    project_onto(columns, &vec![1.0; columns[0].len()])
}

/// Non-negative least squares of the columns on `onto`, for up to three columns.
pub(super) fn project_onto(columns: &[&[f64]], onto: &[f64]) -> Vec<f64> {
    let n = columns.len();
    let (mut gram, mut target) = (vec![0.0; n * n], vec![0.0; n]);
    for (i, left) in columns.iter().enumerate() {
        target[i] = crate::algebra::dot(left, onto);
        for (j, right) in columns.iter().enumerate().take(i + 1) {
            let product = crate::algebra::dot(left, right);
            gram[i * n + j] = product;
            gram[j * n + i] = product;
        }
    }
    non_negative(&gram, &target)
}

/// ln of a coefficient that a projection may have set to zero: far below the data, yet finite.
///
/// `level` is the typical loss, to which the term is compared at the centre of the data.
pub(crate) fn log_or_tiny(value: f64, level: f64) -> f64 {
    value.max(1e-3 * level).ln()
}

/// Least squares with non-negative coefficients for a few columns, from `gram` and `target`.
///
/// Tries every non-empty support and keeps the feasible one that explains most (Lawson and Hanson's
/// problem, small enough to enumerate). Coefficients outside the support are zero.
pub(super) fn non_negative(gram: &[f64], target: &[f64]) -> Vec<f64> {
    let n = target.len();
    let mut best = (0.0, vec![0.0; n]);
    for support in 1_usize..1 << n {
        let chosen: Vec<usize> = (0..n).filter(|i| support >> i & 1 == 1).collect();
        let k = chosen.len();
        let part: Vec<f64> =
            chosen.iter().flat_map(|i| chosen.iter().map(move |j| gram[i * n + j])).collect();
        let right: Vec<f64> = chosen.iter().map(|i| target[*i]).collect();
        let Some(lower) = crate::algebra::cholesky(&part, k) else { continue };
        let solution = crate::algebra::solve(&lower, k, &right);
        let explained = crate::algebra::dot(&solution, &right);
        if solution.iter().all(|value| *value >= 0.0) && explained > best.0 {
            let mut full = vec![0.0; n];
            chosen.iter().zip(&solution).for_each(|(i, value)| full[*i] = *value);
            best = (explained, full);
        }
    }
    best.1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_negative_column_is_left_out_of_the_non_negative_solution() {
        // y = 2 x1 - x2 on orthonormal columns: the best non-negative answer drops x2.
        assert_eq!(non_negative(&[1.0, 0.0, 0.0, 1.0], &[2.0, -1.0]), [2.0, 0.0]);
    }

    #[test]
    fn a_log_grid_ends_where_it_should() {
        let values: Vec<f64> = log_grid(0.1, 10.0, 3).collect();
        assert!(values.iter().zip([0.1, 1.0, 10.0]).all(|(a, b)| (a / b - 1.0).abs() < 1e-12));
    }
}
