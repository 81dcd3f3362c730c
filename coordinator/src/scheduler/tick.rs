//! The only dispatcher: takes a bounded snapshot, asks the policy, grants in one transaction.
//!
//! It decides nothing.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use domain::ids::WorkId;
use tokio_util::sync::CancellationToken;

use super::fit::Machine;
use super::policy::{Decision, Placement, Snapshot, decide};
use crate::App;
use crate::leader::Seats;
use crate::store::{Store as _, StoreError};

/// How much of the queue one tick looks at where that is needed: so many preparations, so many
/// evaluations and runs of each study, and fewer where there are many studies. A study of any size
/// hides no other.
const HEAD: u32 = 512;

/// It looks at so much first, and at twice as much as there are free slots: more is needed only
/// where what goes first fits nowhere.
const SHORT_HEAD: u32 = 32;

/// The dispatcher looks without being woken this often, in case a nudge was missed.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);

/// Grants until there is nothing to grant, each time it is nudged, as long as this coordinator
/// leads.
pub async fn dispatch(app: Arc<App>, lead: CancellationToken) {
    loop {
        tokio::select! {
            () = lead.cancelled() => return,
            () = app.nudge.notified() => {}
            () = tokio::time::sleep(IDLE_INTERVAL) => {}
        }
        while !lead.is_cancelled() {
            match tick(&app).await {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!(error = &error as &dyn std::error::Error, "could not dispatch");
                    break;
                }
            }
        }
    }
}

/// One snapshot, one decision, one transaction; how many leases it made.
pub async fn tick(app: &App) -> Result<usize, StoreError> {
    let Seats { free, live, silent } = app.leader.seats();
    if free.is_empty() {
        return Ok(0);
    }
    // Runs that fit nowhere must not hide the shorter ones behind them.
    let machines: Vec<Machine> = live.iter().map(|(_, machine)| machine.clone()).collect();
    let n_free = free.iter().map(|seat| seat.n_free_slots).fold(0, u32::saturating_add);
    let mut snapshot = Snapshot {
        free,
        live,
        silent,
        turns: app.leader.turns(),
        user_weights: app.config.user_weights.clone(),
        let_pass: app.leader.let_pass(),
        ..Snapshot::default()
    };
    let mut decision = Decision::default();
    for head in [n_free.saturating_mul(2).clamp(SHORT_HEAD, HEAD), HEAD] {
        snapshot.queue = app.store.queue_head(head, Some(&machines)).await?;
        if snapshot.has_gangs() {
            snapshot.busy = app.store.busy_slots().await?;
        }
        decision = decide(&snapshot);
        let n_taken: usize = decision.placements.iter().map(|placed| placed.workers.len()).sum();
        if head == HEAD || !snapshot.queue.is_cut || n_taken >= n_free as usize {
            break;
        }
    }
    let Decision { placements, reservation } = decision;
    app.leader.keep(reservation);
    if placements.is_empty() {
        return Ok(0);
    }
    let granted = app.store.grant(&placements).await?;
    app.leader.granted(&granted);
    // What the store refused, such as a gang whose worker has just left, took nobody's place.
    let taken: BTreeSet<&WorkId> = granted.iter().map(|lease| &lease.work).collect();
    let placements: Vec<Placement> =
        placements.into_iter().filter(|placed| taken.contains(&placed.work)).collect();
    app.leader.passed(&placements);
    app.leader.take_turns(&snapshot, granted.iter().map(|lease| &lease.work));
    Ok(granted.len())
}
