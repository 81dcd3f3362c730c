//! Linear attention whose state fades by a factor per key channel and token, given as its log.
//!
//! It does not make the gates, and does not assume k = 1 − forget.
//!
//! Per head, with row vectors:  S_t = Diag(f_t) S_{t−1} + k_tᵀ v_t,  o_t = q_t S_t.
//!
//! Chunk form (linear-model study's notes, section 3.2) with the fades F_rs = Π_{s<i≤r} f_i of a
//! chunk of m tokens r = 0 … m − 1, and the state S before it:
//!
//! - scores P_rs = Σ_j q_rj k_sj F_rsj for s ≤ r, o_r = Σ_s P_rs v_s + (q_r ⊙ Π_{i≤r} f_i) S;
//! - the state after it is Diag(Π f) S + Σ_s (k_s ⊙ F_{m−1,s})ᵀ v_s.
//!
//! The scores are made by halves of halves (`halves`): log₂ m products with both exponents at most 0, where
//! one product q e^{A} · k e^{−A} would overflow. Forwards (`forward`) queries and keys are faded in place
//! from one block size to the next.
//!
//! Backwards (section 3.4): every fade of a query or key by x ⊙ F gives x ⊙ F ⊙ d(x ⊙ F) to the log of
//! F, and those are added up over the f_i that F is made of, without the difference of long sums by
//! which q ⊙ dq − k ⊙ dk would lose the digits of forget gates near 0. Saved are the inputs and the
//! states before the chunks; all else is made again, for some chunks at a time.

mod forward;
mod halves;

use tch::{Device, Kind, Tensor};
use torch_ext::{Backward, Forward};

use self::forward::Made;
use self::halves::{Fades, Halves};
use super::graph::in_graph;
use super::scan::{state_gradients, states};
use super::{multiply_into, pad, sizes, slabs};

/// Tokens of a chunk. Twice as many halve the states of K·V per chunk, and are one more level.
pub const CHUNK: i64 = 64;

/// How texts of one length are cut.
#[derive(Debug, Clone, Copy)]
pub struct GateTable {
    time: i64,
    chunk: i64,
    n_chunks: i64,
}

impl GateTable {
    /// The cut of texts of `time` tokens into chunks of about `chunk`: the next power of two, but no
    /// longer than the text needs.
    pub fn new(time: i64, chunk: i64, _kind: Kind, _device: Device) -> Self {
        let power_of_two = |x: i64| x.cast_unsigned().next_power_of_two().cast_signed();
        let chunk = power_of_two(chunk.min(time));
        Self { time, chunk, n_chunks: (time + chunk - 1) / chunk }
    }

    /// `[B, T, H, X]` to `[B·N, C, H·X]`, zeros after the text: they write nothing and forget nothing.
    fn rows(&self, x: &Tensor) -> Tensor {
        let [b, _, h, width] = sizes(x);
        let padded = pad(x, self.n_chunks * self.chunk).contiguous();
        padded.view([b * self.n_chunks, self.chunk, h * width])
    }

    /// The opposite of `rows`.
    fn text(&self, rows: &Tensor, like: &Tensor) -> Tensor {
        let [b, _, h, width] = sizes(like);
        rows.view([b, self.n_chunks * self.chunk, h, width]).narrow(1, 0, self.time)
    }

    /// First row and number of rows of each slab.
    fn slabs(rows: &Tensor) -> impl Iterator<Item = (i64, i64)> {
        let [n_rows, chunk, width] = sizes(rows);
        slabs(n_rows, chunk * width, rows.device())
    }

    /// Outputs, last state and the states before each chunk, `[H, B, N, K, V]`.
    fn forward(&self, inputs: [&Tensor; 4], initial: Option<&Tensor>) -> [Tensor; 3] {
        let ([b, _, h, key], [_, _, _, value]) = (sizes(inputs[0]), sizes(inputs[2]));
        let x = inputs.map(|x| self.rows(x));
        let [rows, chunk, _] = sizes(&x[0]);
        let room = |size: [i64; 3]| Tensor::empty(size, (x[0].kind(), x[0].device()));
        let made = Made {
            output: room([rows * h, chunk, value]),
            faded_q: room([rows * h, chunk, key]),
            added: room([rows * h, key, value]),
        };
        for (from, count) in Self::slabs(&x[0]) {
            let part = |x: &Tensor| x.narrow(0, from * h, count * h);
            let Made { output, faded_q, added } = &made;
            let made = Made { output: part(output), faded_q: part(faded_q), added: part(added) };
            forward::fill(&made, &x.each_ref().map(|x| x.narrow(0, from, count)), h);
        }
        let added = made.added.view([b, self.n_chunks, h, key, value]).permute([2, 0, 1, 3, 4]);
        let (starts, last) = states(&added, &totals(&x[3], b, h), initial);
        // Their memory is in the order of what was added.
        let of_rows = starts.permute([1, 2, 0, 3, 4]).view([rows * h, key, value]);
        let mut output = made.output;
        let output = output.baddbmm_(&made.faded_q, &of_rows).view([rows, h, chunk, value]);
        // With one channel a head this would be a view, which cannot become rows of a text.
        let output = output.transpose(1, 2).reshape([rows, chunk, h * value]).contiguous();
        [self.text(&output, inputs[2]), last, starts]
    }

    /// The gradients of q, k, v, log f and the initial state.
    fn backward(&self, given: &Backward<'_>) -> Vec<Option<Tensor>> {
        let [q, k, v, log_forget, starts] = given.saved else { unreachable!("five are saved") };
        let ([b, _, h, key], [_, _, _, value]) = (sizes(q), sizes(v));
        let n = self.n_chunks;
        let d_output =
            given.gradients[0].as_ref().map_or_else(|| v.zeros_like(), Tensor::shallow_clone);
        let x = [q, k, v, log_forget, &d_output].map(|x| self.rows(x));
        let read = Self::read(&x, h, value).view([h, b, n, key, value]);
        let last = given.gradients[1].as_ref();
        let (ends, d_initial) = state_gradients(&read, &totals(&x[3], b, h), last);
        let flat = |states: &Tensor| states.view([h, b * n, key, value]);
        let (starts, ends) = (flat(starts), flat(&ends));
        let gradients = [q, k, v, log_forget].map(|like| (self.rows(like).empty_like(), like));
        for (from, count) in Self::slabs(&x[0]) {
            let part = |x: &Tensor| x.narrow(0, from, count);
            let states = [&starts, &ends].map(|states| states.narrow(1, from, count));
            let found = slab_gradients(&x.each_ref().map(part), &states, h);
            for ((gradient, _), found) in gradients.iter().zip(found) {
                part(gradient).copy_(&found);
            }
        }
        let mut found: Vec<_> =
            gradients.iter().map(|(gradient, like)| Some(self.text(gradient, like))).collect();
        if given.wanted.len() > found.len() {
            found.push(Some(d_initial));
        }
        found
    }

    /// What the chunks read of the gradients, `[H, B·N, K, V]`.
    fn read(x: &[Tensor; 5], h: i64, value: i64) -> Tensor {
        let [q, _, _, log_forget, d_output] = x;
        let [rows, _, width] = sizes(q);
        let read = Tensor::empty([h, rows, width / h, value], (q.kind(), q.device()));
        for (from, count) in Self::slabs(q) {
            let part = |x: &Tensor| x.narrow(0, from, count);
            let Fades { from_start, .. } = halves::visit(&part(log_forget), |_, _| ());
            let faded_q = part(q) * from_start;
            for head in 0..h {
                let q = of_head(&faded_q, head, h).transpose(1, 2);
                let d_output = of_head(&part(d_output), head, h);
                multiply_into(&part(&read.select(0, head)), &q, &d_output);
            }
        }
        read
    }
}

/// The gradients of q, k, v and log f of some chunks, from q, k, v, log f and the output's gradient,
/// each `[R, C, H·X]`, and the states before and the states' gradients after, `[H, R, K, V]`.
fn slab_gradients(x: &[Tensor; 5], states: &[Tensor; 2], h: i64) -> [Tensor; 4] {
    let [q, k, v, log_forget, d_output] = x;
    let [starts, ends] = states;
    let scores = Scores::diagonal(q, k, h);
    let d_scores = Scores::products(d_output, v, h);
    let on_diagonal = d_scores.diagonal_by_token(q); // [R, C, H·K]
    let (mut dq, mut dk) = (&on_diagonal * k, on_diagonal * q);
    let mut middles = Vec::new();
    let fades = halves::visit(log_forget, |half, middle| {
        let faded = faded_halves(q, k, half, middle);
        scores.set(half, &faded, h);
        let d_faded = d_scores.spread(half, &faded, h);
        let (d_halves, dk, dq) =
            (Halves::of(&d_faded, half), Halves::of(&dk, half), Halves::of(&dq, half));
        add_product(dk.first, &d_halves.first, &middle.first);
        add_product(dq.second, &d_halves.second, &middle.second);
        middles.push(faded * d_faded);
    });
    let (faded_q, faded_k) = (q * &fades.from_start, k * &fades.to_end);
    let (d_faded_q, d_faded_k, dv) = (q.empty_like(), k.empty_like(), v.empty_like());
    for head in 0..h {
        let (start, end) = (starts.select(0, head), ends.select(0, head));
        let [v, d_output] = [v, d_output].map(|x| of_head(x, head, h));
        of_head(&d_faded_q, head, h).copy_(&d_output.bmm(&start.transpose(1, 2)));
        of_head(&d_faded_k, head, h).copy_(&v.bmm(&end.transpose(1, 2)));
        let mut of_values = scores.head(head).transpose(1, 2).bmm(&d_output);
        of_values = of_values.baddbmm_(&of_head(&faded_k, head, h), &end);
        of_head(&dv, head, h).copy_(&of_values);
    }
    dq = dq.addcmul_(&d_faded_q, &fades.from_start);
    dk = dk.addcmul_(&d_faded_k, &fades.to_end);
    // The whole chunk's fade is that from its start to its last token.
    let from_start = faded_q * d_faded_q;
    let [rows, chunk, width] = sizes(q);
    let kept = (starts * ends).sum_dim_intlist(-1, false, None::<Kind>); // [H, R, K]
    let kept = kept.transpose(0, 1).reshape([rows, width]);
    let last = |x: &Tensor| x.select(1, chunk - 1);
    add_product(last(&from_start), &kept, &last(&fades.from_start));
    let d_log_forget = halves::gradient(from_start, &(faded_k * d_faded_k), &middles);
    [dq, dk, dv, d_log_forget]
}

/// target += a ⊙ b, in place through a view.
fn add_product(mut target: Tensor, a: &Tensor, b: &Tensor) {
    drop(target.addcmul_(a, b));
}

/// Keys of first halves faded to the middle and queries of second halves faded from it, `[R, C, W]`.
fn faded_halves(q: &Tensor, k: &Tensor, half: i64, middle: &Halves) -> Tensor {
    let faded = q.empty_like();
    let target = Halves::of(&faded, half);
    drop(Halves::of(k, half).first.mul_out(&target.first, &middle.first));
    drop(Halves::of(q, half).second.mul_out(&target.second, &middle.second));
    faded
}

/// The channels of one head of `[…, H·X]`, in place.
fn of_head(x: &Tensor, head: i64, heads: i64) -> Tensor {
    let width = x.size().last().expect("the channels are a dimension") / heads;
    x.narrow(-1, head * width, width)
}

/// The fades of whole chunks, `[H, B, N, K, 1]`, for log f `[B·N, C, H·K]`. By the sum of the logs:
/// factors near 1 are rounded in the same direction, which would add up over a long text.
fn totals(log_forget: &Tensor, b: i64, h: i64) -> Tensor {
    let [rows, _, width] = sizes(log_forget);
    let totals = log_forget.sum_dim_intlist(1, false, None::<Kind>).exp();
    totals.view([b, rows / b, h, width / h]).permute([2, 0, 1, 3]).unsqueeze(-1)
}

/// Numbers for each pair of tokens of a chunk, `[H, R, C, C]`: row of the query, column of the key.
struct Scores(Tensor);

impl Scores {
    /// Zeros but for the pairs of a token with itself, which nothing fades.
    fn diagonal(q: &Tensor, k: &Tensor, h: i64) -> Self {
        let [rows, chunk, width] = sizes(q);
        let scores = Tensor::zeros([h, rows, chunk, chunk], (q.kind(), q.device()));
        let own = (q * k).view([rows, chunk, h, width / h]);
        let own = own.sum_dim_intlist(-1, false, None::<Kind>).permute([2, 0, 1]);
        scores.diagonal(0, -2, -1).copy_(&own);
        Self(scores)
    }

    /// a_r · b_s for all pairs; those with s > r are never read.
    fn products(a: &Tensor, b: &Tensor, h: i64) -> Self {
        let [rows, chunk, _] = sizes(a);
        let scores = Tensor::empty([h, rows, chunk, chunk], (a.kind(), a.device()));
        for head in 0..h {
            let (a, b) = (of_head(a, head, h), of_head(b, head, h));
            multiply_into(&scores.select(0, head), &a, &b.transpose(1, 2));
        }
        Self(scores)
    }

    fn head(&self, head: i64) -> Tensor {
        self.0.select(0, head)
    }

    /// The diagonal for every channel of its head, `[R, C, H·K]`, the shape of `like`.
    fn diagonal_by_token(&self, like: &Tensor) -> Tensor {
        let [rows, chunk, width] = sizes(like);
        let [h, _, _, _] = sizes(&self.0);
        let own = self.0.diagonal(0, -2, -1).permute([1, 2, 0]).unsqueeze(-1); // [R, C, H, 1]
        own.expand([rows, chunk, h, width / h], false).reshape([rows, chunk, width])
    }

    /// Queries of second halves with keys of first halves, a view `[H, R, M, h, h]`.
    fn blocks(&self, half: i64) -> Tensor {
        let [h, rows, chunk, _] = sizes(&self.0);
        let square = chunk * chunk;
        let strides = [rows * square, square, 2 * half * (chunk + 1), chunk, 1];
        self.0.as_strided([h, rows, chunk / (2 * half), half, half], strides, half * chunk)
    }

    /// Fills the blocks of one size from the faded queries and keys.
    fn set(&self, half: i64, faded: &Tensor, h: i64) {
        let mut blocks = self.blocks(half);
        let found = Tensor::empty(blocks.size(), (faded.kind(), faded.device()));
        for head in 0..h {
            let [k, q] = half_matrices(faded, half, head, h);
            let target = found.select(0, head).view([-1, half, half]);
            multiply_into(&target, &q, &k.transpose(1, 2));
        }
        blocks.copy_(&found);
    }

    /// The gradients of the faded queries and keys, where these are those of the blocks.
    fn spread(&self, half: i64, faded: &Tensor, h: i64) -> Tensor {
        let d_faded = faded.empty_like();
        let blocks = self.blocks(half).contiguous();
        for head in 0..h {
            let [k, q] = half_matrices(faded, half, head, h);
            let [mut dk, mut dq] = half_matrices(&d_faded, half, head, h);
            let blocks = blocks.select(0, head).view([-1, half, half]);
            dq.copy_(&blocks.bmm(&k));
            dk.copy_(&blocks.transpose(1, 2).bmm(&q));
        }
        d_faded
    }
}

/// First and second halves of one head, `[R·M, h, K]` each, in place.
fn half_matrices(x: &Tensor, half: i64, head: i64, heads: i64) -> [Tensor; 2] {
    let [rows, chunk, width] = sizes(x);
    let blocks = x.view([rows * chunk / (2 * half), 2, half, width]);
    [0, 1].map(|side| of_head(&blocks.select(1, side), head, heads))
}

/// The outputs `[B, T, H, V]` and the state after the last token `[B, H, K, V]`, for q, k and
/// log_forget `[B, T, H, K]`, v `[B, T, H, V]` and an initial state (zeros if none).
pub fn gated_attention(
    inputs: [&Tensor; 4],
    table: &GateTable,
    initial: Option<&Tensor>,
) -> (Tensor, Tensor) {
    let [output, last, starts] = tch::no_grad(|| table.forward(inputs, initial));
    let [q, k, v, log_forget] = inputs;
    let inputs: Vec<&Tensor> = inputs.into_iter().chain(initial).collect();
    let forward = Forward {
        name: "gated_attention",
        inputs: &inputs,
        outputs: &[&output, &last],
        saved: &[q, k, v, log_forget, &starts],
    };
    let table = *table;
    let [output, last] = in_graph(&forward, move |given| table.backward(given));
    (output, last)
}

/// The naive twin: the recurrence over time.
pub fn naive([q, k, v, log_forget]: [&Tensor; 4], initial: Option<&Tensor>) -> (Tensor, Tensor) {
    let [b, t, h, key] = sizes(q);
    let [_, _, _, value] = sizes(v);
    let mut state = initial.map_or_else(
        || Tensor::zeros([b, h, key, value], (q.kind(), q.device())),
        Tensor::shallow_clone,
    );
    let mut outputs = Vec::new();
    for position in 0..t {
        let at = |x: &Tensor| x.select(1, position); // [B, H, X]
        let forget = at(log_forget).exp().unsqueeze(-1); // [B, H, K, 1]
        state = forget * state + at(k).unsqueeze(-1) * at(v).unsqueeze(-2); // [B, H, K, V]
        outputs.push(at(q).unsqueeze(-2).matmul(&state).squeeze_dim(-2)); // [B, H, V]
    }
    (Tensor::stack(&outputs, 1), state)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{assert_same_with_gradients, random};

    /// `scale` multiplies the log forget values: 1 is ordinary, 40 wipes most channels each token.
    fn check(time: i64, heads: i64, key: i64, value: i64, chunk: i64, scale: f64) {
        let q = random(&[2, time, heads, key], 1);
        let k = random(&[2, time, heads, key], 2);
        let v = random(&[2, time, heads, value], 3);
        let a = -(random(&[2, time, heads, key], 4) * scale).exp() * 0.1;
        let state = random(&[2, heads, key, value], 5);
        let table = |x: &Tensor| GateTable::new(time, chunk, x.kind(), x.device());
        assert_same_with_gradients(
            &[&q, &k, &v, &a],
            |x| {
                let inputs = [&x[0], &x[1], &x[2], &x[3]];
                vec![gated_attention(inputs, &table(&x[0]), None).0]
            },
            |x| vec![naive([&x[0], &x[1], &x[2], &x[3]], None).0],
        );
        assert_same_with_gradients(
            &[&q, &k, &v, &a, &state],
            |x| {
                let inputs = [&x[0], &x[1], &x[2], &x[3]];
                let (o, s) = gated_attention(inputs, &table(&x[0]), Some(&x[4]));
                vec![o, s]
            },
            |x| {
                let (o, s) = naive([&x[0], &x[1], &x[2], &x[3]], Some(&x[4]));
                vec![o, s]
            },
        );
    }

    #[test]
    fn chunks_and_recurrence_agree_for_odd_lengths_and_any_chunk() {
        for (time, chunk) in [(1, 8), (2, 1), (17, 8), (17, 64), (70, 16), (129, 8), (61, 7)] {
            check(time, 3, 5, 4, chunk, 1.0);
        }
        check(33, 1, 12, 24, 8, 1.0);
    }

    #[test]
    fn heads_of_one_channel_agree_with_the_recurrence_over_several_chunks() {
        for (time, heads) in [(65, 3), (129, 2), (70, 1)] {
            check(time, heads, 1, 1, CHUNK, 1.0);
        }
        check(70, 3, 1, 4, CHUNK, 1.0);
        check(70, 3, 4, 1, CHUNK, 1.0);
    }

    #[test]
    fn many_chunks_agree_with_the_recurrence_too() {
        check(301, 2, 3, 2, 8, 1.0);
        check(530, 1, 2, 3, 1, 1.0);
    }

    #[test]
    fn extreme_forgetting_stays_finite_and_exact() {
        // Log forget values from −e^−12 to −e^12 beside each other in one channel.
        for time in [70, 301] {
            check(time, 2, 4, 3, 8, 4.0);
        }
    }

    /// Compares outputs, last state and gradients for given gates, with k = 1 − f.
    fn check_gates(log_forget: &Tensor) {
        let [b, time, heads, key] = sizes(log_forget);
        let k = -log_forget.expm1();
        let (q, v) = (random(&[b, time, heads, key], 1), random(&[b, time, heads, 3], 3));
        let state = random(&[b, heads, key, 3], 5);
        let chunked = |x: &[Tensor]| {
            let table = GateTable::new(time, CHUNK, x[0].kind(), x[0].device());
            let (o, s) = gated_attention([&x[0], &x[1], &x[2], &x[3]], &table, Some(&x[4]));
            vec![o, s]
        };
        assert_same_with_gradients(&[&q, &k, &v, log_forget, &state], chunked, |x| {
            let (o, s) = naive([&x[0], &x[1], &x[2], &x[3]], Some(&x[4]));
            vec![o, s]
        });
    }

    #[test]
    fn a_long_text_with_gates_near_zero_is_exact() {
        // Between e^−55 and e^−0.0003, mixed: any fade over a chunk underflows float32 for most.
        check_gates(&(-(random(&[1, 4096, 2, 4], 7) * 3.0).exp().clamp(3e-4, 55.0)));
    }

    #[test]
    fn a_long_text_whose_gates_rest_at_their_bound_is_exact() {
        // From a bound of 0.01, which is e^−295 over a chunk, to one that keeps the whole text.
        let bounds = Tensor::from_slice(&[0.01, 0.5, 0.97, 0.999_999]).log();
        check_gates(&bounds.view([1, 1, 1, 4]).expand([1, 4096, 1, 4], false).contiguous());
    }

    #[test]
    fn the_gradient_of_a_gate_near_zero_is_near_zero_in_float32() {
        // Aim: what f = e^−40 lets through does not count, so the gradient of log f is of its size;
        // q ⊙ dq − k ⊙ dk would leave rounding of 1e-7 of the largest. Method: every third gate.
        let time = 257;
        let shape = [1, time, 2, 4];
        let closed = Tensor::arange(time, (Kind::Float, Device::Cpu)).remainder(3).eq(0);
        let closed = closed.view([1, time, 1, 1]).expand(shape, false);
        let input = |seed| random(&shape, seed).to_kind(Kind::Float);
        let a = (-input(4).exp()).masked_fill(&closed, -40.0).set_requires_grad(true);
        let table = GateTable::new(time, CHUNK, Kind::Float, Device::Cpu);
        let (output, _) = gated_attention([&input(1), &input(2), &input(3), &a], &table, None);
        (output * input(5)).sum(Kind::Float).backward();
        let largest = |x: Tensor| x.abs().max().double_value(&[]);
        let open = largest(a.grad().masked_fill(&closed, 0.0));
        let near_zero = largest(a.grad().masked_fill(&closed.logical_not(), 0.0));
        assert!(open > 0.1, "{open}");
        assert!(near_zero < 1e-14 * open, "{near_zero} beside {open}");
    }

    #[test]
    fn only_some_inputs_may_want_gradients() {
        let input = |seed| random(&[2, 70, 2, 4], seed);
        let a = -input(4).exp();
        let table = GateTable::new(70, CHUNK, Kind::Double, Device::Cpu);
        let gradient = |of_all: bool| {
            let v = input(3).set_requires_grad(true);
            let q = input(1).set_requires_grad(of_all);
            let (output, _) = gated_attention([&q, &input(2), &v, &a], &table, None);
            output.square().sum(Kind::Double).backward();
            v.grad()
        };
        assert_eq!((gradient(true) - gradient(false)).abs().max().double_value(&[]), 0.0);
    }
}
