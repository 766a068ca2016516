//! Ogg: pages, their checksums, and the packets of the first audio track in them.
//!
//! symphonia's reader goes past damaged pages with no more than a remark in a log, so pages are read here. Ogg holds
//! Vorbis, Opus or FLAC. Files that were joined end to end are read as one, each at its own rate and with its own channels.

use std::sync::Arc;

use symphonia::core::audio::{Channels, Position};
use symphonia::core::codecs::audio::AudioCodecParameters;
use symphonia::core::codecs::audio::well_known::{CODEC_ID_FLAC, CODEC_ID_VORBIS};
use symphonia::core::packet::Packet;
use symphonia::core::units::{Duration, Timestamp};

use crate::error::MediaError;
use crate::label::Label;
use crate::source::{Buffered, Source};

use super::decoder::{Decoder, Held};
use super::opus::{OpusHead, RATE_HZ};
use super::packets::PacketDecoder;

/// No packet of audio is longer, and no setup header.
const MAX_PACKET_BYTES: usize = 1 << 20;

/// Samples that the packets of one page may give; FLAC blocks are the longest.
const MAX_PAGE_FRAMES: usize = 1 << 24;

/// One page.
struct Page {
    continued: bool,
    first: bool,
    last: bool,
    /// Samples up to the end of the last packet that ends here, or -1.
    granule: i64,
    serial: u32,
    sequence: u32,
    /// Lengths of the parts of packets.
    lacing: Vec<u8>,
    body: Vec<u8>,
}

/// Opens an Ogg file.
pub(super) fn open(input: Source, label: &Label) -> Result<Box<dyn Decoder>, MediaError> {
    let mut pages = Pages { input: input.buffered(), label: label.clone() };
    let first = pages.next()?.ok_or_else(|| label.corrupt("there is no page"))?;
    let (link, rest) = Link::open(&mut pages, first)?;
    label.check_rate(link.rate_hz, true)?;
    Ok(Box::new(Ogg { pages, rate_hz: link.rate_hz, link, unread: Some(rest), held: Vec::new() }))
}

/// The second packet of the first track of audio, which has its comments; of a long one the beginning.
pub(super) fn comment(input: Source, label: &Label) -> Result<Vec<u8>, MediaError> {
    let mut pages = Pages { input: input.buffered(), label: label.clone() };
    let mut serial = None;
    let mut packet = Vec::new();
    while let Some(page) = pages.next()? {
        if page.first {
            let known = Head::read(&page.body, label)?.is_ok();
            serial = serial.or(known.then_some(page.serial));
            continue;
        }
        if Some(page.serial) != serial {
            continue;
        }
        let mut at = 0;
        for length in page.lacing.iter().copied().map(usize::from) {
            packet.extend_from_slice(&page.body[at..at + length]);
            at += length;
            if length < 255 || packet.len() > MAX_PACKET_BYTES {
                return Ok(packet);
            }
        }
    }
    Err(label.corrupt("it ends among its headers"))
}

/// An Ogg file that is being decoded.
struct Ogg {
    pages: Pages,
    rate_hz: u32,
    link: Link,
    /// A page that was read ahead.
    unread: Option<Page>,
    /// Samples of the page before, which the last page may still shorten.
    held: Vec<f32>,
}

impl Decoder for Ogg {
    /// As the last page counts them, where it is of the same track; `None` where files were joined.
    fn frames_left(&mut self) -> Result<Option<u64>, MediaError> {
        let serial = self.link.serial;
        let last = self.pages.last_granule(serial)?;
        let granule = last.and_then(|granule| u64::try_from(granule).ok());
        Ok(granule.map(|granule| granule.saturating_sub(self.link.given)))
    }

    fn held(&self) -> Held {
        // A page holds 255 packets; those of Opus are the longest for their bytes.
        let call_frames = 255 * 5760;
        // One MiB for the weights of another sample rate, where files were joined.
        Held { bytes: self.link.decoder.bytes(8192) + (256 << 10) + (1 << 20), call_frames }
    }

    fn rate_hz(&self) -> u32 {
        self.rate_hz
    }

    fn decode(&mut self, mono: &mut Vec<f32>) -> Result<bool, MediaError> {
        let page = match self.unread.take() {
            Some(page) => Some(page),
            None => self.pages.next()?,
        };
        let label = self.pages.label.clone();
        let Some(page) = page else {
            if !self.link.ended {
                return Err(label.corrupt("the last page is missing"));
            }
            mono.append(&mut self.held);
            return Ok(false);
        };
        if page.first {
            if !self.link.ended {
                return Err(label.corrupt("another track begins before the end of this one"));
            }
            mono.append(&mut self.held);
            // What was held back is of the rate before.
            self.rate_hz = self.link.rate_hz;
            let (link, rest) = Link::open(&mut self.pages, page)?;
            label.check_rate(link.rate_hz, true)?;
            self.link = link;
            self.unread = Some(rest);
            return Ok(true);
        }
        if page.serial != self.link.serial {
            return Ok(true);
        }
        if self.link.ended {
            return Err(label.corrupt("a page follows the last one"));
        }
        let mut fresh = Vec::new();
        self.link.page(&page, &label, &mut fresh)?;
        if page.last && page.granule >= 0 {
            // The last page says how many samples there are; what the codec gave beyond that was padding.
            let total = self.link.total(page.granule);
            let over = usize::try_from(self.link.given.saturating_sub(total)).unwrap_or(usize::MAX);
            if self.link.given < total {
                return Err(label.cut_short(self.link.given, total, "frames"));
            }
            let from_fresh = over.min(fresh.len());
            fresh.truncate(fresh.len() - from_fresh);
            self.held.truncate(self.held.len().saturating_sub(over - from_fresh));
        }
        if self.held.is_empty() {
            self.rate_hz = self.link.rate_hz;
        }
        mono.append(&mut self.held);
        self.held = fresh;
        self.link.ended = page.last;
        Ok(true)
    }
}

/// One of the files that were joined, or the only one.
struct Link {
    serial: u32,
    sequence: u32,
    rate_hz: u32,
    decoder: PacketDecoder,
    /// The begin of a packet that goes on.
    part: Vec<u8>,
    /// Frames to cut off at the start, as far as they are still to come.
    skip: u64,
    /// Frames that the codec always needs before the audio.
    pre_skip: u64,
    /// What the counter of samples stood at before the first packet; known after the first page.
    origin: Option<i64>,
    /// Frames after those that were cut off.
    given: u64,
    ended: bool,
}

impl Link {
    /// Reads the first pages and headers; gives the first page of audio too.
    fn open(pages: &mut Pages, first: Page) -> Result<(Self, Page), MediaError> {
        let label = pages.label.clone();
        let mut chosen: Option<(u32, Head)> = None;
        let mut others = Vec::new();
        let mut page = first;
        // All tracks begin before any of them goes on.
        while page.first {
            match Head::read(&page.body, &label)? {
                Ok(head) if chosen.is_none() => chosen = Some((page.serial, head)),
                Ok(_) => {}
                Err(other) => others.push(other),
            }
            page = pages.next()?.ok_or_else(|| label.corrupt("it ends after its first pages"))?;
        }
        let Some((serial, head)) = chosen else {
            return Err(match others.iter().find(|other| other.sound) {
                Some(other) => label.unsupported(format!("found {}", other.words)),
                None => MediaError::NoTrack {
                    name: label.name.clone(),
                    found: others.first().map_or("no track that is known", |other| other.words).to_owned(),
                    expected: "an audio track",
                },
            });
        };
        // Headers end with a page, so what follows them begins on its own.
        let mut headers = Vec::new();
        let mut part = Vec::new();
        let mut expected = 1;
        let mut done = 0;
        let wanted = head.more_headers();
        while done < wanted {
            if page.first {
                return Err(label.corrupt("another track begins among the headers"));
            }
            if page.serial == serial {
                if page.sequence != expected {
                    return Err(label.corrupt("a page of the headers is missing"));
                }
                expected += 1;
                let mut at = 0;
                for length in &page.lacing {
                    let length = usize::from(*length);
                    // Comments may hold images of any size and are not kept.
                    if head.keeps(done) {
                        part.extend_from_slice(&page.body[at..at + length]);
                        if part.len() > MAX_PACKET_BYTES {
                            return Err(label.corrupt("a header is longer than any can be"));
                        }
                    }
                    at += length;
                    if length < 255 {
                        if head.keeps(done) {
                            headers.push(std::mem::take(&mut part));
                        }
                        done += 1;
                        if let Head::Flac { open_ended: true, .. } = head {
                            // The last metadata block says so.
                            if headers
                                .last()
                                .is_some_and(|block: &Vec<u8>| block.first().is_some_and(|b| b & 0x80 != 0))
                            {
                                done = wanted;
                            }
                            headers.clear();
                        }
                    }
                }
            }
            page = pages.next()?.ok_or_else(|| label.corrupt("it ends among its headers"))?;
        }
        while page.serial != serial {
            if page.first {
                return Err(label.corrupt("another track begins among the headers"));
            }
            page = pages.next()?.ok_or_else(|| label.corrupt("it ends after its headers"))?;
        }
        let sequence = expected;
        let (decoder, rate_hz, channels, pre_skip) = head.decoder(&headers, &label)?;
        label.check_channels(channels)?;
        let link = Self {
            serial,
            sequence,
            rate_hz,
            decoder,
            part: Vec::new(),
            skip: pre_skip,
            pre_skip,
            origin: None,
            given: 0,
            ended: false,
        };
        Ok((link, page))
    }

    /// Decodes the packets that end on a page.
    fn page(&mut self, page: &Page, label: &Label, mono: &mut Vec<f32>) -> Result<(), MediaError> {
        if page.sequence != self.sequence {
            return Err(label.corrupt(format!("page {} is missing", self.sequence)));
        }
        self.sequence = self.sequence.wrapping_add(1);
        if page.continued == self.part.is_empty() && !page.lacing.is_empty() {
            return Err(label.corrupt("a part of a packet is missing"));
        }
        let mut at = 0;
        for length in &page.lacing {
            let length = usize::from(*length);
            self.part.extend_from_slice(&page.body[at..at + length]);
            at += length;
            if self.part.len() > MAX_PACKET_BYTES {
                return Err(label.corrupt("a packet is longer than any can be"));
            }
            if length < 255 {
                let packet = std::mem::take(&mut self.part);
                // Packets without bytes carry nothing.
                if !packet.is_empty() {
                    let at = Timestamp::from(0);
                    self.decoder.decode(&Packet::new(0, at, Duration::from(0u64), packet), mono)?;
                }
                if mono.len() > MAX_PAGE_FRAMES {
                    return Err(label.corrupt("a page holds more audio than any can"));
                }
            }
        }
        let decoded = mono.len() as i64;
        if self.origin.is_none() && page.granule >= 0 {
            // A recording of a stream begins late, which is no silence. A counter that is behind the samples means that
            // the first of them are to be cut off, except on a last page, where the last ones are.
            let origin = page.granule.saturating_sub(decoded);
            self.origin = Some(if page.last { origin.max(0) } else { origin });
            if origin < 0 && !page.last {
                self.skip = self.skip.max(origin.unsigned_abs());
            }
        }
        let skip = self.skip.min(mono.len() as u64);
        mono.drain(..skip as usize);
        self.skip -= skip;
        self.given += mono.len() as u64;
        Ok(())
    }

    /// Frames that there should be when the counter stands at `granule`.
    fn total(&self, granule: i64) -> u64 {
        let since = granule.saturating_sub(self.origin.unwrap_or(0).max(0));
        u64::try_from(since).unwrap_or(0).saturating_sub(self.pre_skip)
    }
}

/// The first packet of a track of audio.
enum Head {
    Vorbis { identification: Vec<u8>, rate_hz: u32, channels: usize },
    Opus(OpusHead),
    Flac { info: Vec<u8>, rate_hz: u32, channels: usize, blocks: usize, open_ended: bool },
}

/// A track that is not read here.
struct Other {
    words: &'static str,
    sound: bool,
}

impl Head {
    /// Tells what a track is from its first packet.
    fn read(packet: &[u8], label: &Label) -> Result<Result<Self, Other>, MediaError> {
        let other = |words, sound| Ok(Err(Other { words, sound }));
        match packet {
            [1, b'v', b'o', b'r', b'b', b'i', b's', rest @ ..] if rest.len() >= 22 => {
                let channels = usize::from(rest[4]);
                label.check_channels(channels)?;
                let rate_hz = u32::from_le_bytes([rest[5], rest[6], rest[7], rest[8]]);
                Ok(Ok(Self::Vorbis { identification: packet.to_vec(), rate_hz, channels }))
            }
            [b'O', b'p', b'u', b's', b'H', b'e', b'a', b'd', ..] => Ok(Ok(Self::Opus(OpusHead::read(packet, label)?))),
            [0x7f, b'F', b'L', b'A', b'C', _, _, high, low, b'f', b'L', b'a', b'C', _, _, _, _, info @ ..]
                if info.len() >= 34 =>
            {
                let rate_hz = u32::from_be_bytes([0, info[10], info[11], info[12]]) >> 4;
                let channels = usize::from((info[12] >> 1) & 7) + 1;
                let blocks = usize::from(u16::from_be_bytes([*high, *low]));
                let open_ended = blocks == 0;
                let blocks = if open_ended { usize::MAX } else { blocks };
                Ok(Ok(Self::Flac { info: info[..34].to_vec(), rate_hz, channels, blocks, open_ended }))
            }
            [b'S', b'p', b'e', b'e', b'x', b' ', ..] => other("Speex", true),
            [0x80, b't', b'h', b'e', b'o', b'r', b'a', ..] => other("a video without audio", false),
            [b'f', b'i', b's', b'h', b'e', b'a', b'd', ..] => other("an index of tracks", false),
            [b'B', b'B', b'C', b'D', ..] => other("a video without audio", false),
            [b'P', b'C', b'M', b' ', ..] => other("plain samples in Ogg", true),
            _ => other("a track that is not known", false),
        }
    }

    /// Packets between the first one and the audio.
    fn more_headers(&self) -> usize {
        match self {
            Self::Vorbis { .. } => 2,
            Self::Opus(_) => 1,
            Self::Flac { blocks, .. } => *blocks,
        }
    }

    /// Whether a header, counted from the second, is needed.
    fn keeps(&self, index: usize) -> bool {
        match self {
            Self::Vorbis { .. } => index == 1,
            Self::Opus(_) => false,
            Self::Flac { open_ended, .. } => *open_ended,
        }
    }

    /// The decoder, the rate, the channels, and the frames to cut off at the start.
    fn decoder(&self, headers: &[Vec<u8>], label: &Label) -> Result<(PacketDecoder, u32, usize, u64), MediaError> {
        let parameters = |codec, rate_hz: u32, channels: usize, extra: Vec<u8>| {
            let mut parameters = AudioCodecParameters::new();
            parameters.for_codec(codec).with_sample_rate(rate_hz).with_extra_data(extra.into());
            if let Some(positions) = Position::from_count(channels as u32) {
                parameters.with_channels(Channels::Positioned(positions));
            }
            parameters
        };
        match self {
            Self::Vorbis { identification, rate_hz, channels } => {
                let mut extra = identification.clone();
                extra.extend_from_slice(headers.first().map_or(&[][..], Vec::as_slice));
                label.check_rate(*rate_hz, true)?;
                let parameters = parameters(CODEC_ID_VORBIS, *rate_hz, *channels, extra);
                Ok((PacketDecoder::new(&parameters, label)?, *rate_hz, *channels, 0))
            }
            Self::Opus(head) => Ok((PacketDecoder::opus(head, label)?, RATE_HZ, head.channels, head.pre_skip)),
            Self::Flac { info, rate_hz, channels, .. } => {
                label.check_rate(*rate_hz, true)?;
                let parameters = parameters(CODEC_ID_FLAC, *rate_hz, *channels, info.clone());
                Ok((PacketDecoder::new(&parameters, label)?, *rate_hz, *channels, 0))
            }
        }
    }
}

/// The pages of a file, one after the other.
struct Pages {
    input: Buffered,
    label: Label,
}

impl Pages {
    /// What the last page of the file counts, if that page belongs to a track. Goes back to where it was.
    fn last_granule(&mut self, serial: u32) -> Result<Option<i64>, MediaError> {
        const LONGEST_PAGE: u64 = 27 + 255 + 255 * 255;
        let failed = |error: std::io::Error| self.label.corrupt(error);
        let at = self.input.at().map_err(failed)?;
        let length = self.input.length();
        let mut tail = Vec::new();
        self.input.go(length.saturating_sub(LONGEST_PAGE)).map_err(failed)?;
        self.input.fill(&mut tail, LONGEST_PAGE as usize).map_err(failed)?;
        self.input.go(at).map_err(failed)?;
        let page = tail.windows(27).rev().find(|page| page.starts_with(b"OggS"));
        let found = page.filter(|page| page[14..18] == serial.to_le_bytes());
        Ok(found.map(|page| i64::from_le_bytes(std::array::from_fn(|i| page[6 + i]))))
    }

    /// Goes to the next first page of a track behind a place, if there is one. A page that goes on with a track behind
    /// bytes that are none means damage.
    fn find_page(&mut self, mut at: u64) -> Result<bool, MediaError> {
        const WINDOW: usize = 1 << 16;
        let mut bytes = Vec::new();
        loop {
            let failed = |error: std::io::Error| self.label.corrupt(error);
            self.input.go(at).map_err(failed)?;
            self.input.fill(&mut bytes, WINDOW).map_err(failed)?;
            let page = bytes.windows(6).position(|page| page.starts_with(b"OggS\0"));
            if let Some(place) = page {
                if bytes[place + 5] & 2 == 0 {
                    return Err(self.label.corrupt("bytes that are no page stand between pages"));
                }
                self.input.go(at + place as u64).map_err(failed)?;
                return Ok(true);
            }
            if bytes.len() < WINDOW {
                return Ok(false);
            }
            at += (WINDOW - 5) as u64;
        }
    }

    /// The next page; `None` at the end of the file.
    fn next(&mut self) -> Result<Option<Page>, MediaError> {
        let label = self.label.clone();
        let failed = |error: std::io::Error| label.corrupt(error);
        let mut raw = Vec::new();
        self.input.fill(&mut raw, 27).map_err(failed)?;
        // Some writers pad the end of a file with zeros, and some taggers append to it; another file may be joined there.
        let tag = [&b"TAG"[..], b"APETAGEX", b"ID3"].iter().any(|name| raw.starts_with(name));
        if raw.first().is_none_or(|byte| *byte == 0) || tag {
            let at = self.input.at().map_err(failed)? - raw.len() as u64;
            if !self.find_page(at)? {
                return Ok(None);
            }
            self.input.fill(&mut raw, 27).map_err(failed)?;
        }
        let cut = || label.corrupt("a page is cut short");
        if !raw.starts_with(b"OggS"[..raw.len().min(4)].as_ref()) {
            return Err(label.corrupt("bytes that are no page stand between pages"));
        }
        if raw.len() < 27 {
            return Err(cut());
        }
        if raw[4] != 0 {
            return Err(label.unsupported(format!("found an Ogg page of version {}", raw[4])));
        }
        let mut lacing = Vec::new();
        self.input.fill(&mut lacing, usize::from(raw[26])).map_err(failed)?;
        let length = lacing.iter().map(|part| usize::from(*part)).sum();
        let mut body = Vec::new();
        self.input.fill(&mut body, length).map_err(failed)?;
        if lacing.len() < usize::from(raw[26]) || body.len() < length {
            return Err(cut());
        }
        let word = |at: usize| u32::from_le_bytes([raw[at], raw[at + 1], raw[at + 2], raw[at + 3]]);
        let stated = word(22);
        let granule = i64::from_le_bytes(std::array::from_fn(|i| raw[6 + i]));
        let (serial, sequence, flags) = (word(14), word(18), raw[5]);
        raw[22..26].fill(0);
        if checksum(raw.iter().chain(&lacing).chain(&body)) != stated {
            return Err(label.corrupt("the checksum of a page does not fit"));
        }
        let [continued, first, last] = [1, 2, 4].map(|bit| flags & bit != 0);
        Ok(Some(Page { continued, first, last, granule, serial, sequence, lacing, body }))
    }
}

/// The checksum of pages: polynomial 0x04c11db7, from zero, not reflected.
fn checksum<'a>(bytes: impl Iterator<Item = &'a u8>) -> u32 {
    static TABLE: std::sync::LazyLock<Arc<[u32]>> = std::sync::LazyLock::new(|| {
        (0..256u32)
            .map(|byte| (0..8).fold(byte << 24, |sum, _| (sum << 1) ^ if sum >> 31 == 1 { 0x04c1_1db7 } else { 0 }))
            .collect()
    });
    bytes.fold(0, |sum, byte| (sum << 8) ^ TABLE[((sum >> 24) as u8 ^ byte) as usize])
}
