//! The post-norm encoder block of BERT.

use burn::module::Module;
use burn::tensor::Tensor;
use omniburn_kernels::{Activation, Segments};

use super::attention::self_attention;
use super::{LayerNorm, Linear};
use crate::builder::{Builder, FusedPart};
use crate::capture;
use crate::flops;

/// Attention and MLP, each added to what it read and normalised afterwards.
///
/// # Source
/// transformers, `BertLayer`, revision 5.23.0; Devlin et al. 2018 (arXiv 1810.04805).
#[derive(Module, Debug)]
pub struct EncoderLayer {
    qkv: Linear,
    out: Linear,
    attention_norm: LayerNorm,
    fc1: Linear,
    fc2: Linear,
    mlp_norm: LayerNorm,
    heads: usize,
}

impl EncoderLayer {
    /// A block; query, key and value lie side by side.
    pub fn build(b: &Builder<'_>, hidden: usize, inner: usize, heads: usize, norm_eps: f64) -> Self {
        let qkv = ["query", "key", "value"].map(|name| FusedPart::biased(name, hidden));
        Self {
            qkv: b.fused("attention.qkv", hidden, &qkv),
            out: b.linear_biased("attention.out", hidden, hidden),
            attention_norm: b.layer_norm("attention.norm", hidden, norm_eps),
            fc1: b.linear_biased("mlp.fc1", hidden, inner),
            fc2: b.linear_biased("mlp.fc2", inner, hidden),
            mlp_norm: b.layer_norm("mlp.norm", hidden, norm_eps),
            heads,
        }
    }

    /// Operations on this many rows that see each other in this many pairs.
    pub fn flops(&self, rows: usize, pairs: usize) -> u64 {
        let products = [&self.qkv, &self.out, &self.fc1, &self.fc2];
        products.iter().map(|linear| linear.flops(rows)).sum::<u64>() + flops::attention(pairs, self.out.inputs())
    }

    /// f32 values alive a row in the widest step.
    pub fn row_values(&self) -> usize {
        let (hidden, inner) = (self.out.outputs(), self.fc1.outputs());
        4 * hidden + (9 * hidden).max(5 * inner)
    }

    /// Values of its matrices.
    pub fn parameters(&self) -> usize {
        [&self.qkv, &self.out, &self.fc1, &self.fc2].iter().map(|linear| linear.inputs() * linear.outputs()).sum()
    }

    /// Every row sees all rows of its own segment. `name` is the block's path in the taps.
    ///
    /// # Shapes
    /// - `hidden`: `[tokens, hidden]`; returns: as `hidden`
    /// # Numerics
    /// The residual stream, norms and softmax are f32; products are in the weights' type. GELU by erf.
    pub fn forward(&self, hidden: Tensor<2>, segments: &Segments, name: &str) -> Tensor<2> {
        let context = self_attention(&self.qkv, hidden.clone(), self.heads, segments, None, &self.out);
        let context = capture::pass(|| format!("{name}.context"), context);
        let hidden = self.attention_norm.forward(self.out.forward_onto(context, hidden));
        let inner = self.fc1.forward_into(hidden.clone(), Activation::GeluErf, &self.fc2);
        let hidden = self.mlp_norm.forward(self.fc2.forward_onto(inner, hidden));
        capture::pass(|| name.into(), hidden)
    }
}
