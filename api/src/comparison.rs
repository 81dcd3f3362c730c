//! Two groups beside each other. An interval that holds zero says that the data do not tell.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::fit::EstimateView;

/// Two groups beside each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ComparisonView {
    /// The law that both were fitted with, such as `chinchilla`.
    pub method: String,
    /// The groups, the first and the second.
    #[schema(value_type = Vec<String>)]
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
    #[schema(value_type = Vec<f64>)]
    pub flops_per_parameter_token: [f64; 2],
    /// Nominal coverage of the intervals.
    pub level: f64,
    /// What to know before quoting it.
    pub warnings: Vec<String>,
}

/// Two groups at one budget.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct BudgetView {
    /// C.
    pub flops: f64,
    /// L of the first minus L of the second, nats per token.
    pub loss_difference_nats: EstimateView,
    /// L of the first over L of the second.
    pub loss_ratio: EstimateView,
    /// FLOPs that the second needs for the loss that the first has here, over C: above one the first
    /// saves compute.
    pub flops_ratio: EstimateView,
    /// Share of the draws in which the first has less loss; `null` without a bootstrap, or where
    /// the difference is not identified.
    pub first_is_better: Option<f64>,
    /// Whether C lies among the fitted ones of both.
    pub is_inside_both: bool,
}

/// The groups of a fit beside each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ComparisonList {
    /// The fit.
    pub fit: String,
    /// Every pair of groups by every law that says the loss at a budget.
    pub comparisons: Vec<ComparisonView>,
}
