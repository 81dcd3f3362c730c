//! The forward pass of some chunks, each head's chunks on their own.
//!
//! It knows no states but what a chunk adds to one, and nothing of gradients.
//!
//! Queries and keys are faded further from one block size to the next, in place: as blocks of 2h
//! tokens are looked at, the keys of a first half hold the fade to its end and the queries of a second
//! half that from its start, so the product of the two is the scores between them. Then the keys are
//! faded over the second half and the queries over the first, whose fades are one number for each
//! channel. In the end they are faded to the end of the chunk and from its start, as its state needs
//! them. Every factor is between 0 and 1.

use tch::{Kind, Tensor};

use super::halves::{Halves, half_lengths};
use crate::ops::{multiply_into, sizes};

/// What some chunks R of H heads leave, all in place: rows are R·H.
pub(super) struct Made {
    /// Outputs but for what comes from the state before the chunk, `[R·H, C, V]`.
    pub(super) output: Tensor,
    /// Queries faded from the start of their chunk, `[R·H, C, K]`.
    pub(super) faded_q: Tensor,
    /// What each chunk adds to the state, `[R·H, K, V]`.
    pub(super) added: Tensor,
}

/// Fills `made` from q, k, v and log f, each `[R, C, H·X]`.
pub(super) fn fill(made: &Made, inputs: &[Tensor; 4], h: i64) {
    let [q, k, v, log_forget] = inputs.each_ref().map(|x| by_head(x, h)); // [R, H, C, X]
    let scores = diagonal(&q, &k); // [R·H, C, C]
    let (forget, keys, v) = (rows_like(&k), rows_like(&k), rows_of(&v)); // [R·H, C, X]
    drop(log_forget.exp_out(&forget.view_as(&log_forget)));
    keys.view_as(&k).copy_(&k);
    let queries = &made.faded_q;
    drop(q.mul_out(&queries.view_as(&q), &forget.view_as(&q)));
    fade(&scores, queries, &keys, forget);
    multiply_into(&made.added, &keys.transpose(1, 2), &v);
    multiply_into(&made.output, &scores, &v);
}

/// Adds the scores between halves of blocks, from the smallest on, and leaves queries and keys faded
/// over the whole chunk. `fades` `[R·H, C, K]` are those of the single tokens.
fn fade(scores: &Tensor, queries: &Tensor, keys: &Tensor, fades: Tensor) {
    let [rows, chunk, key] = sizes(queries);
    let mut of_halves = fades; // [R·H, 2·M, K]
    for half in half_lengths(chunk) {
        let n_blocks = chunk / (2 * half);
        let mut keys = Halves::of(keys, half).first; // [R·H, M, h, K]
        let mut queries = Halves::of(queries, half).second;
        let flat = |x: &Tensor| x.view([rows * n_blocks, half, key]);
        let found = flat(&queries).bmm(&flat(&keys).transpose(1, 2));
        blocks(scores, half).copy_(&found.view([rows, n_blocks, half, half]));
        let pairs = of_halves.view([rows, n_blocks, 2, 1, key]);
        let [first, second] = [0, 1].map(|side| pairs.select(2, side)); // [R·H, M, 1, K]
        keys *= &second;
        queries *= &first;
        of_halves = first * second;
    }
}

/// Queries of second halves with keys of first halves, a view `[R·H, M, h, h]` of `[R·H, C, C]`.
fn blocks(scores: &Tensor, half: i64) -> Tensor {
    let [rows, chunk, _] = sizes(scores);
    let strides = [chunk * chunk, 2 * half * (chunk + 1), chunk, 1];
    scores.as_strided([rows, chunk / (2 * half), half, half], strides, half * chunk)
}

/// Zeros but for the pairs of a token with itself, which nothing fades.
fn diagonal(q: &Tensor, k: &Tensor) -> Tensor {
    let [r, h, chunk, _] = sizes(q);
    let scores = Tensor::zeros([r, h, chunk, chunk], (q.kind(), q.device()));
    scores.diagonal(0, -2, -1).copy_(&(q * k).sum_dim_intlist(-1, false, None::<Kind>));
    scores.view([r * h, chunk, chunk])
}

/// `[R, C, H·X]` as `[R, H, C, X]`, in place.
fn by_head(x: &Tensor, h: i64) -> Tensor {
    let [r, chunk, width] = sizes(x);
    x.view([r, chunk, h, width / h]).transpose(1, 2)
}

/// Room for numbers `[R, H, C, X]` as `[R·H, C, X]`.
fn rows_like(x: &Tensor) -> Tensor {
    let [r, h, chunk, width] = sizes(x);
    Tensor::empty([r * h, chunk, width], (x.kind(), x.device()))
}

/// The numbers `[R, H, C, X]` as `[R·H, C, X]`, copied.
fn rows_of(x: &Tensor) -> Tensor {
    let rows = rows_like(x);
    rows.view_as(x).copy_(x);
    rows
}
