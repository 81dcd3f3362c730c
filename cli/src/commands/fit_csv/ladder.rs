//! The best N and D of a budget along the sizes of the file, where a column has the FLOPs of one
//! token.
//!
//! The search itself is `scaling::ladder`.

use anyhow::Context;
use scaling::interval::Inference;
use scaling::ladder::{Ladder, Rung};

use super::read::Row;
use crate::fit_document::estimate_view;
use crate::output::file_fit::LadderView;

/// Budgets, over the largest fitted C.
const BUDGETS: [f64; 2] = [1.0, 10.0];

/// One view a budget; empty without a column of FLOPs for a token, or for laws that are not laws of
/// N and D.
pub(super) fn along(rows: &[&Row], inference: &Inference) -> anyhow::Result<Vec<LadderView>> {
    let rung = |row: &&Row| {
        let flops_per_token = row.flops_per_token?;
        Some(Rung { parameters: row.observation.parameters, flops_per_token })
    };
    let rungs: Vec<Rung> = rows.iter().filter_map(rung).collect();
    if rungs.is_empty() {
        return Ok(Vec::new());
    }
    let ladder = Ladder::new(&rungs).context("`--flops-per-token`")?;
    let (_, largest) = inference.ranges.flops;
    let found = BUDGETS.iter().filter_map(|factor| ladder.estimate(inference, factor * largest));
    Ok(found
        .map(|one| LadderView {
            flops: one.flops,
            parameters: estimate_view(&one.parameters),
            tokens: estimate_view(&one.tokens),
            loss_nats: estimate_view(&one.loss_nats),
            rung_parameters: one.rung_parameters,
            share_at_end: one.share_at_end,
        })
        .collect())
}
