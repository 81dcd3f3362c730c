//! Fades between the tokens of a chunk, by halves of halves.
//!
//! It does not know heads, scores or states.
//!
//! A pair of tokens s < r of a chunk lies in the two halves of exactly one block of 2, 4, 8 … tokens.
//! With m the first token of the second half the fade from s to r is the product of the two fades to
//! and from the middle, Π_{s<i<m} f_i and Π_{m≤i≤r} f_i. Both are products of factors between 0 and
//! 1, so nothing overflows, nothing is divided, and a product is 0 only where the fade is.

use tch::{Kind, Tensor};

use crate::ops::sizes;

/// The halves of the blocks of one size, views `[R, M, h, W]` into `[R, C, W]` with C = 2·M·h.
pub(super) struct Halves {
    pub(super) first: Tensor,
    pub(super) second: Tensor,
}

impl Halves {
    pub(super) fn of(x: &Tensor, half: i64) -> Self {
        let [rows, chunk, width] = sizes(x);
        let blocks = x.view([rows, chunk / (2 * half), 2, half, width]);
        Self { first: blocks.select(2, 0), second: blocks.select(2, 1) }
    }
}

/// The last token of each half, `[R, M, 1, W]`.
fn last(half: &Tensor) -> Tensor {
    half.narrow(2, half.size()[2] - 1, 1)
}

/// Fades of the tokens of a chunk, `[R, C, W]`.
pub(super) struct Fades {
    /// From before the chunk to after token r: Π_{i≤r} f_i.
    pub(super) from_start: Tensor,
    /// From after token s to the chunk's end: Π_{s<i} f_i.
    pub(super) to_end: Tensor,
}

/// Visits the block sizes from the smallest on, with the length of their halves and the fades of the
/// first halves to the middle and of the second from it; then gives the fades of the whole chunk.
pub(super) fn visit(log_forget: &Tensor, mut at: impl FnMut(i64, &Halves)) -> Fades {
    let [_, chunk, _] = sizes(log_forget);
    let fades = Fades { from_start: log_forget.exp(), to_end: log_forget.ones_like() };
    for half in half_lengths(chunk) {
        let mut to = Halves::of(&fades.to_end, half);
        let mut from = Halves::of(&fades.from_start, half);
        let middle =
            Halves { first: to.first.shallow_clone(), second: from.second.shallow_clone() };
        at(half, &middle);
        // The order matters: the second half's total is read before it becomes the block's.
        to.first *= last(&from.second);
        from.second *= last(&from.first);
    }
    fades
}

/// What [`visit`] does to gradients with respect to the logs of the fades, backwards: `from_start` and
/// `to_end` those of the whole chunk, `middles` those of the fades to and from the middles, smallest
/// blocks first. Gives that of the log forget values. Every step is a sum of what depends on a fade.
pub(super) fn gradient(from_start: Tensor, to_end: &Tensor, middles: &[Tensor]) -> Tensor {
    let [_, chunk, _] = sizes(&from_start);
    let sum = |x: &Tensor| x.sum_dim_intlist(2, true, None::<Kind>); // [R, M, 1, W]
    for (half, middle) in half_lengths(chunk).zip(middles).rev() {
        let mut to = Halves::of(to_end, half);
        let mut from = Halves::of(&from_start, half);
        let (of_first, of_second) = (sum(&from.second), sum(&to.first));
        let (mut first_total, mut second_total) = (last(&from.first), last(&from.second));
        first_total += of_first;
        second_total += of_second;
        let middle = Halves::of(middle, half);
        to.first += middle.first;
        from.second += middle.second;
    }
    from_start
}

/// The lengths of the halves of a chunk's blocks, a power of two, smallest first.
pub(super) fn half_lengths(chunk: i64) -> impl DoubleEndedIterator<Item = i64> + ExactSizeIterator {
    (0..chunk.ilog2()).map(|level| 1_i64 << level)
}
