//! The training of a language model from scratch: the loop.
//!
//! What one update is stands in `learner`, where a run begins in `resume`, what the assignment asks
//! for in `plan`, what is measured in `metrics`, how checkpoints leave the device in `snapshot` and
//! are written in `saver`.

mod average;
mod learner;
mod metrics;
mod plan;
mod resume;
mod saver;
mod snapshot;

use std::time::Duration;

use domain::attempt::AttemptEnd;
use domain::recipe::PretrainCell;
use domain::stability::Verdict;
use proto::from_wire::required;
use proto::v1::{self, event::Kind};
use tch::Device;

use super::prepare::TRAINING_FILE;
use super::{Context, Outcome, RecipeError, chain, peak};
use crate::artifacts::Artifacts;
use crate::clock::Monotonic;
use crate::data::{Batches, DataError, Shard};
use crate::trainer::Demand;
use learner::Learner;
use metrics::{Measured, PeakRate, Times};
use plan::Plan;
use saver::Saver;

/// Trains one run, from its newest valid checkpoint if it has one, to its last step.
pub(super) fn train(context: &mut Context<'_>, work: &v1::Train) -> Result<Outcome, RecipeError> {
    let plan = Plan::new(context, work)?;
    metrics::forget_peak_memory(plan.device)?;
    torch_ext::set_intra_op_threads(plan.numerics.intra_op_threads as usize)?;
    let manifest = required(work.data_manifest.as_ref(), "train.data_manifest")?;
    let shard = open_data(context.artifacts, manifest, &plan.cell, TRAINING_FILE)?;
    let training = &plan.cell.training;
    let mut batches =
        Batches::new(shard, training.sequence_length, training.batch_sequences, training.seed)?;
    say_epochs(&batches, &plan);
    let (mut learner, first_step) = resume::resume(context, &plan, &work.checkpoints)?;
    run(context, &plan, &mut batches, &mut learner, first_step)
}

/// Text that is read again teaches less than new text, and nobody sees it in a loss.
fn say_epochs(batches: &Batches, plan: &Plan) {
    let training = &plan.cell.training;
    let n_sequences = plan.cell.steps.saturating_mul(u64::from(training.batch_sequences));
    let epochs = n_sequences as f64 / batches.n_windows() as f64;
    if epochs > 1.0 {
        tracing::warn!("the run reads its training text {epochs:.1} times");
    }
}

fn run(
    context: &mut Context<'_>,
    plan: &Plan,
    batches: &mut Batches,
    learner: &mut Learner,
    first_step: u64,
) -> Result<Outcome, RecipeError> {
    let rate = peak::flops_per_second(plan.cell.training.precision, plan.device)?;
    if plan.device != Device::Cpu {
        // What was multiplied for that is no memory of the run.
        torch_ext::release_device_memory(plan.device)?;
        metrics::forget_peak_memory(plan.device)?;
    }
    let artifacts = context.artifacts;
    std::thread::scope(|scope| {
        let run = Run {
            context,
            plan,
            learner,
            saver: Saver::new(scope, artifacts, plan),
            peak: PeakRate { flops_per_second: rate },
            began: Monotonic::start(),
            since_checkpoint: Monotonic::start(),
            stall: Duration::ZERO,
        };
        run.finish(batches, first_step)
    })
}

/// A run in the middle of its training.
struct Run<'run, 'context, 'scope, 'env> {
    context: &'run mut Context<'context>,
    plan: &'run Plan,
    learner: &'run mut Learner,
    saver: Saver<'scope, 'env>,
    peak: PeakRate,
    began: Monotonic,
    since_checkpoint: Monotonic,
    /// How long a checkpoint held the training up after the latest step.
    stall: Duration,
}

impl Run<'_, '_, '_, '_> {
    fn finish(mut self, batches: &mut Batches, first: u64) -> Result<Outcome, RecipeError> {
        let ended = self.steps(batches, first);
        // Whatever ended the steps, a checkpoint that is whole is told of.
        let saved = self.report_saved();
        let needs_it = |outcome: &Outcome| {
            matches!(outcome.end, AttemptEnd::Succeeded | AttemptEnd::Preempted)
        };
        match (ended, saved) {
            (Ok(outcome), Err(error)) if needs_it(&outcome) => Err(error),
            (ended, Err(error)) => {
                self.context.report.log("error", chain(&error));
                ended
            }
            (ended, Ok(())) => ended,
        }
    }

    /// The steps up to the last, or to the one that ends the attempt.
    fn steps(&mut self, batches: &mut Batches, first: u64) -> Result<Outcome, RecipeError> {
        for step in first..self.plan.cell.steps {
            if let Some(outcome) = self.step(batches, step)? {
                return Ok(outcome);
            }
        }
        Ok(Outcome::of(AttemptEnd::Succeeded))
    }

    /// One step and, if it is due, the beginning of its checkpoint; the outcome if it is the last.
    fn step(&mut self, batches: &mut Batches, step: u64) -> Result<Option<Outcome>, RecipeError> {
        let watch = Monotonic::start();
        let batch = batches.load(step)?;
        let data_wait = elapsed(watch);
        let losses = self.learner.accumulate(&batch)?;
        let (loss_nats, gradient_norm) = learner::read_step(&losses, &self.learner.clip()?)?;
        let verdict = self.learner.judge(loss_nats, gradient_norm);
        let n_skipped_steps = self.learner.n_skipped_steps();
        let measured = Measured { loss_nats, gradient_norm, n_skipped_steps };
        let done = step + 1;
        match verdict {
            Verdict::Update => self.learner.update(self.plan.cell.learning_rate(step))?,
            Verdict::Skip { reason } => {
                let text = format!("step {done} is passed over: {reason}");
                self.context.report.log("warn", text);
            }
            Verdict::Diverge { reason } => return Ok(Some(self.diverged(done, measured, &reason))),
        }
        let (step, since_first_step) = (elapsed(watch), elapsed(self.began));
        // The point waits for what follows its step: no step follows the last checkpoint.
        let ended = self.after(done);
        let times = Times { step, data_wait, checkpoint_stall: self.stall, since_first_step };
        let point = self.plan.point(done, measured, Some(times), self.peak);
        self.context.report.event(point);
        ended
    }

    /// What lies between two steps.
    fn after(&mut self, done: u64) -> Result<Option<Outcome>, RecipeError> {
        self.stall = Duration::ZERO;
        if let Some(saved) = self.saver.poll()? {
            self.context.report.event(Kind::Checkpoint(saved));
        }
        let demand = self.context.demand();
        if demand == Some(Demand::Stop) {
            return Ok(Some(Outcome::of(AttemptEnd::Cancelled)));
        }
        let since = self.since_checkpoint;
        let is_rolling_due = self.plan.rolling.is_some_and(|rolling| elapsed(since) >= rolling);
        if self.plan.needs_checkpoint(done) || is_rolling_due || demand.is_some() {
            let watch = Monotonic::start();
            // The last update has no loss after it that would tell, and a rolling checkpoint that
            // is not finite would only be trained on.
            if !self.learner.has_finite_weights()? {
                return Ok(Some(broken_weights(self.context, done)));
            }
            // A slower disk than training holds the training up, rather than the memory.
            self.report_saved()?;
            self.saver.begin(self.learner.snapshot(self.plan, done)?)?;
            self.since_checkpoint = Monotonic::start();
            self.stall = elapsed(watch);
        }
        let is_preempted = demand.is_some() && done < self.plan.cell.steps;
        Ok(is_preempted.then(|| Outcome::of(AttemptEnd::Preempted)))
    }

    /// Waits for the checkpoint that is being written, and tells of it.
    fn report_saved(&mut self) -> Result<(), RecipeError> {
        if let Some(saved) = self.saver.wait()? {
            self.context.report.event(Kind::Checkpoint(saved));
        }
        Ok(())
    }

    /// The end of a run that cannot go on. The point is reported, the update is not made.
    fn diverged(&mut self, done: u64, measured: Measured, reason: &str) -> Outcome {
        let point = self.plan.point(done, measured, None, self.peak);
        self.context.report.event(point);
        let message = format!("step {done}: {reason}");
        self.context.report.log("error", message.clone());
        Outcome { end: AttemptEnd::Diverged, message }
    }
}

fn elapsed(since: Monotonic) -> Duration {
    since.instant(0).elapsed()
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
