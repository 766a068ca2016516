//! Images and frames into the rows of a vision tower. Images and videos share everything but the size rule.

use std::sync::Arc;

use crate::error::MediaError;

use super::resize::resize_bicubic;
use super::rgb::RgbImage;
use super::size::{Height, VisionPreprocess, Width, image_size, video_size};

/// How many patches lie along time, height and width.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Grid {
    /// Groups of frames; 1 for an image.
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
/// Inside a row: (channel, frame of the group, pixel row, pixel column). They are kept as the eight-bit levels of the
/// resized pixels, a quarter of the memory, and become numbers when a part of them is asked for: a video of the largest
/// size is 38 MB this way and 154 MB as f32.
#[derive(Clone, Debug, PartialEq)]
pub struct PatchGrid {
    levels: Vec<u8>,
    row_len: usize,
    grid: Grid,
    values: [[f32; 256]; 3],
}

impl PatchGrid {
    /// The numbers the tower reads: `[patches, 3 * temporal_patch * patch * patch]`, rows packed.
    #[must_use]
    pub fn rows(&self) -> Vec<f32> {
        self.rows_of(0..self.grid.patches())
    }

    /// [`PatchGrid::rows`] of some patches only.
    ///
    /// # Panics
    /// If the range goes past the last patch.
    #[must_use]
    pub fn rows_of(&self, patches: std::ops::Range<usize>) -> Vec<f32> {
        let plane = self.row_len / 3;
        let levels = &self.levels[patches.start * self.row_len..patches.end * self.row_len];
        let mut values = Vec::with_capacity(levels.len());
        for (channel, plane) in levels.chunks_exact(plane).enumerate() {
            let table = &self.values[channel % 3];
            values.extend(plane.iter().map(|level| table[usize::from(*level)]));
        }
        values
    }

    /// Bytes held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.levels.len()
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

/// One image into patch rows: size, resize, normalise, cut. The image stands in every time slot of its group.
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

/// The frames of a video, in order, into patch rows; each group of `temporal_patch` frames gives one step of `grid_t`.
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
/// transformers 5.23, `video_processing_qwen3_vl.py`; the resize is Pillow's, as for images.
pub fn video_patches(frames: &[RgbImage], preprocess: &VisionPreprocess) -> Result<PatchGrid, MediaError> {
    let mut clip = ClipCutter::new(frames.len(), preprocess)?;
    frames.iter().try_for_each(|frame| clip.push(frame))?;
    Ok(clip.finish())
}

/// Patch rows of a video whose frames come one at a time; what [`video_patches`] does with a list.
///
/// Of the frames, only the resized ones of the group that is not full yet are held.
#[derive(Debug)]
pub struct ClipCutter<'a> {
    preprocess: &'a VisionPreprocess,
    frames: usize,
    pushed: usize,
    /// Resized frames of the group that is being filled; the last one stays for [`ClipCutter::push_again`].
    group: Vec<Arc<RgbImage>>,
    last: Option<Arc<RgbImage>>,
    size: Option<(Height, Width)>,
    cutter: Option<Cutter<'a>>,
}

impl<'a> ClipCutter<'a> {
    /// For a video of so many frames.
    ///
    /// # Errors
    /// [`MediaError::Empty`] for none.
    pub fn new(frames: usize, preprocess: &'a VisionPreprocess) -> Result<Self, MediaError> {
        if frames == 0 {
            return Err(MediaError::Empty { name: "video".to_owned(), expected: "frame" });
        }
        Ok(Self { preprocess, frames, pushed: 0, group: Vec::new(), last: None, size: None, cutter: None })
    }

    /// The next frame; the first one sets the size of all.
    ///
    /// # Errors
    /// As [`video_size`].
    /// # Panics
    /// At one frame more than was said.
    pub fn push(&mut self, frame: &RgbImage) -> Result<(), MediaError> {
        let (height, width) = match self.size {
            Some(size) => size,
            None => *self.size.insert(video_size(self.frames, frame.height(), frame.width(), self.preprocess)?),
        };
        self.last = Some(Arc::new(resize_bicubic(frame, height, width)));
        self.push_again();
        Ok(())
    }

    /// The last frame once more, without resizing it again.
    ///
    /// # Panics
    /// Before the first frame, and at one frame more than was said.
    pub fn push_again(&mut self) {
        let last = self.last.clone().expect("a frame was pushed before");
        assert!(self.pushed < self.frames, "no more frames than were said");
        self.pushed += 1;
        self.group.push(last);
        let group_len = self.preprocess.temporal_patch as usize;
        if self.group.len() < group_len && self.pushed < self.frames {
            return;
        }
        let group = std::mem::take(&mut self.group);
        let slots: Vec<&RgbImage> = (0..group_len).map(|i| &*group[i.min(group.len() - 1)]).collect();
        let groups = self.frames.div_ceil(group_len);
        self.cutter.get_or_insert_with(|| Cutter::new(slots[0], groups, self.preprocess)).push(&slots);
    }

    /// The rows.
    ///
    /// # Panics
    /// If fewer frames were pushed than were said.
    #[must_use]
    pub fn finish(self) -> PatchGrid {
        assert_eq!(self.pushed, self.frames, "as many frames as were said");
        self.cutter.expect("a video has a frame").finish()
    }
}

/// The eight-bit step of [`image_patches`]: the image at the size that it is cut at.
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
    let first = frames.first().ok_or_else(|| MediaError::Empty { name: "video".to_owned(), expected: "frame" })?;
    let (height, width) = video_size(frames.len(), first.height(), first.width(), preprocess)?;
    Ok(frames.iter().map(|frame| resize_bicubic(frame, height, width)).collect())
}

/// Writes patch rows, one group of frames after the other.
#[derive(Debug)]
struct Cutter<'a> {
    preprocess: &'a VisionPreprocess,
    out: PatchGrid,
}

impl<'a> Cutter<'a> {
    fn new(first: &RgbImage, groups: usize, preprocess: &'a VisionPreprocess) -> Self {
        let patch = preprocess.patch as usize;
        let grid = Grid { t: groups, h: first.height().0 as usize / patch, w: first.width().0 as usize / patch };
        let row_len = 3 * preprocess.temporal_patch as usize * patch * patch;
        let rescale = preprocess.rescale as f32;
        let values = std::array::from_fn(|channel| {
            std::array::from_fn(|level| (level as f32 * rescale - preprocess.mean[channel]) / preprocess.std[channel])
        });
        let levels = Vec::with_capacity(grid.patches() * row_len);
        Self { preprocess, out: PatchGrid { levels, row_len, grid, values } }
    }

    /// One group: `temporal_patch` images of the size that the grid was made for.
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
                    for channel in 0..3 {
                        for slot in slots {
                            for y in top..top + patch {
                                let at = y * row_bytes + left * 3;
                                let line = &slot.pixels()[at..at + patch * 3];
                                self.out.levels.extend(line[channel..].iter().step_by(3));
                            }
                        }
                    }
                }
            }
        }
    }

    fn finish(self) -> PatchGrid {
        let expected = self.out.grid.patches() * self.out.row_len;
        assert_eq!(self.out.levels.len(), expected, "every patch of the grid has its row");
        self.out
    }
}
