//! Training tokens per second of the trainer, beside eager (and on demand compiled) PyTorch for
//! `llama`: the same weights, batches, optimizer, cores and number of threads, in turns.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use domain::model::Architecture;
use domain::spec::Precision;

use crate::args::TrainArgs;
use crate::bare::{self, Request};
use crate::case::{Case, Size, chosen};
use crate::pytorch::{self, Inputs, Mode, PyTorch, Steps};
use crate::report::{Bar, Report, Row};
use crate::site::Site;
use crate::spread::median;

/// In fp32 both sides differ by the order of their sums only.
const FP32_TOLERANCE: f64 = 1e-4;
/// In bf16 by the rounding of the products too; the bar against fp32.
const BF16_TOLERANCE: f64 = 0.005;

/// The case that a quick run takes.
const QUICK: &str = "0.3m-t256";

/// What one side did: the median speed of each round, and the losses of all steps.
#[derive(Debug, Default)]
struct Side {
    tokens_per_second: Vec<f64>,
    losses: Vec<f64>,
}

impl Side {
    fn add(&mut self, case: &Case, step_seconds: &[f64], losses: Vec<f64>) {
        self.tokens_per_second.push(f64::from(case.batch_tokens()) / median(step_seconds));
        self.losses = losses;
    }

    fn first_loss(&self) -> f64 {
        self.losses.first().copied().unwrap_or(f64::NAN)
    }

    fn final_loss(&self) -> f64 {
        self.losses.last().copied().unwrap_or(f64::NAN)
    }
}

/// What all cases share.
struct Bench<'a> {
    args: &'a TrainArgs,
    steps: Steps,
    rounds: u32,
    site: Site,
    pytorch: Option<PyTorch>,
    /// Final losses in fp32, by the case's name.
    fp32_losses: HashMap<String, f64>,
}

pub(crate) fn measure(args: &TrainArgs) -> Result<Report> {
    let mut report = Report::new("train", &args.common)?;
    let quick = [QUICK.to_owned()];
    let only = if args.common.quick && args.only.is_empty() { &quick[..] } else { &args.only[..] };
    let cases = chosen(only)?;
    let timed = args.steps.unwrap_or(if args.common.quick { 3 } else { 10 });
    let mut bench = Bench {
        args,
        steps: Steps { untimed: if args.common.quick { 1 } else { 3 }, timed },
        rounds: args.common.rounds_or(5),
        site: Site::new(&args.common.folder()?)?,
        pytorch: PyTorch::find(),
        fp32_losses: HashMap::new(),
    };
    if bench.pytorch.is_none() {
        report.note(PyTorch::missing());
    }
    report.note(format!(
        "Each value is the median over {} rounds of the median of {timed} steps, after {} untimed \
         ones; 2048 tokens a step; `final loss` is that of the last of these steps.",
        bench.rounds, bench.steps.untimed
    ));
    for case in cases {
        // The other cases' numbers are worth having.
        if let Err(error) = bench.case(&case, &mut report) {
            report.fail(format!("{case}: {error:#}"));
        }
    }
    Ok(report)
}

impl Bench<'_> {
    fn case(&mut self, case: &Case, report: &mut Report) -> Result<()> {
        crate::say(&format!("{case} …"));
        let inputs = pytorch::inputs(case, &case.cell(self.steps.all())?, &self.site)?;
        let peer = self.pytorch.as_ref().zip(inputs.as_ref());
        let has_compiled = self.args.compile && case.precision == Precision::Bf16;
        let (mut ours, mut eager, mut compiled) =
            (Side::default(), Side::default(), Side::default());
        let mut version = String::new();
        for _ in 0..self.rounds {
            self.ours(case, &mut ours)?;
            if let Some((pytorch, inputs)) = peer {
                version = self.theirs(pytorch, case, Mode::Eager, inputs, &mut eager)?;
                if has_compiled {
                    self.theirs(pytorch, case, Mode::Compiled, inputs, &mut compiled)?;
                }
            }
        }
        let peers = [(&eager, "eager"), (&compiled, "compiled")];
        let peers: Vec<(&Side, String)> = peers
            .into_iter()
            .filter(|(side, _)| !side.losses.is_empty())
            .map(|(side, how)| (side, format!("PyTorch {version} {how}")))
            .collect();
        let speeds = &ours.tokens_per_second;
        let speed = Row::alone(case.to_string(), "tokens/s", speeds);
        if peers.is_empty() {
            report.add(speed.clone());
        }
        for (side, name) in &peers {
            let row = speed.clone().beside(speeds, name, &side.tokens_per_second);
            let has_bar = has_bar(case) && std::ptr::eq(*side, &raw const eager);
            report.add(if has_bar { row.bar(Bar::AtLeast(1.0)) } else { row });
        }
        self.losses(case, &ours, &peers, report)
    }

    fn ours(&self, case: &Case, side: &mut Side) -> Result<()> {
        let trained = bare::train(&Request {
            store: self.site.store(),
            manifest_key: Site::manifest_key(),
            scratch: self.site.path().join("scratch"),
            cell: case.cell(self.steps.all())?,
            threads: self.args.common.threads,
            checkpoint_steps: Vec::new(),
        })?;
        let (seconds, losses) = (trained.step_seconds(case.batch_tokens())?, trained.losses()?);
        // Each round begins with the same weights and sees the same batches. Of PyTorch it is not
        // asked: it does not promise the same bits twice.
        let is_same = side.losses.is_empty() || side.losses == losses;
        ensure!(is_same, "two rounds came to different losses");
        side.add(case, &seconds[self.steps.untimed as usize..], losses);
        Ok(())
    }

    fn theirs(
        &self,
        pytorch: &PyTorch,
        case: &Case,
        mode: Mode,
        inputs: &Inputs,
        side: &mut Side,
    ) -> Result<String> {
        let threads = self.args.common.threads;
        let trained = pytorch.train(case, mode, inputs, self.steps, threads)?;
        side.add(case, &trained.step_seconds, trained.losses);
        Ok(trained.torch_version)
    }

    /// Says the final loss beside the others', and fails where it is too far from them.
    fn losses(
        &mut self,
        case: &Case,
        ours: &Side,
        peers: &[(&Side, String)],
        report: &mut Report,
    ) -> Result<()> {
        let what = format!("{case}, final loss");
        let loss = ours.final_loss();
        let mut beside = |peer: &str, peer_loss: f64, tolerance: f64| {
            let row = Row::alone(what.clone(), "nats/token", &[loss]);
            report.add(row.beside(&[loss], peer, &[peer_loss]));
            check(&what, peer, loss, peer_loss, tolerance)
        };
        let mut failures = Vec::new();
        let is_bf16 = case.precision == Precision::Bf16;
        let tolerance = if is_bf16 { BF16_TOLERANCE } else { FP32_TOLERANCE };
        for (side, name) in peers {
            failures.extend(beside(name, side.final_loss(), tolerance));
            let what = format!("{case}, first loss");
            failures.extend(check(&what, name, ours.first_loss(), side.first_loss(), tolerance));
        }
        let in_fp32 = Case { precision: Precision::Fp32, ..*case };
        if is_bf16 {
            let fp32_loss = match self.fp32_losses.get(&in_fp32.to_string()) {
                Some(loss) => *loss,
                None => self.fp32_loss(&in_fp32)?,
            };
            failures.extend(beside("ours in fp32", fp32_loss, BF16_TOLERANCE));
        } else {
            self.fp32_losses.insert(case.to_string(), loss);
        }
        for failure in failures {
            report.fail(failure);
        }
        Ok(())
    }

    fn fp32_loss(&self, case: &Case) -> Result<f64> {
        let mut side = Side::default();
        self.ours(case, &mut side)?;
        Ok(side.final_loss())
    }
}

/// Whether it must be as fast as eager PyTorch.
fn has_bar(case: &Case) -> bool {
    case.architecture == Architecture::Llama && case.size == Size::Large
}

/// What is wrong with a loss beside another, if anything.
fn check(what: &str, peer: &str, loss: f64, peer_loss: f64, tolerance: f64) -> Option<String> {
    let difference = (loss / peer_loss - 1.0).abs();
    // Not `>`: a loss that is no number must not pass.
    let is_near = difference <= tolerance;
    (!is_near).then(|| {
        format!(
            "{what}: {loss} is {difference:.1e} away from {peer_loss} of {peer}, more than \
             {tolerance:.0e}"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_too_far_from_its_peer_fails_and_so_does_one_that_is_no_number() {
        let check = |loss: f64, peer: f64| check("a", "b", loss, peer, 0.005).is_none();
        assert!(check(5.0, 5.0) && check(5.02, 5.0) && check(4.98, 5.0));
        assert!(!check(5.03, 5.0) && !check(f64::NAN, 5.0) && !check(5.0, f64::NAN));
    }

    #[test]
    fn a_round_counts_by_the_median_of_its_steps() {
        let case = chosen(&["tnl-0.3m-t256-fp32".to_owned()]).unwrap()[0];
        let mut side = Side::default();
        side.add(&case, &[1.0, 2.0, 100.0], vec![3.0, 2.0]);
        side.add(&case, &[1.0], vec![3.0, 2.0]);
        assert_eq!(side.tokens_per_second, [1024.0, 2048.0]);
        assert_eq!((side.first_loss(), side.final_loss()), (3.0, 2.0));
    }
}
