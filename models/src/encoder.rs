//! Post-norm text encoders with learned positions: BERT and its descendants.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};
use omniburn_kernels::Segments;

use crate::batch::TokenRows;
use crate::blocks::filler::{with_filler, without_filler};
use crate::blocks::{EncoderLayer, LayerNorm};
use crate::builder::Builder;
use crate::capture;
use crate::flops::RowActivations;

/// Sizes of an [`Encoder`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EncoderShape {
    /// Width of the residual stream.
    pub hidden: usize,
    /// Number of layers.
    pub layers: usize,
    /// Attention heads; divides `hidden`.
    pub heads: usize,
    /// Width of the MLP.
    pub inner: usize,
    /// Epsilon of every LayerNorm.
    pub norm_eps: f64,
    /// Rows of the learned position table.
    pub positions: usize,
    /// Row of the position table that the first row of a sequence takes: 0, or behind the padding's in RoBERTa.
    pub first_position: usize,
    /// Token types a checkpoint distinguishes.
    pub token_types: usize,
    /// Token types that rows may have here, from the first on.
    pub used_types: usize,
}

/// Post-norm encoder over rows: word embeddings, or whatever stands where word embeddings would stand.
///
/// # Source
/// transformers, `BertModel` and `XLMRobertaModel` without their poolers, revision 5.23.0.
#[derive(Module, Debug)]
pub struct Encoder {
    positions: Param<Tensor<2>>,
    norm: LayerNorm,
    layers: Vec<EncoderLayer>,
    #[module(skip)]
    shape: EncoderShape,
}

/// Rows of an [`Encoder`] between two of its layers.
#[derive(Debug)]
pub struct EncoderState {
    hidden: Tensor<2>,
    segments: Segments,
}

impl Encoder {
    /// The encoder, without the word embeddings. The row of each used token type is added to every position once, here: the
    /// positions of type 1 lie behind those of type 0.
    pub fn build(shape: &EncoderShape, b: &Builder<'_>) -> Self {
        let EncoderShape { hidden, heads, inner, norm_eps, positions: rows, used_types, .. } = *shape;
        let positions = b.rows("positions.weight", [rows, hidden]);
        let types = b.rows("token_types.weight", [shape.token_types, hidden]);
        let layer = |i| b.at(format!("layers.{i}"), |b| EncoderLayer::build(b, hidden, inner, heads, norm_eps));
        Self {
            positions: b.computed([used_types * rows, hidden], |_| {
                let of = |kind| positions.val() + types.val().slice_dim(0, kind..kind + 1);
                match used_types {
                    1 => of(0),
                    _ => Tensor::cat((0..used_types).map(of).collect(), 0),
                }
            }),
            norm: b.layer_norm("norm", hidden, norm_eps),
            layers: (0..shape.layers).map(layer).collect(),
            shape: *shape,
        }
    }

    /// Hidden rows after the last layer. Positions count from the first in every segment, and every row sees all rows of
    /// its own segment. Rows need not be words: position, type row and the first norm are applied to them alike.
    ///
    /// # Shapes
    /// - `input.rows`: `[tokens, hidden]`; returns: `[tokens, hidden]`
    /// # Numerics
    /// The residual stream, norms and softmax are f32; products are in the weights' type.
    /// # Panics
    /// If a segment is longer than the position table.
    pub fn forward(&self, input: TokenRows) -> Tensor<2> {
        let state = (0..self.layers.len()).fold(self.enter(input, None, &[]), |state, index| self.layer(index, state));
        Self::leave(state).0
    }

    /// Positions, token types and the first norm. `positions` are rows of the position table, where they are not
    /// consecutive; without `types` every row is of type 0.
    ///
    /// # Shapes
    /// - `input.rows`: `[tokens, hidden]`; `positions`: `[tokens]`; `types`: `[tokens]` or empty
    /// # Panics
    /// As [`Encoder::forward`], and for a token type that is not used.
    pub fn enter(&self, input: TokenRows, positions: Option<Vec<usize>>, types: &[u8]) -> EncoderState {
        let (rows, segments) = with_filler(input.rows, input.segments);
        let rows = capture::pass(|| "backbone.rows".into(), rows);
        let hidden = self.norm.forward(rows + self.positions_of(&segments, positions, types));
        let hidden = capture::pass(|| "backbone.norm".into(), hidden);
        EncoderState { hidden, segments }
    }

    /// Runs one layer.
    pub fn layer(&self, index: usize, state: EncoderState) -> EncoderState {
        let EncoderState { hidden, segments } = state;
        let hidden = self.layers[index].forward(hidden, &segments, &format!("backbone.layers.{index}"));
        EncoderState { hidden, segments }
    }

    /// Hidden rows and their segments.
    ///
    /// # Shapes
    /// - returns: `[tokens, hidden]`
    pub fn leave(state: EncoderState) -> (Tensor<2>, Segments) {
        let rows = without_filler(state.hidden, &state.segments);
        (rows, state.segments.with_filler(0))
    }

    /// Number of layers.
    pub fn layers(&self) -> usize {
        self.layers.len()
    }

    /// Operations on one sequence of this many rows.
    pub fn flops(&self, tokens: usize) -> u64 {
        self.layers.iter().map(|layer| layer.flops(tokens, tokens * tokens)).sum()
    }

    /// Values of one layer's matrices.
    pub fn layer_parameters(&self) -> usize {
        self.layers.first().map_or(0, EncoderLayer::parameters)
    }

    /// Values alive a row.
    pub fn activations(&self) -> RowActivations {
        let values = self.layers.first().map_or(0, EncoderLayer::row_values);
        RowActivations { values, heads: self.shape.heads }
    }

    fn positions_of(&self, segments: &Segments, given: Option<Vec<usize>>, types: &[u8]) -> Tensor<2> {
        let longest = segments.iter().map(|(_, len)| len).max().unwrap_or(0);
        let EncoderShape { positions, first_position, used_types, .. } = self.shape;
        assert!(longest + first_position <= positions, "{longest} rows, {positions} positions");
        let mut index: Vec<i32> = match given {
            Some(mut rows) => {
                rows.resize(segments.rows(), first_position);
                rows.into_iter().map(|row| row as i32).collect()
            }
            None => segments.positions().map(|position| (position + first_position) as i32).collect(),
        };
        for (row, &kind) in index.iter_mut().zip(types) {
            assert!(usize::from(kind) < used_types, "token type {kind} of {used_types}");
            *row += i32::from(kind) * positions as i32;
        }
        let shape = [index.len()];
        let device = self.positions.device();
        self.positions.val().select(0, Tensor::<1, Int>::from_data(TensorData::new(index, shape), &device))
    }
}
