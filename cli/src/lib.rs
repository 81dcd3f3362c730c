//! The command line of Gradus: it asks the coordinator's HTTP API and shows what it answers.
//!
//! It knows neither SQL nor gRPC nor tensors. Data goes to standard output, the rest to standard
//! error.

pub mod args;
pub mod failure;

pub mod commands;

pub mod figure;
pub mod fit_document;
pub mod output;
pub mod plot;

mod client;
mod local;
mod locate;
mod processes;
mod progress;
mod sources;
mod weights;
