//! Index maths of patch grids, on the host and without tensors.

use crate::batch::Grid;

/// Rows of the position table and their weights, one a patch: one of the four corners of a bilinear blend.
#[derive(Debug, Clone, PartialEq)]
pub struct Corner {
    /// Row of the table, `[patches]`.
    pub rows: Vec<i32>,
    /// Its share, `[patches]`.
    pub weights: Vec<f32>,
}

/// Row and column of each patch of one frame, in the order of the rows: blocks of `merge x merge`, raster inside and
/// outside.
fn block_order(h: usize, w: usize, merge: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..h / merge).flat_map(move |bh| {
        (0..w / merge).flat_map(move |bw| {
            (0..merge).flat_map(move |mh| (0..merge).map(move |mw| (bh * merge + mh, bw * merge + mw)))
        })
    })
}

/// Rows of each attention window: one a temporal group, none across items.
pub fn windows(grids: &[Grid]) -> Vec<usize> {
    grids.iter().flat_map(|g| std::iter::repeat_n(g.h * g.w, g.t)).collect()
}

/// Row and column of every patch, the same for every temporal group (time has no rotary).
pub fn coordinates(grids: &[Grid], merge: usize) -> Vec<(usize, usize)> {
    grids.iter().flat_map(|g| (0..g.t).flat_map(move |_| block_order(g.h, g.w, merge))).collect()
}

/// Merged patches in the order of the windows they lie in, `[merged]`, and how many patches each window has. A window is a
/// square of `side x side` merged patches of one temporal group; windows at the right and lower edges may be smaller.
///
/// # Source
/// transformers 5.23.0, `vision_utils.get_vision_window_index`.
pub fn window_order(grids: &[Grid], merge: usize, side: usize) -> (Vec<usize>, Vec<usize>) {
    let (mut order, mut lengths, mut first) = (Vec::new(), Vec::new(), 0);
    for grid in grids {
        let (h, w) = (grid.h / merge, grid.w / merge);
        for _ in 0..grid.t {
            for top in (0..h).step_by(side) {
                for left in (0..w).step_by(side) {
                    let before = order.len();
                    for row in top..h.min(top + side) {
                        order.extend((left..w.min(left + side)).map(|column| first + row * w + column));
                    }
                    lengths.push((order.len() - before) * merge * merge);
                }
            }
            first += h * w;
        }
    }
    (order, lengths)
}

/// Neighbours of patch `index` of `size` along one axis of a table with `side` rows: the lower row, the upper row, and
/// the upper one's share, with aligned corners.
///
/// # Numerics
/// f32: `index * (side - 1) / (size - 1)`, one product and one quotient; a single patch lies at 0.
/// # Source
/// transformers 5.23.0, `vision_utils._interpolation_axis_taps_weights` with `align_corners=True`.
pub fn axis_blend(index: usize, size: usize, side: usize) -> (usize, usize, f32) {
    let at = index as f32 * (side - 1) as f32 / (size - 1).max(1) as f32;
    let low = at.floor();
    let row = low as usize;
    (row, (row + 1).min(side - 1), at - low)
}

/// Shares of the rows of a square table of `side` rows and columns in each patch of another grid, `[down * across, side * side]`
/// row by row: triangles as wide as a patch is in rows of the table, and at least one row.
///
/// # Numerics
/// f64, rounded once.
/// # Source
/// torch 2.15.0, `interpolate` with `mode="bilinear"`, `antialias=True` and `align_corners=False`.
pub fn resized(side: usize, [down, across]: [usize; 2]) -> Vec<f32> {
    let (rows, columns) = (axis_shares(side, down), axis_shares(side, across));
    let mut shares = Vec::with_capacity(down * across * side * side);
    for row in &rows {
        for column in &columns {
            shares.extend(row.iter().flat_map(|row| column.iter().map(move |column| (row * column) as f32)));
        }
    }
    shares
}

/// Shares of `from` rows in each of `to`: `[to][from]`.
fn axis_shares(from: usize, to: usize) -> Vec<Vec<f64>> {
    let scale = from as f64 / to as f64;
    let width = scale.max(1.0);
    let of = |at: usize| {
        let centre = scale * (at as f64 + 0.5);
        let first = (centre - width + 0.5).max(0.0) as usize;
        let end = ((centre + width + 0.5) as usize).min(from);
        let mut shares = vec![0.0; from];
        for (row, share) in shares.iter_mut().enumerate().take(end).skip(first) {
            *share = (1.0 - ((row as f64 - centre + 0.5) / width).abs()).max(0.0);
        }
        let total: f64 = shares.iter().sum();
        shares.iter_mut().for_each(|share| *share /= total);
        shares
    };
    (0..to).map(of).collect()
}

/// The four corners of every patch, in the order (low, low), (low, high), (high, low), (high, high) of (row, column).
pub fn blend(grids: &[Grid], side: usize, merge: usize) -> [Corner; 4] {
    let patches = grids.iter().map(|g| g.patches()).sum();
    let empty = || Corner { rows: Vec::with_capacity(patches), weights: Vec::with_capacity(patches) };
    let mut corners = [empty(), empty(), empty(), empty()];
    for g in grids {
        for _ in 0..g.t {
            for (row, column) in block_order(g.h, g.w, merge) {
                let (top, bottom, down) = axis_blend(row, g.h, side);
                let (left, right, across) = axis_blend(column, g.w, side);
                let places = [
                    (top, left, (1.0 - down) * (1.0 - across)),
                    (top, right, (1.0 - down) * across),
                    (bottom, left, down * (1.0 - across)),
                    (bottom, right, down * across),
                ];
                for (corner, (row, column, share)) in corners.iter_mut().zip(places) {
                    corner.rows.push((row * side + column) as i32);
                    corner.weights.push(share);
                }
            }
        }
    }
    corners
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patches_lie_in_two_by_two_blocks() {
        let order: Vec<_> = block_order(2, 4, 2).collect();
        assert_eq!(order, [(0, 0), (0, 1), (1, 0), (1, 1), (0, 2), (0, 3), (1, 2), (1, 3)]);
    }

    #[test]
    fn corners_are_aligned_and_shares_sum_to_one() {
        for (size, side) in [(1, 8), (2, 8), (15, 48), (48, 48), (94, 48)] {
            let first = axis_blend(0, size, side);
            assert_eq!((first.0, first.2), (0, 0.0));
            if size > 1 {
                let (low, _, share) = axis_blend(size - 1, size, side);
                assert_eq!(low as f32 + share, (side - 1) as f32);
            }
        }
        let corners = blend(&[Grid { t: 2, h: 4, w: 6 }], 8, 2);
        for patch in 0..48 {
            let sum: f32 = corners.iter().map(|c| c.weights[patch]).sum();
            assert!((sum - 1.0).abs() < 1e-6);
        }
    }

    /// End-to-end figures cannot see a step rounded before it is multiplied; this can. Values of torch 2.15 for
    /// `arange(n) * 47 / (n - 1)` in f32.
    #[test]
    fn positions_are_one_product_and_one_quotient_in_f32() {
        let at = |i, n| {
            let (low, _, share) = axis_blend(i, n, 48);
            low as f32 + share
        };
        assert_eq!(at(7, 25).to_bits(), 13.708_333f32.to_bits());
        assert_eq!(at(11, 36).to_bits(), (517.0f32 / 35.0).to_bits());
        // The rounded step times the index differs in the last bit here, so this is a check that can fail.
        let step = 47.0f32 / 35.0;
        assert!((0..36).any(|i| (step * i as f32).to_bits() != (i as f32 * 47.0 / 35.0).to_bits()));
        assert!((0..36).all(|i| (at(i, 36) - i as f32 * 47.0 / 35.0).abs() < 1e-6));
    }

    /// Values of transformers 5.23.0 for windows of 2 x 2 over 3 x 5 merged patches, and over two groups of 2 x 2.
    #[test]
    fn merged_patches_are_ordered_window_by_window() {
        let (order, lengths) = window_order(&[Grid { t: 1, h: 6, w: 10 }, Grid { t: 2, h: 4, w: 4 }], 2, 2);
        let first = [0, 1, 5, 6, 2, 3, 7, 8, 4, 9, 10, 11, 12, 13, 14];
        assert_eq!(order, first.into_iter().chain(15..23).collect::<Vec<_>>());
        assert_eq!(lengths, [16, 16, 8, 8, 8, 4, 16, 16]);
    }

    #[test]
    fn a_table_of_the_same_grid_is_itself_and_shares_are_whole() {
        let same = resized(3, [3, 3]);
        let unit: Vec<f32> = (0..81).map(|at| f32::from(u8::from(at / 9 == at % 9))).collect();
        assert_eq!(same, unit);
        for grid in [[1, 7], [2, 10], [5, 2]] {
            let shares = resized(4, grid);
            assert_eq!(shares.len(), grid[0] * grid[1] * 16);
            assert!(shares.chunks(16).all(|patch| (patch.iter().sum::<f32>() - 1.0).abs() < 1e-6), "{grid:?}");
        }
        // `torch.nn.functional.interpolate` of [0, 1, 2, 3] to two: with antialiasing no row is left out.
        let rows = axis_shares(4, 2);
        for (share, want) in rows[0].iter().zip([3.0 / 7.0, 3.0 / 7.0, 1.0 / 7.0, 0.0]) {
            assert!((share - want).abs() < 1e-12, "{rows:?}");
        }
    }

    #[test]
    fn a_clip_has_one_window_a_temporal_group() {
        let grids = [Grid { t: 2, h: 2, w: 4 }, Grid { t: 1, h: 4, w: 4 }];
        assert_eq!(windows(&grids), [8, 8, 16]);
        assert_eq!(coordinates(&grids, 2).len(), 32);
    }
}
