//! The command line of `gradus-worker`: its arguments, and which command they ask for.
//!
//! It carries out nothing itself.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum};
use tracing_subscriber::EnvFilter;

use crate::agent;
use crate::artifacts::Patience;
use crate::config::Config;

/// The program on a machine that carries out the assignments of a Gradus coordinator.
#[derive(Debug, Parser)]
#[command(name = "gradus-worker", version)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Serve a coordinator: take assignments until told to stop
    Run(RunArgs),
    /// Carry out assignments that come on standard input; started by `run`
    #[command(hide = true)]
    Trainer(TrainerArgs),
    /// Run a model from its files: logits, and on demand loss and gradients
    Forward(ForwardArgs),
    /// Let a model from its files go on with a prompt
    Generate(GenerateArgs),
    /// Print a configuration's tensors, parameter counts and FLOP counts
    Describe(DescribeArgs),
    /// Print what this machine can compute on, and why there is no CUDA
    Devices(DevicesArgs),
}

/// The variable that names the folder with the CUDA half of libtorch, for all commands.
pub const LIBTORCH_VARIABLE: &str = "GRADUS_LIBTORCH";

/// What a trainer may compute on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum DeviceChoice {
    /// CUDA where there is a device, else the CPU
    #[default]
    Auto,
    /// The CPU; nothing of CUDA is loaded
    Cpu,
    /// CUDA; without a device nothing starts
    Cuda,
}

impl DeviceChoice {
    /// The text on the command line.
    pub fn label(self) -> &'static str {
        match self {
            Self::Auto => "auto",
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
        }
    }
}

/// Arguments of `run`.
#[derive(Debug, Clone, Args)]
pub struct RunArgs {
    /// The coordinator's gRPC address, such as `http://127.0.0.1:4000`; several, with commas between
    /// them, where one leads and others stand by
    #[arg(long, value_name = "URL", value_delimiter = ',', required = true)]
    pub coordinator: Vec<String>,
    /// The worker's name for people; host name and process id by default. With a fixed name an
    /// agent that is started again takes the place of the older one at once; while that one is
    /// connected, it gets a number behind its name
    #[arg(long)]
    pub name: Option<String>,
    /// How many attempts to carry out at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub slots: u32,
    /// Something that studies may ask for, such as `pool=night`; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    pub label: Vec<(String, String)>,
    /// Intra-op threads of each slot; the machine's cores divided by the slots by default
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub threads: Option<u32>,
    /// What to compute on
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceChoice,
    /// Folder with the CUDA half of libtorch; where this program's libtorch lies by default
    #[arg(long, value_name = "DIR", env = LIBTORCH_VARIABLE)]
    pub libtorch: Option<PathBuf>,
    /// Folder for files that may be lost
    #[arg(long, value_name = "DIR", default_value = ".gradus/scratch")]
    pub scratch: PathBuf,
    /// File with the bearer token that the coordinator asks for
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Program to start as trainer instead of this one
    #[arg(long, value_name = "PATH", hide = true)]
    pub trainer: Option<PathBuf>,
    /// Stop in order when standard input closes, so that no worker outlives who started it
    #[arg(long)]
    pub exit_with_parent: bool,
    /// How long checkpoints may take when the worker is told to stop, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 30_000)]
    pub preempt_deadline_ms: u64,
    /// How long a trainer may take to give up an attempt before it is killed, in milliseconds
    #[arg(long, value_name = "MS", default_value_t = 5_000, hide = true)]
    pub stop_grace_ms: u64,
    /// How much each slot may keep in the scratch folder of what it has to report while the
    /// coordinator is away, in MiB; when that is full, training waits
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub spill_mib: u32,
}

fn label(text: &str) -> Result<(String, String), String> {
    let is_name = domain::spec::is_name;
    match text.split_once('=') {
        Some((key, value)) if is_name(key) && is_name(value) => Ok((key.into(), value.into())),
        _ => Err("expected KEY=VALUE of letters, digits, `.`, `_` and `-`".to_owned()),
    }
}

/// Arguments of `trainer`. The program that the agent starts speaks `ToTrainer` on standard input
/// and `FromTrainer` on standard output (see `pipe`), says `ready` first, and exits at once when
/// standard input closes, whatever it is doing.
#[derive(Debug, Clone, Args)]
pub struct TrainerArgs {
    /// Say `ready` with the capabilities and exit: how an agent learns them before it registers
    #[arg(long)]
    pub probe: bool,
    /// The one artifact store; there unless probing
    #[arg(long, value_name = "URI", required_unless_present = "probe")]
    pub artifact_store: Option<String>,
    /// Folder for files that may be lost
    #[arg(long, value_name = "DIR")]
    pub scratch: PathBuf,
    /// Intra-op threads
    #[arg(long, default_value_t = 1)]
    pub threads: u32,
    /// What to compute on
    #[arg(long, value_enum, default_value_t)]
    pub device: DeviceChoice,
    /// Folder with the CUDA half of libtorch; where this program's libtorch lies by default
    #[arg(long, value_name = "DIR", env = LIBTORCH_VARIABLE)]
    pub libtorch: Option<PathBuf>,
    /// Which of the agent's slots this is; they take the CUDA devices in turn
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub slot: u32,
    /// How many slots the agent has: those that share a CUDA device have a part of its memory each
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub slots: u32,
    /// For so long a file of the artifact store that cannot be reached is tried to be read
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 60_000)]
    pub read_patience_ms: u64,
}

impl TrainerArgs {
    /// How long to wait for what cannot be reached.
    pub fn patience(&self) -> Patience {
        Patience { read: Duration::from_millis(self.read_patience_ms), ..Patience::default() }
    }
}

/// Arguments of `forward`.
#[derive(Debug, Clone, Args)]
pub struct ForwardArgs {
    /// Folder with `config.json` and `model.safetensors`
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// JSON file with the token ids: a list of sequences of equal length
    #[arg(long, value_name = "FILE")]
    pub tokens: PathBuf,
    /// The safetensors file to write
    #[arg(long, value_name = "FILE")]
    pub out: PathBuf,
    /// Write `loss` too
    #[arg(long)]
    pub loss: bool,
    /// Write `grad.<tensor>` too
    #[arg(long)]
    pub grad: bool,
}

/// Arguments of `generate`.
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("start").required(true).args(["prompt", "tokens"])))]
pub struct GenerateArgs {
    /// Folder with `config.json` and `model.safetensors`
    #[arg(long, value_name = "DIR")]
    pub model: PathBuf,
    /// The text to go on with; needs a tokenizer
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// JSON file with the token ids to go on with: a list of one sequence
    #[arg(long, value_name = "FILE")]
    pub tokens: Option<PathBuf>,
    /// Hugging Face `tokenizer.json`; that of the model's folder by default, where there is one
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// How many tokens to add at most
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_new_tokens: u32,
    /// End at this token, by its id or as a text that is one token; may be repeated
    #[arg(long = "stop-token", value_name = "ID|TEXT", allow_hyphen_values = true)]
    pub stop_tokens: Vec<String>,
    /// Divide the logits by this and draw; 0 takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0, allow_negative_numbers = true)]
    pub temperature: f64,
    /// Draw from the K likeliest tokens only
    #[arg(long, value_name = "K")]
    pub top_k: Option<usize>,
    /// Draw from the fewest likeliest tokens that together have probability P
    #[arg(long, value_name = "P", default_value_t = 1.0, allow_negative_numbers = true)]
    pub top_p: f64,
    /// The seed of the draws
    #[arg(long, value_name = "S", default_value_t = 0)]
    pub seed: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `describe`.
#[derive(Debug, Clone, Args)]
pub struct DescribeArgs {
    /// The model's `config.json`
    #[arg(long, value_name = "FILE")]
    pub config: PathBuf,
    /// The sequence length that the FLOP counts are for
    #[arg(long, value_name = "N")]
    pub sequence_length: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Arguments of `devices`.
#[derive(Debug, Clone, Args)]
pub struct DevicesArgs {
    /// Folder with the CUDA half of libtorch; where this program's libtorch lies by default
    #[arg(long, value_name = "DIR", env = LIBTORCH_VARIABLE)]
    pub libtorch: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Reads the arguments and carries out the command. Exit status: 0 when it worked, 1 when it
/// failed, 2 when the arguments are wrong.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_log();
    match cli.command {
        Command::Run(args) => run(args),
        command => compute(command),
    }
}

/// Log lines go to standard error; `RUST_LOG` chooses which.
pub(crate) fn start_log() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
}

fn run(args: RunArgs) -> ExitCode {
    let outcome = Config::new(args).map_err(anyhow::Error::from).and_then(|config| {
        // One thread is plenty for messages, and leaves the cores to the trainers.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(agent::run(config)).map_err(anyhow::Error::from)
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error),
    }
}

#[expect(clippy::print_stderr, reason = "the one line that says why the program ends")]
fn fail(error: &anyhow::Error) -> ExitCode {
    eprintln!("gradus-worker: {error:#}");
    ExitCode::FAILURE
}

#[cfg(feature = "torch")]
fn compute(command: Command) -> ExitCode {
    match command {
        Command::Trainer(args) => crate::trainer::main(args),
        Command::Forward(args) => crate::commands::forward(&args),
        Command::Generate(args) => crate::commands::generate(&args),
        Command::Describe(args) => crate::commands::describe(&args),
        Command::Devices(args) => crate::commands::devices(&args),
        Command::Run(_) => ExitCode::FAILURE,
    }
}

#[cfg(not(feature = "torch"))]
fn compute(_command: Command) -> ExitCode {
    fail(&anyhow::anyhow!("this build has no libtorch; build it with the feature `torch`"))
}
