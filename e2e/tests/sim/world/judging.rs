//! What the user does in the world, and how the world is judged.

use coordinator::store::read::{ALL_STEPS, CurveQuery, CurveScope, ReadStore as _};
use domain::ids::RunId;
use domain::invariant;

use super::{Happening, World};
use crate::coordinator::{Coordinator, WALL_START_MS};

/// How often it is looked whether everything is over.
const LOOK_MS: u64 = 2_000;

/// After all work is over the workers get so long to notice: a trainer that did not start is tried again
/// after a minute, and a poll stays open for half of one, which does
/// not tell of slots that became free since.
const NOTICE_MS: u64 = 100_000;

impl World {
    /// Lets the user do what is next, at the coordinator that they think leads.
    pub(super) fn user_acts(&mut self) {
        while let Some(request) = self.user.next(self.now_ms) {
            let coordinator = request.coordinator;
            let process = &mut self.coordinators[coordinator];
            process.set_clock(self.now_ms);
            let way = (request.method, request.path.as_str());
            match process.tell(request.deed, way, request.body) {
                Some(task) => self.resume(coordinator, task),
                None => self.user.answered(request.deed, 503, b"", self.now_ms),
            }
        }
        if let Some(at_ms) = self.user.due_ms() {
            let after_ms = at_ms.saturating_sub(self.now_ms).max(1);
            self.after(after_ms, Happening::UserActs);
        }
    }

    /// The rules of the store, on its state as it is.
    pub(super) fn check_invariants(&mut self, coordinator: usize) {
        let Some(app) = self.coordinators[coordinator].app.clone() else { return };
        if !app.store.is_leading() {
            return;
        }
        let Ok(snapshot) = self.runtime.block_on(app.store.snapshot()) else { return };
        for violation in invariant::check(&snapshot) {
            self.history.violate("an invariant holds", violation.to_string());
        }
    }

    fn leader(&self) -> Option<usize> {
        let leads = |index: &usize| {
            let app = self.coordinators[*index].app.as_ref();
            app.is_some_and(|app| app.store.is_leading() && app.leader.has_taken_over())
        };
        (0..self.coordinators.len()).find(leads)
    }

    /// Looks whether everything is over; then it is judged.
    pub(super) fn look(&mut self) {
        self.after(LOOK_MS, Happening::Looks);
        if !self.is_calm || !self.user.is_content() {
            return;
        }
        let Some(leader) = self.leader() else { return };
        let Some(app) = self.coordinators[leader].app.clone() else { return };
        let Ok(snapshot) = self.runtime.block_on(app.store.snapshot()) else { return };
        let is_terminal = |state: &str| domain::run::TERMINAL.contains(&state);
        if snapshot.work.is_empty() || !snapshot.work.iter().all(|work| is_terminal(&work.state)) {
            self.quiet_since_ms = None;
            return;
        }
        let since_ms = *self.quiet_since_ms.get_or_insert(self.now_ms);
        if self.now_ms < since_ms + NOTICE_MS {
            return;
        }
        self.check_invariants(leader);
        self.check_nothing_leaks(leader);
        self.check_runs(leader, &snapshot);
        self.is_over = true;
    }

    /// Every slot is free again, and everybody knows it.
    fn check_nothing_leaks(&mut self, leader: usize) {
        let Some(app) = self.coordinators[leader].app.clone() else { return };
        let n_leases = app.leader.n_leases();
        if n_leases > 0 {
            self.history.violate("nothing leaks", format!("the leader has {n_leases} leases"));
        }
        let n_slots: usize = self.workers.iter().map(crate::worker::Worker::n_slots).sum();
        let n_free: u32 = app.leader.all_seats().iter().map(|seat| seat.n_free_slots).sum();
        if u64::from(n_free) != n_slots as u64 {
            let found = format!("{n_free} of {n_slots} slots: {}", self.describe_unfinished());
            self.history.violate("nothing leaks", found);
        }
        for worker in &self.workers {
            let held = worker.core.as_ref().map_or(Vec::new(), worker::agent::core::Core::tokens);
            if !held.is_empty() {
                let found = format!("worker {} has {held:?}", worker.index);
                self.history
                    .violations
                    .push(crate::history::Violation { rule: "nothing leaks", found });
            }
        }
    }

    fn check_runs(&mut self, leader: usize, snapshot: &invariant::Snapshot) {
        let Some(app) = self.coordinators[leader].app.clone() else { return };
        for attempt in &snapshot.attempts {
            let known = self.history.token_of(&attempt.work, attempt.attempt);
            if known.is_some_and(|token| token != attempt.token) {
                let found = format!("{} #{}", attempt.work, attempt.attempt);
                self.history.violate("a token is one right", found);
            }
            let ended_as = attempt.ended_as.as_deref();
            self.history.check_end(&attempt.work, attempt.attempt, ended_as);
        }
        for work in snapshot.work.iter().filter(|work| work.id.starts_with("r_")) {
            let run: RunId = work.id.parse().expect("a run's identifier");
            let view = self.runtime.block_on(app.store.run_view(&run));
            let view = view.expect("the store reads").expect("the run is there");
            let query = CurveQuery {
                scope: CurveScope::Run(run.clone()),
                series: "train_loss_nats".to_owned(),
                max_points: 10_000,
                steps: ALL_STEPS,
            };
            let curves = self.runtime.block_on(app.store.curves(&query)).expect("the store reads");
            let curve: Vec<(u64, Option<f64>)> = curves
                .curves
                .first()
                .map(|curve| curve.steps.iter().copied().zip(curve.values.clone()).collect())
                .unwrap_or_default();
            let may_be_cancelled = self.user.cancelled.contains(&view.summary.id);
            self.history.check_run(&view, &curve, may_be_cancelled);
            self.check_end_of(&view);
            self.check_terms(&view);
        }
    }

    /// A run has succeeded, unless somebody did not want it to.
    fn check_end_of(&mut self, view: &api::RunView) {
        let state = view.summary.state.as_str();
        let may_be_cancelled = self.user.cancelled.contains(&view.summary.id);
        if state != "succeeded" && !(state == "cancelled" && may_be_cancelled) {
            let found = format!("{} is {state}: {}", view.summary.id, view.summary.message);
            self.history.violate("a run succeeds", found);
        }
    }

    /// Where no clock was set, the store's times are the simulation's.
    fn check_terms(&mut self, view: &api::RunView) {
        if self.coordinators.iter().any(|process| process.wall_skew_ms != 0) {
            return;
        }
        let term_ms = self.scenario.lease_term_ms;
        for attempt in &view.attempts {
            let Some(rank) = expired_rank(&attempt.message) else { continue };
            let token = self.history.token_of_member(&view.summary.id, attempt.attempt, rank);
            let ended_ms = attempt.ended_at_ms.map(|at_ms| at_ms - WALL_START_MS);
            if let (Some(token), Some(ended_ms)) = (token, ended_ms) {
                let ended_ms = u64::try_from(ended_ms).unwrap_or_default();
                self.history.expired(token, ended_ms, term_ms);
            }
        }
    }

    /// What is not over, for people.
    pub(super) fn describe_unfinished(&mut self) -> String {
        let Some(leader) = self.leader() else {
            let states: Vec<String> = self.coordinators.iter().map(Coordinator::describe).collect();
            return format!("nobody leads: {states:?}, reconciling {:?}", self.reconciling);
        };
        let Some(app) = self.coordinators[leader].app.clone() else { return String::new() };
        let Ok(snapshot) = self.runtime.block_on(app.store.snapshot()) else {
            return "the store does not answer".to_owned();
        };
        let is_open =
            |work: &&invariant::Work| !domain::run::TERMINAL.contains(&work.state.as_str());
        let open: Vec<String> = (snapshot.work.iter().filter(is_open))
            .map(|work| {
                format!("{} {} held {} lease {:?}", work.id, work.state, work.is_held, work.lease)
            })
            .collect();
        let seats: Vec<String> = (app.leader.all_seats().iter())
            .map(|seat| format!("{} {:?} free {}", seat.worker, seat.state, seat.n_free_slots))
            .collect();
        let held: Vec<Option<Vec<u64>>> = (self.workers.iter())
            .map(|worker| worker.core.as_ref().map(worker::agent::core::Core::tokens))
            .collect();
        let user = self.user.describe();
        format!("{open:#?}; seats {seats:?}; workers hold {held:?}; the user {user}")
    }
}

/// Whose lease ran out, where an attempt ended so; 0 is the attempt's own.
fn expired_rank(message: &str) -> Option<u32> {
    if message == "its lease ran out" {
        return Some(0);
    }
    let (rank, _) = message.strip_prefix("the lease of rank ")?.split_once(' ')?;
    rank.parse().ok()
}
