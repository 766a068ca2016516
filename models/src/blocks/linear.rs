//! Matrix products with stored weights.

use burn::module::{Module, Param};
use burn::tensor::Tensor;
use omniburn_kernels as kernels;

use super::Weights;

/// `x @ weight + bias`, weight `[inputs, outputs]` as the record stores it.
#[derive(Module, Debug)]
pub struct Linear {
    weight: Param<Tensor<2>>,
    bias: Option<Param<Tensor<1>>>,
}

impl Linear {
    /// `{path}.weight` without a bias.
    pub fn load(weights: &Weights, path: &str) -> Self {
        Self { weight: weights.linear(&format!("{path}.weight")), bias: None }
    }

    /// `{path}.weight` and `{path}.bias`.
    pub fn load_biased(weights: &Weights, path: &str) -> Self {
        Self { bias: Some(weights.exact(&format!("{path}.bias"))), ..Self::load(weights, path) }
    }

    /// # Shapes
    /// - `x`: `[rows, inputs]`; returns: `[rows, outputs]`
    pub fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        kernels::linear(x, self.weight.val(), self.bias.as_ref().map(Param::val))
    }

    /// The stored matrix, `[inputs, outputs]`.
    pub fn weight(&self) -> Tensor<2> {
        self.weight.val()
    }
}
