//! `gradus store`: copies a store to a file, back from it, or to another database.
//!
//! It knows no database: `gradus-coordinator store copy` does the work.

use std::path::Path;
use std::process::Stdio;

use anyhow::Context as _;
use api::StoreCopyView;
use tokio::process::Command;

use crate::args::{CopyArgs, Global, StoreCommand};
use crate::failure::Failure;
use crate::local::FOLDER;
use crate::output::{Form, note};
use crate::processes::sibling;

/// The exit status of a coordinator that was told something wrong.
const WRONG: i32 = 2;

pub(super) async fn run(global: &Global, command: &StoreCommand) -> Result<(), Failure> {
    let (from, to, flags) = match command {
        StoreCommand::Backup(args) => {
            (database(args.database.as_deref()), file(&args.file), &args.flags)
        }
        StoreCommand::Restore(args) => {
            (file(&args.file), database(args.database.as_deref()), &args.flags)
        }
        StoreCommand::Copy(CopyArgs { from, to, flags }) => (from.clone(), to.clone(), flags),
    };
    if global.coordinator.is_some() {
        note("`--coordinator` is not used: stores are copied where they are");
    }
    let form = Form::of(flags.json, global.quiet);
    let view = copy(&from, &to, flags.dry_run).await?;
    form.print(&view)?;
    if view.is_dry_run {
        form.hint("without `--dry-run` these rows are copied");
    }
    Ok(())
}

fn file(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

/// The store that is named, or this folder's.
fn database(url: Option<&str>) -> String {
    url.map_or_else(|| file(&Path::new(FOLDER).join("store.db")), str::to_owned)
}

async fn copy(from: &str, to: &str, is_dry_run: bool) -> Result<StoreCopyView, Failure> {
    let mut command = Command::new(sibling("gradus-coordinator")?);
    command.args(["store", "copy", "--from", from, "--to", to]);
    if is_dry_run {
        command.arg("--dry-run");
    }
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .context("could not start `gradus-coordinator`")?;
    if output.status.success() {
        let view = serde_json::from_slice(&output.stdout);
        return Ok(view.context("`gradus-coordinator store copy` did not say what it copied")?);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let reason = said.trim().trim_start_matches("error: ").to_owned();
    if output.status.code() == Some(WRONG) {
        Err(Failure::wrong(reason))
    } else {
        Err(Failure::failed(reason))
    }
}
