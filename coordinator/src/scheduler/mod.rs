//! Which ready work goes to which free slot, and the one loop that makes it so.
//!
//! `policy` decides and knows neither time nor store; `turns` says which study is next, `fit` which
//! machines suit, `seats` which slots are taken and kept; `tick` carries out and decides nothing.

pub mod explain;
pub mod fit;
pub mod policy;
pub mod seats;
pub mod tick;
pub mod turns;
