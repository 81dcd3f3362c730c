//! Waiting for what may come back: room on a full disk, a store or a scratch folder that cannot be
//! reached. What was to be written is not given up at once, and the attempt neither.
//!
//! Whoever does not want to wait ends the trainer: its agent does when the attempt is to stop.

use std::error::Error;
use std::io;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::ArtifactError;

/// The first pause before another try; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);

/// The longest pause: room that somebody makes is found within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A disk that nobody minds for so long ends the attempt.
const LONGEST_WITHOUT_ROOM: Duration = Duration::from_hours(24);

/// A file system that is shared may show a new object so much later.
const LONGEST_MISSING: Duration = Duration::from_secs(2);

/// The log says so often that it still does not work.
const REPEAT_WORD: Duration = Duration::from_mins(10);

/// For how long an operation is tried again that fails for the machine's or the network's sake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// Reading: an attempt can begin elsewhere as well.
    pub read: Duration,
    /// Writing: what an attempt has done since its last checkpoint is lost when it ends.
    pub write: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { read: Duration::from_mins(1), write: Duration::from_mins(10) }
    }
}

/// Tries to read or write `what`, again and again as long as the disk is full, and for at most
/// `longest` while something cannot be reached. What is damaged is looked at twice.
pub(super) fn patiently<T>(
    runtime: &Runtime,
    what: &str,
    longest: Duration,
    operation: impl FnMut() -> Result<T, ArtifactError>,
) -> Result<T, ArtifactError> {
    let pause = |pause| runtime.block_on(async { tokio::time::sleep(pause).await });
    with_pauses(what, longest, operation, pause)
}

fn with_pauses<T>(
    what: &str,
    longest: Duration,
    mut operation: impl FnMut() -> Result<T, ArtifactError>,
    mut wait: impl FnMut(Duration),
) -> Result<T, ArtifactError> {
    let (mut pause, mut waited, mut say_at) = (FIRST_PAUSE, Duration::ZERO, Duration::ZERO);
    loop {
        let error = match operation() {
            Err(error) if waited < worth_waiting(&error, longest) => error,
            outcome => {
                if outcome.is_ok() && !waited.is_zero() {
                    tracing::info!("`{what}` can be read or written again");
                }
                return outcome;
            }
        };
        if waited >= say_at {
            let is_full = is_disk_full(&error);
            let error: &dyn Error = &error;
            if is_full {
                tracing::warn!(error, "no space left on the disk for `{what}`; waiting for room");
            } else {
                tracing::warn!(error, "could not read or write `{what}`; trying again");
            }
            say_at = waited + REPEAT_WORD;
        }
        wait(pause);
        waited += pause;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// For how long an operation that failed so is tried again.
fn worth_waiting(error: &ArtifactError, longest: Duration) -> Duration {
    match error {
        error if is_disk_full(error) => LONGEST_WITHOUT_ROOM,
        error if error.is_missing() => LONGEST_MISSING.min(longest),
        // It may have been damaged on its way only.
        ArtifactError::WrongSize { .. } | ArtifactError::WrongHash { .. } => {
            FIRST_PAUSE.min(longest)
        }
        ArtifactError::Put { source, .. } if is_answer(source) => Duration::ZERO,
        ArtifactError::Get { .. } | ArtifactError::Put { .. } | ArtifactError::Cache { .. } => {
            longest
        }
        _ => Duration::ZERO,
    }
}

/// Whether a store says no, rather than nothing.
fn is_answer(error: &object_store::Error) -> bool {
    use object_store::Error;
    matches!(error, Error::AlreadyExists { .. } | Error::Precondition { .. })
}

/// Whether somewhere in the chain a disk or a quota says that it is full.
fn is_disk_full(error: &ArtifactError) -> bool {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            use io::ErrorKind::{QuotaExceeded, StorageFull};
            if matches!(error.kind(), StorageFull | QuotaExceeded) {
                return true;
            }
        }
        cause = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_mins(1);

    fn put(kind: io::ErrorKind) -> ArtifactError {
        let source = io::Error::from(kind).into();
        let source = object_store::Error::Generic { store: "test", source };
        ArtifactError::Put { key: "key".to_owned(), source }
    }

    fn full() -> ArtifactError {
        put(io::ErrorKind::StorageFull)
    }

    /// How long an operation that always fails so is tried.
    fn waited(error: impl Fn() -> ArtifactError) -> Duration {
        let mut waited = Duration::ZERO;
        with_pauses("key", MINUTE, || Err::<(), _>(error()), |pause| waited += pause).unwrap_err();
        waited
    }

    #[test]
    fn a_full_disk_is_waited_for_at_a_growing_pace() {
        let (mut n_tries, mut pauses) = (0, Vec::new());
        let write = || {
            n_tries += 1;
            if n_tries > 7 { Ok(()) } else { Err(full()) }
        };
        with_pauses("key", MINUTE, write, |pause| pauses.push(pause.as_millis())).unwrap();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 5000, 5000]);
    }

    #[test]
    fn a_disk_that_stays_full_for_a_day_is_an_error() {
        let waited = waited(full);
        assert!((LONGEST_WITHOUT_ROOM..LONGEST_WITHOUT_ROOM + LONGEST_PAUSE).contains(&waited));
    }

    #[test]
    fn what_cannot_be_reached_is_tried_again_for_a_bounded_time() {
        let limits = MINUTE..MINUTE + LONGEST_PAUSE;
        assert!(limits.contains(&waited(|| put(io::ErrorKind::StaleNetworkFileHandle))));
        let cache = || ArtifactError::Cache {
            path: "cache/x".into(),
            source: io::ErrorKind::ReadOnlyFilesystem.into(),
        };
        assert!(limits.contains(&waited(cache)));
    }

    #[test]
    fn what_is_missing_is_looked_for_shortly_and_what_is_damaged_twice() {
        let missing = || ArtifactError::Get {
            key: "key".to_owned(),
            source: object_store::Error::NotFound { path: "key".into(), source: "gone".into() },
        };
        assert!((LONGEST_MISSING..MINUTE / 10).contains(&waited(missing)));
        let damaged = || ArtifactError::WrongSize { key: "key".to_owned(), expected: 2, found: 1 };
        assert_eq!(waited(damaged), FIRST_PAUSE);
    }

    #[test]
    fn other_errors_are_not_waited_for() {
        assert!(waited(|| ArtifactError::NoFile { name: "file".to_owned() }).is_zero());
    }
}
