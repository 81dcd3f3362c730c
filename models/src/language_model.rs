//! The skeleton that all language models of the contract share: embedding, blocks, norms, channel
//! mixer, head, loss; named parameters in and out.
//!
//! It does not know how any architecture mixes tokens, trains nothing and reads no files.
//!
//! The equations (checkpoint format, "Tensors common to all"):
//!
//! ```text
//! x = embedding[token] · (√d if embedding_scale)
//! for each layer:  x += mixer(mixer_norm(x));  n = channel_norm(x);  x += down(φ(gate(n)) ⊙ up(n))
//! logits = final_norm(x) · headᵀ
//! ```

use std::collections::HashMap;

use domain::model::{FfnActivation, MixerConfig, ModelConfig};
use tch::{Device, Tensor};

use crate::ModelsError;
use crate::cosformer2::{CosFormer2Mixer, CosFormer2Positions};
use crate::hgrn2::{Hgrn2Mixer, LowerBounds};
use crate::llama::LlamaMixer;
use crate::ops::glu::glu;
use crate::ops::linear_cross_entropy::{LossOptions, LossSums, linear_cross_entropy, nats_of_rows};
use crate::ops::lrpe::Lrpe;
use crate::ops::norm::Norm;
use crate::ops::rotary::Rotary;
use crate::ops::{Execution, Form, Linear, MatmulPrecision, forward_together, sizes};
use crate::parameters::{Init, Parameter, Path, Store};
use crate::past::Past;
use crate::tnl::TnlMixer;

mod generation;

pub use generation::{Continuation, GenerationState};

/// The layer that makes an architecture different.
pub(crate) trait Mixer: std::fmt::Debug + Send {
    /// x `[B, T, E]`, already normed, to what is added to the residual stream, `[B, T, E]`.
    fn forward(&self, x: &Tensor, execution: Execution) -> Tensor;

    /// The past before the first token, for x `[B, 0, E]`, which says how many texts and where.
    fn no_past(&self, x: &Tensor) -> Past;

    /// As `forward`, for the tokens that follow `past`, which moves on over them. Without gradients.
    fn advance(&self, x: &Tensor, past: &mut Past, next: Next) -> Tensor;
}

/// What a mixer is told of the tokens that follow its past.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Next {
    /// Where the first of them stands in the text.
    pub(crate) position: i64,
    /// Precision of the products with weight matrices.
    pub(crate) precision: MatmulPrecision,
}

/// A gated linear unit: down(φ(gate(x)) ⊙ up(x)).
#[derive(Debug)]
struct ChannelMixer {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: FfnActivation,
}

impl ChannelMixer {
    fn new(mut path: Path<'_>, config: &ModelConfig) -> Result<Self, ModelsError> {
        let (d, g) = (i64::from(config.shape.d_model), i64::from(config.shape.ffn_hidden));
        let gate = path.linear("gate", g, d)?;
        let up = path.linear("up", g, d)?;
        let down = path.linear("down", d, g)?;
        Ok(Self { gate, up, down, activation: config.ffn_activation })
    }

    fn forward(&self, x: &Tensor, precision: MatmulPrecision) -> Tensor {
        let [gate, up] = forward_together([&self.gate, &self.up], x, precision); // [B, T, F]
        let hidden = glu(&gate, &up, self.activation); // [B, T, F]
        self.down.forward(&hidden, precision).to_kind(x.kind()) // [B, T, E]
    }
}

#[derive(Debug)]
struct Layer {
    mixer_norm: Norm,
    mixer: Box<dyn Mixer>,
    channel_norm: Norm,
    channel: ChannelMixer,
}

impl Layer {
    /// x `[B, T, E]` through the block, the mixer applied by `mix`; the same shape back.
    fn forward(
        &self,
        x: &Tensor,
        precision: MatmulPrecision,
        mix: impl FnOnce(&dyn Mixer, &Tensor) -> Tensor,
    ) -> Tensor {
        let x = x + mix(self.mixer.as_ref(), &self.mixer_norm.forward(x));
        let normed = self.channel_norm.forward(&x);
        &x + self.channel.forward(&normed, precision)
    }
}

/// The parameters in two groups, for the optimiser.
#[derive(Debug)]
pub struct DecayGroups {
    /// Weights of linear layers.
    pub decay: Vec<(String, Tensor)>,
    /// Everything else.
    pub no_decay: Vec<(String, Tensor)>,
}

/// A language model of the contract with float32 parameters.
#[derive(Debug)]
pub struct LanguageModel {
    config: ModelConfig,
    embedding: Tensor,
    positions: Option<CosFormer2Positions>,
    layers: Vec<Layer>,
    final_norm: Norm,
    head: Linear,
    parameters: Vec<Parameter>,
    execution: Execution,
}

impl LanguageModel {
    /// A model with the contract's first values from a seed: the same on every device.
    pub fn new(config: &ModelConfig, device: Device, seed: u64) -> Result<Self, ModelsError> {
        config.validate()?;
        let mut store = Store::new(seed, device);
        let mut root = store.root();
        let (vocab, d) = (i64::from(config.shape.vocab_size), i64::from(config.shape.d_model));
        let embedding = root.sub("embedding").tensor("weight", &[vocab, d], Init::Normal)?;
        let positions = CosFormer2Positions::new(&mut root, config)?;
        let shared = Shared::new(&mut root, config)?;
        let mut layers = Vec::new();
        for index in 0..config.shape.n_layers {
            let mut path = root.sub(&format!("layers.{index}"));
            let mixer_norm = Norm::new(path.sub("mixer_norm"), config)?;
            let mixer = shared.mixer(path.sub("mixer"), config, index)?;
            let channel_norm = Norm::new(path.sub("channel_norm"), config)?;
            let channel = ChannelMixer::new(path.sub("channel"), config)?;
            layers.push(Layer { mixer_norm, mixer, channel_norm, channel });
        }
        let final_norm = Norm::new(root.sub("final_norm"), config)?;
        let head = if config.tie_embeddings {
            Linear::new(embedding.shallow_clone())
        } else {
            root.linear("head", vocab, d)?
        };
        Ok(Self {
            config: *config,
            embedding,
            positions,
            layers,
            final_norm,
            head,
            parameters: store.into_parameters(),
            execution: Execution::default(),
        })
    }

    /// The configuration the model was built from.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the parameters are, and the tokens must be.
    pub fn device(&self) -> Device {
        self.embedding.device()
    }

    /// Chooses the precision of the products with weight matrices; parameters stay float32.
    pub fn set_precision(&mut self, precision: MatmulPrecision) {
        self.execution.precision = precision;
    }

    /// Chooses the form of the mixing layers, for tests and comparisons.
    pub fn set_form(&mut self, form: Form) {
        self.execution.form = form;
    }

    /// Tokens `[B, T]`, int64, T ≥ 1, to logits `[B, T, V]`, float32.
    pub fn forward(&self, tokens: &Tensor) -> Tensor {
        self.head.forward(&self.hidden(tokens), self.execution.precision)
    }

    /// What the head reads, `[B, T, E]`.
    fn hidden(&self, tokens: &Tensor) -> Tensor {
        let mut x = self.embed(tokens);
        if let Some(positions) = &self.positions {
            x = positions.forward(&x, self.execution.form);
        }
        for layer in &self.layers {
            x = layer
                .forward(&x, self.execution.precision, |mixer, x| mixer.forward(x, self.execution));
        }
        self.final_norm.forward(&x)
    }

    /// The scaled embedding, `[B, T, E]`.
    fn embed(&self, tokens: &Tensor) -> Tensor {
        let x = Tensor::embedding(&self.embedding, tokens, -1, false, false); // [B, T, E]
        if self.config.embedding_scale {
            return x * f64::from(self.config.shape.d_model).sqrt();
        }
        x
    }

    /// The contract's loss of texts `[B, T]`: the mean cross-entropy in nats of token t + 1 given
    /// the tokens up to t, over all rows and all t < T − 1. Panics for T = 1, which has no loss.
    pub fn loss(&self, tokens: &Tensor) -> Tensor {
        let [_, time] = sizes(tokens);
        assert!(time > 1, "a text of one token has no next token and so no loss");
        let (inputs, targets) = (tokens.narrow(1, 0, time - 1), tokens.narrow(1, 1, time - 1));
        let (sum, count) = self.loss_sum(&inputs, &targets);
        sum / count as f64
    }

    /// The sum of the cross-entropies in nats of `targets[b, t]` given `inputs[b, ..= t]`, both
    /// `[B, T]`, and how many there are, B·T.
    pub fn loss_sum(&self, inputs: &Tensor, targets: &Tensor) -> (Tensor, i64) {
        let [b, t] = sizes(inputs);
        (self.loss_sums(inputs, targets, 0.0).objective, b * t)
    }

    /// As [`Self::loss_sum`], with the z-loss of this coefficient in the objective.
    pub fn loss_sums(&self, inputs: &Tensor, targets: &Tensor, z_loss: f64) -> LossSums {
        let [b, t] = sizes(inputs);
        let width = i64::from(self.config.shape.d_model);
        let hidden = self.hidden(inputs).reshape([b * t, width]);
        let options = LossOptions { precision: self.execution.precision, z_loss };
        linear_cross_entropy(&hidden, self.head.weight(), &targets.reshape([b * t]), options)
    }

    /// The cross-entropy in nats of each `targets[b, t]` given `inputs[b, ..= t]`, both and the result
    /// `[B, T]`; without gradients.
    pub fn nats(&self, inputs: &Tensor, targets: &Tensor) -> Tensor {
        let [b, t] = sizes(inputs);
        let width = i64::from(self.config.shape.d_model);
        let hidden = tch::no_grad(|| self.hidden(inputs)).reshape([b * t, width]);
        let (targets, precision) = (targets.reshape([b * t]), self.execution.precision);
        nats_of_rows(&hidden, self.head.weight(), &targets, precision).view([b, t])
    }

    /// Every parameter with its name, in the contract's order, sharing memory with the model.
    pub fn named_parameters(&self) -> Vec<(String, Tensor)> {
        self.parameters.iter().map(named).collect()
    }

    /// The parameters that weight decay applies to, and the others.
    ///
    /// The rule: the weight matrix of a linear layer decays, nothing else does. nanoGPT decides by
    /// dimension, which would take in embeddings, `lower_bounds` and `tpe.weight`; those are looked
    /// up, normalised or fixed filters, and shrinking them changes what the layer means. OLMo 2
    /// leaves the embedding out for the same reason. A tied embedding counts as an embedding, an
    /// untied head as a linear layer.
    pub fn decay_groups(&self) -> DecayGroups {
        let (decay, no_decay): (Vec<_>, Vec<_>) =
            self.parameters.iter().partition(|parameter| parameter.decays);
        DecayGroups {
            decay: decay.into_iter().map(named).collect(),
            no_decay: no_decay.into_iter().map(named).collect(),
        }
    }

    /// Overwrites every parameter with the tensor of its name, from any device and element type.
    ///
    /// Missing, unknown and repeated tensors and wrong shapes are refused before anything changes.
    pub fn load(&mut self, tensors: &[(String, Tensor)]) -> Result<(), ModelsError> {
        let mut given: HashMap<&str, &Tensor> = HashMap::new();
        for (name, tensor) in tensors {
            if given.insert(name, tensor).is_some() {
                return Err(ModelsError::UnexpectedTensor { name: name.clone() });
            }
        }
        let mut pairs = Vec::new();
        for Parameter { name, tensor, .. } in &self.parameters {
            let Some(values) = given.remove(name.as_str()) else {
                return Err(ModelsError::MissingTensor { name: name.clone() });
            };
            let (found, expected) = (values.size(), tensor.size());
            if found != expected {
                return Err(ModelsError::WrongShape { name: name.clone(), found, expected });
            }
            pairs.push((name, tensor.shallow_clone(), values));
        }
        if let Some(name) = given.into_keys().min() {
            return Err(ModelsError::UnexpectedTensor { name: name.to_owned() });
        }
        tch::no_grad(|| {
            for (name, mut tensor, values) in pairs {
                tensor
                    .f_copy_(values)
                    .map_err(|source| ModelsError::Place { name: name.clone(), source })?;
            }
            Ok(())
        })
    }
}

fn named(parameter: &Parameter) -> (String, Tensor) {
    (parameter.name.clone(), parameter.tensor.shallow_clone())
}

/// What the mixing layers of a model have in common.
#[derive(Debug)]
enum Shared {
    Llama(Rotary),
    Tnl,
    Hgrn2(LowerBounds),
    CosFormer2(Lrpe),
}

impl Shared {
    fn new(root: &mut Path<'_>, config: &ModelConfig) -> Result<Self, ModelsError> {
        Ok(match config.mixer {
            MixerConfig::Llama { rope, rope_base, .. } => Self::Llama(Rotary::new(rope, rope_base)),
            MixerConfig::Tnl { .. } => Self::Tnl,
            MixerConfig::Hgrn2 => Self::Hgrn2(LowerBounds::new(root, config)?),
            MixerConfig::CosFormer2 { .. } => Self::CosFormer2(Lrpe::new()),
        })
    }

    fn mixer(
        &self,
        path: Path<'_>,
        config: &ModelConfig,
        layer: u32,
    ) -> Result<Box<dyn Mixer>, ModelsError> {
        Ok(match self {
            Self::Llama(rotary) => Box::new(LlamaMixer::new(path, config, rotary.clone())?),
            Self::Tnl => Box::new(TnlMixer::new(path, config, layer)?),
            Self::Hgrn2(bounds) => Box::new(Hgrn2Mixer::new(path, config, bounds.layer(layer))?),
            Self::CosFormer2(lrpe) => Box::new(CosFormer2Mixer::new(path, config, lrpe.clone())?),
        })
    }
}
