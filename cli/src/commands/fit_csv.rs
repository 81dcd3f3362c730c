//! `gradus fit --csv`: a law fitted to the rows of a file.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context;
use api::EstimateView;
use scaling::fit::{FitOptions, fit};
use scaling::interval::{Estimate, IntervalOptions, Scheme, infer};
use scaling::law::LawName;
use scaling::observation::{Dataset, Observation, RunKey};

use crate::args::FitArgs;
use crate::failure::Failure;
use crate::output::Form;
use crate::output::fit_parts::FileFit;

/// C = 6 N D where a law of C has no column for it (Kaplan et al. 2020, section 2.1).
const FLOPS_PER_PARAMETER_TOKEN: f64 = 6.0;

pub(super) fn run(file: &Path, args: &FitArgs, form: Form) -> Result<(), Failure> {
    let name = args.law.as_deref().unwrap_or_default();
    let law: LawName = name.parse().map_err(|error| Failure::Wrong(anyhow::Error::new(error)))?;
    let mut warnings = Vec::new();
    let observations = read(file, args, law, &mut warnings).map_err(Failure::Wrong)?;
    let dataset = Dataset::new(&observations)
        .with_context(|| format!("`{}` cannot be fitted", file.display()))
        .map_err(Failure::Wrong)?;
    let options = FitOptions::default();
    let interval = IntervalOptions {
        draws: args.draws as usize,
        seed: u64::from(args.seed),
        ..IntervalOptions::default()
    };
    let fitted = fit(law.law(), &dataset, &options).map_err(anyhow::Error::new)?;
    let inference = infer(&fitted, &dataset, &options, &interval).map_err(anyhow::Error::new)?;
    let intervals = made_by(&inference.resampled.scheme);
    let coefficients = inference.coefficients.into_iter();
    warnings.extend(fitted.warnings);
    let report = FileFit {
        file: file.display().to_string(),
        law: law.to_string(),
        formula: law.law().formula().to_owned(),
        coefficients: coefficients.map(|one| (one.name.to_owned(), view(one.estimate))).collect(),
        n_observations: fitted.n_points as u64,
        n_runs: fitted.n_runs as u64,
        residual_rms_log: fitted.residual_rms_log,
        objective: fitted.objective,
        objective_name: fitted.objective_kind.to_string(),
        huber_delta: fitted.objective_kind.huber_delta(),
        confidence: interval.level,
        intervals,
        draws: args.draws,
        seed: args.seed,
        excluded: Vec::new(),
        warnings,
    };
    Ok(form.print(&report)?)
}

/// How intervals were made, with the numbers needed to make them again; empty without any.
fn made_by(scheme: &Scheme) -> String {
    match scheme {
        Scheme::Bootstrap { draws, seed, .. } => {
            format!("bootstrap by run, {draws} draws, seed {seed}")
        }
        Scheme::Jackknife { n_runs } => format!(
            "leave-one-run-out jackknife, Student's t with {} degrees of freedom",
            n_runs.saturating_sub(1)
        ),
        Scheme::StatedNoise { draws, seed, sd_log, .. } => {
            format!("stated noise of {sd_log} in ln L between seeds, {draws} draws, seed {seed}")
        }
        Scheme::Unavailable { .. } => String::new(),
    }
}

/// Checkpoints of one run share its luck; taken for runs they make intervals too narrow.
fn warn_of_checkpoints(observations: &[Observation], warnings: &mut Vec<String>) {
    let sizes: BTreeSet<u64> = observations.iter().map(|one| one.parameters.to_bits()).collect();
    if sizes.len() < observations.len() {
        warnings.push(format!(
            "several of the {} rows have the same N, and without `--run COLUMN` each is a run of \
             its own; if some are checkpoints of one run, the intervals are too narrow",
            observations.len()
        ));
    }
}

fn view(estimate: Estimate) -> EstimateView {
    match estimate {
        Estimate::Identified { value, low, high } => EstimateView::Identified { value, low, high },
        Estimate::NotIdentified { reason } => EstimateView::NotIdentified { reason },
    }
}

/// Where each variable stands in a row; a variable that the law does not use may be absent.
struct Columns {
    parameters: Option<usize>,
    tokens: Option<usize>,
    flops: Option<usize>,
    loss: usize,
    run: Option<usize>,
}

impl Columns {
    fn find(headers: &csv::StringRecord, args: &FitArgs, law: LawName) -> anyhow::Result<Self> {
        let column = |name: &str| {
            headers.iter().position(|header| header.trim() == name).with_context(|| {
                let names: Vec<String> = headers.iter().map(|one| format!("`{one}`")).collect();
                format!("there is no column `{name}`; the columns are {}", names.join(", "))
            })
        };
        let optional = |name: &Option<String>| name.as_deref().map(column).transpose();
        let loss = args.loss.as_deref().context("`--loss` is missing")?;
        let columns = Self {
            parameters: optional(&args.n)?,
            tokens: optional(&args.d)?,
            flops: optional(&args.c)?,
            loss: column(loss)?,
            run: optional(&args.run)?,
        };
        let has_sizes = columns.parameters.is_some() && columns.tokens.is_some();
        match law {
            LawName::Chinchilla => anyhow::ensure!(
                has_sizes,
                "the law `{law}` is one of N and D: give `--n COLUMN` and `--d COLUMN`"
            ),
            _ => anyhow::ensure!(
                columns.flops.is_some() || has_sizes,
                "the law `{law}` is one of C: give `--c COLUMN`, or `--n` and `--d` for C = 6 N D"
            ),
        }
        Ok(columns)
    }
}

fn read(
    file: &Path,
    args: &FitArgs,
    law: LawName,
    warnings: &mut Vec<String>,
) -> anyhow::Result<Vec<Observation>> {
    let context = || format!("could not read `{}`", file.display());
    let mut reader =
        csv::ReaderBuilder::new().trim(csv::Trim::All).from_path(file).with_context(context)?;
    let columns = Columns::find(reader.headers().with_context(context)?, args, law)?;
    if columns.flops.is_none() {
        warnings.push("no column has C, so it is taken as 6 N D".to_owned());
    }
    let mut runs: BTreeMap<String, u32> = BTreeMap::new();
    let mut observations = Vec::new();
    for (index, record) in reader.records().enumerate() {
        let record = record.with_context(context)?;
        // The header is line 1.
        let line = record.position().map_or(index as u64 + 2, csv::Position::line);
        let number = |column: usize| -> anyhow::Result<f64> {
            let text = record.get(column).unwrap_or_default();
            text.parse()
                .with_context(|| format!("{}:{line}: `{text}` is not a number", file.display()))
        };
        let optional = |column: Option<usize>| column.map(number).transpose();
        let (parameters, tokens) = (optional(columns.parameters)?, optional(columns.tokens)?);
        let run = match columns.run {
            Some(column) => record.get(column).unwrap_or_default().to_owned(),
            None => line.to_string(),
        };
        let n_runs = u32::try_from(runs.len()).context("there are too many runs")?;
        // A law of C alone does not look at N and D; they only have to be positive.
        let (parameters, tokens) = (parameters.unwrap_or(1.0), tokens.unwrap_or(1.0));
        observations.push(Observation {
            run: RunKey(*runs.entry(run).or_insert(n_runs)),
            parameters,
            tokens,
            flops: optional(columns.flops)?
                .unwrap_or(FLOPS_PER_PARAMETER_TOKEN * parameters * tokens),
            loss_nats: number(columns.loss)?,
            seed: 0,
        });
    }
    anyhow::ensure!(!observations.is_empty(), "`{}` has no row", file.display());
    if columns.run.is_none() && columns.parameters.is_some() {
        warn_of_checkpoints(&observations, warnings);
    }
    Ok(observations)
}
