//! Where a run begins: at its newest valid checkpoint, or from scratch.
//!
//! It checks checkpoints and writes none.

use proto::v1::{self, event::Kind};

use super::super::{Context, RecipeError, chain};
use super::learner::Learner;
use super::plan::Plan;
use crate::checkpoint::{Checkpoint, CheckpointError};

/// The learner from the newest checkpoint that can be used, and how many updates it holds. Says that
/// the attempt has started.
///
/// Those that are damaged are reported. One that an earlier attempt found damaged too is passed
/// over; for another one this attempt ends, so that another machine looks at it. What cannot be
/// reached is no damage and ends the attempt: a run never starts over because its machine is sick.
pub(super) fn resume(
    context: &mut Context<'_>,
    plan: &Plan,
    checkpoints: &[v1::CheckpointRef],
) -> Result<(Learner, u64), RecipeError> {
    // The newest first, whatever order they came in.
    let mut newest_first: Vec<_> = checkpoints.iter().collect();
    newest_first.sort_by_key(|reference| std::cmp::Reverse(reference.step));
    let (mut learner, mut step, mut doubtful) = (Learner::new(plan)?, 0, None);
    for reference in newest_first {
        match load(context, plan, reference, &mut learner) {
            Ok(()) => {
                step = reference.step;
                break;
            }
            // What another run left need not be of this run's trunk, and is no worse for that.
            Err(CheckpointError::OtherConfig { .. }) if is_of_another_run(context, reference) => {
                let text = format!(
                    "the checkpoint of step {} is another run's and not of this trunk: it is \
                     passed over",
                    reference.step
                );
                context.report.log("warn", text);
            }
            Err(error) if error.is_damage() => {
                refuse(context, reference, &error);
                if !reference.has_failed {
                    doubtful = doubtful.or(Some(reference.step));
                }
                // A half-restored learner is not a fresh one. There is room for one at a time.
                drop(learner);
                learner = Learner::new(plan)?;
            }
            Err(error) => return Err(RecipeError::Checkpoint(error)),
        }
    }
    // All that are damaged are reported at once, so that the next attempt passes over all of them.
    if let Some(step) = doubtful {
        return Err(RecipeError::Doubtful { step });
    }
    let numerics = Some(plan.numerics.clone());
    let started = v1::Started { numerics, resumed_from_step: step };
    context.report.event(Kind::Started(started));
    if step == 0 && !checkpoints.is_empty() {
        let text = format!(
            "none of the {} checkpoints can be used: the run starts from scratch",
            checkpoints.len()
        );
        context.report.log("warn", text);
    }
    Ok((learner, step))
}

fn is_of_another_run(context: &Context<'_>, reference: &v1::CheckpointRef) -> bool {
    let own = format!("runs/{}/", context.assignment.work_id);
    reference.manifest.as_ref().is_some_and(|manifest| !manifest.key.starts_with(&own))
}

fn load(
    context: &Context<'_>,
    plan: &Plan,
    reference: &v1::CheckpointRef,
    learner: &mut Learner,
) -> Result<(), CheckpointError> {
    let checkpoint = Checkpoint::load(context.artifacts, reference, &plan.owner)?;
    if checkpoint.state.step > plan.cell.steps {
        let (expected, found) = (plan.cell.steps, checkpoint.state.step);
        return Err(CheckpointError::OtherStep { expected, found });
    }
    learner.restore(&checkpoint)
}

fn refuse(context: &mut Context<'_>, reference: &v1::CheckpointRef, error: &CheckpointError) {
    let manifest_key = reference.manifest.as_ref().map(|found| found.key.clone());
    let refused = v1::CheckpointRefused {
        step: reference.step,
        manifest_key: manifest_key.unwrap_or_default(),
        reason: chain(error),
    };
    let text =
        format!("the checkpoint of step {} cannot be used: {}", refused.step, refused.reason);
    context.report.event(Kind::CheckpointRefused(refused));
    context.report.log("warn", text);
}
