//! Whose turn it is among studies of one priority: start-time fair queueing over grants
//! (Goyal, Vin, Cheng 1996), first among users, then among the studies of each.
//!
//! It knows no work and no worker.

use std::cmp::Ordering;
use std::collections::BTreeMap;

/// Whose turn a grant takes. What no live study has is nobody's: it stands in line as a study of its
/// own would.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Line<'a> {
    /// The user whose study it is; empty is nobody with a name.
    pub user: &'a str,
    /// The study's identifier; empty is none.
    pub study: &'a str,
}

/// When each user and each study is due, on clocks of their own that only grants move.
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
    /// A user and a study of these weights, above 0, were granted a run of so many slots.
    pub fn serve(&mut self, line: Line<'_>, user_weight: f64, weight: f64, n_slots: u32) {
        let n_slots = f64::from(n_slots);
        self.users.serve(line.user, n_slots / user_weight);
        self.studies.entry(line.user.to_owned()).or_default().serve(line.study, n_slots / weight);
    }

    /// Which of two is next: the one that is due first, then the one that was served longest ago,
    /// then the first name.
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
