//! Why data could not be prepared or read.
//!
//! Files are named by what the store calls them; their names on the user's machine are not known
//! here.

use std::path::PathBuf;

/// The text or the tokens are not what training needs.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// A local file could not be read.
    #[error("could not read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not UTF-8.
    #[error("{file} is not UTF-8: the first bad byte is byte {position}")]
    NotUtf8 {
        /// The file, for people.
        file: String,
        /// The position of the first bad byte, from 0.
        position: usize,
    },
    /// A line is no JSON object.
    #[error("{file}, line {line}: not a JSON object")]
    BadLine {
        /// The file, for people.
        file: String,
        /// The line, from 1.
        line: usize,
        /// Where it departs from JSON.
        source: serde_json::Error,
    },
    /// An object lacks the field with the text.
    #[error("{file}, line {line}: there is no text in the field `{field}`")]
    NoText {
        /// The file, for people.
        file: String,
        /// The line, from 1.
        line: usize,
        /// The field.
        field: String,
    },
    /// There is no text at all.
    #[error("the corpus is empty: {n_files} files hold no text")]
    Empty {
        /// How many files there are.
        n_files: usize,
    },
    /// One of the two splits got nothing.
    #[error(
        "the {split} split is empty: the text has {n_blocks} blocks of about 4 KiB, of which \
         `validation_fraction` {validation_fraction} and this seed leave it none; use more text \
         or another fraction"
    )]
    EmptySplit {
        /// `training` or `validation`.
        split: &'static str,
        /// How many blocks the text has.
        n_blocks: u64,
        /// The share that is held out.
        validation_fraction: f64,
    },
    /// The files are not those of the configuration.
    #[error("the sources do not match the configuration: {reason}")]
    OtherSources {
        /// How they differ.
        reason: String,
    },
    /// The tokenizer could not be trained or read.
    #[error("could not {operation} the tokenizer: {reason}")]
    Tokenizer {
        /// What was tried.
        operation: &'static str,
        /// What the library said.
        reason: String,
    },
    /// A shard is shorter than one sequence and its last target.
    #[error(
        "the {split} split has {n_tokens} tokens, too few for one sequence of {sequence_length} \
         and its last target"
    )]
    TooShort {
        /// `training` or `validation`.
        split: &'static str,
        /// The tokens there are.
        n_tokens: u64,
        /// The tokens of a sequence.
        sequence_length: u32,
    },
    /// A shard has an odd number of bytes.
    #[error("the shard `{}` has {n_bytes} bytes, which are no 16-bit tokens", path.display())]
    OddShard {
        /// The file.
        path: PathBuf,
        /// Its size.
        n_bytes: u64,
    },
    /// The data were prepared for another vocabulary than the model has.
    #[error("the data have {data} token ids, the model has {model}")]
    Vocabulary {
        /// Of the data.
        data: u32,
        /// Of the model.
        model: u32,
    },
    /// The data are another preparation's.
    #[error("the data are those of preparation {found} instead of {expected}")]
    OtherPreparation {
        /// The hash in the configuration.
        expected: String,
        /// The hash in the manifest.
        found: String,
    },
}

impl DataError {
    /// Whether the data themselves are not what they should be. Otherwise this machine could not
    /// read them.
    pub fn is_damage(&self) -> bool {
        !matches!(self, Self::Read { .. })
    }
}
