//! From rows to one vector a sequence.

use burn::tensor::{Int, Tensor, TensorData};
use omniburn_kernels::Segments;
use serde::{Deserialize, Serialize};

use crate::capture;

/// Which rows make a sequence's vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pooling {
    /// The last row.
    LastToken,
    /// The mean of all rows.
    Mean,
    /// The first row.
    Cls,
    /// The largest value of every column.
    Max,
    /// The sum of all rows over the square root of their number.
    MeanSqrtLen,
    /// The mean of all rows, each as often as its place, counted from one.
    WeightedMean,
}

impl Pooling {
    /// One row a segment, not normalised.
    ///
    /// # Shapes
    /// - `hidden`: `[tokens, hidden]`; returns: `[segments, hidden]`
    /// # Numerics
    /// f32.
    pub fn apply(self, hidden: Tensor<2>, segments: &Segments) -> Tensor<2> {
        self.apply_after(hidden, segments, &[])
    }

    /// One row a segment, not normalised, made without the first `skipped` rows of each segment; the last row counts
    /// whatever is left out. No `skipped` leaves nothing out; rows that none sees are left out. Of segments with pieces, one row
    /// a piece.
    ///
    /// # Shapes
    /// - `hidden`: `[tokens, hidden]`; `skipped`: `[segments]` or empty; returns: `[segments, hidden]`
    /// # Numerics
    /// f32.
    /// # Source
    /// sentence-transformers 6.2.0, `Pooling` with `include_prompt` false: places keep their numbers.
    /// # Panics
    /// If a segment is left without a row.
    pub fn apply_after(self, hidden: Tensor<2>, segments: &Segments, skipped: &[usize]) -> Tensor<2> {
        let skipped = skipped.iter().copied().chain(std::iter::repeat(0));
        let kept = segments.pieces().zip(skipped).map(|((start, len), skip)| {
            assert!(skip < len, "{skip} of {len} rows left out");
            (start, skip, len)
        });
        let pooled = match self {
            Pooling::LastToken => rows(hidden, segments.pieces().map(|(start, len)| start + len - 1)),
            Pooling::Cls => rows(hidden, kept.map(|(start, skip, _)| start + skip)),
            _ => {
                let one = |(start, skip, len): (usize, usize, usize)| {
                    self.pool(hidden.clone().slice_dim(0, start + skip..start + len), skip)
                };
                Tensor::cat(kept.map(one).collect(), 0)
            }
        };
        capture::pass(|| "pooled".into(), pooled)
    }

    /// The one row of a segment's rows, of which the first has the place `first`, counted from zero.
    fn pool(self, rows: Tensor<2>, first: usize) -> Tensor<2> {
        let [count, _] = rows.dims();
        match self {
            Pooling::Max => rows.max_dim(0),
            Pooling::MeanSqrtLen => rows.sum_dim(0) / (count as f32).sqrt(),
            Pooling::WeightedMean => {
                let places: Vec<f32> = (first + 1..=first + count).map(|place| place as f32).collect();
                let total: f32 = places.iter().sum();
                let places = Tensor::<2>::from_data(TensorData::new(places, [count, 1]), &rows.device());
                (rows * places).sum_dim(0) / total
            }
            Pooling::Mean | Pooling::Cls | Pooling::LastToken => rows.mean_dim(0),
        }
    }
}

/// Vectors of several poolings side by side, made without the first `skipped` rows of each segment.
///
/// # Shapes
/// - `hidden`: `[tokens, hidden]`; `skipped`: `[segments]` or empty; returns: `[segments, hidden * (1 + more)]`
/// # Panics
/// If a segment is left without a row.
pub fn pooled(
    first: Pooling,
    more: &[Pooling],
    hidden: Tensor<2>,
    segments: &Segments,
    skipped: &[usize],
) -> Tensor<2> {
    if more.is_empty() {
        return first.apply_after(hidden, segments, skipped);
    }
    let poolings = std::iter::once(&first).chain(more);
    Tensor::cat(poolings.map(|p| p.apply_after(hidden.clone(), segments, skipped)).collect(), 1)
}

/// The mean of each segment's rows.
///
/// # Shapes
/// - `rows`: `[rows, width]`; returns: `[segments, width]`
pub fn means(rows: Tensor<2>, segments: &Segments) -> Tensor<2> {
    let means = segments.iter().map(|(start, len)| rows.clone().slice_dim(0, start..start + len).mean_dim(0));
    Tensor::cat(means.collect(), 0)
}

/// Every row divided by its length, on the device and without an epsilon: a row of zeros becomes NaN, which whoever
/// reads vectors refuses.
///
/// # Shapes
/// - `rows`: `[rows, width]`; returns: as `rows`
/// # Numerics
/// f32; the lengths differ from 1 by rounding only. [`normalize_l2`] is the last word.
pub fn unit_rows(rows: Tensor<2>) -> Tensor<2> {
    let lengths = (rows.clone() * rows.clone()).sum_dim(1).sqrt();
    rows / lengths
}

fn rows(hidden: Tensor<2>, rows: impl Iterator<Item = usize>) -> Tensor<2> {
    let rows: Vec<i32> = rows.map(|r| i32::try_from(r).expect("fewer than 2^31 rows")).collect();
    let count = rows.len();
    let index = Tensor::<1, Int>::from_data(TensorData::new(rows, [count]), &hidden.device());
    hidden.select(0, index)
}

/// Divides a vector by its length, in f32 with the sum in f64 and no epsilon; `None` when the length is zero or not
/// finite.
pub fn normalize_l2(vector: &[f32]) -> Option<Vec<f32>> {
    let norm = vector.iter().map(|v| f64::from(*v) * f64::from(*v)).sum::<f64>().sqrt();
    (norm.is_finite() && norm > 0.0).then(|| vector.iter().map(|v| (f64::from(*v) / norm) as f32).collect())
}
