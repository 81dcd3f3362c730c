//! What the agent demands of the assignment at hand, shared between the thread that reads the pipe
//! and the one that trains.
//!
//! It does not act on a demand; the recipes do, after a step.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, PoisonError};

/// What the assignment at hand is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Demand {
    /// Give up; no checkpoint is wanted.
    Stop,
    /// Write a checkpoint, then give the slot back.
    Preempt,
}

/// The demands, by lease token, so that a late one never hits the next assignment.
#[derive(Debug, Default)]
pub struct Control {
    stopped: AtomicU64,
    preempted: AtomicU64,
    is_busy: AtomicBool,
    is_alone: AtomicBool,
    /// Held while a demand is made, so that who waits for one misses none.
    demanding: Mutex<()>,
    demanded: Condvar,
}

impl Control {
    /// Asks the assignment with this token to stop.
    pub fn stop(&self, lease_token: u64) {
        self.demand_by(&self.stopped, lease_token);
    }

    /// Asks the assignment with this token to write a checkpoint and leave.
    pub fn preempt(&self, lease_token: u64) {
        self.demand_by(&self.preempted, lease_token);
    }

    fn demand_by(&self, demand: &AtomicU64, lease_token: u64) {
        let _demanding = self.demanding.lock().unwrap_or_else(PoisonError::into_inner);
        demand.store(lease_token, Ordering::SeqCst);
        self.demanded.notify_all();
    }

    /// Waits until something is asked of the assignment with this token.
    pub fn wait_for_demand(&self, lease_token: u64) -> Demand {
        let mut demanding = self.demanding.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(demand) = self.demand(lease_token) {
                return demand;
            }
            demanding = self.demanded.wait(demanding).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// What is asked of the assignment with this token; to stop outweighs to leave in order.
    pub fn demand(&self, lease_token: u64) -> Option<Demand> {
        if self.stopped.load(Ordering::SeqCst) == lease_token {
            return Some(Demand::Stop);
        }
        (self.preempted.load(Ordering::SeqCst) == lease_token).then_some(Demand::Preempt)
    }

    /// Marks that work begins; false when nobody is there any more to do it for.
    pub(super) fn begin(&self) -> bool {
        self.is_busy.store(true, Ordering::SeqCst);
        !self.is_alone.load(Ordering::SeqCst)
    }

    /// Marks that work is over.
    pub(super) fn end(&self) {
        self.is_busy.store(false, Ordering::SeqCst);
    }

    /// Marks that the agent is gone; true when there is work that nobody wants.
    pub(super) fn leave_alone(&self) -> bool {
        self.is_alone.store(true, Ordering::SeqCst);
        self.is_busy.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demand_is_for_its_token_only_and_stop_outweighs_preempt() {
        let control = Control::default();
        assert_eq!(control.demand(3), None);
        control.preempt(3);
        assert_eq!(control.demand(3), Some(Demand::Preempt));
        assert_eq!(control.demand(4), None);
        control.stop(3);
        assert_eq!(control.demand(3), Some(Demand::Stop));
    }

    #[test]
    fn who_waits_for_a_demand_is_woken_by_its_own() {
        let control = Control::default();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| control.wait_for_demand(3));
            control.stop(2);
            control.preempt(3);
            assert_eq!(waiting.join().unwrap(), Demand::Preempt);
        });
        control.stop(3);
        assert_eq!(control.wait_for_demand(3), Demand::Stop, "it was made before");
    }

    #[test]
    fn work_without_an_agent_is_noticed_whoever_comes_first() {
        let control = Control::default();
        assert!(control.begin());
        assert!(control.leave_alone());
        let control = Control::default();
        assert!(!control.leave_alone());
        assert!(!control.begin());
    }
}
