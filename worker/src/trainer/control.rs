//! What the agent demands of the assignment at hand, shared between the thread that reads the pipe
//! and the one that trains.
//!
//! It does not act on a demand; the recipes do, after a step.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

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
}

impl Control {
    /// Asks the assignment with this token to stop.
    pub fn stop(&self, lease_token: u64) {
        self.stopped.store(lease_token, Ordering::SeqCst);
    }

    /// Asks the assignment with this token to write a checkpoint and leave.
    pub fn preempt(&self, lease_token: u64) {
        self.preempted.store(lease_token, Ordering::SeqCst);
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
    fn work_without_an_agent_is_noticed_whoever_comes_first() {
        let control = Control::default();
        assert!(control.begin());
        assert!(control.leave_alone());
        let control = Control::default();
        assert!(!control.leave_alone());
        assert!(!control.begin());
    }
}
