//! The study file, version 1, as typed data, and how its text becomes that.
//!
//! It reads no file: the text is an argument. Whether the cells make sense is the planner's question.

mod check;
mod error;
mod fit;
mod located;
mod placement;
mod retries;
mod study;
mod training;

pub use check::{HEAVIEST, LIGHTEST, is_name};
pub use error::{Place, SpecError};
pub use fit::*;
pub use located::Locations;
pub use placement::{DeviceKind, LogAction, LogRule, PlacementSpec, matching_log_rules};
pub use retries::{RetriesSpec, RetryRule, RetryRules};
pub use study::*;
pub use training::*;

use serde_json::Value;

use crate::suggest::nearest;

/// The version of the study file that this build reads.
pub const SPEC_VERSION: u32 = 1;

/// A study file that was read, and where in its text each key stands.
#[derive(Debug, Clone)]
pub struct ParsedSpec {
    /// The study.
    pub spec: StudySpec,
    /// The place of every key, for errors found later.
    pub locations: Locations,
}

/// Reads a study file.
///
/// `file` is its name, for errors only. An unknown key, a wrong type and a value out of range are
/// each one [`SpecError`] with line, column, the key's path and what would be valid.
pub fn parse(text: &str, file: &str) -> Result<ParsedSpec, SpecError> {
    let (value, locations) = located::read(text, file)?;
    check_version(&value, &locations)?;
    let spec: StudySpec =
        serde_path_to_error::deserialize(value).map_err(|error| typed_error(&error, &locations))?;
    spec.check().map_err(|(path, problem)| locations.error(&path, problem))?;
    Ok(ParsedSpec { spec, locations })
}

/// The version is read first: a newer file has keys that this build cannot judge.
fn check_version(value: &Value, locations: &Locations) -> Result<(), SpecError> {
    match value.get("version") {
        Some(version) if version.as_u64() == Some(u64::from(SPEC_VERSION)) => Ok(()),
        Some(version) => Err(locations.error(
            "version",
            format!("`{version}` is not a version that this build reads; it reads {SPEC_VERSION}"),
        )),
        None => Err(locations
            .error("", format!("the key `version` is missing; write `version: {SPEC_VERSION}`"))),
    }
}

/// Turns a type error into one that names the place, and for an unknown name the nearest valid one.
fn typed_error(
    error: &serde_path_to_error::Error<serde_json::Error>,
    locations: &Locations,
) -> SpecError {
    let text = error.inner().to_string();
    let path = error.path().to_string();
    let path = if path == "." { String::new() } else { path };
    let Some((unknown, valid)) = unknown_name(&text) else {
        // `yes` and `on` are texts here, and booleans in YAML 1.1.
        let hint = if text.ends_with("expected a boolean") { ": `true` or `false`" } else { "" };
        return locations.error(&path, text + hint);
    };
    let problem = match nearest(&unknown, valid.iter().map(String::as_str)) {
        Some(name) => format!("{text}; did you mean `{name}`?"),
        None => text.clone(),
    };
    let last = path.rsplit('.').next().unwrap_or_default();
    // serde names the parent for some unknown keys and the key itself for others.
    let path = if text.starts_with("unknown field") && last != unknown {
        if path.is_empty() { unknown } else { format!("{path}.{unknown}") }
    } else {
        path
    };
    locations.error(&path, problem)
}

/// The wrong name and the valid ones in serde's "unknown field" and "unknown variant" messages.
fn unknown_name(text: &str) -> Option<(String, Vec<String>)> {
    if !(text.starts_with("unknown field") || text.starts_with("unknown variant")) {
        return None;
    }
    let mut quoted = text.split('`').skip(1).step_by(2).map(str::to_owned);
    let unknown = quoted.next()?;
    Some((unknown, quoted.collect()))
}

/// The JSON Schema of the study file, for completion in editors.
pub fn json_schema() -> Value {
    schemars::schema_for!(StudySpec).to_value()
}

#[cfg(test)]
mod tests;
