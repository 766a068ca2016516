//! Heads behind the last layer: what makes a score of a sequence's pooled row.

use burn::module::Param;
use burn::tensor::Tensor;
use omniburn_kernels::Activation;
use serde::{Deserialize, Serialize};

use super::{LayerNorm, Linear};
use crate::builder::Builder;
use crate::capture;
use crate::flops;

/// What lies between the dense layer of a [`ScoreHead`] and its last.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HeadActivation {
    /// The hyperbolic tangent.
    Tanh,
    /// GELU by the error function.
    Gelu,
}

/// What a [`ScoreHead`] is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScoreHeadConfig {
    /// Of the dense layer's output.
    pub activation: HeadActivation,
    /// Whether the dense layer has a bias.
    pub dense_bias: bool,
    /// Whether a LayerNorm without a bias, with the model's own epsilon, stands behind the activation.
    pub norm: bool,
    /// Token types that the rows of a pair have; 1 where the model tells no rows apart.
    pub token_types: u8,
}

/// `out(norm(activation(dense(pooled))))`: one logit for a sequence.
///
/// # Source
/// transformers, revision 5.24.0: `BertPooler` with `BertForSequenceClassification`, `XLMRobertaClassificationHead`,
/// `ModernBertPredictionHead` with `ModernBertForSequenceClassification`.
#[derive(Debug)]
pub struct ScoreHead {
    dense: Linear,
    activation: HeadActivation,
    norm: Option<LayerNorm>,
    out: RowProduct,
}

impl ScoreHead {
    /// The head over pooled rows of this width; `names` are those of the dense layer, the norm and the last layer.
    pub fn build(config: &ScoreHeadConfig, names: [&str; 3], b: &Builder<'_>, hidden: usize, norm_eps: f64) -> Self {
        let [dense, norm, out] = names;
        let dense = match config.dense_bias {
            true => b.linear_biased(dense, hidden, hidden),
            false => b.linear(dense, hidden, hidden),
        };
        Self {
            dense,
            activation: config.activation,
            norm: config.norm.then(|| b.layer_norm_unbiased(norm, hidden, norm_eps)),
            out: RowProduct::build(b, out, hidden),
        }
    }

    /// The logit of each sequence.
    ///
    /// # Shapes
    /// - `pooled`: `[segments, hidden]`; returns: `[segments, 1]`
    /// # Numerics
    /// Activation, norm and last layer are f32; the dense layer's product is in the weights' type.
    pub fn forward(&self, pooled: Tensor<2>) -> Tensor<2> {
        let inner = match self.activation {
            HeadActivation::Tanh => self.dense.forward(pooled).tanh(),
            HeadActivation::Gelu => self.dense.activated(pooled, Activation::GeluErf),
        };
        let inner = capture::pass(|| "head.inner".into(), inner); // [segments, hidden]
        let inner = match &self.norm {
            Some(norm) => norm.forward(inner),
            None => inner,
        };
        capture::pass(|| "head.logit".into(), self.out.forward(inner))
    }

    /// Operations for one sequence.
    pub fn flops(&self) -> u64 {
        self.dense.flops(1) + self.out.flops(1)
    }
}

/// A linear layer of one output, row by row: products with a matrix of one column add in an order that depends on how many rows
/// there are, and a row's bits must not.
///
/// # Numerics
/// f32, whatever type the record's matrices have.
#[derive(Debug)]
pub(super) struct RowProduct {
    weight: Param<Tensor<2>>,
    bias: Param<Tensor<1>>,
    inputs: usize,
}

impl RowProduct {
    /// `{name}.weight`, `[1, inputs]`, and `{name}.bias`.
    pub fn build(b: &Builder<'_>, name: &str, inputs: usize) -> Self {
        let (weight, bias) = (format!("{name}.weight"), format!("{name}.bias"));
        Self { weight: b.exact(&weight, [1, inputs]), bias: b.exact(&bias, [1]), inputs }
    }

    /// # Shapes
    /// - `rows`: `[rows, inputs]`; returns: `[rows, 1]`
    pub fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        (rows * self.weight.val()).sum_dim(1) + self.bias.val().unsqueeze::<2>()
    }

    fn flops(&self, rows: usize) -> u64 {
        flops::product(rows, self.inputs, 1)
    }
}

/// The difference of two logits of a language model, that of one answer less that of another, without the others.
///
/// # Numerics
/// f32. The difference of both rows of the output table is one row, taken when the record is made.
#[derive(Debug)]
pub struct AnswerHead {
    difference: Param<Tensor<1>>,
    hidden: usize,
}

impl AnswerHead {
    /// The head over the rows `answers` of an output table of this name, `[vocab, hidden]` in a checkpoint.
    pub fn build(b: &Builder<'_>, table: &str, [vocab, hidden]: [usize; 2], answers: [u32; 2]) -> Self {
        Self { difference: b.row_difference(&format!("{table}.weight"), [vocab, hidden], answers), hidden }
    }

    /// The difference for each sequence.
    ///
    /// # Shapes
    /// - `pooled`: `[segments, hidden]`; returns: `[segments, 1]`
    pub fn forward(&self, pooled: Tensor<2>) -> Tensor<2> {
        let difference = self.difference.val().unsqueeze::<2>(); // [1, hidden]
        capture::pass(|| "head.logit".into(), (pooled * difference).sum_dim(1))
    }

    /// Operations for one sequence.
    pub fn flops(&self) -> u64 {
        flops::product(1, self.hidden, 1)
    }
}

/// A vector for each row, of a model whose rows are all that it gives.
///
/// # Source
/// transformers 5.23.0, `ColQwen2ForRetrieval`; colpali_engine, `ColQwen2.custom_text_proj`.
#[derive(Debug)]
pub struct RowVectors(Linear);

impl RowVectors {
    /// The head over rows of `hidden` numbers, `rows.…`.
    pub fn build(b: &Builder<'_>, hidden: usize, outputs: usize) -> Self {
        Self(b.linear_biased("rows", hidden, outputs))
    }

    /// The vector of each row, not normalised.
    ///
    /// # Shapes
    /// - `rows`: `[tokens, hidden]`; returns: `[tokens, outputs]`
    pub fn forward(&self, rows: Tensor<2>) -> Tensor<2> {
        capture::pass(|| "head.rows".into(), self.0.forward(rows))
    }
}
