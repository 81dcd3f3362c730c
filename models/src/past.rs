//! What a mixing layer keeps of the tokens read so far, while text is generated.
//!
//! It does not know what the tensors mean; the mixers do.

use tch::Tensor;

use crate::ops::sizes;

/// The past of one layer.
#[derive(Debug)]
pub(crate) enum Past {
    /// A linear mixer's state, `[B, H, K, V]`: as large after any number of tokens.
    State(Tensor),
    /// Softmax attention's keys and values: larger with every token.
    Cache(Cache),
}

impl Past {
    /// The state of a linear mixer.
    pub(crate) fn state(&mut self) -> &mut Tensor {
        match self {
            Self::State(state) => state,
            Self::Cache(_) => unreachable!("a mixer is given the past that it made"),
        }
    }

    /// The cache of softmax attention.
    pub(crate) fn cache(&mut self) -> &mut Cache {
        match self {
            Self::Cache(cache) => cache,
            Self::State(_) => unreachable!("a mixer is given the past that it made"),
        }
    }

    /// A past of its own with the same contents.
    pub(crate) fn copy(&self) -> Self {
        match self {
            Self::State(state) => Self::State(state.copy()),
            Self::Cache(cache) => Self::Cache(cache.copy()),
        }
    }

    /// Memory that the past takes, with what is held ready for later tokens.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::State(state) => bytes(state),
            Self::Cache(Cache { keys, values, .. }) => keys.iter().chain(values).map(bytes).sum(),
        }
    }
}

/// The memory of a tensor that is no view.
pub(crate) fn bytes(tensor: &Tensor) -> usize {
    tensor.numel() * tensor.kind().elt_size_in_bytes()
}

/// Keys and values of the tokens so far, in tensors with room for more.
#[derive(Debug, Default)]
pub(crate) struct Cache {
    length: i64,
    /// `[B, room, kv_heads, K]`; none before the first token.
    keys: Option<Tensor>,
    values: Option<Tensor>,
}

impl Cache {
    /// Adds the keys and values `[B, T, kv_heads, K]` of the next T tokens, and gives all of them up
    /// to now, `[B, S, kv_heads, K]`.
    pub(crate) fn append(&mut self, k: &Tensor, v: &Tensor) -> (Tensor, Tensor) {
        let keys = put(self.keys.take(), self.length, k);
        let values = put(self.values.take(), self.length, v);
        self.length += k.size()[1];
        let seen = (keys.narrow(1, 0, self.length), values.narrow(1, 0, self.length));
        (self.keys, self.values) = (Some(keys), Some(values));
        seen
    }

    fn copy(&self) -> Self {
        let copy = |room: &Option<Tensor>| room.as_ref().map(Tensor::copy);
        Self { length: self.length, keys: copy(&self.keys), values: copy(&self.values) }
    }
}

/// The room with x `[B, T, kv_heads, K]` after its first `length` tokens; a room of twice the size
/// where it is full, so that a token is moved about once however long the text becomes.
fn put(room: Option<Tensor>, length: i64, x: &Tensor) -> Tensor {
    let [b, t, heads, width] = sizes(x);
    let needed = length + t;
    let room = match room {
        Some(room) if room.size()[1] >= needed => room,
        full => {
            let shape = [b, needed.max(2 * length), heads, width];
            let larger = Tensor::zeros(shape, (x.kind(), x.device()));
            if let Some(full) = full {
                larger.narrow(1, 0, length).copy_(&full.narrow(1, 0, length));
            }
            larger
        }
    };
    room.narrow(1, length, t).copy_(x);
    room
}
