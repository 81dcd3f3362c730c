//! Multiply-adds of the operations that libtorch was asked for.
//!
//! It runs none.

use std::collections::{BTreeSet, HashSet};

use torch_ext::Operation;

/// What `flops_exact` leaves out by its documentation (look-ups, element-wise work, norms, softmax),
/// what moves numbers only, and what is made of other operations, which are counted themselves.
/// `addcmul_` is the rotation's, `mv` and `addmv_` add up the gradient of a norm's weight.
const UNCOUNTED: &str = "\
    abs add add_ addcmul_ addmv_ alias amax arange as_strided as_strided_ cat clone \
    constant_pad_nd contiguous copy_ cos cumsum detach diagonal div div_ embedding \
    embedding_backward embedding_dense_backward empty empty_like empty_strided eq exp exp_ \
    expand expand_as fft_irfft fft_rfft fill_ flatten full_like gather index_select layer_norm \
    lift_fresh linalg_vector_norm linear log log1p log_ log_sigmoid log_sigmoid_forward \
    log_softmax logaddexp logsumexp lt masked_fill masked_fill_ matmul mean mul mul_ mv narrow \
    native_layer_norm native_layer_norm_backward neg new_empty norm ones ones_like permute pow \
    real repeat_interleave reshape resize_ resolve_conj resolve_neg result_type rsqrt rsub \
    scaled_dot_product_attention scatter_add_ select sigmoid sigmoid_backward silu silu_backward \
    sin slice slice_backward softmax sqrt square squeeze stack sub sum t to transpose tril triu \
    unflatten unsqueeze view view_as where zero_ zeros zeros_like _conj _fused_sdp_choice \
    _log_softmax _reshape_alias _softmax _to_copy _unsafe_view";

/// Multiply-adds of the operations. One that is neither known to have some nor to have none fails.
pub(crate) fn multiply_adds(operations: &[Operation]) -> i64 {
    let uncounted: HashSet<&str> = UNCOUNTED.split_whitespace().collect();
    let mut unknown = BTreeSet::new();
    let mut count = 0;
    for Operation { name, sizes } in operations {
        // The rest are steps of the backward pass, each made of operations.
        let Some(name) = name.strip_prefix("aten::") else { continue };
        count += match name {
            // [m, k] · [k, n]
            "mm" => sizes[0][0] * sizes[0][1] * sizes[1][1],
            // [b, m, k] · [b, k, n]
            "bmm" => sizes[0].iter().product::<i64>() * sizes[1][2],
            // x + [b, m, k] · [b, k, n]
            "baddbmm_" => sizes[1].iter().product::<i64>() * sizes[2][2],
            // x + [m, k] · [k, n]
            "addmm_" => sizes[1][0] * sizes[1][1] * sizes[2][1],
            // x + a ⊙ b, the largest of which has the shape of the result here.
            "addcmul" => sizes.iter().map(|size| size.iter().product()).max().unwrap(),
            // q, k [B, H, T, K]: scores and weighted values over the full T × T.
            "_scaled_dot_product_flash_attention_for_cpu" => {
                2 * sizes[0].iter().product::<i64>() * sizes[1][2]
            }
            // The same of the result's gradient, q, k: twice that. What the kernel computes again
            // is no work of the model's.
            "_scaled_dot_product_flash_attention_for_cpu_backward" => {
                4 * sizes[1].iter().product::<i64>() * sizes[2][2]
            }
            // A transform of n real numbers or back takes 2.5 n log₂ n operations, as is customary.
            "_fft_r2c" => transform(&sizes[0], *sizes[0].last().unwrap()),
            "_fft_c2r" => transform(&sizes[0], 2 * (sizes[0].last().unwrap() - 1)),
            name if uncounted.contains(name) => 0,
            name => {
                unknown.insert(name);
                0
            }
        };
    }
    assert!(unknown.is_empty(), "it is not known how many multiply-adds these have: {unknown:?}");
    count
}

/// Multiply-adds of transforms of n real numbers each, as many as the other dimensions have.
fn transform(size: &[i64], n: i64) -> i64 {
    let count: i64 = size[..size.len() - 1].iter().product();
    count * 5 * n * i64::from(n.ilog2()) / 4
}
