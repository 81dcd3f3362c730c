//! From a fit to its file, written as a whole or not at all.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;

use api::{EstimateView, LadderPrediction};
use scaling::fit::Fit;
use scaling::interval::{Estimate, Inference, Scheme};
use scaling::ladder::{Ladder, LadderEstimate, Rung};
use scaling::law::Axis;

use crate::output::ladder::LadderView;

use super::{
    Conventions, DocumentError, FORMAT, FitDocument, Input, Request, SavedCoefficient,
    SavedExclusion, SavedFit, SavedRanges, SavedRung, SavedScheme, VERSION,
};

/// What a saved fit is made from.
#[derive(Debug)]
pub struct Saved<'a> {
    /// The value of the column of groups.
    pub group: Option<String>,
    /// The fit.
    pub fit: &'a Fit,
    /// Its intervals.
    pub inference: &'a Inference,
    /// How N, D and C were counted.
    pub conventions: Conventions,
    /// The ladder of the fitted sizes, where their FLOPs for a token are known.
    pub sizes: Option<&'a Ladder>,
    /// Whether C is known, from a column or as 6 N D.
    pub has_flops: bool,
    /// Smallest and largest value of what the law looks at beside N, D and C.
    pub other_ranges: BTreeMap<String, [f64; 2]>,
    /// Rows that were not fitted.
    pub excluded: Vec<SavedExclusion>,
    /// What to know before quoting it.
    pub warnings: Vec<String>,
}

/// An estimate as the JSON has it.
pub fn estimate_view(estimate: &Estimate) -> EstimateView {
    match estimate {
        Estimate::Identified { value, low, high } => {
            EstimateView::Identified { value: *value, low: *low, high: *high }
        }
        Estimate::NotIdentified { reason } => {
            EstimateView::NotIdentified { reason: reason.clone() }
        }
    }
}

/// The best model for a budget along the sizes of a file, as the JSON has it.
pub fn ladder_view(found: &LadderEstimate) -> LadderView {
    LadderView {
        flops: found.flops,
        best: LadderPrediction {
            parameters: estimate_view(&found.parameters),
            tokens: estimate_view(&found.tokens),
            loss_nats: estimate_view(&found.loss_nats),
            rung_parameters: found.rung_parameters,
            share_at_end: found.share_at_end,
        },
    }
}

impl SavedFit {
    /// The fit with everything that its predictions need.
    pub fn of(from: Saved<'_>) -> Self {
        let (fit, inference) = (from.fit, from.inference);
        let law = fit.form.law();
        let choice = law.choice();
        let conventions = &from.conventions;
        let kept = |is_known: bool, (low, high): (f64, f64)| is_known.then_some([low, high]);
        let (has_n, has_d) = (conventions.n_column.is_some(), conventions.d_column.is_some());
        Self {
            group: from.group,
            law: fit.law.to_string(),
            formula: law.formula().to_owned(),
            of: match choice.axis {
                Axis::Parameters => "n",
                Axis::Tokens => "d",
                Axis::Flops => "c",
            }
            .to_owned(),
            breaks: choice.n_breaks,
            bits: choice.bits,
            objective_name: fit.objective_name(),
            objective: fit.objective,
            coefficients: inference
                .coefficients
                .iter()
                .map(|one| SavedCoefficient {
                    name: one.name.to_owned(),
                    estimate: estimate_view(&one.estimate),
                })
                .collect(),
            whole: inference.whole.clone(),
            parameter_names: law.parameter_names().iter().map(|name| (*name).to_owned()).collect(),
            parameters: fit.theta.clone(),
            level: inference.resampled.level,
            scheme: scheme(&inference.resampled.scheme),
            draws: inference.resampled.replicates.clone(),
            residuals_log: inference.resampled.residuals_log.clone(),
            ranges: SavedRanges {
                n: kept(has_n, fit.ranges.parameters),
                d: kept(has_d, fit.ranges.tokens),
                c: kept(from.has_flops, fit.ranges.flops),
                others: from.other_ranges,
            },
            sizes: from.sizes.map(saved_rungs).unwrap_or_default(),
            n_observations: fit.n_points as u64,
            n_runs: fit.n_runs as u64,
            conventions: from.conventions,
            excluded: from.excluded,
            warnings: from.warnings,
        }
    }
}

fn saved_rungs(ladder: &Ladder) -> Vec<SavedRung> {
    let rung = |one: &Rung| SavedRung { n: one.parameters, flops_per_token: one.flops_per_token };
    ladder.rungs().iter().map(rung).collect()
}

/// The number of trunks, where it is not that of runs.
fn trunks(n_clusters: usize, n_runs: usize) -> Option<usize> {
    (n_clusters < n_runs).then_some(n_clusters)
}

fn scheme(scheme: &Scheme) -> SavedScheme {
    match scheme {
        Scheme::Bootstrap { n_runs, n_clusters, n_strata, draws, failed, seed } => {
            SavedScheme::Bootstrap {
                n_runs: *n_runs,
                n_trunks: trunks(*n_clusters, *n_runs),
                n_strata: *n_strata,
                n_draws: *draws,
                n_failed: *failed,
                seed: *seed,
            }
        }
        Scheme::Jackknife { n_runs, n_clusters } => {
            SavedScheme::Jackknife { n_runs: *n_runs, n_trunks: trunks(*n_clusters, *n_runs) }
        }
        Scheme::StatedNoise { n_runs, .. } => SavedScheme::Unavailable {
            n_runs: *n_runs,
            reason: "stated noise cannot be saved".to_owned(),
        },
        Scheme::Unavailable { n_runs, reason } => {
            SavedScheme::Unavailable { n_runs: *n_runs, reason: reason.clone() }
        }
    }
}

impl FitDocument {
    /// A document of this version.
    pub fn new(input: Input, request: Request, fits: Vec<SavedFit>) -> Self {
        Self {
            format: FORMAT.to_owned(),
            version: VERSION,
            gradus: env!("CARGO_PKG_VERSION").to_owned(),
            input,
            request,
            fits,
        }
    }

    /// The document as text, with a newline at its end.
    ///
    /// # Errors
    /// Of serialisation alone.
    pub fn text(&self) -> Result<String, serde_json::Error> {
        Ok(serde_json::to_string(self)? + "\n")
    }

    /// Writes it, in place of a file that is there.
    ///
    /// # Errors
    /// [`DocumentError::Write`], or [`DocumentError::Value`] for numbers that JSON cannot hold.
    pub fn write(&self, path: &Path) -> Result<(), DocumentError> {
        // What is not finite would be written as `null`; better no file than one that cannot be read.
        self.restore(path, None)?;
        let failed =
            |source: std::io::Error| DocumentError::Write { path: path.to_path_buf(), source };
        let text = self.text().map_err(|error| failed(error.into()))?;
        replace(path, text.as_bytes()).map_err(failed)
    }
}

/// Writes a file beside `path` and gives it that name, so that no half of it is ever seen.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = temporary_beside(path)?;
    file.write_all(bytes)?;
    // A temporary file is its owner's alone; a result may be read by all whom the folder lets in.
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        file.as_file().set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Fails where [`replace`] would, without writing: to be asked before work whose result would be
/// lost.
pub(crate) fn check_replaceable(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    temporary_beside(path).map(drop)
}

fn temporary_beside(path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))
}
