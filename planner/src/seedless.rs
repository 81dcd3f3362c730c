//! A cell but for its seed: what its repetitions have in common, worked out once.
//!
//! A study of a million runs is a few configurations with many seeds.

use domain::cell::IdentityError;
use domain::recipe::{CellConfig, PretrainCell};
use domain::spec::{FlopKind, ParameterKind, PretrainSpec, RuntimeSpec};

use crate::design::data_point_steps;

/// What cells share that differ in nothing but their seed.
#[derive(Debug, PartialEq)]
pub struct Seedless {
    /// What they train, with 0 in the seed's place.
    pub config: CellConfig,
    /// The budget they belong to, for isoFLOP designs.
    pub budget_flops: Option<f64>,
    /// The steps (counted from 1) that leave a data-point checkpoint, ascending; the last step is
    /// always one of them.
    pub data_point_steps: Vec<u64>,
    /// Estimated peak memory of training in bytes, beside libtorch itself.
    pub memory_bytes: u64,
    /// N without embeddings and head.
    pub parameters_non_embedding: u64,
    /// N with everything.
    pub parameters_total: u64,
    /// C of the whole run by the tensor shapes, head included.
    pub flops_exact: f64,
    /// C of the whole run by the published closed form, without the head.
    pub flops_published: f64,
    /// Kept where several cells share it: a study of as many texts as cells would hold them all.
    text: Option<AroundSeed>,
}

impl Seedless {
    /// Of a cell of one budget, if it has one; `is_repeated` says that other seeds share it.
    pub(crate) fn new(
        mut cell: PretrainCell,
        budget_flops: Option<f64>,
        (pretrain, runtime): (&PretrainSpec, &RuntimeSpec),
        is_repeated: bool,
    ) -> Result<Self, IdentityError> {
        cell.training.seed = 0;
        let sequences = cell.training.batch_sequences;
        let micro_batch = runtime.micro_batch_sequences.unwrap_or(sequences).min(sequences);
        Ok(Self {
            budget_flops,
            data_point_steps: data_point_steps(&pretrain.checkpoints, cell.steps),
            memory_bytes: cell.memory(micro_batch).total(),
            parameters_non_embedding: cell.parameters(ParameterKind::NonEmbedding),
            parameters_total: cell.parameters(ParameterKind::Total),
            flops_exact: cell.flops_at(cell.steps, FlopKind::Exact),
            flops_published: cell.flops_at(cell.steps, FlopKind::Published),
            text: if is_repeated { AroundSeed::of(&cell)? } else { None },
            config: CellConfig::Pretrain(cell),
        })
    }

    /// N.
    pub(crate) fn parameters(&self, kind: ParameterKind) -> u64 {
        match kind {
            ParameterKind::NonEmbedding => self.parameters_non_embedding,
            ParameterKind::Total => self.parameters_total,
        }
    }

    /// What the cell with this seed trains.
    pub(crate) fn with_seed(&self, seed: u32) -> CellConfig {
        let CellConfig::Pretrain(cell) = &self.config;
        let mut cell = cell.clone();
        cell.training.seed = seed;
        CellConfig::Pretrain(cell)
    }

    /// The canonical text of the cell with this seed.
    pub(crate) fn canonical_json(&self, seed: u32) -> Result<String, IdentityError> {
        match &self.text {
            Some(text) => Ok(text.with(seed)),
            None => Ok(self.with_seed(seed).identity()?.canonical_json),
        }
    }
}

/// A canonical text up to the seed and from there on.
#[derive(Debug, PartialEq, Eq)]
struct AroundSeed {
    before: String,
    after: String,
}

impl AroundSeed {
    /// None where the seed's place is not certain.
    fn of(cell: &PretrainCell) -> Result<Option<Self>, IdentityError> {
        let mut cell = cell.clone();
        cell.training.seed = u32::MAX;
        let text = CellConfig::Pretrain(cell).identity()?.canonical_json;
        // Inside a string the quotation marks would be escaped, so this can only be a key.
        let key = "\"seed\":";
        let seed = format!("{key}{}", u32::MAX);
        let Some((before, after)) = text.split_once(&seed) else { return Ok(None) };
        let is_certain = !after.contains(&seed);
        Ok(is_certain.then(|| Self { before: format!("{before}{key}"), after: after.to_owned() }))
    }

    fn with(&self, seed: u32) -> String {
        let Self { before, after } = self;
        format!("{before}{seed}{after}")
    }
}
