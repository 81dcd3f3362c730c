//! Which ready work goes to which free slot: a pure function of a snapshot.
//!
//! It knows neither time nor gRPC nor the store. What a machine must have is `fit`'s, whose turn it
//! is `turns`', and which slots are kept for a gang is `seats`'.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};

use domain::ids::{StudyId, WorkId, WorkerId};
use domain::spec::PlacementSpec;

use super::fit::{Exclusion, Machine};
use super::seats::{Reservation, Seats};
use super::turns::{Line, Turns};
use crate::store::Numerics;

/// Work that may be granted.
#[derive(Debug, Clone, PartialEq)]
pub struct QueuedWork {
    /// What it is.
    pub work: WorkId,
    /// Higher first.
    pub priority: i32,
    /// Longer first inside a study, so that the last worker is not alone with the longest run.
    pub cost_flops: f64,
    /// The study that it is granted for; none for preparations, and for what no live study has.
    pub study: Option<StudyId>,
    /// Whether it was granted before, so that its cost is in its study's budget already.
    pub has_begun: bool,
    /// What a machine must have.
    pub needs: Needs,
}

/// What a machine must have for a piece of work, beside what its study asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Needs {
    /// The recipe that the worker must know; none when any worker will do.
    pub recipe: Option<String>,
    /// What the first attempt fixed.
    pub numerics: Option<Numerics>,
    /// The estimate for one slot; 0 is not known.
    pub memory_bytes: u64,
    /// The workers that it is kept from, by identifier, each with the reason.
    pub excluded: BTreeMap<String, Exclusion>,
}

/// What a study says about its work.
#[derive(Debug, Clone, PartialEq)]
pub struct StudyTerms {
    /// Whose it is; empty is nobody with a name.
    pub user: String,
    /// Its share among those of its user and of one priority, above 0.
    pub weight: f64,
    /// FLOPs that may still be begun.
    pub budget_left_flops: Option<f64>,
    /// What it asks of machines.
    pub placement: PlacementSpec,
}

impl Default for StudyTerms {
    fn default() -> Self {
        Self {
            user: String::new(),
            weight: 1.0,
            budget_left_flops: None,
            placement: PlacementSpec::default(),
        }
    }
}

impl StudyTerms {
    /// Whether a run that was not begun before may begin.
    pub fn affords(&self, cost_flops: f64) -> bool {
        cost_flops <= self.most_flops()
    }

    /// FLOPs that such a run may cost. A rounding error decides nothing.
    pub fn most_flops(&self) -> f64 {
        self.budget_left_flops.map_or(f64::MAX, most_flops)
    }
}

fn most_flops(budget_left_flops: f64) -> f64 {
    budget_left_flops * (1.0 + 1e-9)
}

/// A worker that waits for work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FreeWorker {
    /// Who.
    pub worker: WorkerId,
    /// How much it can take.
    pub n_free_slots: u32,
    /// What it can do.
    pub machine: Machine,
}

/// A slot that an attempt has.
#[derive(Debug, Clone, PartialEq)]
pub struct BusySlot {
    /// Whose.
    pub worker: WorkerId,
    /// About so many FLOPs of the attempt are left.
    pub flops_left: f64,
}

/// How much went before the gang that waits first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LetPass {
    /// The gang.
    pub work: WorkId,
    /// So many pieces of work were begun on slots that it waits for.
    pub n_passed: u32,
}

/// The head of the queue.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct QueueHead {
    /// The work, in any order.
    pub work: Vec<QueuedWork>,
    /// The studies that it is granted for.
    pub studies: BTreeMap<StudyId, StudyTerms>,
    /// Whether there may be more of what a study, or no study, has queued.
    pub is_cut: bool,
}

/// Everything that a decision needs.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// The head of the queue.
    pub queue: QueueHead,
    /// The workers that wait.
    pub free: Vec<FreeWorker>,
    /// Every live worker, busy ones too: a run waits for the machine that matches what its first
    /// attempt fixed as long as there is one.
    pub live: Vec<(WorkerId, Machine)>,
    /// Of a live worker so many slots do not ask for work: no gang waits for them.
    pub silent: BTreeMap<WorkerId, u32>,
    /// Whose turn it is among studies of one priority.
    pub turns: Turns,
    /// The shares of users that are not 1, each above 0.
    pub user_weights: BTreeMap<String, f64>,
    /// The slots that are taken; only looked at where a gang is queued.
    pub busy: Vec<BusySlot>,
    /// What went before the gang that waits first.
    pub let_pass: Option<LetPass>,
}

impl Snapshot {
    /// Whether something queued takes more than one slot.
    pub fn has_gangs(&self) -> bool {
        let usual = StudyTerms::default();
        self.queue.work.iter().any(|work| n_slots(work, self.terms(work, &usual)) > 1)
    }

    /// Takes in more of the queue, and of it only what may go somewhere as things are: anything else
    /// changes no decision. Whether there was any.
    pub fn read_on(&mut self, more: QueueHead) -> bool {
        let QueueHead { work: more, studies, is_cut } = more;
        self.queue.studies.extend(studies);
        self.queue.is_cut = is_cut;
        let usual = StudyTerms::default();
        let seats = Seats::of(self);
        let seen: HashSet<&WorkId> = self.queue.work.iter().map(|work| &work.work).collect();
        // Much of a queue needs the same.
        let mut known: HashMap<(Option<&StudyId>, bool, &Needs), bool> = HashMap::new();
        let mut may_go = |work| {
            let terms = self.terms(work, &usual);
            let n_slots = n_slots(work, terms);
            let key = (work.study.as_ref(), is_run(work), &work.needs);
            (!begins(work) || terms.affords(work.cost_flops))
                && *known
                    .entry(key)
                    .or_insert_with(|| seats.may_take(work, &terms.placement, n_slots))
        };
        let is_wanted: Vec<bool> =
            more.iter().map(|work| !seen.contains(&work.work) && may_go(work)).collect();
        let wanted = more.iter().zip(is_wanted).filter(|(_, is_wanted)| *is_wanted);
        let wanted: Vec<QueuedWork> = wanted.map(|(work, _)| work.clone()).collect();
        let has_more = !wanted.is_empty();
        self.queue.work.extend(wanted);
        has_more
    }

    fn terms<'a>(&'a self, work: &QueuedWork, usual: &'a StudyTerms) -> &'a StudyTerms {
        work.study.as_ref().and_then(|study| self.queue.studies.get(study)).unwrap_or(usual)
    }

    fn user_weight(&self, user: &str) -> f64 {
        self.user_weights.get(user).copied().unwrap_or(1.0)
    }

    /// Whose turn the queue may take.
    fn lines<'a>(&'a self, usual: &'a StudyTerms) -> BTreeSet<Line<'a>> {
        let taking_turns = self.queue.work.iter().filter(|work| takes_turns(work));
        taking_turns
            .map(|work| Line { user: &self.terms(work, usual).user, study: study_key(work) })
            .collect()
    }

    /// Moves the turns on by these grants, in the order in which they were placed: another one would
    /// bring who comes last forward to the present, and take from him what he is owed.
    pub fn serve<'a>(&self, turns: &mut Turns, granted: impl Iterator<Item = &'a WorkId>) {
        let queued: BTreeMap<&WorkId, &QueuedWork> =
            self.queue.work.iter().map(|work| (&work.work, work)).collect();
        let usual = StudyTerms::default();
        turns.line_up(&self.lines(&usual));
        for work in granted.filter_map(|work| queued.get(work)) {
            if takes_turns(work) {
                let terms = self.terms(work, &usual);
                let line = Line { user: &terms.user, study: study_key(work) };
                let n_slots = n_slots(work, terms);
                turns.serve(line, self.user_weight(&terms.user), terms.weight, n_slots);
            }
        }
    }
}

/// How many slots it takes at a time. Only runs are more than one slot's.
pub(super) fn n_slots(work: &QueuedWork, terms: &StudyTerms) -> u32 {
    if is_run(work) { terms.placement.n_slots() } else { 1 }
}

fn is_run(work: &QueuedWork) -> bool {
    matches!(work.work, WorkId::Run(_))
}

/// Preparations are short, a study has few, and all its runs wait for them.
fn takes_turns(work: &QueuedWork) -> bool {
    !matches!(work.work, WorkId::Preparation(_))
}

/// Whether its cost comes on top of what its study has begun.
pub(super) fn begins(work: &QueuedWork) -> bool {
    is_run(work) && !work.has_begun
}

fn study_key(work: &QueuedWork) -> &str {
    work.study.as_ref().map_or("", StudyId::as_str)
}

/// Work and who gets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Placement {
    /// The work.
    pub work: WorkId,
    /// Who gets it, by rank. A worker that is there twice gives two slots.
    pub workers: Vec<WorkerId>,
    /// The gang that waits for the slot that this takes meanwhile.
    pub passes: Option<WorkId>,
}

impl Placement {
    /// On one slot.
    pub fn of_one(work: WorkId, worker: WorkerId) -> Self {
        Self { work, workers: vec![worker], passes: None }
    }
}

/// What a snapshot leads to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Decision {
    /// What is granted.
    pub placements: Vec<Placement>,
    /// What is kept for the gang that waits first.
    pub reservation: Option<Reservation>,
}

/// Places work on free slots: the highest priority first, then data preparations (they are short, and
/// runs wait for them), then what the user and the study whose turn it is have: their evaluations,
/// which are short and complete what was trained, then their runs, the longest first. An evaluation
/// takes a turn as a run does, so that many of one study keep no other one waiting. No worker gets
/// more than its free slots, and no work is placed twice. A run is begun only while its study affords it. It goes to a machine that rounds as its first
/// attempt did; when no live one does, any that is fit will do, and the attempt reports what it used.
/// Of those it goes to one on which none of its attempts failed, as long as there is one that
/// lives.
///
/// A gang takes all its slots at a time, on machines that round alike. The first whose turn it is
/// and that has too few keeps those that are free, and each that becomes free; from then on it goes
/// first in its priority. Before it goes only what has a higher priority, or no more FLOPs than
/// what it waits for has left, and of that no more pieces than it has slots; so without the former
/// it begins at the latest when every attempt on its machines, and so many after them, are over.
/// One that is too large for every class of the live machines keeps nothing.
///
/// What fits nowhere takes no turn. Each piece of work is looked at once.
pub fn decide(snapshot: &Snapshot) -> Decision {
    let usual = StudyTerms::default();
    let mut seats = Seats::of(snapshot);
    let mut budgets: BTreeMap<&StudyId, f64> = snapshot
        .queue
        .studies
        .iter()
        .filter_map(|(study, terms)| Some((study, terms.budget_left_flops?)))
        .collect();
    let mut turns = snapshot.turns.clone();
    turns.line_up(&snapshot.lines(&usual));
    let mut queue: Vec<&QueuedWork> = snapshot.queue.work.iter().collect();
    queue.sort_by(|a, b| order(a, b));
    queue.dedup_by(|a, b| a.work == b.work);
    let mut placements = Vec::new();
    for band in queue.chunk_by(|a, b| a.priority == b.priority) {
        let mut lines = Lines::of(band, snapshot, &usual);
        while let Some((line, work)) = lines.next(&turns) {
            if seats.are_all_taken() {
                return Decision { placements, reservation: seats.into_reservation() };
            }
            let terms = snapshot.terms(work, &usual);
            let left = work.study.as_ref().and_then(|study| budgets.get_mut(study));
            if begins(work)
                && left.as_ref().is_some_and(|left| work.cost_flops > most_flops(**left))
            {
                continue;
            }
            let n_slots = n_slots(work, terms);
            let placement = match n_slots {
                1 => seats.take_one(work, &terms.placement),
                _ => seats.take_gang(work, &terms.placement, n_slots),
            };
            let Some(placement) = placement else { continue };
            placements.push(placement);
            if let Some(line) = line {
                turns.serve(line, snapshot.user_weight(line.user), terms.weight, n_slots);
            }
            if let Some(left) = left.filter(|_| begins(work)) {
                *left -= work.cost_flops;
            }
        }
    }
    Decision { placements, reservation: seats.into_reservation() }
}

/// The work of one priority: what takes no turns, and a line for each study.
struct Lines<'a> {
    /// The gang that waits first.
    waiting: Option<(Line<'a>, &'a QueuedWork)>,
    first: VecDeque<&'a QueuedWork>,
    studies: BTreeMap<Line<'a>, VecDeque<&'a QueuedWork>>,
}

impl<'a> Lines<'a> {
    fn of(band: &[&'a QueuedWork], snapshot: &'a Snapshot, usual: &'a StudyTerms) -> Self {
        let mut lines = Self { waiting: None, first: VecDeque::new(), studies: BTreeMap::new() };
        let waiting = snapshot.let_pass.as_ref().map(|passed| &passed.work);
        for &work in band {
            if takes_turns(work) {
                let terms = snapshot.terms(work, usual);
                let line = Line { user: &terms.user, study: study_key(work) };
                if waiting == Some(&work.work) && n_slots(work, terms) > 1 {
                    lines.waiting = Some((line, work));
                    continue;
                }
                lines.studies.entry(line).or_default().push_back(work);
            } else {
                lines.first.push_back(work);
            }
        }
        lines
    }

    /// Takes out what is next, with the line whose turn it takes.
    fn next(&mut self, turns: &Turns) -> Option<(Option<Line<'a>>, &'a QueuedWork)> {
        if let Some((line, work)) = self.waiting.take() {
            return Some((Some(line), work));
        }
        if let Some(work) = self.first.pop_front() {
            return Some((None, work));
        }
        let line = self.studies.keys().copied().min_by(|a, b| turns.order(*a, *b))?;
        let works = self.studies.get_mut(&line)?;
        let work = works.pop_front()?;
        if works.is_empty() {
            self.studies.remove(&line);
        }
        Some((Some(line), work))
    }
}

fn order(a: &QueuedWork, b: &QueuedWork) -> Ordering {
    Reverse(a.priority)
        .cmp(&Reverse(b.priority))
        .then(takes_turns(a).cmp(&takes_turns(b)))
        .then(is_run(a).cmp(&is_run(b)))
        .then(b.cost_flops.total_cmp(&a.cost_flops))
        .then(a.work.cmp(&b.work))
}

#[cfg(test)]
mod tests;
