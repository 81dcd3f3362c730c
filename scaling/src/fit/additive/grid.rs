//! Owns the grid of exponents on which the additive law is solved: for each pair its coefficients
//! follow from least squares, and the pairs are ranked. Does not follow them to their minima.

use super::{Additive, N, lanes, sum};
use crate::algebra::solve_positive;
use crate::fit::lanes::{LANES, Lanes};
use crate::law::{ADDITIVE_GRID, exponent_grid, log_or_tiny};

/// The columns exp(-alpha x) / L of every alpha tried, the same of every beta, and 1 / L, on all
/// points of a problem.
///
/// Resamples of the points share them, since only weights differ.
#[derive(Debug)]
pub(crate) struct Grid {
    exponents: Vec<f64>,
    sizes: Vec<Vec<Lanes>>,
    counts: Vec<Vec<Lanes>>,
    floors: Vec<Lanes>,
    centre: (f64, f64),
    /// The typical loss.
    level: f64,
}

/// A starting point with its rank: the objective, to first order in the residuals.
pub(in crate::fit) type Ranked = (f64, Vec<f64>);

impl Grid {
    pub(in crate::fit) fn new(points: &Additive) -> Self {
        let exponents: Vec<f64> = exponent_grid(ADDITIVE_GRID).collect();
        let columns = |of: &[Lanes]| -> Vec<Vec<Lanes>> {
            exponents
                .iter()
                .map(|exponent| {
                    of.iter()
                        .zip(&points.inverse_loss)
                        .map(|(x, inverse)| {
                            let power = super::exp(std::array::from_fn(|i| -exponent * x[i]));
                            std::array::from_fn(|i| power[i] * inverse[i])
                        })
                        .collect()
                })
                .collect()
        };
        let total: f64 = points.weights.iter().map(sum).sum();
        let mut logs = 0.0;
        for (inverse, weights) in points.inverse_loss.iter().zip(&points.weights) {
            (0..LANES).for_each(|i| logs -= weights[i] * inverse[i].ln());
        }
        Self {
            sizes: columns(&points.x),
            counts: columns(&points.y),
            floors: points.inverse_loss.clone(),
            centre: points.centre,
            level: (logs / total).exp(),
            exponents,
        }
    }

    /// Every pair of exponents with its coefficients, those first that no neighbouring pair is
    /// better than, and then by rank.
    ///
    /// `weights` are those of the points in their order; points of weight zero do not count.
    pub(in crate::fit) fn ranked(&self, weights: &[f64], threshold: f64) -> Vec<Ranked> {
        let n = self.exponents.len();
        let cells = self.cells(weights, threshold);
        let is_lowest = |at: usize| {
            let (row, column) = (at / n, at % n);
            let rows = row.saturating_sub(1)..(row + 2).min(n);
            rows.flat_map(|r| {
                (column.saturating_sub(1)..(column + 2).min(n)).map(move |c| r * n + c)
            })
            .all(|other| cells[at].0 <= cells[other].0)
        };
        let mut order: Vec<(bool, usize)> =
            (0..cells.len()).map(|at| (!is_lowest(at), at)).collect();
        order.sort_by(|a, b| a.0.cmp(&b.0).then(cells[a.1].0.total_cmp(&cells[b.1].0)));
        order.into_iter().map(|(_, at)| (cells[at].0, self.start(at, &cells[at].1))).collect()
    }

    /// The best pair of exponents with its coefficients.
    pub(in crate::fit) fn best(&self, weights: &[f64], threshold: f64) -> Option<Vec<f64>> {
        let cells = self.cells(weights, threshold);
        let at = (0..cells.len()).min_by(|a, b| cells[*a].0.total_cmp(&cells[*b].0))?;
        Some(self.start(at, &cells[at].1))
    }

    fn start(&self, at: usize, coefficients: &[f64; 3]) -> Vec<f64> {
        let n = self.exponents.len();
        let (alpha, beta) = (self.exponents[at / n], self.exponents[at % n]);
        let [size, data, floor] = coefficients.map(|value| log_or_tiny(value, self.level));
        let start: [f64; N] =
            [size + alpha * self.centre.0, data + beta * self.centre.1, floor, alpha, beta];
        start.to_vec()
    }

    /// Per pair its rank and coefficients.
    fn cells(&self, weights: &[f64], threshold: f64) -> Vec<(f64, [f64; 3])> {
        let weights = lanes(weights.iter().copied(), 0.0);
        let weighted = |column: &[Lanes]| -> Vec<Lanes> {
            column.iter().zip(&weights).map(|(a, w)| std::array::from_fn(|i| a[i] * w[i])).collect()
        };
        let floors = weighted(&self.floors);
        let floor = Moments {
            square: product(&floors, &self.floors),
            with_floor: 0.0,
            with_one: floors.iter().map(sum).sum(),
        };
        let moments = |column: &[Lanes], weighted: &[Lanes]| Moments {
            square: product(column, weighted),
            with_floor: product(column, &floors),
            with_one: weighted.iter().map(sum).sum(),
        };
        let of_counts: Vec<Moments> =
            self.counts.iter().map(|column| moments(column, &weighted(column))).collect();
        let mut cells = Vec::with_capacity(self.sizes.len() * self.counts.len());
        for size in &self.sizes {
            let heavy = weighted(size);
            let of_size = moments(size, &heavy);
            for (count, of_count) in self.counts.iter().zip(&of_counts) {
                let mixed = product(&heavy, count);
                let found = non_negative(&of_size, of_count, &floor, mixed);
                let value = rank((size, count, &self.floors), &weights, &found, threshold);
                cells.push((value, found));
            }
        }
        cells
    }
}

/// Weighted inner products of a column with itself, with 1 / L, and with one.
struct Moments {
    square: f64,
    with_floor: f64,
    with_one: f64,
}

fn product(a: &[Lanes], b: &[Lanes]) -> f64 {
    let mut total = [0.0; LANES];
    for (a, b) in a.iter().zip(b) {
        for i in 0..LANES {
            total[i] += a[i] * b[i];
        }
    }
    sum(&total)
}

/// The Huber losses of relative residuals, which are residuals of ln L to first order.
fn rank(
    (size, count, floor): (&[Lanes], &[Lanes], &[Lanes]),
    weights: &[Lanes],
    [a, b, e]: &[f64; 3],
    threshold: f64,
) -> f64 {
    let mut total = [0.0; LANES];
    for (((size, count), floor), weights) in size.iter().zip(count).zip(floor).zip(weights) {
        for i in 0..LANES {
            let residual = a * size[i] + b * count[i] + e * floor[i] - 1.0;
            let clipped = residual.clamp(-threshold, threshold);
            total[i] += weights[i] * clipped * (residual - 0.5 * clipped);
        }
    }
    sum(&total)
}

/// Least squares of the three columns on ones with coefficients that are not negative.
///
/// Where the free solution is positive it is the answer; otherwise every smaller support is tried
/// and the feasible one that explains most is kept (Lawson and Hanson's problem, small enough to
/// enumerate).
fn non_negative(size: &Moments, count: &Moments, floor: &Moments, mixed: f64) -> [f64; 3] {
    let gram = [
        [size.square, mixed, size.with_floor],
        [mixed, count.square, count.with_floor],
        [size.with_floor, count.with_floor, floor.square],
    ];
    let target = [size.with_one, count.with_one, floor.with_one];
    if let Some(free) = solve_positive(&gram, &target)
        && free.iter().all(|value| *value >= 0.0)
    {
        return free;
    }
    let mut best = (0.0, [0.0; 3]);
    let mut keep = |found: [f64; 3]| {
        let explained: f64 = found.iter().zip(&target).map(|(a, b)| a * b).sum();
        if found.iter().all(|value| *value >= 0.0) && explained > best.0 {
            best = (explained, found);
        }
    };
    for i in 0..3 {
        let mut one = [0.0; 3];
        one[i] = target[i] / gram[i][i];
        keep(one);
        for j in i + 1..3 {
            let part = [[gram[i][i], gram[i][j]], [gram[i][j], gram[j][j]]];
            if let Some([first, second]) = solve_positive(&part, &[target[i], target[j]]) {
                let mut two = [0.0; 3];
                (two[i], two[j]) = (first, second);
                keep(two);
            }
        }
    }
    best.1
}
