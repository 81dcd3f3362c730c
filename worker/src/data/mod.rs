//! From text files to token shards, and from token shards to batches.
//!
//! It neither fetches nor publishes anything; `recipes::prepare` does. Everything here is a pure
//! function of the bytes and the configuration: the same input gives the same output on any machine
//! with any number of threads.

pub mod batches;
pub mod corpus;
pub mod encode;
mod error;
pub mod order;
pub mod shard;
pub mod split;
pub mod tokenizer;

pub use batches::{Batch, Batches};
pub use corpus::{Corpus, CorpusFile};
pub use encode::SplitTokens;
pub use error::DataError;
pub use order::Permutation;
pub use shard::Shard;
pub use split::SplitRule;
pub use tokenizer::TextTokenizer;
