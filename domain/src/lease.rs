//! What a lease is and when it is live, on the leader's monotonic clock.
//!
//! It does not know who renews it, and it never sees a wall clock.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{LeaseToken, WorkId, WorkerId};
use crate::planted::{Mistake, is_planted};

/// The exclusive, expiring right of an attempt to a piece of work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// What is leased.
    pub work: WorkId,
    /// Who holds it.
    pub worker: WorkerId,
    /// When it expires, in milliseconds of the leader's monotonic clock.
    pub expires_at_ms: u64,
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
        let expires_at_ms = now_ms + self.term_ms;
        self.by_worker.entry(worker.clone()).or_default().insert(token);
        self.leases.insert(token, Lease { work, worker, expires_at_ms });
    }

    /// Renews a lease for its holder. A renewal that comes after the expiry but before anyone
    /// acted on it is still good: the right was never given to another.
    pub fn renew(&mut self, token: LeaseToken, worker: &WorkerId, now_ms: u64) -> Renewal {
        if is_planted(Mistake::RenewalIgnored) {
            let known = self.leases.contains_key(&token);
            return if known { Renewal::Renewed } else { Renewal::Stale };
        }
        match self.leases.get_mut(&token) {
            Some(lease) if lease.worker == *worker => {
                lease.expires_at_ms = lease.expires_at_ms.max(now_ms + self.term_ms);
                Renewal::Renewed
            }
            Some(_) | None => Renewal::Stale,
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

    /// The leases that have expired by now; they stay until [`Self::remove`], after the store has
    /// recorded it.
    pub fn expired(&self, now_ms: u64) -> Vec<(LeaseToken, Lease)> {
        self.leases
            .iter()
            .filter(|(_, lease)| lease.expires_at_ms <= now_ms)
            .map(|(token, lease)| (*token, lease.clone()))
            .collect()
    }

    /// How many leases a worker holds.
    pub fn n_held_by(&self, worker: &WorkerId) -> usize {
        self.by_worker.get(worker).map_or(0, BTreeSet::len)
    }

    /// The lease of a token.
    pub fn get(&self, token: LeaseToken) -> Option<&Lease> {
        self.leases.get(&token)
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
    use super::*;

    fn table() -> (LeaseTable, WorkerId) {
        let worker: WorkerId = "w_a".parse().unwrap();
        let mut table = LeaseTable::new(100);
        table.insert(LeaseToken(7), "r_1".parse().unwrap(), worker.clone(), 1_000);
        (table, worker)
    }

    #[test]
    fn a_lease_lives_for_one_term_after_its_last_renewal() {
        let (mut table, worker) = table();
        assert!(table.expired(1_099).is_empty());
        assert_eq!(table.renew(LeaseToken(7), &worker, 1_050), Renewal::Renewed);
        assert!(table.expired(1_149).is_empty());
        assert_eq!(table.expired(1_150).len(), 1);
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
