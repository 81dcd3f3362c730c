//! How an operator with a backward pass by hand enters libtorch's graph.
//!
//! It does not know any operator.

use tch::Tensor;
use torch_ext::{Backward, Forward, custom_function};

/// The outputs of a forward pass as part of the graph, one for each of [`Forward::outputs`].
/// `backward` gives for each input its gradient, or none for zero.
pub(crate) fn in_graph<const OUTPUTS: usize>(
    forward: &Forward<'_>,
    backward: impl Fn(&Backward<'_>) -> Vec<Option<Tensor>> + Send + 'static,
) -> [Tensor; OUTPUTS] {
    let made = custom_function(forward, move |given| Ok(backward(given)))
        .expect("the forward pass went through with these tensors");
    made.try_into().expect("as many outputs come back as were given")
}
