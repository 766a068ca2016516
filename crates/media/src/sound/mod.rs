//! Sound files into mono samples at the model's rate, a segment at a time, and those into log-mel frames.

mod mel;

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::MediaError;

pub use self::mel::{LogMel, MelPreprocess, log_mel};

/// Seconds of a segment: longer sound and film are cut into pieces of this length, as the reference does.
pub const SEGMENT_SECONDS: f64 = 240.0;

/// Where sound comes from.
#[derive(Clone, Debug)]
pub enum SoundSource {
    /// A file.
    File(PathBuf),
    /// The bytes of a file, and what messages call them.
    Bytes(Arc<[u8]>, String),
    /// Mono samples with their rate in hertz.
    Samples(Arc<[f32]>, u32),
}

/// Consecutive mono samples at the model's rate.
#[derive(Clone, Debug, PartialEq)]
pub struct SoundSegment {
    /// Where it begins in the sound, in seconds.
    pub start_s: f64,
    /// Where it ends.
    pub end_s: f64,
    /// Samples in -1..1 at the model's rate.
    pub samples: Vec<f32>,
}

/// Sound that is being decoded.
#[derive(Debug)]
pub struct SoundReader {}

impl SoundReader {
    /// Opens.
    pub fn open(source: &SoundSource, rate_hz: u32) -> Result<Self, MediaError> {
        let _ = (source, rate_hz);
        todo!()
    }
    /// The next segment; `None` after the last.
    pub fn next_segment(&mut self) -> Result<Option<SoundSegment>, MediaError> {
        todo!()
    }
    /// Whether another segment follows.
    pub fn has_more(&mut self) -> Result<bool, MediaError> {
        todo!()
    }
}
