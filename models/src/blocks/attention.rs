//! Attention of equally many heads over fused projections, as towers and encoders use it.

use burn::tensor::Tensor;
use omniburn_kernels as kernels;
use omniburn_kernels::Segments;

use super::Linear;

/// Attention of a block's rows to the rows of their own segment, before the output product.
///
/// # Shapes
/// - `normed`: `[rows, hidden]`; `qkv`: hidden to `[query, key, value]` side by side; returns: `[rows, hidden]`
/// - `place`: given query and key, `[rows, heads, head_dim]`, puts positions into them
pub(crate) fn self_attention(
    qkv: &Linear,
    normed: Tensor<2>,
    heads: usize,
    segments: &Segments,
    place: impl Fn(Tensor<3>) -> Tensor<3>,
) -> Tensor<2> {
    let [rows, width] = normed.dims();
    let head_dim = width / heads;
    let qkv = qkv.forward(normed); // [rows, 3 * hidden]
    let cut = |i: usize| {
        let columns = qkv.clone().slice([0..rows, i * width..(i + 1) * width]);
        columns.reshape([rows, heads, head_dim]) // [rows, heads, head_dim]
    };
    let scale = 1.0 / (head_dim as f64).sqrt();
    let context = kernels::attention(place(cut(0)), place(cut(1)), cut(2), segments, scale, false);
    context.reshape([rows, width])
}
