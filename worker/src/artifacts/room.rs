//! Waiting for room on a disk that is full: what was to be written is not given up, and the attempt
//! neither.
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
const LONGEST_WAIT: Duration = Duration::from_hours(24);

/// The log says so often that there is still no room.
const REPEAT_WORD: Duration = Duration::from_mins(10);

/// Tries to write `what`, again and again as long as the disk is full.
pub(super) fn when_there_is_room<T>(
    runtime: &Runtime,
    what: &str,
    write: impl FnMut() -> Result<T, ArtifactError>,
) -> Result<T, ArtifactError> {
    let pause = |pause| runtime.block_on(async { tokio::time::sleep(pause).await });
    with_pauses(what, write, pause)
}

fn with_pauses<T>(
    what: &str,
    mut write: impl FnMut() -> Result<T, ArtifactError>,
    mut wait: impl FnMut(Duration),
) -> Result<T, ArtifactError> {
    let (mut pause, mut waited, mut say_at) = (FIRST_PAUSE, Duration::ZERO, Duration::ZERO);
    loop {
        let error = match write() {
            Err(error) if is_disk_full(&error) && waited < LONGEST_WAIT => error,
            outcome => {
                if outcome.is_ok() && !waited.is_zero() {
                    tracing::info!("there is room again; `{what}` is written");
                }
                return outcome;
            }
        };
        if waited >= say_at {
            let error: &dyn Error = &error;
            tracing::warn!(error, "no space left on the disk for `{what}`; waiting for room");
            say_at = waited + REPEAT_WORD;
        }
        wait(pause);
        waited += pause;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
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

    fn full() -> ArtifactError {
        let source = io::Error::from(io::ErrorKind::StorageFull).into();
        let source = object_store::Error::Generic { store: "test", source };
        ArtifactError::Put { key: "key".to_owned(), source }
    }

    #[test]
    fn a_full_disk_is_waited_for_at_a_growing_pace() {
        let (mut n_tries, mut pauses) = (0, Vec::new());
        let write = || {
            n_tries += 1;
            if n_tries > 7 { Ok(()) } else { Err(full()) }
        };
        with_pauses("key", write, |pause| pauses.push(pause.as_millis())).unwrap();
        assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 5000, 5000]);
    }

    #[test]
    fn a_disk_that_stays_full_for_a_day_is_an_error() {
        let mut waited = Duration::ZERO;
        let error =
            with_pauses("key", || Err::<(), _>(full()), |pause| waited += pause).unwrap_err();
        assert!(is_disk_full(&error), "{error}");
        assert!(waited >= LONGEST_WAIT && waited < LONGEST_WAIT + LONGEST_PAUSE);
    }

    #[test]
    fn other_errors_are_not_waited_for() {
        let missing = || ArtifactError::NoFile { name: "file".to_owned() };
        let outcome = with_pauses("key", || Err::<(), _>(missing()), |_| panic!("a pause"));
        assert!(matches!(outcome, Err(ArtifactError::NoFile { .. })));
    }
}
