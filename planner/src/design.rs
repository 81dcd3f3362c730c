//! How long each cell trains, and which of its steps leave a data point.
//!
//! The budgets' FLOPs are `flops_exact`, forward and backward, head included.

use domain::recipe::{MOST_TOKENS, PretrainCell, schedule_misfit};
use domain::spec::{CheckpointSpec, DesignSpec, FlopKind, ParameterKind};
use scaling::design::log_spaced_steps;

/// A budget that buys fewer steps is refused: rounding to whole steps would move it by more than a
/// half in 19.5, 2.56 %, and so short a run is all warm-up.
pub(crate) const MIN_STEPS_OF_A_BUDGET: u64 = 20;

/// Budgets closer than this are refused: rounding to whole steps moves each by up to 2.56 %, so
/// their cells could hardly be told apart.
pub(crate) const MIN_BUDGET_RATIO: f64 = 1.05;

/// How long one cell trains at one entry of the design.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Length {
    /// The position among the budgets and the budget, for isoFLOP designs.
    pub(crate) budget: Option<(usize, f64)>,
    /// Optimizer steps, or why the cell is dropped.
    pub(crate) steps: Result<u64, String>,
}

/// The lengths of a cell: one for a fixed number of tokens, else one for each budget.
///
/// The cell's own `steps` are not read.
///
/// # Errors
/// A fixed number of tokens that is beyond [`MOST_TOKENS`]; a budget that buys more is a reason to
/// drop the cell.
pub(crate) fn lengths(design: &DesignSpec, cell: &PretrainCell) -> Result<Vec<Length>, String> {
    match design {
        DesignSpec::FixedTokens { tokens } => {
            let steps = steps_of_tokens(cell, *tokens)?;
            Ok(vec![Length { budget: None, steps: Ok(steps) }])
        }
        DesignSpec::Isoflop { budgets, min_tokens_per_parameter, max_tokens_per_parameter } => {
            let limits = (*min_tokens_per_parameter, *max_tokens_per_parameter);
            let one = |(index, budget): (usize, &f64)| Length {
                budget: Some((index, *budget)),
                steps: steps_of_budget(cell, *budget, limits),
            };
            Ok(budgets.iter().enumerate().map(one).collect())
        }
    }
}

/// So many tokens, rounded up to whole steps.
fn steps_of_tokens(cell: &PretrainCell, tokens: u64) -> Result<u64, String> {
    let batch_tokens = cell.batch_tokens();
    let steps = tokens.div_ceil(batch_tokens);
    match steps.checked_mul(batch_tokens) {
        Some(rounded) if rounded <= MOST_TOKENS => Ok(steps),
        _ => Err(format!(
            "`{tokens}`, rounded up to {steps} steps of {batch_tokens} tokens, is out of range; \
             1 to {MOST_TOKENS} tokens"
        )),
    }
}

/// D = C / (FLOPs a token), to the nearest whole step.
fn steps_of_budget(
    cell: &PretrainCell,
    budget_flops: f64,
    (min_ratio, max_ratio): (f64, f64),
) -> Result<u64, String> {
    let flops_per_step = cell.flops_per_token(FlopKind::Exact) * cell.batch_tokens() as f64;
    let steps = (budget_flops / flops_per_step).round();
    if steps < MIN_STEPS_OF_A_BUDGET as f64 {
        return Err(format!(
            "{budget_flops:e} FLOPs buy {steps} steps of {flops_per_step:.3e} FLOPs; at least \
             {MIN_STEPS_OF_A_BUDGET} are needed"
        ));
    }
    let tokens = steps * cell.batch_tokens() as f64;
    let parameters = cell.parameters(ParameterKind::NonEmbedding) as f64;
    let ratio = tokens / parameters;
    let says = |limit: &str, bound: f64| {
        format!(
            "{tokens:.3e} tokens on {parameters:.3e} parameters are {ratio:.3} tokens per \
             parameter; the {limit} is {bound}"
        )
    };
    if ratio < min_ratio {
        return Err(says("minimum", min_ratio));
    }
    if ratio > max_ratio {
        return Err(says("maximum", max_ratio));
    }
    // No step has less than a token, so this bounds the steps too.
    if tokens > MOST_TOKENS as f64 {
        return Err(format!(
            "{budget_flops:e} FLOPs buy {tokens:.3e} tokens; the most is {MOST_TOKENS}"
        ));
    }
    let steps = from_whole(steps);
    match cell.training.schedule.warmup_steps() {
        warmup if warmup >= steps => {
            Err(format!("its {steps} steps end before the warm-up of {warmup} steps does"))
        }
        _ => match schedule_misfit(&cell.training.schedule, steps) {
            Some(problem) => Err(problem),
            None => Ok(steps),
        },
    }
}

/// The position of the first budget that is closer than [`MIN_BUDGET_RATIO`] to an earlier one, and
/// that one's value.
pub(crate) fn close_budget(budgets: &[f64]) -> Option<(usize, f64)> {
    budgets.iter().enumerate().find_map(|(index, budget)| {
        let is_close = |other: &&f64| budget.max(**other) < MIN_BUDGET_RATIO * budget.min(**other);
        budgets[..index].iter().find(is_close).map(|other| (index, *other))
    })
}

/// The steps, counted from 1, that leave a data-point checkpoint: ascending, the last one included.
pub(crate) fn data_point_steps(checkpoints: &CheckpointSpec, steps: u64) -> Vec<u64> {
    match checkpoints {
        CheckpointSpec::Final => vec![steps],
        CheckpointSpec::LogSpaced { count, first_step } => {
            log_spaced(first_step.unwrap_or((steps / 100).max(1)), steps, *count)
        }
    }
}

/// `count` distinct steps from `first` to `last`, evenly spaced in the logarithm.
///
/// With one step, or a first one not below the last, only the last remains.
fn log_spaced(first: u64, last: u64, count: u32) -> Vec<u64> {
    let first = first.max(1);
    if count < 2 || first >= last {
        return vec![last];
    }
    // The range was just seen to be one.
    log_spaced_steps(first, last, count as usize).unwrap_or_else(|_| vec![last])
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a whole number from 0 to 2^53"
)]
fn from_whole(value: f64) -> u64 {
    value as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_spaced_steps_ascend_and_end_with_the_last() {
        assert_eq!(log_spaced(1, 1000, 4), [1, 10, 100, 1000]);
        assert_eq!(log_spaced(10, 12, 10), [10, 11, 12]);
        assert_eq!(log_spaced(7, 5, 10), [5]);
        assert_eq!(log_spaced(1, 9, 1), [9]);
    }

    #[test]
    fn budgets_within_five_percent_of_an_earlier_one_are_close() {
        assert_eq!(close_budget(&[1e12, 3e12, 1.06e12, 1e13]), None);
        assert_eq!(close_budget(&[1e12, 3e12, 1.04e12]), Some((2, 1e12)));
        assert_eq!(close_budget(&[1e12, 0.96e12]), Some((1, 1e12)));
        assert_eq!(close_budget(&[1e12, 1e12]), Some((1, 1e12)));
    }

    #[test]
    fn the_first_data_point_is_a_hundredth_of_the_steps() {
        let steps = data_point_steps(&CheckpointSpec::default(), 2000);
        assert_eq!((steps[0], steps.len(), steps[9]), (20, 10, 2000));
        assert_eq!(data_point_steps(&CheckpointSpec::Final, 70), [70]);
    }
}
