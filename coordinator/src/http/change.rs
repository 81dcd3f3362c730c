//! Changes that somebody asks for: made, or only tried out.
//!
//! What a change does is the store's.

use std::future::Future;

use api::ChangeView;
use axum::Json;
use serde::Deserialize;
use utoipa::IntoParams;

use super::error::ApiError;
use crate::App;
use crate::store::{Changed, StoreError, trying_out};

/// Whether a change is only tried out.
#[derive(Debug, Clone, Copy, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct Trial {
    /// Answer what would change, exactly, and change nothing; by default false.
    #[serde(default)]
    pub(super) dry_run: bool,
}

/// Makes a change and tells those whom it concerns: holders of revoked leases and the dispatcher. What
/// is only tried out concerns nobody.
pub(super) async fn change(
    app: &App,
    trial: Trial,
    verb: impl Future<Output = Result<Changed, StoreError>>,
) -> Result<Json<ChangeView>, ApiError> {
    let changed = trying_out(trial.dry_run, verb).await?;
    if !trial.dry_run {
        carry_out(app, &changed);
    }
    let run_ids = changed.run_ids().into_iter().map(ToString::to_string).collect();
    Ok(Json(ChangeView { run_ids }))
}

/// Tells those whom a change concerns.
pub(super) fn carry_out(app: &App, changed: &Changed) {
    app.leader.revoke(&changed.revoked);
    app.leader.preempt(&changed.preempted);
    app.nudge.notify_one();
}
