//! Connectors: from a tower's width to the backbone's. They belong to a task.

use burn::module::Module;
use burn::tensor::Tensor;
use omniburn_kernels::Activation;

use crate::blocks::{LayerNorm, Linear, Weights};
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
    /// Builds `{prefix}.{norm,linear_fc1,linear_fc2}`; `block` is patches a row.
    pub fn load(weights: &Weights, prefix: &str, block: usize, norm_eps: f64) -> Self {
        Self {
            norm: LayerNorm::load(weights, &format!("{prefix}.norm"), norm_eps),
            linear_fc1: Linear::load_biased(weights, &format!("{prefix}.linear_fc1")),
            linear_fc2: Linear::load_biased(weights, &format!("{prefix}.linear_fc2")),
            block,
        }
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
