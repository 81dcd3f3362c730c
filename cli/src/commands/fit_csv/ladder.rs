//! The sizes of the file as a ladder, where a column has the FLOPs of one token, and the best N and
//! D of a budget along them.
//!
//! The search itself is `scaling::ladder`.

use scaling::interval::Inference;
use scaling::ladder::{Ladder, LadderError, Rung};

use super::read::Row;
use crate::fit_document::ladder_view;
use crate::output::ladder::LadderView;

/// Budgets, over the largest fitted C.
const BUDGETS: [f64; 2] = [1.0, 10.0];

/// The ladder of these rows; `None` without a column of FLOPs for a token.
pub(super) fn of(rows: &[&Row]) -> Result<Option<Ladder>, LadderError> {
    let rung = |row: &&Row| {
        let flops_per_token = row.flops_per_token?;
        Some(Rung { parameters: row.observation.parameters, flops_per_token })
    };
    let rungs: Vec<Rung> = rows.iter().filter_map(rung).collect();
    if rungs.is_empty() { Ok(None) } else { Ladder::new(&rungs).map(Some) }
}

/// One view a budget; empty for laws that are not laws of N and D.
pub(super) fn along(ladder: &Ladder, inference: &Inference) -> Vec<LadderView> {
    let (_, largest) = inference.ranges.flops;
    let found = BUDGETS.iter().filter_map(|factor| ladder.estimate(inference, factor * largest));
    found.map(|one| ladder_view(&one)).collect()
}
