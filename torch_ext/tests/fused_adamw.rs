//! The fused optimiser against the formula written out, and its state against being cut off.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use tch::{Device, Kind, Tensor};
use torch_ext::{AdamWConfig, FusedAdamW, ParameterGroup, TorchError, set_intra_op_threads};

const CONFIG: AdamWConfig = AdamWConfig { beta1: 0.9, beta2: 0.95, eps: 1e-8 };
const LR: f64 = 3e-3;
const WEIGHT_DECAY: f64 = 0.1;
/// The kernel and the formula order their roundings differently; twenty steps of f32 stay below this.
const TOLERANCE: f64 = 2e-6;

/// Odd sizes, so that the kernel's vector loop has a remainder.
fn parameters() -> Vec<(String, Tensor)> {
    let make = |shape: &[i64], offset: f64| {
        let n: i64 = shape.iter().product();
        let values = (Tensor::arange(n, (Kind::Float, Device::Cpu)) * 0.37 + offset).sin();
        values.reshape(shape).set_requires_grad(true)
    };
    vec![("weight".to_owned(), make(&[7, 13], 0.1)), ("bias".to_owned(), make(&[13], 0.7))]
}

fn optimiser(parameters: &[(String, Tensor)]) -> FusedAdamW {
    let group = |index: usize, weight_decay: f64| {
        let (name, parameter) = &parameters[index];
        let parameters = vec![(name.clone(), parameter.shallow_clone())];
        ParameterGroup { parameters, lr: LR, weight_decay }
    };
    FusedAdamW::new(vec![group(0, WEIGHT_DECAY), group(1, 0.0)], CONFIG).unwrap()
}

/// A loss whose gradient changes with the parameters and with the step.
fn backward(parameters: &[(String, Tensor)], step: i64) {
    let x = (Tensor::arange(5 * 7, (Kind::Float, Device::Cpu)) * (0.11 + step as f64)).cos();
    let y = x.reshape([5, 7]).matmul(&parameters[0].1) + &parameters[1].1;
    (y.tanh() - 0.3).square().mean(Kind::Float).backward();
}

fn train(optimiser: &mut FusedAdamW, parameters: &[(String, Tensor)], steps: std::ops::Range<i64>) {
    for step in steps {
        optimiser.clear_gradients().unwrap();
        backward(parameters, step);
        optimiser.set_lr(LR / (1.0 + step as f64)).unwrap();
        optimiser.step().unwrap();
    }
}

/// Algorithm 2 of Loshchilov and Hutter (2019) in f64, with α of the paper as `lr` and η = 1; the decay
/// is scaled by the learning rate, as in PyTorch.
struct Naive {
    theta: Tensor,
    m: Tensor,
    v: Tensor,
}

impl Naive {
    fn new(parameter: &Tensor) -> Self {
        let theta = parameter.detach().to_kind(Kind::Double);
        Self { m: theta.zeros_like(), v: theta.zeros_like(), theta }
    }

    fn step(&mut self, gradient: &Tensor, t: i32, lr: f64, weight_decay: f64) {
        let g = gradient.to_kind(Kind::Double);
        self.m = &self.m * CONFIG.beta1 + &g * (1.0 - CONFIG.beta1);
        self.v = &self.v * CONFIG.beta2 + &g * &g * (1.0 - CONFIG.beta2);
        let m_hat = &self.m / (1.0 - CONFIG.beta1.powi(t));
        let v_hat = &self.v / (1.0 - CONFIG.beta2.powi(t));
        let decayed = &self.theta * (1.0 - lr * weight_decay);
        self.theta = decayed - m_hat / (v_hat.sqrt() + CONFIG.eps) * lr;
    }
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a.detach().to_kind(Kind::Double) - b.detach().to_kind(Kind::Double))
        .abs()
        .max()
        .double_value(&[])
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values = Vec::<f32>::try_from(tensor.detach().reshape([-1])).unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn fused_steps_follow_the_formula() {
    set_intra_op_threads(1).unwrap();
    let parameters = parameters();
    let mut optimiser = optimiser(&parameters);
    let mut naive: Vec<Naive> = parameters.iter().map(|(_, p)| Naive::new(p)).collect();
    let before = parameters[0].1.detach().copy();
    for t in 1..=20 {
        let lr = LR / f64::from(t);
        optimiser.clear_gradients().unwrap();
        backward(&parameters, i64::from(t));
        for (index, weight_decay) in [(0, WEIGHT_DECAY), (1, 0.0)] {
            naive[index].step(&parameters[index].1.grad(), t, lr, weight_decay);
        }
        optimiser.set_lr(lr).unwrap();
        optimiser.step().unwrap();
    }
    assert_eq!(optimiser.n_steps(), 20);
    assert!(largest_difference(&parameters[0].1, &before) > 1e-3, "the parameters did not move");
    for ((name, parameter), naive) in parameters.iter().zip(&naive) {
        let difference = largest_difference(parameter, &naive.theta);
        assert!(difference < TOLERANCE, "`{name}` is {difference} off the formula");
    }
}

#[test]
fn a_resumed_run_is_bit_for_bit_the_undisturbed_one() {
    // Aim: what `state` gives is enough. Method: ten steps at once against four steps, a new optimiser
    // on copies of the parameters with the saved state, and six more.
    set_intra_op_threads(1).unwrap();
    let whole = parameters();
    train(&mut optimiser(&whole), &whole, 0..10);

    let first = parameters();
    let mut cut_off = optimiser(&first);
    train(&mut cut_off, &first, 0..4);
    let state: Vec<_> =
        cut_off.state().into_iter().map(|(name, moment)| (name, moment.copy())).collect();
    let copy =
        |(name, p): &(String, Tensor)| (name.clone(), p.detach().copy().set_requires_grad(true));
    let second: Vec<_> = first.iter().map(copy).collect();
    train(&mut cut_off, &first, 4..5);
    let mut resumed = optimiser(&second);
    resumed.load_state(&state).unwrap();
    assert_eq!(resumed.n_steps(), 4);
    train(&mut resumed, &second, 4..10);

    for ((name, expected), (_, found)) in whole.iter().zip(&second) {
        assert_eq!(bits(expected), bits(found), "`{name}` differs");
    }
    let names: Vec<String> = resumed.state().into_iter().map(|(name, _)| name).collect();
    let expected =
        ["step", "exp_avg.weight", "exp_avg_sq.weight", "exp_avg.bias", "exp_avg_sq.bias"];
    assert_eq!(names, expected);
}

#[test]
fn a_state_that_does_not_fit_is_refused_and_changes_nothing() {
    set_intra_op_threads(1).unwrap();
    let parameters = parameters();
    let mut donor = optimiser(&parameters);
    train(&mut donor, &parameters, 0..2);
    let refused = |change: fn(&mut Vec<(String, Tensor)>)| {
        let mut state = donor.state();
        change(&mut state);
        let mut optimiser = optimiser(&parameters);
        let error = optimiser.load_state(&state).unwrap_err();
        assert_eq!(optimiser.n_steps(), 0);
        for (name, moment) in &optimiser.state()[1..] {
            assert_eq!(moment.abs().max().double_value(&[]), 0.0, "`{name}` was changed");
        }
        error.to_string()
    };
    let missing = refused(|state| drop(state.pop()));
    assert_eq!(missing, "optimiser state `exp_avg_sq.bias` is missing");
    let unknown = refused(|state| state.push(("exp_avg.ghost".to_owned(), Tensor::from(0.0))));
    assert!(unknown.contains("`exp_avg.ghost` belongs to no parameter"), "{unknown}");
    let shape = refused(|state| state[4].1 = Tensor::zeros([4], (Kind::Float, Device::Cpu)));
    assert_eq!(shape, "optimiser state `exp_avg_sq.bias` has shape [4] instead of [13]");
    let kind = refused(|state| state[4].1 = state[4].1.to_kind(Kind::Double));
    assert!(kind.contains("has kind Double instead of Float"), "{kind}");
    let step = refused(|state| state[0].1 = Tensor::from(-1_i64));
    assert!(step.starts_with("optimiser state `step` is not one number"), "{step}");
}

#[test]
fn a_parameter_without_a_gradient_stops_the_step_before_any_change() {
    set_intra_op_threads(1).unwrap();
    let parameters = parameters();
    let mut optimiser = optimiser(&parameters);
    let before = bits(&parameters[0].1);
    // Only the first parameter takes part in this loss.
    parameters[0].1.square().sum(Kind::Float).backward();
    let error = optimiser.step().unwrap_err();
    assert_eq!(error.to_string(), "parameter `bias` has no gradient");
    assert_eq!(bits(&parameters[0].1), before);
    assert_eq!(optimiser.n_steps(), 0);
}

#[test]
fn a_parameter_that_was_changed_stops_the_step_before_any_group_is_stepped() {
    set_intra_op_threads(1).unwrap();
    let options = (Kind::Float, Device::Cpu);
    for (data, said) in [
        (Tensor::ones([14], options), "differs from its gradient or moments in shape or kind"),
        (Tensor::ones([26], options).slice(0, None, None, 2), "is no longer contiguous"),
    ] {
        let parameters = parameters();
        let mut optimiser = optimiser(&parameters);
        let before = bits(&parameters[0].1);
        // In the second group, which is stepped after the first.
        parameters[1].1.shallow_clone().set_data(&data);
        for (_, parameter) in &parameters {
            parameter.square().sum(Kind::Float).backward();
        }
        let error = optimiser.step().unwrap_err();
        assert_eq!(error.to_string(), format!("parameter `bias` {said}"));
        assert_eq!(bits(&parameters[0].1), before);
        assert_eq!(optimiser.n_steps(), 0);
    }
}

#[test]
fn a_gradient_laid_out_otherwise_is_stepped_by_its_values() {
    // The kernel walks raw memory, so a transposed gradient must be laid out first.
    set_intra_op_threads(1).unwrap();
    let step = |gradient: &dyn Fn(&Tensor) -> Tensor| {
        let p = Tensor::ones([3, 5], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        let group = ParameterGroup {
            parameters: vec![("p".to_owned(), p.shallow_clone())],
            lr: LR,
            weight_decay: 0.0,
        };
        let mut optimiser = FusedAdamW::new(vec![group], CONFIG).unwrap();
        (&p * gradient(&p)).sum(Kind::Float).backward();
        optimiser.step().unwrap();
        bits(&optimiser.state()[1].1)
    };
    let values = Tensor::arange(15, (Kind::Float, Device::Cpu)).reshape([5, 3]);
    let transposed = step(&|_| values.tr());
    assert_eq!(transposed, step(&|_| values.tr().contiguous()));
}

#[test]
fn parameters_that_cannot_be_trained_are_refused_by_name() {
    let refused = |p: Tensor| {
        let parameters = vec![("p".to_owned(), p)];
        let group = ParameterGroup { parameters, lr: LR, weight_decay: 0.0 };
        FusedAdamW::new(vec![group], CONFIG).unwrap_err().to_string()
    };
    let ones = || Tensor::ones([2, 3], (Kind::Float, Device::Cpu));
    assert_eq!(refused(ones()), "parameter `p` is not a leaf that requires gradients");
    assert_eq!(refused(ones().tr().set_requires_grad(true)), "parameter `p` is not contiguous");
    let integers = Tensor::ones([2], (Kind::Int64, Device::Cpu));
    assert_eq!(refused(integers), "parameter `p` does not hold floating-point numbers");
    let empty = FusedAdamW::new(vec![], CONFIG);
    assert!(matches!(empty, Err(TorchError::NoTensors { .. })));
    let twice = parameters().into_iter().chain(parameters()).collect();
    let group = ParameterGroup { parameters: twice, lr: LR, weight_decay: 0.0 };
    let twice = FusedAdamW::new(vec![group], CONFIG).unwrap_err();
    assert_eq!(twice.to_string(), "parameter `weight` is there twice");
}

#[test]
fn numbers_outside_their_range_are_refused() {
    let make = |config| {
        FusedAdamW::new(
            vec![ParameterGroup { parameters: parameters(), lr: LR, weight_decay: 0.0 }],
            config,
        )
    };
    let error = make(AdamWConfig { beta2: 1.0, ..CONFIG }).unwrap_err();
    assert_eq!(error.to_string(), "`beta2` is 1, and must be at least 0 and less than 1");
    let mut optimiser = make(CONFIG).unwrap();
    assert!(matches!(optimiser.set_lr(f64::NAN), Err(TorchError::Number { name: "lr", .. })));
    assert!(matches!(
        optimiser.set_group_lr(1, LR),
        Err(TorchError::Group { index: 1, n_groups: 1 })
    ));
}
