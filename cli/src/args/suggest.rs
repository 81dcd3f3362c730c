//! The arguments of `gradus suggest`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// `gradus suggest`.
#[derive(Debug, Clone, ClapArgs)]
pub struct SuggestArgs {
    /// A fit that `gradus fit --csv … --out FILE` saved, or a study, to which the parametric law is
    /// fitted
    #[arg(value_name = "FIT.json|STUDY")]
    pub file: PathBuf,
    /// FLOPs that all suggested runs together may cost
    #[arg(long, value_name = "FLOPS", allow_negative_numbers = true)]
    pub budget: f64,
    /// The group of the fit; may be left out when there is only one
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// Write the study file here; without it to standard output
    #[arg(long, value_name = "FILE", conflicts_with = "refine")]
    pub out: Option<PathBuf>,
    /// Name of the suggested study
    #[arg(long, value_name = "NAME", default_value = "next", conflicts_with = "refine")]
    pub name: String,
    /// The models' preset, such as `llama_study` or `tnl`; without it the group's name where that is
    /// one, else `llama_study`
    #[arg(long, value_name = "PRESET", conflicts_with = "refine")]
    pub preset: Option<String>,
    /// Files of the corpus, as the study file has them
    #[arg(long, value_name = "PATTERN", default_value = "texts/*.txt", conflicts_with = "refine")]
    pub data: String,
    /// Instead of a study, the cells that lower the variance of a quantity most
    #[arg(long)]
    pub refine: bool,
    /// The quantity: a coefficient of the law, `n_exponent`, or `loss@C`, `n@C`, `d@C` for the best
    /// loss, N or D at a budget
    #[arg(long, value_name = "QUANTITY", requires = "refine")]
    pub quantity: Option<String>,
    /// Whether the most variance for each FLOP is looked for, or with each run
    #[arg(long, value_name = "FLOP|RUN", default_value = "flop", requires = "refine")]
    #[arg(value_parser = ["flop", "run"])]
    pub per: String,
    /// Most cells to propose
    #[arg(long, value_name = "N", default_value_t = 5, requires = "refine")]
    #[arg(value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub cells: u16,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
