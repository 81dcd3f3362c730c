//! A law fitted to a CSV file, for people and programs.
//!
//! It fits nothing.

use std::collections::BTreeMap;

use api::{ComparisonView, EstimateView};
use serde::Serialize;

use super::approach::{self, ApproachView};
use super::comparison::shown as shown_beside;
use super::fit_parts::{Footnotes, compute, number, shown, warnings, with_interval};
use super::ladder::{self, LadderView};
use super::{View, rows_or_nothing, sections, table};

/// Excluded rows that are listed; `--json` has all of them.
const MOST_EXCLUDED: usize = 5;
/// Other minima that are listed.
const MOST_MINIMA: usize = 3;

/// A law fitted to a CSV file, or to one group of its rows. `gradus fit --csv --json` prints this.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileFit {
    /// The value of the column of groups; not there without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The file.
    pub file: String,
    /// The law's name.
    pub law: String,
    /// Its formula.
    pub formula: String,
    /// What N counts: `non_embedding`, `total`, `not stated`, or `no column` where there is none.
    pub n_counts: String,
    /// Where C comes from: a column, `6 N D`, or not known.
    pub flops: String,
    /// What C counts: `6ND`, `exact`, `published` or `not stated`.
    pub c_counts: String,
    /// Its coefficients by name.
    pub coefficients: BTreeMap<String, EstimateView>,
    /// The same with bias-corrected and accelerated intervals, where there is a bootstrap.
    pub bca: BTreeMap<String, EstimateView>,
    /// Monte-Carlo standard errors of the ends of the intervals, as shares of their width.
    pub end_errors: BTreeMap<String, [f64; 2]>,
    /// The likelihood interval of the floor; not there for laws without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor_profile: Option<FloorProfileView>,
    /// How much ln L varies between seeds; not there without several seeds at one N and D.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seed_noise: Option<SeedNoiseView>,
    /// The law and those it is compared with, by their errors on unseen rows; empty without others.
    pub selection: Vec<CandidateView>,
    /// By which errors one of these laws is preferred; not there where none is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selected_by: Option<SelectedBy>,
    /// What the classic grid of starting points found; not there unless it was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audit: Option<AuditView>,
    /// What follows from the coefficients: exponents of the compute-optimal N and D.
    pub derived: BTreeMap<String, EstimateView>,
    /// The approaches to N_opt and D_opt beside each other, the law's last; empty for laws that have
    /// no best N and D.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub approaches: Vec<ApproachView>,
    /// The best N and D of budgets along the sizes of the file; not there without FLOPs for a
    /// token.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ladder: Vec<LadderView>,
    /// The minimum, and others within half a per cent of it.
    pub minima: Vec<MinimumView>,
    /// Starting points whose objective was computed.
    pub n_starts: u64,
    /// Of these, followed to their minimum.
    pub n_followed: u64,
    /// Followed ones that converged.
    pub n_converged: u64,
    /// Of these, at the best minimum.
    pub n_at_best: u64,
    /// Rows that were fitted.
    pub n_observations: u64,
    /// Runs that they belong to.
    pub n_runs: u64,
    /// Trunks that these have; not there where none is shared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub n_trunks: Option<u64>,
    /// Root mean square of the residuals of ln L, of `sigmoid` of ln accuracy, over points less
    /// parameters.
    pub residual_rms_log: f64,
    /// What was minimised, by its exact name.
    pub objective_name: String,
    /// Its value at the optimum.
    pub objective: f64,
    /// The threshold of a Huber loss; `null` for other objectives.
    pub huber_delta: Option<f64>,
    /// Nominal coverage of the intervals.
    pub confidence: f64,
    /// How they were made; empty when there are none.
    pub intervals: String,
    /// Bootstrap draws.
    pub draws: u32,
    /// Seed of the bootstrap.
    pub seed: u32,
    /// Rows that were held out, predicted and measured.
    pub held_out: Vec<HeldOutRow>,
    /// Their errors together.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub held_out_summary: Option<HeldOutSummary>,
    /// Rows that were left out, with the reason.
    pub excluded: Vec<ExcludedRow>,
    /// What to know before quoting it.
    pub warnings: Vec<String>,
}

/// Which floors the data do not refuse.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FloorProfileView {
    /// The floor's name in the formula.
    pub name: String,
    /// Lower end; `null` where no floor is refused from below.
    pub low: Option<f64>,
    /// Upper end; `null` where none is refused from above.
    pub high: Option<f64>,
    /// Nats that fit about equally well.
    pub flat_nats: f64,
}

/// The noise between seeds, from rows at one N and D.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SeedNoiseView {
    /// Standard deviation of ln L at `at_loss_nats`, pooled over all places.
    pub sd_log: f64,
    /// Power of the loss that it grows with; 0 where the seeds do not show one.
    pub power: f64,
    /// The loss at which it is `sd_log`.
    pub at_loss_nats: f64,
    /// Places of N and D with two seeds and more.
    pub n_places: u64,
    /// Runs there, less one for each place.
    pub n_freedom: u64,
    /// Whether it is the least that is ever taken: the runs vary by less.
    pub is_least: bool,
    /// Whether the rows are weighted by it.
    pub is_used: bool,
    /// Root mean square of the residuals, each over the noise at its loss: far above 1 the law is
    /// wrong.
    pub lack_of_fit: f64,
}

/// What the classic grid of 4,500 starting points found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AuditView {
    /// Starting points, all followed to their end.
    pub n_starts: u64,
    /// Of these, converged.
    pub n_converged: u64,
    /// Of these, at the best minimum of the grid.
    pub n_at_best: u64,
    /// The best objective of the grid.
    pub objective: f64,
    /// The coefficients there.
    pub coefficients: BTreeMap<String, f64>,
    /// Whether the fit's objective is no larger, but for rounding.
    pub is_as_good: bool,
}

/// A law's errors on rows it has not seen.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct CandidateView {
    /// The law.
    pub law: String,
    /// Its free parameters.
    pub n_parameters: u64,
    /// Mean over the splits at larger C than fitted that every law could be fitted to; `null`
    /// without any.
    pub mean_absolute_error: Option<f64>,
    /// The same over the splits that leave a size out; `null` without any.
    pub mean_absolute_size_error: Option<f64>,
    /// Share of the points at larger C inside their 95 % predictive interval; `null` where one of
    /// these splits has no interval.
    pub coverage: Option<f64>,
    /// Whether it is the one to prefer.
    pub is_preferred: bool,
    /// The splits that it could be fitted to.
    pub splits: Vec<SplitView>,
}

/// Errors that a choice of a law rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SelectedBy {
    /// Those at larger C than fitted.
    Compute,
    /// Those at sizes that were left out, for want of the others.
    Sizes,
}

/// A law's errors where one part of the rows was left out.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SplitView {
    /// What was left out.
    pub split: String,
    /// Points fitted.
    pub n_fitted: u64,
    /// Points predicted.
    pub n_predicted: u64,
    /// Mean of |predicted / measured - 1|.
    pub mean_absolute_error: f64,
    /// Mean of predicted / measured - 1.
    pub bias: f64,
    /// The largest |predicted / measured - 1|.
    pub worst_error: f64,
    /// That of the point of largest C, with its sign.
    pub error_at_largest: f64,
    /// Share of the points inside their 95 % predictive interval; `null` for parts of one size, and
    /// where there is no interval.
    pub coverage: Option<f64>,
}

/// A minimum of the objective.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MinimumView {
    /// The objective there.
    pub objective: f64,
    /// The coefficients there.
    pub coefficients: BTreeMap<String, f64>,
}

/// A row that is not in the fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ExcludedRow {
    /// Its line in the file; the header is line 1.
    pub line: u64,
    /// Why it is not.
    pub reason: String,
}

/// A row that was predicted and not fitted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeldOutRow {
    /// Its line in the file; the header is line 1.
    pub line: u64,
    /// What was measured.
    pub measured: f64,
    /// What one new measurement should be, with its interval.
    pub predicted: EstimateView,
    /// Predicted over measured, less one.
    pub relative_error: Option<f64>,
    /// Whether the interval holds the measured value.
    pub is_inside: Option<bool>,
    /// C over the largest fitted C.
    pub extrapolation: Option<f64>,
}

/// How well the rows that were held out were predicted.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct HeldOutSummary {
    /// Rows with a prediction.
    pub n_predicted: u64,
    /// Mean of the absolute relative errors.
    pub mean_absolute_error: f64,
    /// Mean of the relative errors.
    pub bias: f64,
    /// The largest absolute relative error.
    pub worst_error: f64,
    /// Share of the intervals that hold the measured value.
    pub coverage: f64,
}

impl HeldOutSummary {
    /// Of rows with a prediction; `None` without any.
    pub fn of(rows: &[HeldOutRow]) -> Option<Self> {
        let errors: Vec<f64> = rows.iter().filter_map(|row| row.relative_error).collect();
        let n = errors.len();
        let inside = rows.iter().filter(|row| row.is_inside == Some(true)).count();
        let mean = |of: fn(f64) -> f64| errors.iter().map(|e| of(*e)).sum::<f64>() / n as f64;
        (n > 0).then(|| Self {
            n_predicted: n as u64,
            mean_absolute_error: mean(f64::abs),
            bias: mean(|error| error),
            worst_error: errors.iter().fold(0.0, |worst: f64, error| worst.max(error.abs())),
            coverage: inside as f64 / n as f64,
        })
    }
}

/// The groups of a file. `gradus fit --csv --group-by COLUMN --json` prints this.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileFits {
    /// One fit each, in the order of their names.
    pub groups: Vec<FileFit>,
    /// Every two of them beside each other; empty for laws that do not say the loss at a budget.
    pub comparisons: Vec<ComparisonView>,
    /// The groups that have no fit, in the order of their names.
    pub unfitted: Vec<UnfittedGroup>,
    /// What to know of the groups together.
    pub warnings: Vec<String>,
}

/// A group with too little for a fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UnfittedGroup {
    /// Its name.
    pub group: String,
    /// Why it has no fit.
    pub reason: String,
}

impl View for FileFits {
    fn table(&self) -> String {
        let unfitted = self.unfitted.iter().map(|one| vec![one.group.clone(), one.reason.clone()]);
        let last = [
            rows_or_nothing(&["GROUP WITHOUT A FIT", "REASON"], unfitted.collect()),
            warnings(&self.warnings),
        ];
        let fits = self.groups.iter().map(View::table);
        let beside = self.comparisons.iter().map(shown_beside);
        sections(&fits.chain(beside).chain(last).collect::<Vec<_>>())
    }

    fn names(&self) -> Vec<String> {
        self.groups.iter().filter_map(|one| one.group.clone()).collect()
    }
}

impl View for FileFit {
    fn table(&self) -> String {
        let mut notes = Footnotes::default();
        let has_bca = !self.bca.is_empty();
        let rows = self.coefficients.iter().chain(&self.derived).map(|(name, estimate)| {
            let mut row = vec![name.clone()];
            row.extend(shown(estimate, &mut notes));
            if has_bca {
                row.push(self.bca.get(name).map_or_else(String::new, interval));
            }
            row
        });
        let rows = rows.collect();
        let beside = approach::shown(&self.approaches, &mut notes);
        let title = "best N and D along the sizes of the file";
        let along = ladder::along(title, &self.ladder, &mut notes);
        let group = self.group.as_ref().map(|group| format!("group `{group}`\n"));
        let title = format!(
            "{}{}: {}\n{}",
            group.unwrap_or_default(),
            self.law,
            self.formula,
            self.facts()
        );
        let mut columns = vec!["COEFFICIENT", ">VALUE", "INTERVAL"];
        if has_bca {
            columns.push("BCA");
        }
        sections(&[
            title,
            table(&columns, rows),
            beside,
            along,
            notes.text(),
            self.other_minima(),
            self.audited(),
            self.laws(),
            self.predicted(),
            self.left_out(),
            warnings(&self.warnings),
        ])
    }

    fn names(&self) -> Vec<String> {
        self.coefficients.keys().cloned().collect()
    }
}

fn interval(estimate: &EstimateView) -> String {
    match estimate {
        EstimateView::Identified { value, low, high } => {
            with_interval(*value, *low, *high)[1].clone()
        }
        EstimateView::NotIdentified { .. } => "–".to_owned(),
    }
}

impl FileFit {
    fn facts(&self) -> String {
        let intervals =
            if self.intervals.is_empty() { "none can be made" } else { &self.intervals };
        format!(
            "{} points of {} runs{} in `{}`; rms of ln {} {}\nN: {}; C: {}\n{}{}: {:.6e}\n\
             {} of {} followed starts reach it{}\n{:.0} % intervals: {intervals}",
            self.n_observations,
            self.n_runs,
            self.n_trunks.map_or_else(String::new, |n| format!(", {n} trunks,")),
            self.file,
            if self.law == "sigmoid" { "accuracy" } else { "L" },
            number(self.residual_rms_log),
            self.n_counts,
            compute(&self.flops, &self.c_counts),
            self.noise(),
            self.objective_name,
            self.objective,
            self.n_at_best,
            self.n_followed,
            match self.n_followed.saturating_sub(self.n_converged) {
                0 => String::new(),
                n => format!(", {n} did not converge"),
            },
            100.0 * self.confidence,
        )
    }

    fn noise(&self) -> String {
        let Some(noise) = &self.seed_noise else { return String::new() };
        let growth = if noise.power == 0.0 {
            String::new()
        } else {
            let (power, at) = (number(noise.power), number(noise.at_loss_nats));
            format!(" at L = {at}, growing as L^{power}")
        };
        format!(
            "runs at one place vary by {}{} in ln L{growth} ({} places, {} degrees of freedom{}); rms is {} times that\n",
            if noise.is_least { "no more than " } else { "" },
            number(noise.sd_log),
            noise.n_places,
            noise.n_freedom,
            if noise.is_used { ", used as weights" } else { "" },
            number(noise.lack_of_fit),
        )
    }

    fn other_minima(&self) -> String {
        let others = self.minima.iter().skip(1);
        let lines = others.take(MOST_MINIMA).map(|minimum| {
            let values: Vec<String> = minimum
                .coefficients
                .iter()
                .map(|(name, value)| format!("{name} {}", number(*value)))
                .collect();
            format!("another minimum, {:.6e}: {}", minimum.objective, values.join(", "))
        });
        let mut lines: Vec<String> = lines.collect();
        if self.minima.len() > MOST_MINIMA + 1 {
            lines.push(format!("… and {} more, see `--json`", self.minima.len() - MOST_MINIMA - 1));
        }
        lines.join("\n")
    }

    fn audited(&self) -> String {
        let Some(audit) = &self.audit else { return String::new() };
        format!(
            "audit: of {} classic starts {} converged and {} reached the best, {:.6e}; the fit {}",
            audit.n_starts,
            audit.n_converged,
            audit.n_at_best,
            audit.objective,
            if audit.is_as_good { "is as good" } else { "is worse" }
        )
    }

    fn laws(&self) -> String {
        if self.selection.is_empty() {
            return String::new();
        }
        let rows = self.selection.iter().map(|one| {
            let percent = |value: f64| format!("{:.3} %", 100.0 * value);
            let [beyond, sizes] = [one.mean_absolute_error, one.mean_absolute_size_error]
                .map(|error| error.map_or_else(|| "–".to_owned(), percent));
            let inside = one.coverage.map(|share| format!("{:.0} %", 100.0 * share));
            let inside = inside.unwrap_or_else(|| "–".to_owned());
            let mark = if one.is_preferred { "preferred" } else { "" }.to_owned();
            vec![one.law.clone(), one.n_parameters.to_string(), beyond, inside, sizes, mark]
        });
        let columns =
            ["LAW", ">PARAMETERS", ">ERROR AT LARGER C", ">INSIDE", ">AT OTHER SIZES", ""];
        let table = table(&columns, rows.collect());
        let why = match self.selected_by {
            Some(SelectedBy::Compute) => "",
            Some(SelectedBy::Sizes) => {
                "\npreferred by the errors at other sizes: no split by C leaves enough to fit"
            }
            None => "\nnone is preferred: no split leaves enough to fit for all of them",
        };
        let has_intervals = self.selection.iter().any(|one| one.coverage.is_some());
        let inside = if has_intervals {
            ""
        } else {
            "\nINSIDE is counted where a split by C leaves every law with intervals; none does"
        };
        format!("{table}{why}{inside}")
    }

    fn predicted(&self) -> String {
        let Some(summary) = &self.held_out_summary else { return String::new() };
        let rows = self.held_out.iter().take(MOST_EXCLUDED).map(|row| {
            let (value, ends) = match &row.predicted {
                EstimateView::Identified { value, .. } => {
                    (format!("{value:.4}"), interval(&row.predicted))
                }
                EstimateView::NotIdentified { .. } => ("not identified".to_owned(), String::new()),
            };
            let error = row.relative_error.map(|error| format!("{:+.2} %", 100.0 * error));
            let error = error.unwrap_or_default();
            vec![row.line.to_string(), value, ends, format!("{:.4}", row.measured), error]
        });
        let columns = [">LINE", ">PREDICTED", "INTERVAL", ">MEASURED", ">ERROR"];
        format!(
            "held out, predicted only: mean error {:.2} %, bias {:+.2} %, worst {:.2} %, {:.0} % inside\n\
             an error is predicted over measured, less one\n{}",
            100.0 * summary.mean_absolute_error,
            100.0 * summary.bias,
            100.0 * summary.worst_error,
            100.0 * summary.coverage,
            table(&columns, rows.collect()),
        )
    }

    /// The rows that are not fitted, by reason.
    fn left_out(&self) -> String {
        let mut reasons: Vec<(&str, Vec<u64>)> = Vec::new();
        for row in &self.excluded {
            match reasons.iter_mut().find(|(reason, _)| *reason == row.reason) {
                Some((_, lines)) => lines.push(row.line),
                None => reasons.push((&row.reason, vec![row.line])),
            }
        }
        let shown = |(reason, lines): &(&str, Vec<u64>)| {
            let named: Vec<String> =
                lines.iter().take(MOST_EXCLUDED).map(ToString::to_string).collect();
            let more = match lines.len().saturating_sub(MOST_EXCLUDED) {
                0 => String::new(),
                n => format!(" and {n} more, see `--json`"),
            };
            format!("{reason}: line {}{more}", named.join(", "))
        };
        reasons.iter().map(shown).collect::<Vec<_>>().join("\n")
    }
}
