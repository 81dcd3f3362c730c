//! Owns the order in which runs, or clusters of them, are drawn: by where they were measured and
//! what, so that neither the order of rows nor the numbers of either change a draw. Does not draw.

use std::cmp::Ordering;

use crate::fit::by_values;
use crate::law::LogPoint;
use crate::observation::Dataset;

/// Values of N, D and C within this share are the same place of a design.
const SAME_PLACE: f64 = 1e-9;

/// Of each unit its place among all: by its points' places first, by their losses and weights after
/// those. Units that are the same in all of it have the same rank. `unit_of_points` says of each
/// point to which of `n_units` it belongs.
pub(super) fn ranks(dataset: &Dataset, unit_of_points: &[usize], n_units: usize) -> Vec<usize> {
    let (points, rows) = sorted(dataset);
    let mut places = vec![0; points.len()];
    for pair in rows.windows(2) {
        let is_next = by_values(&points[pair[0]], &points[pair[1]]).is_ne();
        places[pair[1]] = places[pair[0]] + usize::from(is_next);
    }
    let covariates = dataset.covariates();
    let measured = |row: usize| [dataset.points()[row].loss_nats, covariates[row].weight];
    let units = rows_of_units(unit_of_points, n_units, &rows);
    let compare = |a: &usize, b: &usize| {
        let place = |unit: usize| units[unit].iter().map(|row| places[*row]);
        let values = |unit: usize| units[unit].iter().flat_map(|row| measured(*row));
        place(*a).cmp(place(*b)).then_with(|| {
            let pairs = values(*a).zip(values(*b));
            pairs.map(|(a, b)| a.total_cmp(&b)).find(|o| o.is_ne()).unwrap_or(Ordering::Equal)
        })
    };
    let mut order: Vec<usize> = (0..n_units).collect();
    order.sort_by(compare);
    let mut ranks = vec![0; n_units];
    for pair in order.windows(2) {
        ranks[pair[1]] = ranks[pair[0]] + usize::from(compare(&pair[0], &pair[1]).is_ne());
    }
    ranks
}

/// Whether both have the same design, run by run or cluster by cluster, so that one draw of places
/// is a draw of both.
///
/// Several of them at one place could be told apart by their luck alone; then the answer is no, for
/// pairs of equally lucky runs would share what they do not have in common.
pub fn have_same_places(first: &Dataset, second: &Dataset) -> bool {
    let designs = [first, second].map(|dataset| {
        let (points, rows) = sorted(dataset);
        let places = |rows: &Vec<usize>| -> Vec<[f64; 3]> {
            let place = |row: &usize| {
                let point: &LogPoint = &points[*row];
                [point.ln_parameters, point.ln_tokens, point.ln_flops]
            };
            rows.iter().map(place).collect()
        };
        let (unit_of_points, n_units) = dataset.unit_of_points();
        let units = rows_of_units(&unit_of_points, n_units, &rows);
        let mut units: Vec<Vec<[f64; 3]>> = units.iter().map(places).collect();
        units.sort_by(|a, b| a.partial_cmp(b).unwrap_or(Ordering::Equal));
        units
    });
    let is_same = |a: &Vec<[f64; 3]>, b: &Vec<[f64; 3]>| {
        let pairs = a.iter().flatten().zip(b.iter().flatten());
        a.len() == b.len() && pairs.map(|(x, y)| (x - y).abs()).all(|apart| apart <= SAME_PLACE)
    };
    let [a, b] = &designs;
    a.len() == b.len()
        && a.iter().zip(b).all(|(x, y)| is_same(x, y))
        && designs.iter().all(|units| units.windows(2).all(|pair| !is_same(&pair[0], &pair[1])))
}

/// The points, and their rows by place, loss and weight.
fn sorted(dataset: &Dataset) -> (Vec<LogPoint>, Vec<usize>) {
    let points = dataset.log_points();
    let (given, covariates) = (dataset.points(), dataset.covariates());
    let mut rows: Vec<usize> = (0..points.len()).collect();
    rows.sort_by(|a, b| {
        by_values(&points[*a], &points[*b])
            .then(given[*a].loss_nats.total_cmp(&given[*b].loss_nats))
            .then(covariates[*a].weight.total_cmp(&covariates[*b].weight))
    });
    (points, rows)
}

/// Of each unit its rows, in the order of `rows`.
fn rows_of_units(unit_of_points: &[usize], n_units: usize, rows: &[usize]) -> Vec<Vec<usize>> {
    let mut own = vec![Vec::new(); n_units];
    for row in rows {
        own[unit_of_points[*row]].push(*row);
    }
    own
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::{Observation, RunKey};

    fn point(run: u32, parameters: f64, tokens: f64, loss_nats: f64) -> Observation {
        let flops = 6.0 * parameters * tokens;
        Observation { run: RunKey(run), parameters, tokens, flops, loss_nats, seed: 0 }
    }

    fn data(points: &[Observation]) -> Dataset {
        Dataset::new(points).unwrap()
    }

    fn ranks_of(dataset: &Dataset) -> Vec<usize> {
        let (units, n_units) = dataset.unit_of_points();
        ranks(dataset, &units, n_units)
    }

    #[test]
    fn the_order_of_runs_is_that_of_what_was_measured() {
        let rows = [
            point(0, 4e6, 1e8, 3.0),
            point(1, 1e6, 1e8, 3.4),
            point(2, 1e6, 1e8, 3.3),
            point(2, 1e6, 2e8, 3.2),
            point(3, 1e6, 1e8, 3.4),
        ];
        // Places first: the single points at the smallest size, then that with a second point, then
        // the larger size.
        assert_eq!(ranks_of(&data(&rows)), [2, 0, 1, 0]);
        let other: Vec<Observation> = [4, 3, 2, 1, 0]
            .map(|at| Observation { run: RunKey(9 - rows[at].run.0), ..rows[at] })
            .to_vec();
        assert_eq!(ranks_of(&data(&other)), [0, 1, 0, 2], "the same runs under other keys");
    }

    #[test]
    fn designs_are_the_same_where_every_place_has_one_run_of_both() {
        let grid = |loss: f64| -> Vec<Observation> {
            (0..6)
                .map(|i| point(i, 1e6 * f64::from(i % 3 + 1), 1e8 * f64::from(i / 3 + 1), loss))
                .collect()
        };
        let (first, mut second) = (grid(3.0), grid(2.9));
        assert!(have_same_places(&data(&first), &data(&second)));
        second.reverse();
        assert!(have_same_places(&data(&first), &data(&second)), "rows in another order");
        second[0].tokens *= 1.01;
        assert!(!have_same_places(&data(&first), &data(&second)));
        let twice = |points: &[Observation]| {
            let again = points.iter().map(|one| Observation { run: RunKey(one.run.0 + 6), ..*one });
            data(&points.iter().copied().chain(again).collect::<Vec<_>>())
        };
        assert!(!have_same_places(&twice(&first), &twice(&first)), "two seeds at each place");
        // One trunk for each size: its runs at two token counts are drawn together in both.
        let trunks = |points: &[Observation]| data(points).clustered(|one| one.run.0 % 3).unwrap();
        assert!(have_same_places(&trunks(&first), &trunks(&grid(2.9))));
        assert!(!have_same_places(&trunks(&first), &data(&grid(2.9))), "other units");
    }
}
