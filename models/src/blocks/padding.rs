//! Rows that bring a pass to a number of rows that comes again.

use burn::tensor::{DType, Tensor};
use omniburn_kernels::{Segments, padding};

use crate::capture;

/// Packed rows and their segments with padding behind them, as much as the device wants: none on flex, and none where
/// somebody looks at what lies between layers. [`without_padding`] takes it away again.
///
/// # Shapes
/// - `rows`: `[rows, width]`; returns: `[rows + padding, width]`
pub(crate) fn with_padding(rows: Tensor<2>, segments: Segments) -> (Tensor<2>, Segments) {
    let ([count, _], device) = (rows.dims(), rows.device());
    let padding = if capture::listens() { 0 } else { padding(count, &device) };
    if padding == 0 {
        return (rows, segments);
    }
    (padded(rows, padding), segments.with_padding(padding))
}

/// Rows with this many rows of zeros behind them.
///
/// # Shapes
/// - `rows`: `[rows, width]`; returns: `[rows + padding, width]`
pub(crate) fn padded(rows: Tensor<2>, padding: usize) -> Tensor<2> {
    if padding == 0 {
        return rows;
    }
    let [_, width] = rows.dims();
    let zeros = Tensor::zeros([padding, width], (&rows.device(), DType::F32));
    Tensor::cat(vec![rows, zeros], 0)
}

/// The rows of segments.
///
/// # Shapes
/// - `rows`: `[rows + padding, width]`; returns: `[rows, width]`
pub(crate) fn without_padding(rows: Tensor<2>, segments: &Segments) -> Tensor<2> {
    match segments.padding() {
        0 => rows,
        padding => rows.slice_dim(0, 0..segments.rows() - padding),
    }
}
