//! Norms, computed whole in f32.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use omniburn_kernels as kernels;

use super::Linear;
use crate::trap::{self, Trap};

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
        if trap::on(Trap::OtherRmsEps) {
            return self.forward(x);
        }
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
        let eps = match trap::on(Trap::OtherRmsEps) {
            true if self.eps < 5e-6 => 1e-5,
            true => 1e-6,
            false => self.eps,
        };
        kernels::rms_norm(x, self.weight.val(), eps)
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
        if trap::on(Trap::LayerNormEps) {
            return self.forward(x);
        }
        kernels::layer_norm_for(x, self.weight.val(), self.bias.val(), self.eps, next.weight())
    }

    /// A norm with this gain and bias, `[width]` each.
    pub fn new(weight: Param<Tensor<1>>, bias: Param<Tensor<1>>, eps: f64) -> Self {
        Self { weight, bias, eps }
    }

    /// # Shapes
    /// - `x`: `[.., width]`; returns: as `x`
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        self.forward_with(x, self.weight.val(), self.bias.val())
    }

    /// The norm with its gain and bias repeated `times` over a wider last axis: the wrong side of a reshape.
    pub(crate) fn forward_repeated<const D: usize>(&self, x: Tensor<D>, times: usize) -> Tensor<D> {
        self.forward_with(x, self.weight.val().repeat_dim(0, times), self.bias.val().repeat_dim(0, times))
    }

    fn forward_with<const D: usize>(&self, x: Tensor<D>, weight: Tensor<1>, bias: Tensor<1>) -> Tensor<D> {
        let eps = if trap::on(Trap::LayerNormEps) { 1e-5 } else { self.eps };
        kernels::layer_norm(x, weight, bias, eps)
    }
}
