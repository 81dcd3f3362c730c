//! When PostgreSQL is asked to count its tables anew.
//!
//! It plans a statement by what was last counted, and keeps the plan: one that was made while a table
//! was empty reads all of it, also after a study has filled it, until the server's own count up to a
//! minute later. SQLite plans by the indexes alone.

use super::database::{Connection, query};
use super::error::from_driver;
use super::writer::Tx;
use crate::store::StoreError;

/// Fewer new runs are no reason to count.
const FEWEST: u64 = 1000;

/// What a study fills.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filled {
    Work,
    Runs,
    Cells,
}

/// The runs that this writer has entered.
#[derive(Debug, Default)]
pub(super) struct Growth {
    n_counted: u64,
    n_new: u64,
}

impl Growth {
    fn add(&mut self, n_runs: u64) {
        self.n_new += n_runs;
    }

    /// Whether at least as many have come since the last count as there had come before.
    fn is_due(&self) -> bool {
        self.n_new >= self.n_counted.max(FEWEST)
    }

    fn counted(&mut self) {
        self.n_counted += std::mem::take(&mut self.n_new);
    }
}

impl Tx {
    /// So many runs are about to be entered.
    pub(super) fn grows_by(&mut self, n_runs: usize) {
        self.growth.add(n_runs as u64);
    }

    /// A table was filled, the cells last: it is counted where there are many new runs. What is in
    /// this transaction is counted too.
    pub(super) async fn count(&mut self, filled: Filled) -> Result<(), StoreError> {
        if !(self.growth.is_due() && matches!(self.conn, Connection::Postgres(_))) {
            return Ok(());
        }
        let sql = match filled {
            Filled::Work => "ANALYZE work",
            Filled::Runs => "ANALYZE runs",
            Filled::Cells => "ANALYZE cells",
        };
        query(sql).execute(&mut self.conn).await.map_err(from_driver)?;
        if filled == Filled::Cells {
            self.growth.counted();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_is_due_when_the_runs_have_doubled() {
        let mut growth = Growth::default();
        growth.add(FEWEST - 1);
        assert!(!growth.is_due());
        growth.add(1);
        assert!(growth.is_due());
        growth.counted();
        growth.add(FEWEST - 1);
        assert!(!growth.is_due());
        growth.add(1);
        assert!(growth.is_due());
        growth.counted();
        growth.add(2 * FEWEST - 1);
        assert!(!growth.is_due());
    }
}
