//! `gradus demo`: the demo study from nothing to its fitted table.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use api::ApplyView;

use super::{apply, fit, up};
use crate::args::{DemoArgs, Global};
use crate::failure::Failure;
use crate::output::{Form, data, format, note};
use crate::progress::{follow, verdict};
use crate::sources::{Study, read_study};

/// Where the study is in the project.
const STUDY_FILE: &str = "studies/demo.yaml";

pub(super) async fn run(global: &Global, args: &DemoArgs) -> Result<(), Failure> {
    // A missing text is found before anything is started.
    let study = read_demo(args.study_file.as_deref())?;
    let mut local = up::start(global, &args.up).await?;
    if !global.quiet {
        note(&format!("dashboard: {}", local.client.address()));
    }
    let client = local.client.clone();
    let is_attended = std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    let shown = tokio::select! {
        shown = train_and_show(&client, study, is_attended, global.quiet) => shown,
        error = local.watch() => Err(Failure::Failed(error)),
        () = up::stop_signal() => Err(Failure::failed(
            "stopped before the end\n\nhint: `gradus demo` goes on where it was",
        )),
    };
    let ended = match shown {
        Ok(()) if is_attended => {
            note("\nthe dashboard stays up; Ctrl-C ends it, `gradus up` serves it again");
            up::until_stopped(&mut local).await
        }
        other => other,
    };
    up::stop(local, global.quiet).await;
    ended
}

async fn train_and_show(
    client: &crate::client::Client,
    study: Study,
    is_attended: bool,
    is_quiet: bool,
) -> Result<(), Failure> {
    let applied = apply::apply(client, study).await?;
    if !is_quiet {
        note(&opening(&applied));
    }
    let started = std::time::Instant::now();
    let view = follow(client, &applied.study, is_quiet).await?;
    if !is_quiet {
        note(&format!(
            "trained and evaluated in {}",
            format::duration(started.elapsed().as_secs_f64())
        ));
    }
    verdict(&view)?;
    let form = Form::of(false, is_quiet);
    let report = fit::report(client, &applied.study).await?;
    data("");
    form.print(&report)?;
    // Without a terminal nobody waits, so it stops at once: its address would lead nowhere.
    let dashboard = if is_attended { client.address() } else { "`gradus up` serves it again" };
    data(&format!("\ndashboard: {dashboard}"));
    form.hint(&format!(
        "`gradus runs {0}` and `gradus fit {0} --json` read the results, also after the end",
        applied.study
    ));
    Ok(())
}

/// What is about to happen; above all whether anything has to be trained.
fn opening(applied: &ApplyView) -> String {
    let n_runs = applied.plan.n_runs;
    let n_there = applied.n_reused_succeeded;
    if n_there == n_runs {
        return format!(
            "study `{}`: all {n_runs} runs have their result already; nothing is trained again",
            applied.study
        );
    }
    let mut parts = vec![format!(
        "study `{}`: {} runs, {} FLOPs, {} tokens",
        applied.study,
        n_runs,
        format::flops(applied.plan.flops_exact_total),
        format::count(applied.plan.tokens_total as f64)
    )];
    if n_there > 0 {
        parts.push(format!("{n_there} have their result already and are not trained again"));
    }
    parts.join("; ")
}

/// The demo's study file: as given, here, or in the project that this program was built in.
fn read_demo(given: Option<&Path>) -> Result<Study, Failure> {
    let file = match given {
        Some(file) => file.to_owned(),
        None => find().ok_or_else(|| {
            Failure::wrong(format!(
                "`{STUDY_FILE}` is neither here nor beside this program\n\nhint: run it in the \
                 project's folder, or name the file with `--study-file`"
            ))
        })?,
    };
    read_study(&file).map_err(|failure| match failure {
        Failure::Wrong(error) if error.to_string().contains("matches no file") => {
            Failure::wrong(format!("{error}\n\nhint: `make setup` fetches the demo's text"))
        }
        other => other,
    })
}

fn find() -> Option<PathBuf> {
    let here = PathBuf::from(STUDY_FILE);
    if here.is_file() {
        return Some(here);
    }
    // The program is in `target/release/` of the project.
    let program = std::env::current_exe().ok()?;
    let project = program.ancestors().nth(3)?;
    Some(project.join(STUDY_FILE)).filter(|file| file.is_file())
}
