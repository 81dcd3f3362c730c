//! From what the store holds to what is fitted: the usable runs of each group with their points,
//! and everything that was left out, with its reason.
//! It fits nothing. Equal values here give equal reports, so this is what `inputs_hash` is of.

use std::collections::{BTreeMap, BTreeSet};

use api::{DroppedPoint, ExcludedRun, MissingRun};
use domain::attempt::AttemptEnd;
use domain::ids::{ContentHash, RunId};
use domain::run::TERMINAL;
use domain::spec::{EvaluationTask, FitSpec, FlopKind, HoldOut, ParameterKind};
use scaling::observation::{Dataset, Observation, ObservationError, RunKey, SAME_COMPUTE};
use serde::{Deserialize, Serialize};

use super::alike;
use crate::store::read::{FitEvaluation, FitInputs, FitRun, FitUnmeasured};

/// Grows whenever the same observations would give another report, so that stored ones are made
/// anew.
pub(super) const REPORT_VERSION: u32 = 16;

/// The name of the only group when there is no `group_by`.
const UNGROUPED: &str = "all";

/// The measurement that the laws are about.
const LOSS: EvaluationTask = EvaluationTask::ValidationLoss;

/// Planned budgets are numbers of the study file, equal but for the last digits.
const SAME_BUDGET: f64 = 1.0 - 1e-6;

/// The longest part of an attempt's message in a reason, in characters.
const MAX_MESSAGE_CHARS: usize = 160;

/// A study as the fits see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Observed {
    pub(super) version: u32,
    pub(super) study: String,
    pub(super) spec: FitSpec,
    /// What L is.
    pub(super) loss: String,
    /// In the order of the cells.
    pub(super) groups: Vec<Group>,
    pub(super) excluded: Vec<ExcludedRun>,
    /// Runs of the study.
    pub(super) n_runs: usize,
    /// Of these, those that are not over, in the order of the cells.
    pub(super) missing: Vec<MissingRun>,
    /// Whether an evaluation is not over.
    pub(super) has_open_evaluations: bool,
}

/// The runs with one value of the `group_by` axis.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Group {
    pub(super) name: String,
    /// Those with a usable measurement, in the order of the cells.
    pub(super) runs: Vec<Run>,
    /// Measurements that no fit can use, and those that are missing for good.
    pub(super) dropped: Vec<DroppedPoint>,
    /// The warnings `mixed` of axes in which runs of one place differ.
    #[serde(default)]
    pub(super) mixed: Vec<String>,
    /// N of the size that is only predicted.
    pub(super) held_out_parameters: Option<u64>,
    /// What the runs that are only predicted have at least.
    held_out_compute: Option<LeastCompute>,
}

/// Where the runs of the most compute begin.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
enum LeastCompute {
    /// At a planned budget, where every run of the group has one.
    Budget(f64),
    /// At C.
    Flops(f64),
}

/// A run with at least one usable measurement.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Run {
    /// Its place among the runs of the study.
    key: u32,
    pub(super) id: String,
    pub(super) name: String,
    /// N of the kind that the study fits.
    pub(super) parameters: u64,
    pub(super) parameters_non_embedding: u64,
    pub(super) is_over: bool,
    pub(super) is_held_out: bool,
    pub(super) budget_flops: Option<f64>,
    /// The first run of those that share its trunk, where others do.
    #[serde(default)]
    trunk: Option<u32>,
    steps: u64,
    warmup_steps: u64,
    is_decaying: bool,
    /// Tokens of the training split.
    #[serde(default)]
    training_tokens: Option<u64>,
    flops_exact: f64,
    /// By step; never empty.
    pub(super) points: Vec<Point>,
}

/// One usable measurement.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Point {
    pub(super) step: u64,
    /// D.
    pub(super) tokens: f64,
    /// C of the kind that the study fits.
    pub(super) flops: f64,
    /// L.
    pub(super) loss_nats: f64,
}

impl Observed {
    /// Sorts the runs of a study into groups, points and reasons.
    pub(super) fn new(inputs: &FitInputs) -> Result<Self, serde_json::Error> {
        let spec: FitSpec = serde_json::from_str(&inputs.fit_spec_json)?;
        let mut observed = Self {
            version: REPORT_VERSION,
            study: inputs.study.clone(),
            loss: format!("{}_nats", LOSS.label()),
            groups: Vec::new(),
            excluded: Vec::new(),
            n_runs: inputs.runs.iter().map(|run| &run.run_id).collect::<BTreeSet<_>>().len(),
            missing: Vec::new(),
            has_open_evaluations: inputs.n_open_evaluations > 0,
            spec,
        };
        let mut open = BTreeSet::new();
        let still_open = inputs.runs.iter().filter(|run| !is_over(run));
        let each_once = still_open.filter(|run| open.insert(run.run_id.clone()));
        observed.missing = each_once.map(missing_run).collect();
        observed.hold_out(&inputs.runs);
        let mut by_run: BTreeMap<&RunId, Vec<&FitEvaluation>> = BTreeMap::new();
        for one in inputs.evaluations.iter().filter(|one| one.task == LOSS.label()) {
            by_run.entry(&one.run_id).or_default().push(one);
        }
        let trunks = shared_trunks(&inputs.runs);
        // A run that several cells have is fitted once in each group of theirs.
        let mut placed = BTreeSet::new();
        for (key, run) in (0..).zip(&inputs.runs) {
            if !placed.insert((&run.run_id, observed.group_name(run))) {
                continue;
            }
            let trunk = run.trunk.as_ref().and_then(|hash| trunks.get(hash)).copied();
            let evaluations = by_run.get(&run.run_id).map_or(&[][..], Vec::as_slice);
            let missing = missing(run, evaluations, &inputs.unmeasured);
            observed.take((key, trunk), run, evaluations, missing);
        }
        for index in 0..observed.groups.len() {
            let fitted = observed.groups[index].fitted().map(|run| run.key as usize);
            let runs: Vec<&FitRun> = fitted.map(|key| &inputs.runs[key]).collect();
            observed.groups[index].mixed = alike::mixed_axes(&runs, &observed.spec);
        }
        Ok(observed)
    }

    /// Makes the groups and says which runs of each are only predicted.
    ///
    /// The plan decides and not the outcome: a largest size that diverged is not replaced by the
    /// next, for then the data would choose what they are tested on.
    fn hold_out(&mut self, runs: &[FitRun]) {
        for run in runs {
            let name = self.group_name(run);
            let parameters = self.parameters(run);
            let place = self.groups.iter().position(|group| group.name == name);
            let place = place.unwrap_or_else(|| {
                let (runs, dropped, mixed) = (Vec::new(), Vec::new(), Vec::new());
                self.groups.push(Group {
                    name,
                    runs,
                    dropped,
                    mixed,
                    held_out_parameters: None,
                    held_out_compute: None,
                });
                self.groups.len() - 1
            });
            if self.spec.hold_out == HoldOut::LargestSize {
                let largest = &mut self.groups[place].held_out_parameters;
                *largest = Some(largest.map_or(parameters, |known| known.max(parameters)));
            }
        }
        if self.spec.hold_out == HoldOut::LargestCompute {
            for place in 0..self.groups.len() {
                let name = &self.groups[place].name;
                let own = runs.iter().filter(|run| self.group_name(run) == *name);
                let least = self.largest_compute(&own.collect::<Vec<_>>());
                self.groups[place].held_out_compute = Some(least);
            }
        }
    }

    /// Where the most compute of these runs begins: by what was planned where all say so, for what
    /// was spent differs by the rounding to whole steps.
    fn largest_compute(&self, runs: &[&FitRun]) -> LeastCompute {
        let largest = |all: Vec<f64>| all.into_iter().fold(0.0, f64::max);
        let planned: Option<Vec<f64>> = runs.iter().map(|run| run.budget_flops).collect();
        if let Some(budgets) = planned {
            return LeastCompute::Budget(SAME_BUDGET * largest(budgets));
        }
        let spent = runs.iter().map(|run| self.flops(run)).collect();
        LeastCompute::Flops(SAME_COMPUTE * largest(spent))
    }

    fn group_name(&self, run: &FitRun) -> String {
        match &self.spec.group_by {
            None => UNGROUPED.to_owned(),
            Some(axis) => {
                run.axis_values.get(axis).cloned().unwrap_or_else(|| format!("no {axis}"))
            }
        }
    }

    fn parameters(&self, run: &FitRun) -> u64 {
        match self.spec.parameters {
            ParameterKind::NonEmbedding => run.parameters_non_embedding,
            ParameterKind::Total => run.parameters_total,
        }
    }

    /// C of a whole run.
    fn flops(&self, run: &FitRun) -> f64 {
        match self.spec.flops {
            FlopKind::Exact => run.flops_exact,
            FlopKind::Published => run.flops_published,
        }
    }

    /// Puts one run where it belongs: into its group, or among the excluded.
    fn take(
        &mut self,
        (key, trunk): (u32, Option<u32>),
        run: &FitRun,
        evaluations: &[&FitEvaluation],
        mut missing: Vec<DroppedPoint>,
    ) {
        if let Some(reason) = why_excluded(run) {
            self.exclude(run, reason);
            return;
        }
        let flops = self.flops(run);
        let parameters = self.parameters(run);
        let (mut points, mut dropped) = (Vec::new(), Vec::new());
        for evaluation in evaluations {
            let point = point(run, flops, evaluation);
            match why_dropped(parameters, &point) {
                None => points.push(point),
                Some(reason) => dropped.push(DroppedPoint {
                    what: format!("`{}` at step {}", run.name, evaluation.step),
                    reason,
                }),
            }
        }
        let name = self.group_name(run);
        if let Some(group) = self.groups.iter_mut().find(|group| group.name == name) {
            group.dropped.append(&mut dropped);
            if !points.is_empty() {
                group.dropped.append(&mut missing);
                group.runs.push(Run {
                    key,
                    id: run.run_id.to_string(),
                    name: run.name.clone(),
                    parameters,
                    parameters_non_embedding: run.parameters_non_embedding,
                    is_over: is_over(run),
                    is_held_out: group.held_out_parameters == Some(parameters)
                        || group.held_out_compute.is_some_and(|least| match least {
                            LeastCompute::Budget(least) => {
                                run.budget_flops.is_some_and(|budget| budget >= least)
                            }
                            LeastCompute::Flops(least) => flops >= least,
                        }),
                    budget_flops: run.budget_flops,
                    trunk,
                    steps: run.steps,
                    warmup_steps: run.warmup_steps,
                    is_decaying: run.is_decaying,
                    training_tokens: run.training_tokens,
                    flops_exact: run.flops_exact,
                    points,
                });
                return;
            }
        }
        let reason = match (is_over(run), missing.last()) {
            (true, Some(last)) => {
                format!("no checkpoint has a usable loss; {}: {}", last.what, last.reason)
            }
            (true, None) => "no checkpoint has a usable loss".to_owned(),
            (false, _) => "not finished: no checkpoint has a usable loss yet".to_owned(),
        };
        self.exclude(run, reason);
    }

    fn exclude(&mut self, run: &FitRun, reason: String) {
        let (run_id, name) = (run.run_id.to_string(), run.name.clone());
        self.excluded.push(ExcludedRun { run_id, name, reason });
    }

    /// Whether a run or an evaluation is not over.
    pub(super) fn is_provisional(&self) -> bool {
        !self.missing.is_empty() || self.has_open_evaluations
    }

    /// Every usable run.
    pub(super) fn runs(&self) -> impl Iterator<Item = &Run> {
        self.groups.iter().flat_map(|group| &group.runs)
    }
}

impl Group {
    /// The runs that may be fitted.
    pub(super) fn fitted(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| !run.is_held_out)
    }

    /// The runs that are only predicted.
    pub(super) fn held_out(&self) -> impl Iterator<Item = &Run> {
        self.runs.iter().filter(|run| run.is_held_out)
    }

    /// Of these, those whose loss at their end is measured: an earlier one is no result of them.
    pub(super) fn compared(&self) -> impl Iterator<Item = &Run> {
        self.held_out().filter(|run| run.is_measured_to_the_end())
    }

    /// All points of the runs that may be fitted.
    pub(super) fn dataset(&self) -> Result<Dataset, ObservationError> {
        let of_run = |run: &Run| -> Vec<Observation> {
            run.points.iter().map(|point| run.observation(point)).collect()
        };
        self.clustered(&self.fitted().flat_map(of_run).collect::<Vec<_>>())
    }

    /// These points of its runs, those of one trunk to be drawn together.
    pub(super) fn clustered(&self, points: &[Observation]) -> Result<Dataset, ObservationError> {
        let trunks: BTreeMap<u32, u32> =
            self.runs.iter().filter_map(|run| Some((run.key, run.trunk?))).collect();
        // A trunk has the key of a run of its own, so that it is no other run's.
        let cluster = |point: &Observation| *trunks.get(&point.run.0).unwrap_or(&point.run.0);
        Dataset::new(points)?.clustered(cluster)
    }

    /// The name of the first usable run with this run's trunk, where runs share one.
    pub(super) fn trunk_of(&self, run: &Run) -> Option<String> {
        run.trunk?;
        let first = self.runs.iter().find(|other| other.trunk == run.trunk);
        first.map(|first| first.name.clone())
    }

    /// Whether a held-out run has the trunk of a fitted one.
    pub(super) fn shares_trunk(&self, held_out: &Run) -> bool {
        held_out.trunk.is_some() && self.fitted().any(|run| run.trunk == held_out.trunk)
    }

    /// The usable run with this key.
    pub(super) fn run(&self, key: RunKey) -> Option<&Run> {
        self.runs.iter().find(|run| run.key == key.0)
    }

    /// Why there is nothing to fit at all, if so.
    pub(super) fn why_empty(&self) -> Option<String> {
        if self.fitted().next().is_some() {
            return None;
        }
        Some(if self.held_out().next().is_some() {
            "every run with a measured loss is held out".to_owned()
        } else {
            "no run has a measured loss".to_owned()
        })
    }
}

impl Run {
    /// How often its last point has read the training split.
    pub(super) fn epochs(&self) -> Option<f64> {
        Some(self.last().tokens / self.training_tokens.filter(|n| *n > 0)? as f64)
    }

    /// Its last measurement.
    pub(super) fn last(&self) -> &Point {
        self.points.last().expect("a run without points is excluded")
    }

    /// Whether a measurement was made on the way down of its learning rate, or before it, and is thus
    /// no end of a run.
    pub(super) fn is_on_the_way(&self, point: &Point) -> bool {
        self.is_decaying && point.step < self.steps
    }

    /// Whether a measurement was made while the learning rate still rose.
    pub(super) fn is_in_warm_up(&self, point: &Point) -> bool {
        point.step < self.warmup_steps
    }

    /// Whether its last measurement is of its last step.
    pub(super) fn is_measured_to_the_end(&self) -> bool {
        self.last().step == self.steps
    }

    /// A point as `scaling` takes it.
    pub(super) fn observation(&self, point: &Point) -> Observation {
        Observation {
            run: RunKey(self.key),
            parameters: self.parameters as f64,
            tokens: point.tokens,
            flops: point.flops,
            loss_nats: point.loss_nats,
            // The seed of training is part of the run's identity; the arithmetic does not use it.
            seed: 0,
        }
    }

    /// Its end as a point of an isoFLOP profile: at the budget that it was planned for, which is of
    /// exact FLOPs, whatever C the study fits. Its own C is off by the rounding to whole steps, and
    /// would be nearer to another budget where two lie close together.
    pub(super) fn end_on_budget(&self) -> Observation {
        let flops = self.budget_flops.unwrap_or(self.flops_exact);
        Observation { flops, ..self.observation(self.last()) }
    }
}

/// Of each trunk that several runs have, the key of the first of them.
fn shared_trunks(runs: &[FitRun]) -> BTreeMap<&ContentHash, u32> {
    let mut first: BTreeMap<&ContentHash, (u32, BTreeSet<&RunId>)> = BTreeMap::new();
    for (key, run) in (0..).zip(runs) {
        if let Some(trunk) = &run.trunk {
            first.entry(trunk).or_insert((key, BTreeSet::new())).1.insert(&run.run_id);
        }
    }
    let shared = first.into_iter().filter(|(_, (_, runs))| runs.len() > 1);
    shared.map(|(trunk, (key, _))| (trunk, key)).collect()
}

fn missing_run(run: &FitRun) -> MissingRun {
    MissingRun { run_id: run.run_id.to_string(), name: run.name.clone() }
}

fn is_over(run: &FitRun) -> bool {
    TERMINAL.contains(&run.state.as_str())
}

/// The checkpoints that were to be measured and never will be, by step. What may still come is not
/// among them.
fn missing(
    run: &FitRun,
    evaluations: &[&FitEvaluation],
    unmeasured: &[FitUnmeasured],
) -> Vec<DroppedPoint> {
    let is_unmeasured = |step: &u64| evaluations.iter().all(|one| one.step != *step);
    let why = |step: u64| {
        let is_place = |one: &&FitUnmeasured| {
            one.run_id == run.run_id && one.step == step && one.task == LOSS.label()
        };
        match unmeasured.iter().find(is_place).map(|one| one.state.as_str()) {
            Some(state) => TERMINAL
                .contains(&state)
                .then(|| format!("its evaluation ended as {state}, without a value")),
            None => is_over(run).then(|| "the run is over and it was never measured".to_owned()),
        }
    };
    let steps = run.data_point_steps.iter().copied().filter(is_unmeasured);
    let dropped = |step| {
        let what = format!("`{}` at step {step}", run.name);
        why(step).map(|reason| DroppedPoint { what, reason })
    };
    steps.filter_map(dropped).collect()
}

fn point(run: &FitRun, flops: f64, evaluation: &FitEvaluation) -> Point {
    let share = evaluation.step as f64 / run.steps.max(1) as f64;
    Point {
        step: evaluation.step,
        tokens: evaluation.step as f64 * run.batch_tokens as f64,
        flops: flops * share,
        loss_nats: evaluation.value,
    }
}

/// Ends that are no result of the configuration, and divergence, which is one but no loss.
fn why_excluded(run: &FitRun) -> Option<String> {
    let message = first_line(&run.message);
    let with = |what: &str| match &message {
        Some(message) => format!("{what}: {message}"),
        None => what.to_owned(),
    };
    match run.state.as_str() {
        "diverged" => Some(with("diverged")),
        "cancelled" => Some("cancelled".to_owned()),
        "failed" => match run.end.map(AttemptEnd::label) {
            Some(end) => Some(with(&format!("failed ({end})"))),
            None => Some(with("failed")),
        },
        _ => None,
    }
}

fn first_line(message: &str) -> Option<String> {
    let line = message.lines().map(str::trim).find(|line| !line.is_empty())?;
    Some(line.chars().take(MAX_MESSAGE_CHARS).collect())
}

fn why_dropped(parameters: u64, point: &Point) -> Option<String> {
    let is_usable = |value: f64| value.is_finite() && value > 0.0;
    if !is_usable(point.loss_nats) {
        return Some(format!("its loss, {}, is not finite and positive", point.loss_nats));
    }
    if !is_usable(point.tokens) || !is_usable(point.flops) {
        return Some("nothing was trained at this step".to_owned());
    }
    (parameters == 0).then(|| "the model has no parameters of the kind that N counts".to_owned())
}
