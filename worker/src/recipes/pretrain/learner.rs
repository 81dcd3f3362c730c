//! One update: forward, loss, backward, clip, optimiser step; and everything that a checkpoint keeps
//! of it.
//!
//! It knows no schedule, no data and no files.

use std::sync::Arc;

use domain::spec::{Precision, StabilitySpec};
use domain::stability::{Stability, StabilityState, Verdict};
use models::{LanguageModel, MatmulPrecision};
use tch::{Kind, Tensor};
use torch_ext::{AdamWConfig, Event, FusedAdamW, ParameterGroup, Stream};

use super::super::RecipeError;
use super::average::WeightAverage;
use super::plan::Plan;
use super::snapshot::{Copies, Snapshot};
use crate::checkpoint::{Checkpoint, CheckpointError, State};
use crate::data::Batch;

/// A model with its optimiser.
#[derive(Debug)]
pub(super) struct Learner {
    model: LanguageModel,
    optimizer: FusedAdamW,
    micro_batch_sequences: i64,
    gradient_clip: f64,
    z_loss: f64,
    average: Option<WeightAverage>,
    stability: Stability,
    stability_spec: StabilitySpec,
    /// Until these marks a snapshot is still reading the weights and the optimiser's state.
    reads: Vec<Arc<Event>>,
}

impl Learner {
    /// The model with its first values, and an optimiser that has made no step.
    pub(super) fn new(plan: &Plan) -> Result<Self, RecipeError> {
        let training = &plan.cell.training;
        // The generator is part of the state although no layer draws from it yet.
        tch::manual_seed(i64::from(training.seed));
        let mut model =
            LanguageModel::new(&plan.cell.model, plan.device, u64::from(training.seed))?;
        model.set_precision(match training.precision {
            Precision::Fp32 => MatmulPrecision::Fp32,
            Precision::Bf16 => MatmulPrecision::Bf16,
        });
        let groups = model.decay_groups();
        let lr = plan.cell.peak_learning_rate();
        let weight_decay = training.optimizer.weight_decay;
        let groups = vec![
            ParameterGroup { parameters: groups.decay, lr, weight_decay },
            ParameterGroup { parameters: groups.no_decay, lr, weight_decay: 0.0 },
        ];
        let config = AdamWConfig {
            beta1: training.optimizer.beta1,
            beta2: training.optimizer.beta2,
            eps: training.optimizer.eps,
        };
        let weights = model.named_parameters();
        let average = training.weight_average.map(|spec| WeightAverage::new(spec, &weights));
        Ok(Self {
            model,
            optimizer: FusedAdamW::new(groups, config)?,
            micro_batch_sequences: i64::from(plan.numerics.micro_batch_sequences),
            gradient_clip: training.optimizer.gradient_clip,
            z_loss: training.z_loss,
            average: average.transpose()?,
            stability: Stability::new(training.stability, StabilityState::default()),
            stability_spec: training.stability,
            reads: Vec::new(),
        })
    }

    /// The gradients of the batch's mean objective, and what each micro-batch adds to the mean loss,
    /// without the z-loss, in nats per token; the device has not been waited for.
    ///
    /// Micro-batches add up: each adds its sum of losses over the tokens of the whole batch, so how
    /// the batch is cut changes rounding only.
    pub(super) fn accumulate(&mut self, batch: &Batch) -> Result<Vec<Tensor>, RecipeError> {
        self.optimizer.clear_gradients()?;
        let (n_sequences, row) = (i64::from(batch.n_sequences), i64::from(batch.row));
        let ids = Tensor::f_from_slice(&batch.ids)?.f_to_device(self.model.device())?;
        let ids = ids.f_view([n_sequences, row])?;
        let inputs = ids.f_narrow(1, 0, row - 1)?;
        let targets = ids.f_narrow(1, 1, row - 1)?;
        let n_tokens = (n_sequences * (row - 1)) as f64;
        let mut losses = Vec::new();
        let mut first = 0;
        while first < n_sequences {
            let count = self.micro_batch_sequences.min(n_sequences - first);
            let inputs = inputs.f_narrow(0, first, count)?;
            let targets = targets.f_narrow(0, first, count)?;
            let sums = self.model.loss_sums(&inputs, &targets, self.z_loss);
            (sums.objective / n_tokens).f_backward()?;
            losses.push(sums.nats / n_tokens);
            first += count;
        }
        Ok(losses)
    }

    /// Clips the gradient, and gives its norm before that; the device has not been waited for.
    pub(super) fn clip(&self) -> Result<Tensor, RecipeError> {
        let parameters = self.optimizer.parameters();
        Ok(torch_ext::clip_gradient_norm(&parameters, self.gradient_clip)?)
    }

    /// Makes the optimiser's step, and takes its weights into their average; when this returns, the
    /// device has done so.
    pub(super) fn update(&mut self, learning_rate: f64) -> Result<(), RecipeError> {
        let device = self.model.device();
        for read in self.reads.drain(..) {
            Stream::current(device)?.wait_for(&read)?;
        }
        self.optimizer.set_lr(learning_rate)?;
        self.optimizer.step()?;
        if let Some(average) = &mut self.average {
            average.update(&self.model.named_parameters())?;
        }
        // So that the step's time holds all of it.
        Ok(torch_ext::synchronize(device)?)
    }

    /// Whether every weight is a finite number.
    pub(super) fn has_finite_weights(&self) -> Result<bool, RecipeError> {
        Ok(are_finite(self.model.named_parameters().iter().map(|(_, weights)| weights))?)
    }

    /// Everything that is needed to go on from here, as copies that later updates leave alone.
    pub(super) fn snapshot(&mut self, plan: &Plan, step: u64) -> Result<Snapshot, RecipeError> {
        let generator_state = torch_ext::generator_state()?;
        let tokens = plan.cell.tokens_at(step);
        let state = State {
            stability: self.stability.state(),
            n_averaged: self.average.as_ref().map_or(0, WeightAverage::n_updates),
            ..State::new(step, tokens, &generator_state, &plan.numerics, &plan.owner)
        };
        let average = self.average.as_ref().map(|found| Copies::begin(found.tensors()));
        let snapshot = Snapshot {
            weights: Copies::begin(self.model.named_parameters())?,
            average: average.transpose()?,
            optimizer: Copies::begin(self.optimizer.state())?,
            state,
        };
        self.reads.extend(snapshot.reads());
        Ok(snapshot)
    }

    /// What becomes of the step whose gradients are there.
    pub(super) fn judge(&mut self, loss_nats: f64, gradient_norm: f64) -> Verdict {
        self.stability.judge(loss_nats, gradient_norm)
    }

    /// Steps passed over so far.
    pub(super) fn n_skipped_steps(&self) -> u64 {
        self.stability.n_skipped()
    }

    /// Takes a checkpoint over. What is wrong with it is found before anything is changed, but for
    /// the weights when the optimiser's state does not fit; the caller then starts afresh.
    pub(super) fn restore(&mut self, checkpoint: &Checkpoint) -> Result<(), CheckpointError> {
        let generator = checkpoint.state.generator_bytes().ok_or(CheckpointError::Generator)?;
        if let Some(average) = &mut self.average {
            let kept = checkpoint.average.as_ref().ok_or(CheckpointError::NoAverage)?;
            // Through the model, which checks the names and shapes and puts them in order.
            self.model.load(kept).map_err(CheckpointError::Weights)?;
            average.restore(&self.model.named_parameters(), checkpoint.state.n_averaged)?;
        }
        self.model.load(&checkpoint.weights).map_err(CheckpointError::Weights)?;
        self.optimizer.load_state(&checkpoint.optimizer).map_err(CheckpointError::Torch)?;
        self.stability = Stability::new(self.stability_spec, checkpoint.state.stability);
        torch_ext::set_generator_state(&generator).map_err(CheckpointError::Torch)
    }
}

/// The mean loss and the gradient's norm, by the one read of a step that waits for the device.
pub(super) fn read_step(
    losses: &[Tensor],
    gradient_norm: &Tensor,
) -> Result<(f64, f64), RecipeError> {
    let all: Vec<&Tensor> = losses.iter().chain([gradient_norm]).collect();
    let values = Vec::<f64>::try_from(Tensor::f_stack(&all, 0)?.f_to_kind(Kind::Double)?)?;
    let (gradient_norm, losses) = values.split_last().expect("the norm was put in");
    Ok((losses.iter().sum(), *gradient_norm))
}

/// Whether all numbers of all tensors, of which there is at least one, are finite; the device is waited
/// for once and not for each tensor.
fn are_finite<'a>(tensors: impl IntoIterator<Item = &'a Tensor>) -> Result<bool, tch::TchError> {
    let finite = tensors.into_iter().map(|tensor| tensor.f_isfinite()?.f_all());
    let finite = finite.collect::<Result<Vec<_>, _>>()?;
    Ok(Tensor::f_stack(&finite, 0)?.f_all()?.f_int64_value(&[])? != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_that_is_not_finite_breaks_the_weights() {
        let good = Tensor::from_slice(&[1.0_f32, -2.0]);
        assert!(are_finite([&good, &good]).unwrap());
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let broken = Tensor::from_slice(&[1.0, bad]);
            assert!(!are_finite([&good, &broken]).unwrap(), "{bad}");
        }
    }
}
