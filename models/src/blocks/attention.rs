//! Attention of equally many heads over fused projections, as towers and encoders use it.

use burn::tensor::Tensor;
use omniburn_kernels as kernels;
use omniburn_kernels::{Before, HeadSizes, Segments};

use super::{Linear, RotaryTable};
use crate::tap;
use crate::trap::{self, Trap};

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
    let [rows, width] = normed.dims();
    let head_dim = width / heads;
    let low = qkv.weight().is_low();
    let qkv = qkv.forward(normed); // [rows, 3 * hidden]
    if !trap::on(Trap::RotaryPairsNeighbours) {
        let before = Before {
            rotary: rotary.map(RotaryTable::tables),
            low,
            low_result: tap::ARE_OFF && out.weight().takes_bf16(),
            ..Before::default()
        };
        return kernels::attend(qkv, HeadSizes { heads, kv_heads: heads, head_dim }, segments, before);
    }
    let place = |x: Tensor<3>| rotary.map_or_else(|| x.clone(), |rotary| rotary.rotate(x.clone()));
    let cut = |i: usize| {
        let columns = qkv.clone().slice([0..rows, i * width..(i + 1) * width]);
        columns.reshape([rows, heads, head_dim]) // [rows, heads, head_dim]
    };
    let scale = 1.0 / (head_dim as f64).sqrt();
    let context = kernels::attention(place(cut(0)), place(cut(1)), cut(2), segments, scale, false);
    context.reshape([rows, width])
}
