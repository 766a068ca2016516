//! From rows to one vector a sequence.

use burn::tensor::{Int, Tensor, TensorData};
use omniburn_kernels::Segments;

use crate::tap;
use crate::trap::{self, Trap};

/// Which rows make a sequence's vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooling {
    /// The last row.
    LastToken,
    /// The mean of all rows.
    Mean,
    /// The first row.
    Cls,
}

impl Pooling {
    /// One row a segment, not normalised.
    ///
    /// # Shapes
    /// - `hidden`: `[tokens, hidden]`; returns: `[segments, hidden]`
    /// # Numerics
    /// f32.
    pub fn apply(self, hidden: Tensor<2>, segments: &Segments) -> Tensor<2> {
        let pooling = match (trap::on(Trap::PoolFirstRow), trap::on(Trap::PoolMean)) {
            (true, _) => Pooling::Cls,
            (_, true) => Pooling::Mean,
            _ => self,
        };
        let pooled = match pooling {
            Pooling::LastToken => rows(hidden, segments.last_rows()),
            Pooling::Cls => rows(hidden, segments.iter().map(|(start, _)| start)),
            Pooling::Mean => {
                let means =
                    segments.iter().map(|(start, len)| hidden.clone().slice_dim(0, start..start + len).mean_dim(0));
                Tensor::cat(means.collect(), 0)
            }
        };
        tap::record(|| "pooled".into(), &pooled);
        pooled
    }
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
