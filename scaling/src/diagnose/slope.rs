//! Owns the slope of residuals along a pattern, and whether it is more than luck. Does not know
//! which patterns a law lacks.

use super::pattern::{EXACT, MIN_SEQUENCE};
use crate::algebra::{cholesky, dot, solve};
use crate::fit::Fit;
use crate::interval::student;
use crate::law::MAX_PARAMETERS;
use crate::observation::Dataset;

/// Level of Student's t that a slope must pass: that of three standard deviations.
pub(super) const CLEAR_LEVEL: f64 = 0.9973;
/// The part of a column's length beside others below which it is one of them: rounding is 1e-16,
/// and what a law's own coefficients can follow to a part in a thousand is no pattern.
const DEPENDENT: f64 = 1e-6;
const FOLLOWED: f64 = 1e-3;

/// Per free coefficient of a law, the derivative of ln L at each point.
pub(super) fn gradients(fit: &Fit, dataset: &Dataset) -> Vec<Vec<f64>> {
    let law = fit.form.law();
    let mut columns = vec![Vec::with_capacity(dataset.points().len()); fit.theta.len()];
    for point in dataset.log_points() {
        let mut gradient = [0.0; MAX_PARAMETERS];
        law.log_prediction(&fit.theta, &point, &mut gradient);
        for (column, slope) in columns.iter_mut().zip(gradient) {
            column.push(slope);
        }
    }
    columns
}

/// t of the slope of the residuals along `pattern`, where it is more than luck at [`CLEAR_LEVEL`].
///
/// The slope stands beside a constant and `others`. With the law's [`gradients`] among these, what
/// the estimated coefficients are off by moves no slope, whatever was minimised: a pattern counts
/// by what they cannot follow.
/// Points of a run share its luck, and so do the runs of a trunk, so the error is that of leaving
/// out each run or trunk in turn (Hansen 2022), with as many degrees of freedom as there are of
/// these less the columns. Where they have several points, there must be enough of them.
pub(super) fn clear_t(
    fit: &Fit,
    dataset: &Dataset,
    pattern: &[f64],
    others: &[Vec<f64>],
) -> Option<f64> {
    let (unit_of_points, n_units) = dataset.unit_of_points();
    let scale = fit.residuals_log.iter().map(|residual| residual.abs()).fold(0.0, f64::max);
    if scale <= EXACT || n_units < pattern.len() && n_units < MIN_SEQUENCE {
        return None;
    }
    let weighted = |column: &[f64]| -> Vec<f64> {
        let rows = column.iter().zip(dataset.covariates());
        rows.map(|(value, covariates)| value * covariates.weight.sqrt()).collect()
    };
    let mean = pattern.iter().sum::<f64>() / pattern.len() as f64;
    let centred: Vec<f64> = pattern.iter().map(|value| value - mean).collect();
    let mut basis: Vec<Vec<f64>> = Vec::new();
    for column in std::iter::once(&vec![1.0; pattern.len()]).chain(others) {
        let own = beside(&basis, weighted(column), DEPENDENT);
        basis.extend(own);
    }
    let own = beside(&basis, weighted(&centred), FOLLOWED)?;
    basis.push(own);
    let freedom = n_units.checked_sub(basis.len()).filter(|freedom| *freedom > 0)? as f64;
    let mut of_units = vec![Vec::new(); n_units];
    for (row, unit) in unit_of_points.into_iter().enumerate() {
        of_units[unit].push(row);
    }
    let (slope, error) = slope(&basis, &weighted(&fit.residuals_log), &of_units)?;
    let t = slope / error;
    (error > 0.0 && t.abs() > student(CLEAR_LEVEL, freedom)).then_some(t)
}

/// What the basis lacks of a column, at length one; `None` where that is no more than `least` of it.
fn beside(basis: &[Vec<f64>], mut column: Vec<f64>, least: f64) -> Option<Vec<f64>> {
    let whole = dot(&column, &column).sqrt();
    // Twice: the first time leaves of the basis what rounding leaves.
    for one in basis.iter().chain(basis) {
        let along = dot(one, &column);
        column.iter_mut().zip(one).for_each(|(value, own)| *value -= along * own);
    }
    let left = dot(&column, &column).sqrt();
    (left > least * whole).then(|| column.iter().map(|value| value / left).collect())
}

/// The coefficient of the last of some orthonormal columns by least squares, and its error by
/// leaving out the rows of each unit; `None` where a unit alone determines a coefficient.
fn slope(basis: &[Vec<f64>], values: &[f64], of_units: &[Vec<usize>]) -> Option<(f64, f64)> {
    let n = basis.len();
    let whole: Vec<f64> = basis.iter().map(|column| dot(column, values)).collect();
    let slope = *whole.last()?;
    let mut squares = 0.0;
    for rows in of_units {
        // The normal equations without these rows; with all of them the matrix is the identity.
        let mut right = whole.clone();
        let mut matrix = vec![0.0; n * n];
        for i in 0..n {
            matrix[i * n + i] = 1.0;
        }
        for row in rows {
            let own: Vec<f64> = basis.iter().map(|column| column[*row]).collect();
            for (i, one) in own.iter().enumerate() {
                right[i] -= one * values[*row];
                for (j, other) in own.iter().enumerate() {
                    matrix[i * n + j] -= one * other;
                }
            }
        }
        let without = *solve(&cholesky(&matrix, n)?, n, &right).last()?;
        squares += (without - slope).powi(2);
    }
    let n_units = of_units.len() as f64;
    Some((slope, ((n_units - 1.0) / n_units * squares).sqrt()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_of_a_mean_is_that_of_its_units() {
        // Of a single constant column the jackknife is the classical error of a mean of means.
        let values = [1.0, 1.2, 3.0, 3.4, -2.0, -2.6];
        let column = vec![vec![6_f64.sqrt().recip(); 6]];
        let (slope, error) =
            slope(&column, &values, &[vec![0, 1], vec![2, 3], vec![4, 5]]).unwrap();
        let means = [1.1, 3.2, -2.3];
        let mean = means.iter().sum::<f64>() / 3.0;
        let squares: f64 = means.iter().map(|one| (one - mean).powi(2)).sum();
        let expected = mean / (squares / 2.0 / 3.0).sqrt();
        assert!((slope / error - expected).abs() < 1e-12, "{} {expected}", slope / error);
    }

    #[test]
    fn a_column_that_others_have_adds_nothing() {
        let ones = beside(&[], vec![1.0; 4], DEPENDENT).unwrap();
        let line =
            beside(std::slice::from_ref(&ones), vec![1.0, 2.0, 3.0, 4.0], DEPENDENT).unwrap();
        assert!(dot(&ones, &line).abs() < 1e-15 && (dot(&line, &line) - 1.0).abs() < 1e-12);
        assert!(beside(&[ones, line], vec![5.0, 3.0, 1.0, -1.0], DEPENDENT).is_none());
    }
}
