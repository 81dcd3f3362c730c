//! The network of the simulation: messages take their time, get lost, come twice and overtake each
//! other; and ways are held up, or cut, in one direction or in both.

use std::collections::{BTreeMap, BTreeSet};

use crate::chance::Chance;

/// Who sends and receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Place {
    Coordinator(usize),
    Worker(usize),
}

/// How the ways are at the moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Quality {
    pub(crate) longest_delay_ms: u64,
    pub(crate) lost_permille: u64,
    pub(crate) doubled_permille: u64,
}

impl Quality {
    /// A network in one room.
    pub(crate) const GOOD: Self =
        Self { longest_delay_ms: 5, lost_permille: 0, doubled_permille: 0 };
}

/// All ways.
#[derive(Debug)]
pub(crate) struct Network {
    pub(crate) quality: Quality,
    cut: BTreeSet<(Place, Place)>,
    /// Ways on which what is sent arrives at this time and not before.
    stalled_until_ms: BTreeMap<(Place, Place), u64>,
    chance: Chance,
}

impl Network {
    pub(crate) fn new(chance: Chance) -> Self {
        Self {
            quality: Quality::GOOD,
            cut: BTreeSet::new(),
            stalled_until_ms: BTreeMap::new(),
            chance,
        }
    }

    /// Cuts the way in one direction.
    pub(crate) fn cut(&mut self, from: Place, to: Place) {
        self.cut.insert((from, to));
    }

    /// Holds up whatever is sent on a way until then.
    pub(crate) fn stall(&mut self, from: Place, to: Place, until_ms: u64) {
        self.stalled_until_ms.insert((from, to), until_ms);
    }

    /// Opens the ways between two, in both directions.
    pub(crate) fn join(&mut self, a: Place, b: Place) {
        self.cut.remove(&(a, b));
        self.cut.remove(&(b, a));
    }

    /// Opens every way, and makes them good.
    pub(crate) fn heal(&mut self) {
        self.cut.clear();
        self.stalled_until_ms.clear();
        self.quality = Quality::GOOD;
    }

    /// After which times a message that is sent now arrives: not at all, once, or twice.
    pub(crate) fn arrivals(
        &mut self,
        (from, to): (Place, Place),
        may_double: bool,
        now_ms: u64,
    ) -> Vec<u64> {
        if self.cut.contains(&(from, to)) || self.chance.permille(self.quality.lost_permille) {
            return Vec::new();
        }
        let is_doubled = may_double && self.chance.permille(self.quality.doubled_permille);
        let n = if is_doubled { 2 } else { 1 };
        let longest_ms = self.quality.longest_delay_ms;
        let stalled_until_ms = self.stalled_until_ms.get(&(from, to)).copied().unwrap_or_default();
        let held_up_ms = stalled_until_ms.saturating_sub(now_ms);
        (0..n).map(|_| held_up_ms + self.chance.between(1, longest_ms)).collect()
    }
}
