//! IsoFLOP profiles of a file: losses over N at one budget, with the law and its best size.
//!
//! It fits nothing; the approach that fits parabolas to them is `scaling::isoflop`.

use scaling::law::{LawName, LogPoint};
use scaling::observation::Observation;

use super::{Fitted, Job};
use crate::figure::{Axis, Layer, Panel, Scale};

/// Budgets within this share are one: D is a whole number of steps.
const SAME_BUDGET: f64 = 0.05;
/// Sizes that make a profile, and profiles that make a panel.
pub(super) const LEAST_SIZES: usize = 4;
const LEAST_PROFILES: usize = 2;
/// Profiles of a panel: more could not be told apart.
const MOST_PROFILES: usize = 10;
/// Points of a drawn curve.
const N_CURVE: usize = 60;

/// Losses over N at one budget.
#[derive(Debug, Clone)]
pub(super) struct Profile {
    /// C, the geometric mean of its rows'.
    flops: f64,
    /// (N, L) as measured.
    rows: Vec<(f64, f64)>,
    /// (N, L) by the law; empty where it is not identified.
    curve: Vec<(f64, f64)>,
}

/// The profiles among the fitted rows; none unless there are at least two and the law needs no more than N, D and C.
pub(super) fn of(job: &Job<'_>, one: &Fitted) -> Vec<Profile> {
    let laws = [LawName::Chinchilla, LawName::Coupled, LawName::Kaplan, LawName::Overtraining];
    if !laws.contains(&job.table.choice.name) {
        return Vec::new();
    }
    let mut groups = budgets(one.dataset.points());
    if groups.len() < LEAST_PROFILES {
        return Vec::new();
    }
    let step = groups.len().div_ceil(MOST_PROFILES);
    groups = groups.into_iter().step_by(step).collect();
    groups.iter().map(|rows| profile(rows, one)).collect()
}

/// The rows of each budget that has enough sizes, from the smallest budget.
pub(super) fn budgets(points: &[Observation]) -> Vec<Vec<Observation>> {
    let mut sorted = points.to_vec();
    sorted.sort_by(|a, b| a.flops.total_cmp(&b.flops).then(a.parameters.total_cmp(&b.parameters)));
    let mut groups: Vec<Vec<Observation>> = Vec::new();
    for point in sorted {
        match groups.last_mut() {
            Some(group) if point.flops <= group[0].flops * (1.0 + SAME_BUDGET) => group.push(point),
            _ => groups.push(vec![point]),
        }
    }
    groups.retain(|group| n_sizes(group) >= LEAST_SIZES);
    groups
}

/// C of a budget: the geometric mean of its rows'.
pub(super) fn mean(rows: &[Observation]) -> f64 {
    (rows.iter().map(|row| row.flops.ln()).sum::<f64>() / rows.len() as f64).exp()
}

fn n_sizes(rows: &[Observation]) -> usize {
    let mut sizes: Vec<f64> = rows.iter().map(|row| row.parameters).collect();
    sizes.sort_unstable_by(f64::total_cmp);
    sizes.dedup();
    sizes.len()
}

fn profile(rows: &[Observation], one: &Fitted) -> Profile {
    let n = rows.len() as f64;
    let flops = mean(rows);
    let kappa = |row: &Observation| (row.flops / (row.parameters * row.tokens)).ln();
    let kappa = (rows.iter().map(kappa).sum::<f64>() / n).exp();
    let sizes = rows.iter().map(|row| row.parameters.ln());
    let low = sizes.clone().fold(f64::INFINITY, f64::min);
    let high = sizes.fold(f64::NEG_INFINITY, f64::max);
    let at = |index: usize| {
        let size = (low + (high - low) * index as f64 / (N_CURVE - 1) as f64).exp();
        let point = LogPoint::new(size, flops / (kappa * size), flops);
        (size, one.fit.predict_at(&point))
    };
    let curve =
        if one.inference.whole.is_some() { Vec::new() } else { (0..N_CURVE).map(at).collect() };
    let mut rows: Vec<(f64, f64)> =
        rows.iter().map(|row| (row.parameters, row.loss_nats)).collect();
    rows.sort_by(|a, b| a.0.total_cmp(&b.0));
    Profile { flops, rows, curve }
}

/// One panel for a group, its profiles named by their budgets.
pub(super) fn panel(series: usize, name: &str, profiles: &[Profile]) -> Panel {
    let mut layers = Vec::new();
    for profile in profiles {
        layers.push(Layer::Line {
            series: Some(series),
            points: profile.curve.clone(),
            is_dashed: false,
            label: format!("{:.1e}", profile.flops),
        });
        layers.push(Layer::Marks { series, points: profile.rows.clone(), is_filled: false });
        // The lowest point of the curve, unless it is an end of it.
        let lowest = (0..profile.curve.len())
            .min_by(|a, b| profile.curve[*a].1.total_cmp(&profile.curve[*b].1));
        if let Some(index) = lowest.filter(|index| *index > 0 && index + 1 < profile.curve.len()) {
            let points = vec![profile.curve[index]];
            layers.push(Layer::Marks { series, points, is_filled: true });
        }
    }
    Panel {
        title: format!(
            "IsoFLOP profiles of {name}: rows and law at each C; filled: the law's best N"
        ),
        x: Axis { label: "N, parameters".to_owned(), scale: Scale::Log },
        y: Axis { label: "L, nats per token".to_owned(), scale: Scale::Log },
        height: 300.0,
        layers,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use scaling::observation::RunKey;

    fn row(parameters: f64, flops: f64) -> Observation {
        let tokens = flops / (6.0 * parameters);
        Observation { run: RunKey(0), parameters, tokens, flops, loss_nats: 3.0, seed: 0 }
    }

    #[test]
    fn rows_of_nearly_one_budget_are_one_profile_and_few_sizes_are_none() {
        let mut rows = Vec::new();
        for size in [1e6, 2e6, 4e6, 8e6] {
            rows.push(row(size, 1e15 * (1.0 + size / 4e8)));
            rows.push(row(size, 3e15));
        }
        rows.extend([1e6, 2e6, 4e6].map(|size| row(size, 1e16)));
        // The same size twice is one size.
        rows.push(row(4e6, 1e16));
        let found = budgets(&rows);
        assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [4, 4]);
        assert!(found[0][0].flops < found[1][0].flops);
    }
}
