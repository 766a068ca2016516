//! The speech tower: mel frames of short windows in, means of tower rows out.

use burn::tensor::Tensor;
use omniburn_kernels::Segments;

use super::audio::{AudioConfig, AudioTower};
use crate::batch::{MelRows, TokenRows};
use crate::capture;
use crate::flops::RowActivations;

/// The speech tower up to what the connector reads.
#[derive(Debug)]
pub struct SpeechTower {
    tower: AudioTower,
    mean_rows: usize,
    /// Values alive a mel frame in the connector behind it.
    connector_values: usize,
}

impl SpeechTower {
    /// An audio tower whose rows are brought to means of `mean_rows`, for a connector that keeps `connector_values` f32
    /// values a mel frame.
    pub fn new(tower: AudioTower, mean_rows: usize, connector_values: usize) -> Self {
        Self { tower, mean_rows, connector_values }
    }

    /// Operations on one window of this many mel frames.
    pub fn flops(&self, frames: usize) -> u64 {
        self.tower.flops(frames)
    }

    /// Values alive a mel frame, with the connector's.
    pub fn activations(&self) -> RowActivations {
        let values = self.tower.frame_values() + self.connector_values;
        RowActivations { values, heads: self.tower.config().heads }
    }

    /// Rows of packed clips, ten a second where the tower gives fifty and the mean is of five; a rest is left out.
    ///
    /// # Shapes
    /// - `input.rows`: `[frames, mels]`, one window a clip; returns: `[rows, tower hidden]`, one segment a clip
    /// # Panics
    /// If a clip is longer than the tower's window or too short for one row.
    pub fn forward(&self, input: MelRows) -> TokenRows {
        let clips: Vec<usize> = input.windows.iter().map(|&frames| AudioConfig::window_rows(frames)).collect();
        let normed = self.tower.normed(self.tower.forward(input));
        let [_, width] = normed.dims();
        let mut start = 0;
        let mut pieces = Vec::new();
        let lengths: Vec<usize> = clips.iter().map(|rows| rows / self.mean_rows).collect();
        for (rows, len) in clips.iter().zip(&lengths) {
            assert!(*len > 0, "no mean of {} can be made of {rows} rows", self.mean_rows);
            let whole = normed.clone().slice_dim(0, start..start + len * self.mean_rows);
            pieces.push(whole.reshape([*len, self.mean_rows, width]).mean_dim(1).reshape([*len, width]));
            start += rows;
        }
        let rows = Tensor::cat(pieces, 0);
        let rows = capture::pass(|| "speech.rows".into(), rows);
        TokenRows { rows, segments: Segments::from_lengths(lengths) }
    }
}
