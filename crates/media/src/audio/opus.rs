//! Opus packets into mono samples at 48 kHz.

use rusty_opus::OpusDecoder;

use crate::error::MediaError;
use crate::label::Label;

use super::decoder::mix;

/// The rate that everything is decoded at; what the encoder was fed is only a remark in the header.
pub(super) const RATE_HZ: u32 = 48_000;

/// Samples of a channel in the longest packet, 120 ms.
const MOST_FRAMES: usize = 5760;

/// Memory of the decoder of one stream, rounded up from what 8 streams took.
const DECODER_BYTES: usize = 256 << 10;

/// A channel of the mapping table that no stream feeds: silence.
const SILENT: u8 = 255;

/// What an identification header says.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct OpusHead {
    /// Channels of the audio.
    pub(super) channels: usize,
    /// Frames at 48 kHz to cut off at the start.
    pub(super) pre_skip: u64,
    /// What samples are multiplied with.
    gain: f64,
    /// Streams in a packet; the first of them have two channels.
    streams: usize,
    coupled: usize,
    /// For each channel the decoded one that it is, or [`SILENT`].
    mapping: Vec<u8>,
}

impl OpusHead {
    /// Reads the header, which begins with "OpusHead".
    ///
    /// Mapping families 0 (mono, stereo), 1 (up to eight channels in the order of Vorbis) and 255 (channels without a
    /// meaning) are read; ambisonics are not channels of loudspeakers, so their mean is no mix, and they are refused.
    ///
    /// # Source
    /// RFC 7845, section 5.1, and RFC 8486 for the names of what is refused.
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
            family @ (1 | 255) => {
                if family == 1 && channels > 8 {
                    return Err(
                        label.corrupt(format!("Opus channel mapping 1 has {channels} channels, at most 8 exist"))
                    );
                }
                let [streams, coupled] = [19, 20].map(|at| bytes.get(at).map(|byte| usize::from(*byte)));
                let (streams, coupled) = (streams.ok_or_else(short)?, coupled.ok_or_else(short)?);
                let mapping = bytes.get(21..21 + channels).ok_or_else(short)?.to_vec();
                if streams == 0 || coupled > streams || streams + coupled > 255 {
                    return Err(
                        label.corrupt(format!("the Opus header has {streams} streams, {coupled} of them stereo"))
                    );
                }
                // More decoders than channels would decode what nobody hears.
                if streams > channels {
                    let found = format!("found Opus with {streams} streams for {channels} channels");
                    return Err(label.unsupported(found));
                }
                if let Some(wrong) =
                    mapping.iter().find(|from| **from != SILENT && usize::from(**from) >= streams + coupled)
                {
                    return Err(label.corrupt(format!("an Opus channel is number {wrong} of {}", streams + coupled)));
                }
                (streams, coupled, mapping)
            }
            2 | 3 => {
                let family = bytes[18];
                return Err(label.unsupported(format!("found Opus with ambisonics (channel mapping {family})")));
            }
            family => return Err(label.unsupported(format!("found Opus with channel mapping {family}"))),
        };
        Ok(Self { channels, pre_skip, gain, streams, coupled, mapping })
    }
}

/// A decoder of packets, with one decoder for each stream in them.
///
/// rusty-opus 1.0.2 has a decoder of several streams too, but gives packets with their inner lengths to a decoder that
/// expects none, which is noise; so packets are taken apart here.
pub(super) struct OpusPackets {
    /// With their channels.
    decoders: Vec<(OpusDecoder, usize)>,
    mapping: Vec<u8>,
    gain: f64,
    /// Samples of a stream, interleaved.
    samples: Vec<f32>,
    /// Samples of all channels of all streams, one channel after the other; used where there are several streams.
    planes: Vec<f32>,
}

impl OpusPackets {
    pub(super) fn new(head: &OpusHead, label: &Label) -> Result<Self, MediaError> {
        let decoder = |stream| {
            let channels = if stream < head.coupled { 2 } else { 1 };
            let decoder = OpusDecoder::new(RATE_HZ as i32, channels);
            decoder.map(|decoder| (decoder, channels)).map_err(|error| label.corrupt(error.to_string()))
        };
        let decoders = (0..head.streams).map(decoder).collect::<Result<_, _>>()?;
        Ok(Self { decoders, mapping: head.mapping.clone(), gain: head.gain, samples: Vec::new(), planes: Vec::new() })
    }

    /// Bytes of the decoders and of what they give.
    pub(super) fn bytes(&self) -> u64 {
        let decoders = (self.decoders.len() * DECODER_BYTES) as u64;
        decoders + 4 * (MOST_FRAMES * (2 + self.decoders.iter().map(|(_, channels)| channels).sum::<usize>())) as u64
    }

    /// Appends the frames of a packet.
    ///
    /// # Numerics
    /// f32 throughout, as libopus built for floats.
    pub(super) fn decode(&mut self, packet: &[u8], label: &Label, mono: &mut Vec<f32>) -> Result<(), MediaError> {
        let no_length = || label.corrupt("an Opus packet has no length");
        let frames = packet_frames(packet).ok_or_else(no_length)?;
        let (gain, channels) = (self.gain, self.mapping.len());
        let decode = |(decoder, channels): &mut (OpusDecoder, usize), packet: &[u8], samples: &mut Vec<f32>| {
            samples.clear();
            samples.resize(frames * *channels, 0.0);
            decoder.decode(packet, frames, samples).map_err(|error| label.corrupt(error.to_string()))
        };
        if let [one] = self.decoders.as_mut_slice()
            && self.mapping.iter().enumerate().all(|(at, from)| at == usize::from(*from))
        {
            let decoded = decode(one, packet, &mut self.samples)?;
            let samples = self.samples[..decoded.min(frames) * channels].iter();
            mix(samples.map(|sample| f64::from(*sample) * gain), channels, mono);
            return Ok(());
        }
        self.planes.clear();
        let last = self.decoders.len() - 1;
        let mut rest = packet;
        for (stream, decoder) in self.decoders.iter_mut().enumerate() {
            // All but the last packet carry their own length.
            let own;
            let packet = if stream == last {
                rest
            } else {
                let cut = || label.corrupt("a packet of several Opus streams is cut short");
                let (plain, length) = undelimited(rest).ok_or_else(cut)?;
                rest = &rest[length..];
                own = plain;
                &own
            };
            if packet_frames(packet).ok_or_else(no_length)? != frames {
                return Err(label.corrupt("the streams of an Opus packet differ in length"));
            }
            let decoded = decode(decoder, packet, &mut self.samples)?;
            if decoded != frames {
                return Err(label.cut_short(decoded as u64, frames as u64, "frames of an Opus packet"));
            }
            for channel in 0..decoder.1 {
                self.planes.extend(self.samples.iter().skip(channel).step_by(decoder.1));
            }
        }
        let planes = &self.planes;
        let sample = |at: usize, from: u8| match from {
            SILENT => 0.0,
            from => f64::from(planes[usize::from(from) * frames + at]) * gain,
        };
        let mapping = &self.mapping;
        mix((0..frames).flat_map(|at| mapping.iter().map(move |from| sample(at, *from))), channels, mono);
        Ok(())
    }
}

/// A packet that carries its own length, as the plain packet that it stands for, and the bytes that it took.
///
/// # Source
/// RFC 6716, appendix B.
fn undelimited(bytes: &[u8]) -> Option<(Vec<u8>, usize)> {
    /// A length of one or two bytes, and what follows (RFC 6716, section 3.2.1).
    fn length(bytes: &[u8]) -> Option<(usize, &[u8])> {
        let (first, rest) = bytes.split_first()?;
        let first = usize::from(*first);
        if first < 252 {
            return Some((first, rest));
        }
        let (second, rest) = rest.split_first()?;
        Some((first + 4 * usize::from(*second), rest))
    }
    let (&first, rest) = bytes.split_first()?;
    // What stands before the length that is left out, that length's own bytes, and the bytes of audio after it.
    let (kept, after, body) = match first & 3 {
        0 => {
            let (size, after) = length(rest)?;
            (rest, after, size)
        }
        1 => {
            let (size, after) = length(rest)?;
            (rest, after, 2 * size)
        }
        2 => {
            let (size, kept) = length(rest)?;
            let (last, after) = length(kept)?;
            (kept, after, size + last)
        }
        _ => {
            let (&count, mut kept) = rest.split_first()?;
            let mut body = 0;
            if count & 0x40 != 0 {
                loop {
                    let (&more, after) = kept.split_first()?;
                    kept = after;
                    // A full byte stands for one less and says that another follows.
                    body += usize::from(more).min(254);
                    if more < 255 {
                        break;
                    }
                }
            }
            let count_frames = usize::from(count & 63);
            if count_frames == 0 {
                return None;
            }
            if count & 0x80 != 0 {
                for _ in 1..count_frames {
                    let (size, after) = length(kept)?;
                    (body, kept) = (body + size, after);
                }
                let (size, after) = length(kept)?;
                (kept, after, body + size)
            } else {
                let (size, after) = length(kept)?;
                (kept, after, body + count_frames * size)
            }
        }
    };
    let (head, audio) = (bytes.len() - kept.len(), bytes.len() - after.len());
    let plain = [&bytes[..head], bytes.get(audio..audio + body)?].concat();
    Some((plain, audio + body))
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

    #[test]
    fn a_packet_that_carries_its_length_becomes_a_plain_one() {
        // Each kind of packet of RFC 6716, figures 23 to 30: with its length, and without.
        let cases: &[(&[u8], &[u8])] = &[
            (&[0x78, 2, 8, 9], &[0x78, 8, 9]),
            (&[0x79, 1, 8, 9], &[0x79, 8, 9]),
            (&[0x7a, 1, 2, 8, 9, 9], &[0x7a, 1, 8, 9, 9]),
            (&[0x7b, 3, 1, 7, 8, 9], &[0x7b, 3, 7, 8, 9]),
            (&[0x7b, 0x42, 1, 1, 7, 8, 0], &[0x7b, 0x42, 1, 7, 8, 0]),
            (&[0x7b, 0x83, 1, 0, 2, 7, 9, 9], &[0x7b, 0x83, 1, 0, 7, 9, 9]),
            (&[0x7b, 0xc1, 2, 1, 7, 0, 0], &[0x7b, 0xc1, 2, 7, 0, 0]),
        ];
        for (given, plain) in cases {
            let longer = [*given, &[1, 2, 3]].concat();
            assert_eq!(undelimited(&longer), Some((plain.to_vec(), given.len())), "{given:02x?}");
            assert_eq!(undelimited(&given[..given.len() - 1]), None, "{given:02x?} without its end");
        }
        let long: Vec<u8> = [&[0x78, 252, 1][..], &[5; 256]].concat();
        assert_eq!(undelimited(&long), Some(([&[0x78][..], &[5; 256]].concat(), long.len())));
        assert_eq!(undelimited(&[0x7b, 0, 1]), None);
    }
}
