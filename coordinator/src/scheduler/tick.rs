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
use crate::leader::{NextPage, Seats};
use crate::store::{Store as _, StoreError};

/// How much of the queue one tick looks at where that is needed: so many preparations, so many
/// evaluations and runs of each study, and fewer where there are many studies. A study of any size
/// hides no other.
const HEAD: u32 = 512;

/// It looks at so much first, and at twice as much as there are free slots: more is needed only
/// where what goes first fits nowhere.
const SHORT_HEAD: u32 = 32;

/// Where free slots are left and nothing of that goes there, it reads on by so many such pieces at a
/// time, and from where it ended by the next look: what nobody free may take, however much it is,
/// keeps no slot empty for good.
const PAGES_AT_ONCE: u32 = 4;

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
    // Before the slots are read: one that becomes free after that asks for a further look.
    app.leader.begin_look();
    let Seats { free, live, silent } = app.leader.seats();
    if free.is_empty() {
        return Ok(0);
    }
    let mut snapshot = Snapshot {
        free,
        live,
        silent,
        turns: app.leader.turns(),
        user_weights: app.config.user_weights.clone(),
        let_pass: app.leader.let_pass(),
        ..Snapshot::default()
    };
    let Decision { placements, reservation } = look(app, &mut snapshot).await?;
    app.leader.keep(reservation);
    app.leader.end_look(snapshot.queue.is_cut || !snapshot.queue.work.is_empty());
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

/// Looks at as much of the queue as it takes to fill the free slots, within bounds.
async fn look(app: &App, snapshot: &mut Snapshot) -> Result<Decision, StoreError> {
    // Runs that fit nowhere must not hide the shorter ones behind them.
    let machines: Vec<Machine> = snapshot.live.iter().map(|(_, machine)| machine.clone()).collect();
    let n_free = snapshot.free.iter().map(|seat| seat.n_free_slots).fold(0, u32::saturating_add);
    let mut head = n_free.saturating_mul(2).clamp(SHORT_HEAD, HEAD);
    loop {
        snapshot.queue = app.store.queue_head(head, Some(&machines)).await?;
        let decision = decide_on(app, snapshot).await?;
        if !snapshot.queue.is_cut || n_taken(&decision) >= n_free as usize {
            return Ok(decision);
        }
        if head == HEAD {
            return read_on(app, snapshot, decision).await;
        }
        head = HEAD;
    }
}

/// Looks behind the head, of which some slots are left.
async fn read_on(
    app: &App,
    snapshot: &mut Snapshot,
    decision: Decision,
) -> Result<Decision, StoreError> {
    let Some(first) = app.leader.page_to_read() else { return Ok(decision) };
    let mut has_more = false;
    for page in (first..).take(PAGES_AT_ONCE as usize) {
        let more = app.store.queue_page(HEAD, page).await?;
        has_more |= snapshot.read_on(more);
        if !snapshot.queue.is_cut {
            break;
        }
    }
    let n_before = n_taken(&decision);
    let decision = if has_more { decide_on(app, snapshot).await? } else { decision };
    let next = if n_taken(&decision) > n_before {
        // There may be more of it.
        NextPage::Now(first)
    } else if snapshot.queue.is_cut {
        NextPage::Soon(first.saturating_add(PAGES_AT_ONCE))
    } else {
        NextPage::Soon(0)
    };
    app.leader.read_pages(next);
    Ok(decision)
}

async fn decide_on(app: &App, snapshot: &mut Snapshot) -> Result<Decision, StoreError> {
    if snapshot.has_gangs() {
        snapshot.busy = app.store.busy_slots().await?;
    }
    Ok(decide(snapshot))
}

fn n_taken(decision: &Decision) -> usize {
    decision.placements.iter().map(|placed| placed.workers.len()).sum()
}
