//! The two-layer MLP of connectors.

use burn::module::Module;
use burn::tensor::Tensor;
use omniburn_kernels::Activation;

use super::{Linear, Weights};
use crate::record::{TensorSpec, linear_bias};

/// `second(gelu(first(x)))`, GELU by erf.
#[derive(Module, Debug)]
pub struct GeluMlp {
    first: Linear,
    second: Linear,
}

impl GeluMlp {
    /// Specs of `{path}.0` and `{path}.2`, the names a sequence of three modules gives its linears.
    pub fn tensors(path: &str, inputs: usize, inner: usize, outputs: usize) -> Vec<TensorSpec> {
        let (first, second) = (format!("{path}.0"), format!("{path}.2"));
        [linear_bias(&first, inputs, inner), linear_bias(&second, inner, outputs)].concat()
    }

    /// Builds `{path}.0` and `{path}.2`.
    pub fn load(weights: &Weights, path: &str) -> Self {
        let linear = |at: &str| Linear::load_biased(weights, &format!("{path}.{at}"));
        Self { first: linear("0"), second: linear("2") }
    }

    /// # Shapes
    /// - `x`: `[rows, inputs]`; returns: `[rows, outputs]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.second.forward(self.first.forward_into(x, Activation::GeluErf, &self.second))
    }
}
