//! What a lease is and when it is live, on the leader's monotonic clock.
//!
//! It does not know who renews it, and it never sees a wall clock.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{LeaseToken, WorkId, WorkerId};
use crate::planted::{Mistake, is_planted};

/// The state of a lease.
///
/// ```text
///                 heartbeats of its holder
///                 ┌──────┐
///   granted ────▶ │ live │ ──── its time has passed ────▶ ran out              over
///                 └──────┘ ◀─── a heartbeat was faster ──────┘ │  ▲             ▲
///                    │                            the store is told │  │ it refuses  │
///                    │                                              ▼  │             │
///                    │                                             ending ─ recorded ┤
///                    └── its attempt ended, or the right was taken away ─────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseState {
    /// Its holder may write.
    Live {
        /// Until this time, in milliseconds of the leader's monotonic clock.
        until_ms: u64,
    },
    /// Its time has passed, and the store does not know it yet: the right was given to nobody else.
    RanOut,
    /// The store is told, and has not answered: nobody knows whether it is over, and no heartbeat may
    /// be told that it lives.
    Ending,
    /// There is no such right any more.
    Over,
}

/// What happens to a lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseEvent {
    /// Somebody wants it to live until this time.
    Renewed {
        /// Whether it is who holds it.
        by_holder: bool,
        /// The time.
        until_ms: u64,
    },
    /// It is this time.
    TimePassed {
        /// The time.
        now_ms: u64,
    },
    /// The store is told that it ran out.
    EndBegun,
    /// The store has refused to record it.
    EndRefused,
    /// The store has recorded that it is over, for whatever reason.
    Released,
}

impl LeaseState {
    /// The state after an event; the same one where it changes nothing.
    #[must_use]
    pub fn on(self, event: LeaseEvent) -> Self {
        use LeaseEvent as E;
        match (self, event) {
            (Self::Over, _) | (_, E::Released) => Self::Over,
            // A renewal that was sent earlier may come later: it shortens nothing.
            (Self::Live { until_ms: old_ms }, E::Renewed { by_holder: true, until_ms }) => {
                Self::Live { until_ms: until_ms.max(old_ms) }
            }
            (Self::RanOut, E::Renewed { by_holder: true, until_ms }) => Self::Live { until_ms },
            (Self::Live { until_ms }, E::TimePassed { now_ms }) if until_ms <= now_ms => {
                Self::RanOut
            }
            (Self::RanOut, E::EndBegun) => Self::Ending,
            (Self::Ending, E::EndRefused) => Self::RanOut,
            (Self::Live { .. } | Self::RanOut, E::Renewed { by_holder: false, .. })
            | (Self::Live { .. } | Self::RanOut, E::TimePassed { .. })
            // What lives is not ended, and what is not being ended goes on as it was.
            | (Self::Live { .. }, E::EndBegun)
            | (Self::Live { .. } | Self::RanOut, E::EndRefused)
            | (Self::Ending, E::Renewed { .. } | E::TimePassed { .. } | E::EndBegun) => self,
        }
    }
}

/// The exclusive, expiring right of an attempt to a piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What is leased.
    pub work: WorkId,
    /// Who holds it.
    pub worker: WorkerId,
    /// Its state; those that are over are not kept.
    pub state: LeaseState,
}

/// The live leases. Grants, releases and expiries are durable in the store; the renewals are here.
#[derive(Debug, Clone, Default)]
pub struct LeaseTable {
    term_ms: u64,
    leases: BTreeMap<LeaseToken, Lease>,
    by_worker: BTreeMap<WorkerId, BTreeSet<LeaseToken>>,
}

/// What a renewal was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewal {
    /// The lease lives for one more term.
    Renewed,
    /// It is being ended, and may be over in a moment: the holder knows no more than before.
    Ending,
    /// There is no such lease any more: the holder must stop.
    Stale,
}

impl LeaseTable {
    /// An empty table whose leases last `term_ms` milliseconds.
    pub fn new(term_ms: u64) -> Self {
        Self { term_ms, ..Self::default() }
    }

    /// Enters a lease that was granted, or found in the store by a starting leader: it gets one
    /// full term from now.
    pub fn insert(&mut self, token: LeaseToken, work: WorkId, worker: WorkerId, now_ms: u64) {
        let state = LeaseState::Live { until_ms: now_ms + self.term_ms };
        self.by_worker.entry(worker.clone()).or_default().insert(token);
        self.leases.insert(token, Lease { work, worker, state });
    }

    /// Renews a lease for its holder. A renewal that comes after the expiry but before anyone
    /// acted on it is still good: the right was never given to another.
    pub fn renew(&mut self, token: LeaseToken, worker: &WorkerId, now_ms: u64) -> Renewal {
        if is_planted(Mistake::RenewalIgnored) {
            let known = self.leases.contains_key(&token);
            return if known { Renewal::Renewed } else { Renewal::Stale };
        }
        let Some(lease) = self.leases.get_mut(&token) else { return Renewal::Stale };
        let by_holder = lease.worker == *worker;
        lease.state =
            lease.state.on(LeaseEvent::Renewed { by_holder, until_ms: now_ms + self.term_ms });
        match lease.state {
            _ if !by_holder => Renewal::Stale,
            LeaseState::Ending => Renewal::Ending,
            LeaseState::Live { .. } | LeaseState::RanOut | LeaseState::Over => Renewal::Renewed,
        }
    }

    /// Gives every lease one full term from now, as a starting leader does; but not those that are being
    /// ended.
    pub fn extend_all(&mut self, now_ms: u64) {
        let renewed = LeaseEvent::Renewed { by_holder: true, until_ms: now_ms + self.term_ms };
        for lease in self.leases.values_mut() {
            lease.state = lease.state.on(renewed);
        }
    }

    /// Takes out a lease that ended.
    pub fn remove(&mut self, token: LeaseToken) -> Option<Lease> {
        let lease = self.leases.remove(&token)?;
        if let Some(held) = self.by_worker.get_mut(&lease.worker) {
            held.remove(&token);
            if held.is_empty() {
                self.by_worker.remove(&lease.worker);
            }
        }
        Some(lease)
    }

    /// Begins to end the leases that have expired by now, with those whose end was begun before. They
    /// stay until [`Self::remove`], after the store has recorded it.
    pub fn begin_to_end(&mut self, now_ms: u64) -> Vec<LeaseToken> {
        let passed = LeaseEvent::TimePassed { now_ms };
        let mut ending = Vec::new();
        for (token, lease) in &mut self.leases {
            let state = lease.state.on(passed).on(LeaseEvent::EndBegun);
            if state == LeaseState::Ending {
                lease.state = state;
                ending.push(*token);
            }
        }
        ending
    }

    /// The store has refused to end these, as far as they are still here.
    pub fn refuse_end(&mut self, tokens: &[LeaseToken]) {
        for token in tokens {
            if let Some(lease) = self.leases.get_mut(token) {
                lease.state = lease.state.on(LeaseEvent::EndRefused);
            }
        }
    }

    /// How many leases a worker holds.
    pub fn n_held_by(&self, worker: &WorkerId) -> usize {
        self.by_worker.get(worker).map_or(0, BTreeSet::len)
    }

    /// The lease of a token.
    pub fn get(&self, token: LeaseToken) -> Option<&Lease> {
        self.leases.get(&token)
    }

    /// Every token, with who holds it.
    pub fn rights(&self) -> Vec<(LeaseToken, WorkerId)> {
        self.leases.iter().map(|(token, lease)| (*token, lease.worker.clone())).collect()
    }

    /// How many leases there are.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn the_table_of_transitions() {
        let states = [
            LeaseState::Live { until_ms: 100 },
            LeaseState::RanOut,
            LeaseState::Ending,
            LeaseState::Over,
        ];
        let events = [
            (
                "renewed to 150 by its holder",
                LeaseEvent::Renewed { by_holder: true, until_ms: 150 },
            ),
            ("renewed to 50 by its holder", LeaseEvent::Renewed { by_holder: true, until_ms: 50 }),
            ("renewed to 150 by another", LeaseEvent::Renewed { by_holder: false, until_ms: 150 }),
            ("it is 99", LeaseEvent::TimePassed { now_ms: 99 }),
            ("it is 100", LeaseEvent::TimePassed { now_ms: 100 }),
            ("the store is told", LeaseEvent::EndBegun),
            ("the store refuses", LeaseEvent::EndRefused),
            ("released", LeaseEvent::Released),
        ];
        let label = |state| match state {
            LeaseState::Live { until_ms } => format!("live({until_ms})"),
            LeaseState::RanOut => "ran out".to_owned(),
            LeaseState::Ending => "ending".to_owned(),
            LeaseState::Over => "over".to_owned(),
        };
        let mut table = String::new();
        for (name, event) in events {
            write!(table, "{name:<29}").unwrap();
            for state in states {
                let to = state.on(event);
                let cell = if to == state { "·".to_owned() } else { label(to) };
                write!(table, " {} > {cell:<9}", label(state)).unwrap();
            }
            table = table.trim_end().to_owned() + "\n";
        }
        insta::assert_snapshot!(table);
    }

    fn table() -> (LeaseTable, WorkerId) {
        let worker: WorkerId = "w_a".parse().unwrap();
        let mut table = LeaseTable::new(100);
        table.insert(LeaseToken(7), "r_1".parse().unwrap(), worker.clone(), 1_000);
        (table, worker)
    }

    #[test]
    fn a_lease_lives_for_one_term_after_its_last_renewal() {
        let (mut table, worker) = table();
        assert!(table.begin_to_end(1_099).is_empty());
        assert_eq!(table.renew(LeaseToken(7), &worker, 1_050), Renewal::Renewed);
        assert!(table.begin_to_end(1_149).is_empty());
        assert_eq!(table.begin_to_end(1_150), [LeaseToken(7)]);
    }

    #[test]
    fn no_heartbeat_renews_a_lease_whose_end_the_store_is_told() {
        let (mut table, worker) = table();
        assert_eq!(table.begin_to_end(1_100), [LeaseToken(7)]);
        assert_eq!(table.renew(LeaseToken(7), &worker, 1_101), Renewal::Ending);
        assert_eq!(table.begin_to_end(1_102), [LeaseToken(7)], "until the store has answered");
        table.refuse_end(&[LeaseToken(7), LeaseToken(8)]);
        assert_eq!(table.renew(LeaseToken(7), &worker, 1_103), Renewal::Renewed);
        assert!(table.begin_to_end(1_104).is_empty());
    }

    #[test]
    fn another_worker_cannot_renew_it() {
        let (mut table, _) = table();
        let other = "w_b".parse().unwrap();
        assert_eq!(table.renew(LeaseToken(7), &other, 1_000), Renewal::Stale);
    }

    #[test]
    fn a_removed_lease_is_stale() {
        let (mut table, worker) = table();
        assert_eq!(table.n_held_by(&worker), 1);
        table.remove(LeaseToken(7));
        assert_eq!(table.n_held_by(&worker), 0);
        assert_eq!(table.renew(LeaseToken(7), &worker, 1_000), Renewal::Stale);
    }
}
