//! The loss of a fake run: a law that a fit can find again.
//!
//! It knows no noise; the state adds it.

use domain::recipe::PretrainCell;
use domain::spec::ParameterKind;

/// L = E + A/N^α + B/D^β with the coefficients of Hoffmann et al. 2022 (arXiv:2203.15556),
/// equation 10.
const IRREDUCIBLE: f64 = 1.69;
const A: f64 = 406.4;
const ALPHA: f64 = 0.34;
const B: f64 = 410.7;
const BETA: f64 = 0.28;

/// The loss in nats after `step` steps.
pub(super) fn loss_nats(cell: &PretrainCell, step: u64) -> f64 {
    let parameters = cell.parameters(ParameterKind::NonEmbedding) as f64;
    let tokens = cell.tokens_at(step.max(1)) as f64;
    IRREDUCIBLE + A / parameters.powf(ALPHA) + B / tokens.powf(BETA)
}
