//! How the API says no.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// A stable word: `invalid_spec`, `missing_sources`, `not_found`, `bad_request`, `forbidden`,
    /// `read_only`, `conflict` or `internal`.
    pub code: String,
    /// One line for people: the field, the value and what would be valid.
    pub message: String,
}

/// What serves the API.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HealthView {
    /// The coordinator's version.
    pub version: String,
    /// The number of the store's newest migration.
    pub schema_version: i64,
    /// Whether it refuses every change.
    pub is_read_only: bool,
    /// Its process on its machine: tells a coordinator from another one at the same address.
    pub pid: u32,
    /// How many workers are registered and seen within two lease terms.
    pub n_live_workers: u64,
}

/// What begins a browser's session.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SignIn {
    /// The coordinator's token.
    pub token: String,
}

impl std::fmt::Debug for SignIn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // A secret is not written into logs.
        f.debug_struct("SignIn").finish_non_exhaustive()
    }
}
