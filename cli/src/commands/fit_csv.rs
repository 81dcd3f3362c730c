//! `gradus fit --csv`: a law fitted to the rows of a file, for each group by itself.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::Path;

use anyhow::Context;
use scaling::diagnose::diagnose;
use scaling::fit::{EQUAL_OBJECTIVE, Fit, FitError, FitOptions, fit, weighted_by_noise};
use scaling::interval::{Inference, IntervalOptions, MIN_DRAWS, Resampling, infer_with};
use scaling::ladder::Ladder;
use scaling::law::{Law, LawName};
use scaling::noise::SeedNoise;
use scaling::objective::Objective;
use scaling::observation::{Covariates, Dataset, Observation};

use self::groups::{Groups, NothingLeft};
use self::hold_out::{Out, Rule};
use self::picture::Picture;
use self::read::{Row, Table};
use self::suspect::{warn_of_checkpoints, warn_of_copies, warn_of_units};
use crate::args::FitArgs;
use crate::failure::Failure;
use crate::fit_document::{check_replaceable, replace};
use crate::output::file_fit::{AuditView, ExcludedRow, FileFit, FileFits};
use crate::output::{Form, data, note};

mod alike;
mod approaches;
mod choose;
mod compare;
mod groups;
mod hold_out;
mod keep;
mod ladder;
mod picture;
mod profiles;
mod question;
mod read;
mod report;
mod suspect;

/// Rows times draws beyond which draws are reduced, down to the fewest that make an interval.
///
/// At a million rows the fewest, 100, took half a minute of one core (`docs/reference/cli.md`).
const MAX_REFITTED_POINTS: usize = 20_000_000;

pub(super) fn run(file: &Path, args: &FitArgs, form: Form) -> Result<(), Failure> {
    show(file, &file.display().to_string(), args, form, &|_| Vec::new())
}

/// As [`run`], of the rows of a study, which the result calls by its name; `notes` are what is to be
/// known of a group beside its rows.
pub(super) fn run_study(
    rows: &Path,
    study: &str,
    args: &FitArgs,
    form: Form,
    notes: &dyn Fn(Option<&str>) -> Vec<String>,
) -> Result<(), Failure> {
    show(rows, &format!("study {study}"), args, form, notes)
}

fn show(
    file: &Path,
    name: &str,
    args: &FitArgs,
    form: Form,
    notes: &dyn Fn(Option<&str>) -> Vec<String>,
) -> Result<(), Failure> {
    // A fit may take minutes; where its result cannot be written it is not begun.
    for path in [&args.out, &args.plot].into_iter().flatten() {
        check_replaceable(path)
            .with_context(|| format!("could not write `{}`", path.display()))
            .map_err(Failure::Wrong)?;
    }
    if let Some(path) = args.plot.as_ref().filter(|path| !is_png(path) && !has_ending(path, "svg"))
    {
        let text = format!("`--plot` writes `.svg` or `.png`, found `{}`", path.display());
        return Err(Failure::wrong(text));
    }
    with_job(file, args, |job| {
        let groups = job.by_group()?;
        let comparisons = compare::compare(job, &groups)?;
        if let Some(out) = &args.out {
            keep::write(job, &groups.fits, out)?;
        }
        let picture = Picture::of(job, &groups.fits);
        if let Some(path) = &args.plot {
            let bytes = if is_png(path) {
                picture.png().map_err(anyhow::Error::new)?
            } else {
                picture.svg().into_bytes()
            };
            replace(path, &bytes)
                .with_context(|| format!("could not write `{}`", path.display()))?;
        }
        let warnings: Vec<String> = groups.warning().into_iter().collect();
        let Groups { fits, unfitted } = groups;
        let mut groups: Vec<FileFit> = fits.into_iter().map(|one| one.report).collect();
        for one in &mut groups {
            say(one, name, notes);
        }
        match groups.pop() {
            Some(report) if args.columns.group_by.is_none() => form.print(&report)?,
            last => {
                groups.extend(last);
                form.print(&FileFits { groups, comparisons, unfitted, warnings })?;
            }
        }
        if form == Form::Table {
            data(&format!("\n{}", picture.text()));
        }
        if let Some(out) = &args.out {
            let flags = question::flags(job.table.choice);
            form.hint(&format!("`gradus predict {} {flags}` uses the fit", out.display()));
        }
        Ok(())
    })
}

/// The name of what was fitted, and what is to be known beside its rows.
fn say(fit: &mut FileFit, name: &str, notes: &dyn Fn(Option<&str>) -> Vec<String>) {
    name.clone_into(&mut fit.file);
    let name = |text: &String| text.split(": ").next().unwrap_or_default().to_owned();
    let known: Vec<String> = fit.warnings.iter().map(name).collect();
    let said = notes(fit.group.as_deref());
    let said = said.into_iter().filter(|text| !known.contains(&name(text)));
    fit.warnings.splice(0..0, said.collect::<Vec<_>>());
}

/// Whether a picture's name asks for pixels.
fn is_png(path: &Path) -> bool {
    has_ending(path, "png")
}

fn has_ending(path: &Path, ending: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(ending))
}

/// Fits a file and saves the fit, without a word but of groups that have none.
pub(super) fn save(file: &Path, args: &FitArgs) -> Result<(), Failure> {
    with_job(file, args, |job| {
        let Some(out) = &args.out else { return Ok(()) };
        let groups = job.by_group()?;
        if let Some(warning) = groups.warning() {
            note(&format!("warning: {warning}"));
        }
        keep::write(job, &groups.fits, out)
    })
}

/// Fits again what a saved fit was made from.
pub(super) fn again(saved: &Path, args: &FitArgs, form: Form) -> Result<(), Failure> {
    keep::again(saved, args, form)
}

/// Reads the file and what was asked of it.
fn with_job<T>(
    file: &Path,
    args: &FitArgs,
    of: impl FnOnce(&Job<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let law = law_named(args.law.as_deref().unwrap_or_default()).map_err(Failure::Wrong)?;
    check_draws(args).map_err(Failure::Wrong)?;
    let objective = objective(args, law).map_err(Failure::Wrong)?;
    let table = read::read(file, args, law).map_err(Failure::Wrong)?;
    let rules = hold_out::rules(&args.hold_out, &table).map_err(Failure::Wrong)?;
    of(&Job { file, args, table: &table, rules: &rules, objective })
}

/// The law of this name; of an approach that is none, where it is to be seen.
fn law_named(name: &str) -> anyhow::Result<LawName> {
    match approaches::beside_a_law(name) {
        Some(text) => anyhow::bail!(text),
        None => Ok(name.parse()?),
    }
}

/// Refuses draws that are too few for an interval before anything is fitted.
fn check_draws(args: &FitArgs) -> anyhow::Result<()> {
    let draws = args.draws();
    anyhow::ensure!(
        draws as usize >= MIN_DRAWS,
        "`--draws`, also `--bootstrap`, must be at least {MIN_DRAWS}, found {draws}: fewer draws \
         make no interval"
    );
    Ok(())
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

/// The fit of one group.
struct Fitted {
    dataset: Dataset,
    fit: Fit,
    inference: Inference,
    /// Its sizes as a ladder, where a column has the FLOPs of a token.
    sizes: Option<Ladder>,
    /// Per column in which rows should be alike, the values of the fitted rows.
    alike: Vec<BTreeSet<u32>>,
    /// The rows that were held out.
    held_out: Vec<(Observation, Covariates)>,
    report: FileFit,
}

impl Job<'_> {
    /// The fit of rows that are the whole file, or one of its groups.
    fn fit(&self, own: &[Row]) -> Result<Fitted, Failure> {
        let rows: &[&Row] = &own.iter().collect::<Vec<_>>();
        let reasons = hold_out::apply(self.rules, rows);
        let dataset = self
            .dataset(rows, &reasons)
            .with_context(|| format!("`{}` cannot be fitted", self.file.display()))
            .map_err(Failure::Wrong)?;
        let law = self.table.choice.law();
        let options = FitOptions { objective: self.objective, ..FitOptions::default() };
        let (dataset, noise) = self.weighted(dataset, law, &options)?;
        let mut warnings = self.doubts(own, &reasons, &dataset);
        let kept = rows.iter().zip(&reasons).filter(|(_, reason)| reason.is_none());
        let kept: Vec<&Row> = kept.map(|(row, _)| *row).collect();
        warnings.extend(alike::warnings(self.table, kept.iter().copied()));
        let alike = alike::values(self.table, kept.into_iter());
        let interval = self.interval(dataset.points().len(), &mut warnings);
        let resampling = Resampling {
            n_threads: self.threads(),
            has_influence: dataset.points().len() <= MAX_REFITTED_POINTS / 10_000,
            is_global: true,
        };
        let fitted = fit(law, &dataset, &options).map_err(anyhow::Error::new)?;
        let inference = infer_with(&fitted, &dataset, &options, &interval, &resampling)
            .map_err(anyhow::Error::new)?;
        let profile = scaling::profile::floor(&fitted, &dataset, &options, interval.level)
            .map_err(anyhow::Error::new)?;
        let audit = self.audit(&fitted, &dataset, &options, &mut warnings)?;
        let name_of_run = |run| self.table.name_of_run(run);
        let findings = diagnose(&fitted, &inference, &dataset, profile.as_ref(), &name_of_run);
        warnings.extend(findings.iter().map(ToString::to_string));
        warnings.extend(keep::one_kappa(self, &dataset, None));
        let objective = fitted.objective_name();
        let (approaches, found) = approaches::of(&dataset, (&inference, &objective), &interval);
        warnings.extend(found);
        let (selection, selected_by) = choose::choose(self.table, &dataset, &options)?;
        let sizes = ladder::of(rows).context("`--flops-per-token`").map_err(Failure::Wrong)?;
        let along = sizes.as_ref().map(|sizes| ladder::along(sizes, &inference));
        let predicted = report::held_out(rows, &reasons, &inference, self.table.has_flops());
        let is_predicted = |out: &Option<Out>| out.as_ref().is_some_and(|one| one.is_predicted);
        let held_out = rows.iter().zip(&reasons).filter(|(_, out)| is_predicted(out));
        let held_out = held_out.map(|(row, _)| (row.observation, row.covariates)).collect();
        let excluded = rows.iter().zip(reasons).filter_map(|(row, reason)| {
            Some(ExcludedRow { line: row.line, reason: reason?.reason })
        });
        let excluded = excluded.collect();
        let shown = (excluded, predicted, warnings);
        let report = report::report(self, (&fitted, &inference, &dataset), &interval, shown);
        if let Some(what) = report::not_finite(&report) {
            let text = format!("`{}` was fitted, but {what} is not finite", self.file.display());
            return Err(Failure::failed(text));
        }
        let floor_profile = profile.as_ref().map(report::floor_view);
        let seed_noise = noise.map(|noise| report::noise_view(&noise, &fitted, &dataset));
        let report = FileFit {
            floor_profile,
            seed_noise,
            approaches,
            selection,
            selected_by,
            audit,
            n_trunks: dataset.n_clusters().map(|n| n as u64),
            ladder: along.unwrap_or_default(),
            ..report
        };
        Ok(Fitted { dataset, fit: fitted, inference, sizes, alike, held_out, report })
    }

    /// What is to be known of these rows, whatever is fitted to them.
    fn doubts(&self, own: &[Row], reasons: &[Option<Out>], dataset: &Dataset) -> Vec<String> {
        let (columns, table) = (&self.args.columns, self.table);
        let ([has_n, has_d, has_c], law) = (table.has, table.choice.name);
        let rows: &[&Row] = &own.iter().collect::<Vec<_>>();
        let mut warnings = table.warnings.clone();
        if columns.run.is_none() && columns.trunk.is_none() {
            warnings.extend(warn_of_checkpoints(own, has_n, law, table.run_names.as_ref()));
        }
        warnings.extend(warn_of_copies(own));
        let has_read_flops = has_c || columns.flops_per_token.is_some();
        let loss = columns.loss.as_deref().unwrap_or_default();
        warnings.extend(warn_of_units(own, [has_n, has_d, has_read_flops], law, loss));
        warnings.extend(warn_of_constant_loss(dataset));
        let group_by = columns.group_by.as_deref().and_then(|name| table.kept_position(name));
        warnings.extend(hold_out::idle(self.rules, rows, group_by));
        warnings.extend(hold_out::same_run(rows, reasons));
        if columns.trunk.is_some() {
            warnings.extend(hold_out::shared_trunks(rows, reasons));
        }
        warnings
    }

    /// The data set with the weights that were asked for, and the noise between its seeds where there are some.
    fn weighted(
        &self,
        dataset: Dataset,
        law: &dyn Law,
        options: &FitOptions,
    ) -> Result<(Dataset, Option<SeedNoise>), Failure> {
        // Without N and D nothing says which rows are seeds of each other.
        let is_known = self.table.has_sizes() && self.table.choice.name != LawName::Sigmoid;
        if !is_known && !self.args.seed_noise {
            return Ok((dataset, None));
        }
        if !is_known {
            let text = "`--seed-noise` needs a law of the loss, and `--n` and `--d`, which say what seeds share";
            return Err(Failure::wrong(text));
        }
        if self.args.seed_noise && self.objective == Objective::LossSquares {
            let text = "`--seed-noise` weighs residuals of ln L, and `loss-squares` has those of L; \
                        `log-squares` goes with it";
            return Err(Failure::wrong(text));
        }
        match SeedNoise::of(&dataset) {
            Ok(noise) if self.args.seed_noise => {
                let weighted = weighted_by_noise(law, dataset, &noise, options);
                Ok((weighted.map_err(anyhow::Error::new)?, Some(noise)))
            }
            Err(error) if self.args.seed_noise => {
                Err(Failure::Wrong(anyhow::Error::new(error).context("`--seed-noise`")))
            }
            noise => Ok((dataset, noise.ok())),
        }
    }

    /// The classic grid beside the search, where it was asked for; a better minimum there is a warning.
    fn audit(
        &self,
        fitted: &Fit,
        dataset: &Dataset,
        options: &FitOptions,
        warnings: &mut Vec<String>,
    ) -> Result<Option<AuditView>, Failure> {
        if !self.args.audit {
            return Ok(None);
        }
        let law = fitted.form.law();
        let audit = match scaling::fit::audit(law, dataset, options, 1) {
            Err(error @ FitError::NoClassicGrid { .. }) => {
                return Err(Failure::Wrong(anyhow::Error::new(error).context("`--audit`")));
            }
            other => other.map_err(anyhow::Error::new)?,
        };
        let is_as_good = fitted.objective <= audit.objective * (1.0 + EQUAL_OBJECTIVE) + 1e-12;
        if !is_as_good {
            warnings.push(format!(
                "audit: the classic grid reaches {:.9e}, the search only {:.9e}; do not use this fit",
                audit.objective, fitted.objective
            ));
        }
        Ok(Some(report::audit_view(law, &audit, is_as_good)))
    }

    /// The rows that no rule holds out.
    fn dataset(&self, rows: &[&Row], reasons: &[Option<Out>]) -> anyhow::Result<Dataset> {
        let points: Vec<(Observation, Covariates)> =
            rows.iter().map(|row| (row.observation, row.covariates)).collect();
        let mut reasons = reasons.iter().map(|out| out.as_ref().map(|one| one.reason.clone()));
        let dataset = Dataset::select_rows(&points, |_, _| reasons.next().flatten());
        let dataset = dataset.map_err(|error| {
            let line = rows[error.index()].line;
            anyhow::Error::new(error).context(format!("{}:{line}", self.file.display()))
        })?;
        anyhow::ensure!(!dataset.points().is_empty(), NothingLeft);
        self.drawn_as_asked(dataset, rows)
    }

    /// The same with the strata and trunks that the columns say.
    fn drawn_as_asked(&self, mut dataset: Dataset, rows: &[&Row]) -> anyhow::Result<Dataset> {
        let columns = &self.args.columns;
        let of_run = |of: fn(&Row) -> u32| -> BTreeMap<u32, u32> {
            rows.iter().map(|row| (row.observation.run.0, of(row))).collect()
        };
        let number = |of_run: &BTreeMap<u32, u32>, point: &Observation| {
            of_run.get(&point.run.0).copied().unwrap_or(0)
        };
        if columns.stratify.is_some() {
            let strata = of_run(|row| row.stratum);
            dataset = dataset.stratified(|point| number(&strata, point));
        }
        if columns.trunk.is_none() {
            return Ok(dataset);
        }
        let trunks = of_run(|row| row.trunk);
        let out: BTreeSet<usize> = dataset.excluded().iter().map(|one| one.index).collect();
        dataset.clustered(|point| number(&trunks, point)).map_err(|error| {
            let kept = rows.iter().enumerate().filter(|(at, _)| !out.contains(at));
            let line = kept.map(|(_, row)| row.line).nth(error.index()).unwrap_or_default();
            anyhow::Error::new(error).context(format!("{}:{line}", self.file.display()))
        })
    }

    fn interval(&self, n_points: usize, warnings: &mut Vec<String>) -> IntervalOptions {
        let asked = self.args.draws() as usize;
        let most = (MAX_REFITTED_POINTS / n_points.max(1)).max(MIN_DRAWS);
        if asked > most {
            warnings.push(format!(
                "fewer-draws: {n_points} rows are many for {asked} draws; the intervals are made from {most}"
            ));
        }
        IntervalOptions {
            draws: asked.min(most),
            seed: u64::from(self.args.seed()),
            ..IntervalOptions::default()
        }
    }

    fn threads(&self) -> NonZeroUsize {
        let asked = self.args.threads.and_then(|n| NonZeroUsize::new(usize::from(n)));
        let cores = || std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        asked.unwrap_or_else(cores)
    }
}

fn warn_of_constant_loss(dataset: &Dataset) -> Option<String> {
    let (low, high) = dataset.range(|point| point.loss_nats)?;
    (low == high)
        .then(|| format!("constant-loss: all losses are {low}: no coefficient can be determined"))
}

#[cfg(test)]
mod tests;
