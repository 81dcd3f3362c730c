//! Custom functions against libtorch's own gradients, finite differences, and misuse.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::sync::{Arc, Mutex};

use tch::{Device, Kind, Tensor};
use torch_ext::{
    Backward, Forward, Gradients, TorchError, custom_function, is_recording, set_intra_op_threads,
};

fn input(seed: i64, shape: &[i64]) -> Tensor {
    set_intra_op_threads(1).unwrap();
    tch::manual_seed(seed);
    Tensor::randn(shape, (Kind::Double, Device::Cpu)).set_requires_grad(true)
}

/// (x·e^y, x²), whose backward pass reads an input and an output.
fn product_and_square(x: &Tensor, y: &Tensor, watched: &Arc<()>) -> Vec<Tensor> {
    let (product, square) = tch::no_grad(|| (x * y.exp(), x.square()));
    let watched = Arc::clone(watched);
    let backward = move |given: &Backward<'_>| -> Gradients {
        assert!(Arc::strong_count(&watched) >= 1, "the closure lives while it runs");
        let [x, y, product] = given.saved else { panic!("three tensors are saved") };
        let zeros = || x.zeros_like();
        let of_product = given.gradients[0].as_ref().map_or_else(zeros, Tensor::shallow_clone);
        let of_square = given.gradients[1].as_ref().map_or_else(zeros, Tensor::shallow_clone);
        let dx = &of_product * y.exp() + of_square * x * 2.0;
        Ok(vec![Some(dx), given.wanted[1].then(|| of_product * product)])
    };
    let (inputs, outputs) = ([x, y], [&product, &square]);
    let saved = [x, y, &product];
    let name = "product_and_square";
    custom_function(&Forward { name, inputs: &inputs, outputs: &outputs, saved: &saved }, backward)
        .unwrap()
}

/// A function of one input that passes it through, with any backward pass.
fn identity(x: &Tensor, backward: impl Fn(&Backward<'_>) -> Gradients + Send + 'static) -> Tensor {
    let output = tch::no_grad(|| x.copy());
    let forward = Forward { name: "identity", inputs: &[x], outputs: &[&output], saved: &[x] };
    custom_function(&forward, backward).unwrap().pop().unwrap()
}

#[expect(clippy::unnecessary_wraps, reason = "it is passed where backward passes may fail")]
fn pass_on(given: &Backward<'_>) -> Gradients {
    Ok(given
        .gradients
        .iter()
        .map(|gradient| gradient.as_ref().map(Tensor::shallow_clone))
        .collect())
}

fn weighted(outputs: &[Tensor]) -> Tensor {
    (&outputs[0] * 0.7).sum(Kind::Double) + (outputs[1].sin()).sum(Kind::Double)
}

fn largest_difference(a: &Tensor, b: &Tensor) -> f64 {
    (a - b).abs().max().double_value(&[])
}

#[test]
fn gradients_equal_those_of_the_plain_operations_and_of_finite_differences() {
    let (x, y) = (input(1, &[3, 4]), input(2, &[3, 4]));
    let loss = weighted(&product_and_square(&x, &y, &Arc::new(())));
    let found = Tensor::run_backward(&[loss], &[&x, &y], false, false);
    let plain = |x: &Tensor, y: &Tensor| weighted(&[x * y.exp(), x.square()]);
    let expected = Tensor::run_backward(&[plain(&x, &y)], &[&x, &y], false, false);
    for (found, expected) in found.iter().zip(&expected) {
        assert!(largest_difference(found, expected) < 1e-14);
    }
    let (x, y) = (x.detach(), y.detach());
    let step = 1e-6;
    for (index, gradient) in (0..2).zip(&found) {
        for at in 0..12 {
            let moved = |by: f64| {
                let inputs = [x.copy(), y.copy()];
                let mut entry = inputs[index].view([12]).narrow(0, at, 1);
                entry += by;
                plain(&inputs[0], &inputs[1]).double_value(&[])
            };
            let slope = (moved(step) - moved(-step)) / (2.0 * step);
            assert!((gradient.view([12]).double_value(&[at]) - slope).abs() < 1e-7);
        }
    }
}

#[test]
fn only_wanted_gradients_are_asked_for() {
    let (x, y) = (input(1, &[3]), input(2, &[3]).detach());
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&asked);
    let output = tch::no_grad(|| &x * &y);
    let forward = Forward { name: "product", inputs: &[&x, &y], outputs: &[&output], saved: &[&y] };
    let product = custom_function(&forward, move |given| {
        log.lock().unwrap().extend_from_slice(given.wanted);
        let gradient = given.gradients[0].as_ref().unwrap();
        Ok(vec![Some(gradient * &given.saved[0]), None])
    })
    .unwrap();
    product[0].sum(Kind::Double).backward();
    assert_eq!(*asked.lock().unwrap(), [true, false]);
    assert!(largest_difference(&x.grad(), &y) == 0.0);
}

#[test]
fn an_output_that_nothing_depends_on_has_no_gradient() {
    let (x, y) = (input(1, &[3]), input(2, &[3]));
    let outputs = product_and_square(&x, &y, &Arc::new(()));
    let loss = outputs[1].sum(Kind::Double);
    let found = Tensor::run_backward(&[loss], &[&x], false, false);
    assert!(largest_difference(&found[0], &(x.detach() * 2.0)) < 1e-15);
}

#[test]
fn the_closure_is_freed_with_the_graph_although_it_saves_inputs_and_outputs() {
    let (x, y) = (input(1, &[3]), input(2, &[3]));
    let watched = Arc::new(());
    let outputs = product_and_square(&x, &y, &watched);
    assert_eq!(Arc::strong_count(&watched), 2);
    drop(outputs);
    assert_eq!(Arc::strong_count(&watched), 1);
}

#[test]
fn the_closure_is_freed_by_the_last_backward_pass() {
    let (x, y) = (input(1, &[3]), input(2, &[3]));
    let watched = Arc::new(());
    let loss = weighted(&product_and_square(&x, &y, &watched));
    let first = Tensor::run_backward(&[&loss], &[&x], true, false);
    assert_eq!(Arc::strong_count(&watched), 2);
    let second = Tensor::run_backward(&[&loss], &[&x], false, false);
    assert_eq!(Arc::strong_count(&watched), 1);
    assert!(largest_difference(&first[0], &second[0]) == 0.0);
    let error = Tensor::f_run_backward(&[&loss], &[&x], false, false).unwrap_err().to_string();
    assert!(error.contains("second time") || error.contains("keep_graph"), "{error}");
}

#[test]
fn without_a_graph_the_closure_is_freed_at_once() {
    let (x, y) = (input(1, &[3]), input(2, &[3]));
    let watched = Arc::new(());
    assert!(is_recording() && !tch::no_grad(is_recording));
    let outputs = tch::no_grad(|| product_and_square(&x, &y, &watched));
    assert!(!outputs[0].requires_grad());
    assert_eq!(Arc::strong_count(&watched), 1);
    let outputs = product_and_square(&x.detach(), &y.detach(), &watched);
    assert!(!outputs[0].requires_grad());
    assert_eq!(Arc::strong_count(&watched), 1);
}

#[test]
fn memory_does_not_grow_with_the_number_of_passes() {
    // Aim: nothing saved survives. Method: 400 passes that each save 3 MB, of which 1.2 GB would
    // be left if they leaked; the bound is a tenth.
    let (x, y) = (input(1, &[1 << 17]), input(2, &[1 << 17]));
    let pass = |x: &Tensor| {
        let loss = weighted(&product_and_square(x, &y, &Arc::new(())));
        drop(Tensor::run_backward(&[loss], &[x], false, false));
        drop(product_and_square(x, &y, &Arc::new(())));
    };
    for _ in 0..20 {
        pass(&x);
    }
    let before = resident_bytes();
    for _ in 0..200 {
        pass(&x);
    }
    let grown = resident_bytes() - before;
    assert!(grown < 120_000_000, "{grown} bytes");
}

fn resident_bytes() -> i64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<i64>().unwrap() * 1024
}

#[test]
fn a_backward_pass_that_panics_or_fails_is_an_error() {
    let x = input(1, &[3]);
    let failure = |output: Tensor| {
        output.sum(Kind::Double).f_backward().expect_err("backward fails").to_string()
    };
    let error = failure(identity(&x, |_| panic!("nine lives")));
    assert!(error.contains("identity") && error.contains("nine lives"), "{error}");
    let refuse = |_: &Backward<'_>| Err(TorchError::NoTensors { operation: "purr" });
    let error = failure(identity(&x, refuse));
    assert!(error.contains("could not purr"), "{error}");
    let error = failure(identity(&x, |_| Ok(Vec::new())));
    assert!(error.contains("0 gradients for 1 inputs"), "{error}");
    // And the next pass works.
    identity(&x, pass_on).sum(Kind::Double).backward();
    assert_eq!(largest_difference(&x.grad(), &x.ones_like()), 0.0);
}

#[test]
fn a_gradient_unlike_its_input_is_an_error() {
    let x = input(1, &[3]);
    for wrong in [
        Tensor::ones([2], (Kind::Double, Device::Cpu)),
        Tensor::ones([1], (Kind::Double, Device::Cpu)),
        Tensor::ones([3], (Kind::Float, Device::Cpu)),
    ] {
        let wrong = Mutex::new(wrong);
        let output = identity(&x, move |_| Ok(vec![Some(wrong.lock().unwrap().shallow_clone())]));
        let error = output.sum(Kind::Double).f_backward().unwrap_err().to_string();
        assert!(error.contains("gradient of input 0"), "{error}");
    }
}

#[test]
fn a_second_derivative_is_refused() {
    let x = input(1, &[3]);
    let loss = identity(&x, pass_on).sum(Kind::Double);
    let error = Tensor::f_run_backward(&[loss], &[&x], true, true).unwrap_err().to_string();
    assert!(error.contains("no second derivative"), "{error}");
}

#[test]
fn a_saved_tensor_changed_in_place_is_an_error() {
    let x = input(1, &[3]);
    let doubled = &x * 2.0;
    let loss = identity(&doubled, pass_on).sum(Kind::Double);
    drop(tch::no_grad(|| doubled.shallow_clone().fill_(0.0)));
    let error = loss.f_backward().unwrap_err().to_string();
    assert!(error.contains("inplace"), "{error}");
}

#[test]
fn an_output_with_a_gradient_function_is_refused() {
    let x = input(1, &[3]);
    let output = &x * 2.0;
    let forward = Forward { name: "double", inputs: &[&x], outputs: &[&output], saved: &[] };
    let error = custom_function(&forward, pass_on).unwrap_err().to_string();
    assert!(error.contains("gradient function already"), "{error}");
    let forward = Forward { name: "nothing", inputs: &[], outputs: &[], saved: &[] };
    assert!(custom_function(&forward, pass_on).is_err());
    let undefined = Tensor::new();
    let forward = Forward { name: "none", inputs: &[&undefined], outputs: &[&x], saved: &[] };
    assert!(custom_function(&forward, pass_on).is_err());
}

#[test]
fn backward_may_run_on_another_thread() {
    let (x, y) = (input(1, &[3]), input(2, &[3]));
    let watched = Arc::new(());
    let loss = weighted(&product_and_square(&x, &y, &watched));
    let inputs = x.shallow_clone();
    let found = std::thread::spawn(move || Tensor::run_backward(&[loss], &[inputs], false, false))
        .join()
        .unwrap();
    assert_eq!(found[0].size(), x.size());
    assert_eq!(Arc::strong_count(&watched), 1);
}

#[test]
fn on_a_gpu_the_closure_runs_on_the_engines_thread() {
    let folder = std::env::var_os("GRADUS_LIBTORCH").map(std::path::PathBuf::from);
    if torch_ext::open_cuda(&Vec::from_iter(folder)).is_err() {
        eprintln!("SKIPPED: GRADUS_LIBTORCH names no CUDA libtorch with a device");
        return;
    }
    let x = input(1, &[3]).detach().to_device(Device::Cuda(0)).set_requires_grad(true);
    identity(&x, pass_on).sum(Kind::Double).backward();
    assert_eq!(largest_difference(&x.grad(), &x.ones_like()), 0.0);
}
