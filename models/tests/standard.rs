//! What every language model must do, written once and run for each architecture.
//!
//! It does not check the numbers; `golden.rs` does.

#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

mod devices;
mod enlarged;

use std::collections::HashMap;

use devices::devices;
use domain::model::{Architecture, MixerConfig, ModelConfig, Norm, Shape};
use enlarged::enlarged;
use models::{LanguageModel, MatmulPrecision, ModelsError};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use tch::{Device, Kind, Tensor};

const VOCAB: u32 = 31;

fn config(architecture: Architecture) -> ModelConfig {
    with_layers(architecture, 3)
}

fn with_layers(architecture: Architecture, n_layers: u32) -> ModelConfig {
    tch::set_num_threads(1);
    let shape = Shape { vocab_size: VOCAB, d_model: 24, n_layers, n_heads: 3, ffn_hidden: 40 };
    ModelConfig::new(architecture, shape).unwrap()
}

/// The fewest layers that an architecture may have, and more.
fn depths(architecture: Architecture) -> [ModelConfig; 2] {
    let fewest = if architecture == Architecture::Tnl { 2 } else { 1 };
    [fewest, 3].map(|n_layers| with_layers(architecture, n_layers))
}

fn model(architecture: Architecture, device: Device, seed: u64) -> LanguageModel {
    LanguageModel::new(&config(architecture), device, seed).unwrap()
}

/// Every configuration on every device.
fn on_devices(configs: &[ModelConfig]) -> Vec<(Device, ModelConfig)> {
    let on = |device: Device| configs.iter().map(move |config| (device, *config));
    devices().into_iter().flat_map(on).collect()
}

fn tokens(batch: i64, time: i64, seed: i64) -> Tensor {
    tch::manual_seed(seed);
    Tensor::randint(i64::from(VOCAB), [batch, time], (Kind::Int64, Device::Cpu))
}

fn shapes_are_those_of_the_contract(architecture: Architecture) {
    for (device, config) in on_devices(&depths(architecture)) {
        let model = LanguageModel::new(&config, device, 1).unwrap();
        for (batch, time) in [(1, 1), (2, 9), (1, 65)] {
            let logits = model.forward(&tokens(batch, time, 1).to_device(device));
            assert_eq!(logits.size(), [batch, time, i64::from(VOCAB)]);
            assert_eq!(logits.kind(), Kind::Float);
        }
        let loss = model.loss(&tokens(2, 9, 1).to_device(device)).double_value(&[]);
        // Small first weights predict about evenly.
        assert!((loss - f64::from(VOCAB).ln()).abs() < 0.2, "{loss}");
    }
}

fn a_later_token_leaves_earlier_logits_alone(architecture: Architecture) {
    for (device, config) in on_devices(&depths(architecture)) {
        let model = LanguageModel::new(&config, device, 1).unwrap();
        let time = 75;
        for changed in [1, 40, 74] {
            let before = tokens(2, time, 2);
            let after = before.copy();
            let mut position = after.narrow(1, changed, 1);
            position.copy_(&((&position + 1).remainder(i64::from(VOCAB))));
            let difference = (model.forward(&before.to_device(device))
                - model.forward(&after.to_device(device)))
            .abs();
            let largest =
                |from: i64, count: i64| difference.narrow(1, from, count).max().double_value(&[]);
            // Blocked products may round a row differently when another row changes.
            assert!(largest(0, changed) < 1e-6, "{}", largest(0, changed));
            assert!(largest(changed, 1) > 1e-4, "{}", largest(changed, 1));
        }
    }
}

fn a_gradient_reaches_every_parameter(architecture: Architecture) {
    for (device, config) in on_devices(&depths(architecture)) {
        for tie_embeddings in [true, false] {
            for norm in [Norm::LayerNorm, Norm::RmsNorm, Norm::SrmsNorm] {
                let config = ModelConfig { tie_embeddings, norm, ..config };
                let model = LanguageModel::new(&config, device, 1).unwrap();
                model.loss(&tokens(2, 33, 3).to_device(device)).backward();
                for (name, parameter) in model.named_parameters() {
                    let gradient = parameter.grad();
                    assert!(gradient.defined(), "{name}");
                    let largest = gradient.abs().max().double_value(&[]);
                    // The first layer has no bound, so nothing depends on those of a single one.
                    let is_unused = name == "lower_bounds" && config.shape.n_layers == 1;
                    assert!(largest.is_finite(), "{name}: {largest}");
                    assert_eq!(largest > 0.0, !is_unused, "{name}: {largest}");
                }
            }
        }
    }
}

fn the_same_seed_gives_the_same_loss(architecture: Architecture) {
    for device in devices() {
        let text = tokens(2, 33, 4).to_device(device);
        let loss = |seed| model(architecture, device, seed).loss(&text).double_value(&[]);
        assert_eq!(loss(5), loss(5));
        assert_ne!(loss(5), loss(6));
    }
}

fn the_loss_is_that_of_the_whole_logits(architecture: Architecture) {
    let z_loss = 1e-2;
    let tied =
        [true, false].map(|tie_embeddings| ModelConfig { tie_embeddings, ..config(architecture) });
    for (device, config) in on_devices(&tied) {
        let model = LanguageModel::new(&config, device, 1).unwrap();
        let text = tokens(3, 42, 7).to_device(device);
        let (inputs, targets) = (text.narrow(1, 0, 41), text.narrow(1, 1, 41));
        let logits = tch::no_grad(|| model.forward(&inputs)).to_kind(Kind::Double);
        let log_total = logits.logsumexp([-1], false);
        let of_target = logits.gather(2, &targets.unsqueeze(-1), false).squeeze_dim(-1);
        let of_tokens = &log_total - of_target; // [B, T]
        let nats = of_tokens.sum(Kind::Double).double_value(&[]);
        let found = model.nats(&inputs, &targets);
        assert_eq!((found.size(), found.kind()), (vec![3, 41], Kind::Float));
        assert!((found - of_tokens).abs().max().double_value(&[]) < 1e-5);
        let objective = nats + z_loss * log_total.square().sum(Kind::Double).double_value(&[]);
        let near = |found: &Tensor, expected: f64| {
            let found = found.double_value(&[]);
            assert!((found / expected - 1.0).abs() < 1e-6, "{found} instead of {expected}");
        };
        for sums in [
            model.loss_sums(&inputs, &targets, z_loss),
            tch::no_grad(|| model.loss_sums(&inputs, &targets, z_loss)),
        ] {
            near(&sums.nats, nats);
            near(&sums.objective, objective);
        }
        let (sum, count) = model.loss_sum(&inputs, &targets);
        near(&sum, nats);
        assert_eq!(count, 3 * 41);
    }
}

fn one_batch_is_learnt_by_heart(architecture: Architecture) {
    // Aim: all parts work together. Method: plain Adam on one batch, until it is predicted.
    let precisions = [MatmulPrecision::Fp32, MatmulPrecision::Bf16];
    let cases = on_devices(&depths(architecture));
    let cases = cases.iter().flat_map(|case| precisions.map(|precision| (case, precision)));
    for ((device, config), precision) in cases {
        let mut model = LanguageModel::new(config, *device, 1).unwrap();
        model.set_precision(precision);
        let text = tokens(2, 17, 5).to_device(*device);
        let (inputs, targets) = (text.narrow(1, 0, 16), text.narrow(1, 1, 16));
        let parameters: Vec<Tensor> =
            model.named_parameters().into_iter().map(|(_, tensor)| tensor).collect();
        let mut moments: Vec<(Tensor, Tensor)> =
            parameters.iter().map(|p| (p.zeros_like(), p.zeros_like())).collect();
        let mut last = f64::INFINITY;
        for step in 1..=150 {
            let (sum, count) = model.loss_sum(&inputs, &targets);
            assert_eq!(count, 32);
            let loss = sum / count as f64;
            last = loss.double_value(&[]);
            let gradients = Tensor::run_backward(&[loss], &parameters, false, false);
            tch::no_grad(|| {
                for ((parameter, gradient), (mean, square)) in
                    parameters.iter().zip(&gradients).zip(&mut moments)
                {
                    *mean = &*mean * 0.9 + gradient * 0.1;
                    *square = &*square * 0.99 + gradient.square() * 0.01;
                    let mean = &*mean / (1.0 - 0.9_f64.powi(step));
                    let square = &*square / (1.0 - 0.99_f64.powi(step));
                    let mut parameter = parameter.shallow_clone();
                    parameter -= mean / (square.sqrt() + 1e-8) * 0.01;
                }
            });
        }
        assert!(last < 0.1, "{} layers, {precision:?}: {last}", config.shape.n_layers);
    }
}

/// The largest distance of a bf16 gradient from the float32 one, as a share of its norm. A rounding to
/// bf16 is off by up to 2⁻⁹ = 0.002, and a gradient has passed through dozens; 0.039 was found.
const BF16_GRADIENTS: f64 = 0.08;

fn gradients_of_bfloat16_products_are_near_those_of_float32(architecture: Architecture) {
    for (device, config) in on_devices(&depths(architecture)) {
        let gradients = |precision| {
            let mut model = enlarged(&config, device);
            model.set_precision(precision);
            model.loss(&tokens(2, 66, 8).to_device(device)).backward();
            let named = model.named_parameters().into_iter();
            named.map(|(name, tensor)| (name, tensor.grad())).collect::<Vec<_>>()
        };
        let norm = |x: &Tensor| x.norm().double_value(&[]);
        let (exact, rounded) = (gradients(MatmulPrecision::Fp32), gradients(MatmulPrecision::Bf16));
        for ((name, exact), (_, rounded)) in exact.iter().zip(&rounded) {
            assert_eq!(rounded.kind(), Kind::Float, "{name}");
            let share = norm(&(rounded - exact)) / norm(exact).max(1e-30);
            assert!(share < BF16_GRADIENTS, "{name}: {share}");
        }
    }
}

fn saved_and_loaded_weights_give_the_same_logits(architecture: Architecture) {
    let text = tokens(2, 33, 6);
    let first = model(architecture, Device::Cpu, 1);
    let buffers: Vec<(String, Vec<usize>, Vec<u8>)> = first
        .named_parameters()
        .into_iter()
        .map(|(name, tensor)| {
            let shape = tensor.size().iter().map(|size| usize::try_from(*size).unwrap()).collect();
            let mut bytes = vec![0; tensor.numel() * 4];
            tensor.detach().copy_data_u8(&mut bytes, tensor.numel());
            (name, shape, bytes)
        })
        .collect();
    let views = buffers.iter().map(|(name, shape, bytes)| {
        (name.clone(), TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
    });
    let file = safetensors::serialize(views, None::<HashMap<String, String>>).unwrap();
    let loaded: Vec<(String, Tensor)> = SafeTensors::deserialize(&file)
        .unwrap()
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let shape: Vec<i64> =
                view.shape().iter().map(|size| i64::try_from(*size).unwrap()).collect();
            (name, Tensor::from_data_size(view.data(), &shape, Kind::Float))
        })
        .collect();
    for device in devices() {
        let mut second = LanguageModel::new(&config(architecture), device, 2).unwrap();
        second.load(&loaded).unwrap();
        let logits = second.forward(&text.to_device(device)).to_device(Device::Cpu);
        let difference = (first.forward(&text) - logits).abs().max().double_value(&[]);
        let allowed = if device == Device::Cpu { 0.0 } else { 1e-5 };
        assert!(difference <= allowed, "{device:?}: {difference}");
    }
}

fn tensors_and_counts_are_those_of_the_domain(architecture: Architecture) {
    let sizes = [(16, 2, 2, 24, 10), (24, 3, 3, 40, 31), (64, 4, 2, 170, 100)];
    for (d_model, n_heads, n_layers, ffn_hidden, vocab_size) in sizes {
        for tie_embeddings in [true, false] {
            for norm in [Norm::LayerNorm, Norm::RmsNorm, Norm::SrmsNorm] {
                let shape = Shape { vocab_size, d_model, n_layers, n_heads, ffn_hidden };
                let config = ModelConfig {
                    tie_embeddings,
                    norm,
                    ..ModelConfig::new(architecture, shape).unwrap()
                };
                let model = LanguageModel::new(&config, Device::Cpu, 1).unwrap();
                let found: Vec<(String, Vec<i64>)> = model
                    .named_parameters()
                    .into_iter()
                    .map(|(name, tensor)| (name, tensor.size()))
                    .collect();
                let expected: Vec<(String, Vec<i64>)> = config
                    .tensors()
                    .into_iter()
                    .map(|tensor| {
                        let shape = tensor.shape.iter().map(|size| i64::try_from(*size).unwrap());
                        (tensor.name, shape.collect())
                    })
                    .collect();
                assert_eq!(found, expected);
                let count: i64 = found.iter().map(|(_, shape)| shape.iter().product::<i64>()).sum();
                assert_eq!(u64::try_from(count).unwrap(), config.parameters_total());
            }
        }
    }
}

fn only_linear_layers_decay(architecture: Architecture) {
    let config = ModelConfig { norm: Norm::LayerNorm, ..config(architecture) };
    let model = LanguageModel::new(&config, Device::Cpu, 1).unwrap();
    let groups = model.decay_groups();
    assert_eq!(groups.decay.len() + groups.no_decay.len(), model.named_parameters().len());
    for (name, _) in &groups.decay {
        let is_linear = name.contains(".mixer.") || name.contains(".channel.");
        assert!(is_linear && name.ends_with(".weight"), "{name}");
    }
    for (name, _) in &groups.no_decay {
        let is_linear = name.contains(".mixer.") || name.contains(".channel.");
        assert!(!is_linear, "{name}");
    }
}

fn wrong_weights_are_refused_by_name_and_change_nothing(architecture: Architecture) {
    let mut model = model(architecture, Device::Cpu, 1);
    let text = tokens(1, 9, 7);
    let before = model.forward(&text);
    let zeros = |model: &LanguageModel| -> Vec<(String, Tensor)> {
        let pairs = model.named_parameters();
        pairs.into_iter().map(|(name, tensor)| (name, tensor.detach().zeros_like())).collect()
    };
    let mut missing = zeros(&model);
    let (removed, _) = missing.remove(3);
    let error = model.load(&missing).unwrap_err();
    assert!(matches!(&error, ModelsError::MissingTensor { name } if *name == removed), "{error}");
    let mut extra = zeros(&model);
    extra.push(("layers.9.bias".to_owned(), Tensor::zeros([1], (Kind::Float, Device::Cpu))));
    assert!(model.load(&extra).unwrap_err().to_string().contains("layers.9.bias"));
    let mut twice = zeros(&model);
    let again = twice[0].1.shallow_clone();
    twice.push((twice[0].0.clone(), again));
    assert!(model.load(&twice).unwrap_err().to_string().contains("embedding.weight"));
    let mut reshaped = zeros(&model);
    reshaped[0].1 = reshaped[0].1.transpose(0, 1);
    assert!(model.load(&reshaped).unwrap_err().to_string().contains("[24, 31]"));
    assert_eq!((model.forward(&text) - before).abs().max().double_value(&[]), 0.0);
}

macro_rules! standard_tests {
    ($module:ident, $architecture:ident, [$($name:ident),+ $(,)?]) => {
        mod $module {
            $(
                #[test]
                fn $name() {
                    super::$name(super::Architecture::$architecture);
                }
            )+
        }
    };
    ($($module:ident: $architecture:ident),+) => {
        $(standard_tests!($module, $architecture, [
            shapes_are_those_of_the_contract,
            a_later_token_leaves_earlier_logits_alone,
            a_gradient_reaches_every_parameter,
            the_same_seed_gives_the_same_loss,
            the_loss_is_that_of_the_whole_logits,
            one_batch_is_learnt_by_heart,
            gradients_of_bfloat16_products_are_near_those_of_float32,
            saved_and_loaded_weights_give_the_same_logits,
            tensors_and_counts_are_those_of_the_domain,
            only_linear_layers_decay,
            wrong_weights_are_refused_by_name_and_change_nothing,
        ]);)+
    };
}

standard_tests!(llama: Llama, tnl: Tnl, hgrn2: Hgrn2, cosformer2: CosFormer2);

#[test]
fn invalid_configurations_are_refused() {
    let mut config = config(Architecture::Llama);
    config.mixer = MixerConfig::Tnl { gate_rank: 0 };
    let error = LanguageModel::new(&config, Device::Cpu, 1).unwrap_err();
    assert!(error.to_string().contains("gate_rank"));
}

#[test]
fn first_values_are_those_of_the_contract() {
    let model = model(Architecture::CosFormer2, Device::Cpu, 1);
    let tensors: HashMap<String, Tensor> = model.named_parameters().into_iter().collect();
    let tpe = &tensors["tpe.weight"];
    assert_eq!(tpe.sum(Kind::Float).double_value(&[]), 24.0);
    assert_eq!(tpe.select(1, 0).min().double_value(&[]), 1.0);
    let spread = tensors["layers.0.mixer.q.weight"].std(true).double_value(&[]);
    assert!((spread / 0.02 - 1.0).abs() < 0.1, "{spread}");
}

/// The checkpoint format of the smallest models: a rename must be seen.
#[test]
fn names_and_shapes_of_the_smallest_models_are_pinned() {
    let list = |architecture: Architecture| -> String {
        let n_layers = if architecture == Architecture::Tnl { 2 } else { 1 };
        let shape = Shape { vocab_size: 5, d_model: 4, n_layers, n_heads: 2, ffn_hidden: 3 };
        let config = ModelConfig::new(architecture, shape).unwrap();
        let model = LanguageModel::new(&config, Device::Cpu, 1).unwrap();
        let parameters = model.named_parameters().into_iter();
        let lines: Vec<String> = parameters
            .filter(|(name, _)| !name.starts_with("layers.1."))
            .map(|(name, tensor)| format!("{name} {:?}\n", tensor.size()))
            .collect();
        lines.concat()
    };
    let channel = "layers.0.channel.gate.weight [3, 4]\nlayers.0.channel.up.weight [3, 4]\n\
                   layers.0.channel.down.weight [4, 3]\n";
    let mixer = |names: &str| -> String {
        let line = |name: &str| format!("layers.0.mixer.{name}.weight [4, 4]\n");
        names.split(' ').map(line).collect::<Vec<_>>().concat()
    };
    let gate = "layers.0.mixer.gate_down.weight [2, 4]\nlayers.0.mixer.gate_up.weight [4, 2]\n";
    let embedding = "embedding.weight [5, 4]\n";
    assert_eq!(
        list(Architecture::Llama),
        format!(
            "{embedding}layers.0.mixer_norm.weight [4]\n{}layers.0.channel_norm.weight [4]\n\
             {channel}final_norm.weight [4]\n",
            mixer("q k v o"),
        ),
    );
    assert_eq!(
        list(Architecture::Tnl),
        format!("{embedding}{}{gate}{}{channel}", mixer("q k v"), mixer("o")),
    );
    assert_eq!(
        list(Architecture::Hgrn2),
        format!("{embedding}lower_bounds [1, 4]\n{}{channel}", mixer("q f v o")),
    );
    assert_eq!(
        list(Architecture::CosFormer2),
        format!("{embedding}tpe.weight [4, 2]\n{}{gate}{}{channel}", mixer("q k v"), mixer("o")),
    );
}
