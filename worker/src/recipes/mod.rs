//! The executing half of the recipes: what an assignment does, from its message to its end.
//!
//! It knows no lease and no pipe; it is given where to report and what may stop it.

mod error;
mod evaluate;
mod peak;
mod prepare;
mod pretrain;

use std::error::Error;

use domain::attempt::AttemptEnd;
use proto::from_wire::required;
use proto::v1::{self, assignment::Work, event::Kind};

use crate::artifacts::Artifacts;
use crate::compute_device::ComputeDevice;
use crate::trainer::{Control, Demand, Report};

pub use error::RecipeError;
pub use prepare::TRAINING_FILE;

/// The recipes that this build carries out.
pub const NAMES: [&str; 1] = ["pretrain"];

/// What decides the rounding on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// Intra-op threads that the agent gave this child.
    pub threads: u32,
    /// What computes.
    pub compute: ComputeDevice,
    /// The libtorch build.
    pub libtorch_version: String,
}

/// What a recipe works with.
#[expect(missing_debug_implementations, reason = "it only borrows, and a report has no form")]
pub struct Context<'a> {
    /// The artifact store.
    pub artifacts: &'a Artifacts,
    /// What the agent demands.
    pub control: &'a Control,
    /// Where to report to.
    pub report: &'a mut dyn Report,
    /// What decides the rounding.
    pub host: &'a Host,
    /// The assignment at hand.
    pub assignment: &'a v1::Assignment,
}

/// How an attempt ended, with words for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How.
    pub end: AttemptEnd,
    /// What went wrong; empty when nothing did.
    pub message: String,
}

impl Outcome {
    /// The end without words.
    pub fn of(end: AttemptEnd) -> Self {
        Self { end, message: String::new() }
    }
}

/// How work without a checkpoint ends on a demand.
fn interrupted(demand: Demand) -> Outcome {
    match demand {
        Demand::Stop => Outcome::of(AttemptEnd::Cancelled),
        Demand::Preempt => Outcome::of(AttemptEnd::Preempted),
    }
}

impl Context<'_> {
    /// What the agent demands of this assignment.
    fn demand(&self) -> Option<Demand> {
        self.control.demand(self.assignment.lease_token)
    }

    /// How work that needs no checkpoint ends when it is told to.
    fn interruption(&self) -> Option<Outcome> {
        self.demand().map(interrupted)
    }

    /// What decides the rounding of work that is done in one go.
    fn numerics(&self) -> v1::Numerics {
        v1::Numerics {
            device_kind: self.host.compute.kind().to_owned(),
            intra_op_threads: self.host.threads,
            micro_batch_sequences: 0,
            cpu_capability: self.host.compute.capability.clone(),
            libtorch_version: self.host.libtorch_version.clone(),
        }
    }

    /// Says that the work has begun, with all the threads that the agent gave.
    fn start(&mut self) -> Result<(), RecipeError> {
        torch_ext::set_intra_op_threads(self.host.threads as usize)?;
        let started = v1::Started { numerics: Some(self.numerics()), resumed_from_step: 0 };
        self.report.event(Kind::Started(started));
        Ok(())
    }
}

/// Carries out the assignment at hand. A failure is reported as a log line and becomes the end.
pub fn carry_out(context: &mut Context<'_>) -> Outcome {
    if context.assignment.rank > 0 {
        return hold(context);
    }
    let work = required(context.assignment.work.as_ref(), "work").map_err(RecipeError::from);
    let result = work.and_then(|work| match work {
        Work::Train(train) => pretrain::train(context, train),
        Work::Evaluate(evaluate) => evaluate::evaluate(context, evaluate),
        Work::PrepareData(prepare) => prepare::prepare(context, prepare),
    });
    result.unwrap_or_else(|error| {
        let message = chain(&error);
        context.report.log("error", message.clone());
        Outcome { end: error.end(), message }
    })
}

/// A gang's other members keep their slots until they are asked to let go: training is not spread
/// over slots yet, and rank 0 does all of it.
fn hold(context: &Context<'_>) -> Outcome {
    interrupted(context.control.wait_for_demand(context.assignment.lease_token))
}

/// An error with everything behind it, in one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Whether libtorch's words tell of a device that has failed, or of a library for it: the process
/// that had it cannot use it again.
pub(crate) fn is_device_fault(text: &str) -> bool {
    ["CUDA error", "CUDNN_STATUS", "CUBLAS_STATUS", "CUFFT_", "cuDNN error", "NCCL error"]
        .iter()
        .any(|words| text.contains(words))
}

/// Whether libtorch's words tell of an allocation that failed.
pub(crate) fn is_out_of_memory(text: &str) -> bool {
    ["DefaultCPUAllocator", "not enough memory", "out of memory", "memory allocation of"]
        .iter()
        .any(|words| text.contains(words))
}
