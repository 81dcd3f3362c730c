//! Many pieces of work move on because somebody asked, in few statements: a study may have a million.
//!
//! What becomes of each is the domain's and asked piece by piece; only the reading and the writing
//! are shared. What ends a lease or moves others on goes the way of `work`.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use domain::ids::{RunId, WorkId};
use domain::run::{Effect, RunEvent, RunState, Transition, Tries};

use super::convert::unsigned;
use super::database::{query_with_list, query_with_rows};
use super::error::from_driver;
use super::trunks;
use super::work::{WorkRow, advance_row, detail_of, kind_of};
use super::writer::Tx;
use crate::store::{Changed, StoreError};

/// Rows in one statement: far below the databases' limits.
pub(super) const AT_ONCE: usize = 128;

/// What somebody asks of many pieces of work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Cancel,
    /// With a new budget.
    Retry,
}

impl Asked {
    fn event(self) -> RunEvent {
        match self {
            Self::Cancel => RunEvent::CancelRequested,
            Self::Retry => RunEvent::RetryRequested,
        }
    }
}

/// Moves all of it on, none of which may be what other work here depends on. What is there already
/// stays.
pub(super) async fn ask(
    tx: &mut Tx,
    works: &[WorkId],
    asked: Asked,
    changed: &mut Changed,
) -> Result<(), StoreError> {
    let mut moved: Vec<&RunId> = Vec::new();
    for works in works.chunks(AT_ONCE) {
        let rows = WorkRow::load_many(tx, &works.iter().collect::<Vec<_>>()).await?;
        let needed = match asked {
            Asked::Cancel => BTreeSet::new(),
            Asked::Retry => prepared(tx, &rows).await?,
        };
        let mut alike: BTreeMap<&'static str, (RunState, Vec<&WorkId>)> = BTreeMap::new();
        for work in works {
            let row = rows
                .get(work.as_str())
                .ok_or_else(|| StoreError::NotFound { kind: work.kind(), id: work.to_string() })?;
            match alone(tx, work, row, asked)? {
                Some(state) => {
                    let is_there = row.depends_on().is_none_or(|id| needed.contains(id));
                    let state = match state {
                        RunState::Queued if !is_there => RunState::Waiting,
                        state => state,
                    };
                    alike.entry(state.label()).or_insert((state, Vec::new())).1.push(work);
                }
                None => {
                    advance_row(tx, work, row, asked.event(), changed).await?;
                }
            }
        }
        for (state, works) in alike.into_values() {
            write(tx, &works, &state, asked).await?;
            for work in works {
                let detail = detail_of(&asked.event());
                tx.record(work.as_str(), &kind_of(work, &state), &detail);
                changed.work.push((work.clone(), state.clone()));
                moved.extend(match work {
                    WorkId::Run(run) => Some(run),
                    WorkId::Evaluation(_) | WorkId::Preparation(_) => None,
                });
            }
        }
        tx.spill_events().await?;
    }
    // When all have moved: most of those that share a trunk are asked the same.
    match asked {
        Asked::Cancel => trunks::settle_branches(tx, &moved, changed).await,
        Asked::Retry => {
            let moved: Vec<RunId> = moved.into_iter().cloned().collect();
            trunks::settle(tx, &moved, changed).await
        }
    }
}

/// What the work becomes if nothing but its own row changes; nothing where more does, or nothing.
fn alone(
    tx: &Tx,
    work: &WorkId,
    row: &WorkRow,
    asked: Asked,
) -> Result<Option<RunState>, StoreError> {
    let transition = row
        .state()?
        .on(asked.event(), Tries::none(unsigned(tx.now_ms)))
        .map_err(|source| StoreError::Transition { work: work.to_string(), source })?;
    let Transition::To { state, effects, charge: _ } = transition else { return Ok(None) };
    // Only preparations are depended on.
    let has_dependents = matches!(work, WorkId::Preparation(_));
    let is_alone = effects.iter().all(|effect| match effect {
        Effect::ReleaseDependents | Effect::FailDependents | Effect::HoldBackDependents => {
            !has_dependents
        }
        Effect::RevokeLease { .. } => false,
    });
    Ok(is_alone.then_some(state))
}

/// Of what the rows depend on, that which is there.
async fn prepared(
    tx: &mut Tx,
    rows: &HashMap<String, WorkRow>,
) -> Result<BTreeSet<String>, StoreError> {
    let needed: BTreeSet<&str> = rows.values().filter_map(WorkRow::depends_on).collect();
    if needed.is_empty() {
        return Ok(BTreeSet::new());
    }
    let head = "SELECT id FROM work WHERE state = 'succeeded' AND id IN";
    let mut query = query_with_list::<(String,)>(head, needed.len());
    for id in needed {
        query = query.bind(id);
    }
    let found = query.fetch_all(&mut tx.conn).await.map_err(from_driver)?;
    Ok(found.into_iter().map(|(id,)| id).collect())
}

async fn write(
    tx: &mut Tx,
    works: &[&WorkId],
    state: &RunState,
    asked: Asked,
) -> Result<(), StoreError> {
    // Whoever asks for a retry gives a fresh start.
    let fresh = match asked {
        Asked::Cancel => "",
        Asked::Retry => {
            ", n_failures = 0, n_losses = 0, failures_json = '{}', excluded_json = '{}'"
        }
    };
    let head = format!(
        "UPDATE work
SET state = ?, backoff_until_ms = NULL, failed_end = NULL, updated_at_ms = ?{fresh}
WHERE state <> 'leased' AND id IN"
    );
    let mut update = query_with_rows(&head, (1, works.len()), "");
    update = update.bind(state.label()).bind(tx.now_ms);
    for work in works {
        update = update.bind(work.as_str());
    }
    let written = update.execute(&mut tx.conn).await.map_err(from_driver)?;
    if written.rows_affected() == works.len() as u64 {
        Ok(())
    } else {
        Err(StoreError::Bug("work changed inside a transaction of the one writer".to_owned()))
    }
}
