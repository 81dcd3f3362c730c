//! The arguments of `gradus fit`.

use std::path::PathBuf;

use clap::{ArgGroup, Args as ClapArgs};
use serde::{Deserialize, Serialize};

/// `gradus fit`: of a study, or of a file.
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
#[derive(Debug, Clone, ClapArgs)]
pub struct FitArgs {
    /// Name or identifier of a study; the newest one without it
    #[arg(conflicts_with = "csv")]
    pub study: Option<String>,
    /// Fit a CSV file with a header instead; needs no coordinator
    #[arg(long, value_name = "FILE", requires_all = ["law", "loss"])]
    pub csv: Option<PathBuf>,
    /// The law: `power`, `power_floor`, `kaplan`, `chinchilla`, `coupled`, `overtraining`,
    /// `broken_power`; of a file also `data_constrained`, `precision`, `sigmoid`, `annealing`; of a
    /// study also the methods `envelope` and `isoflop`
    #[arg(long, value_name = "NAME")]
    pub law: Option<String>,
    /// The columns of the file.
    #[command(flatten)]
    pub columns: ColumnArgs,
    /// The variable of `power`, `power_floor` and `broken_power`: `n`, `d` or `c`; without it C
    /// where it is known, else the one that has a column
    #[arg(long, value_name = "VARIABLE", conflicts_with = "again", value_parser = ["n", "d", "c"])]
    pub of: Option<String>,
    /// Breaks of `broken_power`
    #[arg(long, default_value_t = 1, conflicts_with = "again", value_parser = clap::value_parser!(u8).range(1..=3))]
    pub breaks: u8,
    /// What is minimised: `huber`, `lad`, `log-squares`, `loss-squares`; without it `huber`, for
    /// `sigmoid` `loss-squares`
    #[arg(long, value_name = "NAME")]
    pub objective: Option<String>,
    /// Threshold of the Huber loss; 0.001 without it
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub delta: Option<f64>,
    /// Weigh each row by the inverse of the variance that seeds have at its loss, which rows of several
    /// seeds at one N and D must show
    #[arg(long)]
    pub seed_noise: bool,
    /// What to predict and not to fit: `largest`, `largest-size`; of a file also `c>1e21` (n, d,
    /// loss; `>=`, `<`, `<=`) or `COLUMN=VALUE`, of a study also `none`. With `--run` no row of a
    /// run is fitted whose largest rows are held out
    #[arg(long, value_name = "RULE")]
    pub hold_out: Vec<String>,
    /// Another law to compare with by its error on rows it has not seen; again for more
    #[arg(long, value_name = "NAME", conflicts_with = "again")]
    pub against: Vec<String>,
    /// Bootstrap draws, at least 100; without it 1000, of a study as many as its file says
    #[arg(long, visible_alias = "bootstrap")]
    pub draws: Option<u32>,
    /// Seed of the bootstrap; without it 0, of a study what its file says
    #[arg(long)]
    pub seed: Option<u32>,
    /// Threads for the bootstrap, which change no number; without it one for each core
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// C at which the groups of `--group-by`, or of a study, are compared; again for more. Without it the largest C
    /// that both were fitted to
    #[arg(long, value_name = "FLOPS", conflicts_with = "again", allow_negative_numbers = true)]
    pub compare_at: Vec<f64>,
    /// Also follow the classic grid of 4,500 starting points of `chinchilla`, and say what it found
    #[arg(long, conflicts_with = "again")]
    pub audit: bool,
    /// Draw data, law, interval, isoFLOP profiles and residuals into this file: PNG where its name ends
    /// so, else SVG
    #[arg(long, value_name = "FILE", conflicts_with = "again")]
    pub plot: Option<PathBuf>,
    /// Save the fit with its draws in this file, for `gradus predict` and `gradus suggest`; of a
    /// study its rows too, beside it as CSV
    #[arg(long, value_name = "FILE", conflicts_with = "again")]
    pub out: Option<PathBuf>,
    /// Fit the study's law here, as `--csv` does: with other minima, corrected intervals, the other
    /// approaches, and the groups beside each other. What asks for more than the coordinator's
    /// report has, such as `--plot`, does so too
    #[arg(long, conflicts_with_all = ["csv", "again", "observations"])]
    pub full: bool,
    /// Write what the study has measured as rows for `--csv` into this file
    #[arg(long, value_name = "FILE", conflicts_with_all = ["csv", "again"])]
    pub observations: Option<PathBuf>,
    /// Fit again what a saved fit was made from, and say whether it is the same to the last bit
    #[arg(long, value_name = "FIT.json", conflicts_with_all = ["csv", "study"])]
    pub again: Option<PathBuf>,
    /// What the column of N counts, to be kept with the fit: `non_embedding` or `total`
    #[arg(long, value_name = "WHAT", requires = "n", value_parser = ["non_embedding", "total"])]
    pub n_counts: Option<String>,
    /// What the column of C, or of FLOPs for a token, counts, to be kept with the fit: `exact`,
    /// `published` or `6ND`
    #[arg(long, value_name = "WHAT", requires = "compute", value_parser = ["exact", "published", "6ND"])]
    pub c_counts: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Draws of a file's fit that says nothing.
const DEFAULT_DRAWS: u32 = 1000;

impl FitArgs {
    /// The draws of a file's fit.
    pub fn draws(&self) -> u32 {
        self.draws.unwrap_or(DEFAULT_DRAWS)
    }

    /// Whether a study is to be fitted here, by its rows.
    pub fn is_full(&self) -> bool {
        let files = self.plot.is_some() || self.out.is_some();
        let laws = self.of.is_some() || self.breaks > 1 || !self.against.is_empty();
        let checks = self.audit || self.delta.is_some() || !self.compare_at.is_empty();
        self.full || files || laws || checks
    }

    /// The seed of a file's fit.
    pub fn seed(&self) -> u32 {
        self.seed.unwrap_or(0)
    }
}

/// Which column has what.
#[derive(Debug, Clone, Default, PartialEq, Eq, ClapArgs, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[command(group = ArgGroup::new("compute").multiple(true))]
pub struct ColumnArgs {
    /// Column with N
    #[arg(long, value_name = "COLUMN", requires = "csv")]
    pub n: Option<String>,
    /// Column with D
    #[arg(long, value_name = "COLUMN", requires = "csv")]
    pub d: Option<String>,
    /// Column with C
    #[arg(long, value_name = "COLUMN", requires = "csv", group = "compute")]
    pub c: Option<String>,
    /// Column with the FLOPs of training for one token; without `--c` C is that times D. The best N
    /// and D of a budget are then also looked for along the sizes of the file
    #[arg(long, value_name = "COLUMN", requires = "csv", requires_all = ["n", "d"], group = "compute")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flops_per_token: Option<String>,
    /// Column with the loss in nats per token; for `sigmoid` with the task loss
    #[arg(long, value_name = "COLUMN", requires = "csv")]
    pub loss: Option<String>,
    /// Column with the accuracy, for `sigmoid`
    #[arg(long, value_name = "COLUMN", requires = "csv")]
    pub accuracy: Option<String>,
    /// Column with the distinct tokens among D, for `data_constrained`
    #[arg(long, value_name = "COLUMN", requires = "csv", visible_alias = "unique-tokens")]
    pub unique: Option<String>,
    /// Column with the bits of the weights, for `precision`
    #[arg(long, value_name = "COLUMN", requires = "csv")]
    pub bits: Option<String>,
    /// Column with the bits of the activations, for `precision`
    #[arg(long, value_name = "COLUMN", requires = "csv")]
    pub bits_activations: Option<String>,
    /// Column with the bits of the key-value cache, for `precision`
    #[arg(long, value_name = "COLUMN", requires = "csv")]
    pub bits_cache: Option<String>,
    /// Column with the sum of learning rates until the row's step, for `annealing`
    #[arg(long, value_name = "COLUMN", requires = "csv")]
    pub rate_sum: Option<String>,
    /// Column with the decayed sum of falls of the learning rate, for `annealing`
    #[arg(long, value_name = "COLUMN", requires = "csv")]
    pub rate_fall: Option<String>,
    /// Column with the weight of each row in the objective; all are 1 without it
    #[arg(long, value_name = "COLUMN", requires = "csv")]
    pub weight: Option<String>,
    /// Column that says which rows are one run, the unit that is resampled; without it each row
    /// is a run
    #[arg(long, value_name = "COLUMN", requires = "csv")]
    pub run: Option<String>,
    /// Column that says which runs share a trunk, the first steps of one configuration under a
    /// constant or `wsd` schedule; they share its luck and are resampled together
    #[arg(long, value_name = "COLUMN", requires = "csv")]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trunk: Option<String>,
    /// Column in which all rows of a fit should be alike, such as the schedule; a warning says where
    /// they are not. Again for more; columns called so (`schedule`, `tokenizer`, `dataset` and such)
    /// are looked at without it
    #[arg(long, value_name = "COLUMN", requires = "csv")]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub same: Vec<String>,
    /// Column whose values are drawn apart from each other, such as the architecture
    #[arg(long, value_name = "COLUMN", requires = "csv")]
    pub stratify: Option<String>,
    /// Column, of a study axis, whose values are fitted apart from each other; of a study also
    /// `none`, for one fit of all
    #[arg(long, value_name = "COLUMN")]
    pub group_by: Option<String>,
}
