//! The post-norm encoder block of BERT.

use burn::module::Module;
use burn::tensor::Tensor;
use omniburn_kernels::{Activation, Segments};

use super::attention::self_attention;
use super::{LayerNorm, Linear, Weights};
use crate::capture;
use crate::record::{TensorSpec, layer_norm, linear_bias};

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
    /// Every tensor of the block under `path`; query, key and value lie side by side.
    pub fn tensors(path: &str, hidden: usize, inner: usize) -> Vec<TensorSpec> {
        let mut specs = Vec::new();
        specs.extend(linear_bias(&format!("{path}.attention.qkv"), hidden, 3 * hidden));
        specs.extend(linear_bias(&format!("{path}.attention.out"), hidden, hidden));
        specs.extend(layer_norm(&format!("{path}.attention.norm"), hidden));
        specs.extend(linear_bias(&format!("{path}.mlp.fc1"), hidden, inner));
        specs.extend(linear_bias(&format!("{path}.mlp.fc2"), inner, hidden));
        specs.extend(layer_norm(&format!("{path}.mlp.norm"), hidden));
        specs
    }

    /// Builds the block from `{path}.…` of a part that was opened with [`EncoderLayer::tensors`].
    pub fn load(weights: &Weights, path: &str, heads: usize, norm_eps: f64) -> Self {
        let norm = |name: &str| LayerNorm::load(weights, &format!("{path}.{name}.norm"), norm_eps);
        let linear = |name: &str| Linear::load_biased(weights, &format!("{path}.{name}"));
        Self {
            qkv: linear("attention.qkv"),
            out: linear("attention.out"),
            attention_norm: norm("attention"),
            fc1: linear("mlp.fc1"),
            fc2: linear("mlp.fc2"),
            mlp_norm: norm("mlp"),
            heads,
        }
    }

    /// Every row sees all rows of its own segment. `name` is the block's path among captured intermediates.
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
