//! What can be wrong with a study file, and where.

use std::fmt;

/// A place in a study file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The file's name as given by the user.
    pub file: String,
    /// Line, from 1.
    pub line: u64,
    /// Column, from 1.
    pub column: u64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

/// One thing wrong with a study file: the place, the key's path, and what would be valid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {}{problem}", with_separator(.path))]
pub struct SpecError {
    /// Where it stands.
    pub place: Place,
    /// The key's path, such as `stages[0].recipe.pretrain.model.d_model`; empty for the whole file.
    pub path: String,
    /// What is wrong and what would be valid.
    pub problem: String,
}

fn with_separator(path: &str) -> String {
    if path.is_empty() { String::new() } else { format!("`{path}`: ") }
}
