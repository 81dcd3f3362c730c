//! How the coordinator was started: the flags, and the one struct they become, checked once.
//!
//! It reads the token file and nothing else; no other module reads flags or the environment.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Parser, Subcommand};
use domain::spec::{HEAVIEST, LIGHTEST};
use domain::tokens::{Tokens, TokensError, is_user_name};

use crate::store::{Location, LocationError};

/// The flags of `gradus-coordinator`.
#[derive(Debug, Clone, Parser)]
#[command(
    name = "gradus-coordinator",
    version,
    about = "Plans studies and leases their runs to workers",
    args_conflicts_with_subcommands = true
)]
pub struct Args {
    /// The store, as `sqlite:PATH` or `postgres://USER@HOST/DATABASE`.
    #[arg(long, default_value = "sqlite:./.gradus/store.db", value_name = "URL")]
    pub database: String,
    /// The artifact store: a directory or a `file://` URI; by default `artifacts` beside an SQLite
    /// store, and needed with PostgreSQL.
    #[arg(long, value_name = "PATH")]
    pub artifacts: Option<String>,
    /// Where HTTP is served.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    pub listen: SocketAddr,
    /// Where gRPC for workers is served.
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    pub grpc_listen: SocketAddr,
    /// A file that gets both addresses as JSON once they are bound, and is removed at the end.
    #[arg(long, value_name = "PATH")]
    pub endpoint_file: Option<PathBuf>,
    /// Serve what is there, change nothing, take no workers.
    #[arg(long)]
    pub read_only: bool,
    /// How long a lease lives without a renewal.
    #[arg(long, default_value_t = 15_000, value_name = "MILLISECONDS")]
    pub lease_term_ms: u64,
    /// A file with the bearer token that every caller must show, or with a line `NAME TOKEN` for each
    /// user; needed to listen beyond loopback.
    #[arg(long, value_name = "PATH")]
    pub token_file: Option<PathBuf>,
    /// The share of a user among those whose studies have one priority; 1 by default. May be repeated.
    #[arg(long, value_name = "NAME=WEIGHT")]
    pub user_weight: Vec<String>,
    /// Stop when standard input closes, so that the coordinator dies with its parent.
    #[arg(long)]
    pub exit_with_parent: bool,
    /// What to do instead of serving.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do instead of serving.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Work on a store where it is
    #[command(subcommand)]
    Store(StoreCommand),
}

/// Work on a store where it is.
#[derive(Debug, Clone, Subcommand)]
pub enum StoreCommand {
    /// Copy a store, whether it is in use or not, and print what was copied as JSON
    Copy(CopyArgs),
}

/// The flags of `gradus-coordinator store copy`.
#[derive(Debug, Clone, clap::Args)]
pub struct CopyArgs {
    /// The store, as `sqlite:PATH` or `postgres://USER@HOST/DATABASE`
    #[arg(long, value_name = "URL")]
    pub from: String,
    /// A file that does not exist, or an empty database
    #[arg(long, value_name = "URL")]
    pub to: String,
    /// Say what would be copied and write nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// The shortest lease term: below it a heartbeat's round trip is no longer small beside the term.
const SHORTEST_LEASE_TERM_MS: u64 = 100;

/// The longest lease term: a lost worker must be noticed within the hour.
const LONGEST_LEASE_TERM_MS: u64 = 3_600_000;

/// So many heartbeats fit into a lease term, so that two lost ones cost nothing.
const HEARTBEATS_PER_TERM: u64 = 4;

/// How the coordinator runs. Every field was checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the store is.
    pub database: Location,
    /// The directory of the artifact store.
    pub artifacts: PathBuf,
    /// Where HTTP is served; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where gRPC is served; port 0 takes a free one.
    pub grpc_listen: SocketAddr,
    /// The file that announces both addresses.
    pub endpoint_file: Option<PathBuf>,
    /// Whether every change is refused.
    pub is_read_only: bool,
    /// How long a lease lives without a renewal.
    pub lease_term_ms: u64,
    /// The bearer tokens of which callers must show one.
    pub tokens: Option<Tokens>,
    /// The shares of users that are not 1.
    pub user_weights: BTreeMap<String, f64>,
    /// Whether the end of standard input ends the coordinator.
    pub exits_with_parent: bool,
}

/// Why the flags do not make a configuration. The exit status is 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Another kind of store.
    #[error(transparent)]
    Database(#[from] LocationError),
    /// A store that is no file has no folder beside it.
    #[error("a store in PostgreSQL needs `--artifacts PATH` for checkpoints and data")]
    NoArtifacts,
    /// Another kind of artifact store.
    #[error("`{uri}` is not an artifact store of this build; expected a directory or `file:///…`")]
    Artifacts {
        /// As given.
        uri: String,
    },
    /// Everybody on the network could change studies.
    #[error(
        "refusing to listen on `{address}` without `--token-file`: it is not a loopback address"
    )]
    OpenListen {
        /// As given.
        address: SocketAddr,
    },
    /// The token cannot be read.
    #[error("could not read the token file `{}`", .path.display())]
    TokenFile {
        /// Its path.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// It is no token file; an empty one would let everybody in.
    #[error("the token file `{}` {source}", .path.display())]
    Tokens {
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        source: TokensError,
    },
    /// A share that says nothing.
    #[error(
        "`--user-weight {given}` is out of range: expected `NAME=WEIGHT`, a user's name and \
         {LIGHTEST} to {HEAVIEST}"
    )]
    UserWeight {
        /// As given.
        given: String,
    },
    /// A lease term that cannot work.
    #[error(
        "`--lease-term-ms {given}` is out of range: expected {SHORTEST_LEASE_TERM_MS} to \
         {LONGEST_LEASE_TERM_MS}"
    )]
    LeaseTerm {
        /// As given.
        given: u64,
    },
}

impl Config {
    /// Checks the flags.
    pub fn from_args(args: Args) -> Result<Self, ConfigError> {
        let database: Location = args.database.parse()?;
        let artifacts = match (&args.artifacts, &database) {
            (Some(uri), _) => artifacts_path(uri)?,
            (None, Location::Sqlite(path)) => {
                path.parent().unwrap_or(Path::new("")).join("artifacts")
            }
            (None, Location::Postgres(_) | Location::Memory(_)) => {
                return Err(ConfigError::NoArtifacts);
            }
        };
        let tokens = args.token_file.as_deref().map(read_tokens).transpose()?;
        let user_weights =
            args.user_weight.iter().map(|given| user_weight(given)).collect::<Result<_, _>>()?;
        for address in [args.listen, args.grpc_listen] {
            if tokens.is_none() && !address.ip().is_loopback() {
                return Err(ConfigError::OpenListen { address });
            }
        }
        if !(SHORTEST_LEASE_TERM_MS..=LONGEST_LEASE_TERM_MS).contains(&args.lease_term_ms) {
            return Err(ConfigError::LeaseTerm { given: args.lease_term_ms });
        }
        Ok(Self {
            database,
            artifacts,
            listen: args.listen,
            grpc_listen: args.grpc_listen,
            endpoint_file: args.endpoint_file,
            is_read_only: args.read_only,
            lease_term_ms: args.lease_term_ms,
            tokens,
            user_weights,
            exits_with_parent: args.exit_with_parent,
        })
    }

    /// A configuration for tests: everything below one directory, free ports, no token.
    pub fn for_directory(directory: &Path) -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            database: Location::Sqlite(directory.join("store.db")),
            artifacts: directory.join("artifacts"),
            listen: loopback,
            grpc_listen: loopback,
            endpoint_file: None,
            is_read_only: false,
            lease_term_ms: 15_000,
            tokens: None,
            user_weights: BTreeMap::new(),
            exits_with_parent: false,
        }
    }

    /// How often a worker sends heartbeats.
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis((self.lease_term_ms / HEARTBEATS_PER_TERM).max(1))
    }
}

fn artifacts_path(uri: &str) -> Result<PathBuf, ConfigError> {
    let unknown = || ConfigError::Artifacts { uri: uri.to_owned() };
    if uri.starts_with("file:") {
        let url = url::Url::parse(uri).map_err(|_| unknown())?;
        return url.to_file_path().map_err(|()| unknown());
    }
    if uri.is_empty() || uri.contains("://") { Err(unknown()) } else { Ok(PathBuf::from(uri)) }
}

fn read_tokens(path: &Path) -> Result<Tokens, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::TokenFile { path: path.to_owned(), source })?;
    Tokens::parse(&text).map_err(|source| ConfigError::Tokens { path: path.to_owned(), source })
}

fn user_weight(given: &str) -> Result<(String, f64), ConfigError> {
    let bad = || ConfigError::UserWeight { given: given.to_owned() };
    let (name, weight) = given.split_once('=').ok_or_else(bad)?;
    let weight: f64 = weight.parse().map_err(|_| bad())?;
    if is_user_name(name) && (LIGHTEST..=HEAVIEST).contains(&weight) {
        Ok((name.to_owned(), weight))
    } else {
        Err(bad())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(flags: &[&str]) -> Result<Config, ConfigError> {
        Config::from_args(Args::parse_from([&["gradus-coordinator"], flags].concat()))
    }

    #[test]
    fn artifacts_lie_beside_the_store_by_default() {
        let config = parse(&["--database", "sqlite:/x/store.db"]).unwrap();
        assert_eq!(config.artifacts, PathBuf::from("/x/artifacts"));
    }

    #[test]
    fn a_listen_beyond_loopback_without_a_token_is_refused() {
        for flag in ["--listen", "--grpc-listen"] {
            let error = parse(&[flag, "0.0.0.0:0"]).unwrap_err();
            assert!(matches!(error, ConfigError::OpenListen { .. }), "{error}");
        }
    }

    #[test]
    fn a_token_opens_other_addresses_and_an_empty_one_does_not() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let flags = ["--listen", "0.0.0.0:0", "--token-file", file.path().to_str().unwrap()];
        assert!(matches!(parse(&flags), Err(ConfigError::Tokens { .. })));
        std::fs::write(file.path(), "secret\n").unwrap();
        assert_eq!(parse(&flags).unwrap().tokens, Some(Tokens::shared("secret")));
    }

    #[test]
    fn a_users_weight_is_a_name_and_a_number_in_range() {
        let config = parse(&["--user-weight", "ada=2", "--user-weight", "bob=0.5"]).unwrap();
        assert_eq!(config.user_weights, BTreeMap::from([("ada".into(), 2.0), ("bob".into(), 0.5)]));
        for bad in ["ada", "ada=0", "ada=x", "=1", "a b=1", "ada=nan"] {
            let error = parse(&["--user-weight", bad]).unwrap_err();
            assert!(matches!(error, ConfigError::UserWeight { .. }), "{error}");
        }
    }

    #[test]
    fn another_database_is_refused() {
        assert!(matches!(parse(&["--database", "mysql://x"]), Err(ConfigError::Database(_))));
    }

    #[test]
    fn a_store_on_a_server_needs_a_place_for_artifacts() {
        let database = ["--database", "postgres://gradus@localhost/gradus"];
        assert!(matches!(parse(&database), Err(ConfigError::NoArtifacts)));
        let config = parse(&[&database[..], &["--artifacts", "/x"]].concat()).unwrap();
        assert_eq!(config.artifacts, PathBuf::from("/x"));
    }
}
