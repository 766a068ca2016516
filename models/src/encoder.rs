//! Post-norm text encoders with learned positions: BERT and its descendants.

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};
use omniburn_kernels::Segments;

use crate::batch::{TokenRows, upload};
use crate::blocks::padding::{with_padding, without_padding};
use crate::blocks::{EncoderLayer, EncoderSizes, HiddenAct, LayerNorm};
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
    /// Token types a checkpoint distinguishes, none in DistilBERT and MPNet.
    pub token_types: usize,
    /// Token types that rows may have here, from the first on; 1 where there are none.
    pub used_types: usize,
    /// What is between the products of the MLP.
    pub act: HiddenAct,
    /// Buckets of distances whose bias is added to the scores, the same in all layers; as in MPNet.
    pub buckets: Option<usize>,
}

/// Post-norm encoder over rows: word embeddings, or whatever stands where word embeddings would stand.
///
/// # Source
/// transformers, `BertModel`, `XLMRobertaModel`, `DistilBertModel` and `MPNetModel` without their poolers, revision 5.23.0.
#[derive(Module, Debug)]
pub struct Encoder {
    positions: Param<Tensor<2>>,
    norm: LayerNorm,
    layers: Vec<EncoderLayer>,
    /// Bias of the scores by distance, `[heads, 2 * reach + 1]`.
    relative: Option<Param<Tensor<2>>>,
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
    /// positions of type 1 lie behind those of type 0. The bias of every distance is looked up here, too.
    pub fn build(shape: &EncoderShape, b: &Builder<'_>) -> Self {
        let EncoderShape { hidden, heads, inner, norm_eps, positions: rows, act, used_types, .. } = *shape;
        let positions = b.rows("positions.weight", [rows, hidden]);
        let positions = match shape.token_types {
            0 => positions,
            kinds => {
                let types = b.rows("token_types.weight", [kinds, hidden]);
                b.computed([used_types * rows, hidden], |_| {
                    let of = |kind| positions.val() + types.val().slice_dim(0, kind..kind + 1);
                    match used_types {
                        1 => of(0),
                        _ => Tensor::cat((0..used_types).map(of).collect(), 0),
                    }
                })
            }
        };
        let sizes = EncoderSizes { hidden, inner, heads, norm_eps, act };
        let layer = |i| b.at(format!("layers.{i}"), |b| EncoderLayer::build(b, &sizes));
        let relative = |buckets| {
            let bias = b.host("relative.weight", [buckets, heads]);
            let columns = 2 * (rows - shape.first_position) - 1;
            b.computed([heads, columns], |device| upload(by_distance(&bias, heads, columns), [heads, columns], device))
        };
        Self {
            positions,
            norm: b.layer_norm("norm", hidden, norm_eps),
            layers: (0..shape.layers).map(layer).collect(),
            relative: shape.buckets.map(relative),
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
        let (rows, segments) = with_padding(input.rows, input.segments);
        let rows = capture::pass(|| "backbone.rows".into(), rows);
        let hidden = self.norm.forward(rows + self.positions_of(&segments, positions, types));
        let hidden = capture::pass(|| "backbone.norm".into(), hidden);
        EncoderState { hidden, segments }
    }

    /// Runs one layer.
    pub fn layer(&self, index: usize, state: EncoderState) -> EncoderState {
        let EncoderState { hidden, segments } = state;
        let relative = self.relative.as_ref().map(Param::val);
        let hidden = self.layers[index].forward(hidden, &segments, relative, &format!("backbone.layers.{index}"));
        EncoderState { hidden, segments }
    }

    /// Hidden rows and their segments.
    ///
    /// # Shapes
    /// - returns: `[tokens, hidden]`
    pub fn leave(state: EncoderState) -> (Tensor<2>, Segments) {
        let rows = without_padding(state.hidden, &state.segments);
        (rows, state.segments.with_padding(0))
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

/// `[heads, columns]` of `[buckets, heads]`: the bias of each distance from a query, its own row in the middle.
fn by_distance(bias: &[f32], heads: usize, columns: usize) -> Vec<f32> {
    let (buckets, reach) = (bias.len() / heads, columns / 2);
    let of = |head: usize, column: usize| bias[bucket_of(column as i64 - reach as i64, buckets) * heads + head];
    (0..heads).flat_map(|head| (0..columns).map(move |column| of(head, column))).collect()
}

/// Distance from which on all keys on one side share the last bucket.
const FARTHEST: f64 = 128.0;

/// Bucket of a key `distance` rows behind its query: the first half of the buckets is for the query's own row and earlier
/// keys, the second for later ones. Half of each half has a bucket a distance, the rest grows with the logarithm.
///
/// # Source
/// transformers, `MPNetEncoder.relative_position_bucket`, revision 5.23.0; Raffel et al. 2020 (arXiv 1910.10683).
fn bucket_of(distance: i64, buckets: usize) -> usize {
    let (side, size) = (buckets / 2, distance.unsigned_abs() as usize);
    let exact = side / 2;
    let bucket = if size < exact {
        size
    } else {
        // Logarithms of powers of two, where the edges of the published buckets lie, are exact.
        let share = (size as f64 / exact as f64).log2() / (FARTHEST / exact as f64).log2();
        (exact + (share * (side - exact) as f64) as usize).min(side - 1)
    };
    bucket + if distance > 0 { side } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_of_distances_are_those_of_the_reference() {
        // `MPNetEncoder.relative_position_bucket` of transformers 5.23.0, with 32 buckets.
        let near = [(0, 0), (-1, 1), (1, 17), (-7, 7), (-8, 8), (8, 24), (-11, 8), (-12, 9), (-15, 9), (-16, 10)];
        let far = [(31, 27), (32, 28), (-63, 13), (-64, 14), (-90, 14), (-91, 15), (127, 31), (400, 31)];
        for (distance, bucket) in near.into_iter().chain(far) {
            assert_eq!(bucket_of(distance, 32), bucket, "{distance}");
        }
    }

    #[test]
    fn a_bias_stands_where_its_distance_is_counted() {
        // Two heads, four buckets: own row and all earlier ones, then later ones.
        let bias = [0.0, 10.0, 1.0, 11.0, 2.0, 12.0, 3.0, 13.0];
        assert_eq!(by_distance(&bias, 2, 3), [1.0, 0.0, 3.0, 11.0, 10.0, 13.0]);
    }
}
