//! Sound files into mono samples at the model's rate, a segment at a time, and those into log-mel frames.

use std::path::PathBuf;
use std::sync::Arc;

use crate::error::MediaError;

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

/// Numbers of the mel transform.
#[derive(Clone, Debug, PartialEq)]
pub struct MelPreprocess {
    /// Rate the model listens at, in hertz.
    pub sample_rate_hz: u32,
    /// Samples of one transform window.
    pub fft_samples: u32,
    /// Samples between windows.
    pub hop_samples: u32,
    /// Mel bands.
    pub mels: u32,
}

/// Log-mel frames.
#[derive(Clone, Debug, PartialEq)]
pub struct LogMel {
    values: Vec<f32>,
    mels: usize,
}

impl LogMel {
    /// `[frames, mels]`, rows packed.
    pub fn values(&self) -> &[f32] {
        &self.values
    }
    /// Number of frames.
    pub fn frames(&self) -> usize {
        self.values.len() / self.mels
    }
    /// Mel bands.
    pub fn mels(&self) -> usize {
        self.mels
    }
}

/// Log-mel frames of a clip.
pub fn log_mel(samples: &[f32], preprocess: &MelPreprocess) -> Result<LogMel, MediaError> {
    let _ = (samples, preprocess);
    todo!()
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
