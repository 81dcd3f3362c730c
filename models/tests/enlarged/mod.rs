//! A model whose matrices are ten times the usual ones, so that positions, gates and decays show in
//! its logits.

use domain::model::ModelConfig;
use models::LanguageModel;
use tch::{Device, Tensor};

/// The same model for the same configuration.
pub(crate) fn enlarged(config: &ModelConfig, device: Device) -> LanguageModel {
    tch::set_num_threads(1);
    let mut model = LanguageModel::new(config, device, 3).unwrap();
    let larger: Vec<(String, Tensor)> = model
        .named_parameters()
        .into_iter()
        .map(|(name, tensor)| (name, if tensor.dim() > 1 { tensor * 10.0 } else { tensor }))
        .collect();
    model.load(&larger).unwrap();
    model
}
