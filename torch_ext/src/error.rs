//! Owns the error of this crate.
//!
//! Does not decide what follows from one; the trainer's failure classes do.

use thiserror::Error;

/// A call into libtorch that did not happen or did not succeed.
#[derive(Debug, Error)]
pub enum TorchError {
    /// libtorch threw; the text is its own, without the stack trace.
    #[error("libtorch refused to {operation}: {message}")]
    Libtorch {
        /// What was asked for.
        operation: &'static str,
        /// libtorch's words.
        message: String,
    },
    /// tch's fallible form of a call failed.
    #[error("tch refused to {operation}")]
    Tch {
        /// What was asked for.
        operation: &'static str,
        /// tch's words.
        source: tch::TchError,
    },
    /// There was nothing to work on.
    #[error("could not {operation}: the list of tensors is empty")]
    NoTensors {
        /// What was asked for.
        operation: &'static str,
    },
    /// A number outside of what the call accepts.
    #[error("`{name}` is {value}, and must be {wanted}")]
    Number {
        /// The argument.
        name: &'static str,
        /// Its value.
        value: f64,
        /// What would be accepted.
        wanted: &'static str,
    },
    /// A parameter that cannot be optimised as it is.
    #[error("parameter `{name}` {problem}")]
    Parameter {
        /// Its name.
        name: String,
        /// What is wrong, as the rest of a sentence.
        problem: &'static str,
    },
    /// A saved optimiser state that does not fit this optimiser.
    #[error("optimiser state `{name}` {problem}")]
    State {
        /// The tensor's name in the state.
        name: String,
        /// What is wrong, as the rest of a sentence.
        problem: String,
    },
    /// There is no group of this index.
    #[error("there is no parameter group {index}; there are {n_groups}")]
    Group {
        /// The index asked for.
        index: usize,
        /// How many there are.
        n_groups: usize,
    },
    /// A device that cannot do this.
    #[error("could not {operation} on `{device:?}`; valid: {wanted}")]
    Device {
        /// What was asked for.
        operation: &'static str,
        /// The device.
        device: tch::Device,
        /// Which devices can.
        wanted: &'static str,
    },
}
