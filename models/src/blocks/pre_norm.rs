//! The pre-norm encoder block of vision transformers, and of the text towers trained beside them.

use burn::module::Module;
use burn::tensor::Tensor;
use omniburn_kernels as kernels;
use omniburn_kernels::{Before, HeadSizes, Segments};

use super::{HiddenAct, LayerNorm, Linear};
use crate::builder::{Builder, FusedPart};
use crate::capture;
use crate::flops;

/// Sizes of a [`PreNormLayer`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PreNormSizes {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Width of the MLP.
    pub inner: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Epsilon of both LayerNorms.
    pub norm_eps: f64,
    /// Activation of the MLP.
    pub act: HiddenAct,
    /// Whether a row sees only itself and earlier rows of its segment.
    pub causal: bool,
}

/// Attention and MLP, each reading a norm of the residual stream and added to it.
///
/// # Source
/// transformers, `CLIPEncoderLayer` and `SiglipEncoderLayer`, revision 5.23.0; Dosovitskiy et al. 2020 (arXiv 2010.11929).
#[derive(Module, Debug)]
pub struct PreNormLayer {
    layer_norm1: LayerNorm,
    qkv_proj: Linear,
    out_proj: Linear,
    layer_norm2: LayerNorm,
    mlp: PreNormMlp,
    #[module(skip)]
    sizes: PreNormSizes,
}

/// `fc2(act(fc1(x)))`.
#[derive(Module, Debug)]
pub struct PreNormMlp {
    fc1: Linear,
    fc2: Linear,
    #[module(skip)]
    act: HiddenAct,
}

impl PreNormMlp {
    /// `mlp.fc1` and `mlp.fc2`.
    pub fn build(b: &Builder<'_>, hidden: usize, inner: usize, act: HiddenAct) -> Self {
        Self { fc1: b.linear_biased("mlp.fc1", hidden, inner), fc2: b.linear_biased("mlp.fc2", inner, hidden), act }
    }

    /// `residual + fc2(act(fc1(norm(x))))`.
    ///
    /// # Shapes
    /// - `residual`: `[rows, hidden]`; returns: as `residual`
    pub fn forward_onto(&self, norm: &LayerNorm, residual: Tensor<2>) -> Tensor<2> {
        let normed = norm.forward_for(residual.clone(), &self.fc1);
        let inner = self.fc1.forward_into(normed, self.act.activation(), &self.fc2); // [rows, inner]
        self.fc2.forward_onto(inner, residual)
    }

    /// Operations on this many rows.
    pub fn flops(&self, rows: usize) -> u64 {
        self.fc1.flops(rows) + self.fc2.flops(rows)
    }
}

impl PreNormLayer {
    /// A block; query, key and value lie side by side.
    pub fn build(b: &Builder<'_>, sizes: PreNormSizes) -> Self {
        let PreNormSizes { hidden, inner, norm_eps, act, .. } = sizes;
        let qkv = ["q_proj", "k_proj", "v_proj"].map(|name| FusedPart::biased(name, hidden));
        Self {
            layer_norm1: b.layer_norm("layer_norm1", hidden, norm_eps),
            qkv_proj: b.fused("self_attn.qkv_proj", hidden, &qkv),
            out_proj: b.linear_biased("self_attn.out_proj", hidden, hidden),
            layer_norm2: b.layer_norm("layer_norm2", hidden, norm_eps),
            mlp: PreNormMlp::build(b, hidden, inner, act),
            sizes,
        }
    }

    /// Operations on this many rows that see each other in this many pairs.
    pub fn flops(&self, rows: usize, pairs: usize) -> u64 {
        let products = self.qkv_proj.flops(rows) + self.out_proj.flops(rows) + self.mlp.flops(rows);
        products + flops::attention(pairs, self.sizes.hidden)
    }

    /// f32 values alive a row in the widest step.
    pub fn row_values(&self) -> usize {
        let PreNormSizes { hidden, inner, .. } = self.sizes;
        4 * hidden + (9 * hidden).max(5 * inner)
    }

    /// Values of its matrices.
    pub fn parameters(&self) -> usize {
        let PreNormSizes { hidden, inner, .. } = self.sizes;
        4 * hidden * hidden + 2 * hidden * inner
    }

    /// Every row sees the rows of its own segment, those behind it only where the block is not causal. `name` is the block's
    /// path among captured intermediates.
    ///
    /// # Shapes
    /// - `hidden`: `[rows, hidden]`; returns: as `hidden`
    /// # Numerics
    /// The residual stream, norms and softmax are f32; products are in the weights' type.
    pub fn forward(&self, hidden: Tensor<2>, segments: &Segments, name: &str) -> Tensor<2> {
        let [_, width] = hidden.dims();
        let PreNormSizes { heads, causal, .. } = self.sizes;
        let normed = self.layer_norm1.forward_for(hidden.clone(), &self.qkv_proj);
        let (low, low_result) = (self.qkv_proj.weight().is_low(), self.out_proj.weight().takes_bf16());
        let before = Before { causal, low, low_result, ..Before::default() };
        let sizes = HeadSizes { heads, kv_heads: heads, head_dim: width / heads };
        let context = kernels::attend(self.qkv_proj.forward(normed), sizes, segments, before); // [rows, hidden]
        let context = capture::pass(|| format!("{name}.context"), context);
        let hidden = self.out_proj.forward_onto(context, hidden);
        let hidden = self.mlp.forward_onto(&self.layer_norm2, hidden);
        capture::pass(|| name.into(), hidden)
    }
}
