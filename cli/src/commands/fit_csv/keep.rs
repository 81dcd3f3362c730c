//! A fit of a file, saved so that it predicts without the file.
//!
//! The layout is `crate::fit_document`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use scaling::law::{LawName, LogPoint, Variable};
use scaling::observation::Dataset;

use super::{Fitted, Job};
use crate::args::FitArgs;
use crate::failure::Failure;
use crate::fit_document::{
    Conventions, EPOCHS, FitDocument, Input, Request, Saved, SavedExclusion, SavedFit,
    TOKENS_PER_PARAMETER,
};
use crate::output::Form;

const NOT_STATED: &str = "not stated";

/// Writes the document of all groups.
pub(super) fn write(job: &Job<'_>, fits: &[Fitted], out: &Path) -> Result<(), Failure> {
    let document = document(job, fits);
    document.write(out)?;
    Ok(())
}

/// Fits again what a saved fit was made from, and holds the result against it byte for byte.
pub(super) fn again(saved: &Path, args: &FitArgs, form: Form) -> Result<(), Failure> {
    let known = FitDocument::read(saved)?;
    let request = known.request.clone();
    let file = PathBuf::from(&known.input.file);
    let args = FitArgs {
        csv: Some(file.clone()),
        law: Some(request.law),
        columns: request.columns,
        of: request.of,
        breaks: request.breaks,
        objective: request.objective,
        delta: request.delta,
        seed_noise: request.seed_noise,
        hold_out: request.hold_out,
        draws: Some(request.draws),
        seed: Some(request.seed),
        n_counts: request.n_counts,
        c_counts: request.c_counts,
        ..args.clone()
    };
    let made = super::with_job(&file, &args, |job| Ok(document(job, &job.groups()?)))?;
    if made.input.blake3 != known.input.blake3 {
        return Err(Failure::failed(format!(
            "`{}` is not the file that `{}` was made from: its BLAKE3 is {}, and was {}",
            file.display(),
            saved.display(),
            made.input.blake3,
            known.input.blake3
        )));
    }
    if made != known {
        let versions = format!("it was made by version {}, this is {}", known.gradus, made.gradus);
        let what = difference(&known, &made);
        return Err(Failure::failed(format!(
            "`{}` was not made again: {what} differs; {versions}",
            saved.display()
        )));
    }
    match form {
        Form::Table => {
            crate::output::data(&format!("`{}` was made again, bit for bit", saved.display()));
        }
        Form::Json => {
            let answer = serde_json::json!({"fit": saved.display().to_string(), "is_same": true});
            crate::output::data(&answer.to_string());
        }
        Form::Quiet => {}
    }
    Ok(())
}

/// Where two documents first differ.
fn difference(one: &FitDocument, other: &FitDocument) -> String {
    if one.gradus != other.gradus {
        return "`gradus`".to_owned();
    }
    let pairs = one.fits.iter().zip(&other.fits).enumerate();
    let found = pairs.map(|(index, (a, b))| (index, a, b)).find(|(_, a, b)| a != b);
    let Some((index, a, b)) = found else { return "the number of fits".to_owned() };
    let field = match () {
        () if a.parameters != b.parameters => "parameters",
        () if a.draws != b.draws => "draws",
        () if a.coefficients != b.coefficients => "coefficients",
        () if a.warnings != b.warnings => "warnings",
        () => "another field",
    };
    format!("`fits[{index}].{field}`")
}

/// The document of all groups.
fn document(job: &Job<'_>, fits: &[Fitted]) -> FitDocument {
    let input = Input {
        file: job.file.display().to_string(),
        blake3: job.table.blake3.clone(),
        n_rows: job.table.rows.len() as u64,
    };
    let fits = fits.iter().map(|one| saved(job, one)).collect();
    FitDocument::new(input, request(job), fits)
}

fn request(job: &Job<'_>) -> Request {
    let args = job.args;
    Request {
        law: job.table.choice.name.to_string(),
        columns: args.columns.clone(),
        of: args.of.clone(),
        breaks: args.breaks,
        objective: args.objective.clone(),
        delta: args.delta,
        seed_noise: args.seed_noise,
        hold_out: args.hold_out.clone(),
        draws: args.draws(),
        seed: args.seed(),
        n_counts: args.n_counts.clone(),
        c_counts: args.c_counts.clone(),
    }
}

fn saved(job: &Job<'_>, one: &Fitted) -> SavedFit {
    let exclusion = |row: &crate::output::file_fit::ExcludedRow| SavedExclusion {
        line: row.line,
        reason: row.reason.clone(),
    };
    SavedFit::of(Saved {
        group: one.report.group.clone(),
        fit: &one.fit,
        inference: &one.inference,
        conventions: conventions(job, &one.dataset),
        sizes: one.sizes.as_ref(),
        has_flops: job.table.has_flops(),
        other_ranges: other_ranges(one),
        excluded: one.report.excluded.iter().map(exclusion).collect(),
        warnings: one.report.warnings.clone(),
    })
}

/// Of each variable of the law beside N, D and C, and of the ratios of those that it looks at: a law of
/// N and D may be far outside in D / N, and inside in both.
fn other_ranges(one: &Fitted) -> BTreeMap<String, [f64; 2]> {
    let points = one.dataset.log_points();
    let range = |of: &dyn Fn(&LogPoint) -> f64| {
        let values = || points.iter().map(of);
        [values().fold(f64::INFINITY, f64::min), values().fold(f64::NEG_INFINITY, f64::max)]
    };
    let variables = one.fit.form.law().variables();
    let known = [Variable::Parameters, Variable::Tokens, Variable::Flops];
    let others = variables.iter().filter(|one| !known.contains(one));
    let of = |variable: &Variable| range(&|point: &LogPoint| point.value(*variable));
    let mut ranges: BTreeMap<String, [f64; 2]> =
        others.map(|variable| (variable.label().to_owned(), of(variable))).collect();
    let has = |pair: [Variable; 2]| pair.iter().all(|one| variables.contains(one));
    if has([Variable::Parameters, Variable::Tokens]) {
        let ratio = |point: &LogPoint| (point.ln_tokens - point.ln_parameters).exp();
        ranges.insert(TOKENS_PER_PARAMETER.to_owned(), range(&ratio));
    }
    if has([Variable::Tokens, Variable::UniqueTokens]) {
        let epochs = |point: &LogPoint| 1.0 + point.repetitions();
        ranges.insert(EPOCHS.to_owned(), range(&epochs));
    }
    ranges
}

/// How N, D and C were counted, as far as the command said so.
pub(super) fn conventions(job: &Job<'_>, dataset: &Dataset) -> Conventions {
    let (columns, table) = (&job.args.columns, job.table);
    let kappa = table.has_sizes().then(|| kappa(dataset)).flatten();
    let stated = |text: &Option<String>| text.clone().unwrap_or_else(|| NOT_STATED.to_owned());
    Conventions {
        n_column: columns.n.clone(),
        n_counts: stated(&job.args.n_counts),
        d_column: columns.d.clone(),
        c_source: table.flops.clone(),
        c_counts: match (&columns.c, &columns.flops_per_token) {
            (None, None) if table.has_sizes() => "6ND".to_owned(),
            _ => stated(&job.args.c_counts),
        },
        flops_per_parameter_token: kappa.map(|(median, _)| median),
        flops_per_parameter_token_range: kappa.map(|(_, range)| range),
    }
}

/// A warning where the law spends budgets by one κ and the rows have several.
pub(super) fn one_kappa(job: &Job<'_>, dataset: &Dataset, group: Option<&str>) -> Option<String> {
    if !matches!(job.table.choice.name, LawName::Chinchilla | LawName::Coupled) {
        return None;
    }
    let warning = conventions(job, dataset).one_kappa(group)?;
    let is_exact = job.args.columns.flops_per_token.is_some();
    let ladder = "; best N and D along the sizes of the file are exact in this";
    Some(warning + if is_exact { ladder } else { "" })
}

/// Median, smallest and largest C / (N D); exactly 6 where C was made so.
fn kappa(dataset: &Dataset) -> Option<(f64, [f64; 2])> {
    let ratio =
        |point: &scaling::observation::Observation| point.flops / (point.parameters * point.tokens);
    let mut ratios: Vec<f64> = dataset.points().iter().map(ratio).collect();
    ratios.sort_unstable_by(f64::total_cmp);
    let (low, high) = (*ratios.first()?, *ratios.last()?);
    // Rounding of 6 N D must not show as 6.000000000000001.
    let median = ratios[ratios.len() / 2];
    let median = if (median / 6.0 - 1.0).abs() < 1e-12 { 6.0 } else { median };
    Some((median, [low, high]))
}
