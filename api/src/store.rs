//! What `gradus store` says of a store that it copied.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// A store copied to another place, or what a copy would do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct StoreCopyView {
    /// Where it was copied from, without a password.
    pub from: String,
    /// Where it was copied to, without a password.
    pub to: String,
    /// Whether nothing was written.
    pub is_dry_run: bool,
    /// Every table with its rows.
    pub tables: Vec<TableRowsView>,
    /// The folder with the artifacts of the source, which are not copied; absent for a store on a
    /// server, whose coordinators are told by `--artifacts`.
    pub artifacts: Option<String>,
}

/// A table with its rows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TableRowsView {
    /// The table's name.
    pub name: String,
    /// How many rows were copied.
    pub n_rows: u64,
}
