//! Writes checkpoints beside the training, one at a time.
//!
//! What a checkpoint holds is the learner's; when one is due is the loop's.

use std::thread::{Scope, ScopedJoinHandle};

use proto::v1;

use super::super::RecipeError;
use super::plan::Plan;
use crate::artifacts::Artifacts;
use crate::checkpoint::{Checkpoint, CheckpointError};

/// The thread's name, for whoever looks at the process.
const THREAD: &str = "checkpoint";

/// The one checkpoint that is being written, if any.
///
/// The scope ends only when its threads have: a loop that returns for whatever reason leaves no
/// half-written checkpoint behind, and one without a manifest is not read by anybody.
#[derive(Debug)]
pub(super) struct Saver<'scope, 'env> {
    scope: &'scope Scope<'scope, 'env>,
    artifacts: &'env Artifacts,
    plan: &'env Plan,
    writing: Option<ScopedJoinHandle<'scope, Result<v1::Checkpoint, RecipeError>>>,
}

impl<'scope, 'env> Saver<'scope, 'env> {
    pub(super) fn new(
        scope: &'scope Scope<'scope, 'env>,
        artifacts: &'env Artifacts,
        plan: &'env Plan,
    ) -> Self {
        Self { scope, artifacts, plan, writing: None }
    }

    /// Starts to write a checkpoint that nothing changes any more. The one before must have been
    /// taken by [`Self::wait`].
    pub(super) fn begin(&mut self, checkpoint: Checkpoint) -> Result<(), RecipeError> {
        debug_assert!(self.writing.is_none(), "checkpoints are written one after the other");
        let (artifacts, plan) = (self.artifacts, self.plan);
        let step = checkpoint.state.step;
        let handle = std::thread::Builder::new()
            .name(THREAD.to_owned())
            .spawn_scoped(self.scope, move || save(artifacts, plan, checkpoint))
            .map_err(|source| RecipeError::Save {
                step,
                source: CheckpointError::Thread(source),
            })?;
        self.writing = Some(handle);
        Ok(())
    }

    /// The checkpoint, if it has become durable in the meantime.
    pub(super) fn poll(&mut self) -> Result<Option<v1::Checkpoint>, RecipeError> {
        match &self.writing {
            Some(handle) if handle.is_finished() => self.wait(),
            _ => Ok(None),
        }
    }

    /// Waits for the checkpoint that is being written; nothing when there is none.
    pub(super) fn wait(&mut self) -> Result<Option<v1::Checkpoint>, RecipeError> {
        let Some(handle) = self.writing.take() else { return Ok(None) };
        match handle.join() {
            Ok(saved) => saved.map(Some),
            // What broke there ends the attempt as it would have here.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn save(
    artifacts: &Artifacts,
    plan: &Plan,
    checkpoint: Checkpoint,
) -> Result<v1::Checkpoint, RecipeError> {
    let step = checkpoint.state.step;
    let prefix = format!("{}{step}/", plan.key_prefix);
    checkpoint
        .save(artifacts, &prefix, &plan.cell.model, plan.is_data_point(step))
        .map_err(|source| RecipeError::Save { step, source })
}
