//! What a study is: identifiers, the study file, cells and their identity, the states that runs,
//! attempts, leases and studies go through, and the counting of parameters and FLOPs.
//!
//! It knows no clock, no randomness, no file, no network and no tensor: the time and the seed are
//! arguments. The modules stand in reading order.

pub mod attempt;
pub mod cell;
pub mod ids;
pub mod invariant;
pub mod lease;
pub mod memory;
pub mod model;
pub mod planted;
pub mod recipe;
pub mod run;
pub mod spec;
pub mod stability;
pub mod study;
pub mod suggest;
pub mod tokens;
pub mod worker;
