//! Rows that bring a pass to a number of rows that comes again.

use burn::tensor::{DType, Tensor};
use omniburn_kernels::{Segments, filler};

use crate::capture;

/// Packed rows and their segments with filler behind them, as much as the device wants: none on flex, and none where
/// somebody looks at what lies between layers. [`without_filler`] takes it away again.
///
/// # Shapes
/// - `rows`: `[rows, width]`; returns: `[rows + filler, width]`
pub(crate) fn with_filler(rows: Tensor<2>, segments: Segments) -> (Tensor<2>, Segments) {
    let ([count, _], device) = (rows.dims(), rows.device());
    let filler = if capture::listens() { 0 } else { filler(count, &device) };
    if filler == 0 {
        return (rows, segments);
    }
    (padded(rows, filler), segments.with_filler(filler))
}

/// Rows with this many rows of zeros behind them.
///
/// # Shapes
/// - `rows`: `[rows, width]`; returns: `[rows + filler, width]`
pub(crate) fn padded(rows: Tensor<2>, filler: usize) -> Tensor<2> {
    if filler == 0 {
        return rows;
    }
    let [_, width] = rows.dims();
    let zeros = Tensor::zeros([filler, width], (&rows.device(), DType::F32));
    Tensor::cat(vec![rows, zeros], 0)
}

/// The rows of segments.
///
/// # Shapes
/// - `rows`: `[rows + filler, width]`; returns: `[rows, width]`
pub(crate) fn without_filler(rows: Tensor<2>, segments: &Segments) -> Tensor<2> {
    match segments.filler() {
        0 => rows,
        filler => rows.slice_dim(0, 0..segments.rows() - filler),
    }
}
