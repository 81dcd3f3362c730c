//! Owns the small dense linear algebra of fits: Cholesky, symmetric eigenvalues, straight lines.
//! Does not handle anything larger than a dozen rows; matrices are row-major slices.

/// Lower Cholesky factor of a symmetric matrix of `n` rows, or `None` if it is not positive
/// definite.
pub(crate) fn cholesky(matrix: &[f64], n: usize) -> Option<Vec<f64>> {
    let mut lower = vec![0.0; n * n];
    for row in 0..n {
        for column in 0..=row {
            let mut sum = matrix[row * n + column];
            for k in 0..column {
                sum -= lower[row * n + k] * lower[column * n + k];
            }
            if row == column {
                if !(sum.is_finite() && sum > 0.0) {
                    return None;
                }
                lower[row * n + row] = sum.sqrt();
            } else {
                lower[row * n + column] = sum / lower[column * n + column];
            }
        }
    }
    Some(lower)
}

/// Solves `matrix · x = right` for a symmetric positive definite matrix of a size known to the
/// compiler, without the heap; `None` if it is not positive definite.
#[expect(
    clippy::needless_range_loop,
    reason = "rows and columns of one matrix are indexed together"
)]
pub(crate) fn solve_positive<const N: usize>(
    matrix: &[[f64; N]; N],
    right: &[f64; N],
) -> Option<[f64; N]> {
    let mut lower = [[0.0; N]; N];
    let mut x = *right;
    for row in 0..N {
        for column in 0..row {
            let mut sum = matrix[row][column];
            for k in 0..column {
                sum -= lower[row][k] * lower[column][k];
            }
            lower[row][column] = sum * lower[column][column];
        }
        let mut sum = matrix[row][row];
        for k in 0..row {
            sum -= lower[row][k] * lower[row][k];
            x[row] -= lower[row][k] * x[k];
        }
        if !(sum.is_finite() && sum > 0.0) {
            return None;
        }
        // The diagonal holds inverses.
        lower[row][row] = 1.0 / sum.sqrt();
        x[row] *= lower[row][row];
    }
    for row in (0..N).rev() {
        for k in row + 1..N {
            x[row] -= lower[k][row] * x[k];
        }
        x[row] *= lower[row][row];
    }
    Some(x)
}

/// Solves `Lᵀ x = b` for the lower factor L.
pub(crate) fn solve_upper(lower: &[f64], n: usize, b: &[f64]) -> Vec<f64> {
    let mut x = b.to_vec();
    for row in (0..n).rev() {
        for k in row + 1..n {
            x[row] -= lower[k * n + row] * x[k];
        }
        x[row] /= lower[row * n + row];
    }
    x
}

/// Solves `L Lᵀ x = b`.
pub(crate) fn solve(lower: &[f64], n: usize, b: &[f64]) -> Vec<f64> {
    let mut y = b.to_vec();
    for row in 0..n {
        for k in 0..row {
            y[row] -= lower[row * n + k] * y[k];
        }
        y[row] /= lower[row * n + row];
    }
    solve_upper(lower, n, &y)
}

/// Inverse of `L Lᵀ`.
pub(crate) fn inverse(lower: &[f64], n: usize) -> Vec<f64> {
    let mut out = vec![0.0; n * n];
    let mut unit = vec![0.0; n];
    for column in 0..n {
        unit.fill(0.0);
        unit[column] = 1.0;
        for (row, value) in solve(lower, n, &unit).into_iter().enumerate() {
            out[row * n + column] = value;
        }
    }
    out
}

pub(crate) fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// `matrix · vector`.
pub(crate) fn multiply(matrix: &[f64], vector: &[f64]) -> Vec<f64> {
    matrix.chunks_exact(vector.len()).map(|row| dot(row, vector)).collect()
}

/// Eigenvalues and eigenvectors (one a row of the second result) by Jacobi's rotations.
pub(crate) fn symmetric_eigen(matrix: &[f64], n: usize) -> (Vec<f64>, Vec<f64>) {
    const SWEEPS: usize = 64;
    let mut a = matrix.to_vec();
    let mut vectors = vec![0.0; n * n];
    for i in 0..n {
        vectors[i * n + i] = 1.0;
    }
    for _ in 0..SWEEPS {
        for p in 0..n {
            for q in p + 1..n {
                rotate(&mut a, &mut vectors, n, (p, q));
            }
        }
    }
    ((0..n).map(|i| a[i * n + i]).collect(), vectors)
}

fn rotate(a: &mut [f64], vectors: &mut [f64], n: usize, (p, q): (usize, usize)) {
    let off = a[p * n + q];
    if off == 0.0 {
        return;
    }
    let theta = (a[q * n + q] - a[p * n + p]) / (2.0 * off);
    let t = theta.signum() / (theta.abs() + theta.hypot(1.0));
    let c = 1.0 / t.hypot(1.0);
    let s = t * c;
    for k in 0..n {
        let (x, y) = (a[k * n + p], a[k * n + q]);
        a[k * n + p] = c * x - s * y;
        a[k * n + q] = s * x + c * y;
    }
    for k in 0..n {
        let (x, y) = (a[p * n + k], a[q * n + k]);
        a[p * n + k] = c * x - s * y;
        a[q * n + k] = s * x + c * y;
        let (x, y) = (vectors[p * n + k], vectors[q * n + k]);
        vectors[p * n + k] = c * x - s * y;
        vectors[q * n + k] = s * x + c * y;
    }
}

/// A straight line `y = value + slope (x - reference)` by weighted least squares.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Line {
    /// y at the reference.
    pub(crate) value: f64,
    pub(crate) slope: f64,
    /// Weighted sum of squared residuals.
    pub(crate) residual_squares: f64,
    /// Weighted sum of squared distances of x from its mean.
    pub(crate) spread: f64,
}

/// Fits a line to (x, y), which count alike; `None` for fewer than two distinct x.
pub(crate) fn line(points: &[(f64, f64)], reference: f64) -> Option<Line> {
    let points: Vec<(f64, f64, f64)> = points.iter().map(|(x, y)| (*x, *y, 1.0)).collect();
    weighted_line(&points, reference)
}

/// Fits a line to (x, y, weight); `None` for fewer than two distinct x.
pub(crate) fn weighted_line(points: &[(f64, f64, f64)], reference: f64) -> Option<Line> {
    let total: f64 = points.iter().map(|(_, _, weight)| weight).sum();
    let sum = |of: &dyn Fn(f64, f64) -> f64| -> f64 {
        points.iter().map(|(x, y, weight)| weight * of(*x, *y)).sum()
    };
    let (mean_x, mean_y) = (sum(&|x, _| x) / total, sum(&|_, y| y) / total);
    let spread = sum(&|x, _| (x - mean_x).powi(2));
    if spread.is_nan() || spread <= 1e-18 * total {
        return None;
    }
    let slope = sum(&|x, y| (x - mean_x) * (y - mean_y)) / spread;
    let value = mean_y + slope * (reference - mean_x);
    let residual_squares = sum(&|x, y| (y - value - slope * (x - reference)).powi(2));
    Some(Line { value, slope, residual_squares, spread })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factor_inverse_and_eigenvalues_agree_on_a_known_matrix() {
        let matrix = [4.0, 1.0, 0.5, 1.0, 3.0, 0.2, 0.5, 0.2, 2.0];
        let lower = cholesky(&matrix, 3).unwrap();
        let back = multiply(&matrix, &solve(&lower, 3, &[1.0, 2.0, 3.0]));
        assert!(back.iter().zip([1.0, 2.0, 3.0]).all(|(a, b)| (a - b).abs() < 1e-12));
        let (values, vectors) = symmetric_eigen(&matrix, 3);
        for (value, vector) in values.iter().zip(vectors.chunks_exact(3)) {
            let image = multiply(&matrix, vector);
            assert!(image.iter().zip(vector).all(|(a, b)| (a - value * b).abs() < 1e-10));
        }
        let unit = multiply(&inverse(&lower, 3), &multiply(&matrix, &[0.0, 1.0, 0.0]));
        assert!((unit[1] - 1.0).abs() < 1e-12 && unit[0].abs() < 1e-12);
        assert!(cholesky(&[1.0, 2.0, 2.0, 1.0], 2).is_none());
        let square = [[4.0, 1.0, 0.5], [1.0, 3.0, 0.2], [0.5, 0.2, 2.0]];
        let solved = solve_positive(&square, &[1.0, 2.0, 3.0]).unwrap();
        let expected = solve(&lower, 3, &[1.0, 2.0, 3.0]);
        assert!(solved.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-14));
        assert!(solve_positive(&[[1.0, 2.0], [2.0, 1.0]], &[1.0, 1.0]).is_none());
    }

    #[test]
    fn a_line_through_exact_points_has_no_residual() {
        let exact = [(0.0, 1.0, 1.0), (1.0, 3.0, 2.0), (3.0, 7.0, 0.5)];
        let fitted = weighted_line(&exact, 1.0).unwrap();
        assert!((fitted.value - 3.0).abs() < 1e-12 && (fitted.slope - 2.0).abs() < 1e-12);
        assert!(fitted.residual_squares < 1e-20);
        assert!(line(&[(1.0, 1.0), (1.0, 3.0)], 0.0).is_none());
    }

    #[test]
    fn a_point_of_weight_two_counts_as_two() {
        let two = [(0.0, 1.0, 1.0), (1.0, 2.0, 1.0), (1.0, 2.0, 1.0), (2.0, 2.5, 1.0)];
        let one = [(0.0, 1.0, 1.0), (1.0, 2.0, 2.0), (2.0, 2.5, 1.0)];
        let [two, one] = [&two[..], &one[..]].map(|points| weighted_line(points, 0.5).unwrap());
        assert!((two.slope - one.slope).abs() < 1e-12 && (two.value - one.value).abs() < 1e-12);
        assert!((two.residual_squares - one.residual_squares).abs() < 1e-12);
    }
}
