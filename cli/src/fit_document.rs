//! Owns the file of a saved fit: law, coefficients, draws, conventions, and what it was made from.
//!
//! It fits nothing and predicts nothing; it gives back the `Inference` that was saved, to the last bit.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use api::EstimateView;
use scaling::interval::Inference;
use scaling::ladder::{Ladder, MAX_KAPPA_SPREAD};
use serde::{Deserialize, Serialize};

use crate::args::ColumnArgs;

mod restore;
mod save;

pub use save::{Saved, estimate_view, ladder_view};
pub(crate) use save::{check_replaceable, replace};

/// What the file says it is.
const FORMAT: &str = "gradus-fit";
/// The version that this program writes and reads.
const VERSION: u32 = 1;
/// The name of the warning that one κ stands for several.
const ONE_KAPPA: &str = "flops-per-parameter";
/// Names of the ratios among [`SavedRanges::others`]: of D to N, and of D to the unique tokens, which
/// is how often these are read.
pub(crate) const TOKENS_PER_PARAMETER: &str = "D / N";
pub(crate) const EPOCHS: &str = "D / U";

/// A saved fit of one file.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FitDocument {
    /// Always `gradus-fit`.
    pub format: String,
    /// Version of this layout.
    pub version: u32,
    /// Version of the program that made it.
    pub gradus: String,
    /// The file that was fitted.
    pub input: Input,
    /// What was asked for; asked again of the same file it gives the same document.
    pub request: Request,
    /// One fit for each group, in the order of their names; one without a group.
    pub fits: Vec<SavedFit>,
}

/// The file that was fitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// Its name as it was given.
    pub file: String,
    /// BLAKE3 of its bytes, in hexadecimal digits.
    pub blake3: String,
    /// Its rows, the header not counted.
    pub n_rows: u64,
}

/// Everything of the command that decides the numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The law's name.
    pub law: String,
    /// Which column has what.
    pub columns: ColumnArgs,
    /// The variable of a law of one variable, where it was given.
    pub of: Option<String>,
    /// Breaks of `broken_power`.
    pub breaks: u8,
    /// What is minimised, where it was given.
    pub objective: Option<String>,
    /// Threshold of the Huber loss, where it was given.
    pub delta: Option<f64>,
    /// Whether rows are weighted by the noise between seeds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub seed_noise: bool,
    /// Rules of the rows that were held out.
    pub hold_out: Vec<String>,
    /// Bootstrap draws asked for.
    pub draws: u32,
    /// Seed of the bootstrap.
    pub seed: u32,
    /// What the column of N counts, where it was given.
    pub n_counts: Option<String>,
    /// What the column of C counts, where it was given.
    pub c_counts: Option<String>,
}

/// The fit of one group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedFit {
    /// The value of the column of groups; `null` without one.
    pub group: Option<String>,
    /// The law's name.
    pub law: String,
    /// Its formula.
    pub formula: String,
    /// The variable of a law of one variable: `n`, `d` or `c`.
    pub of: String,
    /// Breaks of `broken_power`.
    pub breaks: usize,
    /// Whether `precision` knows the bits of weights, activations and key-value cache.
    pub bits: [bool; 3],
    /// How N, D and C were counted.
    pub conventions: Conventions,
    /// What was minimised, by its exact name.
    pub objective_name: String,
    /// Its value at the optimum.
    pub objective: f64,
    /// The coefficients of the formula, in its order.
    pub coefficients: Vec<SavedCoefficient>,
    /// Why no number may be used at all; `null` where they may.
    pub whole: Option<String>,
    /// Names of the free parameters, mostly logs of the coefficients.
    pub parameter_names: Vec<String>,
    /// Their values at the optimum.
    pub parameters: Vec<f64>,
    /// Nominal coverage of the intervals.
    pub level: f64,
    /// How the draws were made.
    pub scheme: SavedScheme,
    /// The free parameters of each draw: all intervals are made from these.
    pub draws: Vec<Vec<f64>>,
    /// ln(measured) - ln(predicted) of each fitted row, scaled up for the parameters that the fit spent.
    pub residuals_log: Vec<f64>,
    /// Where the fitted rows lie.
    pub ranges: SavedRanges,
    /// The fitted sizes, ascending, where a column has their FLOPs for a token; empty otherwise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sizes: Vec<SavedRung>,
    /// Rows that were fitted.
    pub n_observations: u64,
    /// Runs that they belong to.
    pub n_runs: u64,
    /// Lines of the file that were held out, with the reason.
    pub excluded: Vec<SavedExclusion>,
    /// What to know before quoting it.
    pub warnings: Vec<String>,
}

/// How N, D and C were counted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conventions {
    /// Column of N; `null` where there is none.
    pub n_column: Option<String>,
    /// What it counts: `non_embedding`, `total` or `not stated`.
    pub n_counts: String,
    /// Column of D; `null` where there is none.
    pub d_column: Option<String>,
    /// Where C comes from, in words.
    pub c_source: String,
    /// What it counts: `6ND`, `exact`, `published` or `not stated`.
    pub c_counts: String,
    /// κ of C = κ N D: 6, or the median over the fitted rows where a column has C; `null` without N, D and C.
    pub flops_per_parameter_token: Option<f64>,
    /// Smallest and largest κ among the fitted rows.
    pub flops_per_parameter_token_range: Option<[f64; 2]>,
}

impl SavedFit {
    /// What to know of the fit before using it elsewhere, where its warnings would be taken for
    /// those of that place.
    pub(crate) fn own_warnings(&self) -> Vec<String> {
        let others = self.warnings.iter().filter(|text| !text.starts_with(ONE_KAPPA));
        let others = others.map(|text| format!("of the fit: {text}"));
        self.conventions.one_kappa(None).into_iter().chain(others).collect()
    }
}

impl Conventions {
    /// That one κ stands for C / (N D) where it is not the same for all rows, so that the best N
    /// and D of a budget are not quite theirs.
    pub(crate) fn one_kappa(&self, group: Option<&str>) -> Option<String> {
        let (median, [low, high]) =
            self.flops_per_parameter_token.zip(self.flops_per_parameter_token_range)?;
        let of = group.map_or_else(String::new, |name| format!(" of `{name}`"));
        (high / low > MAX_KAPPA_SPREAD).then(|| {
            format!(
                "{ONE_KAPPA}: C / (N D) of the fitted rows{of} lies between {low:.3} and \
                 {high:.3}; its median {median:.3} stands for all"
            )
        })
    }
}

/// A size of the file.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedRung {
    /// N.
    pub n: f64,
    /// FLOPs of training for one token.
    pub flops_per_token: f64,
}

/// A coefficient's name with its estimate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedCoefficient {
    /// As in the formula.
    pub name: String,
    /// Its value and interval, or why there is none.
    pub estimate: EstimateView,
}

/// Documents from before there were strata of sizes.
fn one() -> usize {
    1
}

/// How the draws were made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "method", rename_all = "snake_case", deny_unknown_fields)]
pub enum SavedScheme {
    /// Runs drawn with replacement.
    Bootstrap {
        /// Runs resampled.
        n_runs: usize,
        /// Trunks that they were drawn by; not there where none is shared.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        n_trunks: Option<usize>,
        /// Strata that runs are drawn within.
        #[serde(default = "one")]
        n_strata: usize,
        /// Draws made.
        n_draws: usize,
        /// Of these, without a usable fit.
        n_failed: usize,
        /// Seed.
        seed: u64,
    },
    /// Each run left out once.
    Jackknife {
        /// Runs.
        n_runs: usize,
        /// Trunks that were left out in turn; not there where none is shared.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        n_trunks: Option<usize>,
    },
    /// No honest interval can be made.
    Unavailable {
        /// Runs.
        n_runs: usize,
        /// Why not.
        reason: String,
    },
}

/// Smallest and largest value among the fitted rows; `null` for what no column has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedRanges {
    /// N.
    pub n: Option<[f64; 2]>,
    /// D.
    pub d: Option<[f64; 2]>,
    /// C.
    pub c: Option<[f64; 2]>,
    /// What else the law looks at, by the words for it, and the ratios `D / N` and `D / U` of what it
    /// looks at; documents from before there were ratios have none.
    pub others: BTreeMap<String, [f64; 2]>,
}

/// A row that was not fitted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SavedExclusion {
    /// Its line in the file; the header is line 1.
    pub line: u64,
    /// Why it is not.
    pub reason: String,
}

/// What is wrong with a file that should hold a saved fit, or with writing one.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It cannot be read.
    #[error("could not read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It cannot be written.
    #[error("could not write `{}`", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no JSON of this layout.
    #[error("`{}` is no saved fit; `gradus fit --csv … --out FILE` makes one", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// It is of another version.
    #[error("`{}` has `{field}` {found}; this program reads {valid}", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The field.
        field: &'static str,
        /// What it holds.
        found: String,
        /// What would be valid.
        valid: String,
    },
    /// A value of it cannot be.
    #[error("`{}`: `{field}` is {found}; it must be {valid}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The field, with its path.
        field: String,
        /// What it holds.
        found: String,
        /// What would be valid.
        valid: String,
    },
    /// There is no group of that name.
    #[error("`{}` has no group `{group}`; it has {known}", path.display())]
    NoGroup {
        /// The file.
        path: PathBuf,
        /// What was asked for.
        group: String,
        /// What there is.
        known: String,
    },
}

/// A saved fit with the inference that it stands for.
#[derive(Debug, Clone)]
pub struct Restored {
    /// As it stands in the file.
    pub saved: SavedFit,
    /// What predicts.
    pub inference: Inference,
    /// The fitted sizes, where their FLOPs for a token were known.
    pub sizes: Option<Ladder>,
}

impl FitDocument {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`DocumentError`]: the file is not there, is no saved fit, or holds a value that cannot be.
    pub fn read(path: &Path) -> Result<Self, DocumentError> {
        restore::read(path)
    }

    /// The fits of `group`, or all of them.
    ///
    /// # Errors
    /// [`DocumentError`]: no such group, or a value that cannot be.
    pub fn restore(
        &self,
        path: &Path,
        group: Option<&str>,
    ) -> Result<Vec<Restored>, DocumentError> {
        restore::restore(self, path, group)
    }
}
