//! Since when this leader has seen what backs off: a pause runs from there, by the monotonic clock.
//!
//! Which work backs off, and for how long, is the store's.

use std::collections::BTreeMap;

use domain::ids::WorkId;

use crate::store::Backoff;

/// So many are remembered beside those of the last look. Beyond it those that it did not find are
/// forgotten, and their pauses begin anew when they are found again.
const MAX_REMEMBERED: usize = 100_000;

#[derive(Debug, Default)]
pub(super) struct Backoffs {
    seen: BTreeMap<WorkId, Seen>,
}

#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_field_names, reason = "all are times, and each says its unit")]
struct Seen {
    /// Its end by the wall clock, which tells this back-off from the one before.
    until_ms: i64,
    pause_ms: u64,
    /// When it was first seen.
    at_ms: u64,
}

impl Seen {
    fn ends_ms(self) -> u64 {
        self.at_ms.saturating_add(self.pause_ms)
    }
}

impl Backoffs {
    /// Of these, that whose pause is over. Where they are not all that backs off, others are remembered
    /// until they come again.
    pub(super) fn due(&mut self, found: Vec<Backoff>, is_all: bool, now_ms: u64) -> Vec<WorkId> {
        let mut known = std::mem::take(&mut self.seen);
        let mut due = Vec::new();
        for Backoff { work, pause_ms, until_ms } in found {
            let seen = match known.remove(&work) {
                Some(seen) if seen.until_ms == until_ms => seen,
                _ => Seen { until_ms, pause_ms, at_ms: now_ms },
            };
            if now_ms >= seen.ends_ms() {
                due.push(work.clone());
            }
            self.seen.insert(work, seen);
        }
        if !is_all && known.len() <= MAX_REMEMBERED {
            self.seen.append(&mut known);
        }
        due
    }

    /// How much of the pause that ends at this time by the wall clock is left; none when that back-off
    /// was not seen yet.
    pub(super) fn left_ms(&self, work: &WorkId, until_ms: i64, now_ms: u64) -> Option<u64> {
        let seen = self.seen.get(work).filter(|seen| seen.until_ms == until_ms)?;
        Some(seen.ends_ms().saturating_sub(now_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(n: usize, until_ms: i64) -> Backoff {
        Backoff { work: format!("r_{n}").parse().unwrap(), pause_ms: 100, until_ms }
    }

    /// Aim: work that others push out of a look does not wait again from its beginning.
    #[test]
    fn a_back_off_that_a_look_leaves_out_goes_on() {
        let mut backoffs = Backoffs::default();
        let work = backoff(1, 7).work;
        assert_eq!(backoffs.due(vec![backoff(1, 7)], true, 0), []);
        assert_eq!(backoffs.due(vec![backoff(2, 6)], false, 50), []);
        assert_eq!(backoffs.left_ms(&work, 7, 50), Some(50));
        assert_eq!(backoffs.due(vec![backoff(1, 7)], false, 100), std::slice::from_ref(&work));
        // Once all was looked at, what was not there backs off no longer.
        assert_eq!(backoffs.due(Vec::new(), true, 101), []);
        assert_eq!(backoffs.left_ms(&work, 7, 101), None);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mut backoffs = Backoffs::default();
        let many = (0..=MAX_REMEMBERED).map(|n| backoff(n, 7)).collect();
        assert_eq!(backoffs.due(many, false, 0), []);
        assert_eq!(backoffs.due(vec![backoff(1, 7)], false, 1), []);
        assert_eq!(backoffs.seen.len(), MAX_REMEMBERED + 1);
        backoffs.due(vec![backoff(MAX_REMEMBERED + 1, 7)], false, 2);
        assert_eq!(backoffs.seen.len(), 1);
    }
}
