//! The agent's configuration, validated once.
//!
//! It reads no environment and starts nothing.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use domain::tokens::{Tokens, TokensError};

use crate::cli::{DeviceChoice, RunArgs};
use crate::device;

/// What the agent needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// The gRPC addresses of the coordinators, of which one leads.
    pub coordinators: Vec<String>,
    /// The worker's name for people.
    pub name: String,
    /// How many attempts at a time.
    pub n_slots: NonZeroU32,
    /// Intra-op threads of each slot's trainer.
    pub threads_per_slot: NonZeroU32,
    /// What the trainers may compute on.
    pub device: DeviceChoice,
    /// Folder with the CUDA half of libtorch, if it is not where the trainer's libtorch lies.
    pub libtorch: Option<PathBuf>,
    /// Folder for files that may be lost; each slot has its own below it.
    pub scratch: PathBuf,
    /// What placement may ask for, beside what the machine is.
    pub labels: BTreeMap<String, String>,
    /// The bearer token, if the coordinator asks for one.
    pub token: Option<String>,
    /// The program started as trainer, as `PROGRAM trainer …`.
    pub trainer: PathBuf,
    /// Whether the end of standard input means stop.
    pub exit_with_parent: bool,
    /// How long checkpoints may take when the worker is told to stop.
    pub preempt_deadline: Duration,
    /// How long a trainer may take to give up an attempt before it is killed.
    pub stop_grace: Duration,
    /// How much each slot may keep on disk of what it cannot report.
    pub spill_bytes: u64,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The coordinator's address is not one.
    #[error("`--coordinator {address}` is no address such as `http://127.0.0.1:4000`")]
    Coordinator {
        /// The text as given.
        address: String,
    },
    /// The token file cannot be read.
    #[error("could not read the token file `{path}`", path = path.display())]
    TokenFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The token file holds no usable token.
    #[error("the token file `{path}` {source}", path = path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: TokensError,
    },
    /// The scratch folder cannot be made.
    #[error("could not make the scratch folder `{path}`", path = path.display())]
    Scratch {
        /// The folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// This program cannot find itself to start its trainers.
    #[error("could not find this program's own file")]
    OwnProgram(#[source] io::Error),
}

impl Config {
    /// The configuration that the arguments ask for. Makes the scratch folder.
    pub fn new(args: RunArgs) -> Result<Self, ConfigError> {
        if let Some(address) = args.coordinator.iter().find(|address| !is_address(address)) {
            return Err(ConfigError::Coordinator { address: address.clone() });
        }
        let token = args.token_file.as_deref().map(read_token).transpose()?;
        let scratch = make_folder(args.scratch)?;
        let trainer = match args.trainer {
            Some(path) => path,
            None => std::env::current_exe().map_err(ConfigError::OwnProgram)?,
        };
        let n_slots = NonZeroU32::new(args.slots).unwrap_or(NonZeroU32::MIN);
        let threads_per_slot = args
            .threads
            .and_then(NonZeroU32::new)
            .unwrap_or_else(|| device::threads_per_slot(device::n_cores(), n_slots));
        Ok(Self {
            coordinators: args.coordinator,
            // Unique by default.
            name: args
                .name
                .unwrap_or_else(|| format!("{}-{}", device::hostname(), std::process::id())),
            n_slots,
            threads_per_slot,
            device: args.device,
            libtorch: args.libtorch,
            scratch,
            labels: args.label.into_iter().collect(),
            token,
            trainer,
            exit_with_parent: args.exit_with_parent,
            preempt_deadline: Duration::from_millis(args.preempt_deadline_ms),
            stop_grace: Duration::from_millis(args.stop_grace_ms),
            spill_bytes: u64::from(args.spill_mib) << 20,
        })
    }
}

fn is_address(text: &str) -> bool {
    url::Url::parse(text)
        .is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.host().is_some())
}

fn read_token(path: &Path) -> Result<String, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::TokenFile { path: path.to_owned(), source })?;
    Tokens::parse(&text)
        .and_then(Tokens::only)
        .map_err(|source| ConfigError::Token { path: path.to_owned(), source })
}

/// The absolute path of the folder: trainers may have another working directory one day.
fn make_folder(path: PathBuf) -> Result<PathBuf, ConfigError> {
    match std::fs::create_dir_all(&path).and_then(|()| path.canonicalize()) {
        Ok(absolute) => Ok(absolute),
        Err(source) => Err(ConfigError::Scratch { path, source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_scheme_and_host() {
        assert!(is_address("http://127.0.0.1:4000"));
        for text in ["127.0.0.1:4000", "ftp://host", "http://", ""] {
            assert!(!is_address(text), "{text}");
        }
    }

    #[test]
    fn a_token_is_trimmed_and_an_empty_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        std::fs::write(&path, "secret\n").unwrap();
        assert_eq!(read_token(&path).unwrap(), "secret");
        std::fs::write(&path, " \n").unwrap();
        assert!(matches!(read_token(&path), Err(ConfigError::Token { .. })));
    }
}
