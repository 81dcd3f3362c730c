//! Rows that make intervals too narrow without being wrong: checkpoints taken for runs, and copies.

use super::read::Row;

/// Checkpoints of one run share its luck; taken for runs they make intervals too narrow.
pub(super) fn warn_of_checkpoints(rows: &[Row], has_sizes: bool) -> Option<String> {
    let mut sizes: Vec<u64> = rows.iter().map(|row| row.observation.parameters.to_bits()).collect();
    sizes.sort_unstable();
    sizes.dedup();
    (has_sizes && sizes.len() < rows.len()).then(|| {
        format!(
            "several of the {} rows have the same N, and without `--run COLUMN` each is a run of \
             its own; if some are checkpoints of one run, the intervals are too narrow",
            rows.len()
        )
    })
}

/// A row that stands twice counts twice, and makes intervals too narrow.
pub(super) fn warn_of_copies(rows: &[Row]) -> Option<String> {
    let mut all: Vec<u128> = rows.iter().map(|row| row.digest).collect();
    all.sort_unstable();
    let n_copies = all.windows(2).filter(|pair| pair[0] == pair[1]).count();
    (n_copies > 0).then(|| {
        let verb = if n_copies == 1 { "is a copy" } else { "are copies" };
        format!("{n_copies} of {} rows {verb} of another row, and count again", rows.len())
    })
}
