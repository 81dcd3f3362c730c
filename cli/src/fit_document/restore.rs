//! From a file to the inference that it stands for, with every value checked against the others.

use std::fmt::Display;
use std::path::Path;

use api::EstimateView;
use scaling::fit::Ranges;
use scaling::interval::{Estimate, Inference, NamedEstimate, Resampled, Scheme};
use scaling::ladder::{Ladder, Rung};
use scaling::law::{Axis, LawChoice, LawForm, LawName, MAX_BREAKS};

use super::{DocumentError, FORMAT, FitDocument, Restored, SavedFit, SavedScheme, VERSION};

/// Coefficients follow from the parameters; they may differ by rounding, as another libm rounds.
const SAME: f64 = 1e-12;

pub(super) fn read(path: &Path) -> Result<FitDocument, DocumentError> {
    let at = || path.to_path_buf();
    let text = std::fs::read(path).map_err(|source| DocumentError::Read { path: at(), source })?;
    // The version first: another layout would only be called malformed.
    let value: serde_json::Value = serde_json::from_slice(&text)
        .map_err(|source| DocumentError::Parse { path: at(), source })?;
    let expected = [("format", serde_json::json!(FORMAT)), ("version", serde_json::json!(VERSION))];
    for (field, valid) in expected {
        let found = value.get(field).cloned().unwrap_or_default();
        if found != valid {
            let (found, valid) = (found.to_string(), valid.to_string());
            return Err(DocumentError::Version { path: at(), field, found, valid });
        }
    }
    serde_json::from_slice(&text).map_err(|source| DocumentError::Parse { path: at(), source })
}

pub(super) fn restore(
    document: &FitDocument,
    path: &Path,
    group: Option<&str>,
) -> Result<Vec<Restored>, DocumentError> {
    let is_asked = |one: &&SavedFit| group.is_none() || one.group.as_deref() == group;
    let fits: Vec<&SavedFit> = document.fits.iter().filter(is_asked).collect();
    if fits.is_empty() {
        let names = document.fits.iter().filter_map(|one| one.group.as_deref());
        let names: Vec<String> = names.map(|name| format!("`{name}`")).collect();
        let known = if names.is_empty() { "no groups".to_owned() } else { names.join(", ") };
        let (path, group) = (path.to_path_buf(), group.unwrap_or_default().to_owned());
        return Err(DocumentError::NoGroup { path, group, known });
    }
    let one = |saved: &&SavedFit| {
        let reader = Reader { path, saved };
        let (inference, sizes) = (reader.inference()?, reader.sizes()?);
        Ok(Restored { saved: (*saved).clone(), inference, sizes })
    };
    fits.iter().map(one).collect()
}

struct Reader<'a> {
    path: &'a Path,
    saved: &'a SavedFit,
}

impl Reader<'_> {
    fn wrong(&self, field: &str, found: &dyn Display, valid: &dyn Display) -> DocumentError {
        let of = self.saved.group.as_ref().map_or_else(String::new, |name| format!("{name}."));
        DocumentError::Value {
            path: self.path.to_path_buf(),
            field: format!("{of}{field}"),
            found: found.to_string(),
            valid: valid.to_string(),
        }
    }

    fn choice(&self) -> Result<LawChoice, DocumentError> {
        let saved = self.saved;
        let name: LawName = saved.law.parse().map_err(|error: scaling::law::UnknownLaw| {
            self.wrong("law", &format!("`{}`", saved.law), &error)
        })?;
        let axis = match saved.of.as_str() {
            "n" => Axis::Parameters,
            "d" => Axis::Tokens,
            "c" => Axis::Flops,
            other => return Err(self.wrong("of", &format!("`{other}`"), &"`n`, `d` or `c`")),
        };
        if !(1..=MAX_BREAKS).contains(&saved.breaks) {
            return Err(self.wrong("breaks", &saved.breaks, &format!("from 1 to {MAX_BREAKS}")));
        }
        Ok(LawChoice { name, axis, n_breaks: saved.breaks, bits: saved.bits })
    }

    fn vector(&self, field: &str, values: &[f64], n: usize) -> Result<(), DocumentError> {
        if values.len() != n {
            let valid = format!("{n} numbers, one for each of the law's parameters");
            return Err(self.wrong(field, &format!("a list of {}", values.len()), &valid));
        }
        match values.iter().find(|value| !value.is_finite()) {
            Some(value) => Err(self.wrong(field, &value, &"finite")),
            None => Ok(()),
        }
    }

    fn sizes(&self) -> Result<Option<Ladder>, DocumentError> {
        let rungs = self
            .saved
            .sizes
            .iter()
            .map(|one| Rung { parameters: one.n, flops_per_token: one.flops_per_token });
        let rungs: Vec<Rung> = rungs.collect();
        if rungs.is_empty() {
            return Ok(None);
        }
        let wrong = |error| self.wrong("sizes", &format!("{} sizes", rungs.len()), &error);
        Ladder::new(&rungs).map(Some).map_err(|error| wrong(error.to_string()))
    }

    fn inference(&self) -> Result<Inference, DocumentError> {
        let (saved, choice) = (self.saved, self.choice()?);
        let law = choice.law();
        let n = law.parameter_names().len();
        if saved.parameter_names != law.parameter_names() {
            let found = format!("{:?}", saved.parameter_names);
            return Err(self.wrong(
                "parameter_names",
                &found,
                &format!("{:?}", law.parameter_names()),
            ));
        }
        self.vector("parameters", &saved.parameters, n)?;
        for (index, draw) in saved.draws.iter().enumerate() {
            self.vector(&format!("draws[{index}]"), draw, n)?;
        }
        if !(saved.level > 0.0 && saved.level < 1.0) {
            return Err(self.wrong("level", &saved.level, &"between 0 and 1"));
        }
        self.vector("residuals_log", &saved.residuals_log, saved.residuals_log.len())?;
        let resampled = Resampled {
            theta: saved.parameters.clone(),
            replicates: saved.draws.clone(),
            scheme: self.scheme()?,
            level: saved.level,
            residuals_log: saved.residuals_log.clone(),
            influence: Vec::new(),
        };
        Ok(Inference {
            law: choice.name,
            form: LawForm::Free(choice),
            coefficients: self.coefficients(choice)?,
            resampled,
            influence_of_runs: Vec::new(),
            n_switched: 0,
            whole: saved.whole.clone(),
            ranges: self.ranges()?,
        })
    }

    /// The scheme, with as many draws as it says.
    fn scheme(&self) -> Result<Scheme, DocumentError> {
        let (expected, scheme) = match &self.saved.scheme {
            SavedScheme::Bootstrap { n_runs, n_trunks, n_strata, n_draws, n_failed, seed } => {
                let (n_runs, n_strata) = (*n_runs, *n_strata);
                let (draws, failed, seed) = (*n_draws, *n_failed, *seed);
                if n_runs < 2 {
                    return Err(self.wrong("scheme.n_runs", &n_runs, &"at least 2"));
                }
                let n_clusters = self.clusters(*n_trunks, n_runs)?;
                let left = draws.checked_sub(failed).ok_or_else(|| {
                    self.wrong("scheme.n_failed", &failed, &format!("at most {draws}"))
                })?;
                let scheme =
                    Scheme::Bootstrap { n_runs, n_clusters, n_strata, draws, failed, seed };
                (left, scheme)
            }
            SavedScheme::Jackknife { n_runs, n_trunks } => {
                let (n_runs, n_clusters) = (*n_runs, self.clusters(*n_trunks, *n_runs)?);
                (n_clusters, Scheme::Jackknife { n_runs, n_clusters })
            }
            SavedScheme::Unavailable { n_runs, reason } => {
                (0, Scheme::Unavailable { n_runs: *n_runs, reason: reason.clone() })
            }
        };
        let found = self.saved.draws.len();
        if found != expected {
            return Err(self.wrong(
                "draws",
                &format!("a list of {found}"),
                &format!("one of {expected}"),
            ));
        }
        Ok(scheme)
    }

    /// What was drawn: the trunks where some are shared, else the runs.
    fn clusters(&self, n_trunks: Option<usize>, n_runs: usize) -> Result<usize, DocumentError> {
        match n_trunks {
            Some(n) if !(2..n_runs).contains(&n) => {
                let valid = format!("at least 2 and below `n_runs`, {n_runs}");
                Err(self.wrong("scheme.n_trunks", &n, &valid))
            }
            other => Ok(other.unwrap_or(n_runs)),
        }
    }

    /// The coefficients, which must be those of the parameters.
    fn coefficients(&self, choice: LawChoice) -> Result<Vec<NamedEstimate>, DocumentError> {
        let computed = choice.law().coefficients(&self.saved.parameters);
        if computed.len() != self.saved.coefficients.len() {
            let found = format!("a list of {}", self.saved.coefficients.len());
            return Err(self.wrong("coefficients", &found, &format!("one of {}", computed.len())));
        }
        let pairs = self.saved.coefficients.iter().zip(computed);
        pairs
            .map(|(saved, computed)| {
                let field = format!("coefficients.{}", saved.name);
                if saved.name != computed.name {
                    return Err(self.wrong(&field, &saved.name, &computed.name));
                }
                let estimate = match &saved.estimate {
                    EstimateView::Identified { value, low, high } => {
                        let limit = SAME * computed.value.abs();
                        // Written so that what is no number is refused.
                        let is_same = (value - computed.value).abs() <= limit;
                        if !is_same {
                            let valid = format!("{}, which `parameters` give", computed.value);
                            return Err(self.wrong(&field, &value, &valid));
                        }
                        Estimate::Identified { value: *value, low: *low, high: *high }
                    }
                    EstimateView::NotIdentified { reason } => {
                        Estimate::not_identified(reason.clone())
                    }
                };
                Ok(NamedEstimate { name: computed.name, estimate })
            })
            .collect()
    }

    fn ranges(&self) -> Result<Ranges, DocumentError> {
        let ranges = &self.saved.ranges;
        let of = |name: &str, range: Option<[f64; 2]>| match range {
            None => Ok((f64::NAN, f64::NAN)),
            Some([low, high]) if low > 0.0 && low <= high && high.is_finite() => Ok((low, high)),
            Some([low, high]) => {
                let found = format!("{low} to {high}");
                Err(self.wrong(&format!("ranges.{name}"), &found, &"positive and ascending"))
            }
        };
        Ok(Ranges {
            parameters: of("n", ranges.n)?,
            tokens: of("d", ranges.d)?,
            flops: of("c", ranges.c)?,
        })
    }
}
