//! The groups of a report beside each other, by each law that says the loss at a budget.
//! The comparison itself is `scaling`'s.

use api::{BudgetView, ComparisonView};
use scaling::compare::{LawComparison, Side, compare_pair};
use scaling::interval::have_same_places;

use super::method::{LawModel, Predictor};
use super::view;

/// Of more groups than this a report compares none: it would take long, and nobody would read it.
pub(super) const MOST_GROUPS: usize = 8;

/// Which comparisons are wanted; what is left out means all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Comparing {
    /// A method's name.
    pub method: Option<String>,
    /// A group that is one of the two.
    pub group: Option<String>,
    /// The other one.
    pub with: Option<String>,
    /// The C to compare at; without any the largest that both were fitted to.
    pub budgets: Vec<f64>,
}

impl Comparing {
    fn means(&self, method: &str, names: [&str; 2]) -> bool {
        let is_of = |wanted: &Option<String>| {
            wanted.as_deref().is_none_or(|wanted| names.contains(&wanted))
        };
        self.method.as_deref().is_none_or(|wanted| wanted == method)
            && is_of(&self.group)
            && is_of(&self.with)
    }
}

/// A group with what predicts for it, in the order of `methods`.
pub(super) type Compared<'a> = (&'a str, &'a [Predictor]);

/// Every two groups, method by method.
pub(super) fn compare(
    methods: &[&str],
    groups: &[Compared<'_>],
    wanted: &Comparing,
) -> Vec<ComparisonView> {
    let mut all = Vec::new();
    for (index, method) in methods.iter().enumerate() {
        for (i, (first, one)) in groups.iter().enumerate() {
            for (second, other) in &groups[i + 1..] {
                let names = [*first, *second];
                if wanted.means(method, names)
                    && let (Some(one), Some(other)) = (law(one, index), law(other, index))
                {
                    all.push(pair(method, names, [one, other], &wanted.budgets));
                }
            }
        }
    }
    all
}

/// The law, if it says the loss at a budget.
fn law(predictors: &[Predictor], index: usize) -> Option<&LawModel> {
    match predictors.get(index) {
        Some(Predictor::Law(model)) => {
            Some(&**model).filter(|model| model.is_of_compute() || model.has_optimum())
        }
        _ => None,
    }
}

fn pair(method: &str, names: [&str; 2], models: [&LawModel; 2], budgets: &[f64]) -> ComparisonView {
    let sides =
        models.map(|one| Side { inference: &one.inference, flops_per_parameter_token: one.kappa });
    let is_paired = have_same_places(&models[0].dataset, &models[1].dataset);
    let found = compare_pair(names, sides, is_paired, budgets);
    ComparisonView {
        method: method.to_owned(),
        names: names.map(str::to_owned),
        is_at_best_sizes: models[0].has_optimum(),
        budgets: found.budgets.iter().map(budget).collect(),
        crossover_flops: view::estimate(&found.crossover.flops),
        crossover_is_inside_both: found.crossover.is_inside_both,
        other_crossovers_flops: found.crossover.others,
        is_paired,
        flops_per_parameter_token: models.map(|one| one.kappa),
        level: models[0].inference.resampled.level,
        warnings: found.warnings,
    }
}

fn budget(one: &LawComparison) -> BudgetView {
    BudgetView {
        flops: one.flops,
        loss_difference_nats: view::estimate(&one.loss_difference_nats),
        loss_ratio: view::estimate(&one.loss_ratio),
        flops_ratio: view::estimate(&one.flops_ratio),
        first_is_better: one.first_is_better,
        is_inside_both: one.is_inside_both,
    }
}
