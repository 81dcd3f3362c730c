//! Why a run, a worker or a planned cell is not running.
//! The scheduler's part of the answer is `scheduler::explain`.

use std::sync::Arc;

use api::{ErrorBody, ExplainView, ReasonView, WorkerView};
use axum::Json;
use axum::extract::{Path, State};
use domain::ids::{PreparationId, RunId, WorkId};
use domain::suggest::nearest;
use domain::worker::WorkerState;

use super::error::ApiError;
use crate::App;
use crate::scheduler::explain::{Case, Reason, why_idle, why_not_placed};
use crate::scheduler::policy::{Needs, QueuedWork, StudyTerms};
use crate::store::Store;
use crate::store::read::{Lookup, ReadStore, RunStatus};

/// So much of the queue is looked at for a worker, of each kind.
const HEAD: u32 = 512;

/// Why a run, a worker or a cell of this name or identifier is as it is.
#[utoipa::path(
    get,
    path = "/explain/{target}",
    tag = "system",
    params(("target" = String, Path, description = "A run, a worker or a cell")),
    responses((status = 200, body = ExplainView), (status = 404, body = ErrorBody))
)]
pub(super) async fn explain(
    State(app): State<Arc<App>>,
    Path(target): Path<String>,
) -> Result<Json<ExplainView>, ApiError> {
    let suggested = match app.store.find_run(&target).await? {
        Lookup::Found(run) => {
            if let Some(view) = of_run(&app, &run).await? {
                return Ok(Json(view));
            }
            None
        }
        Lookup::Ambiguous { candidates } => {
            return Err(ApiError::Ambiguous { name: target, candidates });
        }
        Lookup::Missing { nearest } => nearest,
    };
    if let Some(worker) = app.store.worker_named(&target).await? {
        return Ok(Json(of_worker(&app, &worker).await?));
    }
    let dropped = app.store.dropped_cells(&target).await?;
    if !dropped.is_empty() {
        let reasons = dropped.into_iter().map(|cell| {
            let message = format!("the plan of `{}` left it out: {}", cell.study, cell.reason);
            Reason::new("dropped", message, "change the study file and apply it again")
        });
        return Ok(Json(view("cell", &target, &target, "dropped", reasons.collect())));
    }
    let workers = app.store.workers(false).await?;
    let names = workers.iter().map(|worker| worker.name.as_str());
    let suggested = suggested.or_else(|| nearest(&target, names).map(str::to_owned));
    Err(ApiError::NotFound { kind: "run, worker or cell", name: target, nearest: suggested })
}

fn view(kind: &str, id: &str, name: &str, state: &str, reasons: Vec<Reason>) -> ExplainView {
    let reasons = reasons.into_iter().map(|reason| ReasonView {
        code: reason.code.to_owned(),
        message: reason.message,
        remedy: reason.remedy,
    });
    ExplainView {
        kind: kind.to_owned(),
        id: id.to_owned(),
        name: name.to_owned(),
        state: state.to_owned(),
        reasons: reasons.collect(),
    }
}

async fn of_run(app: &App, run: &RunId) -> Result<Option<ExplainView>, ApiError> {
    let (Some(status), Some(page)) =
        (app.store.run_status(run).await?, app.store.run_view(run).await?)
    else {
        return Ok(None);
    };
    let reasons = match status.state.as_str() {
        "waiting" => waits(app, &status),
        "queued" => queued(app, run, &status),
        "leased" => leased(&status, page.summary.worker.as_deref()),
        "backoff" => vec![backs_off(app, run, &status)],
        _ => vec![over(&status)],
    };
    Ok(Some(view("run", run.as_str(), &page.summary.name, &status.state, reasons)))
}

fn held(status: &RunStatus) -> Option<Reason> {
    let named: Vec<String> = status
        .paused_studies
        .iter()
        .map(|(study, why)| match why.as_str() {
            "" => format!("`{study}`"),
            why => format!("`{study}` ({why})"),
        })
        .collect();
    let first = status.paused_studies.first().map_or("", |(study, _)| study.as_str());
    status.is_held.then(|| {
        let message = format!("every study that wants it is paused: {}", named.join(", "));
        Reason::new("study_paused", message, format!("`gradus resume {first}`"))
    })
}

fn queued(app: &App, run: &RunId, status: &RunStatus) -> Vec<Reason> {
    if let Some(reason) = held(status) {
        return vec![reason];
    }
    if !app.leader.has_taken_over() {
        let message = "this coordinator does not lead: who is connected to the leader is not known";
        return vec![Reason::new("not_leading", message, "ask the coordinator that leads")];
    }
    let work = QueuedWork {
        work: WorkId::Run(run.clone()),
        priority: status.priority,
        cost_flops: status.cost_flops,
        study: status.study.clone(),
        has_begun: status.n_attempts > 0,
        needs: status.needs.clone(),
    };
    let kept = app.leader.kept();
    let (terms, n_ahead, kept) = (&status.terms, status.n_ahead, kept.as_ref());
    let case = Case { work: &work, terms, n_ahead, kept };
    why_not_placed(case, &app.leader.all_seats())
}

/// For its data, and then for the run whose checkpoint it goes on from.
fn waits(app: &App, status: &RunStatus) -> Vec<Reason> {
    let Some(trunk) = status.trunk.as_ref().filter(|_| status.preparation.state == "succeeded")
    else {
        return waits_for_data(app, status);
    };
    let message = format!(
        "it goes on from step {} of `{}`, which is {} at step {}",
        trunk.step, trunk.run_id, trunk.state, trunk.latest_step
    );
    let remedy = format!(
        "wait, or see `gradus explain {}`; with `runtime.share_trunks: false` it trains all of its \
         steps itself",
        trunk.run_id
    );
    held(status).into_iter().chain([Reason::new("trunk_not_there", message, remedy)]).collect()
}

/// The data is work too: when it is queued, what keeps it is what keeps the run.
fn waits_for_data(app: &App, status: &RunStatus) -> Vec<Reason> {
    let preparation = &status.preparation;
    let message =
        format!("its data is not prepared: `{}` is {}", preparation.id, preparation.state);
    let mut reasons = vec![Reason::waits("data_not_ready", message)];
    if !preparation.message.is_empty() {
        let message = format!("the last attempt to prepare it said: {}", preparation.message);
        reasons.push(Reason::waits("preparation_failed", message));
    }
    let held = held(status);
    if let (None, "queued", true, Ok(id)) = (
        &held,
        preparation.state.as_str(),
        app.leader.has_taken_over(),
        preparation.id.parse::<PreparationId>(),
    ) {
        let work = QueuedWork {
            work: WorkId::Preparation(id),
            priority: status.priority,
            cost_flops: 0.0,
            study: None,
            has_begun: false,
            needs: Needs::default(),
        };
        let (terms, kept) = (StudyTerms::default(), app.leader.kept());
        let case = Case { work: &work, terms: &terms, n_ahead: 0, kept: kept.as_ref() };
        reasons.extend(why_not_placed(case, &app.leader.all_seats()));
    }
    reasons.extend(held);
    reasons
}

fn leased(status: &RunStatus, worker: Option<&str>) -> Vec<Reason> {
    let worker = worker.unwrap_or("a worker");
    if let Some(reason) = held(status) {
        let message = format!("it writes a checkpoint and leaves `{worker}`");
        return vec![Reason::waits("leaving", message), reason];
    }
    vec![Reason::waits("running", format!("it is running: `{worker}` has it"))]
}

fn backs_off(app: &App, run: &RunId, status: &RunStatus) -> Reason {
    let until_ms = status.backoff_until_ms.unwrap_or_default();
    let by_wall_clock = || {
        let left_ms = until_ms.saturating_sub(app.clock.wall_ms());
        u64::try_from(left_ms).unwrap_or_default()
    };
    // The leader ends it, by a clock that does not jump; another coordinator has none to go by.
    let left_ms = app.leader.backoff_left_ms(&WorkId::Run(run.clone()), until_ms);
    let left_ms = left_ms.unwrap_or_else(by_wall_clock);
    let how = status.ended_as.as_deref().unwrap_or("bug");
    let message = format!(
        "attempt {} ended as {how} ({}); the next one may begin in {} s",
        status.n_attempts,
        first_line(&status.message),
        left_ms.div_ceil(1000)
    );
    Reason::new("backing_off", message, "`gradus retry` does not wait")
}

fn over(status: &RunStatus) -> Reason {
    let again = "`gradus retry` queues it again";
    match status.state.as_str() {
        "succeeded" => Reason::waits("succeeded", "it is over and has its result"),
        "diverged" => {
            let why = first_line(&status.message);
            Reason::waits(
                "diverged",
                format!("its loss went out of order, which is a result: {why}"),
            )
        }
        "cancelled" => Reason::new("cancelled", "somebody cancelled it", again),
        _ if status.n_attempts == 0 => {
            let why = first_line(&status.preparation.message);
            Reason::new("failed", format!("its data could not be prepared: {why}"), again)
        }
        _ => {
            let how = status.ended_as.as_deref().unwrap_or("bug");
            let why = first_line(&status.message);
            let message = format!(
                "it failed for good after {} attempts, the last as {how}: {why}",
                status.n_attempts
            );
            Reason::new("failed", message, again)
        }
    }
}

fn first_line(text: &str) -> &str {
    match text.lines().next() {
        None | Some("") => "nothing was said",
        Some(line) => line,
    }
}

async fn of_worker(app: &App, worker: &WorkerView) -> Result<ExplainView, ApiError> {
    let seats = app.leader.all_seats();
    let reasons = match seats.iter().find(|seat| seat.worker.as_str() == worker.id) {
        Some(seat) => {
            let queue = app.store.queue_head(HEAD, None).await?;
            why_idle(seat, &queue, &seats, app.leader.kept().as_ref())
        }
        None if !app.leader.has_taken_over() => {
            let message = "this coordinator does not lead: the worker is the leader's";
            vec![Reason::new("not_leading", message, "ask the coordinator that leads")]
        }
        None => {
            let state = WorkerState::from_label(&worker.state, false);
            let message = format!("it is {}", state.map_or("unknown", WorkerState::label));
            vec![Reason::new("absent", message, "start it again")]
        }
    };
    Ok(view("worker", &worker.id, &worker.name, &worker.state, reasons))
}
