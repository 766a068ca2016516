//! Opus packets into mono samples at 48 kHz.

use rusty_opus::OpusDecoder;
use rusty_opus::multistream::{ChannelLayout, OpusMSDecoder};

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
    /// More than one stream, in the order of Vorbis.
    surround: bool,
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
        let surround = match bytes[18] {
            0 if channels <= 2 => false,
            0 => return Err(label.corrupt("the Opus header has more than two channels and no mapping of them")),
            1 => {
                let mapping = bytes.get(21..21 + channels).ok_or_else(short)?;
                let usual = ChannelLayout::surround(channels, 1).map_err(|error| label.corrupt(error.to_string()))?;
                let found = (usize::from(bytes[19]), usize::from(bytes[20]), mapping);
                if found != (usual.nb_streams, usual.nb_coupled_streams, &usual.mapping) {
                    return Err(label.unsupported("found Opus with an unusual order of channels"));
                }
                true
            }
            family => return Err(label.unsupported(format!("found Opus with channel mapping {family}"))),
        };
        Ok(Self { channels, pre_skip, gain, surround })
    }
}

/// A decoder of one stream of packets.
pub(super) struct OpusPackets {
    decoder: Streams,
    channels: usize,
    gain: f64,
    samples: Vec<f32>,
}

enum Streams {
    One(Box<OpusDecoder>),
    Surround(OpusMSDecoder),
}

impl OpusPackets {
    pub(super) fn new(head: &OpusHead, label: &Label) -> Result<Self, MediaError> {
        let rate = RATE_HZ as i32;
        let decoder = if head.surround {
            OpusMSDecoder::new(rate, head.channels, 1).map(Streams::Surround)
        } else {
            OpusDecoder::new(rate, head.channels).map(|decoder| Streams::One(Box::new(decoder)))
        };
        let decoder = decoder.map_err(|error| label.corrupt(error.to_string()))?;
        Ok(Self { decoder, channels: head.channels, gain: head.gain, samples: Vec::new() })
    }

    /// Appends the frames of a packet.
    ///
    /// # Numerics
    /// f32 throughout, as libopus built for floats.
    pub(super) fn decode(&mut self, packet: &[u8], label: &Label, mono: &mut Vec<f32>) -> Result<(), MediaError> {
        let frames = packet_frames(packet).ok_or_else(|| label.corrupt("an Opus packet has no length"))?;
        self.samples.clear();
        self.samples.resize(frames * self.channels, 0.0);
        let decoded = match &mut self.decoder {
            Streams::One(decoder) => decoder.decode(packet, frames, &mut self.samples),
            Streams::Surround(decoder) => decoder.decode(packet, frames, &mut self.samples),
        };
        let decoded = decoded.map_err(|error| label.corrupt(error.to_string()))?;
        let samples = self.samples[..decoded.min(frames) * self.channels].iter();
        mix(samples.map(|sample| f64::from(*sample) * self.gain), self.channels, mono);
        Ok(())
    }
}

/// Frames of a packet at 48 kHz, from its first two bytes; at most 120 ms.
///
/// # Source
/// RFC 6716, section 3.1.
fn packet_frames(packet: &[u8]) -> Option<usize> {
    let first = *packet.first()?;
    let length = match first >> 3 {
        code @ 0..=11 => [480, 960, 1920, 2880][usize::from(code & 3)],
        code @ 12..=15 => [480, 960][usize::from(code & 1)],
        code => [120, 240, 480, 960][usize::from(code & 3)],
    };
    let count = match first & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => usize::from(packet.get(1)? & 63),
    };
    Some(length * count).filter(|frames| (1..=MOST_FRAMES).contains(frames))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_bytes_of_a_packet_tell_its_length() {
        assert_eq!(packet_frames(&[0x78]), Some(960));
        assert_eq!(packet_frames(&[0x08]), Some(960));
        assert_eq!(packet_frames(&[0xe3, 3]), Some(360));
        assert_eq!(packet_frames(&[0xfb, 0x86]), Some(5760));
        assert_eq!(packet_frames(&[0xfb, 7]), None);
        assert_eq!(packet_frames(&[0xfb, 0]), None);
        assert_eq!(packet_frames(&[0xfb]), None);
        assert_eq!(packet_frames(&[]), None);
    }
}
