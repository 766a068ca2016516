//! How much memory a medium takes, computed from its header before it is decoded.
//!
//! What lives here: the sum over the steps that decoders, resizing and cutting take, each an upper bound of what is held at
//! the same time. What does not: the limits that media must stay in, and budgets. What single decoders hold is said
//! beside them: `image/`, `video/`, `audio/`. `tests/estimate.rs` holds all of it against what the operating system counts.
//!
//! # What is not counted
//! The program itself, threads, and what the allocator keeps after memory was given back. A lossless WebP with more groups
//! of codes than its own library ever writes takes more than is estimated here, up to 500 times its packed size.

use std::io::{BufReader, Cursor};

use crate::audio::mel::MelPreprocess;
use crate::error::MediaError;
use crate::file::MediaFile;
use crate::image::decode::header;
use crate::image::resize::resize_bytes;
use crate::image::rgb::RgbImage;
use crate::image::size::{Height, VisionPreprocess, Width, image_size, video_size};
use crate::image::square::{SquareFit, SquareTarget, preparing_bytes, square_bytes};

/// File buffers, error texts, tables that do not grow.
pub(crate) const SMALL_BYTES: u64 = 256 << 10;

/// Bytes of memory that preparing a medium takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MemoryEstimate {
    /// At most at any moment while it is read and prepared, result included.
    pub peak: u64,
    /// Of the result alone.
    pub kept: u64,
}

/// What images become.
#[derive(Debug, Clone, Copy)]
pub enum ImageTarget<'a> {
    /// Patch rows, as [`crate::image_patches`] and [`crate::ClipCutter`] make them.
    Patches(&'a VisionPreprocess),
    /// Whole images inside squares of so many pixels a side, as [`crate::letterbox`] makes them.
    Square(u32),
    /// Squares of pixels, as [`crate::square_image`] makes them.
    Fitted(SquareTarget),
}

/// Whole images inside squares of so many pixels a side.
fn letterboxed(side: u32) -> SquareTarget {
    SquareTarget { side, fit: SquareFit::Letterbox }
}

/// Where an image comes from.
#[derive(Debug, Clone, Copy)]
pub enum ImageSource<'a> {
    /// A file.
    File(&'a MediaFile),
    /// The bytes of a file; they are the caller's and not counted, copies of them are.
    Bytes(&'a [u8]),
    /// Decoded pixels, which are the caller's and not counted.
    Pixels(&'a RgbImage),
}

/// What an image takes until it is decoded, and its sides then.
pub(crate) struct DecodingEstimate {
    pub(crate) width: u32,
    pub(crate) height: u32,
    pub(crate) peak: u64,
    /// Bytes of the decoded image that are not the caller's.
    pub(crate) image: u64,
}

/// Reads the header of an image.
pub(crate) fn decoding_estimate(source: ImageSource<'_>) -> Result<DecodingEstimate, MediaError> {
    let found = match source {
        ImageSource::File(file) => {
            let reader = file.open()?;
            let bytes = reader.length();
            header(&mut BufReader::new(reader), bytes, &file.name())?
        }
        ImageSource::Bytes(bytes) => header(&mut Cursor::new(bytes), bytes.len() as u64, "image")?,
        ImageSource::Pixels(image) => {
            let (width, height) = (image.width().0, image.height().0);
            return Ok(DecodingEstimate { width, height, peak: 0, image: 0 });
        }
    };
    let image = 3 * u64::from(found.width) * u64::from(found.height);
    // Grey grows on its way to three samples a pixel; everything else shrinks where it lies.
    let growing = if found.samples < image { found.samples + image } else { 0 };
    let turning = if found.turns() { 2 * image } else { 0 };
    let (width, height) = found.upright_sides();
    let peak = (found.samples + found.beside).max(growing).max(turning);
    Ok(DecodingEstimate { width, height, peak, image })
}

/// What the frames of a video or of a list take while they are cut.
pub(crate) struct ClipEstimate {
    /// The result.
    pub(crate) kept: u64,
    /// Beside it, from frame to frame.
    pub(crate) held: u64,
    cut: Cut,
}

/// What a frame becomes.
enum Cut {
    /// Patches of frames of these sides.
    Patches((Height, Width)),
    Square(SquareTarget),
}

impl ClipEstimate {
    /// For so many frames, of which the first one has these sides.
    pub(crate) fn new(frames: usize, width: u32, height: u32, target: &ImageTarget<'_>) -> Result<Self, MediaError> {
        Ok(match target {
            ImageTarget::Patches(preprocess) => {
                let size = video_size(frames, Height(height), Width(width), preprocess)?;
                let (frame, group) = (rgb(size), u64::from(preprocess.temporal_patch));
                let kept = (frames as u64).div_ceil(group) * group * frame;
                // A group of resized frames, and the one before it.
                Self { kept, held: (group.min(frames as u64) + 1) * frame, cut: Cut::Patches(size) }
            }
            ImageTarget::Square(side) => Self::of_squares(frames, letterboxed(*side)),
            ImageTarget::Fitted(target) => Self::of_squares(frames, *target),
        })
    }

    fn of_squares(frames: usize, target: SquareTarget) -> Self {
        let kept = frames as u64 * square_bytes(target);
        // The list of squares grows by moving.
        Self { kept, held: kept, cut: Cut::Square(target) }
    }

    /// Beside a decoded frame of these sides, until it is cut.
    pub(crate) fn preparing(&self, width: u32, height: u32) -> u64 {
        let old = (Height(height), Width(width));
        match self.cut {
            Cut::Patches(size) => self.held + resize_bytes(old, size),
            Cut::Square(target) => self.held + preparing_bytes(old, target),
        }
    }
}

/// Bytes of an image of these sides.
fn rgb(size: (Height, Width)) -> u64 {
    3 * u64::from(size.0.0) * u64::from(size.1.0)
}

/// Bytes that decoding and preparing an image takes.
///
/// # Errors
/// As [`crate::decode_image_file`] and [`crate::decode_image`] where they fail by the header, and as
/// [`crate::image_size`].
pub fn image_estimate(source: ImageSource<'_>, target: &ImageTarget<'_>) -> Result<MemoryEstimate, MediaError> {
    let decoding = decoding_estimate(source)?;
    let old = (Height(decoding.height), Width(decoding.width));
    let (preparing, kept) = match target {
        ImageTarget::Patches(preprocess) => {
            let size = image_size(old.0, old.1, preprocess).map_err(|error| named(error, source))?;
            let kept = u64::from(preprocess.temporal_patch) * rgb(size);
            (rgb(size) + resize_bytes(old, size).max(kept), kept)
        }
        ImageTarget::Square(side) => squared(old, letterboxed(*side)),
        ImageTarget::Fitted(target) => squared(old, *target),
    };
    Ok(MemoryEstimate { peak: decoding.peak.max(decoding.image + preparing) + SMALL_BYTES, kept })
}

/// Bytes that a square takes while it is made beside the one that is kept of it, and those that are kept.
fn squared(old: (Height, Width), target: SquareTarget) -> (u64, u64) {
    let kept = square_bytes(target);
    (preparing_bytes(old, target) + kept, kept)
}

/// The name of an image beside an error of its pixels, as preparing gives it.
fn named(error: MediaError, source: ImageSource<'_>) -> MediaError {
    match source {
        ImageSource::File(file) => error.of(file.name()),
        _ => error,
    }
}

/// Bytes that a list of frames takes whose frames are decoded one after the other and kept as `target` says.
///
/// # Errors
/// As [`image_estimate`] and [`crate::video_size`]; [`MediaError::Empty`] for no frames.
pub fn frames_estimate(frames: &[ImageSource<'_>], target: &ImageTarget<'_>) -> Result<MemoryEstimate, MediaError> {
    let mut clip = None;
    let mut peak = 0;
    for source in frames {
        let decoding = decoding_estimate(*source)?;
        let (width, height) = (decoding.width, decoding.height);
        let clip = match &clip {
            Some(clip) => clip,
            None => {
                let new =
                    ClipEstimate::new(frames.len(), width, height, target).map_err(|error| named(error, *source))?;
                clip.insert(new)
            }
        };
        let preparing = decoding.image + clip.preparing(width, height);
        peak = peak.max(clip.kept + (clip.held + decoding.peak).max(preparing));
    }
    let kept =
        clip.map(|clip| clip.kept).ok_or_else(|| MediaError::Empty { name: "video".into(), expected: "frame" })?;
    Ok(MemoryEstimate { peak: peak + SMALL_BYTES, kept })
}

/// Bytes that the log-mel frames of so many samples take; the samples are the caller's.
#[must_use]
pub fn mel_estimate(samples: u64, settings: &MelPreprocess) -> MemoryEstimate {
    let [fft, hop, mels] = [settings.fft_samples, settings.hop_samples, settings.mels].map(|n| u64::from(n.max(1)));
    let kept = 4 * samples.div_ceil(hop) * mels;
    // Powers in f64 for every window that touches the audio; bands, window and transform.
    let windows = (samples + fft / 2).div_ceil(hop);
    MemoryEstimate { peak: 8 * windows * mels + kept + 64 * fft + 16 * fft + 64 * mels, kept }
}
