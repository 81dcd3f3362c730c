//! What is true of every store at every moment, numbered, and a checker over a snapshot.
//!
//! It reads nothing: the snapshot is given to it, from one consistent state.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::attempt::{AttemptEnd, Charge, HOLDS_LEASE};

/// The invariants. A number is never used for another rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Work is leased exactly when it has an open attempt, with the same token, number and worker;
    /// and it has at most one.
    OneLiveLease,
    /// No two attempts have one token, none is larger than the last that was given out, and of one
    /// piece of work they grow with the attempts.
    TokensGrow,
    /// The attempts of a piece of work are numbered from 1 without a gap, up to its count.
    AttemptsAreCounted,
    /// What has succeeded has its result: a run the checkpoint of its last step, an evaluation its
    /// value, a preparation its manifest.
    SuccessHasAResult,
    /// What is queued has the data that it needs, and what is leased or has succeeded had it: data
    /// that is found damaged is made again.
    DataComesFirst,
    /// Who has a lease is there.
    HoldersAreThere,
    /// Work is held exactly when every live study that wants its run is paused.
    HeldByPauses,
    /// Events are numbered from 1 without a gap.
    EventsAreWhole,
    /// Work is charged with no more failures and losses than its attempts have ended with.
    ChargesHaveHappened,
    /// An attempt has every rank of its gang from 1, each with a token of its own, and none of them
    /// holds a slot when it is over.
    GangsAreWhole,
    /// What waits has something to wait for: data that is not there, or a checkpoint of a run that
    /// is not over.
    WaitsForSomething,
    /// Studies are charged, all together, with what the runs cost that were ever begun: each once, by
    /// the study that it was granted for.
    BegunRunsAreCharged,
}

impl Invariant {
    /// Every invariant, in the order of its number.
    pub const ALL: [Self; 12] = [
        Self::OneLiveLease,
        Self::TokensGrow,
        Self::AttemptsAreCounted,
        Self::SuccessHasAResult,
        Self::DataComesFirst,
        Self::HoldersAreThere,
        Self::HeldByPauses,
        Self::EventsAreWhole,
        Self::ChargesHaveHappened,
        Self::GangsAreWhole,
        Self::WaitsForSomething,
        Self::BegunRunsAreCharged,
    ];

    /// Its number, from 1.
    pub fn number(self) -> usize {
        Self::ALL.iter().position(|other| *other == self).map_or(0, |index| index + 1)
    }

    /// The rule in a sentence.
    pub fn rule(self) -> &'static str {
        match self {
            Self::OneLiveLease => "work is leased exactly when it has one open attempt, its own",
            Self::TokensGrow => "every attempt has a token of its own, and tokens only grow",
            Self::AttemptsAreCounted => "attempts are numbered from 1 without a gap",
            Self::SuccessHasAResult => "what has succeeded has its result",
            Self::DataComesFirst => "what is queued has its data, and what was begun had it",
            Self::HoldersAreThere => "who has a lease is there",
            Self::HeldByPauses => "work is held exactly when all that want it are paused",
            Self::EventsAreWhole => "events are numbered from 1 without a gap",
            Self::ChargesHaveHappened => "work is charged with no more than what has happened",
            Self::GangsAreWhole => "a gang has every rank, and holds no slot when it is over",
            Self::WaitsForSomething => "what waits has something to wait for",
            Self::BegunRunsAreCharged => "studies are charged once with each run that was begun",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "INV-{}: {}", self.number(), self.rule())
    }
}

/// A broken invariant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// Whose.
    pub subject: String,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (`{}`: {})", self.invariant, self.subject, self.found)
    }
}

/// A piece of work as a snapshot has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Work {
    /// Its identifier.
    pub id: String,
    /// The label of its state.
    pub state: String,
    /// Token, attempt and worker of its lease.
    pub lease: Option<(u64, u32, String)>,
    /// How many attempts it counts.
    pub n_attempts: u32,
    /// With how many failures it is charged.
    pub n_failures: u32,
    /// With how many lost workers it is charged.
    pub n_losses: u32,
    /// The data that it waits for.
    pub depends_on: Option<String>,
    /// Whether a run that is not over has yet to leave the checkpoint that it goes on from.
    pub waits_for_trunk: bool,
    /// Whether nothing of it is granted.
    pub is_held: bool,
    /// Whether it should be held; none for data, which may be either.
    pub should_be_held: Option<bool>,
    /// Whether it has what a success must have.
    pub has_result: bool,
}

/// An attempt as a snapshot has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// Its work.
    pub work: String,
    /// Its number.
    pub attempt: u32,
    /// Its token.
    pub token: u64,
    /// Its worker.
    pub worker: String,
    /// The label of its state.
    pub state: String,
    /// The label of its end, when it is over.
    pub ended_as: Option<String>,
    /// How many members it has, with rank 0.
    pub world_size: u32,
}

/// A gang's other member as a snapshot has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The token of its attempt.
    pub attempt_token: u64,
    /// Its own token.
    pub token: u64,
    /// From 1.
    pub rank: u32,
    /// Its worker.
    pub worker: String,
    /// Whether it holds its slot.
    pub is_held: bool,
}

/// One consistent state of a store.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Snapshot {
    /// All work.
    pub work: Vec<Work>,
    /// All attempts, by work and number.
    pub attempts: Vec<Attempt>,
    /// All other members of gangs, by attempt and rank.
    pub members: Vec<Member>,
    /// The workers that are there.
    pub workers: BTreeSet<String>,
    /// The last token that was given out.
    pub last_token: u64,
    /// How many events there are, and the number of the newest.
    pub events: (u64, u64),
    /// FLOPs with which all studies are charged, and what the runs cost that were begun.
    pub spent_flops: (f64, f64),
}

/// Beyond what sums over a million runs round, and far below what one of them costs.
const FLOPS_TOLERANCE: f64 = 1e-8;

/// Every violation, by work and then by number.
pub fn check(snapshot: &Snapshot) -> Vec<Violation> {
    let mut attempts: BTreeMap<&str, Vec<&Attempt>> = BTreeMap::new();
    for attempt in &snapshot.attempts {
        attempts.entry(&attempt.work).or_default().push(attempt);
    }
    let all: BTreeMap<&str, &Work> =
        snapshot.work.iter().map(|work| (work.id.as_str(), work)).collect();
    let mut violations = Vec::new();
    for work in &snapshot.work {
        let own = attempts.get(work.id.as_str()).map_or(&[][..], Vec::as_slice);
        let mut broken = |invariant, found: String| {
            violations.push(Violation { invariant, subject: work.id.clone(), found });
        };
        one_live_lease(work, own, &mut broken);
        attempts_are_counted(work, own, &mut broken);
        charges_have_happened(work, own, &mut broken);
        of_one_state(work, &all, &snapshot.workers, &mut broken);
    }
    tokens(snapshot, &mut violations);
    gangs(snapshot, &mut violations);
    let (n_events, newest) = snapshot.events;
    if n_events != newest {
        violations.push(Violation {
            invariant: Invariant::EventsAreWhole,
            subject: "events".to_owned(),
            found: format!("{n_events} of them, the newest is number {newest}"),
        });
    }
    let (charged, cost) = snapshot.spent_flops;
    let difference = (charged - cost).abs();
    if difference.is_nan() || difference > FLOPS_TOLERANCE * cost {
        violations.push(Violation {
            invariant: Invariant::BegunRunsAreCharged,
            subject: "studies".to_owned(),
            found: format!("charged with {charged:e} FLOPs, and begun runs cost {cost:e}"),
        });
    }
    violations
}

fn one_live_lease(work: &Work, own: &[&Attempt], broken: &mut impl FnMut(Invariant, String)) {
    let open: Vec<(u64, u32, String)> = own
        .iter()
        .filter(|attempt| HOLDS_LEASE.contains(&attempt.state.as_str()))
        .map(|attempt| (attempt.token, attempt.attempt, attempt.worker.clone()))
        .collect();
    let expected: Vec<(u64, u32, String)> = work.lease.clone().into_iter().collect();
    if open != expected || (work.state == "leased") != work.lease.is_some() {
        let found = format!("it is {}, its lease {expected:?}, open attempts {open:?}", work.state);
        broken(Invariant::OneLiveLease, found);
    }
}

fn attempts_are_counted(work: &Work, own: &[&Attempt], broken: &mut impl FnMut(Invariant, String)) {
    let numbers: Vec<u32> = own.iter().map(|attempt| attempt.attempt).collect();
    if !numbers.iter().copied().eq(1..=work.n_attempts) {
        let found = format!("it counts {} and has {numbers:?}", work.n_attempts);
        broken(Invariant::AttemptsAreCounted, found);
    }
    if !own.is_sorted_by(|a, b| a.token < b.token) {
        let tokens: Vec<u64> = own.iter().map(|attempt| attempt.token).collect();
        broken(Invariant::TokensGrow, format!("its attempts have the tokens {tokens:?}"));
    }
}

fn charges_have_happened(
    work: &Work,
    own: &[&Attempt],
    broken: &mut impl FnMut(Invariant, String),
) {
    let ends = own.iter().filter_map(|attempt| attempt.ended_as.as_deref());
    let charges: Vec<Charge> =
        ends.filter_map(AttemptEnd::from_label).map(AttemptEnd::charge).collect();
    for (charge, n_charged) in [(Charge::Failure, work.n_failures), (Charge::Loss, work.n_losses)] {
        let n_happened = charges.iter().filter(|happened| **happened == charge).count();
        if n_happened < usize::try_from(n_charged).unwrap_or(usize::MAX) {
            let found = format!("{charge:?}: charged {n_charged}, happened {n_happened}");
            broken(Invariant::ChargesHaveHappened, found);
        }
    }
}

fn of_one_state(
    work: &Work,
    all: &BTreeMap<&str, &Work>,
    workers: &BTreeSet<String>,
    broken: &mut impl FnMut(Invariant, String),
) {
    if work.state == "succeeded" && !work.has_result {
        broken(Invariant::SuccessHasAResult, "it has none".to_owned());
    }
    let needed = work.depends_on.as_deref().and_then(|needed| all.get(needed));
    let is_there = needed.is_some_and(|needed| needed.state == "succeeded");
    let was_there = is_there || needed.is_some_and(|needed| needed.has_result);
    let has_data = match work.state.as_str() {
        "queued" => is_there,
        "leased" | "succeeded" => was_there,
        _ => true,
    };
    if let Some(id) = &work.depends_on
        && !has_data
    {
        let state = needed.map_or("missing", |needed| needed.state.as_str());
        broken(Invariant::DataComesFirst, format!("it is {}, `{id}` is {state}", work.state));
    }
    if work.state == "waiting" && !work.waits_for_trunk && is_there {
        broken(Invariant::WaitsForSomething, "all that it needs is there".to_owned());
    }
    if let Some((_, _, worker)) = &work.lease
        && !workers.contains(worker)
    {
        broken(Invariant::HoldersAreThere, format!("`{worker}` is not"));
    }
    if let Some(should_be_held) = work.should_be_held
        && should_be_held != work.is_held
    {
        let found = format!("is held: {}, should be: {should_be_held}", work.is_held);
        broken(Invariant::HeldByPauses, found);
    }
}

fn tokens(snapshot: &Snapshot, violations: &mut Vec<Violation>) {
    let mut seen = BTreeSet::new();
    let of_attempts = snapshot.attempts.iter().map(|attempt| (attempt.token, &attempt.work));
    let of_members = snapshot.members.iter().map(|member| (member.token, &member.worker));
    for (token, subject) in of_attempts.chain(of_members) {
        let found = if !seen.insert(token) {
            format!("token {token} was given out twice")
        } else if token > snapshot.last_token {
            format!("token {token} is above the last, {}", snapshot.last_token)
        } else {
            continue;
        };
        let (invariant, subject) = (Invariant::TokensGrow, subject.clone());
        violations.push(Violation { invariant, subject, found });
    }
}

fn gangs(snapshot: &Snapshot, violations: &mut Vec<Violation>) {
    let mut members: BTreeMap<u64, Vec<&Member>> = BTreeMap::new();
    for member in &snapshot.members {
        members.entry(member.attempt_token).or_default().push(member);
    }
    for attempt in &snapshot.attempts {
        let own = members.remove(&attempt.token).unwrap_or_default();
        let mut broken = |invariant, found: String| {
            violations.push(Violation { invariant, subject: attempt.work.clone(), found });
        };
        let ranks: Vec<u32> = own.iter().map(|member| member.rank).collect();
        if !ranks.iter().copied().eq(1..attempt.world_size) {
            let found = format!("of {} members it has the ranks {ranks:?}", attempt.world_size);
            broken(Invariant::GangsAreWhole, found);
        }
        let is_open = HOLDS_LEASE.contains(&attempt.state.as_str());
        for member in own.iter().filter(|member| member.is_held) {
            if !is_open {
                let found = format!("rank {} holds its slot, and it is over", member.rank);
                broken(Invariant::GangsAreWhole, found);
            } else if !snapshot.workers.contains(&member.worker) {
                broken(Invariant::HoldersAreThere, format!("`{}` is not", member.worker));
            }
        }
    }
    if let Some((token, _)) = members.first_key_value() {
        let found = "no attempt has it".to_owned();
        let subject = format!("the attempt {token} of a member");
        violations.push(Violation { invariant: Invariant::GangsAreWhole, subject, found });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempt(attempt: u32, token: u64, state: &str) -> Attempt {
        let (work, worker) = ("r_1".to_owned(), "w_1".to_owned());
        let ended_as = (state == "ended").then(|| "worker_lost".to_owned());
        Attempt { work, attempt, token, worker, state: state.to_owned(), ended_as, world_size: 1 }
    }

    /// A run that was lost once and is leased again, after its data.
    fn sound() -> Snapshot {
        let data = Work {
            id: "p_1".to_owned(),
            state: "succeeded".to_owned(),
            lease: None,
            n_attempts: 1,
            n_failures: 0,
            n_losses: 0,
            depends_on: None,
            waits_for_trunk: false,
            is_held: false,
            should_be_held: None,
            has_result: true,
        };
        let run = Work {
            id: "r_1".to_owned(),
            state: "leased".to_owned(),
            lease: Some((7, 2, "w_1".to_owned())),
            n_attempts: 2,
            n_failures: 0,
            n_losses: 1,
            depends_on: Some("p_1".to_owned()),
            waits_for_trunk: false,
            is_held: false,
            should_be_held: Some(false),
            has_result: false,
        };
        let of_data = Attempt { work: "p_1".to_owned(), ..attempt(1, 3, "ended") };
        Snapshot {
            work: vec![data, run],
            attempts: vec![
                of_data,
                attempt(1, 5, "ended"),
                Attempt { world_size: 2, ..attempt(2, 7, "running") },
            ],
            members: vec![Member {
                attempt_token: 7,
                token: 8,
                rank: 1,
                worker: "w_1".to_owned(),
                is_held: true,
            }],
            workers: BTreeSet::from(["w_1".to_owned()]),
            last_token: 8,
            events: (9, 9),
            spent_flops: (3e9 * (1.0 + 1e-12), 3e9),
        }
    }

    #[track_caller]
    fn check_broken(invariant: Invariant, damage: impl FnOnce(&mut Snapshot)) {
        let mut snapshot = sound();
        damage(&mut snapshot);
        let found: Vec<Invariant> = check(&snapshot).iter().map(|v| v.invariant).collect();
        assert!(found.contains(&invariant), "{invariant}: {found:?}");
    }

    #[test]
    fn a_sound_store_breaks_nothing() {
        assert_eq!(check(&sound()), []);
    }

    #[test]
    fn data_that_is_made_again_breaks_nothing_for_who_has_it() {
        let mut snapshot = sound();
        snapshot.work[0].state = "queued".to_owned();
        assert_eq!(check(&snapshot), []);
    }

    #[test]
    fn every_damage_is_named() {
        use Invariant as I;
        check_broken(I::OneLiveLease, |s| s.work[1].lease = None);
        check_broken(I::OneLiveLease, |s| s.attempts[1].state = "granted".to_owned());
        check_broken(I::OneLiveLease, |s| s.work[1].state = "queued".to_owned());
        check_broken(I::OneLiveLease, |s| s.attempts[2].worker = "w_2".to_owned());
        check_broken(I::TokensGrow, |s| s.last_token = 6);
        check_broken(I::TokensGrow, |s| s.members[0].token = 7);
        check_broken(I::TokensGrow, |s| s.attempts[0].token = 5);
        check_broken(I::TokensGrow, |s| s.attempts[1].token = 8);
        check_broken(I::AttemptsAreCounted, |s| s.work[0].n_attempts = 2);
        check_broken(I::AttemptsAreCounted, |s| {
            s.attempts.remove(1);
        });
        check_broken(I::SuccessHasAResult, |s| s.work[0].has_result = false);
        check_broken(I::DataComesFirst, |s| {
            (s.work[0].state, s.work[0].has_result) = ("failed".to_owned(), false);
        });
        check_broken(I::DataComesFirst, |s| {
            // It is made again: who has it may go on, and nobody else may begin.
            s.work[0].state = "queued".to_owned();
            (s.work[1].state, s.work[1].lease) = ("queued".to_owned(), None);
            s.attempts[2].state = "ended".to_owned();
        });
        check_broken(I::HoldersAreThere, |s| s.workers.clear());
        check_broken(I::HeldByPauses, |s| s.work[1].is_held = true);
        check_broken(I::EventsAreWhole, |s| s.events = (8, 9));
        check_broken(I::ChargesHaveHappened, |s| s.work[1].n_losses = 2);
        check_broken(I::ChargesHaveHappened, |s| s.work[1].n_failures = 1);
        check_broken(I::GangsAreWhole, |s| s.members.clear());
        check_broken(I::GangsAreWhole, |s| s.members[0].rank = 2);
        check_broken(I::GangsAreWhole, |s| s.members[0].attempt_token = 9);
        check_broken(I::GangsAreWhole, |s| s.attempts[2].state = "ended".to_owned());
        check_broken(I::HoldersAreThere, |s| s.members[0].worker = "w_2".to_owned());
        check_broken(I::WaitsForSomething, |s| s.work[1].state = "waiting".to_owned());
        check_broken(I::BegunRunsAreCharged, |s| s.spent_flops.0 = 0.0);
        check_broken(I::BegunRunsAreCharged, |s| s.spent_flops.0 = f64::NAN);
        check_broken(I::BegunRunsAreCharged, |s| s.spent_flops.1 = 0.0);
    }

    #[test]
    fn a_violation_says_which_rule_whose_and_what() {
        let mut snapshot = sound();
        snapshot.work[0].has_result = false;
        let text = check(&snapshot)[0].to_string();
        assert_eq!(text, "INV-4: what has succeeded has its result (`p_1`: it has none)");
    }
}
