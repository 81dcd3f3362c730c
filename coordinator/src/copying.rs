//! `gradus-coordinator store copy`: copies a store, whether another process serves it or not.
//!
//! The rows are the store's business.

use api::{StoreCopyView, TableRowsView};

use crate::config::CopyArgs;
use crate::store::{Location, LocationError, StoreError, StoreErrorClass, copy, plan_copy};

/// Why nothing was copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// A text that names no store.
    #[error(transparent)]
    Location(#[from] LocationError),
    /// The source cannot be read, or the target cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl CopyError {
    /// 2 when the command was wrong, 1 when something failed.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Location(_) => 2,
            Self::Store(error) if error.class() == StoreErrorClass::GiveUp => 2,
            Self::Store(_) => 1,
        }
    }
}

/// Copies the store, or says what would be copied.
pub async fn run(args: &CopyArgs) -> Result<StoreCopyView, CopyError> {
    let from: Location = args.from.parse()?;
    let to: Location = args.to.parse()?;
    let tables = if args.dry_run { plan_copy(&from, &to).await? } else { copy(&from, &to).await? };
    let rows = |table: crate::store::TableRows| TableRowsView {
        name: table.name.to_owned(),
        n_rows: table.n_rows,
    };
    Ok(StoreCopyView {
        from: from.to_string(),
        to: to.to_string(),
        is_dry_run: args.dry_run,
        tables: tables.into_iter().map(rows).collect(),
        artifacts: artifacts_of(&from),
    })
}

/// They lie beside a file, unless its coordinator was told otherwise.
fn artifacts_of(from: &Location) -> Option<String> {
    let Location::Sqlite(path) = from else { return None };
    let folder = path.with_file_name("artifacts");
    folder.is_dir().then(|| folder.display().to_string())
}
