//! Text token by token: the state that stands for the tokens read so far, and the loop that adds to
//! them.
//!
//! It does not choose tokens (`sampling` does), and knows no text.
//!
//! `advance` gives the logits of `forward` on the whole text to rounding, however the text is cut
//! into calls: linear mixers hand over their state, softmax attention its keys and values, the
//! Toeplitz encoding its modes, and the rest of the network looks at one token at a time.

use tch::Tensor;

use super::{LanguageModel, Next};
use crate::ops::sizes;
use crate::past::{self, Past};
use crate::sampling::{Sampler, SamplingError};

/// Tokens of a prompt that are read at once: enough to keep the products busy, and a bound on the
/// memory that reading a long prompt takes.
const READ_TOKENS: i64 = 512;

/// What a model needs to know of B texts read so far in order to go on.
#[derive(Debug)]
pub struct GenerationState {
    batch: i64,
    position: i64,
    /// The modes of the Toeplitz encoding, `[B, E, e]`, where the model has it.
    modes: Option<Tensor>,
    layers: Vec<Past>,
}

impl GenerationState {
    /// How many tokens of each text were read.
    pub fn position(&self) -> i64 {
        self.position
    }

    /// Memory that the state takes. For the linear architectures it does not grow with the text.
    pub fn bytes(&self) -> usize {
        let layers: usize = self.layers.iter().map(Past::bytes).sum();
        layers + self.modes.as_ref().map_or(0, past::bytes)
    }

    /// A second state at the same place, to go on in another way.
    #[must_use]
    pub fn copy(&self) -> Self {
        Self {
            batch: self.batch,
            position: self.position,
            modes: self.modes.as_ref().map(Tensor::copy),
            layers: self.layers.iter().map(Past::copy).collect(),
        }
    }
}

impl LanguageModel {
    /// The state of `batch` texts of which nothing was read.
    pub fn start(&self, batch: i64) -> GenerationState {
        let width = i64::from(self.config.shape.d_model);
        let options = (self.embedding.kind(), self.embedding.device());
        let x = Tensor::zeros([batch, 0, width], options);
        GenerationState {
            batch,
            position: 0,
            modes: self.positions.as_ref().map(|positions| positions.no_past(&x)),
            layers: self.layers.iter().map(|layer| layer.mixer.no_past(&x)).collect(),
        }
    }

    /// Reads the next tokens `[B, T]`, int64, T ≥ 1: their logits `[B, T, V]`, and the state moves on.
    pub fn advance(&self, tokens: &Tensor, state: &mut GenerationState) -> Tensor {
        tch::no_grad(|| self.head.forward(&self.read(tokens, state), self.execution.precision))
    }

    /// As `advance`, for a text of any length in pieces of bounded size: the logits after its last
    /// token, `[B, V]`.
    pub fn advance_to_last(&self, tokens: &Tensor, state: &mut GenerationState) -> Tensor {
        let [_, time] = sizes(tokens);
        tch::no_grad(|| {
            let (mut before, mut last) = (0, None);
            while before < time {
                let count = READ_TOKENS.min(time - before);
                let x = self.read(&tokens.narrow(1, before, count), state); // [B, count, E]
                last = Some(x.narrow(1, count - 1, 1)); // [B, 1, E]
                before += count;
            }
            let last = last.expect("a text has at least one token");
            self.head.forward(&last, self.execution.precision).squeeze_dim(1) // [B, V]
        })
    }

    /// What the head reads of the next tokens, `[B, T, E]`.
    fn read(&self, tokens: &Tensor, state: &mut GenerationState) -> Tensor {
        let [batch, time] = sizes(tokens);
        assert_eq!(batch, state.batch, "the state was made for another number of texts");
        let next = Next { position: state.position, precision: self.execution.precision };
        let mut x = self.embed(tokens);
        if let (Some(positions), Some(modes)) = (&self.positions, &mut state.modes) {
            x = positions.advance(&x, modes);
        }
        for (layer, past) in self.layers.iter().zip(&mut state.layers) {
            x = layer.forward(&x, next.precision, |mixer, x| mixer.advance(x, past, next));
        }
        state.position += time;
        self.final_norm.forward(&x)
    }

    /// The tokens that follow a prompt of at least one, chosen by the sampler, without end.
    pub fn continuation(&self, prompt: &[i64], sampler: Sampler) -> Continuation<'_> {
        Continuation { model: self, unread: prompt.to_vec(), state: self.start(1), sampler }
    }
}

/// The tokens that follow a prompt, one after the other. It ends only where a model has gone wrong:
/// with an error in place of the token that its logits do not give.
#[derive(Debug)]
pub struct Continuation<'a> {
    model: &'a LanguageModel,
    /// The prompt at first, then the last token: what the state has not seen yet.
    unread: Vec<i64>,
    state: GenerationState,
    sampler: Sampler,
}

impl Continuation<'_> {
    /// The state after all tokens but the last one chosen.
    pub fn state(&self) -> &GenerationState {
        &self.state
    }
}

impl Iterator for Continuation<'_> {
    type Item = Result<i64, SamplingError>;

    fn next(&mut self) -> Option<Self::Item> {
        let tokens = Tensor::from_slice(&self.unread).unsqueeze(0); // [1, T]
        let tokens = tokens.to_device(self.model.embedding.device());
        let logits = self.model.advance_to_last(&tokens, &mut self.state); // [1, V]
        let logits =
            Vec::<f32>::try_from(&logits.squeeze_dim(0)).expect("logits are float32 numbers");
        let token = self.sampler.choose(&logits);
        if let Ok(token) = token {
            self.unread = vec![token];
        }
        Some(token)
    }
}
