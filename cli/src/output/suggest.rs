//! A suggested study, or suggested cells, for people and programs.
//!
//! It suggests nothing.

use api::EstimateView;
use serde::Serialize;

use super::fit_parts::{number, with_interval};
use super::{View, sections, table};

/// Proposals that cost less of the budget hardly use it.
const SMALL_SHARE: f64 = 0.1;

/// Cells that lower the variance of a quantity. `gradus suggest --refine --json` prints this.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RefinementView {
    /// The group; not there without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The quantity that was named.
    pub quantity: String,
    /// Whether standard deviations are those of its logarithm, which are relative ones.
    pub is_logarithm: bool,
    /// Its value now; `null` where it is not identified.
    pub value: Option<f64>,
    /// Its value and interval now, or why there is none.
    pub estimate: EstimateView,
    /// `flop` or `run`.
    pub per: String,
    /// What all cells may cost.
    pub budget_flops: f64,
    /// The cells, the best first; each knows those before it.
    pub cells: Vec<ProposalView>,
    /// Places that were compared.
    pub n_candidates: u64,
    /// Where they lie.
    pub limits: LimitsView,
    /// What to know before training them.
    pub warnings: Vec<String>,
}

/// Where cells were looked for: not far outside the fitted rows, whatever the budget.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct LimitsView {
    /// Smallest and largest N.
    pub n: [f64; 2],
    /// Smallest and largest D.
    pub d: [f64; 2],
    /// Largest C.
    pub flops: f64,
}

impl LimitsView {
    /// In words.
    pub fn text(&self) -> String {
        let [n, d] =
            [self.n, self.d].map(|[low, high]| format!("{} to {}", number(low), number(high)));
        format!("N {n}, D {d}, C at most {}", number(self.flops))
    }
}

/// One proposed cell.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ProposalView {
    /// N.
    pub n: f64,
    /// D.
    pub d: f64,
    /// C, which is what it costs.
    pub flops: f64,
    /// Standard deviation of the quantity before it.
    pub sd_before: f64,
    /// And after it, as predicted.
    pub sd_after: f64,
    /// Share of the variance that it takes away, for each FLOP.
    pub variance_share_per_flop: f64,
}

impl View for RefinementView {
    fn table(&self) -> String {
        let of =
            if self.is_logarithm { "relative standard deviation" } else { "standard deviation" };
        let group = self.group.as_ref().map(|name| format!("group `{name}`: "));
        let known = match &self.estimate {
            EstimateView::Identified { value, low, high } => {
                let [value, interval] = with_interval(*value, *low, *high);
                format!(" = {value} {interval}")
            }
            EstimateView::NotIdentified { .. } => String::new(),
        };
        let title = format!(
            "{}cells that lower the variance of `{}`{} most for each {}\n\
             {of} as predicted from the joint draws; budget {} FLOPs\n\
             {} candidates: {}",
            group.unwrap_or_default(),
            self.quantity,
            known,
            if self.per == "run" { "run" } else { "FLOP" },
            number(self.budget_flops),
            self.n_candidates,
            self.limits.text()
        );
        let reason = match &self.estimate {
            EstimateView::NotIdentified { reason } => {
                format!("`{}` is not identified: {reason}", self.quantity)
            }
            EstimateView::Identified { .. } => String::new(),
        };
        let rows = self.cells.iter().map(|one| {
            let numbers = [one.n, one.d, one.d / one.n, one.flops, one.sd_before, one.sd_after];
            numbers.map(number).into()
        });
        let columns = [">N", ">D", ">D / N", ">FLOPS", ">SD BEFORE", ">SD AFTER"];
        let cost: f64 = self.cells.iter().map(|one| one.flops).sum();
        let spent = format!(
            "together {} FLOPs, {} % of the budget{}",
            number(cost),
            number(100.0 * cost / self.budget_flops),
            if self.per == "flop" && cost < SMALL_SHARE * self.budget_flops {
                ": the most for each FLOP are small runs; `--cells` asks for more of them, `--per run` \
                 for the runs that lower it most"
            } else {
                ""
            }
        );
        sections(&[
            title,
            reason,
            table(&columns, rows.collect()),
            spent,
            self.warnings
                .iter()
                .map(|text| format!("warning: {text}"))
                .collect::<Vec<_>>()
                .join("\n"),
        ])
    }

    fn names(&self) -> Vec<String> {
        self.cells.iter().map(|one| format!("{} {}", one.n, one.d)).collect()
    }
}

/// A suggested study. `gradus suggest --json` prints this.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SuggestionView {
    /// Its name.
    pub study: String,
    /// The file as text.
    pub text: String,
    /// What all of its runs cost by `flops_exact`.
    pub flops_exact_total: f64,
    /// What they may cost.
    pub budget_flops: f64,
    /// Its cells.
    pub n_cells: u64,
    /// Cells of the grid that the design leaves out.
    pub n_dropped: u64,
    /// Its budgets.
    pub budgets: Vec<f64>,
    /// What to know before training it.
    pub warnings: Vec<String>,
}

impl View for SuggestionView {
    fn table(&self) -> String {
        let budgets: Vec<String> = self.budgets.iter().map(|flops| number(*flops)).collect();
        let facts = format!(
            "study `{}`: {} cells at budgets {}; {} of {} FLOPs",
            self.study,
            self.n_cells,
            budgets.join(", "),
            number(self.flops_exact_total),
            number(self.budget_flops)
        );
        let warnings = self.warnings.iter().map(|text| format!("warning: {text}"));
        sections(&[facts, warnings.collect::<Vec<_>>().join("\n")])
    }

    fn names(&self) -> Vec<String> {
        vec![self.study.clone()]
    }
}
