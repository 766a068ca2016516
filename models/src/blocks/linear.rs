//! Matrix products with stored weights.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use omniburn_kernels::{self as kernels, Activation, After, Weight};

use crate::flops;

/// `x @ weight + bias`, weight `[inputs, outputs]` as the record stores it.
#[derive(Module, Debug)]
pub struct Linear {
    #[module(skip)]
    weight: Weight,
    bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// A product with a matrix `[inputs, outputs]`, with a bias `[outputs]` where there is one.
    pub fn new(weight: Weight, bias: Option<Param<Tensor<1>>>) -> Self {
        Self { weight, bias }
    }

    /// Operations on this many rows, two a multiply-add.
    pub fn flops(&self, rows: usize) -> u64 {
        let [inputs, outputs] = self.weight.dims();
        flops::product(rows, inputs, outputs)
    }

    /// Values of a row that goes in.
    pub fn inputs(&self) -> usize {
        self.weight.dims()[0]
    }

    /// Values of a row that comes out.
    pub fn outputs(&self) -> usize {
        self.weight.dims()[1]
    }

    /// # Shapes
    /// - `x`: `[rows, inputs]`; returns: `[rows, outputs]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.project(x, Activation::None, None, None)
    }

    /// `residual + x @ weight + bias`.
    ///
    /// # Shapes
    /// - `x`: `[rows, inputs]`; `residual`: `[rows, outputs]`; returns: as `residual`
    pub fn forward_onto(&self, x: Tensor<2>, residual: Tensor<2>) -> Tensor<2> {
        self.project(x, Activation::None, Some(residual), None)
    }

    /// `activation(x @ weight + bias)`.
    ///
    /// # Shapes
    /// - `x`: `[rows, inputs]`; returns: `[rows, outputs]`
    pub fn activated(&self, x: Tensor<2>, activation: Activation) -> Tensor<2> {
        self.project(x, activation, None, None)
    }

    /// `activation(x @ weight + bias)` for `next`, in the type that takes.
    ///
    /// # Shapes
    /// - `x`: `[rows, inputs]`; returns: `[rows, outputs]`, or half as wide with SwiGLU
    pub fn forward_into(&self, x: Tensor<2>, activation: Activation, next: &Linear) -> Tensor<2> {
        self.project(x, activation, None, Some(next))
    }

    fn project(
        &self,
        x: Tensor<2>,
        activation: Activation,
        residual: Option<Tensor<2>>,
        next: Option<&Linear>,
    ) -> Tensor<2> {
        let bias = self.bias.as_ref().map(Param::val);
        let low = next.is_some_and(|next| next.weight.takes_bf16());
        kernels::project(x, &self.weight, After { bias, activation, residual, low })
    }

    /// The stored matrix.
    pub fn weight(&self) -> &Weight {
        &self.weight
    }
}
