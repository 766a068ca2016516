//! Opus packets into mono samples at 48 kHz.

use opus_decoder::OpusMultistreamDecoder;

use crate::error::MediaError;

use super::{Label, mix};

/// The rate that everything is decoded at; what the encoder was fed is only a remark in the header.
pub(super) const RATE_HZ: u32 = 48_000;

/// Samples of a channel in the longest packet, 120 ms.
const MOST_FRAMES: usize = 5760;

/// What an identification header says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OpusHead {
    /// Channels of the sound.
    pub(super) channels: usize,
    /// Frames at 48 kHz to cut off at the start.
    pub(super) pre_skip: u64,
    /// What samples are multiplied with.
    gain: f64,
    streams: usize,
    coupled: usize,
    mapping: Vec<u8>,
}

impl OpusHead {
    /// Reads the header, which begins with "OpusHead".
    ///
    /// # Source
    /// RFC 7845, section 5.1.
    pub(super) fn read(bytes: &[u8], label: &Label) -> Result<Self, MediaError> {
        let short = || label.corrupt("the Opus header is cut short");
        if !bytes.starts_with(b"OpusHead") || bytes.len() < 19 {
            return Err(short());
        }
        if bytes[8] > 15 {
            return Err(label.unsupported(format!("found Opus of version {}", bytes[8])));
        }
        let channels = usize::from(bytes[9]);
        label.check_channels(channels)?;
        let pre_skip = u64::from(u16::from_le_bytes([bytes[10], bytes[11]]));
        let gain = 10f64.powf(f64::from(i16::from_le_bytes([bytes[16], bytes[17]])) / (20.0 * 256.0));
        let (streams, coupled, mapping) = match bytes[18] {
            0 if channels <= 2 => (1, channels - 1, (0..channels as u8).collect()),
            0 => return Err(label.corrupt("the Opus header has more than two channels and no mapping of them")),
            1 | 255 => {
                let mapping = bytes.get(21..21 + channels).ok_or_else(short)?;
                (usize::from(bytes[19]), usize::from(bytes[20]), mapping.to_vec())
            }
            family => return Err(label.unsupported(format!("found Opus with channel mapping {family}"))),
        };
        Ok(Self { channels, pre_skip, gain, streams, coupled, mapping })
    }
}

/// A decoder of one stream of packets.
pub(super) struct OpusPackets {
    decoder: OpusMultistreamDecoder,
    channels: usize,
    gain: f64,
    samples: Vec<f32>,
}

impl OpusPackets {
    pub(super) fn new(head: &OpusHead, label: &Label) -> Result<Self, MediaError> {
        let decoder = OpusMultistreamDecoder::new(RATE_HZ, head.channels, head.streams, head.coupled, &head.mapping)
            .map_err(|error| label.corrupt(error.to_string()))?;
        let samples = vec![0.0; MOST_FRAMES * head.channels];
        Ok(Self { decoder, channels: head.channels, gain: head.gain, samples })
    }

    /// Appends the frames of a packet.
    ///
    /// # Numerics
    /// The decoder rounds to 16 bits.
    pub(super) fn decode(&mut self, packet: &[u8], label: &Label, mono: &mut Vec<f32>) -> Result<(), MediaError> {
        if packet.is_empty() {
            // It would ask the decoder to invent what was lost.
            return Err(label.corrupt("found an Opus packet without bytes"));
        }
        let frames = self
            .decoder
            .decode_float(packet, &mut self.samples, false)
            .map_err(|error| label.corrupt(error.to_string()))?;
        let samples = self.samples[..frames * self.channels].iter();
        mix(samples.map(|sample| f64::from(*sample) * self.gain), self.channels, mono);
        Ok(())
    }
}
