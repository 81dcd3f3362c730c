//! Owns the arithmetic of scaling studies: designs, laws, fits, intervals and comparisons, in plain
//! `f64`. Does not read files or know the time; a seed is an argument, and threads only where the
//! caller says how many, so equal inputs give equal bits.
//!
//! Letters: N parameters (without embeddings), D training tokens, C FLOPs, L loss in nats per
//! token. `docs/concepts/fitting.md` holds the formulas, the objective and what *not identified*
//! means.

pub mod observation;

pub mod noise;

pub mod design;

pub mod law;

pub mod objective;

pub mod fit;

pub mod identify;

pub mod interval;

pub mod profile;

pub mod ladder;

pub mod envelope;

pub mod isoflop;

pub mod approach;

pub mod compare;

pub mod chain;

pub mod select;

pub mod diagnose;

pub mod refine;

pub mod outside;

mod algebra;
mod minimize;
mod random;

#[cfg(test)]
mod planted;
