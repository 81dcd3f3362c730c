//! Submitting a study.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::PlanView;

/// A study file with the hashes of the sources it names. `POST /studies` and `POST /plan`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApplyRequest {
    /// The text of the study file.
    pub spec_text: String,
    /// Its name, for errors.
    pub spec_file: String,
    /// The files of each corpus, in the study file's order.
    pub sources: Vec<CorpusSources>,
}

/// The files that a corpus's patterns match, ordered by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CorpusSources {
    /// The corpus's name in the study file.
    pub corpus: String,
    /// Its files.
    pub files: Vec<SourceFile>,
}

/// One source file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SourceFile {
    /// Its name, for people.
    pub name: String,
    /// BLAKE3 of its bytes, hexadecimal.
    pub hash: String,
    /// Its size.
    pub n_bytes: u64,
}

/// The answer to `POST /sources/missing`: which of the given hashes the store lacks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SourceHashes {
    /// BLAKE3 hashes, hexadecimal.
    pub hashes: Vec<String>,
}

/// The answer to an applied study.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct ApplyView {
    /// The study's identifier.
    pub study_id: String,
    /// The study's name.
    pub study: String,
    /// Whether the study was there before.
    pub is_update: bool,
    /// Runs that this made.
    pub n_new_runs: u64,
    /// Cells whose run was there already, from this or another study.
    pub n_reused_runs: u64,
    /// Of those, how many have their result.
    pub n_reused_succeeded: u64,
    /// Data points that the study asks of those which have passed them without a checkpoint: they
    /// are never measured.
    pub n_missed_data_points: u64,
    /// Cells that the study had before and has no longer; their runs stay, cancelled if nobody
    /// else wants them.
    pub n_removed_cells: u64,
    /// The plan that was applied.
    pub plan: PlanView,
}
