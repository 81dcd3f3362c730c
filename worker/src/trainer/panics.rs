//! Keeps the text of a panic, so that it can be told as the end of an attempt.
//!
//! The text goes to standard error too, as always.

use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};

static LAST: Mutex<Option<String>> = Mutex::new(None);

/// Remembers the text and the place of every panic from now on.
pub(super) fn install() {
    let usual = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let text = info.payload_as_str().unwrap_or("a panic without text");
        let place = info.location().map(|place| format!(" at {place}")).unwrap_or_default();
        *LAST.lock().unwrap_or_else(PoisonError::into_inner) = Some(format!("{text}{place}"));
        usual(info);
    }));
}

/// Runs `body`; `Err` with the text when it panics.
pub(super) fn caught<T>(body: impl FnOnce() -> T) -> Result<T, String> {
    // What a panic leaves behind is not used again: the process ends.
    panic::catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        let kept = LAST.lock().unwrap_or_else(PoisonError::into_inner).take();
        let text = payload.downcast_ref::<String>().cloned();
        let text = text.or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        kept.or(text).unwrap_or_else(|| "a panic without text".to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_a_panic_is_kept() {
        assert_eq!(caught(|| 3), Ok(3));
        let text = caught(|| panic!("shape {} is wrong", 7)).unwrap_err();
        assert!(text.contains("shape 7 is wrong"), "{text}");
    }
}
