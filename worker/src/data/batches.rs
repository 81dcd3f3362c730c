//! Which windows of the training split a step takes: a pure function of (seed, step).
//!
//! Sequence j of step s is number s·batch + j of an endless list of epochs, each a permutation of all
//! windows, so that a resumed run needs no state to go on.

use super::{DataError, Permutation, Shard};

/// The batches of a run.
#[derive(Debug)]
pub struct Batches {
    shard: Shard,
    sequence_length: u32,
    batch_sequences: u32,
    seed: u32,
    n_windows: u64,
    /// The epoch of the last batch, kept because making a permutation costs a hash.
    epoch: u64,
    permutation: Permutation,
}

/// The token ids of one step: rows of `sequence_length` + 1, one after the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    /// The ids.
    pub ids: Vec<i64>,
    /// How many rows.
    pub n_sequences: u32,
    /// How long a row is, its last target included.
    pub row: u32,
}

impl Batches {
    /// The batches over a training shard; refuses one that is shorter than a sequence.
    pub fn new(
        shard: Shard,
        sequence_length: u32,
        batch_sequences: u32,
        seed: u32,
    ) -> Result<Self, DataError> {
        let n_windows = shard.n_windows(sequence_length);
        if n_windows == 0 {
            let n_tokens = shard.n_tokens();
            return Err(DataError::TooShort { split: "training", n_tokens, sequence_length });
        }
        let permutation = Permutation::new(n_windows, seed, 0);
        Ok(Self { shard, sequence_length, batch_sequences, seed, n_windows, epoch: 0, permutation })
    }

    /// How many windows an epoch has.
    pub fn n_windows(&self) -> u64 {
        self.n_windows
    }

    /// The batch of a step, counted from 0.
    pub fn load(&mut self, step: u64) -> Result<Batch, DataError> {
        let row = self.sequence_length + 1;
        let mut ids = Vec::with_capacity(self.batch_sequences as usize * row as usize);
        let first = step * u64::from(self.batch_sequences);
        for number in first..first + u64::from(self.batch_sequences) {
            let window = self.window(number);
            self.shard.read_window(window, self.sequence_length, &mut ids)?;
        }
        Ok(Batch { ids, n_sequences: self.batch_sequences, row })
    }

    fn window(&mut self, number: u64) -> u64 {
        let epoch = number / self.n_windows;
        if epoch != self.epoch {
            self.permutation = Permutation::new(self.n_windows, self.seed, epoch);
            self.epoch = epoch;
        }
        self.permutation.at(number % self.n_windows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::shard::tests::counting;

    /// First tokens of the windows of some steps, over 101 windows of 4 tokens.
    fn first_tokens(seed: u32, steps: std::ops::Range<u64>) -> Vec<i64> {
        let directory = tempfile::tempdir().unwrap();
        let mut batches = Batches::new(counting(directory.path(), 405), 4, 7, seed).unwrap();
        assert_eq!(batches.n_windows(), 101);
        let mut found = Vec::new();
        for step in steps {
            let batch = batches.load(step).unwrap();
            assert_eq!((batch.n_sequences, batch.row, batch.ids.len()), (7, 5, 35));
            for row in batch.ids.chunks(5) {
                assert_eq!(row, (row[0]..row[0] + 5).collect::<Vec<_>>());
                found.push(row[0]);
            }
        }
        found
    }

    #[test]
    fn every_window_comes_once_in_each_epoch() {
        let found = first_tokens(1, 0..303);
        let epochs: Vec<Vec<i64>> = found.chunks_exact(101).map(<[i64]>::to_vec).collect();
        assert_ne!(epochs[0], epochs[1]);
        for mut epoch in epochs {
            epoch.sort_unstable();
            assert_eq!(epoch, (0..101).map(|window| window * 4).collect::<Vec<i64>>());
        }
    }

    #[test]
    fn a_resumed_run_sees_what_an_undisturbed_one_sees() {
        let whole = first_tokens(1, 0..60);
        assert_eq!(first_tokens(1, 23..60), whole[23 * 7..]);
        // Also when the steps are visited backwards.
        assert_eq!(first_tokens(1, 3..4), whole[21..28]);
    }

    #[test]
    fn two_seeds_differ() {
        assert_ne!(first_tokens(1, 0..10), first_tokens(2, 0..10));
    }

    #[test]
    fn a_shard_shorter_than_a_sequence_is_refused_with_numbers() {
        let directory = tempfile::tempdir().unwrap();
        let error = Batches::new(counting(directory.path(), 4), 4, 1, 0).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the training split has 4 tokens, too few for one sequence of 4 and its last target"
        );
    }
}
