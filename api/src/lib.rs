//! The view types of the HTTP API under `/api/v1`: what the coordinator answers, what the command
//! line's `--json` prints, and what the dashboard reads. Stable: a field is added, never changed.
//!
//! It holds no logic and knows neither SQL nor HTTP.
//!
//! Times are `…_at_ms`, milliseconds since the Unix epoch. Losses are nats per token. N counts
//! parameters without embeddings unless the name says `total`.

mod apply;
mod check;
mod comparison;
mod error;
mod event;
mod explain;
mod fit;
mod fit_query;
mod history;
mod plan;
mod run;
mod store;
mod study;
mod worker;

pub use apply::*;
pub use check::*;
pub use comparison::*;
pub use error::*;
pub use event::*;
pub use explain::*;
pub use fit::*;
pub use fit_query::*;
pub use history::*;
pub use plan::*;
pub use run::*;
pub use store::*;
pub use study::*;
pub use worker::*;
