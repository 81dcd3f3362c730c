//! The best model for a budget along the sizes that were trained, for people and programs.
//!
//! It looks for nothing.

use api::{EstimateView, LadderPrediction};
use serde::Serialize;

use super::fit_parts::{Footnotes, number, shown};
use super::table;

/// The best N and D of a budget along the actual ladder of models.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LadderView {
    /// C.
    pub flops: f64,
    /// N_opt, D_opt and the loss there.
    #[serde(flatten)]
    pub best: LadderPrediction,
}

/// A line a budget, under `title`; nothing without budgets.
pub(super) fn along(title: &str, budgets: &[LadderView], notes: &mut Footnotes) -> String {
    if budgets.is_empty() {
        return String::new();
    }
    let rows = budgets.iter().map(|one| {
        let best = &one.best;
        let mut row = vec![number(one.flops)];
        for estimate in [&best.parameters, &best.tokens, &best.loss_nats] {
            let [value, interval] = shown(estimate, notes);
            let is_known = matches!(estimate, EstimateView::Identified { .. });
            // Eight columns leave no room for words.
            row.extend([if is_known { value } else { "–".to_owned() }, interval]);
        }
        row.push(best.rung_parameters.map_or_else(|| "–".to_owned(), number));
        row
    });
    let rows = rows.collect();
    let columns = [">C", ">N", "INTERVAL", ">D", "INTERVAL", ">LOSS", "INTERVAL", ">BEST SIZE"];
    format!("{title}\n{}", table(&columns, rows))
}
