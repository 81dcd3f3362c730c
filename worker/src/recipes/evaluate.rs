//! The validation loss of a checkpoint's weights.
//!
//! It trains nothing, and always computes in float32.

use domain::attempt::AttemptEnd;
use domain::cell::Identity;
use domain::recipe::{CellConfig, EvaluationConfig, PretrainCell, VALIDATION_LOSS_VERSION};
use domain::spec::EvaluationTask;
use models::LanguageModel;
use proto::from_wire::required;
use proto::v1::{self, event::Kind};
use tch::{Kind as ElementKind, Tensor};

use super::prepare::VALIDATION_FILE;
use super::pretrain::open_data;
use super::{Context, Outcome, RecipeError};
use crate::checkpoint::{self, CheckpointError};
use crate::data::{DataError, Shard};

/// What is measured.
const RESULT_NAME: &str = "validation_loss_nats";

/// So many logits or fewer have the sequences that are read together, but for one that alone has more;
/// of these, slices are in memory. The number of sequences depends on the shapes alone, so that the
/// rounding does too.
const MAX_LOGITS: u64 = 1 << 23;
/// At most so many sequences at a time: more gain nothing on a CPU.
const MAX_SEQUENCES: u64 = 16;

/// Measures the task on the checkpoint and reports the result.
pub(super) fn evaluate(
    context: &mut Context<'_>,
    work: &v1::Evaluate,
) -> Result<Outcome, RecipeError> {
    let config: EvaluationConfig = Identity::parse(&work.config_json)?;
    let CellConfig::Pretrain(cell) = Identity::parse(&work.cell_config_json)?;
    check_task(&config)?;
    context.start()?;
    let manifest = required(work.data_manifest.as_ref(), "evaluate.data_manifest")?;
    let shard = open_data(context.artifacts, manifest, &cell, VALIDATION_FILE)?;
    let n_windows = n_windows(&shard, &config)?;
    let model = load_model(context, work, &config, &cell)?;
    let mut losses = Losses::new(config.sequence_length);
    let n_logits = u64::from(config.sequence_length) * u64::from(cell.model.shape.vocab_size);
    let at_a_time = (MAX_LOGITS / n_logits.max(1)).clamp(1, MAX_SEQUENCES);
    let mut first = 0;
    while first < n_windows {
        if let Some(outcome) = context.interruption() {
            return Ok(outcome);
        }
        let end = (first + at_a_time).min(n_windows);
        let mut ids = Vec::new();
        for window in first..end {
            shard.read_window(window, config.sequence_length, &mut ids)?;
        }
        losses.add(&model, &ids)?;
        first = end;
    }
    Ok(finish(context, &losses))
}

fn check_task(config: &EvaluationConfig) -> Result<(), RecipeError> {
    let task = EvaluationTask::ValidationLoss.label();
    if config.task != task {
        return Err(RecipeError::UnknownTask { task: config.task.clone() });
    }
    if config.task_version != VALIDATION_LOSS_VERSION {
        return Err(RecipeError::Version {
            what: format!("the task `{task}`"),
            expected: config.task_version,
            found: VALIDATION_LOSS_VERSION,
        });
    }
    Ok(())
}

fn n_windows(shard: &Shard, config: &EvaluationConfig) -> Result<u64, DataError> {
    let sequence_length = config.sequence_length;
    let all = shard.n_windows(sequence_length);
    if all == 0 {
        let n_tokens = shard.n_tokens();
        return Err(DataError::TooShort { split: "validation", n_tokens, sequence_length });
    }
    Ok(config.sequences.map_or(all, |limit| all.min(u64::from(limit))))
}

fn load_model(
    context: &Context<'_>,
    work: &v1::Evaluate,
    config: &EvaluationConfig,
    cell: &PretrainCell,
) -> Result<LanguageModel, RecipeError> {
    let manifest = required(work.checkpoint_manifest.as_ref(), "evaluate.checkpoint_manifest")?;
    let weights = checkpoint::load_weights(context.artifacts, manifest, &config.weights_hash)
        .map_err(RecipeError::Checkpoint)?;
    let mut model = LanguageModel::new(&cell.model, context.host.compute.device, 0)?;
    model
        .load(&weights)
        .map_err(|source| RecipeError::Checkpoint(CheckpointError::Weights(source)))?;
    Ok(model)
}

/// The mean loss of each sequence, in nats per token.
struct Losses {
    sequence_length: i64,
    of_sequences: Vec<f64>,
}

impl Losses {
    fn new(sequence_length: u32) -> Self {
        Self { sequence_length: i64::from(sequence_length), of_sequences: Vec::new() }
    }

    /// Adds the sequences whose ids, with their last targets, stand one after the other.
    fn add(&mut self, model: &LanguageModel, ids: &[i64]) -> Result<(), RecipeError> {
        let t = self.sequence_length;
        let rows = Tensor::f_from_slice(ids)?.f_to_device(model.device())?;
        let rows = rows.f_view([-1, t + 1])?; // [B, T + 1]
        let nats = model.nats(&rows.f_narrow(1, 0, t)?, &rows.f_narrow(1, 1, t)?); // [B, T]
        let of_rows =
            nats.f_to_kind(ElementKind::Double)?.f_mean_dim(1, false, ElementKind::Double)?; // [B]
        self.of_sequences.extend(Vec::<f64>::try_from(&of_rows)?);
        Ok(())
    }

    /// The mean over all sequences, which are equally long.
    fn mean(&self) -> f64 {
        self.of_sequences.iter().sum::<f64>() / self.of_sequences.len() as f64
    }

    /// The standard error of the mean over sequences; one sequence has none.
    fn standard_error(&self) -> Option<f64> {
        let n = self.of_sequences.len() as f64;
        let mean = self.mean();
        let squares: f64 = self.of_sequences.iter().map(|loss| (loss - mean).powi(2)).sum();
        (n > 1.0).then(|| (squares / (n - 1.0) / n).sqrt())
    }
}

fn finish(context: &mut Context<'_>, losses: &Losses) -> Outcome {
    let value = losses.mean();
    let n_tokens = losses.of_sequences.len() as u64 * losses.sequence_length.unsigned_abs();
    context.report.event(Kind::Evaluation(v1::EvaluationResult {
        name: RESULT_NAME.to_owned(),
        value,
        standard_error: losses.standard_error(),
        n_tokens,
    }));
    if value.is_finite() {
        return Outcome::of(AttemptEnd::Succeeded);
    }
    let message = format!("the validation loss is {value}");
    context.report.log("error", message.clone());
    Outcome { end: AttemptEnd::Diverged, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_and_standard_error_are_those_of_the_sequences() {
        let losses = Losses { sequence_length: 4, of_sequences: vec![1.0, 2.0, 3.0, 6.0] };
        assert_eq!(losses.mean(), 3.0);
        let variance: f64 = (4.0 + 1.0 + 0.0 + 9.0) / 3.0;
        assert_eq!(losses.standard_error(), Some((variance / 4.0).sqrt()));
        let one = Losses { sequence_length: 4, of_sequences: vec![1.0] };
        assert_eq!(one.standard_error(), None);
    }
}
