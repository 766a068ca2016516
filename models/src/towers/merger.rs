//! Connectors: from a tower's width to the backbone's. They belong to a task.

use burn::module::Module;
use burn::tensor::Tensor;
use omniburn_kernels::Activation;

use crate::blocks::{Linear, Norm};
use crate::builder::Builder;
use crate::capture;

/// Merges each block of `merge x merge` patches into one row of the backbone's width.
///
/// # Source
/// transformers, `Qwen3VLVisionPatchMerger`, `Qwen2VLPatchMerger`, `Qwen2_5OmniPatchMerger`.
#[derive(Module, Debug)]
pub struct Merger {
    norm: Norm,
    linear_fc1: Linear,
    linear_fc2: Linear,
    block: usize,
    /// Whether the norm is over a whole block, behind the reshape, and not over each patch before it.
    norm_of_block: bool,
}

impl Merger {
    /// From `block` patches of a tower's width to a row of the backbone's; the norm is over a patch
    /// (`use_postshuffle_norm=False`), as behind the last block of a tower.
    pub fn build(b: &Builder<'_>, width: usize, block: usize, hidden: usize, norm_eps: f64) -> Self {
        Self::with_norm(b, Norm::Layer(b.layer_norm("norm", width, norm_eps)), [width, block, hidden])
    }

    /// The same with an RMSNorm over a patch.
    pub fn build_rms(b: &Builder<'_>, width: usize, block: usize, hidden: usize, norm_eps: f64) -> Self {
        Self::with_norm(b, Norm::Rms(b.rms_norm("norm", width, norm_eps)), [width, block, hidden])
    }

    /// The same with the norm over a block of patches (`use_postshuffle_norm=True`), as behind blocks that are tapped for
    /// DeepStack.
    pub fn build_deep(b: &Builder<'_>, width: usize, block: usize, hidden: usize, norm_eps: f64) -> Self {
        let norm = Norm::Layer(b.layer_norm("norm", width * block, norm_eps));
        Self { norm_of_block: true, ..Self::with_norm(b, norm, [width, block, hidden]) }
    }

    fn with_norm(b: &Builder<'_>, norm: Norm, [width, block, hidden]: [usize; 3]) -> Self {
        let wide = width * block;
        Self {
            norm,
            linear_fc1: b.linear_biased("linear_fc1", wide, wide),
            linear_fc2: b.linear_biased("linear_fc2", wide, hidden),
            block,
            norm_of_block: false,
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
        self.forward_as("merger", patches)
    }

    /// [`Merger::forward`] under this name among captured intermediates.
    ///
    /// # Shapes
    /// As [`Merger::forward`].
    pub fn forward_as(&self, name: &str, patches: Tensor<2>) -> Tensor<2> {
        let [count, width] = patches.dims();
        let shape = [count / self.block, width * self.block];
        let patches = if self.norm_of_block { patches.reshape(shape) } else { patches };
        let normed = self.norm.forward(patches);
        let normed = capture::pass(|| format!("{name}.norm"), normed);
        let inner = self.linear_fc1.forward_into(normed.reshape(shape), Activation::GeluErf, &self.linear_fc2);
        let features = self.linear_fc2.forward(inner);
        capture::pass(|| format!("{name}.features"), features)
    }
}
