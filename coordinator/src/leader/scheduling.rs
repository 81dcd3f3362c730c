//! What the dispatcher remembers between two looks: turns, the gang that waits, how far it read.
//!
//! What follows from it is the policy's.

use domain::ids::WorkId;

use super::Leader;
use crate::scheduler::policy::{LetPass, Placement, Snapshot};
use crate::scheduler::seats::Reservation;
use crate::scheduler::turns::Turns;

/// A look behind the head of the queue that found nothing is not repeated for so long: it reads more
/// than any other, and each end of an attempt would ask for one.
const READ_ON_PAUSE_MS: u64 = 100;

/// From which page the next look behind the head of the queue reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextPage {
    /// Whenever it comes.
    Now(u32),
    /// After a pause.
    Soon(u32),
}

impl Leader {
    /// A look at the queue begins: until it has ended, something may be queued.
    pub fn begin_look(&self) {
        self.lock().may_have_queued = true;
    }

    /// A look at the whole queue found something, or nothing.
    pub fn end_look(&self, has_queued: bool) {
        self.lock().may_have_queued = has_queued;
    }

    /// Whether something may be queued, so that a slot that becomes free is to be looked at. What is
    /// queued later is told to the dispatcher by itself.
    pub fn may_have_queued(&self) -> bool {
        self.lock().may_have_queued
    }

    /// Whose turn it is. A starting leader begins the turns anew.
    pub fn turns(&self) -> Turns {
        self.lock().turns.clone()
    }

    /// Of a snapshot's queue this work was granted, and takes turns.
    pub fn take_turns<'a>(&self, snapshot: &Snapshot, granted: impl Iterator<Item = &'a WorkId>) {
        snapshot.serve(&mut self.lock().turns, granted);
    }

    /// From which page of the queue a look may read on now; none so soon after one in vain.
    pub fn page_to_read(&self) -> Option<u32> {
        let now_ms = self.clock.monotonic_ms();
        let (page, from_ms) = self.lock().next_page;
        (now_ms >= from_ms).then_some(page)
    }

    /// A look has read on.
    pub fn read_pages(&self, next: NextPage) {
        let now_ms = self.clock.monotonic_ms();
        self.lock().next_page = match next {
            NextPage::Now(page) => (page, now_ms),
            NextPage::Soon(page) => (page, now_ms + READ_ON_PAUSE_MS),
        };
    }

    /// What went before the gang that waits first.
    pub fn let_pass(&self) -> Option<LetPass> {
        self.lock().let_pass.clone()
    }

    /// What the last tick kept for the gang that waits first.
    pub fn kept(&self) -> Option<Reservation> {
        self.lock().kept.clone()
    }

    /// A tick keeps so much for the gang that waits first. With nothing kept one may still wait:
    /// others had taken all slots before its turn came.
    pub fn keep(&self, kept: Option<Reservation>) {
        let mut inner = self.lock();
        if let Some(Reservation { work, .. }) = &kept
            && inner.let_pass.as_ref().is_none_or(|passed| passed.work != *work)
        {
            inner.let_pass = Some(LetPass { work: work.clone(), n_passed: 0 });
        }
        inner.kept = kept;
    }

    /// Of what was granted so much went before the gang that waits first. A starting leader counts
    /// anew.
    pub fn passed(&self, placements: &[Placement]) {
        let mut inner = self.lock();
        let has_begun =
            |passed: &LetPass| placements.iter().any(|placement| placement.work == passed.work);
        if inner.let_pass.as_ref().is_some_and(has_begun) {
            inner.let_pass = None;
        }
        if let Some(LetPass { work, n_passed }) = &mut inner.let_pass {
            let is_passing = |placement: &&Placement| placement.passes.as_ref() == Some(&*work);
            let n_now = placements.iter().filter(is_passing).count();
            *n_passed = n_passed.saturating_add(u32::try_from(n_now).unwrap_or(u32::MAX));
        }
    }
}
