//! Connectors: from a tower's width to the backbone's. They belong to a task.

use burn::module::Module;
use burn::tensor::Tensor;
use omniburn_kernels::Activation;

use crate::blocks::{LayerNorm, Linear};
use crate::builder::Builder;
use crate::capture;

/// Merges each block of `merge x merge` patches into one row of the backbone's width.
///
/// # Source
/// transformers, `Qwen3VLVisionPatchMerger` with `use_postshuffle_norm=False`: the norm is over a patch, before the
/// reshape.
#[derive(Module, Debug)]
pub struct Merger {
    norm: LayerNorm,
    linear_fc1: Linear,
    linear_fc2: Linear,
    block: usize,
}

impl Merger {
    /// From `block` patches of a tower's width to a row of the backbone's.
    pub fn build(b: &Builder<'_>, width: usize, block: usize, hidden: usize, norm_eps: f64) -> Self {
        let wide = width * block;
        Self {
            norm: b.layer_norm("norm", width, norm_eps),
            linear_fc1: b.linear_biased("linear_fc1", wide, wide),
            linear_fc2: b.linear_biased("linear_fc2", wide, hidden),
            block,
        }
    }

    /// Operations on this many patches.
    pub fn flops(&self, patches: usize) -> u64 {
        let rows = patches / self.block;
        self.linear_fc1.flops(rows) + self.linear_fc2.flops(rows)
    }

    /// # Shapes
    /// - `patches`: `[patches, width]`; returns: `[patches / block, hidden]`
    /// # Numerics
    /// GELU by erf.
    pub fn forward(&self, patches: Tensor<2>) -> Tensor<2> {
        let [count, width] = patches.dims();
        let shape = [count / self.block, width * self.block];
        let normed = self.norm.forward(patches);
        let normed = capture::pass(|| "merger.norm".into(), normed);
        let inner = self.linear_fc1.forward_into(normed.reshape(shape), Activation::GeluErf, &self.linear_fc2);
        let features = self.linear_fc2.forward(inner);
        capture::pass(|| "merger.features".into(), features)
    }
}
