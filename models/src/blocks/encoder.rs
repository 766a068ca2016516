//! The post-norm encoder block of BERT.

use burn::module::Module;
use burn::tensor::Tensor;
use omniburn_kernels::{Before, Segments};

use super::attention::self_attention_with;
use super::{HiddenAct, LayerNorm, Linear};
use crate::builder::{Builder, FusedPart};
use crate::capture;
use crate::flops;

/// Sizes of an [`EncoderLayer`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncoderSizes {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the MLP.
    pub inner: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Epsilon of both LayerNorms.
    pub norm_eps: f64,
    /// What is between the products of the MLP.
    pub act: HiddenAct,
}

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
    #[module(skip)]
    act: HiddenAct,
}

impl EncoderLayer {
    /// A block; query, key and value lie side by side.
    pub fn build(b: &Builder<'_>, sizes: &EncoderSizes) -> Self {
        let EncoderSizes { hidden, inner, heads, norm_eps, act } = *sizes;
        let qkv = ["query", "key", "value"].map(|name| FusedPart::biased(name, hidden));
        Self {
            qkv: b.fused("attention.qkv", hidden, &qkv),
            out: b.linear_biased("attention.out", hidden, hidden),
            attention_norm: b.layer_norm("attention.norm", hidden, norm_eps),
            fc1: b.linear_biased("mlp.fc1", hidden, inner),
            fc2: b.linear_biased("mlp.fc2", inner, hidden),
            mlp_norm: b.layer_norm("mlp.norm", hidden, norm_eps),
            heads,
            act,
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

    /// Every row sees all rows of its own segment; `relative` is added to the scores by distance. `name` is the block's path
    /// in the taps.
    ///
    /// # Shapes
    /// - `hidden`: `[tokens, hidden]`; `relative`: `[heads, 2 * reach + 1]`; returns: as `hidden`
    /// # Numerics
    /// The residual stream, norms and softmax are f32; products are in the weights' type.
    pub fn forward(
        &self,
        hidden: Tensor<2>,
        segments: &Segments,
        relative: Option<Tensor<2>>,
        name: &str,
    ) -> Tensor<2> {
        let before = Before { relative, ..Before::default() };
        let context = self_attention_with(&self.qkv, hidden.clone(), self.heads, segments, before, &self.out);
        let context = capture::pass(|| format!("{name}.context"), context);
        let hidden = self.attention_norm.forward(self.out.forward_onto(context, hidden));
        let inner = self.fc1.forward_into(hidden.clone(), self.act.activation(), &self.fc2);
        let hidden = self.mlp_norm.forward(self.fc2.forward_onto(inner, hidden));
        capture::pass(|| name.into(), hidden)
    }
}
