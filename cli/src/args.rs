//! The arguments of every command, as types only.
//!
//! What they do is in `commands`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};

mod fit;
mod predict;
mod suggest;

pub use fit::{ColumnArgs, FitArgs};
pub use predict::PredictArgs;
pub use suggest::SuggestArgs;

/// Scaling studies: from one study file to a fitted scaling law with honest intervals.
#[derive(Debug, Parser)]
#[command(name = "gradus", version, propagate_version = true, max_term_width = 100)]
pub struct Args {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Debug, Clone, ClapArgs)]
pub struct Global {
    /// Address of the coordinator, such as http://127.0.0.1:8080; without it the one that
    /// `./.gradus/endpoint` names
    #[arg(long, global = true, env = "GRADUS_COORDINATOR", value_name = "URL")]
    pub coordinator: Option<String>,
    /// File with the token that the coordinator asks for
    #[arg(long, global = true, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Who asks, for the audit trail, unless the token says it; by default the user of this machine
    #[arg(long, global = true, env = "GRADUS_USER", value_name = "NAME")]
    pub user: Option<String>,
    /// Print names only, and neither hints nor progress
    #[arg(long, short, global = true)]
    pub quiet: bool,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Show every cell of a study file with its numbers; needs no coordinator
    Plan(PlanArgs),
    /// Hand a study file to the coordinator; again after an edit for the difference only
    Apply(ApplyArgs),
    /// Show all studies, or one
    Status(StudyArgs),
    /// Follow a study until it is over
    Watch(WatchArgs),
    /// List runs
    Runs(StudyArgs),
    /// Show one run: configuration, attempts, checkpoints, evaluations
    Show(RunArgs),
    /// Show the log of a run
    Logs(LogsArgs),
    /// Show what has happened to a study, a run or a worker, and who did it
    History(HistoryArgs),
    /// Write every point of every series of a study or a run
    Export(ExportArgs),
    /// Stop a study or a run
    Cancel(CancelArgs),
    /// Queue the failed and cancelled runs of a study, or one run, again
    Retry(RetryArgs),
    /// Hold a study: its runs write a checkpoint and leave their workers
    Pause(PauseArgs),
    /// Let a paused study go on
    Resume(ResumeArgs),
    /// Put a study before or behind others
    Priority(PriorityArgs),
    /// Have a worker take nothing more, and leave when what it has is over
    Drain(DrainArgs),
    /// Say why a run, a worker or a planned cell is not running
    Explain(ExplainArgs),
    /// Show the fitted scaling laws of a study, or fit a law to a CSV file
    Fit(Box<FitArgs>),
    /// List the fits that the store keeps
    Fits(StudyArgs),
    /// Predict a loss, or the best size for a budget, from a saved fit or one that the store keeps
    Predict(PredictArgs),
    /// Suggest the next study from a saved fit, or the cells that would narrow it most
    Suggest(SuggestArgs),
    /// List the workers
    Workers(JsonArgs),
    /// Start a coordinator and workers here, until Ctrl-C
    Up(UpArgs),
    /// Train the demo study here and show its fit
    Demo(DemoArgs),
    /// Convert weights from and to the Hugging Face layout; needs no coordinator
    #[command(subcommand)]
    Weights(WeightsCommand),
    /// Back up, restore or move a store; needs no coordinator, and one may be serving it
    #[command(subcommand)]
    Store(StoreCommand),
    /// Check the store, the binaries, libtorch and the disk
    Doctor(DoctorArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
    /// Print the JSON Schema of the study file
    Schema,
}

/// `gradus plan`.
#[derive(Debug, Clone, ClapArgs)]
pub struct PlanArgs {
    /// The study file
    pub file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `gradus apply`.
#[derive(Debug, Clone, ClapArgs)]
pub struct ApplyArgs {
    /// The study file
    pub file: PathBuf,
    /// Say what would happen and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Commands on one study or all.
#[derive(Debug, Clone, ClapArgs)]
pub struct StudyArgs {
    /// Name or identifier of a study; all of them without it
    pub study: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `gradus watch`.
#[derive(Debug, Clone, ClapArgs)]
pub struct WatchArgs {
    /// Name or identifier of a study; the newest active one without it
    pub study: Option<String>,
}

/// Commands on one run.
#[derive(Debug, Clone, ClapArgs)]
pub struct RunArgs {
    /// Identifier of a run, or the name of its cell
    pub run: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `gradus logs`.
#[derive(Debug, Clone, ClapArgs)]
pub struct LogsArgs {
    /// Identifier of a run, or the name of its cell
    pub run: String,
    /// Go on with new lines until the run is over
    #[arg(long, short)]
    pub follow: bool,
    /// Print JSON; with `--follow` one object a line
    #[arg(long)]
    pub json: bool,
}

/// `gradus history`.
#[derive(Debug, Clone, ClapArgs)]
pub struct HistoryArgs {
    /// Name or identifier of a study, a run or a worker
    pub target: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `gradus export`.
#[derive(Debug, Clone, ClapArgs)]
pub struct ExportArgs {
    /// Name or identifier of a study or a run
    pub target: String,
    /// CSV with a header, or an object a line
    #[arg(long, value_enum, default_value_t)]
    pub format: ExportFormat,
    /// Only the series of this name, such as `train_loss_nats`
    #[arg(long, value_name = "NAME")]
    pub series: Option<String>,
    /// Leave out what a later attempt has done again
    #[arg(long)]
    pub current: bool,
    /// The file to write; standard output by default
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

/// How points are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum ExportFormat {
    /// `run,series,attempt,step,value,is_current`
    #[default]
    Csv,
    /// A JSON object a line, of the same keys
    Jsonl,
}

/// `gradus cancel`.
#[derive(Debug, Clone, ClapArgs)]
pub struct CancelArgs {
    /// Name or identifier of a study or a run
    pub target: String,
    /// Why, for the record
    #[arg(long)]
    pub reason: String,
    /// Say what would happen and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `gradus retry`.
#[derive(Debug, Clone, ClapArgs)]
pub struct RetryArgs {
    /// Name or identifier of a study or a run
    pub target: String,
    /// Only what failed, not what was cancelled
    #[arg(long)]
    pub failed: bool,
    /// Only what failed in this way: `out_of_memory`, `bad_data`, `bad_checkpoint`, `bug` or
    /// `worker_lost`
    #[arg(long, value_name = "CLASS")]
    pub class: Option<String>,
    /// Say what would happen and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `gradus pause`.
#[derive(Debug, Clone, ClapArgs)]
pub struct PauseArgs {
    /// Name or identifier of a study
    pub study: String,
    /// Why, for the record
    #[arg(long, default_value = "")]
    pub reason: String,
    /// Say what would happen and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `gradus resume`.
#[derive(Debug, Clone, ClapArgs)]
pub struct ResumeArgs {
    /// Name or identifier of a study
    pub study: String,
    /// Say what would happen and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `gradus priority`.
#[derive(Debug, Clone, ClapArgs)]
pub struct PriorityArgs {
    /// Name or identifier of a study
    pub study: String,
    /// Its new priority; higher goes first
    #[arg(allow_negative_numbers = true)]
    pub priority: i32,
    /// Say what would happen and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `gradus drain`.
#[derive(Debug, Clone, ClapArgs)]
pub struct DrainArgs {
    /// Identifier or name of a worker
    pub worker: String,
    /// Say what would happen and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `gradus explain`.
#[derive(Debug, Clone, ClapArgs)]
pub struct ExplainArgs {
    /// Identifier or name of a run, a worker, or a cell that the plan left out
    pub target: String,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Commands without an argument of their own.
#[derive(Debug, Clone, ClapArgs)]
pub struct JsonArgs {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `gradus store`.
#[derive(Debug, Clone, Subcommand)]
pub enum StoreCommand {
    /// Copy a store into a file, whether it is in use or not
    Backup(BackupArgs),
    /// Copy a backup into a store that does not exist yet
    Restore(BackupArgs),
    /// Copy a store from one database to another
    Copy(CopyArgs),
}

/// `gradus store backup` and `gradus store restore`.
#[derive(Debug, Clone, ClapArgs)]
pub struct BackupArgs {
    /// The file of the backup, an SQLite database
    pub file: PathBuf,
    /// The store, as `sqlite:PATH` or `postgres://USER@HOST/DATABASE`; without it the one in
    /// `./.gradus`
    #[arg(long, value_name = "URL")]
    pub database: Option<String>,
    /// How.
    #[command(flatten)]
    pub flags: CopyFlags,
}

/// `gradus store copy`.
#[derive(Debug, Clone, ClapArgs)]
pub struct CopyArgs {
    /// The store, as `sqlite:PATH` or `postgres://USER@HOST/DATABASE`
    #[arg(long, value_name = "URL")]
    pub from: String,
    /// A file that does not exist, or an empty database
    #[arg(long, value_name = "URL")]
    pub to: String,
    /// How.
    #[command(flatten)]
    pub flags: CopyFlags,
}

/// What every copy takes.
#[derive(Debug, Clone, ClapArgs)]
pub struct CopyFlags {
    /// Say what would be copied and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `gradus doctor`.
#[derive(Debug, Clone, ClapArgs)]
pub struct DoctorArgs {
    /// Check every invariant of the store too, which reads all of its work
    #[arg(long)]
    pub deep: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `gradus up`.
#[derive(Debug, Clone, ClapArgs)]
pub struct UpArgs {
    /// How many workers; without it one for each core. The cores are divided among them
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: Option<u32>,
    /// Address of the HTTP API and the dashboard; without it 127.0.0.1:8080, or a free port when
    /// that one is in use
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<String>,
}

/// `gradus demo`.
#[derive(Debug, Clone, ClapArgs)]
pub struct DemoArgs {
    /// How and where to serve.
    #[command(flatten)]
    pub up: UpArgs,
    /// Another study file than the demo's
    #[arg(long, value_name = "FILE")]
    pub study_file: Option<PathBuf>,
}

/// `gradus weights`.
#[derive(Debug, Clone, Subcommand)]
pub enum WeightsCommand {
    /// Make a model of ours from a stock LLaMA in the Hugging Face layout
    Import(WeightsPaths),
    /// Make a LLaMA in the Hugging Face layout from a model of ours
    Export(WeightsExportArgs),
}

/// What both directions of `gradus weights` have.
#[derive(Debug, Clone, ClapArgs)]
pub struct WeightsPaths {
    /// Folder with `config.json` and `model.safetensors`; for `import` the weights may be sharded
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// The folder to make; refused when there is something in it
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Check everything and write nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// `gradus weights export`.
#[derive(Debug, Clone, ClapArgs)]
pub struct WeightsExportArgs {
    /// From where to where.
    #[command(flatten)]
    pub paths: WeightsPaths,
    /// The longest sequence that readers should try, `max_position_embeddings`; it changes no logits
    #[arg(long, value_name = "TOKENS", default_value_t = 2048)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..))]
    pub context_length: u32,
}

/// `gradus completions`.
#[derive(Debug, Clone, ClapArgs)]
pub struct CompletionsArgs {
    /// The shell
    pub shell: clap_complete::Shell,
}
