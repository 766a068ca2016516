//! WAV, AIFF and CAF: chunks around plain samples, and the few codecs that such files also hold.
//!
//! The headers are read here and not by symphonia, whose readers refuse RF64, RIFX, 64-bit integers and files that were
//! written to a pipe, and do not tell a cut file from a whole one.

use std::io;

use symphonia::core::audio::{Channels, Position};
use symphonia::core::codecs::audio::well_known::{CODEC_ID_ADPCM_IMA_WAV, CODEC_ID_ADPCM_MS, CODEC_ID_ALAC};
use symphonia::core::codecs::audio::{AudioCodecId, AudioCodecParameters};
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use crate::error::MediaError;

use super::demux::PacketDecoder;
use super::input::{Buffered, Input};
use super::{Decoder, Held, Label, mix};

/// Frames that are decoded at a time.
const FRAMES: usize = 1024;

/// A block of a coded format is at most this long; the field that states it has 16 bits in WAV.
const MAX_BLOCK_BYTES: u32 = 1 << 20;

/// How one sample is stored.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Sample {
    /// A signed integer of so many bytes, at full scale.
    Signed(usize),
    /// Eight bits around 128.
    Unsigned,
    Float32,
    Float64,
    ALaw,
    MuLaw,
}

impl Sample {
    fn bytes(self) -> usize {
        match self {
            Self::Signed(bytes) => bytes,
            Self::Unsigned | Self::ALaw | Self::MuLaw => 1,
            Self::Float32 => 4,
            Self::Float64 => 8,
        }
    }

    /// The value of stored bytes, whose number is [`Sample::bytes`]. Integers become -1 to 1.
    fn value(self, stored: &[u8], big_endian: bool) -> f64 {
        let mut bytes = [0; 8];
        let used = &mut bytes[8 - stored.len()..];
        used.copy_from_slice(stored);
        if !big_endian {
            used.reverse();
        }
        // The number stands at the low end, most significant byte first.
        let number = u64::from_be_bytes(bytes);
        match self {
            // Shifted to the top so that the sign is where it belongs.
            Self::Signed(n) => (number << (64 - 8 * n)) as i64 as f64 / -(i64::MIN as f64),
            Self::Unsigned => (number as f64 - 128.0) / 128.0,
            Self::Float32 => f64::from(f32::from_bits(number as u32)),
            Self::Float64 => f64::from_bits(number),
            Self::ALaw => f64::from(a_law(number as u8)) / 32768.0,
            Self::MuLaw => f64::from(mu_law(number as u8)) / 32768.0,
        }
    }
}

/// ITU-T G.711, A-law, as 16 bits.
fn a_law(byte: u8) -> i16 {
    let byte = byte ^ 0x55;
    let (exponent, mantissa) = ((byte >> 4) & 7, i16::from(byte & 15));
    let size = match exponent {
        0 => (mantissa << 4) + 8,
        _ => ((mantissa << 4) + 0x108) << (exponent - 1),
    };
    if byte & 0x80 == 0 { -size } else { size }
}

/// ITU-T G.711, mu-law, as 16 bits.
fn mu_law(byte: u8) -> i16 {
    let byte = !byte;
    let size = (((i16::from(byte & 15) << 3) + 0x84) << ((byte >> 4) & 7)) - 0x84;
    if byte & 0x80 == 0 { size } else { -size }
}

/// What a header says about the sound.
struct Header {
    rate_hz: u32,
    channels: usize,
    coding: Coding,
    /// First byte of the sound.
    start: u64,
    /// Its bytes, or `None` where the header was written before they were known.
    bytes: Option<u64>,
    /// Frames, where a coded format states them.
    frames: Option<u64>,
}

/// How the frames are stored.
enum Coding {
    Plain { sample: Sample, big_endian: bool },
    Blocks { codec: AudioCodecId, block_bytes: u32, block_frames: u64 },
    Packets { codec: AudioCodecId, cookie: Vec<u8>, sizes: Vec<u32>, packet_frames: u64, delay: u64 },
}

/// Opens a WAV, AIFF or CAF file.
pub(super) fn open(input: Input, label: &Label) -> Result<Box<dyn Decoder>, MediaError> {
    let mut file = File { input: input.buffered(), label: label.clone() };
    let header = match label.format {
        "wav" => file.wav()?,
        "aiff" => file.aiff()?,
        _ => file.caf()?,
    };
    label.check_channels(header.channels)?;
    label.check_rate(header.rate_hz, true)?;
    let there = file.input.length().saturating_sub(header.start);
    let bytes = match header.bytes {
        Some(stated) if stated > there => return Err(label.cut_short(there, stated, "bytes of sound")),
        Some(stated) => stated,
        None => there,
    };
    file.go(header.start)?;
    let parameters = |codec, frames| {
        let mut parameters = AudioCodecParameters::new();
        parameters.for_codec(codec).with_sample_rate(header.rate_hz).with_max_frames_per_packet(frames);
        parameters.with_frames_per_block(frames);
        if let Some(positions) = Position::from_count(header.channels as u32) {
            parameters.with_channels(Channels::Positioned(positions));
        }
        parameters
    };
    Ok(match header.coding {
        Coding::Plain { sample, big_endian } => {
            let frame_bytes = sample.bytes() * header.channels;
            let frames = bytes / frame_bytes as u64;
            Box::new(Plain {
                file,
                rate_hz: header.rate_hz,
                channels: header.channels,
                sample,
                big_endian,
                left: frames.min(header.frames.unwrap_or(frames)),
                buffer: Vec::new(),
            })
        }
        Coding::Blocks { codec, block_bytes, block_frames } => {
            let blocks = bytes / u64::from(block_bytes);
            Box::new(Coded {
                decoder: PacketDecoder::new(&parameters(codec, block_frames), label)?,
                file,
                rate_hz: header.rate_hz,
                next: 0,
                packets: blocks,
                sizes: Sizes::All(block_bytes),
                packet_frames: block_frames,
                skip: 0,
                left: header.frames.unwrap_or(u64::MAX),
                buffer: Vec::new(),
            })
        }
        Coding::Packets { codec, cookie, sizes, packet_frames, delay } => {
            let stated = sizes.iter().map(|size| u64::from(*size)).sum();
            if stated > bytes {
                return Err(label.cut_short(bytes, stated, "bytes of packets"));
            }
            let mut parameters = parameters(codec, packet_frames);
            parameters.with_extra_data(cookie.into());
            Box::new(Coded {
                decoder: PacketDecoder::new(&parameters, label)?,
                file,
                rate_hz: header.rate_hz,
                next: 0,
                packets: sizes.len() as u64,
                sizes: Sizes::Each(sizes),
                packet_frames,
                skip: delay,
                left: header.frames.unwrap_or(u64::MAX),
                buffer: Vec::new(),
            })
        }
    })
}

/// Plain samples.
struct Plain {
    file: File,
    rate_hz: u32,
    channels: usize,
    sample: Sample,
    big_endian: bool,
    /// Frames that are still to come.
    left: u64,
    buffer: Vec<u8>,
}

impl Decoder for Plain {
    fn frames_left(&mut self) -> Result<Option<u64>, MediaError> {
        Ok(Some(self.left))
    }

    fn held(&self) -> Held {
        let bytes = (FRAMES * self.channels * self.sample.bytes()) as u64;
        Held { bytes, call_frames: FRAMES as u64 }
    }

    fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    fn decode(&mut self, mono: &mut Vec<f32>) -> Result<bool, MediaError> {
        let frames = self.left.min(FRAMES as u64) as usize;
        let size = self.sample.bytes();
        self.file.fill(&mut self.buffer, frames * self.channels * size)?;
        let values = self.buffer.chunks_exact(size).map(|stored| self.sample.value(stored, self.big_endian));
        mix(values, self.channels, mono);
        self.left -= frames as u64;
        Ok(self.left > 0)
    }
}

/// Bytes of each packet.
enum Sizes {
    All(u32),
    Each(Vec<u32>),
}

/// Packets of a codec, one after the other.
struct Coded {
    file: File,
    decoder: PacketDecoder,
    rate_hz: u32,
    next: u64,
    packets: u64,
    sizes: Sizes,
    packet_frames: u64,
    /// Frames to cut off at the start.
    skip: u64,
    /// Frames to give after that.
    left: u64,
    buffer: Vec<u8>,
}

impl Decoder for Coded {
    fn frames_left(&mut self) -> Result<Option<u64>, MediaError> {
        let packed = (self.packets - self.next).saturating_mul(self.packet_frames);
        Ok(Some(packed.min(self.left)))
    }

    fn held(&self) -> Held {
        let tables = match &self.sizes {
            Sizes::All(_) => 0,
            // While the file was opened, the table itself was there too.
            Sizes::Each(sizes) => 8 * sizes.len() as u64,
        };
        Held { bytes: tables + self.decoder.bytes(self.packet_frames), call_frames: self.packet_frames }
    }

    fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    fn decode(&mut self, mono: &mut Vec<f32>) -> Result<bool, MediaError> {
        if self.next == self.packets || self.left == 0 {
            return Ok(false);
        }
        let size = match &self.sizes {
            Sizes::All(size) => *size,
            Sizes::Each(sizes) => sizes[self.next as usize],
        };
        self.file.fill(&mut self.buffer, size as usize)?;
        let at = Timestamp::from(0);
        let packet = Packet::new(0, at, Duration::from(self.packet_frames), self.buffer.as_slice());
        let before = mono.len();
        self.decoder.decode(&packet, mono)?;
        let skip = (self.skip.min((mono.len() - before) as u64)) as usize;
        mono.drain(before..before + skip);
        self.skip -= skip as u64;
        let kept = ((mono.len() - before) as u64).min(self.left);
        mono.truncate(before + kept as usize);
        self.left -= kept;
        self.next += 1;
        Ok(self.next < self.packets && self.left > 0)
    }
}

/// A file whose errors have a name.
struct File {
    input: Buffered,
    label: Label,
}

impl File {
    fn failed(&self, error: io::Error) -> MediaError {
        self.label.corrupt(error)
    }

    fn at(&mut self) -> Result<u64, MediaError> {
        self.input.at().map_err(|error| self.failed(error))
    }

    fn go(&mut self, to: u64) -> Result<(), MediaError> {
        self.input.go(to).map_err(|error| self.failed(error))
    }

    fn array<const N: usize>(&mut self) -> Result<Option<[u8; N]>, MediaError> {
        self.input.array().map_err(|error| self.failed(error))
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], MediaError> {
        self.array()?.ok_or_else(|| self.label.corrupt("the file ends in a header"))
    }

    /// Exactly `length` bytes.
    fn fill(&mut self, buffer: &mut Vec<u8>, length: usize) -> Result<(), MediaError> {
        self.input.fill(buffer, length).map_err(|error| self.label.corrupt(error))?;
        if buffer.len() < length {
            return Err(self.label.cut_short(buffer.len() as u64, length as u64, "bytes"));
        }
        Ok(())
    }

    /// The body of a small chunk: at most 4,096 bytes of it.
    fn body(&mut self, length: u64) -> Result<Vec<u8>, MediaError> {
        let mut body = Vec::new();
        self.fill(&mut body, length.min(4096) as usize)?;
        Ok(body)
    }

    /// RIFF, RIFX and RF64.
    fn wav(&mut self) -> Result<Header, MediaError> {
        let head: [u8; 12] = self.fixed()?;
        let big_endian = head.starts_with(b"RIFX");
        let wide = matches!(&head[..4], b"RF64" | b"BW64");
        let number = |bytes: &[u8]| {
            let mut out = [0; 8];
            out[..bytes.len()].copy_from_slice(bytes);
            if big_endian {
                out[..bytes.len()].reverse();
            }
            u64::from_le_bytes(out)
        };
        let mut format: Option<Vec<u8>> = None;
        let mut data: Option<(u64, Option<u64>)> = None;
        let mut wide_bytes = None;
        let mut stated_frames = None;
        while format.is_none() || data.is_none() {
            let Some(chunk) = self.array::<8>()? else { break };
            let start = self.at()?;
            let mut bytes = number(&chunk[4..]);
            match &chunk[..4] {
                b"fmt " => format = Some(self.body(bytes)?),
                b"ds64" => {
                    let body = self.body(bytes)?;
                    wide_bytes = body.get(8..16).map(number);
                }
                b"fact" => stated_frames = self.body(bytes)?.get(..4).map(number),
                b"data" => {
                    // A header written to a pipe has all bits set, or was never filled in.
                    let streamed = u64::from(u32::MAX);
                    let stated = match (wide, bytes) {
                        (true, size) if size == streamed => wide_bytes.filter(|bytes| *bytes != u64::MAX),
                        (_, size) if size == streamed || size == 0 => None,
                        (_, size) => Some(size),
                    };
                    data = Some((start, stated));
                    match stated {
                        Some(stated) => bytes = stated,
                        // Nothing can follow.
                        None => break,
                    }
                }
                _ => {}
            }
            // Chunks begin at even bytes.
            self.go(start.saturating_add(bytes).saturating_add(bytes & 1))?;
        }
        let format = format.ok_or_else(|| self.label.corrupt("the format of the samples is missing"))?;
        let field = |range: std::ops::Range<usize>| format.get(range).map(number);
        let (Some(mut tag), Some(channels), Some(rate), Some(block), Some(bits)) =
            (field(0..2), field(2..4), field(4..8), field(12..14), field(14..16))
        else {
            return Err(self.label.corrupt("the format of the samples is cut short"));
        };
        // Checked before the sound is looked for, so that a header that lies is named as such.
        self.label.check_channels(channels as usize)?;
        let (start, bytes) = data.ok_or_else(|| self.label.corrupt("the samples are missing"))?;
        if tag == 0xfffe {
            const REST: &[u8] = &[0, 0, 0, 0, 0x10, 0, 0x80, 0, 0, 0xaa, 0, 0x38, 0x9b, 0x71];
            let id = format.get(24..40).ok_or_else(|| self.label.corrupt("the format of the samples is cut short"))?;
            let rest_is_usual = if big_endian { id[8..] == REST[6..] } else { id[2..] == *REST };
            if !rest_is_usual {
                return Err(self.label.unsupported("found samples in a format without a number"));
            }
            tag = if big_endian { number(&id[..4]) & 0xffff } else { number(&id[..2]) };
        }
        let container = if block == 0 { bits.div_ceil(8) } else { block / channels };
        let whole = block == 0 || block % channels == 0;
        let fits = whole && bits >= 1 && bits <= 8 * container;
        let plain = |sample| Coding::Plain { sample, big_endian };
        let coding = match tag {
            1 if fits && container == 1 => plain(Sample::Unsigned),
            1 if fits && matches!(container, 2 | 3 | 4 | 8) => plain(Sample::Signed(container as usize)),
            3 if whole && bits == 32 && container == 4 => plain(Sample::Float32),
            3 if whole && bits == 64 && container == 8 => plain(Sample::Float64),
            6 if whole && container == 1 => plain(Sample::ALaw),
            7 if whole && container == 1 => plain(Sample::MuLaw),
            1 | 3 | 6 | 7 => {
                let kind = if tag == 3 { "float" } else { "integer" };
                return Err(self.label.unsupported(format!(
                    "found {kind} samples of {bits} bits in frames of {block} bytes for {channels} channels"
                )));
            }
            2 | 0x11 if !big_endian && channels <= 2 && bits == 4 => {
                // A block begins with a few whole samples, and then has one in each half byte.
                let (codec, head, first) =
                    if tag == 2 { (CODEC_ID_ADPCM_MS, 7, 2) } else { (CODEC_ID_ADPCM_IMA_WAV, 4, 1) };
                let Some(packed) = block.checked_sub(head * channels) else {
                    return Err(self.label.corrupt("the blocks are shorter than their own heads"));
                };
                Coding::Blocks { codec, block_bytes: block as u32, block_frames: packed * 2 / channels + first }
            }
            _ => return Err(self.label.unsupported(format!("found {}", wav_codec(tag)))),
        };
        let frames = stated_frames.filter(|frames| *frames > 0 && matches!(coding, Coding::Blocks { .. }));
        Ok(Header { rate_hz: rate as u32, channels: channels as usize, coding, start, bytes, frames })
    }

    /// AIFF and AIFF-C.
    fn aiff(&mut self) -> Result<Header, MediaError> {
        let head: [u8; 12] = self.fixed()?;
        let compressed = head.ends_with(b"AIFC");
        let mut format: Option<Vec<u8>> = None;
        let mut data = None;
        while format.is_none() || data.is_none() {
            let Some(chunk) = self.array::<8>()? else { break };
            let start = self.at()?;
            let bytes = u64::from(be32(&chunk[4..]));
            match &chunk[..4] {
                b"COMM" => format = Some(self.body(bytes)?),
                b"SSND" => {
                    let skipped = u64::from(be32(&self.fixed::<8>()?[..4]));
                    data = Some((start + 8 + skipped, bytes.saturating_sub(8 + skipped)));
                }
                _ => {}
            }
            self.go(start + bytes + (bytes & 1))?;
        }
        let format = format.filter(|format| format.len() >= 18 && (!compressed || format.len() >= 22));
        let format = format.ok_or_else(|| self.label.corrupt("the format of the samples is missing or cut short"))?;
        let channels = usize::from(u16::from_be_bytes([format[0], format[1]]));
        self.label.check_channels(channels)?;
        let frames = u64::from(be32(&format[2..6]));
        let bits = u16::from_be_bytes([format[6], format[7]]);
        let rate_hz = self.whole_rate(extended(&format[8..18]))?;
        let codec: [u8; 4] = if compressed { [format[18], format[19], format[20], format[21]] } else { *b"NONE" };
        let integer = match bits {
            1..=32 => Sample::Signed(usize::from(bits.div_ceil(8))),
            64 => Sample::Signed(8),
            _ => return Err(self.label.unsupported(format!("found samples of {bits} bits"))),
        };
        let (sample, big_endian) = match &codec {
            b"NONE" | b"twos" => (integer, true),
            b"sowt" => (integer, false),
            b"in24" => (Sample::Signed(3), true),
            b"in32" => (Sample::Signed(4), true),
            b"42ni" => (Sample::Signed(3), false),
            b"23ni" => (Sample::Signed(4), false),
            b"raw " => (Sample::Unsigned, true),
            b"fl32" | b"FL32" => (Sample::Float32, true),
            b"fl64" | b"FL64" => (Sample::Float64, true),
            b"alaw" | b"ALAW" => (Sample::ALaw, true),
            b"ulaw" | b"ULAW" => (Sample::MuLaw, true),
            other => return Err(self.label.unsupported(format!("found samples coded as {}", four_letters(other)))),
        };
        let (start, bytes) = data.ok_or_else(|| self.label.corrupt("the samples are missing"))?;
        let needed = frames * (channels * sample.bytes()) as u64;
        if bytes < needed {
            return Err(self.label.cut_short(bytes, needed, "bytes of sound"));
        }
        let coding = Coding::Plain { sample, big_endian };
        Ok(Header { rate_hz, channels, coding, start, bytes: Some(needed), frames: Some(frames) })
    }

    /// Core Audio Format.
    fn caf(&mut self) -> Result<Header, MediaError> {
        let _: [u8; 8] = self.fixed()?;
        let mut format: Option<Vec<u8>> = None;
        let mut data = None;
        let mut cookie = Vec::new();
        let mut table: Option<Vec<u8>> = None;
        while let Some(chunk) = self.array::<12>()? {
            let start = self.at()?;
            let bytes =
                i64::from_be_bytes([chunk[4], chunk[5], chunk[6], chunk[7], chunk[8], chunk[9], chunk[10], chunk[11]]);
            if &chunk[..4] == b"data" {
                // Four bytes of it count the edits. Open-ended in a file that was still being written.
                data = Some((start + 4, u64::try_from(bytes).ok().map(|bytes| bytes.saturating_sub(4))));
            }
            let Ok(bytes) = u64::try_from(bytes) else { break };
            match &chunk[..4] {
                b"desc" => format = Some(self.body(bytes)?),
                b"kuki" => cookie = self.body(bytes)?,
                b"pakt" => {
                    let there = self.input.length().saturating_sub(start);
                    if bytes > there {
                        return Err(self.label.cut_short(there, bytes, "bytes of the packet table"));
                    }
                    let mut body = Vec::new();
                    self.fill(&mut body, bytes as usize)?;
                    table = Some(body);
                }
                _ => {}
            }
            self.go(start.saturating_add(bytes))?;
        }
        let format = format.filter(|format| format.len() >= 32);
        let format = format.ok_or_else(|| self.label.corrupt("the format of the samples is missing or cut short"))?;
        let (start, bytes) = data.ok_or_else(|| self.label.corrupt("the samples are missing"))?;
        let rate = f64::from_bits(u64::from_be_bytes(std::array::from_fn(|i| format[i])));
        let rate_hz = self.whole_rate(rate)?;
        let flags = be32(&format[12..16]);
        let (packet_bytes, packet_frames) = (be32(&format[16..20]), be32(&format[20..24]));
        let (channels, bits) = (be32(&format[24..28]) as usize, be32(&format[28..32]));
        self.label.check_channels(channels)?;
        let codec: [u8; 4] = std::array::from_fn(|i| format[8 + i]);
        let plain = |sample, big_endian| Coding::Plain { sample, big_endian };
        let container = packet_bytes as usize / channels;
        let coding = match &codec {
            b"lpcm" => match (flags & 1 != 0, container) {
                (true, 4) => plain(Sample::Float32, flags & 2 == 0),
                (true, 8) => plain(Sample::Float64, flags & 2 == 0),
                (false, 1..=4 | 8)
                    if (packet_bytes as usize).is_multiple_of(channels) && bits as usize <= 8 * container =>
                {
                    plain(Sample::Signed(container), flags & 2 == 0)
                }
                _ => return Err(self.label.unsupported(format!("found samples of {bits} bits"))),
            },
            b"alaw" => plain(Sample::ALaw, true),
            b"ulaw" => plain(Sample::MuLaw, true),
            b"alac" => {
                let table = table.ok_or_else(|| self.label.corrupt("the packet table is missing"))?;
                let packets = self.packets(&table, packet_frames)?;
                let coding = Coding::Packets {
                    codec: CODEC_ID_ALAC,
                    cookie,
                    sizes: packets.sizes,
                    packet_frames: u64::from(packet_frames),
                    delay: packets.delay,
                };
                return Ok(Header { rate_hz, channels, coding, start, bytes, frames: Some(packets.frames) });
            }
            other => return Err(self.label.unsupported(format!("found samples coded as {}", four_letters(other)))),
        };
        Ok(Header { rate_hz, channels, coding, start, bytes, frames: None })
    }

    /// The packet table of a CAF file.
    fn packets(&self, table: &[u8], packet_frames: u32) -> Result<Packets, MediaError> {
        let short = || self.label.corrupt("the packet table is cut short");
        if table.len() < 24 || packet_frames == 0 {
            return Err(short());
        }
        let count = u64::from_be_bytes(std::array::from_fn(|i| table[i]));
        let frames = i64::from_be_bytes(std::array::from_fn(|i| table[8 + i]));
        let delay = be32(&table[16..20]);
        let mut sizes = Vec::new();
        let mut bytes = table[24..].iter();
        for _ in 0..count {
            let mut size = 0u32;
            loop {
                let byte = *bytes.next().ok_or_else(short)?;
                size = size << 7 | u32::from(byte & 0x7f);
                if size > MAX_BLOCK_BYTES {
                    return Err(self.label.corrupt("a packet is longer than any can be"));
                }
                if byte & 0x80 == 0 {
                    break;
                }
            }
            sizes.push(size);
        }
        let frames = u64::try_from(frames).map_err(|_| self.label.corrupt("the number of frames is negative"))?;
        let most = sizes.len() as u64 * u64::from(packet_frames);
        if frames > most {
            return Err(self.label.cut_short(most, frames, "frames"));
        }
        Ok(Packets { sizes, frames, delay: u64::from(delay) })
    }

    /// A rate that is stored as a float.
    fn whole_rate(&self, rate: f64) -> Result<u32, MediaError> {
        if !rate.is_finite() || rate < 0.5 {
            return Err(self.label.corrupt("the sample rate is zero or no number"));
        }
        // Larger ones are refused as out of range.
        Ok(rate.round().min(f64::from(u32::MAX)) as u32)
    }
}

/// What a packet table says.
struct Packets {
    sizes: Vec<u32>,
    frames: u64,
    delay: u64,
}

fn be32(bytes: &[u8]) -> u32 {
    u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])
}

/// A float of 80 bits, as AIFF stores rates.
fn extended(bytes: &[u8]) -> f64 {
    let exponent = i32::from(u16::from_be_bytes([bytes[0] & 0x7f, bytes[1]]));
    let mantissa = u64::from_be_bytes(std::array::from_fn(|i| bytes[2 + i]));
    let size = mantissa as f64 * f64::from(exponent - 16383 - 63).exp2();
    if bytes[0] & 0x80 == 0 { size } else { -size }
}

/// The letters of a codec, as far as they are letters.
fn four_letters(code: &[u8; 4]) -> String {
    format!("\"{}\"", code.escape_ascii())
}

/// A codec of WAV by its number.
fn wav_codec(tag: u64) -> String {
    let name = match tag {
        0x02 | 0x11 => "ADPCM samples of an unusual layout",
        0x31 => "GSM 6.10",
        0x45 | 0x64 | 0x65 => "G.726 ADPCM",
        0x50 => "MPEG layer 1 or 2 in a WAV",
        0x55 => "MP3 in a WAV",
        0x92 | 0x2000 => "AC-3",
        0xff | 0x1600 | 0x1602 | 0x706d => "AAC in a WAV",
        0x160 => "Windows Media Audio 1",
        0x161 => "Windows Media Audio 2",
        0x162 => "Windows Media Audio Pro",
        0x163 => "Windows Media Audio Lossless",
        0x270 => "ATRAC3",
        0x2001 => "DTS",
        0x566f | 0x674f..=0x6771 => "Vorbis in a WAV",
        0xa109 => "Speex",
        _ => return format!("samples coded as number {tag:#06x}"),
    };
    name.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stored_samples_have_their_value() {
        let cases: &[(Sample, &[u8], bool, f64)] = &[
            (Sample::Unsigned, &[0], false, -1.0),
            (Sample::Unsigned, &[192], false, 0.5),
            (Sample::Signed(1), &[0x80], false, -1.0),
            (Sample::Signed(2), &[0, 0x40], false, 0.5),
            (Sample::Signed(2), &[0x40, 0], true, 0.5),
            (Sample::Signed(3), &[0, 0, 0x80], false, -1.0),
            (Sample::Signed(3), &[0xff, 0xff, 0xff], false, -1.0 / 8_388_608.0),
            (Sample::Signed(4), &[0xc0, 0, 0, 0], true, -0.5),
            (Sample::Signed(8), &[0, 0, 0, 0, 0, 0, 0, 0x20], false, 0.25),
            (Sample::Float32, &[0, 0, 0, 0x40], false, 2.0),
            (Sample::Float64, &[0x3f, 0xf8, 0, 0, 0, 0, 0, 0], true, 1.5),
            (Sample::ALaw, &[0xd5], false, 8.0 / 32768.0),
            (Sample::ALaw, &[0x2a], false, -32256.0 / 32768.0),
            (Sample::MuLaw, &[0xff], false, 0.0),
            (Sample::MuLaw, &[0x00], false, -32124.0 / 32768.0),
        ];
        for (sample, stored, big_endian, want) in cases {
            assert_eq!(sample.value(stored, *big_endian), *want, "{sample:?} {stored:02x?}");
        }
    }

    #[test]
    fn rates_of_eighty_bits_are_read() {
        assert_eq!(extended(&[0x40, 0x0e, 0xac, 0x44, 0, 0, 0, 0, 0, 0]), 44_100.0);
        assert_eq!(extended(&[0; 10]), 0.0);
    }
}
