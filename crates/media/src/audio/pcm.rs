//! WAV, AIFF and CAF: chunks around plain samples, and the few codecs that such files also hold.
//!
//! The headers are read here and not by symphonia, whose readers refuse RF64, RIFX, 64-bit integers and files that were
//! written to a pipe, and do not tell a cut file from a whole one.

use std::collections::VecDeque;
use std::io;

use symphonia::core::audio::{Channels, Position};
use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::CODEC_ID_ALAC;
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use crate::error::MediaError;
use crate::label::Label;
use crate::source::{Buffered, Source};

use super::decoder::{Decoder, Held};
use super::packets::PacketDecoder;
use super::samples::{Coding, Header, Place, Sample, coded_as, four_letters, wav_coding};

/// Frames that are decoded at a time.
const FRAMES: usize = 1024;

/// A block of a coded format is at most this long; the field that states it has 16 bits in WAV.
const MAX_BLOCK_BYTES: u32 = 1 << 20;

/// Parts of one audio file, or files that were joined end to end, are no more than this.
const MAX_PARTS: usize = 1 << 16;

/// Chunks of one file are no more than this.
const MAX_CHUNKS: usize = 1 << 18;

/// Opens a WAV, AIFF, CAF or AU file, or several of them that were joined.
pub(super) fn open(input: Source, label: &Label) -> Result<Box<dyn Decoder>, MediaError> {
    let mut file = File { input: input.buffered(), label: label.clone() };
    let mut headers = VecDeque::new();
    let mut at = Some(0);
    while let Some(start) = at {
        file.go(start)?;
        let (header, end) = match label.format {
            "wav" => file.wav(start)?,
            "aiff" => file.aiff(start)?,
            "au" => file.au(start)?,
            _ => file.caf(start)?,
        };
        label.check_channels(header.channels)?;
        label.check_rate(header.rate_hz, true)?;
        headers.push_back(header);
        if headers.len() > MAX_PARTS {
            return Err(label.corrupt(format!("more than {MAX_PARTS} files are joined")));
        }
        at = match end {
            Some(end) => file.joined(end)?,
            None => None,
        };
    }
    file.open_parts(headers)
}

/// Opens what the headers of an input describe.
pub(super) fn open_described(input: Source, label: &Label, header: Header) -> Result<Box<dyn Decoder>, MediaError> {
    label.check_channels(header.channels)?;
    label.check_rate(header.rate_hz, true)?;
    File { input: input.buffered(), label: label.clone() }.open_parts(VecDeque::from([header]))
}

/// What reads the packets or samples of one header.
trait Part: Send {
    /// Frames that are still to come.
    fn frames_left(&self) -> u64;

    /// As [`Decoder::held`].
    fn held(&self) -> Held;

    /// As [`Decoder::decode`].
    fn decode(&mut self, file: &mut File, mono: &mut Vec<f32>) -> Result<bool, MediaError>;
}

/// One file, or several that were joined.
struct Parts {
    file: File,
    part: Box<dyn Part>,
    rate_hz: u32,
    /// Those after this one.
    next: VecDeque<Header>,
}

impl Decoder for Parts {
    fn frames_left(&mut self) -> Result<Option<u64>, MediaError> {
        let bytes = |header: &Header| header.places.iter().map(|place| place.bytes).sum::<u64>();
        let frames = |header: &Header| match &header.coding {
            Coding::Plain { sample, .. } => bytes(header) / (sample.bytes() * header.channels) as u64,
            Coding::Blocks { block_bytes, block_frames, .. } => bytes(header) / u64::from(*block_bytes) * block_frames,
            Coding::Packets { sizes, packet_frames, .. } => (sizes.len() as u64).saturating_mul(*packet_frames),
        };
        // Counted in frames of this rate.
        let here = |header: &Header| {
            (u128::from(frames(header)) * u128::from(self.rate_hz)).div_ceil(u128::from(header.rate_hz)) as u64
        };
        Ok(Some(self.next.iter().map(here).fold(self.part.frames_left(), u64::saturating_add)))
    }

    fn held(&self) -> Held {
        let Held { bytes, call_frames } = self.part.held();
        let places: usize = self.next.iter().map(|header| header.places.len()).sum();
        let tables = self.next.len() * size_of::<Header>() + places * size_of::<Place>();
        Held { bytes: bytes + tables as u64, call_frames }
    }

    fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    fn decode(&mut self, mono: &mut Vec<f32>) -> Result<bool, MediaError> {
        // The rate of the call is that of the part which gives the samples, so the next part waits for the next call.
        if self.part.frames_left() == 0
            && let Some(header) = self.next.pop_front()
        {
            self.rate_hz = header.rate_hz;
            self.part = self.file.part(header)?;
        }
        Ok(self.part.decode(&mut self.file, mono)? || !self.next.is_empty())
    }
}

/// The bytes of several places, one after the other.
struct Reach {
    places: Vec<Place>,
    /// The place that is read, and the bytes of it that were.
    now: usize,
    done: u64,
}

impl Reach {
    fn new(places: Vec<Place>) -> Self {
        Self { places, now: 0, done: 0 }
    }

    /// Goes past bytes at the start.
    fn pass(&mut self, mut bytes: u64) {
        while let Some(place) = self.places.get(self.now).filter(|place| place.bytes <= bytes) {
            bytes -= place.bytes;
            self.now += 1;
        }
        self.done = bytes;
    }

    fn bytes(&self) -> u64 {
        self.places.iter().map(|place| place.bytes).sum()
    }

    /// Exactly `length` bytes.
    fn fill(&mut self, file: &mut File, buffer: &mut Vec<u8>, length: usize) -> Result<(), MediaError> {
        let mut more = Vec::new();
        buffer.clear();
        while buffer.len() < length {
            let Some(place) = self.places.get(self.now) else {
                return Err(file.label.cut_short(buffer.len() as u64, length as u64, "bytes"));
            };
            let part = (place.bytes - self.done).min((length - buffer.len()) as u64);
            if part == 0 {
                (self.now, self.done) = (self.now + 1, 0);
                continue;
            }
            file.go(place.start + self.done)?;
            if buffer.is_empty() {
                file.fill(buffer, part as usize)?;
            } else {
                file.fill(&mut more, part as usize)?;
                buffer.extend_from_slice(&more);
            }
            self.done += part;
        }
        Ok(())
    }
}

/// Plain samples.
struct Plain {
    reach: Reach,
    channels: usize,
    sample: Sample,
    big_endian: bool,
    /// Frames that are still to come.
    left: u64,
    buffer: Vec<u8>,
}

impl Part for Plain {
    fn frames_left(&self) -> u64 {
        self.left
    }

    fn held(&self) -> Held {
        let bytes = (FRAMES * self.channels * self.sample.bytes()) as u64;
        let places = (self.reach.places.len() * size_of::<Place>()) as u64;
        Held { bytes: bytes + places, call_frames: FRAMES as u64 }
    }

    fn decode(&mut self, file: &mut File, mono: &mut Vec<f32>) -> Result<bool, MediaError> {
        let frames = self.left.min(FRAMES as u64) as usize;
        self.reach.fill(file, &mut self.buffer, frames * self.channels * self.sample.bytes())?;
        self.sample.mix(&self.buffer, self.big_endian, self.channels, mono);
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
    reach: Reach,
    decoder: PacketDecoder,
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

impl Part for Coded {
    fn frames_left(&self) -> u64 {
        let packed = (self.packets - self.next).saturating_mul(self.packet_frames);
        packed.min(self.left)
    }

    fn held(&self) -> Held {
        let tables = match &self.sizes {
            Sizes::All(_) => 0,
            // While the file was opened, the table itself was there too.
            Sizes::Each(sizes) => 8 * sizes.len() as u64,
        };
        Held { bytes: tables + self.decoder.bytes(self.packet_frames), call_frames: self.packet_frames }
    }

    fn decode(&mut self, file: &mut File, mono: &mut Vec<f32>) -> Result<bool, MediaError> {
        if self.next == self.packets || self.left == 0 {
            return Ok(false);
        }
        let size = match &self.sizes {
            Sizes::All(size) => *size,
            Sizes::Each(sizes) => sizes[self.next as usize],
        };
        self.reach.fill(file, &mut self.buffer, size as usize)?;
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

    /// Opens the first of the headers.
    fn open_parts(mut self, mut headers: VecDeque<Header>) -> Result<Box<dyn Decoder>, MediaError> {
        let first = headers.pop_front().ok_or_else(|| self.label.corrupt("there is no header"))?;
        let rate_hz = first.rate_hz;
        let part = self.part(first)?;
        Ok(Box::new(Parts { file: self, part, rate_hz, next: headers }))
    }

    /// What reads the audio of a header.
    fn part(&mut self, header: Header) -> Result<Box<dyn Part>, MediaError> {
        let Header { rate_hz, channels, coding, places, skip, frames } = header;
        for place in &places {
            let there = self.input.length().saturating_sub(place.start);
            if place.bytes > there {
                return Err(self.label.cut_short(there, place.bytes, "bytes of audio"));
            }
        }
        let reach = Reach::new(places);
        let bytes = reach.bytes();
        let parameters = |codec, frames| {
            let mut parameters = AudioCodecParameters::new();
            parameters.for_codec(codec).with_sample_rate(rate_hz).with_max_frames_per_packet(frames);
            parameters.with_frames_per_block(frames);
            if let Some(positions) = Position::from_count(channels as u32) {
                parameters.with_channels(Channels::Positioned(positions));
            }
            parameters
        };
        let left = frames.unwrap_or(u64::MAX);
        Ok(match coding {
            Coding::Plain { sample, big_endian } => {
                let frame_bytes = (sample.bytes() * channels) as u64;
                let all = bytes / frame_bytes;
                let mut reach = reach;
                reach.pass(skip.min(all) * frame_bytes);
                let left = left.min(all.saturating_sub(skip));
                Box::new(Plain { reach, channels, sample, big_endian, left, buffer: Vec::new() })
            }
            Coding::Blocks { codec, block_bytes, block_frames } => Box::new(Coded {
                reach,
                decoder: PacketDecoder::new(&parameters(codec, block_frames), &self.label)?,
                next: 0,
                packets: bytes / u64::from(block_bytes),
                sizes: Sizes::All(block_bytes),
                packet_frames: block_frames,
                skip,
                left,
                buffer: Vec::new(),
            }),
            Coding::Packets { codec, cookie, sizes, packet_frames } => {
                let stated = sizes.iter().map(|size| u64::from(*size)).sum();
                if stated > bytes {
                    return Err(self.label.cut_short(bytes, stated, "bytes of packets"));
                }
                let mut parameters = parameters(codec, packet_frames);
                parameters.with_extra_data(cookie.into());
                Box::new(Coded {
                    reach,
                    decoder: PacketDecoder::new(&parameters, &self.label)?,
                    next: 0,
                    packets: sizes.len() as u64,
                    sizes: Sizes::Each(sizes),
                    packet_frames,
                    skip,
                    left,
                    buffer: Vec::new(),
                })
            }
        })
    }

    /// Up to `length` bytes from a place on.
    fn peek(&mut self, at: u64, length: usize) -> Result<Vec<u8>, MediaError> {
        self.go(at)?;
        let mut bytes = Vec::new();
        self.input.fill(&mut bytes, length).map_err(|error| self.label.corrupt(error))?;
        Ok(bytes)
    }

    /// Whether a file of the format begins with these 16 bytes.
    fn begins(&self, head: &[u8]) -> bool {
        let Some(name) = head.get(..4) else { return false };
        match self.label.format {
            "wav" => matches!(name, b"RIFF" | b"RIFX" | b"RF64" | b"BW64") && head.get(8..12) == Some(b"WAVE"),
            "aiff" => name == b"FORM" && matches!(head.get(8..12), Some(b"AIFF" | b"AIFC")),
            "au" => matches!(name, b".snd" | b".sd\0" | b"dns." | b"\0ds."),
            _ => name == b"caff" && head.get(4..6) == Some(&[0, 1]) && head.get(8..12) == Some(b"desc"),
        }
    }

    /// Where another file begins behind the end of one, if one does. Tags, zeros and what else people append do not count.
    fn joined(&mut self, end: u64) -> Result<Option<u64>, MediaError> {
        const WINDOW: usize = 1 << 16;
        let mut at = end;
        loop {
            let bytes = self.peek(at, WINDOW)?;
            let places = if bytes.len() < WINDOW { bytes.len() } else { WINDOW - 16 };
            if let Some(place) = (0..places).find(|place| self.begins(&bytes[*place..])) {
                return Ok(Some(at + place as u64));
            }
            if bytes.len() < WINDOW {
                return Ok(None);
            }
            at += places as u64;
        }
    }

    /// RIFF, RIFX and RF64 from `begin` on, and where it ends, as far as that is known.
    ///
    /// Writers that cannot go back, because they write to a pipe, leave the size of the samples at zero or at a number near
    /// the largest one of 31 or 32 bits. Then the samples go on to the end of the file.
    fn wav(&mut self, begin: u64) -> Result<(Header, Option<u64>), MediaError> {
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
        let length = self.input.length();
        let riff_end = begin.saturating_add(8).saturating_add(number(&head[4..8]));
        let mut format: Option<Vec<u8>> = None;
        let mut places: Vec<Place> = Vec::new();
        let mut wide_bytes = None;
        let mut stated_frames = None;
        let end;
        let mut at = self.at()?;
        let mut chunks = 0;
        loop {
            chunks += 1;
            if chunks > MAX_CHUNKS {
                return Err(self.label.corrupt(format!("there are more than {MAX_CHUNKS} chunks")));
            }
            let head = self.peek(at, 16)?;
            // What stands behind the samples is of interest only where more of them do.
            let complete = format.is_some() && !places.is_empty();
            if head.len() < 8 || (complete && (self.begins(&head) || !head[..4].iter().all(|b| (32..127).contains(b))))
            {
                end = Some(at);
                break;
            }
            let start = at + 8;
            let mut bytes = number(&head[4..8]);
            // A tag or another file behind the end, whose first letters look like a chunk, would lead past what follows it.
            let beyond = (riff_end..=riff_end + 1).contains(&at) || start.saturating_add(bytes) > length;
            if complete && beyond && !head.starts_with(b"data") {
                end = Some(at);
                break;
            }
            self.go(start)?;
            match &head[..4] {
                b"fmt " => {
                    let body = self.body(bytes)?;
                    if format.as_ref().is_some_and(|format| *format != body) {
                        return Err(self.label.unsupported("found a WAV whose format changes in the middle"));
                    }
                    format = Some(body);
                }
                b"ds64" => wide_bytes = self.body(bytes)?.get(8..16).map(number),
                b"fact" => stated_frames = self.body(bytes)?.get(..4).map(number),
                b"data" => {
                    let there = length.saturating_sub(start);
                    let near = |top: u64| (top - 0xffff..=top + 1).contains(&bytes);
                    let mut streamed = bytes == u64::from(u32::MAX);
                    if near(u64::from(u32::MAX)) || near(i32::MAX as u64) {
                        // Longer than the header could say, too: no chunk begins where the samples would end.
                        let after = self.peek(start + bytes, 4)?;
                        streamed |= bytes > there || after.iter().any(|byte| !(32..127).contains(byte));
                    }
                    let stated = match bytes {
                        0xffff_ffff if wide => wide_bytes.filter(|bytes| !matches!(*bytes, 0 | u64::MAX)),
                        0 if riff_end == length && self.only_chunks(start, length)? => Some(0),
                        0 => None,
                        _ if streamed => None,
                        size => Some(size),
                    };
                    if stated.is_some_and(|stated| stated > there) {
                        return Err(self.label.cut_short(there, stated.unwrap_or(0), "bytes of audio"));
                    }
                    // Without a size, the next file that was joined ends the samples.
                    let next = match stated {
                        Some(_) => None,
                        None => self.joined(start)?,
                    };
                    bytes = stated.unwrap_or(next.map_or(there, |next| next - start));
                    places.push(Place { start, bytes });
                    if places.len() > MAX_PARTS {
                        return Err(self.label.corrupt(format!("there are more than {MAX_PARTS} pieces of audio")));
                    }
                    if stated.is_none() {
                        end = next;
                        break;
                    }
                }
                _ => {}
            }
            let next = start.saturating_add(bytes);
            // Chunks begin at even bytes; some writers forget that.
            let odd = bytes & 1 == 1;
            let named = |head: &[u8]| matches!(head, b"data" | b"fmt " | b"fact" | b"LIST" | b"RIFF");
            let unpadded = odd && named(&self.peek(next, 4)?);
            at = if odd && !unpadded { next.saturating_add(1) } else { next };
            if at >= length {
                end = Some(length);
                break;
            }
        }
        let format = format.ok_or_else(|| self.label.corrupt("the format of the samples is missing"))?;
        let (rate_hz, channels, coding) = wav_coding(&format, big_endian, &self.label)?;
        if places.is_empty() {
            return Err(self.label.corrupt("the samples are missing"));
        }
        let frames = stated_frames.filter(|frames| *frames > 0 && matches!(coding, Coding::Blocks { .. }));
        Ok((Header { rate_hz, channels, coding, places, skip: 0, frames }, end))
    }

    /// Whether nothing but whole chunks stands between two bytes, at least one of them.
    fn only_chunks(&mut self, mut at: u64, end: u64) -> Result<bool, MediaError> {
        for _ in 0..64 {
            let head = self.peek(at, 8)?;
            let (true, Some(size)) = (at < end, head.get(4..8)) else { return Ok(false) };
            let bytes = u64::from(u32::from_le_bytes(std::array::from_fn(|i| size[i])));
            at += 8 + bytes + (bytes & 1);
            if at == end {
                return Ok(head[..4].iter().all(u8::is_ascii_graphic));
            }
        }
        Ok(false)
    }

    /// AIFF and AIFF-C from `begin` on, and where it ends, as far as that is known.
    ///
    /// Writers to a pipe leave the number of frames and the size at zero or at a number that the file does not reach.
    fn aiff(&mut self, begin: u64) -> Result<(Header, Option<u64>), MediaError> {
        let head: [u8; 12] = self.fixed()?;
        let compressed = head.ends_with(b"AIFC");
        let length = self.input.length();
        let mut format: Option<Vec<u8>> = None;
        let mut data: Option<(u64, u64)> = None;
        let mut at = self.at()?;
        while format.is_none() || data.is_none() {
            self.go(at)?;
            let Some(chunk) = self.array::<8>()? else { break };
            let start = at + 8;
            let bytes = u64::from(be32(&chunk[4..]));
            match &chunk[..4] {
                b"COMM" => format = Some(self.body(bytes)?),
                b"SSND" => {
                    let skipped = u64::from(be32(&self.fixed::<8>()?[..4]));
                    data = Some((start + 8 + skipped, bytes.saturating_sub(8 + skipped)));
                    if bytes == 0 {
                        // Nothing can follow samples of an unknown number.
                        break;
                    }
                }
                _ => {}
            }
            at = start + bytes + (bytes & 1);
        }
        let format = format.filter(|format| format.len() >= 18 && (!compressed || format.len() >= 22));
        let format = format.ok_or_else(|| self.label.corrupt("the format of the samples is missing or cut short"))?;
        let channels = usize::from(u16::from_be_bytes([format[0], format[1]]));
        self.label.check_channels(channels)?;
        let frames = u64::from(be32(&format[2..6]));
        let bits = u32::from(u16::from_be_bytes([format[6], format[7]]));
        let rate_hz = self.whole_rate(extended(&format[8..18]))?;
        let codec: [u8; 4] = if compressed { [format[18], format[19], format[20], format[21]] } else { *b"NONE" };
        // Samples fill the upper bits of whole bytes.
        let integer = if bits == 0 { None } else { Sample::signed(bits.next_multiple_of(8)) };
        let (sample, big_endian) = match &codec {
            b"NONE" | b"twos" => (integer, true),
            b"sowt" => (integer, false),
            b"in24" => (Some(Sample::Signed(3)), true),
            b"in32" => (Some(Sample::Signed(4)), true),
            b"42ni" => (Some(Sample::Signed(3)), false),
            b"23ni" => (Some(Sample::Signed(4)), false),
            b"raw " => ((bits <= 8).then_some(Sample::Unsigned(1)), true),
            b"fl32" | b"FL32" => (Some(Sample::Float32), true),
            b"fl64" | b"FL64" => (Some(Sample::Float64), true),
            b"alaw" | b"ALAW" => (Some(Sample::ALaw), true),
            b"ulaw" | b"ULAW" => (Some(Sample::MuLaw), true),
            other => return Err(self.label.unsupported(format!("found {}", coded_as(other)))),
        };
        let Some(sample) = sample else {
            return Err(self
                .label
                .unsupported(format!("found samples of {bits} bits coded as {}", four_letters(&codec))));
        };
        let (start, bytes) = data.ok_or_else(|| self.label.corrupt("the samples are missing"))?;
        let needed = frames * (channels * sample.bytes()) as u64;
        let there = length.saturating_sub(start);
        // sox writes 0x7f000000 bytes, FFmpeg no frames and no bytes.
        let streamed = (frames == 0 && bytes == 0)
            || (bytes > there && (0x7eff_0000..=0x7fff_ffff).contains(&bytes))
            || (bytes > there && bytes >= 0xffff_0000 - start);
        let (bytes, end) = if streamed {
            let next = self.joined(start)?;
            (next.map_or(there, |next| next - start), next)
        } else if bytes < needed {
            return Err(self.label.cut_short(bytes, needed, "bytes of audio"));
        } else if bytes > there {
            return Err(self.label.cut_short(there, bytes, "bytes of audio"));
        } else {
            let form_end = begin + 8 + u64::from(be32(&head[4..8]));
            // Frames that are there and not counted are audio too; bytes that are no whole frame are not.
            (bytes, Some(form_end.max(start + bytes).min(length)))
        };
        let coding = Coding::Plain { sample, big_endian };
        let places = vec![Place { start, bytes }];
        Ok((Header { rate_hz, channels, coding, places, skip: 0, frames: None }, end))
    }

    /// Sun audio from `begin` on, in either byte order, and where it ends, as far as that is known.
    ///
    /// # Source
    /// `audio_filehdr` of the SunOS manual; the numbers of codings as in FFmpeg's and sox's tables.
    fn au(&mut self, begin: u64) -> Result<(Header, Option<u64>), MediaError> {
        let head: [u8; 24] = self.fixed()?;
        // The letters turned round, and the same of DEC.
        let big_endian = head.starts_with(b".s");
        let word = |at: usize| {
            let bytes = std::array::from_fn(|i| head[at + i]);
            if big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
        };
        let (offset, bytes, number) = (u64::from(word(4)), word(8), word(12));
        let channels = word(20) as usize;
        self.label.check_channels(channels)?;
        if offset < 24 {
            return Err(self.label.corrupt(format!("the samples begin at byte {offset}, within the header")));
        }
        let sample = match number {
            1 => Sample::MuLaw,
            2 => Sample::Signed(1),
            3 => Sample::Signed(2),
            4 => Sample::Signed(3),
            5 => Sample::Signed(4),
            6 => Sample::Float32,
            7 => Sample::Float64,
            27 => Sample::ALaw,
            23..=26 => return Err(self.label.unsupported("found G.72x ADPCM samples")),
            other => return Err(self.label.unsupported(format!("found samples coded as number {other}"))),
        };
        let start = begin + offset;
        let there = self.input.length().saturating_sub(start);
        let (bytes, end) = if bytes == u32::MAX || bytes == 0 {
            let next = self.joined(start)?;
            (next.map_or(there, |next| next - start), next)
        } else {
            (u64::from(bytes), Some(start.saturating_add(u64::from(bytes))))
        };
        if bytes > there {
            return Err(self.label.cut_short(there, bytes, "bytes of audio"));
        }
        let (coding, places) = (Coding::Plain { sample, big_endian }, vec![Place { start, bytes }]);
        Ok((Header { rate_hz: word(16), channels, coding, places, skip: 0, frames: None }, end))
    }

    /// Core Audio Format from `begin` on, and where it ends, as far as that is known.
    fn caf(&mut self, begin: u64) -> Result<(Header, Option<u64>), MediaError> {
        let _: [u8; 8] = self.fixed()?;
        let mut end = None;
        let mut format: Option<Vec<u8>> = None;
        let mut data = None;
        let mut cookie = Vec::new();
        let mut table: Option<Vec<u8>> = None;
        while let Some(chunk) = self.array::<12>()? {
            let start = self.at()?;
            if start > begin + 20 && self.begins(&chunk) {
                end = Some(start - 12);
                break;
            }
            let bytes =
                i64::from_be_bytes([chunk[4], chunk[5], chunk[6], chunk[7], chunk[8], chunk[9], chunk[10], chunk[11]]);
            if &chunk[..4] == b"data" {
                // Four bytes of it count the edits. Open-ended in a file that was still being written.
                data = Some((start + 4, u64::try_from(bytes).ok().map(|bytes| bytes.saturating_sub(4))));
            }
            let Ok(bytes) = u64::try_from(bytes) else {
                if let (b"data", Some((start, unknown))) = (&chunk[..4], &mut data)
                    && let Some(next) = self.joined(*start)?
                {
                    *unknown = Some(next - *start);
                    end = Some(next);
                }
                break;
            };
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
            // Zeros and tags behind the last chunk end the search for more of them.
            if !chunk[..4].iter().all(|byte| (32..127).contains(byte))
                || start.saturating_add(bytes) > self.input.length()
            {
                end = Some(start - 12);
                break;
            }
            self.go(start.saturating_add(bytes))?;
        }
        let format = format.filter(|format| format.len() >= 32);
        let format = format.ok_or_else(|| self.label.corrupt("the format of the samples is missing or cut short"))?;
        let (start, bytes) = data.ok_or_else(|| self.label.corrupt("the samples are missing"))?;
        let there = self.input.length().saturating_sub(start);
        let bytes = bytes.unwrap_or(there);
        if bytes > there {
            return Err(self.label.cut_short(there, bytes, "bytes of audio"));
        }
        let places = vec![Place { start, bytes }];
        let rate = f64::from_bits(u64::from_be_bytes(std::array::from_fn(|i| format[i])));
        let rate_hz = self.whole_rate(rate)?;
        let flags = be32(&format[12..16]);
        let (packet_bytes, packet_frames) = (be32(&format[16..20]), be32(&format[20..24]));
        let (channels, bits) = (be32(&format[24..28]) as usize, be32(&format[28..32]));
        self.label.check_channels(channels)?;
        let codec: [u8; 4] = std::array::from_fn(|i| format[8 + i]);
        let plain = |sample, big_endian| Coding::Plain { sample, big_endian };
        let coding = match &codec {
            b"lpcm" => {
                let sample = match (flags & 1 != 0, bits) {
                    (true, bits) => Sample::float(bits),
                    // The upper bits of whole bytes.
                    (false, bits) => Sample::signed(bits.clamp(1, 64).next_multiple_of(8)),
                };
                match sample {
                    Some(sample) if packet_bytes as usize == channels * sample.bytes() => plain(sample, flags & 2 == 0),
                    _ => {
                        let kind = if flags & 1 != 0 { "float" } else { "integer" };
                        return Err(self.label.unsupported(format!(
                            "found {kind} samples of {bits} bits in frames of {packet_bytes} bytes for {channels} channels"
                        )));
                    }
                }
            }
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
                };
                let (skip, frames) = (packets.delay, Some(packets.frames));
                return Ok((Header { rate_hz, channels, coding, places, skip, frames }, end));
            }
            other => return Err(self.label.unsupported(format!("found {}", coded_as(other)))),
        };
        Ok((Header { rate_hz, channels, coding, places, skip: 0, frames: None }, end))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_of_eighty_bits_are_read() {
        assert_eq!(extended(&[0x40, 0x0e, 0xac, 0x44, 0, 0, 0, 0, 0, 0]), 44_100.0);
        assert_eq!(extended(&[0; 10]), 0.0);
    }
}
