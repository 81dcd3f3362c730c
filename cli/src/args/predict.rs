//! The arguments of `gradus predict`.

use std::path::PathBuf;

use clap::Args as ClapArgs;

/// `gradus predict`.
#[derive(Debug, Clone, Default, ClapArgs)]
pub struct PredictArgs {
    /// A fit that `gradus fit --csv … --out FILE` saved, or the identifier of one that the store
    /// keeps (`gradus fits`)
    #[arg(value_name = "FIT")]
    pub file: PathBuf,
    /// Only this group of the fit; all of them without it
    #[arg(long, value_name = "NAME")]
    pub group: Option<String>,
    /// N, parameters, counted as in the fit
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub n: Option<f64>,
    /// D, training tokens
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub d: Option<f64>,
    /// C, FLOPs, counted as in the fit; alone it asks for the best N and D at this budget
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub c: Option<f64>,
    /// Distinct tokens among D, for `data_constrained`; all of D without it
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub unique: Option<f64>,
    /// Bits of the weights, for `precision`
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub bits: Option<f64>,
    /// Bits of the activations, for `precision`
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub bits_activations: Option<f64>,
    /// Bits of the key-value cache, for `precision`
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub bits_cache: Option<f64>,
    /// The task loss, for `sigmoid`
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub loss: Option<f64>,
    /// Sum of learning rates, for `annealing`
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub rate_sum: Option<f64>,
    /// Decayed sum of falls of the learning rate, for `annealing`
    #[arg(long, value_name = "NUMBER", allow_negative_numbers = true)]
    pub rate_fall: Option<f64>,
    /// A saved fit of `sigmoid` whose task loss is what FIT predicts: the accuracy at it is told too,
    /// with what both fits leave open. Of its groups the one of the same name, or its only fit
    #[arg(long, value_name = "FIT.json")]
    pub then: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
