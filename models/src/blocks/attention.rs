//! Attention of equally many heads over fused projections, as towers and encoders use it.

use burn::tensor::Tensor;
use omniburn_kernels as kernels;
use omniburn_kernels::{Before, HeadSizes, Segments};

use super::{Linear, RotaryTable};

/// Attention of a block's rows to the rows of their own segment, before the output product.
///
/// # Shapes
/// - `normed`: `[rows, hidden]`; `qkv`: hidden to `[query, key, value]` side by side; returns: `[rows, hidden]`, for `out`
/// - `rotary`: puts positions into queries and keys
pub(crate) fn self_attention(
    qkv: &Linear,
    normed: Tensor<2>,
    heads: usize,
    segments: &Segments,
    rotary: Option<&RotaryTable>,
    out: &Linear,
) -> Tensor<2> {
    let before = Before { rotary: rotary.map(RotaryTable::tables), ..Before::default() };
    self_attention_with(qkv, normed, heads, segments, before, out)
}

/// The same with whatever comes before the scores; types are chosen here.
///
/// # Shapes
/// As [`self_attention`].
pub(crate) fn self_attention_with(
    qkv: &Linear,
    normed: Tensor<2>,
    heads: usize,
    segments: &Segments,
    before: Before,
    out: &Linear,
) -> Tensor<2> {
    let [_, width] = normed.dims();
    let head_dim = width / heads;
    let before = Before { low: qkv.weight().is_low(), low_result: out.weight().takes_bf16(), ..before };
    let qkv = qkv.forward(normed); // [rows, 3 * hidden]
    kernels::attend(qkv, HeadSizes { heads, kv_heads: heads, head_dim }, segments, before)
}
