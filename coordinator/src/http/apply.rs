//! How a study comes in: parsed and planned here again, because this plan is the only truth.
//! It reads no source; their hashes come with the request.

use std::sync::Arc;

use api::{ApplyRequest, ApplyView, CorpusSources, ErrorBody, PlanView};
use axum::extract::State;
use axum::response::Response;
use domain::ids::ContentHash;
use domain::spec::{self, ParsedSpec};
use planner::{CorpusHashes, Plan};

use super::change::carry_out;
use super::error::ApiError;
use super::extract::Body;
use super::plan::with_cells;
use crate::App;
use crate::store::{Applied, ApplyOutcome, Store, StudyToApply};

/// Plans a study and stores nothing.
#[utoipa::path(
    post,
    path = "/plan",
    tag = "studies",
    request_body = ApplyRequest,
    responses((status = 200, body = PlanView), (status = 400, body = ErrorBody))
)]
pub(super) async fn plan(Body(request): Body<ApplyRequest>) -> Result<Response, ApiError> {
    let (_, plan, outline) = planned(&request).await?;
    Ok(with_cells(&outline, plan))
}

/// Plans a study and stores it. Applying it again changes nothing; a study of the same name is
/// updated.
#[utoipa::path(
    post,
    path = "/studies",
    tag = "studies",
    request_body = ApplyRequest,
    responses(
        (status = 200, body = ApplyView),
        (status = 400, description = "The study file is wrong", body = ErrorBody),
        (status = 409, description = "Sources are missing", body = ErrorBody)
    )
)]
pub(super) async fn apply(
    State(app): State<Arc<App>>,
    Body(request): Body<ApplyRequest>,
) -> Result<Response, ApiError> {
    let (parsed, plan, outline) = planned(&request).await?;
    let study = StudyToApply {
        spec: parsed.spec,
        spec_text: request.spec_text,
        spec_file: request.spec_file,
        plan: Arc::clone(&plan),
    };
    match app.store.apply_study(study).await? {
        ApplyOutcome::MissingSources(hashes) => Err(ApiError::MissingSources(hashes)),
        ApplyOutcome::Applied(applied) => {
            carry_out(&app, &applied.changed);
            Ok(with_cells(&view(&applied, outline), plan))
        }
    }
}

fn view(applied: &Applied, plan: PlanView) -> ApplyView {
    ApplyView {
        study_id: applied.study_id.to_string(),
        study: plan.study.clone(),
        is_update: applied.is_update,
        n_new_runs: applied.n_new_runs,
        n_reused_runs: applied.n_reused_runs,
        n_reused_succeeded: applied.n_reused_succeeded,
        n_missed_data_points: applied.n_missed_data_points,
        n_removed_cells: applied.n_removed_cells,
        plan,
    }
}

/// The study, its plan and the plan's outline. A plan of many thousand cells takes its time, so it
/// is made beside the runtime's threads.
async fn planned(request: &ApplyRequest) -> Result<(ParsedSpec, Arc<Plan>, PlanView), ApiError> {
    let (text, file) = (request.spec_text.clone(), request.spec_file.clone());
    let sources = request.sources.clone();
    let planning = move || {
        let parsed = spec::parse(&text, &file)?;
        let hashes = corpus_hashes(&parsed, &sources)?;
        let plan = planner::plan(&parsed, &hashes)?;
        let outline = planner::plan_outline(&plan);
        Ok((parsed, Arc::new(plan), outline))
    };
    tokio::task::spawn_blocking(planning).await.map_err(ApiError::Broken)?
}

/// The sources in the study file's order.
fn corpus_hashes(
    parsed: &ParsedSpec,
    sources: &[CorpusSources],
) -> Result<Vec<CorpusHashes>, ApiError> {
    let corpora = &parsed.spec.data.corpora;
    let is_same = corpora.iter().map(|corpus| &corpus.name).eq(sources.iter().map(|s| &s.corpus));
    if !is_same {
        let names: Vec<String> = corpora.iter().map(|c| format!("`{}`", c.name)).collect();
        return Err(ApiError::BadRequest(format!(
            "`sources` must hold the study's corpora in its order: {}",
            names.join(", ")
        )));
    }
    sources.iter().map(one_corpus).collect()
}

fn one_corpus(sources: &CorpusSources) -> Result<CorpusHashes, ApiError> {
    let hash = |text: &String| {
        text.parse::<ContentHash>().map_err(|error| ApiError::BadRequest(error.to_string()))
    };
    let file_hashes =
        sources.files.iter().map(|file| hash(&file.hash)).collect::<Result<_, _>>()?;
    Ok(CorpusHashes { corpus: sources.corpus.clone(), file_hashes })
}
