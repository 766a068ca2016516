//! One-dimensional convolutions over packed rows, as products: each output row reads the rows its taps lie on.

use burn::tensor::{Int, Tensor, TensorData};

/// Where the taps of a convolution lie, output by output; a tap outside its window reads a row of zeros.
///
/// Padding is half the taps on both sides, so that a stride of one keeps the length.
#[derive(Debug)]
pub(crate) struct Taps {
    rows: Vec<Vec<Option<usize>>>,
}

impl Taps {
    /// A convolution of this many taps, an odd number, with no output yet.
    pub fn new(taps: usize) -> Self {
        Self { rows: vec![Vec::new(); taps] }
    }

    /// Adds the `outputs` rows of a window of `len` rows that begins at `start`, one each `stride` rows.
    pub fn window(&mut self, start: usize, len: usize, outputs: usize, stride: usize) {
        let half = self.rows.len() / 2;
        for (tap, rows) in self.rows.iter_mut().enumerate() {
            let at = |output: usize| (output * stride + tap).checked_sub(half);
            rows.extend((0..outputs).map(|output| at(output).filter(|&row| row < len).map(|row| start + row)));
        }
    }

    /// `[outputs, taps * width]` of `rows`, `[rows, width]`.
    pub fn gather(&self, rows: Tensor<2>) -> Tensor<2> {
        let [count, width] = rows.dims();
        let device = rows.device();
        let padded = Tensor::cat(vec![rows, Tensor::zeros([1, width], &device)], 0);
        let taps = self.rows.iter().map(|tap| {
            let rows = tap.iter().map(|row| row.unwrap_or(count) as i32).collect::<Vec<_>>();
            let shape = [rows.len()];
            padded.clone().select(0, Tensor::<1, Int>::from_data(TensorData::new(rows, shape), &device))
        });
        Tensor::cat(taps.collect(), 1)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn gathered(taps: &Taps, rows: &Tensor<2>) -> Vec<f32> {
        taps.gather(rows.clone()).into_data().try_to_vec().unwrap()
    }

    #[test]
    fn taps_outside_a_window_are_silent() {
        let rows = Tensor::<2>::from_data(TensorData::new(vec![1.0f32, 2.0, 3.0, 4.0, 5.0], [5, 1]), &Device::flex());
        let mut taps = Taps::new(3);
        taps.window(0, 3, 3, 1);
        taps.window(3, 2, 2, 1);
        assert_eq!(gathered(&taps, &rows), [0., 1., 2., 1., 2., 3., 2., 3., 0., 0., 4., 5., 4., 5., 0.]);
        let mut taps = Taps::new(3);
        taps.window(0, 5, 3, 2);
        assert_eq!(gathered(&taps, &rows), [0., 1., 2., 2., 3., 4., 4., 5., 0.]);
        let mut taps = Taps::new(5);
        taps.window(1, 2, 2, 1);
        assert_eq!(gathered(&taps, &rows), [0., 0., 2., 3., 0., 0., 2., 3., 0., 0.]);
    }
}
