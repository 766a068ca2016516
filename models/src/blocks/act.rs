//! The activation between the two products of an encoder's MLP.

use omniburn_kernels::Activation;
use serde::{Deserialize, Serialize};

/// What an encoder does to the inner rows of its MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HiddenAct {
    /// GELU by the error function.
    #[default]
    Gelu,
    /// GELU by its tanh form.
    GeluTanh,
    /// GELU by a sigmoid, `x / (1 + e^-1.702x)`.
    GeluQuick,
    /// What is negative becomes zero.
    Relu,
}

/// Names of activations in published configurations.
///
/// # Source
/// transformers, `ACT2FN` of `activations`, revision 5.23.0.
pub const HIDDEN_ACTS: [(&str, HiddenAct); 8] = [
    ("gelu", HiddenAct::Gelu),
    ("gelu_python", HiddenAct::Gelu),
    ("gelu_new", HiddenAct::GeluTanh),
    ("gelu_pytorch_tanh", HiddenAct::GeluTanh),
    ("gelu_fast", HiddenAct::GeluTanh),
    ("gelu_accurate", HiddenAct::GeluTanh),
    ("quick_gelu", HiddenAct::GeluQuick),
    ("relu", HiddenAct::Relu),
];

impl HiddenAct {
    /// Whether it is GELU by the error function, which most encoders have.
    pub fn is_gelu(&self) -> bool {
        *self == Self::Gelu
    }

    /// As products take it.
    pub fn activation(self) -> Activation {
        match self {
            Self::Gelu => Activation::GeluErf,
            Self::GeluTanh => Activation::GeluTanh,
            Self::GeluQuick => Activation::GeluQuick,
            Self::Relu => Activation::Relu,
        }
    }
}
