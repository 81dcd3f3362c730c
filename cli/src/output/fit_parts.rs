//! What every table of fitted numbers shares: estimates, footnotes, conventions; and the fit of a
//! file.
//!
//! It fits nothing.

use std::collections::BTreeMap;

use api::{EstimateView, ExcludedRun, FitReport};
use serde::Serialize;

use super::{View, sections, table};

/// Reasons that numbers are not there, each said once.
#[derive(Debug, Default)]
pub struct Footnotes {
    reasons: Vec<String>,
}

impl Footnotes {
    /// The mark of a reason, such as `(2)`.
    pub fn mark(&mut self, reason: &str) -> String {
        let known = self.reasons.iter().position(|other| other == reason);
        let index = known.unwrap_or_else(|| {
            self.reasons.push(reason.to_owned());
            self.reasons.len() - 1
        });
        format!("({})", index + 1)
    }

    /// All of them, one a line.
    pub fn text(&self) -> String {
        let lines: Vec<String> = self
            .reasons
            .iter()
            .enumerate()
            .map(|(index, reason)| format!("({}) {reason}", index + 1))
            .collect();
        lines.join("\n")
    }
}

/// An estimate in a cell of two lines: value, interval.
pub(crate) fn cell(estimate: Option<&EstimateView>, notes: &mut Footnotes) -> String {
    match estimate {
        None => "–".to_owned(),
        Some(EstimateView::NotIdentified { reason }) => {
            format!("not\nidentified {}", notes.mark(reason))
        }
        Some(EstimateView::Identified { value, low, high }) => {
            format!("{}\n[{}, {}]", number(*value), end(*low), end(*high))
        }
    }
}

/// Three significant digits; far from 1 with a power of ten.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    match size {
        0.0 => "0".to_owned(),
        _ if !(1e-3..1e4).contains(&size) => format!("{value:.2e}"),
        _ if size < 1.0 => format!("{value:.3}"),
        _ if size < 10.0 => format!("{value:.2}"),
        _ if size < 100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// An interval's end: far from 1 with one digit less, for an end is never so sure.
fn end(value: f64) -> String {
    match value.abs() {
        size if size == 0.0 || (1e-3..1e4).contains(&size) => number(value),
        _ => format!("{value:.1e}"),
    }
}

/// What the numbers are of: without this line they mean nothing.
pub(crate) fn conventions(report: &FitReport) -> String {
    let provisional =
        if report.is_provisional { " (provisional: runs are still missing)" } else { "" };
    let parameters = match report.parameter_kind.as_str() {
        "total" => "all parameters",
        _ => "parameters without embeddings and head",
    };
    let flops = match report.flop_kind.as_str() {
        "published" => "training FLOPs by the published closed form, no head",
        _ => "training FLOPs by the tensor shapes, head included (`exact`)",
    };
    format!(
        "fits of study `{}`{provisional}\n\
         N {parameters}; D training tokens\n\
         C {flops}\n\
         L {} in nats per token\n\
         {:.0} % intervals, {} draws by run, seed {}; inputs {}",
        report.study,
        report.loss.trim_end_matches("_nats").replace('_', " "),
        100.0 * report.confidence,
        report.draws,
        report.seed,
        report.inputs_hash.get(..12).unwrap_or(&report.inputs_hash),
    )
}

/// A law fitted to a CSV file. `gradus fit --csv --json` prints this.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FileFit {
    /// The file.
    pub file: String,
    /// The law's name.
    pub law: String,
    /// Its formula.
    pub formula: String,
    /// Its coefficients by name.
    pub coefficients: BTreeMap<String, EstimateView>,
    /// Rows that were fitted.
    pub n_observations: u64,
    /// Runs that they belong to.
    pub n_runs: u64,
    /// Root mean square of the residuals of ln L, over points less parameters.
    pub residual_rms_log: f64,
    /// The Huber loss's sum at the optimum.
    pub objective: f64,
    /// Its threshold.
    pub huber_delta: f64,
    /// Nominal coverage of the intervals.
    pub confidence: f64,
    /// Bootstrap draws.
    pub draws: u32,
    /// Seed of the bootstrap.
    pub seed: u32,
    /// Rows that were left out, with the reason.
    pub excluded: Vec<ExcludedRun>,
    /// What to know before quoting it.
    pub warnings: Vec<String>,
}

impl View for FileFit {
    fn table(&self) -> String {
        let mut notes = Footnotes::default();
        let rows = self
            .coefficients
            .iter()
            .map(|(name, estimate)| {
                let (value, interval) = match estimate {
                    EstimateView::Identified { value, low, high } => {
                        (number(*value), format!("[{}, {}]", number(*low), number(*high)))
                    }
                    EstimateView::NotIdentified { reason } => {
                        ("not identified".to_owned(), notes.mark(reason))
                    }
                };
                vec![name.clone(), value, interval]
            })
            .collect();
        let title = format!("{}: {}\n{}", self.law, self.formula, self.facts());
        let excluded: Vec<String> = self
            .excluded
            .iter()
            .map(|row| format!("excluded {}: {}", row.name, row.reason))
            .collect();
        let warnings: Vec<String> =
            self.warnings.iter().map(|warning| format!("warning: {warning}")).collect();
        let columns = ["COEFFICIENT", ">VALUE", "INTERVAL"];
        sections(&[
            title,
            table(&columns, rows),
            notes.text(),
            excluded.join("\n"),
            warnings.join("\n"),
        ])
    }

    fn names(&self) -> Vec<String> {
        self.coefficients.keys().cloned().collect()
    }
}

impl FileFit {
    fn facts(&self) -> String {
        format!(
            "{} points of {} runs in `{}`; rms of ln L {}, Huber δ {}; {:.0} % intervals, {} draws \
             by run, seed {}",
            self.n_observations,
            self.n_runs,
            self.file,
            number(self.residual_rms_log),
            number(self.huber_delta),
            100.0 * self.confidence,
            self.draws,
            self.seed
        )
    }
}
