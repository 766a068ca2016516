//! Film files into the frames that are shown at given times.

mod animation;
#[cfg(feature = "av1")]
mod av1;
mod ffmpeg;
mod packets;
mod yuv;

pub use animation::is_animation;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use crate::error::MediaError;
use crate::image::RgbImage;
use crate::patches::PatchGrid;
use crate::size::VisionPreprocess;

/// Where a film comes from.
#[derive(Clone, Debug)]
pub enum FilmSource {
    /// A file.
    File(PathBuf),
    /// The bytes of a file, and what messages call them.
    Bytes(Arc<[u8]>, String),
}

/// How films are read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilmOptions {
    /// The program that decodes codecs which nothing here decodes; `None`: they are refused by name.
    pub ffmpeg: Option<PathBuf>,
}

/// A film that is open.
pub struct Film {}

impl Film {
    /// Opens.
    pub fn open(source: &FilmSource, options: &FilmOptions) -> Result<Self, MediaError> {
        let _ = (source, options);
        todo!()
    }
    /// Length in seconds.
    pub fn duration_s(&self) -> f64 {
        todo!()
    }
    /// The frame shown at each time.
    pub fn frames_at(
        &mut self,
        times_s: &[f64],
        each: &mut dyn FnMut(usize, &RgbImage) -> Result<(), MediaError>,
    ) -> Result<(), MediaError> {
        let _ = (times_s, each);
        todo!()
    }
}

/// `count` times at `lo + (hi - lo) (i + 0.5) / count`.
pub fn sample_times(range_s: Range<f64>, count: usize) -> Vec<f64> {
    let width = range_s.end - range_s.start;
    (0..count).map(|i| range_s.start + width * (i as f64 + 0.5) / count as f64).collect()
}

/// Patch rows of frames sampled from a part of a film.
pub fn film_patches(
    film: &mut Film,
    range_s: Range<f64>,
    frames: usize,
    preprocess: &VisionPreprocess,
) -> Result<PatchGrid, MediaError> {
    let _ = (film, range_s, frames, preprocess);
    todo!()
}
