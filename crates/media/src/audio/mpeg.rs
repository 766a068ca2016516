//! Bare MPEG audio (MP3, MP2, MP1) and AAC in ADTS: frames, one after the other, and the tags around them.
//!
//! symphonia's readers look for the next frame wherever one is lost and say nothing about it, so frames are walked here.

use std::io;

use symphonia::core::audio::{Channels, Position};
use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_AAC, CODEC_ID_MP1, CODEC_ID_MP2, CODEC_ID_MP3};
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use crate::container::mpeg::{Frame, Kind, LEAD_BYTES};
use crate::error::MediaError;
use crate::kind::sniff;
use crate::label::Label;
use crate::source::{Buffered, Source};

use super::decoder::{Decoder, Held};
use super::flac;
use super::packets::PacketDecoder;

/// How far the end of a tag that does not tell its length is looked for.
const MAX_TAG_SEARCH: usize = 1 << 20;

/// Frames that an MP3 decoder gives before the audio, beside those that the encoder counts.
const DECODER_DELAY: u64 = 529;

/// A decoder for frames like this one.
fn decoder_of(frame: &Frame, label: &Label) -> Result<PacketDecoder, MediaError> {
    label.check_rate(frame.rate_hz, true)?;
    let mut parameters = AudioCodecParameters::new();
    let codec = match frame.kind {
        Kind::Layer1 => CODEC_ID_MP1,
        Kind::Layer2 => CODEC_ID_MP2,
        Kind::Layer3 { .. } => CODEC_ID_MP3,
        Kind::Aac { .. } => CODEC_ID_AAC,
    };
    parameters.for_codec(codec).with_sample_rate(frame.rate_hz);
    if let Some(positions) = Position::from_count(frame.channels as u32) {
        parameters.with_channels(Channels::Positioned(positions));
    }
    if let Kind::Aac { profile, channel_code, rate_code } = frame.kind {
        match profile {
            1 => {}
            0 => return Err(label.unsupported("found AAC Main")),
            2 => return Err(label.unsupported("found AAC SSR")),
            _ => return Err(label.unsupported("found AAC LTP")),
        }
        if channel_code == 0 {
            return Err(label.unsupported("found AAC whose channels are described in the stream"));
        }
        // The same in the form of MP4: LC, rate, channels.
        let configuration = 2 << 11 | u16::from(rate_code) << 7 | u16::from(channel_code) << 3;
        parameters.with_extra_data(configuration.to_be_bytes().into());
    }
    PacketDecoder::new(&parameters, label)
}

/// Opens MP3 and ADTS, and what hides behind an ID3 tag.
pub(super) fn open(input: Source, label: &Label) -> Result<Box<dyn Decoder>, MediaError> {
    let mut walk = Walk { input: input.buffered(), label: label.clone() };
    let mut at = 0;
    while let Some(next) = walk.tag(at)? {
        at = next;
    }
    let head = walk.peek(at, 64)?;
    if at > 0 && sniff(&head) == Some("flac") {
        let label = Label { format: "flac", ..label.clone() };
        return flac::open(walk.input.into_source(), at, &label);
    }
    walk.check_free_rate(at)?;
    let Some((at, first)) = walk.first_frame(at)? else {
        return Err(label.corrupt("there is no frame of audio"));
    };
    let decoder = decoder_of(&first, label)?;
    let mut track = Frames {
        walk,
        decoder,
        now: first,
        at,
        stated: None,
        seen: 0,
        decoded: 0,
        skip: 0,
        padding: 0..0,
        buffer: Vec::new(),
    };
    track.read_info()?;
    Ok(Box::new(track))
}

/// A stream of frames.
struct Frames {
    walk: Walk,
    decoder: PacketDecoder,
    /// What the frames are like at present; joined files and recordings of broadcasts change it.
    now: Frame,
    /// Where the next frame begins.
    at: u64,
    /// Number of frames as a header states it.
    stated: Option<u64>,
    seen: u64,
    /// Samples decoded, with those that are cut off.
    decoded: u64,
    /// Samples to cut off at the start.
    skip: u64,
    /// Samples that the encoder added at the end.
    padding: std::ops::Range<u64>,
    buffer: Vec<u8>,
}

impl Frames {
    /// Reads the frame without audio in which encoders say what they did, and goes past it.
    ///
    /// # Source
    /// The Xing and LAME tags; what is cut off is what FFmpeg's `mp3dec.c` cuts off.
    fn read_info(&mut self) -> Result<(), MediaError> {
        let Kind::Layer3 { first_version } = self.now.kind else { return Ok(()) };
        let frame = self.walk.peek(self.at, self.now.bytes)?;
        let side = match (first_version, self.now.channels) {
            (true, 2) => 32,
            (true, _) | (false, 2) => 17,
            (false, _) => 9,
        };
        let word = |at: usize| Some(u32::from_be_bytes(frame.get(at..at + 4)?.try_into().ok()?));
        let tag = 4 + side;
        match frame.get(tag..tag + 4) {
            Some(b"Xing" | b"Info") => {}
            _ => {
                if frame.get(36..40) == Some(b"VBRI") {
                    self.stated = word(36 + 14).map(u64::from).filter(|frames| *frames > 0);
                    self.at += self.now.bytes as u64;
                }
                return Ok(());
            }
        }
        let info_at = self.at;
        self.at += self.now.bytes as u64;
        let flags = word(tag + 4).unwrap_or(0);
        let mut next = tag + 8;
        if flags & 1 != 0 {
            self.stated = word(next).map(u64::from).filter(|frames| *frames > 0);
            next += 4;
        }
        let mut joined = false;
        if flags & 2 != 0 {
            // A file that is longer by a sixteenth than the bytes that are counted was joined with others. FFmpeg leaves
            // what the encoder added at the end where it is then.
            let counted = word(next).map_or(0, u64::from);
            let there = self.walk.input.length() - info_at;
            joined = counted > 0 && there > counted && there - counted > counted >> 4;
            next += 4;
        }
        next += if flags & 4 != 0 { 100 } else { 0 };
        next += if flags & 8 != 0 { 4 } else { 0 };
        let encoder = frame.get(next..next + 4);
        if let (Some(b"LAME" | b"Lavf" | b"Lavc"), Some([high, middle, low])) =
            (encoder, frame.get(next + 21..next + 24))
        {
            let before = u64::from(*high) << 4 | u64::from(*middle) >> 4;
            let after = u64::from(*middle & 15) << 8 | u64::from(*low);
            self.skip = before + DECODER_DELAY;
            if let Some(frames) = self.stated.filter(|_| !joined) {
                let end = frames * self.now.samples;
                self.padding = (end + DECODER_DELAY).saturating_sub(after).min(end)..end;
            }
        }
        Ok(())
    }

    /// What stands where no frame begins: the end, or damage.
    fn end(&mut self) -> Result<bool, MediaError> {
        let mut from = self.at;
        while let Some((place, frame)) = self.walk.next_pair(from, u64::MAX)? {
            // Two heads that fit are found by chance in other data, but not of the kind that is being read.
            if frame.goes_with(&self.now) || self.walk.begins_stream(place, &frame)? {
                let lost = place - self.at;
                return Err(self.walk.label.corrupt(format!("{lost} bytes between frames are no frame")));
            }
            from = place + 1;
        }
        self.walk.check_free_rate(self.at)?;
        self.end_cut()
    }

    /// Goes on with frames of another kind.
    fn change(&mut self, frame: Frame) -> Result<(), MediaError> {
        self.decoder = decoder_of(&frame, &self.walk.label)?;
        self.now = frame;
        Ok(())
    }
}

impl Decoder for Frames {
    /// From the bytes that are left and the shortest frame of the kind; a header that counts frames may count those of the
    /// first of several joined files.
    fn frames_left(&mut self) -> Result<Option<u64>, MediaError> {
        let left = self.walk.input.length().saturating_sub(self.at);
        let first = &self.now;
        let lowest_bits = |bits: u64| first.samples * bits / 8 / u64::from(first.rate_hz);
        let shortest = match first.kind {
            Kind::Layer1 | Kind::Layer2 | Kind::Layer3 { first_version: true } => lowest_bits(32_000),
            Kind::Layer3 { first_version: false } => lowest_bits(8_000),
            Kind::Aac { .. } => first.head as u64 + 1,
        };
        Ok(Some((left / shortest.max(8) + 1) * first.samples))
    }

    fn held(&self) -> Held {
        // One MiB for the weights of another sample rate, where files were joined.
        Held { bytes: self.decoder.bytes(1152) + (64 << 10) + (1 << 20), call_frames: 1152 }
    }

    fn rate_hz(&self) -> u32 {
        self.now.rate_hz
    }

    fn decode(&mut self, mono: &mut Vec<f32>) -> Result<bool, MediaError> {
        let head = self.walk.peek(self.at, 10)?;
        let frame = Frame::read(&head);
        let Some(frame) = frame.filter(|frame| frame.goes_with(&self.now)) else {
            // Files that were joined have tags between them, and may go on in another way.
            if let Some(next) = self.walk.tag(self.at)? {
                self.at = next;
                return Ok(true);
            }
            if let Some(frame) = frame
                && self.walk.begins_stream(self.at, &frame)?
            {
                self.change(frame)?;
                return Ok(true);
            }
            return self.end();
        };
        if matches!(frame.kind, Kind::Aac { .. }) && head.get(6).is_some_and(|byte| byte & 3 != 0) {
            return Err(self.walk.label.unsupported("found several blocks in a frame of ADTS"));
        }
        self.buffer = self.walk.peek(self.at, frame.bytes)?;
        if self.buffer.len() < frame.bytes {
            // The last frame of a recording that was cut. A header that counts the frames tells if one is missing.
            return self.end_cut();
        }
        self.at += frame.bytes as u64;
        self.seen += 1;
        let before = mono.len();
        let at = Timestamp::from(0);
        let packet = Packet::new(0, at, Duration::from(frame.samples), &self.buffer[frame.head..]);
        self.decoder.decode(&packet, mono)?;
        let fresh = (mono.len() - before) as u64;
        let inside = |at: u64| (at.clamp(self.decoded, self.decoded + fresh) - self.decoded) as usize;
        let (skip, from, to) = (inside(self.skip), inside(self.padding.start), inside(self.padding.end));
        mono.drain(before + from.max(skip)..before + to.max(skip));
        mono.drain(before..before + skip);
        self.decoded += fresh;
        Ok(true)
    }
}

impl Frames {
    /// The file ends within a frame.
    fn end_cut(&self) -> Result<bool, MediaError> {
        match self.stated {
            Some(stated) if self.seen < stated => Err(self.walk.label.cut_short(self.seen, stated, "frames")),
            _ => Ok(false),
        }
    }
}

/// A file that is looked at here and there.
struct Walk {
    input: Buffered,
    label: Label,
}

impl Walk {
    fn go(&mut self, to: u64) -> Result<(), MediaError> {
        self.input.go(to).map_err(|error: io::Error| self.label.corrupt(error))
    }

    /// Up to `length` bytes from a place on.
    fn peek(&mut self, at: u64, length: usize) -> Result<Vec<u8>, MediaError> {
        self.go(at)?;
        let mut out = Vec::new();
        self.input.fill(&mut out, length).map_err(|error| self.label.corrupt(error))?;
        Ok(out)
    }

    /// Where the tag, or the run of zeros, that begins here ends; `None` if there is none.
    ///
    /// # Source
    /// ID3v2.4 (section 3.1, with the footer of 3.4), ID3v1 with its enhanced form ("TAG+"), APEv1 and APEv2, Lyrics3 v1 and
    /// v2. Zeros are what some writers fill up with; where no frame, tag or end follows them, they are damage.
    fn tag(&mut self, at: u64) -> Result<Option<u64>, MediaError> {
        let head = self.peek(at, 32)?;
        if let [b'I', b'D', b'3', _, _, flags, size @ ..] = head.as_slice()
            && let [a, b, c, d, ..] = *size
            && (a | b | c | d) & 0x80 == 0
        {
            let size = u64::from(a) << 21 | u64::from(b) << 14 | u64::from(c) << 7 | u64::from(d);
            let footer = if flags & 0x10 != 0 { 10 } else { 0 };
            return Ok(Some(at + 10 + size + footer));
        }
        if head.starts_with(b"APETAGEX") && head.len() == 32 {
            let size = u64::from(u32::from_le_bytes([head[12], head[13], head[14], head[15]]));
            // The size leaves out the head, which is where this was found, unless it is the foot.
            let is_head = head[23] & 0x20 != 0;
            return Ok(Some(at + 32 + if is_head { size } else { 0 }));
        }
        let left = self.input.length().saturating_sub(at);
        for (name, bytes) in [(&b"TAG+"[..], 227), (b"TAG", 128)] {
            if head.starts_with(name) && left >= bytes {
                return Ok(Some(at + bytes));
            }
        }
        if head.starts_with(b"LYRICSBEGIN") {
            let end = self.find(at, |nine| nine == b"LYRICS200" || nine == b"LYRICSEND", 9)?;
            return Ok(end.map(|(place, _)| at + place + 9));
        }
        if head.first() == Some(&0) {
            let mut end = at;
            loop {
                let zeros = self.peek(end, 1 << 14)?;
                let count = zeros.iter().take_while(|byte| **byte == 0).count();
                end += count as u64;
                if count < zeros.len() || zeros.is_empty() {
                    break;
                }
            }
            let next = self.peek(end, 16)?;
            let follows = next.is_empty() || Frame::read(&next).is_some();
            return Ok((follows || self.tag(end)?.is_some()).then_some(end));
        }
        // APEv1 has no head: its items stand before the foot, which tells their bytes with its own.
        if !head.is_empty() && head[0] != 0xff {
            let is_foot =
                |foot: &[u8]| foot.starts_with(b"APETAGEX") && (foot[8..12] == [0xe8, 3, 0, 0] || foot[23] & 0xa0 == 0);
            if let Some((place, foot)) = self.find(at, is_foot, 32)? {
                let size = u64::from(u32::from_le_bytes(std::array::from_fn(|i| foot[12 + i])));
                return Ok((place + 32 == size).then_some(at + size));
            }
        }
        Ok(None)
    }

    /// The first place behind `at`, counted from there, where `length` bytes are as wanted, and those bytes.
    fn find(
        &mut self,
        at: u64,
        wanted: impl Fn(&[u8]) -> bool,
        length: usize,
    ) -> Result<Option<(u64, Vec<u8>)>, MediaError> {
        // Growing, because most tags are short and a file may be full of them.
        for window in [1 << 10, 1 << 14, MAX_TAG_SEARCH] {
            let bytes = self.peek(at, window)?;
            if let Some(place) = bytes.windows(length).position(&wanted) {
                return Ok(Some((place as u64, bytes[place..place + length].to_vec())));
            }
            if bytes.len() < window {
                break;
            }
        }
        Ok(None)
    }

    /// Whether a stream begins at a frame: more like it follow, or the file, or a tag, ends it.
    fn begins_stream(&mut self, at: u64, frame: &Frame) -> Result<bool, MediaError> {
        let (mut next, mut count) = (at, 0);
        while count < 4 {
            let head = self.peek(next, 16)?;
            match Frame::read(&head) {
                Some(found) if found.goes_with(frame) => {
                    next += found.bytes as u64;
                    count += 1;
                    if next > self.input.length() {
                        // The last frame is cut.
                        return Ok(count > 1);
                    }
                }
                // Two frames are enough where another stream follows them.
                Some(_) => return Ok(count >= 2),
                None => {
                    let tags: [&[u8]; 4] = [b"ID3", b"TAG", b"APETAGEX", b"LYRICSBEGIN"];
                    let tag = tags.iter().any(|name| head.starts_with(name));
                    return Ok(head.is_empty() || tag || (count >= 2 && head[0] == 0));
                }
            }
        }
        Ok(true)
    }

    /// The first frame that another one follows, or that ends the file.
    fn first_frame(&mut self, from: u64) -> Result<Option<(u64, Frame)>, MediaError> {
        let head = self.peek(from, 7)?;
        if let Some(frame) = Frame::read(&head) {
            let after = from + frame.bytes as u64;
            let next = self.peek(after, 7)?;
            let alone = next.len() < 7 || next.starts_with(b"TAG") || next.starts_with(b"ID3") || next[0] == 0;
            if alone || Frame::read(&next).is_some_and(|next| frame.goes_with(&next)) {
                return Ok(Some((from, frame)));
            }
            // One frame, and then a stream of another kind.
            if let Some(next) = Frame::read(&next)
                && self.begins_stream(after, &next)?
            {
                return Ok(Some((from, frame)));
            }
        }
        self.next_pair(from, from + LEAD_BYTES)
    }

    /// Refuses MPEG audio of a free bit rate by name: its frames do not tell their length.
    fn check_free_rate(&mut self, at: u64) -> Result<(), MediaError> {
        let head = self.peek(at, 7)?;
        let free = |head: &[u8]| {
            let [0xff, second, third, fourth, ..] = *head else { return None };
            // The same head with the lowest bit rate must be one.
            let known = Frame::read(&[0xff, second, third | 0x10, fourth, 0, 0, 0]);
            known.filter(|frame| third >> 4 == 0 && !matches!(frame.kind, Kind::Aac { .. }))
        };
        let Some(first) = free(&head) else { return Ok(()) };
        // The next head is within a frame of the highest rate that decoders are asked for, 640 kbit/s at 8 kHz.
        let bytes = self.peek(at, 1 << 14)?;
        let again = bytes.windows(4).skip(4).any(|head| free(head).is_some_and(|next| next.goes_with(&first)));
        if again { Err(self.label.unsupported("found MPEG audio of a free bit rate")) } else { Ok(()) }
    }

    /// The next place before `end` where two frames follow each other.
    fn next_pair(&mut self, from: u64, end: u64) -> Result<Option<(u64, Frame)>, MediaError> {
        // Two frames of the largest size fit behind every place that is looked at.
        const WINDOW: usize = 1 << 16;
        const BEHIND: usize = 1 << 14;
        let mut at = from;
        loop {
            let bytes = self.peek(at, WINDOW)?;
            let last = bytes.len() < WINDOW;
            let places = if last { bytes.len() } else { WINDOW - BEHIND };
            for place in 0..places {
                if at + place as u64 >= end {
                    return Ok(None);
                }
                let Some(frame) = Frame::read(&bytes[place..]) else { continue };
                let next = bytes.get(place + frame.bytes..).and_then(Frame::read);
                if next.is_some_and(|next| frame.goes_with(&next)) {
                    return Ok(Some((at + place as u64, frame)));
                }
            }
            if last {
                return Ok(None);
            }
            at += places as u64;
        }
    }
}
