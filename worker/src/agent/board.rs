//! Which slot does what. A plain value; `shared` guards it.
//!
//! It starts and stops nothing.

use domain::planted::{Mistake, is_planted};

/// What a slot does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SlotState {
    /// Its trainer is being started.
    Starting,
    /// Its trainer is warm and has nothing to do.
    Free,
    /// It carries out the attempt with this lease token.
    Busy { token: u64 },
}

/// Where an assignment went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Placement {
    /// To this slot.
    Slot(usize),
    /// Nowhere: a slot has it already.
    Duplicate,
    /// Nowhere: no slot is free.
    NoSlot,
}

/// What all slots do.
#[derive(Debug, Clone)]
pub(super) struct Board {
    slots: Vec<SlotState>,
    is_draining: bool,
}

impl Board {
    pub(super) fn new(n_slots: usize) -> Self {
        Self { slots: vec![SlotState::Starting; n_slots], is_draining: false }
    }

    /// How many assignments may come.
    pub(super) fn n_free_slots(&self) -> u32 {
        if self.is_draining {
            return 0;
        }
        let n_free = self.slots.iter().filter(|slot| **slot == SlotState::Free).count();
        u32::try_from(n_free).unwrap_or(u32::MAX)
    }

    /// The leases held here.
    pub(super) fn tokens(&self) -> Vec<u64> {
        let token = |slot: &SlotState| match slot {
            SlotState::Busy { token } => Some(*token),
            SlotState::Starting | SlotState::Free => None,
        };
        self.slots.iter().filter_map(token).collect()
    }

    /// The slot that carries out this attempt.
    pub(super) fn slot_of(&self, token: u64) -> Option<usize> {
        self.slots.iter().position(|slot| *slot == SlotState::Busy { token })
    }

    /// Whether no attempt is left.
    pub(super) fn is_idle(&self) -> bool {
        self.tokens().is_empty()
    }

    /// Whether the worker was told to leave and can.
    pub(super) fn is_drained(&self) -> bool {
        self.is_draining && self.is_idle()
    }

    /// Takes nothing more.
    pub(super) fn drain(&mut self) {
        self.is_draining = true;
    }

    /// Gives an assignment to the first free slot.
    pub(super) fn place(&mut self, token: u64) -> Placement {
        if self.slot_of(token).is_some() && !is_planted(Mistake::AgentRunsTwice) {
            return Placement::Duplicate;
        }
        let free = self.slots.iter().position(|slot| *slot == SlotState::Free);
        match free {
            Some(index) if !self.is_draining => {
                self.slots[index] = SlotState::Busy { token };
                Placement::Slot(index)
            }
            Some(_) | None => Placement::NoSlot,
        }
    }

    /// The slot's trainer is warm. A slot that was given an assignment meanwhile stays busy.
    pub(super) fn ready(&mut self, index: usize) {
        if self.slots[index] == SlotState::Starting {
            self.slots[index] = SlotState::Free;
        }
    }

    /// The slot's idle trainer is gone. A slot that was given an assignment meanwhile stays busy.
    pub(super) fn not_ready(&mut self, index: usize) {
        if self.slots[index] == SlotState::Free {
            self.slots[index] = SlotState::Starting;
        }
    }

    /// The slot's attempt is over.
    pub(super) fn over(&mut self, index: usize) {
        self.slots[index] = SlotState::Starting;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_assignment_goes_to_a_free_slot_once() {
        let mut board = Board::new(2);
        assert_eq!(board.place(1), Placement::NoSlot, "nothing is warm yet");
        board.ready(1);
        assert_eq!(board.n_free_slots(), 1);
        assert_eq!(board.place(1), Placement::Slot(1));
        assert_eq!(board.place(1), Placement::Duplicate);
        assert_eq!(board.place(2), Placement::NoSlot);
        assert_eq!(board.tokens(), [1]);
    }

    #[test]
    fn a_trainer_that_dies_as_its_assignment_comes_does_not_free_the_slot() {
        let mut board = Board::new(1);
        board.ready(0);
        assert_eq!(board.place(1), Placement::Slot(0));
        board.not_ready(0);
        board.ready(0);
        assert_eq!(board.slot_of(1), Some(0));
        board.over(0);
        board.ready(0);
        assert_eq!(board.n_free_slots(), 1);
    }

    #[test]
    fn a_draining_worker_takes_nothing_and_is_drained_when_idle() {
        let mut board = Board::new(2);
        board.ready(0);
        board.ready(1);
        assert_eq!(board.place(1), Placement::Slot(0));
        board.drain();
        assert_eq!(board.n_free_slots(), 0);
        assert_eq!(board.place(2), Placement::NoSlot);
        assert!(!board.is_drained());
        board.over(0);
        assert!(board.is_drained());
    }
}
