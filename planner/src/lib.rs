//! From a study file to its cells: every cell with its identity, N, D, FLOPs and steps, every
//! dropped cell with its reason. Pure, so the command line and the coordinator plan alike.
//!
//! It reads no file: the hashes of the sources are arguments.

mod plan;

mod axes;
mod cell;
mod design;
mod seedless;
mod trunks;
mod warnings;

mod view;

pub use axes::Combination;
pub use plan::{DroppedCell, Plan, PlannedCell, PlannedPreparation};
pub use seedless::Seedless;
pub use trunks::PlannedTrunk;
pub use view::{cell_view, plan_outline, plan_view};

use domain::ids::ContentHash;
use domain::spec::{ParsedSpec, SpecError};

/// The path of the stage's recipe in a study file of version 1.
const AT: &str = "stages[0].recipe.pretrain";

/// The hashes of one corpus's files, ordered by file name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CorpusHashes {
    /// The corpus's name in the study file.
    pub corpus: String,
    /// The hashes of its files.
    pub file_hashes: Vec<ContentHash>,
}

/// Plans a study.
///
/// `sources` holds one entry for each corpus, in the study file's order. A study without a cell,
/// an impossible shape and a budget that no cell can meet are each a [`SpecError`] with the place.
pub fn plan(parsed: &ParsedSpec, sources: &[CorpusHashes]) -> Result<Plan, SpecError> {
    plan::plan(parsed, sources)
}

#[cfg(test)]
mod tests;
