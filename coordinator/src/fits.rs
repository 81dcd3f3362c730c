//! The fits of a study: its observations become `scaling`'s, and the fitted laws a report.
//! It reads no curve and trains nothing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use api::{FitReport, FitSummary};
use domain::cell::{Identity, IdentityError};
use domain::ids::{ContentHash, FitId, StudyId};
use domain::spec::{FitSettingError, FitSpec};
use tokio::sync::Semaphore;

use crate::store::read::{FitInputs, ReadError, ReadStore};
use crate::store::{FitToSave, Store, StoreError, StoreErrorClass};

mod alike;
mod ask;
mod change;
mod compare;
mod method;
mod notes;
mod observe;
mod report;
mod view;

pub use ask::{Model, Question, Which};
pub use change::FitChange;
pub use compare::Comparing;
use observe::{Observed, REPORT_VERSION};
use report::Made;

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
    #[error("a fit broke off")]
    Broken {
        /// How.
        #[source]
        source: tokio::task::JoinError,
    },
    /// It could not be kept.
    #[error(transparent)]
    Store(StoreError),
    /// No group of it would be what was meant.
    #[error("`fit.group_by` is `{axis}`, and the study has no such axis; it has {}", .axes.join(", "))]
    NoAxis {
        /// What was asked for.
        axis: String,
        /// What there is.
        axes: Vec<String>,
    },
    /// The settings contradict each other.
    #[error(transparent)]
    Setting(#[from] FitSettingError),
    /// What it was made from was not kept, or would be fitted in another way today.
    #[error(
        "fit `{fit}` was made by an older build: its report stands, but it cannot be asked; fit the study again"
    )]
    OlderBuild {
        /// The fit.
        fit: FitId,
    },
    /// The same observations give another report.
    #[error(
        "fit `{fit}` is not made again as it was stored: another build made it; fit the study again"
    )]
    NotReproduced {
        /// The fit.
        fit: FitId,
    },
    /// The stored observations are not of this build's form.
    #[error("the observations of fit `{fit}` cannot be read")]
    Observations {
        /// The fit.
        fit: FitId,
        /// What is wrong with them.
        #[source]
        source: serde_json::Error,
    },
}

impl FitsError {
    /// What a caller may do about it.
    pub fn class(&self) -> StoreErrorClass {
        match self {
            Self::Read(error) => error.class(),
            Self::Store(error) => error.class(),
            Self::NoStudy { .. }
            | Self::NoAxis { .. }
            | Self::Setting(_)
            | Self::OlderBuild { .. }
            | Self::NotReproduced { .. } => StoreErrorClass::GiveUp,
            Self::Settings { .. }
            | Self::Identity { .. }
            | Self::Broken { .. }
            | Self::Observations { .. } => StoreErrorClass::Bug,
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

/// Fits that can be asked without being made again.
const MAX_MODELS: usize = 32;

/// The fits that were made or asked last, each with the number of the question that it was last
/// asked.
static MODELS: Mutex<Models> = Mutex::new(Models { n_asked: 0, by_id: BTreeMap::new() });

struct Models {
    n_asked: u64,
    by_id: BTreeMap<FitId, (u64, Arc<Model>)>,
}

impl Models {
    fn get(&mut self, fit: &FitId) -> Option<Arc<Model>> {
        self.n_asked += 1;
        let (asked, model) = self.by_id.get_mut(fit)?;
        *asked = self.n_asked;
        Some(Arc::clone(model))
    }

    fn keep(&mut self, fit: FitId, model: Arc<Model>) {
        self.n_asked += 1;
        self.by_id.insert(fit, (self.n_asked, model));
        if self.by_id.len() > MAX_MODELS
            && let Some(oldest) =
                self.by_id.iter().min_by_key(|(_, (asked, _))| *asked).map(|(fit, _)| fit.clone())
        {
            self.by_id.remove(&oldest);
        }
    }
}

/// The fits of a study as it stands, by its own settings or with a change: those made before when nothing has come in since, otherwise
/// made anew, and stored once nothing more can come in. May be asked as often as one likes.
///
/// # Errors
/// [`FitsError`]; a report that could not be stored is answered all the same.
pub async fn report<S>(
    store: &S,
    study: &StudyId,
    change: &FitChange,
) -> Result<FitReport, FitsError>
where
    S: ReadStore + Store,
{
    let inputs = inputs_of(store, study, change).await?;
    let (observed, identity) = observe(&inputs)?;
    let hash = identity.hash.clone();
    if let Some(report) = known(store, study, &hash).await? {
        return Ok(report);
    }
    let permit = TURN.acquire().await.expect("the semaphore is never closed");
    // Whoever had the turn before may have made this very report.
    if let Some(report) = known(store, study, &hash).await? {
        return Ok(report);
    }
    let (model, permit) = make(observed, hash, permit).await?;
    let report = model.report().clone();
    // What is asked again and again is the study's own.
    if change.is_empty() {
        remember(study, &report);
    }
    if !report.is_provisional {
        match keep(store, study, &identity, model).await {
            Ok(()) | Err(StoreError::ReadOnly | StoreError::NotLeading) => {}
            Err(error) => {
                let error: &dyn std::error::Error = &error;
                let id = study.as_str();
                tracing::warn!(
                    study.id = id,
                    error,
                    "could not store a fit; it will be made again"
                );
            }
        }
    }
    drop(permit);
    Ok(report)
}

/// Makes the fits of a study as it stands, by other settings than its own where there are any, and
/// stores them, provisional or not. The same observations under the same settings are one fit.
///
/// # Errors
/// [`FitsError`]; also where it could not be stored, for then it cannot be asked for.
pub async fn create<S>(
    store: &S,
    study: &StudyId,
    change: &FitChange,
) -> Result<FitReport, FitsError>
where
    S: ReadStore + Store,
{
    let inputs = inputs_of(store, study, change).await?;
    let (observed, identity) = observe(&inputs)?;
    let hash = identity.hash.clone();
    let permit = TURN.acquire().await.expect("the semaphore is never closed");
    if let Some(text) = store.stored_fit(study, &hash).await?
        && let Ok(report) = serde_json::from_str(&text)
    {
        return Ok(report);
    }
    let (model, permit) = make(observed, hash, permit).await?;
    let report = model.report().clone();
    keep(store, study, &identity, model).await.map_err(FitsError::Store)?;
    drop(permit);
    Ok(report)
}

/// A stored fit that can be asked; none when there is none of this identifier.
///
/// # Errors
/// [`FitsError::OlderBuild`] and [`FitsError::NotReproduced`] where this build would fit another way.
pub async fn model<S: ReadStore>(store: &S, fit: &FitId) -> Result<Option<Arc<Model>>, FitsError> {
    if let Some(model) = models().get(fit) {
        return Ok(Some(model));
    }
    let Some(record) = store.fit_record(fit).await? else { return Ok(None) };
    let older = || FitsError::OlderBuild { fit: fit.clone() };
    let failed = |source| FitsError::Observations { fit: fit.clone(), source };
    let version: serde_json::Value =
        serde_json::from_str(&record.inputs_json).map_err(|_| older())?;
    if version["version"] != REPORT_VERSION {
        return Err(older());
    }
    let observed: Observed = serde_json::from_str(&record.inputs_json).map_err(failed)?;
    let stored: FitReport = serde_json::from_str(&record.report_json).map_err(failed)?;
    let hash = stored.inputs_hash.parse().map_err(|_| older())?;
    let permit = TURN.acquire().await.expect("the semaphore is never closed");
    if let Some(model) = models().get(fit) {
        return Ok(Some(model));
    }
    let (model, _permit) = make(observed, hash, permit).await?;
    if *model.report() != stored {
        return Err(FitsError::NotReproduced { fit: fit.clone() });
    }
    let model = Arc::new(model);
    models().keep(fit.clone(), Arc::clone(&model));
    Ok(Some(model))
}

/// A stored report; none when there is none of this identifier.
///
/// # Errors
/// [`FitsError::Read`], and [`FitsError::OlderBuild`] where it is not of this build's form.
pub async fn stored_report<S: ReadStore>(
    store: &S,
    fit: &FitId,
) -> Result<Option<FitReport>, FitsError> {
    if let Some(model) = models().get(fit) {
        return Ok(Some(model.report().clone()));
    }
    let Some(record) = store.fit_record(fit).await? else { return Ok(None) };
    let report = serde_json::from_str(&record.report_json);
    report.map(Some).map_err(|_| FitsError::OlderBuild { fit: fit.clone() })
}

async fn inputs_of<S: ReadStore>(
    store: &S,
    study: &StudyId,
    change: &FitChange,
) -> Result<FitInputs, FitsError> {
    let inputs = store.fit_inputs(study).await?;
    let mut inputs = inputs.ok_or_else(|| FitsError::NoStudy { study: study.clone() })?;
    if !change.is_empty() {
        let failed = |source| FitsError::Settings { study: inputs.study.clone(), source };
        let own: FitSpec = serde_json::from_str(&inputs.fit_spec_json).map_err(failed)?;
        let spec = change.apply(own);
        spec.check()?;
        check_axis(&inputs, &spec)?;
        let failed = |source| FitsError::Settings { study: inputs.study.clone(), source };
        inputs.fit_spec_json = serde_json::to_string(&spec).map_err(failed)?;
    }
    Ok(inputs)
}

/// A group for each value of an axis that there is not would be one group.
fn check_axis(inputs: &FitInputs, spec: &FitSpec) -> Result<(), FitsError> {
    let Some(axis) = &spec.group_by else { return Ok(()) };
    let axes: std::collections::BTreeSet<&String> =
        inputs.runs.iter().flat_map(|run| run.axis_values.keys()).collect();
    if axes.contains(axis) {
        return Ok(());
    }
    let axes = axes.into_iter().map(|axis| format!("`{axis}`")).collect();
    Err(FitsError::NoAxis { axis: axis.clone(), axes })
}

type Permit = tokio::sync::SemaphorePermit<'static>;

/// Makes a fit that can be asked. The permit goes with the arithmetic, which runs on when the
/// caller goes away, and comes back with it: until the fit is kept, nobody else makes the same.
async fn make(
    observed: Observed,
    hash: ContentHash,
    permit: Permit,
) -> Result<(Model, Permit), FitsError> {
    let fitting = tokio::task::spawn_blocking(move || (report::make(&observed, &hash), permit));
    let (made, permit): (Made, Permit) =
        fitting.await.map_err(|source| FitsError::Broken { source })?;
    Ok((Model::new(made), permit))
}

/// The fits of given inputs: pure, and equal for equal inputs.
///
/// # Errors
/// [`FitsError::Settings`] and [`FitsError::Identity`].
pub fn fit_report(inputs: &FitInputs) -> Result<FitReport, FitsError> {
    fit_model(inputs).map(|model| model.report().clone())
}

/// The same, to be asked.
///
/// # Errors
/// Those of [`fit_report`].
pub fn fit_model(inputs: &FitInputs) -> Result<Model, FitsError> {
    let (observed, identity) = observe(inputs)?;
    Ok(Model::new(report::make(&observed, &identity.hash)))
}

fn observe(inputs: &FitInputs) -> Result<(Observed, Identity), FitsError> {
    let study = || inputs.study.clone();
    let observed =
        Observed::new(inputs).map_err(|source| FitsError::Settings { study: study(), source })?;
    let identity =
        Identity::of(&observed).map_err(|source| FitsError::Identity { study: study(), source })?;
    Ok((observed, identity))
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

fn remember(study: &StudyId, report: &FitReport) {
    let mut remembered = remembered();
    if remembered.len() >= MAX_REMEMBERED && !remembered.contains_key(study) {
        remembered.pop_first();
    }
    remembered.insert(study.clone(), report.clone());
}

/// Stores a fit with what it is made from, and remembers it.
async fn keep<S: Store>(
    store: &S,
    study: &StudyId,
    identity: &Identity,
    model: Model,
) -> Result<(), StoreError> {
    let failed =
        |error: serde_json::Error| StoreError::Bug(format!("a report is no JSON: {error}"));
    let report_json = serde_json::to_string(model.report()).map_err(failed)?;
    let summary_json = serde_json::to_string(&summary(model.report())).map_err(failed)?;
    let id = FitId::from_hash(&identity.hash);
    let fit = FitToSave {
        id: id.clone(),
        study: study.clone(),
        inputs_hash: identity.hash.clone(),
        inputs_json: identity.canonical_json.clone(),
        report_json,
        summary_json,
    };
    store.save_fit(fit).await?;
    models().keep(id, Arc::new(model));
    Ok(())
}

fn summary(report: &FitReport) -> FitSummary {
    let methods = report.groups.first().map(|group| &group.fits);
    FitSummary {
        id: report.id.clone(),
        study: report.study.clone(),
        created_at_ms: 0,
        is_provisional: report.is_provisional,
        methods: methods.into_iter().flatten().map(|fit| fit.method.clone()).collect(),
        groups: report.groups.iter().map(|group| group.group.clone()).collect(),
        n_observations: report.groups.iter().map(|group| group.observations.len() as u64).sum(),
        n_excluded: report.excluded.len() as u64,
        draws: report.draws,
        seed: report.seed,
        inputs_hash: report.inputs_hash.clone(),
    }
}

fn models() -> std::sync::MutexGuard<'static, Models> {
    // A panic while it was held left whole models behind.
    MODELS.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn remembered() -> std::sync::MutexGuard<'static, BTreeMap<StudyId, FitReport>> {
    // A panic while it was held left whole reports behind.
    REMEMBERED.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
