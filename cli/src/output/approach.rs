//! The approaches to N_opt and D_opt beside each other, for people and programs.
//!
//! It fits nothing.

use api::EstimateView;
use serde::Serialize;

use super::fit_parts::{Footnotes, number};
use super::table;

/// What one approach says of N_opt ∝ C^a and D_opt ∝ C^b.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ApproachView {
    /// `envelope`, `isoflop`, `corrected` (`isoflop` less what parabolas miss on the law's surface),
    /// or the law's name.
    pub name: String,
    /// What it minimises.
    pub objective: String,
    /// a.
    pub parameters_exponent: EstimateView,
    /// b.
    pub tokens_exponent: EstimateView,
    /// a + b; not there where the approach makes it 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exponent_sum: Option<EstimateView>,
    /// Budgets that it used; not there for a law.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_budgets: Option<u64>,
    /// Budgets that it left out, with reasons.
    pub dropped: Vec<String>,
}

/// The table; empty where there is nothing beside the law.
pub(super) fn shown(approaches: &[ApproachView], notes: &mut Footnotes) -> String {
    if approaches.len() < 2 {
        return String::new();
    }
    let rows = approaches.iter().map(|one| {
        let mut row = vec![one.name.clone()];
        row.extend(cells(&one.parameters_exponent, notes));
        row.extend(cells(&one.tokens_exponent, notes));
        match &one.exponent_sum {
            Some(sum) => row.extend(cells(sum, notes)),
            None => row.extend(["1".to_owned(), "by its form".to_owned()]),
        }
        row
    });
    let rows = rows.collect();
    let columns = ["APPROACH", ">a", "INTERVAL", ">b", "INTERVAL", ">a + b", "INTERVAL"];
    format!("N_opt ∝ C^a and D_opt ∝ C^b\n{}", table(&columns, rows))
}

fn cells(estimate: &EstimateView, notes: &mut Footnotes) -> [String; 2] {
    match estimate {
        EstimateView::Identified { value, low, high } => {
            [number(*value), format!("[{}, {}]", number(*low), number(*high))]
        }
        EstimateView::NotIdentified { reason } => ["–".to_owned(), notes.mark(reason)],
    }
}
