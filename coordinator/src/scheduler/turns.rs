//! Whose turn it is among studies of one priority: start-time fair queueing over grants
//! (Goyal, Vin, Cheng 1996), first among users, then among the studies of each.
//!
//! It knows no work and no worker.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

/// Whose turn a grant takes. What no live study has is nobody's: it stands in line as a study of its
/// own would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line<'a> {
    /// The user whose study it is; empty is nobody with a name.
    pub user: &'a str,
    /// The study's identifier; empty is none.
    pub study: &'a str,
}

/// When each user and each study is due, on clocks of their own that only grants move. The present of
/// a clock is the time at which its last grant was due, and never goes back.
///
/// A grant moves its user and its study on by slots / weight; who is due first is next. Who had
/// nothing to run comes back at the present and is owed nothing. Where every run takes one slot:
/// before a queued run at the head of a study of weight w, every other study of its user and
/// priority and of weight v is therefore granted at most ⌊v / w⌋ + 1 runs; and between two grants
/// of a user of weight w, every other user of weight v who has something of that priority to run
/// gets at most ⌊v / w⌋ + 1. After a gang of s slots, others get s times that share; and a gang of
/// another counts as its slots, whatever is left of the share when it comes.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Turns {
    users: DueTimes,
    studies: BTreeMap<String, DueTimes>,
}

impl Turns {
    /// These and nobody else have something queued; to be said before it is decided whose turn it is,
    /// and before grants are entered. Who comes is due at the present.
    ///
    /// Who is away and due by now is forgotten, so that what is kept grows with those who are queued
    /// and those who were served beyond the present, and not with all who ever were. That decides
    /// nothing about when he is due: the present never goes back, so that he comes back at the present
    /// of then, remembered or not. Of all who are due by then he goes last, for who waits there must not
    /// be passed again and again by one that comes and goes. Who is due later is remembered, and gets
    /// no more than his share by leaving.
    pub fn line_up(&mut self, queued: &BTreeSet<Line<'_>>) {
        let mut of_users: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for line in queued {
            of_users.entry(line.user).or_default().insert(line.study);
        }
        self.users.line_up(&of_users.keys().copied().collect());
        for (user, studies) in &of_users {
            self.studies.entry((*user).to_owned()).or_default().line_up(studies);
        }
        self.studies.retain(|user, studies| {
            if !of_users.contains_key(user.as_str()) {
                studies.line_up(&BTreeSet::new());
            }
            !studies.due.is_empty()
        });
    }

    /// A user and a study of these weights, above 0, were granted a run of so many slots.
    pub fn serve(&mut self, line: Line<'_>, user_weight: f64, weight: f64, n_slots: u32) {
        let n_slots = f64::from(n_slots);
        self.users.serve(line.user, n_slots / user_weight);
        self.studies.entry(line.user.to_owned()).or_default().serve(line.study, n_slots / weight);
    }

    /// Which of two is next: the one that is due first; of those that are due by now the one that has
    /// been longest, then the first name.
    pub fn order(&self, a: Line<'_>, b: Line<'_>) -> Ordering {
        if a.user != b.user {
            return self.users.order(a.user, b.user);
        }
        match self.studies.get(a.user) {
            Some(studies) => studies.order(a.study, b.study),
            None => a.cmp(&b),
        }
    }
}

/// One clock, and who is due when.
#[derive(Debug, Clone, Default, PartialEq)]
struct DueTimes {
    now: f64,
    due: BTreeMap<String, f64>,
}

impl DueTimes {
    fn line_up(&mut self, queued: &BTreeSet<&str>) {
        let now = self.now;
        self.due.retain(|who, due| *due > now || queued.contains(who.as_str()));
        for who in queued {
            if !self.due.contains_key(*who) {
                self.due.insert((*who).to_owned(), now);
            }
        }
    }

    fn serve(&mut self, who: &str, time: f64) {
        let begin = self.due(who).max(self.now);
        self.now = begin;
        self.due.insert(who.to_owned(), begin + time);
    }

    fn order(&self, a: &str, b: &str) -> Ordering {
        let (due_a, due_b) = (self.due(a), self.due(b));
        due_a
            .max(self.now)
            .total_cmp(&due_b.max(self.now))
            .then(due_a.total_cmp(&due_b))
            .then_with(|| a.cmp(b))
    }

    fn due(&self, who: &str) -> f64 {
        self.due.get(who).copied().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(study: &str) -> Line<'_> {
        Line { user: "ada", study }
    }

    /// Serves the one of a priority whose turn it is, on one slot.
    fn serve_first<'a>(turns: &mut Turns, queued: &[&str], priority: &[&'a str]) -> &'a str {
        turns.line_up(&queued.iter().map(|study| line(study)).collect());
        let next = priority.iter().copied().min_by(|a, b| turns.order(line(a), line(b))).unwrap();
        turns.serve(line(next), 1.0, 1.0, 1);
        next
    }

    #[test]
    fn what_is_kept_does_not_grow_with_the_studies_that_were_served() {
        let mut turns = Turns::default();
        for n in 0..1_000 {
            let (user, study) = (format!("u_{}", n % 50), format!("s_{n}"));
            let line = Line { user: &user, study: &study };
            for _ in 0..3 {
                turns.line_up(&BTreeSet::from([line]));
                turns.serve(line, 1.0, 1.0, 1);
            }
        }
        assert!(turns.users.due.len() <= 2, "{:?}", turns.users);
        assert_eq!(turns.studies.len(), 50);
        for studies in turns.studies.values() {
            assert!(studies.due.len() <= 2, "{studies:?}");
        }
    }

    #[test]
    fn who_was_served_beyond_the_present_is_due_later_when_it_comes_back() {
        let mut turns = Turns::default();
        let all = ["a", "b", "c"];
        turns.line_up(&all.map(line).into());
        turns.serve(line("a"), 1.0, 1.0, 3);
        turns.line_up(&["b", "c"].map(line).into());
        let served: String = (0..8).map(|_| serve_first(&mut turns, &all, &all)).collect();
        assert_eq!(served, "bcbcbcab");
    }

    /// Aim: forgetting makes nobody wait longer. Method: between any two turns of `a` and `b` a study of
    /// a higher priority moves the present beyond both; `b` has always something queued, `a` goes when
    /// it was served and comes back before the next turn.
    #[test]
    fn who_waits_is_not_passed_again_by_one_that_comes_and_goes() {
        let mut turns = Turns::default();
        let all = ["a", "b", "high"];
        for study in ["a", "high", "b", "high"] {
            turns.line_up(&all.map(line).into());
            turns.serve(line(study), 1.0, 1.0, 1);
        }
        let mut served = String::new();
        for _ in 0..6 {
            let next = serve_first(&mut turns, &all, &["a", "b"]);
            served.push_str(next);
            let left = if next == "a" { &all[1..] } else { &all[..] };
            for _ in 0..3 {
                serve_first(&mut turns, left, &["high"]);
            }
        }
        assert_eq!(served, "ababab");
    }
}
