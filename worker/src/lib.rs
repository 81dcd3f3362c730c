//! The program on a machine that carries out assignments: an agent, which speaks with the
//! coordinator, and its trainer children, which compute.
//!
//! The agent makes no libtorch call. What needs libtorch is behind the feature `torch`, so that
//! whole clusters can be tested with the fake trainer. Read `cli` first, then `agent` and `attempt`,
//! then `trainer`.

pub mod agent;
pub mod artifacts;
pub mod attempt;
#[cfg(feature = "torch")]
pub mod checkpoint;
pub mod child;
pub mod cli;
pub mod client;
pub mod clock;
#[cfg(feature = "torch")]
pub mod commands;
#[cfg(feature = "torch")]
pub mod compute_device;
pub mod config;
#[cfg(feature = "torch")]
pub mod data;
pub mod device;
pub mod fake_trainer;
pub mod pipe;
#[cfg(feature = "torch")]
pub mod recipes;
mod signals;
#[cfg(feature = "torch")]
pub mod trainer;
