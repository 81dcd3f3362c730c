//! Owns the arithmetic of scaling studies: designs, laws, fits, intervals and comparisons, in plain `f64`.
//! Does not read files, know the time or use threads; a seed is an argument, so equal inputs give equal bits.
//!
//! Letters: N parameters (without embeddings), D training tokens, C FLOPs, L loss in nats per token.
//! `docs/concepts/fitting.md` holds the formulas, the objective and what *not identified* means.

pub mod observation;

pub mod design;

pub mod law;

pub mod fit;

pub mod identify;

pub mod interval;

pub mod envelope;

pub mod isoflop;

pub mod compare;

mod algebra;
mod minimize;
mod random;

#[cfg(test)]
mod planted;
