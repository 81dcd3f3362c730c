//! The commands, one file each, and which one is asked for.
//!
//! What they show is made in `output`.

use clap::CommandFactory;

use crate::args::{Args, Command};
use crate::failure::Failure;

mod apply;
mod cancel;
mod demo;
mod doctor;
mod doctor_store;
mod drain;
mod explain;
mod export;
mod fit;
mod fit_csv;
mod fits;
mod history;
mod logs;
mod observations;
mod pause;
mod plan;
mod predict;
mod priority;
mod retry;
mod runs;
mod show;
mod status;
mod store;
mod suggest;
mod target;
mod up;
mod watch;
mod weights;
mod workers;

/// Runs a command.
pub async fn run(args: Args) -> Result<(), Failure> {
    let global = &args.global;
    match &args.command {
        Command::Plan(args) => plan::run(global, args),
        Command::Apply(args) => apply::run(global, args).await,
        Command::Status(args) => status::run(global, args).await,
        Command::Watch(args) => watch::run(global, args).await,
        Command::Runs(args) => runs::run(global, args).await,
        Command::Show(args) => show::run(global, args).await,
        Command::Logs(args) => logs::run(global, args).await,
        Command::Cancel(args) => cancel::run(global, args).await,
        Command::Retry(args) => retry::run(global, args).await,
        Command::Pause(args) => pause::pause(global, args).await,
        Command::Resume(args) => pause::resume(global, args).await,
        Command::Priority(args) => priority::run(global, args).await,
        Command::Drain(args) => drain::run(global, args).await,
        Command::Explain(args) => explain::run(global, args).await,
        Command::History(args) => history::run(global, args).await,
        Command::Export(args) => export::run(global, args).await,
        Command::Fit(args) => fit::run(global, args).await,
        Command::Fits(args) => fits::run(global, args).await,
        Command::Predict(args) => match fits::stored(args) {
            Some(fit) => fits::predict(global, args, fit).await,
            None => predict::run(global, args),
        },
        Command::Suggest(args) => suggest::run(global, args).await,
        Command::Workers(args) => workers::run(global, args).await,
        Command::Up(args) => up::run(global, args).await,
        Command::Demo(args) => demo::run(global, args).await,
        Command::Weights(command) => weights::run(global, command),
        Command::Store(command) => store::run(global, command).await,
        Command::Doctor(args) => doctor::run(global, args).await,
        Command::Completions(args) => {
            let mut script = Vec::new();
            clap_complete::generate(args.shell, &mut Args::command(), "gradus", &mut script);
            crate::output::data(String::from_utf8_lossy(&script).trim_end());
            Ok(())
        }
        Command::Schema => {
            let schema = serde_json::to_string_pretty(&domain::spec::json_schema());
            crate::output::data(&schema.map_err(anyhow::Error::from)?);
            Ok(())
        }
    }
}
