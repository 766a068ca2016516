//! Norms, computed whole in f32.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use omniburn_kernels as kernels;

use super::Linear;

/// `x / sqrt(mean(x^2) + eps) * weight` over the last axis.
///
/// # Source
/// transformers, `Qwen3RMSNorm`.
#[derive(Module, Debug)]
pub struct RmsNorm {
    weight: Param<Tensor<1>>,
    eps: f64,
}

impl RmsNorm {
    /// [`RmsNorm::forward`] for a product, in the type that takes.
    ///
    /// # Shapes
    /// - `x`: `[rows, width]`; returns: as `x`
    pub fn forward_for(&self, x: Tensor<2>, next: &Linear) -> Tensor<2> {
        kernels::rms_norm_for(x, self.weight.val(), self.eps, next.weight())
    }

    /// Gain and epsilon.
    pub(crate) fn parts(&self) -> (Tensor<1>, f64) {
        (self.weight.val(), self.eps)
    }

    /// A norm with this gain, `[width]`.
    pub fn new(weight: Param<Tensor<1>>, eps: f64) -> Self {
        Self { weight, eps }
    }

    /// # Shapes
    /// - `x`: `[.., width]`; returns: as `x`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        kernels::rms_norm(x, self.weight.val(), self.eps)
    }
}

/// `(x - mean) / sqrt(var + eps) * weight + bias` over the last axis, biased variance.
#[derive(Module, Debug)]
pub struct LayerNorm {
    weight: Param<Tensor<1>>,
    bias: Param<Tensor<1>>,
    eps: f64,
}

impl LayerNorm {
    /// [`LayerNorm::forward`] for a product, in the type that takes.
    ///
    /// # Shapes
    /// - `x`: `[rows, width]`; returns: as `x`
    pub fn forward_for(&self, x: Tensor<2>, next: &Linear) -> Tensor<2> {
        kernels::layer_norm_for(x, self.weight.val(), self.bias.val(), self.eps, next.weight())
    }

    /// A norm with this gain and bias, `[width]` each.
    pub fn new(weight: Param<Tensor<1>>, bias: Param<Tensor<1>>, eps: f64) -> Self {
        Self { weight, bias, eps }
    }

    /// # Shapes
    /// - `x`: `[.., width]`; returns: as `x`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        kernels::layer_norm(x, self.weight.val(), self.bias.val(), self.eps)
    }
}

/// Either of them, where a configuration says which.
#[derive(Module, Debug)]
pub enum Norm {
    /// Mean and variance, gain and bias.
    Layer(LayerNorm),
    /// Root mean square and gain.
    Rms(RmsNorm),
}

impl Norm {
    /// [`Norm::forward`] for a product, in the type that takes.
    ///
    /// # Shapes
    /// - `x`: `[rows, width]`; returns: as `x`
    pub fn forward_for(&self, x: Tensor<2>, next: &Linear) -> Tensor<2> {
        match self {
            Norm::Layer(norm) => norm.forward_for(x, next),
            Norm::Rms(norm) => norm.forward_for(x, next),
        }
    }

    /// # Shapes
    /// - `x`: `[.., width]`; returns: as `x`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        match self {
            Norm::Layer(norm) => norm.forward(x),
            Norm::Rms(norm) => norm.forward(x),
        }
    }
}
