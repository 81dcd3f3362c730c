//! What a plan is, and how it is made.

use std::collections::BTreeMap;

use domain::cell::Identity;
use domain::ids::{PreparationId, RunId};
use domain::recipe::{CellConfig, PreparationConfig};
use domain::spec::{ParsedSpec, SpecError};

use crate::CorpusHashes;

/// A planned study.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// The study's name.
    pub study: String,
    /// The stage's name.
    pub stage: String,
    /// The names of the axes in order.
    pub axes: Vec<String>,
    /// The data that every cell needs.
    pub preparation: PlannedPreparation,
    /// The cells in the order of the axes, and within that of the budgets.
    pub cells: Vec<PlannedCell>,
    /// What was left out and why.
    pub dropped: Vec<DroppedCell>,
}

/// The data preparation of a study.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedPreparation {
    /// Its identifier, made from the hash.
    pub id: PreparationId,
    /// Its key.
    pub identity: Identity,
    /// What it makes.
    pub config: PreparationConfig,
}

/// One planned cell.
#[derive(Debug, Clone, PartialEq)]
pub struct PlannedCell {
    /// Its name within the stage.
    pub name: String,
    /// The value of each axis, as text.
    pub axis_values: BTreeMap<String, String>,
    /// The run of its identity.
    pub run_id: RunId,
    /// Its key.
    pub identity: Identity,
    /// What it trains.
    pub config: CellConfig,
    /// The budget it belongs to, for isoFLOP designs.
    pub budget_flops: Option<f64>,
    /// The steps (counted from 1) that leave a data-point checkpoint, ascending; the last step is
    /// always one of them.
    pub data_point_steps: Vec<u64>,
    /// Estimated peak memory of training in bytes, beside libtorch itself.
    pub memory_bytes: u64,
}

/// A cell that was left out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DroppedCell {
    /// Its name within the stage.
    pub name: String,
    /// Why it was left out, with the numbers.
    pub reason: String,
}
