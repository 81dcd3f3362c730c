//! Whether a store is sound.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What the checker of the invariants found. `gradus doctor --deep` asks for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CheckView {
    /// How many pieces of work were looked at.
    pub n_work: u64,
    /// How many attempts were.
    pub n_attempts: u64,
    /// The broken invariants; empty in a sound store.
    pub violations: Vec<ViolationView>,
}

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ViolationView {
    /// Its number, such as `INV-1`.
    pub invariant: String,
    /// The rule in a sentence.
    pub rule: String,
    /// Whose.
    pub subject: String,
    /// What was found.
    pub found: String,
}
