//! `gradus fit --csv`: a law fitted to the rows of a file, for each group by itself.

use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Context;
use api::EstimateView;
use scaling::diagnose::diagnose;
use scaling::fit::{Fit, FitOptions, fit};
use scaling::interval::{
    Estimate, Inference, IntervalOptions, MIN_DRAWS, Resampling, Scheme, infer_with,
};
use scaling::law::{LawName, LogPoint};
use scaling::objective::Objective;
use scaling::observation::{Covariates, Dataset, Observation};
use scaling::profile::FloorProfile;

use self::hold_out::Rule;
use self::read::{Row, Table};
use crate::args::FitArgs;
use crate::failure::Failure;
use crate::output::Form;
use crate::output::file_fit::{
    ExcludedRow, FileFit, FileFits, FloorProfileView, HeldOutRow, HeldOutSummary, MinimumView,
};

mod choose;
mod hold_out;
mod read;

/// Rows times draws beyond which draws are reduced, down to the fewest that make an interval: a minute of one core.
const MAX_REFITTED_POINTS: usize = 20_000_000;

pub(super) fn run(file: &Path, args: &FitArgs, form: Form) -> Result<(), Failure> {
    let name = args.law.as_deref().unwrap_or_default();
    let law: LawName = name.parse().map_err(|error| Failure::Wrong(anyhow::Error::new(error)))?;
    let objective = objective(args, law).map_err(Failure::Wrong)?;
    let table = read::read(file, args, law).map_err(Failure::Wrong)?;
    let rules = hold_out::rules(&args.hold_out, &table).map_err(Failure::Wrong)?;
    let job = Job { file, args, table: &table, rules: &rules, objective };
    if args.columns.group_by.is_none() {
        let rows: Vec<&Row> = table.rows.iter().collect();
        return Ok(form.print(&job.fit(&rows)?)?);
    }
    let mut groups: Vec<&str> = table.rows.iter().map(|row| row.group.as_str()).collect();
    groups.sort_unstable();
    groups.dedup();
    let mut fits = Vec::new();
    for group in groups {
        let rows: Vec<&Row> = table.rows.iter().filter(|row| row.group == group).collect();
        let fitted =
            job.fit(&rows).map_err(|failure| failure.context(format!("group `{group}`")))?;
        fits.push(FileFit { group: Some(group.to_owned()), ..fitted });
    }
    Ok(form.print(&FileFits { groups: fits })?)
}

fn objective(args: &FitArgs, law: LawName) -> anyhow::Result<Objective> {
    let objective: Objective = match &args.objective {
        Some(name) => name.parse()?,
        None if law == LawName::Sigmoid => Objective::LossSquares,
        None => Objective::default(),
    };
    match (objective, args.delta) {
        (Objective::Huber { .. }, Some(delta)) => {
            anyhow::ensure!(
                delta.is_finite() && delta > 0.0,
                "`--delta` must be finite and above zero, found {delta}"
            );
            Ok(Objective::Huber { delta })
        }
        (other, Some(_)) => {
            anyhow::bail!("`--delta` is the threshold of `huber`; `{}` has none", other.label())
        }
        (objective, None) => Ok(objective),
    }
}

/// What all groups of a file share.
struct Job<'a> {
    file: &'a Path,
    args: &'a FitArgs,
    table: &'a Table,
    rules: &'a [(String, Rule)],
    objective: Objective,
}

impl Job<'_> {
    fn fit(&self, rows: &[&Row]) -> Result<FileFit, Failure> {
        let reasons = self.reasons(rows);
        let dataset = dataset(rows, &reasons)
            .with_context(|| format!("`{}` cannot be fitted", self.file.display()))
            .map_err(Failure::Wrong)?;
        let law = self.table.choice.law();
        let options = FitOptions { objective: self.objective, ..FitOptions::default() };
        let mut warnings = self.table.warnings.clone();
        warnings.extend(warn_of_constant_loss(&dataset));
        let interval = self.interval(dataset.points().len(), &mut warnings);
        let resampling = Resampling {
            n_threads: self.threads(),
            has_influence: dataset.points().len() <= MAX_REFITTED_POINTS / 10_000,
            is_global: false,
        };
        let fitted = fit(law, &dataset, &options).map_err(anyhow::Error::new)?;
        let inference = infer_with(&fitted, &dataset, &options, &interval, &resampling)
            .map_err(anyhow::Error::new)?;
        let profile = scaling::profile::floor(&fitted, &dataset, &options, interval.level)
            .map_err(anyhow::Error::new)?;
        let findings = diagnose(&fitted, &inference, &dataset, profile.as_ref());
        warnings.extend(findings.iter().map(ToString::to_string));
        let selection = choose::choose(self.table, &dataset, &options)?;
        let held_out = held_out(rows, &reasons, &inference);
        let excluded = rows
            .iter()
            .zip(reasons)
            .filter_map(|(row, reason)| Some(ExcludedRow { line: row.line, reason: reason? }));
        let excluded = excluded.collect();
        let report = self.report(&fitted, &inference, &interval, (excluded, held_out, warnings));
        let floor_profile = profile.as_ref().map(floor_view);
        Ok(FileFit { floor_profile, selection, ..report })
    }

    /// Per row, the rule that holds it out.
    fn reasons(&self, rows: &[&Row]) -> Vec<Option<String>> {
        let mut reasons = vec![None; rows.len()];
        for (text, rule) in self.rules {
            for (reason, is_held_out) in reasons.iter_mut().zip(rule.held_out(rows)) {
                if is_held_out && reason.is_none() {
                    *reason = Some(format!("held out by `{text}`"));
                }
            }
        }
        reasons
    }

    fn interval(&self, n_points: usize, warnings: &mut Vec<String>) -> IntervalOptions {
        let asked = self.args.draws as usize;
        let most = (MAX_REFITTED_POINTS / n_points.max(1)).max(MIN_DRAWS);
        if asked > most {
            warnings.push(format!(
                "{n_points} rows are many for {asked} draws; the intervals are made from {most}"
            ));
        }
        IntervalOptions {
            draws: asked.min(most),
            seed: u64::from(self.args.seed),
            ..IntervalOptions::default()
        }
    }

    fn threads(&self) -> NonZeroUsize {
        let asked = self.args.threads.and_then(|n| NonZeroUsize::new(usize::from(n)));
        let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        asked.unwrap_or_else(cores)
    }

    fn report(
        &self,
        fitted: &Fit,
        inference: &Inference,
        interval: &IntervalOptions,
        (excluded, held_out, warnings): (Vec<ExcludedRow>, Vec<HeldOutRow>, Vec<String>),
    ) -> FileFit {
        let law = fitted.form.law();
        let named = |theta: &[f64]| {
            law.coefficients(theta).iter().map(|one| (one.name.to_owned(), one.value)).collect()
        };
        let rivals = fitted.convergence.rivals.iter();
        let minima = std::iter::once((fitted.objective, &fitted.theta))
            .chain(rivals.map(|rival| (rival.objective, &rival.theta)))
            .map(|(objective, theta)| MinimumView { objective, coefficients: named(theta) });
        FileFit {
            group: None,
            file: self.file.display().to_string(),
            law: fitted.law.to_string(),
            formula: law.formula().to_owned(),
            flops: self.table.flops.clone(),
            coefficients: inference
                .coefficients
                .iter()
                .map(|one| (one.name.to_owned(), view(&one.estimate)))
                .collect(),
            floor_profile: None,
            selection: Vec::new(),
            bca: bca(fitted, inference),
            end_errors: end_errors(fitted, inference),
            derived: derived(inference),
            minima: minima.collect(),
            n_starts: fitted.convergence.n_starts as u64,
            n_converged: fitted.convergence.n_converged as u64,
            n_at_best: fitted.convergence.n_at_best as u64,
            n_observations: fitted.n_points as u64,
            n_runs: fitted.n_runs as u64,
            residual_rms_log: fitted.residual_rms_log,
            objective_name: fitted.objective_kind.to_string(),
            objective: fitted.objective,
            huber_delta: fitted.objective_kind.huber_delta(),
            confidence: interval.level,
            intervals: made_by(&inference.resampled.scheme),
            draws: u32::try_from(interval.draws).unwrap_or(u32::MAX),
            seed: self.args.seed,
            held_out_summary: HeldOutSummary::of(&held_out),
            held_out,
            excluded,
            warnings,
        }
    }
}

fn dataset(rows: &[&Row], reasons: &[Option<String>]) -> anyhow::Result<Dataset> {
    let points: Vec<(Observation, Covariates)> =
        rows.iter().map(|row| (row.observation, row.covariates)).collect();
    let mut reasons = reasons.iter();
    let dataset = Dataset::select_rows(&points, |_, _| reasons.next().cloned().flatten())?;
    anyhow::ensure!(!dataset.points().is_empty(), "every row is held out");
    let strata: std::collections::BTreeMap<u32, u32> =
        rows.iter().map(|row| (row.observation.run.0, row.stratum)).collect();
    Ok(dataset.stratified(|point| strata.get(&point.run.0).copied().unwrap_or(0)))
}

fn warn_of_constant_loss(dataset: &Dataset) -> Option<String> {
    let (low, high) = dataset.range(|point| point.loss_nats)?;
    (low == high).then(|| format!("all losses are {low}: no coefficient can be determined"))
}

fn floor_view(profile: &FloorProfile) -> FloorProfileView {
    FloorProfileView {
        name: profile.name.to_owned(),
        low: profile.low,
        high: profile.high,
        flat_nats: profile.flat_nats,
    }
}

/// Predicted against measured, for the rows that a rule held out.
fn held_out(rows: &[&Row], reasons: &[Option<String>], inference: &Inference) -> Vec<HeldOutRow> {
    let pairs = rows.iter().zip(reasons).filter(|(_, reason)| reason.is_some());
    pairs
        .map(|(row, _)| {
            let point = LogPoint::from(&row.observation).with(&row.covariates);
            let prediction = inference.predict_at(&point);
            let measured = row.observation.loss_nats;
            let predicted = view(&prediction.measured);
            let relative_error = prediction.curve.value().map(|value| value / measured - 1.0);
            let is_inside = prediction
                .measured
                .interval()
                .map(|(low, high)| low <= measured && measured <= high);
            let extrapolation = Some(prediction.extrapolation).filter(|factor| factor.is_finite());
            HeldOutRow {
                line: row.line,
                measured,
                predicted,
                relative_error,
                is_inside,
                extrapolation,
            }
        })
        .collect()
}

fn bca(fitted: &Fit, inference: &Inference) -> std::collections::BTreeMap<String, EstimateView> {
    let law = fitted.form.law();
    let named = inference.coefficients.iter().zip(&fitted.coefficients).enumerate();
    named
        .filter(|(_, (one, _))| one.estimate.value().is_some())
        .filter_map(|(index, (one, coefficient))| {
            let value = |theta: &[f64]| law.coefficients(theta)[index].value;
            let estimate = inference.resampled.estimate_bca(coefficient.quantity, value)?;
            Some((one.name.to_owned(), view(&estimate)))
        })
        .collect()
}

fn end_errors(fitted: &Fit, inference: &Inference) -> std::collections::BTreeMap<String, [f64; 2]> {
    let law = fitted.form.law();
    let named = inference.coefficients.iter().zip(&fitted.coefficients).enumerate();
    named
        .filter(|(_, (one, _))| one.estimate.value().is_some())
        .filter_map(|(index, (one, coefficient))| {
            let value = |theta: &[f64]| law.coefficients(theta)[index].value;
            let (low, high) = inference.resampled.end_errors(coefficient.quantity, value)?;
            Some((one.name.to_owned(), [low, high]))
        })
        .collect()
}

/// a and b of N_opt ∝ C^a and D_opt ∝ C^b for C = κ N D, which need no κ.
fn derived(inference: &Inference) -> std::collections::BTreeMap<String, EstimateView> {
    let Some(optimum) = inference.optimum(inference.ranges.flops.1, 6.0) else {
        return std::collections::BTreeMap::new();
    };
    let a = optimum.parameters_exponent;
    let b = match &a {
        Estimate::Identified { value, low, high } => {
            Estimate::Identified { value: 1.0 - value, low: 1.0 - high, high: 1.0 - low }
        }
        other @ Estimate::NotIdentified { .. } => other.clone(),
    };
    [("parameters_exponent", a), ("tokens_exponent", b)]
        .map(|(name, estimate)| (name.to_owned(), view(&estimate)))
        .into()
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

fn view(estimate: &Estimate) -> EstimateView {
    match estimate {
        Estimate::Identified { value, low, high } => {
            EstimateView::Identified { value: *value, low: *low, high: *high }
        }
        Estimate::NotIdentified { reason } => {
            EstimateView::NotIdentified { reason: reason.clone() }
        }
    }
}
