//! Pictures and frames into the rows of a vision tower. Pictures and films share everything but the size rule.

use crate::error::MediaError;
use crate::image::RgbImage;
use crate::resize::resize_bicubic;
use crate::size::{VisionPreprocess, image_size, video_size};

/// How many patches lie along time, height and width.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Groups of frames; 1 for a picture.
    pub t: usize,
    /// Patches along the height.
    pub h: usize,
    /// Patches along the width.
    pub w: usize,
}

impl Grid {
    /// Patches in all.
    #[must_use]
    pub fn patches(&self) -> usize {
        self.t * self.h * self.w
    }
}

/// Patch rows with their grid.
///
/// The rows of a `merge x merge` square stand together: order (t, h / merge, w / merge, row in square, column in square).
/// Inside a row: (channel, frame of the group, pixel row, pixel column).
#[derive(Clone, Debug, PartialEq)]
pub struct PatchGrid {
    rows: Vec<f32>,
    row_len: usize,
    grid: Grid,
}

impl PatchGrid {
    /// The values: `[patches, 3 * temporal_patch * patch * patch]`, rows packed.
    #[must_use]
    pub fn rows(&self) -> &[f32] {
        &self.rows
    }

    /// The values without a copy: `[patches, 3 * temporal_patch * patch * patch]`, rows packed.
    #[must_use]
    pub fn into_rows(self) -> Vec<f32> {
        self.rows
    }

    /// Values in one row: 3 * temporal_patch * patch * patch.
    #[must_use]
    pub fn row_len(&self) -> usize {
        self.row_len
    }

    /// Patches along time, height and width; their product is the number of rows.
    #[must_use]
    pub fn grid(&self) -> Grid {
        self.grid
    }
}

/// One picture into patch rows: size, resize, normalise, cut. The picture stands in every time slot of its group.
///
/// # Shapes
/// - returns: `[grid_h * grid_w, 3 * temporal_patch * patch * patch]` with `grid_t` 1
/// # Numerics
/// f32: `(level * rescale - mean) / std`, each step rounded, as numpy and torch do.
/// # Errors
/// As [`image_size`].
/// # Source
/// transformers 5.23, `image_processing_pil_qwen2_vl.py`.
pub fn image_patches(image: &RgbImage, preprocess: &VisionPreprocess) -> Result<PatchGrid, MediaError> {
    let resized = resized_image(image, preprocess)?;
    let mut cutter = Cutter::new(&resized, 1, preprocess);
    let group = vec![&resized; preprocess.temporal_patch as usize];
    cutter.push(&group);
    Ok(cutter.finish())
}

/// The frames of a film, in order, into patch rows; each group of `temporal_patch` frames gives one step of `grid_t`.
///
/// The first frame sets the size that all are resized to. A last group that is not full repeats the last frame.
///
/// # Shapes
/// - returns: `[grid_t * grid_h * grid_w, 3 * temporal_patch * patch * patch]`
/// # Numerics
/// As [`image_patches`].
/// # Errors
/// As [`video_size`].
/// # Source
/// transformers 5.23, `video_processing_qwen3_vl.py`; the resize is Pillow's, as for pictures.
pub fn video_patches(frames: &[RgbImage], preprocess: &VisionPreprocess) -> Result<PatchGrid, MediaError> {
    let (height, width) = frames_size(frames, preprocess)?;
    let mut cutter: Option<Cutter<'_>> = None;
    let group_len = preprocess.temporal_patch as usize;
    let groups = frames.len().div_ceil(group_len);
    // One group is resized at a time, so that a long film is never held twice.
    for group in frames.chunks(group_len) {
        let resized: Vec<RgbImage> = group.iter().map(|frame| resize_bicubic(frame, height, width)).collect();
        let last = resized.len() - 1;
        let slots: Vec<&RgbImage> = (0..group_len).map(|i| &resized[i.min(last)]).collect();
        cutter.get_or_insert_with(|| Cutter::new(slots[0], groups, preprocess)).push(&slots);
    }
    Ok(cutter.expect("frames_size refuses a film without frames").finish())
}

/// The eight-bit step of [`image_patches`]: the picture at the size that it is cut at.
///
/// # Errors
/// As [`image_size`].
pub fn resized_image(image: &RgbImage, preprocess: &VisionPreprocess) -> Result<RgbImage, MediaError> {
    let (height, width) = image_size(image.height(), image.width(), preprocess)?;
    Ok(resize_bicubic(image, height, width))
}

/// The eight-bit step of [`video_patches`]: every frame at the shared size, none repeated.
///
/// # Errors
/// As [`video_size`].
pub fn resized_frames(frames: &[RgbImage], preprocess: &VisionPreprocess) -> Result<Vec<RgbImage>, MediaError> {
    let (height, width) = frames_size(frames, preprocess)?;
    Ok(frames.iter().map(|frame| resize_bicubic(frame, height, width)).collect())
}

/// The shared size of a film.
fn frames_size(
    frames: &[RgbImage],
    preprocess: &VisionPreprocess,
) -> Result<(crate::size::Height, crate::size::Width), MediaError> {
    let first = frames.first().ok_or_else(|| MediaError::Empty { name: "film".to_owned(), expected: "frame" })?;
    video_size(frames.len(), first.height(), first.width(), preprocess)
}

/// Writes patch rows, one group of frames after the other.
struct Cutter<'a> {
    preprocess: &'a VisionPreprocess,
    /// What each level becomes, by channel.
    levels: [[f32; 256]; 3],
    out: PatchGrid,
}

impl<'a> Cutter<'a> {
    fn new(first: &RgbImage, groups: usize, preprocess: &'a VisionPreprocess) -> Self {
        let patch = preprocess.patch as usize;
        let grid = Grid { t: groups, h: first.height().0 as usize / patch, w: first.width().0 as usize / patch };
        let row_len = 3 * preprocess.temporal_patch as usize * patch * patch;
        let rescale = preprocess.rescale as f32;
        let levels = std::array::from_fn(|channel| {
            std::array::from_fn(|level| (level as f32 * rescale - preprocess.mean[channel]) / preprocess.std[channel])
        });
        Self {
            preprocess,
            levels,
            out: PatchGrid { rows: Vec::with_capacity(grid.patches() * row_len), row_len, grid },
        }
    }

    /// One group: `temporal_patch` pictures of the size that the grid was made for.
    fn push(&mut self, slots: &[&RgbImage]) {
        let patch = self.preprocess.patch as usize;
        let merge = self.preprocess.merge as usize;
        let grid = self.out.grid;
        let row_bytes = grid.w * patch * 3;
        for square_row in 0..grid.h / merge {
            for square_col in 0..grid.w / merge {
                for inner in 0..merge * merge {
                    let top = (square_row * merge + inner / merge) * patch;
                    let left = (square_col * merge + inner % merge) * patch;
                    for (channel, levels) in self.levels.iter().enumerate() {
                        for slot in slots {
                            for y in top..top + patch {
                                let at = y * row_bytes + left * 3;
                                let line = &slot.pixels()[at..at + patch * 3];
                                let values = line[channel..].iter().step_by(3);
                                self.out.rows.extend(values.map(|level| levels[usize::from(*level)]));
                            }
                        }
                    }
                }
            }
        }
    }

    fn finish(self) -> PatchGrid {
        assert_eq!(
            self.out.rows.len(),
            self.out.grid.patches() * self.out.row_len,
            "every patch of the grid has its row"
        );
        self.out
    }
}
