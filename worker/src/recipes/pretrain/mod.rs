//! The training of a language model from scratch: the loop.
//!
//! What one update is stands in `learner`, where a run begins in `resume`, what the assignment asks
//! for in `plan`.

mod learner;
mod plan;
mod resume;

use std::time::Duration;

use domain::attempt::AttemptEnd;
use domain::recipe::PretrainCell;
use proto::from_wire::required;
use proto::v1::{self, event::Kind};

use super::prepare::TRAINING_FILE;
use super::{Context, Outcome, RecipeError};
use crate::artifacts::Artifacts;
use crate::clock::Monotonic;
use crate::data::{Batches, DataError, Shard};
use crate::trainer::Demand;
use learner::Learner;
use plan::Plan;

/// Trains one run, from its newest valid checkpoint if it has one, to its last step.
pub(super) fn train(context: &mut Context<'_>, work: &v1::Train) -> Result<Outcome, RecipeError> {
    let plan = Plan::new(context, work)?;
    torch_ext::set_intra_op_threads(plan.numerics.intra_op_threads as usize)?;
    let manifest = required(work.data_manifest.as_ref(), "train.data_manifest")?;
    let shard = open_data(context.artifacts, manifest, &plan.cell, TRAINING_FILE)?;
    let training = &plan.cell.training;
    let mut batches =
        Batches::new(shard, training.sequence_length, training.batch_sequences, training.seed)?;
    let mut learner = Learner::new(&plan)?;
    let first_step = resume::resume(context, &plan, &work.checkpoints, &mut learner)?;
    run(context, &plan, &mut batches, &mut learner, first_step)
}

fn run(
    context: &mut Context<'_>,
    plan: &Plan,
    batches: &mut Batches,
    learner: &mut Learner,
    first_step: u64,
) -> Result<Outcome, RecipeError> {
    let mut since_checkpoint = Monotonic::start();
    for step in first_step..plan.cell.steps {
        let watch = Monotonic::start();
        let batch = batches.load(step)?;
        let loss_nats = learner.accumulate(&batch)?;
        let gradient_norm = learner.clip()?;
        if !(loss_nats.is_finite() && gradient_norm.is_finite()) {
            return Ok(diverged(context, plan, step, loss_nats, gradient_norm));
        }
        learner.update(plan.cell.learning_rate(step))?;

        let done = step + 1;
        let seconds = watch.instant(0).elapsed().as_secs_f64();
        context.report.event(plan.point(done, loss_nats, gradient_norm, Some(seconds)));
        let demand = context.demand();
        if demand == Some(Demand::Stop) {
            return Ok(Outcome::of(AttemptEnd::Cancelled));
        }
        let is_rolling_due =
            plan.rolling.is_some_and(|rolling| elapsed(since_checkpoint) >= rolling);
        if plan.is_data_point(done) || is_rolling_due || demand.is_some() {
            // The last update has no loss after it that would tell, and a rolling checkpoint that
            // is not finite would only be trained on.
            if !learner.has_finite_weights()? {
                return Ok(broken_weights(context, done));
            }
            save(context, plan, learner, done)?;
            since_checkpoint = Monotonic::start();
        }
        if demand.is_some() && done < plan.cell.steps {
            return Ok(Outcome::of(AttemptEnd::Preempted));
        }
    }
    Ok(Outcome::of(AttemptEnd::Succeeded))
}

fn elapsed(since: Monotonic) -> Duration {
    since.instant(0).elapsed()
}

fn save(
    context: &mut Context<'_>,
    plan: &Plan,
    learner: &Learner,
    step: u64,
) -> Result<(), RecipeError> {
    let checkpoint = learner.checkpoint(plan, step)?;
    let prefix = format!("{}{step}/", plan.key_prefix);
    let saved = checkpoint
        .save(context.artifacts, &prefix, &plan.cell.model, plan.is_data_point(step))
        .map_err(|source| RecipeError::Save { step, source })?;
    context.report.event(Kind::Checkpoint(saved));
    Ok(())
}

/// The end of a run whose loss or gradient is not finite. The point is reported, the update is not
/// made.
fn diverged(
    context: &mut Context<'_>,
    plan: &Plan,
    step: u64,
    loss_nats: f64,
    gradient_norm: f64,
) -> Outcome {
    let done = step + 1;
    context.report.event(plan.point(done, loss_nats, gradient_norm, None));
    let message =
        format!("step {done}: the loss is {loss_nats} and the gradient's norm {gradient_norm}");
    context.report.log("error", message.clone());
    Outcome { end: AttemptEnd::Diverged, message }
}

/// The end of a run whose update left weights that are not finite. There is no checkpoint of them.
fn broken_weights(context: &mut Context<'_>, done: u64) -> Outcome {
    let message = format!("step {done}: the weights are not finite after the update");
    context.report.log("error", message.clone());
    Outcome { end: AttemptEnd::Diverged, message }
}

/// A shard of the data that a cell is trained and evaluated on, by its name in the manifest.
pub(super) fn open_data(
    artifacts: &Artifacts,
    manifest_reference: &v1::ArtifactRef,
    cell: &PretrainCell,
    name: &str,
) -> Result<Shard, RecipeError> {
    let manifest = artifacts.manifest(manifest_reference).map_err(RecipeError::DataArtifact)?;
    let data = manifest.data(&manifest_reference.key).map_err(RecipeError::DataArtifact)?;
    if data.preparation_hash != cell.preparation_hash {
        let (expected, found) = (cell.preparation_hash.clone(), data.preparation_hash.clone());
        return Err(DataError::OtherPreparation { expected, found }.into());
    }
    let model = cell.model.shape.vocab_size;
    if data.vocab_size > model {
        return Err(DataError::Vocabulary { data: data.vocab_size, model }.into());
    }
    let file = manifest.file(name).map_err(RecipeError::DataArtifact)?;
    let path = artifacts.fetch(&file).map_err(RecipeError::DataArtifact)?;
    Ok(Shard::open(&path)?)
}
