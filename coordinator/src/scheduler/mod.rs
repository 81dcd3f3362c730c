//! Which ready work goes to which free slot, and the one loop that makes it so.
//!
//! `policy` decides and knows neither time nor store; `tick` carries out and decides nothing.

pub mod explain;
pub mod policy;
pub mod tick;
