//! What was promised and what came of it: everything that a coordinator answered is remembered, and
//! held against what it answers later and against the store at the end.

use std::collections::{BTreeMap, BTreeSet};

use api::RunView;
use domain::attempt::AttemptEnd;
use proto::v1::{self, assignment, event};

use crate::disk::{Chain, Course, REMOVED};

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which rule, for counting.
    pub(crate) rule: &'static str,
    /// What was seen.
    pub(crate) found: String,
}

/// A right as it was handed over.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Right {
    work: String,
    attempt: u32,
    rank: u32,
    worker: usize,
    handed_over_ms: u64,
}

/// A fact that was acknowledged: it must be found in the store at the end.
#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Fact {
    Point { step: u64, loss: f64 },
    Checkpoint { step: u64 },
    Refusal { manifest_key: String },
    Result { value: f64 },
}

/// Everything that was answered.
#[derive(Debug, Default)]
pub(crate) struct History {
    rights: BTreeMap<u64, Right>,
    newest: BTreeMap<String, u64>,
    facts: BTreeMap<(String, u32), Vec<Fact>>,
    ends: BTreeMap<u64, AttemptEnd>,
    /// The configuration of each run.
    pub(crate) configs: BTreeMap<String, String>,
    /// Per run, the steps of checkpoints that were acknowledged and not refused since.
    checkpoints: BTreeMap<String, BTreeMap<String, u64>>,
    /// Per manifest, the attempt that first found its checkpoint damaged.
    doubts: BTreeMap<String, (String, u32)>,
    renewed_ms: BTreeMap<u64, u64>,
    pub(crate) violations: Vec<Violation>,
    pub(crate) n_accepted: u64,
    pub(crate) n_stale: u64,
}

impl History {
    pub(crate) fn violate(&mut self, rule: &'static str, found: String) {
        self.violations.push(Violation { rule, found });
    }

    /// An assignment was handed over.
    pub(crate) fn assigned(&mut self, given: &v1::Assignment, worker: usize, now_ms: u64) {
        let token = given.lease_token;
        let right = Right {
            work: given.work_id.clone(),
            attempt: given.attempt,
            rank: given.rank,
            worker,
            handed_over_ms: now_ms,
        };
        if let Some(known) = self.rights.get(&token) {
            let is_same = (&known.work, known.attempt, known.worker)
                == (&right.work, right.attempt, right.worker);
            if !is_same {
                let found = format!("{token}: {known:?}, then {right:?}");
                self.violate("a token is one right", found);
            }
        } else {
            let newest = self.newest.entry(right.work.clone()).or_default();
            *newest = (*newest).max(token);
            self.rights.insert(token, right);
        }
        if let Some(assignment::Work::Train(train)) = &given.work {
            self.configs.insert(given.work_id.clone(), train.config_json.clone());
            self.check_checkpoints(given, train);
        }
    }

    /// A run goes on where it was.
    fn check_checkpoints(&mut self, given: &v1::Assignment, train: &v1::Train) {
        let offered = train.checkpoints.first().map_or(0, |checkpoint| checkpoint.step);
        let known = self.checkpoints.get(&given.work_id);
        let newest = known.and_then(|known| known.values().max().copied()).unwrap_or(0);
        if offered < newest {
            let found = format!("{}: offered step {offered}, has {newest}", given.work_id);
            self.violate("a run goes on from its newest checkpoint", found);
        }
    }

    /// A heartbeat was answered.
    pub(crate) fn renewed(
        &mut self,
        asked: &v1::HeartbeatRequest,
        answer: &v1::HeartbeatResponse,
        term_ms: u64,
        now_ms: u64,
    ) {
        for token in &asked.lease_tokens {
            if answer.stale_lease_tokens.contains(token) {
                continue;
            }
            self.renewed_ms.insert(*token, now_ms);
            let Some(right) = self.rights.get(token) else { continue };
            let newer = self.newest.get(&right.work).and_then(|newest| self.rights.get(newest));
            if let Some(newer) = newer
                && newer.attempt > right.attempt
                && newer.handed_over_ms + term_ms < now_ms
            {
                let found = format!("{token} of {}, superseded since a term", right.work);
                self.violate("a dead lease is not renewed", found);
            }
        }
    }

    /// A report was answered that arrived at `arrived_ms`, when its right `was_over` in the store.
    pub(crate) fn reported(
        &mut self,
        asked: &v1::ReportRequest,
        is_stale: bool,
        was_over: bool,
        arrived_ms: u64,
    ) {
        if is_stale {
            self.n_stale += 1;
            return;
        }
        self.n_accepted += 1;
        self.renewed_ms.insert(asked.lease_token, arrived_ms);
        let Some(right) = self.rights.get(&asked.lease_token).cloned() else { return };
        if was_over {
            let found = format!("a report under {} of {}", asked.lease_token, right.work);
            self.violate("a dead lease writes nothing", found);
        }
        for event in &asked.events {
            let fact = match &event.kind {
                Some(event::Kind::Point(point)) => {
                    let loss = point.values.get("train_loss_nats").copied().unwrap_or_default();
                    Fact::Point { step: point.step, loss }
                }
                Some(event::Kind::Checkpoint(checkpoint)) => {
                    let key = checkpoint.manifest.as_ref().map(|m| m.key.clone());
                    let known = self.checkpoints.entry(right.work.clone()).or_default();
                    known.insert(key.unwrap_or_default(), checkpoint.step);
                    Fact::Checkpoint { step: checkpoint.step }
                }
                Some(event::Kind::CheckpointRefused(refused)) => {
                    if refused.reason.ends_with(REMOVED) {
                        let found = format!("{}: {}", right.work, refused.reason);
                        self.violate("what is offered is there", found);
                    }
                    let key = refused.manifest_key.clone();
                    let who = (right.work.clone(), right.attempt);
                    if *self.doubts.entry(key).or_insert_with(|| who.clone()) == who {
                        continue;
                    }
                    // It may be that of the run whose trunk this one shares.
                    for known in self.checkpoints.values_mut() {
                        known.remove(&refused.manifest_key);
                    }
                    Fact::Refusal { manifest_key: refused.manifest_key.clone() }
                }
                Some(event::Kind::Evaluation(result)) => Fact::Result { value: result.value },
                _ => continue,
            };
            self.facts.entry((right.work.clone(), right.attempt)).or_default().push(fact);
        }
    }

    /// An end was answered. `over_as` is how the store had ended the right when it arrived: the same
    /// end twice is answered alike, also when nobody heard the first answer.
    pub(crate) fn finished(
        &mut self,
        asked: &v1::FinishRequest,
        is_stale: bool,
        over_as: Option<&str>,
    ) {
        if is_stale {
            self.n_stale += 1;
            return;
        }
        self.n_accepted += 1;
        if over_as.is_some_and(|over_as| over_as != asked.end) {
            let found = format!("{} under {}, over as {over_as:?}", asked.end, asked.lease_token);
            self.violate("a dead lease writes nothing", found);
        }
        if let Some(end) = AttemptEnd::from_label(&asked.end) {
            self.ends.insert(asked.lease_token, end);
        }
    }

    /// Attempts whose lease ran out although it had been renewed within the term. `ended` holds the
    /// token and when the store recorded the end.
    pub(crate) fn expired(&mut self, token: u64, ended_ms: u64, term_ms: u64) {
        let Some(renewed_ms) = self.renewed_ms.get(&token).copied() else { return };
        if renewed_ms <= ended_ms && ended_ms < renewed_ms + term_ms {
            let found = format!("{token}: renewed at {renewed_ms}, ended at {ended_ms}");
            self.violate("a lease lives for a term", found);
        }
    }

    /// The run that a right is for, if it is for one.
    pub(crate) fn run_of(&self, token: u64) -> Option<&str> {
        let work = &self.rights.get(&token)?.work;
        work.starts_with("r_").then_some(work)
    }

    /// The token of an attempt.
    pub(crate) fn token_of(&self, work: &str, attempt: u32) -> Option<u64> {
        self.token_of_member(work, attempt, 0)
    }

    /// The token of a member of a gang; rank 0's is the attempt's.
    pub(crate) fn token_of_member(&self, work: &str, attempt: u32, rank: u32) -> Option<u64> {
        let is_it =
            |right: &Right| (&*right.work, right.attempt, right.rank) == (work, attempt, rank);
        self.rights.iter().find(|(_, right)| is_it(right)).map(|(token, _)| *token)
    }

    /// Holds the promises against a run as it is in the end. `points` are all points of its loss by
    /// step and attempt as far as they are the current truth.
    pub(crate) fn check_run(
        &mut self,
        view: &RunView,
        curve: &[(u64, Option<f64>)],
        may_be_cancelled: bool,
    ) {
        let id = view.summary.id.clone();
        for attempt in &view.attempts {
            self.check_facts(&id, attempt.attempt, view);
        }
        if view.summary.state == "succeeded" {
            self.check_truth(&id, view, curve);
            self.check_measured(&id, view, may_be_cancelled);
        }
    }

    /// What was acknowledged as an attempt's end is its end.
    pub(crate) fn check_end(&mut self, work: &str, attempt: u32, ended_as: Option<&str>) {
        let Some(token) = self.token_of(work, attempt) else { return };
        if let Some(end) = self.ends.get(&token)
            && ended_as != Some(end.label())
        {
            let found = format!("{work} #{attempt}: said {}, is {ended_as:?}", end.label());
            self.violate("what is acknowledged is kept", found);
        }
    }

    fn check_facts(&mut self, work: &str, attempt: u32, view: &RunView) {
        let facts = self.facts.get(&(work.to_owned(), attempt)).cloned().unwrap_or_default();
        for fact in facts {
            let is_kept = match &fact {
                Fact::Checkpoint { step } => {
                    view.checkpoints.iter().any(|c| c.step == *step && c.attempt == attempt)
                }
                // One of the trunk's is with the run that left it.
                Fact::Refusal { manifest_key }
                    if !manifest_key.starts_with(&format!("runs/{work}/")) =>
                {
                    true
                }
                Fact::Refusal { manifest_key } => {
                    let is_refused = |c: &api::CheckpointView| c.refused_reason.is_some();
                    view.checkpoints
                        .iter()
                        .any(|c| c.manifest_key == *manifest_key && is_refused(c))
                }
                // Points are held against the truth, results against the evaluations.
                Fact::Point { .. } | Fact::Result { .. } => true,
            };
            if !is_kept {
                let found = format!("{work} #{attempt}: {fact:?}");
                self.violate("what is acknowledged is kept", found);
            }
        }
    }

    /// A run that has succeeded looks as if nothing had ever gone wrong.
    fn check_truth(&mut self, id: &str, view: &RunView, curve: &[(u64, Option<f64>)]) {
        let Some(config) = self.configs.get(id).cloned() else { return };
        let course = Course::of(&config);
        let mut chain = course.start();
        let mut truth = Vec::new();
        // The steps of a trunk that another run trained may be that run's alone.
        let n_shared = view.continues.as_ref().map_or(0, |continues| continues.step);
        let curve_of: BTreeMap<u64, Option<f64>> = curve.iter().copied().collect();
        for step in 1..=view.summary.steps {
            chain = course.next(chain);
            if step > n_shared || curve_of.contains_key(&step) {
                truth.push((chain.step, Some(chain.loss())));
            }
        }
        if curve != truth {
            let wrong = truth.iter().zip(curve).find(|(a, b)| a != b);
            let attempt = |one: &api::AttemptView| {
                (one.attempt, one.granted_at_ms, one.resumed_from_step, one.ended_as.clone())
            };
            let attempts: Vec<_> = view.attempts.iter().map(attempt).collect();
            let kept: Vec<_> = view.checkpoints.iter().map(|c| (c.attempt, c.step)).collect();
            let found = format!(
                "{id}: {} of {} steps, {wrong:?}; attempts {attempts:?}, checkpoints {kept:?}",
                curve.len(),
                truth.len()
            );
            self.violate("a curve is that of an undisturbed run", found);
        }
        let is_last = |c: &&api::CheckpointView| c.step == chain.step && c.is_data_point;
        let weights = view.checkpoints.iter().rfind(is_last).map(|c| c.weights_hash.clone());
        if weights != Some(chain.hash().to_string()) {
            self.violate("weights are those of an undisturbed run", format!("{id}: {weights:?}"));
        }
    }

    /// Every data point has its value, unless somebody did not want it measured.
    fn check_measured(&mut self, id: &str, view: &RunView, may_be_cancelled: bool) {
        let Some(config) = self.configs.get(id) else { return };
        let course = Course::of(config);
        let chains = std::iter::successors(Some(course.start()), |chain| Some(course.next(*chain)));
        let measured: Vec<f64> = chains
            .take(usize::try_from(view.summary.steps).expect("few") + 1)
            .map(Chain::measured)
            .collect();
        let points: BTreeSet<u64> =
            view.checkpoints.iter().filter(|c| c.is_data_point).map(|c| c.step).collect();
        for step in points {
            let of_step: Vec<_> = view.evaluations.iter().filter(|e| e.step == step).collect();
            let values: Vec<Option<f64>> = of_step.iter().map(|e| e.value).collect();
            let truth = measured[usize::try_from(step).expect("few")];
            let is_right = of_step
                .iter()
                .all(|e| e.value == Some(truth) || may_be_cancelled && e.state == "cancelled");
            if values.is_empty() || !is_right {
                let states: Vec<&str> = of_step.iter().map(|e| e.state.as_str()).collect();
                let found = format!("{id} at {step}: {values:?} {states:?}");
                self.violate("every data point is measured", found);
            }
        }
    }
}
