//! Training tokens per second of the trainer, beside eager (and on demand compiled) PyTorch for
//! `llama`: the same weights, batches, optimizer, cores and number of threads, in turns.

use std::collections::HashMap;

use anyhow::{Result, ensure};
use domain::model::Architecture;
use domain::spec::Precision;
use worker::compute_device::ComputeDevice;

use crate::args::TrainArgs;
use crate::bare::{self, Request};
use crate::case::{Case, Size, batch_tokens, chosen};
use crate::device::Device;
use crate::pytorch::{self, Inputs, Mode, PyTorch, Steps};
use crate::report::{Bar, Report, Row};
use crate::site::Site;
use crate::spread::median;

/// In fp32 both sides differ by the order of their sums only.
const FP32_TOLERANCE: f64 = 1e-4;
/// In bf16 by the rounding of the products too; the bar against fp32.
const BF16_TOLERANCE: f64 = 0.005;

const BYTES_PER_GIBIBYTE: f64 = 1024.0 * 1024.0 * 1024.0;

/// The case that a quick run takes.
const fn quick(device: Device) -> &'static str {
    match device {
        Device::Cpu => "0.3m-t256",
        Device::Cuda => "70m-t2048",
    }
}

/// What one side did: the median speed of each round, and the losses of all steps.
#[derive(Debug, Default)]
struct Side {
    tokens_per_second: Vec<f64>,
    losses: Vec<f64>,
    /// Of a CUDA device, the median MFU of each round, which only ours tells.
    mfu: Vec<f64>,
    /// Of a CUDA device, the most that each round took.
    memory_gibibytes: Vec<f64>,
}

impl Side {
    fn add(&mut self, case: &Case, step_seconds: &[f64], losses: Vec<f64>) {
        self.tokens_per_second.push(f64::from(case.batch_tokens()) / median(step_seconds));
        self.losses = losses;
    }

    fn first_loss(&self) -> f64 {
        self.losses.first().copied().unwrap_or(f64::NAN)
    }

    /// The mean loss of the last steps; no number where there were none.
    fn final_loss(&self, n_last: usize) -> f64 {
        let last = &self.losses[self.losses.len().saturating_sub(n_last)..];
        last.iter().sum::<f64>() / last.len() as f64
    }
}

/// What all cases share.
struct Bench<'a> {
    args: &'a TrainArgs,
    steps: Steps,
    /// Those of the compared losses, where they are others.
    loss_steps: Option<Steps>,
    rounds: u32,
    site: Site,
    pytorch: Option<PyTorch>,
    /// Final losses in fp32, by the case's name.
    fp32_losses: HashMap<String, f64>,
}

pub(crate) fn measure(args: &TrainArgs) -> Result<Report> {
    let device = args.place.device;
    // Before anything else of libtorch, and before each case would fail of it.
    let cuda = (device == Device::Cuda).then(|| args.place.choose()).transpose()?;
    let mut report = Report::new("train", &args.common)?;
    let quick = [quick(device).to_owned()];
    let only = if args.common.quick && args.only.is_empty() { &quick[..] } else { &args.only[..] };
    let cases = chosen(device, only)?;
    let timed = args.steps.unwrap_or(if args.common.quick { 3 } else { 10 });
    let mut bench = Bench {
        args,
        steps: Steps { untimed: if args.common.quick { 1 } else { 3 }, timed },
        // PyTorch's side times one at least.
        loss_steps: args.loss_steps.map(|n| Steps { untimed: n - 1, timed: 1 }),
        rounds: args.common.rounds_or(5),
        site: Site::new(&args.common.folder()?)?,
        pytorch: PyTorch::find(device),
        fp32_losses: HashMap::new(),
    };
    if bench.pytorch.is_none() {
        report.note(PyTorch::missing());
    }
    let final_loss = match args.loss_steps {
        None => "that of the last of these steps".to_owned(),
        Some(n) => format!(
            "the mean of the last {} of {n} more steps from the first weights on, which are not \
             timed",
            bench.n_last()
        ),
    };
    report.note(format!(
        "Each value is the median over {} rounds of the median of {timed} steps, after {} untimed \
         ones; {} tokens a step; `final loss` is {final_loss}.",
        bench.rounds,
        bench.steps.untimed,
        batch_tokens(device)
    ));
    if let Some(compute) = cuda {
        report.note(on_cuda(&compute));
    }
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
        let inputs = self.inputs(case, self.steps)?;
        let has_compiled = self.args.compile && case.precision == Precision::Bf16;
        let (mut ours, mut eager, mut compiled) =
            (Side::default(), Side::default(), Side::default());
        let mut version = String::new();
        for _ in 0..self.rounds {
            self.ours(case, self.steps, &mut ours)?;
            if let Some((pytorch, inputs)) = &inputs {
                let train = |mode, side: &mut Side| {
                    self.theirs((pytorch, inputs), case, mode, self.steps, side)
                };
                version = train(Mode::Eager, &mut eager)?;
                if has_compiled {
                    train(Mode::Compiled, &mut compiled)?;
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
        use_of_device(case, &ours, &peers, report);
        match self.loss_steps {
            None => self.losses(case, &ours, &peers, report),
            Some(steps) => self.losses_of_more(case, steps, report),
        }
    }

    /// Trains for the losses alone, once on each side, because all rounds come to the same ones.
    fn losses_of_more(&mut self, case: &Case, steps: Steps, report: &mut Report) -> Result<()> {
        let (mut ours, mut eager) = (Side::default(), Side::default());
        let mut peers = Vec::new();
        self.ours(case, steps, &mut ours)?;
        if let Some((pytorch, inputs)) = self.inputs(case, steps)? {
            let with = (pytorch, &inputs);
            let version = self.theirs(with, case, Mode::Eager, steps, &mut eager)?;
            peers.push((&eager, format!("PyTorch {version} eager")));
        }
        let first = [ours.first_loss()];
        report.add(Row::alone(format!("{case}, first loss"), "nats/token", &first));
        if peers.is_empty() && case.precision == Precision::Fp32 {
            let last = [ours.final_loss(self.n_last())];
            report.add(Row::alone(format!("{case}, final loss"), "nats/token", &last));
        }
        self.losses(case, &ours, &peers, report)
    }

    /// How many of the last steps a final loss is the mean of: a single one of few.
    fn n_last(&self) -> usize {
        self.args.loss_steps.map_or(1, |n| (n as usize / 10).max(1))
    }

    /// PyTorch and what it reads, where it is there and has code for the architecture.
    fn inputs(&self, case: &Case, steps: Steps) -> Result<Option<(&PyTorch, Inputs)>> {
        let inputs = pytorch::inputs(case, &case.cell(steps.all())?, &self.site)?;
        Ok(self.pytorch.as_ref().zip(inputs))
    }

    fn ours(&self, case: &Case, steps: Steps, side: &mut Side) -> Result<()> {
        let trained = bare::train(&Request {
            store: self.site.store(),
            manifest_key: Site::manifest_key(),
            scratch: self.site.path().join("scratch"),
            cell: case.cell(steps.all())?,
            threads: self.args.common.threads,
            checkpoint_steps: Vec::new(),
            place: Some(self.args.place.clone()),
        })?;
        let (seconds, losses) = (trained.step_seconds(case.batch_tokens())?, trained.losses()?);
        // Each round begins with the same weights and sees the same batches. Of PyTorch it is not
        // asked: it does not promise the same bits twice.
        let is_same = side.losses.is_empty() || side.losses == losses;
        ensure!(is_same, "two rounds came to different losses");
        side.add(case, &seconds[steps.untimed as usize..], losses);
        if self.args.place.device == Device::Cuda {
            side.mfu.push(median(&trained.series("mfu")?[steps.untimed as usize..]));
            let peak = trained.series("memory_peak_bytes")?.last().copied();
            side.memory_gibibytes.extend(peak.map(|bytes| bytes / BYTES_PER_GIBIBYTE));
        }
        self.site.forget_runs()
    }

    fn theirs(
        &self,
        (pytorch, inputs): (&PyTorch, &Inputs),
        case: &Case,
        mode: Mode,
        steps: Steps,
        side: &mut Side,
    ) -> Result<String> {
        let trained = pytorch.train(case, mode, inputs, steps, self.args.common.threads)?;
        side.add(case, &trained.step_seconds, trained.losses);
        let peak = trained.memory_peak_bytes;
        side.memory_gibibytes.extend(peak.map(|bytes| bytes / BYTES_PER_GIBIBYTE));
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
        let n_last = self.n_last();
        let loss = ours.final_loss(n_last);
        let mut beside = |peer: &str, peer_loss: f64, tolerance: f64| {
            let row = Row::alone(what.clone(), "nats/token", &[loss]);
            report.add(row.beside(&[loss], peer, &[peer_loss]));
            check(&what, peer, loss, peer_loss, tolerance)
        };
        let mut failures = Vec::new();
        let is_bf16 = case.precision == Precision::Bf16;
        let tolerance = if is_bf16 { BF16_TOLERANCE } else { FP32_TOLERANCE };
        for (side, name) in peers {
            failures.extend(beside(name, side.final_loss(n_last), tolerance));
            let what = format!("{case}, first loss");
            failures.extend(check(&what, name, ours.first_loss(), side.first_loss(), tolerance));
        }
        let in_fp32 = Case { precision: Precision::Fp32, ..*case };
        match case.precision {
            Precision::Fp32 => {
                self.fp32_losses.insert(case.to_string(), loss);
            }
            Precision::Bf16 if case.size.precisions().contains(&Precision::Fp32) => {
                let fp32_loss = match self.fp32_losses.get(&in_fp32.to_string()) {
                    Some(loss) => *loss,
                    None => self.fp32_loss(&in_fp32)?,
                };
                failures.extend(beside("ours in fp32", fp32_loss, BF16_TOLERANCE));
            }
            Precision::Bf16 => {}
        }
        for failure in failures {
            report.fail(failure);
        }
        Ok(())
    }

    fn fp32_loss(&self, case: &Case) -> Result<f64> {
        let mut side = Side::default();
        self.ours(case, self.loss_steps.unwrap_or(self.steps), &mut side)?;
        Ok(side.final_loss(self.n_last()))
    }
}

/// What a reader of a table from a CUDA device must know.
fn on_cuda(compute: &ComputeDevice) -> String {
    format!(
        "Both sides compute on {}, {:.1} GiB. `mfu` is the trainer's own \
         (docs/reference/metrics.md), the median as for the speed; `memory` is the most that \
         libtorch's allocator took of the device.",
        compute.capability,
        compute.memory_bytes as f64 / BYTES_PER_GIBIBYTE
    )
}

/// How much of a CUDA device is made use of, and of its memory; of the CPU there is no such row.
fn use_of_device(case: &Case, ours: &Side, peers: &[(&Side, String)], report: &mut Report) {
    if ours.mfu.is_empty() {
        return;
    }
    report.add(Row::alone(format!("{case}, mfu"), "1", &ours.mfu));
    let memory = Row::alone(format!("{case}, memory"), "GiB", &ours.memory_gibibytes);
    if peers.is_empty() {
        report.add(memory.clone());
    }
    for (side, name) in peers {
        let row = memory.clone();
        report.add(row.beside(&ours.memory_gibibytes, name, &side.memory_gibibytes));
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
    use crate::args::Common;

    #[test]
    fn a_loss_too_far_from_its_peer_fails_and_so_does_one_that_is_no_number() {
        let check = |loss: f64, peer: f64| check("a", "b", loss, peer, 0.005).is_none();
        assert!(check(5.0, 5.0) && check(5.02, 5.0) && check(4.98, 5.0));
        assert!(!check(5.03, 5.0) && !check(f64::NAN, 5.0) && !check(5.0, f64::NAN));
    }

    #[test]
    fn a_round_counts_by_the_median_of_its_steps() {
        let case = chosen(Device::Cpu, &["tnl-0.3m-t256-fp32".to_owned()]).unwrap()[0];
        let mut side = Side::default();
        side.add(&case, &[1.0, 2.0, 100.0], vec![3.0, 2.0]);
        side.add(&case, &[1.0], vec![3.0, 2.0]);
        assert_eq!(side.tokens_per_second, [1024.0, 2048.0]);
        assert_eq!((side.first_loss(), side.final_loss(1)), (3.0, 2.0));
        assert_eq!((side.final_loss(2), side.final_loss(9)), (2.5, 2.5));
        assert!(Side::default().final_loss(1).is_nan());
    }

    #[test]
    fn mfu_and_memory_are_told_of_a_cuda_device_only() {
        let case = chosen(Device::Cuda, &["llama-70m-t2048-bf16".to_owned()]).unwrap()[0];
        let table = |ours: &Side| {
            let theirs = Side { memory_gibibytes: vec![25.0], ..Side::default() };
            let common =
                Common { threads: 1, rounds: None, quick: true, out: std::path::PathBuf::new() };
            let mut report = Report::new("train", &common).unwrap();
            use_of_device(&case, ours, &[(&theirs, "PyTorch eager".to_owned())], &mut report);
            report.to_markdown()
        };
        let side = Side { mfu: vec![0.4], memory_gibibytes: vec![20.0], ..Side::default() };
        let found = table(&side);
        assert!(found.contains("| llama-70m-t2048-bf16, mfu | 0.4000 | 1 |"), "{found}");
        let memory = "| llama-70m-t2048-bf16, memory | 20.00 | GiB |  | PyTorch eager | 25.00 |";
        assert!(found.contains(memory), "{found}");
        assert!(!table(&Side::default()).contains("llama"));
    }
}
