//! Two groups of a file beside each other, for people and programs.
//!
//! It compares nothing, and it ranks nobody: an interval that holds zero says that the data do not tell.

use api::EstimateView;
use serde::Serialize;

use super::fit_parts::{Footnotes, number, warnings};
use super::table;

/// Why there is no probability.
const NO_DRAWS: &str = "a share of bootstrap draws, which so few runs do not have";
/// Names that are longer together leave no room for numbers in a line of 80 letters.
const MOST_NAMED: usize = 26;

/// Two groups beside each other.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ComparisonView {
    /// The groups, the first and the second.
    pub names: [String; 2],
    /// Whether each stands at its own best N and D for a budget; a law of C alone has neither.
    pub is_at_best_sizes: bool,
    /// At each budget.
    pub budgets: Vec<BudgetView>,
    /// The C at which both have the same loss: of several the one among the fitted budgets of
    /// both, or nearest to them.
    pub crossover_flops: EstimateView,
    /// Whether it lies among them.
    pub crossover_is_inside_both: bool,
    /// The others, ascending.
    pub other_crossovers_flops: Vec<f64>,
    /// Whether the draws of both were taken together, for both were measured at the same places.
    pub is_paired: bool,
    /// κ of C = κ N D of each.
    pub flops_per_parameter_token: [f64; 2],
    /// Nominal coverage of the intervals.
    pub level: f64,
    /// What to know before quoting it.
    pub warnings: Vec<String>,
}

/// Two groups at one budget.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct BudgetView {
    /// C.
    pub flops: f64,
    /// L of the first minus L of the second, nats per token.
    pub loss_difference_nats: EstimateView,
    /// L of the first over L of the second.
    pub loss_ratio: EstimateView,
    /// FLOPs that the second needs for the loss that the first has here, over C: above one the first saves compute.
    pub flops_ratio: EstimateView,
    /// Share of the draws in which the first has less loss; `null` without a bootstrap, or where
    /// the difference is not identified.
    pub first_is_better: Option<f64>,
    /// Whether C lies among the fitted ones of both.
    pub is_inside_both: bool,
}

/// A comparison as text.
pub(super) fn shown(view: &ComparisonView) -> String {
    let names = &view.names;
    let is_long = names.iter().map(|name| name.chars().count()).sum::<usize>() > MOST_NAMED;
    let [first, second] = if is_long {
        ["the first", "the second"].map(str::to_owned)
    } else {
        [&names[0], &names[1]].map(|name| format!("`{name}`"))
    };
    let mut notes = Footnotes::default();
    let mut parts = vec![format!(
        "`{}` against `{}`, {}{:.0} % intervals{}",
        names[0],
        names[1],
        if view.is_at_best_sizes { "each at its own best N and D, " } else { "" },
        100.0 * view.level,
        if view.is_paired { ", drawn together" } else { "" }
    )];
    for one in &view.budgets {
        let mut rows = Vec::new();
        let mut push = |name: String, estimate: &EstimateView, shown: fn(f64) -> String| {
            let (value, interval) = match estimate {
                EstimateView::Identified { value, low, high } => {
                    (shown(*value), format!("[{}, {}]", shown(*low), shown(*high)))
                }
                EstimateView::NotIdentified { reason } => {
                    ("not identified".to_owned(), notes.mark(reason))
                }
            };
            rows.push(vec![name, value, interval]);
        };
        let fine: fn(f64) -> String = |value| format!("{value:.4}");
        let signed: fn(f64) -> String = |value| format!("{value:+.4}");
        push(format!("loss of {first} - {second}, nats"), &one.loss_difference_nats, signed);
        push("ratio of the losses".to_owned(), &one.loss_ratio, fine);
        push(format!("compute of {second} for equal loss"), &one.flops_ratio, number);
        let [share, why] = match (one.first_is_better, &one.loss_difference_nats) {
            (Some(share), _) => [format!("{share:.3}"), String::new()],
            (None, EstimateView::NotIdentified { reason }) => {
                ["not identified".to_owned(), notes.mark(reason)]
            }
            (None, EstimateView::Identified { .. }) => ["–".to_owned(), notes.mark(NO_DRAWS)],
        };
        rows.push(vec![format!("probability that {first} is better"), share, why]);
        let heading = format!("AT C = {}", number(one.flops));
        parts.push(table(&[heading.as_str(), ">VALUE", "INTERVAL"], rows));
    }
    parts.push(match &view.crossover_flops {
        EstimateView::Identified { value, low, high } => {
            let ends = format!("[{}, {}]", number(*low), number(*high));
            format!("equal loss at C = {} {ends}", number(*value))
        }
        EstimateView::NotIdentified { reason } => format!("equal loss: not identified: {reason}"),
    });
    if !view.other_crossovers_flops.is_empty() {
        let others: Vec<String> =
            view.other_crossovers_flops.iter().map(|flops| number(*flops)).collect();
        parts.push(format!("equal loss too at C = {}", others.join(", ")));
    }
    let notes = notes.text();
    if !notes.is_empty() {
        parts.push(notes);
    }
    if !view.warnings.is_empty() {
        parts.push(warnings(&view.warnings));
    }
    parts.join("\n")
}
