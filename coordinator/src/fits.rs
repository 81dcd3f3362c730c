//! The fits of a study: its observations become `scaling`'s, and the fitted laws a report.
//! It reads no curve and trains nothing.

use std::collections::BTreeMap;
use std::sync::Mutex;

use api::FitReport;
use domain::cell::{Identity, IdentityError};
use domain::ids::{ContentHash, FitId, StudyId};
use tokio::sync::Semaphore;

use crate::store::read::{FitInputs, ReadError, ReadStore};
use crate::store::{FitToSave, Store, StoreError, StoreErrorClass};

mod method;
mod notes;
mod observe;
mod report;
mod view;

use observe::Observed;

/// Why a study could not be fitted. That the data do not identify a number is no error.
#[derive(Debug, thiserror::Error)]
pub enum FitsError {
    /// What it is made from could not be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// There is no such study any more.
    #[error("there is no study `{study}`")]
    NoStudy {
        /// As it was asked for.
        study: StudyId,
    },
    /// The stored `fit` section is not of this build's form.
    #[error("the stored `fit` section of study `{study}` cannot be read")]
    Settings {
        /// The study's name.
        study: String,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The observations have no hash.
    #[error("the observations of study `{study}` cannot be written as canonical JSON")]
    Identity {
        /// The study's name.
        study: String,
        /// Why not.
        #[source]
        source: IdentityError,
    },
    /// The arithmetic broke off.
    #[error("the fit of study `{study}` broke off")]
    Broken {
        /// The study.
        study: StudyId,
        /// How.
        #[source]
        source: tokio::task::JoinError,
    },
}

impl FitsError {
    /// What a caller may do about it.
    pub fn class(&self) -> StoreErrorClass {
        match self {
            Self::Read(error) => error.class(),
            Self::NoStudy { .. } => StoreErrorClass::GiveUp,
            Self::Settings { .. } | Self::Identity { .. } | Self::Broken { .. } => {
                StoreErrorClass::Bug
            }
        }
    }
}

/// One fit at a time in a process: workers train on the same cores.
static TURN: Semaphore = Semaphore::const_new(1);

/// Studies whose last report is remembered.
const MAX_REMEMBERED: usize = 64;

/// The last report of each study. Provisional ones live only here: a store that kept one for each
/// measurement of a long study would hold little else.
static REMEMBERED: Mutex<BTreeMap<StudyId, FitReport>> = Mutex::new(BTreeMap::new());

/// The fits of a study as it stands: those made before when nothing has come in since, otherwise
/// made anew, and stored once nothing more can come in. May be asked as often as one likes.
///
/// # Errors
/// [`FitsError`]; a report that could not be stored is answered all the same.
pub async fn report<S>(store: &S, study: &StudyId) -> Result<FitReport, FitsError>
where
    S: ReadStore + Store,
{
    let inputs = store.fit_inputs(study).await?;
    let inputs = inputs.ok_or_else(|| FitsError::NoStudy { study: study.clone() })?;
    let (observed, hash) = observe(&inputs)?;
    if let Some(report) = known(store, study, &hash).await? {
        return Ok(report);
    }
    let permit = TURN.acquire().await.expect("the semaphore is never closed");
    // Whoever had the turn before may have made this very report.
    if let Some(report) = known(store, study, &hash).await? {
        return Ok(report);
    }
    // The permit goes with the arithmetic, which runs on when the caller goes away.
    let fitting = tokio::task::spawn_blocking(move || {
        let report = report::make(&observed, &hash);
        drop(permit);
        report
    });
    let report =
        fitting.await.map_err(|source| FitsError::Broken { study: study.clone(), source })?;
    keep(store, study, &report).await;
    Ok(report)
}

/// The fits of given inputs: pure, and equal for equal inputs.
///
/// # Errors
/// [`FitsError::Settings`] and [`FitsError::Identity`].
pub fn fit_report(inputs: &FitInputs) -> Result<FitReport, FitsError> {
    let (observed, hash) = observe(inputs)?;
    Ok(report::make(&observed, &hash))
}

fn observe(inputs: &FitInputs) -> Result<(Observed, ContentHash), FitsError> {
    let study = || inputs.study.clone();
    let observed =
        Observed::new(inputs).map_err(|source| FitsError::Settings { study: study(), source })?;
    let identity =
        Identity::of(&observed).map_err(|source| FitsError::Identity { study: study(), source })?;
    Ok((observed, identity.hash))
}

/// The report of these inputs, if it was made before.
async fn known<S: ReadStore>(
    store: &S,
    study: &StudyId,
    hash: &ContentHash,
) -> Result<Option<FitReport>, FitsError> {
    let remembered =
        remembered().get(study).filter(|one| one.inputs_hash == hash.as_str()).cloned();
    if remembered.is_some() {
        return Ok(remembered);
    }
    let Some(text) = store.stored_fit(study, hash).await? else { return Ok(None) };
    match serde_json::from_str(&text) {
        Ok(report) => Ok(Some(report)),
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(study.id = %study, error, "a stored fit cannot be read; it is made anew");
            Ok(None)
        }
    }
}

/// Remembers a report, and stores it when it is final.
async fn keep<S: Store>(store: &S, study: &StudyId, report: &FitReport) {
    {
        let mut remembered = remembered();
        if remembered.len() >= MAX_REMEMBERED && !remembered.contains_key(study) {
            remembered.pop_first();
        }
        remembered.insert(study.clone(), report.clone());
    }
    if report.is_provisional {
        return;
    }
    let (Ok(inputs_hash), Ok(report_json)) =
        (report.inputs_hash.parse::<ContentHash>(), serde_json::to_string(report))
    else {
        return;
    };
    let id = FitId::from_hash(&inputs_hash);
    let fit = FitToSave { id, study: study.clone(), inputs_hash, report_json };
    match store.save_fit(fit).await {
        Ok(()) | Err(StoreError::ReadOnly | StoreError::NotLeading) => {}
        Err(error) => {
            let error: &dyn std::error::Error = &error;
            tracing::warn!(study.id = %study, error, "could not store a fit; it will be made again");
        }
    }
}

fn remembered() -> std::sync::MutexGuard<'static, BTreeMap<StudyId, FitReport>> {
    // A panic while it was held left whole reports behind.
    REMEMBERED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
