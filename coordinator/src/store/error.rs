//! What can go wrong with the store.
//!
//! It does not hold what is an answer: stale tokens, missing sources and conflicts are replies.

use std::error::Error;
use std::path::PathBuf;

use domain::cell::IdentityError;
use domain::ids::IdError;
use domain::run::TransitionError;

/// What the driver said; kept as a source, so that no type of a driver crosses the boundary.
pub type DriverError = Box<dyn Error + Send + Sync>;

/// An operation on the store that failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file was made by a newer build.
    #[error(
        "the store `{store}` has schema version {found}, this build knows up to {known}; use the \
         newer build that made it"
    )]
    NewerSchema {
        /// Where the store is.
        store: String,
        /// Its newest migration.
        found: i64,
        /// This build's newest migration.
        known: i64,
    },
    /// The file was made by an older build, and a read-only coordinator migrates nothing.
    #[error(
        "the store `{store}` has schema version {found}, this build needs {known}; start it once \
         without `--read-only`"
    )]
    OlderSchema {
        /// Where the store is.
        store: String,
        /// Its newest migration.
        found: i64,
        /// This build's newest migration.
        known: i64,
    },
    /// A read-only coordinator makes no store.
    #[error("there is no store at `{store}`")]
    Absent {
        /// Where it was looked for.
        store: String,
    },
    /// Another coordinator has it.
    #[error("the store `{store}` is in use by another coordinator")]
    InUse {
        /// Where the store is.
        store: String,
    },
    /// Another program has locked it.
    #[error("the store is locked by another program")]
    Locked(#[source] DriverError),
    /// The file is something else.
    #[error("`{}` is not a store: the file is not an SQLite database", .path.display())]
    NotADatabase {
        /// The file.
        path: PathBuf,
    },
    /// A file or folder of the store cannot be made or opened.
    #[error("could not open the store `{}`", .path.display())]
    Open {
        /// The store's file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// A migration failed.
    #[error("could not bring the schema of `{store}` up to date")]
    Migrate {
        /// Where the store is.
        store: String,
        /// Why not.
        #[source]
        source: DriverError,
    },
    /// The disk is full.
    #[error("the disk of the store is full")]
    DiskFull(#[source] DriverError),
    /// The coordinator serves, but changes nothing.
    #[error("this coordinator is read-only")]
    ReadOnly,
    /// Another coordinator leads on this store, or none does at the moment.
    #[error("this coordinator is a standby and changes nothing; ask the one that leads")]
    NotLeading,
    /// The server of the database is gone or restarting.
    #[error("the connection to the database is lost")]
    ConnectionLost(#[source] DriverError),
    /// The coordinator is stopping.
    #[error("the store is closed")]
    Closed,
    /// There is nothing of this identifier or name.
    #[error("there is no {kind} `{id}`")]
    NotFound {
        /// `study`, `run`, …
        kind: &'static str,
        /// As asked for.
        id: String,
    },
    /// The transaction of a batch could not be committed.
    #[error("could not commit: {reason}")]
    Commit {
        /// The driver's words; the error itself goes to the first of the batch.
        reason: String,
    },
    /// The transaction was rolled back for another's sake.
    #[error("{why}")]
    Undone {
        /// Whose.
        why: &'static str,
    },
    /// The state machine has no such transition.
    #[error("could not move `{work}` on")]
    Transition {
        /// The work.
        work: String,
        /// Why not.
        #[source]
        source: TransitionError,
    },
    /// A stored identifier is none.
    #[error("the store holds an identifier that is none")]
    Id(#[source] IdError),
    /// A stored or planned configuration cannot be read or written.
    #[error("the store holds a configuration that this build cannot read")]
    Configuration(#[source] IdentityError),
    /// A stored JSON text cannot be read or written.
    #[error("the store holds a `{what}` that this build cannot read")]
    Json {
        /// Which column or value.
        what: &'static str,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// Stored metric points cannot be read, or new ones cannot be packed.
    #[error("the store holds metric points that this build cannot read")]
    Points(#[source] DriverError),
    /// A coordinator that only reads packs nothing.
    #[error(
        "the store `{store}` has metric points of an older build that are not packed yet; start it \
         once without `--read-only`"
    )]
    OldPoints {
        /// Where the store is.
        store: String,
    },
    /// A copy goes where nothing is.
    #[error(
        "`{store}` is not empty; a copy goes into a file that does not exist or an empty database"
    )]
    NotEmpty {
        /// Where it should have gone.
        store: String,
    },
    /// A copy has not arrived whole; it is undone.
    #[error("of {n_rows} rows of `{table}` {n_found} have arrived in the copy")]
    CopyDiffers {
        /// The table.
        table: &'static str,
        /// How many rows were read.
        n_rows: u64,
        /// How many were found.
        n_found: u64,
    },
    /// Something that our own code promised does not hold.
    #[error("bug: {0}")]
    Bug(String),
    /// Anything else that the driver says.
    #[error("the store failed")]
    Database(#[source] DriverError),
}

/// What a caller may do about an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoreErrorClass {
    /// Try again at once.
    RetryNow,
    /// Try again after a pause.
    RetryLater,
    /// The request cannot succeed.
    GiveUp,
    /// A defect of ours.
    Bug,
}

impl StoreError {
    /// What a caller may do about it.
    pub fn class(&self) -> StoreErrorClass {
        match self {
            Self::Locked(_) => StoreErrorClass::RetryNow,
            Self::DiskFull(_)
            | Self::Closed
            | Self::NotLeading
            | Self::ConnectionLost(_)
            | Self::Commit { .. }
            | Self::Undone { .. }
            | Self::Database(_) => StoreErrorClass::RetryLater,
            Self::NewerSchema { .. }
            | Self::OlderSchema { .. }
            | Self::OldPoints { .. }
            | Self::NotEmpty { .. }
            | Self::Absent { .. }
            | Self::InUse { .. }
            | Self::NotADatabase { .. }
            | Self::Open { .. }
            | Self::Migrate { .. }
            | Self::ReadOnly
            | Self::NotFound { .. } => StoreErrorClass::GiveUp,
            Self::Transition { .. }
            | Self::Id(_)
            | Self::Configuration(_)
            | Self::Json { .. }
            | Self::Points(_)
            | Self::CopyDiffers { .. }
            | Self::Bug(_) => StoreErrorClass::Bug,
        }
    }
}
