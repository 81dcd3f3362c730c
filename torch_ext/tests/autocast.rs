//! Autocast to bf16: what it changes, and that it ends.

use std::panic::catch_unwind;
use tch::{Device, Kind, Tensor};
use torch_ext::{Autocast, TorchError, set_intra_op_threads};

fn product_kind(weight: &Tensor) -> Kind {
    Tensor::ones([2, 4], (Kind::Float, Device::Cpu)).matmul(weight).kind()
}

#[test]
fn matrix_products_are_bf16_inside_and_f32_after() {
    set_intra_op_threads(1).unwrap();
    let weight = Tensor::ones([4, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    assert_eq!(product_kind(&weight), Kind::Float);
    {
        let _outer = Autocast::bf16(Device::Cpu).unwrap();
        assert_eq!(product_kind(&weight), Kind::BFloat16);
        drop(Autocast::bf16(Device::Cpu).unwrap());
        assert!(Autocast::is_on(Device::Cpu).unwrap(), "an inner guard ended the outer one");
    }
    assert!(!Autocast::is_on(Device::Cpu).unwrap());
    assert_eq!(product_kind(&weight), Kind::Float);
}

#[test]
fn gradients_of_f32_weights_stay_f32() {
    set_intra_op_threads(1).unwrap();
    let weight = Tensor::ones([4, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let loss = {
        let _autocast = Autocast::bf16(Device::Cpu).unwrap();
        Tensor::ones([2, 4], (Kind::Float, Device::Cpu)).matmul(&weight).sum(Kind::Float)
    };
    loss.backward();
    assert_eq!(weight.grad().kind(), Kind::Float);
    assert_eq!(weight.grad().double_value(&[0, 0]), 2.0);
}

#[test]
fn weights_changed_between_two_scopes_are_cast_anew() {
    // libtorch keeps the bf16 copy of a weight; a copy that outlived its scope would train on old values.
    set_intra_op_threads(1).unwrap();
    let mut weight = Tensor::ones([4, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    let product = |weight: &Tensor| {
        let _autocast = Autocast::bf16(Device::Cpu).unwrap();
        let x = Tensor::ones([2, 4], (Kind::Float, Device::Cpu));
        x.matmul(weight).to_kind(Kind::Float).double_value(&[0, 0])
    };
    assert_eq!(product(&weight), 4.0);
    tch::no_grad(|| drop(weight.fill_(2.0)));
    assert_eq!(product(&weight), 8.0);
}

#[test]
fn a_panic_inside_ends_autocast_too() {
    set_intra_op_threads(1).unwrap();
    let panicked = catch_unwind(|| {
        let _autocast = Autocast::bf16(Device::Cpu).unwrap();
        assert!(Autocast::is_on(Device::Cpu).unwrap());
        panic!("a step that went wrong");
    });
    assert!(panicked.is_err());
    assert!(!Autocast::is_on(Device::Cpu).unwrap());
    let weight = Tensor::ones([4, 3], (Kind::Float, Device::Cpu));
    assert_eq!(product_kind(&weight), Kind::Float);
}

#[test]
fn the_devices_are_switched_apart() {
    let cuda = Device::Cuda(0);
    {
        let _autocast = Autocast::bf16(cuda).unwrap();
        assert!(Autocast::is_on(cuda).unwrap() && !Autocast::is_on(Device::Cpu).unwrap());
        // The CPU's products stay as they are.
        let weight = Tensor::ones([4, 3], (Kind::Float, Device::Cpu));
        assert_eq!(product_kind(&weight), Kind::Float);
    }
    assert!(!Autocast::is_on(cuda).unwrap());
    assert!(matches!(Autocast::bf16(Device::Mps), Err(TorchError::Device { .. })));
}
