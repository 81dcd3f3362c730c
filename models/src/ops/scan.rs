//! The recurrence over chunks that the linear-attention operators share, forwards and backwards.
//!
//! It does not know what a chunk adds or why a state fades.
//!
//! S_{c+1} = f_c ⊙ S_c + U_c. A gradient G_c of the state after chunk c and what chunk c reads, R_c,
//! go the same way from the right: G_{c−1} = f_c ⊙ G_c + R_c.

use tch::Tensor;

use super::sizes;

/// The dimension of chunks.
const CHUNKS: i64 = 2;

/// The states before each chunk and the one after the last, from what each chunk adds
/// `[H, B, N, K, V]`, the fades `[H, 1 or B, N, 1 or K, 1]` and the first state `[B, H, K, V]`.
pub(crate) fn states(added: &Tensor, fades: &Tensor, first: Option<&Tensor>) -> (Tensor, Tensor) {
    let [_, _, n, _, _] = sizes(added);
    scan(added, fades, first, &(0..n).collect::<Vec<_>>())
}

/// The gradients of the states after each chunk and that of the first state, from what each chunk
/// reads and the gradient of the last state; shapes as in [`states`].
pub(crate) fn state_gradients(
    read: &Tensor,
    fades: &Tensor,
    last: Option<&Tensor>,
) -> (Tensor, Tensor) {
    let [_, _, n, _, _] = sizes(read);
    scan(read, fades, last, &(0..n).rev().collect::<Vec<_>>())
}

fn scan(terms: &Tensor, fades: &Tensor, first: Option<&Tensor>, order: &[i64]) -> (Tensor, Tensor) {
    let [h, b, _, key, value] = sizes(terms);
    let found = terms.empty_like();
    let slot = |index: usize| order.get(index).map(|at| found.select(CHUNKS, *at));
    let mut state = slot(0).expect("a text has at least one chunk");
    match first {
        Some(first) => state.copy_(&first.transpose(0, 1)),
        None => drop(state.zero_()),
    }
    for (index, at) in order.iter().enumerate() {
        let next = slot(index + 1)
            .unwrap_or_else(|| Tensor::empty([h, b, key, value], (terms.kind(), terms.device())));
        let fade = fades.select(CHUNKS, *at);
        drop(terms.select(CHUNKS, *at).addcmul_out(&next, &state, &fade));
        state = next;
    }
    (found, state.transpose(0, 1)) // [B, H, K, V]
}
