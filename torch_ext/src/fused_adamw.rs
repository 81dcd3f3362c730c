//! Owns the AdamW optimiser by libtorch's fused kernel, with a state that can be saved and restored.
//!
//! Does not own the learning-rate schedule, clipping, or the choice of which parameters decay.
//!
//! Loshchilov and Hutter, *Decoupled Weight Decay Regularization*, 2019, Algorithm 2, in PyTorch's
//! form: θ ← θ − lr·λ·θ, then θ ← θ − lr·m̂ / (√v̂ + ε).

use crate::TorchError;
use crate::ffi::{self, call, handles};
use crate::gradient::clear_gradients;
use std::collections::{BTreeMap, BTreeSet};
use tch::{Kind, Tensor};

/// Parameters that share a learning rate and a weight decay.
#[derive(Debug)]
pub struct ParameterGroup {
    /// Names, unique over all groups, with the parameters: contiguous leaves that require gradients.
    pub parameters: Vec<(String, Tensor)>,
    /// The learning rate until [`FusedAdamW::set_lr`] says otherwise.
    pub lr: f64,
    /// λ, the decoupled weight decay.
    pub weight_decay: f64,
}

/// What all groups share.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamWConfig {
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// ε, added to the root of the second moment.
    pub eps: f64,
}

/// The optimiser; it shares its parameters with the model.
#[derive(Debug)]
pub struct FusedAdamW {
    groups: Vec<Group>,
    config: AdamWConfig,
    n_steps: i64,
}

#[derive(Debug)]
struct Group {
    names: Vec<String>,
    parameters: Vec<Tensor>,
    exp_avgs: Vec<Tensor>,
    exp_avg_sqs: Vec<Tensor>,
    lr: f64,
    weight_decay: f64,
}

/// The state's name for the number of steps.
const STEP: &str = "step";

impl FusedAdamW {
    /// An optimiser with zero moments that has made no step.
    pub fn new(groups: Vec<ParameterGroup>, config: AdamWConfig) -> Result<Self, TorchError> {
        check_config(config)?;
        if groups.iter().all(|group| group.parameters.is_empty()) {
            return Err(TorchError::NoTensors { operation: "make an optimiser" });
        }
        let mut seen = BTreeSet::new();
        for (name, parameter) in groups.iter().flat_map(|group| &group.parameters) {
            check_parameter(name, parameter)?;
            if !seen.insert(name.clone()) {
                return Err(problem(name, "is there twice"));
            }
        }
        let groups = groups.into_iter().filter(|group| !group.parameters.is_empty());
        let groups = groups.map(Group::new).collect::<Result<_, _>>()?;
        Ok(Self { groups, config, n_steps: 0 })
    }

    /// How many steps were made.
    pub fn n_steps(&self) -> i64 {
        self.n_steps
    }

    /// How many groups have parameters; empty ones are dropped when the optimiser is made.
    pub fn n_groups(&self) -> usize {
        self.groups.len()
    }

    /// All parameters, in the order of the groups.
    pub fn parameters(&self) -> Vec<&Tensor> {
        self.groups.iter().flat_map(|group| &group.parameters).collect()
    }

    /// Sets the learning rate of every group for the steps to come.
    pub fn set_lr(&mut self, lr: f64) -> Result<(), TorchError> {
        check_not_negative("lr", lr)?;
        self.groups.iter_mut().for_each(|group| group.lr = lr);
        Ok(())
    }

    /// Sets the learning rate of one group for the steps to come.
    pub fn set_group_lr(&mut self, index: usize, lr: f64) -> Result<(), TorchError> {
        check_not_negative("lr", lr)?;
        let n_groups = self.groups.len();
        let group = self.groups.get_mut(index).ok_or(TorchError::Group { index, n_groups })?;
        group.lr = lr;
        Ok(())
    }

    /// Drops all gradients, so that the next backward pass need not add to zeros.
    pub fn clear_gradients(&mut self) -> Result<(), TorchError> {
        clear_gradients(&self.parameters())
    }

    /// Makes one step with the gradients that the parameters have.
    ///
    /// A parameter without a gradient is an error, since it would silently not be trained. Nothing is
    /// changed when a check fails.
    pub fn step(&mut self) -> Result<(), TorchError> {
        let gradients =
            self.groups.iter().map(Group::gradients).collect::<Result<Vec<_>, TorchError>>()?;
        // All groups before the first is stepped: half a step cannot be taken back.
        for (group, gradients) in self.groups.iter().zip(&gradients) {
            group.check(gradients)?;
        }
        let n_steps = self.n_steps + 1;
        for (group, gradients) in self.groups.iter_mut().zip(&gradients) {
            group.step(gradients, n_steps, self.config)?;
        }
        self.n_steps = n_steps;
        Ok(())
    }

    /// All that a resumed run needs to go on bit for bit: `step` (i64, no dimension), and per
    /// parameter `exp_avg.<name>` and `exp_avg_sq.<name>` in the parameter's shape and kind.
    /// The moments share memory with the optimiser: its next step changes them.
    pub fn state(&self) -> Vec<(String, Tensor)> {
        let mut state = vec![(STEP.to_owned(), Tensor::from(self.n_steps))];
        for (name, moment) in self.groups.iter().flat_map(Group::moments) {
            state.push((name, moment.shallow_clone()));
        }
        state
    }

    /// Takes a state from [`Self::state`] over; changes nothing unless all of it fits.
    pub fn load_state(&mut self, state: &[(String, Tensor)]) -> Result<(), TorchError> {
        let given: BTreeMap<&str, &Tensor> =
            state.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let n_steps = step_of(&given)?;
        let mut pairs = Vec::new();
        for (name, moment) in self.groups.iter().flat_map(Group::moments) {
            let saved = given.get(name.as_str()).ok_or_else(|| state_error(&name, "is missing"))?;
            check_saved(&name, saved, moment)?;
            pairs.push((moment.shallow_clone(), *saved));
        }
        if state.len() != pairs.len() + 1 {
            let known: BTreeSet<String> =
                self.groups.iter().flat_map(Group::moments).map(|(name, _)| name).collect();
            let stranger = given.keys().find(|name| **name != STEP && !known.contains(**name));
            let name = stranger.copied().unwrap_or(STEP);
            return Err(state_error(name, "belongs to no parameter, or is there twice"));
        }
        for (mut moment, saved) in pairs {
            let operation = "restore a moment";
            tch::no_grad(|| moment.f_copy_(saved))
                .map_err(|source| TorchError::Tch { operation, source })?;
        }
        self.n_steps = n_steps;
        Ok(())
    }
}

impl Group {
    fn new(group: ParameterGroup) -> Result<Self, TorchError> {
        check_not_negative("lr", group.lr)?;
        check_not_negative("weight_decay", group.weight_decay)?;
        let (names, parameters): (Vec<_>, Vec<_>) = group.parameters.into_iter().unzip();
        let zeros = || parameters.iter().map(zeros_like).collect::<Result<Vec<_>, _>>();
        let (exp_avgs, exp_avg_sqs) = (zeros()?, zeros()?);
        let (lr, weight_decay) = (group.lr, group.weight_decay);
        Ok(Self { names, parameters, exp_avgs, exp_avg_sqs, lr, weight_decay })
    }

    /// The gradients, contiguous as the kernel needs them.
    fn gradients(&self) -> Result<Vec<Tensor>, TorchError> {
        let gradient_of = |(name, parameter): (&String, &Tensor)| {
            let gradient = parameter.grad();
            if !gradient.defined() {
                return Err(problem(name, "has no gradient"));
            }
            let operation = "lay out a gradient";
            gradient.f_contiguous().map_err(|source| TorchError::Tch { operation, source })
        };
        self.names.iter().zip(&self.parameters).map(gradient_of).collect()
    }

    /// What the kernel asks of a parameter, its gradient and its moments.
    fn check(&self, gradients: &[Tensor]) -> Result<(), TorchError> {
        let device = self.parameters[0].device();
        for (index, (name, parameter)) in self.names.iter().zip(&self.parameters).enumerate() {
            let beside = [&gradients[index], &self.exp_avgs[index], &self.exp_avg_sqs[index]];
            let is_like = |x: &&Tensor| {
                x.size() == parameter.size()
                    && x.kind() == parameter.kind()
                    && x.device() == parameter.device()
            };
            if !beside.iter().all(is_like) {
                return Err(problem(name, "differs from its gradient or moments in shape or kind"));
            }
            if parameter.device() != device {
                return Err(problem(name, "is not on the device of its group"));
            }
            if !parameter.is_contiguous() {
                return Err(problem(name, "is no longer contiguous"));
            }
        }
        Ok(())
    }

    fn step(
        &mut self,
        gradients: &[Tensor],
        n_steps: i64,
        config: AdamWConfig,
    ) -> Result<(), TorchError> {
        let operation = "make an optimiser step";
        let device = self.parameters[0].device();
        // f32, as the kernel wants it, is exact up to 2^24 steps.
        let step = Tensor::from(n_steps).to_kind(Kind::Float).to_device(device);
        let n = self.parameters.len();
        let [parameters, gradients] = [handles(&self.parameters), handles(gradients)];
        let [exp_avgs, exp_avg_sqs] = [handles(&self.exp_avgs), handles(&self.exp_avg_sqs)];
        call(operation, |error| {
            // SAFETY: four lists of `n` handles each (one per parameter, made together), whose tensors
            // live in `self` and in the caller; the kernel writes the parameters and the moments, which
            // libtorch's tensors allow through any handle. Shapes and kinds are checked on the C++ side.
            unsafe {
                ffi::gradus_adamw_step(
                    parameters.as_ptr(),
                    gradients.as_ptr(),
                    exp_avgs.as_ptr(),
                    exp_avg_sqs.as_ptr(),
                    n,
                    step.as_ptr().cast(),
                    self.lr,
                    config.beta1,
                    config.beta2,
                    self.weight_decay,
                    config.eps,
                    error,
                )
            }
        })
    }

    fn moments(&self) -> impl Iterator<Item = (String, &Tensor)> {
        let first = self.names.iter().zip(&self.exp_avgs);
        let second = self.names.iter().zip(&self.exp_avg_sqs);
        let first = first.map(|(name, moment)| (format!("exp_avg.{name}"), moment));
        first.chain(second.map(|(name, moment)| (format!("exp_avg_sq.{name}"), moment)))
    }
}

fn zeros_like(parameter: &Tensor) -> Result<Tensor, TorchError> {
    let operation = "make a moment";
    tch::no_grad(|| parameter.f_zeros_like())
        .map_err(|source| TorchError::Tch { operation, source })
}

fn check_config(config: AdamWConfig) -> Result<(), TorchError> {
    for (name, value) in [("beta1", config.beta1), ("beta2", config.beta2)] {
        if !(0.0..1.0).contains(&value) {
            return Err(TorchError::Number { name, value, wanted: "at least 0 and less than 1" });
        }
    }
    check_not_negative("eps", config.eps)
}

fn check_not_negative(name: &'static str, value: f64) -> Result<(), TorchError> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    Err(TorchError::Number { name, value, wanted: "finite and not negative" })
}

fn check_parameter(name: &str, parameter: &Tensor) -> Result<(), TorchError> {
    if !parameter.defined() {
        return Err(problem(name, "is undefined"));
    }
    if !matches!(parameter.kind(), Kind::Float | Kind::Double | Kind::BFloat16 | Kind::Half) {
        return Err(problem(name, "does not hold floating-point numbers"));
    }
    if !parameter.is_contiguous() {
        return Err(problem(name, "is not contiguous"));
    }
    if !parameter.requires_grad() || !parameter.is_leaf() {
        return Err(problem(name, "is not a leaf that requires gradients"));
    }
    Ok(())
}

fn check_saved(name: &str, saved: &Tensor, moment: &Tensor) -> Result<(), TorchError> {
    if saved.size() != moment.size() {
        let (found, wanted) = (saved.size(), moment.size());
        return Err(state_error(name, format!("has shape {found:?} instead of {wanted:?}")));
    }
    if saved.kind() != moment.kind() {
        let (found, wanted) = (saved.kind(), moment.kind());
        return Err(state_error(name, format!("has kind {found:?} instead of {wanted:?}")));
    }
    Ok(())
}

fn step_of(given: &BTreeMap<&str, &Tensor>) -> Result<i64, TorchError> {
    let step = given.get(STEP).ok_or_else(|| state_error(STEP, "is missing"))?;
    match i64::try_from(*step) {
        Ok(n_steps) if n_steps >= 0 && step.kind() == Kind::Int64 => Ok(n_steps),
        _ => Err(state_error(STEP, "is not one number of kind Int64 that is not negative")),
    }
}

fn problem(name: &str, problem: &'static str) -> TorchError {
    TorchError::Parameter { name: name.to_owned(), problem }
}

fn state_error(name: &str, problem: impl Into<String>) -> TorchError {
    TorchError::State { name: name.to_owned(), problem: problem.into() }
}
