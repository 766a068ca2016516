//! What a part of a record must hold: name, shape and role of every tensor, computed from a configuration.
//!
//! One list serves the converter (what to write), the reader (what to refuse) and `inspect` (what to count).

use serde::{Deserialize, Serialize};

use super::int8::scale_name;

/// What a tensor is for, which decides the type it is stored in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TensorRole {
    /// Right-hand side of a matrix product, `[in, out]`: stored in the record's dtype.
    Linear,
    /// Biases, norm gains and small tables: always stored as f32, because they are small and feed f32 arithmetic.
    Exact,
    /// Tables and convolutions, outputs or rows first as in the checkpoint: stored in the record's dtype, computed in
    /// f32.
    Rows,
    /// The token table `[vocab, hidden]`: stored as the checkpoint has it, because its rows are gathered on the host;
    /// in an int8 record, int8.
    Tokens,
    /// Scales of an int8 tensor, one for each of its rows: f16.
    Scale,
}

/// One tensor a part must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Path in the record, which is the module path: `backbone.layers.3.mlp.down_proj.weight`.
    pub name: String,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// What it is for.
    pub role: TensorRole,
}

impl TensorSpec {
    /// A matrix of a product, `[inputs, outputs]`.
    pub fn linear(name: impl Into<String>, inputs: usize, outputs: usize) -> Self {
        Self { name: name.into(), shape: vec![inputs, outputs], role: TensorRole::Linear }
    }

    /// A small tensor kept in f32.
    pub fn exact(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), shape: shape.into(), role: TensorRole::Exact }
    }

    /// A table or convolution, rows or outputs first.
    pub fn rows(name: impl Into<String>, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), shape: shape.into(), role: TensorRole::Rows }
    }

    /// A token table.
    pub fn tokens(name: impl Into<String>, vocab: usize, hidden: usize) -> Self {
        Self { name: name.into(), shape: vec![vocab, hidden], role: TensorRole::Tokens }
    }

    /// Rows of the checkpoint's axis order: outputs of a matrix, first axis of anything else.
    pub fn row_count(&self) -> usize {
        let axis = if self.role == TensorRole::Linear { self.shape.last() } else { self.shape.first() };
        axis.copied().unwrap_or(1)
    }

    /// Whether an int8 record stores it in int8.
    pub fn is_quantizable(&self) -> bool {
        matches!(self.role, TensorRole::Linear | TensorRole::Rows | TensorRole::Tokens)
    }

    /// The scales that lie beside it where it is stored in int8.
    pub fn scale(&self) -> Self {
        Self { name: scale_name(&self.name), shape: vec![self.row_count()], role: TensorRole::Scale }
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().fold(1, |product, &side| product.saturating_mul(side))
    }
}

/// Specs of `{prefix}.weight` `[width]` and `{prefix}.bias` `[width]`.
pub fn layer_norm(prefix: &str, width: usize) -> [TensorSpec; 2] {
    [TensorSpec::exact(format!("{prefix}.weight"), [width]), TensorSpec::exact(format!("{prefix}.bias"), [width])]
}

/// Specs of `{prefix}.weight` `[inputs, outputs]` and `{prefix}.bias` `[outputs]`.
pub fn linear_bias(prefix: &str, inputs: usize, outputs: usize) -> [TensorSpec; 2] {
    [
        TensorSpec::linear(format!("{prefix}.weight"), inputs, outputs),
        TensorSpec::exact(format!("{prefix}.bias"), [outputs]),
    ]
}
