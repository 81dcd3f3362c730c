//! What a study is: identifiers, the study file, cells and their identity, the states that runs,
//! attempts, leases and studies go through, and the counting of parameters and FLOPs.
//!
//! It knows no clock, no randomness, no file, no network and no tensor: the time and the seed are
//! arguments. The modules stand in reading order.

pub mod ids;
pub mod model;
pub mod spec;
pub mod recipe;
pub mod cell;
pub mod lease;
pub mod attempt;
pub mod run;
pub mod study;
pub mod suggest;
