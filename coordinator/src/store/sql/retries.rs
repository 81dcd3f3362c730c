//! The retry rules of a piece of work, as its row has them.
//!
//! What the rules say, and what comes of them, is the domain's.

use domain::spec::{RetriesSpec, RetryRules};

use super::convert::{from_json, small, to_json};
use crate::store::StoreError;

/// What is stored of rules beside the number of failures: nothing where that number says them all.
/// It does for nearly all work, whose rows would be longer by a half.
pub(super) fn stored(max_failures: u32, rules: &RetryRules) -> Result<Option<String>, StoreError> {
    if *rules == of_number(max_failures) {
        return Ok(None);
    }
    to_json(rules, "retries_json").map(Some)
}

/// The rules that a row has.
pub(super) fn of_row(max_failures: i64, text: Option<&str>) -> Result<RetryRules, StoreError> {
    match text {
        Some(text) => from_json(text, "retries_json"),
        None => Ok(of_number(small(max_failures))),
    }
}

fn of_number(max_failures: u32) -> RetryRules {
    RetryRules::of(max_failures, RetriesSpec::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_come_back_as_they_were() {
        let own = RetryRules::never();
        for (max_failures, rules) in [(3, of_number(3)), (3, of_number(5)), (1, own)] {
            let text = stored(max_failures, &rules).expect("it is stored");
            assert_eq!(text.is_none(), rules == of_number(max_failures));
            let read = of_row(i64::from(max_failures), text.as_deref()).expect("it is read");
            assert_eq!(read, rules);
        }
    }
}
