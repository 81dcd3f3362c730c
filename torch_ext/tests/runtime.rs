//! What holds for the whole process; one test per concern, since each changes it.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use tch::{Device, Kind, Tensor};
use torch_ext::{
    TorchError, cpu_capability, generator_state, libtorch_configuration, libtorch_version,
    set_generator_state, set_inter_op_threads, set_intra_op_threads, threads,
    use_deterministic_algorithms, uses_deterministic_algorithms,
};

fn draws() -> Vec<f32> {
    // More than one block of the Mersenne twister, and a normal, whose second half is kept in the state.
    let uniform = Tensor::rand([701], (Kind::Float, Device::Cpu));
    let normal = Tensor::randn([3], (Kind::Float, Device::Cpu));
    Vec::<f32>::try_from(Tensor::cat(&[uniform, normal], 0)).unwrap()
}

#[test]
fn a_restored_generator_draws_the_same_again() {
    tch::manual_seed(17);
    draws();
    let state = generator_state().unwrap();
    let (first, second) = (draws(), draws());
    assert_ne!(first, second);
    tch::manual_seed(4);
    set_generator_state(&state).unwrap();
    assert_eq!(generator_state().unwrap(), state);
    assert_eq!((draws(), draws()), (first, second));
    // A state cut short is libtorch's to refuse.
    let short = set_generator_state(&state[..100]).unwrap_err();
    assert!(matches!(short, TorchError::Libtorch { .. }), "{short:?}");
    assert!(matches!(set_generator_state(&[]), Err(TorchError::NoTensors { .. })));
}

#[test]
fn threads_are_set_and_read_back() {
    set_intra_op_threads(1).unwrap();
    set_inter_op_threads(1).unwrap();
    let found = threads().unwrap();
    assert_eq!((found.intra_op, found.inter_op), (1, 1));
    assert!(matches!(set_intra_op_threads(0), Err(TorchError::Number { name: "intra_op", .. })));
    // libtorch allows the inter-op threads once; the second time is an error, and no abort.
    assert!(matches!(set_inter_op_threads(1), Err(TorchError::Libtorch { .. })));
}

#[test]
fn deterministic_algorithms_are_switched_both_ways() {
    for on in [true, false] {
        use_deterministic_algorithms(on).unwrap();
        assert_eq!(uses_deterministic_algorithms().unwrap(), on);
    }
}

#[test]
fn the_library_says_what_it_is() {
    assert_eq!(libtorch_version(), "2.11.0");
    assert!(!cpu_capability().unwrap().is_empty());
    assert!(libtorch_configuration().unwrap().contains("C++ Version"));
}
