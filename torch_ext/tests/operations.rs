//! The record of operations: what is in it, and that it ends.

use std::panic::catch_unwind;
use tch::{Device, Kind, Tensor};
use torch_ext::{record_operations, set_intra_op_threads};

fn ones(sizes: &[i64]) -> Tensor {
    Tensor::ones(sizes, (Kind::Float, Device::Cpu))
}

#[test]
fn an_operation_stands_before_those_it_is_made_of_with_the_sizes_it_was_given() {
    set_intra_op_threads(1).unwrap();
    let (x, weight) = (ones(&[2, 3, 4]), ones(&[5, 4]));
    let (y, operations) = record_operations(|| x.linear(&weight, None::<&Tensor>)).unwrap();
    assert_eq!(y.size(), [2, 3, 5]);
    let place = |name: &str| operations.iter().position(|operation| operation.name == name);
    let (linear, product) = (place("aten::linear").unwrap(), place("aten::mm").unwrap());
    assert!(linear < product);
    assert_eq!(operations[linear].sizes, [vec![2, 3, 4], vec![5, 4]]);
    assert_eq!(operations[product].sizes, [vec![6, 4], vec![4, 5]]);
}

#[test]
fn lists_of_tensors_and_scalars_are_written_too() {
    let (a, b) = (ones(&[2, 3]), ones(&[1, 3]));
    let (_, operations) = record_operations(|| Tensor::cat(&[&a, &b], 0).sum(Kind::Float)).unwrap();
    let sizes = |name: &str| {
        let found = operations.iter().find(|operation| operation.name == name);
        found.unwrap_or_else(|| panic!("{name} in {operations:?}")).sizes.clone()
    };
    assert_eq!(sizes("aten::cat"), [vec![2, 3], vec![1, 3]]);
    assert_eq!(sizes("aten::sum"), [vec![3, 3]]);
}

#[test]
fn a_recording_ends_also_by_a_panic_and_does_not_nest() {
    assert!(catch_unwind(|| record_operations(|| panic!("on purpose"))).is_err());
    let (inner, outer) = record_operations(|| record_operations(|| ()).is_err()).unwrap();
    assert!(inner, "a second recording on the same thread was begun");
    assert!(outer.is_empty());
    let ((), nothing) = record_operations(|| ()).unwrap();
    assert_eq!(nothing, []);
}
