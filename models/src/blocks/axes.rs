//! Rotary positions of three axes: time, height and width.

use burn::tensor::Device;
use omniburn_kernels::Segments;
use serde::{Deserialize, Serialize};

use super::RotaryTable;
use super::rope::inverse_frequencies;
use crate::batch::MediaRows;
use crate::error::ConfigError;

/// Which pairs of a head turn with which axis.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RotaryAxes {
    /// Pairs that turn with time, with height and with width; together half a head.
    pub sections: [usize; 3],
    /// Whether the pairs of height and width alternate with those of time from the first on (Qwen3-VL); where not, each axis has
    /// its own stretch of pairs (Qwen2-VL).
    pub interleaved: bool,
}

impl RotaryAxes {
    /// Checks the sections against the width of a head.
    ///
    /// # Errors
    /// [`ConfigError`] naming the field.
    pub fn check(&self, head_dim: usize) -> Result<(), ConfigError> {
        let [time, height, width] = self.sections;
        let half = head_dim / 2;
        let sum = time.saturating_add(height).saturating_add(width);
        // Height and width own every third pair, and must find room for all of theirs.
        let room = !self.interleaved || 3usize.saturating_mul(height.max(width)) <= half;
        if sum == half && room {
            return Ok(());
        }
        Err(ConfigError::OutOfRange {
            field: "axes.sections".into(),
            found: format!("{:?}", self.sections),
            expected: format!("three numbers of pairs, {half} together, as a head is {head_dim} wide"),
        })
    }

    /// The axis that a pair turns with: 0 time, 1 height, 2 width.
    pub fn axis_of(&self, pair: usize) -> usize {
        let [time, height, width] = self.sections;
        match (self.interleaved, pair % 3) {
            (true, 1) if pair < 3 * height => 1,
            (true, 2) if pair < 3 * width => 2,
            (true, _) => 0,
            (false, _) if pair < time => 0,
            (false, _) => 1 + usize::from(pair >= time + height),
        }
    }

    /// Cosines and sines for rows at these positions.
    ///
    /// # Shapes
    /// - returns: `[positions, head_dim]`
    /// # Source
    /// transformers 5.23.0, `Qwen3VLTextRotaryEmbedding.apply_interleaved_mrope`; `apply_multimodal_rotary_pos_emb` of
    /// `modeling_qwen2_5_omni`.
    pub fn table(&self, positions: &[[usize; 3]], head_dim: usize, base: f64, device: &Device) -> RotaryTable {
        let frequencies = inverse_frequencies(base, head_dim);
        let axes: Vec<usize> = (0..frequencies.len()).map(|pair| self.axis_of(pair)).collect();
        let angles =
            positions.iter().map(|at| axes.iter().zip(&frequencies).map(|(&axis, f)| at[axis] as f32 * f).collect());
        RotaryTable::from_angles(angles, head_dim, device)
    }
}

/// Positions of packed rows on three axes. A row of a text, and one of media without a grid, is one further on every axis; the
/// rows of a grid lie on it, from the position of its first row on, and what is behind it goes on behind the largest of theirs.
/// Groups of frames lie one behind the other on the axis of time, or where [`MediaRows::times`] says.
///
/// # Shapes
/// - `media`: in the order of their rows; returns: `[tokens, 3]`
/// # Source
/// transformers 5.23.0, `Qwen3VLModel.get_rope_index`, `Qwen2_5OmniThinkerModel.get_rope_index`.
pub fn axis_positions(segments: &Segments, media: &[MediaRows]) -> Vec<[usize; 3]> {
    let mut grids = media.iter().filter_map(|media| Some((media.start, media.grid?, &media.times))).peekable();
    let mut positions = Vec::new();
    for (start, len) in segments.iter() {
        let mut next = 0;
        while positions.len() < start + len {
            let here = positions.len();
            match grids.next_if(|(at, ..)| *at == here) {
                Some((_, grid, times)) => {
                    let time = |group: usize| times.get(group).copied().unwrap_or(group);
                    for group in 0..grid.t {
                        for row in 0..grid.h {
                            positions.extend((0..grid.w).map(|column| [next + time(group), next + row, next + column]));
                        }
                    }
                    let last = grid.t.checked_sub(1).map_or(0, |group| time(group) + 1);
                    next += last.max(grid.h).max(grid.w);
                }
                None => {
                    positions.push([next; 3]);
                    next += 1;
                }
            }
        }
    }
    positions
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Grid;

    fn image(start: usize, h: usize, w: usize) -> MediaRows {
        MediaRows { start, rows: h * w, grid: Some(Grid { t: 1, h, w }), times: Vec::new(), added: Vec::new() }
    }

    /// Three texts, a start, an image of 2 x 3 rows, an end, two texts.
    #[test]
    fn an_image_lies_on_its_grid_and_what_follows_goes_on_behind_its_larger_side() {
        let positions = axis_positions(&Segments::single(13), &[image(4, 2, 3)]);
        let axis = |axis: usize| positions.iter().map(|at| at[axis]).collect::<Vec<_>>();
        assert_eq!(axis(0), [0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 7, 8, 9]);
        assert_eq!(axis(1), [0, 1, 2, 3, 4, 4, 4, 5, 5, 5, 7, 8, 9]);
        assert_eq!(axis(2), [0, 1, 2, 3, 4, 5, 6, 4, 5, 6, 7, 8, 9]);
        // A second sequence counts from zero, and rows without a grid count as those of a text.
        let audio = MediaRows { start: 14, rows: 2, grid: None, times: Vec::new(), added: Vec::new() };
        let packed = axis_positions(&Segments::from_lengths([13, 4]), &[image(4, 2, 3), audio]);
        assert_eq!((&packed[..13], &packed[13..]), (&positions[..], &[[0; 3], [1; 3], [2; 3], [3; 3]][..]));
    }

    /// A text, two groups of 1 x 2 rows 25 positions apart, a text.
    #[test]
    fn groups_of_frames_lie_where_their_times_say() {
        let grid = Some(Grid { t: 2, h: 1, w: 2 });
        let video = MediaRows { start: 1, rows: 4, grid, times: vec![0, 25], added: Vec::new() };
        let positions = axis_positions(&Segments::single(6), std::slice::from_ref(&video));
        assert_eq!(positions, [[0; 3], [1, 1, 1], [1, 1, 2], [26, 1, 1], [26, 1, 2], [27; 3]]);
        let plain = axis_positions(&Segments::single(6), &[MediaRows { times: Vec::new(), ..video }]);
        assert_eq!(plain, [[0; 3], [1, 1, 1], [1, 1, 2], [2, 1, 1], [2, 1, 2], [3; 3]]);
    }

    #[test]
    fn pairs_turn_with_the_axis_that_owns_them() {
        let interleaved = RotaryAxes { sections: [24, 20, 20], interleaved: true };
        let owned =
            |axes: RotaryAxes, axis: usize| (0..64).filter(|&pair| axes.axis_of(pair) == axis).collect::<Vec<_>>();
        assert_eq!(owned(interleaved, 1), (0..20).map(|i| 3 * i + 1).collect::<Vec<_>>());
        assert_eq!(owned(interleaved, 2), (0..20).map(|i| 3 * i + 2).collect::<Vec<_>>());
        let contiguous = RotaryAxes { sections: [16, 24, 24], interleaved: false };
        assert_eq!(owned(contiguous, 0), (0..16).collect::<Vec<_>>());
        assert_eq!(owned(contiguous, 2), (40..64).collect::<Vec<_>>());
        assert!(interleaved.check(128).is_ok() && contiguous.check(128).is_ok());
        let refused = RotaryAxes { sections: [24, 20, 19], interleaved: true }.check(128).unwrap_err().to_string();
        assert!(refused.contains("axes.sections"), "{refused}");
        assert!(RotaryAxes { sections: [16, 24, 24], interleaved: true }.check(128).is_err());
        assert!(RotaryAxes { sections: [usize::MAX, 1, 64], interleaved: false }.check(128).is_err());
    }
}
