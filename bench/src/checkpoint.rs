//! What a checkpoint adds to a step, with the writing beside the training, as it always is.

use anyhow::{Context, Result, ensure};
use domain::model::Architecture;
use domain::spec::Precision;

use crate::args::CheckpointArgs;
use crate::bare::{self, Request, Trained};
use crate::case::{Case, Size};
use crate::device::Device;
use crate::report::{Bar, Report, Row};
use crate::site::Site;
use crate::spread::median;

pub(crate) fn measure(args: &CheckpointArgs) -> Result<Report> {
    let mut report = Report::new("checkpoint", &args.common)?;
    let quick = args.common.quick;
    let n_checkpoints = args.checkpoints.unwrap_or(if quick { 2 } else { 8 });
    let rounds = args.common.rounds_or(5);
    report.note(format!(
        "`stall`: how long the loop stands still for a checkpoint (the copy, and the wait for the \
         one before), the median of {n_checkpoints}. `whole cost`: what {n_checkpoints} checkpoints, \
         one every {} steps, add to the time of the run against the same run without, for each \
         checkpoint; writing and hashing beside the training are in it. The ratio is the share of a \
         step. The median over {rounds} rounds.",
        args.every
    ));
    let site = Site::new(&args.common.folder()?)?;
    let sizes = Size::of(Device::Cpu);
    for &size in sizes.iter().take(if quick { 1 } else { sizes.len() }) {
        let case = Case {
            architecture: Architecture::Llama,
            size,
            sequence_length: 256,
            batch_sequences: 8,
            precision: Precision::Fp32,
        };
        let (mut steps, mut stalls, mut costs) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let round = round(args, &site, &case, n_checkpoints)?;
            steps.push(round.step);
            stalls.push(round.stall);
            costs.push(round.cost);
        }
        for (what, seconds, is_stall) in [("stall", stalls, true), ("whole cost", costs, false)] {
            let what = format!("{case}, {what} of a checkpoint");
            let row = Row::alone(what, "s", &seconds).beside(&seconds, "a step", &steps);
            report.add(if is_stall { row.bar(Bar::AtMost(0.1)) } else { row });
        }
    }
    Ok(report)
}

/// What one round measured, in seconds.
#[derive(Debug, PartialEq)]
struct Round {
    step: f64,
    stall: f64,
    cost: f64,
}

/// The same steps with and without checkpoints.
fn round(args: &CheckpointArgs, site: &Site, case: &Case, n_checkpoints: u32) -> Result<Round> {
    // The first stretch is without a checkpoint and fills the caches, the last is for the writing.
    let n_steps = (n_checkpoints + 2) * args.every;
    let train = |checkpoint_steps: Vec<u64>| {
        bare::train(&Request {
            store: site.store(),
            manifest_key: Site::manifest_key(),
            scratch: site.path().join("scratch"),
            cell: case.cell(n_steps)?,
            threads: args.common.threads,
            checkpoint_steps,
            place: None,
        })
    };
    let after: Vec<u64> = (1..=n_checkpoints).map(|index| u64::from(index * args.every)).collect();
    let with = train(after.clone())?;
    let without = train(Vec::new())?;
    ensure!(with.losses()? == without.losses()?, "checkpoints changed the losses of `{case}`");
    Ok(Round {
        step: median(&without.step_seconds(case.batch_tokens())?),
        stall: stall(&with, &after)?,
        cost: (span(&with, args.every)? - span(&without, args.every)?) / f64::from(n_checkpoints),
    })
}

/// The median of what the checkpoints after these steps, counted from 1, held up.
fn stall(trained: &Trained, after: &[u64]) -> Result<f64> {
    let stalls = trained.series("checkpoint_stall_seconds")?;
    let of = |step: &u64| {
        let index = usize::try_from(step.checked_sub(1)?).ok()?;
        // A checkpoint that held nothing up is none: its copy takes time.
        stalls.get(index).copied().filter(|stall| *stall > 0.0)
    };
    let found: Option<Vec<f64>> = after.iter().map(of).collect();
    Ok(median(&found.context("a checkpoint whose step tells of no stall")?))
}

/// The time from the end of step `first`, counted from 1, to the end of the last.
fn span(trained: &Trained, first: u32) -> Result<f64> {
    let elapsed = trained.series("elapsed_seconds")?;
    let start = elapsed.get(first as usize - 1).context("a run of too few steps")?;
    Ok(elapsed.last().context("a run of no steps")? - start)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Four steps with a checkpoint after the second.
    fn trained() -> Trained {
        let point = |elapsed: f64, stall: f64| json!({ "elapsed_seconds": elapsed, "checkpoint_stall_seconds": stall });
        let points = [point(1.0, 0.0), point(2.0, 0.5), point(3.5, 0.0), point(4.5, 0.0)];
        serde_json::from_value(json!({ "points": points })).unwrap()
    }

    #[test]
    fn the_stall_of_a_checkpoint_is_told_with_the_step_before_it() {
        assert_eq!(stall(&trained(), &[2]).unwrap(), 0.5);
        for without in [0, 3, 5] {
            assert!(stall(&trained(), &[without]).is_err());
        }
    }

    #[test]
    fn a_span_goes_from_the_end_of_a_step_to_the_end_of_the_last() {
        assert_eq!(span(&trained(), 1).unwrap(), 3.5);
        assert_eq!(span(&trained(), 2).unwrap(), 2.5);
    }
}
