//! Identifiers: one newtype each, with a short prefix, so that no two kinds can be mixed up.
//!
//! It does not make random identifiers; whoever has randomness passes the text in.

use std::fmt;
use std::str::FromStr;

/// The longest identifier accepted, in bytes: long enough for every kind, short enough for a key.
const MAX_ID_BYTES: usize = 64;

/// The characters of a content hash kept in a short identifier: 64 bits, so that a store of a
/// million runs meets a collision with a probability below 1e-7.
const SHORT_HASH_CHARS: usize = 16;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a {kind}: expected `{prefix}` and then letters, digits, `-` or `_`")]
pub struct IdError {
    /// What the text was read as.
    pub kind: &'static str,
    /// How such an identifier starts.
    pub prefix: &'static str,
    /// The text as given.
    pub text: String,
}

fn is_well_formed(text: &str, prefix: &str) -> bool {
    text.len() <= MAX_ID_BYTES
        && text.strip_prefix(prefix).is_some_and(|rest| {
            !rest.is_empty()
                && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
        })
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $kind:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// How every identifier of this kind starts.
            pub const PREFIX: &'static str = $prefix;

            /// The identifier that belongs to a content hash (hexadecimal).
            pub fn from_hash(hash: &ContentHash) -> Self {
                Self(format!("{}{}", $prefix, &hash.as_str()[..SHORT_HASH_CHARS]))
            }

            /// The identifier as text, prefix included.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                if is_well_formed(text, $prefix) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err(IdError { kind: $kind, prefix: $prefix, text: text.to_owned() })
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id!(
    /// One study in one store.
    StudyId,
    "study id",
    "s_"
);
text_id!(
    /// One run: the one execution of an identity in a store. Made from the identity's hash, so the
    /// same configuration has the same run identifier everywhere.
    RunId,
    "run id",
    "r_"
);
text_id!(
    /// One data preparation: tokenizer and token shards of given sources.
    PreparationId,
    "preparation id",
    "p_"
);
text_id!(
    /// One evaluation: a task with its options on one checkpoint's weights.
    EvaluationId,
    "evaluation id",
    "e_"
);
text_id!(
    /// One registration of a worker.
    WorkerId,
    "worker id",
    "w_"
);
text_id!(
    /// One stored fit.
    FitId,
    "fit id",
    "f_"
);

/// A BLAKE3 hash as 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(String);

impl ContentHash {
    /// The hash of some bytes.
    ///
    /// ```
    /// let hash = domain::ids::ContentHash::of(b"gradus");
    /// assert_eq!(hash.as_str().len(), 64);
    /// ```
    pub fn of(bytes: &[u8]) -> Self {
        Self(blake3::hash(bytes).to_hex().to_string())
    }

    /// The digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<blake3::Hash> for ContentHash {
    fn from(hash: blake3::Hash) -> Self {
        Self(hash.to_hex().to_string())
    }
}

impl FromStr for ContentHash {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let is_hash =
            text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        if is_hash {
            Ok(Self(text.to_owned()))
        } else {
            Err(IdError { kind: "content hash", prefix: "", text: text.to_owned() })
        }
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The thing an assignment is about: what is granted, leased and retried.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum WorkId {
    /// Train a run.
    Run(RunId),
    /// Evaluate a checkpoint.
    Evaluation(EvaluationId),
    /// Prepare data.
    Preparation(PreparationId),
}

impl WorkId {
    /// The identifier as text; its prefix says which kind it is.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Run(id) => id.as_str(),
            Self::Evaluation(id) => id.as_str(),
            Self::Preparation(id) => id.as_str(),
        }
    }

    /// The kind's label, as in the store and on the wire.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Run(_) => "run",
            Self::Evaluation(_) => "evaluation",
            Self::Preparation(_) => "preparation",
        }
    }
}

impl FromStr for WorkId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        RunId::from_str(text)
            .map(Self::Run)
            .or_else(|_| EvaluationId::from_str(text).map(Self::Evaluation))
            .or_else(|_| PreparationId::from_str(text).map(Self::Preparation))
            .map_err(|_| IdError { kind: "work id", prefix: "r_, e_ or p_", text: text.to_owned() })
    }
}

impl fmt::Display for WorkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Fences every write of an attempt: it only grows within a store, and the highest of a run wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseToken(pub u64);

impl fmt::Display for LeaseToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The attempts of a run, numbered from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AttemptNumber(pub u32);

impl fmt::Display for AttemptNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_keeps_its_kind() {
        assert!("r_0123".parse::<RunId>().is_ok());
        assert_eq!("w_0123".parse::<RunId>().unwrap_err().prefix, "r_");
        assert!(matches!("e_1".parse::<WorkId>(), Ok(WorkId::Evaluation(_))));
    }

    #[test]
    fn a_path_is_no_identifier() {
        for text in ["r_", "r_../x", "r_a/b", "", "r_ä"] {
            assert!(text.parse::<RunId>().is_err(), "{text}");
        }
    }
}
