//! Removes the files of rolling checkpoints that later ones stand in for.
//!
//! Which those are is the store's to say. They are marked first, so that no attempt is told of them,
//! and removed then: whoever dies in between leaves files that the next sweep removes.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::App;
use crate::store::{Store as _, StoreError};

/// Superseded checkpoints are looked for once in so many lease terms: so long they lie there for
/// nothing.
const TERMS_PER_SWEEP: u64 = 2;

/// So many runs, and so many checkpoints, are taken at a time.
const AT_ONCE: u32 = 256;

/// Sweeps on a timer, as long as this coordinator leads.
pub async fn retain(app: Arc<App>, lead: CancellationToken) {
    let pause = Duration::from_millis(app.config.lease_term_ms * TERMS_PER_SWEEP);
    loop {
        tokio::select! {
            () = lead.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
        let swept = tokio::select! {
            () = lead.cancelled() => return,
            swept = sweep(&app) => swept,
        };
        if let Err(error) = swept {
            let error: &dyn std::error::Error = &error;
            tracing::error!(error, "could not sweep superseded checkpoints");
        }
    }
}

/// One sweep: all that is superseded by now is marked, and the files of what is marked are removed.
/// Files that cannot be removed are left for the next one. May be repeated.
pub async fn sweep(app: &App) -> Result<(), StoreError> {
    while app.store.supersede_checkpoints(AT_ONCE).await? > 0 {}
    loop {
        let found = app.store.superseded_checkpoints(AT_ONCE).await?;
        let n_found = found.len();
        let mut removed = Vec::with_capacity(n_found);
        for checkpoint in found {
            match app.artifacts.remove_checkpoint(&checkpoint).await {
                Ok(()) => removed.push(checkpoint),
                Err(error) => {
                    let error: &dyn std::error::Error = &error;
                    tracing::warn!(error, run.id = %checkpoint.run, "a superseded checkpoint stays");
                }
            }
        }
        let is_all = n_found < AT_ONCE as usize || removed.len() < n_found;
        if !removed.is_empty() {
            app.store.note_removed(removed).await?;
        }
        if is_all {
            return Ok(());
        }
    }
}
