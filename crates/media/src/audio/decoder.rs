//! What every decoder of audio is to the reader of segments.

use std::sync::Arc;

use crate::error::MediaError;
use crate::label::Label;

/// More channels than this are refused from the header.
const MAX_CHANNELS: usize = 64;

/// Rates that are taken, in hertz.
const RATES_HZ: std::ops::RangeInclusive<u32> = 1_000..=768_000;

/// A track that gives mono samples at its own rate.
pub(super) trait Decoder: Send {
    /// Samples a second of what the last call of [`Decoder::decode`] gave; before the first call, of what it will give.
    /// All samples of one call have the same rate, and the next call may have another one.
    fn rate_hz(&self) -> u32;

    /// Frames that are still to come, as far as a header or the bytes that are left bound them.
    fn frames_left(&mut self) -> Result<Option<u64>, MediaError>;

    /// What it holds in memory.
    fn held(&self) -> Held;

    /// Appends the next samples; false if no more follow. A call may append none and still have more to come.
    fn decode(&mut self, mono: &mut Vec<f32>) -> Result<bool, MediaError>;
}

/// What a decoder holds in memory.
pub(super) struct Held {
    /// Tables, buffers and the state of the codec.
    pub(super) bytes: u64,
    /// The most frames that one call gives.
    pub(super) call_frames: u64,
}

impl Label {
    /// Refuses rates that are not taken.
    pub(super) fn check_rate(&self, hz: u32, from_file: bool) -> Result<(), MediaError> {
        if RATES_HZ.contains(&hz) {
            return Ok(());
        }
        if hz == 0 && from_file {
            return Err(self.corrupt("the sample rate is zero"));
        }
        let (low, high) = (RATES_HZ.start(), RATES_HZ.end());
        Err(self.unsupported(format!("found a sample rate of {hz} Hz, expected {low} to {high} Hz")))
    }

    /// Refuses tracks without channels, and with too many.
    pub(super) fn check_channels(&self, channels: usize) -> Result<(), MediaError> {
        match channels {
            0 => Err(self.corrupt("there are no channels")),
            1..=MAX_CHANNELS => Ok(()),
            _ => Err(MediaError::TooManyChannels { name: self.name.clone(), channels, limit: MAX_CHANNELS }),
        }
    }
}

/// Appends the means of interleaved frames.
pub(super) fn mix(interleaved: impl Iterator<Item = f64>, channels: usize, mono: &mut Vec<f32>) {
    let mut sum = 0.0;
    let mut in_frame = 0;
    for sample in interleaved {
        sum += sample;
        in_frame += 1;
        if in_frame == channels {
            mono.push((sum / channels as f64) as f32);
            (sum, in_frame) = (0.0, 0);
        }
    }
}

/// Samples that the caller has.
pub(super) struct Samples {
    pub(super) samples: Arc<[f32]>,
    pub(super) at: usize,
    pub(super) rate_hz: u32,
}

impl Decoder for Samples {
    fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    fn frames_left(&mut self) -> Result<Option<u64>, MediaError> {
        Ok(Some((self.samples.len() - self.at) as u64))
    }

    fn held(&self) -> Held {
        Held { bytes: 0, call_frames: 4096 }
    }

    fn decode(&mut self, mono: &mut Vec<f32>) -> Result<bool, MediaError> {
        let end = self.samples.len().min(self.at + 4096);
        mono.extend_from_slice(&self.samples[self.at..end]);
        self.at = end;
        Ok(end < self.samples.len())
    }
}
