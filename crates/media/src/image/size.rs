//! The size an image or a video is resized to before it is cut into patches.
//!
//! Height and width are types of their own, because swapped sides are the commonest mistake in ports of this family.

use serde::{Deserialize, Serialize};

use crate::error::MediaError;

/// The longer side may be at most this many times the shorter one.
const MAX_ASPECT_RATIO: u32 = 200;

/// A height in pixels.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Height(pub u32);

/// A width in pixels.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Width(pub u32);

/// How images are prepared for one vision tower: the numbers of a checkpoint's preprocessor file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct VisionPreprocess {
    /// Side of a patch in pixels.
    pub patch: u32,
    /// Patches along one side of the square that is merged into one token.
    pub merge: u32,
    /// Frames in one patch.
    pub temporal_patch: u32,
    /// Smallest area in pixels; for a video, frames are counted too.
    pub min_pixels: u64,
    /// Largest area in pixels; for a video, frames are counted too.
    pub max_pixels: u64,
    /// Subtracted from each channel after rescaling.
    pub mean: [f32; 3],
    /// Each channel is divided by this after the mean is subtracted.
    pub std: [f32; 3],
    /// Each byte is multiplied by this first; 1/255 in every published checkpoint.
    pub rescale: f64,
    /// Whether the limits are of one frame of a video, and not of all frames together.
    #[serde(default)]
    pub per_frame: bool,
}

impl VisionPreprocess {
    /// Side in pixels of the square that becomes one token: every resized side is a multiple of it.
    pub(crate) fn factor(&self) -> u64 {
        u64::from(self.patch) * u64::from(self.merge)
    }

    /// Refuses values that would divide by zero or give an image without pixels.
    ///
    /// # Errors
    /// [`MediaError::Preprocess`] names the first field that is wrong.
    pub fn check(&self) -> Result<(), MediaError> {
        let wrong = |field, found: String, expected| Err(MediaError::Preprocess { field, found, expected });
        for (field, value) in [("patch", self.patch), ("merge", self.merge), ("temporal_patch", self.temporal_patch)] {
            if value == 0 || value > 4096 {
                return wrong(field, value.to_string(), "1 to 4096");
            }
        }
        if self.min_pixels == 0 {
            return wrong("min_pixels", self.min_pixels.to_string(), "1 or more");
        }
        // 2^40 pixels are far above any model and keep the arithmetic below exact in f64.
        if self.max_pixels < self.min_pixels || self.max_pixels > 1 << 40 {
            return wrong("max_pixels", self.max_pixels.to_string(), "min_pixels or more, at most 2^40");
        }
        if self.mean.iter().any(|x| !x.is_finite()) {
            return wrong("mean", format!("{:?}", self.mean), "finite numbers");
        }
        if self.std.iter().any(|x| !x.is_finite() || *x == 0.0) {
            return wrong("std", format!("{:?}", self.std), "finite numbers, not zero");
        }
        if !self.rescale.is_finite() {
            return wrong("rescale", self.rescale.to_string(), "a finite number");
        }
        Ok(())
    }
}

/// The size a still image is resized to: multiples of `patch * merge`, halves rounded to even, area within the limits.
///
/// An image far from square can still leave the limits, because each side is rounded up by itself: 1 x 150 within 4,096
/// to 16,384 gives 32 x 800. The reference does the same.
///
/// # Numerics
/// f64 throughout, in the order of the reference, so that sides next to a multiple fall on the same side.
/// # Errors
/// [`MediaError::Empty`] for a side of zero, [`MediaError::AspectRatio`] above 200 to 1, [`MediaError::Preprocess`] for
/// settings that cannot work.
/// # Source
/// transformers 5.23, `image_processing_qwen2_vl.py`, `smart_resize`.
pub fn image_size(height: Height, width: Width, preprocess: &VisionPreprocess) -> Result<(Height, Width), MediaError> {
    preprocess.check()?;
    check_sides(height, width)?;
    smart_resize(1.0, 1.0, height, width, preprocess)
}

/// The size that all frames of a video are resized to, from their number and the sides of the first one.
///
/// A single frame counts as one repeated group. The number of frames rounded to whole groups (half to even) decides
/// whether the video is too large or too small; the scale is taken from the number as it is. With
/// [`VisionPreprocess::per_frame`] each frame has the size of a still image.
///
/// # Errors
/// As [`image_size`]; besides [`MediaError::Empty`] without frames and [`MediaError::FramesTooSmall`] for a side shorter
/// than `patch * merge`.
/// # Source
/// transformers 5.23, `video_processing_qwen3_vl.py`, `smart_resize`; per frame, `video_processing_qwen2_vl.py`.
pub fn video_size(
    frames: usize,
    height: Height,
    width: Width,
    preprocess: &VisionPreprocess,
) -> Result<(Height, Width), MediaError> {
    preprocess.check()?;
    if frames == 0 {
        return Err(MediaError::Empty { name: "video".to_owned(), expected: "frame" });
    }
    check_sides(height, width)?;
    if preprocess.per_frame {
        return smart_resize(1.0, 1.0, height, width, preprocess);
    }
    if u64::from(height.0.min(width.0)) < preprocess.factor() {
        return Err(MediaError::FramesTooSmall {
            width: width.0,
            height: height.0,
            minimum: preprocess.factor() as u32,
        });
    }
    let group = f64::from(preprocess.temporal_patch);
    let frames = (frames as f64).max(group);
    let whole_groups = (frames / group).round_ties_even() * group;
    smart_resize(whole_groups, frames, height, width, preprocess)
}

/// Sides of zero and needles.
fn check_sides(height: Height, width: Width) -> Result<(), MediaError> {
    let (h, w) = (height.0, width.0);
    if h == 0 || w == 0 {
        return Err(MediaError::Empty { name: format!("image of {w} x {h} pixels"), expected: "pixel" });
    }
    // The same as dividing the sides and comparing with 200, without the rounding.
    if u64::from(h.max(w)) > u64::from(h.min(w)) * u64::from(MAX_ASPECT_RATIO) {
        return Err(MediaError::AspectRatio { width: w, height: h, limit: MAX_ASPECT_RATIO });
    }
    Ok(())
}

/// The rule that images and videos share: `counted` frames decide, `scaled` frames give the scale.
fn smart_resize(
    counted: f64,
    scaled: f64,
    height: Height,
    width: Width,
    preprocess: &VisionPreprocess,
) -> Result<(Height, Width), MediaError> {
    let (h, w) = (f64::from(height.0), f64::from(width.0));
    let factor = preprocess.factor() as f64;
    let (low, high) = (preprocess.min_pixels as f64, preprocess.max_pixels as f64);
    let mut out_h = (h / factor).round_ties_even() * factor;
    let mut out_w = (w / factor).round_ties_even() * factor;
    if counted * out_h * out_w > high {
        let beta = (scaled * h * w / high).sqrt();
        out_h = factor.max((h / beta / factor).floor() * factor);
        out_w = factor.max((w / beta / factor).floor() * factor);
    } else if counted * out_h * out_w < low {
        let beta = (low / (scaled * h * w)).sqrt();
        out_h = (h * beta / factor).ceil() * factor;
        out_w = (w * beta / factor).ceil() * factor;
    }
    // 2^31 pixels a side are out of reach of every limit that `check` lets through, so this is a check of this function.
    assert!(
        out_h >= factor && out_w >= factor && out_h < 2147483648.0 && out_w < 2147483648.0,
        "a resized side is at least one merged patch and fits 31 bits"
    );
    Ok((Height(out_h as u32), Width(out_w as u32)))
}
