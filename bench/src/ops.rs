//! The linear-attention operators: in chunks against the naive recurrence and against the parallel
//! form; and the step time of whole models at a long against a short text of equally many tokens.

use std::time::{Duration, Instant};

use anyhow::Result;
use domain::model::Architecture;
use domain::spec::Precision;
use models::ops::decay_attention::{self, DecayTable, decay_attention};
use models::ops::gated_attention::{self, GateTable, gated_attention};
use tch::{Device, Kind, Tensor};

use crate::args::OpsArgs;
use crate::bare::{self, Request};
use crate::case::{Case, Size};
use crate::report::{Bar, Report, Row};
use crate::site::Site;
use crate::spread::median;

/// One text of the 7M models' heads.
const SHAPE: Shape = Shape { heads: 4, width: 64 };

/// The longest text of the filter's forms, whose recurrence keeps every state for its backward pass.
const LONGEST_FILTER: u32 = 2048;

/// The length at which chunks must be ten times as fast as the recurrence.
const BAR_TIME: i64 = 2048;

/// A short call is repeated for so long.
const SHORTEST: Duration = Duration::from_millis(50);

/// Tokens of a step, and the two lengths that are compared.
const STEP_TOKENS: u32 = 4096;
const SHORT: u32 = 512;

#[derive(Debug, Clone, Copy)]
struct Shape {
    heads: i64,
    width: i64,
}

/// How the state fades.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decay {
    Scalar,
    None,
    Vector,
}

impl Decay {
    const ALL: [Self; 3] = [Self::Scalar, Self::None, Self::Vector];

    fn label(self) -> &'static str {
        match self {
            Self::Scalar => "scalar decay (tnl)",
            Self::None => "no decay (cosformer2)",
            Self::Vector => "vector decay (hgrn2)",
        }
    }
}

/// How the operator is computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Chunks,
    Recurrence,
    Parallel,
}

/// An operator with its inputs.
struct Operator {
    decay: Decay,
    time: i64,
    /// q, k, v and, for a vector decay, log f: `[1, T, H, K]`.
    inputs: Vec<Tensor>,
}

impl Operator {
    fn new(decay: Decay, time: i64) -> Self {
        let random = |seed: i64| {
            tch::manual_seed(seed);
            let size = [1, time, SHAPE.heads, SHAPE.width];
            Tensor::randn(size, (Kind::Float, Device::Cpu))
        };
        let mut inputs: Vec<Tensor> = (1..=3).map(random).collect();
        if decay == Decay::Vector {
            inputs.push(random(4).log_sigmoid());
        }
        let inputs = inputs.into_iter().map(|input| input.set_requires_grad(true)).collect();
        Self { decay, time, inputs }
    }

    /// −log λ of each head.
    fn rates(&self) -> Vec<f64> {
        let heads = u32::try_from(SHAPE.heads).expect("a few heads");
        // ALiBi's slopes, as TNL has them in its first layer.
        let slope = |head: u32| (-8.0 * f64::from(head + 1) / f64::from(heads)).exp2();
        match self.decay {
            Decay::None => vec![0.0; heads as usize],
            _ => (0..heads).map(slope).collect(),
        }
    }

    /// The operator in a form, ready to be applied: a model makes its tables once, so they are made
    /// before the clock starts.
    fn in_form(&self, form: Form) -> Box<dyn Fn() -> Tensor + '_> {
        let x = &self.inputs;
        let (kind, device) = (Kind::Float, Device::Cpu);
        let rates = self.rates();
        let chunk = |usual: i64| if form == Form::Parallel { self.time } else { usual };
        match (self.decay, form) {
            (Decay::Vector, Form::Recurrence) => {
                Box::new(|| gated_attention::naive([&x[0], &x[1], &x[2], &x[3]], None).0)
            }
            (Decay::Vector, _) => {
                let table = GateTable::new(self.time, chunk(gated_attention::CHUNK), kind, device);
                Box::new(move || gated_attention([&x[0], &x[1], &x[2], &x[3]], &table, None).0)
            }
            (_, Form::Recurrence) => {
                Box::new(move || decay_attention::naive(&x[0], &x[1], &x[2], &rates, None).0)
            }
            (..) => {
                let usual = chunk(decay_attention::CHUNK);
                let table = DecayTable::new(&rates, self.time, usual, kind, device);
                Box::new(move || decay_attention(&x[0], &x[1], &x[2], &table))
            }
        }
    }

    /// Tokens per second of the forward pass, or of forward and backward.
    fn tokens_per_second(&self, apply: &dyn Fn() -> Tensor, has_backward: bool) -> f64 {
        let start = Instant::now();
        for n_calls in 1_u32.. {
            if has_backward {
                let sum = apply().sum(Kind::Float);
                drop(Tensor::run_backward(&[sum], &self.inputs, false, false));
            } else {
                drop(tch::no_grad(apply));
            }
            let elapsed = start.elapsed();
            if elapsed >= SHORTEST {
                return f64::from(n_calls) * self.time as f64 / elapsed.as_secs_f64();
            }
        }
        unreachable!("time passes")
    }

    /// What the first column calls it.
    fn what(decay: Decay, time: i64) -> String {
        format!("{}, T = {time}", decay.label())
    }

    /// Rows of chunks against another form, in turns after one round that is not counted.
    fn compare(&self, form: Form, rounds: u32) -> [Row; 2] {
        let peer = if form == Form::Parallel { "parallel form" } else { "naive recurrence" };
        let (chunks, other) = (self.in_form(Form::Chunks), self.in_form(form));
        [(false, "forward"), (true, "forward and backward")].map(|(has_backward, passes)| {
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            for _ in 0..=rounds {
                ours.push(self.tokens_per_second(&chunks, has_backward));
                theirs.push(self.tokens_per_second(&other, has_backward));
            }
            let what = format!("{}, {passes}", Self::what(self.decay, self.time));
            let row =
                Row::alone(what, "tokens/s", &ours[1..]).beside(&ours[1..], peer, &theirs[1..]);
            let has_bar = form == Form::Recurrence && self.time == BAR_TIME;
            if has_bar { row.bar(Bar::AtLeast(10.0)) } else { row }
        })
    }
}

pub(crate) fn measure(args: &OpsArgs) -> Result<Report> {
    let mut report = Report::new("ops", &args.common)?;
    // As the trainer has it: else the large tensors of one side come from the kernel page by page.
    torch_ext::keep_freed_memory()?;
    torch_ext::set_intra_op_threads(args.common.threads as usize)?;
    torch_ext::use_deterministic_algorithms(true)?;
    report.note(format!(
        "Operators: one text, {} heads of {} channels, float32; in chunks, against the recurrence \
         over time and against one chunk as long as the text (up to T = {}: its memory grows as \
         T²). The median over {} rounds.",
        SHAPE.heads,
        SHAPE.width,
        args.parallel_up_to,
        operator_rounds(args)
    ));
    let longest = args.up_to.unwrap_or(if args.common.quick { 512 } else { 8192 });
    for decay in Decay::ALL {
        let lengths = std::iter::successors(Some(256), |time| Some(time * 2));
        let lengths = lengths.take_while(|time| *time <= i64::from(longest));
        for time in lengths.filter(|time| args.wants(&Operator::what(decay, *time))) {
            operator(args, &Operator::new(decay, time), &mut report);
        }
    }
    let lengths = std::iter::successors(Some(256), |time| Some(time * 2));
    let lengths = lengths.take_while(|time| *time <= i64::from(longest.min(LONGEST_FILTER)));
    for time in lengths.filter(|time| args.wants(&crate::filter::what(*time))) {
        crate::filter::measure(time, operator_rounds(args), &mut report);
    }
    models(args, &mut report)?;
    Ok(report)
}

fn operator_rounds(args: &OpsArgs) -> u32 {
    args.common.rounds_or(5)
}

fn operator(args: &OpsArgs, operator: &Operator, report: &mut Report) {
    let rounds = operator_rounds(args);
    let has_parallel = operator.time <= i64::from(args.parallel_up_to);
    let forms = [Form::Recurrence, Form::Parallel];
    for form in forms.into_iter().filter(|form| *form == Form::Recurrence || has_parallel) {
        for row in operator.compare(form, rounds) {
            report.add(row);
        }
    }
}

/// Step times of whole models; `llama` beside the linear ones, whose time should not grow.
fn models(args: &OpsArgs, report: &mut Report) -> Result<()> {
    let quick = args.common.quick;
    let (size, steps) = if quick { (Size::Small, 2) } else { (Size::Large, 6) };
    let (timed, rounds) = (args.steps.unwrap_or(steps), args.common.rounds_or(3));
    let untimed = if quick { 1 } else { 2 };
    report.note(format!(
        "Steps: the trainer's, {} parameters, fp32, {STEP_TOKENS} tokens each, one text of \
         {STEP_TOKENS} against {} of {SHORT}; the median over {rounds} rounds of the median of \
         {timed} steps after {untimed} untimed ones.",
        size.label(),
        STEP_TOKENS / SHORT
    ));
    let site = Site::new(&args.common.folder()?)?;
    for &architecture in Architecture::ALL {
        let what = format!("{architecture}-{}, step at T = {STEP_TOKENS}", size.label());
        if !args.wants(&what) {
            continue;
        }
        let seconds = |sequence_length: u32| -> Result<f64> {
            let batch_sequences = STEP_TOKENS / sequence_length;
            let precision = Precision::Fp32;
            let case = Case { architecture, size, sequence_length, batch_sequences, precision };
            let trained = bare::train(&Request {
                store: site.store(),
                manifest_key: Site::manifest_key(),
                scratch: site.path().join("scratch"),
                cell: case.cell(untimed + timed)?,
                threads: args.common.threads,
                checkpoint_steps: Vec::new(),
                place: None,
            })?;
            Ok(median(&trained.step_seconds(STEP_TOKENS)?[untimed as usize..]))
        };
        let (mut long, mut short) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            long.push(seconds(STEP_TOKENS)?);
            short.push(seconds(SHORT)?);
        }
        let row = Row::alone(what, "s", &long);
        let row = row.beside(&long, format!("step at T = {SHORT}"), &short);
        let is_linear = architecture != Architecture::Llama;
        report.add(if is_linear { row.bar(Bar::AtMost(1.3)) } else { row });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is compared must be the same operator: outputs and gradients of all forms agree.
    #[test]
    fn the_three_forms_compute_the_same() {
        torch_ext::set_intra_op_threads(1).unwrap();
        for decay in Decay::ALL {
            let operator = Operator::new(decay, 300);
            let found = |form: Form| {
                let output = operator.in_form(form)();
                let sum = output.sum(Kind::Float);
                let gradients = Tensor::run_backward(&[sum], &operator.inputs, false, false);
                std::iter::once(output).chain(gradients).collect::<Vec<_>>()
            };
            let expected = found(Form::Recurrence);
            for form in [Form::Chunks, Form::Parallel] {
                for (found, expected) in found(form).iter().zip(&expected) {
                    let difference = (found - expected).abs().max().double_value(&[]);
                    let scale = expected.abs().max().double_value(&[]);
                    assert!(difference <= 1e-4 * scale, "{decay:?} {form:?}: {difference}");
                }
            }
        }
    }
}
