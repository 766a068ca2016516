//! The two-layer MLP of connectors.

use burn::module::Module;
use burn::tensor::Tensor;
use omniburn_kernels::Activation;

use super::Linear;
use crate::builder::Builder;

/// `second(gelu(first(x)))`, GELU by erf.
#[derive(Module, Debug)]
pub struct GeluMlp {
    first: Linear,
    second: Linear,
}

impl GeluMlp {
    /// `0` and `2`, the names a sequence of three modules gives its linears.
    pub fn build(b: &Builder<'_>, inputs: usize, inner: usize, outputs: usize) -> Self {
        Self { first: b.linear_biased("0", inputs, inner), second: b.linear_biased("2", inner, outputs) }
    }

    /// Values of a row that comes out.
    pub fn outputs(&self) -> usize {
        self.second.outputs()
    }

    /// Operations on this many rows.
    pub fn flops(&self, rows: usize) -> u64 {
        self.first.flops(rows) + self.second.flops(rows)
    }

    /// # Shapes
    /// - `x`: `[rows, inputs]`; returns: `[rows, outputs]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.second.forward(self.first.forward_into(x, Activation::GeluErf, &self.second))
    }
}
